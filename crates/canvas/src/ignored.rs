//! Which paths git would ignore, decided by git's own patterns.
//!
//! Reads `.gitignore` files itself, because a command may have put a pipe or a link there, which a
//! plain open would wait on or follow. Invariant: a path is ignored here exactly when
//! `git check-ignore --no-index` says so, tracked or not; patterns that take too long are an error.

use crate::beneath::{self, Root};
use crate::budget::too_much;
use crate::error::{Error, Result, words};
use crate::patterns::{Steps, fits};
use gix::bstr::{BStr, BString, ByteSlice};
use gix::glob::pattern::Case;
use gix::ignore::search::Ignore as Parse;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Largest `.gitignore` that is read; of a longer one this much.
const FILE_BYTES: u64 = 4 << 20;
/// Most bytes of all `.gitignore` files that are in force at a time: taken apart they need fifty times as much.
const ALL_BYTES: usize = 8 << 20;
/// The name of the files that git reads patterns from.
const NAME: &[u8] = b".gitignore";
/// A stand-in for the tree's root: the matcher only wants to see paths relative to it.
const ROOT: &str = "/r";

/// The patterns in force, from the user's configuration down to a directory.
#[derive(Debug, Clone)]
pub struct Ignored {
    search: gix::ignore::Search,
    case: Case,
    steps: Steps,
    /// Bytes of each file that was entered.
    held: Vec<usize>,
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
        Ok(Self { search, case, steps: Steps::default(), held: Vec::new() })
    }

    /// No patterns but those of the directories that are entered.
    pub fn of_tree() -> Self {
        Self { search: gix::ignore::Search::default(), case: Case::Sensitive, steps: Steps::default(), held: Vec::new() }
    }

    /// Adds the `.gitignore` of a directory, if it is a regular file; `leave` takes it back. Tells whether it did.
    ///
    /// # Errors
    /// When it and those above it hold more than memory is for.
    pub fn enter(&mut self, dir: BorrowedFd<'_>, path: &BStr) -> Result<bool> {
        let mut bytes = Vec::new();
        let read = beneath::open_file(dir, NAME, false).and_then(|file| file.take(FILE_BYTES).read_to_end(&mut bytes));
        let Ok(inner) = gix::path::from_bstr(path) else { return Ok(false) };
        if read.is_err() {
            return Ok(false);
        }
        if self.held.iter().sum::<usize>() + bytes.len() > ALL_BYTES {
            let why = format!("it and the ignore files above it are more than {} MiB", ALL_BYTES >> 20);
            return Err(too_much(join(path, NAME).as_bstr(), why));
        }
        let source = Path::new(ROOT).join(inner).join(".gitignore");
        let is_added = self.search.add_patterns_buffer(&bytes, source, Some(Path::new(ROOT)), Parse::default()).is_ok();
        if is_added {
            self.held.push(bytes.len());
        }
        Ok(is_added)
    }

    /// Takes the newest directory's patterns back.
    pub fn leave(&mut self) {
        self.search.patterns.pop();
        self.held.pop();
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
}

/// Whether git reads patterns from what stands at this path.
pub fn is_pattern_file(path: &BStr) -> bool {
    beneath::split(path).1 == NAME
}

/// What the ignore files of a tree say of single paths. Each file is read once as long as the paths come in
/// order, and all of them share one budget.
pub struct Standing<'a> {
    root: &'a Root,
    ignored: Ignored,
    /// The directories down to the newest path.
    above: Vec<Above>,
    is_spent: bool,
}

/// A directory, and what its own file brought.
struct Above {
    path: BString,
    has_patterns: bool,
    is_ignored: bool,
}

impl<'a> Standing<'a> {
    /// The tree below `root`, with the patterns from outside it.
    pub fn new(root: &'a Root, ignored: &Ignored) -> Self {
        Self { root, ignored: ignored.clone(), above: Vec::new(), is_spent: false }
    }

    /// Whether a path, or a directory above it, is ignored by the files that stand now. None is once patterns have
    /// taken too long.
    ///
    /// # Errors
    /// When a directory can not be read.
    pub fn holds(&mut self, path: &BStr) -> Result<bool> {
        if self.is_spent {
            return Ok(false);
        }
        match self.look(path) {
            Err(Error::TooMuch(..)) => {
                self.is_spent = true;
                Ok(false)
            }
            other => other,
        }
    }

