//! The life of a task: what its events add up to, and which commands it accepts.
//!
//! Pure folds and decisions; the scheduler drives them. Invariant: applying the same events in the
//! same order gives the same task, so a restart sees what the crash left.

mod decide;
mod fold;
pub mod format;
mod ops;
#[cfg(test)]
mod tests;

pub use decide::{Allowance, Decided, allowance, check_caps, decide};
pub use ops::{OpEntry, OpLog, OpMove};

use crate::approval::{Approved, Grant};
use crate::effect::QuestionKind;
use crate::event::{ApprovalAsked, Caps, FileChange, Finished, Granted, Intent, PlanStep, Prepared, Submitted, Timer};
use crate::money::{NanoUsd, Usage};
use crate::port::Limits;
use crate::words::{Lsn, Owner, Priority, Seq, Subject, TaskId, Workspace};
use bytes::Bytes;
use std::collections::BTreeMap;

/// Effects of user operations are numbered from here, apart from the coroutine's own.
pub const OP_SEQ: Seq = 0x8000_0000;

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// Accepted, not begun.
    Queued,
    /// Works, or will as soon as a daemon runs.
    Running,
    /// Stands still for a reason that somebody must remove.
    Paused {
        /// `user`, `budget`, `person`, `key`, `disk`, `provider`, `later`, `halt`.
        why: String,
        /// Details.
        text: String,
    },
    /// Ended.
    Finished,
    /// Removed; only its name is left.
    Removed,
}

impl Status {
    /// One word for lists.
    #[must_use]
    pub fn word(&self) -> &str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused { why, .. } => match why.as_str() {
                "person" => "needs-you",
                "budget" => "over-budget",
                "key" => "needs-key",
                "later" => "scheduled",
                "halt" => "halted",
                _ => "paused",
            },
            Self::Finished => "finished",
            Self::Removed => "removed",
        }
    }
}

/// A question and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Approval {
    /// The question.
    pub asked: ApprovalAsked,
    /// Where it stands.
    pub lsn: Lsn,
    /// When it was asked, wall time in milliseconds.
    pub at_ms: u64,
    /// Yes or no, with text.
    pub answer: Option<(bool, String)>,
    /// The lease that had ended when it was answered; the next one may act on the answer.
    pub answered_in: u64,
    /// Whether its effect was intended since the answer. An approval is used once.
    pub used: bool,
    /// Why it ended without a person's word: `expired`, `replaced`; empty otherwise.
    pub lapsed: String,
}

impl Approval {
    /// A question that waits.
    #[must_use]
    pub const fn new(asked: ApprovalAsked, lsn: Lsn, at_ms: u64) -> Self {
        Self { asked, lsn, at_ms, answer: None, answered_in: 0, used: false, lapsed: String::new() }
    }

    /// Uses the answer up.
    pub(crate) fn spend(&mut self) {
        self.used |= self.asked.kind == QuestionKind::Approval.code() && self.answer.is_some();
    }

    /// Whether a person said yes.
    #[must_use]
    pub fn is_yes(&self) -> bool {
        matches!(self.answer, Some((true, _)))
    }

    /// Whether it is void at `now_ms`, answered or not.
    #[must_use]
    pub const fn has_expired(&self, now_ms: u64) -> bool {
        self.asked.expires_ms > 0 && now_ms >= self.asked.expires_ms
    }

    /// What exactly was approved; `None` for what was not, and for records of older forms.
    #[must_use]
    pub fn approved(&self) -> Option<Approved> {
        let asked = &self.asked;
        (self.is_yes() && asked.kind == QuestionKind::Approval.code() && !asked.nonce.is_empty()).then(|| Approved {
            digest: asked.digest.clone(),
            facts: asked.facts.iter().map(|fact| (fact.name.clone(), fact.value.clone())).collect(),
            expires_ms: asked.expires_ms,
            nonce: asked.nonce.clone(),
        })
    }

    /// Whether a lease after the first since the answer asks for it. What the answer allowed may have
    /// happened in between, so a permission to do something again is used up.
    #[must_use]
    pub fn is_used_up(&self, generation: u64) -> bool {
        let again = self.asked.kind == QuestionKind::Unknown.code();
        again && self.answer.is_some() && generation > self.answered_in.saturating_add(1)
    }
}

