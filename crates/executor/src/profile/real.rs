//! Paths without links, with a memory for the directories on the way.
//!
//! A plan asks for a hundred names, and realpath(3) asks the kernel about each part of each of them. Invariant: the
//! answer is the one of realpath(3), but for a directory that is exchanged while one plan is made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Links that are followed for one path, as many as the kernel follows.
const LINKS: u32 = 40;

/// The memory. It is for one plan: a directory may be another one at the next.
#[derive(Debug, Default)]
pub struct Real {
    dirs: RefCell<HashMap<PathBuf, PathBuf>>,
}

impl Real {
    /// The path with all links resolved.
    ///
    /// # Errors
    /// When it does not exist, or can not be looked up.
    pub fn of(&self, path: &Path) -> io::Result<PathBuf> {
        self.look(path, LINKS)
    }

    fn look(&self, path: &Path, links: u32) -> io::Result<PathBuf> {
        let bytes = path.as_os_str().as_bytes();
        // A slash at the end asks for a directory; what has no name of its own ends with `..`, or is the root.
        let is_plain = path.is_absolute() && !bytes.ends_with(b"/") && !bytes.ends_with(b"/.");
        let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), is_plain) else { return path.canonicalize() };
        let dir = self.dir(parent, links)?;
        let at = dir.join(name);
        match rustix::fs::readlink(&at, Vec::new()) {
            Ok(target) if links > 0 => self.look(&dir.join(OsStr::from_bytes(target.as_bytes())), links - 1),
            Ok(_) => Err(rustix::io::Errno::LOOP.into()),
            Err(rustix::io::Errno::INVAL) => Ok(at),
            Err(error) => Err(error.into()),
        }
    }

    fn dir(&self, path: &Path, links: u32) -> io::Result<PathBuf> {
        if let Some(known) = self.dirs.borrow().get(path) {
            return Ok(known.clone());
        }
        let found = self.look(path, links)?;
        // One that is missing may be made by the plan itself.
        self.dirs.borrow_mut().insert(path.to_owned(), found.clone());
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::Real;
    use std::os::unix::fs::symlink;
    use std::path::Path;

    #[test]
    fn it_agrees_with_the_system() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        std::fs::create_dir_all(root.join("a/b/c")).unwrap();
        std::fs::write(root.join("a/file"), "x").unwrap();
        let links = [
            ("a/b", "short"),
            ("short/c", "long"),
            ("../a/b/c", "a/up"),
            ("c/../../file", "a/b/over"),
            ("nowhere", "broken"),
            ("loop", "loop"),
            ("round/x", "round"),
            ("/", "top"),
            ("a/file/", "slashed"),
        ];
        links.iter().for_each(|(target, name)| symlink(target, root.join(name)).unwrap());
        symlink(root.join("short"), root.join("full")).unwrap();
        let names = [
            "",
            "a",
            "a/",
            "a/b/c",
            "a/./b",
            "a/b/..",
            "a/b/../file",
            "a/none",
            "a/file",
            "a/file/x",
            "short",
            "short/c",
            "short/..",
            "short/over",
            "long",
            "long/..",
            "a/up",
            "a/b/over",
            "broken",
            "broken/x",
            "loop",
            "loop/x",
            "round",
            "top",
            "top/tmp",
            "full/c",
            "none/x",
            "slashed",
            "long/../over",
        ];
        let real = Real::default();
        for name in names.iter().chain(&names) {
            let path = root.join(name);
            assert_eq!(real.of(&path).ok(), path.canonicalize().ok(), "{name}");
        }
        let name = Path::new("crates/../src");
        assert_eq!(real.of(name).ok(), name.canonicalize().ok());
    }
}
