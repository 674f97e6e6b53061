//! Questions on a real terminal: what a person sees, which keys decide, and what a lost terminal does.
//!
//! A pseudo-terminal is driven by a small script. Invariants: nothing of a task's text reaches the terminal as a
//! control sequence, all of it is there in every window, and nothing but the right keys approves.

use crate::home::{Home, Out, exec, finish};
use serde_json::json;
use std::path::{Path, PathBuf};
use tinkerbell_testkit::llm::Turn;

const UP: &str = "\x1b[A";
const ENTER: &str = "\r";
const CTRL_C: &str = "\x03";
const CTRL_D: &str = "\x04";
/// What stands below a question when keys count.
const ASKED: &str = "(arrows, then Enter)";
const DECISION: &str = "Your decision";
const ASK: &str = "[[rule]]\nid = \"deploys\"\nargv = [\"deploy\"]\ndecision = \"ask\"\nwhy = \"somebody should look\"\n";

fn has_python() -> bool {
    let has = std::process::Command::new("python3").args(["-c", "import pty"]).status().is_ok_and(|status| status.success());
    if !has {
        eprintln!("skipped: there is no python3");
    }
    has
}

/// A command on a terminal of this size, in these surroundings; each step waits for a text and types.
async fn terminal(home: &Home, size: &str, env: &[(&str, &str)], args: &[&str], steps: &[(&str, &str)]) -> Out {
    let script = home.dir.path().join("drive.py");
    std::fs::write(&script, include_str!("terminal/drive.py")).unwrap();
    let plain = home.command(args);
    let plain = plain.as_std();
    let mut command = tokio::process::Command::new("python3");
    command.arg(&script).args([size, &json!(steps).to_string(), "--"]).arg(plain.get_program()).args(plain.get_args());
    command.current_dir(plain.get_current_dir().unwrap()).env_clear();
    command.envs(plain.get_envs().filter_map(|(key, value)| Some((key, value?)))).env("TERM", "xterm-256color").envs(env.iter().copied());
    command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).kill_on_drop(true);
    finish(command, args).await
}

/// What a person reads: colours and cursor movements taken away, and of a line that is written over its last form.
fn read(shown: &str) -> String {
    let mut text = String::new();
    let mut letters = shown.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '\x1b' if letters.peek() == Some(&'[') => {
                let _sequence: String = letters.by_ref().take_while(|c| !('@'..='~').contains(c) || *c == '[').collect();
            }
            '\r' if letters.peek() == Some(&'\n') => {}
            // What moves is written over.
            '\r' => text.truncate(text.rfind('\n').map_or(0, |at| at + 1)),
            other => text.push(other),
        }
    }
    text
}

/// A home in which `deploy` writes down that it ran, wherever it is called, and is asked about.
async fn bench(command: &str) -> Home {
    let home = Home::with(vec![exec(command), Turn::text("done"), Turn::text("done")]).await;
    std::fs::write(home.tb().join("policy.toml"), ASK).unwrap();
    home
}

async fn tree(home: &Home) -> PathBuf {
    let list: serde_json::Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let task = list[0]["id"].as_str().unwrap().to_owned();
    PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap())
}

fn ran(tree: &Path) -> bool {
    tree.join("ran.txt").exists()
}

/// Written so that it runs without a program of that name: the rule sees the first command, the shell both.
const DEPLOY: &str = "deploy now; touch ran.txt";

