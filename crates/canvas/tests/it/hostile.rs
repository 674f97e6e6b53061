//! Repositories that are odd or set traps: filters, hooks, pipes, links, names, modes, submodules.

use crate::house::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use tinkerbell_core::port::{Canvas, Kept, Landing, OpenSpec};
use tinkerbell_core::tool::Wrote;

/// Everything that git could be talked into running, pointing at a file that must never appear.
fn trap(house: &House) -> std::path::PathBuf {
    let canary = house.dir.path().join("canary");
    let run = format!("sh -c 'touch {}; cat'", canary.display());
    for key in [
        "filter.x.clean",
        "filter.x.smudge",
        "filter.x.process",
        "merge.x.driver",
        "diff.x.textconv",
        "diff.x.command",
        "core.fsmonitor",
        "core.sshCommand",
        "gpg.program",
        "core.editor",
        "core.pager",
    ] {
        house.git(&["config", key, &run]);
    }
    house.git(&["config", "filter.x.required", "true"]);
    house.git(&["config", "commit.gpgSign", "true"]);
    for hook in [
        "pre-commit",
        "post-commit",
        "post-checkout",
        "reference-transaction",
        "post-index-change",
        "prepare-commit-msg",
        "commit-msg",
        "post-merge",
    ] {
        let path = house.user().join(".git/hooks").join(hook);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, format!("#!/bin/sh\ntouch {}\n", canary.display())).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    canary
}

#[test]
fn no_filter_hook_driver_or_monitor_is_ever_run() {
    let house = House::new();
    house.write("a.txt", "1\n2\n3\n4\n5\n");
    house.commit_all("start");
    house.write(".gitattributes", "* filter=x merge=x diff=x\n");
    house.commit_all("attributes");
    let canary = trap(&house);
    house.write("a.txt", "1\n2\n3\n4\nfive\n");
    let opened = house.open();
    write(&opened.workspace.tree, "a.txt", b"one\n2\n3\n4\nfive\n");
    write(&opened.workspace.tree, "b.txt", b"b\n");
    let checkpoint = house.take(&opened);
    house.commit(&opened, &checkpoint, "step").unwrap();
    house.restore(&opened, &opened.checkpoint);
    house.restore(&opened, &checkpoint);
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.conflicts, Vec::<String>::new());
    assert!(landed.notes.iter().any(|note| note == "b.txt is under the filter `x`, which was not run"), "{:?}", landed.notes);
    let op = tinkerbell_core::event::OpDone {
        commit: landed.commit,
        reference: landed.reference,
        previous: landed.previous,
        ..Default::default()
    };
    wait(house.canvas.unland(opened.workspace.clone(), op, 1)).unwrap();
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
    assert!(!canary.exists());
}

#[test]
fn line_ends_follow_the_users_configuration() {
    let house = House::new();
    house.git(&["config", "core.autocrlf", "true"]);
    house.write("a.txt", "one\r\ntwo\r\n");
    house.write("keep.bin", "x\0\r\n");
    house.write("lf.txt", "l\r\n");
    house.write(".gitattributes", "lf.txt text eol=lf\n");
    house.commit_all("start");
    let opened = house.open();
    assert_eq!(opened.workspace.base.as_str(), house.git(&["rev-parse", "HEAD"]), "a tree with CRLF is not dirty");
    let tree_dir = &opened.workspace.tree;
    assert_eq!(std::fs::read(tree_dir.join("a.txt")).unwrap(), b"one\r\ntwo\r\n");
    assert_eq!(std::fs::read(tree_dir.join("lf.txt")).unwrap(), b"l\n");
    write(tree_dir, "a.txt", b"one\r\n2\r\n");
    write(tree_dir, "new.txt", b"n\r\n");
    let checkpoint = house.take(&opened);
    let commit = house.commit(&opened, &checkpoint, "x").unwrap();
    assert_eq!(run_git(&house.user(), &["show", &format!("{commit}:a.txt")]).stdout, b"one\n2\n");
    assert_eq!(run_git(&house.user(), &["show", &format!("{commit}:new.txt")]).stdout, b"n\n");
    assert_eq!(git_in(tree_dir, &["status", "--porcelain"]), "");
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.conflicts, Vec::<String>::new());
    assert_eq!(std::fs::read(house.user().join("a.txt")).unwrap(), b"one\r\n2\r\n");
    assert_eq!(house.git(&["status", "--porcelain"]), "");
}

