//! Credentials in a repository's git configuration.
//!
//! Git needs the file, so commands can read it; what it holds must get no further. A file is read
//! again when it changed. Invariant: a file that can not be read teaches nothing and stops nobody.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use tinkerbell_secret::{Known, Secret, in_git_config};
use zeroize::Zeroizing;

/// The name that stands in place of such a value.
const NAME: &str = "git credential";
/// The most that is read of a file.
const MOST_BYTES: u64 = 1024 * 1024;
/// Most files that are remembered; beyond it all are read again.
const MOST_FILES: usize = 1_000;

/// A file's state: inode, length, seconds and nanoseconds of its last change.
type Stamp = (u64, u64, i64, i64);

/// The configuration files that were read.
#[derive(Debug, Default)]
pub struct GitFiles {
    seen: Mutex<BTreeMap<PathBuf, Stamp>>,
}

impl GitFiles {
    /// Reads a file, if it changed since the last time, and learns what git would send.
    pub fn learn(&self, known: &Known, path: &Path) {
        let Ok(meta) = path.metadata() else { return };
        let stamp = (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec());
        if !meta.is_file() || self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(path) == Some(&stamp) {
            return;
        }
        let mut text = Zeroizing::new(String::new());
        let read = File::open(path).and_then(|file| file.take(MOST_BYTES).read_to_string(&mut text));
        if read.is_err() {
            return;
        }
        known.learn(in_git_config(&text).into_iter().map(|value| (NAME.to_owned(), Secret::shared(value))));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() >= MOST_FILES {
            seen.clear();
        }
        seen.insert(path.to_owned(), stamp);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_changed_file_is_read_again_and_old_values_stay_known() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("config");
        let (files, known) = (GitFiles::default(), Known::new());
        files.learn(&known, &path);
        for password in ["first-password", "second-password"] {
            std::fs::write(&path, format!("[remote \"o\"]\n\turl = https://me:{password}@host/x\n")).unwrap();
            files.learn(&known, &path);
            files.learn(&known, &path);
        }
        assert_eq!(known.redact("first-password second-password"), "[secret git credential] [secret git credential]");
    }
}
