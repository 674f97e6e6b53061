//! Layers applied to the tree: made by hand as overlayfs leaves them, so that every form is met.
//!
//! Whiteouts are devices with the number 0:0, which every user may make; copied files carry the
//! attribute that the kernel gives them. Invariant: what a test does not name stays as it was.

use crate::house::*;
use rustix::fs::{AtFlags, CWD, FileType, Mode, XattrFlags};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tinkerbell_core::layer::{CHECK, ENDED, START, UPPER, place};
use tinkerbell_core::port::{Applied, Canvas, Checkpoint, Opened};

/// A layer of the command that effect 7 started.
pub struct Layer {
    pub dir: PathBuf,
}

impl Layer {
    pub fn of(opened: &Opened, run: u32) -> Self {
        let dir = place(&opened.workspace, run).unwrap();
        std::fs::create_dir_all(dir.join(UPPER)).unwrap();
        std::fs::create_dir_all(dir.join("work/work")).unwrap();
        // The clock of the file system ticks in milliseconds; what was before must count as before.
        settle(&opened.workspace.tree);
        std::fs::write(dir.join(START), "").unwrap();
        settle(&dir);
        Self { dir }
    }

    pub fn up(&self) -> PathBuf {
        self.dir.join(UPPER)
    }

    pub fn write(&self, path: &str, content: &str) -> &Self {
        write(&self.up(), path, content.as_bytes());
        self
    }

    /// As a file that stood in the tree and was written to.
    pub fn copied(&self, path: &str, content: &str) -> &Self {
        self.write(path, content);
        self.mark(path, "origin", b"")
    }

    pub fn mark(&self, path: &str, attribute: &str, value: &[u8]) -> &Self {
        rustix::fs::lsetxattr(self.up().join(path), format!("user.overlay.{attribute}"), value, XattrFlags::empty()).unwrap();
        self
    }

    pub fn whiteout(&self, path: &str) -> &Self {
        let path = self.up().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        rustix::fs::mknodat(CWD, path, FileType::CharacterDevice, Mode::empty(), 0).unwrap();
        self
    }

    pub fn dir(&self, path: &str) -> &Self {
        std::fs::create_dir_all(self.up().join(path)).unwrap();
        self
    }

    pub fn link(&self, path: &str, target: &str) -> &Self {
        std::os::unix::fs::symlink(target, self.up().join(path)).unwrap();
        self
    }

    pub fn end(&self) -> &Self {
        std::fs::write(self.dir.join(ENDED), "").unwrap();
        self
    }
}

/// Waits until the file system's clock has moved on; a bounded number of looks.
fn settle(dir: &Path) {
    let probe = dir.parent().unwrap().join("tick");
    let stamp = || {
        std::fs::write(&probe, "").unwrap();
        std::fs::remove_file(&probe).ok();
        std::fs::write(&probe, "").unwrap();
        let meta = std::fs::metadata(&probe).unwrap();
        (meta.ctime(), meta.ctime_nsec())
    };
    let first = stamp();
    assert!((0..1_000_000).any(|_| stamp() > first), "the clock stands");
    std::fs::remove_file(&probe).unwrap();
}

pub fn with_base() -> (House, Opened) {
    let house = House::new();
    for (path, content) in [
        ("a", "a\n"),
        ("b", "b\n"),
        ("d/x", "x\n"),
        ("d/y", "y\n"),
        ("d/e/z", "z\n"),
        ("AGENTS.md", "real\n"),
        ("sub/CLAUDE.md", "real\n"),
        (".vscode/settings.json", "real\n"),
        (".gitignore", "*.log\ntarget/\nout/\n.cache/\n"),
    ] {
        house.write(path, content);
    }
    house.commit_all("base");
    let opened = house.open();
    (house, opened)
}

/// Takes a checkpoint; what was said of the layer.
fn apply(house: &House, opened: &Opened) -> (Checkpoint, Applied) {
    let taken = house.guarded(opened, Some(opened.checkpoint.clone()));
    let layer = taken.layers.iter().find(|layer| layer.run == 7).cloned().unwrap_or_default();
    (taken, layer)
}

fn read(opened: &Opened, path: &str) -> String {
    std::fs::read_to_string(opened.workspace.tree.join(path)).unwrap_or_else(|_| "-".into())
}

fn has(opened: &Opened, path: &str) -> bool {
    opened.workspace.tree.join(path).symlink_metadata().is_ok()
}

