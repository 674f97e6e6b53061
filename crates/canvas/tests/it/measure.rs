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

fn names(house: &House, opened: &Opened, to: &tinkerbell_core::words::GitId) -> Vec<String> {
    house.diff(opened, &opened.checkpoint, to).files.into_iter().map(|file| file.path).collect()
}

/// What hides files is told, whatever hides it; git would not add it, and so it never lands.
#[test]
fn an_ignore_file_that_hides_itself_stands_in_the_diff() {
    let house = House::new();
    house.write("calc.py", "a\n");
    house.write(".gitignore", "out/\n");
    house.write("out/old", "o\n");
    house.write("pkg/a.py", "a\n");
    house.commit_all("start");
    let opened = house.open();
    let (before, tree_dir) = (tree(&opened), &opened.workspace.tree);
    write(tree_dir, "pkg/.gitignore", b"*\n");
    write(tree_dir, "pkg/sitecustomize.py", b"evil\n");
    write(tree_dir, ".cache/.gitignore", b"*\n");
    write(tree_dir, ".cache/v/nodes", b"n\n");
    // Where git ignores the directory it reads no patterns.
    write(tree_dir, "out/.gitignore", b"*\n");
    let taken = house.take(&opened);
    assert_eq!(names(&house, &opened, &taken), [".cache/.gitignore", "pkg/.gitignore"]);
    assert!(house.diff(&opened, &opened.checkpoint, &taken).text.contains("+++ b/pkg/.gitignore"));
    let commit = house.commit(&opened, &taken, "x").unwrap();
    assert_eq!(house.git(&["ls-tree", "-r", "--name-only", commit.as_str()]), ".gitignore\ncalc.py\npkg/a.py");
    house.restore(&opened, &opened.checkpoint);
    // A directory that has come since goes with what it hid; in another that shows.
    assert!(!tree_dir.join(".cache").exists() && !tree_dir.join("pkg/.gitignore").exists());
    assert_eq!(names(&house, &opened, &house.take(&opened)), ["pkg/sitecustomize.py"]);
    for path in ["pkg/sitecustomize.py", "out/.gitignore"] {
        std::fs::remove_file(tree_dir.join(path)).unwrap();
    }
    std::fs::remove_dir(tree_dir.join("out")).unwrap();
    assert_eq!(tree(&opened), before);
    house.restore(&opened, &taken);
    assert!(tree_dir.join("pkg/.gitignore").exists() && tree_dir.join(".cache/.gitignore").exists());
}

/// Only what has come since the target goes with a directory's ignore file.
#[test]
fn an_undo_leaves_ignored_files_that_were_there_before() {
    let house = House::new();
    house.write("calc.py", "a\n");
    house.write(".gitignore", "*.o\nout/\n");
    house.commit_all("start");
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    for path in ["obj/x.o", "out/x", "src/.gitignore"] {
        write(tree_dir, path, b"old\n");
    }
    let target = house.take(&opened);
    for path in ["obj/.gitignore", "out/.gitignore", "src/deep/.gitignore"] {
        write(tree_dir, path, b"*\n");
    }
    write(tree_dir, ".gitignore", b"*.o\n");
    write(tree_dir, "src/deep/x", b"x\n");
    let taken = house.take(&opened);
    let all = [".gitignore", "obj/.gitignore", "out/.gitignore", "src/.gitignore", "src/deep/.gitignore"];
    assert_eq!(names(&house, &opened, &taken), all);
    house.restore(&opened, &target);
    assert!(tree_dir.join("obj/x.o").exists() && tree_dir.join("out/x").exists() && tree_dir.join("src/.gitignore").exists());
    assert!(!tree_dir.join("src/deep").exists() && !tree_dir.join("obj/.gitignore").exists());
    assert_eq!(house.take(&opened), target);
}

