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
    let doctor = home.run(&["doctor", "--json", "--offline"]).await.stdout;
    let report: Value = serde_json::from_str(&doctor).unwrap();
    let groups = report["groups"].as_array().unwrap();
    let writes = groups.iter().flat_map(|group| group["findings"].as_array().unwrap()).find(|finding| finding["name"] == "commands write");
    let text = writes.map(|finding| finding["text"].to_string()).unwrap_or_default();
    if !text.contains("layer") || text.contains("do not work") {
        eprintln!("skipped: this host gives no layers: {text}");
        return None;
    }
    Some(home)
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
