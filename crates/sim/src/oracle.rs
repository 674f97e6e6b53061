//! The oracle: remembers every acknowledgement, and knows what must never happen.
//!
//! Its ledger holds each record from the moment in which a living daemon was told that it is durable;
//! the tasks are folded from it independently of the engine. Invariant: it believes nobody but the
//! ledger and the world.

use crate::hold;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fmt::Write as _;
use std::sync::Mutex;
use tinkerbell_core::clock::Stamp;
use tinkerbell_core::event::{Action, Event, Observation, Placed, Timer};
use tinkerbell_core::lifecycle::{OP_SEQ, Status, Task};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::port::Record;
use tinkerbell_core::words::{Lsn, Seq, TaskId};

/// Lines of history that are kept.
const LINES: usize = 60;

/// What was found wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Its kind; shrinking keeps it.
    pub kind: &'static str,
    /// What exactly.
    pub text: String,
}

/// What one task may do at a moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Halt {
    Cancelled,
    Paused,
}

#[derive(Default)]
struct Ledger {
    records: BTreeMap<u64, (Record, Option<Placed>)>,
    tasks: BTreeMap<TaskId, Task>,
    keys: BTreeMap<String, TaskId>,
    intents: BTreeSet<(TaskId, Seq)>,
    observed: BTreeSet<(TaskId, Seq)>,
    answers: BTreeSet<(TaskId, u32)>,
    fired: BTreeSet<(TaskId, u64)>,
    timers: BTreeMap<(TaskId, u64), Timer>,
    /// Acknowledged halts, and where the journal ended then.
    halts: BTreeMap<TaskId, (Halt, Lsn)>,
    /// Records that the engine does not need any more, and that compaction may drop.
    given_away: BTreeSet<u64>,
    /// Up to where everybody may rely on the journal.
    tip: Lsn,
}

/// The oracle.
#[derive(Default)]
pub struct Oracle {
    ledger: Mutex<Ledger>,
    found: Mutex<Option<Violation>>,
    lines: Mutex<VecDeque<String>>,
    /// Whether lines are kept.
    pub verbose: bool,
}

impl Oracle {
    /// An oracle; a verbose one keeps the last lines of the history.
    pub fn new(verbose: bool) -> Self {
        Self { verbose, ..Self::default() }
    }

    /// Keeps a line of history.
    pub fn note(&self, now_ms: u64, line: impl FnOnce() -> String) {
        if self.verbose {
            let mut lines = hold(&self.lines);
            if lines.len() == LINES {
                lines.pop_front();
            }
            lines.push_back(format!("{now_ms:>10} ms  {}", line()));
        }
    }

    /// The lines that were kept.
    pub fn lines(&self) -> Vec<String> {
        hold(&self.lines).iter().cloned().collect()
    }

    /// Something is wrong; the first finding counts.
    pub fn fail(&self, kind: &'static str, text: impl Into<String>) {
        hold(&self.found).get_or_insert(Violation { kind, text: text.into() });
    }

    /// What was found wrong.
    pub fn found(&self) -> Option<Violation> {
        hold(&self.found).clone()
    }

    /// A living daemon was told that these records are durable.
    pub fn durable(&self, records: Vec<(Record, Option<Placed>)>) {
        let mut ledger = hold(&self.ledger);
        for (record, placed) in records {
            self.take(&mut ledger, record, placed);
        }
    }

    /// The engine says that it does not need some records any more.
    pub fn given_away(&self, gone: impl Fn(&Record) -> bool) {
        let ledger = &mut *hold(&self.ledger);
        let records = ledger.records.values().filter(|(record, _)| gone(record)).map(|(record, _)| record.lsn.0);
        ledger.given_away.extend(records);
    }

    /// Whether a record may be gone.
    pub fn may_be_gone(&self, lsn: u64) -> bool {
        hold(&self.ledger).given_away.contains(&lsn)
    }