/// The way from the safe choice, where the list begins, up to the first one.
fn approve() -> String {
    format!("{UP}{UP}{ENTER}")
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_keys_that_choose_it_approve() {
    if !has_python() {
        return;
    }
    for (steps, code, runs) in [
        (vec![(ASKED, approve())], 0, true),
        // What an accidental Enter, Escape or letter does, and a word that is no key.
        (vec![(ASKED, ENTER.to_owned())], 4, false),
        (vec![(ASKED, format!("yes{ENTER}"))], 4, false),
        (vec![(ASKED, format!("{CTRL_D}{ENTER}"))], 4, false),
        (vec![(ASKED, format!("{UP}{ENTER}"))], 0, false),
    ] {
        let home = bench(DEPLOY).await;
        let steps: Vec<(&str, &str)> = steps.iter().map(|(wait, keys)| (*wait, keys.as_str())).collect();
        let out = terminal(&home, "40x100", &[], &["run", "ship it"], &steps).await;
        assert_eq!(out.code, code, "{steps:?}\n{}\n{}", read(&out.stdout), out.stderr);
        assert_eq!(ran(&tree(&home).await), runs, "{steps:?}\n{}", read(&out.stdout));
        assert!(out.stdout.contains("\x1b[?25h") || !out.stdout.contains("\x1b[?25l"), "the cursor stays hidden");
    }
}

/// Keys that were typed before the question can have been read are no answer, and letters never are.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_typed_before_a_question_answers_nothing() {
    if !has_python() {
        return;
    }
    // At once: before the program stands.
    let early = "";
    for keys in [approve(), format!("kk{ENTER}{UP}{UP}{ENTER}"), "just a moment\r".to_owned()] {
        let home = bench(DEPLOY).await;
        let out = terminal(&home, "40x100", &[], &["run", "ship it"], &[(early, &keys), (ASKED, ENTER)]).await;
        assert_eq!(out.code, 4, "{keys:?}\n{}\n{}", read(&out.stdout), out.stderr);
        assert!(!ran(&tree(&home).await), "{keys:?}");
    }
    let home = bench(DEPLOY).await;
    let out = terminal(&home, "40x100", &[], &["run", "ship it"], &[(ASKED, "bookkeeping j k q \r")]).await;
    assert_eq!(out.code, 4, "{}\n{}", read(&out.stdout), out.stderr);
    assert!(!ran(&tree(&home).await));
    // Nor on a terminal of lines.
    let home = bench(DEPLOY).await;
    let dumb = [("TERM", "dumb"), ("NO_COLOR", "1")];
    let out = terminal(&home, "24x80", &dumb, &["run", "ship it"], &[(early, "1\r1\r"), ("(1-", ENTER)]).await;
    assert_eq!(out.code, 4, "{}\n{}", read(&out.stdout), out.stderr);
    assert!(!ran(&tree(&home).await));
}

/// An interruption, a signal from elsewhere and a closed window are no answers.
#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_has_not_approved() {
    if !has_python() {
        return;
    }
    // When keys count, and before.
    let moments = [(ASKED, CTRL_C), (ASKED, "SIGINT"), (ASKED, "SIGTERM"), (ASKED, "HANGUP"), (DECISION, CTRL_C), (DECISION, "SIGTERM")];
    for (wait, keys) in moments {
        let home = bench(DEPLOY).await;
        let out = terminal(&home, "40x100", &[], &["run", "ship it"], &[(wait, keys)]).await;
        // Nobody reads what a closed window is told.
        assert!(keys == "HANGUP" || out.code != 0, "{}\n{}", read(&out.stdout), out.stderr);
        assert!(!out.stderr.contains("it did not end"), "{keys:?}: {}\n{}", out.stderr, read(&out.stdout));
        assert!(!ran(&tree(&home).await), "{keys:?}");
        if keys != "HANGUP" {
            assert!(!out.stderr.contains("other modes"), "{keys:?}");
            assert!(out.stdout.rfind("\x1b[?25h") >= out.stdout.rfind("\x1b[?25l"), "the cursor stays hidden: {:?}", out.stdout);
        }
    }
}

/// A terminal that can not move its cursor gets numbered lines; the end of input is no answer there.
#[tokio::test(flavor = "multi_thread")]
async fn a_terminal_of_lines_is_asked_by_numbers() {
    if !has_python() {
        return;
    }
    for (keys, code, runs) in [("1\r", 0, true), ("\r", 4, false), ("9\r", 4, false), ("y\r", 4, false), ("HANGUP", -1, false)] {
        let home = bench(DEPLOY).await;
        let dumb = [("TERM", "dumb"), ("NO_COLOR", "1")];
        let out = terminal(&home, "24x80", &dumb, &["run", "ship it"], &[("(1-", keys)]).await;
        assert!(code < 0 || out.code == code, "{keys:?} {}\n{}\n{}", out.code, out.stdout, out.stderr);
        assert!(!out.stdout.contains('\x1b'), "{keys:?}: {:?}", out.stdout);
        assert_eq!(ran(&tree(&home).await), runs, "{keys:?}");
    }
}

