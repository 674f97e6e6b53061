//! Compaction: giving the disk back what sealed segments hold of records that nobody needs.
//!
//! A run of sealed segments becomes one file with the needed frames, verbatim. The order of acts is:
//! copy, sync, a retirement record with the new file's SHA-256 durable, rename into place, sync the
//! directory, show the new place to readers, unlink. It never touches the segment that is being
//! written and never stops appends. Invariant: until the new file has its name and the directory is
//! synced, every old file is whole; from then on an opening prefers the new one and removes what is
//! left of the old ones. So a kill at any point leaves either the old files or the new one.

pub(crate) mod format;
mod measure;
mod plan;
mod rewrite;
pub(crate) mod scan;

pub(crate) use measure::{Keeps, Measured, measure};
pub(crate) use plan::plan;
pub(crate) use rewrite::{put_in_place, rewrite};

use crate::depot::Depot;
use crate::disk::Disk;
use crate::error::Error;
use crate::flush::lock;
use crate::index::Index;
use crate::old::Old;
use crate::options::Options;
use crate::queue::Queue;
use std::sync::{Arc, Mutex};
use tinkerbell_core::port::Compaction;

/// Closed once the journal has ended, so that nothing is changed in a directory that another
/// process may already hold; whoever works on files holds it open meanwhile.
pub(crate) type Gate = Arc<Mutex<bool>>;

/// How much is rewritten, and what is worth it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Worth {
    /// Size of a full segment.
    pub(crate) segment_bytes: u64,
    /// Most bytes that one call writes, apart from a single segment, which is always allowed.
    pub(crate) call_bytes: u64,
    /// A segment is rewritten when more than this share of it is dead.
    pub(crate) dead_percent: u64,
}

impl Worth {
    pub(crate) fn of(options: &Options) -> Self {
        let Options { segment_bytes, compact_bytes, compact_dead_percent, .. } = options;
        Self { segment_bytes: *segment_bytes, call_bytes: *compact_bytes, dead_percent: u64::from(*compact_dead_percent) }
    }
}

/// What compaction works on.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) index: Arc<Mutex<Index>>,
    pub(crate) queue: Arc<Queue>,
    pub(crate) gate: Gate,
    /// Where old files go.
    pub(crate) depot: Arc<Depot>,
    /// What opening did not read.
    pub(crate) old: Arc<Old>,
}

impl Bench {
    /// Does one act on files, unless the journal has ended.
    pub(crate) fn act<T>(&self, act: impl FnOnce(&Self) -> Result<T, Error>) -> Result<T, Error> {
        let closed = lock(&self.gate);
        if *closed {
            return Err(Error::Closed);
        }
        let done = act(self);
        drop(closed);
        done
    }

    /// Fails once the journal is closing or poisoned, so that neither waits for a long copy.
    pub(crate) fn goes_on(&self) -> Result<(), Error> {
        self.queue.newest().map(|_| ())
    }
}

/// Adds one group's counts.
pub(crate) fn count(done: &mut Compaction, group: &[Measured], fresh: &Measured) {
    let before: u64 = group.iter().map(|segment| segment.size).sum();
    let gone: u64 = group.iter().map(|segment| segment.dropped).sum();
    done.segments = done.segments.saturating_add(group.len() as u64);
    done.dropped = done.dropped.saturating_add(fresh.dropped.saturating_sub(gone));
    done.freed_bytes = done.freed_bytes.saturating_add(before.saturating_sub(fresh.size));
}
