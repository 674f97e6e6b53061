//! Turns: the ready queue in the engine's hands.
//!
//! A task that waits for its first turn is an entry here, not a future; one that gave its slot back
//! after a step waits in place, with all it has read. Invariant: who holds a [`Turn`] is in the queue,
//! and dropping the turn gives back whatever it holds at that moment.

use crate::engine::{Engine, Options};
use crate::queue::{Claim, Key, Queue};
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::words::{Priority, TaskId};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Who sits behind a key.
enum Seat {
    /// Waits for its first turn.
    New(TaskId, CancellationToken),
    /// Gave its slot back after a step.
    Parked(oneshot::Sender<()>),
    /// Works.
    Working,
}

/// The queue and who sits in it.
pub(crate) struct Turns {
    queue: Queue,
    keys: BTreeMap<TaskId, Key>,
    seats: Vec<Seat>,
}

/// What follows a step.
pub(crate) enum Next {
    /// The slot stays.
    GoOn,
    /// Somebody is more urgent; this completes when the slot is back.
    Wait(oneshot::Receiver<()>),
}

impl Turns {
    pub(crate) fn new(slots: usize) -> Self {
        Self { queue: Queue::new(slots), keys: BTreeMap::new(), seats: Vec::new() }
    }

    /// Takes a task in that has no driver.
    pub(crate) fn enter(&mut self, task: &Task, stop: CancellationToken, options: &Options, now_ms: u64) {
        let key = self.queue.join(task.submitted.uid, task.priority, &claims(task, options));
        self.sit(key, Seat::New(task.id, stop));
        self.keys.insert(task.id, key);
        self.queue.ready(key, now_ms);
    }

    /// Takes a task out that has not had a turn yet; says whether it was one.
    pub(crate) fn withdraw(&mut self, task: TaskId) -> bool {
        let Some(key) = self.keys.get(&task).copied() else { return false };
        let is_new = matches!(self.seats.get(key.index()), Some(Seat::New(..)));
        if is_new {
            self.leave(task, key);
        }
        is_new
    }

    pub(crate) fn reprioritise(&mut self, task: TaskId, priority: Priority) {
        if let Some(key) = self.keys.get(&task) {
            self.queue.reprioritise(*key, priority);
        }
    }

    /// Tasks that hold a slot.
    #[cfg(test)]
    pub(crate) const fn running(&self) -> usize {
        self.queue.running()
    }

    fn sit(&mut self, key: Key, seat: Seat) {
        if self.seats.len() <= key.index() {
            self.seats.resize_with(key.index() + 1, || Seat::Working);
        }
        if let Some(place) = self.seats.get_mut(key.index()) {
            *place = seat;
        }
    }

    fn leave(&mut self, task: TaskId, key: Key) {
        self.queue.leave(key);
        self.keys.remove(&task);
        self.sit(key, Seat::Working);
    }

    /// Gives a slot to whoever is next, for as long as there is one; gives back who must be started.
    fn grant(&mut self, now_ms: u64) -> Option<(TaskId, CancellationToken, Key)> {
        loop {
            let key = self.queue.next(now_ms)?;
            if let Some(new) = self.seat(key) {
                return Some(new);
            }
        }
    }

    /// Tells who has got a slot. A parked one that is on its way out gives it back by itself.
    fn seat(&mut self, key: Key) -> Option<(TaskId, CancellationToken, Key)> {
        let seat = self.seats.get_mut(key.index())?;
        match std::mem::replace(seat, Seat::Working) {
            Seat::New(task, stop) => Some((task, stop, key)),
            Seat::Parked(parked) => {
                // The driver is gone: its turn is dropped with it, and the slot comes back then.
                let _gone = parked.send(());
                None
            }
            Seat::Working => None,
        }
    }
}

/// A task's place in the queue, for as long as it has a driver.
pub(crate) struct Turn {
    engine: Engine,
    task: TaskId,
    key: Key,
}

impl Turn {
    /// Pays for a step and says whether the next one may follow at once.
    pub(crate) fn over(&self, cost: u64) -> Next {
        let now_ms = self.engine.inner.deps.clock.now().mono_ms;
        let (started, next) = {
            let mut turns = self.engine.turns();
            let next = turns.queue.turn(self.key, cost, now_ms);
            if next == Some(self.key) {
                return Next::GoOn;
            }
            let (give, wait) = oneshot::channel();
            turns.sit(self.key, Seat::Parked(give));
            (next.and_then(|key| turns.seat(key)), Next::Wait(wait))
        };
        if let Some(started) = started {
            self.engine.start(started);
        }
        self.engine.dispatch();
        next
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.engine.turns().leave(self.task, self.key);
        self.engine.dispatch();
    }
}

impl Engine {
    pub(crate) fn turns(&self) -> MutexGuard<'_, Turns> {
        self.inner.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts whoever may work now.
    pub(crate) fn dispatch(&self) {
        // A queue that is left at the end of the daemon is found again in the journal.
        while !self.inner.stop.is_cancelled() {
            let now_ms = self.inner.deps.clock.now().mono_ms;
            let Some(started) = self.turns().grant(now_ms) else { return };
            self.start(started);
        }
    }

    fn start(&self, (task, stop, key): (TaskId, CancellationToken, Key)) {
        let turn = Turn { engine: self.clone(), task, key };
        let engine = self.clone();
        self.inner.drivers.spawn(async move { engine.drive(task, stop, turn).await });
    }
}

/// What a task uses of which there is only so much.
fn claims(task: &Task, options: &Options) -> Vec<Claim> {
    let provider = task.submitted.model.split('/').next().unwrap_or_default();
    let workspace = task.prepared.as_ref().map_or(task.submitted.cwd.as_slice(), |prepared| prepared.repo.as_slice());
    let claims = [
        (options.per_provider, "provider", provider.to_owned()),
        (options.per_host, "host", task.submitted.host.clone()),
        (options.per_workspace, "workspace", String::from_utf8_lossy(workspace).into_owned()),
    ];
    claims
        .into_iter()
        .filter(|(limit, _, name)| *limit > 0 && !name.is_empty())
        .map(|(limit, kind, name)| Claim { name: format!("{kind}:{name}"), limit })
        .collect()
}
