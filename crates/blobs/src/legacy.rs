//! The first layout: one file per blob, `ab/cdef…`, hashed under one key of the installation.
//!
//! Read only; everything new goes into packs. Invariant: `tests/golden/v1` stays readable for ever,
//! and nothing here is written or removed.

use crate::error::Error;
use bytes::Bytes;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tinkerbell_core::words::BlobRef;

/// The number of the installation's own key; numbers of subjects' keys are 16 and more.
pub(crate) const KEY_ID: u32 = 1;

const NAME: &str = "key";

/// What an earlier release left in the directory.
pub(crate) struct Legacy {
    dir: PathBuf,
    key: Option<[u8; 32]>,
}

impl Legacy {
    /// Reads the key in `dir`, when there is one.
    pub(crate) fn open(dir: &Path) -> Result<Self, Error> {
        let path = dir.join(NAME);
        let key = match fs::read(&path) {
            Ok(bytes) => Some(bytes.try_into().map_err(|_| Error::BadKey(path))?),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(Error::io("read the key", path, e)),
        };
        Ok(Self { dir: dir.to_owned(), key })
    }

    pub(crate) fn get(&self, blob: BlobRef) -> Result<Bytes, Error> {
        let Some(key) = &self.key else { return Err(Error::Missing(blob)) };
        let hex = blake3::Hash::from_bytes(blob.hash).to_hex();
        let (front, back) = hex.as_str().split_at_checked(2).unwrap_or_default();
        let path = self.dir.join(front).join(back);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(Error::Missing(blob)),
            Err(e) => return Err(Error::io("read", path, e)),
        };
        if *blake3::keyed_hash(key, &content).as_bytes() != blob.hash || content.len() as u64 != blob.size_bytes {
            return Err(Error::Damaged { blob, path, offset: 0 });
        }
        Ok(Bytes::from(content))
    }
}
