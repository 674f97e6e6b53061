//! Start-up: the journal's events become tasks again, and open tasks go on.
//!
//! Nothing is guessed: a record that can not be read refuses the start. Invariant: after `fold`,
//! the world is what it was when the last durable record was written.

use crate::engine::{Deps, Engine, Slot, World, fold as fold_one};
use crate::record::{BLOB_MISSING, unpack};
use std::collections::{BTreeMap, BTreeSet};
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::{Event, OrphanReaped};
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::words::{Lsn, RunId, TaskId};

/// Records read at once.
const CHUNK: usize = 1_024;

/// Folds the whole journal.
pub(crate) async fn fold(deps: &Deps) -> Result<World, Fault> {
    let mut world = World::default();
    let mut bare = Bare::default();
    let mut from = Lsn(1);
    loop {
        let records = deps.journal.read(from, CHUNK).await?;
        let Some(last) = records.last() else { return bare.judged().map(|()| world) };
        from = last.lsn.next();
        for record in records {
            let task = record.task;
            match unpack(&*deps.blobs, record).await {
                Ok(Some(placed)) => {
                    bare.look(&placed.event, placed.task);
                    fold_one(&mut world, &placed);
                }
                Ok(None) => {}
                Err(fault) => bare.take(task, fault)?,
            }
        }
    }
}

/// Records whose blobs are gone. That is right for a task that is removed later, because its blobs go
/// with it, and damage for every other.
#[derive(Default)]
struct Bare {
    missing: BTreeMap<TaskId, Fault>,
    removed: BTreeSet<TaskId>,
}

impl Bare {
    fn take(&mut self, task: Option<TaskId>, fault: Fault) -> Result<(), Fault> {
        match task {
            Some(task) if fault.code.0 == BLOB_MISSING => {
                self.missing.entry(task).or_insert(fault);
                Ok(())
            }
            _ => Err(fault),
        }
    }

    fn look(&mut self, event: &Event, task: TaskId) {
        if matches!(event, Event::Signal(signal) if signal.kind == "remove") {
            self.removed.insert(task);
        }
    }

    fn judged(self) -> Result<(), Fault> {
        let kept = self.missing.into_iter().find(|(task, _)| !self.removed.contains(task));
        kept.map_or(Ok(()), |(_, fault)| Err(fault))
    }
}

/// Ends commands that no task knows, finishes what was half done, and drives what is open.
pub(crate) async fn resume(engine: &Engine) -> Result<(), Fault> {
    reap(engine).await?;
    let inner = &engine.inner;
    let deadlines: Vec<_> = inner.lock().slots.values().filter_map(|slot| Some((slot.task.id, slot.task.timer.clone()?))).collect();
    deadlines.iter().for_each(|(id, timer)| inner.timers().add(*id, timer, inner.options.boot));
    let tasks: Vec<(TaskId, Status, bool, bool)> = inner
        .lock()
        .slots
        .values()
        .map(|slot| (slot.task.id, slot.task.status.clone(), slot.task.cancelling, slot.task.open_op.is_some()))
        .collect();
    for (id, status, cancelling, half_operated) in tasks {
        match status {
            Status::Removed => engine.forget(id).await,
            Status::Queued | Status::Running | Status::Paused { .. } if cancelling => engine.finish_half_done(id),
            _ if half_operated => engine.finish_half_done(id),
            Status::Queued | Status::Running => engine.kick(id),
            _ => {}
        }
    }
    Ok(())
}

async fn reap(engine: &Engine) -> Result<(), Fault> {
    let inner = &engine.inner;
    let known: Vec<RunId> = inner.lock().slots.values().flat_map(known).collect();
    for (run, text) in inner.deps.runner.sweep(known).await? {
        tracing::warn!(%run, text, "ended a command that no task knows");
        let event = Event::OrphanReaped(OrphanReaped { run: run.to_string(), text });
        inner.record(run.task, vec![event]).await?.durable().await?;
    }
    Ok(())
}

/// Effects whose outcome may still be found outside: the commands, and the open question to a model.
fn known(slot: &Slot) -> Vec<RunId> {
    let asked = slot.task.open.as_ref().filter(|_| slot.task.is_open()).map(|(_, intent)| intent.seq);
    slot.runs.iter().copied().chain(asked).map(|seq| RunId { task: slot.task.id, seq }).collect()
}
