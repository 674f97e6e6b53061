//! A git directory looked over before the library opens anything in it.
//!
//! The library opens files by their names: it follows links, waits on pipes and reads what a configuration names.
//! A delivered repository may hold all of that. Only commands' sandboxes and the user touch it later, and commands
//! can not write there, so a look beforehand is enough. Invariant: after it, what the library reads and writes by
//! itself are regular files within the git directory, and files that a person named.

use crate::error::{Error, Result};
use crate::found::astray;
use crate::{beneath, borrowed};
use gix::config::Source;
use rustix::fs::{Mode, OFlags};
use std::io::Read;
use std::path::Path;

/// Files that are opened by name.
const FILES: &[&str] = &["HEAD", "config", "config.worktree", "index", "packed-refs", "shallow", "commondir", "gitdir"];
/// Files that are opened by name, below directories of `DIRS`.
const INNER: &[&str] = &["info/exclude", "info/attributes", "logs/HEAD", "objects/info/alternates", "objects/info/commit-graph"];
/// Directories that are opened or written in by name, outer ones first.
const DIRS: &[&str] = &[
    "info",
    "logs",
    "logs/refs",
    "logs/refs/heads",
    "objects",
    "objects/info",
    "objects/info/commit-graphs",
    "objects/pack",
    "refs",
    "refs/heads",
    "refs/replace",
    "refs/tags",
    "worktrees",
];
/// What is looked through whole when a task begins, and how large a file there may be where it is read into memory.
const WHOLE: &[(&str, u64)] = &[("objects", u64::MAX), ("refs", REF_BYTES), ("logs", u64::MAX)];
/// Largest file of one reference.
const REF_BYTES: u64 = 4 << 10;
/// Largest file of many references; a repository with a million of them has some 80 MB.
const PACKED_BYTES: u64 = 256 << 20;
/// Deepest that references are nested.
const DEEPEST: usize = 64;
/// Most files in these directories: a repository that has never been packed has some hundred thousand.
const ENTRIES: usize = 4_000_000;
/// Files that are read into memory as they are; the others grow with the history.
const READ_WHOLE: &[&str] = &["config", "config.worktree", "info/exclude", "info/attributes", "HEAD", "shallow", "commondir", "gitdir"];
/// Largest of those.
const WHOLE_BYTES: u64 = 16 << 20;
/// Most files that a configuration includes, counted each time.
const INCLUDES: usize = 64;
/// Largest file of patterns or attributes that a configuration names.
const PATTERN_BYTES: u64 = 4 << 20;

/// Looks over what every operation opens in a git directory, and in the one that it shares with other worktrees.
///
/// # Errors
/// When something there is a link that leads out, or no regular file, or larger than the library should read.
pub fn check(git_dir: &Path, common_dir: &Path) -> Result<()> {
    let dirs = if git_dir == common_dir { vec![git_dir] } else { vec![common_dir, git_dir] };
    for dir in dirs {
        let look = Look { dir, common_dir };
        DIRS.iter().try_for_each(|name| look.at(name, true))?;
        FILES.iter().chain(INNER).try_for_each(|name| look.at(name, false))?;
        let mut left = INCLUDES;
        for name in ["config", "config.worktree"] {
            includes(dir, &dir.join(name), &mut left)?;
        }
    }
    borrowed::measure(common_dir)
}

/// Looks through all references, logs and objects of a repository, too: they have no fixed names.
///
/// # Errors
/// As `check`; and when there are more than four million, or references nested deeper than 64 levels.
pub fn check_whole(git_dir: &Path, common_dir: &Path) -> Result<()> {
    check(git_dir, common_dir)?;
    let mut left = ENTRIES;
    for dir in if git_dir == common_dir { vec![git_dir] } else { vec![common_dir, git_dir] } {
        let look = Look { dir, common_dir };
        WHOLE.iter().try_for_each(|(name, most)| look.through(&dir.join(name), (DEEPEST, *most), &mut left))?;
    }
    Ok(())
}

struct Look<'a> {
    dir: &'a Path,
    common_dir: &'a Path,
}

