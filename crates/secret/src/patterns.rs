//! Values that nobody told us of, known by their looks.
//!
//! Only forms with a fixed beginning that their makers chose so that they can be found: a guess by
//! randomness would hide hashes and code. These rules are for what leaves the machine and for our own
//! log; the journal and what commands print know exact values alone. Invariant: a text without one of
//! the beginnings comes back untouched and uncopied.

use std::borrow::Cow;

/// How the rest of a value looks behind its fixed beginning.
struct Rule {
    /// What it is, for the mark.
    name: &'static str,
    begins: &'static str,
    /// Signs that follow.
    signs: fn(u8) -> bool,
    /// Fewest of them.
    least: usize,
    /// Most of them; a longer run is something else.
    most: usize,
}

const fn word(b: u8) -> bool {
    b.is_ascii_alphanumeric()
}

const fn upper(b: u8) -> bool {
    b.is_ascii_uppercase() || b.is_ascii_digit()
}

const fn token(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_' || b == b'-'
}

const ANY: usize = usize::MAX;

/// The longer beginning first, where one begins with another.
const RULES: [Rule; 19] = [
    Rule { name: "AWS key", begins: "AKIA", signs: upper, least: 16, most: 16 },
    Rule { name: "AWS key", begins: "ASIA", signs: upper, least: 16, most: 16 },
    Rule { name: "GitHub token", begins: "ghp_", signs: word, least: 36, most: 255 },
    Rule { name: "GitHub token", begins: "gho_", signs: word, least: 36, most: 255 },
    Rule { name: "GitHub token", begins: "ghu_", signs: word, least: 36, most: 255 },
    Rule { name: "GitHub token", begins: "ghs_", signs: word, least: 36, most: 255 },
    Rule { name: "GitHub token", begins: "ghr_", signs: word, least: 36, most: 255 },
    Rule { name: "GitHub token", begins: "github_pat_", signs: token, least: 40, most: 255 },
    Rule { name: "GitLab token", begins: "glpat-", signs: token, least: 20, most: 255 },
    Rule { name: "Anthropic key", begins: "sk-ant-", signs: token, least: 32, most: 255 },
    Rule { name: "OpenRouter key", begins: "sk-or-", signs: token, least: 32, most: 255 },
    Rule { name: "OpenAI key", begins: "sk-proj-", signs: token, least: 40, most: 255 },
    Rule { name: "OpenAI key", begins: "sk-", signs: word, least: 40, most: 128 },
    Rule { name: "Slack token", begins: "xoxb-", signs: token, least: 30, most: 255 },
    Rule { name: "Slack token", begins: "xoxp-", signs: token, least: 30, most: 255 },
    Rule { name: "Google key", begins: "AIza", signs: token, least: 35, most: 35 },
    Rule { name: "npm token", begins: "npm_", signs: word, least: 36, most: 36 },
    Rule { name: "PyPI token", begins: "pypi-AgEIcHlwaS", signs: token, least: 50, most: ANY },
    Rule { name: "Hugging Face token", begins: "hf_", signs: word, least: 34, most: 34 },
];

/// Beginning and end of a private key's file.
const BEGIN: &str = "-----BEGIN ";
const KEY: &str = "PRIVATE KEY-----";
const END: &str = "-----END ";
/// Longest label between both, and longest key.
const LABEL_BYTES: usize = 24;
const KEY_BYTES: usize = 16 << 10;

/// The text with `[hidden: KIND]` in place of what looks like a secret of a known maker.
#[must_use]
pub fn hide(text: &str) -> Cow<'_, str> {
    let mut out: Option<String> = None;
    let (mut kept, mut from) = (0, 0);
    while let Some((at, end, name)) = next(text, from) {
        let out = out.get_or_insert_with(|| String::with_capacity(text.len()));
        out.push_str(text.get(kept..at).unwrap_or_default());
        out.push_str("[hidden: ");
        out.push_str(name);
        out.push(']');
        (kept, from) = (end, end);
    }
    match out {
        None => Cow::Borrowed(text),
        Some(mut out) => {
            out.push_str(text.get(kept..).unwrap_or_default());
            Cow::Owned(out)
        }
    }
}

/// The next value from `from` on: where it stands and what it is.
fn next(text: &str, from: usize) -> Option<(usize, usize, &'static str)> {
    let bytes = text.as_bytes();
    let is_first = |b: u8| matches!(b, b'A' | b'g' | b's' | b'x' | b'n' | b'p' | b'h' | b'-');
    let mut at = from;
    loop {
        at += bytes.get(at..)?.iter().position(|b| is_first(*b))?;
        let is_inside = at.checked_sub(1).and_then(|before| bytes.get(before)).is_some_and(|b| word(*b) || *b == b'_');
        let rest = text.get(at..)?;
        if rest.starts_with(BEGIN) {
            if let Some(len) = private_key(rest) {
                return Some((at, at + len, "private key"));
            }
        } else if !is_inside && let Some((len, name)) = RULES.iter().find_map(|rule| Some((matched(rule, rest)?, rule.name))) {
            return Some((at, at + len, name));
        }
        at += 1;
    }
}

