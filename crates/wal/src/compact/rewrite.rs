//! Writing one compacted segment and putting it in the place of those that it stands for.
//!
//! Two halves: between them the caller makes the retirement record durable. Invariant: the first half
//! touches nothing but a new file, and the second removes old files only after the directory that
//! names the new one is synced.

use super::Bench;
use super::format::{Kept, Range, Retired};
use super::measure::{Keeps, Measured};
use super::scan::Stretches;
use crate::disk::{Disk, DiskFile, Mode, read_full, write_full};
use crate::error::Error;
use crate::flush::lock;
use crate::format::{GENESIS, HEADER_BYTES, KIND_FIRST_USER};
use crate::index::Extent;
use crate::read::{check, stretch};
use crate::scan::Span;
use crate::survey::NEW_SUFFIX;
use crate::writer::is_full;
use sha2::{Digest, Sha256};
use std::io;

/// Bytes that are gathered before they are written, and read at once for the checksum.
const CHUNK_BYTES: usize = 1 << 20;

/// A compacted segment that is durable and does not count yet.
pub(crate) struct Fresh {
    /// What the retirement record says.
    pub(crate) retired: Retired,
    /// The segment as it will be.
    pub(crate) segment: Measured,
    spans: Vec<Span>,
    new: New,
}

/// A file that nobody counts on: it goes when the work on it is given up.
struct New {
    bench: Bench,
    name: String,
}

impl Drop for New {
    fn drop(&mut self) {
        // Where the gate is closed or in use, the next opening removes the file instead.
        let open = self.bench.gate.try_lock().is_ok_and(|closed| !*closed);
        if open && !self.name.is_empty() {
            give_up(&*self.bench.disk, &self.name);
        }
    }
}

fn give_up(disk: &dyn Disk, new: &str) {
    if let Err(error) = disk.remove(new) {
        tracing::warn!(%error, file = new, "a file that compaction gave up stays until the journal is opened again");
    }
}

/// Copies what is needed of `group` into a new file and syncs it.
pub(crate) fn rewrite(bench: &Bench, group: &[Measured], mut keeps: Keeps<'_>) -> Result<Option<Fresh>, Error> {
    let (Some(first), Some(last)) = (group.first(), group.last()) else { return Ok(None) };
    let range = Range { epoch: first.epoch, first: first.first, last: last.end.saturating_sub(1), generation: bench.queue.newest()? };
    keeps.vouched.retain(|name| group.iter().all(|segment| segment.name != *name));
    let name = range.name();
    let new = format!("{name}{NEW_SUFFIX}");
    let failed = |e| full_or_failed(bench, &new, e);
    let file = bench.disk.open(&new, Mode::Create).map_err(failed)?;
    let written = write(bench, group, &keeps, (range, &*file));
    let written = written.and_then(|(kept, spans)| Ok((digest(&*file).map_err(failed)?, kept, spans)));
    let (sha256, kept, spans) = written.inspect_err(|_| give_up(&*bench.disk, &new))?;
    let retired = Retired { range, kept: kept.records, dropped: kept.dropped, chain_end: kept.chain_end, sha256 };
    let segment = measured(&kept, name, &spans);
    Ok(Some(Fresh { retired, segment, spans, new: New { bench: bench.clone(), name: new } }))
}

fn write(bench: &Bench, group: &[Measured], keeps: &Keeps<'_>, to: (Range, &dyn DiskFile)) -> Result<(Kept, Vec<Span>), Error> {
    let (range, file) = to;
    let (waiting, stretches) = (Vec::new(), Stretches::new(range.first));
    let mut copy = Copy { file, offset: HEADER_BYTES as u64, waiting, stretches, kept: 0, gone: 0 };
    for segment in group {
        copy.segment(bench, segment, keeps)?;
    }
    let failed = |e| full_or_failed(bench, &range.name(), e);
    copy.flush().map_err(failed)?;
    let kept = Kept {
        range,
        tip: group.iter().map(|segment| segment.tip).max().unwrap_or(0),
        records: copy.kept,
        dropped: group.iter().map(|segment| segment.dropped).sum::<u64>().saturating_add(copy.gone),
        body_bytes: copy.offset.saturating_sub(HEADER_BYTES as u64),
        created_ms: group.first().map_or(0, |segment| segment.created_ms),
        chain: group.first().map_or(GENESIS, |segment| segment.chain),
        chain_end: group.last().map_or(GENESIS, |segment| segment.chain_end),
    };
    write_full(file, 0, &kept.encode()).and_then(|()| file.sync()).map_err(failed)?;
    Ok((kept, copy.stretches.end(range.last)))
}

