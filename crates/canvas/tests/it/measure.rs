//! What a command leaves in a tree may be of any size, shape and mode: what the canvas reads of it has a measure,
//! and an undo comes to its end.
//!
//! Sparse files say that they are huge and cost nothing. Invariant: the sizes here are beyond what a process may
//! ask for, so that reading one whole fails on any machine.

use crate::house::*;
use tinkerbell_core::port::Opened;

/// More than an address space is given.
const HUGE: u64 = 1 << 42;

fn sparse(opened: &Opened, path: &str, bytes: u64) {
    std::fs::File::create(opened.workspace.tree.join(path)).unwrap().set_len(bytes).unwrap();
}

fn started() -> (House, Opened) {
    let house = House::new();
    house.write("a", "a\n");
    house.commit_all("start");
    let opened = house.open();
    (house, opened)
}

#[test]
fn a_huge_file_in_place_of_the_worktrees_own_is_put_back_without_being_read() {
    let (house, opened) = started();
    let own = std::fs::read(opened.workspace.tree.join(".git")).unwrap();
    sparse(&opened, ".git", HUGE);
    let taken = house.guarded(&opened, Some(opened.checkpoint.clone()));
    assert_eq!(taken.restored, [".git"]);
    assert_eq!(std::fs::read(opened.workspace.tree.join(".git")).unwrap(), own);
    // One byte more is another file, too.
    write(&opened.workspace.tree, ".git", &[own.as_slice(), b"x"].concat());
    assert_eq!(house.guarded(&opened, Some(opened.checkpoint.clone())).restored, [".git"]);
    assert_eq!(house.guarded(&opened, Some(opened.checkpoint.clone())).restored, Vec::<String>::new());
}

#[test]
fn a_huge_ignore_file_is_read_in_part_by_an_undo() {
    let (house, opened) = started();
    write(&opened.workspace.tree, "d/new", b"x\n");
    write(&opened.workspace.tree, "d/log", b"x\n");
    write(&opened.workspace.tree, "d/.gitignore", b".gitignore\nlog\n");
    let file = std::fs::File::options().write(true).open(opened.workspace.tree.join("d/.gitignore")).unwrap();
    file.set_len(HUGE).unwrap();
    house.restore(&opened, &opened.checkpoint);
    assert!(!opened.workspace.tree.join("d/new").exists());
}