#[test]
fn what_an_ended_command_wrote_is_taken_over() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    layer.copied("a", "A\n").whiteout("b").write("new/deep/n", "n\n").link("new/l", "deep/n").dir("empty").write("x.log", "log\n");
    layer.dir("d").whiteout("d/x").copied("d/y", "Y\n").mark("d", "origin", b"").write("out/big", "o\n");
    std::fs::set_permissions(layer.up().join("a"), std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(layer.up().join("empty"), std::fs::Permissions::from_mode(0o700)).unwrap();
    layer.end();
    let (taken, said) = apply(&house, &opened);
    assert_eq!((said.refused, taken.restored), (vec![], vec![]));
    let names = ["a", "b", "d/x", "d/y", "d/e/z", "new/deep/n", "new/l", "x.log", "out/big"];
    assert_eq!(names.map(|name| read(&opened, name)), ["A\n", "-", "-", "Y\n", "z\n", "n\n", "n\n", "log\n", "o\n"]);
    let mode = |path: &str| opened.workspace.tree.join(path).metadata().unwrap().mode() & 0o777;
    assert_eq!((mode("a"), mode("empty"), mode("d/e")), (0o755, 0o700, mode("d")));
    assert!(!layer.up().exists() && layer.dir.join(ENDED).exists());
    let changed: Vec<String> = house.diff(&opened, &opened.checkpoint, &taken.id).files.into_iter().map(|file| file.path).collect();
    assert_eq!(changed, ["a", "b", "d/x", "d/y", "new/deep/n", "new/l"]);
    house.restore(&opened, &opened.checkpoint);
    assert_eq!((read(&opened, "a"), read(&opened, "b"), has(&opened, "new")), ("a\n".into(), "b\n".into(), false));
    let (_, again) = apply(&house, &opened);
    assert_eq!((again.run, again.refused), (7, vec![]), "nothing is applied twice");
    assert_eq!(read(&opened, "a"), "a\n");
}

/// Behind a link `.github` every file of another directory would be a hook or a workflow.
#[test]
fn refused_is_what_takes_the_place_of_a_directory_of_protected_paths() {
    let house = House::new();
    house.write("docs/hooks/h.json", "{}\n");
    house.write("a/x", "x\n");
    for name in [".forgejo", ".gitea"] {
        std::os::unix::fs::symlink("docs", house.user().join(name)).unwrap();
    }
    house.commit_all("base");
    let opened = house.open();
    let layer = Layer::of(&opened, 7);
    layer.write("a/ok", "ok\n").link(".GitHub", "docs").write(".gitlab", "a file\n").whiteout(".gitea");
    layer.write(".forgejo/hooks/h.json", "{}\n").write(".config/ok", "a directory is free\n");
    layer.end();
    let (taken, said) = apply(&house, &opened);
    let mut about: Vec<&str> = said.refused.iter().filter_map(|line| line.split('`').nth(1)).collect();
    about.sort_unstable();
    assert_eq!(about, [".GitHub", ".forgejo", ".gitea", ".gitlab"]);
    assert_eq!(taken.restored, Vec::<String>::new(), "nothing had to be put back");
    assert_eq!((read(&opened, "a/ok"), read(&opened, ".config/ok")), ("ok\n".into(), "a directory is free\n".into()));
    assert!(!has(&opened, ".GitHub") && !has(&opened, ".gitlab"));
    for name in [".forgejo", ".gitea"] {
        assert_eq!(std::fs::read_link(opened.workspace.tree.join(name)).unwrap(), Path::new("docs"), "{name}");
    }
}

