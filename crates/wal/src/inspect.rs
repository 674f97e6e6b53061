//! Looking at a journal from outside, for `tinkerbell wal stat | verify | dump | explain`.
//!
//! Read-only and without the lock: a daemon may be running, whose half-written last batch then
//! looks torn. Invariant: nothing in the directory is changed.

mod explain;

pub use explain::{Explained, Sync, explain};

use crate::depot::{RESERVE, SPARE};
use crate::disk::{Disk, Mode, RealDisk};
use crate::error::Error;
use crate::format::{FLAG_BATCH_END, FLAG_BLOB, Frame, KIND_FIRST_USER, Trailer};
use crate::scan::frames;
use crate::seal::{Opened, Opener};
use crate::survey::{NEW_SUFFIX, Survey, survey};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use tinkerbell_core::port::Keyring;
use tinkerbell_core::words::{Lsn, TaskId};

/// How often a look starts again when a daemon removed a segment underneath it.
const ATTEMPTS: u32 = 5;

/// A journal in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stat {
    /// Segments in order.
    pub segments: Vec<SegmentStat>,
    /// The newest record that readers see; 0 when there is none.
    pub tip: Lsn,
    /// The number that comes next.
    pub next: Lsn,
    /// How often the journal was opened.
    pub epoch: u64,
    /// Batches, each one sync.
    pub batches: u64,
    /// Records without batch trailers.
    pub records: u64,
    /// Bytes in all segments.
    pub size_bytes: u64,
    /// Whether it was closed in order; false while a daemon runs.
    pub clean: bool,
    /// Bytes behind the last batch that were never acknowledged.
    pub torn_bytes: u64,
    /// The newest number that a watermark protects from being taken for torn; 0 when there is none.
    pub watermark: Lsn,
    /// The first damage, as a message; what lies behind it was not counted.
    pub damage: Option<String>,
    /// Whole segment files that stand ready.
    pub spares: usize,
    /// Size of the reserve that stands ready; `None` when it is in use or was never taken.
    pub reserve_bytes: Option<u64>,
    /// What the disk has free.
    pub free_bytes: u64,
    /// Whether this file system makes a journal fill its segments ahead of the records.
    pub preallocates: bool,
}

/// One segment in figures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentStat {
    /// The file's name.
    pub file: String,
    /// The opening that made it.
    pub epoch: u64,
    /// The random number that its records carry.
    pub incarnation: u64,
    /// Its first number.
    pub first: Lsn,
    /// Its last number, batch trailers included; one less than `first` when it is empty.
    pub last: Lsn,
    /// Batches.
    pub batches: u64,
    /// Records without batch trailers.
    pub records: u64,
    /// The file's size.
    pub size_bytes: u64,
    /// When it was made, milliseconds since the epoch; of a compacted one, when the first was made
    /// that it stands for.
    pub created_ms: u64,
    /// Records that compaction dropped from it; `None` when it is as it was written.
    pub dropped: Option<u64>,
}

/// The result of checking every checksum, number and chain link.
#[derive(Debug)]
#[non_exhaustive]
pub struct Verified {
    /// Batches that stand.
    pub batches: u64,
    /// Records that stand, without batch trailers.
    pub records: u64,
    /// The newest record that readers see.
    pub tip: Lsn,
    /// The chain's head, hexadecimal.
    pub head: String,
    /// Bytes behind the last batch that were never acknowledged, and why they do not count.
    pub torn: Option<(u64, String)>,
    /// The first damage; below the checkpoint it need not keep the journal from being opened.
    pub damage: Option<Error>,
    /// Harmless oddities, one line each.
    pub notes: Vec<String>,
}

/// Which records to show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// From this number on.
    pub from: Lsn,
    /// At most this many.
    pub limit: usize,
    /// Of tasks whose id, in hexadecimal, begins so.
    pub task: Option<String>,
    /// Also trailers and marks of the journal itself.
    pub own: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self { from: Lsn(1), limit: usize::MAX, task: None, own: false }
    }
}