/// What a text could do to a terminal is written out, and what misleads is told, in the question and in the notice.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_task_moves_the_terminal() {
    if !has_python() {
        return;
    }
    let nasty = "deploy 'a\u{202e}b' 'p\u{430}ypal.com' '\u{1b}]0;title\u{7}\u{1b}[2K\u{1b}[1A' 'x\u{200b}y' '\u{9b}2J'; touch ran.txt";
    for (env, notice) in
        [(vec![], "\x07"), (vec![("TERM_PROGRAM", "iTerm.app")], "\x1b]9;"), (vec![("VTE_VERSION", "7600")], "\x1b]777;notify;tinkerbell;")]
    {
        let home = bench(nasty).await;
        let out = terminal(&home, "40x120", &env, &["run", "ship it"], &[(ASKED, ENTER)]).await.exits(4);
        for raw in ["\u{202e}", "\u{200b}", "\u{9b}", "\x1b]0;", "\x1b[2K\x1b[1A' "] {
            assert!(!out.stdout.contains(raw), "{raw:?} in {:?}", out.stdout);
        }
        let text = read(&out.stdout);
        for told in ["<U+202E>", "<U+0430>", "<U+200B>", "\\x1b]0;title", "look-alike letters", "direction of text", "control characters"] {
            assert!(text.contains(told), "{told} in {text}");
        }
        let calls: Vec<&str> = out.stdout.split("\x1b]").skip(1).filter_map(|rest| rest.split('\x07').next()).collect();
        assert!(out.stdout.contains(notice) && out.stdout.contains('\x07'), "{notice:?} in {:?}", out.stdout);
        assert!(calls.iter().all(|call| call.chars().all(|c| !c.is_control() && !matches!(c, '\u{202e}' | '\u{200b}'))), "{calls:?}");
        assert!(!ran(&tree(&home).await));
    }
}

/// In a window of any size the whole command is there before it can be approved.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_left_out_in_a_narrow_window() {
    if !has_python() {
        return;
    }
    let words: String = (0..300).map(|n| format!("word-{n} ")).collect();
    for size in ["4x20", "24x80", "60x200"] {
        let home = bench(&format!("deploy {words}the-end; touch ran.txt")).await;
        let out = terminal(&home, size, &[], &["run", "ship it"], &[(ASKED, &approve())]).await;
        let text: String = read(&out.stdout).replace("  ┆ ", "").split_whitespace().collect();
        let whole: String = format!("deploy {words}the-end").split_whitespace().collect();
        assert!(text.contains(&whole), "{size}: {}", read(&out.stdout));
        assert_eq!(out.code, 0, "{size}: {}\n{}", read(&out.stdout), out.stderr);
        assert!(ran(&tree(&home).await), "{size}");
    }
    // Longer than a page: the decision comes after the last one, and leaving in between approves nothing.
    let lines: String = (0..400).map(|n| format!("deploy line-{n}\n")).collect();
    let more = ASKED;
    let home = bench(&format!("{lines}touch ran.txt")).await;
    let out = terminal(&home, "24x80", &[], &["run", "ship it"], &[(more, ENTER), (more, ENTER), (more, ENTER), (ASKED, &approve())]).await;
    let text = read(&out.stdout);
    assert!((0..400).all(|n| text.contains(&format!("deploy line-{n}"))) && ran(&tree(&home).await), "{text}\n{}", out.stderr);
    let home = bench(&format!("{lines}touch ran.txt")).await;
    let down = format!("\x1b[B{ENTER}");
    let out = terminal(&home, "24x80", &[], &["run", "ship it"], &[(more, &down)]).await.exits(4);
    assert!(!read(&out.stdout).contains(DECISION) && !ran(&tree(&home).await));
}

