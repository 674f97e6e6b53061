//! The table that is built in, approvals, and rules of every layer.

use super::*;
use tinkerbell_core::effect::EffectClass;
use tinkerbell_core::port::{Grounds, Level};
use tinkerbell_core::tool::{ToolCall, ToolPlan};
use tinkerbell_core::words::{TaskId, Workspace};

pub fn deed(tool: &str, command: Option<&str>, writes: &[&str], deletes: u32, level: Option<Level>) -> Deed {
    Deed {
        task: TaskId(7),
        call: ToolCall { id: "c1".to_owned(), name: tool.to_owned(), args: "{}".to_owned() },
        plan: ToolPlan {
            class: EffectClass::Unsafe,
            writes: writes.iter().map(|path| (*path).to_owned()).collect(),
            deletes,
            command: command.map(str::to_owned),
            mcp: None,
        },
        level,
        workspace: Workspace {
            task: TaskId(7),
            repo: "/r".into(),
            tree: "/t".into(),
            git_dir: "/g".into(),
            common_dir: "/c".into(),
            branch: "refs/heads/tinkerbell/x".to_owned(),
            base: "a".repeat(40).parse().unwrap(),
        },
        grounds: Grounds::default(),
    }
}

fn word(deed: &Deed) -> String {
    match PolicyGuard::new().judge(deed) {
        Judgement::Allow => "allow".to_owned(),
        Judgement::Waived { why } => format!("waived: {why}"),
        Judgement::Ask { why, .. } => format!("ask: {why}"),
        Judgement::Refuse { why } => format!("refuse: {why}"),
    }
}

#[test]
fn the_table_decides() {
    let (full, landlock, none) = (Some(Level::Full), Some(Level::Landlock), Some(Level::None));
    for (tool, command, writes, deletes, level, expected) in [
        ("exec", Some("ls"), vec![], 0, full, "allow"),
        ("exec", Some("rm -rf ."), vec![], 0, landlock, "allow"),
        ("exec", Some("ls"), vec![], 0, none, "ask: it would run without a sandbox"),
        ("exec", Some("ls"), vec![], 0, None, "refuse: no complete sandbox"),
        ("exec_send", None, vec![], 0, full, "allow"),
        ("exec_send", None, vec![], 0, none, "ask: it would run without a sandbox"),
        ("exec_wait", None, vec![], 0, full, "allow"),
        ("read", None, vec![], 0, full, "allow"),
        ("search", None, vec![], 0, full, "allow"),
        ("plan", None, vec![], 0, full, "allow"),
        ("edit", None, vec!["src/a.rs"], 0, full, "allow"),
        ("write", None, vec!["AGENTS.md"], 0, full, "ask: it changes protected files: AGENTS.md"),
        ("apply_patch", None, vec!["a", ".github/workflows/ci.yml"], 0, full, "ask: it changes protected files: .github"),
        ("edit", None, vec!["sub/.VSCode/tasks.json"], 0, full, "ask: it changes protected"),
        ("apply_patch", None, vec!["a"], 50, full, "allow"),
        ("apply_patch", None, vec!["a"], 51, full, "ask: it deletes 51 tracked files"),
        ("write", None, vec!["../x"], 0, full, "refuse: `../x` lies outside"),
        ("write", None, vec!["a/../../x"], 0, full, "refuse: `a/../../x` lies outside"),
        ("write", None, vec!["/etc/passwd"], 0, full, "refuse: `/etc/passwd` lies outside"),
        ("write", None, vec!["a/../x"], 0, full, "allow"),
        ("deploy", None, vec![], 0, full, "ask: no policy names the tool `deploy`"),
        ("read", None, vec!["a"], 0, full, "ask: it writes files"),
    ] {
        let got = word(&deed(tool, command, &writes, deletes, level));
        // Risk comes first, where there is something to say of it.
        let plain = got.split_once(" risk: ").and_then(|(_, rest)| rest.split_once(") ")).map(|(_, plain)| format!("ask: {plain}"));
        assert!(plain.as_ref().unwrap_or(&got).starts_with(expected), "{tool} {command:?} {writes:?}: {got}");
    }
}

#[test]
fn an_approval_is_bound_to_the_exact_bytes() {
    let digest = |change: &dyn Fn(&mut Deed)| {
        let mut deed = deed("write", None, &["AGENTS.md"], 0, Some(Level::Full));
        change(&mut deed);
        deed_digest(&deed)
    };
    let plain = digest(&|_| {});
    assert_eq!(plain, digest(&|deed| deed.call.id = "other".to_owned()));
    assert_eq!(plain, digest(&|deed| deed.task = TaskId(8)), "equal deeds of two tasks are answered together");
    let changes: [&dyn Fn(&mut Deed); 5] = [
        &|deed| deed.call.args = "{ }".to_owned(),
        &|deed| deed.plan.command = Some("x".to_owned()),
        &|deed| deed.plan.writes = vec!["AGENTS".to_owned(), ".md".to_owned()],
        &|deed| deed.level = Some(Level::None),
        &|deed| deed.plan.deletes = 1,
    ];
    for (index, change) in changes.into_iter().enumerate() {
        assert_ne!(plain, digest(change), "change {index}");
    }
    assert_eq!(plain.len(), 64);
}