/// One record with its place on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub lsn: Lsn,
    /// The segment's name.
    pub file: String,
    /// Where in the segment.
    pub offset: u64,
    /// Type number.
    pub kind: u16,
    /// Payload version.
    pub schema: u8,
    /// Whose it is.
    pub task: Option<TaskId>,
    /// Whether the payload is a `BlobRef` in binary.
    pub blob: bool,
    /// Wall time of the batch that holds it, milliseconds since the epoch; 0 in a compacted segment,
    /// which has no batches.
    pub batch_wall_ms: u64,
    /// The bytes; empty when they are sealed.
    pub payload: Bytes,
    /// Why the payload can not be shown, as a message.
    pub sealed: Option<String>,
}

/// Counts a journal.
///
/// # Errors
/// When the directory or a segment can not be read. Damage is part of the answer, not an error.
pub fn stat(dir: &Path) -> Result<Stat, Error> {
    let found = look(dir, &mut |_, _, _| {})?;
    let disk = RealDisk::existing(dir.to_owned());
    let failed = |e| Error::io("read the directory", dir, e);
    let (names, ground) = (disk.list().map_err(failed)?, disk.ground().map_err(failed)?);
    let segments: Vec<SegmentStat> = found
        .segments
        .iter()
        .map(|segment| SegmentStat {
            file: segment.name.clone(),
            epoch: segment.header.epoch,
            incarnation: segment.header.incarnation,
            first: Lsn(segment.header.first_lsn),
            last: Lsn(segment.last.map_or(segment.header.first_lsn.saturating_sub(1), |span| span.last)),
            batches: segment.batches,
            records: segment.records,
            size_bytes: segment.size,
            created_ms: segment.header.created_ms,
            dropped: segment.dropped,
        })
        .collect();
    Ok(Stat {
        tip: Lsn(found.tip),
        next: Lsn(found.next),
        epoch: found.epoch,
        batches: segments.iter().map(|s| s.batches).sum(),
        records: segments.iter().map(|s| s.records).sum(),
        size_bytes: segments.iter().map(|s| s.size_bytes).sum(),
        clean: found.damage.is_none() && found.clean(),
        torn_bytes: torn_bytes(&found),
        watermark: Lsn(found.segments.iter().map(|segment| segment.watermark).max().unwrap_or(0)),
        damage: found.damage.map(|damage| damage.to_string()),
        segments,
        spares: names.iter().filter(|name| name.starts_with(SPARE) && !name.ends_with(NEW_SUFFIX)).count(),
        reserve_bytes: disk.open(RESERVE, Mode::Read).and_then(|file| file.size()).ok(),
        free_bytes: ground.free_bytes,
        preallocates: ground.preallocate,
    })
}

/// Checks every checksum, number and chain link.
///
/// # Errors
/// When the directory or a segment can not be read. Damage is part of the answer, not an error.
pub fn verify(dir: &Path) -> Result<Verified, Error> {
    let found = look(dir, &mut |_, _, _| {})?;
    Ok(Verified {
        batches: found.segments.iter().map(|s| s.batches).sum(),
        records: found.segments.iter().map(|s| s.records).sum(),
        tip: Lsn(found.tip),
        head: found.head.iter().map(|byte| format!("{byte:02x}")).collect(),
        torn: found.torn.clone().map(|why| (torn_bytes(&found), why)),
        notes: Vec::new(),
        damage: found.damage,
    })
}

/// The types of records in a journal.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kinds {
    /// Type and payload version, each with the number of its first record.
    pub found: BTreeMap<(u16, u8), Lsn>,
    /// Records that stand, without those of the journal itself.
    pub records: u64,
    /// The first damage, as a message; what lies behind it was not looked at.
    pub damage: Option<String>,
}

/// Lists the types of records that stand, without those of the journal itself; for a release that
/// must know whether it can read them all.
///
/// # Errors
/// When the directory or a segment can not be read. Damage is part of the answer, not an error.
pub fn kinds(dir: &Path) -> Result<Kinds, Error> {
    let mut found: BTreeMap<(u16, u8), Lsn> = BTreeMap::new();
    // A look that had to start again comes by the same records twice.
    let (mut records, mut last) = (0_u64, 0_u64);
    let seen = look(dir, &mut |_, _, bytes| {
        let whole = frames(bytes).filter_map(|(_, frame)| frame.ok());
        for frame in whole.filter(|frame| frame.kind >= KIND_FIRST_USER && frame.flags & FLAG_BATCH_END == 0) {
            found.entry((frame.kind, frame.schema)).or_insert(Lsn(frame.lsn));
            records = records.saturating_add(u64::from(frame.lsn > last));
            last = last.max(frame.lsn);
        }
    })?;
    Ok(Kinds { found, records, damage: seen.damage.map(|damage| damage.to_string()) })
}

