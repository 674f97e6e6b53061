//! Commands in layers over the worktree, through the real binary.
//!
//! Invariant: a host that gives no layers is said to be skipped; each other test looks at the worktree
//! itself, not only at what was told of it.

use crate::home::{Home, exec};
use serde_json::{Value, json};
use std::path::PathBuf;
use tinkerbell_testkit::llm::Turn;

/// A home whose commands write as told; `None` where this host gives no layers.
async fn home(workspace: &str, turns: Vec<Turn>) -> Option<Home> {
    let mut home = Home::with(turns).await;
    home.workspace = Some(workspace.to_owned());
    home.level = "full";
    home.gives_layers().await.then_some(home)
}

fn commit(home: &Home, files: &[(&str, &str)]) {
    for (name, text) in files {
        let path = home.repo.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "more"]);
}

/// Runs a task to its end; its id and worktree.
async fn run(home: &Home, args: &[&str]) -> (String, PathBuf) {
    home.run(args).await;
    let tasks: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let task = tasks[0]["short"].as_str().unwrap().to_owned();
    let tree = home.inspect(&task).await["workspace"].as_str().unwrap().into();
    (task, tree)
}

/// What the model read of its calls, oldest first.
fn results(home: &Home) -> Vec<String> {
    let requests = home.model.as_ref().unwrap().requests();
    let messages = requests.last().unwrap().body["messages"].as_array().unwrap().clone();
    messages.iter().filter(|message| message["role"] == "tool").map(|message| message["content"].as_str().unwrap().to_owned()).collect()
}

