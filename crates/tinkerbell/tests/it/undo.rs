//! Undo, redo, landing: byte for byte, and never over the user's own edits.

use crate::home::{Home, exec};
use std::path::PathBuf;
use tinkerbell_testkit::llm::Turn;

const SHELL: &str = "printf 'x\\0y' > bin.dat; rm src/a.txt; chmod 755 run.sh; ln -s run.sh link; mkdir -p new/deep && echo 1 > new/deep/f";

async fn finished() -> (Home, String, PathBuf) {
    let home = Home::with(vec![exec(SHELL), exec("echo more >> run.sh"), Turn::text("done")]).await;
    let task = home.submit(&["change things"]).await;
    home.run(&["wait", &task]).await.exits(0);
    let tree = PathBuf::from(home.inspect(&task).await["workspace"].as_str().unwrap());
    (home, task, tree)
}

#[tokio::test(flavor = "multi_thread")]
async fn undo_brings_the_tree_back_byte_for_byte() {
    let (home, task, tree) = finished().await;
    let base = home.git(&["rev-parse", "HEAD^{tree}"]);
    let done = home.tree_of(&tree);
    assert_ne!(base, done);
    home.run(&["undo", &task]).await.exits(0);
    let one = home.tree_of(&tree);
    assert!(one != base && one != done);
    home.run(&["undo", &task, "--all"]).await.exits(0);
    assert_eq!(home.tree_of(&tree), base);
    assert!(!tree.join("new").exists());
    home.run(&["redo", &task]).await.exits(0);
    home.run(&["redo", &task]).await.exits(0);
    assert_eq!(home.tree_of(&tree), done);
    home.run(&["restore", &task, "0"]).await.exits(0);
    assert_eq!(home.tree_of(&tree), base);
    home.run(&["op", "log", &task]).await.exits(0).says("restore");
    assert_eq!(home.git(&["status", "--porcelain"]), "", "the user's tree was never touched");
}

#[tokio::test(flavor = "multi_thread")]
async fn landing_squashes_and_undo_takes_it_back() {
    let (home, task, tree) = finished().await;
    let before = home.git(&["rev-parse", "HEAD"]);
    home.run(&["land", &task, "--squash"]).await.exits(0);
    assert_eq!(home.git(&["rev-list", "--count", "HEAD"]), "2");
    assert_eq!(home.git(&["rev-parse", "HEAD^{tree}"]), home.tree_of(&tree));
    assert_eq!(home.git(&["status", "--porcelain"]), "");
    let message = home.git(&["log", "-1", "--format=%B"]);
    assert!(message.contains("Task: "), "{message}");
    home.run(&["undo", &task]).await.exits(0);
    assert_eq!(home.git(&["rev-parse", "HEAD"]), before);
    assert_eq!(home.git(&["status", "--porcelain"]), "");
    home.git(&["fsck", "--strict"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn landing_never_overwrites_the_users_edits() {
    let (home, task, _) = finished().await;
    std::fs::write(home.repo.join("run.sh"), "mine\n").unwrap();
    home.run(&["land", &task, "--squash"]).await.exits(8).says("run.sh");
    assert_eq!(std::fs::read_to_string(home.repo.join("run.sh")).unwrap(), "mine\n");
    assert_eq!(home.git(&["rev-list", "--count", "HEAD"]), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn micro_commits_lead_from_a_line_to_its_step() {
    let (home, task, _) = finished().await;
    let branch = home.inspect(&task).await["branch"].as_str().unwrap().to_owned();
    let log = home.git(&["log", "--format=%B", &branch]);
    for trailer in ["Task: ", "Step: 1", "Step: 2", "Lsn: ", "Model: ", "Cost: "] {
        assert!(log.contains(trailer), "{trailer} is not in:\n{log}");
    }
    home.run(&["rm", &task]).await.exits(0);
    assert_eq!(home.git(&["branch", "--list", "tinkerbell/*"]), "");
    assert_eq!(home.git(&["worktree", "list"]).lines().count(), 1);
}
