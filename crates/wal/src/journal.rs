//! The journal itself: opening, appending, reading, closing.
//!
//! It joins queue, writer and index and adds nothing to their rules. Invariant: `durable` completes
//! only after the sync that covers the append returned, and readers see only what is durable.

use crate::archive::Archived;
use crate::checkpoint;
use crate::compact::{Bench, Gate, Worth};
use crate::depot::Depot;
use crate::disk::{Disk, Lock, RealDisk};
use crate::error::Error;
use crate::flush::{Flusher, Held, lock};
use crate::format::{FLAG_BLOB, FRAME_BYTES, Frame, KIND_FIRST_USER};
use crate::housekeeping::Housekeeping;
use crate::index::Index;
use crate::old::Old;
use crate::options::Options;
use crate::queue::{Chunk, Limits, Queue};
use crate::read::read;
use crate::recover::{Recovered, Recovery, recover};
use crate::seal::{self, Opener, SEAL_BYTES, Sealer};
use crate::writer::{Tools, Writer};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use tinkerbell_core::clock::{Clock, Entropy};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Appended, BlobStore, Compaction, Journal, JournalState, Keyring, Needed, NewRecord, Record, Room};
use tinkerbell_core::words::Lsn;
use tokio::sync::oneshot;

/// Who makes the flusher go.
enum Drive {
    /// A thread of its own, and one for the depot.
    Threads([JoinHandle<()>; 2]),
    /// Whoever calls [`Wal::step`].
    Stepped(Box<Flusher>),
    /// It has ended.
    Ended,
}

/// Where time, chance and keys come from.
struct Tickers {
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    /// With it, payloads are sealed; without, they are plain.
    keyring: Option<Arc<dyn Keyring>>,
}

/// An open journal; the only writer of its directory.
///
/// Dropping it without [`Journal::close`] writes what is queued, leaves no mark of a clean
/// shutdown, and gives the directory free.
pub struct Wal {
    queue: Arc<Queue>,
    index: Arc<Mutex<Index>>,
    disk: Arc<dyn Disk>,
    depot: Arc<Depot>,
    held: Held,
    epoch: u64,
    limits: Limits,
    recovery: Recovery,
    keyring: Option<Arc<dyn Keyring>>,
    stepped: bool,
    drive: Mutex<Drive>,
    gate: Gate,
    house: Housekeeping,
    old: Arc<Old>,
    /// The checkpoint that opening read, until somebody asks for it.
    checkpoint: Mutex<Option<(u64, Vec<u8>)>>,
}

impl std::fmt::Debug for Wal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wal").field("epoch", &self.epoch).field("recovery", &self.recovery).finish_non_exhaustive()
    }
}

impl Wal {
    /// Opens the journal in `options.dir`, making it when it is new: takes the lock, reads every
    /// segment that no checkpoint stands for, cuts a torn tail, and begins a segment of a new epoch. Blocks on the disk.
    ///
    /// # Errors
    /// When another process holds it, when acknowledged records are damaged or missing, when a
    /// newer release wrote it, or when the file system refuses; see [`Error`].
    pub fn open(options: Options, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Arc<Self>, Fault> {
        let disk = RealDisk::create(options.dir.clone()).map_err(|e| Error::io("create the directory", &options.dir, e))?;
        Ok(Self::open_on(Arc::new(disk), &options, clock, entropy)?)
    }

    /// As [`Wal::open`]; payloads are sealed with their subject's key from now on. What was written
    /// plain before stays readable.
    ///
    /// # Errors
    /// As [`Wal::open`]. A missing key is told by `read`, because opening needs none.
    pub fn open_sealed(
        options: Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        keyring: Arc<dyn Keyring>,
    ) -> Result<Arc<Self>, Fault> {
        let disk = RealDisk::create(options.dir.clone()).map_err(|e| Error::io("create the directory", &options.dir, e))?;
        Ok(Self::open_with(Arc::new(disk), &options, clock, entropy, Some(keyring))?)
    }

    /// As [`Wal::open`], on any [`Disk`]; `options.dir` is not used.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_on(disk: Arc<dyn Disk>, options: &Options, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Result<Arc<Self>, Error> {
        Self::open_with(disk, options, clock, entropy, None)
    }

