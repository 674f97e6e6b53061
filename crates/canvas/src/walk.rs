//! The walk over a tree on disk: what is there, what of it counts.
//!
//! It knows names, types and ignore patterns, never objects: what a file's content is, its visitor
//! decides. Invariant: the walk goes by descriptors and never through a link, so it sees the tree
//! and nothing else, whatever a command does to the tree meanwhile.

use crate::beneath::{self, PARTIAL, Root};
use crate::budget::{Budget, DEPTH, too_deep};
use crate::error::{Error, Result};
use crate::ignored::{Ignored, join};
use crate::layer::KEPT;
use gix::bstr::{BStr, BString, ByteSlice};
use rustix::fs::{FileType, Mode, Stat};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd};

/// Paths that count although a pattern ignores them, because git tracks them.
#[derive(Debug, Clone, Default)]
pub struct Tracked {
    files: BTreeSet<BString>,
    dirs: BTreeSet<BString>,
}

impl Tracked {
    /// Adds a path and the directories above it.
    pub fn add(&mut self, path: &BStr) {
        let mut dir = beneath::split(path).0.as_bstr();
        while !dir.is_empty() && self.dirs.insert(dir.into()) {
            dir = beneath::split(dir).0.as_bstr();
        }
        self.files.insert(path.into());
    }

    /// Whether the path itself is tracked.
    pub fn has(&self, path: &BStr) -> bool {
        self.files.contains(path)
    }

    /// Whether something below the directory is tracked.
    pub fn has_below(&self, dir: &BStr) -> bool {
        self.dirs.contains(dir)
    }
}

/// Something on disk that counts.
pub struct Seen<'a> {
    /// Path from the root.
    pub path: &'a BStr,
    /// The directory it stands in.
    pub dir: BorrowedFd<'a>,
    /// Its name there.
    pub name: &'a [u8],
    /// Its stat.
    pub stat: Stat,
    /// Whether only a rule or an option made it count although it is ignored.
    pub ignored: bool,
    /// For a directory: nothing in it counts.
    pub bare: bool,
}

/// What the walk tells.
pub trait Visitor {
    /// A regular file or a link.
    fn file(&mut self, seen: &Seen<'_>) -> Result<()>;
    /// A directory, after what is in it.
    fn dir(&mut self, seen: &Seen<'_>) -> Result<()>;
    /// A directory of the user's that may not be read.
    fn unreadable(&mut self, _path: &BStr) {}
    /// An ignored directory that is not looked into.
    fn passed(&mut self, _path: &BStr) {}
    /// Whether to look into a directory; `nested` when it is a repository of its own.
    fn enters(&mut self, path: &BStr, nested: bool) -> bool;
}

/// A walk over one tree.
pub struct Walk<'a> {
    /// The patterns; empty of directories' own before and after.
    pub ignored: Ignored,
    /// What counts although ignored.
    pub tracked: &'a Tracked,
    /// What counts this time, and stays marked as ignored.
    pub also: &'a Tracked,
    /// Whether ignored things count too.
    pub keep_ignored: bool,
    /// Whether an ignored path counts by its name; with whether it is a directory.
    pub always: fn(&BStr, bool) -> bool,
    /// What is left for paths that count.
    pub budget: Budget,
}

impl Walk<'_> {
    /// Walks the tree below `root`.
    ///
    /// # Errors
    /// When something can not be read, or the tree passes a limit of [`Budget`].
    pub fn run(&mut self, root: &Root, visitor: &mut dyn Visitor) -> Result<()> {
        let at = At { root, dir: root.fd(), path: BStr::new(""), below_ignored: false, depth: 0 };
        self.children(at, visitor).map(drop)
    }

    /// Visits a directory's children; tells whether any counted.
    fn children(&mut self, at: At<'_>, visitor: &mut dyn Visitor) -> Result<bool> {
        if at.depth > DEPTH {
            return Err(too_deep(at.path));
        }
        let names = beneath::names(at.dir, at.root, at.path)?;
        let entered = names.iter().any(|name| name == ".gitignore") && self.ignored.enter(at.dir, at.path)?;
        let mut any = false;
        for name in names {
            any |= self.child(&at, &name, visitor)?;
        }
        if entered {
            self.ignored.leave();
        }
        Ok(any)
    }

