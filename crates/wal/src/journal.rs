//! The journal itself: opening, appending, reading, closing.
//!
//! It joins queue, writer and index and adds nothing to their rules. Invariant: `durable` completes
//! only after the sync that covers the append returned, and readers see only what is durable.

use crate::checkpoint;
use crate::disk::{Disk, Lock, RealDisk};
use crate::error::Error;
use crate::format::{FLAG_BLOB, FRAME_BYTES, Frame, KIND_FIRST_USER};
use crate::index::Index;
use crate::options::Options;
use crate::queue::{Batch, Chunk, Limits, Queue, Work};
use crate::read::read;
use crate::recover::{Recovered, Recovery, recover};
use crate::writer::{Tools, WriteError, Writer};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use tinkerbell_core::clock::{Clock, Entropy};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Appended, Compaction, Journal, JournalState, Needed, NewRecord, Record, Room};
use tinkerbell_core::words::Lsn;
use tokio::sync::oneshot;

type Held = Arc<Mutex<Option<Box<dyn Send + Sync>>>>;

/// An open journal; the only writer of its directory.
///
/// Dropping it without [`Journal::close`] writes what is queued, leaves no mark of a clean
/// shutdown, and gives the directory free.
pub struct Wal {
    queue: Arc<Queue>,
    index: Arc<Mutex<Index>>,
    disk: Arc<dyn Disk>,
    held: Held,
    epoch: u64,
    limits: Limits,
    recovery: Recovery,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("epoch", &self.epoch).field("recovery", &self.recovery).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Wal {
    /// Opens the journal in `options.dir`, making it when it is new: takes the lock, reads every
    /// segment, cuts a torn tail, and begins a segment of a new epoch. Blocks on the disk.
    ///
    /// # Errors
    /// When another process holds it, when acknowledged records are damaged or missing, when a
    /// newer release wrote it, or when the file system refuses; see [`Error`].
    pub fn open(options: Options, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Arc<Self>, Fault> {
        let disk = RealDisk::create(options.dir.clone()).map_err(|e| Error::io("create the directory", &options.dir, e))?;
        Ok(Self::open_on(Arc::new(disk), &options, clock, entropy)?)
    }

    /// As [`Wal::open`], on any [`Disk`]; `options.dir` is not used.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_on(disk: Arc<dyn Disk>, options: &Options, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Arc<Self>, Error> {
        let guard = match disk.lock().map_err(|e| Error::io("lock", disk.path().join("lock"), e))? {
            Lock::Held(guard) => guard,
            Lock::Taken { pid } => return Err(Error::Locked { dir: disk.path().to_owned(), pid }),
        };
        let Recovered { index, next, head, epoch, empty, report } = recover(&*disk)?;
        let epoch = epoch.saturating_add(1);
        let tools = Tools { disk: Arc::clone(&disk), clock, entropy };
        let writer = Writer::start(tools, options, epoch, next, head)?;
        remove_empty(&*disk, &empty)?;
        let limits = Limits { batch_bytes: options.batch_bytes, batch_records: options.batch_records, queue_bytes: options.queue_bytes };
        let flusher = Flusher {
            queue: Arc::new(Queue::new(next, limits)),
            index: Arc::new(Mutex::new(index)),
            held: Arc::new(Mutex::new(Some(guard))),
            writer,
        };
        let (queue, index, held) = (Arc::clone(&flusher.queue), Arc::clone(&flusher.index), Arc::clone(&flusher.held));
        let thread = std::thread::Builder::new()
            .name("wal-flusher".to_owned())
            .spawn(move || flusher.run())
            .map_err(|e| Error::io("start the flusher for", disk.path(), e))?;
        let flusher = Mutex::new(Some(thread));
        Ok(Arc::new(Self { queue, index, disk, held, epoch, limits, recovery: report, flusher }))
    }

    /// What opening found and did.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// Does what blocks on the disk off the runtime.
    async fn off<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Fault> {
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => Ok(result?),
            Err(e) => Err(Error::io("work in", self.disk.path(), std::io::Error::other(e)).into()),
        }
    }

    fn encode(&self, records: &[NewRecord]) -> Result<Vec<u8>, Error> {
        if let Some(own) = records.iter().find(|record| record.kind < KIND_FIRST_USER) {
            return Err(Error::ReservedKind(own.kind));
        }
        let size = records.iter().map(|record| FRAME_BYTES + record.payload.len()).sum();
        if size > self.limits.batch_bytes || records.len() > self.limits.batch_records {
            let (max_records, max_bytes) = (self.limits.batch_records, self.limits.batch_bytes);
            return Err(Error::TooLarge { records: records.len(), size, max_records, max_bytes });
        }
        let mut bytes = Vec::with_capacity(size);
        for record in records {
            let frame = Frame {
                lsn: 0,
                incarnation: 0,
                kind: record.kind,
                schema: record.schema,
                flags: if record.blob { FLAG_BLOB } else { 0 },
                key_id: 0,
                task: record.task.map_or(0, |task| task.0),
                payload: &record.payload,
            };
            frame.push(&mut bytes);
        }
        Ok(bytes)
    }
}

/// Empty segments of earlier openings tell nothing that the new one does not tell.
fn remove_empty(disk: &dyn Disk, empty: &[String]) -> Result<(), Error> {
    for name in empty {
        disk.remove(name).map_err(|e| Error::io("remove", disk.path().join(name), e))?;
    }
    Ok(())
}

