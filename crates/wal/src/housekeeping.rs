//! What a journal does about its old segments while it runs: compaction, and the archive before it.
//!
//! It drives `compact` and `archive` and decides nothing that they decide. Copying and renaming run
//! off the runtime; the records of both acts go the way of all records. Invariant: where an archive
//! is configured, nothing is dropped from a segment before a manifest in the archive names it.

use crate::archive::format::{Entry, KIND_ARCHIVED, archived};
use crate::archive::{Archive, Archived};
use crate::compact::format::{KIND_RETIRED, Range};
use crate::compact::{self, Bench, Keeps, Measured, Worth};
use crate::disk::{Mode, read_full};
use crate::error::Error;
use crate::format::{FRAME_BYTES, Frame};
use crate::queue::Chunk;
use bytes::Bytes;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{BlobStore, Compaction, Needed};
use tokio::sync::{Mutex, oneshot};

/// Segments that one manifest names at most.
const RUN: usize = 16;

/// The state of housekeeping.
pub(crate) struct Housekeeping {
    bench: Bench,
    worth: Worth,
    clock: Arc<dyn Clock>,
    /// Whether everything happens while a future is polled.
    stepped: bool,
    /// Held by the one compaction or archiving at a time.
    turn: Mutex<()>,
    archive: OnceLock<Mutex<Archive>>,
    /// The newest record that tells of archiving; 0 when this process wrote none.
    noted: AtomicU64,
}

impl Housekeeping {
    pub(crate) fn new(bench: Bench, worth: Worth, clock: Arc<dyn Clock>, stepped: bool) -> Self {
        let (turn, archive, noted) = (Mutex::new(()), OnceLock::new(), AtomicU64::new(0));
        Self { bench, worth, clock, stepped, turn, archive, noted }
    }

    pub(crate) fn archive_to(&self, store: Arc<dyn BlobStore>) {
        let first = self.archive.set(Mutex::new(Archive::new(store)));
        if first.is_err() {
            tracing::warn!("the journal has an archive already; another one was not taken");
        }
    }

    /// A future that is dropped before a run's retirement record is durable has not touched that run.
    pub(crate) async fn compact(&self, needed: Needed) -> Result<Compaction, Fault> {
        let turn = self.turn.lock().await;
        if self.bench.depot.holds_compaction() {
            return Ok(Compaction::default());
        }
        let (of, noted) = (needed.clone(), self.noted.load(Ordering::Relaxed));
        let mut segments = self.act(move |bench| compact::measure(bench, &of, noted)).await?;
        let (mut done, mut left) = (Compaction::default(), self.worth.call_bytes);
        while let Some(run) = compact::plan(&segments, &self.worth, left) {
            self.archive(segments.get(..run.end).unwrap_or_default()).await?;
            let vouched = segments.iter().map(|segment| segment.name.clone()).filter(|name| Range::of_name(name).is_some()).collect();
            let group = segments.get(run.clone()).unwrap_or_default().to_vec();
            let (of, from, noted) = (needed.clone(), group.clone(), self.noted.load(Ordering::Relaxed));
            let rewrite = move |bench: &Bench| compact::rewrite(bench, &from, Keeps { needed: &of, vouched, noted });
            let Some(fresh) = self.act(rewrite).await? else { break };
            self.append(KIND_RETIRED, &fresh.retired.encode()).await?;
            let from = group.clone();
            let segment = self.act(move |bench| compact::put_in_place(bench, fresh, &from)).await?;
            compact::count(&mut done, &group, &segment);
            left = left.saturating_sub(segment.total.max(1));
            segments.splice(run, [segment]);
        }
        drop(turn);
        Ok(done)
    }

    pub(crate) async fn archive_sealed(&self) -> Result<Archived, Fault> {
        let turn = self.turn.lock().await;
        let everything: Needed = Arc::new(|_, _, _| true);
        let segments = self.act(move |bench| compact::measure(bench, &everything, 0)).await?;
        let done = self.archive(&segments).await?;
        drop(turn);
        Ok(done)
    }

    async fn archive(&self, segments: &[Measured]) -> Result<Archived, Fault> {
        let Some(archive) = self.archive.get() else { return Ok(Archived::default()) };
        let mut archive = archive.lock().await;
        let (lacking, through) = archive.lacks(segments).await?;
        let mut done = Archived { through, ..Archived::default() };
        for some in lacking.chunks(RUN) {
            let mut entries = Vec::with_capacity(some.len());
            let stored = self.store(&archive, some, &mut entries).await;
            // What was stored before a failure counts, so that a store that is often away is filled at last.
            if let Some(last) = entries.last() {
                done.through = last.last;
                done.segments = done.segments.saturating_add(entries.len() as u64);
                done.size_bytes = done.size_bytes.saturating_add(entries.iter().map(|entry| entry.size).sum());
                let (manifest, blob) = archive.seal(entries, self.clock.now().wall_ms).await?;
                let lsn = self.append(KIND_ARCHIVED, &archived(&manifest, &blob)).await?;
                self.noted.store(lsn, Ordering::Relaxed);
            }
            stored?;
        }
        Ok(done)
    }

    async fn store(&self, archive: &Archive, segments: &[Measured], entries: &mut Vec<Entry>) -> Result<(), Fault> {
        for segment in segments {
            let of = segment.clone();
            let bytes = self.act(move |bench| whole(bench, &of)).await?;
            entries.push(archive.store(segment, bytes).await?);
        }
        Ok(())
    }

    async fn act<T: Send + 'static>(&self, act: impl FnOnce(&Bench) -> Result<T, Error> + Send + 'static) -> Result<T, Fault> {
        let bench = self.bench.clone();
        if self.stepped {
            return Ok(bench.act(act)?);
        }
        let path = self.bench.disk.path();
        match tokio::task::spawn_blocking(move || bench.act(act)).await {
            Ok(result) => Ok(result?),
            Err(e) => Err(Error::io("work in", path, std::io::Error::other(e)).into()),
        }
    }

    /// Makes a record of the journal's own durable and gives its number.
    async fn append(&self, kind: u16, payload: &[u8]) -> Result<u64, Fault> {
        let mut bytes = Vec::with_capacity(FRAME_BYTES.saturating_add(payload.len()));
        Frame { lsn: 0, incarnation: 0, kind, schema: 1, flags: 0, key_id: 0, task: 0, payload }.push(&mut bytes);
        let (owner, answer) = oneshot::channel();
        let first = self.bench.queue.push(Chunk { bytes, records: 1, owner })?;
        let lost = |_| Err(Error::Poisoned { why: "its flusher ended unexpectedly".to_owned() }.into());
        answer.await.unwrap_or_else(lost)?;
        Ok(first)
    }
}

/// A sealed segment up to its last batch: what stands behind that never counted.
fn whole(bench: &Bench, segment: &Measured) -> Result<Bytes, Error> {
    let failed = |e| Error::io("read", bench.disk.path().join(&segment.name), e);
    let end = segment.extents.last().map_or(segment.size, |extent| extent.offset.saturating_add(extent.len));
    let file = bench.disk.open(&segment.name, Mode::Read).map_err(failed)?;
    let bytes = read_full(&*file, 0, usize::try_from(end).unwrap_or(usize::MAX)).map_err(failed)?;
    Ok(Bytes::from(bytes))
}
