//! Watching: the past from the journal, then what happens, without gap or repetition.
//!
//! A slow reader never holds anybody up: it falls out of the live channel and reads the journal
//! again. Invariant: a watcher sees each event of its task once, in order.

use crate::engine::Inner;
use crate::record::{BLOB_MISSING, unpack};
use futures_util::stream::{self, BoxStream, StreamExt as _};
use std::collections::VecDeque;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::port::Seen;
use tinkerbell_core::words::{Lsn, TaskId};
use tokio::sync::broadcast;

const CHUNK: usize = 256;

struct Watch {
    inner: Arc<Inner>,
    task: Option<TaskId>,
    /// Whether reading begins where the task does.
    first_known: bool,
    /// The newest event that was given out or passed over.
    last: Lsn,
    live: broadcast::Receiver<Seen>,
    ready: VecDeque<Seen>,
    /// Whether the journal must be read before the live channel is trusted.
    behind: bool,
    told_caught_up: bool,
}

pub(crate) fn watch(inner: Arc<Inner>, task: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
    let live = inner.seen.subscribe();
    let watch =
        Watch { inner, task, first_known: task.is_none(), last: after, live, ready: VecDeque::new(), behind: true, told_caught_up: false };
    stream::unfold(Some(watch), |watch| async move {
        let mut watch = watch?;
        match watch.next().await {
            Ok(Some(seen)) => Some((Ok(seen), Some(watch))),
            Ok(None) => None,
            Err(fault) => Some((Err(fault), None)),
        }
    })
    .boxed()
}

impl Watch {
    async fn next(&mut self) -> Result<Option<Seen>, Fault> {
        loop {
            if let Some(seen) = self.ready.pop_front() {
                return Ok(Some(seen));
            }
            if self.behind {
                self.catch_up().await?;
                continue;
            }
            let seen = tokio::select! {
                biased;
                seen = self.live.recv() => seen,
                () = self.inner.stop.cancelled() => return Ok(None),
            };
            match seen {
                Ok(Seen::Event(event)) => {
                    if event.lsn > self.last {
                        self.last = event.lsn;
                        if self.task.is_none_or(|task| task == event.task) {
                            return Ok(Some(Seen::Event(event)));
                        }
                    }
                }
                Ok(Seen::Live(live)) if self.task.is_none_or(|task| task == live.task) => return Ok(Some(Seen::Live(live))),
                Ok(_) => {}
                Err(broadcast::error::RecvError::Lagged(_)) => self.behind = true,
                Err(broadcast::error::RecvError::Closed) => return Ok(None),
            }
        }
    }

    fn is_removed(&self, task: Option<TaskId>) -> bool {
        let world = self.inner.lock();
        let here = task.and_then(|task| world.slots.get(&task)).is_some_and(|slot| slot.task.status == Status::Removed);
        here || task.and_then(|task| world.table.get(task)).is_some_and(|entry| entry.flags.is_removed())
    }

    /// Passes over what is older than the task.
    async fn skip_to_task(&mut self) -> Result<(), Fault> {
        self.first_known = true;
        let Some(id) = self.task else { return Ok(()) };
        let _held = self.inner.hold(id).await?;
        if let Some(first) = self.inner.lock().slots.get(&id).map(|slot| slot.first) {
            self.last = self.last.max(Lsn(first.0.saturating_sub(1)));
        }
        Ok(())
    }

    async fn catch_up(&mut self) -> Result<(), Fault> {
        if !self.first_known {
            self.skip_to_task().await?;
        }
        let records = self.inner.deps.journal.read(self.last.next(), CHUNK).await?;
        if records.is_empty() {
            self.behind = false;
            if !std::mem::replace(&mut self.told_caught_up, true) {
                self.ready.push_back(Seen::CaughtUp(self.last));
            }
            return Ok(());
        }
        for record in records {
            self.last = record.lsn;
            if self.task.is_some() && record.task != self.task {
                continue;
            }
            let task = record.task;
            let placed = match unpack(&*self.inner.deps.blobs, record).await {
                // The blobs of a removed task went with it.
                Err(fault) if fault.code.0 == BLOB_MISSING && self.is_removed(task) => None,
                other => other?,
            };
            let shown = placed.filter(|placed| !placed.event.is_bookkeeping());
            self.ready.extend(shown.map(|placed| Seen::Event(Arc::new(placed))));
        }
        Ok(())
    }
}