/// Lists records that stand, up to the first damage, which [`verify`] names. Sealed ones are opened
/// with `keyring` as far as it has their keys.
///
/// # Errors
/// When the directory or a segment can not be read.
pub fn dump(dir: &Path, filter: &Filter, keyring: Option<&dyn Keyring>) -> Result<Vec<Entry>, Error> {
    let mut out: Vec<Entry> = Vec::new();
    stream(dir, filter, keyring, &mut |entry| out.push(entry))?;
    Ok(out)
}

/// As [`dump`], record by record: at most one segment is in memory at a time.
///
/// # Errors
/// When the directory or a segment can not be read.
pub fn stream(dir: &Path, filter: &Filter, keyring: Option<&dyn Keyring>, each: &mut dyn FnMut(Entry)) -> Result<(), Error> {
    let mut opener = Opener::new(keyring);
    let (mut newest, mut given) = (0, 0_usize);
    look(dir, &mut |file, span, bytes| {
        // A look that had to start again comes by the same batches twice.
        let seen = span.last <= newest;
        newest = newest.max(span.last);
        if seen || span.last < filter.from.0 || given >= filter.limit {
            return;
        }
        let whole = || frames(bytes).filter_map(|(offset, frame)| Some((offset, frame.ok()?)));
        let trailer = whole().last().filter(|(_, frame)| frame.is_trailer()).and_then(|(_, frame)| Trailer::decode(frame.payload));
        for (offset, frame) in whole() {
            let own = frame.kind < KIND_FIRST_USER || frame.flags & FLAG_BATCH_END != 0;
            let of_task =
                || filter.task.as_ref().is_none_or(|prefix| frame.task != 0 && TaskId(frame.task).to_string().starts_with(prefix.as_str()));
            if frame.lsn < filter.from.0 || (own && !filter.own) || given >= filter.limit || !of_task() {
                continue;
            }
            given = given.saturating_add(1);
            each(entry(&mut opener, (file, span.offset.saturating_add(offset)), &frame, trailer.map_or(0, |t| t.wall_ms)));
        }
    })?;
    Ok(())
}

/// A record that stands at this place.
fn entry(opener: &mut Opener<'_>, place: (&str, u64), frame: &Frame<'_>, batch_wall_ms: u64) -> Entry {
    let (payload, sealed) = match opener.open(frame) {
        Ok(Opened::Plain(payload)) => (payload, None),
        Ok(Opened::Erased) => (Bytes::new(), Some(format!("erased, key {} was destroyed", frame.key_id))),
        Err(Error::Misfit { key, .. }) => (Bytes::new(), Some(format!("sealed, key {key} does not fit"))),
        Err(_) => (Bytes::new(), Some(format!("sealed, key {} is missing", frame.key_id))),
    };
    Entry {
        lsn: Lsn(frame.lsn),
        file: place.0.to_owned(),
        offset: place.1,
        kind: frame.kind,
        schema: frame.schema,
        task: (frame.task != 0).then_some(TaskId(frame.task)),
        blob: frame.flags & FLAG_BLOB != 0,
        batch_wall_ms,
        payload,
        sealed,
    }
}

fn torn_bytes(found: &Survey) -> u64 {
    let last = found.segments.last().filter(|_| found.torn.is_some());
    last.map_or(0, |segment| segment.size.saturating_sub(segment.end_offset))
}

fn look(dir: &Path, on_batch: &mut dyn FnMut(&str, crate::scan::Span, &[u8])) -> Result<Survey, Error> {
    let disk = RealDisk::existing(dir.to_owned());
    let mut left = ATTEMPTS;
    loop {
        left = left.saturating_sub(1);
        match survey(&disk, on_batch) {
            Err(Error::Io { source, .. }) if left > 0 && gone(&disk, &source) => {}
            other => return other,
        }
    }
}

/// Whether a file vanished while the directory still stands: an opening daemon tidies up.
fn gone(disk: &dyn Disk, error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound && disk.list().is_ok()
}
