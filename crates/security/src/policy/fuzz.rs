//! What any bytes must not do to the readers of commands and policy files; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; it is part of no decision.

use super::provenance::Taint;
use super::shell::split;
use super::{Around, BUILT_IN, Call, Decision, Layer, RuleSet, Weighing, judge, lint_grant, offer, parse, relax, weigh};
use crate::grants;
use std::sync::LazyLock;
use tinkerbell_core::port::{Grounds, Level};

/// The built-in rules, and some that ask.
static RULES: LazyLock<Vec<RuleSet>> = LazyLock::new(|| {
    const ASKS: &str = "[[rule]]\nid = \"push\"\nargv = [\"git\", \"push\"]\ndecision = \"ask\"\n\
        [[rule]]\nid = \"many\"\nargv = [[\"make\", \"xargs\", \"find\", \"python3\", \"npm\"]]\ndecision = \"ask\"\n";
    [(Layer::BuiltIn, BUILT_IN), (Layer::User, ASKS)].into_iter().filter_map(|(layer, text)| parse(layer, "fuzz", text).ok()).collect()
});

/// Splits a text and judges it: it ends, and what would be offered for good answers what was asked.
pub fn shell(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let one = split(&text);
    assert_eq!(one, split(&text), "the same text is split the same way");
    for segment in &one.segments {
        // A word that is plain is a word of the text, but for quotes and escapes: it can not be longer.
        let plain = segment.plain().unwrap_or_default();
        assert!(plain.iter().all(|word| word.len() <= text.len()), "a word grew");
    }
    // The tables of risk are long; nobody writes commands of this length.
    if text.len() <= 4096 {
        judged(&text);
    }
}

fn judged(text: &str) {
    let call = Call { tool: "exec", runs: true, level: Some(Level::Full), writes: &[], deletes: 0, mcp: None };
    let sets: Vec<&RuleSet> = RULES.iter().collect();
    let mut verdict = judge(&call, Some(text), &sets, None);
    assert_eq!(verdict, judge(&call, Some(text), &sets, None));
    let grounds = Grounds { words: ["fix it".to_owned()].into(), untrusted: [text.to_owned()].into(), ..Grounds::default() };
    let weight = weigh(&Weighing { call: &call, command: Some(text), args: text, is_pure: false, reaches: true, grounds: &grounds });
    if let Some(Taint::Copied(part)) = weight.tainted {
        assert!(text.to_lowercase().contains(&part) || part.contains(' '), "{part}");
    }
    let around = Around { programs: None, risk: weight.risk, now_ms: 5 };
    let Some(grant) = offer(&verdict, text, &sets, around) else { return };
    assert_eq!(lint_grant(&grant), Ok(()));
    assert_eq!(verdict.opaque, None, "what can not be read is never offered");
    relax(&mut verdict, text, (&[("task", grant)], &sets), around);
    assert_eq!(verdict.decision, Decision::Allow, "what is offered answers the question");
}

/// Reads a policy file in each layer, and a file of grants: it ends, and what would allow anything is refused.
pub fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    for layer in [Layer::BuiltIn, Layer::Organisation, Layer::User, Layer::Project] {
        // A mistake is what most bytes are; reading it twice gives it twice.
        let [one, two] = [(); 2].map(|()| parse(layer, "fuzz", &text).map(|_| ()));
        assert_eq!(one, two);
    }
    for filed in grants::parse(&text).unwrap_or_default() {
        let words: Vec<&str> = filed.grant.argv.iter().map(String::as_str).collect();
        assert_eq!(lint_grant(&filed.grant), Ok(()));
        assert!(filed.grant.fits(&words) && !filed.grant.fits(&[&["env"], words.as_slice()].concat()), "{words:?}");
    }
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let grants = include_bytes!("../../tests/golden/v1/grants.toml").as_slice();
    let seeds =
        [grants, include_bytes!("default.toml").as_slice(), b"[[rule]]\nid = \"a\"\nargv = [\"cargo\", [\"test\"]]\ndecision = \"ask\"\n"];
    tinkerbell_testkit::hammer::hammer(&seeds, 600, policy);
    let seeds = [
        &b"git push --tags +a origin && ls"[..],
        b"cd a && FOO=1 cargo 'te''st' \"$(x)\" | tee f > g 2>&1; (b & c) || { d; }",
        b"cat <<E\n$x\nE\nfor i in a; do b; done",
    ];
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, shell);
}
