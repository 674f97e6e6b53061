//! Credentials in a repository's git configuration.
//!
//! Git needs the files, so commands can read them; what they hold must get no further. Read are the
//! configuration itself, those of worktrees and submodules, and what it includes from within the git
//! directory. A file is read again when it changed. Whoever writes such a file chooses what is learned of it,
//! so it is little. Invariant: a file that can not be read teaches nothing and stops nobody, and neither
//! time nor memory depends on what a repository holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Component, Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tinkerbell_secret::{Known, Named, OF_REPOSITORY, Secret, in_git_config, included_in_git_config};
use zeroize::Zeroizing;

/// The most that is read of a file.
const MOST_BYTES: u64 = 1024 * 1024;
/// Most files that are remembered; beyond it all are read again.
const MOST_FILES: usize = 1_000;
/// Most files of one repository.
const MOST_OF_ONE: usize = 64;
/// Most entries of a directory that are looked at.
const MOST_ENTRIES: usize = 256;
/// How deep submodules are followed into submodules.
const MOST_DEPTH: usize = 3;
/// Most values of a file.
const MOST_VALUES: usize = 64;
/// Longest value in bytes; a key of 4,096 bits in PEM form is not longer.
const LONGEST: usize = 4 * 1024;
/// Most bytes of all values of a file.
const MOST_VALUE_BYTES: usize = 64 * 1024;
/// Different bytes that a value has at least: `--------` would be hidden wherever somebody draws a line.
const FEWEST_SIGNS: usize = 4;

/// A file's state: inode, length, seconds and nanoseconds of its last change.
type Stamp = (u64, u64, i64, i64);

/// The configuration files that were read.
#[derive(Debug, Default)]
pub struct GitFiles {
    seen: Mutex<Seen>,
}

#[derive(Debug, Default)]
struct Seen {
    files: BTreeMap<PathBuf, Stamp>,
    /// How many values were forgotten by then: what one repository teaches too much may be another's.
    forgotten: u64,
}

impl GitFiles {
    /// Reads the configuration of a repository, by its path `…/.git/config`, and learns what git would send.
    /// Where `.git` is a file, it is followed to the directory that it names. What did not change since the
    /// last time is not read again.
    pub fn learn(&self, known: &Known, config: &Path) {
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if seen.forgotten != known.forgotten() {
                *seen = Seen { forgotten: known.forgotten(), ..Seen::default() };
            }
        }
        let Some(git_dir) = config.parent() else { return };
        for file in files_of(git_dir) {
            self.learn_file(known, &file);
        }
    }

    fn learn_file(&self, known: &Known, path: &Path) {
        let Ok(meta) = path.metadata() else { return };
        let stamp = (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
        if !meta.is_file() || self.seen.lock().unwrap_or_else(PoisonError::into_inner).files.get(path) == Some(&stamp) {
            return;
        }
        let Some(text) = read(path, MOST_BYTES) else { return };
        known.learn(worth_knowing(in_git_config(&text)));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.files.len() >= MOST_FILES {
            seen.files.clear();
        }
        seen.files.insert(path.to_owned(), stamp);
    }
}

/// What is learned of the values of one file.
fn worth_knowing(values: Vec<String>) -> Vec<Named> {
    let mut left = MOST_VALUE_BYTES;
    let is_secret = |value: &String| value.len() <= LONGEST && value.bytes().collect::<BTreeSet<u8>>().len() >= FEWEST_SIGNS;
    let fits = |value: &String| {
        let fits = value.len() <= left;
        left = if fits { left - value.len() } else { left };
        fits
    };
    let values: Vec<String> = values.into_iter().filter(is_secret).take(MOST_VALUES).filter(fits).collect();
    // What stands first in the file is learned last, and so forgotten last: what is added to a file drives
    // out nothing that was there.
    values.into_iter().rev().map(|value| (OF_REPOSITORY.to_owned(), Secret::shared(value))).collect()
}

/// The beginning of a file; bytes that are no text do not matter. A pipe or a device is none.
fn read(path: &Path, most_bytes: u64) -> Option<Zeroizing<String>> {
    let file = File::options().read(true).custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed()).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let mut bytes = Zeroizing::new(Vec::new());
    file.take(most_bytes).read_to_end(&mut bytes).ok()?;
    Some(Zeroizing::new(String::from_utf8_lossy(&bytes).into_owned()))
}

/// All configuration files that belong to what stands at `…/.git`.
fn files_of(dot_git: &Path) -> Vec<PathBuf> {
    // `.git` of a linked worktree or a submodule is a file that names the directory.
    let git_dir = if dot_git.is_dir() { Some(dot_git.to_owned()) } else { named_in(dot_git, "gitdir:") };
    let Some(git_dir) = git_dir else { return Vec::new() };
    // The directory of a worktree names the one that all share.
    let common = named_in(&git_dir.join("commondir"), "").unwrap_or_else(|| git_dir.clone());
    let mut files = Vec::new();
    add(&mut files, &git_dir);
    if common != git_dir {
        add(&mut files, &common);
    }
    for worktree in children(&common.join("worktrees")) {
        push(&mut files, worktree.join("config.worktree"));
    }
    let mut modules: Vec<(PathBuf, usize)> = vec![(common.join("modules"), 0)];
    let mut looked = 0;
    while let Some((dir, depth)) = modules.pop().filter(|_| looked < MOST_ENTRIES) {
        for child in children(&dir) {
            looked += 1;
            let is_git = child.join("config").is_file();
            if is_git {
                push(&mut files, child.join("config"));
            }
            // A submodule's name may hold slashes, and a submodule may have some of its own.
            let below = if is_git { child.join("modules") } else { child };
            if depth < MOST_DEPTH {
                modules.push((below, depth + 1));
            }
        }
    }
    files
}

/// The files of one git directory, with those that lie below it and are included.
fn add(files: &mut Vec<PathBuf>, git_dir: &Path) {
    for name in ["config", "config.worktree"] {
        let path = git_dir.join(name);
        let text = if path.is_file() { read(&path, MOST_BYTES) } else { None };
        push(files, path);
        for included in text.map(|text| included_in_git_config(&text)).unwrap_or_default() {
            let is_below = Path::new(&included).components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            let path = git_dir.join(&included);
            // A link that leads out of the directory is not ours to follow.
            if is_below && path.canonicalize().is_ok_and(|path| git_dir.canonicalize().is_ok_and(|root| path.starts_with(root))) {
                push(files, path);
            }
        }
    }
}

fn push(files: &mut Vec<PathBuf>, path: PathBuf) {
    // What is not there takes no place of what is.
    if files.len() < MOST_OF_ONE && path.is_file() && !files.contains(&path) {
        files.push(path);
    }
}

/// The directory that a file of one line names, counted from where the file stands.
fn named_in(file: &Path, before: &str) -> Option<PathBuf> {
    let text = read(file, 4096)?;
    let name = text.lines().next()?.strip_prefix(before)?.trim();
    let dir = file.parent()?.join(std::ffi::OsStr::from_bytes(name.as_bytes()));
    (!name.is_empty() && dir.is_dir()).then_some(dir)
}

/// Directories within a directory, without those that are links.
fn children(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().take(MOST_ENTRIES).flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path()).collect()
}

#[cfg(test)]
mod tests;
