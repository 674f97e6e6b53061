//! Grants: what a person allowed for more than one time, and what may be offered to them.
//!
//! A layer behind all others that answers questions in advance: it turns an `ask` of a rule into an
//! `allow`, for commands that are known to the last word and are the granted one, word by word, or begin
//! like it where that beginning is complete (`core::approval`). Invariants: it never touches a `forbid`,
//! the floor or critical risk, and nothing is offered that would allow anything.

use super::judge::{Judged, Layer, Reason, Source, Verdict};
use super::launch;
use super::load::RuleSet;
use super::options::Decision;
use super::risk::Risk;
use super::rule::{CommandRule, Hit, Look, Program, Programs, Subject};
use super::shell::{self, Segment};
use crate::digest::digest_of;
use std::collections::BTreeSet;
use tinkerbell_core::approval::{Grant, is_complete, quoted, told};

/// How long a grant for a project or a user holds: thirty days.
pub const LASTS_MS: u64 = 30 * 86_400_000;

/// A grant and whose it is: `task`, `project` or `user`.
pub type Held = (&'static str, Grant);

/// What a grant is held against besides the command.
#[derive(Debug, Clone, Copy)]
pub struct Around<'a> {
    /// Where programs are looked for; `None` takes any for the right one.
    pub programs: Option<&'a Programs>,
    /// How bad the call may become, whoever asked for it.
    pub risk: Risk,
    /// The wall time in milliseconds since the epoch.
    pub now_ms: u64,
}

/// Takes back what grants answer in advance: asks of rules that name no more words than the grant does. A rule
/// that looks further asks about something else than what was allowed, one that only might be meant was not
/// answered by whoever allowed a beginning, and what nobody can bring back is asked about each time.
pub fn relax(verdict: &mut Verdict, command: &str, (grants, sets): (&[Held], &[&RuleSet]), around: Around<'_>) {
    if grants.is_empty() || around.risk == Risk::Critical {
        return;
    }
    let split = shell::split(command);
    if split.opaque.is_some() || split.segments.len() != verdict.commands.len() {
        return;
    }
    for (segment, judged) in split.segments.iter().zip(&mut verdict.commands) {
        let asks = judged.reasons.iter().any(|reason| reason.decision == Decision::Ask);
        let words = segment.plain().filter(|_| asks).unwrap_or_default();
        let mut like = grants.iter().filter(|(_, grant)| grant.covers(&words));
        let Some((scope, grant)) = like.find(|(_, grant)| covers(grant, segment, around)) else {
            continue;
        };
        let look = Look::of(segment);
        let reaches = |reason: &Reason| match reason.source {
            Source::Rule => {
                behind(reason, sets).is_some_and(|rule| rule.tightens(&look) == Hit::Yes && rule.argv.len() <= grant.argv.len())
            }
            Source::Unmatched | Source::Risk => true,
            Source::House | Source::Doubt { .. } | Source::Grant => false,
        };
        judged.reasons.retain(|reason| reason.decision != Decision::Ask || !reaches(reason));
        let why = format!("you allowed {} for this {scope}", told(&grant.argv, &grant.options));
        let (rule, source, decision) = (grant.id.clone(), Source::Grant, Decision::Allow);
        judged.reasons.push(Reason { rule, source, decision, ..Reason::of_house(Layer::Grant, why) });
    }
    let all = verdict.reasons.iter().chain(verdict.commands.iter().flat_map(|command| &command.reasons));
    verdict.decision = all.map(|reason| reason.decision).max().unwrap_or(Decision::Ask);
}

fn covers(grant: &Grant, segment: &Segment, around: Around<'_>) -> bool {
    segment.plain().is_some_and(|words| grant.covers(&words))
        && grant.holds(around.now_ms)
        && !segment.launches
        && !launch::hides(&segment.words)
        && as_rule(grant).allows(&Look::of(segment), around.programs)
}

/// The beginning alone; the program must lie outside of what the model can write.
fn as_rule(grant: &Grant) -> CommandRule {
    let argv = grant.argv.iter().map(|word| vec![word.clone()]).collect();
    CommandRule { argv, without: Vec::new(), program: Some(Program::Toolchain) }
}