    /// An event is on its way into the journal: a timer must not fire early.
    pub fn queued(&self, id: TaskId, event: &Event, now: Stamp, boot: u128) {
        let mut ledger = hold(&self.ledger);
        match event {
            Event::Paused(paused) => ledger.timers.extend(paused.timer.clone().map(|timer| ((id, timer.id), timer))),
            Event::TimerFired(fired) => {
                let which = || format!("timer {} of task {}", fired.id, id.short(6));
                let Some(timer) = ledger.timers.get(&(id, fired.id)) else { return self.fail("timer out of nowhere", which()) };
                let is_same_boot = timer.boot == boot.to_be_bytes();
                let left_ms = if is_same_boot {
                    timer.due_mono_ms.saturating_sub(now.mono_ms)
                } else {
                    timer.due_wall_ms.saturating_sub(now.wall_ms)
                };
                if left_ms > 0 {
                    self.fail("timer fires early", format!("{} by {left_ms} ms", which()));
                }
            }
            _ => {}
        }
    }

    /// A journal was opened and read whole: nothing of the ledger may be missing or changed. What
    /// it has beyond that was never acknowledged, and counts from now on.
    pub fn reopened(&self, found: Vec<(Record, Option<Placed>)>) {
        let mut ledger = hold(&self.ledger);
        let there: BTreeMap<u64, &Record> = found.iter().map(|(record, _)| (record.lsn.0, record)).collect();
        for (lsn, (record, _)) in &ledger.records {
            match there.get(lsn) {
                Some(again) if *again == record => {}
                None if ledger.given_away.contains(lsn) => {}
                Some(_) => return self.fail("acknowledged record changed", format!("record {lsn} is not what was acknowledged")),
                None => return self.fail("acknowledged record lost", format!("record {lsn} of kind {} is gone", record.kind)),
            }
        }
        let tip = ledger.tip;
        for (record, placed) in found {
            if ledger.records.contains_key(&record.lsn.0) {
                continue;
            }
            if record.lsn <= tip {
                self.fail("record out of nowhere", format!("record {} stands before what was acknowledged last", record.lsn));
                return;
            }
            self.take(&mut ledger, record, placed);
        }
    }

    fn take(&self, ledger: &mut Ledger, record: Record, placed: Option<Placed>) {
        if record.lsn <= ledger.tip {
            self.fail("order of records", format!("record {} came after {}", record.lsn, ledger.tip));
        }
        ledger.tip = record.lsn;
        if let Some(placed) = &placed {
            self.learn(ledger, placed);
        }
        ledger.records.insert(record.lsn.0, (record, placed));
    }

    fn learn(&self, ledger: &mut Ledger, placed: &Placed) {
        let id = placed.task;
        let twice = |what: &str| self.fail("recorded twice", format!("{what} of task {} stands twice in the journal", id.short(6)));
        match &placed.event {
            Event::Submitted(submitted) => {
                if ledger.tasks.contains_key(&id) {
                    twice("the submission");
                }
                if let Some(other) = submitted.idempotency_key.clone().and_then(|key| ledger.keys.insert(key, id)) {
                    self.fail("one key, two tasks", format!("{} and {} have the same key", other.short(6), id.short(6)));
                }
                ledger.tasks.insert(id, Task::new(id, placed.lsn, placed.at_ms, submitted.clone()));
                return;
            }
            Event::Intent(intent) if !ledger.intents.insert((id, intent.seq)) => twice(&format!("intent {}", intent.seq)),
            Event::Observed(observed) if !ledger.observed.insert((id, observed.seq)) => {
                twice(&format!("observation {}", observed.seq));
            }
            Event::Observed(observed) if !ledger.intents.contains(&(id, observed.seq)) => {
                self.fail("observed, never intended", format!("effect {} of task {}", observed.seq, id.short(6)));
            }
            Event::TimerFired(fired) if !ledger.fired.insert((id, fired.id)) => twice(&format!("timer {}", fired.id)),
            Event::Paused(paused) => {
                ledger.timers.extend(paused.timer.clone().map(|timer| ((id, timer.id), timer)));
            }
            Event::ApprovalGiven(given) if !ledger.answers.insert((id, given.id)) => twice(&format!("answer {}", given.id)),
            _ => {}
        }
        if is_bookkeeping(&placed.event) {
            return;
        }
        let Some(task) = ledger.tasks.get_mut(&id) else {
            if !matches!(placed.event, Event::OrphanReaped(_)) {
                self.fail("event without a task", format!("record {}: {}", placed.lsn, placed.event.name()));
            }
            return;
        };
        if let Event::Started(started) = &placed.event
            && started.generation <= task.generation
        {
            self.fail("lease number not raised", format!("task {}: {} after {}", id.short(6), started.generation, task.generation));
        }
        task.apply(placed);
        let held = task.held_total().0;
        if let (Event::Reserved(_), Some(cap)) = (&placed.event, task.caps.nano_usd)
            && task.spent.plus(held) > NanoUsd(cap)
        {
            self.fail("budget overspent", format!("task {}: {} spent, {held} held, the cap is {cap}", id.short(6), task.spent.0));
        }
    }

