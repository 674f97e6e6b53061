//! Repositories as they come: odd, large, half-made and moved away.
//!
//! The canvas has its own tests of trees and merges; here the whole way is walked. Invariant: the
//! user's tree, index, HEAD and branches are as they were until something is landed.

use crate::home::{Home, exec};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use tinkerbell_testkit::llm::Turn;

async fn workspace(home: &Home, task: &str) -> PathBuf {
    PathBuf::from(home.inspect(task).await["workspace"].as_str().unwrap())
}

/// Runs a task that does `cmd` and gives its id.
async fn done(home: &Home) -> String {
    let task = home.submit(&["go"]).await;
    home.run(&["wait", &task]).await.exits(0);
    task
}

fn one(cmd: &str) -> Vec<Turn> {
    vec![exec(cmd), Turn::text("done")]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_no_repository_gets_an_offer() {
    let home = Home::with(vec![]).await;
    let plain = home.dir.path().join("home");
    let out = home.run(&["run", "--cd", plain.to_str().unwrap(), "go"]).await;
    assert_eq!(home.asked(), 0, "nobody pays for it");
    out.exits(2).says("TB-CANVAS-001").says("git init").says("--cd");
    home.run(&["run", "--cd", "/does/not/exist", "go"]).await.exits(2).says("/does/not/exist");
    home.run(&["run", "--cd", "run.sh", "go"]).await.exits(2).says("not a directory");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repository_without_a_commit_works() {
    let home = Home::with(one("echo made > made.txt; cat *.txt")).await;
    let empty = home.dir.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    home.git_in(&empty, &["init", "-q", "-b", "main"], &[]);
    std::fs::write(empty.join("own.txt"), "mine\n").unwrap();
    let dir = empty.to_str().unwrap();
    let out = home.run(&["run", "--cd", dir, "go"]).await;
    // Either it works from the files that are there, or it says how to make the first commit.
    if out.code == 0 {
        let last = home.model.as_ref().unwrap().requests().pop().unwrap().body.to_string();
        assert!(last.contains("mine"), "{last}");
    } else {
        out.says("git commit");
    }
    assert_eq!(std::fs::read_to_string(empty.join("own.txt")).unwrap(), "mine\n");
    assert!(!empty.join("made.txt").exists());
}

/// The worktree is gone: work in it is explained, and what was kept can still be seen and landed.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_worktree_keeps_its_change() {
    let home = Home::with(one("echo made > made.txt")).await;
    let task = done(&home).await;
    std::fs::remove_dir_all(workspace(&home, &task).await).unwrap();
    home.run(&["diff", &task]).await.exits(0).says("made.txt");
    home.run(&["land", &task, "--squash"]).await.exits(0);
    assert_eq!(std::fs::read_to_string(home.repo.join("made.txt")).unwrap(), "made\n");
    home.run(&["rm", &task]).await.exits(0);
    assert_eq!(home.git(&["worktree", "list"]).lines().count(), 1);
}

/// Deleted while the task works: the next step goes on in a new one, or says what happened.
#[tokio::test(flavor = "multi_thread")]
async fn a_worktree_deleted_under_a_task_is_explained() {
    let turns = vec![exec("echo one > one.txt"), exec("echo begin; sleep 1"), exec("echo two > two.txt; ls"), Turn::text("done")];
    let home = Home::with(turns).await;
    let task = home.submit(&["go"]).await;
    home.until_output("begin").await;
    std::fs::remove_dir_all(workspace(&home, &task).await).unwrap();
    let out = home.run(&["wait", &task]).await;
    if out.code != 0 {
        home.run(&["inspect", &task]).await.exits(0).says("worktree");
        home.run(&["diff", &task]).await.exits(0).says("one.txt");
        home.run(&["land", &task, "--squash"]).await.exits(0);
        assert_eq!(std::fs::read_to_string(home.repo.join("one.txt")).unwrap(), "one\n");
    }
    assert_eq!(home.git(&["status", "--porcelain", "--", "src", "run.sh"]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_detached_head_is_landed_on_a_named_branch() {
    let home = Home::with(one("echo made > made.txt")).await;
    home.git(&["checkout", "-q", "--detach"]);
    let head = home.git(&["rev-parse", "HEAD"]);
    let task = done(&home).await;
    let out = home.run(&["land", &task, "--squash"]).await;
    assert_ne!(out.code, 0);
    out.says("--branch");
    home.run(&["land", &task, "--squash", "--branch", "fix"]).await.exits(0);
    assert_eq!(home.git(&["show", "fix:made.txt"]), "made");
    assert_eq!(home.git(&["rev-parse", "HEAD"]), head);
    assert_eq!(home.git(&["status", "--porcelain"]), "");
    home.run(&["land", &task, "--squash", "--branch", "no such..name"]).await.says("no such..name");
    home.run(&["undo", &task]).await.exits(0);
    assert_eq!(home.git(&["branch", "--list", "fix"]), "", "a branch that the landing made goes with it");
}

#[tokio::test(flavor = "multi_thread")]
async fn submodules_stay_as_they_are() {
    let home = Home::with(one("echo made > made.txt; ls lib")).await;
    let lib = home.dir.path().join("lib");
    std::fs::create_dir(&lib).unwrap();
    home.git_in(&lib, &["init", "-q", "-b", "main"], &[]);
    std::fs::write(lib.join("l.txt"), "lib\n").unwrap();
    home.git_in(&lib, &["add", "-A"], &[]);
    home.git_in(&lib, &["commit", "-q", "-m", "lib"], &[]);
    home.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", lib.to_str().unwrap(), "lib"]);
    home.git(&["commit", "-q", "-m", "with lib"]);
    let link = home.git(&["rev-parse", "HEAD:lib"]);
    let task = done(&home).await;
    home.run(&["diff", &task]).await.exits(0).says("made.txt");
    home.run(&["land", &task, "--squash"]).await.exits(0);
    assert_eq!(home.git(&["rev-parse", "HEAD:lib"]), link);
    assert_eq!(home.git(&["status", "--porcelain"]), "");
    assert_eq!(std::fs::read_to_string(home.repo.join("lib/l.txt")).unwrap(), "lib\n");
}

/// Large: but hashing and deflating without optimisation takes twenty times as long.
const HUGE: usize = if cfg!(debug_assertions) { 3 << 20 } else { 50 << 20 };

/// A huge file, bytes that are no text, and a name that is no text.
#[tokio::test(flavor = "multi_thread")]
async fn huge_and_binary_files_and_strange_names_make_the_round_trip() {
    let cmd = format!(
        "head -c {HUGE} /dev/zero > huge.bin; printf 'a\\0b\\377' > small.bin; cp src/caf* src/new.txt; printf x > \"$(printf 'n\\351w')\"; cat huge.bin"
    );
    let home = Home::with(vec![
        exec(&cmd),
        Turn::call("read", serde_json::json!({"path": "huge.bin"})),
        Turn::call("read", serde_json::json!({"path": "small.bin"})),
        Turn::call("search", serde_json::json!({"pattern": "one"})),
        Turn::text("done"),
    ])
    .await;
    let odd = home.repo.join("src").join(OsStr::from_bytes(b"caf\xe9 \"x\".txt"));
    std::fs::write(&odd, "odd\n").unwrap();
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "odd"]);
    let base = home.git(&["rev-parse", "HEAD^{tree}"]);
    let task = done(&home).await;
    // Nothing of all this may blow a request up.
    let longest = home.model.as_ref().unwrap().requests().iter().map(|request| request.bytes.len()).max().unwrap();
    assert!(longest < 256 << 10, "{longest} bytes");
    let tree = workspace(&home, &task).await;
    let result = home.tree_of(&tree);
    home.run(&["diff", &task]).await.exits(0).says("huge.bin");
    home.run(&["undo", &task, "--all"]).await.exits(0);
    assert_eq!(home.tree_of(&tree), base);
    home.run(&["redo", &task]).await.exits(0);
    assert_eq!(home.tree_of(&tree), result);
    home.run(&["land", &task, "--squash"]).await.exits(0);
    assert_eq!(home.git(&["rev-parse", "HEAD^{tree}"]), result);
    assert_eq!(std::fs::read(home.repo.join(OsStr::from_bytes(b"n\xe9w"))).unwrap(), b"x");
    assert_eq!(home.git(&["status", "--porcelain"]), "");
}

/// Line ends stay as they are, edited or not.
#[tokio::test(flavor = "multi_thread")]
async fn line_ends_are_kept() {
    let edit = Turn::call("edit", serde_json::json!({"path": "crlf.txt", "old": "two", "new": "zwei\ndrei"}));
    let read = Turn::call("read", serde_json::json!({"path": "crlf.txt"}));
    let home = Home::with(vec![read, edit, exec("printf 'more\\r\\n' >> crlf.txt"), Turn::text("done")]).await;
    std::fs::write(home.repo.join("crlf.txt"), "one\r\ntwo\r\nthree\r\n").unwrap();
    home.git(&["add", "-A"]);
    home.git(&["commit", "-q", "-m", "crlf"]);
    let task = done(&home).await;
    let wanted = "one\r\nzwei\r\ndrei\r\nthree\r\nmore\r\n";
    assert_eq!(std::fs::read_to_string(workspace(&home, &task).await.join("crlf.txt")).unwrap(), wanted);
    home.run(&["land", &task, "--squash"]).await.exits(0);
    assert_eq!(std::fs::read_to_string(home.repo.join("crlf.txt")).unwrap(), wanted);
    assert_eq!(home.git(&["status", "--porcelain"]), "");
}

/// The whole repository is moved away while nobody looks.
#[tokio::test(flavor = "multi_thread")]
async fn a_repository_that_is_gone_is_told() {
    let home = Home::with(one("echo made > made.txt")).await;
    let task = done(&home).await;
    let away = home.dir.path().join("away");
    std::fs::rename(&home.repo, &away).unwrap();
    std::fs::create_dir(&home.repo).unwrap();
    let out = home.run(&["land", &task, "--squash"]).await;
    assert!(out.code != 0 && out.code != 70 && out.stderr.contains(Path::new("repo").to_str().unwrap()), "{out:?}");
    home.run(&["inspect", &task]).await.exits(0);
    std::fs::remove_dir(&home.repo).unwrap();
    std::fs::rename(&away, &home.repo).unwrap();
    home.run(&["land", &task, "--squash"]).await.exits(0);
    assert_eq!(std::fs::read_to_string(home.repo.join("made.txt")).unwrap(), "made\n");
}

/// A base that does not exist, and a branch that stands in the way of ours.
#[tokio::test(flavor = "multi_thread")]
async fn revisions_and_branches_that_do_not_fit_are_named() {
    let home = Home::with(one("true")).await;
    home.run(&["run", "--base", "no-such-rev", "go"]).await.exits(2).says("no-such-rev");
    home.git(&["branch", "tinkerbell"]);
    let out = home.run(&["run", "go"]).await;
    assert!(out.code == 0 || out.stderr.contains("tinkerbell"), "{out:?}");
}