/// What may be offered in place of asking for the same again; `None` where only once is safe.
#[must_use]
pub fn offer(verdict: &Verdict, command: &str, sets: &[&RuleSet], around: Around<'_>) -> Option<Grant> {
    let is_whole = verdict.reasons.iter().any(|reason| reason.decision == Decision::Ask);
    if verdict.decision != Decision::Ask || is_whole || around.risk == Risk::Critical {
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
    let is_sure = |reason: &Reason| match reason.source {
        Source::Rule => behind(reason, sets).is_some_and(|rule| rule.tightens(&look) == Hit::Yes),
        Source::Doubt { .. } => false,
        _ => true,
    };
    if !judged.reasons.iter().filter(|reason| reason.decision == Decision::Ask).all(is_sure) {
        return None;
    }
    let (argv, options) = beginning(&words, named(judged, sets));
    let id = digest_of(&[&argv.join("\0"), &options.join("\0")]);
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let grant = Grant {
        id: format!("g-{}", id.get(..8).unwrap_or(&id)),
        argv,
        options,
        example: quoted(&words),
        expires_ms: around.now_ms.saturating_add(LASTS_MS),
    };
    (lint(&grant).is_ok() && covers(&grant, segment, around)).then_some(grant)
}

/// The rule behind a reason, where it is one about commands.
fn behind<'a>(reason: &Reason, sets: &[&'a RuleSet]) -> Option<&'a CommandRule> {
    let set = sets.iter().find(|set| set.layer == reason.layer)?;
    let rule = set.rules.iter().find(|rule| rule.id == reason.rule)?;
    if let Subject::Command(rule) = &rule.subject { Some(rule) } else { None }
}

/// How many words the rules name that ask.
fn named(judged: &Judged, sets: &[&RuleSet]) -> usize {
    let asks = |reason: &&Reason| reason.source == Source::Rule && reason.decision == Decision::Ask;
    judged.reasons.iter().filter(asks).filter_map(|reason| Some(behind(reason, sets)?.argv.len())).max().unwrap_or_default()
}

