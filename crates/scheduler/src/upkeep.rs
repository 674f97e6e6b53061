//! Upkeep: tasks at rest leave memory, checkpoints are taken, the journal is compacted.
//!
//! One at a time and in small slices, so that no caller waits for it. Invariant: a checkpoint names
//! for each task a durable snapshot that stands for all its records up to the checkpoint's place.

use crate::engine::{Inner, World};
use crate::format::{Builder, Image};
use crate::rest::{Swept, flags};
use crate::rules::{Rules, floor};
use crate::table::{BUCKETS, Entry};
use crate::timers::Deadline;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Weak;
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::Event;
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::words::{Lsn, TaskId};

/// How often it looks.
const LOOK: Duration = Duration::from_secs(1);
/// Buckets of the table that a checkpoint copies under one lock.
const SLICE: usize = 32;
/// Slices of resting tasks in one look.
const SWEEPS: usize = 1_024;
/// Snapshots that a checkpoint writes under one lock.
const WRITES: usize = 256;
/// Deadlines that a checkpoint copies under one lock.
const DEADLINES: usize = 4_096;
/// Long tasks whose history one compaction shortens.
const FLOORS: usize = 256;

/// What upkeep remembers between looks.
#[derive(Debug, Default)]
pub(crate) struct Upkeep {
    /// Where the newest checkpoint stands, and the journal's size then.
    checkpoint: Lsn,
    checkpoint_bytes: u64,
    /// The journal's size after the newest compaction; 0 before the first look.
    compacted_bytes: u64,
}

/// Looks after the house for as long as the engine is there.
pub(crate) async fn keep_house(inner: Weak<Inner>) {
    loop {
        let Some(house) = inner.upgrade() else { return };
        let (stop, pause) = (house.stop.clone(), house.deps.clock.sleep(LOOK));
        // Held no longer: an engine that nobody has any more must go.
        drop(house);
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = pause => {}
        }
        let Some(house) = inner.upgrade() else { return };
        if house.lock().broken.is_none()
            && let Err(fault) = house.look_after().await
        {
            tracing::warn!(%fault, "upkeep of the journal failed; it is tried again");
        }
    }
}

