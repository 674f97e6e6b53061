//! The flusher: takes batches from the queue, has them written, and wakes their owners.
//!
//! It runs on a thread of its own or is stepped by a simulation; both are the same code. Invariant:
//! an owner hears `Ok` only after the sync that covers its records returned, and what is done
//! while nothing waits is one bounded piece at a time.

use crate::compact::Gate;
use crate::error::Error;
use crate::index::Index;
use crate::queue::{Batch, Queue, Work};
use crate::writer::{WriteError, Writer};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long nothing may have been acknowledged before the watermark is written: long enough that a
/// busy journal never pays for it, short enough that the last batch is protected soon.
const IDLE_MS: u64 = 5;

/// The lock of the directory, until it is given free.
pub(crate) type Held = Arc<Mutex<Option<Box<dyn Send + Sync>>>>;

/// What is under these locks stays whole when a thread panics, so a poisoned one is taken as it is.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The one that writes.
pub(crate) struct Flusher {
    pub(crate) queue: Arc<Queue>,
    pub(crate) index: Arc<Mutex<Index>>,
    pub(crate) held: Held,
    pub(crate) writer: Writer,
    /// When the watermark is to be written, in monotonic milliseconds.
    pub(crate) note_due_ms: Option<u64>,
    /// Callers whose records the last sync made durable.
    pub(crate) woken: usize,
    /// Closed before the directory is given free.
    pub(crate) gate: Gate,
}

impl Flusher {
    /// Works until the journal is closed or dropped.
    pub(crate) fn run(mut self) {
        // Should this thread ever panic, nobody may wait for it for ever.
        let watch = Watch(Some(Arc::clone(&self.queue)));
        loop {
            let patience = self.note_due_ms.map(|due| Duration::from_millis(due.saturating_sub(self.now_ms()).clamp(1, IDLE_MS)));
            let ended = match self.queue.take(patience) {
                Some(work) => self.act(work),
                None => {
                    self.rest();
                    false
                }
            };
            if ended {
                break;
            }
            // One or two callers gain nothing from it.
            let woken = std::mem::take(&mut self.woken);
            if woken > 2 {
                self.queue.gather(woken);
            }
        }
        watch.disarm();
    }

    /// Does one thing if there is one; tells whether it did, and whether it was the last one.
    pub(crate) fn step(&mut self) -> (bool, bool) {
        match self.queue.try_take() {
            Some(work) => (true, self.act(work)),
            None => (self.rest() || self.writer.tools.depot.work(), false),
        }
    }

    fn now_ms(&self) -> u64 {
        self.writer.tools.clock.now().mono_ms
    }

    /// What is done while nothing waits; tells whether there was anything.
    fn rest(&mut self) -> bool {
        if self.note_due_ms.is_none_or(|due| self.now_ms() < due) {
            return false;
        }
        self.note_due_ms = None;
        match self.healing(Writer::note) {
            Ok(()) => {}
            Err(WriteError::Full(error)) => tracing::warn!(%error, "no watermark was written"),
            Err(WriteError::Doubt(why)) => {
                tracing::error!(why, "the journal is poisoned");
                self.queue.poison(Batch::default(), &why);
            }
        }
        true
    }

    /// Gives `true` at the end.
    fn act(&mut self, work: Work) -> bool {
        match work {
            Work::Write(batch) => self.flush(batch),
            Work::End { mark } => {
                self.end(mark);
                return true;
            }
        }
        false
    }

    /// Does what writes; when the disk fails it does it once more in a new segment. Until then
    /// nobody hears anything, and a second failure in a row is the end.
    fn healing<T>(&mut self, mut act: impl FnMut(&mut Writer) -> Result<T, WriteError>) -> Result<T, WriteError> {
        let why = match act(&mut self.writer) {
            Err(WriteError::Doubt(why)) => why,
            other => return other,
        };
        tracing::error!(why, "the disk failed under the journal");
        match self.writer.heal() {
            Ok(()) => act(&mut self.writer).map_err(|error| match error {
                WriteError::Doubt(again) => WriteError::Doubt(format!("{why}; and again in a new segment: {again}")),
                full => full,
            }),
            Err(more) => Err(WriteError::Doubt(format!("{why}; {more}"))),
        }
    }

    fn flush(&mut self, mut batch: Batch) {
        let mut body = std::mem::take(&mut batch.body);
        let records = batch.records as u64;
        let written = self.healing(|writer| writer.write(batch.first, &mut body, records));
        batch.body = body;
        match written {
            Ok(span) => {
                lock(&self.index).add(self.writer.segment(), &span);
                self.woken = self.queue.done(batch);
                self.note_due_ms = Some(self.now_ms().saturating_add(IDLE_MS));
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
        let number = self.queue.mark_number();
        let result = match mark.then(|| self.healing(|writer| writer.mark(number))) {
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
        // Waits for compaction to finish what it does to files; it hears that the journal closes.
        *lock(&self.gate) = true;
        // Before the lock is given free: the next one to open it finds a quiet directory.
        self.writer.tools.depot.end();
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
