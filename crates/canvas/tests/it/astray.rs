//! Repositories whose own files name another place: a working tree, a git directory, objects, logs.
//!
//! What came with a repository decides nothing about which directories a task sees and which files are
//! written. Invariant: nothing outside the directory that holds `.git` is read or written, and the honest ways
//! to have them apart still work.

use crate::house::*;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Canvas, Landing, OpenSpec, Opened};

fn open_in(house: &House, cwd: &Path) -> Result<Opened, Fault> {
    wait(house.canvas.open(OpenSpec { task: TASK, cwd: cwd.to_owned(), base: None }))
}

/// A house with one commit, beside a home with a key and a repository of its own.
fn house() -> (House, PathBuf) {
    let house = House::new();
    house.write("a.txt", "a\n");
    house.write("sub/b.txt", "b\n");
    house.commit_all("start");
    let home = house.dir.path().join("home");
    write(&home, ".ssh/id", b"canary\n");
    git_in(&home, &["init", "-q", "-b", "main"]);
    git_in(&home, &["config", "user.name", "Alice"]);
    git_in(&home, &["config", "user.email", "alice@example.com"]);
    write(&home, "dot.txt", b"private\n");
    git_in(&home, &["add", "dot.txt"]);
    git_in(&home, &["commit", "-q", "-m", "home"]);
    (house, home)
}

/// That a task is refused with the code, and that nothing of the home went anywhere.
fn refused(house: &House, cwd: &Path, home: &Path, what: &str) {
    let before = listing(home, &|_| false);
    let got = open_in(house, cwd);
    let Err(fault) = got else { panic!("{what}: was opened: {:?}", got.map(|opened| opened.workspace)) };
    assert_eq!(fault.code.0, "TB-CANVAS-018", "{what}: {fault:?}");
    assert!(!fault.hints.is_empty(), "{what}: {fault:?}");
    assert_eq!(listing(home, &|_| false), before, "{what}");
    let kept = house.dir.path().join("data");
    assert!(!kept.join("work").exists() || listing(&kept.join("work"), &|_| false).keys().all(|path| !path.contains("id")), "{what}");
}

#[test]
fn a_configured_working_tree_elsewhere_is_refused() {
    let (house, home) = house();
    for value in [home.clone(), house.user().join("sub"), PathBuf::from("../.."), PathBuf::from("/")] {
        house.git(&["config", "core.worktree", value.to_str().unwrap()]);
        refused(&house, &house.user(), &home, &format!("{value:?}"));
        house.git(&["--git-dir=.git", "--work-tree=.", "config", "--unset", "core.worktree"]);
    }
    house.git(&["config", "extensions.worktreeConfig", "true"]);
    std::fs::write(house.user().join(".git/config.worktree"), format!("[core]\n\tworktree = {}\n", home.display())).unwrap();
    refused(&house, &house.user(), &home, "config.worktree");
    std::fs::remove_file(house.user().join(".git/config.worktree")).unwrap();
    // The same directory by another name is no other one.
    for value in ["..", house.user().to_str().unwrap()] {
        house.git(&["config", "core.worktree", value]);
        assert_eq!(open_in(&house, &house.user().join("sub")).unwrap().subdir, "sub", "{value}");
    }
}

#[test]
fn a_directory_that_looks_like_a_repository_is_content_of_the_one_around_it() {
    let (house, home) = house();
    let bare = house.user().join("sub");
    write(&bare, "HEAD", b"ref: refs/heads/main\n");
    write(&bare, "config", format!("[core]\n\tbare = false\n\tworktree = {}\n", home.display()).as_bytes());
    std::fs::create_dir_all(bare.join("objects")).unwrap();
    std::fs::create_dir_all(bare.join("refs")).unwrap();
    let opened = open_in(&house, &bare).unwrap();
    assert_eq!(opened.workspace.repo, house.user().canonicalize().unwrap());
    assert_eq!(opened.subdir, "sub");
    assert!(!tree(&opened).keys().any(|path| path.contains("id")));
}