    fn child(&mut self, at: &At<'_>, name: &BString, visitor: &mut dyn Visitor) -> Result<bool> {
        if at.depth == 0 && name == ".git" {
            return Ok(false);
        }
        if name == PARTIAL {
            // Left by a crash in mid-write; its content was never the tree's. That it can not be
            // removed does not matter: the next write in this directory replaces it.
            if at.root.is_own() {
                beneath::make_room(at.dir, PARTIAL, true).ok();
            }
            return Ok(false);
        }
        let path = join(at.path, name);
        let stat = beneath::stat_at(at.dir, name).map_err(|e| Error::io("stat", &at.root.full(path.as_bstr()))(e.into()))?;
        // A running command may have removed it since the listing.
        let Some(stat) = stat else { return Ok(false) };
        // Only files are ever kept.
        if name.starts_with(KEPT.as_bytes()) && beneath::kind_of(&stat) != FileType::Directory {
            return Ok(false);
        }
        match beneath::kind_of(&stat) {
            FileType::Directory => self.directory(at, name, (path, stat), visitor),
            FileType::RegularFile | FileType::Symlink => self.leaf(at, name, (path, stat), visitor),
            _ => Ok(false),
        }
    }

    fn leaf(&mut self, at: &At<'_>, name: &BString, (path, stat): (BString, Stat), visitor: &mut dyn Visitor) -> Result<bool> {
        let path = path.as_bstr();
        let ignored = (at.below_ignored || self.ignored.matches(path, false)?) && !self.tracked.has(path);
        if ignored && !self.keep_ignored && !(self.always)(path, false) && !self.also.has(path) {
            return Ok(false);
        }
        self.budget.take(path)?;
        visitor.file(&Seen { path, dir: at.dir, name, stat, ignored, bare: false })?;
        Ok(true)
    }

    fn directory(&mut self, at: &At<'_>, name: &BString, (path, stat): (BString, Stat), visitor: &mut dyn Visitor) -> Result<bool> {
        let path = path.as_bstr();
        let ignored = at.below_ignored || self.ignored.matches(path, true)?;
        let wanted = !ignored || self.keep_ignored || (self.always)(path, true);
        if !wanted && !self.tracked.has_below(path) && !self.also.has_below(path) {
            visitor.passed(path);
            return Ok(false);
        }
        let own = at.root.is_own();
        let dir = match beneath::open_dir(at.dir, name, own) {
            Ok(dir) => dir,
            // Gone since the listing, or something else by now.
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR | rustix::io::Errno::LOOP) => return Ok(false),
            Err(rustix::io::Errno::ACCESS) if !own => {
                visitor.unreadable(path);
                return Ok(false);
            }
            Err(errno) => return Err(Error::io("open directory", &at.root.full(path))(errno.into())),
        };
        let nested = matches!(beneath::stat_at(dir.as_fd(), b".git"), Ok(Some(_)));
        if !visitor.enters(path, nested) {
            return Ok(false);
        }
        self.budget.take(path)?;
        let inner = At { root: at.root, dir: dir.as_fd(), path, below_ignored: ignored, depth: at.depth + 1 };
        let closed = own && stat.st_mode & 0o500 != 0o500;
        let set = |bits: u32| {
            rustix::fs::fchmod(&dir, Mode::from_raw_mode(bits)).map_err(|e| Error::io("set mode", &at.root.full(path))(e.into()))
        };
        if closed {
            set(0o700)?;
        }
        let any = self.children(inner, visitor)?;
        if closed {
            set(stat.st_mode & 0o7777)?;
        }
        if wanted || any {
            visitor.dir(&Seen { path, dir: at.dir, name, stat, ignored, bare: !any })?;
        }
        Ok(wanted || any)
    }
}

/// Where the walk stands.
struct At<'a> {
    root: &'a Root,
    dir: BorrowedFd<'a>,
    path: &'a BStr,
    below_ignored: bool,
    depth: usize,
}
