//! What a command leaves in a tree may be of any size, shape and mode: what the canvas reads of it has a measure,
//! and an undo comes to its end.
//!
//! Sparse files say that they are huge and cost nothing. Invariant: the sizes here are beyond what a process may
//! ask for, so that reading one whole fails on any machine.

use crate::house::*;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use tinkerbell_core::port::{Canvas, Kept, Opened};

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

fn chmod(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o777
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

/// The name of half-written files is no shelter: an undo and the putting back of protected files take it.
#[test]
fn directories_under_the_name_of_half_written_files_stop_nothing() {
    let house = House::new();
    house.write("AGENTS.md", "good\n");
    house.write("src/a", "a\n");
    std::os::unix::fs::symlink("a", house.user().join("src/link")).unwrap();
    house.commit_all("start");
    let opened = house.open();
    let (before, tree_dir) = (tree(&opened), &opened.workspace.tree);
    let spoil = || {
        for path in [".tinkerbell~partial/x/y", "src/.tinkerbell~partial/x", "src/.tinkerbell~partial/z/.git"] {
            write(tree_dir, path, b"x");
        }
        chmod(&tree_dir.join("src/.tinkerbell~partial"), 0);
        write(tree_dir, "AGENTS.md", b"evil\n");
        write(tree_dir, "src/a", b"BAD\n");
        std::fs::remove_file(tree_dir.join("src/link")).ok();
    };
    spoil();
    let taken = house.guarded(&opened, Some(opened.checkpoint.clone()));
    assert_eq!(taken.restored, ["AGENTS.md"]);
    assert!(!tree_dir.join(".tinkerbell~partial").exists() && !tree_dir.join("src/.tinkerbell~partial").exists());
    spoil();
    house.restore(&opened, &opened.checkpoint);
    assert_eq!(tree(&opened), before);
}

/// What a check sees stands in the diff: only files are kept beside the tree's own.
#[test]
fn a_directory_under_the_name_of_kept_files_is_content() {
    let (house, opened) = started();
    write(&opened.workspace.tree, ".tinkerbell~kept-u7-a", b"kept\n");
    write(&opened.workspace.tree, ".tinkerbell~kept-dir/evil.py", b"x\n");
    let taken = house.take(&opened);
    let names: Vec<String> = house.diff(&opened, &opened.checkpoint, &taken).files.into_iter().map(|file| file.path).collect();
    assert_eq!(names, [".tinkerbell~kept-dir/evil.py"]);
    house.restore(&opened, &opened.checkpoint);
    assert!(!opened.workspace.tree.join(".tinkerbell~kept-dir").exists());
}

/// Modes are a command's to change, wherever the kernel does not hold it; the tree stays the daemon's all the same.
#[test]
fn closed_directories_stop_no_undo() {
    let house = House::new();
    house.write(".github/workflows/ci.yml", "on: push\n");
    house.write("src/a", "a\n");
    house.commit_all("start");
    let opened = house.open();
    let (before, tree_dir) = (tree(&opened), &opened.workspace.tree);
    let spoil = || {
        write(tree_dir, "src/a", b"BAD\n");
        write(tree_dir, ".github/workflows/ci.yml", b"evil\n");
        write(tree_dir, ".github/workflows/more.yml", b"evil\n");
        for path in ["src", ".github/workflows", ".github", ""] {
            chmod(&tree_dir.join(path), if path == "src" { 0o555 } else { 0o111 });
        }
    };
    spoil();
    let taken = house.guarded(&opened, Some(opened.checkpoint.clone()));
    assert_eq!(taken.restored, [".github/workflows/ci.yml", ".github/workflows/more.yml"]);
    assert_eq!(mode(tree_dir) & 0o700, 0o700);
    spoil();
    house.restore(&opened, &opened.checkpoint);
    assert_eq!(tree(&opened), before);
}

/// A check passes over what it can not read; what it sees is what stands in the diff, and lands.
#[test]
fn before_a_check_the_owner_may_read_and_write_what_is_recorded() {
    let house = House::new();
    house.write("tests/guard/t.py", "assert False\n");
    house.write("tests/ok/t.py", "\n");
    house.write("run.sh", "x\n");
    chmod(&house.user().join("run.sh"), 0o755);
    house.write(".gitignore", "out\n");
    house.commit_all("start");
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    let before = tree(&opened);
    write(tree_dir, "out/x", b"x\n");
    std::fs::create_dir(tree_dir.join("bare")).unwrap();
    let spoil = [("out", 0), ("bare", 0o055), ("run.sh", 0o111), ("tests/guard/t.py", 0), ("tests/ok/t.py", 0o444), ("tests/guard", 0)];
    spoil.iter().for_each(|(path, bits)| chmod(&tree_dir.join(path), *bits));
    let usual = house.take(&opened);
    assert_eq!(mode(&tree_dir.join("tests/guard")), 0, "the usual look changes no mode");
    let look = || wait(house.canvas.checkpoint(opened.workspace.clone(), Some(Kept::thorough(opened.checkpoint.clone())))).unwrap();
    let told = ["bare", "run.sh", "tests/guard", "tests/guard/t.py", "tests/ok/t.py"].map(|path| format!("{path} (its permissions)"));
    let first = look();
    assert_eq!(first.restored, told);
    assert_eq!(mode(&tree_dir.join("out")), 0, "what is not recorded is nobody's business");
    // The look after the check tells it again, and no other.
    assert_eq!(look().restored, told);
    assert_eq!(look().restored, Vec::<String>::new());
    for (path, bits) in [("bare", 0o755), ("run.sh", 0o711), ("tests/guard", 0o700), ("tests/guard/t.py", 0o600), ("tests/ok/t.py", 0o644)]
    {
        assert_eq!(mode(&tree_dir.join(path)), bits, "{path}");
    }
    // An undo still knows each of the modes.
    house.restore(&opened, &usual);
    assert_eq!(mode(&tree_dir.join("tests/guard")), 0);
    assert_eq!(mode(&tree_dir.join("bare")), 0o055);
    house.restore(&opened, &opened.checkpoint);
    std::fs::remove_dir_all(tree_dir.join("out")).unwrap();
    assert_eq!(tree(&opened), before);
}