impl Look<'_> {
    fn fault(&self, path: &Path, why: &str) -> Error {
        let why = format!("{} {why}", path.display());
        astray(self.dir, why, "put the real thing in its place, or make a clone of your own: git clone")
    }

    /// What stands under a name: nothing, or what is wanted, within the repository.
    fn at(&self, name: &str, is_dir: bool) -> Result<()> {
        let path = self.dir.join(name);
        let Ok(meta) = path.symlink_metadata() else { return Ok(()) };
        let meta = if meta.is_symlink() { self.linked(&path)? } else { meta };
        match () {
            () if is_dir && !meta.is_dir() => Err(self.fault(&path, "is no directory")),
            () if !is_dir && !meta.is_file() => Err(self.fault(&path, "is no regular file")),
            () if READ_WHOLE.contains(&name) && meta.len() > WHOLE_BYTES => Err(self.fault(&path, "is larger than 16 MiB")),
            () if name == "packed-refs" => self.packed(&path, meta.len()),
            () => Ok(()),
        }
    }

    /// References that are not sorted, or do not say so, are sorted by the library in memory.
    fn packed(&self, path: &Path, bytes: u64) -> Result<()> {
        if bytes <= WHOLE_BYTES {
            return Ok(());
        }
        let mut start = Vec::new();
        let file = std::fs::File::open(path).map_err(Error::io("open", path))?;
        file.take(REF_BYTES).read_to_end(&mut start).map_err(Error::io("read", path))?;
        let head = start.split(|byte| *byte == b'\n').next().unwrap_or_default();
        let is_sorted = head.starts_with(b"# pack-refs with:") && head.split(|byte| *byte == b' ').any(|word| word == b"sorted");
        match () {
            () if !is_sorted => Err(self.fault(path, "is larger than 16 MiB and does not say that it is sorted: git pack-refs --all")),
            () if bytes > PACKED_BYTES => Err(self.fault(path, "is larger than 256 MiB")),
            () => Ok(()),
        }
    }

    /// What a link leads to: something within the repository.
    fn linked(&self, path: &Path) -> Result<std::fs::Metadata> {
        let out = || self.fault(path, "is a link that leads out of the git directory, or nowhere");
        let target = path.canonicalize().map_err(|_| out())?;
        if !target.starts_with(self.dir) && !target.starts_with(self.common_dir) {
            return Err(out());
        }
        target.metadata().map_err(|_| out())
    }

    fn through(&self, dir: &Path, (depth, most): (usize, u64), left: &mut usize) -> Result<()> {
        let Ok(entries) = std::fs::read_dir(dir) else { return Ok(()) };
        for entry in entries {
            let entry = entry.map_err(Error::io("list", dir))?;
            let kind = entry.file_type().map_err(Error::io("stat", dir))?;
            let path = entry.path();
            *left = left.checked_sub(1).ok_or_else(|| self.fault(dir, "has too many files: git gc"))?;
            match () {
                () if kind.is_file() && most == u64::MAX => {}
                () if kind.is_file() => self.fits(&path, &entry.metadata().map_err(Error::io("stat", dir))?, most)?,
                () if kind.is_dir() && depth == 0 => return Err(self.fault(&path, "is nested too deep")),
                () if kind.is_dir() => self.through(&path, (depth - 1, most), left)?,
                () if kind.is_symlink() => self.fits(&path, &self.linked(&path)?, most)?,
                () => return Err(self.fault(&path, "is no regular file")),
            }
        }
        Ok(())
    }

    /// A file, itself or behind a link, of at most so many bytes. A link to a directory is not walked, so what it
    /// leads to must be walked where it stands.
    fn fits(&self, path: &Path, meta: &std::fs::Metadata, most: u64) -> Result<()> {
        if meta.is_dir() {
            let real = path.canonicalize().map_err(Error::io("open", path))?;
            let mut walked = WHOLE.iter().flat_map(|(name, _)| [self.dir.join(name), self.common_dir.join(name)]);
            let is_walked = walked.any(|dir| real.starts_with(dir));
            return if is_walked { Ok(()) } else { Err(self.fault(path, "is a link to a directory elsewhere in the git directory")) };
        }
        match () {
            () if !meta.is_file() => Err(self.fault(path, "is no regular file")),
            () if meta.len() > most => Err(self.fault(path, &format!("is larger than {most} bytes"))),
            () => Ok(()),
        }
    }
}