fn matched(rule: &Rule, text: &str) -> Option<usize> {
    let rest = text.strip_prefix(rule.begins)?.as_bytes();
    let len = rest.iter().position(|b| !(rule.signs)(*b)).unwrap_or(rest.len());
    let value = rest.get(..len)?;
    // Words joined by hyphens have no digits; keys without any are too rare to hide prose for.
    let is_random = value.iter().any(u8::is_ascii_digit) && value.iter().any(u8::is_ascii_alphabetic);
    (len >= rule.least && len <= rule.most && is_random).then_some(rule.begins.len() + len)
}

/// How long the key is that begins here, its last line included.
fn private_key(text: &str) -> Option<usize> {
    // Looked for no further than it may stand: in a text full of beginnings each would be searched to the end.
    let label = beginning(text.get(BEGIN.len()..)?, LABEL_BYTES + KEY.len());
    let label = label.get(..label.find(KEY)?)?;
    let head = BEGIN.len() + label.len() + KEY.len();
    let body = text.get(head..)?;
    let end = format!("{END}{label}{KEY}");
    let len = beginning(body, KEY_BYTES + end.len()).find(&end)?;
    // A marker in source code that looks for keys has no key between both.
    let inner = body.get(..len)?;
    (inner.bytes().filter(|b| word(*b)).count() >= 32).then_some(head + len + end.len())
}

fn beginning(text: &str, most: usize) -> &str {
    text.get(..text.floor_char_boundary(most)).unwrap_or(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random(len: usize) -> String {
        "a1B2c3D4e5".chars().cycle().take(len).collect()
    }

    #[test]
    fn values_with_a_known_beginning_are_hidden() {
        let values = [
            ("AKIA".to_owned() + "IOSFODNN7EXAMPLE", "AWS key"),
            ("ghp_".to_owned() + &random(36), "GitHub token"),
            ("github_pat_".to_owned() + &random(60), "GitHub token"),
            ("sk-ant-".to_owned() + "api03-" + &random(90), "Anthropic key"),
            ("sk-".to_owned() + &random(48), "OpenAI key"),
            ("sk-proj-".to_owned() + &random(80), "OpenAI key"),
            ("xoxb-".to_owned() + "123456789012-123456789012-" + &random(24), "Slack token"),
            ("AIza".to_owned() + &random(35), "Google key"),
            ("hf_".to_owned() + &random(34), "Hugging Face token"),
        ];
        for (value, name) in values {
            for text in [value.clone(), format!("key=\"{value}\";"), format!("é{value}\n")] {
                assert_eq!(hide(&text), text.replace(&value, &format!("[hidden: {name}]")), "{text}");
            }
        }
    }

    #[test]
    fn a_private_key_is_hidden_whole() {
        let key = |label: &str| format!("-----BEGIN {label}{KEY}\n{}\n{}\n{END}{label}{KEY}", random(64), random(20));
        let text = format!("a\n{}\nb {} c", key("RSA "), key(""));
        assert_eq!(hide(&text), "a\n[hidden: private key]\nb [hidden: private key] c");
    }

    /// A megabyte of beginnings took the square of its length: 55 s, optimised; now 0.08 s.
    #[test]
    fn a_text_full_of_beginnings_is_read_once() {
        let text = BEGIN.repeat((1 << 20) / BEGIN.len());
        assert!(matches!(hide(&text), Cow::Borrowed(_)));
        let text = format!("{BEGIN}{KEY}").repeat(10_000);
        assert!(matches!(hide(&text), Cow::Borrowed(_)));
    }

    #[test]
    fn code_is_left_alone() {
        let texts = [
            "if text.contains(\"-----BEGIN PRIVATE KEY-----\") || x == \"-----END PRIVATE KEY-----\" {",
            "-----BEGIN CERTIFICATE-----\nMIIB\n-----END CERTIFICATE-----",
            "const PREFIX: &str = \"ghp_\"; // AKIA, sk-ant-, xoxb-",
            "sk-learn sk-estimator-with-a-very-long-name-that-is-no-key-at-all-but-prose",
            "risk-a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5a1b2c3d4e5",
            "AKIAIOSFODNN7EXAMPLEX AKIAiosfodnn7example",
            "d2f3a4b5c6d7e8f9a0b1c2d3e4f5a6b7c8d9e0f1 sha256-47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
        ];
        for text in texts {
            assert!(matches!(hide(text), Cow::Borrowed(_)), "{text} → {}", hide(text));
        }
    }
}
