//! Between memory and rest: tasks leave memory, and come back with one read.
//!
//! Invariant: a task leaves only after a snapshot that stands for all its records is durable, and
//! nobody who holds it or drives it is left without it.

use crate::engine::{Deps, Inner, World};
use crate::record::unpack;
use crate::slot::Slot;
use crate::table::{Entry, Flags};
use std::sync::Arc;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::{self, Event, Paused, Placed};
use tinkerbell_core::lifecycle::{OpEntry, Status, Task, format};
use tinkerbell_core::words::{Lsn, TaskId};

/// Keeps a task in memory.
pub(crate) type Hold = Arc<()>;

/// Tasks that are looked at under one lock.
const SLICE: usize = 64;
/// Records that a check of determinism reads at most.
const CHECKED: usize = 4_096;
/// One resume of so many is checked in releases; in debug builds all are.
const CHECK_EVERY: u64 = 100;

/// What a look at resting tasks came to.
#[derive(Debug, Default)]
pub(crate) struct Swept {
    /// Tasks that left memory, and snapshots that were written for others.
    pub(crate) moved: usize,
    /// Tasks whose snapshot is too large for a record of its own.
    pub(crate) large: Vec<TaskId>,
}

/// The record with this number; `None` when it is not there any more.
pub(crate) async fn read(deps: &Deps, lsn: Lsn) -> Result<Option<Placed>, Fault> {
    let record = deps.journal.read(lsn, 1).await?.into_iter().next().filter(|record| record.lsn == lsn);
    match record {
        Some(record) => unpack(&*deps.blobs, record).await,
        None => Ok(None),
    }
}

/// A task out of its snapshot, whole but for old operations.
///
/// # Errors
/// TB-SCHED-006 when the snapshot is missing or unreadable.
pub(crate) async fn load(deps: &Deps, id: TaskId, lsn: Lsn) -> Result<Slot, Fault> {
    let missing = || {
        let what = format!("task {} can not be loaded: record {lsn} is no snapshot of it", id.short(8));
        Fault::new("TB-SCHED-006", exit::INTERNAL, what).hint("`tinkerbell explain TB-SCHED-006` says how to start without the checkpoint")
    };
    let placed = read(deps, lsn).await?.filter(|placed| placed.task == id).ok_or_else(missing)?;
    let Event::Snapshot(snapshot) = placed.event else { return Err(missing()) };
    let mut slot = Slot::of(id, lsn, snapshot).ok_or_else(missing)?;
    thicken(deps, &mut slot).await?;
    Ok(slot)
}

/// Reads what a snapshot leaves to the workspace's own record.
pub(crate) async fn thicken(deps: &Deps, slot: &mut Slot) -> Result<(), Fault> {
    if slot.thin
        && let Some(placed) = read(deps, slot.workspace_record()).await?
    {
        slot.thicken(&placed);
    }
    Ok(())
}

/// Puts back the operations that a snapshot leaves to their records; those that are not kept any
/// more stay away.
pub(crate) async fn complete_ops(deps: &Deps, task: &mut Task, history: &crate::slot::History) -> Result<(), Fault> {
    let below = task.ops.below();
    if below == 0 {
        return Ok(());
    }
    let mut lsns = history.ops.clone();
    let mut page = history.page;
    while lsns.len() < task.ops.count() as usize
        && let Some(Placed { event: Event::Page(found), .. }) = read(deps, page).await?
    {
        lsns.splice(0..0, format::unpack(&found.ops));
        page = Lsn(found.previous);
    }
    // The newest numbers are sure: what is missing is missing at the front.
    let first = task.ops.count().saturating_sub(u32::try_from(lsns.len()).unwrap_or(u32::MAX));
    let mut older: Vec<OpEntry> = Vec::new();
    for (number, lsn) in (first.saturating_add(1)..=below).zip(lsns) {
        match read(deps, lsn).await? {
            Some(Placed { at_ms, event: Event::OpDone(done), .. }) => older.push(OpEntry { number, lsn, at_ms, done }),
            _ => older.clear(),
        }
    }
    task.ops.complete(older);
    Ok(())
}