#[test]
fn a_file_or_link_that_names_somebody_elses_git_directory_is_refused() {
    let (house, home) = house();
    let evil = house.dir.path().join("evil");
    write(&evil, "x.txt", b"x\n");
    let dot_git = evil.join(".git");
    std::fs::write(&dot_git, format!("gitdir: {}\n", home.join(".git").display())).unwrap();
    refused(&house, &evil, &home, "file");
    std::fs::write(&dot_git, "gitdir: ../home/.git\n").unwrap();
    refused(&house, &evil, &home, "relative file");
    std::fs::remove_file(&dot_git).unwrap();
    symlink(home.join(".git"), &dot_git).unwrap();
    refused(&house, &evil, &home, "link");
    // A linked worktree of the home's is the home's.
    git_in(&home, &["worktree", "add", "-q", "../linked", "-b", "linked"]);
    std::fs::remove_file(&dot_git).unwrap();
    std::fs::copy(house.dir.path().join("linked/.git"), &dot_git).unwrap();
    refused(&house, &evil, &home, "copied file of a linked worktree");
    open_in(&house, &house.dir.path().join("linked")).unwrap();
}

#[test]
fn a_common_directory_that_does_not_know_the_worktree_is_refused() {
    let (house, home) = house();
    let common = house.user().join(".git/commondir");
    std::fs::write(&common, format!("{}\n", home.join(".git").display())).unwrap();
    refused(&house, &house.user(), &home, "commondir of a whole repository");
    std::fs::write(house.user().join(".git/gitdir"), format!("{}\n", house.user().join(".git").display())).unwrap();
    refused(&house, &house.user(), &home, "commondir and gitdir");
    // One that is laid out like a linked worktree, and names another repository.
    let evil = house.dir.path().join("evil");
    write(&evil, "git/HEAD", b"ref: refs/heads/main\n");
    write(&evil, "git/commondir", format!("{}\n", home.join(".git").display()).as_bytes());
    write(&evil, "git/gitdir", format!("{}\n", evil.join(".git").display()).as_bytes());
    write(&evil, ".git", b"gitdir: git\n");
    refused(&house, &evil, &home, "own directory of a worktree");
}

#[test]
fn borrowed_objects_need_the_users_word() {
    let (house, home) = house();
    let place = house.user().join(".git/objects/info/alternates");
    std::fs::write(&place, format!("{}\n", home.join(".git/objects").display())).unwrap();
    refused(&house, &house.user(), &home, "alternates");
    std::fs::write(&place, "../../../home/.git/objects\n").unwrap();
    refused(&house, &house.user(), &home, "relative alternates");
    std::fs::write(&place, "# nothing\n\n/does/not/exist\n").unwrap();
    open_in(&house, &house.user()).unwrap();
}

#[test]
fn links_and_pipes_in_a_git_directory_are_refused() {
    for name in [
        "HEAD",
        "config",
        "index",
        "packed-refs",
        "objects",
        "objects/pack",
        "objects/info",
        "objects/ab",
        "refs",
        "refs/heads",
        "refs/heads/tinkerbell",
        "logs",
        "logs/HEAD",
        "logs/refs",
        "logs/refs/heads",
        "logs/refs/heads/tinkerbell",
        "info",
        "info/exclude",
        "info/attributes",
        "worktrees",
    ] {
        let (house, home) = house();
        let path = house.user().join(".git").join(name);
        let target = home.join("taken").join(name);
        std::fs::create_dir_all(target.parent().unwrap()).unwrap();
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        if path.symlink_metadata().is_ok() {
            std::fs::rename(&path, &target).unwrap();
        }
        symlink(&target, &path).unwrap();
        refused(&house, &house.user(), &home, name);
    }
    for name in ["HEAD", "config", "index", "packed-refs", "info/exclude", "info/attributes", "logs/HEAD", "objects/info/alternates"] {
        let (house, home) = house();
        let path = house.user().join(".git").join(name);
        std::fs::remove_file(&path).ok();
        rustix::fs::mknodat(rustix::fs::CWD, &path, rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0).unwrap();
        refused(&house, &house.user(), &home, name);
    }
}

/// A link in the logs gets no line, whenever it was put there.
#[test]
fn landing_writes_no_log_through_a_link() {
    for name in ["HEAD", "refs/heads/main"] {
        let (house, home) = house();
        let opened = open_in(&house, &house.user()).unwrap();
        write(&opened.workspace.tree, "new.txt", b"new\n");
        let spec = house.land_spec(&opened, None);
        let canary = home.join(".bashrc");
        std::fs::write(&canary, "true\n").unwrap();
        let log = house.user().join(".git/logs").join(name);
        std::fs::remove_file(&log).unwrap();
        symlink(&canary, &log).unwrap();
        let landed = wait(house.canvas.land(spec));
        assert_eq!(std::fs::read_to_string(&canary).unwrap(), "true\n", "{name}");
        assert_eq!(landed.unwrap_err().code.0, "TB-CANVAS-018", "{name}");
    }
}