/// Files of a repository and descriptions of a server are shown as text, and agreed to by the right keys alone.
#[tokio::test(flavor = "multi_thread")]
async fn trust_is_given_by_the_right_keys_alone() {
    if !has_python() {
        return;
    }
    let home = Home::bare();
    std::fs::create_dir_all(home.repo.join(".tinkerbell")).unwrap();
    let text = "# \u{202e}hidden\n[verify]\ncommand = \"make test\"\n";
    std::fs::write(home.repo.join(".tinkerbell/config.toml"), text).unwrap();
    std::fs::write(home.repo.join(".mcp.json"), "\u{1b}[2K\u{1b}]0;x\u{7}{}\n").unwrap();
    let asked = ASKED;
    for (keys, code) in [(ENTER, 4), (CTRL_C, -1), ("y\r", 4), ("HANGUP", -1)] {
        let out = terminal(&home, "12x30", &[], &["trust"], &[(asked, keys)]).await;
        assert!(keys == "HANGUP" || !out.stderr.contains("other modes"), "{keys:?}");
        assert!(keys == "HANGUP" || out.stdout.rfind("\x1b[?25h") >= out.stdout.rfind("\x1b[?25l"), "{keys:?}: the cursor stays hidden");
        assert!(code < 0 || out.code == code, "{keys:?} {}\n{}\n{}", out.code, read(&out.stdout), out.stderr);
        assert!(out.code != 0 && !out.stderr.contains("it did not end"), "{keys:?} {}", out.stderr);
        assert!(!out.stdout.contains('\u{202e}') && !out.stdout.contains("\x1b]0;"), "{:?}", out.stdout);
        let text = read(&out.stdout);
        assert!(text.contains("<U+202E>hidden") && text.contains("\\x1b[2K\\x1b]0;x\\x07") && text.contains("make test"), "{text}");
        home.run(&["trust", "--show"]).await.exits(0).says("until they are trusted");
    }
    terminal(&home, "12x30", &[], &["trust"], &[(asked, &format!("{UP}{ENTER}"))]).await.exits(0);
    home.run(&["trust", "--show"]).await.exits(0).says("is trusted with these files");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_is_agreed_to_by_the_right_keys_alone() {
    if !has_python() {
        return;
    }
    let home = crate::mcp::with(vec![Turn::text("done")], "modern", "").await;
    crate::mcp::says(&home, "Says \u{202e}what\\u001b[2K it hears.");
    let asked = ASKED;
    let args = ["mcp", "approve", "srv"];
    for keys in [ENTER, CTRL_C, "y\r", "HANGUP"] {
        let out = terminal(&home, "24x60", &[], &args, &[(asked, keys)]).await;
        assert!(out.code != 0 && !out.stderr.contains("it did not end"), "{keys:?} {}\n{}\n{}", out.code, read(&out.stdout), out.stderr);
        assert!(!out.stdout.contains('\u{202e}'), "{:?}", out.stdout);
        assert!(read(&out.stdout).contains("\\u{202e}what\\u{1b}[2K it hears"), "{}", read(&out.stdout));
    }
    home.run(&["mcp", "tools", "srv"]).await.exits(0).says("not agreed to");
    terminal(&home, "24x60", &[], &args, &[(asked, &format!("{UP}{ENTER}"))]).await.exits(0);
    home.run(&args).await.exits(0).says("agreed to already");
}

/// Who asks nobody is named by what looks after the machine.
#[tokio::test(flavor = "multi_thread")]
async fn tasks_that_ask_nobody_are_named_by_status_and_doctor() {
    let home = Home::with(vec![exec("sleep 30"), Turn::text("done")]).await;
    let task = home.submit(&["--yolo", "--reason", "a test host", "wait"]).await;
    home.run(&["daemon", "status"]).await.exits(0).says("YOLO: nobody is asked").says("a test host");
    home.run(&["doctor", "--offline"]).await.says("asks nobody until").says("a test host");
    home.run(&["stop", &task]).await.exits(0);
}
