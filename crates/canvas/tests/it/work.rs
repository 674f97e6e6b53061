//! Opening, checkpoints, restoring, committing and removing, as one task does them.

use crate::house::*;
use std::os::unix::fs::{PermissionsExt, symlink};
use tinkerbell_core::port::{Canvas, MicroCommit, OpenSpec};

fn small() -> House {
    let house = House::new();
    house.write("a.txt", "one\ntwo\n");
    house.write("src/b.sh", "#!/bin/sh\n");
    std::fs::set_permissions(house.user().join("src/b.sh"), std::fs::Permissions::from_mode(0o755)).unwrap();
    symlink("a.txt", house.user().join("link")).unwrap();
    house.write(".gitignore", "*.log\n/build/\n");
    house.commit_all("start");
    house
}

#[test]
fn a_task_on_a_clean_tree_starts_from_head_and_touches_nothing_of_the_user() {
    let house = small();
    let before = house.untouched();
    let opened = house.open();
    assert_eq!(opened.workspace.base.as_str(), house.git(&["rev-parse", "HEAD"]));
    assert_eq!(git_in(&opened.workspace.tree, &["status", "--porcelain"]), "");
    assert_eq!(git_in(&opened.workspace.tree, &["rev-parse", "--abbrev-ref", "HEAD"]), format!("tinkerbell/{TASK}"));
    write(&opened.workspace.tree, "a.txt", b"one\n2\n");
    write(&opened.workspace.tree, "new/c.txt", b"new\n");
    let checkpoint = house.take(&opened);
    let commit = house.commit(&opened, &checkpoint, "step: change\n\nTask: x").unwrap();
    assert_eq!(git_in(&opened.workspace.tree, &["rev-parse", "HEAD"]), commit.as_str());
    assert_eq!(git_in(&opened.workspace.tree, &["status", "--porcelain"]), "");
    assert_eq!(
        house.git(&["show", "--stat", "--format=%an %ae %at%n%B", commit.as_str()]).lines().next().unwrap(),
        "User user@example.com 1700000000"
    );
    assert_eq!(house.git(&["diff", "--name-status", "HEAD", commit.as_str()]), "M\ta.txt\nA\tnew/c.txt");
    house.git(&["fsck", "--strict"]);
    assert_eq!(house.untouched(), before);
}

#[test]
fn undo_brings_files_modes_links_and_empty_directories_back_and_can_be_undone() {
    let house = small();
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    std::fs::create_dir_all(tree_dir.join("empty/deep")).unwrap();
    write(tree_dir, "raw.bin", &[0, 13, 10, 255]);
    let first = house.take(&opened);
    let was = tree(&opened);
    std::fs::remove_dir_all(tree_dir.join("empty")).unwrap();
    std::fs::remove_file(tree_dir.join("a.txt")).unwrap();
    write(tree_dir, "a.txt/now/a/dir", b"x");
    std::fs::remove_file(tree_dir.join("link")).unwrap();
    write(tree_dir, "link", b"no longer a link");
    std::fs::set_permissions(tree_dir.join("src/b.sh"), std::fs::Permissions::from_mode(0o600)).unwrap();
    write(tree_dir, "x.log", b"ignored");
    write(tree_dir, "build/out", b"ignored");
    let changed = tree(&opened);
    let back = house.restore(&opened, &first);
    let mut now = tree(&opened);
    for ignored in ["x.log 644", "build/ 755", "build/out 644"] {
        assert!(now.remove(ignored).is_some(), "{ignored} must be left alone");
    }
    assert_eq!(now, was);
    let again = house.restore(&opened, &back);
    assert_eq!(tree(&opened), changed);
    assert_eq!(again, first);
}