#[test]
fn refused_is_what_steers_raises_or_leads_out() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    let before = tree(&opened);
    layer.copied("AGENTS.md", "evil\n").copied("sub/CLAUDE.md", "evil\n").write("Agents.MD", "evil\n").write("n/.claude/s.json", "evil\n");
    layer.write(".github/workflows/ci.yml", "evil\n").write(".envrc", "evil\n").copied(".git", "gitdir: /evil\n").whiteout(".vscode");
    layer.link("etc", "/etc").link("up", "../up").link("d2", "d/../..").write(".tinkerbell~kept-x", "hidden\n");
    layer.write("su", "#!/bin/sh\n").write("target/su", "x");
    let up = layer.up();
    for path in ["su", "target/su"] {
        std::fs::set_permissions(up.join(path), std::fs::Permissions::from_mode(0o6755)).unwrap();
    }
    rustix::fs::mknodat(CWD, up.join("pipe"), FileType::Fifo, Mode::RUSR, 0).unwrap();
    rustix::fs::mknodat(CWD, up.join("n/sock"), FileType::Socket, Mode::RUSR, 0).unwrap();
    let is_root = rustix::fs::mknodat(CWD, up.join("disk"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3)).is_ok();
    layer.end();
    let (taken, said) = apply(&house, &opened);
    let mut after = tree(&opened);
    after.retain(|path, _| !before.contains_key(path));
    let left: Vec<&str> = after.keys().map(|path| path.split(' ').next().unwrap()).collect();
    assert_eq!(left, [".github/", "n/", "su", "target/", "target/su"]);
    assert!(before.keys().all(|path| tree(&opened).contains_key(path)));
    assert_eq!(read(&opened, "AGENTS.md"), "real\n");
    for path in ["su", "target/su"] {
        assert_eq!(opened.workspace.tree.join(path).metadata().unwrap().mode() & 0o7777, 0o755);
    }
    assert_eq!(taken.restored, Vec::<String>::new(), "nothing had to be put back");
    let mut about: Vec<&str> = said.refused.iter().filter_map(|line| line.split('`').nth(1)).collect();
    about.sort_unstable();
    let mut wanted = vec![
        ".envrc",
        ".git",
        ".github/workflows",
        ".tinkerbell~kept-x",
        ".vscode",
        "AGENTS.md",
        "Agents.MD",
        "d2",
        "etc",
        "n/.claude",
        "n/sock",
        "pipe",
        "su",
        "sub/CLAUDE.md",
        "target/su",
        "up",
    ];
    if is_root {
        wanted.push("disk");
        wanted.sort_unstable();
    }
    assert_eq!(about, wanted);
    assert!(said.is_news && !apply(&house, &opened).1.is_news);
}

#[test]
fn copies_without_a_change_are_no_attempt() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    layer.copied("AGENTS.md", "real\n").dir(".vscode").mark(".vscode", "origin", b"").copied(".vscode/settings.json", "real\n").end();
    for path in ["AGENTS.md", ".vscode/settings.json"] {
        let mode = opened.workspace.tree.join(path).metadata().unwrap().permissions();
        std::fs::set_permissions(layer.up().join(path), mode).unwrap();
    }
    assert_eq!(apply(&house, &opened).1.refused, Vec::<String>::new());
}

#[test]
fn what_somebody_else_changed_meanwhile_stays_and_the_other_version_is_kept() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    let user = |path: &str, content: &str| write(&opened.workspace.tree, path, content.as_bytes());
    user("a", "edited\n");
    std::fs::remove_file(opened.workspace.tree.join("b")).unwrap();
    user("d/x", "edited\n");
    user("d/new", "edited\n");
    user("same", "same\n");
    layer.copied("a", "A\n").copied("b", "B\n").dir("d").mark("d", "opaque", b"y").write("same", "same\n").end();
    let (_, said) = apply(&house, &opened);
    let kept = |name: &str| read(&opened, &format!(".tinkerbell~kept-u7-{name}"));
    assert_eq!((read(&opened, "a"), kept("a")), ("edited\n".into(), "A\n".into()));
    assert_eq!((read(&opened, "b"), kept("b")), ("-".into(), "B\n".into()));
    assert_eq!(
        (read(&opened, "d/x"), read(&opened, "d/new"), has(&opened, "d/e"), has(&opened, "d/y")),
        ("edited\n".into(), "edited\n".into(), false, false)
    );
    assert_eq!(said.refused.len(), 4, "{:?}", said.refused);
    assert!(said.refused[0].contains("`a`") && said.refused[0].contains(".tinkerbell~kept-u7-a"), "{:?}", said.refused);
    // Neither in a checkpoint nor in what is landed.
    let (taken, _) = apply(&house, &opened);
    let changed: Vec<String> = house.diff(&opened, &opened.checkpoint, &taken.id).files.into_iter().map(|file| file.path).collect();
    assert!(changed.iter().all(|path| !path.contains("kept")), "{changed:?}");
}