#[test]
fn landing_looks_again_where_the_repository_is() {
    let (house, home) = house();
    let opened = open_in(&house, &house.user()).unwrap();
    write(&opened.workspace.tree, "new.txt", b"new\n");
    let spec = house.land_spec(&opened, None);
    house.git(&["config", "core.worktree", home.to_str().unwrap()]);
    let before = listing(&home, &|_| false);
    let fault = wait(house.canvas.land(spec)).unwrap_err();
    assert!(fault.message.contains("core.worktree"), "{fault:?}");
    assert_eq!(listing(&home, &|_| false), before);
}

/// Files that the library would open as they stand, and an index that it would write where a key says.
#[test]
fn keys_of_a_delivered_configuration_name_no_other_files() {
    let (house, home) = house();
    let index = home.join("planted");
    for (key, value) in
        [("gitoxide.core.indexFile", index.to_str().unwrap()), ("core.attributesFile", "/dev/zero"), ("core.excludesFile", "/dev/zero")]
    {
        house.git(&["config", key, value]);
        refused(&house, &house.user(), &home, key);
        house.git(&["config", "--unset", key]);
    }
    // Includes that include each other again and again.
    let config = house.user().join(".git/config");
    let whole = std::fs::read(&config).unwrap();
    for level in 0..8 {
        let text = format!("[include]\n\tpath = l{}\n", level + 1).repeat(40);
        std::fs::write(house.user().join(format!(".git/l{level}")), text).unwrap();
    }
    house.git(&["config", "include.path", "l0"]);
    refused(&house, &house.user(), &home, "includes");
    std::fs::write(&config, whole).unwrap();
    // A few of them are a custom of teams.
    house.write(".gitconfig", "[user]\n\tname = Team\n");
    house.git(&["config", "include.path", "../.gitconfig"]);
    open_in(&house, &house.user()).unwrap();
}

#[test]
fn a_name_makes_no_second_line_in_a_log() {
    let (house, _) = house();
    house.git(&["config", "user.name", "x\ny <z> \u{1}"]);
    let opened = open_in(&house, &house.user()).unwrap();
    write(&opened.workspace.tree, "new.txt", b"new\n");
    house.land(&opened).unwrap();
    let log = std::fs::read_to_string(house.user().join(".git/logs/HEAD")).unwrap();
    assert_eq!(log.lines().count(), 2, "{log}");
    assert!(house.git(&["log", "-1", "--format=%an <%ae>"]).ends_with("<user@example.com>"));
    house.git(&["fsck", "--strict"]);
}

#[test]
fn honest_ways_to_have_a_repository_go_on() {
    // Reached by a link, in a directory below.
    let (house, _) = house();
    symlink(house.user(), house.dir.path().join("door")).unwrap();
    let opened = open_in(&house, &house.dir.path().join("door/sub")).unwrap();
    assert_eq!((opened.workspace.repo, opened.subdir.as_str()), (house.user().canonicalize().unwrap(), "sub"));
    // A linked worktree, also of a bare repository.
    let (house, _) = self::house();
    house.git(&["worktree", "add", "-q", "../linked", "-b", "linked"]);
    let linked = house.dir.path().join("linked");
    assert_eq!(open_in(&house, &linked.join("sub")).unwrap().workspace.repo, linked.canonicalize().unwrap());
    let (house, _) = self::house();
    house.git(&["clone", "-q", "--bare", ".", "../bare.git"]);
    git_in(&house.dir.path().join("bare.git"), &["worktree", "add", "-q", "../linked", "main"]);
    open_in(&house, &linked_of(&house)).unwrap();
    assert_eq!(open_in(&house, &house.dir.path().join("bare.git")).unwrap_err().code.0, "TB-CANVAS-002");
    // A submodule, worked on by itself.
    let (house, home) = self::house();
    let home = home.to_str().unwrap();
    house.git(&["-c", "protocol.file.allow=always", "submodule", "--quiet", "add", home, "lib"]);
    let opened = open_in(&house, &house.user().join("lib")).unwrap();
    assert!(tree(&opened).keys().any(|path| path.starts_with("dot.txt")));
    // A git directory that stands apart, once it says whose it is.
    let (house, home) = self::house();
    house.git(&["init", "-q", "--separate-git-dir=../apart"]);
    refused(&house, &house.user(), &home, "apart");
    house.git(&["config", "core.worktree", house.user().to_str().unwrap()]);
    open_in(&house, &house.user()).unwrap();
}

