//! What any bytes must not do to the readers of commands and policy files; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; it is part of no decision.

use super::shell::split;
use super::{Layer, parse};

/// Splits a text: it ends, and a segment that is known to the last word has a program.
pub fn shell(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let one = split(&text);
    assert_eq!(one, split(&text), "the same text is split the same way");
    for segment in &one.segments {
        // A word that is plain is a word of the text, but for quotes and escapes: it can not be longer.
        let plain = segment.plain().unwrap_or_default();
        assert!(plain.iter().all(|word| word.len() <= text.len().saturating_mul(4)), "a word grew");
    }
}

/// Reads a policy file in each layer: it ends, and what a project may not say is refused.
pub fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for layer in [Layer::BuiltIn, Layer::Organisation, Layer::User, Layer::Project] {
        // A mistake is what most bytes are; reading it twice gives it twice.
        let [one, two] = [(); 2].map(|()| parse(layer, "fuzz", &text).map(|_| ()));
        assert_eq!(one, two);
    }
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let seeds = [include_bytes!("default.toml").as_slice(), b"[[rule]]\nid = \"a\"\nargv = [\"cargo\", [\"test\"]]\ndecision = \"ask\"\n"];
    tinkerbell_testkit::hammer::hammer(&seeds, 600, policy);
    let seeds =
        [&b"cd a && FOO=1 cargo 'te''st' \"$(x)\" | tee f > g 2>&1; (b & c) || { d; }"[..], b"cat <<E\n$x\nE\nfor i in a; do b; done"];
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, shell);
}
