//! Making a found journal fit to go on: cut what was torn, make the rest durable, or refuse.
//!
//! Runs under the lock, before the first append. Invariant: after it returns, everything that the
//! index shows is on stable storage, and nothing acknowledged was removed.

use crate::checkpoint;
use crate::compact::scan::Vouching;
use crate::disk::{Disk, Mode, read_full, write_full};
use crate::error::Error;
use crate::format::Head;
use crate::index::Index;
use crate::scan::Span;
use crate::survey::{NEW_SUFFIX, Segment, Survey, Unread, survey_behind};
use std::io;
use tinkerbell_core::words::Lsn;

/// What opening found and did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovery {
    /// Whether the journal had been closed in order, or is new.
    pub clean: bool,
    /// Bytes that were cut because they were never acknowledged.
    pub cut_bytes: u64,
    /// The newest record that stands; 0 when there is none.
    pub tip: Lsn,
    /// Segments that stand.
    pub segments: usize,
    /// How many of them were not read, because a checkpoint stands for them.
    pub unread: usize,
}

/// A journal that is fit to go on.
pub(crate) struct Recovered {
    pub(crate) index: Index,
    pub(crate) next: u64,
    pub(crate) head: Head,
    pub(crate) epoch: u64,
    /// Segments without a batch, to be removed once a new one stands.
    pub(crate) empty: Vec<String>,
    pub(crate) report: Recovery,
    /// What was not read.
    pub(crate) unread: Vec<Unread>,
    /// What is known of compacted segments.
    pub(crate) vouching: Vouching,
    /// The checkpoint that made reading everything unnecessary.
    pub(crate) checkpoint: Option<(u64, Vec<u8>)>,
}

/// Reads the journal in `disk` and puts its tail in order.
pub(crate) fn recover(disk: &dyn Disk) -> Result<Recovered, Error> {
    remove_unfinished(disk)?;
    let checkpoint = checkpoint::read(disk).unwrap_or_else(|error| {
        tracing::warn!(%error, "the checkpoint can not be read; the whole journal is");
        None
    });
    let (found, index) = look(disk, checkpoint.as_ref().map_or(0, |(through, _)| *through))?;
    if let Some(damage) = found.damage {
        return Err(damage);
    }
    for name in &found.superseded {
        disk.remove(name).map_err(|e| Error::io("remove", disk.path().join(name), e))?;
    }
    found.segments.iter().filter(|segment| segment.sealed.is_some()).try_for_each(|segment| cut_sealed(disk, segment))?;
    let clean = found.clean();
    let left = match found.segments.last().filter(|last| last.dropped.is_none()) {
        Some(last) => settle(disk, last).map_err(|e| Error::io("repair", disk.path().join(&last.name), e))?,
        None => 0,
    };
    // What was filled ahead is cut as well, but it was never anybody's.
    let cut_bytes = if found.torn.is_some() { left } else { 0 };
    if let Some(why) = &found.torn {
        tracing::warn!(cut_bytes, next = found.next, why, "cut an unacknowledged tail of the journal");
    }
    Ok(Recovered { checkpoint, ..finish(index, found, clean, cut_bytes) })
}

/// Reads all segments, or only those that a checkpoint `through` this number does not stand for.
fn look(disk: &dyn Disk, through: u64) -> Result<(Survey, Index), Error> {
    let mut index = Index::default();
    let found = survey_behind(disk, through, &mut |name, span, _| index.add(name, &span))?;
    // A checkpoint of more than the journal holds belongs to another one and stands for nothing.
    if found.tip < through && !found.unread.is_empty() && found.damage.is_none() {
        return look(disk, 0);
    }
    Ok((found, index))
}

fn finish(mut index: Index, found: Survey, clean: bool, cut_bytes: u64) -> Recovered {
    let report = Recovery { clean, cut_bytes, tip: Lsn(found.tip), segments: found.segments.len(), unread: found.unread.len() };
    let empty = found.segments.iter().filter(|s| s.batches == 0 && s.dropped.is_none() && !s.unread);
    let empty = empty.map(|s| s.name.clone()).collect();
    index.raise(found.tip);
    let Survey { next, head, epoch, unread, vouching, .. } = found;
    Recovered { index, next, head, epoch, empty, report, unread, vouching, checkpoint: None }
}

/// A segment that was being made when the process ended holds no records.
fn remove_unfinished(disk: &dyn Disk) -> Result<(), Error> {
    let names = disk.list().map_err(|e| Error::io("read the directory", disk.path(), e))?;
    for name in names.iter().filter(|name| name.ends_with(NEW_SUFFIX)) {
        disk.remove(name).map_err(|e| Error::io("remove", disk.path().join(name), e))?;
    }
    Ok(())
}

/// Cuts a segment that failed where it was sealed, and makes that durable also where it looks cut
/// already: the cut while healing may be in the cache alone. From now on compaction may take the
/// seal away, and then nothing else keeps out what stood behind it.
fn cut_sealed(disk: &dyn Disk, segment: &Segment) -> Result<(), Error> {
    let cut = disk.open(&segment.name, Mode::Edit).and_then(|file| {
        if segment.size > segment.end_offset {
            file.truncate(segment.end_offset)?;
        }
        file.sync()
    });
    cut.map_err(|e| Error::io("repair", disk.path().join(&segment.name), e))
}

/// Cuts what stands behind the last batch and makes the last batch durable.
fn settle(disk: &dyn Disk, segment: &Segment) -> io::Result<u64> {
    let cut = segment.size.saturating_sub(segment.end_offset);
    // Also behind the mark of a clean shutdown: when the sync of the mark itself failed, the mark is
    // read from the cache and is not on the disk.
    let file = disk.open(&segment.name, Mode::Edit)?;
    if cut > 0 {
        file.truncate(segment.end_offset)?;
    }
    if let Some(Span { offset, len, .. }) = segment.last {
        // The last batch may stand in the page cache alone. After a failed sync the kernel calls
        // such pages clean and a new sync writes nothing, so they are written again first.
        let len = usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?;
        write_full(&*file, offset, &read_full(&*file, offset, len)?)?;
    }
    file.sync()?;
    Ok(cut)
}