#[test]
fn a_running_command_is_followed_and_its_file_tools_are_not_overwritten() {
    let (mut house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    layer.copied("a", "1\n").write("made/f", "1\n").whiteout("b");
    apply(&house, &opened);
    assert_eq!((read(&opened, "a"), read(&opened, "made/f"), read(&opened, "b")), ("1\n".into(), "1\n".into(), "-".into()));
    assert!(layer.up().join("a").exists(), "what may still be written to is only read");
    // It goes on; the daemon is another one by now.
    house.again();
    layer.copied("a", "2\n");
    std::fs::remove_dir_all(layer.up().join("made")).unwrap();
    let (_, said) = apply(&house, &opened);
    assert_eq!((read(&opened, "a"), has(&opened, "made"), said.refused), ("2\n".into(), false, vec![]));
    // A file tool edits what the command wrote, and makes again what it deleted.
    write(&opened.workspace.tree, "a", b"tool\n");
    write(&opened.workspace.tree, "b", b"tool\n");
    assert_eq!((apply(&house, &opened).1.refused.len(), read(&opened, "a"), read(&opened, "b")), (0, "tool\n".into(), "tool\n".into()));
    layer.copied("a", "3\n");
    let (_, said) = apply(&house, &opened);
    assert_eq!((said.refused.len(), said.is_news, read(&opened, "a")), (1, true, "tool\n".into()));
    assert!(!apply(&house, &opened).1.is_news);
    layer.end();
    apply(&house, &opened);
    assert_eq!(
        (read(&opened, "a"), read(&opened, ".tinkerbell~kept-u7-a"), read(&opened, "b")),
        ("tool\n".into(), "3\n".into(), "tool\n".into())
    );
}

#[test]
fn files_and_directories_take_each_others_place() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    layer.write("a/inner", "i\n").write("d", "file\n");
    apply(&house, &opened);
    assert_eq!((read(&opened, "a/inner"), read(&opened, "d")), ("i\n".into(), "file\n".into()));
    std::fs::remove_dir_all(layer.up().join("a")).unwrap();
    std::fs::remove_file(layer.up().join("d")).unwrap();
    layer.write("a", "again\n").write("d/x", "again\n").mark("d", "opaque", b"y");
    apply(&house, &opened);
    assert_eq!((read(&opened, "a"), read(&opened, "d/x"), has(&opened, "d/e")), ("again\n".into(), "again\n".into(), false));
    layer.end();
    assert_eq!(apply(&house, &opened).1.refused, Vec::<String>::new());
    assert_eq!((read(&opened, "a"), read(&opened, "d/x")), ("again\n".into(), "again\n".into()));
}

#[test]
fn of_a_check_only_ignored_files_count() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    std::fs::write(layer.dir.join(CHECK), "").unwrap();
    layer.copied("a", "A\n").whiteout("b").write("new", "n\n").write("x.log", "log\n").write("target/o", "o\n").write("n/.cache/c", "c\n");
    layer.copied("AGENTS.md", "evil\n").dir("d").mark("d", "opaque", b"y");
    assert_eq!(apply(&house, &opened).1, Applied { run: 7, ..Applied::default() }, "it still runs");
    layer.end();
    let (taken, said) = apply(&house, &opened);
    assert_eq!((said.dropped, said.refused), (["AGENTS.md", "a", "b", "d"].map(String::from).to_vec(), vec![]));
    assert_eq!((read(&opened, "x.log"), read(&opened, "target/o")), ("log\n".into(), "o\n".into()));
    assert_eq!(house.diff(&opened, &opened.checkpoint, &taken.id).files, vec![]);
    // Said again after a crash, until the layer is let go.
    assert_eq!(apply(&house, &opened).1.dropped.len(), 4);
}

#[test]
fn odd_names_modes_sizes_and_links_arrive_as_they_are() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    let odd = std::ffi::OsStr::from_bytes(b"n\xff\n\x1b");
    std::fs::write(layer.up().join(odd), "odd\n").unwrap();
    layer.write("one", "linked\n").write("dark/f", "dark\n");
    std::fs::hard_link(layer.up().join("one"), layer.up().join("two")).unwrap();
    std::fs::File::create(layer.up().join("sparse")).unwrap().set_len(1 << 36).unwrap();
    rustix::fs::lsetxattr(layer.up().join("one"), "user.mine", b"kept", XattrFlags::empty()).unwrap();
    let mode = |path: &str, bits| std::fs::set_permissions(layer.up().join(path), std::fs::Permissions::from_mode(bits)).unwrap();
    mode("dark/f", 0o000);
    mode("dark", 0o000);
    write(&opened.workspace.tree, ".gitignore", b"sparse\n");
    layer.end();
    let started = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (_, said) = apply(&house, &opened);
    let used = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    assert!(used.tv_sec - started.tv_sec < 5, "a sparse file is moved, not read");
    assert_eq!(said.refused, Vec::<String>::new());
    let at = |path: &str| opened.workspace.tree.join(path);
    assert_eq!(std::fs::read_to_string(opened.workspace.tree.join(odd)).unwrap(), "odd\n");
    assert_eq!(at("one").metadata().unwrap().ino(), at("two").metadata().unwrap().ino());
    assert_eq!(at("sparse").metadata().unwrap().len(), 1 << 36);
    assert_eq!(at("dark").metadata().unwrap().mode() & 0o777, 0);
}

