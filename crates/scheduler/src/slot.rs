//! A task in memory and what the engine keeps beside it, and both at rest.
//!
//! Everything here is a fold over the task's records. Invariant: a slot made of a snapshot goes on
//! exactly like the slot that the snapshot was taken of.

use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use tinkerbell_core::event::{Action, Event, Observation, Placed};
use tinkerbell_core::lifecycle::format::{self, Page, Snapshot, TaskState};
use tinkerbell_core::lifecycle::{OP_SEQ, Status, Task};
use tinkerbell_core::words::{Lsn, Seq, TaskId};
use tokio_util::sync::CancellationToken;

/// History numbers in one page.
pub(crate) const PAGE: usize = 256;

/// A task and what the engine keeps beside it.
pub(crate) struct Slot {
    pub(crate) task: Task,
    /// Its first record.
    pub(crate) first: Lsn,
    /// Records that make up its past: intents, observations, words; and its operations.
    pub(crate) history: History,
    /// Where the observation of each effect stands that a resumed coroutine may still ask for.
    pub(crate) observed: BTreeMap<Seq, Lsn>,
    /// Effects that may have left a command behind.
    pub(crate) runs: Vec<Seq>,
    /// Stops the driver.
    pub(crate) driver: Option<CancellationToken>,
    /// One user operation at a time.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
    /// Whoever has a clone of it keeps the task in memory.
    pub(crate) pin: Arc<()>,
    /// The record of its workspace.
    prepared: Lsn,
    /// Whether the workspace's rules and environment are missing here.
    pub(crate) thin: bool,
    /// Records folded so far, bookkeeping left out.
    pub(crate) folded: u64,
    /// Its newest snapshot; 0 for none.
    pub(crate) snapshot: Lsn,
    /// The snapshot before that one, where this was made of it.
    pub(crate) previous: Lsn,
    /// Whether something was folded after that.
    pub(crate) dirty: bool,
    /// Monotonic time at which it was last used, milliseconds.
    pub(crate) used_ms: u64,
    /// Whether it stands in the queue of those that may become dormant.
    pub(crate) resting: bool,
}

/// The newest part of a history index; older parts stand in pages.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct History {
    /// Records in all pages together.
    pub(crate) paged: u64,
    /// The newest page; 0 for none.
    pub(crate) page: Lsn,
    /// Records behind the newest page, in journal order.
    pub(crate) tail: Vec<Lsn>,
    /// Operations behind the newest page.
    pub(crate) ops: Vec<Lsn>,
}

impl History {
    /// History records of the task.
    pub(crate) fn count(&self) -> u64 {
        self.paged.saturating_add(self.tail.len() as u64)
    }

    /// The page that takes the oldest of the tail, where there is enough.
    pub(crate) fn page(&self) -> Option<Page> {
        let records = self.tail.get(..PAGE).filter(|_| self.tail.len() >= 2 * PAGE)?;
        let last = records.last()?;
        let ops = self.ops.partition_point(|lsn| lsn < last);
        let ops = format::pack(self.ops.get(..ops).unwrap_or_default());
        Some(Page { previous: self.page.0, before: self.paged, records: format::pack(records), ops })
    }

    /// Takes out what a page holds; a page that does not fit changes nothing.
    fn turn(&mut self, lsn: Lsn, page: &Page) {
        let (records, ops) = (format::unpack(&page.records), format::unpack(&page.ops));
        if page.before == self.paged && self.tail.starts_with(&records) && self.ops.starts_with(&ops) {
            self.tail.drain(..records.len());
            self.ops.drain(..ops.len());
            self.paged = self.paged.saturating_add(records.len() as u64);
            self.page = lsn;
        }
    }
}

impl Slot {
    pub(crate) fn new(task: Task, first: Lsn) -> Self {
        Self {
            task,
            first,
            history: History::default(),
            observed: BTreeMap::new(),
            runs: Vec::new(),
            driver: None,
            gate: Arc::default(),
            pin: Arc::default(),
            prepared: Lsn(0),
            thin: false,
            folded: 1,
            snapshot: Lsn(0),
            previous: Lsn(0),
            dirty: true,
            used_ms: 0,
            resting: false,
        }
    }