    /// An act begins: its intent must be durable and its observation must not.
    pub fn act_begins(&self, id: TaskId, seq: Seq) {
        let ledger = hold(&self.ledger);
        let which = || format!("effect {seq} of task {}", id.short(6));
        if ledger.observed.contains(&(id, seq)) {
            self.fail("completed effect acted again", which());
        }
        if !ledger.intents.contains(&(id, seq)) {
            self.fail("act before its intent", which());
        }
        if seq > OP_SEQ {
            return;
        }
        if let Some((halt, since)) = ledger.halts.get(&id)
            && !goes_on(&ledger, id, *since)
        {
            let kind = if *halt == Halt::Cancelled { "cancelled task acts" } else { "paused task acts" };
            self.fail(kind, which());
        }
    }

    /// A client was told that a task stands still or has ended.
    pub fn halted(&self, id: TaskId, cancelled: bool) {
        let mut ledger = hold(&self.ledger);
        let stands = ledger.tasks.get(&id).is_some_and(|task| !matches!(task.status, Status::Queued | Status::Running));
        let tip = ledger.tip;
        // Where somebody else let it go on meanwhile there is nothing to hold against it.
        if stands {
            ledger.halts.insert(id, (if cancelled { Halt::Cancelled } else { Halt::Paused }, tip));
        }
    }

    /// Something was acknowledged; the ledger must hold it already.
    pub fn acknowledged(&self, id: TaskId, what: &str, holds: impl Fn(&Event) -> bool) {
        let ledger = hold(&self.ledger);
        let count = events(&ledger, id).filter(|placed| holds(&placed.event)).count();
        if count != 1 {
            self.fail("acknowledged and not recorded once", format!("{what} of task {} stands {count} times", id.short(6)));
        }
    }

    /// All tasks as the ledger adds them up.
    pub fn tasks(&self) -> Vec<Task> {
        hold(&self.ledger).tasks.values().cloned().collect()
    }

    /// Numbers of the records that a watcher has to have seen.
    pub fn numbers(&self, task: Option<TaskId>, after: Lsn, to: Lsn) -> Vec<u64> {
        let ledger = hold(&self.ledger);
        let range = ledger.records.range(after.0.saturating_add(1)..to.0.saturating_add(1));
        let shown = |placed: &Option<Placed>| placed.as_ref().is_some_and(|placed| !is_bookkeeping(&placed.event));
        range.filter(|(_, (record, placed))| shown(placed) && (task.is_none() || record.task == task)).map(|(lsn, _)| *lsn).collect()
    }

    /// Everything observed of a task, in order.
    pub fn observations(&self, id: TaskId) -> Vec<(Seq, Observation)> {
        let ledger = hold(&self.ledger);
        let mut found = Vec::new();
        for placed in events(&ledger, id) {
            if let Event::Observed(observed) = &placed.event {
                found.extend(observed.observation.clone().map(|observation| (observed.seq, observation)));
            }
        }
        found
    }

