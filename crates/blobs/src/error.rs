//! What can go wrong with stored bytes, with the codes that users see.
//!
//! Invariant: every variant has a page `docs/errors/<code>.md`.

use std::io;
use std::path::PathBuf;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::words::BlobRef;

/// A failure of the blob store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such bytes.
    #[error("the bytes {0} are missing")]
    Missing(BlobRef),
    /// The bytes do not match their reference.
    #[error("the bytes in {} are damaged: they do not match {blob}", path.display())]
    Damaged {
        /// What was asked for.
        blob: BlobRef,
        /// The file.
        path: PathBuf,
    },
    /// The file system refused.
    #[error("cannot {what} {}: {source}", path.display())]
    Io {
        /// The act, such as `create` or `read`.
        what: &'static str,
        /// The file or directory.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The key file does not hold a key.
    #[error("the key file {} is damaged: put it back from a backup", .0.display())]
    BadKey(PathBuf),
    /// The bytes were stored under another key.
    #[error("the bytes {blob} were stored under key {}, this installation has key {have}", .blob.key_id)]
    OtherKey {
        /// What was asked for.
        blob: BlobRef,
        /// Our key.
        have: u32,
    },
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Missing(_) => "TB-BLOB-001",
            Self::Damaged { .. } => "TB-BLOB-002",
            Self::Io { .. } => "TB-BLOB-003",
            Self::BadKey(_) | Self::OtherKey { .. } => "TB-BLOB-004",
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let fault = Self::new(error.code(), exit::UNAVAILABLE, error.to_string());
        match &error {
            Error::Missing(_) => fault.hint("if a backup was restored, restore blobs and journal together"),
            Error::Damaged { path, .. } => fault.hint(format!("put {} back from a backup, and check the disk", path.display())),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                fault.hint("free space on that disk; then try again").transient()
            }
            Error::Io { .. } => fault.hint("check that the directory exists and is owned and writable by you"),
            Error::BadKey(_) | Error::OtherKey { .. } => fault.hint("put the blob directory back from one backup, key included"),
        }
    }
}