fn linked_of(house: &House) -> PathBuf {
    house.dir.path().join("linked")
}

/// A list leads to a list, a line ends with more than a line feed, and the checkpoints' store reads the list, too.
#[test]
fn borrowed_objects_are_found_however_they_are_named() {
    for form in ["chain", "chain within objects", "carriage return", "nested relative", "climbing, to nothing yet", "quoted"] {
        let (house, home) = house();
        let git = house.user().join(".git");
        let lent = format!("{}\n", home.join(".git/objects").display());
        let (list, nested): (&str, Option<(&str, &str)>) = match form {
            "chain" => ("../x\n", Some(("x", &lent))),
            "chain within objects" => ("zz\n", Some(("objects/zz", &lent))),
            "carriage return" => ("../y\r\n", None),
            "nested relative" => ("../x\n", Some(("x", "../../../home/.git/objects\n"))),
            "quoted" => ("# one\n\"../../../home/.git/objects\"\n", None),
            _ => ("../../../later/objects\n", None),
        };
        symlink(home.join(".git/objects"), git.join("y\r")).unwrap();
        if let Some((dir, list)) = nested {
            write(&git.join(dir), "info/alternates", list.as_bytes());
        }
        std::fs::write(git.join("objects/info/alternates"), list).unwrap();
        refused(&house, &house.user(), &home, form);
    }
    // A store of its own, and one that stands behind it.
    let (house, _) = house();
    let git = house.user().join(".git");
    write(&git.join("x"), "info/alternates", b"../z\n");
    std::fs::create_dir(git.join("z")).unwrap();
    std::fs::write(git.join("objects/info/alternates"), "../x\n").unwrap();
    open_in(&house, &house.user()).unwrap();
}

#[test]
fn lists_of_borrowed_objects_have_a_measure() {
    let (house, home) = house();
    let git = house.user().join(".git");
    let list = git.join("objects/info/alternates");
    std::fs::write(&list, "../x\n").unwrap();
    sparse(&git.join("x/info/alternates"), b"", 2 << 30);
    refused(&house, &house.user(), &home, "a huge list of a list");
    std::fs::remove_file(git.join("x/info/alternates")).unwrap();
    std::fs::create_dir(git.join("x/info/alternates")).unwrap();
    refused(&house, &house.user(), &home, "no file");
    std::fs::write(&list, (0..300).map(|n| format!("/nothing/{n}\n")).collect::<String>()).unwrap();
    refused(&house, &house.user(), &home, "many");
    std::fs::write(&list, "../s0\n").unwrap();
    (0..8).for_each(|n| write(&git, &format!("s{n}/info/alternates"), format!("../s{}\n", n + 1).as_bytes()));
    refused(&house, &house.user(), &home, "many in a row");
    for (from, to) in [("s0", "../s1\n"), ("s1", "../s0\n")] {
        write(&git, &format!("{from}/info/alternates"), to.as_bytes());
    }
    assert!(open_in(&house, &house.user()).is_err(), "in a circle");
}

fn sparse(path: &Path, head: &[u8], bytes: u64) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, head).unwrap();
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(bytes).unwrap();
}

type Case<'a> = (&'a str, &'a dyn Fn(&Path, &House));

/// Files that the library reads whole.
#[test]
fn delivered_files_have_a_measure() {
    const GIB: u64 = 1 << 30;
    let id = |house: &House| format!("{}\n", house.git(&["rev-parse", "HEAD"])).into_bytes();
    let sorted = b"# pack-refs with: peeled fully-peeled sorted \n".as_slice();
    let head = |house: &House| [id(house).trim_ascii_end(), b" refs/heads/other\n"].concat();
    let cases: [Case<'_>; 8] = [
        ("a reference", &|git, house| sparse(&git.join("refs/heads/main"), &id(house), GIB)),
        ("a deep one", &|git, house| sparse(&git.join("refs/heads/a/b"), &id(house), 4097)),
        ("packed, sorted", &|git, _| sparse(&git.join("packed-refs"), sorted, GIB)),
        ("packed, not sorted", &|git, house| sparse(&git.join("packed-refs"), &head(house), 17 << 20)),
        ("shallow", &|git, _| sparse(&git.join("shallow"), b"", GIB)),
        ("a link to a large file", &|git, _| {
            sparse(&git.join("big"), b"", GIB);
            symlink("../../big", git.join("refs/heads/link")).unwrap();
        }),
        ("a link to a directory that nobody walks", &|git, house| {
            sparse(&git.join("big/main"), &id(house), GIB);
            symlink("../../big", git.join("refs/heads/dir")).unwrap();
        }),
        ("an include", &|git, house| {
            sparse(&git.join("big"), b"", 3 * GIB);
            house.git(&["config", "include.path", "/dev/null"]);
            std::fs::OpenOptions::new()
                .append(true)
                .open(git.join("config"))
                .and_then(|mut file| std::io::Write::write_all(&mut file, b"[include]\n\tpath = big\n"))
                .unwrap();
        }),
    ];
    for (what, change) in cases {
        let (house, home) = house();
        change(&house.user().join(".git"), &house);
        refused(&house, &house.user(), &home, what);
    }
    // Files that the kernel makes up say that they are empty.
    for (key, path) in [("core.excludesFile", "/proc/self/mounts"), ("include.path", "/proc/self/maps"), ("include.path", "%(prefix)/x")] {
        let (house, home) = house();
        house.git(&["config", key, path]);
        refused(&house, &house.user(), &home, path);
    }
}

