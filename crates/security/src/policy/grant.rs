//! Grants: what a person allowed for more than one time, and what may be offered to them.
//!
//! A layer behind all others that answers questions in advance: it turns an `ask` of a rule into an
//! `allow`, for commands that are known to the last word and begin as the granted one. Invariants: it
//! never touches a `forbid` or the floor, and nothing is offered whose beginning would allow anything.

use super::judge::{Judged, Layer, Reason, Source, Verdict};
use super::launch;
use super::load::RuleSet;
use super::options::Decision;
use super::rule::{CommandRule, Hit, Look, Program, Programs, Subject};
use super::shell::{self, Segment};
use crate::digest::digest_of;
use std::collections::BTreeSet;
use tinkerbell_core::approval::Grant;

/// How long a grant for a project or a user holds: thirty days.
pub const LASTS_MS: u64 = 30 * 86_400_000;

/// A grant and whose it is: `task`, `project` or `user`.
pub type Held = (&'static str, Grant);

/// Takes back what grants answer in advance: asks of rules that name no more words than the grant does. A rule
/// that looks further asks about something else than what was allowed, and one that only might be meant was
/// not answered by whoever allowed a beginning.
pub fn relax(verdict: &mut Verdict, command: &str, (grants, sets): (&[Held], &[&RuleSet]), (programs, now_ms): (Option<&Programs>, u64)) {
    let split = shell::split(command);
    if split.opaque.is_some() || split.segments.len() != verdict.commands.len() {
        return;
    }
    for (segment, judged) in split.segments.iter().zip(&mut verdict.commands) {
        let asks = judged.reasons.iter().any(|reason| reason.decision == Decision::Ask);
        let Some((scope, grant)) = grants.iter().filter(|_| asks).find(|(_, grant)| covers(grant, segment, (programs, now_ms))) else {
            continue;
        };
        let look = Look::of(segment);
        let reaches = |reason: &Reason| match behind(reason, sets) {
            Some(rule) => rule.tightens(&look) == Hit::Yes && rule.argv.len() <= grant.argv.len(),
            None => true,
        };
        judged.reasons.retain(|reason| reason.decision != Decision::Ask || !reaches(reason));
        let why = format!("you allowed `{} …` for this {scope}", grant.argv.join(" "));
        let (rule, source, decision) = (grant.id.clone(), Source::Grant, Decision::Allow);
        judged.reasons.push(Reason { rule, source, decision, ..Reason::of_house(Layer::Grant, why) });
    }
    let all = verdict.reasons.iter().chain(verdict.commands.iter().flat_map(|command| &command.reasons));
    verdict.decision = all.map(|reason| reason.decision).max().unwrap_or(Decision::Ask);
}

fn covers(grant: &Grant, segment: &Segment, (programs, now_ms): (Option<&Programs>, u64)) -> bool {
    let look = Look::of(segment);
    let is_whole = segment.plain().is_some_and(|words| grant.covers(&words));
    is_whole
        && is_narrow(grant, segment)
        && grant.holds(now_ms)
        && !segment.launches
        && !launch::hides(&segment.words)
        && as_rule(grant).allows(&look, programs)
}

/// Whether it is about one script of the project, or one thing that the program does, and not about all that
/// there are or will be. One that an earlier release wrote down may not be, and answers nothing.
fn is_narrow(grant: &Grant, segment: &Segment) -> bool {
    let argv: Vec<&str> = grant.argv.iter().map(String::as_str).collect();
    let is_exact = || segment.words.len() == argv.len() + grant.options.len();
    let example: Vec<&str> = grant.example.split_whitespace().collect();
    launch::runs_any(&argv).is_none()
        && !skips(&argv, &example)
        && (!argv.first().is_some_and(|program| launch::is_maker(program)) || is_exact())
}

/// Whether a beginning may end before the word that says what is done: `kubectl -n dev delete` deletes, and
/// neither `kubectl -n` nor `kubectl` says so.
fn skips(argv: &[&str], words: &[&str]) -> bool {
    let is_option = |word: &&str| word.starts_with('-');
    let mut behind = words.iter().skip(argv.len());
    let is_led = argv.len() == 1 && behind.clone().next().is_some_and(is_option);
    argv.iter().any(is_option) || (is_led && behind.any(is_subcommand))
}

fn is_subcommand(word: &&str) -> bool {
    word.starts_with(|first: char| first.is_ascii_lowercase())
        && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
}

/// The beginning alone; the program must lie outside of what the model can write.
fn as_rule(grant: &Grant) -> CommandRule {
    let argv = grant.argv.iter().map(|word| vec![word.clone()]).collect();
    CommandRule { argv, without: Vec::new(), program: Some(Program::Toolchain) }
}

/// What may be offered in place of asking for the like again; `None` where only once is safe.
#[must_use]
pub fn offer(verdict: &Verdict, command: &str, sets: &[&RuleSet], (programs, now_ms): (Option<&Programs>, u64)) -> Option<Grant> {
    if verdict.decision != Decision::Ask || verdict.reasons.iter().any(|reason| reason.decision == Decision::Ask) {
        return None;
    }
    let split = shell::split(command);
    if split.opaque.is_some() || split.segments.len() != verdict.commands.len() {
        return None;
    }
    let asking =
        split.segments.iter().zip(&verdict.commands).filter(|(_, judged)| judged.reasons.iter().any(|r| r.decision == Decision::Ask));
    let asking: Vec<(&Segment, &Judged)> = asking.collect();
    let (segment, judged) = *asking.first()?;
    if asking.iter().any(|(other, _)| other.words != segment.words) {
        return None;
    }
    let words = segment.plain()?;
    let look = Look::of(segment);
    let is_sure = |reason: &Reason| behind(reason, sets).is_none_or(|rule| rule.tightens(&look) == Hit::Yes);
    if !judged.reasons.iter().filter(|reason| reason.decision == Decision::Ask).all(is_sure) {
        return None;
    }
    let count = beginning(&words, judged, sets);
    let (argv, rest) = words.split_at_checked(count)?;
    let plain = Grant { argv: argv.iter().map(|word| (*word).to_owned()).collect(), ..Grant::default() };
    // What would not be covered as it stands is allowed by name.
    let options: BTreeSet<String> =
        rest.iter().filter(|word| !plain.covers(&[argv, &[**word]].concat())).map(|word| (*word).to_owned()).collect();
    let options: Vec<String> = options.into_iter().collect();
    let id = digest_of(&[&argv.join("\0"), &options.join("\0")]);
    let grant = Grant {
        id: format!("g-{}", id.get(..8).unwrap_or(&id)),
        options,
        example: words.join(" "),
        expires_ms: now_ms.saturating_add(LASTS_MS),
        ..plain
    };
    (lint(&grant).is_ok() && covers(&grant, segment, (programs, now_ms))).then_some(grant)
}

/// The rule behind a reason, where it is one about commands. Of rules that might be meant it is the first one.
fn behind<'a>(reason: &Reason, sets: &[&'a RuleSet]) -> Option<&'a CommandRule> {
    let set = sets.iter().find(|set| set.layer == reason.layer)?;
    let rule = set.rules.iter().find(|rule| rule.id == reason.rule)?;
    if let Subject::Command(rule) = &rule.subject { Some(rule) } else { None }
}

