//! Landing and taking it back: over clean trees, dirty trees, other branches, and in the way.

use crate::house::*;
use tinkerbell_core::event::OpDone;
use tinkerbell_core::port::{Landed, Landing, OpenSpec};

const TEN: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";

fn started() -> House {
    let house = House::new();
    house.write("a.txt", TEN);
    house.write("b.txt", "b\n");
    house.commit_all("start");
    house
}

fn read(house: &House, path: &str) -> String {
    std::fs::read_to_string(house.user().join(path)).unwrap()
}

fn back(house: &House, opened: &tinkerbell_core::port::Opened, landed: &Landed) -> Landed {
    let op = OpDone {
        kind: "land".into(),
        commit: landed.commit.clone(),
        reference: landed.reference.clone(),
        previous: landed.previous.clone(),
        ..OpDone::default()
    };
    wait(house.canvas.unland(opened.workspace.clone(), op, 1_700_000_200)).unwrap()
}

#[test]
fn a_change_lands_as_one_commit_and_goes_back_without_a_trace() {
    let house = started();
    let opened = house.open();
    let tree_dir = opened.workspace.tree.clone();
    write(&tree_dir, "a.txt", TEN.replace('5', "five").as_bytes());
    write(&tree_dir, "new/deep.txt", b"new\n");
    std::fs::remove_file(tree_dir.join("b.txt")).unwrap();
    let before = house.untouched();
    let head = house.git(&["rev-parse", "HEAD"]);
    let landed = house.land(&opened).unwrap();
    assert_eq!((landed.reference.as_str(), landed.previous.as_str()), ("refs/heads/main", head.as_str()));
    assert_eq!(landed.commit, house.git(&["rev-parse", "main"]));
    assert_eq!(house.git(&["rev-parse", "HEAD@{1}", "main@{1}"]), format!("{head}\n{head}"));
    assert_eq!(landed.notes, ["hooks were not run; the commit is not signed"]);
    assert_eq!(house.git(&["status", "--porcelain"]), "");
    assert_eq!(house.git(&["show", "--format=", "--name-status", "HEAD"]), "M\ta.txt\nD\tb.txt\nA\tnew/deep.txt");
    assert_eq!(read(&house, "new/deep.txt"), "new\n");
    house.git(&["fsck", "--strict"]);
    let again = house.land(&opened).unwrap();
    assert_eq!(again.commit, landed.commit, "a redo finds its own commit");
    assert_eq!(again.previous, landed.previous);
    let undone = back(&house, &opened, &landed);
    assert_eq!(undone.commit, head);
    assert_eq!(house.git(&["status", "--porcelain"]), "");
    assert_eq!(back(&house, &opened, &landed).commit, head);
    let (mut now, mut then) = (house.untouched(), before);
    for map in [&mut now, &mut then] {
        map.remove("index");
    }
    assert_eq!(now, then);
}

#[test]
fn a_task_from_a_dirty_tree_lands_its_own_change_only() {
    let house = started();
    house.write("a.txt", &TEN.replace("1\n2", "ONE\n2"));
    house.write("untracked.txt", "mine\n");
    house.write("staged.txt", "staged\n");
    house.git(&["add", "staged.txt"]);
    let before = house.untouched();
    let opened = house.open();
    assert_eq!(house.untouched(), before);
    assert_eq!(std::fs::read_to_string(opened.workspace.tree.join("untracked.txt")).unwrap(), "mine\n");
    assert!(opened.notes.iter().any(|note| note.contains("3 uncommitted")), "{:?}", opened.notes);
    write(&opened.workspace.tree, "a.txt", TEN.replace("1\n2", "ONE\n2").replace('9', "nine").as_bytes());
    write(&opened.workspace.tree, "b.txt", b"b by task\n");
    let status = house.git(&["status", "--porcelain"]);
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.conflicts, Vec::<String>::new());
    assert_eq!(house.git(&["show", "HEAD:a.txt"]), TEN.replace('9', "nine").trim_end(), "only the task's line is committed");
    assert_eq!(read(&house, "a.txt"), TEN.replace("1\n2", "ONE\n2").replace('9', "nine"), "the user's line is still there");
    assert_eq!(house.git(&["status", "--porcelain"]), status, "and still uncommitted");
    assert_eq!(house.git(&["diff", "--numstat", "a.txt"]), "1\t1\ta.txt");
    back(&house, &opened, &landed);
    assert_eq!(house.git(&["status", "--porcelain"]), status);
    assert_eq!(read(&house, "a.txt"), TEN.replace("1\n2", "ONE\n2"));
    assert_eq!(read(&house, "b.txt"), "b\n");
}

