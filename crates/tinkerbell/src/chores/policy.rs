//! `policy check | test | explain | show`: the rules in force, and what they would say.
//!
//! The files are read by the same code as in the daemon, and judged by the same matcher. Invariant:
//! nothing is run and nothing is changed.

use super::{Shop, repository};
use crate::clock::SystemClock;
use crate::config;
use crate::policy;
use serde_json::json;
use std::path::{Path, PathBuf};
use tinkerbell_cli::{Output, render_fault, visible};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{Grounds, Level};
use tinkerbell_security::grants;
use tinkerbell_security::policy::{self as rules, Around, Call, Decision, Layer, Programs, Reason, RuleSet, Verdict, Weighing, Weight};

/// One layer's file, read.
type Read = (Layer, Result<Option<RuleSet>, Fault>);

fn root(shop: &Shop<'_>) -> Option<PathBuf> {
    shop.cwd.map(|cwd| repository::root(cwd).unwrap_or_else(|| cwd.to_owned()))
}

/// All layers, each on its own, so that one mistake does not hide another.
fn all(shop: &Shop<'_>) -> Vec<Read> {
    let places = policy::places(shop.sources);
    let mut found = vec![
        (Layer::BuiltIn, rules::built_in().map(Some)),
        (Layer::Organisation, rules::read_file(Layer::Organisation, &places.organisation, &[0])),
        (Layer::User, rules::read_file(Layer::User, &places.user, &[0, places.uid])),
    ];
    found.extend(root(shop).map(|root| (Layer::Project, rules::project_file(&root))));
    found
}

/// Checks one file, or those of all layers.
///
/// # Errors
/// The last mistake; those before it are printed.
pub fn check(shop: &Shop<'_>, file: Option<&Path>, out: &Output) -> Result<u8, Fault> {
    let read = match file {
        None => all(shop),
        Some(path) => {
            let full = shop.cwd.map_or_else(|| path.to_owned(), |cwd| cwd.join(path));
            let layer = if full.ends_with(".tinkerbell/policy.toml") { Layer::Project } else { Layer::User };
            vec![(layer, one(layer, &full))]
        }
    };
    let mut faults = Vec::new();
    for (layer, set) in read {
        match set {
            Ok(Some(set)) => {
                set.warnings.iter().for_each(|warning| out.talk(&visible(&format!("warning: {warning}"))));
                let line = format!("{layer}: {} rules, {} examples  {}", set.rules.len(), set.examples, set.name);
                out.data(&visible(&line));
            }
            Ok(None) => out.talk(&format!("{layer}: no file")),
            Err(fault) => faults.push(fault),
        }
    }
    let Some(last) = faults.pop() else { return Ok(exit::DONE) };
    faults.iter().for_each(|fault| out.error(&render_fault(fault, false)));
    Err(last)
}

/// A file that somebody may still be writing: whose it is does not matter yet.
fn one(layer: Layer, path: &Path) -> Result<Option<RuleSet>, Fault> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        Fault::new("TB-POLICY-002", exit::CONFIG, format!("{} can not be read as policy: {error}", path.display()))
            .hint("name a readable file, or none to check those in force")
    })?;
    rules::parse(layer, &path.display().to_string(), &text).map(Some)
}

/// Tries all examples of all layers.
///
/// # Errors
/// The first mistake, a failing example among them.
pub fn test(shop: &Shop<'_>, json: bool, out: &Output) -> Result<u8, Fault> {
    let sets = in_force(shop)?;
    let examples: usize = sets.iter().map(|set| set.examples).sum();
    let count: usize = sets.iter().map(|set| set.rules.len()).sum();
    if json {
        let one = |set: &RuleSet| json!({"layer": set.layer.name(), "file": set.name, "rules": set.rules.len(), "examples": set.examples, "warnings": set.warnings});
        let layers: Vec<_> = sets.iter().map(one).collect();
        out.data(&json!({"rules": count, "examples": examples, "layers": layers}).to_string());
        return Ok(exit::DONE);
    }
    for set in &sets {
        out.data(&visible(&format!("{:<13} {:>5} rules  {:>5} examples  {}", set.layer.name(), set.rules.len(), set.examples, set.name)));
    }
    out.data(&format!("all {examples} examples of {count} rules do what they say"));
    Ok(exit::DONE)
}

fn in_force(shop: &Shop<'_>) -> Result<Vec<RuleSet>, Fault> {
    let sets: Result<Vec<Option<RuleSet>>, Fault> = all(shop).into_iter().map(|(_, set)| set).collect();
    Ok(sets?.into_iter().flatten().collect())
}

