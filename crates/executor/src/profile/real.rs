//! Paths without links, with a memory for the directories on the way.
//!
//! A plan asks for a hundred names, and realpath(3) asks the kernel about each part of each of them. Invariant: the
//! answer is the one of realpath(3), but for a directory that is exchanged while one plan is made.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// From this length on, in bytes, the kernel takes no path (`PATH_MAX`).
const LONGEST: usize = 4096;

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
        let bytes = path.as_os_str().as_bytes();
        // A slash at the end asks for a directory; `..` means what it does only where links are followed.
        let is_plain = path.is_absolute() && !bytes.ends_with(b"/") && !bytes.ends_with(b"/.") && bytes.len() < LONGEST;
        let (Some(parent), Some(name), true) = (path.parent(), path.file_name(), is_plain) else { return path.canonicalize() };
        if path.components().any(|part| part == Component::ParentDir) {
            return path.canonicalize();
        }
        step(&self.dir(parent)?, name)
    }

    /// A directory's path without links, by one step for each part that is not remembered: no path is too deep for that.
    fn dir(&self, path: &Path) -> io::Result<PathBuf> {
        let mut dirs = self.dirs.borrow_mut();
        let known = path.ancestors().find_map(|above| Some((above, dirs.get(above)?.clone())));
        let (mut seen, mut real) = known.map_or_else(|| ("/".into(), "/".into()), |(above, real)| (above.to_owned(), real));
        for part in path.strip_prefix(&seen).unwrap_or(path).components() {
            if let Component::Normal(name) = part {
                real = step(&real, name)?;
                seen.push(name);
                // One that is missing may be made by the plan itself.
                dirs.insert(seen.clone(), real.clone());
            }
        }
        Ok(real)
    }
}

/// One name within a directory without links. What a link leads to is for the system to find.
fn step(dir: &Path, name: &OsStr) -> io::Result<PathBuf> {
    let at = dir.join(name);
    match rustix::fs::readlink(&at, Vec::new()) {
        Ok(_) => at.canonicalize(),
        Err(rustix::io::Errno::INVAL) => Ok(at),
        Err(error) => Err(error.into()),
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

    /// A delivered repository chooses both, and a thread has 2 MiB of stack.
    #[test]
    fn neither_depth_nor_chains_of_links_use_up_a_stack() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let deep = "a/".repeat(1_900);
        for n in 0..39 {
            symlink(format!("l{}/{deep}", n + 1), root.join(format!("l{n}"))).unwrap();
        }
        let look = move || {
            let real = Real::default();
            let names = ["l0".to_owned(), format!("l0/{deep}x"), format!("{deep}x"), "x/".repeat(60_000)];
            for name in names {
                let path = root.join(name);
                assert_eq!(real.of(&path).ok(), path.canonicalize().ok());
            }
        };
        std::thread::Builder::new().stack_size(256 << 10).spawn(look).unwrap().join().unwrap();
    }
}