#[test]
fn edits_of_the_user_in_the_way_are_named_and_nothing_is_changed() {
    type Edit = fn(&House);
    let cases: [(&str, Edit, &[&str]); 6] = [
        (
            "same line committed",
            |h| {
                h.write("a.txt", &TEN.replace('5', "V"));
                h.commit_all("mine");
            },
            &["a.txt"],
        ),
        ("same file uncommitted", |h| h.write("a.txt", &TEN.replace('1', "I")), &["a.txt"]),
        ("file deleted", |h| std::fs::remove_file(h.user().join("a.txt")).unwrap(), &["a.txt"]),
        ("untracked file where one lands", |h| h.write("new.txt", "mine\n"), &["new.txt"]),
        ("directory where a file lands", |h| h.write("new.txt/x", "mine\n"), &["new.txt"]),
        (
            "staged",
            |h| {
                h.write("a.txt", "staged\n");
                h.git(&["add", "a.txt"]);
                h.write("a.txt", TEN);
            },
            &["a.txt"],
        ),
    ];
    for (name, edit, conflicts) in cases {
        let house = started();
        let opened = house.open();
        write(&opened.workspace.tree, "a.txt", TEN.replace('5', "five").as_bytes());
        write(&opened.workspace.tree, "new.txt", b"by the task\n");
        edit(&house);
        let before = house.untouched();
        let landed = house.land(&opened).unwrap();
        assert_eq!(landed.conflicts, conflicts, "{name}");
        assert_eq!(landed.commit, "", "{name}");
        assert_eq!(house.untouched(), before, "{name}");
    }
}

#[test]
fn commits_of_the_user_meanwhile_are_merged() {
    let house = started();
    let opened = house.open();
    write(&opened.workspace.tree, "a.txt", TEN.replace('9', "nine").as_bytes());
    house.write("a.txt", &TEN.replace("1\n2", "ONE\n2"));
    house.write("c.txt", "c\n");
    house.commit_all("mine");
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.conflicts, Vec::<String>::new());
    assert_eq!(read(&house, "a.txt"), TEN.replace("1\n2", "ONE\n2").replace('9', "nine"));
    assert_eq!(house.git(&["status", "--porcelain"]), "");
    house.write("d.txt", "after\n");
    house.commit_all("after");
    let undone = back(&house, &opened, &landed);
    assert_eq!(undone.commit, house.git(&["rev-parse", "HEAD"]));
    assert!(house.git(&["log", "-1", "--format=%s"]).starts_with("Revert \"land"));
    assert_eq!(read(&house, "a.txt"), TEN.replace("1\n2", "ONE\n2"));
    assert_eq!(read(&house, "d.txt"), "after\n");
    assert_eq!(house.git(&["status", "--porcelain"]), "");
    house.git(&["fsck", "--strict"]);
}

#[test]
fn a_branch_that_is_not_checked_out_moves_alone() {
    let house = started();
    house.git(&["branch", "other"]);
    let opened = house.open();
    write(&opened.workspace.tree, "b.txt", b"task\n");
    let before = house.untouched();
    let landed = wait(house.canvas.land(house.land_spec(&opened, Some("other")))).unwrap();
    assert_eq!(landed.commit, house.git(&["rev-parse", "other"]));
    let (mut now, mut then) = (house.untouched(), before);
    for map in [&mut now, &mut then] {
        map.remove("refs");
    }
    assert_eq!(now, then);
    back(&house, &opened, &landed);
    assert_eq!(house.git(&["rev-parse", "other"]), house.git(&["rev-parse", "main"]));
    // A branch that does not exist begins at HEAD, and goes again with its landing.
    let fresh = wait(house.canvas.land(house.land_spec(&opened, Some("fresh")))).unwrap();
    assert_eq!(house.git(&["rev-parse", "fresh^"]), house.git(&["rev-parse", "main"]));
    assert_eq!(house.git(&["show", "fresh:b.txt"]), "task");
    back(&house, &opened, &fresh);
    assert_eq!(house.git(&["branch", "--list", "fresh"]), "");
    house.git(&["worktree", "add", "-q", "../second", "other"]);
    let fault = wait(house.canvas.land(house.land_spec(&opened, Some("other")))).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-010");
}