#[test]
fn a_layer_that_is_damaged_or_half_made_changes_nothing() {
    let (house, opened) = with_base();
    let before = tree(&opened);
    let home = place(&opened.workspace, 7).unwrap();
    std::fs::create_dir_all(home.join(UPPER)).unwrap();
    write(&home.join(UPPER), "a", b"A\n");
    apply(&house, &opened);
    std::fs::write(home.parent().unwrap().join("x"), "").unwrap();
    std::fs::create_dir(home.parent().unwrap().join("not-a-number")).unwrap();
    apply(&house, &opened);
    assert_eq!(tree(&opened), before);
}

#[test]
fn ten_thousand_files_in_a_new_directory_are_moved_at_once() {
    let (house, opened) = with_base();
    let layer = Layer::of(&opened, 7);
    for dir in 0..100 {
        layer.dir(&format!("target/{dir}"));
        for file in 0..100 {
            std::fs::write(layer.up().join(format!("target/{dir}/{file}")), "x").unwrap();
        }
    }
    let ino = layer.up().join("target/5/5").metadata().unwrap().ino();
    layer.end();
    let (_, said) = apply(&house, &opened);
    assert_eq!(said.refused, Vec::<String>::new());
    assert_eq!(opened.workspace.tree.join("target/5/5").metadata().unwrap().ino(), ino);
    assert_eq!(std::fs::read_dir(opened.workspace.tree.join("target")).unwrap().count(), 100);
    assert!(rustix::fs::statat(CWD, opened.workspace.tree.parent().unwrap().join("bulky"), AtFlags::empty()).is_ok());
}

/// Directories within each other, each called `name`.
fn deep(at: &Path, name: &str, levels: usize) {
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
    let mut dir = rustix::fs::openat(CWD, at, flags, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&dir, name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, name, flags, Mode::empty()).unwrap();
    }
}

/// Neither the stack nor the descriptors of the daemon grow with what a command deletes, and its words
/// do not grow with the names.
#[test]
fn what_is_deeper_than_anybody_looks_is_named_and_not_deleted() {
    let (house, opened) = with_base();
    for top in ["target", "out", ".cache"] {
        std::fs::create_dir(opened.workspace.tree.join(top)).unwrap();
        deep(&opened.workspace.tree.join(top), &"d".repeat(200), 1_200);
        std::fs::write(opened.workspace.tree.join(top).join("file"), "x").unwrap();
    }
    let layer = Layer::of(&opened, 7);
    // Deleted, replaced by a file, deleted and made anew.
    layer.whiteout("target").write("out", "file\n").dir(".cache").mark(".cache", "opaque", b"y").end();
    let (_, said) = apply(&house, &opened);
    let deep: Vec<&String> = said.refused.iter().filter(|line| line.contains("nested too deeply")).collect();
    assert_eq!(deep.len(), 3, "{:?}", said.refused);
    assert!(said.refused.iter().all(|line| line.chars().count() < 600), "{:?}", said.refused);
    for top in ["target", "out", ".cache"] {
        assert!(has(&opened, &format!("{top}/{}", "d".repeat(200))) && !has(&opened, &format!("{top}/file")), "{top}");
    }
    wait(house.canvas.remove(opened.workspace.clone())).unwrap();
}

/// Where checkpoints look, such a tree ends the task with a word of its own, layer or not.
#[test]
fn a_layer_deeper_than_checkpoints_look_ends_as_a_tree_does() {
    let (house, opened) = with_base();
    deep(&opened.workspace.tree, "q", 250);
    let layer = Layer::of(&opened, 7);
    layer.whiteout("q").end();
    let fault = wait(house.canvas.checkpoint(opened.workspace.clone(), None)).unwrap_err();
    assert_eq!(fault.code.0, "TB-CANVAS-014", "{fault:?}");
    assert!(fault.message.contains("nested deeper than 200"), "{}", fault.message);
}
