//! The fold: events in, task out.
//!
//! Total: an event that does not fit changes nothing that matters, because the journal is the
//! truth and a fold must not fail on it. Invariant: no decision is taken here.

use super::{Allowance, Approval, OP_SEQ, OpLog, Status, Task};
use crate::event::{Action, Event, Intent, Observation, Observed, Placed, Prepared, Reserved, Settled, Signal, Submitted};
use crate::money::{NanoUsd, Usage};
use crate::words::{Lsn, Priority, TaskId, Workspace};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

impl Task {
    /// A task as its submission makes it.
    #[must_use]
    pub fn new(id: TaskId, lsn: Lsn, at_ms: u64, submitted: Submitted) -> Self {
        Self {
            id,
            caps: submitted.caps.clone().unwrap_or_default(),
            priority: Priority::from_code(submitted.priority),
            submitted,
            status: Status::Queued,
            generation: 0,
            created_ms: at_ms,
            updated_ms: at_ms,
            active_ms: 0,
            resumed_ms: None,
            last_lsn: lsn,
            prepared: None,
            steps: 0,
            usage: Usage::default(),
            spent: NanoUsd(0),
            cost_unknown: false,
            held: BTreeMap::new(),
            allowed: BTreeMap::new(),
            cpu_ms: 0,
            disk_bytes: 0,
            open: None,
            open_op: None,
            state: None,
            approvals: BTreeMap::new(),
            ops: OpLog::default(),
            plan: Vec::new(),
            commits: 0,
            finished: None,
            told: Lsn(0),
            heard: Lsn(0),
            cancelling: false,
            op_seq: OP_SEQ,
            served: String::new(),
            timer: None,
            timers: 0,
            tries: 0,
            grants: Vec::new(),
            tip: String::new(),
            seq: 0,
        }
    }

    /// Whether the user spoke after the newest model call was rendered.
    #[must_use]
    pub fn has_unheard(&self) -> bool {
        self.told > self.heard
    }

    /// The newest checkpoint of its tree, in text form.
    #[must_use]
    pub fn checkpoint(&self) -> Option<&str> {
        self.ops.checkpoint().or_else(|| self.prepared.as_ref().map(|prepared| prepared.checkpoint.as_str()))
    }

    /// Folds one event in.
    pub fn apply(&mut self, placed: &Placed) {
        match &placed.event {
            // Bookkeeping of the engine: nothing has happened to the task.
            Event::Snapshot(_) | Event::Page(_) => return,
            Event::Submitted(_) | Event::OrphanReaped(_) => {}
            Event::Started(started) => self.begin(placed.at_ms, started.generation),
            Event::Intent(intent) => self.intend(placed.lsn, intent),
            Event::Observed(observed) => self.observe(observed),
            Event::Reserved(held) => self.reserve(held),
            Event::Settled(settled) => self.settle(settled),
            Event::Released(released) => {
                self.held.remove(&released.seq);
                self.allowed.remove(&released.seq);
            }
            Event::StateSaved(saved) => self.state = Some(Bytes::from(saved.state.clone())),
            Event::Signal(signal) => self.signal(placed, signal),
            Event::ApprovalAsked(asked) => {
                self.approvals.insert(asked.id, Approval::new(asked.clone(), placed.lsn, placed.at_ms));
            }
            Event::ApprovalGiven(given) => {
                if let Some(approval) = self.approvals.get_mut(&given.id) {
                    approval.answer = Some((given.yes, given.text.clone()));
                    approval.answered_in = self.generation;
                    approval.lapsed.clone_from(&given.lapsed);
                }
                if self.paused_for("person") && self.waiting_for().is_none() {
                    self.wake(placed.at_ms);
                }
            }
            Event::Granted(granted) => self.grants.extend((granted.scope == "task").then(|| granted.clone())),
            Event::OpDone(done) => {
                if matches!(done.kind.as_str(), "undo" | "redo" | "restore") && !done.commit.is_empty() {
                    self.tip.clone_from(&done.commit);
                }
                self.ops.push(placed.lsn, placed.at_ms, done);
            }
            Event::Paused(paused) => {
                // A halt may be noted by a daemon that starts long after it: what the task did last is
                // then the end of its working time.
                self.rest(if paused.why == "halt" { self.updated_ms.min(placed.at_ms) } else { placed.at_ms });
                self.status = Status::Paused { why: paused.why.clone(), text: paused.text.clone() };
                self.timer.clone_from(&paused.timer);
                self.timers = self.timers.max(paused.timer.as_ref().map_or(0, |timer| timer.id));
                self.tries = paused.tries;
            }
            // Any other number is a deadline that something else has ended already.
            Event::TimerFired(fired) => {
                if self.timer.as_ref().is_some_and(|timer| timer.id == fired.id) {
                    self.wake(placed.at_ms);
                }
            }
            Event::Finished(finished) => {
                self.rest(placed.at_ms);
                self.status = Status::Finished;
                self.finished = Some(finished.clone());
                self.timer = None;
                self.held.clear();
                self.allowed.clear();
                // The wish is fulfilled; what the user says next starts afresh.
                self.cancelling = false;
            }
        }
        self.last_lsn = placed.lsn;
        self.updated_ms = placed.at_ms;
    }

    /// Whether it is paused for this reason.
    #[must_use]
    pub fn paused_for(&self, reason: &str) -> bool {
        matches!(&self.status, Status::Paused { why, .. } if why == reason)
    }