#[test]
fn detached_head_busy_repository_and_unborn_branch_are_told() {
    let house = started();
    let opened = house.open();
    write(&opened.workspace.tree, "b.txt", b"task\n");
    house.git(&["checkout", "-q", "--detach"]);
    let fault = house.land(&opened).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-009");
    assert!(fault.hints[0].contains("--branch"));
    house.git(&["checkout", "-q", "main"]);
    std::fs::write(house.user().join(".git/index.lock"), "").unwrap();
    let fault = house.land(&opened).unwrap_err();
    assert_eq!((fault.code.0, fault.retryable), ("TB-CANVAS-011", true));
    std::fs::remove_file(house.user().join(".git/index.lock")).unwrap();
    assert_eq!(house.land(&opened).unwrap().conflicts, Vec::<String>::new());

    let house = House::new();
    house.write("mine.txt", "mine\n");
    let before = house.untouched();
    let opened = wait(tinkerbell_core::port::Canvas::open(&*house.canvas, OpenSpec { base: None, ..house.spec() })).unwrap();
    assert_eq!(house.untouched(), before);
    write(&opened.workspace.tree, "task.txt", b"task\n");
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.previous, "");
    assert_eq!(house.git(&["status", "--porcelain"]), "?? mine.txt");
    assert_eq!(house.git(&["ls-files"]), "task.txt");
    back(&house, &opened, &landed);
    assert_eq!(house.git(&["status", "--porcelain"]), "?? mine.txt");
}

#[test]
fn every_kind_of_change_lands_into_every_kind_of_index() {
    let kinds: [(&str, &[&[&str]]); 4] = [
        ("plain", &[]),
        ("version 4", &[&["update-index", "--index-version", "4"]]),
        ("split", &[&["update-index", "--split-index"]]),
        ("untracked cache", &[&["update-index", "--untracked-cache"], &["status"]]),
    ];
    for (name, commands) in kinds {
        let house = started();
        house.write("dir/x", "x\n");
        house.write("dir/y", "y\n");
        house.write("file", "f\n");
        house.commit_all("more");
        commands.iter().for_each(|args| drop(house.git(args)));
        let opened = house.open();
        let tree_dir = &opened.workspace.tree;
        std::fs::set_permissions(tree_dir.join("a.txt"), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        std::fs::remove_dir_all(tree_dir.join("dir")).unwrap();
        write(tree_dir, "dir", b"now a file\n");
        std::fs::remove_file(tree_dir.join("file")).unwrap();
        write(tree_dir, "file/deep/z", b"now a directory\n");
        std::os::unix::fs::symlink("a.txt", tree_dir.join("link")).unwrap();
        write(tree_dir, "bin", &[0, 1, 2]);
        let landed = house.land(&opened).unwrap();
        assert_eq!(landed.conflicts, Vec::<String>::new(), "{name}");
        assert_eq!(house.git(&["status", "--porcelain"]), "", "{name}");
        let (mut user, mut task) = (listing(&house.user(), &|path| path.starts_with(".git")), tree(&opened));
        for map in [&mut user, &mut task] {
            map.retain(|path, _| !path.contains("/ "));
        }
        assert_eq!(user, task, "{name}");
        back(&house, &opened, &landed);
        assert_eq!(house.git(&["status", "--porcelain"]), "", "{name}");
        assert_eq!(read(&house, "dir/y"), "y\n", "{name}");
        house.git(&["fsck", "--strict"]);
    }
}

#[test]
fn a_change_to_what_the_user_never_committed_waits_for_the_user() {
    let house = started();
    house.write("draft.txt", "one\n");
    let opened = house.open();
    write(&opened.workspace.tree, "draft.txt", b"one\ntwo\n");
    let before = house.untouched();
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.conflicts, ["draft.txt"]);
    assert!(landed.notes[0].contains("commit or stash"), "{:?}", landed.notes);
    assert_eq!(house.untouched(), before);
    house.commit_all("draft");
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.conflicts, Vec::<String>::new());
    assert_eq!(read(&house, "draft.txt"), "one\ntwo\n");
    assert_eq!(house.git(&["status", "--porcelain"]), "");
}

#[test]
fn a_landing_cut_short_by_a_crash_is_finished_when_asked_again() {
    let house = started();
    let opened = house.open();
    write(&opened.workspace.tree, "a.txt", TEN.replace('5', "five").as_bytes());
    write(&opened.workspace.tree, "new.txt", b"new\n");
    let spec = house.land_spec(&opened, None);
    let head = house.git(&["rev-parse", "HEAD"]);
    let index = std::fs::read(house.user().join(".git/index")).unwrap();
    let landed = wait(house.canvas.land(spec.clone())).unwrap();
    // As it stands when the reference has moved and one file of two is written.
    house.write("a.txt", TEN);
    std::fs::write(house.user().join(".git/index"), index).unwrap();
    // The locks that a killed daemon leaves: the index' with its mark, the branch's without one.
    std::fs::write(house.user().join(".git/index.lock"), format!("tinkerbell {}\n", opened.workspace.task)).unwrap();
    let long_ago = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000);
    std::fs::File::create(house.user().join(".git/refs/heads/main.lock")).unwrap().set_modified(long_ago).unwrap();
    let again = wait(house.canvas.land(spec)).unwrap();
    assert_eq!((again.commit, again.previous), (landed.commit, head));
    assert_eq!(house.git(&["status", "--porcelain"]), "");
    assert_eq!(read(&house, "a.txt"), TEN.replace('5', "five"));
}
