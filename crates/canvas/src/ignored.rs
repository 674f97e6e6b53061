//! Which paths git would ignore, decided by git's own patterns.
//!
//! Reads `.gitignore` files itself, because a command may have put a pipe or a link there, which a
//! plain open would wait on or follow. Invariant: a path is ignored here exactly when
//! `git check-ignore --no-index` says so, tracked or not; patterns that take too long are an error.

use crate::beneath::{self, Root};
use crate::error::{Error, Result, words};
use crate::patterns::{Steps, fits};
use gix::bstr::{BStr, BString, ByteSlice};
use gix::glob::pattern::Case;
use gix::ignore::search::Ignore as Parse;
use std::io::Read;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

/// Largest `.gitignore` that is read.
const FILE_BYTES: u64 = 4 << 20;
/// A stand-in for the tree's root: the matcher only wants to see paths relative to it.
const ROOT: &str = "/r";

/// The patterns in force, from the user's configuration down to a directory.
#[derive(Debug, Clone)]
pub struct Ignored {
    search: gix::ignore::Search,
    case: Case,
    steps: Steps,
}

impl Ignored {
    /// Patterns of the repository's `info/exclude` and of the user's own file, where git finds it.
    ///
    /// # Errors
    /// When one of these files can not be read.
    pub fn of(repo: &gix::Repository, default_excludes: Option<&Path>) -> Result<Self> {
        let config = repo.config_snapshot();
        let configured =
            config.trusted_path("core.excludesFile").map_err(|e| Error::Git { what: "read core.excludesFile", why: words(&e) })?;
        let excludes: Option<PathBuf> = configured.or_else(|| default_excludes.map(Path::to_owned));
        let search = gix::ignore::Search::from_git_dir(repo.common_dir(), excludes, &mut Vec::new(), Parse::default())
            .map_err(Error::io("read ignore patterns", repo.common_dir()))?;
        let case = if config.boolean("core.ignoreCase").unwrap_or(false) { Case::Fold } else { Case::Sensitive };
        Ok(Self { search, case, steps: Steps::default() })
    }

    /// No patterns but those of the directories that are entered.
    pub fn of_tree() -> Self {
        Self { search: gix::ignore::Search::default(), case: Case::Sensitive, steps: Steps::default() }
    }

    /// Adds the `.gitignore` of a directory, if it is a regular file; `leave` takes it back.
    pub fn enter(&mut self, dir: BorrowedFd<'_>, path: &BStr) -> bool {
        let mut bytes = Vec::new();
        let read = beneath::open_file(dir, b".gitignore", false).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes));
        read.is_ok() && self.add(path, &bytes)
    }

    fn add(&mut self, dir: &BStr, bytes: &[u8]) -> bool {
        let Ok(dir) = gix::path::from_bstr(dir) else { return false };
        let source = Path::new(ROOT).join(dir).join(".gitignore");
        self.search.add_patterns_buffer(bytes, source, Some(Path::new(ROOT)), Parse::default()).is_ok()
    }

    /// Takes the newest directory's patterns back.
    pub fn leave(&mut self) {
        self.search.patterns.pop();
    }

    /// Whether the patterns in force name this path. The answer for what lies below an ignored
    /// directory is the caller's: git never looks there.
    ///
    /// # Errors
    /// When the patterns have taken more time than all paths so far are worth.
    pub fn matches(&mut self, path: &BStr, is_dir: bool) -> Result<bool> {
        let basename = path.rfind_byte(b'/').map(|at| at + 1);
        self.steps.path();
        for list in self.search.patterns.iter().rev() {
            let Some((path, basename)) = list.strip_base_handle_recompute_basename_pos(path, basename, self.case) else { continue };
            for pattern in list.patterns.iter().rev().map(|mapping| &mapping.pattern) {
                self.steps.take(pattern, path)?;
                if fits(pattern, path, basename, (is_dir, self.case)) {
                    return Ok(!pattern.is_negative());
                }
            }
        }
        Ok(false)
    }

    /// Whether a path, or a directory above it, is ignored by the files that stand below `root` now.
    pub fn holds(&self, root: &Root, path: &BStr) -> Result<bool> {
        let mut here = self.clone();
        let mut dir = BString::default();
        for part in path.split(|b| *b == b'/') {
            let file = join(dir.as_bstr(), b".gitignore");
            if matches!(root.stat(file.as_bstr())?, Some(stat) if beneath::kind_of(&stat) == rustix::fs::FileType::RegularFile) {
                here.add(dir.as_bstr(), &root.read(file.as_bstr())?);
            }
            dir = join(dir.as_bstr(), part);
            if here.matches(dir.as_bstr(), dir.len() < path.len())? {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

/// A path below another; an empty one is the root.
pub fn join(dir: &BStr, name: &[u8]) -> BString {
    let mut path = BString::from(dir.to_vec());
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}
