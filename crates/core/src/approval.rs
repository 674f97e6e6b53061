//! Approvals: what a person's word is bound to, and what it allows beyond one deed.
//!
//! Only the canonical bytes stand here; whoever needs their digest hashes them. Invariant: two lists
//! of facts that differ anywhere, in a name, a value, their order or number, have different bytes.

/// Names the form of the bytes; a new form gets a new name, so that older approvals do not fit it.
pub const FORM: &str = "tinkerbell approval 1";

/// A name and a value that an approval is bound to.
pub type Fact = (String, String);

/// What a call would do here and now, as the part that would do it sees it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bound {
    /// What is bound, in order; names may recur.
    pub facts: Vec<Fact>,
    /// What a person is shown in place of the arguments, where that says more: a diff.
    pub shown: Option<String>,
}

/// An approval on its way to the deed that it allows.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Approved {
    /// SHA-256 over [`canonical`] of the other fields, hexadecimal.
    pub digest: String,
    /// All that was bound.
    pub facts: Vec<Fact>,
    /// Void from this moment on, wall time in milliseconds since the epoch.
    pub expires_ms: u64,
    /// Makes this approval differ from every other one of the same deed.
    pub nonce: String,
}

/// A command that a person allowed for more than once: its beginning, and the options that may follow.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Its name.
    pub id: String,
    /// The first words.
    pub argv: Vec<String>,
    /// Options that may follow; others must not.
    pub options: Vec<String>,
    /// The command that it was made for.
    pub example: String,
    /// Holds until then, wall time in milliseconds since the epoch; 0 for the end of its task.
    pub expires_ms: u64,
}

impl Grant {
    /// Whether it holds at `now_ms`.
    #[must_use]
    pub const fn holds(&self, now_ms: u64) -> bool {
        self.expires_ms == 0 || now_ms < self.expires_ms
    }

    /// Whether a command, given word by word, is one that it allows.
    ///
    /// What follows the beginning must be an option of the list or begin like a name or a path: a
    /// leading `+` or `:` changes what some programs do as much as an option does.
    #[must_use]
    pub fn covers(&self, words: &[&str]) -> bool {
        let begins =
            !self.argv.is_empty() && words.len() >= self.argv.len() && self.argv.iter().zip(words).all(|(wanted, word)| wanted == word);
        let rest = words.get(self.argv.len()..).unwrap_or_default();
        begins && rest.iter().all(|word| is_plain(word) || self.options.iter().any(|option| option == word))
    }
}

fn is_plain(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '_' | '.' | '/' | '@'))
}

/// The bytes that an approval's digest is over.
///
/// Each part is led by its length in eight bytes, the least first: the form, the number of facts, each
/// fact's name and value, the expiry in decimal, the nonce.
#[must_use]
pub fn canonical(facts: &[Fact], expires_ms: u64, nonce: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut part = |text: &str| {
        bytes.extend(u64::try_from(text.len()).unwrap_or(u64::MAX).to_le_bytes());
        bytes.extend(text.as_bytes());
    };
    part(FORM);
    part(&facts.len().to_string());
    for (name, value) in facts {
        part(name);
        part(value);
    }
    part(&expires_ms.to_string());
    part(nonce);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect_file;
    use std::fmt::Write as _;

    fn facts(all: &[(&str, &str)]) -> Vec<Fact> {
        all.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn the_canonical_form_stays_as_it_is() {
        let bytes = canonical(&facts(&[("argv", "/bin/sh"), ("argv", "-c"), ("argv", "make ü"), ("cwd", "")]), 1_700_000_000_000, "n0nce");
        let text = bytes.chunks(16).fold(String::new(), |mut text, line| {
            line.iter().for_each(|byte| write!(text, "{byte:02x}").unwrap());
            text + "\n"
        });
        expect_file!["../tests/golden/v1/approval.txt"].assert_eq(&text);
    }

    #[test]
    fn no_part_flows_into_the_next() {
        let base = canonical(&facts(&[("a", "bc"), ("d", "")]), 5, "n");
        for (facts_of, expires_ms, nonce) in [
            (facts(&[("ab", "c"), ("d", "")]), 5, "n"),
            (facts(&[("a", "bc")]), 5, "n"),
            (facts(&[("d", ""), ("a", "bc")]), 5, "n"),
            (facts(&[("a", "bc"), ("d", ""), ("", "")]), 5, "n"),
            (facts(&[("a", "bc"), ("d", "")]), 6, "n"),
            (facts(&[("a", "bc"), ("d", "")]), 5, "m"),
            (facts(&[("a", "bc"), ("d", "")]), 5, ""),
        ] {
            assert_ne!(canonical(&facts_of, expires_ms, nonce), base, "{facts_of:?} {expires_ms} {nonce}");
        }
    }

    #[test]
    fn a_grant_covers_its_beginning_and_no_new_options() {
        let words = |text: &'static str| text.split(' ').collect::<Vec<_>>();
        let grant = Grant {
            argv: words("git push").into_iter().map(str::to_owned).collect(),
            options: vec!["--tags".to_owned()],
            expires_ms: 10,
            ..Grant::default()
        };
        for (text, covered) in [
            ("git push", true),
            ("git push origin main", true),
            ("git push --tags origin ./a /b @c _d", true),
            ("git push --force", false),
            ("git push -f", false),
            ("git push origin +main", false),
            ("git push origin :main", false),
            ("git pull", false),
            ("git", false),
            ("/usr/bin/git push", false),
            ("git push --tags=x", false),
            ("git push ~", false),
        ] {
            assert_eq!(grant.covers(&words(text)), covered, "{text}");
        }
        assert!(!Grant::default().covers(&["a"]), "an empty beginning covers nothing");
        assert!(grant.holds(9) && !grant.holds(10) && Grant::default().holds(u64::MAX));
    }
}
