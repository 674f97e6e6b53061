//! The task's worktree: its registration with git, its files, its private index.
//!
//! Registered by hand under a fixed name, so that making it again after a crash finds what is
//! there. Invariant: of the user's repository only `worktrees/tinkerbell-<task>` is written.

use crate::beneath::{FileMode, Obstacle, Root};
use crate::error::{Error, Result};
use gix::ObjectId;
use gix::bstr::{BStr, ByteSlice};
use gix::filter::plumbing::pipeline::CrlfRoundTripCheck;
use gix::index::entry::Stat;
use gix::worktree::stack::state::attributes::Source;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tinkerbell_core::words::{TaskId, Workspace};

/// The task's own directory.
pub fn home(data_dir: &Path, task: TaskId) -> PathBuf {
    data_dir.join("work").join(task.to_string())
}

/// The task's tree.
pub fn tree_dir(data_dir: &Path, task: TaskId) -> PathBuf {
    home(data_dir, task).join("tree")
}

/// The worktree's private git directory.
pub fn git_dir(common_dir: &Path, task: TaskId) -> PathBuf {
    common_dir.join("worktrees").join(format!("tinkerbell-{task}"))
}

/// Makes a directory and those above it, closed to others.
pub fn make_private(dir: &Path) -> Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(Error::io("make directory", dir))
}

/// Removes the directory of a task that has not begun; one that holds more stays.
pub fn forget(home: &Path) {
    std::fs::remove_file(home.join("now")).ok();
    std::fs::remove_dir(home).ok();
}

/// Registers the worktree with the repository, or repairs its registration. Written beneath the git directory,
/// through no link.
pub fn register(ws: &Workspace) -> Result<()> {
    let mut gitdir = ws.tree.join(".git").as_os_str().as_bytes().to_vec();
    gitdir.push(b'\n');
    let common = Root::open(&ws.common_dir, Obstacle::Refuse)?;
    let own = ws.git_dir.strip_prefix(&ws.common_dir).unwrap_or(&ws.git_dir).as_os_str().as_bytes().as_bstr();
    put(&common, own, b"commondir", b"../..\n")?;
    put(&common, own, b"gitdir", &gitdir)?;
    put(&common, own, b"HEAD", format!("ref: {}\n", ws.branch).as_bytes())?;
    Root::open(&ws.tree, Obstacle::Clear)?.write(b".git".as_bstr(), &mut dot_git(ws).as_slice(), FileMode::Plain)
}

/// What the worktree's `.git` file must say.
pub fn dot_git(ws: &Workspace) -> Vec<u8> {
    let mut line = b"gitdir: ".to_vec();
    line.extend_from_slice(ws.git_dir.as_os_str().as_bytes());
    line.push(b'\n');
    line
}

/// Writes a small file unless it already says so.
fn put(root: &Root, dir: &BStr, name: &[u8], mut bytes: &[u8]) -> Result<()> {
    let path = crate::ignored::join(dir, name);
    if root.says(path.as_bstr(), bytes).unwrap_or(false) {
        return Ok(());
    }
    root.write(path.as_bstr(), &mut bytes, FileMode::Plain)
}

/// Fills the empty tree with the files of a commit's tree and writes the private index.
pub fn fill(repo: &gix::Repository, ws: &Workspace, tree: ObjectId) -> Result<Vec<String>> {
    let mut index = repo.index_from_tree(&tree).map_err(Error::git("read tree"))?;
    crate::patterns::check_attributes((repo, repo), index.entries().iter().map(|entry| (entry.path(&index), entry.id)))?;
    // Before anything else: the library names the user's own index here.
    index.set_path(ws.git_dir.join("index"));
    let mut options = repo.checkout_options(Source::IdMapping).map_err(Error::git("read configuration"))?;
    options.destination_is_initially_empty = true;
    // A repository's own configuration may ask for any number of threads.
    options.thread_limit = None;
    options.filter_process_delay = gix::filter::plumbing::driver::apply::Delay::Forbid;
    let filters = options.filters.options_mut();
    filters.drivers.clear();
    filters.crlf_roundtrip_check = CrlfRoundTripCheck::Skip;
    let objects = repo.objects.clone().into_arc().map_err(Error::io("open objects", repo.path()))?;
    let nothing = gix::progress::Discard;
    let outcome =
        gix::worktree::state::checkout(&mut index, ws.tree.clone(), objects, &nothing, &nothing, &AtomicBool::new(false), options)
            .map_err(Error::git("write the task's tree"))?;
    crate::stale::clear(&ws.git_dir.join("index"))?;
    index.write(gix::index::write::Options::default()).map_err(Error::git("write the task's index"))?;
    Ok(outcome.collisions.iter().map(|c| format!("{} collides with another path and was left out", c.path)).collect())
}

/// Brings the private index to a commit's tree. Entries that changed get an empty stat: git then
/// compares their content, which is right whatever happened to the file meanwhile.
pub fn refresh_index(repo: &gix::Repository, ws: &Workspace, tree: ObjectId) -> Result<()> {
    let path = ws.git_dir.join("index");
    let mut index = repo.index_from_tree(&tree).map_err(Error::git("read tree"))?;
    index.set_path(&path);
    // Only a crash of ours leaves a lock: commands can not write here.
    crate::stale::clear(&path)?;
    let old = gix::index::File::at_or_default(&path, repo.object_hash(), false, gix::index::decode::Options::default())
        .map_err(Error::git("read the task's index"))?;
    for (entry, path) in index.entries_mut_with_paths() {
        let known = old.entry_by_path(path).filter(|was| was.id == entry.id && was.mode == entry.mode);
        entry.stat = known.map_or_else(Stat::default, |was| was.stat);
    }
    index.write(gix::index::write::Options::default()).map_err(Error::git("write the task's index"))
}

/// Removes the worktree's files and its registration.
pub fn remove(ws: &Workspace, data_dir: &Path) -> Result<()> {
    for dir in [home(data_dir, ws.task), ws.git_dir.clone()] {
        let (Some(parent), Some(name)) = (dir.parent(), dir.file_name()) else { continue };
        if !dir.exists() {
            continue;
        }
        let root = Root::open(parent, Obstacle::Refuse)?;
        crate::beneath::clear_dir(root.fd(), name.as_bytes()).map_err(|e| Error::io("remove", &dir)(e.into()))?;
    }
    // Git itself removes the directory with the last worktree; one that is not empty stays.
    let above = ws.common_dir.join("worktrees");
    match std::fs::remove_dir(&above) {
        Err(why) if !matches!(why.kind(), std::io::ErrorKind::DirectoryNotEmpty | std::io::ErrorKind::NotFound) => {
            Err(Error::io("remove", &above)(why))
        }
        _ => Ok(()),
    }
}
