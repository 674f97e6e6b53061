//! What people mistype, cut off and interrupt.
//!
//! Places, providers and repositories have files of their own beside this one. Invariant: wrong
//! usage ends with 2, a wrong configuration with 78, and both say what was probably meant.

use crate::home::{Home, exec, finish, kill, until};
use serde_json::Value;
use std::path::Path;
use std::process::Stdio;
use tinkerbell_testkit::llm::Turn;
use tokio::io::AsyncWriteExt as _;

#[tokio::test(flavor = "multi_thread")]
async fn unknown_options_and_commands_are_usage_errors_with_a_guess() {
    let home = Home::bare();
    for (args, guess) in [
        (&["run", "--modle", "a/b", "go"][..], "--model"),
        (&["run", "--max-step", "3", "go"], "--max-steps"),
        (&["rnu"], "run"),
        (&["inspekt", "x"], "inspect"),
        (&["run", "-c", "a=b", "go"], "--set"),
        (&["run", "--full-auto", "go"], "sandbox"),
        (&["run", "--budget", "much", "go"], "2usd"),
        (&["run", "--max-wall-time", "soon", "go"], "90s"),
        (&["daemon", "strat"], "start"),
        (&["run", "--set", "model", "go"], "="),
    ] {
        home.run(args).await.exits(2).says(guess);
    }
    assert!(!home.tb().exists(), "a slip starts no daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn mistakes_in_the_configuration_are_shown_where_they_are() {
    let home = Home::bare();
    for (text, place, guess) in [
        ("modle = \"a/b\"\n", ":1:1", "did you mean `model`"),
        ("model = \"a/b\"\n[sandbox]\nlevl = \"full\"\n", ":3:1", "did you mean `sandbox.level`"),
        ("[sandbox]\nlevel = \"ful\"\n", ":2:9", "full"),
        ("[limits]\nmax_steps = \"many\"\n", ":2:13", ""),
        ("model = \n", ":1:", ""),
        ("[providers.local]\nwire = \"opanai\"\n", ":2:8", "openai"),
    ] {
        home.config(text);
        let place = format!("{}{place}", home.tb().join("config.toml").display());
        for args in [&["run", "go"][..], &["config", "validate"], &["ps"]] {
            home.run(args).await.exits(78).says(&place).says(guess);
        }
    }
    home.config("");
    home.run(&["run", "--set", "sandbox.levl=full", "go"]).await.exits(78).says("sandbox.level");
}

/// The daemon that runs keeps its own settings; a command with another one would be done with the wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn a_setting_that_the_running_daemon_does_not_know_is_refused() {
    let home = Home::with(vec![Turn::text("done")]).await;
    home.run(&["ps", "--set", "limits.max_steps=50"]).await.exits(0);
    home.run(&["daemon", "status"]).await.exits(0).says("started with limits.max_steps=50");
    home.run(&["run", "--set", "limits.max_steps=50", "go"]).await.exits(0);
    let refused = home.run(&["run", "--set", "limits.max_steps=50", "--set", "model=a/b", "go"]).await.exits(78);
    refused.says("TB-CONFIG-008").says("--set model=a/b").says("--model");
    assert_eq!(home.asked(), 1);
}

/// Quiet is not mute: a task that failed says why.
#[tokio::test(flavor = "multi_thread")]
async fn a_quiet_run_says_nothing_but_what_went_wrong() {
    let home = Home::with(vec![Turn::text("done")]).await;
    let out = home.run(&["run", "-q", "go"]).await.exits(0);
    assert_eq!(out.stderr, "");
    home.git(&["config", "core.worktree", "/"]);
    home.run(&["run", "-q", "go"]).await.exits(2).says("TB-CANVAS-018").says("--unset core.worktree");
}

/// A mistake made while the daemon runs is told to the next client and harms no task.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_breaks_later_harms_no_task() {
    let home = Home::with(vec![exec("while [ ! -e go ]; do sleep 0.05; done"), Turn::text("done")]).await;
    let task = home.submit(&["go"]).await;
    until("the model is asked", || home.asked() == 1).await;
    let good = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
    home.config("modle = 1\n");
    home.run(&["run", "more"]).await.exits(78).says("config.toml:1:1");
    home.config(&good);
    let tree = workspace(&home, &task).await;
    std::fs::write(Path::new(&tree).join("go"), "").unwrap();
    home.run(&["wait", &task]).await.exits(0);
}