fn read(tree: &std::path::Path, path: &str) -> String {
    std::fs::read_to_string(tree.join(path)).unwrap_or_else(|_| "-".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_writes_arrives_and_what_it_may_not_write_does_not() {
    let tricks = "echo evil > a/b/AGENTS.md; mkdir -p src/.claude; echo evil > src/.claude/s.json; mv a a2; echo evil > Agents.MD; \
                  ln -s /etc/passwd out; mkfifo pipe; mv .git x; mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit; \
                  echo two >> src/a.txt; rm run.sh; echo ok > src/ok; exit 3";
    let turns = vec![exec(tricks), exec("cat src/ok a2/b/AGENTS.md; ls a2/b"), Turn::text("done")];
    let Some(home) = home("overlay", turns).await else { return };
    commit(&home, &[("a/b/AGENTS.md", "real\n"), ("a/b/code", "x\n")]);
    let (task, tree) = run(&home, &["run", "x"]).await;
    assert_eq!(read(&tree, "a/b/AGENTS.md"), "real\n", "its directory was moved, and it stayed");
    for gone in ["src/.claude", "Agents.MD", "a2/b/AGENTS.md", "out", "pipe", "run.sh", "a/b/code"] {
        assert!(tree.join(gone).symlink_metadata().is_err(), "{gone}");
    }
    assert_eq!((read(&tree, "src/ok"), read(&tree, "a2/b/code")), ("ok\n".into(), "x\n".into()));
    assert!(read(&tree, ".git").starts_with("gitdir: "));
    let told = results(&home);
    assert!(told[0].starts_with("exit 3") && told[0].contains("`a/b/AGENTS.md`: protected files"), "{}", told[0]);
    for name in ["src/.claude", "Agents.MD", "a2/b/AGENTS.md", "`out`: a link", "`pipe`: a pipe"] {
        assert!(told[0].contains(name), "{name}: {}", told[0]);
    }
    assert!(!told[0].contains("were put back"), "{}", told[0]);
    assert!(told[1].contains("ok\n") && told[1].contains("code") && !told[1].contains("real"), "{}", told[1]);
    let diff = home.run(&["diff", &task]).await.exits(0).stdout;
    assert!(!diff.contains("evil") && diff.contains("src/ok"), "{diff}");
    home.run(&["undo", "--all", &task]).await.exits(0);
    assert_eq!((read(&tree, "src/ok"), read(&tree, "run.sh")), ("-".into(), "#!/bin/sh\necho hello\n".into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_unit_in_the_background_is_seen_and_its_conflict_is_kept() {
    let server = "echo first > out.txt; echo ready; read go; echo two > src/a.txt; echo second > out.txt; echo wrote; read end; echo bye";
    let turns = vec![
        Turn::call("exec", json!({ "cmd": server, "yield_ms": 500 })),
        Turn::call("read", json!({ "path": "src/a.txt" })),
        Turn::call("edit", json!({ "path": "src/a.txt", "old": "one\ntwo\nthree\n", "new": "tool\n" })),
        Turn::call("exec_send", json!({ "unit": "u3", "stdin": "go\n" })),
        Turn::call("exec_wait", json!({ "unit": "u3", "until_line": "wrote", "timeout_ms": 5000 })),
        Turn::call("read", json!({ "path": "out.txt" })),
        Turn::call("exec_send", json!({ "unit": "u3", "stdin": "end\n" })),
        Turn::call("exec_wait", json!({ "unit": "u3", "timeout_ms": 5000 })),
        exec("cat src/.tinkerbell~kept-*"),
        Turn::text("done"),
    ];
    let Some(home) = home("overlay", turns).await else { return };
    let (_, tree) = run(&home, &["run", "x"]).await;
    let told = results(&home);
    assert_eq!((read(&tree, "src/a.txt"), read(&tree, "out.txt")), ("tool\n".into(), "second\n".into()), "{told:#?}");
    assert!(told[5].contains("second"), "{told:#?}");
    assert!(told.iter().any(|text| text.contains("`src/a.txt`: it was changed in the tree") && text.contains("kept as")), "{told:#?}");
    assert!(told[8].contains("two"), "{told:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_check_in_a_layer_writes_no_tracked_file() {
    let check = "echo broken > src/a.txt; rm run.sh; echo evil > AGENTS.md; mkdir -p out/deep; echo o > out/deep/o; echo n > new; test -e out/deep/o";
    let turns = vec![Turn::call("write", json!({ "path": "src/b.txt", "content": "b\n" })), Turn::text("done")];
    let Some(home) = home("auto", turns).await else { return };
    commit(&home, &[(".gitignore", "out/\n")]);
    let (task, tree) = run(&home, &["run", "--verify", check, "x"]).await;
    assert_eq!(
        (read(&tree, "src/a.txt"), read(&tree, "new"), read(&tree, "AGENTS.md")),
        ("one\ntwo\nthree\n".into(), "-".into(), "-".into())
    );
    assert_eq!((read(&tree, "out/deep/o"), read(&tree, "src/b.txt")), ("o\n".into(), "b\n".into()));
    home.run(&["logs", "--full", &task]).await.exits(0).says("verification passed");
    let left = std::fs::read_dir(tree.parent().unwrap().join("layers")).unwrap().count();
    assert_eq!(left, 0, "a layer that was applied is let go");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_daemon_dies_while_a_command_in_a_layer_runs() {
    let cmd = "echo begin; echo x >> ran.txt; echo evil > AGENTS.md; sleep 2; echo x >> ran.txt; echo end; exit 7";
    let Some(home) = home("overlay", vec![exec(cmd), Turn::text("It ended with 7.")]).await else { return };
    let task = home.submit(&["count to two"]).await;
    home.until_output("begin").await;
    home.kill_daemon().await;
    home.run(&["daemon", "start"]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    let told = results(&home);
    assert!(told.len() == 1 && told[0].starts_with("exit 7 in ") && told[0].contains("`AGENTS.md`: protected"), "{told:?}");
    let tree: PathBuf = home.inspect(&task).await["workspace"].as_str().unwrap().into();
    assert_eq!((read(&tree, "ran.txt"), read(&tree, "AGENTS.md")), ("x\nx\n".into(), "-".into()));
    home.run(&["wal", "verify"]).await.exits(0);
}

/// A task whose layers can not be laid, although the self-test had its own: a link stands in their place.
async fn without_layers(workspace: &str, turns: Vec<Turn>, args: &[&str]) -> Option<(Home, String, PathBuf)> {
    let mut turns = turns;
    turns[0].delay_ms = 1_500;
    let home = home(workspace, turns).await?;
    let task = home.submit(args).await;
    let mut tree = None;
    for _ in 0..100 {
        tree = home.inspect(&task).await["workspace"].as_str().map(PathBuf::from);
        if tree.is_some() {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let tree = tree.expect("a worktree is made before the model is asked");
    let elsewhere = home.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(elsewhere, tree.parent().unwrap().join("layers")).unwrap();
    home.run(&["wait", &task]).await;
    Some((home, task, tree))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_gets_no_layer_runs_without_and_says_so() {
    let turns = vec![Turn::call("write", json!({ "path": "src/b.txt", "content": "b\n" })), Turn::text("done"), Turn::text("done")];
    let args = ["--verify", "echo broken > src/a.txt; echo evil > AGENTS.md; test -e src/b.txt", "x"];
    let Some((home, task, tree)) = without_layers("auto", turns, &args).await else { return };
    home.run(&["logs", "--full", &task]).await.exits(0).says("verification passed").says("no layer could be laid over the worktree");
    assert_eq!((read(&tree, "src/a.txt"), read(&tree, "AGENTS.md")), ("one\ntwo\nthree\n".into(), "-".into()), "it was put back");
    let log = std::fs::read_to_string(home.tb().join("state/daemon.log")).unwrap();
    assert_eq!(log.matches("no layer could be laid over a worktree").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_gets_no_layer_is_refused_where_layers_are_demanded() {
    let Some((home, task, tree)) = without_layers("overlay", vec![exec("echo x > ran"), Turn::text("done")], &["x"]).await else { return };
    assert_eq!(home.inspect(&task).await["result"]["status"], "failed");
    home.run(&["logs", "--full", &task]).await.says("TB-SANDBOX-004").says("no layer could be laid over");
    assert!(!tree.join("ran").exists());
}

/// Why layers are not for all commands by default. Should this fail one day, because a kernel can do
/// more, the decision can be taken anew.
#[tokio::test(flavor = "multi_thread")]
async fn everyday_work_that_layers_break_is_what_is_written_of_them() {
    let rename = r#"python3 -c 'import os; os.rename("lib", "moved")' 2>&1 || mv lib moved"#;
    let turns = vec![
        exec("mkdir target && echo x > target/a"),
        exec("rm -rf target 2>&1; echo left: $(ls target | wc -l)"),
        exec("mv src lib && cat lib/a.txt"),
        exec(rename),
        exec("git init -q sub 2>&1; test -d sub/.git && echo made"),
        exec("ls moved; ls -A sub"),
        Turn::text("done"),
    ];
    let Some(home) = home("overlay", turns).await else { return };
    commit(&home, &[(".gitignore", "target/\n")]);
    let (_, tree) = run(&home, &["run", "x"]).await;
    let told = results(&home);
    assert!(told[1].contains("busy") && told[1].contains("left: 0"), "{}", told[1]);
    assert!(told[2].contains("two") && !told[2].contains("cross-device"), "`mv` copies: {}", told[2]);
    assert!(told[3].contains("Invalid cross-device link") || told[3].contains("python3: not found"), "{}", told[3]);
    assert!(told[4].contains("made") && told[4].contains("`sub/.git`"), "{}", told[4]);
    assert!(told[5].contains("a.txt"), "{}", told[5]);
    assert!(tree.join("moved/a.txt").exists() && !tree.join("sub/.git").exists() && !tree.join("lib").exists());
}