    fn look(&mut self, path: &BStr) -> Result<bool> {
        let dir = beneath::split(path).0.as_bstr();
        while self.above.last().is_some_and(|above| !is_at_or_above(above.path.as_bstr(), dir)) {
            if self.above.pop().is_some_and(|above| above.has_patterns) {
                self.ignored.leave();
            }
        }
        if self.above.is_empty() {
            self.enter(BString::default(), false)?;
        }
        while let Some(Above { path: at, is_ignored, .. }) = self.above.last() {
            if *is_ignored || at == dir {
                break;
            }
            let rest = dir.get(at.len()..).unwrap_or_default();
            let name = rest.split(|byte| *byte == b'/').find(|name| !name.is_empty()).unwrap_or_default();
            let next = join(at.as_bstr(), name);
            let is_ignored = self.ignored.matches(next.as_bstr(), true)?;
            self.enter(next, is_ignored)?;
        }
        let is_below = self.above.last().is_some_and(|above| above.is_ignored);
        Ok(is_below || self.ignored.matches(path, false)?)
    }

    fn enter(&mut self, path: BString, is_ignored: bool) -> Result<()> {
        let has_patterns = !is_ignored
            && match self.root.dir(path.as_bstr())? {
                Some(dir) => self.ignored.enter(dir.as_fd(), path.as_bstr())?,
                None => false,
            };
        self.above.push(Above { path, has_patterns, is_ignored });
        Ok(())
    }
}

fn is_at_or_above(dir: &BStr, path: &BStr) -> bool {
    dir.is_empty() || path.strip_prefix(dir.as_bytes()).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::beneath::Obstacle;

    fn write(dir: &Path, path: &str, text: &str) {
        let path = dir.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    #[test]
    fn what_stands_is_asked_path_by_path() {
        let dir = tempfile::tempdir().unwrap();
        for (path, text) in [(".gitignore", "*.log\nout/\n"), ("a/.gitignore", "!keep.log\nx\n"), ("a/b/.gitignore", "*\n!c\n")] {
            write(dir.path(), path, text);
        }
        write(dir.path(), "out/.gitignore", "!*\n");
        let root = Root::open(dir.path(), Obstacle::Clear).unwrap();
        let mut standing = Standing::new(&root, &Ignored::of_tree());
        for (path, is_held) in [
            ("a.log", true),
            ("a/b/c", false),
            ("a/b/c/d", true),
            ("a/b/d", true),
            ("a/keep.log", false),
            ("a/x", true),
            ("a/x/y/z", true),
            ("ab/x", false),
            ("missing/deep/x.log", true),
            ("out/y", true),
            ("x", false),
            // Out of order, too.
            ("a/keep.log", false),
        ] {
            assert_eq!(standing.holds(path.into()).unwrap(), is_held, "{path}");
        }
    }

    #[test]
    fn a_file_of_patterns_is_read_once_for_all_paths_below_it() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), "d/.gitignore", "x\n");
        let root = Root::open(dir.path(), Obstacle::Clear).unwrap();
        let mut standing = Standing::new(&root, &Ignored::of_tree());
        assert!(!standing.holds("d/a".into()).unwrap());
        write(dir.path(), "d/.gitignore", "*\n");
        assert!(!standing.holds("d/b".into()).unwrap());
        assert!(!standing.holds("d/c/d".into()).unwrap());
        assert!(standing.holds("d/x".into()).unwrap());
    }

    /// Each path alone would have a budget of its own; together they have one, and then all of them go.
    #[test]
    fn paths_share_one_budget() {
        let dir = tempfile::tempdir().unwrap();
        // Long patterns are dear, whether or not their first sign fits.
        write(dir.path(), "d/.gitignore", &format!("*\n{}", format!("[z]{}\n", "x".repeat(10_000)).repeat(40)));
        let root = Root::open(dir.path(), Obstacle::Clear).unwrap();
        let mut standing = Standing::new(&root, &Ignored::of_tree());
        standing.ignored.steps = Steps::few(1_000_000);
        let last = (0..20).find(|n| !standing.holds(format!("d/{n}").as_str().into()).unwrap());
        assert!(last.is_some_and(|n| n > 1), "{last:?}");
        assert!(!standing.holds("d/next".into()).unwrap());
    }

    #[test]
    fn all_that_is_in_force_has_a_measure() {
        let dir = tempfile::tempdir().unwrap();
        let text = format!("#{}\n", " ".repeat(3 << 20));
        let mut ignored = Ignored::of_tree();
        let mut path = BString::default();
        let mut entered = Vec::new();
        for _ in 0..3 {
            write(dir.path(), format!("{path}/.gitignore").trim_start_matches('/'), &text);
            let root = Root::open(&dir.path().join(path.to_string()), Obstacle::Clear).unwrap();
            entered.push(ignored.enter(root.fd(), path.as_bstr()).map_err(|e| e.to_string()));
            path = join(path.as_bstr(), b"d");
        }
        assert_eq!(entered[..2], [Ok(true), Ok(true)]);
        assert_eq!(entered[2], Err("d/d/.gitignore: it and the ignore files above it are more than 8 MiB".to_owned()));
        ignored.leave();
        let root = Root::open(&dir.path().join("d/d"), Obstacle::Clear).unwrap();
        assert!(ignored.enter(root.fd(), "d/d".into()).unwrap());
    }
}