#[test]
fn new_values_count_while_in_use_and_old_ones_stay_known() {
    let known = tinkerbell_secret::Known::new();
    let guard = PolicyGuard::knowing(known.clone());
    assert_eq!(guard.redact("key verysecret"), "key verysecret");
    known.learn([("K".to_owned(), tinkerbell_secret::Secret::shared("verysecret"))]);
    assert_eq!(guard.redact("key verysecret"), "key [secret K]");
    known.learn([("K".to_owned(), tinkerbell_secret::Secret::shared("othersecret"))]);
    assert_eq!(guard.redact("verysecret othersecret"), "[secret K] [secret K]");
}

/// The verdict on a command at level `full` under a user's policy, with the reason.
fn said(policy: &str, command: &str) -> String {
    let sets = [built_in().unwrap(), parse(Layer::User, "p.toml", policy).unwrap()];
    let call = Call { tool: "exec", mcp: None, runs: true, level: Some(Level::Full), writes: &[], deletes: 0 };
    let verdict = judge(&call, Some(command), &sets.iter().collect::<Vec<_>>(), None);
    format!("{:?} {}", verdict.decision, verdict.why()).to_lowercase()
}

fn mistake(layer: Layer, policy: &str) -> String {
    let fault = parse(layer, "p.toml", policy).unwrap_err();
    format!("{} {}", fault.code, fault.message)
}

#[test]
fn the_built_in_file_holds_its_examples_and_nothing_useless() {
    let set = built_in().unwrap();
    assert_eq!((set.rules.len(), set.warnings.as_slice()), (8, [].as_slice()));
    assert!(set.examples >= 35, "{}", set.examples);
}

const NO_PUSH: &str =
    "[[rule]]\nid = \"no-push\"\nargv = [\"git\", \"push\"]\nwithout = [\"--dry-run\"]\ndecision = \"forbid\"\nwhy = \"people push\"\n";

#[test]
fn a_stricter_rule_sees_through_what_can_be_seen_through_and_asks_about_the_rest() {
    for (command, expected) in [
        ("git status", "allow"),
        ("git push", "forbid people push (rule `no-push` of the user policy)"),
        ("git push origin main", "forbid"),
        ("cd x && git push | tee log", "forbid"),
        ("git push > /dev/null 2>&1", "forbid"),
        ("FOO=1 git push", "forbid"),
        ("'git' \"pu\"sh", "forbid"),
        ("g\\it push", "forbid"),
        ("/usr/bin/git push", "forbid"),
        ("git push --dry-run", "allow"),
        ("git -C x push", "ask"),
        ("git-push origin", "forbid"),
        ("/usr/lib/git-core/git-push origin", "forbid"),
        ("npx git-push", "ask"),
        ("git $VERB", "ask"),
        ("$GIT push", "ask"),
        ("echo $(git push)", "forbid"),
        ("(git push)", "forbid"),
        ("if true; then git push; fi", "forbid"),
        ("for i in 1 2; do git push; done", "forbid"),
        ("sh -c 'git push'", "ask"),
        ("env git push", "ask"),
        ("echo push | xargs git", "ask"),
        ("eval 'git push'", "ask"),
        ("echo `git push`", "ask"),
        ("cat <<EOF\n$(git push)\nEOF", "ask"),
        ("cat <<'EOF'\n$(git push)\nEOF", "allow"),
        ("python3 build.py", "allow"),
        ("python3 -c 'x'", "ask"),
        ("runuser -u x git push", "ask"),
        ("systemd-run git push", "ask"),
        ("/lib64/ld-linux-x86-64.so.2 /usr/bin/git push", "ask"),
        ("echo git push", "allow"),
        ("make test", "allow"),
        ("cargo test 2>&1 | tail -5", "allow"),
    ] {
        let got = said(NO_PUSH, command);
        assert!(got.starts_with(expected), "{command}: {got}");
    }
}