async fn workspace(home: &Home, task: &str) -> String {
    home.inspect(task).await["workspace"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn prompts_come_from_standard_input_and_are_never_empty() {
    let home = Home::with(vec![Turn::text("done")]).await;
    for args in [&["run", ""][..], &["run", "  \n "], &["run", "-"], &["run"]] {
        home.run(args).await.exits(2);
    }
    let args = ["run", "-"];
    let mut child = home.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all("say grüezi\nin two lines\n".as_bytes()).await.unwrap();
    drop(stdin);
    crate::home::out(child.wait_with_output().await.unwrap()).exits(0);
    let first = home.model.as_ref().unwrap().requests()[0].body.to_string();
    assert!(first.contains("say grüezi\\nin two lines"), "{first}");
    // No text at all, and too much of it.
    let mut child = home.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(&[0xff, 0xfe, 0x00]).await.unwrap();
    drop(stdin);
    crate::home::out(child.wait_with_output().await.unwrap()).exits(2).says("standard input");
}

#[tokio::test(flavor = "multi_thread")]
async fn ids_that_name_no_task_or_several_are_told() {
    let home = Home::with(vec![Turn::text("done")]).await;
    home.run(&["ps"]).await.exits(0);
    for args in
        [&["wait", "abcdef"][..], &["undo", "abcdef"], &["attach", "zzzzzz"], &["logs", "../../x"], &["diff", "abc def"], &["rm", "%00"]]
    {
        let out = home.run(args).await;
        assert!(out.code == 2 && out.stderr.contains("tinkerbell ps"), "{args:?} {}: {}", out.code, out.stderr);
    }
    // Sixteen first digits: two of seventeen tasks share one at the latest.
    let mut ids: Vec<String> = Vec::new();
    let shared = loop {
        assert!(ids.len() < 17);
        let id = home.submit(&["go"]).await;
        let shared = ids.iter().any(|other| other[..1] == id[..1]);
        ids.push(id.clone());
        if shared {
            break id[..1].to_owned();
        }
    };
    let out = home.run(&["wait", &shared]).await.exits(2);
    assert!(out.stderr.contains("tinkerbell ps") || out.stderr.contains("digits"), "{}", out.stderr);
    for id in &ids {
        home.run(&["wait", &id[..12]]).await.exits(0);
        home.run(&["wait", &id.to_uppercase()]).await.exits(0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_twice_or_too_early_is_told() {
    let home = Home::with(vec![exec("echo new > new.txt"), Turn::text("done")]).await;
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    home.run(&["land", &task, "--squash"]).await.exits(0);
    let head = home.git(&["rev-parse", "HEAD"]);
    home.run(&["land", &task, "--squash"]).await.exits(0).says("nothing to land");
    assert_eq!(home.git(&["rev-parse", "HEAD"]), head, "landing twice lands once");
    home.run(&["redo", &task]).await.exits(1).says("TB-TASK-006");
    home.run(&["undo", &task]).await.exits(0);
    home.run(&["undo", &task]).await.exits(0);
    home.run(&["undo", &task]).await.exits(1).says("TB-TASK-006").says("op log");
    home.run(&["resume", &task]).await.exits(1).says("tell");
    home.run(&["pause", &task]).await.exits(1);
    home.run(&["approve", &task]).await.says("tinkerbell inbox");
    home.run(&["restore", &task, "99"]).await.exits(1).says("op log");
    home.run(&["rm", &task]).await.exits(0);
    home.run(&["rm", &task]).await.exits(2);
    home.run(&["attach", &task]).await.exits(2);
}

/// A task without any change has nothing to undo and nothing to land.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_without_a_change_has_nothing_to_undo_or_land() {
    let home = Home::with(vec![Turn::text("nothing to do")]).await;
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    home.run(&["undo", &task]).await.exits(1).says("TB-TASK-006");
    home.run(&["undo", &task, "--all"]).await.exits(1).says("TB-TASK-006");
    let head = home.git(&["rev-parse", "HEAD"]);
    home.run(&["land", &task, "--squash"]).await.says("nothing");
    assert_eq!(home.git(&["rev-parse", "HEAD"]), head);
    home.run(&["diff", &task]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_running_task_is_not_removed_without_force() {
    let home = Home::with(vec![exec("echo begin; sleep 60")]).await;
    let task = home.submit(&["go"]).await;
    home.until_output("begin").await;
    home.run(&["rm", &task]).await.exits(1).says("--force");
    let tree = workspace(&home, &task).await;
    home.run(&["rm", "--force", &task]).await.exits(0);
    assert!(!Path::new(&tree).exists());
    assert_eq!(home.git(&["branch", "--list", "tinkerbell/*"]), "");
    until("its command is gone", || !runs_below(&tree)).await;
}

/// Whether a process works in a directory.
fn runs_below(dir: &str) -> bool {
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    processes.filter_map(|entry| std::fs::read_link(entry.path().join("cwd")).ok()).any(|cwd| cwd.to_string_lossy().starts_with(dir))
}

/// `tinkerbell ps | head -1`: a reader that leaves is no error, and a run goes on without it.
#[tokio::test(flavor = "multi_thread")]
async fn a_closed_output_is_no_crash() {
    let home = Home::with(vec![exec("seq 1000; sleep 0.3; seq 1000; touch made.txt"), Turn::text(&"many words\n".repeat(2000))]).await;
    for args in ["config show --origin", "man", "completion bash", "explain TB-WAL-004", "wal dump", "run --json go"] {
        let script = format!("{} {args} | head -c 1 > /dev/null; echo ${{PIPESTATUS[0]}}", env!("CARGO_BIN_EXE_tinkerbell"));
        let mut command = std::process::Command::new("bash");
        command.args(["-c", &script]).current_dir(&home.repo).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.dir.path().join("home")).env("TINKERBELL_HOME", home.tb());
        let out = tokio::task::spawn_blocking(move || crate::home::out(command.stdin(Stdio::null()).output().unwrap())).await.unwrap();
        assert!(!out.stderr.contains("panicked") && !matches!(out.stdout.trim(), "70" | "101" | "134"), "{args}: {out:?}");
    }
    let tasks: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let task = tasks[0]["id"].as_str().unwrap();
    home.run(&["wait", task]).await.exits(0);
    assert!(Path::new(&workspace(&home, task).await).join("made.txt").exists(), "the task went on without its reader");
}

/// Ctrl-C ends the task and its command; a lost terminal only detaches.
#[tokio::test(flavor = "multi_thread")]
async fn interrupts_cancel_and_hangups_detach() {
    let cases = [("INT", 130, "cancelled"), ("TERM", 143, "cancelled"), ("HUP", 0, "running")];
    for one in cases.map(|(signal, code, status)| tokio::spawn(signalled(signal, code, status))) {
        one.await.unwrap();
    }
}

async fn signalled(signal: &'static str, code: i32, status: &'static str) {
    let home = Home::with(vec![exec("echo begin; sleep 60"), Turn::text("done")]).await;
    let child = home.command(&["run", "go"]).spawn().unwrap();
    home.until_output("begin").await;
    std::process::Command::new("kill").args([format!("-{signal}"), child.id().unwrap().to_string()]).status().unwrap();
    let out = tokio::time::timeout(std::time::Duration::from_secs(30), child.wait_with_output()).await;
    crate::home::out(out.unwrap_or_else(|_| panic!("{signal} was not heard")).unwrap()).exits(code);
    let tasks: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let view = home.inspect(tasks[0]["id"].as_str().unwrap()).await;
    assert_eq!(view["result"]["status"].as_str().or(view["status"].as_str()), Some(status), "{signal}: {view}");
    let tree = view["workspace"].as_str().unwrap().to_owned();
    if code != 0 {
        until("its command is gone", || !runs_below(&tree)).await;
    }
}

/// The keeper dies with its command: the outcome is unknown, so a person is asked, and only then it
/// goes on. Nothing runs twice by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_killed_keeper_makes_the_outcome_a_question() {
    let home = Home::with(vec![exec("echo x >> ran.txt; echo begin; sleep 60"), Turn::text("done")]).await;
    let task = home.submit(&["go"]).await;
    home.until_output("begin").await;
    let keepers: Vec<i32> = keepers_of(&home);
    assert_eq!(keepers.len(), 1);
    keepers.into_iter().for_each(kill);
    home.run(&["wait", &task]).await.exits(4);
    home.run(&["ps"]).await.exits(0).says("needs-you");
    home.run(&["inbox"]).await.exits(0).says("outcome of this command is unknown");
    home.run(&["inspect", &task]).await.exits(0).says("echo x >> ran.txt").says("tinkerbell approve");
    assert_eq!(home.asked(), 1, "the model is not asked before the person");
    let args = ["approve", &task];
    finish(home.command(&args), &args).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    let last = home.model.as_ref().unwrap().requests().pop().unwrap().body.to_string();
    assert!(last.contains("outcome of this command is unknown"), "{last}");
    assert_eq!(std::fs::read_to_string(format!("{}/ran.txt", workspace(&home, &task).await)).unwrap(), "x\n");
}

/// The lock of each run names its keeper.
fn keepers_of(home: &Home) -> Vec<i32> {
    let files = crate::home::walk(&home.tb().join("data/runs"));
    let locks = files.iter().filter(|path| path.ends_with("lock")).map(|path| std::fs::read(path).unwrap());
    let locks = locks.filter_map(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    locks.filter_map(|lock| i32::try_from(lock["keeper"]["pid"].as_i64()?).ok()).collect()
}
