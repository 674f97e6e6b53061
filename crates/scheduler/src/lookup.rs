//! Finding and listing tasks, in memory or at rest.
//!
//! Looking brings no task into memory: one read shows what it is. Invariant: an answer never holds a
//! task twice, and the lock is never held while reading.

use crate::engine::{Engine, Inner, World};
use crate::rest::{complete_ops, load};
use crate::runtime::unknown;
use crate::slot::History;
use crate::table::{BUCKETS, Entry, Flags};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Bound::{Excluded, Unbounded};
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{ListQuery, Listed, Listing};
use tinkerbell_core::words::{Lsn, TaskId};

/// Shortest prefix that names a task, so that a slip of the finger names none.
const PREFIX_DIGITS: usize = 4;
/// Digits of a whole id.
const DIGITS: usize = 32;
/// A task may go to sleep or wake up between the look and the read; so often it is looked for again.
const TRIES: usize = 8;
/// A journal that breaks while an answer waits for it is noticed within this time.
const LOOK: Duration = Duration::from_millis(100);
/// Buckets that are looked through under one lock.
const SLICE: usize = 512;

/// Where a task was found.
enum Found {
    Here(Box<Task>, History),
    Asleep(Entry),
}

impl Engine {
    /// A task by a prefix of its id, with all its operations.
    pub(crate) async fn look_up(&self, prefix: &str) -> Result<Listed, Fault> {
        let inner = &self.inner;
        for _ in 0..TRIES {
            let (found, digits) = find(&inner.lock(), prefix)?;
            let (mut task, history) = match found {
                Found::Here(task, history) => (*task, history),
                Found::Asleep(entry) => match load(&inner.deps, entry.id, entry.lsn).await {
                    Ok(slot) => (slot.task, slot.history),
                    Err(_) if inner.lock().table.get(entry.id) != Some(entry) => continue,
                    Err(fault) => return Err(fault),
                },
            };
            complete_ops(&inner.deps, &mut task, &history).await?;
            inner.settled().await?;
            return Ok(Listed { digits, task: inner.shown(&task) });
        }
        Err(crate::engine::crowded())
    }

    /// A page of tasks, newest activity first.
    pub(crate) async fn page(&self, query: ListQuery) -> Result<Listing, Fault> {
        let inner = &self.inner;
        let mut newest = Newest::new(query.limit);
        let (total, open) = {
            let world = inner.lock();
            let here = world.slots.values().filter(|slot| slot.task.status != Status::Removed);
            let wanted = |task: &Task| (!query.open || task.is_open()) && (!query.waiting || task.waiting_for().is_some());
            here.clone()
                .filter(|slot| wanted(&slot.task))
                .for_each(|slot| newest.add(query, slot.task.last_lsn.max(slot.snapshot), slot.task.id));
            (here.count() as u64 + world.table.total(), world.census.open() as u64)
        };
        if query.limit > 0 {
            for at in (0..BUCKETS).step_by(SLICE) {
                let world = inner.lock();
                let wanted = |flags: Flags| {
                    !flags.is_removed() && (!query.open || flags.is_open()) && (!query.waiting || flags.is_paused_for("person"))
                };
                let asleep = world.table.buckets(at..(at + SLICE).min(BUCKETS)).filter(|entry| wanted(entry.flags));
                asleep.for_each(|entry| newest.add(query, entry.lsn, entry.id));
            }
        }
        let (places, is_more) = newest.sorted();
        let before = places.last().map(|(lsn, _)| *lsn).filter(|_| is_more);
        let mut tasks = Vec::with_capacity(places.len());
        for (_, id) in places {
            tasks.extend(inner.listed(id).await?.filter(|listed| !query.open || listed.task.is_open()));
        }
        inner.settled().await?;
        Ok(Listing { tasks, before, total, open })
    }
}

impl Inner {
    /// Waits until all that is folded by now is durable: what a door shows must survive a crash.
    ///
    /// # Errors
    /// When the journal is broken; then what is folded may be lost.
    async fn settled(&self) -> Result<(), Fault> {
        let newest = self.lock().newest;
        let mut durable = self.durable.subscribe();
        loop {
            tokio::select! {
                biased;
                known = durable.wait_for(|tip| *tip >= newest) => return known.map(drop).map_err(|_| crate::engine::stopping()),
                () = self.deps.clock.sleep(LOOK) => {}
            }
            if let Some(fault) = &self.lock().broken {
                return Err(fault.clone());
            }
        }
    }

