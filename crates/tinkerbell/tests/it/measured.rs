//! What a command leaves behind to hide from the check, from the diff, or from an undo.
//!
//! Sizes and modes cost it nothing. Invariant: the daemon reads none of it beyond a measure, the task goes on, and an
//! undo brings the tree back.

use crate::home::{Home, exec};
use std::path::PathBuf;
use tinkerbell_testkit::llm::Turn;

/// Runs a task to its end; its short id and its tree, or `None` where this host does not give the level.
async fn ran(home: &Home, args: &[&str]) -> Option<(String, PathBuf)> {
    let out = home.run(args).await;
    if out.stderr.contains("TB-SANDBOX-002") || out.stdout.contains("TB-SANDBOX-002") {
        eprintln!("skipped at level {}", home.level);
        return None;
    }
    let tasks: serde_json::Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let task = tasks[0]["short"].as_str().unwrap().to_owned();
    let tree = PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap());
    Some((task, tree))
}

/// The most memory that the daemon has had, in KiB.
async fn peak_kib(home: &Home) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", home.pid().await)).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmHWM")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

async fn an_undo_comes_to_its_end(level: &'static str) {
    let attack = "echo BAD > src/a.txt; rm -f .git; truncate -s 20G .git; truncate -s 5G big; for i in 1 2 3 4 5 6; do truncate -s 3900M s$i; done; \
                  mkdir -p d .tinkerbell~partial/x src/.tinkerbell~partial/x; printf '.gitignore\\nlog\\n' > d/.gitignore; \
                  truncate -s 3G d/.gitignore; echo x > d/new; echo x > d/log; echo evil > AGENTS.md; chmod 555 .";
    let mut home = Home::with(vec![exec(attack), exec("echo two"), Turn::text("done")]).await;
    home.level = level;
    std::fs::write(home.repo.join("AGENTS.md"), "good\n").unwrap();
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "more"]);
    let Some((task, tree)) = ran(&home, &["run", "x"]).await else { return };
    let log = home.run(&["logs", &task, "--full"]).await.exits(0).stdout;
    assert!(log.contains("big (a file of 5368709120 bytes can not be kept for undo)"), "{level}: {log}");
    assert!(!tree.join("big").exists() && !tree.join("s1").exists() && tree.join("d/new").exists(), "{level}: {log}");
    assert_eq!(std::fs::read_to_string(tree.join("AGENTS.md")).unwrap(), "good\n");
    home.run(&["undo", &task]).await.exits(0);
    std::fs::remove_file(tree.join("d/log")).ok();
    assert_eq!(home.tree_of(&tree), home.git(&["rev-parse", "HEAD^{tree}"]), "{level}");
    assert!(peak_kib(&home).await < 400 << 10, "{level}: {} KiB", peak_kib(&home).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_comes_to_its_end_full() {
    an_undo_comes_to_its_end("full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_comes_to_its_end_landlock() {
    an_undo_comes_to_its_end("landlock").await;
}

/// A check that takes whatever tests it finds.
async fn a_check_sees_what_a_command_closed(level: &'static str) {
    let attack = "echo yes > answer; chmod 000 tests/guard";
    let check = "for t in tests/*/t.sh; do sh $t || exit 1; done";
    let mut home = Home::with(vec![exec(attack), Turn::text("done"), Turn::text("done"), Turn::text("done")]).await;
    home.level = level;
    for (path, text) in [("tests/guard/t.sh", "grep -q no answer\n"), ("tests/ok/t.sh", "true\n"), ("answer", "no\n")] {
        std::fs::create_dir_all(home.repo.join(path).parent().unwrap()).unwrap();
        std::fs::write(home.repo.join(path), text).unwrap();
    }
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "more"]);
    let Some((task, _)) = ran(&home, &["run", "--verify", check, "x"]).await else { return };
    let inspected = home.inspect(&task).await;
    assert_eq!(inspected["result"]["status"], "gate-failed", "{level}: {inspected}");
    home.run(&["logs", &task, "--full"]).await.exits(0).says("tests/guard (its permissions)");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_sees_what_a_command_closed_full() {
    a_check_sees_what_a_command_closed("full").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_sees_what_a_command_closed_landlock() {
    a_check_sees_what_a_command_closed("landlock").await;
}

/// What hides files from the diff stands in it itself, and is not landed.
#[tokio::test(flavor = "multi_thread")]
async fn an_ignore_file_that_hides_itself_is_told() {
    let attack = "printf '*\\n' > src/.gitignore; echo evil > src/sitecustomize.py; echo two > src/a.txt";
    let home = Home::with(vec![exec(attack), Turn::text("done")]).await;
    let Some((task, _)) = ran(&home, &["run", "x"]).await else { return };
    home.run(&["diff", &task]).await.exits(0).says("+++ b/src/.gitignore");
    home.run(&["land", &task, "--squash"]).await.exits(0);
    assert_eq!(home.git(&["show", "--name-only", "--format=", "HEAD"]), "src/a.txt");
}
