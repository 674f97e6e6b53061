//! Layers: whatever a command does to its workspace, the tree itself does not notice.
//!
//! What is in a layer afterwards is told by the layer's own files; applying it is the canvas' work.
//! Invariant: each test compares the whole tree, content and modes, before and after.

use crate::house::*;
use std::collections::BTreeMap;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tinkerbell_core::layer::{CHECK, ENDED, START, UPPER, bulky_list, place};
use tinkerbell_core::port::{Found, Level, Sandbox};
use tinkerbell_executor::{LevelChoice, SandboxOptions, WorkspaceChoice};

/// Everything below a directory: type, mode, size, times and content.
fn world(root: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut open = vec![root.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let meta = path.symlink_metadata().unwrap();
            let content = if meta.is_file() { String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned() } else { String::new() };
            let times = (meta.mtime(), meta.mtime_nsec(), meta.ctime(), meta.ctime_nsec());
            found.insert(path.clone(), format!("{:o} {} {times:?} {content}", meta.mode(), meta.ino()));
            if meta.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

fn layer(house: &House, seq: u32) -> PathBuf {
    place(&house.workspace, seq).unwrap()
}

/// A tree with protected files at several depths.
fn fill(house: &House) {
    for (path, content) in [
        ("file", "base\n"),
        ("sub/deep/file", "base\n"),
        ("AGENTS.md", "real\n"),
        ("sub/AGENTS.md", "real\n"),
        (".vscode/settings.json", "real\n"),
        (".github/workflows/ci.yml", "real\n"),
        (".github/notes", "base\n"),
        ("run.sh", "#!/bin/sh\n"),
    ] {
        let path = house.tree().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, content).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_a_command_does_reaches_the_tree() {
    let Some(house) = House::layered().await else { return };
    fill(&house);
    let before = world(house.tree());
    let tricks = r#"
        mv .git x; mkdir -p .git/hooks; echo evil > .git/hooks/pre-commit
        mv .github y; mkdir -p .github/workflows; echo evil > .github/workflows/ci.yml
        mv sub z; mkdir sub; echo evil > sub/AGENTS.md
        mv .vscode v; rm -rf .vscode; mkdir .vscode; echo evil > .vscode/tasks.json
        echo evil > .envrc; mkdir .claude; echo evil > .claude/settings.json; echo evil > agents.md; echo evil > Agents.MD
        ln AGENTS.md hard; echo evil > hard; ln -s AGENTS.md soft; echo evil > soft
        echo more >> file; rm run.sh; mkdir run.sh; echo x > run.sh/inner
        chmod 000 file; touch -d @0 sub; truncate -s 1T big
        echo new > new; mkfifo pipe; rm -rf sub; python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("sock")'
        exit 0
    "#;
    let (output, ended) = house.run(1, tricks).await;
    assert_eq!(ended.code, Some(0), "{output}");
    assert_eq!(world(house.tree()), before, "{output}");
    let upper = layer(&house, 1).join(UPPER);
    assert_eq!(std::fs::read_to_string(upper.join("new")).unwrap(), "new\n");
    assert!(upper.join("sub").symlink_metadata().unwrap().file_type().is_char_device());
    assert!(layer(&house, 1).join(ENDED).exists() && layer(&house, 1).join(START).exists());
    // What is protected at the root is told at once, not only when the layer is applied.
    assert!(output.contains("Read-only file system"), "{output}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_that_renames_a_protected_path_opens_nothing() {
    let Some(house) = House::layered().await else { return };
    fill(&house);
    let unit = house.start(1, "echo ready; read go; echo evil > .vscode/settings.json; echo evil > AGENTS.md; echo done; exit 0").await;
    line(unit.as_ref(), "ready").await;
    // As editors save: a new file takes the place of the old one.
    std::fs::write(house.tree().join("AGENTS.new"), "saved\n").unwrap();
    std::fs::rename(house.tree().join("AGENTS.new"), house.tree().join("AGENTS.md")).unwrap();
    std::fs::rename(house.tree().join(".vscode"), house.tree().join("aside")).unwrap();
    std::fs::create_dir(house.tree().join(".vscode")).unwrap();
    std::fs::write(house.tree().join(".vscode/settings.json"), "saved\n").unwrap();
    let before = world(house.tree());
    unit.stdin(1, "go\n".into()).await.unwrap();
    end(unit.as_ref()).await;
    assert_eq!(world(house.tree()), before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bulky_folders_are_written_directly_and_only_those_of_the_list() {
    let Some(house) = House::layered().await else { return };
    for dir in ["target", "sub/node_modules", "build"] {
        std::fs::create_dir_all(house.tree().join(dir)).unwrap();
    }
    std::os::unix::fs::symlink(house.root(), house.tree().join(".venv")).unwrap();
    std::fs::write(bulky_list(&house.workspace).unwrap(), b"target\0sub/node_modules\0missing\0.venv\0../data\0/etc\0").unwrap();
    let command = "echo x > target/a; echo x > sub/node_modules/b; echo x > build/c; echo x > .venv/new; echo x > ../data/new; exit 0";
    let (output, _) = house.run(1, command).await;
    let has = |path: &str| house.tree().join(path).exists();
    assert_eq!((has("target/a"), has("sub/node_modules/b"), has("build/c")), (true, true, false), "{output}");
    assert!(!house.root().join("new").exists() && !house.root().join("data/new").exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_keeper_leaves_a_closed_layer() {
    let Some(house) = House::layered().await else { return };
    let unit = house.start(1, "echo x > written; echo ready; sleep 60").await;
    line(unit.as_ref(), "ready").await;
    assert!(!layer(&house, 1).join(ENDED).exists());
    let lock: serde_json::Value = {
        let path = house.options.runs_dir.join(house.spec(1, "").run.to_string()).join("lock");
        serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
    };
    let keeper = rustix::process::Pid::from_raw(lock["keeper"]["pid"].as_i64().unwrap() as i32).unwrap();
    rustix::process::kill_process(keeper, rustix::process::Signal::KILL).unwrap();
    let fresh = daemon(&house.options);
    let mut found = fresh.attach(house.spec(1, "").run).await.unwrap();
    for _ in 0..200 {
        if matches!(found, Found::Lost(_)) {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        found = fresh.attach(house.spec(1, "").run).await.unwrap();
    }
    let Found::Lost(unit) = found else { panic!("its keeper is gone") };
    assert!(layer(&house, 1).join(ENDED).exists());
    assert_eq!(std::fs::read_to_string(layer(&house, 1).join(UPPER).join("written")).unwrap(), "x\n");
    unit.release().await.unwrap();
    assert!(layer(&house, 1).join(UPPER).exists(), "what was not applied stays");
    std::fs::remove_dir_all(layer(&house, 1).join(UPPER)).unwrap();
    unit.release().await.unwrap();
    assert!(!layer(&house, 1).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_default_the_check_alone_gets_a_layer() {
    let Some(house) = House::layered().await else { return };
    let options = SandboxOptions { workspace: WorkspaceChoice::Auto, ..house.options.clone() };
    let sandbox = daemon(&options);
    std::fs::create_dir_all(house.tree().join("target/deep")).unwrap();
    std::fs::write(bulky_list(&house.workspace).unwrap(), b"target\0").unwrap();
    let mut check = house.spec(1, "rm -rf target && mkdir target && echo x > by-check");
    check.env.push((tinkerbell_core::port::CHECK.into(), "1".into()));
    for spec in [check, house.spec(2, "echo x > by-command")] {
        let ended = end(sandbox.start(spec).await.unwrap().as_ref()).await;
        assert_eq!(ended.code, Some(0));
    }
    assert!(house.tree().join("target/deep").exists());
    assert!(!house.tree().join("by-check").exists() && house.tree().join("by-command").exists());
    assert!(layer(&house, 1).join(CHECK).exists() && !layer(&house, 2).exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn layers_that_are_demanded_and_can_not_be_had_are_refused() {
    let Some(house) = House::at(Level::Landlock).await else { return };
    for (level, code) in [(LevelChoice::Landlock, "TB-SANDBOX-004"), (LevelChoice::None, "TB-SANDBOX-004")] {
        let options = SandboxOptions { level, workspace: WorkspaceChoice::Overlay, ..house.options.clone() };
        assert_eq!(daemon(&options).level().await.err().unwrap().code.0, code);
    }
}

/// The self-test had its layers; those of this task lead elsewhere by a link, which nobody follows.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_that_can_not_be_laid_is_done_without_or_refused() {
    let Some(house) = House::layered().await else { return };
    let elsewhere = house.root().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::os::unix::fs::symlink(&elsewhere, layer(&house, 1).parent().unwrap()).unwrap();
    let refused = house.sandbox.start(house.spec(1, "echo x > by-command")).await.err().unwrap();
    assert_eq!(refused.code.0, "TB-SANDBOX-004", "{refused:?}");
    assert!(refused.message.contains("nothing ran") && !house.tree().join("by-command").exists(), "{refused:?}");
    let options = SandboxOptions { workspace: WorkspaceChoice::Auto, ..house.options.clone() };
    let mut check = house.spec(2, "echo x > by-check; echo evil > AGENTS.md; echo said; exit 3");
    check.env.push((tinkerbell_core::port::CHECK.into(), "1".into()));
    let unit = daemon(&options).start(check).await.unwrap();
    let (ended, output) = (end(unit.as_ref()).await, text(unit.as_ref()).await);
    assert_eq!(ended.code, Some(3), "{output}");
    assert!(output.starts_with("[tinkerbell: no layer could be laid over the worktree") && output.contains("said\n"), "{output}");
    assert!(house.tree().join("by-check").exists() && !house.tree().join("AGENTS.md").exists(), "it is guarded as what writes directly");
    assert!(!elsewhere.join("2").exists(), "nobody shall take it for one with a layer");
}

/// Why commands that may live long get no layer by default. Should this fail one day, because a kernel
/// shows the change, the decision can be taken anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_layer_does_not_see_what_is_edited_beside_it() {
    let Some(house) = House::layered().await else { return };
    fill(&house);
    let unit = house.start(1, "cat file; cat late; echo ready; read go; echo now $(cat file) $(cat late 2>&1)").await;
    line(unit.as_ref(), "ready").await;
    // As file tools write: a new file takes the place of the old one.
    std::fs::write(house.tree().join("file.new"), "edited\n").unwrap();
    std::fs::rename(house.tree().join("file.new"), house.tree().join("file")).unwrap();
    std::fs::write(house.tree().join("late"), "late\n").unwrap();
    unit.stdin(1, "go\n".into()).await.unwrap();
    end(unit.as_ref()).await;
    let output = text(unit.as_ref()).await;
    assert!(output.contains("now base") && output.contains("late: No such file"), "{output}");
    assert_eq!(std::fs::read_to_string(house.tree().join("file")).unwrap(), "edited\n");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_in_a_layer_is_quick() {
    let Some(house) = House::layered().await else { return };
    fill(&house);
    let direct = daemon(&SandboxOptions { workspace: WorkspaceChoice::Direct, ..house.options.clone() });
    direct.level().await.unwrap();
    // By turns, so that a busy machine slows both.
    let mut spent = [Vec::new(), Vec::new()];
    for seq in 1..=40 {
        let sandbox = if seq % 2 == 0 { &direct } else { &house.sandbox };
        let begin = std::time::Instant::now();
        let ended = end(sandbox.start(house.spec(seq, "true")).await.unwrap().as_ref()).await;
        spent[usize::from(seq % 2 == 0)].push(begin.elapsed());
        assert_eq!(ended.code, Some(0));
    }
    spent.iter_mut().for_each(|all| all.sort());
    eprintln!(
        "`true` in a layer: median {:?}, least {:?}; directly: median {:?}, least {:?}",
        spent[0][10], spent[0][0], spent[1][10], spent[1][0]
    );
}