    /// Folds one event in, and remembers where it stands.
    pub(crate) fn apply(&mut self, placed: &Placed) {
        match &placed.event {
            Event::Page(page) => {
                self.history.turn(placed.lsn, page);
                self.dirty = true;
                return;
            }
            Event::Snapshot(_) => {
                (self.snapshot, self.dirty) = (placed.lsn, false);
                return;
            }
            Event::Intent(intent) if intent.seq < OP_SEQ => {
                self.history.tail.push(placed.lsn);
                // Nothing asks again for what was observed before the effect that is under way.
                self.observed.retain(|seq, _| *seq >= intent.seq);
                if matches!(intent.action, Some(Action::Call(_) | Action::Verify(_))) {
                    self.runs.push(intent.seq);
                }
            }
            Event::Observed(observed) => {
                // Only what goes on in the background may still have a keeper.
                if !matches!(&observed.observation, Some(Observation::Result(result)) if result.status == "running") {
                    self.runs.retain(|seq| *seq != observed.seq);
                }
                if matches!(&observed.observation, Some(Observation::Prepared(_))) {
                    (self.prepared, self.thin) = (placed.lsn, false);
                }
                if observed.seq < OP_SEQ {
                    self.observed.insert(observed.seq, placed.lsn);
                    self.history.tail.push(placed.lsn);
                }
            }
            Event::OpDone(_) => self.history.ops.push(placed.lsn),
            Event::Signal(signal) if matches!(signal.kind.as_str(), "tell" | "note") => self.history.tail.push(placed.lsn),
            Event::Signal(signal) if signal.kind == "remove" => {
                (self.history, self.runs) = (History::default(), Vec::new());
                self.observed.clear();
            }
            _ => {}
        }
        self.folded = self.folded.saturating_add(1);
        self.dirty = true;
        self.task.apply(placed);
    }

    /// Whether it may leave memory while nobody drives it: it stands still, waits for a deadline, or
    /// waits for its turn. What a user wished is never left half done.
    pub(crate) const fn may_rest(&self) -> bool {
        !self.task.cancelling && self.task.open_op.is_none()
    }

    /// Whether it wants to work.
    pub(crate) const fn is_ready(&self) -> bool {
        matches!(self.task.status, Status::Queued | Status::Running)
    }

    /// Whether anybody holds it.
    pub(crate) fn is_held(&self) -> bool {
        Arc::strong_count(&self.pin) > 1 || Arc::strong_count(&self.gate) > 1
    }

    /// The task at rest.
    pub(crate) fn at_rest(&self) -> Snapshot {
        let mut task = TaskState::of(&self.task, self.prepared);
        if self.thin {
            task.prepared_lsn = self.prepared.0;
        }
        let history = format::History {
            paged: self.history.paged,
            page: self.history.page.0,
            tail: format::pack(&self.history.tail),
            ops: format::pack(&self.history.ops),
        };
        let observed = self.observed.iter().map(|(seq, lsn)| format::Observation { seq: *seq, lsn: lsn.0 });
        Snapshot {
            version: format::VERSION,
            previous: self.snapshot.0,
            folded: self.folded,
            first: self.first.0,
            task: Some(task),
            runs: self.runs.clone(),
            observed: observed.collect(),
            history: Some(history),
        }
    }

    /// The slot that a snapshot was taken of; `None` when a newer release wrote it.
    pub(crate) fn of(id: TaskId, lsn: Lsn, snapshot: Snapshot) -> Option<Self> {
        if snapshot.version == 0 || snapshot.version > format::VERSION {
            return None;
        }
        let state = snapshot.task?;
        let (prepared, history) = (Lsn(state.prepared_lsn), snapshot.history.unwrap_or_default());
        let mut slot = Self::new(state.into_task(id), Lsn(snapshot.first));
        slot.history = History {
            paged: history.paged,
            page: Lsn(history.page),
            tail: format::unpack(&history.tail),
            ops: format::unpack(&history.ops),
        };
        slot.observed = snapshot.observed.iter().map(|observed| (observed.seq, Lsn(observed.lsn))).collect();
        (slot.runs, slot.folded, slot.snapshot, slot.dirty) = (snapshot.runs, snapshot.folded, lsn, false);
        (slot.prepared, slot.thin, slot.previous) = (prepared, prepared > Lsn(0), Lsn(snapshot.previous));
        Some(slot)
    }

    /// Puts the workspace's long texts back; they stand in the record [`Self::workspace_record`].
    pub(crate) fn thicken(&mut self, placed: &Placed) {
        if let Event::Observed(observed) = &placed.event
            && let (Some(Observation::Prepared(whole)), Some(prepared)) = (&observed.observation, &mut self.task.prepared)
        {
            prepared.rules.clone_from(&whole.rules);
            prepared.environment.clone_from(&whole.environment);
            self.thin = false;
        }
    }

    /// The record of its workspace; 0 while there is none.
    pub(crate) const fn workspace_record(&self) -> Lsn {
        self.prepared
    }

    /// Whether both are the same fold; the snapshots' own places do not count.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let plain = |slot: &Self| Snapshot { previous: 0, ..slot.at_rest() }.encode_to_vec();
        plain(self) == plain(other)
    }
}