/// Ordinary calls of interpreters beside every way to hand them a text.
#[test]
fn a_text_for_an_interpreter_is_asked_about_however_it_is_given() {
    for command in [
        "sh -ce 'git push'",
        "sh -ec 'git push'",
        "bash -cx 'git push'",
        "bash -O extglob -cx 'git push'",
        "sh -c'git push'",
        "sh -x <<'E'\ngit push\nE",
        "sh -o errexit <<'E'\ngit push\nE",
        "sh -eu",
        "bash --norc",
        "echo 'git push' | bash -x",
        "sh /dev/stdin <<'E'\ngit push\nE",
        "sh /proc/self/fd/0 <<'E'\ngit push\nE",
        "sh ../../dev/stdin <<'E'\ngit push\nE",
        "X=-c; sh $X 'git push'",
        "fish -C 'git push'",
        "fish --init-command='git push'",
        "fish --command='git push'",
        "python3 -cX",
        "python3 -Bc 'x'",
        "python3 -W ignore <<'E'\nx\nE",
        "python3.12 -",
        "pypy3 -c x",
        "perl -we 'system \"git push\"'",
        "perl -le 'x'",
        "perl -0777ne 'x'",
        "perl -M'POSIX;system(q(git push))' x.pl",
        "ruby -ne 'x'",
        "ruby -W0e 'x'",
        "node -pe 'x'",
        "node --print 'x'",
        "node --import=data:text/javascript,x x.js",
        "deno eval 'x'",
        "bun exec 'git push'",
        "php -r 'x'",
        "lua5.3 -eos.execute('git\\ push')",
        "awk 'BEGIN{system(\"git push\")}'",
        "gawk 'BEGIN { print \"x\" | \"git push\" }'",
        "nawk 'BEGIN { f = \"sys\" \"tem\"; @f(\"git push\") }'",
        "awk \"$PROGRAM\" x",
        "perl -nF'/@{[system \"git push\"]}/' x.pl",
        "perl -d:Trace x.pl",
        "perl -p x.pl",
        "python3 -m timeit 'import os'",
        "python3 -mtimeit 'import os'",
        "python3 -Im code",
        "python3 -m pdb -c '!x' x.py",
        "php --run 'x'",
        "php --process-begin 'x' y",
        "php --process-code='x'",
        "node --loader data:text/javascript,x y.js",
        "node --experimental-loader=data:text/javascript,x y.js",
        "deno run data:text/javascript,x",
        "make --eval='x: ; git push'",
        "make -f - x",
        "make -f/dev/stdin",
        "make --file=- x",
        "make SHELL='git push' x",
        "make 'X=$(shell git push)' x",
        "PERL5DB='BEGIN{system \"git push\"}' perl -d x.pl",
        "NODE_OPTIONS='--import data:text/javascript,x' node y.js",
        "PS4='$(git push)' bash -x run.sh",
        "export BASH_ENV=x; bash run.sh",
        "ENV=x; export ENV; sh run.sh",
        "GIT_SSH_COMMAND='git push' git fetch",
        "npx git push",
        "npx -- git push",
        "npx -y git push",
        "npx -c 'git push'",
        "npm exec git push",
        "npm exec -c 'git push'",
        "npx npm exec git push",
        "npx npx npx npx npx npx git push",
        "uv run git push",
        "uv run --with x git push",
        "uv tool run git push",
        "PAGER=$CAT git log",
        "EDITOR='git push' git commit",
        "uv run sh -c 'git push'",
        "poetry run git push",
        "bundle exec git push",
        "npx $X push",
        "prlimit --nofile=9 git push",
        "linux64 git push",
        "toybox git push",
        "tmux new-session 'git push'",
        "perf stat git push",
        "osh -c x",
        "nu -c x",
        "raku -e x",
        "ipython -c x",
        "git submodule foreach 'git push'",
        "git bisect run git push",
        "git rebase -x 'git push' HEAD~1",
        "git rebase --exec='git push' HEAD~1",
        "git difftool -x 'git push' -y",
        "git filter-branch --tree-filter 'git push'",
        "git -calias.x='!git push' x",
        "git config alias.x '!git push'",
        "git config core.sshCommand 'git push'",
        "git fetch --upload-pack='git push' .",
    ] {
        let got = said(NO_PUSH, command);
        assert!(got.starts_with("ask"), "{command}: {got}");
    }
    for command in [
        "sh build.sh",
        "sh -eux build.sh --fast",
        "bash -euo pipefail build.sh",
        "bash --version",
        "python3 -m pytest -q tests",
        "python3 -mpytest",
        "python3 -V",
        "python3 -u -W ignore build.py < data",
        "python3 -X dev build.py \"$FILE\"",
        "perl -w -Ilib build.pl",
        "perl -v",
        "ruby -Ilib -rjson build.rb",
        "node build.js",
        "node --test",
        "node --max-old-space-size=4096 build.js",
        "deno test",
        "bun install",
        "php artisan migrate",
        "lua -lsocket x.lua",
        "awk '{ print $1 }' x",
        "awk -F'|' '$1 == \"a\" || $2 { print $2 }' x",
        "awk -v n=1 -f count.awk x",
        "npx eslint .",
        "npm exec eslint src",
        "uv run pytest -q",
        "uv run python x.py",
        "bundle exec rspec",
        "poetry run git status",
        "npm run build",
        "make -j4 CC=gcc test",
        "make -f other.mk test",
        "php artisan --env=x",
        "perl -w build.pl",
        "python3 -m venv code",
        "RUST_LOG=debug cargo test",
        "PAGER=cat git log",
        "GIT_EDITOR=true git rebase --continue",
        "uv tool run ruff",
        "git rebase main",
        "git submodule update",
        "git config user.name",
        "git log --grep=alias",
        "git-status",
    ] {
        let got = said(NO_PUSH, command);
        assert!(got.starts_with("allow"), "{command}: {got}");
    }
}