#[test]
fn opening_again_finds_what_stands_and_makes_again_what_is_gone() {
    let mut house = small();
    let opened = house.open();
    write(&opened.workspace.tree, "a.txt", b"changed\n");
    let checkpoint = house.take(&opened);
    let was = tree(&opened);
    house.again();
    assert_eq!(house.open().checkpoint, opened.checkpoint);
    assert_eq!(tree(&opened), was);
    std::fs::remove_dir_all(&opened.workspace.tree).unwrap();
    let fault = wait(house.canvas.checkpoint(opened.workspace.clone(), None)).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-013");
    house.again();
    let found = house.open();
    assert_eq!(tree(&opened), was);
    assert_eq!(found.workspace, opened.workspace);
    assert_eq!(house.take(&opened), checkpoint);
    assert!(found.notes.iter().any(|note| note.contains("newest checkpoint")), "{:?}", found.notes);
    std::fs::remove_dir_all(&opened.workspace.git_dir).unwrap();
    house.open();
    assert_eq!(git_in(&opened.workspace.tree, &["status", "--porcelain"]), " M a.txt");
}

#[test]
fn the_same_commit_asked_for_twice_is_one_and_a_foreign_tip_is_refused() {
    let house = small();
    let opened = house.open();
    let parent = wait(house.canvas.tip(opened.workspace.clone())).unwrap();
    write(&opened.workspace.tree, "a.txt", b"changed\n");
    let tree = house.take(&opened);
    let new = MicroCommit { tree, parent, message: "one".to_owned(), time_s: 5 };
    let first = wait(house.canvas.commit(opened.workspace.clone(), new.clone())).unwrap();
    let second = wait(house.canvas.commit(opened.workspace.clone(), new.clone())).unwrap();
    assert_eq!(first, second);
    let other = MicroCommit { message: "two".to_owned(), ..new };
    assert_eq!(wait(house.canvas.commit(opened.workspace.clone(), other)).unwrap_err().code.0, "TB-CANVAS-005");
}

#[test]
fn removing_a_task_leaves_the_repository_as_if_it_had_never_been() {
    let house = small();
    let before = house.untouched();
    let opened = house.open();
    write(&opened.workspace.tree, "a.txt", b"changed\n");
    let checkpoint = house.take(&opened);
    house.commit(&opened, &checkpoint, "x").unwrap();
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
    assert_eq!(house.untouched(), before);
    assert_eq!(house.git(&["worktree", "list"]).lines().count(), 1);
    assert_eq!(house.git(&["branch", "-a"]), "* main");
    assert!(!opened.workspace.tree.exists());
    house.git(&["fsck", "--strict"]);
    assert_eq!(std::fs::read_dir(house.dir.path().join("data/checkpoints")).unwrap().count(), 0);
}

#[test]
fn removing_one_task_keeps_what_another_needs() {
    let house = small();
    let mut spec = house.spec();
    let first = house.open();
    spec.task = tinkerbell_core::words::TaskId(9);
    let second = wait(house.canvas.open(spec)).unwrap();
    write(&first.workspace.tree, "only-first", b"1");
    write(&second.workspace.tree, "only-second", b"2");
    house.take(&first);
    let kept = house.take(&second);
    let objects = || {
        listing(&house.dir.path().join("data/checkpoints"), &|_| false)
            .keys()
            .filter(|name| name.contains("/objects/") && name.len() > 60)
            .count()
    };
    let before = objects();
    wait(house.canvas.remove(first.workspace.clone())).unwrap();
    assert!(objects() < before, "the first task's own objects are gone");
    house.restore(&second, &second.checkpoint);
    house.restore(&second, &kept);
    assert_eq!(std::fs::read(second.workspace.tree.join("only-second")).unwrap(), b"2");
}

#[test]
fn a_task_whose_repository_is_gone_can_still_be_removed() {
    let house = small();
    let opened = house.open();
    std::fs::remove_dir_all(house.user()).unwrap();
    let fault = wait(house.canvas.checkpoint(opened.workspace.clone(), None)).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-012");
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
    assert!(!opened.workspace.tree.exists());
}

#[test]
fn data_that_stands_inside_the_users_tree_is_no_part_of_it() {
    let house = House::with(|options| options.data_dir = options.data_dir.parent().unwrap().join("user/.data"));
    house.write("a.txt", "a\n");
    house.commit_all("start");
    let head = house.git(&["rev-parse", "HEAD"]);
    assert_eq!(house.open().workspace.base.as_str(), head);
}

