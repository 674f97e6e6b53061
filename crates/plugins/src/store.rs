//! What people agreed to, in one small file that only its owner can write.
//!
//! Daemon and command line both use it, under a lock. Invariant: what can not be read, or could have
//! been written by others, agrees to nothing.

use crate::error::Error;
use crate::format::{Approved, LaunchPin, Pins, ToolsPin, VERSION};
use rustix::fs::FlockOperation;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// What is remembered of one server.
pub type Remembered = Pins;

/// The file.
#[derive(Debug, Clone)]
pub struct Approvals {
    dir: PathBuf,
}

impl Approvals {
    /// In this directory; nothing is touched yet.
    #[must_use]
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// What holds for a server.
    ///
    /// # Errors
    /// When the file is damaged, of a newer release, or writable by others.
    pub fn of(&self, server: &str) -> Result<Remembered, Error> {
        Ok(self.read()?.servers.remove(server).unwrap_or_default())
    }

    /// Remembers that a program may be started.
    ///
    /// # Errors
    /// As [`Self::of`], and when the file can not be written.
    pub fn agree_launch(&self, server: &str, pin: LaunchPin) -> Result<(), Error> {
        self.change(server, |pins| pins.launch = Some(pin))
    }

    /// Remembers what a server may say of its tools.
    ///
    /// # Errors
    /// As [`Self::agree_launch`].
    pub fn agree_tools(&self, server: &str, pin: ToolsPin) -> Result<(), Error> {
        self.change(server, |pins| pins.tools = Some(pin))
    }

    /// Forgets a server; it is asked for again.
    ///
    /// # Errors
    /// As [`Self::agree_launch`].
    pub fn forget(&self, server: &str) -> Result<(), Error> {
        self.change(server, |pins| *pins = Pins::default())
    }

    fn file(&self) -> PathBuf {
        self.dir.join("approved.json")
    }

    fn read(&self) -> Result<Approved, Error> {
        let path = self.file();
        let refuse = |why: String| Error::Files { path: path.display().to_string(), why };
        let meta = match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Approved::default()),
            other => other.map_err(Error::files(&path))?,
        };
        let is_ours = meta.uid() == rustix::process::geteuid().as_raw() || meta.uid() == 0;
        if !meta.is_file() || !is_ours || meta.mode() & 0o022 != 0 {
            return Err(refuse("others could have written it; chmod 600 it once you trust what is in it, or remove it".into()));
        }
        let text = std::fs::read(&path).map_err(Error::files(&path))?;
        let approved: Approved =
            serde_json::from_slice(&text).map_err(|error| refuse(format!("it is damaged: {error}; remove it to be asked anew")))?;
        if approved.version > VERSION {
            return Err(refuse(format!("version {} is newer than this program; use the newer one", approved.version)));
        }
        Ok(approved)
    }

    fn change(&self, server: &str, change: impl FnOnce(&mut Pins)) -> Result<(), Error> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.dir).map_err(Error::files(&self.dir))?;
        let path = self.dir.join("lock");
        let lock = std::fs::File::create(&path).map_err(Error::files(&path))?;
        rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| Error::files(&path)(error.into()))?;
        let mut approved = self.read()?;
        let pins = approved.servers.entry(server.to_owned()).or_default();
        change(pins);
        if *pins == Pins::default() {
            approved.servers.remove(server);
        }
        let bytes = serde_json::to_vec(&approved).map_err(|error| Error::files(&path)(error.into()))?;
        write(&self.file(), &bytes).map_err(Error::files(&self.file()))
    }
}

/// Writes a private file whole: who reads it sees the old or the new one.
pub fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    std::fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_was_agreed_to_is_kept_and_what_others_could_have_written_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let approvals = Approvals::new(dir.path().join("mcp"));
        assert_eq!(approvals.of("a").unwrap(), Pins::default());
        let pin = LaunchPin { digest: "d".into(), text: "t".into(), at_ms: 1 };
        approvals.agree_launch("a", pin.clone()).unwrap();
        approvals.agree_tools("b", ToolsPin { digest: "e".into(), tools: [].into(), at_ms: 2 }).unwrap();
        assert_eq!(approvals.of("a").unwrap().launch, Some(pin));
        assert!(approvals.of("b").unwrap().launch.is_none() && approvals.of("b").unwrap().tools.is_some());
        approvals.forget("b").unwrap();
        assert_eq!(approvals.of("b").unwrap(), Pins::default());
        let file = dir.path().join("mcp/approved.json");
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o666)).unwrap();
        assert!(approvals.of("a").unwrap_err().to_string().contains("others could have written it"));
        std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).unwrap();
        std::fs::write(&file, "{").unwrap();
        assert!(approvals.of("a").unwrap_err().to_string().contains("damaged"));
        std::fs::write(&file, r#"{"version":9,"servers":{}}"#).unwrap();
        assert!(approvals.of("a").unwrap_err().to_string().contains("newer"));
    }
}
