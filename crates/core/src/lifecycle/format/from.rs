//! Tasks to their form at rest and back.
//!
//! Every field of a task is named here, so that a new one can not be forgotten. Invariant: what is
//! left out (bodies of answered questions, old operations, long rules) can be read from records.

use super::super::{Allowance, Approval as Asked, OpEntry, OpLog, Status, Task};
use super::{Allowed, Approval, Held, OpKept, OpenIntent, Ops, TaskState, Usage};
use crate::event::{Intent, Prepared};
use crate::money::{NanoUsd, Usage as Tokens};
use crate::words::{Lsn, Priority, TaskId};
use bytes::Bytes;

/// Newest operations that a snapshot holds; their file lists may stand elsewhere.
pub const WINDOW: usize = 8;
/// Answered questions that a snapshot holds beside those of the newest effect.
const ANSWERED: usize = 8;
/// Rules and environment above this size stay in their record.
const RULES_BYTES: usize = 1_024;

impl TaskState {
    /// The task at rest; `prepared` is the record of its workspace.
    #[must_use]
    pub fn of(task: &Task, prepared: Lsn) -> Self {
        // Named one by one: a field that is added must be decided upon here.
        #[rustfmt::skip]
        let Task {
            id: _, submitted, caps, status, generation, created_ms, updated_ms, active_ms, resumed_ms, last_lsn, prepared: workspace,
            steps, usage, spent, cost_unknown, held, allowed, cpu_ms, disk_bytes, open, open_op, state, approvals, ops, plan, commits, finished, told, heard,
            cancelling, op_seq, served, tip, seq, priority, timer, timers, tries, grants,
        } = task;
        let (status, why, text) = status_code(status);
        let (slim, prepared_lsn) = slim(workspace.as_ref(), prepared);
        Self {
            submitted: Some(submitted.clone()),
            caps: Some(caps.clone()),
            status,
            why,
            text,
            generation: *generation,
            created_ms: *created_ms,
            updated_ms: *updated_ms,
            active_ms: *active_ms,
            resumed_ms: *resumed_ms,
            last_lsn: last_lsn.0,
            prepared: slim,
            prepared_lsn: prepared_lsn.0,
            steps: *steps,
            usage: Some(Usage { input: usage.input, cached: usage.cached, cache_write: usage.cache_write, output: usage.output }),
            spent: spent.0,
            cost_unknown: *cost_unknown,
            held: held.iter().map(|(seq, (usd, tokens))| Held { seq: *seq, nano_usd: usd.0, tokens: *tokens }).collect(),
            open: open.as_ref().map(open_of),
            open_op: open_op.as_ref().map(open_of),
            state: state.as_ref().map(|state| state.to_vec()),
            approvals: kept_approvals(approvals.values(), *seq),
            ops: Some(kept_ops(ops)),
            plan: plan.clone(),
            commits: *commits,
            finished: finished.clone(),
            told: told.0,
            heard: heard.0,
            cancelling: *cancelling,
            op_seq: *op_seq,
            served: served.clone(),
            tip: tip.clone(),
            seq: *seq,
            priority: priority.code(),
            timer: timer.clone(),
            timers: *timers,
            tries: *tries,
            grants: grants.clone(),
            cpu_ms: *cpu_ms,
            disk_bytes: *disk_bytes,
            allowed: allowed.iter().map(|(seq, left)| kept_allowance(*seq, *left)).collect(),
        }
    }

    /// The task again; rules and environment are missing where `prepared_lsn` says so.
    #[must_use]
    pub fn into_task(self, id: TaskId) -> Task {
        let usage = self.usage.unwrap_or_default();
        let approvals = self.approvals.into_iter().filter_map(|approval| {
            let asked = approval.asked?;
            let answer = approval.yes.map(|yes| (yes, approval.text));
            let (lsn, at_ms, answered_in) = (Lsn(approval.lsn), approval.at_ms, approval.answered_in);
            Some((asked.id, Asked { asked, lsn, at_ms, answer, answered_in, used: approval.used, lapsed: approval.lapsed }))
        });
        Task {
            id,
            submitted: self.submitted.unwrap_or_default(),
            caps: self.caps.unwrap_or_default(),
            status: status_of(self.status, self.why, self.text),
            generation: self.generation,
            created_ms: self.created_ms,
            updated_ms: self.updated_ms,
            active_ms: self.active_ms,
            resumed_ms: self.resumed_ms,
            last_lsn: Lsn(self.last_lsn),
            prepared: self.prepared,
            steps: self.steps,
            usage: Tokens { input: usage.input, cached: usage.cached, cache_write: usage.cache_write, output: usage.output },
            spent: NanoUsd(self.spent),
            cost_unknown: self.cost_unknown,
            held: self.held.into_iter().map(|held| (held.seq, (NanoUsd(held.nano_usd), held.tokens))).collect(),
            allowed: self.allowed.iter().map(allowed_again).collect(),
            cpu_ms: self.cpu_ms,
            disk_bytes: self.disk_bytes,
            open: self.open.and_then(opened),
            open_op: self.open_op.and_then(opened),
            state: self.state.map(Bytes::from),
            approvals: approvals.collect(),
            ops: self.ops.map(ops_again).unwrap_or_default(),
            plan: self.plan,
            commits: self.commits,
            finished: self.finished,
            told: Lsn(self.told),
            heard: Lsn(self.heard),
            cancelling: self.cancelling,
            op_seq: self.op_seq,
            served: self.served,
            tip: self.tip,
            seq: self.seq,
            priority: Priority::from_code(self.priority),
            timer: self.timer,
            timers: self.timers,
            tries: self.tries,
            grants: self.grants,
        }
    }
}

