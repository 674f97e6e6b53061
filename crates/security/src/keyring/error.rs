//! What can go wrong with keys, with the codes that users see.
//!
//! Invariant: no variant and no text ever holds a secret.

use std::io;
use std::path::PathBuf;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::KEY_DESTROYED;

/// A failure of the keyring.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error("the keyring {} is damaged: {why}", path.display())]
    Damaged { path: PathBuf, why: String },
    #[error("the root key {} is damaged: {why}", path.display())]
    DamagedRoot { path: PathBuf, why: &'static str },
    #[error("the root key {} is missing, and the keyring needs it", .0.display())]
    NoRoot(PathBuf),
    #[error("the root key in {} is not the one that wraps the keyring (which needs {wanted})", path.display())]
    OtherRoot { path: PathBuf, wanted: String },
    #[error("the root key {} is not used: {why}", path.display())]
    Unsafe { path: PathBuf, why: String },
    #[error("key {id} is missing in {}", path.display())]
    Missing { id: u32, path: PathBuf },
    #[error("key {0} was destroyed: what it sealed is erased")]
    Destroyed(u32),
    #[error("cannot {what} {}: {source}", path.display())]
    Io { what: &'static str, path: PathBuf, source: io::Error },
    #[error("the cipher or the source of chance refused its work")]
    Cipher,
}

impl Error {
    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }

    const fn code(&self) -> &'static str {
        match self {
            Self::Damaged { .. } | Self::DamagedRoot { .. } => "TB-KEY-001",
            Self::NoRoot(_) | Self::OtherRoot { .. } => "TB-KEY-002",
            Self::Unsafe { .. } => "TB-KEY-003",
            Self::Missing { .. } => "TB-KEY-004",
            Self::Destroyed(_) => KEY_DESTROYED,
            Self::Io { .. } => "TB-KEY-006",
            Self::Cipher => "TB-KEY-008",
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let fault = Self::new(error.code(), exit::UNAVAILABLE, error.to_string());
        match &error {
            Error::Damaged { .. } | Error::DamagedRoot { .. } => {
                fault.hint("nothing was changed; put keyring and root key back from the backup of your keys, both of one time")
            }
            Error::NoRoot(_) | Error::OtherRoot { .. } => fault
                .hint("put the root key back, or name its place: `[security] root_key = \"/path\"`")
                .hint("without it nobody can open what was sealed"),
            Error::Unsafe { path, .. } => {
                let path = path.display();
                fault
                    .hint(format!("chmod 600 {path} && chown \"$(id -u)\" {path}"))
                    .hint("then `tinkerbell keys rotate-root`, if others could read it")
            }
            Error::Missing { .. } => {
                fault.hint("put the newest keyring back from the backup of your keys; `tinkerbell keys ls` lists what is there")
            }
            Error::Io { source, .. } if source.kind() == io::ErrorKind::StorageFull => {
                fault.hint("free space on that disk; then try again").transient()
            }
            Error::Io { .. } => fault.hint("check that the directory exists and is owned and writable by you"),
            Error::Destroyed(_) | Error::Cipher => fault,
        }
    }
}