    /// A task for a list: as it is in memory or in its snapshot.
    pub(crate) async fn listed(&self, id: TaskId) -> Result<Option<Listed>, Fault> {
        for _ in 0..TRIES {
            let (entry, digits) = {
                let world = self.lock();
                if let Some(slot) = world.slots.get(&id) {
                    return Ok(Some(Listed { digits: digits(&world, id), task: self.shown(&slot.task) }));
                }
                (world.table.get(id).filter(|entry| !entry.flags.is_removed()), digits(&world, id))
            };
            let Some(entry) = entry else { return Ok(None) };
            match load(&self.deps, id, entry.lsn).await {
                Ok(slot) => return Ok(Some(Listed { digits, task: self.shown(&slot.task) })),
                Err(_) if self.lock().table.get(id) != Some(entry) => {}
                Err(fault) => return Err(fault),
            }
        }
        Ok(None)
    }
}

/// The newest of many, in bounded memory.
struct Newest {
    limit: usize,
    heap: BinaryHeap<Reverse<(Lsn, TaskId)>>,
}

impl Newest {
    fn new(limit: usize) -> Self {
        Self { limit, heap: BinaryHeap::with_capacity(limit.min(1_024) + 2) }
    }

    fn add(&mut self, query: ListQuery, place: Lsn, id: TaskId) {
        if query.before.is_some_and(|before| place >= before) || self.limit == 0 {
            return;
        }
        // One more than asked for, to know whether there are more.
        if self.heap.len() > self.limit && self.heap.peek().is_some_and(|Reverse((least, _))| place <= *least) {
            return;
        }
        self.heap.push(Reverse((place, id)));
        if self.heap.len() > self.limit + 1 {
            self.heap.pop();
        }
    }

    fn sorted(self) -> (Vec<(Lsn, TaskId)>, bool) {
        let mut all: Vec<(Lsn, TaskId)> = self.heap.into_iter().map(|Reverse(place)| place).collect();
        all.sort_unstable_by_key(|place| Reverse(*place));
        let is_more = all.len() > self.limit;
        all.truncate(self.limit);
        (all, is_more)
    }
}

/// Digits of the id that no other id begins with: more than its neighbours share with it.
fn digits(world: &World, id: TaskId) -> usize {
    let before = world.slots.range(..id).next_back().map(|(id, _)| *id);
    let after = world.slots.range((Excluded(id), Unbounded)).next().map(|(id, _)| *id);
    let (left, right) = world.table.neighbours(id);
    let near = [before, after, left, right].into_iter().flatten();
    near.map(|other| ((other.0 ^ id.0).leading_zeros() / 4) as usize + 1).max().unwrap_or(1)
}

fn find(world: &World, prefix: &str) -> Result<(Found, usize), Fault> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.len() < PREFIX_DIGITS {
        return Err(unknown(&prefix).hint(format!("give at least {PREFIX_DIGITS} digits of the id")));
    }
    let (Some(low), Some(high)) = (bound(&prefix, '0'), bound(&prefix, 'f')) else { return Err(unknown(&prefix)) };
    let here = world.slots.range(low..=high).filter(|(_, slot)| slot.task.status != Status::Removed).map(|(id, _)| *id);
    let asleep = world.table.range(low, high).filter(|entry| !entry.flags.is_removed()).map(|entry| entry.id);
    let mut hits = here.chain(asleep);
    match (hits.next(), hits.next()) {
        (Some(id), None) => {
            let here = world.slots.get(&id).map(|slot| Found::Here(Box::new(slot.task.clone()), slot.history.clone()));
            let found = here.or_else(|| world.table.get(id).map(Found::Asleep)).ok_or_else(|| unknown(&prefix))?;
            Ok((found, digits(world, id)))
        }
        (Some(_), Some(_)) => Err(Fault::new("TB-TASK-001", exit::USAGE, format!("more than one task begins with `{prefix}`"))
            .hint("give more digits; `tinkerbell ps -a` shows enough of each")),
        (None, _) => Err(unknown(&prefix)),
    }
}

/// The lowest or highest id with this prefix.
fn bound(prefix: &str, fill: char) -> Option<TaskId> {
    let rest = DIGITS.checked_sub(prefix.len())?;
    let text: String = prefix.chars().chain(std::iter::repeat_n(fill, rest)).collect();
    text.parse().ok()
}