/// The flags of a task at rest.
pub(crate) fn flags(slot: &Slot, kept: u64) -> Flags {
    let runs = if crate::replay::known(slot).is_empty() { 0 } else { Flags::RUNS };
    let awake = if slot.may_rest() { 0 } else { Flags::AWAKE };
    let long = if slot.history.count() > kept { Flags::LONG } else { 0 };
    Flags::of(&slot.task, runs | awake | long)
}

impl World {
    /// Lets a task leave memory whose snapshot is durable.
    pub(crate) fn evict(&mut self, id: TaskId, kept: u64) {
        if let Some(slot) = self.slots.remove(&id) {
            let lsn = if slot.task.status == Status::Removed { slot.task.last_lsn } else { slot.snapshot };
            self.table.insert(Entry { id, lsn, flags: flags(&slot, kept) });
            if !slot.runs.is_empty() {
                self.asleep_runs.insert(id, slot.runs);
            }
        }
    }

    /// Brings a task back.
    pub(crate) fn wake(&mut self, slot: Slot, mono_ms: u64) {
        let id = slot.task.id;
        self.table.remove(id);
        self.asleep_runs.remove(&id);
        self.slots.insert(id, slot);
        self.used(id, mono_ms);
    }
}

impl Inner {
    /// Brings a task into memory and keeps it there for as long as the answer lives; `None` when
    /// there is no such task.
    ///
    /// # Errors
    /// As for [`load`].
    pub(crate) async fn hold(&self, id: TaskId) -> Result<Option<Hold>, Fault> {
        loop {
            let entry = {
                let mut world = self.lock();
                let now_ms = self.deps.clock.now().mono_ms;
                if let Some(slot) = world.slots.get_mut(&id) {
                    slot.used_ms = now_ms;
                    return Ok(Some(slot.pin.clone()));
                }
                world.table.get(id).filter(|entry| !entry.flags.is_removed())
            };
            let Some(entry) = entry else { return Ok(None) };
            let slot = load(&self.deps, id, entry.lsn).await?;
            let doubt = if is_checked(entry.lsn) { check(&self.deps, &slot).await? } else { None };
            let hold = {
                let mut world = self.lock();
                if world.table.get(id) != Some(entry) {
                    continue;
                }
                let hold = slot.pin.clone();
                world.wake(slot, self.deps.clock.now().mono_ms);
                // Who waits for a turn can be stopped, as if it had never slept.
                if let (Some(stop), Some(slot)) = (self.turns().woken(id), world.slots.get_mut(&id)) {
                    slot.driver = Some(stop);
                }
                hold
            };
            if let Some(text) = doubt {
                self.quarantine(id, text).await?;
            }
            return Ok(Some(hold));
        }
    }

    /// Lets nothing happen to a task whose records do not add up to its snapshot.
    async fn quarantine(&self, id: TaskId, text: String) -> Result<(), Fault> {
        tracing::error!(task = %id, text, "a task does not add up; it stands still");
        let paused = Event::Paused(Paused { why: "quarantine".into(), text, ..Paused::default() });
        self.record(id, vec![paused]).await?.durable().await.map(drop)
    }

    /// Looks at tasks that stand still: writes their snapshots, and lets those leave memory whose
    /// snapshot is durable.
    pub(crate) fn sweep(&self) -> Result<Swept, Fault> {
        let (now_ms, durable) = (self.deps.clock.now().mono_ms, *self.durable.borrow());
        let after_ms = u64::try_from(self.options.rest_after.as_millis()).unwrap_or(u64::MAX);
        let mut swept = Swept::default();
        let mut world = self.lock();
        for _ in 0..SLICE.min(world.resting.len()) {
            let crowded = world.resting.len() > self.options.resting;
            let Some(id) = world.resting.pop_front() else { break };
            let Some(slot) = world.slots.get_mut(&id) else { continue };
            if !slot.may_rest() {
                slot.resting = false;
                continue;
            }
            let due = crowded || slot.used_ms.saturating_add(after_ms) <= now_ms;
            let is_undriven = if slot.is_ready() { self.turns().is_new(id) } else { slot.driver.is_none() };
            let free = is_undriven && !slot.is_held();
            let stands_for = if slot.task.status == Status::Removed { slot.task.last_lsn } else { slot.snapshot };
            let is_written = !slot.dirty || slot.task.status == Status::Removed;
            match (due && free, is_written) {
                (true, true) if stands_for <= durable => {
                    world.evict(id, self.options.history);
                    self.turns().dozes(id);
                    swept.moved += 1;
                    continue;
                }
                (true, false) => self.write_snapshot(&mut world, id, &mut swept)?,
                _ => {}
            }
            world.resting.push_back(id);
        }
        Ok(swept)
    }