/// Monorepos have files of packed references of many megabytes, and some configurations name nothing.
#[test]
fn honest_measures_go_on() {
    let (house, _) = house();
    let id = house.git(&["rev-parse", "HEAD"]);
    let lines: String = (0..300_000).map(|n| format!("{id} refs/tags/release-candidate-{n:09}\n")).collect();
    assert!(lines.len() > 20 << 20);
    let text = format!("# pack-refs with: peeled fully-peeled sorted \n{lines}");
    std::fs::write(house.user().join(".git/packed-refs"), text).unwrap();
    house.git(&["config", "include.path", "/dev/null"]);
    house.git(&["config", "--add", "include.path", "/not/there"]);
    house.git(&["config", "core.excludesFile", "/dev/null"]);
    symlink("main", house.user().join(".git/refs/heads/same")).unwrap();
    open_in(&house, &house.user()).unwrap();
    assert_eq!(open_in(&house, &house.user()).unwrap().subdir, "");
}

/// What is carried goes through no link, on neither side: the task's tree holds the links of a commit.
#[test]
fn what_is_carried_goes_through_no_link() {
    let carried = ["web/node_modules", "deep/er/venv", "door/x", "vendor", "../out", ".", "gone", "pipe"].map(str::to_owned).to_vec();
    let house = House::with(|options| options.carry = carried);
    let out = house.dir.path().join("out");
    write(&out, "secret.txt", b"canary\n");
    house.write(".gitignore", "node_modules\nvenv\nvendor\npipe\n/door\n");
    symlink(&out, house.user().join("web")).unwrap();
    house.commit_all("a link");
    house.git(&["branch", "evil"]);
    house.git(&["rm", "-q", "web"]);
    house.write("web/a.txt", "a\n");
    house.commit_all("a directory");
    house.write("web/node_modules/x/i.js", "x\n");
    house.write("deep/er/venv/bin/run", "run\n");
    let run = house.user().join("deep/er/venv/bin/run");
    std::fs::set_permissions(&run, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    symlink(&out, house.user().join("deep/er/venv/link")).unwrap();
    symlink(&out, house.user().join("door")).unwrap();
    write(&out, "x/secret.txt", b"canary\n");
    symlink(&out, house.user().join("vendor")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, house.user().join("pipe"), rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o600), 0)
        .unwrap();
    let before = listing(&out, &|_| false);
    let spec = OpenSpec { task: TASK, cwd: house.user(), base: Some("evil".to_owned()) };
    let opened = wait(house.canvas.open(spec)).unwrap();
    assert_eq!(listing(&out, &|_| false), before);
    let at = |path: &str| opened.workspace.tree.join(path);
    assert!(at("web").is_symlink() && at("vendor").is_symlink() && at("deep/er/venv/link").is_symlink());
    assert_eq!(std::fs::read(at("deep/er/venv/bin/run")).unwrap(), b"run\n");
    assert!(
        at("deep/er/venv/bin/run")
            .metadata()
            .map(|meta| std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777 == 0o755)
            .unwrap()
    );
    assert!(!at("door").exists() && !at("pipe").exists());
    let said = opened.notes.join("\n");
    assert!(said.contains("web/node_modules was not carried") && said.contains("door/x was not carried"), "{said}");
    assert!(said.contains("deep/er/venv was carried"), "{said}");
}