    fn begin(&mut self, at_ms: u64, generation: u64) {
        self.generation = generation;
        // A lease that follows a crash: the time in which no daemon ran is nobody's working time.
        if let Some(since) = self.resumed_ms {
            self.active_ms = self.active_ms.saturating_add(self.updated_ms.saturating_sub(since));
        }
        self.resumed_ms = Some(at_ms);
        if self.status == Status::Queued {
            self.status = Status::Running;
        }
    }

    fn wake(&mut self, at_ms: u64) {
        self.status = Status::Running;
        self.timer = None;
        self.resumed_ms.get_or_insert(at_ms);
    }

    fn rest(&mut self, at_ms: u64) {
        self.active_ms = self.active_at(at_ms);
        self.resumed_ms = None;
    }

    fn intend(&mut self, lsn: Lsn, intent: &Intent) {
        if intent.seq > OP_SEQ {
            self.op_seq = self.op_seq.max(intent.seq);
            self.open_op = Some((lsn, intent.clone()));
            return;
        }
        if let Some(Action::Ask(ask)) = &intent.action {
            self.steps = self.steps.max(ask.step);
            self.heard = self.heard.max(Lsn(ask.through));
        }
        self.seq = self.seq.max(intent.seq);
        self.open = Some((lsn, intent.clone()));
        // The intent is the record by which an approval is used up: it is durable before the act.
        self.approvals.values_mut().filter(|approval| approval.asked.seq == intent.seq).for_each(Approval::spend);
    }

    fn observe(&mut self, observed: &Observed) {
        let slot = if observed.seq > OP_SEQ { &mut self.open_op } else { &mut self.open };
        slot.take_if(|(_, intent)| intent.seq == observed.seq);
        if observed.seq < OP_SEQ {
            self.tries = 0;
        }
        match &observed.observation {
            Some(Observation::Prepared(prepared)) => self.prepared = Some(prepared.clone()),
            Some(Observation::Reply(reply)) => {
                if let Some(made) = &reply.made {
                    self.served.clone_from(&made.served);
                }
                self.cost_unknown |= reply.nano_usd.is_none();
            }
            Some(Observation::Result(result)) if !result.plan.is_empty() => self.plan.clone_from(&result.plan),
            Some(Observation::Committed(made)) => {
                self.commits = self.commits.saturating_add(1);
                self.tip.clone_from(&made.commit);
            }
            _ => {}
        }
    }

    fn reserve(&mut self, held: &Reserved) {
        self.held.insert(held.seq, (NanoUsd(held.nano_usd), held.tokens));
        if held.cpu_ms.or(held.disk_bytes).is_some() {
            self.allowed.insert(held.seq, Allowance { cpu_ms: held.cpu_ms, disk_bytes: held.disk_bytes });
        }
    }

    fn settle(&mut self, settled: &Settled) {
        self.held.remove(&settled.seq);
        self.allowed.remove(&settled.seq);
        // Totals of the task: a total that came late takes nothing back.
        self.cpu_ms = self.cpu_ms.max(settled.cpu_ms.unwrap_or(0));
        self.disk_bytes = settled.disk_bytes.unwrap_or(self.disk_bytes);
        self.spent = self.spent.plus(NanoUsd(settled.nano_usd));
        self.usage = self.usage.plus(Usage {
            input: settled.input_tokens,
            cached: settled.cached_tokens,
            cache_write: 0,
            output: settled.output_tokens,
        });
    }

    fn signal(&mut self, placed: &Placed, signal: &Signal) {
        match signal.kind.as_str() {
            "tell" => {
                self.told = placed.lsn;
                if self.status == Status::Finished {
                    self.finished = None;
                    self.wake(placed.at_ms);
                }
            }
            "cancel" => self.cancelling = true,
            "unpause" => {
                self.tries = 0;
                self.wake(placed.at_ms);
            }
            "priority" => self.priority = signal.text.parse().unwrap_or(self.priority),
            "caps" => self.raise(signal),
            "remove" => (self.status, self.timer) = (Status::Removed, None),
            _ => {}
        }
    }

    fn raise(&mut self, signal: &Signal) {
        let Some(caps) = &signal.caps else { return };
        let kept = &mut self.caps;
        kept.nano_usd = caps.nano_usd.or(kept.nano_usd);
        kept.steps = caps.steps.or(kept.steps);
        kept.tokens = caps.tokens.or(kept.tokens);
        kept.wall_ms = caps.wall_ms.or(kept.wall_ms);
        kept.cpu_ms = caps.cpu_ms.or(kept.cpu_ms);
        kept.disk_bytes = caps.disk_bytes.or(kept.disk_bytes);
        kept.processes = caps.processes.or(kept.processes);
        kept.memory_bytes = caps.memory_bytes.or(kept.memory_bytes);
    }
}

pub(super) fn workspace(task: TaskId, prepared: &Prepared) -> Option<Workspace> {
    Some(Workspace {
        task,
        repo: path(&prepared.repo),
        tree: path(&prepared.tree),
        git_dir: path(&prepared.git_dir),
        common_dir: path(&prepared.common_dir),
        branch: prepared.branch.clone(),
        base: prepared.base.parse().ok()?,
    })
}

/// A path from the bytes that a record keeps.
fn path(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes.to_vec()))
}
