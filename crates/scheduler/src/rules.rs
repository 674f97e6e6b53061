//! Which records are still needed: the rules of compaction.
//!
//! Pure: a checkpoint says for each task which snapshot stands for what is before it. Invariant: what
//! a start needs that finds this checkpoint, a later one, or none at all is never given away.

use crate::engine::Deps;
use crate::format::Image;
use crate::rest::{load, read};
use crate::slot::PAGE;
use std::collections::BTreeMap;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::Event;
use tinkerbell_core::lifecycle::format::unpack;
use tinkerbell_core::port::{Journal, Needed};
use tinkerbell_core::words::{Lsn, TaskId};

/// What is done with records of a kind that are older than their task's snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// The snapshot stands for it.
    Superseded,
    /// People read it, or the model's past needs it: it lives as long as the task, up to a bound.
    History,
    /// It lives as long as the task.
    Kept,
}

const fn fate(kind: u16) -> Fate {
    match kind {
        // started, reserved, settled, released, state-saved, timer-fired, snapshot
        18 | 21..=24 | 32 | 33 => Fate::Superseded,
        // intent, observed, signals (some are the user's words, and a kind does not say which),
        // approvals, op-done, paused, finished, orphan-reaped, page
        19 | 20 | 25..=31 | 34 => Fate::History,
        // submitted, and what a later release writes
        _ => Fate::Kept,
    }
}

/// Where the history of a long task begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    /// The oldest history record that is kept.
    pub(crate) from: Lsn,
    /// A record that is kept although it is older: that of the workspace.
    pub(crate) beside: Lsn,
}

/// The rules as a checkpoint gives them.
#[derive(Debug, Clone)]
pub struct Rules {
    image: Image,
    through: Lsn,
    floors: BTreeMap<TaskId, Floor>,
}

impl Rules {
    pub(crate) const fn new(image: Image, through: Lsn, floors: BTreeMap<TaskId, Floor>) -> Self {
        Self { image, through, floors }
    }

    /// The rules of the journal's newest checkpoint, for a daemon that is stopped; `None` when there
    /// is none: then everything is needed. Histories are not shortened, because only the engine
    /// reads them.
    ///
    /// # Errors
    /// When the checkpoint can not be read.
    pub async fn of(journal: &dyn Journal) -> Result<Option<Self>, Fault> {
        let found = journal.restore().await?;
        Ok(found.and_then(|(through, bytes)| Some(Self::new(Image::read(bytes)?, through, BTreeMap::new()))))
    }

    /// Whether a record is still needed, by its number, kind and task.
    #[must_use]
    pub fn is_needed(&self, lsn: Lsn, kind: u16, task: Option<TaskId>) -> bool {
        let Some(entry) = task.and_then(|task| self.image.find(task)) else { return true };
        if lsn > self.through {
            return true;
        }
        if entry.flags.is_removed() {
            // The record that removed it stays, so that a start without checkpoint knows.
            return lsn >= entry.lsn;
        }
        match fate(kind) {
            Fate::Kept => true,
            Fate::Superseded => lsn >= entry.lsn,
            Fate::History => self.floors.get(&entry.id).is_none_or(|floor| lsn >= floor.from || lsn == floor.beside),
        }
    }

    /// The rules as the journal asks for them.
    #[must_use]
    pub fn needed(self) -> Needed {
        let rules = Arc::new(self);
        Arc::new(move |lsn, kind, task| rules.is_needed(lsn, kind, task))
    }
}

/// Where the kept history of a task begins, of which a snapshot says that it is longer than `kept`.
pub(crate) async fn floor(deps: &Deps, id: TaskId, snapshot: Lsn, kept: u64) -> Result<Option<Floor>, Fault> {
    let slot = load(deps, id, snapshot).await?;
    let mut count = slot.history.tail.len() as u64;
    let (mut page, mut from) = (slot.history.page, None);
    // Whole pages, so that the index never names what is gone.
    while count < kept.max(PAGE as u64) {
        let Some(Event::Page(found)) = read(deps, page).await?.map(|placed| placed.event) else { return Ok(None) };
        count = count.saturating_add(found.records.len() as u64);
        from = unpack(&found.records).first().copied();
        page = Lsn(found.previous);
    }
    Ok(from.map(|from| Floor { from, beside: slot.workspace_record() }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::Builder;
    use crate::table::{Entry, Flags};

    fn rules() -> Rules {
        let mut builder = Builder::new(3);
        // 1 is finished, 2 was removed, 3 is long.
        for (id, lsn, flags) in [(1, 100, 4), (2, 90, 5), (3, 120, 3)] {
            builder.task(Entry { id: TaskId(id), lsn: Lsn(lsn), flags: Flags(flags) });
        }
        let image = Image::read(builder.finish(std::iter::empty(), Vec::new(), 0)).unwrap();
        let floors = BTreeMap::from([(TaskId(3), Floor { from: Lsn(60), beside: Lsn(5) })]);
        Rules::new(image, Lsn(110), floors)
    }

    fn needed(task: u128, lsn: u64) -> Vec<u16> {
        (17..=35).filter(|kind| rules().is_needed(Lsn(lsn), *kind, Some(TaskId(task)))).collect()
    }

    #[test]
    fn a_snapshot_stands_for_bookkeeping_before_it_and_history_lives() {
        assert_eq!(needed(1, 50), [17, 19, 20, 25, 26, 27, 28, 29, 30, 31, 34, 35]);
        assert_eq!(needed(1, 100).len(), 19);
    }

    #[test]
    fn of_a_removed_task_only_the_removal_stays() {
        assert!(needed(2, 50).is_empty());
        assert_eq!(needed(2, 90).len(), 19);
    }

    #[test]
    fn a_long_history_loses_its_oldest_part_but_not_the_workspace() {
        assert_eq!(needed(3, 50), [17, 35]);
        assert!(needed(3, 60).contains(&20) && needed(3, 5).contains(&20) && !needed(3, 60).contains(&24));
    }

    #[test]
    fn what_the_checkpoint_does_not_know_is_needed() {
        assert_eq!(needed(9, 50).len(), 19);
        assert_eq!(needed(3, 111).len(), 19);
        assert!(rules().is_needed(Lsn(1), 24, None));
    }
}
