//! The key under which this installation hashes its blobs.
//!
//! One key now, one per subject later; the id in every reference leaves room for that. Invariant: once
//! a key has named a blob it is never replaced, so a damaged key file is an error and not a new key.

use crate::error::Error;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use tinkerbell_core::clock::Entropy;

/// The id of the installation's own key.
pub(crate) const KEY_ID: u32 = 1;

const NAME: &str = "key";

/// Reads the key in `dir`, or makes it with mode 0600.
pub(crate) fn load(dir: &Path, entropy: &dyn Entropy) -> Result<[u8; 32], Error> {
    let path = dir.join(NAME);
    match fs::read(&path) {
        Ok(bytes) => bytes.try_into().map_err(|_| Error::BadKey(path)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => make(dir, entropy).map_err(|e| Error::io("create the key", path, e)),
        Err(e) => Err(Error::io("read the key", path, e)),
    }
}

/// Whoever links first wins, so that two openers agree on one key.
fn make(dir: &Path, entropy: &dyn Entropy) -> io::Result<[u8; 32]> {
    let mut key = [0; 32];
    for (half, draw) in key.chunks_mut(16).zip([entropy.id(), entropy.id()]) {
        half.copy_from_slice(&draw.to_le_bytes());
    }
    let new = dir.join(format!("{NAME}.{:032x}", entropy.id()));
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    file.write_all(&key)?;
    file.sync_all()?;
    let linked = fs::hard_link(&new, dir.join(NAME));
    fs::remove_file(&new)?;
    match linked {
        Ok(()) => File::open(dir)?.sync_all().map(|()| key),
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let theirs = fs::read(dir.join(NAME))?;
            theirs.try_into().map_err(|_| io::ErrorKind::InvalidData.into())
        }
        Err(e) => Err(e),
    }
}