const LISTED: &str = "unmatched_commands = \"ask\"\n[[rule]]\nid = \"tests\"\nargv = [\"cargo\", [\"test\", \"check\"]]\nwithout = [\"--config\"]\nprogram = \"toolchain\"\ndecision = \"allow\"\nmatch = [\"cargo test -p wal\"]\nnot_match = [\"./cargo test\", \"cargo run\", \"cargo test --config x=1\"]\n[[rule]]\nid = \"ls\"\nargv = [\"ls\"]\ndecision = \"allow\"\n";

#[test]
fn with_a_list_only_what_is_known_to_the_last_word_is_allowed() {
    for (command, expected) in [
        ("cargo test -p wal", "allow"),
        ("cargo check; ls -l && cargo test", "allow"),
        ("cargo test # with a comment", "allow"),
        ("cargo \\\n  test", "allow"),
        ("cargo run", "ask no rule allows `cargo run`"),
        ("cargo test > log", "ask no rule allows `cargo test`: it redirects"),
        ("PATH=. cargo test", "ask"),
        ("export X=1; cargo test", "ask"),
        ("cargo test $X", "ask"),
        ("cargo test *", "ask"),
        ("cargo test $(ls)", "ask"),
        ("(cargo test)", "ask"),
        ("if ls; then cargo test; fi", "ask"),
        ("cargo test --conf=x", "ask"),
        ("cargo test `ls`", "ask"),
        ("ls <<E\nE", "ask"),
        ("cargo test; rm x", "ask no rule allows `rm x`"),
        ("cargo test\u{85}", "ask"),
        ("", "allow"),
    ] {
        let got = said(LISTED, command);
        assert!(got.starts_with(expected), "{command}: {got}");
    }
    let sets = [built_in().unwrap(), parse(Layer::User, "p", LISTED).unwrap()];
    let sets: Vec<&RuleSet> = sets.iter().collect();
    let call = Call { tool: "exec_send", mcp: None, runs: true, level: Some(Level::Full), writes: &[], deletes: 0 };
    assert_eq!(judge(&call, None, &sets, None).decision, Decision::Ask, "a shell could be fed");
}

#[test]
fn the_strictest_of_all_layers_wins_and_nothing_loosens_the_built_in_file() {
    let user = parse(Layer::User, "u", "[[rule]]\nid = \"all\"\ntools = [\"exec\"]\ndecision = \"allow\"\n[[rule]]\nid = \"lock\"\npaths = [\"*.lock\", \"db/**/*.sql\"]\ndecision = \"forbid\"\n").unwrap();
    let project = parse(Layer::Project, "p", "[[rule]]\nid = \"ask\"\nargv = [\"ls\"]\ndecision = \"ask\"\n").unwrap();
    let built = built_in().unwrap();
    let sets = [&built, &user, &project];
    let none = Call { tool: "exec", mcp: None, runs: true, level: Some(Level::None), writes: &[], deletes: 0 };
    assert_eq!(judge(&none, Some("pwd"), &sets, None).decision, Decision::Ask);
    let full = Call { level: Some(Level::Full), ..none };
    assert_eq!(judge(&full, Some("pwd"), &sets, None).decision, Decision::Allow);
    assert_eq!(judge(&full, Some("ls -l"), &sets, None).decision, Decision::Ask);
    for (path, decision) in [
        ("src/a.rs", Decision::Allow),
        ("Cargo.lock", Decision::Forbid),
        ("a/b/CARGO.LOCK", Decision::Forbid),
        ("db/x.sql", Decision::Forbid),
        ("./db/a/../b/x.sql", Decision::Forbid),
        ("src/db/x.sql", Decision::Allow),
        ("AGENTS.md", Decision::Ask),
        ("../x", Decision::Forbid),
    ] {
        let writes = [path.to_owned()];
        let edit = Call { tool: "edit", mcp: None, runs: false, level: Some(Level::Full), writes: &writes, deletes: 0 };
        assert_eq!(judge(&edit, None, &sets, None).decision, decision, "{path}");
    }
}

