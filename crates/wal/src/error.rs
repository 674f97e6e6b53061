//! What can go wrong with a journal, with the codes that users see.
//!
//! Not the place that decides whether bytes are torn or corrupt; that is `scan`. Invariant: every
//! variant has a page `docs/errors/<code>.md` and says what to do.

use std::io;
use std::path::PathBuf;
use tinkerbell_core::code::{Fault, exit};

/// A failure of the journal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Another process holds the directory.
    #[error("the journal in {} is in use by {}", dir.display(), owner(*pid))]
    Locked {
        /// The journal's directory.
        dir: PathBuf,
        /// The holder, when it left its number.
        pid: Option<u32>,
    },
    /// Acknowledged bytes are damaged or missing.
    #[error("the journal is corrupt at record {lsn}: {file}, byte {offset}: {why}")]
    Corrupt {
        /// The first record that can not be trusted.
        lsn: u64,
        /// Name of the segment.
        file: String,
        /// Where in the segment.
        offset: u64,
        /// What is wrong there.
        why: String,
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
    /// No space for a batch; nothing of it was kept.
    #[error("the disk that holds the journal is full: {needed} bytes were needed in {file} (os error 28)")]
    DiskFull {
        /// Size of the batch that did not fit.
        needed: u64,
        /// Name of the segment.
        file: String,
    },
    /// A write or sync failed: what is on disk is in doubt.
    #[error("the journal stopped accepting records: {why}")]
    Poisoned {
        /// What failed first.
        why: String,
    },
    /// Records wait faster than the disk takes them.
    #[error("the journal's queue is full: {queued} bytes wait for the disk, the limit is {limit}")]
    QueueFull {
        /// Bytes that wait.
        queued: usize,
        /// `Options::queue_bytes`.
        limit: usize,
    },
    /// One append is larger than a batch may be.
    #[error(
        "an append of {records} records and {size} bytes is too large: at most {max_records} records and {max_bytes} bytes; store large payloads as blobs"
    )]
    TooLarge {
        /// Records in the append.
        records: usize,
        /// Bytes in the append.
        size: usize,
        /// Most records.
        max_records: usize,
        /// Most bytes.
        max_bytes: usize,
    },
    /// The journal was closed.
    #[error("the journal is closed; open it again to append")]
    Closed,
    /// Valid bytes that this release does not understand.
    #[error("{file}, byte {offset}: {what}; a newer release wrote it: use that release")]
    Unreadable {
        /// Name of the segment.
        file: String,
        /// Where in the segment.
        offset: u64,
        /// What is not understood.
        what: String,
    },
    /// No such record stands in the journal.
    #[error("record {lsn} does not stand in the journal, whose newest record is {tip}")]
    NotHere {
        /// The number that was asked for.
        lsn: u64,
        /// The newest record.
        tip: u64,
    },
    /// Nothing that a repair can do makes the journal whole.
    #[error("the journal can not be repaired: at record {lsn} ({file}) {why}")]
    Unrepairable {
        /// The first record that can not be trusted.
        lsn: u64,
        /// Name of the segment.
        file: String,
        /// Why no choice is left.
        why: String,
    },
    /// A kind below 16, which belongs to the journal itself.
    #[error("record kind {0} belongs to the journal itself; use 16 or more")]
    ReservedKind(u16),
    /// The keyring gave no key.
    #[error("{}", .0.message)]
    Key(Fault),
    /// A record is sealed, and no keyring was given.
    #[error("record {lsn} is sealed, key {key} is missing")]
    Sealed {
        /// The record.
        lsn: u64,
        /// The key's number.
        key: u32,
    },
    /// A sealed record does not open with the key of its number.
    #[error("record {lsn} does not open with key {key}: the key belongs to another installation, or the record was forged")]
    Misfit {
        /// The record.
        lsn: u64,
        /// The key's number.
        key: u32,
    },
    /// The cipher refused its work.
    #[error("a batch could not be sealed")]
    Unsealable,
}

fn owner(pid: Option<u32>) -> String {
    pid.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
}

impl Error {
    pub(crate) fn io(what: &'static str, path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Io { what, path: path.into(), source }
    }

    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Locked { .. } => "TB-WAL-001",
            Self::Corrupt { .. } => "TB-WAL-002",
            Self::Io { .. } => "TB-WAL-003",
            Self::DiskFull { .. } => "TB-WAL-004",
            Self::Poisoned { .. } => "TB-WAL-005",
            Self::QueueFull { .. } => "TB-WAL-006",
            Self::TooLarge { .. } => "TB-WAL-007",
            Self::Closed => "TB-WAL-008",
            Self::Unreadable { .. } => "TB-WAL-009",
            Self::ReservedKind(_) => "TB-WAL-010",
            Self::NotHere { .. } => "TB-WAL-011",
            Self::Unrepairable { .. } => "TB-WAL-012",
            Self::Key(fault) => fault.code.0,
            Self::Sealed { .. } => "TB-KEY-004",
            Self::Misfit { .. } => "TB-KEY-007",
            Self::Unsealable => "TB-KEY-008",
        }
    }

    const fn exit(&self) -> u8 {
        match self {
            Self::TooLarge { .. } | Self::ReservedKind(_) | Self::Unsealable => exit::INTERNAL,
            _ => exit::UNAVAILABLE,
        }
    }

    const fn hints(&self) -> &'static [&'static str] {
        match self {
            Self::Locked { .. } => &["one daemon serves one data directory; `tinkerbell daemon status` shows it"],
            Self::Corrupt { .. } => &[
                "nothing was changed; copy the directory before you do anything else",
                "`tinkerbell wal repair` says what can be done and what each choice would lose; `tinkerbell wal dump` shows what is still readable",
                "put the named file back from a backup, or move the directory aside to start an empty journal",
            ],
            Self::Io { .. } => &["check that the directory exists, is on a local disk, and is owned and writable by you"],
            Self::DiskFull { .. } => &["free space on that disk; the next record is accepted without a restart"],
            Self::Poisoned { .. } => &[
                "acknowledged records are safe and can be read; nothing later was acknowledged",
                "check the disk (`dmesg`), then restart the daemon: it recovers by itself",
            ],
            Self::NotHere { .. } => {
                &["compaction drops records that nobody needs; `tinkerbell wal dump --from LSN` shows what stands behind it"]
            }
            Self::Unrepairable { .. } => &[
                "nothing was changed; `tinkerbell wal repair --from DIR` takes whole segments from a backup of the journal",
                "`tinkerbell wal restore` builds a journal from an archive; `tinkerbell wal dump` shows what can still be read",
            ],
            Self::QueueFull { .. } => &["the disk is slow or busy; try again"],
            Self::Sealed { .. } | Self::Misfit { .. } => &[
                "`tinkerbell keys ls` lists the keys that are there",
                "put keyring and root key of this journal back from the backup of your keys",
            ],
            _ => &[],
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if let Error::Key(fault) = error {
            return fault;
        }
        let mut fault = Self::new(error.code(), error.exit(), error.to_string());
        for line in error.hints() {
            fault = fault.hint(*line);
        }
        match error {
            Error::QueueFull { .. } | Error::DiskFull { .. } => fault.transient(),
            _ => fault,
        }
    }
}
