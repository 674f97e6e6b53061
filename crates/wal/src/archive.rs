//! The archive: copies of sealed segments in a blob store, from which a journal can be built anew.
//!
//! It knows blobs by the port alone, not where they lie. A manifest lists what one run stored; all
//! manifests together describe the archive, so nothing else is needed to restore. Invariant: a
//! manifest is stored only after every segment that it names, and segments are archived in order
//! without a gap, so what the manifests reach to is all there.

mod directory;
pub(crate) mod format;
mod restore;

pub use directory::Directory;
pub use restore::{Restored, restore};

use crate::compact::Measured;
use bytes::Bytes;
use format::{Entry, Manifest, digest};
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::BlobStore;
use tinkerbell_core::words::{BlobRef, Owner, Subject, TaskId};

/// To whom archived segments belong; no task has such a small number.
const SEGMENTS: Owner = Owner { subject: Subject(0), task: TaskId(1) };
/// To whom manifests belong.
const MANIFESTS: Owner = Owner { subject: Subject(0), task: TaskId(2) };

/// What can be wrong with an archive.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It holds segments of another journal.
    #[error("the archive belongs to another journal: its record {lsn} is not the one of this journal")]
    Foreign {
        /// The first number that shows it.
        lsn: u64,
    },
    /// Something that it must hold is not there.
    #[error("the archive is incomplete: {missing} is missing")]
    Incomplete {
        /// What is missing.
        missing: String,
    },
    /// Something in it is not what was stored.
    #[error("the archive is damaged: {what}: {why}")]
    Damaged {
        /// The segment or manifest.
        what: String,
        /// What is wrong with it.
        why: String,
    },
    /// A restored journal would mix with what is there.
    #[error("{} is not empty; a journal is restored only into a new or empty directory", .0.display())]
    NotEmpty(PathBuf),
    /// Nothing was ever archived there.
    #[error("the archive is empty: nothing was ever copied to it")]
    Empty,
}

impl Error {
    /// The stable code.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "TB-WAL-016",
            Self::Incomplete { .. } => "TB-WAL-017",
            Self::Damaged { .. } => "TB-WAL-018",
            Self::NotEmpty(_) => "TB-WAL-019",
            Self::Empty => "TB-WAL-020",
        }
    }

    const fn hint(&self) -> &'static str {
        match self {
            Self::Foreign { .. } => "give each journal an archive of its own: set `[journal] archive` to another directory",
            Self::Incomplete { .. } => "put the missing files back into the archive from a copy of it; nothing was restored",
            Self::Damaged { .. } => "put the damaged file back into the archive from a copy of it; nothing was changed",
            Self::NotEmpty(_) => "name another directory with `--to`, or move this one aside",
            Self::Empty => "check the path; `tinkerbell wal archive` fills an archive",
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let hint = error.hint();
        Self::new(error.code(), exit::FAILED, error.to_string()).hint(hint)
    }
}

/// What archiving did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Archived {
    /// Segments that were copied.
    pub segments: u64,
    /// Their bytes.
    pub size_bytes: u64,
    /// Everything up to this record is in the archive.
    pub through: u64,
}

/// What an archive holds, by its manifests.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    pub(crate) entries: Vec<Entry>,
    sequence: u64,
    /// SHA-256 of the newest manifest.
    newest: [u8; 32],
}

impl Contents {
    /// The newest record that is archived.
    pub(crate) fn through(&self) -> u64 {
        self.entries.last().map_or(0, |entry| entry.last)
    }

    /// Whether the segment is in the archive already.
    ///
    /// # Errors
    /// When the archive's segments and this one can not be of one journal.
    fn has(&self, segment: &Measured) -> Result<bool, Error> {
        let last = segment.end.saturating_sub(1);
        let foreign = |entry: &Entry| {
            (entry.last == last && entry.chain_end != segment.chain_end)
                || (entry.last.saturating_add(1) == segment.first && entry.chain_end != segment.chain)
        };
        if self.entries.iter().any(foreign) {
            return Err(Error::Foreign { lsn: segment.first });
        }
        Ok(last <= self.through())
    }
}

/// Reads all manifests.
pub(crate) async fn contents(store: &dyn BlobStore) -> Result<Contents, Fault> {
    let mut found = Contents::default();
    for blob in store.list(MANIFESTS).await? {
        let bytes = store.get(blob).await?;
        let what = || format!("manifest {blob}");
        let manifest = Manifest::decode(&bytes).map_err(|why| Error::Damaged { what: what(), why })?;
        let sequence = found.sequence.saturating_add(1);
        if manifest.sequence != sequence {
            return Err(Error::Incomplete { missing: format!("manifest {sequence}, before number {},", manifest.sequence) }.into());
        }
        if manifest.before != found.newest {
            let why = "it does not follow the manifest before it".to_owned();
            return Err(Error::Damaged { what: what(), why }.into());
        }
        found.entries.extend(manifest.entries);
        (found.sequence, found.newest) = (sequence, digest(&bytes));
    }
    Ok(found)
}

/// An archive that a journal writes to.
pub(crate) struct Archive {
    pub(crate) store: Arc<dyn BlobStore>,
    /// Read at the first use; what this process adds is added here, too.
    contents: Option<Contents>,
}

impl Archive {
    pub(crate) const fn new(store: Arc<dyn BlobStore>) -> Self {
        Self { store, contents: None }
    }

    /// The segments that are not in the archive yet, and how far it reaches.
    pub(crate) async fn lacks(&mut self, segments: &[Measured]) -> Result<(Vec<Measured>, u64), Fault> {
        if self.contents.is_none() {
            self.contents = Some(contents(&*self.store).await?);
        }
        let contents = self.contents.clone().unwrap_or_default();
        let mut lacking = Vec::new();
        for segment in segments {
            if !contents.has(segment)? {
                lacking.push(segment.clone());
            }
        }
        Ok((lacking, contents.through()))
    }

    /// Stores one segment's bytes; it counts once a manifest names it.
    pub(crate) async fn store(&self, segment: &Measured, bytes: Bytes) -> Result<Entry, Fault> {
        let (sha256, size) = (digest(&bytes), bytes.len() as u64);
        let blob = self.store.put(SEGMENTS, bytes).await?;
        let Measured { name, first, end, chain, chain_end, .. } = segment.clone();
        Ok(Entry { name, first, last: end.saturating_sub(1), size, chain, chain_end, sha256, blob })
    }

    /// Stores the manifest that makes `entries` count.
    pub(crate) async fn seal(&mut self, entries: Vec<Entry>, made_ms: u64) -> Result<(Manifest, BlobRef), Fault> {
        let before = self.contents.clone().unwrap_or_default();
        let manifest = Manifest { sequence: before.sequence.saturating_add(1), before: before.newest, made_ms, entries };
        let bytes = manifest.encode();
        let newest = digest(&bytes);
        let blob = match self.store.put(MANIFESTS, Bytes::from(bytes)).await {
            Ok(blob) => blob,
            Err(fault) => {
                // Whether it is there is in doubt, so the archive tells at the next use.
                self.contents = None;
                return Err(fault);
            }
        };
        let mut now = before;
        now.entries.extend(manifest.entries.iter().cloned());
        (now.sequence, now.newest) = (manifest.sequence, newest);
        self.contents = Some(now);
        Ok((manifest, blob))
    }
}