#[test]
fn a_mistake_refuses_the_file_with_its_line() {
    let allow = |argv: &str| format!("[[rule]]\nid = \"a\"\nargv = {argv}\ndecision = \"allow\"\n");
    for (policy, expected) in [
        ("[[rule]]\nid = \"a\"\ndecison = \"ask\"\n".to_owned(), "TB-POLICY-003 p.toml:3: unknown field `decison`"),
        ("[[rule]]\nid = \"a\"\ndecision = \"maybe\"\n".to_owned(), "TB-POLICY-003 p.toml:3: unknown variant"),
        ("x = 1\n".to_owned(), "TB-POLICY-003 p.toml:1: unknown field `x`"),
        ("unmatched_commands = \"allow\"\n".to_owned(), "TB-POLICY-003 p.toml:1: `unmatched_commands` can only"),
        (format!("{}{}", allow("[\"ls\"]"), allow("[\"ls\"]")), "TB-POLICY-003 p.toml:6: there are two rules `a`"),
        (allow("[]"), "TB-POLICY-003 p.toml:2: `argv` is empty"),
        (allow("[\"ls\", []]"), "TB-POLICY-003 p.toml:3: an empty list"),
        (allow("[\"cargo test\"]"), "TB-POLICY-003 p.toml:3: `cargo test` can hardly match"),
        (allow("[\"sh\", \"-c\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `sh -c` runs whatever text follows"),
        (allow("[[\"ls\", \"bash\"], \"-lc\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `bash -lc`"),
        (allow("[\"env\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `env` runs whatever follows"),
        (allow("[\"/usr/bin/xargs\", \"ls\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `xargs`"),
        (allow("[\"ssh\", \"-o\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `ssh`"),
        (allow("[\"find\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `find -exec`"),
        (allow("[\"python3.12\", \"-c\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `python3.12 -c`"),
        (allow("[\"node\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `node` runs whatever follows"),
        (allow("[\"git\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `git -c"),
        (allow("[\"git\", \"-c\"]"), "TB-POLICY-003 p.toml:3: rule `a` would allow anything: `git -c`"),
        (format!("{}match = [\"ls\", \"rm\"]\n", allow("[\"ls\"]")), "TB-POLICY-004 p.toml:5: rule `a` does not match its example `rm`"),
        (
            format!("{}not_match = [\n  \"rm\",\n  \"ls -l\"]\n", allow("[\"ls\"]")),
            "TB-POLICY-004 p.toml:7: rule `a` matches what it must not `ls -l`",
        ),
        ("[[rule]]\nid = \"a\"\npaths = [\"/etc/x\"]\ndecision = \"ask\"\n".to_owned(), "TB-POLICY-003 p.toml:3: `/etc/x` can never match"),
        ("[[rule]]\nid = \"a\"\npaths = [\"x\"]\ndecision = \"allow\"\n".to_owned(), "TB-POLICY-003 p.toml:4: files of the worktree"),
        (
            "[[rule]]\nid = \"a\"\nargv = [\"ls\"]\nlevel = [\"high\"]\ndecision = \"ask\"\n".to_owned(),
            "TB-POLICY-003 p.toml:4: there is no level",
        ),
        (
            "[[rule]]\nid = \"a\"\nwithout = [\"x\"]\ndecision = \"ask\"\n".to_owned(),
            "TB-POLICY-003 p.toml:3: `without` and `program` need",
        ),
    ] {
        let got = mistake(Layer::User, &policy);
        assert!(got.starts_with(expected), "{policy}\n{got}");
    }
    assert!(mistake(Layer::Project, &allow("[\"ls\"]")).starts_with("TB-POLICY-005 p.toml:4: a project's policy may only"));
    for name in ["risk", "Risk", " risk", "unmatched_commands", "provenance", "project:a", "PROJECT:", ""] {
        let policy = format!("[[rule]]\nid = \"{name}\"\nargv = [\"touch\"]\ndecision = \"forbid\"\n");
        for layer in [Layer::Organisation, Layer::User, Layer::Project] {
            assert!(mistake(layer, &policy).starts_with("TB-POLICY-003 p.toml:2: "), "{name}");
        }
    }
    let long = format!("[[rule]]\nid = \"{}\"\nargv = [\"touch\"]\ndecision = \"forbid\"\n", "x".repeat(81));
    assert!(mistake(Layer::Project, &long).contains("at most 80 characters") && parse(Layer::User, "p", &long).is_ok());
    for fine in [
        "[\"git\", \"status\"]",
        "[\"python\", \"-m\", \"pytest\"]",
        "[[\"ls\", \"cat\"]]",
        "[\"cargo\", \"test\"]\nwithout = [\"--config\"]",
    ] {
        assert!(parse(Layer::User, "p", &allow(fine)).is_ok(), "{fine}");
    }
}

#[test]
fn an_allow_that_ends_in_a_runner_is_warned_of() {
    for (argv, warned) in [
        ("[\"npm\", \"run\"]", Some("`npm run` runs whatever the project calls by that name")),
        ("[\"npm\", \"run\", [\"build\", \"test\"]]", None),
        ("[[\"cargo\", \"npm\"], [\"test\", \"xtask\"]]", Some("`cargo xtask` runs")),
        ("[\"make\"]", Some("`make` runs")),
        ("[\"make\", \"test\"]", None),
        ("[\"npx\"]", Some("`npx` runs")),
        ("[\"uv\", \"run\", \"python\"]", Some("`python` runs whatever follows")),
        ("[\"uv\", \"run\", \"pytest\"]", None),
        ("[\"go\", \"run\"]", Some("`go run` runs")),
        ("[\"go\", \"test\"]", None),
    ] {
        for decision in ["allow", "ask"] {
            let without = if argv.contains("make") { "without = [\"-f\", \"--file\", \"--eval\"]\n" } else { "" };
            let without = if argv.contains("cargo") { "without = [\"--config\"]\n" } else { without };
            let text = format!("unmatched_commands = \"ask\"\n[[rule]]\nid = \"a\"\nargv = {argv}\n{without}decision = \"{decision}\"\n");
            let warnings = parse(Layer::User, "p", &text).unwrap().warnings;
            match warned.filter(|_| decision == "allow") {
                Some(why) => assert!(
                    warnings.len() == 1
                        && warnings[0].starts_with("p:3: rule `a` allows more than one script")
                        && warnings[0].contains(why),
                    "{argv} {warnings:?}"
                ),
                None => assert!(warnings.is_empty(), "{argv} {decision} {warnings:?}"),
            }
        }
    }
}

#[test]
fn a_rule_that_changes_nothing_is_named() {
    let policy = "[[rule]]\nid = \"a\"\nargv = [\"git\"]\ndecision = \"forbid\"\n[[rule]]\nid = \"b\"\nargv = [\"git\", \"push\"]\ndecision = \"ask\"\n";
    let set = parse(Layer::User, "p", policy).unwrap();
    assert_eq!(set.warnings, ["p:6: rule `b` changes nothing: `a` covers it"]);
    assert!(
        parse(
            Layer::User,
            "p",
            &policy.replace("\"forbid\"", "\"ask\"").replace("decision = \"ask\"\n[[", "decision = \"ask\"\nwithout = [\"x\"]\n[[")
        )
        .unwrap()
        .warnings
        .is_empty()
    );
}

#[test]
fn a_program_must_come_from_outside_the_workspace() {
    let dir = tempfile::tempdir().unwrap();
    let (tools, tree) = (dir.path().join("tools"), dir.path().join("tree"));
    for at in [&tools, &tree] {
        std::fs::create_dir_all(at).unwrap();
        let file = at.join("cargo");
        std::fs::write(&file, "").unwrap();
        std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    std::os::unix::fs::symlink(tree.join("cargo"), tools.join("linked")).unwrap();
    let built = built_in().unwrap();
    let rules = parse(Layer::User, "p", &LISTED.replace("\"cargo\", [", "[\"cargo\", \"linked\"], [")).unwrap();
    let call = Call { tool: "exec", mcp: None, runs: true, level: Some(Level::Full), writes: &[], deletes: 0 };
    let word = |path: String, command: &str| {
        let programs = Programs::of(&path, vec![tree.clone()]);
        judge(&call, Some(command), &[&built, &rules], Some(&programs)).decision
    };
    let (good, bad) = (tools.display().to_string(), tree.display().to_string());
    assert_eq!(word(good.clone(), "cargo test"), Decision::Allow);
    assert_eq!(word(format!("{bad}:{good}"), "cargo test"), Decision::Ask, "the first one is the workspace's");
    assert_eq!(word(format!(".:{good}"), "cargo test"), Decision::Ask, "a relative directory leads anywhere");
    assert_eq!(word(good.clone(), "linked test"), Decision::Ask, "a link into the workspace");
    assert_eq!(word("/nowhere".to_owned(), "cargo test"), Decision::Ask);
}

#[test]
fn files_of_others_are_refused_and_a_mistake_leaves_the_old_rules_in_force() {
    let dir = tempfile::tempdir().unwrap();
    let uid = rustix::process::getuid().as_raw();
    let places = PolicyPlaces { organisation: dir.path().join("none/policy.toml"), user: dir.path().join("policy.toml"), uid };
    let guard = PolicyGuard::new();
    let mut exec = deed("exec", Some("git push"), &[], 0, Some(Level::Full));
    exec.workspace.repo = dir.path().join("repo");
    let word = || match guard.judge(&exec) {
        Judgement::Allow | Judgement::Waived { .. } => "allow".to_owned(),
        Judgement::Ask { why, .. } => format!("ask: {why}"),
        Judgement::Refuse { why } => format!("refuse: {why}"),
    };
    assert_eq!((guard.reload(&places), word().as_str()), (Ok(false), "allow"));
    std::fs::write(&places.user, NO_PUSH).unwrap();
    assert_eq!((guard.reload(&places), guard.reload(&places)), (Ok(true), Ok(false)));
    assert!(word().starts_with("refuse: people push"));
    std::fs::write(&places.user, "x = 1").unwrap();
    assert_eq!(guard.reload(&places).unwrap_err().code.0, "TB-POLICY-003");
    assert!(word().starts_with("refuse: people push"), "the old rules stay");
    std::fs::write(&places.user, "").unwrap();
    std::fs::set_permissions(&places.user, std::os::unix::fs::PermissionsExt::from_mode(0o666)).unwrap();
    let fault = guard.reload(&places).unwrap_err();
    assert!(fault.code.0 == "TB-POLICY-002" && fault.message.contains("mode 666 lets others write it"), "{}", fault.message);
    assert!(read_file(Layer::Organisation, &places.user, &[uid + 1]).unwrap_err().message.contains("belongs to user"));
    std::fs::remove_file(&places.user).unwrap();
    assert_eq!((guard.reload(&places), word().as_str()), (Ok(true), "allow"));
    // A project tightens, and what can not be read is asked for.
    let file = exec.workspace.repo.join(".tinkerbell/policy.toml");
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(&file, NO_PUSH).unwrap();
    assert_eq!((guard.reload_project(&exec.workspace.repo), word().starts_with("refuse")), (Ok(()), true));
    std::fs::write(&file, "x = 1").unwrap();
    assert!(guard.reload_project(&exec.workspace.repo).is_err() && word().starts_with("refuse"), "the old rules stay");
    let fresh = PolicyGuard::new();
    assert!(matches!(fresh.judge(&exec), Judgement::Ask { why, .. } if why.contains("project's policy can not be used")));
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", &file).unwrap();
    assert_eq!(project_file(&exec.workspace.repo).unwrap_err().code.0, "TB-POLICY-002");
}

#[test]
fn nothing_but_an_allow_softens_what_becomes_of_unmatched_commands() {
    let built = built_in().unwrap();
    let user =
        parse(Layer::User, "u", "unmatched_commands = \"forbid\"\n[[rule]]\nid = \"ls\"\nargv = [\"ls\"]\ndecision = \"allow\"\n").unwrap();
    let rule = |id: &str| format!("[[rule]]\nid = \"{id}\"\nargv = [\"{id}\"]\ndecision = \"ask\"\n");
    let project = parse(Layer::Project, "p", &["rm", "ls", "cp", "mv"].map(rule).concat()).unwrap();
    let call = Call { tool: "exec", mcp: None, runs: true, level: Some(Level::Full), writes: &[], deletes: 0 };
    let verdict = |command| judge(&call, Some(command), &[&built, &user, &project], None);
    assert_eq!(
        ["rm x", "ls", "env ls", "`x`", "pwd"].map(|command| verdict(command).decision),
        [Decision::Forbid, Decision::Ask, Decision::Forbid, Decision::Forbid, Decision::Forbid]
    );
    let why = judge(&call, Some("env ls"), &[&built, &project], None).why();
    assert_eq!(why, "the text alone does not say what would run, and rule `project:rm` and 3 more of the project policy might concern it");
}

/// What a repository calls its rules, and how much it says, neither answers for the user's nor hides them.
#[test]
fn a_projects_rules_have_names_of_their_own_and_push_nothing_away() {
    let built = built_in().unwrap();
    let user = parse(Layer::User, "u", "[[rule]]\nid = \"deploys\"\nargv = [\"deploy\"]\ndecision = \"ask\"\nwhy = \"look\"\n").unwrap();
    let said = "deploy to staging ".repeat(30);
    let rule = |at: usize| format!("[[rule]]\nid = \"deploys{at}\"\nargv = [\"deploy\"]\ndecision = \"ask\"\nwhy = \"{at} {said}\"\n");
    let text = format!("unmatched_commands = \"ask\"\n{}", (0..30).map(rule).collect::<String>().replace("deploys0", "deploys"));
    let project = parse(Layer::Project, "p", &text).unwrap();
    let call = Call { tool: "exec", mcp: None, runs: true, level: Some(Level::Full), writes: &[], deletes: 0 };
    let verdict = judge(&call, Some("deploy now"), &[&built, &project, &user], None);
    assert_eq!((verdict.rules().len(), verdict.rules().first().map(String::as_str)), (32, Some("deploys")));
    assert!(verdict.rules().iter().skip(1).all(|name| name.starts_with("project:")), "{:?}", verdict.rules());
    let why = verdict.why();
    assert!(
        why.starts_with("look (rule `deploys` of the user policy); no rule allows `deploy now`; ") || why.starts_with("look (rule"),
        "{why}"
    );
    assert!(why.contains("0 deploy to staging") && why.contains("… (rule `project:deploys` of the project policy)"), "{why}");
    assert!(why.ends_with("and 12 more") && why.len() < 20 * 160, "{} {why}", why.len());
    let alone = judge(&call, Some("deploy now"), &[&built, &project], None);
    assert!(!alone.rules().contains(&"deploys".to_owned()), "{:?}", alone.rules());
    // What it only might be about is none of a rule's.
    let doubtful = judge(&call, Some("sh -c 'deploy now'"), &[&built, &user], None);
    assert_eq!((doubtful.decision, doubtful.rules()), (Decision::Ask, Vec::new()));
}

/// Milliseconds of processor time that this thread has used.
fn cpu_ms() -> i64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    time.tv_sec * 1_000 + time.tv_nsec / 1_000_000
}

/// A repository's rules and a model's command, as many as there may be: what is beyond the measure is asked about, and
/// no rule of the user's is lost for it.
#[test]
fn rules_and_words_without_number_are_judged_in_measure() {
    let built = built_in().unwrap();
    let user = parse(Layer::User, "u", "[[rule]]\nid = \"never\"\nargv = [\"touch\"]\ndecision = \"forbid\"\n").unwrap();
    let many = |decision: &str, body: &dyn Fn(usize) -> String| {
        let rule = |at: usize| format!("[[rule]]\nid = \"r{at}\"\n{}\ndecision = \"{decision}\"\n", body(at));
        parse(Layer::Project, "p", &(0..9_999).map(rule).collect::<String>()).unwrap()
    };
    let call = Call { tool: "exec", mcp: None, runs: true, level: Some(Level::Full), writes: &[], deletes: 0 };
    let commands = [
        "env a;".repeat(10_900),
        format!("git -a {}", "b ".repeat(30_000)),
        "ssh ".repeat(16_000),
        "git -a ".repeat(9_000),
        "rm;".repeat(21_000),
        (0..9_000).map(|at| format!("x{at};")).collect::<String>(),
    ];
    let projects = [
        many("ask", &|at| format!("argv = [\"zz{at}\", \"b\"]")),
        many("ask", &|_| "argv = [[\"env\", \"rm\", \"git\"]]".to_owned()),
        many("forbid", &|at| format!("argv = [\"git\", \"x{at}\"]")),
    ];
    let begun = cpu_ms();
    for (project, command) in projects.iter().zip([0, 4, 3]).flat_map(|(project, at)| [(project, at), (project, 5)]) {
        let text = commands[command].trim_end_matches([';', ' ']);
        let verdict = judge(&call, Some(text), &[&built, project], None);
        assert!(verdict.decision == Decision::Ask || command == 5, "{:?}", verdict.decision);
        assert!(verdict.why().len() < 8_000 && verdict.rules().len() <= 9_999, "{}", verdict.why().len());
        // Each set has a measure of its own.
        let last = format!("{text}; touch a");
        assert_eq!(judge(&call, Some(&last), &[&built, &user, project], None).decision, Decision::Forbid);
    }
    for command in &commands {
        let grounds = &Grounds::default();
        let weight = weigh(&Weighing { call: &call, command: Some(command), args: "", is_pure: false, reaches: true, grounds });
        assert_eq!(weight.risk == Risk::Critical, command.starts_with("git -a git") || command.starts_with("ssh"), "{weight:?}");
    }
    let used = cpu_ms() - begun;
    assert!(used < 30_000, "{used} ms for twelve judgements");
}

/// Files without number beside patterns without number.
#[test]
fn patterns_and_paths_without_number_are_judged_in_measure() {
    let rule = |at: usize| format!("[[rule]]\nid = \"r{at}\"\npaths = [\"**/a/**/b{at}/**\"]\ndecision = \"forbid\"\n");
    let project = parse(Layer::Project, "p", &(0..9_999).map(rule).collect::<String>()).unwrap();
    let writes: Vec<String> = (0..5_000).map(|at| format!("a/x/a/y/{at}")).chain(["a/b7/z".to_owned()]).collect();
    let call = Call { tool: "apply_patch", mcp: None, runs: false, level: Some(Level::Full), writes: &writes, deletes: 0 };
    let begun = cpu_ms();
    let verdict = judge(&call, None, &[&built_in().unwrap(), &project], None);
    assert_eq!(verdict.decision, Decision::Ask);
    assert!(verdict.reasons.iter().any(|reason| reason.source == Source::Doubt { forbids: true }), "{:?}", verdict.reasons);
    assert!(cpu_ms() - begun < 20_000, "{} ms", cpu_ms() - begun);
    let few = Call { writes: &writes[4_990..], ..call };
    assert_eq!(judge(&few, None, &[&built_in().unwrap(), &project], None).decision, Decision::Forbid);
}

#[test]
fn an_allow_that_changes_nothing_is_told() {
    let policy = "[[rule]]\nid = \"a\"\nargv = [\"ls\"]\ndecision = \"allow\"\n";
    let warnings = parse(Layer::User, "p", policy).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("p:2: rule `a` may change nothing"), "{warnings:?}");
    assert!(parse(Layer::User, "p", &format!("unmatched_commands = \"ask\"\n{policy}")).unwrap().warnings.is_empty());
}