/// How many words make the beginning: as many as the rule names that asks, and the subcommand; behind a
/// runner also what it runs.
fn beginning(words: &[&str], judged: &Judged, sets: &[&RuleSet]) -> usize {
    let asks = |reason: &&Reason| reason.decision == Decision::Ask;
    let rules = judged.reasons.iter().filter(asks).filter_map(|reason| Some(behind(reason, sets)?.argv.len()));
    let own = if words.get(1).is_some_and(is_subcommand) { 2 } else { 1 };
    let named = rules.max().unwrap_or(0).max(own).max(launch::least(words));
    // Each further word of these is one more task, or sets what a task uses.
    let is_maker = words.first().is_some_and(|program| launch::is_maker(program));
    if is_maker { words.iter().take_while(|word| !word.starts_with('-')).count().max(named) } else { named }
}

/// Refuses a grant that would allow anything, or that its own example does not fit.
///
/// # Errors
/// What is wrong with it, for people.
pub fn lint(grant: &Grant) -> Result<(), String> {
    let argv: Vec<&str> = grant.argv.iter().map(String::as_str).collect();
    let Some(program) = argv.first() else { return Err("it names no command".to_owned()) };
    if program.contains('/') {
        return Err(format!("`{program}` is a path and no program of the machine"));
    }
    if let Some(why) = launch::opens(&argv, launch::options(program)) {
        return Err(why);
    }
    if let Some(option) = grant
        .options
        .iter()
        .find(|option| launch::opens(&[program, option], launch::options(program)).is_some_and(|why| why.contains(option.as_str())))
    {
        return Err(format!("`{program} {option}` runs a program of the caller's choice"));
    }
    // The example must be covered; another option, and another program before it, must not.
    let example = shell::split(&grant.example);
    let is_covered = |text: &str| match shell::split(text).segments.as_slice() {
        [one] => one.plain().is_some_and(|words| grant.covers(&words)),
        _ => false,
    };
    if example.segments.len() != 1 || !is_covered(&grant.example) {
        return Err(format!("it does not cover its own example `{}`", grant.example));
    }
    let begun = argv.join(" ");
    match [format!("{begun} --no-such-option"), format!("env {begun}"), format!("./{begun}")].iter().find(|text| is_covered(text)) {
        Some(text) => Err(format!("it would cover `{text}`")),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{BUILT_IN, Call, judge, parse};
    use super::*;
    use tinkerbell_core::port::Level;

    const ASKS: &str = "[[rule]]\nid = \"push\"\nargv = [\"git\", \"push\"]\ndecision = \"ask\"\n\
        [[rule]]\nid = \"py\"\nargv = [\"python3\"]\ndecision = \"ask\"\n[[rule]]\nid = \"mk\"\nargv = [[\"make\", \"xargs\", \"find\"]]\ndecision = \"ask\"\n\
        [[rule]]\nid = \"never\"\nargv = [\"git\", \"push\", \"evil\"]\ndecision = \"forbid\"\n";

    const PROD: &str = "[[rule]]\nid = \"prod\"\nargv = [\"git\", \"push\", \"origin\", \"prod\"]\ndecision = \"ask\"\n";

    fn verdict(command: &str, more: &str) -> (Verdict, Vec<RuleSet>) {
        let sets = vec![parse(Layer::BuiltIn, "b", BUILT_IN).unwrap(), parse(Layer::User, "u", &format!("{more}\n{ASKS}")).unwrap()];
        let call = Call { tool: "exec", runs: true, level: Some(Level::Full), writes: &[], deletes: 0, mcp: None };
        (judge(&call, Some(command), &sets.iter().collect::<Vec<_>>(), None), sets)
    }

    fn relaxed(verdict: &mut Verdict, command: &str, grants: &[Held], sets: &[RuleSet]) {
        relax(verdict, command, (grants, &sets.iter().collect::<Vec<_>>()), (None, 6));
    }

    fn offered(command: &str, more: &str) -> Option<Grant> {
        let (verdict, sets) = verdict(command, more);
        offer(&verdict, command, &sets.iter().collect::<Vec<_>>(), (None, 5))
    }

    #[test]
    fn what_is_offered_is_a_beginning_that_opens_nothing() {
        for (command, argv) in [
            ("git push origin main", Some("git push")),
            ("cd x && git push --tags", Some("git push")),
            ("git push; git push", Some("git push")),
            ("make deploy", Some("make deploy")),
            ("make", None),
            ("make deploy PREFIX=/x", Some("make deploy PREFIX=/x")),
            ("git push; make x", None),
            ("git push > log", None),
            ("git push $X", None),
            ("env git push", None),
            ("xargs rm", None),
            ("find . -exec rm {} +", None),
            ("make -f x", None),
            ("python3 x.py", None),
            ("python3 -c 1", None),
            ("/usr/bin/git push", None),
            ("git push evil", None),
            ("ls", None),
        ] {
            let found = offered(command, "");
            assert_eq!(found.as_ref().map(|grant| grant.argv.join(" ")).as_deref(), argv, "{command}");
            if let Some(grant) = found {
                assert_eq!((lint(&grant), grant.expires_ms), (Ok(()), 5 + LASTS_MS));
            }
        }
        let push = offered("git push --tags +a origin", "").unwrap();
        assert_eq!((push.options, push.example), (vec!["+a".to_owned(), "--tags".to_owned()], "git push --tags +a origin".to_owned()));
        assert_eq!(offered("npm run build --if-present", "unmatched_commands = \"ask\"").unwrap().argv, ["npm", "run", "build"]);
    }

    /// A grant is about one script: the task may write others, and every script of a project is a program.
    #[test]
    fn what_runs_scripts_is_offered_with_the_scripts_name() {
        for (command, argv) in [
            ("npm run build", Some("npm run build")),
            ("npm run build -- x", Some("npm run build")),
            ("npm test", Some("npm test")),
            ("npm run", None),
            ("npm --prefix x run build", None),
            ("npm exec eslint src", Some("npm exec eslint")),
            ("pnpm run lint src", Some("pnpm run lint")),
            ("yarn build", Some("yarn build")),
            ("yarn run build", Some("yarn run build")),
            ("yarn", None),
            ("bun run build", Some("bun run build")),
            ("npx eslint .", Some("npx eslint")),
            ("npx", None),
            ("npx sh x", None),
            ("npx npm run build", Some("npx npm run build")),
            ("npx -y eslint", None),
            ("just release", Some("just release")),
            ("just", None),
            ("task build test", Some("task build test")),
            ("gradle build", Some("gradle build")),
            ("cargo xtask bench", Some("cargo xtask bench")),
            ("cargo xtask", None),
            ("cargo fmt", Some("cargo fmt")),
            ("go run ./cmd/x a", Some("go run ./cmd/x")),
            ("go run", None),
            ("go vet ./x", Some("go vet")),
            ("poetry run pytest tests", Some("poetry run pytest")),
            ("poetry run python x.py", None),
            ("uv run pytest", Some("uv run pytest")),
            ("uv run npm run build", Some("uv run npm run build")),
            ("uv run", None),
            ("bundle exec rake", None),
            ("bundle exec rake db", Some("bundle exec rake db")),
            ("bundle exec rspec x", Some("bundle exec rspec")),
            ("docker run image x", Some("docker run image")),
        ] {
            let found = offered(command, "unmatched_commands = \"ask\"");
            assert_eq!(found.as_ref().map(|grant| grant.argv.join(" ")).as_deref(), argv, "{command}");
        }
        let grant = |argv: &str| {
            let argv = argv.split(' ').map(str::to_owned).collect::<Vec<_>>();
            Grant { example: argv.join(" "), argv, id: "g".to_owned(), ..Grant::default() }
        };
        for (granted, command, expected) in [
            ("npm run build", "npm run build", Decision::Allow),
            ("npm run build", "npm run build out", Decision::Allow),
            ("npm run build", "npm run deploy", Decision::Ask),
            ("npm run build", "npm run-script build", Decision::Ask),
            ("make build", "make build", Decision::Allow),
            ("make build", "make build deploy", Decision::Ask),
            ("make build", "make build CC=x", Decision::Ask),
            // As an earlier release offered them.
            ("npm run", "npm run build", Decision::Ask),
            ("make", "make build", Decision::Ask),
            ("poetry run", "poetry run pytest", Decision::Ask),
            ("poetry run python", "poetry run python x.py", Decision::Ask),
        ] {
            let (mut verdict, sets) = verdict(command, "unmatched_commands = \"ask\"");
            relaxed(&mut verdict, command, &[("task", grant(granted))], &sets);
            assert_eq!(verdict.decision, expected, "{granted} / {command}");
        }
    }

    #[test]
    fn a_grant_answers_an_ask_and_nothing_stricter() {
        let grant = offered("git push --tags origin", "").unwrap();
        let never = Grant { argv: vec!["git".into(), "push".into()], example: "git push".into(), id: "g".into(), ..Grant::default() };
        for (command, more, expected) in [
            ("git push --tags", "", Decision::Allow),
            ("git push origin && ls", "", Decision::Allow),
            ("git push --force", "", Decision::Ask),
            ("git push origin +main", "", Decision::Ask),
            ("git push evil", "", Decision::Forbid),
            ("git push; make x", "", Decision::Ask),
            ("git push > log", "", Decision::Ask),
            ("env git push", "", Decision::Ask),
            // A rule that looks further than the grant asks about something that was not allowed.
            ("git push origin prod", PROD, Decision::Ask),
            ("git push origin dev", PROD, Decision::Allow),
            ("git push", "unmatched_commands = \"forbid\"", Decision::Forbid),
            ("git push", "unmatched_commands = \"ask\"", Decision::Allow),
            ("git push; ls", "unmatched_commands = \"ask\"", Decision::Ask),
        ] {
            let (mut verdict, sets) = verdict(command, more);
            relaxed(&mut verdict, command, &[("task", grant.clone())], &sets);
            assert_eq!(verdict.decision, expected, "{command} {more}");
        }
        let (mut late, sets) = verdict("git push", "");
        let sets: Vec<&RuleSet> = sets.iter().collect();
        relax(&mut late, "git push", (&[("user", grant.clone())], &sets), (None, grant.expires_ms));
        assert_eq!(late.decision, Decision::Ask, "an expired grant does not match");
        relax(&mut late, "git push", (&[("user", grant), ("task", never)], &sets), (None, u64::MAX));
        assert_eq!(late.decision, Decision::Allow);
        assert_eq!(late.commands[0].reasons.last().map(|reason| (reason.layer, reason.rule.as_str())), Some((Layer::Grant, "g")));
    }

    const KUBE: &str = "unmatched_commands = \"ask\"\n[[rule]]\nid = \"del\"\nargv = [\"kubectl\", \"delete\"]\ndecision = \"ask\"\n\
        [[rule]]\nid = \"exec\"\nargv = [\"kubectl\", \"exec\"]\ndecision = \"ask\"\n\
        [[rule]]\nid = \"deploys\"\nargv = [\"kubectl\", \"delete\", \"deployment\"]\ndecision = \"ask\"\n";

    /// An option before the word that says what is done: a beginning that ends there would be about all that the
    /// program does.
    #[test]
    fn nothing_is_offered_that_ends_before_what_is_done() {
        for (command, more, argv) in [
            ("kubectl -n dev delete pod x", KUBE, None),
            ("kubectl -n dev delete pod x", "unmatched_commands = \"ask\"", None),
            ("kubectl --namespace=dev get pods", "unmatched_commands = \"ask\"", None),
            ("kubectl delete -n dev deployment shop", KUBE, None),
            ("kubectl delete pod x", KUBE, Some("kubectl delete")),
            ("kubectl delete -n dev pod x", KUBE, Some("kubectl delete")),
            ("kubectl delete deployment shop", KUBE, Some("kubectl delete deployment")),
            ("git -C . push origin x", "", None),
            ("git -C . push origin x", "unmatched_commands = \"ask\"", None),
            ("git push -f origin prod", PROD, None),
            ("pytest -q tests/x.py", "unmatched_commands = \"ask\"", Some("pytest")),
            ("ls -l", "unmatched_commands = \"ask\"", Some("ls")),
        ] {
            let found = offered(command, more);
            assert_eq!(found.as_ref().map(|grant| grant.argv.join(" ")).as_deref(), argv, "{command}");
        }
    }

    #[test]
    fn a_grant_answers_no_rule_that_only_might_be_meant() {
        let grant = |argv: &str, options: &[&str], example: &str| Grant {
            argv: argv.split(' ').map(str::to_owned).collect(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            example: example.to_owned(),
            id: "g".to_owned(),
            ..Grant::default()
        };
        let with_option = || grant("kubectl delete", &["-n"], "kubectl delete -n dev pod x");
        // As earlier releases offered them.
        let (cut, bare) =
            (grant("kubectl -n", &[], "kubectl -n dev delete pod x"), grant("kubectl", &["-n"], "kubectl -n dev delete pod x"));
        for (granted, command, expected) in [
            (with_option(), "kubectl delete -n prod pod y", Decision::Allow),
            (with_option(), "kubectl delete -n prod deployment shop", Decision::Ask),
            (with_option(), "kubectl delete deployment shop", Decision::Ask),
            (cut.clone(), "kubectl -n prod delete deployment shop", Decision::Ask),
            (cut.clone(), "kubectl -n prod exec shop rm", Decision::Ask),
            (cut.clone(), "kubectl -n prod scale shop", Decision::Ask),
            (cut, "kubectl -n dev delete pod x", Decision::Ask),
            (bare.clone(), "kubectl scale shop", Decision::Ask),
            (bare, "kubectl -n dev delete pod x", Decision::Ask),
        ] {
            let (mut verdict, sets) = verdict(command, KUBE);
            let name = format!("{} / {command}", granted.argv.join(" "));
            relaxed(&mut verdict, command, &[("task", granted)], &sets);
            assert_eq!(verdict.decision, expected, "{name}");
        }
        let (mut verdict, sets) = verdict("git -C . push origin prod", "");
        relaxed(&mut verdict, "git -C . push origin prod", &[("task", grant("git -C", &[], "git -C . push origin x"))], &sets);
        assert_eq!(verdict.decision, Decision::Ask);
    }

    #[test]
    fn a_grant_that_would_allow_anything_is_refused() {
        let grant = |argv: &str, options: &[&str], example: &str| Grant {
            argv: argv.split(' ').map(str::to_owned).collect(),
            options: options.iter().map(|option| (*option).to_owned()).collect(),
            example: example.to_owned(),
            ..Grant::default()
        };
        assert_eq!(lint(&grant("git push", &[], "git push")), Ok(()));
        for bad in [
            Grant::default(),
            grant("sh", &[], "sh"),
            grant("sudo", &[], "sudo x"),
            grant("env", &[], "env x"),
            grant("python3", &[], "python3 x"),
            grant("bash", &["-c"], "bash -c x"),
            grant("git", &["-c"], "git -c x"),
            grant("find", &["-exec"], "find -exec x"),
            grant("./git", &[], "./git"),
            grant("git push", &[], "git pull"),
            grant("git push", &[], "git push; rm x"),
            grant("git push", &["--no-such-option"], "git push"),
        ] {
            assert!(lint(&bad).is_err(), "{bad:?}");
        }
    }
}