impl Inner {
    /// One look.
    pub(crate) async fn look_after(&self) -> Result<(), Fault> {
        let mut upkeep = self.upkeep.lock().await;
        self.write_every_page().await?;
        for _ in 0..SWEEPS {
            self.room().await;
            let swept = self.sweep()?;
            for id in &swept.large {
                self.write_large(*id).await?;
            }
            if swept.moved == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
        let state = self.deps.journal.state();
        if upkeep.compacted_bytes == 0 {
            (upkeep.compacted_bytes, upkeep.checkpoint_bytes) = (state.bytes.max(1), state.bytes);
        }
        let grown = |since: u64, most: u64| state.bytes.saturating_sub(since) >= most;
        let compacts = self.options.compact_bytes > 0 && grown(upkeep.compacted_bytes, self.options.compact_bytes);
        let records = state.tip.0.saturating_sub(upkeep.checkpoint.0);
        if compacts || records >= self.options.checkpoint_records || grown(upkeep.checkpoint_bytes, self.options.checkpoint_bytes) {
            let (through, image) = self.checkpoint(&mut upkeep).await?;
            if compacts {
                self.compact(&mut upkeep, through, image).await?;
            }
        }
        Ok(())
    }

    /// Takes a checkpoint, unless nothing has happened since the newest.
    pub(crate) async fn checkpoint_now(&self) -> Result<(), Fault> {
        let mut upkeep = self.upkeep.lock().await;
        if self.lock().newest > upkeep.checkpoint {
            self.checkpoint(&mut upkeep).await?;
        }
        Ok(())
    }

    async fn checkpoint(&self, upkeep: &mut Upkeep) -> Result<(Lsn, Image), Fault> {
        self.write_all().await?;
        let (through, here) = {
            let world = self.lock();
            (world.newest, world.slots.len() as u64 + world.table.total())
        };
        let mut builder = Builder::new(usize::try_from(here).unwrap_or_default());
        let mut last = through;
        for at in (0..BUCKETS).step_by(SLICE) {
            self.room().await;
            let slice = self.slice(at..(at + SLICE).min(BUCKETS), through)?;
            for entry in slice {
                last = last.max(entry.lsn);
                builder.task(entry);
            }
            tokio::task::yield_now().await;
        }
        // After the tasks: what was set meanwhile is in, and what a start misses it looks up in the task.
        let deadlines = self.deadlines().await;
        let bytes = builder.finish(self.lock().keys.all(), deadlines, self.options.boot);
        if self.durable.subscribe().wait_for(|tip| *tip >= last).await.is_err() {
            return Err(crate::engine::stopping());
        }
        self.deps.journal.checkpoint(through, bytes.clone()).await?;
        // Not the tip: the snapshots that were written for it are of no concern to the next.
        (upkeep.checkpoint, upkeep.checkpoint_bytes) = (self.lock().newest, self.deps.journal.state().bytes);
        let image = Image::read(bytes).ok_or_else(|| {
            Fault::new("TB-SCHED-003", tinkerbell_core::code::exit::INTERNAL, "a defect of ours: a checkpoint that can not be read back")
        })?;
        Ok((through, image))
    }

    /// All deadlines, copied while others come and go.
    async fn deadlines(&self) -> Vec<Deadline> {
        let mut deadlines = Vec::new();
        for is_wall in [false, true] {
            let mut after = None;
            loop {
                let some = self.timers().some(is_wall, after, DEADLINES);
                let Some((last, _)) = some.last() else { break };
                after = Some(*last);
                deadlines.extend(some.into_iter().map(|(_, deadline)| deadline).filter(|deadline| deadline.wall_ms > 0));
                tokio::task::yield_now().await;
            }
        }
        deadlines
    }

    /// Writes the snapshots of all tasks in memory that have changed, so that few are left to write
    /// while the table is copied.
    async fn write_all(&self) -> Result<(), Fault> {
        self.write_every_page().await?;
        let changed: Vec<TaskId> = {
            let world = self.lock();
            let changed = world.slots.values().filter(|slot| slot.dirty && slot.task.status != Status::Removed);
            changed.map(|slot| slot.task.id).collect()
        };
        for some in changed.chunks(WRITES) {
            self.room().await;
            let mut swept = Swept::default();
            {
                let mut world = self.lock();
                for id in some {
                    self.write_snapshot(&mut world, *id, &mut swept)?;
                }
            }
            for id in swept.large {
                self.write_large(id).await?;
            }
            tokio::task::yield_now().await;
        }
        Ok(())
    }

    async fn write_every_page(&self) -> Result<(), Fault> {
        loop {
            self.room().await;
            if !self.write_pages()? {
                return Ok(());
            }
            tokio::task::yield_now().await;
        }
    }

    /// The entries of some buckets; tasks in memory get a snapshot where theirs is old.
    fn slice(&self, buckets: Range<usize>, through: Lsn) -> Result<Vec<Entry>, Fault> {
        let mut world = self.lock();
        let (low, high) = ids(&buckets);
        let here: Vec<TaskId> = world.slots.range(low..=high).map(|(id, _)| *id).collect();
        let mut entries: Vec<Entry> = world.table.buckets(buckets).copied().collect();
        let asleep = entries.len();
        for id in here {
            entries.extend(self.entry(&mut world, id, through)?);
        }
        if entries.len() > asleep {
            entries.sort_unstable_by_key(|entry| entry.id);
        }
        Ok(entries)
    }

    fn entry(&self, world: &mut World, id: TaskId, through: Lsn) -> Result<Option<Entry>, Fault> {
        let Some(slot) = world.slots.get(&id).filter(|slot| slot.first <= through) else { return Ok(None) };
        let flags = flags(slot, self.options.history);
        if slot.task.status == Status::Removed {
            return Ok(Some(Entry { id, lsn: slot.task.last_lsn, flags }));
        }
        let lsn = if slot.dirty {
            let event = Event::Snapshot(slot.at_rest());
            self.record_in(world, id, vec![event])?.last
        } else {
            slot.snapshot
        };
        Ok(Some(Entry { id, lsn, flags }))
    }

    /// Gives the disk back what nobody needs any more.
    async fn compact(&self, upkeep: &mut Upkeep, through: Lsn, image: Image) -> Result<(), Fault> {
        let long: Vec<Entry> = image.tasks().filter(|entry| entry.flags.is_long()).take(FLOORS).collect();
        let mut floors = BTreeMap::new();
        for entry in long {
            if let Some(floor) = floor(&self.deps, entry.id, entry.lsn, self.options.history).await? {
                floors.insert(entry.id, floor);
            }
        }
        let done = self.deps.journal.compact(Rules::new(image, through, floors).needed()).await?;
        upkeep.compacted_bytes = self.deps.journal.state().bytes.max(1);
        tracing::info!(segments = done.segments, dropped = done.dropped, freed_bytes = done.freed_bytes, "the journal was compacted");
        Ok(())
    }
}

/// The lowest and the highest id of some buckets.
fn ids(buckets: &Range<usize>) -> (TaskId, TaskId) {
    let shift = u128::BITS - BUCKETS.trailing_zeros();
    let low = (buckets.start as u128) << shift;
    let high = (buckets.end as u128).checked_sub(1).map_or(0, |last| (last << shift) | ((1 << shift) - 1));
    (TaskId(low), TaskId(high))
}