/// The beginning and the options that are to be allowed: all words, unless the first ones say all that is done.
/// A rule that looks further than those asks about something else.
fn beginning(words: &[&str], least: usize) -> (Vec<String>, Vec<String>) {
    let owned = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    for count in least.max(1)..=2 {
        let Some((argv, rest)) = words.split_at_checked(count) else { break };
        let plain = Grant { argv: owned(argv), ..Grant::default() };
        // What would not fit as it stands is allowed by name.
        let options: BTreeSet<String> =
            rest.iter().filter(|word| !plain.fits(&[argv, &[**word]].concat())).map(|word| (*word).to_owned()).collect();
        let options: Vec<String> = options.into_iter().collect();
        if is_complete(&plain.argv, &options) {
            return (plain.argv, options);
        }
    }
    (owned(words), Vec::new())
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
        [one] => one.plain().is_some_and(|words| grant.fits(&words)),
        _ => false,
    };
    if example.segments.len() != 1 || !is_covered(&grant.example) {
        return Err(format!("it does not cover its own example `{}`", grant.example));
    }
    let begun = quoted(&grant.argv);
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

    const AROUND: Around<'_> = Around { programs: None, risk: Risk::Medium, now_ms: 5 };

    fn relaxed(verdict: &mut Verdict, command: &str, grants: &[Held], sets: &[RuleSet]) {
        relax(verdict, command, (grants, &sets.iter().collect::<Vec<_>>()), AROUND);
    }

    fn offered(command: &str, more: &str) -> Option<Grant> {
        let (verdict, sets) = verdict(command, more);
        offer(&verdict, command, &sets.iter().collect::<Vec<_>>(), AROUND)
    }

    fn grant(argv: &str, options: &[&str], example: &str) -> Grant {
        let (argv, options) = (argv.split(' ').map(str::to_owned).collect(), options.iter().map(|option| (*option).to_owned()).collect());
        Grant { argv, options, example: example.to_owned(), id: "g".to_owned(), ..Grant::default() }
    }

    const LISTED: &str = "unmatched_commands = \"ask\"";

    #[test]
    fn what_is_offered_is_the_whole_command_and_opens_nothing() {
        for (command, argv) in [
            ("git push origin main", Some("git push origin main")),
            ("cd x && git push --tags", Some("git push --tags")),
            ("git push; git push", Some("git push")),
            ("make deploy", Some("make deploy")),
            ("make", Some("make")),
            ("make deploy PREFIX=/x", Some("make deploy PREFIX=/x")),
            ("python3 x.py", Some("python3 x.py")),
            ("git push; make x", None),
            ("git push; git push x", None),
            ("git push > log", None),
            ("git push $X", None),
            ("env git push", None),
            ("xargs rm", None),
            ("find . -exec rm {} +", None),
            ("make -f x", None),
            ("python3 -c 1", None),
            ("/usr/bin/git push", None),
            ("git -C . push origin x", None),
            ("git push evil", None),
            ("ls", None),
        ] {
            let found = offered(command, "");
            assert_eq!(found.as_ref().map(|grant| grant.argv.join(" ")).as_deref(), argv, "{command}");
            if let Some(grant) = found {
                assert_eq!((lint(&grant), grant.expires_ms, grant.options.len()), (Ok(()), 5 + LASTS_MS, 0));
            }
        }
        let push = offered("git push --tags +a 'my  origin'", "").unwrap();
        assert_eq!((push.argv.len(), push.example.as_str()), (5, "git push --tags +a 'my  origin'"));
    }

    /// Only of a few commands is it known that what follows their beginning makes no other deed of them.
    #[test]
    fn a_beginning_is_offered_where_it_says_all_that_is_done() {
        for (command, more, argv, options) in [
            ("cargo test wal", LISTED, "cargo test", ""),
            ("cargo test -p wal --release", LISTED, "cargo test", "--release -p"),
            ("cargo test --target-dir x", LISTED, "cargo test --target-dir x", ""),
            ("cargo fmt --check", LISTED, "cargo fmt --check", ""),
            ("cargo xtask bench", LISTED, "cargo xtask bench", ""),
            ("cargo run --bin build", LISTED, "cargo run --bin build", ""),
            ("go vet ./x", LISTED, "go vet", ""),
            ("go test -exec sh ./x", LISTED, "go test -exec sh ./x", ""),
            ("go run ./cmd/x a", LISTED, "go run ./cmd/x a", ""),
            ("pytest -q tests/x.py", LISTED, "pytest", "-q"),
            ("pytest -p x", LISTED, "pytest -p x", ""),
            ("ls -l src", LISTED, "ls", "-l"),
            ("npm test", LISTED, "npm test", ""),
            ("npm run build -- x", LISTED, "npm run build -- x", ""),
            ("kubectl -n dev get pods", LISTED, "kubectl -n dev get pods", ""),
            ("git diff a b", LISTED, "git diff", ""),
            ("git diff --output=x", LISTED, "git diff --output=x", ""),
            // A rule that names more words asks about something else than the beginning.
            (
                "cargo test wal x",
                "[[rule]]\nid = \"w\"\nargv = [\"cargo\", \"test\", \"wal\"]\ndecision = \"ask\"\n",
                "cargo test wal x",
                "",
            ),
        ] {
            let found = offered(command, more).unwrap_or_else(|| panic!("{command}"));
            assert_eq!((found.argv.join(" ").as_str(), found.options.join(" ").as_str()), (argv, options), "{command}");
        }
    }

    /// What was allowed answers itself, and nothing that only begins like it.
    #[test]
    fn no_grant_answers_another_deed() {
        for pair in [
            "make build -j4 ### make build deploy",
            "make build -s ### make build SHELL=/tmp/x",
            "make build ### make build CC=x",
            "gradle build --info ### gradle build publish",
            "uv tool run ruff ### uv tool run evil-pkg",
            "yarn workspace a build ### yarn workspace a deploy",
            "npm run build ### npm run build out",
            "npm run build ### npm run deploy",
            "npx eslint . ### npx eslint /",
            "poetry run pytest tests ### poetry run pytest x",
            "npm config list ### npm config set script-shell evil",
            "aws s3 ls s3://dev/x ### aws s3 rm s3://prod/x",
            "gh pr view 1 ### gh pr merge 1",
            "heroku ps:scale web=2 ### heroku apps:destroy prod",
            "redis-cli GET x ### redis-cli FLUSHALL",
            "psql -c \"SELECT 1\" ### psql -c \"DROP TABLE users\"",
            "psql -c \"SELECT 1\" ### psql -c SELECT 1",
            "curl -X GET https://a.example/x ### curl -X DELETE https://prod.example/y",
            "gh api -X GET repos/x ### gh api -X DELETE repos/x",
            "kubectl exec pod -- ls ### kubectl exec prod -- rm data",
            "kubectl -n dev get pod x ### kubectl -n prod get pod x",
            "docker exec web ls ### docker exec web rm data",
            "docker compose exec web ls ### docker compose exec db rm data",
            "docker image ls ### docker image rm x",
            "rails runner \"puts 1\" ### rails runner \"system(1)\"",
            "sed -n 1p src/a.txt ### sed -n \"1e touch pwned\" src/a.txt",
            "git stash list ### git stash drop",
            "git remote show ### git remote set-url origin x",
            "git submodule update ### git submodule foreach \"touch pwned\"",
            "git config user.name ### git config core.sshCommand \"sh -c evil\"",
            "git bisect log ### git bisect run touch pwned",
            "git worktree list ### git worktree add x",
            "cargo run --bin build ### cargo run --bin deploy",
            "cargo fmt --check ### cargo fmt",
            "cargo test ### cargo test --config x",
            "pytest a.py ### pytest @b",
        ] {
            let (first, second) = pair.split_once(" ### ").unwrap();
            let given = offered(first, LISTED).unwrap_or_else(|| panic!("{first}"));
            for (command, expected) in [(first, Decision::Allow), (second, Decision::Ask)] {
                let (mut verdict, sets) = verdict(command, LISTED);
                relaxed(&mut verdict, command, &[("task", given.clone())], &sets);
                assert_eq!(verdict.decision, expected, "{first} / {command}");
            }
        }
    }

    /// Beginnings that an earlier release wrote down answer what they are, word by word.
    #[test]
    fn a_beginning_of_an_earlier_release_answers_no_more_than_itself() {
        for (granted, command, expected) in [
            (grant("npm run build", &[], "npm run build"), "npm run build", Decision::Allow),
            (grant("npm run build", &[], "npm run build"), "npm run build out", Decision::Ask),
            (grant("make build", &["-j4"], "make build -j4"), "make build deploy", Decision::Ask),
            (grant("make build", &["-j4"], "make build -j4"), "make build", Decision::Ask),
            (grant("npm run", &[], "npm run build"), "npm run build", Decision::Ask),
            (grant("poetry run", &[], "poetry run pytest"), "poetry run pytest", Decision::Ask),
            (grant("git -C", &[], "git -C . push origin x"), "git -C . push origin x", Decision::Ask),
            (grant("cargo test", &["-p"], "cargo test -p wal"), "cargo test -p x", Decision::Allow),
        ] {
            let (mut verdict, sets) = verdict(command, LISTED);
            let name = granted.argv.join(" ");
            relaxed(&mut verdict, command, &[("task", granted)], &sets);
            assert_eq!(verdict.decision, expected, "{name} / {command}");
        }
    }

    #[test]
    fn a_grant_answers_an_ask_and_nothing_stricter() {
        let given = offered("git push --tags origin", "").unwrap();
        let never = grant("git push", &[], "git push");
        let prod = grant("git push origin prod", &[], "git push origin prod");
        for (command, more, granted, expected) in [
            ("git push --tags origin", "", &given, Decision::Allow),
            ("git push --tags origin && ls", "", &given, Decision::Allow),
            ("git push --tags", "", &given, Decision::Ask),
            ("git push --tags origin x", "", &given, Decision::Ask),
            ("git push --tags --tags origin", "", &given, Decision::Ask),
            ("git push evil", "", &grant("git push evil", &[], "git push evil"), Decision::Forbid),
            ("git push --tags origin; make x", "", &given, Decision::Ask),
            ("git push --tags origin > log", "", &given, Decision::Ask),
            ("env git push --tags origin", "", &given, Decision::Ask),
            ("git push origin prod", PROD, &prod, Decision::Allow),
            ("git push", "unmatched_commands = \"forbid\"", &never, Decision::Forbid),
            ("git push", LISTED, &never, Decision::Allow),
            ("git push; ls", LISTED, &never, Decision::Ask),
        ] {
            let (mut verdict, sets) = verdict(command, more);
            relaxed(&mut verdict, command, &[("task", granted.clone())], &sets);
            assert_eq!(verdict.decision, expected, "{command} {more}");
        }
        let command = "git push --tags origin";
        let (mut late, sets) = verdict(command, "");
        let sets: Vec<&RuleSet> = sets.iter().collect();
        relax(&mut late, command, (&[("user", given.clone())], &sets), Around { now_ms: given.expires_ms, ..AROUND });
        assert_eq!(late.decision, Decision::Ask, "an expired grant does not match");
        relax(&mut late, command, (&[("user", given.clone())], &sets), Around { risk: Risk::Critical, ..AROUND });
        assert_eq!(late.decision, Decision::Ask, "what nobody can bring back is asked about each time");
        assert_eq!(offer(&late, command, &sets, Around { risk: Risk::Critical, ..AROUND }), None);
        relax(&mut late, command, (&[("user", given.clone()), ("task", given)], &sets), AROUND);
        assert_eq!(late.decision, Decision::Allow);
        let last = late.commands[0].reasons.last().map(|reason| (reason.layer, reason.why.as_str()));
        assert_eq!(last, Some((Layer::Grant, "you allowed `git push --tags origin` for this user")));
    }

    const KUBE: &str = "unmatched_commands = \"ask\"\n[[rule]]\nid = \"del\"\nargv = [\"kubectl\", \"delete\"]\ndecision = \"ask\"\n\
        [[rule]]\nid = \"deploys\"\nargv = [\"kubectl\", \"delete\", \"deployment\"]\ndecision = \"ask\"\n";

    #[test]
    fn a_grant_answers_no_rule_that_only_might_be_meant() {
        let tags = "[[rule]]\nid = \"t\"\nargv = [\"cargo\", \"test\", \"x\"]\ndecision = \"ask\"\n";
        for (granted, command, more, expected) in [
            (grant("kubectl -n dev delete pod x", &[], "kubectl -n dev delete pod x"), "kubectl -n dev delete pod x", KUBE, Decision::Ask),
            (grant("kubectl delete pod x", &[], "kubectl delete pod x"), "kubectl delete pod x", KUBE, Decision::Allow),
            (
                grant("kubectl delete deployment x", &[], "kubectl delete deployment x"),
                "kubectl delete deployment x",
                KUBE,
                Decision::Allow,
            ),
            // A rule that looks further than the grant asks about something that was not allowed.
            (grant("cargo test", &["-p"], "cargo test -p x"), "cargo test x", tags, Decision::Ask),
            (grant("cargo test", &["-p"], "cargo test -p x"), "cargo test -p x", tags, Decision::Ask),
        ] {
            let (mut verdict, sets) = verdict(command, more);
            let name = format!("{} / {command}", granted.argv.join(" "));
            relaxed(&mut verdict, command, &[("task", granted)], &sets);
            assert_eq!(verdict.decision, expected, "{name}");
        }
        assert_eq!(offered("kubectl -n dev delete pod x", KUBE), None);
    }

    #[test]
    fn a_grant_that_would_allow_anything_is_refused() {
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
