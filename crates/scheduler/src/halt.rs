//! The engine halted: no effect begins, whoever works is stopped, and tasks say so.
//!
//! The kill switch is a question that the engine asks before every effect; being told of it only makes
//! the rest quicker. Invariant: no act starts while the kill switch says that all effects are halted.

use crate::engine::{Engine, Inner};
use futures_util::future::join_all;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tinkerbell_core::event::{Event, Paused};
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::words::TaskId;

/// The word for a task that wants to work and may not.
pub(crate) const HALTED: &str = "halted";
/// Why a task is paused that was at work when all effects were halted.
const WHY: &str = "halt";

impl Inner {
    /// Whether all effects are halted, as far as the engine was told.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// What people see of a task that wants to work while all effects are halted.
    pub(crate) fn show_halt(&self, task: &mut Task) {
        if self.is_halted() && matches!(task.status, Status::Queued | Status::Running) {
            let text = (self.deps.halt)().map_or_else(String::new, |fault| fault.message);
            task.status = Status::Paused { why: WHY.into(), text };
        }
    }
}

impl Engine {
    /// Lets no effect begin and stops whoever works; returns how many still work after `patience`.
    /// What they did is in the journal or is done again. Call it whenever the kill switch is found on.
    /// Cancel safe: what was begun goes on at the next call.
    pub async fn halt(&self, patience: Duration) -> usize {
        let was_halted = self.inner.halted.swap(true, Ordering::AcqRel);
        let working = |inner: &Inner| -> Vec<TaskId> {
            inner.lock().slots.iter().filter(|(_, slot)| slot.driver.is_some()).map(|(id, _)| *id).collect()
        };
        let ids = working(&self.inner);
        let stopped = join_all(ids.into_iter().map(|id| self.interrupt(id)));
        let deadline = self.inner.deps.clock.sleep(patience);
        tokio::select! {
            biased;
            _ = stopped => {}
            () = deadline => {}
        }
        if !was_halted {
            self.remember_halt();
        }
        working(&self.inner).len()
    }

    /// Whether the engine was told that all effects are halted, and not yet that they are no more.
    #[must_use]
    pub fn is_halted(&self) -> bool {
        self.inner.is_halted()
    }

    /// Takes [`Self::halt`] back: tasks go on. Call it whenever the kill switch is found off.
    pub async fn lift(&self) {
        if !self.inner.halted.swap(false, Ordering::AcqRel) {
            return;
        }
        let _one_at_a_time = self.inner.halting.lock().await;
        self.wake_halted().await;
        let half_done: Vec<TaskId> = {
            let world = self.inner.lock();
            let left = world.slots.iter().filter(|(_, slot)| slot.task.open_op.is_some() || slot.task.cancelling && slot.task.is_open());
            left.map(|(id, _)| *id).collect()
        };
        half_done.into_iter().for_each(|id| self.finish_half_done(id));
        self.kick_all();
        self.dispatch();
    }

    /// Notes in the journal, beside everything else, what the kill switch does to open tasks: those at
    /// work are paused while it is on, those that it paused go on while it is off.
    pub(crate) fn remember_halt(&self) {
        let engine = self.clone();
        self.inner.drivers.spawn(async move {
            let _one_at_a_time = engine.inner.halting.lock().await;
            if engine.inner.is_halted() {
                engine.pause_halted().await;
            } else {
                engine.wake_halted().await;
            }
        });
    }

    /// Pauses the tasks in memory that were at work. Those at rest only wait for their turn.
    async fn pause_halted(&self) {
        let Some(text) = (self.inner.deps.halt)().map(|fault| fault.message) else { return };
        let running: Vec<TaskId> = {
            let world = self.inner.lock();
            world.slots.iter().filter(|(_, slot)| slot.task.status == Status::Running).map(|(id, _)| *id).collect()
        };
        for id in running {
            self.inner.room().await;
            let mut world = self.inner.lock();
            let Some(slot) = world.slots.get(&id) else { continue };
            if !self.inner.is_halted() || world.stopping {
                return;
            }
            if slot.task.status != Status::Running || slot.task.cancelling || slot.driver.is_some() {
                continue;
            }
            let paused = Paused { why: WHY.into(), text: text.clone(), timer: None, tries: slot.task.tries };
            // Nobody waits for it; without it the task is shown as halted all the same.
            if let Err(fault) = self.inner.record_in(&mut world, id, vec![Event::Paused(paused)]) {
                tracing::warn!(task = %id, %fault, "the halt of a task could not be noted");
            }
        }
    }

    async fn wake_halted(&self) {
        let paused = {
            let mut world = self.inner.lock();
            // A task that is about to pause for the halt looks again instead.
            world.changes += 1;
            world.paused_for(WHY)
        };
        for id in paused {
            if let Err(fault) = self.unpause(id, WHY).await {
                tracing::warn!(task = %id, %fault, "a task that was halted could not go on; `tinkerbell unpause` tries again");
            }
        }
    }
}
