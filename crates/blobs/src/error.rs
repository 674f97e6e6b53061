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
    #[error("the bytes in {}, byte {offset}, are damaged: they do not match {blob}", path.display())]
    Damaged {
        /// What was asked for.
        blob: BlobRef,
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
    },
    /// The bytes are as they were written and do not open.
    #[error("the bytes in {}, byte {offset}, do not open with key {} as {blob}", path.display(), .blob.key_id)]
    Misfit {
        /// What was asked for.
        blob: BlobRef,
        /// The file.
        path: PathBuf,
        /// Where in the file.
        offset: u64,
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
    /// The keyring gave no key.
    #[error("{}", .0.message)]
    Key(Fault),
    /// The cipher refused its work.
    #[error("the cipher refused its work")]
    Cipher,
    /// More bytes than a blob may have.
    #[error("a blob of {size} bytes is too large: {most} are the most; store it in parts")]
    TooLarge {
        /// Its size.
        size: usize,
        /// The limit.
        most: usize,
    },
    /// A pack of a newer release.
    #[error("{} has version {version}; a newer release wrote it: use that release", path.display())]
    Newer {
        /// The pack.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A file that is called a pack and is none.
    #[error("{} does not begin like a pack of blobs", .0.display())]
    NoPack(PathBuf),
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
            Self::BadKey(_) => "TB-BLOB-004",
            Self::TooLarge { .. } => "TB-BLOB-010",
            Self::Newer { .. } => "TB-BLOB-011",
            Self::NoPack(_) => "TB-BLOB-012",
            Self::Misfit { .. } => "TB-KEY-007",
            Self::Cipher => "TB-KEY-008",
            Self::Key(fault) => fault.code.0,
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::Key(fault) = error {
            return fault;
        }
        let fault = Self::new(error.code(), exit::UNAVAILABLE, error.to_string());
        match &error {
            Error::Missing(_) => fault.hint("if a backup was restored, restore blobs and journal together"),
            Error::Damaged { path, .. } | Error::NoPack(path) => {
                fault.hint(format!("put {} back from a backup, and check the disk", path.display()))
            }
            Error::Misfit { .. } => fault.hint("put keyring and root key of these blobs back from the backup of your keys"),
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                fault.hint("free space on that disk; then try again").transient()
            }
            Error::Io { .. } => fault.hint("check that the directory exists and is owned and writable by you"),
            Error::BadKey(_) => fault.hint("put the blob directory back from one backup, key included"),
            Error::Newer { .. } | Error::TooLarge { .. } | Error::Key(_) | Error::Cipher => fault,
        }
    }
}