/// The bytes of a regular file, which is not reached by a link in its last name; `None` when it is not there.
///
/// # Errors
/// When it can not be read, is something else, longer than `most` bytes, or longer than it says of itself: what
/// the kernel makes up when it is read has no end that could be known before.
pub fn small(path: &Path, most: u64) -> std::io::Result<Option<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let fd = match rustix::fs::open(path, flags, Mode::empty()) {
        Err(rustix::io::Errno::NOENT) => return Ok(None),
        other => other?,
    };
    let stat = rustix::fs::fstat(&fd)?;
    if beneath::kind_of(&stat) != rustix::fs::FileType::RegularFile {
        return Err(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file"));
    }
    let made_up = || std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a file on a disk");
    #[cfg(target_os = "linux")]
    if rustix::fs::fstatfs(&fd)?.f_type == rustix::fs::PROC_SUPER_MAGIC {
        return Err(made_up());
    }
    let mut bytes = Vec::new();
    std::fs::File::from(fd).take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        return Err(std::io::Error::new(std::io::ErrorKind::FileTooLarge, "too long"));
    }
    if u64::try_from(stat.st_size).is_ok_and(|told| bytes.len() as u64 > told) {
        return Err(made_up());
    }
    Ok(Some(bytes))
}

/// Follows what a configuration includes, whatever the condition: a few files that include each other time and
/// again are more work than there is time.
fn includes(dir: &Path, file: &Path, left: &mut usize) -> Result<()> {
    let fault = |why: String| astray(dir, why, format!("look at it: git config --file {} --list", file.display()));
    // Whoever wants none says it so; the library passes over it, as over what is not there.
    if file == Path::new("/dev/null") {
        return Ok(());
    }
    let unread = |why: std::io::Error| fault(format!("its configuration includes {}, which can not be read: {why}", file.display()));
    let target = match file.canonicalize() {
        Err(why) if matches!(why.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory) => return Ok(()),
        other => other.map_err(unread)?,
    };
    let Some(bytes) = small(&target, WHOLE_BYTES).map_err(unread)? else { return Ok(()) };
    let parsed = gix::config::File::from_bytes_no_includes(&bytes, gix::config::file::Metadata::from(Source::Local), Default::default());
    let parsed = parsed.map_err(|_| fault(format!("{} is no configuration of git", file.display())))?;
    let named = |section: &gix::config::file::SectionRef<'_>| {
        let name = section.header().name();
        name.eq_ignore_ascii_case(b"include") || name.eq_ignore_ascii_case(b"includeif")
    };
    let home = gix::path::env::home_dir();
    for path in parsed.sections().filter(named).flat_map(|section| section.values("path")) {
        *left = left.checked_sub(1).ok_or_else(|| fault(format!("its configuration includes more than {INCLUDES} files")))?;
        // Where git is installed is for the library to know; no repository has a reason to name it.
        if path.starts_with(b"%(prefix)") {
            return Err(fault("its configuration includes a file from where git is installed".to_owned()));
        }
        let home_for_user = Some(gix::config::path::interpolate::home_for_user as _);
        let context = gix::config::path::interpolate::Context { home_dir: home.as_deref(), home_for_user, ..Default::default() };
        let Ok(path) = gix::config::Path::from(path).interpolate(context) else { continue };
        let base = file.parent().unwrap_or(dir);
        includes(dir, &base.join(path), left)?;
    }
    Ok(())
}

/// What the configuration names beside the repository: stores of objects that are borrowed, and files of patterns.
///
/// # Errors
/// When objects are borrowed without the user's own word, or a file is none that can be read to its end.
pub fn check_named(repo: &gix::Repository) -> Result<()> {
    let config = repo.config_snapshot();
    for key in ["core.attributesFile", "core.excludesFile"] {
        let Ok(Some(path)) = config.trusted_path(key) else { continue };
        // Whoever wants none says it so.
        let Some(target) = path.canonicalize().ok().filter(|_| path != Path::new("/dev/null")) else { continue };
        if let Err(why) = small(&target, PATTERN_BYTES) {
            let why = format!("{key} in its configuration names {}, which is no regular file of at most 4 MiB: {why}", path.display());
            return Err(astray(repo.git_dir(), why, format!("git config --unset {key}")));
        }
    }
    borrowed::check(repo)
}
