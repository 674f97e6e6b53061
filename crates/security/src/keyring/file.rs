//! Small files that are replaced whole, and the lock under which that happens.
//!
//! Invariant: a file has its name only after its bytes are on stable storage, and a replaced name is
//! on stable storage before anybody acts on it.

use super::error::Error;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

/// Larger files are none of ours.
const MOST_BYTES: u64 = 64 << 20;

/// The right to change keyring and root key; ends when it is dropped.
pub(super) struct Locked {
    _file: File,
}

impl Locked {
    /// Waits for the lock beside the keyring; changes are short.
    pub(super) fn take(keyring: &Path) -> Result<Self, Error> {
        let path = beside(keyring, "lock");
        make_dir(keyring)?;
        let failed = |e| Error::io("lock", &path, e);
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path).map_err(failed)?;
        flock(&file, FlockOperation::LockExclusive).map_err(|e| failed(e.into()))?;
        Ok(Self { _file: file })
    }
}

/// Reads a file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<Vec<u8>>, Error> {
    match File::open(path) {
        Ok(file) => read_open(file, path).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(Error::io("read", path, e)),
    }
}

pub(super) fn read_open(file: File, path: &Path) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    file.take(MOST_BYTES).read_to_end(&mut bytes).map_err(|e| Error::io("read", path, e))?;
    Ok(bytes)
}

/// Replaces a file; durable when it returns. What a crash left half written is overwritten.
pub(super) fn replace(path: &Path, bytes: &[u8], _held: &Locked) -> Result<(), Error> {
    make_dir(path)?;
    let new = beside(path, "new");
    write(path, &new, bytes).map_err(|e| Error::io("write", path, e))
}

fn write(path: &Path, new: &Path, bytes: &[u8]) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    File::open(parent(path))?.sync_all()
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn make_dir(path: &Path) -> Result<(), Error> {
    let dir = parent(path);
    if dir.is_dir() {
        return Ok(());
    }
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir).and_then(|()| File::open(parent(dir))?.sync_all());
    made.map_err(|e| Error::io("create the directory", dir, e))
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{ending}"));
    PathBuf::from(name)
}