/// What a command is looked at for.
#[derive(Debug, Clone, Copy)]
pub struct Wish<'a> {
    /// The sandbox level.
    pub level: &'a str,
    /// The words of the task that it would be part of.
    pub goal: &'a str,
    /// As JSON.
    pub json: bool,
}

/// Says what would become of a command.
///
/// # Errors
/// The first mistake in a file.
pub fn explain(shop: &Shop<'_>, command: &str, wish: Wish<'_>, out: &Output) -> Result<u8, Fault> {
    let sets = in_force(shop)?;
    let level = match wish.level {
        "landlock" => Level::Landlock,
        "none" => Level::None,
        _ => Level::Full,
    };
    let programs = Programs::of(shop.env.get("PATH").unwrap_or_default(), root(shop).into_iter().collect());
    let call = Call { tool: "exec", mcp: None, runs: true, level: Some(level), writes: &[], deletes: 0 };
    let all: Vec<_> = sets.iter().collect();
    let mut verdict = rules::judge(&call, Some(command), &all, Some(&programs));
    let places = policy::places(shop.sources);
    let repository = root(shop).map(|root| root.canonicalize().unwrap_or(root)).unwrap_or_default();
    let filed = grants::read(&places.grants(), places.uid)?;
    let held: Vec<_> = filed.iter().filter_map(|one| one.held(&repository)).collect();
    // A broken configuration is told elsewhere; without one nothing is reached.
    let reaches = config::load(shop.sources, shop.env).is_ok_and(|loaded| policy::reaches(&loaded.config));
    let grounds = Grounds { words: [wish.goal.to_owned()].into(), ..Grounds::default() };
    let weight = rules::weigh(&Weighing { call: &call, command: Some(command), args: "", is_pure: false, reaches, grounds: &grounds });
    let around = Around { programs: Some(&programs), risk: weight.risk, now_ms: SystemClock.now().wall_ms };
    rules::relax(&mut verdict, command, (&held, &all), around);
    rules::settle(&mut verdict, &weight, false);
    if wish.json {
        out.data(&as_json(&verdict, &weight).to_string());
        return Ok(exit::DONE);
    }
    let line = |text: String| out.data(&visible(&text));
    line(format!("{}: {}", word(verdict.decision), verdict.why()));
    for command in &verdict.commands {
        let doubt = command.doubt.map(|doubt| format!("   ({doubt})")).unwrap_or_default();
        line(format!("  command  {}{doubt}", command.text));
        command.reasons.iter().for_each(|reason| line(format!("    {}", told(reason))));
    }
    if let Some(opaque) = verdict.opaque {
        line(format!("  the rest can not be read: {opaque}"));
    }
    line(format!("  at level {}", level.name()));
    verdict.reasons.iter().for_each(|reason| line(format!("    {}", told(reason))));
    line(format!("  risk     {}: {}", weight.risk.name(), weight.because));
    let words = if wish.goal.is_empty() { "  (--goal TEXT: by the words of a task)" } else { "" };
    line(format!("  asked    {}{words}", weight.authorisation.name()));
    Ok(exit::DONE)
}

fn told(reason: &Reason) -> String {
    let name = reason.name();
    let rule = if name.is_empty() { "no rule" } else { &name };
    let place = if reason.place.is_empty() { String::new() } else { format!("  {}", reason.place) };
    format!("{:<6}  {} {rule}: {}{place}", word(reason.decision), reason.layer, reason.why)
}

fn as_json(verdict: &Verdict, weight: &Weight) -> serde_json::Value {
    let reasons = |all: &[Reason]| -> Vec<serde_json::Value> {
        let one = |reason: &Reason| json!({"layer": reason.layer.name(), "rule": reason.name(), "place": reason.place, "decision": word(reason.decision), "why": reason.why});
        all.iter().map(one).collect()
    };
    let commands: Vec<_> = verdict
        .commands
        .iter()
        .map(|command| json!({"command": command.text, "doubt": command.doubt, "reasons": reasons(&command.reasons)}))
        .collect();
    json!({
        "decision": word(verdict.decision), "why": verdict.why(), "commands": commands,
        "unreadable": verdict.opaque, "reasons": reasons(&verdict.reasons),
        "risk": weight.risk.name(), "because": weight.because, "authorisation": weight.authorisation.name(),
    })
}