    /// As [`Wal::open_on`]; with a keyring payloads are sealed.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_with(
        disk: Arc<dyn Disk>,
        options: &Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        keyring: Option<Arc<dyn Keyring>>,
    ) -> Result<Arc<Self>, Error> {
        let path = disk.path().to_owned();
        Self::start(disk, options, Tickers { clock, entropy, keyring }, move |flusher| {
            let depot = Arc::clone(&flusher.writer.tools.depot);
            let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let flusher = thread("wal-flusher").spawn(move || flusher.run()).map_err(|e| Error::io("start the flusher for", &path, e))?;
            let depot = thread("wal-depot").spawn(move || depot.run()).map_err(|e| Error::io("start the depot of", &path, e))?;
            Ok(Drive::Threads([flusher, depot]))
        })
    }

    /// As [`Wal::open_on`], without any thread: nothing is written until [`Wal::step`] is called,
    /// and what else touches the disk does so while its future is polled. For simulations, which
    /// decide themselves what happens when. Dropping it writes nothing, as a killed process does.
    /// With a keyring payloads are sealed.
    ///
    /// # Errors
    /// As [`Wal::open`].
    pub fn open_stepped(
        disk: Arc<dyn Disk>,
        options: &Options,
        clock: Arc<dyn Clock>,
        entropy: Arc<dyn Entropy>,
        keyring: Option<Arc<dyn Keyring>>,
    ) -> Result<Arc<Self>, Error> {
        Self::start(disk, options, Tickers { clock, entropy, keyring }, |flusher| Ok(Drive::Stepped(Box::new(flusher))))
    }

    fn start(
        disk: Arc<dyn Disk>,
        options: &Options,
        tickers: Tickers,
        drive: impl FnOnce(Flusher) -> Result<Drive, Error>,
    ) -> Result<Arc<Self>, Error> {
        let guard = match disk.lock().map_err(|e| Error::io("lock", disk.path().join("lock"), e))? {
            Lock::Held(guard) => guard,
            Lock::Taken { pid } => return Err(Error::Locked { dir: disk.path().to_owned(), pid }),
        };
        let Recovered { index, next, head, epoch, empty, report, unread, vouching, checkpoint } = recover(&*disk)?;
        let index = Arc::new(Mutex::new(index));
        let old = Arc::new(Old::new(&disk, &index, unread, vouching, tickers.clock.now().mono_ms));
        let epoch = epoch.saturating_add(1);
        let (keyring, clock) = (tickers.keyring, Arc::clone(&tickers.clock));
        let sealer = Sealer::new(keyring.clone());
        let depot = Arc::new(Depot::open(&disk, &tickers.clock, options, Arc::clone(&old))?);
        let tools = Tools { disk: Arc::clone(&disk), clock: tickers.clock, entropy: tickers.entropy, sealer, depot: Arc::clone(&depot) };
        let writer = Writer::start(tools, options, epoch, next, head)?;
        // Empty segments of earlier openings tell nothing that the new one does not tell.
        empty.iter().try_for_each(|name| depot.retire(name))?;
        let limits = Limits { batch_bytes: options.batch_bytes, batch_records: options.batch_records, queue_bytes: options.queue_bytes };
        let flusher = Flusher {
            queue: Arc::new(Queue::new(next, limits)),
            index: Arc::clone(&index),
            held: Arc::new(Mutex::new(Some(guard))),
            writer,
            note_due_ms: None,
            woken: 0,
            gate: Gate::default(),
        };
        let gate = Arc::clone(&flusher.gate);
        let (queue, held) = (Arc::clone(&flusher.queue), Arc::clone(&flusher.held));
        let drive = drive(flusher)?;
        let stepped = matches!(drive, Drive::Stepped(_));
        let bench = Bench {
            disk: Arc::clone(&disk),
            index: Arc::clone(&index),
            queue: Arc::clone(&queue),
            gate: Arc::clone(&gate),
            depot: Arc::clone(&depot),
            old: Arc::clone(&old),
        };
        let house = Housekeeping::new(bench, Worth::of(options), clock, stepped);
        let (drive, checkpoint) = (Mutex::new(drive), Mutex::new(checkpoint));
        let recovery = report;
        Ok(Arc::new(Self {
            queue,
            index,
            disk,
            depot,
            held,
            epoch,
            limits,
            recovery,
            keyring,
            stepped,
            drive,
            gate,
            house,
            old,
            checkpoint,
        }))
    }

    /// Does one thing that the flusher's thread would do: takes a waiting batch, writes, syncs and
    /// acknowledges it, or closes when that was asked for and nothing waits, or keeps house. Gives
    /// `false` when there was nothing to do, and always on a journal that has its own thread.
    pub fn step(&self) -> bool {
        let mut drive = lock(&self.drive);
        let Drive::Stepped(flusher) = &mut *drive else { return false };
        let (worked, ended) = flusher.step();
        if ended {
            *drive = Drive::Ended;
        }
        worked
    }

    /// What opening found and did.
    #[must_use]
    pub const fn recovery(&self) -> &Recovery {
        &self.recovery
    }

    /// From now on compaction copies segments to `store` before it drops anything from them. Only the
    /// first call counts.
    pub fn archive_to(&self, store: Arc<dyn BlobStore>) {
        self.house.archive_to(store);
    }

    /// Copies every sealed segment to the archive that it does not hold yet; nothing without one.
    /// Cancel safe: segments that no manifest names do not count and are copied again.
    ///
    /// # Errors
    /// When the archive belongs to another journal or is damaged (see [`crate::archive::Error`]), when
    /// it can not be written, or when the journal is closed.
    pub async fn archive_sealed(&self) -> Result<Archived, Fault> {
        self.house.archive_sealed().await
    }

    /// Where freed segments go.
    #[cfg(test)]
    pub(crate) fn depot(&self) -> &Depot {
        &self.depot
    }

    /// Does what blocks on the disk off the runtime; in a stepped journal, at once.
    async fn off<T: Send + 'static>(&self, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Fault> {
        if self.stepped {
            return Ok(work()?);
        }
        match tokio::task::spawn_blocking(work).await {
            Ok(result) => Ok(result?),
            Err(e) => Err(Error::io("work in", self.disk.path(), std::io::Error::other(e)).into()),
        }
    }

    fn encode(&self, records: &[NewRecord]) -> Result<Vec<u8>, Error> {
        if let Some(own) = records.iter().find(|record| record.kind < KIND_FIRST_USER) {
            return Err(Error::ReservedKind(own.kind));
        }
        let seals = self.keyring.is_some();
        let more = FRAME_BYTES + if seals { SEAL_BYTES } else { 0 };
        let size = records.iter().map(|record| more + record.payload.len()).sum();
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
            if seals {
                seal::push(&frame, record.subject, &mut bytes);
            } else {
                frame.push(&mut bytes);
            }
        }
        Ok(bytes)
    }
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
        let (old, disk) = (Arc::clone(&self.old), Arc::clone(&self.disk));
        let (find, keyring) = (move |lsn| old.find(lsn), self.keyring.clone());
        Box::pin(async move { self.off(move || read(&*disk, &find, &mut Opener::new(keyring.as_deref()), from.0, limit)).await })
    }

    fn state(&self) -> JournalState {
        let tip = Lsn(lock(&self.index).tip());
        let room = match self.queue.newest() {
            Err(error) => Room::ReadOnly(error.to_string()),
            Ok(_) if self.depot.is_spent() => Room::Reserve,
            Ok(_) => Room::Ample,
        };
        JournalState { tip, epoch: self.epoch, bytes: lock(&self.index).bytes(), room, damage: self.old.damage() }
    }

    fn checkpoint(&self, through: Lsn, image: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        let disk = Arc::clone(&self.disk);
        lock(&self.checkpoint).take();
        Box::pin(async move { self.off(move || checkpoint::write(&*disk, through.0, &image)).await })
    }

    fn restore(&self) -> BoxFuture<'_, Result<Option<(Lsn, Bytes)>, Fault>> {
        let disk = Arc::clone(&self.disk);
        Box::pin(async move {
            let read = lock(&self.checkpoint).take();
            let found = match read {
                Some(read) => Some(read),
                None => self.off(move || checkpoint::read(&*disk)).await?,
            };
            // One that stands for more than the journal holds belongs to another journal.
            Ok(found.map(|(through, image)| (Lsn(through), Bytes::from(image))).filter(|(through, _)| *through <= self.state().tip))
        })
    }

    fn compact(&self, needed: Needed) -> BoxFuture<'_, Result<Compaction, Fault>> {
        Box::pin(self.house.compact(needed))
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
        let drive = std::mem::replace(&mut *lock(&self.drive), Drive::Ended);
        self.depot.end();
        if let Drive::Threads(threads) = drive {
            for thread in threads {
                let name = thread.thread().name().unwrap_or_default().to_owned();
                if thread.join().is_err() {
                    tracing::error!(name, "a thread of the journal had panicked");
                }
            }
        }
        *lock(&self.gate) = true;
        lock(&self.held).take();
    }
}