/// Nothing larger than what an undo can bring back stays: the file goes, the task goes on, and an undo works.
#[test]
fn a_file_that_is_too_large_is_put_back_and_named() {
    let house = House::new();
    house.write("a", "a\n");
    house.write("AGENTS.md", "good\n");
    house.commit_all("start");
    let opened = house.open();
    let (before, tree_dir) = (tree(&opened), &opened.workspace.tree);
    std::fs::create_dir(tree_dir.join("new")).unwrap();
    for path in ["new/big", "AGENTS.md", "a"] {
        sparse(&opened, path, 5 << 30);
    }
    write(tree_dir, "b", b"b\n");
    // Who keeps nothing learns of it as an error.
    let fault = wait(house.canvas.checkpoint(opened.workspace.clone(), None)).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-014", "{fault:?}");
    let taken = house.guarded(&opened, Some(opened.checkpoint.clone()));
    let why = "(a file of 5368709120 bytes can not be kept for undo)";
    assert_eq!(taken.restored, ["AGENTS.md".to_owned(), format!("AGENTS.md {why}"), format!("a {why}"), format!("new/big {why}")]);
    assert_eq!(names(&house, &opened, &taken.id), ["b"]);
    assert!(!tree_dir.join("new").exists());
    for path in ["new", "a"] {
        sparse(&opened, path, 5 << 30);
    }
    // A look before a check tells it, and the one after it again.
    let look = || wait(house.canvas.checkpoint(opened.workspace.clone(), Some(Kept::thorough(opened.checkpoint.clone())))).unwrap();
    assert_eq!((look().restored, look().restored.len(), look().restored.len()), (vec![format!("a {why}"), format!("new {why}")], 2, 0));
    sparse(&opened, "a", 5 << 30);
    house.restore(&opened, &opened.checkpoint);
    assert_eq!(tree(&opened), before);
}

/// Holes cost whoever makes them nothing: all of them together have a measure.
#[test]
fn the_holes_of_sparse_files_have_a_measure() {
    use std::os::unix::fs::FileExt;
    let (house, opened) = started();
    for n in 0..40 {
        sparse(&opened, &format!("s{n:02}"), 4 << 30);
    }
    sparse(&opened, "t", 2 << 20);
    let tail = std::fs::File::options().write(true).open(opened.workspace.tree.join("t")).unwrap();
    tail.write_all_at(b"tail", (2 << 20) - 4).unwrap();
    let taken = house.guarded(&opened, Some(opened.checkpoint.clone()));
    assert_eq!(taken.restored.len(), 21, "{:?}", taken.restored);
    assert!(taken.restored[0].starts_with("s00 (a file of 4294967296 bytes, 4294967296 of them in holes, "), "{:?}", taken.restored);
    assert_eq!(taken.restored[20], "20 more of this kind");
    assert_eq!(names(&house, &opened, &taken.id), ["t"]);
    // What is within it is recorded byte by byte.
    house.restore(&opened, &opened.checkpoint);
    house.restore(&opened, &taken.id);
    let bytes = std::fs::read(opened.workspace.tree.join("t")).unwrap();
    assert!(bytes.len() == 2 << 20 && bytes.ends_with(b"\0tail") && bytes[..1 << 20].iter().all(|byte| *byte == 0));
}

/// A stranger's directory under that name in the user's own tree stays, and a landing goes on beside it.
#[test]
fn a_landing_takes_another_name_for_what_is_half_written() {
    let house = House::new();
    house.write("src/a", "a\n");
    house.write("src/.tinkerbell~partial/x", "x\n");
    house.commit_all("start");
    let opened = house.open();
    write(&opened.workspace.tree, "src/a", b"b\n");
    std::os::unix::fs::symlink("a", opened.workspace.tree.join("src/link")).unwrap();
    assert_eq!(house.land(&opened).unwrap().conflicts, Vec::<String>::new());
    assert_eq!(std::fs::read(house.user().join("src/a")).unwrap(), b"b\n");
    assert_eq!(std::fs::read(house.user().join("src/.tinkerbell~partial/x")).unwrap(), b"x\n");
    assert_eq!(house.git(&["status", "--porcelain"]), "");
    assert_eq!(std::fs::read_dir(house.user().join("src")).unwrap().count(), 3);
}

/// A copy has no holes: what the command did not pay for, the daemon does not write either.
#[test]
fn of_a_running_command_no_holes_are_copied() {
    let (house, opened) = started();
    let layer = crate::layers::Layer::of(&opened, 7);
    layer.write("dense", &"x".repeat(1 << 20));
    std::fs::File::create(layer.up().join("hollow")).unwrap().set_len(10 << 20).unwrap();
    let taken = house.take(&opened);
    assert_eq!(names(&house, &opened, &taken), ["dense"]);
    layer.end();
    assert_eq!(names(&house, &opened, &house.take(&opened)), ["dense", "hollow"]);
}