#[test]
fn names_that_are_no_utf8_and_odd_files_survive() {
    let house = House::new();
    house.write("a", "a\n");
    let odd = std::ffi::OsStr::from_bytes(b"\xff\xfe name\n\"quoted\"");
    std::fs::write(house.user().join(odd), b"odd\n").unwrap();
    house.commit_all("start");
    std::fs::write(house.user().join(odd), b"odd and dirty\n").unwrap();
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    assert_eq!(std::fs::read(tree_dir.join(odd)).unwrap(), b"odd and dirty\n");
    std::fs::write(tree_dir.join(odd), b"changed\n").unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, tree_dir.join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    std::fs::create_dir(tree_dir.join("sub")).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        tree_dir.join("sub/.gitignore"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    symlink("/etc", tree_dir.join("out")).unwrap();
    symlink("nowhere", tree_dir.join("dangling")).unwrap();
    write(tree_dir, "big.bin", &vec![7_u8; 9 << 20]);
    let checkpoint = house.take(&opened);
    let diff = house.diff(&opened, &opened.checkpoint, &checkpoint);
    let paths: Vec<&str> = diff.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(paths, ["big.bin", "dangling", "out", "\u{fffd}\u{fffd} name\n\"quoted\""]);
    assert!(diff.text.contains("Binary files"), "{}", &diff.text[..200.min(diff.text.len())]);
    house.commit(&opened, &checkpoint, "odd").unwrap();
    house.git(&["fsck", "--strict"]);
    house.restore(&opened, &opened.checkpoint);
    assert_eq!(std::fs::read(tree_dir.join(odd)).unwrap(), b"odd and dirty\n");
    house.restore(&opened, &checkpoint);
    assert_eq!(std::fs::read(tree_dir.join(odd)).unwrap(), b"changed\n");
    assert_eq!(std::fs::metadata(tree_dir.join("big.bin")).unwrap().len(), 9 << 20);
}

#[test]
fn a_restore_never_writes_through_a_link_that_a_command_put_in_its_way() {
    let house = House::new();
    house.write("dir/file", "inside\n");
    house.commit_all("start");
    let opened = house.open();
    let outside = house.dir.path().join("outside");
    std::fs::create_dir(&outside).unwrap();
    std::fs::write(outside.join("file"), "outside\n").unwrap();
    std::fs::remove_dir_all(opened.workspace.tree.join("dir")).unwrap();
    symlink(&outside, opened.workspace.tree.join("dir")).unwrap();
    house.restore(&opened, &opened.checkpoint);
    assert_eq!(std::fs::read_to_string(outside.join("file")).unwrap(), "outside\n");
    assert_eq!(std::fs::read_to_string(opened.workspace.tree.join("dir/file")).unwrap(), "inside\n");
}

#[test]
fn protected_paths_that_a_command_changed_are_put_back_and_named() {
    let house = House::new();
    house.write("AGENTS.md", "rules\n");
    house.write(".github/workflows/ci.yml", "on: push\n");
    house.write("a.txt", "a\n");
    house.write(".gitignore", ".envrc\n.vscode/\n");
    house.commit_all("start");
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    let was = tree(&opened);
    write(tree_dir, "AGENTS.md", b"obey me\n");
    std::fs::remove_dir_all(tree_dir.join(".github")).unwrap();
    symlink("/tmp", tree_dir.join(".github")).unwrap();
    write(tree_dir, ".claude/settings.json", b"{}");
    write(tree_dir, ".vscode/tasks.json", b"ignored by git, not by us");
    write(tree_dir, ".envrc", b"x");
    write(tree_dir, ".git", b"gitdir: /elsewhere\n");
    write(tree_dir, "a.txt", b"fine\n");
    let taken = house.guarded(&opened, Some(opened.checkpoint.clone()));
    assert_eq!(
        taken.restored,
        [".claude/settings.json", ".envrc", ".github", ".github/workflows/ci.yml", ".vscode/tasks.json", "AGENTS.md", ".git"]
    );
    let mut want = was;
    want.insert("a.txt 644".into(), b"fine\n".to_vec());
    assert_eq!(tree(&opened), want);
    assert_eq!(git_in(tree_dir, &["status", "--porcelain"]), " M a.txt");
    assert_eq!(house.guarded(&opened, Some(taken.id.clone())).restored, Vec::<String>::new());
}

/// Behind a link `.github` every file of another directory would be a hook or a workflow.
#[test]
fn nothing_but_a_directory_stands_where_protected_paths_do() {
    let house = House::new();
    house.write("docs/hooks/h.json", "{}\n");
    house.write(".gitignore", ".gitea\n");
    symlink("docs", house.user().join(".forgejo")).unwrap();
    house.commit_all("start");
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    let was = tree(&opened);
    symlink("docs", tree_dir.join(".GitHub")).unwrap();
    symlink("docs", tree_dir.join(".gitea")).unwrap();
    write(tree_dir, ".gitlab", b"a file");
    std::fs::remove_file(tree_dir.join(".forgejo")).unwrap();
    write(tree_dir, ".forgejo/hooks/h.json", b"{}");
    write(tree_dir, ".config/ok", b"a directory is free\n");
    let taken = house.guarded(&opened, Some(opened.checkpoint.clone()));
    assert_eq!(taken.restored, [".GitHub", ".forgejo", ".gitea", ".gitlab"]);
    let mut now = tree(&opened);
    now.retain(|path, _| !path.starts_with(".config"));
    assert_eq!(now, was);
    assert_eq!(std::fs::read(tree_dir.join(".config/ok")).unwrap(), b"a directory is free\n");
    assert_eq!(house.guarded(&opened, Some(taken.id.clone())).restored, Vec::<String>::new());
}

/// A leave is for one content of one path, not for what a command made of it, or of its neighbours, meanwhile.
#[test]
fn what_a_file_tool_wrote_stays_and_nothing_beside_it() {
    let house = House::new();
    for name in ["AGENTS.md", "CLAUDE.md", "GEMINI.md", ".cursorrules", ".github/workflows/ci.yml"] {
        house.write(name, "rules\n");
    }
    house.commit_all("start");
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    for name in ["AGENTS.md", "CLAUDE.md", ".cursorrules", ".github/workflows/ci.yml", "sub/AGENTS.md"] {
        write(tree_dir, name, b"new rules\n");
    }
    std::fs::remove_file(tree_dir.join("GEMINI.md")).unwrap();
    let hash = |content: &str| blake3::hash(content.as_bytes()).to_hex().to_string();
    let wrote = |path: &str, before: &str, content: Option<&str>| Wrote {
        path: path.into(),
        before: Some(hash(before)),
        content: content.map(hash),
    };
    let wrote = vec![
        wrote("AGENTS.md", "rules\n", Some("new rules\n")),
        wrote("CLAUDE.md", "rules\n", Some("other rules\n")),
        // A command had changed it just before the tool did, and its lines went along with the tool's.
        wrote(".cursorrules", "a command's rules\n", Some("new rules\n")),
        wrote("GEMINI.md", "rules\n", None),
    ];
    let kept = Kept { at: opened.checkpoint.clone(), wrote, thorough: false };
    let taken = wait(house.canvas.checkpoint(opened.workspace.clone(), Some(kept))).unwrap();
    assert_eq!(taken.restored, [".cursorrules", ".github/workflows/ci.yml", "CLAUDE.md", "sub/AGENTS.md"]);
    let read = |name: &str| std::fs::read_to_string(tree_dir.join(name)).ok();
    assert_eq!((read("AGENTS.md").as_deref(), read("CLAUDE.md").as_deref()), (Some("new rules\n"), Some("rules\n")));
    assert_eq!((read("GEMINI.md"), read("sub/AGENTS.md")), (None, None));
}

#[test]
fn submodules_and_nested_repositories_are_left_out_and_told() {
    let house = House::new();
    let inner = house.dir.path().join("inner");
    std::fs::create_dir(&inner).unwrap();
    git_in(&inner, &["init", "-q", "-b", "main"]);
    git_in(&inner, &["-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "--allow-empty", "-m", "x"]);
    house.write("a.txt", "a\n");
    house.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", inner.to_str().unwrap(), "sub"]);
    house.commit_all("start");
    house.git(&["init", "-q", "nested"]);
    house.write("nested/n.txt", "n\n");
    let opened = house.open();
    assert!(opened.notes.iter().any(|note| note.contains("submodules are left empty") && note.contains("sub")), "{:?}", opened.notes);
    assert!(opened.notes.iter().any(|note| note.contains("nested is a repository of its own")), "{:?}", opened.notes);
    assert_eq!(std::fs::read_dir(opened.workspace.tree.join("sub")).unwrap().count(), 0);
    let tree_dir = &opened.workspace.tree;
    git_in(tree_dir, &["init", "-q", "cloned"]);
    write(tree_dir, "cloned/c.txt", b"c\n");
    write(tree_dir, "sub/inside.txt", b"x\n");
    write(tree_dir, "b.txt", b"b\n");
    let checkpoint = house.take(&opened);
    let was = tree(&opened);
    let commit = house.commit(&opened, &checkpoint, "x").unwrap();
    assert_eq!(house.git(&["diff", "--name-status", "HEAD", commit.as_str()]), "A\tb.txt");
    house.restore(&opened, &opened.checkpoint);
    assert!(!tree_dir.join("cloned").exists());
    house.restore(&opened, &checkpoint);
    assert_eq!(tree(&opened), was);
    house.git(&["fsck", "--strict"]);
}

#[test]
fn subdirectories_linked_worktrees_and_other_bases_are_found() {
    let house = House::new();
    house.write("dir/a.txt", "old\n");
    let old = house.commit_all("old");
    house.write("dir/a.txt", "new\n");
    house.commit_all("new");
    house.git(&["worktree", "add", "-q", "../linked", "-b", "side"]);
    let linked = house.dir.path().join("linked");
    let spec = OpenSpec { task: TASK, cwd: linked.join("dir"), base: Some("HEAD~1".to_owned()) };
    let opened = wait(house.canvas.open(spec)).unwrap();
    assert_eq!((opened.subdir.as_str(), opened.workspace.base.as_str()), ("dir", old.as_str()));
    assert_eq!(opened.workspace.repo, linked.canonicalize().unwrap());
    write(&opened.workspace.tree, "b.txt", b"b\n");
    let landed = house.land(&opened).unwrap();
    assert_eq!(landed.reference, "refs/heads/side");
    assert_eq!(git_in(&linked, &["status", "--porcelain"]), "");
    assert_eq!(std::fs::read_to_string(linked.join("dir/a.txt")).unwrap(), "new\n");
}

#[test]
fn a_branch_named_like_our_folder_is_a_clear_refusal() {
    let house = House::new();
    house.write("a", "a\n");
    house.commit_all("start");
    house.git(&["branch", "tinkerbell"]);
    let fault = wait(house.canvas.open(house.spec())).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-004");
    house.git(&["branch", "-m", "tinkerbell", "other"]);
    house.open();
}

#[test]
fn collected_garbage_of_the_user_does_not_hurt_checkpoints() {
    let house = House::new();
    house.write("a.txt", "a\n");
    house.commit_all("start");
    // In the user's objects, but pinned by nothing.
    house.write("loose.txt", "only staged once\n");
    house.git(&["add", "loose.txt"]);
    house.git(&["rm", "-q", "--cached", "loose.txt"]);
    std::fs::remove_file(house.user().join("loose.txt")).unwrap();
    let opened = house.open();
    write(&opened.workspace.tree, "loose.txt", b"only staged once\n");
    let checkpoint = house.take(&opened);
    house.restore(&opened, &opened.checkpoint);
    house.git(&["gc", "-q", "--prune=now"]);
    house.restore(&opened, &checkpoint);
    assert_eq!(std::fs::read_to_string(opened.workspace.tree.join("loose.txt")).unwrap(), "only staged once\n");
}

#[test]
fn rights_that_a_command_took_away_hide_nothing_and_stay_as_they_are() {
    let house = House::new();
    house.write("shut/inner/file", "text\n");
    house.commit_all("start");
    let opened = house.open();
    let tree_dir = &opened.workspace.tree;
    let mode = |path: &str, bits| std::fs::set_permissions(tree_dir.join(path), std::fs::Permissions::from_mode(bits)).unwrap();
    let bits = |path: &str| std::fs::symlink_metadata(tree_dir.join(path)).unwrap().permissions().mode() & 0o777;
    write(tree_dir, "shut/inner/file", b"changed\n");
    mode("shut/inner/file", 0o000);
    mode("shut", 0o600);
    let checkpoint = house.take(&opened);
    assert_eq!(bits("shut"), 0o600);
    assert_eq!(house.take(&opened), checkpoint, "looking changes nothing");
    house.restore(&opened, &opened.checkpoint);
    assert_eq!(std::fs::read(tree_dir.join("shut/inner/file")).unwrap(), b"text\n");
    house.restore(&opened, &checkpoint);
    assert_eq!(bits("shut"), 0o600);
    mode("shut", 0o700);
    assert_eq!(bits("shut/inner/file"), 0o000);
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
}

#[test]
fn what_the_user_may_not_read_is_left_out_and_told() {
    let house = House::new();
    house.write("a.txt", "a\n");
    house.commit_all("start");
    house.write("secret/file", "s\n");
    house.write("hidden.txt", "h\n");
    let mode = |path: &str, bits| std::fs::set_permissions(house.user().join(path), std::fs::Permissions::from_mode(bits)).unwrap();
    mode("secret", 0o000);
    mode("hidden.txt", 0o000);
    let opened = house.open();
    // Root reads everything; for everybody else it is told.
    let told = opened.notes.iter().filter(|note| note.contains("can not be read")).count();
    let there = opened.workspace.tree.join("secret/file").exists();
    assert!(if there { told == 0 } else { told == 2 }, "{:?}", opened.notes);
    assert_eq!(std::fs::symlink_metadata(house.user().join("secret")).unwrap().permissions().mode() & 0o777, 0o000);
    mode("secret", 0o700);
}

/// A pattern of dozens of `**` over a deep tree: tried way by way it would never end.
#[test]
fn ignore_patterns_that_git_would_never_finish_are_matched() {
    let house = House::new();
    let slow = "**/a/".repeat(40);
    house.write(".gitignore", &format!("{slow}z\n*.log\n{}keep\n", "**/".repeat(30)));
    std::fs::write(house.user().join(".git/info/exclude"), format!("{slow}y\n")).unwrap();
    let deep = "a/".repeat(60);
    house.write(&format!("{deep}x.txt"), "x\n");
    let opened = house.open();
    write(&opened.workspace.tree, &format!("{deep}new.txt"), b"new\n");
    write(&opened.workspace.tree, &format!("{deep}new.log"), b"log\n");
    write(&opened.workspace.tree, &format!("{deep}keep"), b"ignored\n");
    write(&opened.workspace.tree, "sub/.gitignore", format!("{slow}x\n").as_bytes());
    let checkpoint = house.take(&opened);
    let names: Vec<String> = house.diff(&opened, &opened.checkpoint, &checkpoint).files.into_iter().map(|file| file.path).collect();
    assert_eq!(names, [format!("{deep}new.txt"), "sub/.gitignore".to_owned()]);
}

#[test]
fn attributes_that_git_would_never_finish_are_refused_by_name() {
    let house = House::new();
    house.write("a.txt", "1\n");
    house.commit_all("start");
    let opened = house.open();
    let deep = "a/".repeat(60);
    write(&opened.workspace.tree, &format!("{deep}x.txt"), b"x\n");
    let fine = house.take(&opened);
    house.commit(&opened, &fine, "deep").unwrap();
    write(&opened.workspace.tree, ".gitattributes", format!("{}z text\n", "**/a/".repeat(40)).as_bytes());
    let slow = house.take(&opened);
    let fault = house.commit(&opened, &slow, "slow").unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-014", "{fault:?}");
    assert!(fault.message.contains(".gitattributes: its attributes take too long to match"), "{fault:?}");
    // The usual ones work on the same tree.
    write(&opened.workspace.tree, ".gitattributes", b"**/docs/**/*.txt text\n*.txt eol=lf\n");
    let usual = house.take(&opened);
    house.commit(&opened, &usual, "usual").unwrap();
}

fn too_much(fault: &tinkerbell_core::code::Fault, what: &str) {
    assert_eq!(fault.code.0, "TB-CANVAS-014", "{fault:?}");
    assert!(fault.message.contains(what) && fault.message.len() < 2000, "{fault:?}");
}

/// Walks go by descriptor, so nothing else stops names that are longer together than any program can say.
#[test]
fn a_path_that_no_program_can_name_is_too_much() {
    let house = House::new();
    house.write("a", "a\n");
    house.commit_all("start");
    let opened = house.open();
    let mut at = rustix::fs::open(&opened.workspace.tree, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    for _ in 0..20 {
        let name = "n".repeat(250);
        rustix::fs::mkdirat(&at, &name, rustix::fs::Mode::from_raw_mode(0o755)).unwrap();
        at = rustix::fs::openat(&at, &name, rustix::fs::OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
    }
    let fault = wait(house.canvas.checkpoint(opened.workspace.clone(), None)).unwrap_err();
    too_much(&fault, "longer than 4096 bytes");
    drop(at);
    // Where git ignores it, nobody looks.
    write(&opened.workspace.tree, ".gitignore", b"n*\n");
    house.take(&opened);
    std::fs::remove_file(opened.workspace.tree.join(".gitignore")).unwrap();
    wait(house.canvas.checkpoint(opened.workspace.clone(), None)).unwrap_err();
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
    assert!(!opened.workspace.tree.exists());
}

/// Seven small trees that hold each other ten times over stand for ten million files.
#[test]
fn a_tree_that_holds_itself_again_and_again_is_too_much() {
    let house = House::new();
    house.write("a", "a\n");
    house.commit_all("start");
    let blob = house.git(&["rev-parse", "HEAD:a"]);
    let tree = |mode: &str, kind: &str, id: &str| {
        let lines: String = (0..10).map(|n| format!("{mode} {kind} {id}\tx{n}\n")).collect();
        std::fs::write(house.dir.path().join("lines"), lines).unwrap();
        git_in(&house.user(), &["read-tree", "--empty"]);
        let script = "git mktree < ../lines";
        let out = std::process::Command::new("sh").args(["-c", script]).current_dir(house.user()).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let mut id = tree("100644", "blob", &blob);
    for _ in 0..6 {
        id = tree("040000", "tree", &id);
    }
    let commit = house.git(&["commit-tree", "-m", "bomb", &id]);
    let spec = OpenSpec { base: Some(commit.clone()), ..house.spec() };
    too_much(&wait(house.canvas.open(spec)).unwrap_err(), "more than 1000000 files");
    house.git(&["update-ref", "refs/heads/main", &commit]);
    too_much(&wait(house.canvas.open(OpenSpec { task: tinkerbell_core::words::TaskId(9), ..house.spec() })).unwrap_err(), "more than");
    // Deep instead of wide: each level would be a step of a stack.
    for _ in 0..220 {
        id = tree("040000", "tree", &id);
    }
    let commit = house.git(&["commit-tree", "-m", "deep", &id]);
    let spec = OpenSpec { task: tinkerbell_core::words::TaskId(10), base: Some(commit), ..house.spec() };
    too_much(&wait(house.canvas.open(spec)).unwrap_err(), "200 directories");
}

/// What is removed is removed in pieces, however much it is.
#[test]
fn a_directory_with_more_names_than_are_listed_at_a_time_is_removed() {
    let house = House::new();
    house.write("a", "a\n");
    house.write(".gitignore", "many\n");
    house.commit_all("start");
    let opened = house.open();
    let many = opened.workspace.tree.join("many/below");
    std::fs::create_dir_all(&many).unwrap();
    for n in 0..9000 {
        std::fs::write(many.join(n.to_string()), "").unwrap();
    }
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
    assert!(!opened.workspace.tree.exists());
}

/// An index by hand: its entries, its extensions, no checksum.
fn index(version: u32, count: u32, entries: &[u8], extensions: &[(&[u8; 4], Vec<u8>)]) -> Vec<u8> {
    let mut bytes = b"DIRC".to_vec();
    bytes.extend(version.to_be_bytes());
    bytes.extend(count.to_be_bytes());
    bytes.extend(entries);
    for (name, data) in extensions {
        bytes.extend(*name);
        bytes.extend(u32::try_from(data.len()).unwrap().to_be_bytes());
        bytes.extend(data);
    }
    bytes.extend([0; 20]);
    bytes
}

/// The library reads trees within an index by calling itself for each level, and unfolds shortened paths.
#[test]
fn a_delivered_index_neither_ends_the_process_nor_fills_its_memory() {
    let house = House::new();
    house.write("a", "a\n");
    house.commit_all("start");
    let place = house.user().join(".git/index");
    let usual = std::fs::read(&place).unwrap();
    let deep = b"x\0-1 1\n".repeat(1_000_000);
    let mut cache = vec![0; 120];
    cache.extend(b"\0\x01d\0".repeat(500_000));
    std::fs::write(&place, index(2, 0, &[], &[(b"TREE", deep), (b"UNTR", cache)])).unwrap();
    let opened = house.open();
    assert_eq!(std::fs::read(opened.workspace.tree.join("a")).unwrap(), b"a\n");
    write(&opened.workspace.tree, "b", b"b\n");
    assert_eq!(house.land(&opened).unwrap().conflicts, Vec::<String>::new());
    assert_eq!(house.git(&["show", "HEAD:b"]), "b");
    // Each entry repeats the path before it and adds to it: bytes by the square.
    let entry = |strip: u8, name: &[u8]| [&[0; 60][..], &[0x0f, 0xff, strip], name, &[0]].concat();
    let long = [entry(0, &[b'd'; 3000]), entry(0, b"/x").repeat(40_000)].concat();
    std::fs::write(&place, index(4, 40_001, &long, &[])).unwrap();
    let spec = OpenSpec { task: tinkerbell_core::words::TaskId(9), ..house.spec() };
    too_much(&wait(house.canvas.open(spec.clone())).unwrap_err(), "");
    // One that is cut off, ones that lie about their size or form, and one whose other part is not there.
    for bad in [&usual[..usual.len() - 30], &index(2, u32::MAX, &[], &[])[..], &index(5, 0, &[], &[])[..], b"DIRC"] {
        std::fs::write(&place, bad).unwrap();
        assert_eq!(wait(house.canvas.open(spec.clone())).unwrap_err().code.0, "TB-CANVAS-007");
    }
    let link = [&[7; 20][..], &[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0].repeat(2)[..]].concat();
    std::fs::write(&place, index(2, 0, &[], &[(b"link", link)])).unwrap();
    assert_eq!(wait(house.canvas.open(spec.clone())).unwrap_err().code.0, "TB-CANVAS-007");
    std::fs::write(&place, &usual).unwrap();
    // And the honest forms.
    for version in ["2", "3", "4"] {
        house.git(&["update-index", "--index-version", version]);
        house.git(&["update-index", "--force-untracked-cache"]);
        house.write("new", version);
        house.git(&["add", "-N", "new"]);
        let spec = OpenSpec { task: tinkerbell_core::words::TaskId(u128::from(version.as_bytes()[0])), ..house.spec() };
        let opened = wait(house.canvas.open(spec)).unwrap();
        assert_eq!(std::fs::read_to_string(opened.workspace.tree.join("new")).unwrap(), version);
    }
}

/// An object says how large it is before it is unpacked.
#[test]
fn an_object_that_says_it_is_huge_is_an_error() {
    let house = House::new();
    house.write("a", "a\n");
    house.commit_all("start");
    let content = b"blob 35184372088832\0tiny";
    let (low, high) =
        content.iter().fold((1_u32, 0_u32), |(a, b), byte| ((a + u32::from(*byte)) % 65521, (a + b + u32::from(*byte)) % 65521));
    let size = u16::try_from(content.len()).unwrap();
    let mut loose = vec![0x78, 0x01, 0x01];
    loose.extend(size.to_le_bytes());
    loose.extend((!size).to_le_bytes());
    loose.extend(content);
    loose.extend((high << 16 | low).to_be_bytes());
    let id = "ab".repeat(20);
    write(&house.user(), &format!(".git/objects/ab/{}", &id[2..]), &loose);
    let list = house.dir.path().join("list");
    std::fs::write(&list, format!("100644 blob {id}\tbig\n")).unwrap();
    let lines = std::fs::File::open(&list).unwrap();
    let mut git = std::process::Command::new("git");
    let made = git.args(["mktree", "--missing"]).current_dir(house.user()).stdin(lines).output().unwrap();
    let tree = String::from_utf8(made.stdout).unwrap();
    let commit = house.git(&["commit-tree", "-m", "huge", tree.trim()]);
    let fault = wait(house.canvas.open(OpenSpec { base: Some(commit), ..house.spec() })).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-007", "{fault:?}");
}

/// Attributes beside the tree are matched by the library, too, against every path.
#[test]
fn slow_attributes_beside_the_tree_are_too_much() {
    let house = House::new();
    house.write(&format!("{}x", "a/".repeat(60)), "x\n");
    house.commit_all("start");
    let slow = format!("{}z text\n", "**/a/".repeat(12));
    write(&house.user(), ".git/info/attributes", slow.as_bytes());
    too_much(&wait(house.canvas.open(house.spec())).unwrap_err(), "attributes");
    std::fs::remove_file(house.user().join(".git/info/attributes")).unwrap();
    let file = house.dir.path().join("attributes");
    std::fs::write(&file, slow).unwrap();
    house.git(&["config", "core.attributesFile", file.to_str().unwrap()]);
    too_much(&wait(house.canvas.open(house.spec())).unwrap_err(), "attributes");
    std::fs::write(&file, "*.txt text\n").unwrap();
    house.open();
}
