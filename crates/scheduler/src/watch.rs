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
    let first = task.and_then(|id| inner.lock().slots.get(&id).map(|slot| slot.first));
    let last = first.map_or(after, |first| after.max(Lsn(first.0.saturating_sub(1))));
    let watch = Watch { inner, task, last, live, ready: VecDeque::new(), behind: true, told_caught_up: false };
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
        task.and_then(|task| world.slots.get(&task)).is_some_and(|slot| slot.task.status == Status::Removed)
    }

    async fn catch_up(&mut self) -> Result<(), Fault> {
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
            self.ready.extend(placed.map(|placed| Seen::Event(Arc::new(placed))));
        }
        Ok(())
    }
}
