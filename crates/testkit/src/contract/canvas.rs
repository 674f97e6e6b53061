//! What every `Canvas` keeps.
//!
//! Knows trees and ids, nothing of git. Invariant checked above all: what a checkpoint recorded
//! comes back byte for byte, and asking twice changes nothing.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_core::port::{Canvas, MicroCommit, OpenSpec, Opened};
use tinkerbell_core::words::TaskId;

/// A canvas and a user's repository with the committed file `a.txt` holding `one\n`.
pub struct Fixture {
    /// The canvas.
    pub canvas: Arc<dyn Canvas>,
    /// The repository's root.
    pub repo: PathBuf,
}

/// Runs the whole suite; `make` gives a new fixture each time.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub async fn suite(make: impl Fn() -> Fixture) {
    opening_twice_finds_the_same(&make()).await;
    an_unchanged_tree_has_an_unchanged_checkpoint(&make()).await;
    a_recorded_state_comes_back_and_so_does_what_it_replaced(&make()).await;
    a_commit_asked_for_twice_is_one(&make()).await;
    a_difference_names_what_changed(&make()).await;
    removal_can_be_repeated_and_leaves_the_user_alone(&make()).await;
}

async fn opened(fixture: &Fixture) -> Opened {
    let spec = OpenSpec { task: TaskId(7), cwd: fixture.repo.clone(), base: None };
    fixture.canvas.open(spec).await.expect("opens")
}

fn write(root: &Path, name: &str, content: &str) {
    std::fs::write(root.join(name), content).expect("writes");
}

fn read(root: &Path, name: &str) -> Option<String> {
    std::fs::read_to_string(root.join(name)).ok()
}

async fn opening_twice_finds_the_same(fixture: &Fixture) {
    let first = opened(fixture).await;
    write(&first.workspace.tree, "b.txt", "kept");
    let second = opened(fixture).await;
    assert_eq!(first.workspace, second.workspace, "the same workspace");
    assert_eq!(first.checkpoint, second.checkpoint, "the same first checkpoint");
    assert_eq!(read(&second.workspace.tree, "b.txt").as_deref(), Some("kept"), "opening again loses nothing");
    assert_eq!(read(&fixture.repo, "b.txt"), None, "the user's tree is another one");
}

async fn an_unchanged_tree_has_an_unchanged_checkpoint(fixture: &Fixture) {
    let opened = opened(fixture).await;
    let take = || fixture.canvas.checkpoint(opened.workspace.clone(), None);
    assert_eq!(take().await.expect("takes").id, opened.checkpoint, "nothing changed");
    write(&opened.workspace.tree, "b.txt", "b");
    assert_ne!(take().await.expect("takes").id, opened.checkpoint, "untracked files count");
    std::fs::remove_file(opened.workspace.tree.join("b.txt")).expect("removes");
    assert_eq!(take().await.expect("takes").id, opened.checkpoint, "equal trees have equal ids");
}

async fn a_recorded_state_comes_back_and_so_does_what_it_replaced(fixture: &Fixture) {
    let opened = opened(fixture).await;
    let tree = &opened.workspace.tree;
    std::fs::remove_file(tree.join("a.txt")).expect("removes");
    write(tree, "b.txt", "b");
    let replaced = fixture.canvas.restore(opened.workspace.clone(), opened.checkpoint.clone()).await.expect("restores");
    assert_eq!((read(tree, "a.txt").as_deref(), read(tree, "b.txt")), (Some("one\n"), None), "the first state");
    let back = fixture.canvas.restore(opened.workspace.clone(), replaced).await.expect("restores");
    assert_eq!((read(tree, "a.txt"), read(tree, "b.txt").as_deref()), (None, Some("b")), "the replaced state");
    assert_eq!(back, opened.checkpoint, "a restore tells what it replaced");
}

async fn a_commit_asked_for_twice_is_one(fixture: &Fixture) {
    let opened = opened(fixture).await;
    write(&opened.workspace.tree, "a.txt", "two\n");
    let tree = fixture.canvas.checkpoint(opened.workspace.clone(), None).await.expect("takes").id;
    let parent = fixture.canvas.tip(opened.workspace.clone()).await.expect("tells");
    let commit = MicroCommit { tree, parent, message: "step: two\n\nStep: 1".to_owned(), time_s: 1 };
    let first = fixture.canvas.commit(opened.workspace.clone(), commit.clone()).await.expect("commits");
    let second = fixture.canvas.commit(opened.workspace.clone(), commit.clone()).await.expect("commits");
    assert_eq!(first, second, "a redo makes the same commit");
    assert_eq!(fixture.canvas.tip(opened.workspace.clone()).await.expect("tells"), first, "the branch stands on it");
    let other = MicroCommit { message: "other".to_owned(), ..commit };
    fixture.canvas.commit(opened.workspace.clone(), other).await.expect_err("a commit beside the tip is refused");
}

async fn a_difference_names_what_changed(fixture: &Fixture) {
    let opened = opened(fixture).await;
    write(&opened.workspace.tree, "a.txt", "one\ntwo\n");
    let now = fixture.canvas.checkpoint(opened.workspace.clone(), None).await.expect("takes").id;
    let ask = |text| fixture.canvas.diff(opened.workspace.clone(), opened.checkpoint.clone(), now.clone(), text);
    let with = ask(true).await.expect("compares");
    let files: Vec<_> = with.files.iter().map(|file| (file.path.as_str(), file.kind.as_str(), file.plus, file.minus)).collect();
    assert_eq!(files, [("a.txt", "changed", 1, 0)]);
    assert!(with.text.contains("\n+two\n"), "the text is a unified diff");
    let without = ask(false).await.expect("compares");
    assert_eq!((without.files, without.text), (with.files, String::new()), "the text only where asked for");
}

async fn removal_can_be_repeated_and_leaves_the_user_alone(fixture: &Fixture) {
    let opened = opened(fixture).await;
    for _ in 0..2 {
        fixture.canvas.remove(opened.workspace.clone()).await.expect("removes");
    }
    assert!(!opened.workspace.tree.exists(), "the worktree is gone");
    assert_eq!(read(&fixture.repo, "a.txt").as_deref(), Some("one\n"), "the user's file is not");
    fixture.canvas.checkpoint(opened.workspace, None).await.expect_err("there is nothing to record");
}
