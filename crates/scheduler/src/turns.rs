//! Turns: the ready queue in the engine's hands.
//!
//! A task that waits for its first turn is an entry here, not a future; one that gave its slot back
//! after a step waits in place, with all it has read. Invariant: who holds a [`Turn`] is in the queue,
//! and dropping the turn gives back whatever it holds at that moment.

use crate::engine::{Engine, Inner, Options};
use crate::queue::{Claim, Key, Queue};
use crate::table::Entry;
use std::collections::BTreeMap;
use std::sync::{MutexGuard, PoisonError};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::words::{Priority, TaskId};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// Who sits behind a key.
enum Seat {
    /// Waits for its first turn; of a task at rest there is nothing to stop.
    New(TaskId, Option<CancellationToken>),
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
    /// Tasks at rest that have just got their turn: what stops their drivers.
    begun: BTreeMap<TaskId, CancellationToken>,
    /// Stops everybody.
    stop: CancellationToken,
}

/// What follows a step.
pub(crate) enum Next {
    /// The slot stays.
    GoOn,
    /// Somebody is more urgent; this completes when the slot is back.
    Wait(oneshot::Receiver<()>),
}

impl Turns {
    pub(crate) fn new(slots: usize, stop: CancellationToken) -> Self {
        Self { queue: Queue::new(slots), keys: BTreeMap::new(), seats: Vec::new(), begun: BTreeMap::new(), stop }
    }

    /// Takes a task in that has no driver.
    pub(crate) fn enter(&mut self, task: &Task, stop: CancellationToken, options: &Options, now_ms: u64) {
        self.join((task.id, Some(stop)), task.submitted.uid, task.priority, &claims(task, options), now_ms);
    }

    /// Takes a task in that is at rest, unless it is in already.
    pub(crate) fn enter_asleep(&mut self, entry: Entry, claims: &[Claim], now_ms: u64) {
        if !self.keys.contains_key(&entry.id) {
            self.join((entry.id, None), entry.flags.tenant(), entry.flags.priority(), claims, now_ms);
        }
    }

    fn join(&mut self, (task, stop): (TaskId, Option<CancellationToken>), tenant: u32, priority: Priority, claims: &[Claim], now_ms: u64) {
        let key = self.queue.join(tenant, priority, claims);
        self.sit(key, Seat::New(task, stop));
        self.keys.insert(task, key);
        self.queue.ready(key, now_ms);
    }

    /// Whether the task waits for its first turn.
    pub(crate) fn is_new(&self, task: TaskId) -> bool {
        self.keys.get(&task).is_some_and(|key| matches!(self.seats.get(key.index()), Some(Seat::New(..))))
    }

    /// A task left memory.
    pub(crate) fn dozes(&mut self, task: TaskId) {
        if self.is_new(task)
            && let Some(key) = self.keys.get(&task).copied()
        {
            self.sit(key, Seat::New(task, None));
        }
    }

    /// A task came into memory: what stops its driver, where it has one or waits for one.
    pub(crate) fn woken(&mut self, task: TaskId) -> Option<CancellationToken> {
        if let Some(stop) = self.begun.remove(&task) {
            return Some(stop);
        }
        let key = self.keys.get(&task)?;
        match self.seats.get_mut(key.index())? {
            Seat::New(_, stop) => Some(stop.get_or_insert_with(|| self.stop.child_token()).clone()),
            Seat::Parked(_) | Seat::Working => None,
        }
    }

    /// Takes a task out that has not had a turn yet; says whether it was one.
    pub(crate) fn withdraw(&mut self, task: TaskId) -> bool {
        let Some(key) = self.keys.get(&task).copied().filter(|_| self.is_new(task)) else { return false };
        self.leave(task, key);
        true
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
        self.begun.remove(&task);
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
            Seat::New(task, stop) => {
                let stop = stop.unwrap_or_else(|| {
                    let stop = self.stop.child_token();
                    // Whoever wakes it first finds the driver by this.
                    self.begun.insert(task, stop.clone());
                    stop
                });
                Some((task, stop, key))
            }
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

impl Inner {
    pub(crate) fn turns(&self) -> MutexGuard<'_, Turns> {
        self.turns.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    pub(crate) fn turns(&self) -> MutexGuard<'_, Turns> {
        self.inner.turns()
    }

    /// Starts whoever may work now.
    pub(crate) fn dispatch(&self) {
        // A queue that is left at the end of the daemon is found again in the journal.
        while !self.inner.stop.is_cancelled() && !self.inner.is_halted() {
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
pub(crate) fn claims(task: &Task, options: &Options) -> Vec<Claim> {
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