/// A task as folded from its events.
#[derive(Debug, Clone, PartialEq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// What was asked for.
    pub submitted: Submitted,
    /// Limits in force.
    pub caps: Caps,
    /// How it stands.
    pub status: Status,
    /// Its lease number.
    pub generation: u64,
    /// Wall time of submission, milliseconds.
    pub created_ms: u64,
    /// Wall time of the newest event, milliseconds.
    pub updated_ms: u64,
    /// Wall time in milliseconds during which it was not paused, up to `resumed_ms`.
    pub active_ms: u64,
    /// Since when it is active now; `None` while it stands still.
    pub resumed_ms: Option<u64>,
    /// Its newest record.
    pub last_lsn: Lsn,
    /// The workspace, once prepared.
    pub prepared: Option<Prepared>,
    /// Model calls made.
    pub steps: u32,
    /// Tokens used.
    pub usage: Usage,
    /// Money spent.
    pub spent: NanoUsd,
    /// Whether some of the spend has no known price.
    pub cost_unknown: bool,
    /// Reservations that are neither settled nor released.
    pub held: BTreeMap<Seq, (NanoUsd, u64)>,
    /// CPU time and disk set aside for commands whose outcome is not recorded.
    pub allowed: BTreeMap<Seq, Allowance>,
    /// CPU time in milliseconds that its commands have used, as last recorded.
    pub cpu_ms: u64,
    /// Bytes by which its worktree and private directories have grown, as last recorded.
    pub disk_bytes: u64,
    /// The intent without observation, and where it stands.
    pub open: Option<(Lsn, Intent)>,
    /// The open intent of a user's operation.
    pub open_op: Option<(Lsn, Intent)>,
    /// The coroutine's newest saved state.
    pub state: Option<Bytes>,
    /// Questions by number.
    pub approvals: BTreeMap<u32, Approval>,
    /// Operations.
    pub ops: OpLog,
    /// The plan as the model last gave it.
    pub plan: Vec<PlanStep>,
    /// Number of micro-commits.
    pub commits: u32,
    /// How it ended.
    pub finished: Option<Finished>,
    /// The user's newest words to the running task.
    pub told: Lsn,
    /// Up to where a model call has carried the task's past.
    pub heard: Lsn,
    /// Whether the user wants it ended.
    pub cancelling: bool,
    /// The newest effect number of a user's operation; see [`OP_SEQ`].
    pub op_seq: Seq,
    /// The newest reply's model, as served.
    pub served: String,
    /// How urgent it is.
    pub priority: Priority,
    /// When it goes on by itself, while it is paused and does.
    pub timer: Option<Timer>,
    /// Number of its newest timer.
    pub timers: u64,
    /// How often in a row it paused and went on by itself without getting further.
    pub tries: u32,
    /// The tip of the task's branch, once something was committed or moved.
    pub tip: String,
    /// The newest effect of the coroutine that was intended.
    pub seq: Seq,
    /// What the user allowed for the rest of the task.
    pub grants: Vec<Granted>,
}

impl Task {
    /// Whether an approval was used by the intent that is open: what was begun under it may be brought
    /// to its end under it.
    #[must_use]
    pub fn is_in_use(&self, approval: &Approval) -> bool {
        let is_open = self.open.as_ref().is_some_and(|(_, intent)| intent.seq == approval.asked.seq);
        is_open && approval.used && approval.is_yes()
    }

    /// The approval in use for what has this likeness, of the effect with this number.
    #[must_use]
    pub fn approval_in_use(&self, seq: Seq, like: &str) -> Option<&Approval> {
        let is_it = |approval: &&Approval| approval.asked.seq == seq && approval.asked.like == like && self.is_in_use(approval);
        self.approvals.values().rev().find(is_it)
    }

    /// How often a person denied what has this likeness.
    #[must_use]
    pub fn denials(&self, like: &str) -> usize {
        let denied = |approval: &&Approval| {
            approval.asked.kind == QuestionKind::Approval.code()
                && approval.asked.like == like
                && approval.lapsed != "replaced"
                && matches!(approval.answer, Some((false, _)))
        };
        self.approvals.values().filter(denied).count()
    }

    /// What the user allowed for the rest of the task, as the guard reads it.
    #[must_use]
    pub fn grants(&self) -> Vec<Grant> {
        self.grants.iter().cloned().map(Grant::from).collect()
    }

    /// The workspace, once prepared.
    #[must_use]
    pub fn workspace(&self) -> Option<Workspace> {
        fold::workspace(self.id, self.prepared.as_ref()?)
    }

    /// Whether nobody is to be asked for approvals at `now_ms`.
    #[must_use]
    pub fn is_unasked(&self, now_ms: u64) -> bool {
        self.submitted.waiver.as_ref().is_some_and(|waiver| now_ms < waiver.until_ms)
    }

    /// To whom what it stores belongs.
    #[must_use]
    pub const fn owner(&self) -> Owner {
        Owner { subject: Subject(self.submitted.uid), task: self.id }
    }

    /// Money and tokens set aside for calls that have not ended.
    #[must_use]
    pub fn held_total(&self) -> (NanoUsd, u64) {
        self.held.values().fold((NanoUsd(0), 0_u64), |(usd, tokens), (u, t)| (usd.plus(*u), tokens.saturating_add(*t)))
    }

    /// What the command of this effect may use.
    #[must_use]
    pub fn limits(&self, seq: Seq) -> Limits {
        // Programs that serve the task have no reservation of their own.
        let left = self.caps.cpu_ms.map(|cap| cap.saturating_sub(self.cpu_ms));
        Limits {
            memory_bytes: self.caps.memory_bytes,
            processes: self.caps.processes,
            cpu_ms: self.allowed.get(&seq).map_or(left, |allowed| allowed.cpu_ms),
            disk_bytes: self.caps.disk_bytes,
        }
    }

    /// Active wall time in milliseconds at `now_ms`.
    #[must_use]
    pub fn active_at(&self, now_ms: u64) -> u64 {
        self.active_ms.saturating_add(self.resumed_ms.map_or(0, |since| now_ms.saturating_sub(since)))
    }

    /// The question that waits for an answer, oldest first.
    #[must_use]
    pub fn waiting_for(&self) -> Option<&Approval> {
        self.approvals.values().find(|approval| approval.answer.is_none())
    }

    /// Whether it still has work to do.
    #[must_use]
    pub const fn is_open(&self) -> bool {
        !matches!(self.status, Status::Finished | Status::Removed)
    }

    /// All files that differ from the base, where the task has ended.
    #[must_use]
    pub fn files(&self) -> &[FileChange] {
        self.finished.as_ref().map_or(&[], |finished| &finished.files)
    }
}

impl From<Granted> for Grant {
    fn from(granted: Granted) -> Self {
        let Granted { id, argv, options, example, expires_ms, .. } = granted;
        Self { id, argv, options, example, expires_ms }
    }
}

impl From<Grant> for Granted {
    fn from(grant: Grant) -> Self {
        let Grant { id, argv, options, example, expires_ms } = grant;
        Self { id, argv, options, example, expires_ms, ..Self::default() }
    }
}