impl Journal for Wal {
    fn append(&self, records: Vec<NewRecord>) -> Result<Appended, Fault> {
        if records.is_empty() {
            let newest = Lsn(self.queue.newest()?);
            return Ok(Appended { first: newest, last: newest, durable: Box::pin(async { Ok(()) }) });
        }
        let bytes = self.encode(&records)?;
        let (owner, answer) = oneshot::channel();
        let first = self.queue.push(Chunk { bytes, records: records.len(), owner })?;
        let last = first.saturating_add(records.len() as u64).saturating_sub(1);
        let durable = async move {
            let lost = |_| Err(Error::Poisoned { why: "its flusher ended unexpectedly".to_owned() }.into());
            answer.await.unwrap_or_else(lost)
        };
        Ok(Appended { first: Lsn(first), last: Lsn(last), durable: Box::pin(durable) })
    }

    fn read(&self, from: Lsn, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, Fault>> {
        let (index, disk) = (Arc::clone(&self.index), Arc::clone(&self.disk));
        let find = move |lsn| lock(&index).find(lsn);
        Box::pin(async move { self.off(move || read(&*disk, &find, from.0, limit)).await })
    }

    fn state(&self) -> JournalState {
        let tip = Lsn(lock(&self.index).tip());
        let room = self.queue.newest().map_or_else(|error| Room::ReadOnly(error.to_string()), |_| Room::Ample);
        JournalState { tip, epoch: self.epoch, bytes: lock(&self.index).bytes(), room }
    }

    fn checkpoint(&self, through: Lsn, image: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        let disk = Arc::clone(&self.disk);
        Box::pin(async move { self.off(move || checkpoint::write(&*disk, through.0, &image)).await })
    }

    fn restore(&self) -> BoxFuture<'_, Result<Option<(Lsn, Bytes)>, Fault>> {
        let disk = Arc::clone(&self.disk);
        Box::pin(async move {
            let found = self.off(move || checkpoint::read(&*disk)).await?;
            // One that stands for more than the journal holds belongs to another journal.
            Ok(found.map(|(through, image)| (Lsn(through), Bytes::from(image))).filter(|(through, _)| *through <= self.state().tip))
        })
    }

    fn compact(&self, _needed: Needed) -> BoxFuture<'_, Result<Compaction, Fault>> {
        Box::pin(async { Ok(Compaction::default()) })
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let (owner, answer) = oneshot::channel();
        self.queue.close(true, Some(owner));
        Box::pin(async move {
            let lost = |_| Err(Error::Poisoned { why: "its flusher ended unexpectedly".to_owned() }.into());
            answer.await.unwrap_or_else(lost)
        })
    }
}

impl Drop for Wal {
    fn drop(&mut self) {
        self.queue.close(false, None);
        if let Some(thread) = lock(&self.flusher).take()
            && thread.join().is_err()
        {
            tracing::error!("the journal's flusher had panicked");
        }
        lock(&self.held).take();
    }
}

/// The thread that writes.
struct Flusher {
    queue: Arc<Queue>,
    index: Arc<Mutex<Index>>,
    held: Held,
    writer: Writer,
}

impl Flusher {
    fn run(mut self) {
        // Should this thread ever panic, nobody may wait for it for ever.
        let watch = Watch(Some(Arc::clone(&self.queue)));
        loop {
            match self.queue.take() {
                Work::Write(batch) => self.flush(batch),
                Work::End { mark } => break self.end(mark),
            }
        }
        watch.disarm();
    }

    fn flush(&mut self, mut batch: Batch) {
        let mut body = Vec::with_capacity(batch.bytes.saturating_add(crate::format::TRAILER_FRAME_BYTES));
        for chunk in &mut batch.chunks {
            body.append(&mut chunk.bytes);
        }
        match self.writer.write(batch.first, body, batch.records as u64) {
            Ok(span) => {
                lock(&self.index).add(self.writer.segment(), &span);
                self.queue.done(batch);
            }
            Err(WriteError::Full(error)) => {
                tracing::warn!(%error, "a batch was refused");
                self.queue.give_back(batch, error);
            }
            Err(WriteError::Doubt(why)) => {
                tracing::error!(why, "the journal is poisoned");
                self.queue.poison(batch, &why);
            }
        }
    }

    /// A poisoned journal keeps its lock until it is dropped: the process that owns it still acts
    /// on tasks, and a second one must not.
    fn end(&mut self, mark: bool) {
        let result = match mark.then(|| self.writer.mark(self.queue.mark_number())) {
            Some(Ok(span)) => {
                lock(&self.index).add(self.writer.segment(), &span);
                Ok(())
            }
            Some(Err(WriteError::Doubt(why))) => Err(Error::Poisoned { why }),
            Some(Err(WriteError::Full(error))) => {
                tracing::warn!(%error, "closed without the mark of a clean shutdown; no record is missing");
                Ok(())
            }
            None => Ok(()),
        };
        if result.is_ok() && !self.queue.is_poisoned() {
            lock(&self.held).take();
        }
        self.queue.closed(result);
    }
}

struct Watch(Option<Arc<Queue>>);

impl Watch {
    fn disarm(mut self) {
        self.0 = None;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Some(queue) = self.0.take() {
            queue.poison(Batch::default(), "its flusher ended unexpectedly");
        }
    }
}