#[test]
fn places_that_are_no_repository_get_an_offer() {
    let dir = tempfile::tempdir().unwrap();
    let house = House::new();
    let open = |cwd: &std::path::Path, base: Option<&str>| {
        wait(house.canvas.open(OpenSpec { task: TASK, cwd: cwd.to_owned(), base: base.map(str::to_owned) })).unwrap_err()
    };
    let fault = open(dir.path(), None);
    assert_eq!((fault.code.0, fault.exit), ("TB-CANVAS-001", 2));
    assert!(fault.hints[0].contains("git init"));
    git_in(dir.path(), &["init", "-q", "--bare"]);
    assert_eq!(open(dir.path(), None).code.0, "TB-CANVAS-002");
    assert_eq!(open(&house.user(), Some("nothing-like-it")).code.0, "TB-CANVAS-003");
}

#[test]
fn the_ports_promises_are_kept() {
    let houses = std::cell::RefCell::new(Vec::new());
    wait(tinkerbell_testkit::contract::canvas::suite(|| {
        let house = House::new();
        house.write("a.txt", "one\n");
        house.commit_all("start");
        let fixture = tinkerbell_testkit::contract::canvas::Fixture { canvas: house.canvas.clone(), repo: house.user() };
        houses.borrow_mut().push(house);
        fixture
    }));
}

#[test]
fn opening_finishes_whatever_a_crash_left_half_made() {
    type Crash = fn(&House, &tinkerbell_core::port::Opened);
    let store = |house: &House| std::fs::read_dir(house.dir.path().join("data/checkpoints")).unwrap().next().unwrap().unwrap().path();
    let pins = move |house: &House| store(house).join(format!("refs/checkpoints/{TASK}"));
    let drop_pins = |house: &House, pins: &std::path::Path, names: &[&str]| {
        assert!(house.user().exists());
        names.iter().for_each(|name| std::fs::remove_file(pins.join(name)).unwrap());
    };
    let cases: [(&str, &[&str], Crash); 7] = [
        ("before the branch", &["first", "newest"], |h, o| {
            h.git(&["update-ref", "-d", &o.workspace.branch]);
            std::fs::remove_dir_all(&o.workspace.tree).unwrap();
        }),
        ("before the registration", &["first", "newest"], |_, o| {
            std::fs::remove_dir_all(&o.workspace.git_dir).unwrap();
            std::fs::remove_dir_all(&o.workspace.tree).unwrap();
        }),
        ("half filled", &["first", "newest"], |_, o| {
            std::fs::remove_file(o.workspace.tree.join("a.txt")).unwrap();
            std::fs::remove_file(o.workspace.git_dir.join("index")).unwrap();
        }),
        ("before the first checkpoint", &["first", "newest"], |_, _| {}),
        ("with all its locks held", &["first", "newest"], |h, o| {
            h.git(&["update-ref", "-d", &o.workspace.branch]);
            std::fs::write(o.workspace.git_dir.join("index.lock"), "").unwrap();
            let lock = o.workspace.common_dir.join(format!("{}.lock", o.workspace.branch));
            std::fs::create_dir_all(lock.parent().unwrap()).unwrap();
            let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
            std::fs::File::create(lock).unwrap().set_modified(long_ago).unwrap();
        }),
        ("pruned by git", &[], |h, o| {
            std::fs::remove_dir_all(&o.workspace.tree).unwrap();
            h.git(&["worktree", "prune"]);
        }),
        ("git file gone", &[], |_, o| std::fs::remove_file(o.workspace.tree.join(".git")).unwrap()),
    ];
    for (name, lost, crash) in cases {
        let mut house = small();
        house.write("dirty.txt", "dirty\n");
        let opened = house.open();
        let was = tree(&opened);
        let before = house.untouched();
        drop_pins(&house, &pins(&house), lost);
        std::fs::write(pins(&house).join("first.lock"), "").unwrap();
        crash(&house, &opened);
        house.again();
        let found = house.open();
        assert_eq!((&found.workspace, &found.checkpoint), (&opened.workspace, &opened.checkpoint), "{name}");
        assert_eq!(tree(&found), was, "{name}");
        assert_eq!(git_in(&found.workspace.tree, &["status", "--porcelain"]), "", "{name}");
        assert_eq!(house.untouched(), before, "{name}");
    }
}