const fn word(decision: Decision) -> &'static str {
    match decision {
        Decision::Allow => "allow",
        Decision::Ask => "ask",
        Decision::Forbid => "forbid",
    }
}

/// Prints the built-in file, to learn from.
///
/// # Errors
/// None.
pub fn show(out: &Output) -> Result<u8, Fault> {
    out.data(rules::BUILT_IN.trim_end());
    Ok(exit::DONE)
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, Heard};
    use super::*;

    const RULE: &str =
        "[[rule]]\nid = \"no-push\"\nargv = [\"git\", \"push\"]\ndecision = \"forbid\"\nwhy = \"people push\"\nmatch = [\"git push -f\"]\n";

    #[test]
    fn rules_of_all_layers_are_checked_tried_and_explained() {
        let (bench, heard) = (Bench::new(), Heard::new());
        bench.write("home/policy.toml", RULE);
        bench.write("work/.tinkerbell/policy.toml", &RULE.replace("forbid", "ask").replace("push", "pull"));
        assert_eq!(check(&bench.shop(), None, &heard.out), Ok(exit::DONE));
        assert_eq!(test(&bench.shop(), false, &heard.out), Ok(exit::DONE));
        assert!(heard.talk().contains("organisation: no file"), "{}", heard.talk());
        assert!(bench.plain(&heard.data()).contains("user: 1 rules, 1 examples  /t/home/policy.toml"), "{}", heard.data());
        assert!(heard.data().contains("examples of 10 rules do what they say"), "{}", heard.data());
        let heard = Heard::new();
        assert_eq!(explain(&bench.shop(), "ls && git push", Wish { level: "full", goal: "", json: false }, &heard.out), Ok(exit::DONE));
        let said = bench.plain(&heard.data());
        assert!(said.starts_with("forbid: people push (rule `no-push` of the user policy)\n"), "{said}");
        assert!(
            said.contains(
                "command  git push\n    forbid  user no-push: people push (rule `no-push` of the user policy)  /t/home/policy.toml:2"
            ),
            "{said}"
        );
        let heard = Heard::new();
        assert_eq!(explain(&bench.shop(), "git pull", Wish { level: "landlock", goal: "", json: true }, &heard.out), Ok(exit::DONE));
        let value: serde_json::Value = serde_json::from_str(&heard.data()).unwrap();
        assert_eq!((value["decision"].as_str(), value["commands"][0]["reasons"][0]["layer"].as_str()), (Some("ask"), Some("project")));
    }

    /// The machine's file, in a scratch root: it is root's, and the user's file softens nothing of it.
    #[test]
    fn the_organisations_file_stands_above_the_users() {
        let (bench, heard) = (Bench::new(), Heard::new());
        bench.write("etc/policy.toml", RULE);
        bench.write("home/policy.toml", &RULE.replace("forbid", "allow"));
        let judged = explain(&bench.shop(), "git push", Wish { level: "full", goal: "git push", json: false }, &heard.out);
        if rustix::process::getuid().is_root() {
            assert_eq!(judged, Ok(exit::DONE));
            let said = bench.plain(&heard.data());
            assert!(said.starts_with("forbid: people push (rule `no-push` of the organisation policy)\n"), "{said}");
        } else {
            assert_eq!(judged.unwrap_err().code.0, "TB-POLICY-002");
        }
    }

    #[test]
    fn mistakes_are_told_with_their_line_whatever_the_layer() {
        let (bench, heard) = (Bench::new(), Heard::new());
        bench.write("home/policy.toml", &RULE.replace("push -f", "pull"));
        bench.write("work/.tinkerbell/policy.toml", &RULE.replace("forbid", "allow"));
        let fault = check(&bench.shop(), None, &heard.out).unwrap_err();
        assert_eq!((fault.code.0, fault.exit), ("TB-POLICY-005", 78));
        assert!(heard.talk().contains("TB-POLICY-004") && heard.talk().contains("policy.toml:6:"), "{}", heard.talk());
        bench.write("work/draft.toml", &RULE.replace("\"git\", \"push\"", "\"env\"").replace("forbid", "allow"));
        let fault = check(&bench.shop(), Some(Path::new("draft.toml")), &heard.out).unwrap_err();
        assert!(fault.message.contains("draft.toml:3: rule `no-push` would allow anything"), "{}", fault.message);
        assert_eq!(check(&bench.shop(), Some(Path::new("none.toml")), &heard.out).unwrap_err().code.0, "TB-POLICY-002");
    }
}