fn measured(kept: &Kept, name: String, spans: &[Span]) -> Measured {
    let Kept { range, tip, dropped, body_bytes, created_ms, chain, chain_end, .. } = *kept;
    let segment = std::sync::Arc::<str>::from(name.as_str());
    let extents = spans.iter().map(|span| Extent {
        segment: std::sync::Arc::clone(&segment),
        first: span.first,
        end: span.last.saturating_add(1),
        offset: span.offset,
        len: span.len,
        sparse: true,
        unread: false,
    });
    Measured {
        epoch: range.epoch,
        first: range.first,
        end: range.last.saturating_add(1),
        chain,
        chain_end,
        created_ms,
        tip,
        dropped,
        size: body_bytes.saturating_add(HEADER_BYTES as u64),
        total: body_bytes,
        live: body_bytes,
        extents: extents.collect(),
        name,
    }
}

struct Copy<'a> {
    file: &'a dyn DiskFile,
    offset: u64,
    waiting: Vec<u8>,
    stretches: Stretches,
    kept: u64,
    gone: u64,
}

impl Copy<'_> {
    fn segment(&mut self, bench: &Bench, segment: &Measured, keeps: &Keeps<'_>) -> Result<(), Error> {
        let path = || bench.disk.path().join(&segment.name);
        let file = bench.disk.open(&segment.name, Mode::Read).map_err(|e| Error::io("read", path(), e))?;
        for extent in &segment.extents {
            bench.goes_on()?;
            let bytes = stretch(&*bench.disk, &*file, &segment.name, extent)?;
            let mut rest = bytes.as_slice();
            for frame in check(&bytes, &segment.name, extent)? {
                let Some((whole, tail)) = rest.split_at_checked(frame.size()) else { break };
                rest = tail;
                if keeps.keeps(&frame) {
                    self.stretches.push(frame.lsn, frame.kind, whole.len() as u64);
                    self.waiting.extend_from_slice(whole);
                    self.kept = self.kept.saturating_add(1);
                } else if frame.kind >= KIND_FIRST_USER {
                    self.gone = self.gone.saturating_add(1);
                }
            }
            if self.waiting.len() >= CHUNK_BYTES {
                self.flush().map_err(|e| full_or_failed(bench, &segment.name, e))?;
            }
        }
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        write_full(self.file, self.offset, &self.waiting)?;
        self.offset = self.offset.saturating_add(self.waiting.len() as u64);
        self.waiting.clear();
        Ok(())
    }
}

fn full_or_failed(bench: &Bench, file: &str, e: io::Error) -> Error {
    if is_full(&e) {
        return Error::DiskFull { needed: CHUNK_BYTES as u64, file: file.to_owned() };
    }
    Error::io("compact into", bench.disk.path().join(file), e)
}

fn digest(file: &dyn DiskFile) -> io::Result<[u8; 32]> {
    let mut hash = Sha256::new();
    let mut at = 0_u64;
    loop {
        let chunk = read_full(file, at, CHUNK_BYTES)?;
        if chunk.is_empty() {
            return Ok(hash.finalize().into());
        }
        hash.update(&chunk);
        at = at.saturating_add(chunk.len() as u64);
    }
}

/// Lets a compacted segment count whose retirement record is durable, and unlinks `group`.
pub(crate) fn put_in_place(bench: &Bench, mut fresh: Fresh, group: &[Measured]) -> Result<Measured, Error> {
    let name = &fresh.segment.name;
    let new = std::mem::take(&mut fresh.new.name);
    if let Err(e) = bench.disk.rename(&new, name) {
        give_up(&*bench.disk, &new);
        return Err(Error::io("rename a compacted segment to", bench.disk.path().join(name), e));
    }
    bench.disk.sync_dir().map_err(|e| Error::io("sync", bench.disk.path(), e))?;
    lock(&bench.index).replace(fresh.segment.first, fresh.segment.end, name, &fresh.spans);
    for segment in group {
        // A file that stays is removed at the next opening, which goes by the compacted one.
        if let Err(error) = bench.depot.retire(&segment.name) {
            tracing::warn!(%error, file = segment.name, "a compacted segment's old file stays until the journal is opened again");
        }
    }
    Ok(fresh.segment)
}
