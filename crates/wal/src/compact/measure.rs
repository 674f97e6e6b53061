//! How much of each sealed segment is still needed.
//!
//! Reads, changes nothing. Invariant: only segments behind which another one has its name are
//! measured: no batch goes into them any more.

use super::Bench;
use super::format::{KIND_RETIRED, Kept, Range, Retired};
use super::scan::first_of;
use crate::archive::format::KIND_ARCHIVED;
use crate::disk::{Disk, Mode, read_full};
use crate::error::Error;
use crate::flush::lock;
use crate::format::{Frame, HEADER_BYTES, Head, Header, KIND_FIRST_USER, KIND_SHUTDOWN, KIND_TRAILER};
use crate::index::Extent;
use crate::read::{check, stretch};
use crate::survey::segment_names;
use std::collections::BTreeSet;
use tinkerbell_core::port::Needed;
use tinkerbell_core::words::{Lsn, TaskId};

/// A sealed segment in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Measured {
    pub(crate) name: String,
    pub(crate) epoch: u64,
    pub(crate) first: u64,
    /// The number behind the last one.
    pub(crate) end: u64,
    pub(crate) chain: Head,
    /// The chain's head behind it.
    pub(crate) chain_end: Head,
    pub(crate) created_ms: u64,
    /// The newest number that readers saw before compaction; 0 when there was none.
    pub(crate) tip: u64,
    /// Records that earlier compactions dropped.
    pub(crate) dropped: u64,
    /// The file's length.
    pub(crate) size: u64,
    /// Bytes of frames.
    pub(crate) total: u64,
    /// Bytes of frames that are needed.
    pub(crate) live: u64,
    pub(crate) extents: Vec<Extent>,
}

/// Says which frames stay.
pub(crate) struct Keeps<'a> {
    pub(crate) needed: &'a Needed,
    /// Compacted segments that count and are not about to be replaced.
    pub(crate) vouched: BTreeSet<String>,
    /// Records that tell of archiving count from this number on; what they say is cumulative.
    pub(crate) noted: u64,
}

impl Keeps<'_> {
    pub(crate) fn keeps(&self, frame: &Frame<'_>) -> bool {
        match frame.kind {
            KIND_FIRST_USER.. => (self.needed)(Lsn(frame.lsn), frame.kind, (frame.task != 0).then_some(TaskId(frame.task))),
            // They tell of batches and closings, which the range in the new header replaces.
            KIND_TRAILER | KIND_SHUTDOWN => false,
            KIND_RETIRED => Retired::decode(frame.payload).is_none_or(|retired| self.vouched.contains(&retired.range.name())),
            KIND_ARCHIVED => frame.lsn >= self.noted,
            _ => true,
        }
    }
}

/// The head of a segment's file, plain or compacted.
struct Front {
    epoch: u64,
    first: u64,
    chain: Head,
    created_ms: u64,
    tip: u64,
    dropped: u64,
    size: u64,
}

/// Measures all sealed segments, oldest first. Records of archiving before `noted` are not needed.
pub(crate) fn measure(bench: &Bench, needed: &Needed, noted: u64) -> Result<Vec<Measured>, Error> {
    // Nothing is copied or dropped from a journal that is not known to be whole.
    bench.old.all(&|| bench.goes_on())?;
    // The directory first: when it shows a later segment, the index has all of the earlier ones.
    let names = segment_names(&*bench.disk)?;
    let Some(active) = names.iter().rfind(|name| first_of(name).is_some()) else { return Ok(Vec::new()) };
    let mut segments = lock(&bench.index).segments();
    segments.retain(|extents| extents.first().is_some_and(|extent| *extent.segment < **active));
    let vouched = segments.iter().flatten().map(|extent| extent.segment.to_string()).filter(|name| Range::of_name(name).is_some());
    let keeps = Keeps { needed, vouched: vouched.collect(), noted };
    let mut out: Vec<Measured> = Vec::with_capacity(segments.len());
    for extents in segments {
        let one = one(bench, extents, &keeps)?;
        if let Some(before) = out.last_mut() {
            join(before, one.first, one.chain)?;
        }
        out.push(one);
    }
    if let Some(last) = out.last_mut() {
        let next = front(&*bench.disk, active)?;
        join(last, next.first, next.chain)?;
    }
    Ok(out)
}

/// The chain behind a segment is the one that the next segment begins with.
fn join(before: &mut Measured, first: u64, chain: Head) -> Result<(), Error> {
    if before.end != first {
        let why = format!("the next segment begins at record {first}");
        return Err(Error::Corrupt { lsn: before.end, file: before.name.clone(), offset: before.size, why });
    }
    before.chain_end = chain;
    Ok(())
}

fn one(bench: &Bench, extents: Vec<Extent>, keeps: &Keeps<'_>) -> Result<Measured, Error> {
    let name = extents.first().map(|extent| extent.segment.to_string()).unwrap_or_default();
    let front = front(&*bench.disk, &name)?;
    let mut found = Measured {
        epoch: front.epoch,
        first: front.first,
        end: extents.last().map_or(front.first, |extent| extent.end),
        chain: front.chain,
        chain_end: front.chain,
        created_ms: front.created_ms,
        tip: front.tip,
        dropped: front.dropped,
        size: front.size,
        total: extents.iter().map(|extent| extent.len).sum(),
        live: 0,
        extents: Vec::new(),
        name,
    };
    let file = bench.disk.open(&found.name, Mode::Read).map_err(|e| Error::io("read", bench.disk.path().join(&found.name), e))?;
    for extent in &extents {
        bench.goes_on()?;
        let bytes = stretch(&*bench.disk, &*file, &found.name, extent)?;
        for frame in check(&bytes, &found.name, extent)? {
            if frame.kind >= KIND_FIRST_USER {
                found.tip = found.tip.max(frame.lsn);
            }
            if keeps.keeps(&frame) {
                found.live = found.live.saturating_add(frame.size() as u64);
            }
        }
    }
    found.extents = extents;
    Ok(found)
}

fn front(disk: &dyn Disk, name: &str) -> Result<Front, Error> {
    let failed = |e| Error::io("read", disk.path().join(name), e);
    let file = disk.open(name, Mode::Read).map_err(failed)?;
    let size = file.size().map_err(failed)?;
    let bytes = read_full(&*file, 0, HEADER_BYTES).map_err(failed)?;
    if Range::of_name(name).is_some() {
        let Kept { range, tip, dropped, created_ms, chain, .. } = super::scan::header(name, &bytes, 0)?;
        return Ok(Front { epoch: range.epoch, first: range.first, chain, created_ms, tip, dropped, size });
    }
    let Header { epoch, first_lsn, chain, created_ms, .. } = Header::decode(&bytes).map_err(|invalid| {
        let why = format!("the segment's header is damaged: {invalid}");
        Error::Corrupt { lsn: first_of(name).unwrap_or(0), file: name.to_owned(), offset: 0, why }
    })?;
    Ok(Front { epoch, first: first_lsn, chain, created_ms, tip: 0, dropped: 0, size })
}