    pub(crate) fn write_snapshot(&self, world: &mut World, id: TaskId, swept: &mut Swept) -> Result<(), Fault> {
        let Some(event) = world.slots.get(&id).filter(|slot| slot.dirty).map(|slot| Event::Snapshot(slot.at_rest())) else { return Ok(()) };
        if event::encode(event.clone(), 0).len() > crate::record::INLINE_BYTES {
            swept.large.push(id);
            return Ok(());
        }
        // Durable with whatever comes next; until then the task stays.
        drop(self.record_in(world, id, vec![event])?);
        swept.moved += 1;
        Ok(())
    }

    /// Writes the snapshot of a task that does not fit into a record, unless the task has changed.
    pub(crate) async fn write_large(&self, id: TaskId) -> Result<(), Fault> {
        let found = self.lock().slots.get(&id).filter(|slot| slot.dirty).map(|slot| (slot.at_rest(), slot.task.last_lsn));
        let Some((snapshot, last)) = found else { return Ok(()) };
        self.record_if(id, vec![Event::Snapshot(snapshot)], |task| task.last_lsn == last).await.map(drop)
    }

    /// Writes pages for tasks whose history index has grown; says whether more are wanted.
    pub(crate) fn write_pages(&self) -> Result<bool, Fault> {
        let mut world = self.lock();
        for _ in 0..SLICE {
            let Some(id) = world.paging.pop() else { break };
            let Some(page) = world.slots.get(&id).and_then(|slot| slot.history.page()) else { continue };
            drop(self.record_in(&mut world, id, vec![Event::Page(page)])?);
            world.paging.push(id);
        }
        Ok(!world.paging.is_empty())
    }
}

fn is_checked(lsn: Lsn) -> bool {
    cfg!(debug_assertions) || lsn.0.is_multiple_of(CHECK_EVERY)
}

/// Folds the records between the snapshot before and this one once more; says what does not add
/// up. Nothing is said where records of that stretch are not kept any more, or where it is long.
pub(crate) async fn check(deps: &Deps, slot: &Slot) -> Result<Option<String>, Fault> {
    let Some((mut again, mut from)) = before(deps, slot).await? else { return Ok(None) };
    let mut left = CHECKED;
    while from < slot.snapshot {
        let records = deps.journal.read(from, left.min(256)).await?;
        let Some(last) = records.last().map(|record| record.lsn) else { return Ok(None) };
        left = left.saturating_sub(records.len());
        for record in records.into_iter().filter(|record| record.task == Some(slot.task.id) && record.lsn < slot.snapshot) {
            if let Some(placed) = unpack(&*deps.blobs, record).await? {
                again.apply(&placed);
            }
        }
        from = last.next();
        if left == 0 {
            return Ok(None);
        }
    }
    thicken(deps, &mut again).await?;
    if again.folded != slot.folded || again.is_same(slot) {
        return Ok(None);
    }
    Ok(Some(format!("TB-SCHED-005: its records up to {} do not add up to its snapshot; `tinkerbell explain TB-SCHED-005`", slot.snapshot)))
}

/// Where a check begins: the snapshot before, or the submission.
async fn before(deps: &Deps, slot: &Slot) -> Result<Option<(Slot, Lsn)>, Fault> {
    let from = if slot.previous > Lsn(0) { slot.previous } else { slot.first };
    let id = slot.task.id;
    Ok(match read(deps, from).await?.filter(|placed| placed.task == id) {
        Some(Placed { event: Event::Snapshot(snapshot), .. }) => Slot::of(id, from, snapshot).map(|slot| (slot, from.next())),
        Some(Placed { at_ms, event: Event::Submitted(submitted), .. }) => {
            Some((Slot::new(Task::new(id, from, at_ms, submitted), from), from.next()))
        }
        _ => None,
    })
}