fn status_code(status: &Status) -> (u32, String, String) {
    let plain = |code| (code, String::new(), String::new());
    match status {
        Status::Queued => plain(1),
        Status::Running => plain(2),
        Status::Paused { why, text } => (3, why.clone(), text.clone()),
        Status::Finished => plain(4),
        Status::Removed => plain(5),
    }
}

fn status_of(code: u32, why: String, text: String) -> Status {
    match code {
        1 => Status::Queued,
        2 => Status::Running,
        4 => Status::Finished,
        5 => Status::Removed,
        _ => Status::Paused { why, text },
    }
}

/// The workspace without long texts that its own record has.
fn slim(prepared: Option<&Prepared>, lsn: Lsn) -> (Option<Prepared>, Lsn) {
    let Some(prepared) = prepared else { return (None, Lsn(0)) };
    if lsn == Lsn(0) || prepared.rules.len() + prepared.environment.len() <= RULES_BYTES {
        return (Some(prepared.clone()), Lsn(0));
    }
    let slim = Prepared {
        repo: prepared.repo.clone(),
        tree: prepared.tree.clone(),
        git_dir: prepared.git_dir.clone(),
        common_dir: prepared.common_dir.clone(),
        branch: prepared.branch.clone(),
        base: prepared.base.clone(),
        checkpoint: prepared.checkpoint.clone(),
        verify: prepared.verify.clone(),
        verify_origin: prepared.verify_origin.clone(),
        level: prepared.level.clone(),
        subdir: prepared.subdir.clone(),
        notes: prepared.notes.clone(),
        trust: prepared.trust.clone(),
        servers: prepared.servers,
        rules: String::new(),
        environment: String::new(),
    };
    (Some(slim), lsn)
}

const fn kept_allowance(seq: u32, left: Allowance) -> Allowed {
    Allowed { seq, cpu_ms: left.cpu_ms, disk_bytes: left.disk_bytes }
}

const fn allowed_again(kept: &Allowed) -> (u32, Allowance) {
    (kept.seq, Allowance { cpu_ms: kept.cpu_ms, disk_bytes: kept.disk_bytes })
}

fn open_of((lsn, intent): &(Lsn, Intent)) -> OpenIntent {
    OpenIntent { lsn: lsn.0, intent: Some(intent.clone()) }
}

fn opened(open: OpenIntent) -> Option<(Lsn, Intent)> {
    Some((Lsn(open.lsn), open.intent?))
}

/// What waits, what the newest effect asked, and the newest answered ones, those without body.
fn kept_approvals<'a>(all: impl DoubleEndedIterator<Item = &'a Asked>, seq: u32) -> Vec<Approval> {
    let mut answered = 0;
    let mut kept: Vec<Approval> = all
        .rev()
        .filter(|approval| {
            let old = approval.answer.is_some() && approval.asked.seq < seq;
            answered += usize::from(old);
            !old || answered <= ANSWERED
        })
        .map(|approval| {
            let mut asked = approval.asked.clone();
            if approval.answer.is_some() {
                (asked.body, asked.options) = (String::new(), Vec::new());
            }
            let (yes, text) = approval.answer.clone().map_or((None, String::new()), |(yes, text)| (Some(yes), text));
            Approval {
                asked: Some(asked),
                lsn: approval.lsn.0,
                at_ms: approval.at_ms,
                yes,
                text,
                answered_in: approval.answered_in,
                used: approval.used,
                lapsed: approval.lapsed.clone(),
            }
        })
        .collect();
    kept.reverse();
    kept
}

/// How many operations of a log a snapshot leaves to their records.
#[must_use]
pub fn ops_below(ops: &OpLog) -> u32 {
    ops.count().saturating_sub(u32::try_from(WINDOW).unwrap_or(u32::MAX)).max(ops.below())
}

fn kept_ops(ops: &OpLog) -> Ops {
    let below = ops_below(ops);
    let entries = ops.entries().iter().filter(|entry| entry.number > below);
    let entries = entries.map(|entry| OpKept { lsn: entry.lsn.0, at_ms: entry.at_ms, done: Some(entry.done.clone()) });
    let (done, undone) = ops.stacks();
    Ops { below, entries: entries.collect(), done: runs(done), undone: runs(undone) }
}

fn ops_again(ops: Ops) -> OpLog {
    let entries = ops.entries.into_iter().zip(ops.below.saturating_add(1)..).map(|(kept, number)| OpEntry {
        number,
        lsn: Lsn(kept.lsn),
        at_ms: kept.at_ms,
        done: kept.done.unwrap_or_default(),
    });
    OpLog::from_parts(ops.below, entries.collect(), unruns(&ops.done), unruns(&ops.undone))
}

/// Numbers as first and length of each rising run.
fn runs(numbers: &[u32]) -> Vec<u32> {
    let mut out: Vec<(u32, u32)> = Vec::new();
    for number in numbers {
        match out.last_mut() {
            Some((first, len)) if first.checked_add(*len) == Some(*number) => *len += 1,
            _ => out.push((*number, 1)),
        }
    }
    out.into_iter().flat_map(|(first, len)| [first, len]).collect()
}

fn unruns(runs: &[u32]) -> Vec<u32> {
    let pairs = runs.chunks_exact(2).filter_map(|pair| Some((*pair.first()?, *pair.get(1)?)));
    pairs.flat_map(|(first, len)| first..first.saturating_add(len)).collect()
}
