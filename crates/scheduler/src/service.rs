//! The engine in service: its heartbeat, and standing still before a handover.
//!
//! Nothing here decides about tasks. Invariant: while the engine stands still no effect begins;
//! what had begun is recorded, and words of clients are accepted as ever.

use crate::engine::{Engine, Inner, Queued, stopping};
use crate::halt::HALTED;
use futures_util::FutureExt as _;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::Action;
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::words::{Lsn, RunId, TaskId};
use tokio::sync::oneshot;

/// A model call under way; counted for as long as it lives.
pub(crate) struct Asking(Arc<Inner>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.asking.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Inner {
    /// Counts the act in, if it asks a model.
    pub(crate) fn asking(self: &Arc<Self>, action: &Action) -> Option<Asking> {
        matches!(action, Action::Ask(_)).then(|| {
            self.asking.send_modify(|count| *count = count.saturating_add(1));
            Asking(Arc::clone(self))
        })
    }
}

impl Engine {
    /// Goes once through the lock and the publisher, as every record does; returns the newest
    /// record that is durable and shown. Who waits for it in vain knows that the engine is stuck.
    /// Cancel safe.
    ///
    /// # Errors
    /// The fault that broke the journal, or that the engine is stopping.
    pub async fn beat(&self) -> Result<Lsn, Fault> {
        let (done, wait) = oneshot::channel();
        let nothing = Queued { events: Vec::new(), durable: async { Ok(()) }.boxed(), done };
        {
            let world = self.inner.lock();
            if let Some(fault) = &world.broken {
                return Err(fault.clone());
            }
            if world.stopping {
                return Err(stopping());
            }
        }
        self.inner.publish.send(nothing).await.map_err(|_| stopping())?;
        wait.await.map_err(|_| stopping())??;
        Ok(*self.inner.durable.borrow())
    }

    /// Records that were queued and are not yet durable and shown.
    #[must_use]
    pub fn lag(&self) -> u64 {
        let newest = self.inner.newest.load(std::sync::atomic::Ordering::Relaxed);
        newest.saturating_sub(self.inner.durable.borrow().0)
    }

    /// Lets no further effect begin, and waits until the model calls under way have ended, at most
    /// `patience`. Returns how many were still under way then. Commands are not waited for: their
    /// keepers hold them. Submissions and words are accepted, and wait.
    pub async fn stand_still(&self, patience: Duration) -> usize {
        self.inner.lock().still = true;
        let mut asking = self.inner.asking.subscribe();
        let deadline = self.inner.deps.clock.sleep(patience);
        // Both branches are cancel safe.
        tokio::select! {
            biased;
            ended = asking.wait_for(|count| *count == 0) => ended.map_or(0, |count| *count),
            () = deadline => *self.inner.asking.borrow(),
        }
    }

    /// Takes [`Self::stand_still`] back: open tasks go on.
    pub fn go_on(&self) {
        self.inner.lock().still = false;
        self.kick_all();
    }

    /// Lets every task work that wants to.
    pub(crate) fn kick_all(&self) {
        let open: Vec<TaskId> = {
            let world = self.inner.lock();
            let here = world.slots.iter().filter(|(_, slot)| slot.is_ready()).map(|(id, _)| *id);
            here.chain(world.table.all().filter(|entry| entry.flags.is_ready()).map(|entry| entry.id)).collect()
        };
        open.into_iter().for_each(|id| self.kick(id));
    }

    /// Model calls under way.
    #[must_use]
    pub fn asking(&self) -> usize {
        *self.inner.asking.borrow()
    }

    /// Tasks by the word for their status, without removed ones.
    #[must_use]
    pub fn states(&self) -> BTreeMap<String, u64> {
        let mut states = BTreeMap::new();
        let is_halted = self.inner.is_halted();
        let world = self.inner.lock();
        for slot in world.slots.values().filter(|slot| slot.task.status != Status::Removed) {
            let word = if is_halted && slot.is_ready() { HALTED } else { slot.task.status.word() };
            let count: &mut u64 = states.entry(word.to_owned()).or_default();
            *count = count.saturating_add(1);
        }
        for entry in world.table.all().filter(|entry| !entry.flags.is_removed()) {
            let word = if is_halted && entry.flags.is_ready() { HALTED } else { entry.flags.word() };
            match states.get_mut(word) {
                Some(count) => *count = count.saturating_add(1),
                None => drop(states.insert(word.to_owned(), 1)),
            }
        }
        states
    }

    /// What the saved states of open tasks give, each answer once; for who must know whether another
    /// release can read them. Reads one record for each open task that is not in memory.
    ///
    /// # Errors
    /// When such a record can not be read.
    pub async fn state_versions(&self, read: impl Fn(&[u8]) -> Option<u32>) -> Result<BTreeSet<u32>, Fault> {
        let asleep: Vec<TaskId> = {
            let world = self.inner.lock();
            world.table.all().filter(|entry| entry.flags.is_open()).map(|entry| entry.id).collect()
        };
        let mut versions = BTreeSet::new();
        for id in asleep {
            let state = self.inner.listed(id).await?.and_then(|listed| listed.task.state);
            versions.extend(state.and_then(|state| read(&state)));
        }
        // Afterwards, so that what woke meanwhile is not missed.
        let world = self.inner.lock();
        let open = world.slots.values().filter(|slot| slot.task.is_open());
        versions.extend(open.filter_map(|slot| read(slot.task.state.as_ref()?)));
        Ok(versions)
    }

    /// Effects that may have a command under a keeper.
    #[must_use]
    pub fn open_runs(&self) -> Vec<RunId> {
        let world = self.inner.lock();
        let open = world.slots.values().filter(|slot| slot.task.is_open());
        let here = open.flat_map(|slot| slot.runs.iter().map(|seq| RunId { task: slot.task.id, seq: *seq }));
        let is_open = |id: &TaskId| world.table.get(*id).is_some_and(|entry| entry.flags.is_open());
        let asleep = world.asleep_runs.iter().filter(|(id, _)| is_open(id));
        here.chain(asleep.flat_map(|(id, seqs)| seqs.iter().map(|seq| RunId { task: *id, seq: *seq }))).collect()
    }
}
