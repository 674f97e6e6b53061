//! Where things lie: configuration, data, state, cache, socket.
//!
//! XDG places, or all in one directory with `TINKERBELL_HOME`. Invariant: every directory made here
//! is 0700, because journal and spools may hold private code.

use crate::environment::Environment;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tinkerbell_core::code::{Fault, exit};

/// All places of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// The user's configuration file.
    pub config: PathBuf,
    /// Journal, blobs, worktrees, runs.
    pub data: PathBuf,
    /// Logs.
    pub state: PathBuf,
    /// What may be deleted at any time.
    pub cache: PathBuf,
    /// The socket's directory.
    pub run: PathBuf,
    /// The user's home, where there is one.
    pub home: Option<PathBuf>,
}

impl Places {
    /// Finds the places from the environment.
    ///
    /// # Errors
    /// `TB-HOME-001` when neither `TINKERBELL_HOME`, `HOME` nor the XDG variables say where.
    pub fn find(env: &Environment, uid: u32) -> Result<Self, Fault> {
        let home = env.path("HOME").filter(|home| home.is_absolute());
        if let Some(all) = env.path("TINKERBELL_HOME") {
            if !all.is_absolute() {
                return Err(Fault::new(
                    "TB-HOME-001",
                    exit::CONFIG,
                    format!("TINKERBELL_HOME is `{}`, which is not an absolute path", all.display()),
                )
                .hint("give the whole path, beginning with /"));
            }
            return Ok(Self {
                config: all.join("config.toml"),
                data: all.join("data"),
                state: all.join("state"),
                cache: all.join("cache"),
                run: all.join("run"),
                home,
            });
        }
        let base = |variable: &str, below: &str| {
            let given = env.path(variable).filter(|path| path.is_absolute());
            given.or_else(|| home.as_ref().map(|home| home.join(below))).map(|dir| dir.join("tinkerbell")).ok_or_else(|| {
                Fault::new(
                    "TB-HOME-001",
                    exit::CONFIG,
                    format!("neither HOME nor {variable} is set, so there is no place for tinkerbell's files"),
                )
                .hint("export HOME=/path/to/your/home")
                .hint("or put everything in one place: export TINKERBELL_HOME=/path")
            })
        };
        let run = match env.path("XDG_RUNTIME_DIR").filter(|dir| dir.is_absolute() && dir.is_dir()) {
            Some(dir) => dir.join("tinkerbell"),
            None => PathBuf::from(format!("/tmp/tinkerbell-{uid}")),
        };
        Ok(Self {
            config: base("XDG_CONFIG_HOME", ".config")?.join("config.toml"),
            data: base("XDG_DATA_HOME", ".local/share")?,
            state: base("XDG_STATE_HOME", ".local/state")?,
            cache: base("XDG_CACHE_HOME", ".cache")?,
            run,
            home,
        })
    }

    /// The daemon's socket. In the shared temporary directory its name tells data directories
    /// apart, because homes that share a user share that directory too.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        if self.run.parent() == Some(Path::new("/tmp")) {
            return self.run.join(format!("{:016x}.sock", fingerprint(&self.data)));
        }
        self.run.join("tinkerbelld.sock")
    }

    /// The daemon's log.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.state.join("daemon.log")
    }

    /// The journal's directory.
    #[must_use]
    pub fn journal(&self) -> PathBuf {
        self.data.join("journal")
    }

    /// Makes the directories that the daemon writes to.
    ///
    /// # Errors
    /// `TB-HOME-002` when one can not be made or belongs to somebody else.
    pub fn make(&self, uid: u32) -> Result<(), Fault> {
        for dir in [&self.data, &self.state, &self.cache, &self.run] {
            private_dir(dir, uid).map_err(|error| {
                Fault::new("TB-HOME-002", exit::CONFIG, format!("{} can not be used: {error}", dir.display()))
                    .hint("make it writable and yours, or choose another place: export TINKERBELL_HOME=/path")
            })?;
        }
        Ok(())
    }
}

/// FNV-1a over the path's bytes: short and the same in every release.
fn fingerprint(path: &Path) -> u64 {
    let bytes = path.as_os_str().as_encoded_bytes();
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

fn private_dir(dir: &Path, uid: u32) -> io::Result<()> {
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let meta = std::fs::symlink_metadata(dir)?;
    if !meta.is_dir() {
        return Err(io::Error::other("it is not a directory"));
    }
    if meta.uid() != uid {
        return Err(io::Error::other(format!("it belongs to user {}, not to you", meta.uid())));
    }
    // A name of its own: clients that start at the same moment must not take it from each other.
    let probe = dir.join(format!(".writable-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_variable_puts_all_in_one_place() {
        let places = Places::find(&Environment::of(&[("TINKERBELL_HOME", "/t"), ("HOME", "/h")]), 7).unwrap();
        assert_eq!(places.socket(), Path::new("/t/run/tinkerbelld.sock"));
        assert_eq!((places.config, places.data), (PathBuf::from("/t/config.toml"), PathBuf::from("/t/data")));
    }

    #[test]
    fn xdg_places_hold_without_it() {
        let env = Environment::of(&[("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_DATA_HOME", "relative")]);
        let places = Places::find(&env, 7).unwrap();
        assert_eq!(places.config, Path::new("/c/tinkerbell/config.toml"));
        assert_eq!(places.data, Path::new("/h/.local/share/tinkerbell"));
        assert_eq!(places.run, Path::new("/tmp/tinkerbell-7"));
        let other = Places::find(&Environment::of(&[("HOME", "/other")]), 7).unwrap();
        assert_ne!(places.socket(), other.socket(), "two homes of one user have two daemons");
    }

    #[test]
    fn no_home_is_an_error_that_says_what_to_do() {
        let fault = Places::find(&Environment::of(&[]), 7).unwrap_err();
        assert_eq!((fault.code.0, fault.exit), ("TB-HOME-001", 78));
        assert!(fault.hints.iter().any(|hint| hint.contains("TINKERBELL_HOME")));
        assert!(Places::find(&Environment::of(&[("TINKERBELL_HOME", "rel")]), 7).is_err());
    }

    #[test]
    fn directories_are_private_and_a_file_in_the_way_is_named() {
        let root = tempfile::tempdir().unwrap();
        let uid = rustix::process::getuid().as_raw();
        let all = root.path().join("t");
        let places = Places::find(&Environment::of(&[("TINKERBELL_HOME", all.to_str().unwrap())]), uid).unwrap();
        places.make(uid).unwrap();
        assert_eq!(std::fs::metadata(&places.data).unwrap().mode() & 0o777, 0o700);
        std::fs::remove_dir(&places.state).unwrap();
        std::fs::write(&places.state, "x").unwrap();
        assert_eq!(places.make(uid).unwrap_err().code.0, "TB-HOME-002");
    }
}
