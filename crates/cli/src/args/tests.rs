//! What the command line takes, and how it refuses the rest.

use super::*;
use expect_test::expect_file;
use tinkerbell_core::money::NanoUsd;

fn read(line: &[&str]) -> Result<Args, clap::Error> {
    let argv = std::iter::once("tinkerbell").chain(line.iter().copied()).map(OsString::from).collect();
    Args::try_parse_from(insert_run(argv)).map_err(|mut error| {
        advise(&mut error);
        error
    })
}

#[test]
fn the_grammar_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn help_is_as_published() {
    let mut command = Args::command().term_width(100);
    command.build();
    expect_file!["../../tests/golden/help-short.txt"].assert_eq(&command.render_help().to_string());
    expect_file!["../../tests/golden/help-long.txt"].assert_eq(&command.render_long_help().to_string());
    let run = command.find_subcommand_mut("run").unwrap();
    expect_file!["../../tests/golden/help-run.txt"].assert_eq(&run.render_long_help().to_string());
}

#[test]
fn lines_that_scripts_stand_on_are_read() {
    for line in [
        "run --bg x",
        "run --bg --json x",
        "run --json -m local/qwen --budget 2usd --max-steps 5 --cd /tmp x",
        "run -",
        "run -p x",
        "run --max-budget-usd 2 --max-session-turns 9 --max-tokens 20M --max-wall-time 4h --verify true --base HEAD --no-input x",
        "tell a b c",
        "ps",
        "ps -a -o json",
        "ps --json",
        "attach a",
        "logs -f a",
        "logs --full a",
        "inspect --json a",
        "wait a",
        "wait --timeout 5s a",
        "pause a",
        "unpause a",
        "stop a b",
        "rm -f a",
        "resume a --budget 5usd",
        "diff --stat a",
        "diff a",
        "land a --squash",
        "land a --squash --branch b -m c",
        "undo a",
        "undo a --all",
        "redo a",
        "restore a 0",
        "op log a",
        "approve a/1 --answer b",
        "approve a",
        "deny a",
        "inbox",
        "daemon start",
        "daemon start --foreground",
        "daemon stop",
        "daemon status --json",
        "daemon logs -f",
        "init --yes",
        "doctor --json",
        "config show --origin",
        "config validate",
        "config schema",
        "config path",
        "wal stat",
        "wal verify",
        "wal dump",
        "wal archive",
        "wal archive --to /mnt/archive",
        "wal compact",
        "wal restore --from /mnt/archive --to /tmp/journal",
        "wal export --task 7f3a --format jsonl --blobs",
        "wal explain 7",
        "wal repair",
        "wal repair --apply --from /mnt/backup",
        "keys ls --json",
        "keys rotate-root",
        "demo --fast",
        "demo -m a/b",
        "explain TB-API-001",
        "completion bash",
        "man",
        "man dir",
        "-q ps",
        "ps -q",
        "ps -vv --color never --ascii --no-progress --no-input --yes",
        "ps --set a.b=c",
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        assert!(read(&words).is_ok(), "{line}: {}", read(&words).unwrap_err());
    }
}

#[test]
fn wrong_lines_are_refused_with_what_was_meant() {
    for (line, word) in [
        (&["inspct"][..], "'inspect'"),
        (&["rnu"], "'run'"),
        (&["run"], "<PROMPT>"),
        (&["run", "--budgt", "2usd", "x"], "'--budget'"),
        (&["run", "--budget", "2euros", "x"], "is not an amount"),
        (&["run", "--budget", "-1", "x"], "is not an amount"),
        (&["run", "--max-steps", "-3", "x"], "-3"),
        (&["run", "--max-steps", "many", "x"], "invalid"),
        (&["run", "--max-tokens", "1.5", "x"], "is not a count"),
        (&["run", "--max-wall-time", "soon", "x"], "is not a duration"),
        (&["run", "-c", "model=x", "y"], "--set key=value"),
        (&["run", "-y", "x"], "--yes"),
        (&["run", "--full-auto", "x"], "sandbox"),
        (&["run", "--max-turns", "3", "x"], "--max-steps"),
        (&["ps", "--set", "novalue"], "limits.max_steps=50"),
        (&["land", "a"], "--squash"),
        (&["restore", "a", "-1"], "-1"),
        (&["restore", "a", "first"], "invalid"),
        (&["ps", "-o", "jsn"], "json"),
        (&["completion", "bsh"], "bash"),
        (&["daemon", "strat"], "'start'"),
        (&["-q", "-v", "ps"], "cannot be used"),
    ] {
        let error = read(line).unwrap_err();
        assert!(error.use_stderr(), "{line:?}");
        let text = error.to_string();
        assert!(text.contains(word), "{line:?}: {text}");
    }
}

#[test]
fn a_sentence_is_a_run_and_a_word_is_not() {
    assert!(matches!(read(&["fix the parser"]).unwrap().command, Command::Run(args) if args.prompt == ["fix the parser"]));
    assert!(matches!(read(&["-p", "fix"]).unwrap().command, Command::Run(args) if args.print));
    assert!(read(&["fix"]).is_err());
}

#[test]
fn amounts_reach_the_limits() {
    let Command::Run(args) = read(&["run", "--budget", "$2.50", "--max-tokens", "200k", "--max-wall-time", "1h30m", "x"]).unwrap().command
    else {
        panic!("a run")
    };
    assert_eq!(args.limits.budget, Some(NanoUsd(2_500_000_000)));
    assert_eq!(args.limits.max_tokens, Some(200_000));
    assert_eq!(args.limits.max_wall_time, Some(Duration::from_secs(5_400)));
}
