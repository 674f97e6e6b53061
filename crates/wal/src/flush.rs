//! The flusher: takes batches from the queue, has them written, and wakes their owners.
//!
//! It runs on a thread of its own or is stepped by a simulation; both are the same code. Invariant:
//! an owner hears `Ok` only after the sync that covers its records returned.

use crate::error::Error;
use crate::index::Index;
use crate::queue::{Batch, Queue, Work};
use crate::writer::{WriteError, Writer};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

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
}

impl Flusher {
    /// Works until the journal is closed or dropped.
    pub(crate) fn run(mut self) {
        // Should this thread ever panic, nobody may wait for it for ever.
        let watch = Watch(Some(Arc::clone(&self.queue)));
        while !self.act(self.queue.take()) {}
        watch.disarm();
    }

    /// Does one thing if there is one; tells whether it did, and whether it was the last one.
    pub(crate) fn step(&mut self) -> (bool, bool) {
        let work = self.queue.try_take();
        (work.is_some(), work.is_some_and(|work| self.act(work)))
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
