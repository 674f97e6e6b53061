//! Durable timers: what is due when, and the one sleeper that lets it go on.
//!
//! A timer is part of a `Paused` record; this only remembers which task to look at next. Within the
//! boot in which it was set monotonic time decides, after another boot wall time. Invariant: a
//! deadline is used up by its `TimerFired` record, written under the same lock that sees it is due,
//! so it fires at most once; what stands here too early or twice is looked at and left alone.

use crate::engine::{Engine, Inner};
use crate::table::Flags;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound::{Excluded, Unbounded};
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

/// A task and when it is due, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Deadline {
    pub(crate) id: TaskId,
    pub(crate) wall_ms: u64,
    /// Monotonic time of the present boot; 0 where wall time decides.
    pub(crate) mono_ms: u64,
}

impl Deadline {
    pub(crate) fn of(id: TaskId, timer: &Timer, boot: u128) -> Self {
        Self { id, wall_ms: timer.due_wall_ms, mono_ms: if is_same_boot(timer, boot) { timer.due_mono_ms } else { 0 } }
    }
}

/// Deadlines in order, of tasks in memory and at rest.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    /// By monotonic time; beside it the wall time, 0 for a look without a deadline.
    mono: BTreeMap<(u64, TaskId), u64>,
    wall: BTreeSet<(u64, TaskId)>,
}

/// Where a copy of the deadlines goes on.
pub(crate) type Place = (u64, TaskId);

impl Timers {
    /// Remembers a task's deadline.
    pub(crate) fn add(&mut self, task: TaskId, timer: &Timer, boot: u128) {
        let deadline = Deadline::of(task, timer, boot);
        if deadline.mono_ms > 0 {
            self.mono.insert((deadline.mono_ms, task), deadline.wall_ms);
        } else {
            self.wall.insert((deadline.wall_ms, task));
        }
    }

    /// Takes in many at once: sorted, which costs a fraction of so many insertions.
    pub(crate) fn restore(&mut self, deadlines: Vec<Deadline>) {
        let (mono, wall): (Vec<_>, Vec<_>) = deadlines.into_iter().partition(|deadline| deadline.mono_ms > 0);
        self.mono.append(&mut mono.into_iter().map(|due| ((due.mono_ms, due.id), due.wall_ms)).collect());
        self.wall.append(&mut wall.into_iter().map(|due| (due.wall_ms, due.id)).collect());
    }

    /// At most `most` deadlines behind `after`, of one of the two orders.
    pub(crate) fn some(&self, is_wall: bool, after: Option<Place>, most: usize) -> Vec<(Place, Deadline)> {
        let from = (after.map_or(Unbounded, Excluded), Unbounded);
        if is_wall {
            let due = self.wall.range(from).take(most);
            return due.map(|place| (*place, Deadline { id: place.1, wall_ms: place.0, mono_ms: 0 })).collect();
        }
        let due = self.mono.range(from).take(most);
        due.map(|(place, wall_ms)| (*place, Deadline { id: place.1, wall_ms: *wall_ms, mono_ms: place.0 })).collect()
    }

    /// Looks at a task again at this monotonic time.
    fn again(&mut self, task: TaskId, mono_ms: u64) {
        self.mono.insert((mono_ms, task), 0);
    }

    /// Takes out the tasks to look at now, at most so many.
    fn due(&mut self, now: Stamp, most: usize) -> Vec<TaskId> {
        let mut due = Vec::new();
        while due.len() < most && self.mono.first_key_value().is_some_and(|((due_ms, _), _)| *due_ms <= now.mono_ms) {
            due.extend(self.mono.pop_first().map(|((_, task), _)| task));
        }
        while due.len() < most && self.wall.first().is_some_and(|(due_ms, _)| *due_ms <= now.wall_ms) {
            due.extend(self.wall.pop_first().map(|(_, task)| task));
        }
        due
    }

    /// How long to sleep, in milliseconds; `None` when nothing is waited for.
    fn wait_ms(&self, now: Stamp) -> Option<u64> {
        let mono = self.mono.first_key_value().map(|((due, _), _)| due.saturating_sub(now.mono_ms));
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
        self.show_halt(&mut task);
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
        for task in due {
            engine.ring(task).await;
        }
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
    /// Looks at a task whose deadline has come, and brings it into memory for that if it waits for one.
    async fn ring(&self, id: TaskId) {
        let inner = &self.inner;
        let later = |after_ms: u64| inner.timers().again(id, inner.deps.clock.now().mono_ms.saturating_add(after_ms));
        let asleep = inner.lock().table.get(id).map(|entry| entry.flags);
        if let Some(flags) = asleep {
            if !flags.has(Flags::TIMER) {
                return;
            }
            if flags.is_paused_for("disk") && inner.deps.journal.state().room != Room::Ample {
                return later(DISK_LOOK_MS);
            }
            inner.room().await;
        }
        match inner.hold(id).await {
            // Held until it is decided.
            Ok(Some(_held)) => self.fire(id),
            Ok(None) => {}
            Err(fault) => {
                tracing::warn!(task = %id, %fault, "a timer came due and its task can not be loaded; it is tried again");
                later(DISK_LOOK_MS);
            }
        }
    }

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
