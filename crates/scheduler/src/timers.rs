//! Durable timers: what is due when, and the one sleeper that lets it go on.
//!
//! A timer is part of a `Paused` record; this only remembers which task to look at next. Within the
//! boot in which it was set monotonic time decides, after another boot wall time. Invariant: a
//! deadline is used up by its `TimerFired` record, written under the same lock that sees it is due,
//! so it fires at most once; what stands here too early or twice is looked at and left alone.

use crate::engine::{Engine, Inner};
use std::collections::BTreeSet;
use std::sync::{MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tinkerbell_core::clock::Stamp;
use tinkerbell_core::event::{Event, Timer, TimerFired};
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::Room;
use tinkerbell_core::words::TaskId;

/// The longest sleep while something is waited for. Wall time may be set at any moment and wakes
/// nobody, and a sleep does not count the time for which the machine itself sleeps.
const LOOK_MS: u64 = 1_000;
/// A task that can not go on right now, though it is due, is looked at again after this long.
const AGAIN_MS: u64 = 1_000;
/// How often the disk is looked at.
pub(crate) const DISK_LOOK_MS: u64 = 5_000;
/// Tasks that one look lets go on before others get the lock.
const AT_ONCE: usize = 256;

/// Deadlines in order. A million of them take about fifty megabytes.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    mono: BTreeSet<(u64, TaskId)>,
    wall: BTreeSet<(u64, TaskId)>,
}

impl Timers {
    /// Remembers a task's deadline.
    pub(crate) fn add(&mut self, task: TaskId, timer: &Timer, boot: u128) {
        if is_same_boot(timer, boot) {
            self.mono.insert((timer.due_mono_ms, task));
        } else {
            self.wall.insert((timer.due_wall_ms, task));
        }
    }

    /// Looks at a task again at this monotonic time.
    fn again(&mut self, task: TaskId, mono_ms: u64) {
        self.mono.insert((mono_ms, task));
    }

    /// Takes out the tasks to look at now, at most so many.
    fn due(&mut self, now: Stamp, most: usize) -> Vec<TaskId> {
        let mut due = Vec::new();
        for (set, now_ms) in [(&mut self.mono, now.mono_ms), (&mut self.wall, now.wall_ms)] {
            while due.len() < most && set.first().is_some_and(|(due_ms, _)| *due_ms <= now_ms) {
                due.extend(set.pop_first().map(|(_, task)| task));
            }
        }
        due
    }

    /// How long to sleep, in milliseconds; `None` when nothing is waited for.
    fn wait_ms(&self, now: Stamp) -> Option<u64> {
        let mono = self.mono.first().map(|(due, _)| due.saturating_sub(now.mono_ms));
        let wall = self.wall.first().map(|(due, _)| due.saturating_sub(now.wall_ms));
        mono.into_iter().chain(wall).min().map(|wait_ms| wait_ms.min(LOOK_MS))
    }
}

fn is_same_boot(timer: &Timer, boot: u128) -> bool {
    boot != 0 && timer.boot == boot.to_be_bytes()
}

/// How long until a timer is due, in milliseconds.
pub(crate) fn left_ms(timer: &Timer, now: Stamp, boot: u128) -> u64 {
    if is_same_boot(timer, boot) { timer.due_mono_ms.saturating_sub(now.mono_ms) } else { timer.due_wall_ms.saturating_sub(now.wall_ms) }
}

impl Inner {
    pub(crate) fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The task's next timer, due after so long.
    pub(crate) fn timer(&self, timers: u64, wait_ms: u64) -> Timer {
        let now = self.deps.clock.now();
        Timer {
            id: timers.saturating_add(1),
            due_wall_ms: now.wall_ms.saturating_add(wait_ms),
            due_mono_ms: now.mono_ms.saturating_add(wait_ms),
            boot: self.options.boot.to_be_bytes().to_vec(),
        }
    }

    /// Remembers the deadline that an event set.
    pub(crate) fn remember(&self, task: TaskId, event: &Event) {
        if let Event::Paused(paused) = event
            && let Some(timer) = &paused.timer
        {
            self.timers().add(task, timer, self.options.boot);
            self.timed.notify_one();
        }
    }

    /// The task as people see it: its deadline in the wall time of now.
    pub(crate) fn shown(&self, task: &Task) -> Task {
        let mut task = task.clone();
        if let Some(timer) = &mut task.timer {
            let now = self.deps.clock.now();
            timer.due_wall_ms = now.wall_ms.saturating_add(left_ms(timer, now, self.options.boot));
        }
        task
    }
}

/// Lets tasks go on when they are due, for as long as the engine is there.
pub(crate) async fn keep_time(inner: Weak<Inner>) {
    loop {
        let Some(engine) = inner.upgrade().map(|inner| Engine { inner }) else { return };
        let inner = &engine.inner;
        let due = inner.timers().due(inner.deps.clock.now(), AT_ONCE);
        let is_more = due.len() == AT_ONCE;
        due.into_iter().for_each(|task| engine.fire(task));
        if is_more {
            tokio::task::yield_now().await;
            continue;
        }
        let wait = inner.timers().wait_ms(inner.deps.clock.now());
        let (stop, timed, clock) = (inner.stop.clone(), inner.timed.clone(), inner.deps.clock.clone());
        // Held no longer: an engine that nobody has any more must go.
        drop(engine);
        let due = async {
            match wait {
                Some(wait_ms) => clock.sleep(Duration::from_millis(wait_ms)).await,
                None => std::future::pending().await,
            }
        };
        // All three are cancel safe: a notice that is not taken stays.
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = timed.notified() => {}
            () = due => {}
        }
    }
}

impl Engine {
    /// Lets a task go on whose deadline has come, if it still waits for that one.
    fn fire(&self, id: TaskId) {
        let inner = &self.inner;
        let now = inner.deps.clock.now();
        let mut world = inner.lock();
        if world.stopping {
            return;
        }
        let Some(slot) = world.slots.get(&id) else { return };
        let Some(timer) = slot.task.timer.clone() else { return };
        if left_ms(&timer, now, inner.options.boot) > 0 {
            // Another deadline than the one that was looked up, or the wall clock was set back just now.
            inner.timers().add(id, &timer, inner.options.boot);
            return;
        }
        let Status::Paused { why, .. } = &slot.task.status else { return };
        if slot.task.cancelling {
            return;
        }
        if why == "disk" && inner.deps.journal.state().room != Room::Ample {
            inner.timers().again(id, now.mono_ms.saturating_add(DISK_LOOK_MS));
            return;
        }
        // A user's operation is under way and needs the task to stand still.
        let gate = slot.gate.clone();
        let Ok(_nobody_operates) = gate.try_lock() else {
            inner.timers().again(id, now.mono_ms.saturating_add(AGAIN_MS));
            return;
        };
        let fired = Event::TimerFired(TimerFired { id: timer.id });
        match inner.record_in(&mut world, id, vec![fired]) {
            Ok(pending) => {
                // What the task does next waits for the disk, and for this record with it.
                drop(pending);
                drop(world);
                self.kick(id);
            }
            Err(fault) if fault.retryable => inner.timers().again(id, now.mono_ms.saturating_add(AGAIN_MS)),
            Err(fault) => tracing::warn!(task = %id, %fault, "a timer came due and can not be recorded"),
        }
    }
}
