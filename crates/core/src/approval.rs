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

/// A command that a person allowed for more than once: all of its words; or, of the few commands of which it is
/// known that nothing behind their beginning makes another deed of them, that beginning and options.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grant {
    /// Its name.
    pub id: String,
    /// All words, or the first ones.
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

    /// Whether a command, given word by word, is one that it allows: the same words and no others, or its beginning
    /// where that is complete.
    ///
    /// One that an earlier release wrote down may be a beginning that is not complete: it allows the command that is
    /// just that, or nothing where options belong to it.
    #[must_use]
    pub fn covers(&self, words: &[&str]) -> bool {
        if is_complete(&self.argv, &self.options) {
            return self.fits(words);
        }
        self.options.is_empty() && !self.argv.is_empty() && words == self.argv
    }

    /// Whether a command begins like it, and goes on with nothing but words and its options.
    ///
    /// What follows the beginning must be an option of the list or begin like a name or a path: a leading `+` or `:`
    /// changes what some programs do as much as an option does, and behind `@` some read more words from a file.
    #[must_use]
    pub fn fits(&self, words: &[&str]) -> bool {
        let begins =
            !self.argv.is_empty() && words.len() >= self.argv.len() && self.argv.iter().zip(words).all(|(wanted, word)| wanted == word);
        let rest = words.get(self.argv.len()..).unwrap_or_default();
        begins && rest.iter().all(|word| is_plain(word) || self.options.iter().any(|option| option == word))
    }
}

/// A beginning that is complete, and the options that may stand behind it. An option is here only if the deed is
/// also the same without it: a command that shows with `--check` writes without.
type Complete = (&'static [&'static str], &'static [&'static str], &'static [&'static str]);

const CARGO: &[&str] = &[
    "-p",
    "--package",
    "--workspace",
    "--all-targets",
    "--all-features",
    "--lib",
    "--bins",
    "--tests",
    "--release",
    "-q",
    "--quiet",
    "-v",
    "--verbose",
];
/// Programs, their subcommands, options. Few on purpose: whatever follows, `cargo test` tests, and `ls` lists. Not
/// `npm test`, whose script may be `make`.
const COMPLETE: [Complete; 5] = [
    (&["cargo"], &["build", "check", "test", "clippy", "fmt"], CARGO),
    (&["go"], &["build", "test", "vet"], &["-v", "-race", "-short"]),
    (&["git"], &["status", "diff", "log", "show"], &["--stat", "--oneline", "--name-only"]),
    (&["pytest"], &[], &["-q", "-v", "-vv", "-x", "-s", "-k"]),
    (&["ls"], &[], &["-a", "-A", "-l", "-la", "-al", "-lh", "-h", "-R", "-1"]),
];

/// Whether a beginning with these options says all that is done: what may follow are only arguments of it.
#[must_use]
pub fn is_complete(argv: &[String], options: &[String]) -> bool {
    let known = |all: &[&str], word: &String| all.contains(&word.as_str());
    COMPLETE.iter().any(|(programs, subs, open)| {
        let begins = match argv {
            [program] => subs.is_empty() && known(programs, program),
            [program, sub] => known(programs, program) && known(subs, sub),
            _ => false,
        };
        begins && options.iter().all(|option| known(open, option))
    })
}

/// What a grant of these words and options allows, for people.
#[must_use]
pub fn told(argv: &[String], options: &[String]) -> String {
    let words = quoted(argv);
    let with = if options.is_empty() { String::new() } else { format!(" with {}", quoted(options)) };
    match (is_complete(argv, options), options.is_empty()) {
        (true, _) => format!("`{words} …`{with}"),
        (false, true) => format!("`{words}`"),
        (false, false) => format!("`{words} …`{with} (too wide: it answers nothing any more)"),
    }
}

/// Words as a shell would read them again, each in quotes where it needs them.
#[must_use]
pub fn quoted(words: &[String]) -> String {
    let quote = |(at, word): (usize, &String)| {
        // Before the program `=` would set a variable.
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./:@%+,".contains(&byte) || (byte == b'=' && at > 0);
        let is_bare = !word.is_empty() && word.bytes().all(plain);
        if is_bare { word.clone() } else { format!("'{}'", word.replace('\'', "'\\''")) }
    };
    words.iter().enumerate().map(quote).collect::<Vec<_>>().join(" ")
}

fn is_plain(word: &str) -> bool {
    word.starts_with(|first: char| first.is_ascii_alphanumeric() || matches!(first, '_' | '.' | '/'))
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
        for (text, fits) in [
            ("git push", true),
            ("git push origin main", true),
            ("git push --tags origin ./a /b _d", true),
            ("git push @x", false),
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
            assert_eq!(grant.fits(&words(text)), fits, "{text}");
            // An earlier release allowed what begins like this.
            assert!(!grant.covers(&words(text)), "{text}");
        }
        assert!(!Grant::default().covers(&["a"]), "an empty beginning covers nothing");
        assert!(grant.holds(9) && !grant.holds(10) && Grant::default().holds(u64::MAX));
    }

    #[test]
    fn a_grant_is_about_all_words_but_for_a_few_complete_beginnings() {
        for (argv, options, text, covered) in [
            ("git push origin", "", "git push origin", true),
            ("git push origin", "", "git push origin main", false),
            ("git push", "", "git push origin", false),
            ("cargo test", "-p", "cargo test -p wal x", true),
            ("cargo test", "-p", "cargo test -v", false),
            ("cargo test", "--config", "cargo test", false),
            ("cargo test", "--config", "cargo test --config x", false),
            ("cargo test x", "", "cargo test y", false),
            ("cargo", "", "cargo test", false),
            ("cargo fmt --check", "", "cargo fmt", false),
            ("ls", "-l", "ls -l src", true),
            ("ls", "", "ls @x", false),
            ("cat a", "", "cat b", false),
            ("npm test", "", "npm test deploy", false),
        ] {
            let words = |text: &str| text.split(' ').filter(|word| !word.is_empty()).map(str::to_owned).collect::<Vec<_>>();
            let grant = Grant { argv: words(argv), options: words(options), ..Grant::default() };
            assert_eq!(grant.covers(&text.split(' ').collect::<Vec<_>>()), covered, "{argv} {options} / {text}");
        }
        let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        assert_eq!(told(&owned(&["cargo", "test"]), &owned(&["-p"])), "`cargo test …` with -p");
        assert_eq!(told(&owned(&["psql", "-c", "it's 1"]), &[]), r"`psql -c 'it'\''s 1'`");
        assert_eq!(told(&owned(&["A=1", "A=1", ""]), &[]), "`'A=1' A=1 ''`");
        assert!(told(&owned(&["git", "push"]), &owned(&["--tags"])).contains("answers nothing"));
    }
}