    /// Everything intended of a task, in order.
    pub fn intents(&self, id: TaskId) -> Vec<(Seq, Action)> {
        let ledger = hold(&self.ledger);
        let intent = |placed: &Placed| match &placed.event {
            Event::Intent(intent) => intent.action.clone().map(|action| (intent.seq, action)),
            _ => None,
        };
        events(&ledger, id).filter_map(intent).collect()
    }

    /// Settled costs by effect, in nano-dollars.
    pub fn settled(&self, id: TaskId) -> Vec<(Seq, u64)> {
        let ledger = hold(&self.ledger);
        let settled = |placed: &Placed| match &placed.event {
            Event::Settled(settled) => Some((settled.seq, settled.nano_usd)),
            _ => None,
        };
        events(&ledger, id).filter_map(settled).collect()
    }

    /// How often a person allowed what is unsafe again.
    pub fn allowed(&self, id: TaskId, seq: Seq) -> u32 {
        let ledger = hold(&self.ledger);
        let yes = |approval: &&tinkerbell_core::lifecycle::Approval| {
            approval.asked.seq == seq && approval.asked.kind == 3 && approval.answer.as_ref().is_some_and(|(yes, _)| *yes)
        };
        ledger.tasks.get(&id).map_or(0, |task| task.approvals.values().filter(yes).count().try_into().unwrap_or(u32::MAX))
    }

    /// How many records the ledger holds.
    pub fn count(&self) -> usize {
        hold(&self.ledger).records.len()
    }

    /// The last events of the ledger, for people.
    pub fn last_events(&self, count: usize) -> String {
        let ledger = hold(&self.ledger);
        let mut text = String::new();
        for (lsn, (_, placed)) in ledger.records.iter().rev().take(count).rev() {
            if let Some(placed) = placed {
                // Writing into a string can not fail.
                writeln!(text, "  {lsn:>5}  {}  {}", placed.task.short(6), short(&placed.event)).unwrap_or_default();
            }
        }
        text
    }
}

/// Whether an event is the engine's own and never shown.
const fn is_bookkeeping(event: &Event) -> bool {
    matches!(event, Event::Snapshot(_) | Event::Page(_))
}

fn events(ledger: &Ledger, id: TaskId) -> impl Iterator<Item = &Placed> {
    ledger.records.values().filter_map(|(_, placed)| placed.as_ref()).filter(move |placed| placed.task == id)
}

/// Whether somebody let the task go on after it was halted.
fn goes_on(ledger: &Ledger, id: TaskId, since: Lsn) -> bool {
    let later = ledger.records.range(since.0.saturating_add(1)..).filter_map(|(_, (_, placed))| placed.as_ref());
    later.filter(|placed| placed.task == id).any(|placed| match &placed.event {
        Event::Signal(signal) => matches!(signal.kind.as_str(), "tell" | "unpause"),
        Event::ApprovalGiven(_) | Event::TimerFired(_) => true,
        _ => false,
    })
}

/// An event in one line.
pub fn short(event: &Event) -> String {
    match event {
        Event::Intent(intent) => format!("intent {} class {}", intent.seq, intent.class),
        Event::Observed(observed) => {
            let what = match &observed.observation {
                Some(Observation::Result(result)) => format!("{} {}", result.status, result.number),
                Some(Observation::Operated(done)) => done.text.clone(),
                Some(Observation::Reply(_)) => "reply".to_owned(),
                _ => String::new(),
            };
            format!("observed {} {what}", observed.seq)
        }
        Event::Signal(signal) => format!("signal {} {:?}", signal.kind, signal.text),
        Event::Started(started) => format!("started, lease {} of daemon {}", started.generation, started.epoch),
        Event::Paused(paused) => format!("paused: {} {}", paused.why, paused.text),
        Event::Finished(finished) => format!("finished: {} {}", finished.status, finished.text),
        Event::ApprovalAsked(asked) => format!("asked {} about {}: {}", asked.id, asked.seq, asked.title),
        Event::ApprovalGiven(given) => format!("answered {}: {}", given.id, given.yes),
        other => other.name().to_owned(),
    }
}
