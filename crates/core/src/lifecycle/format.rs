//! Version 1 of a task at rest: the record from which a task goes on without its history.
//!
//! A snapshot stands for all records of its task before it; a page stands for a stretch of the
//! task's history index. Fields may be added, never renumbered or reused. Invariant: a snapshot
//! read back gives a task that goes on exactly like the one it was taken of.

mod from;

pub use from::{WINDOW, ops_below};

use crate::event::format::{ApprovalAsked, Caps, Finished, Granted, Intent, OpDone, PlanStep, Prepared, Submitted, Timer};
use crate::words::Lsn;

/// The newest version that this release reads.
pub const VERSION: u32 = 1;

/// A task at rest, and what the engine keeps beside it.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Snapshot {
    /// Version of this message.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The task's snapshot before this one; 0 for none.
    #[prost(uint64, tag = "2")]
    pub previous: u64,
    /// Records of the task that were folded so far, snapshots and pages left out.
    #[prost(uint64, tag = "3")]
    pub folded: u64,
    /// The task's first record.
    #[prost(uint64, tag = "4")]
    pub first: u64,
    /// The task.
    #[prost(message, optional, tag = "5")]
    pub task: Option<TaskState>,
    /// Effects that may have left a command behind.
    #[prost(uint32, repeated, tag = "6")]
    pub runs: Vec<u32>,
    /// Observations that a resumed coroutine can still ask for.
    #[prost(message, repeated, tag = "7")]
    pub observed: Vec<Observation>,
    /// Where its history stands.
    #[prost(message, optional, tag = "8")]
    pub history: Option<History>,
}

/// Where the observation of an effect stands.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Observation {
    /// The effect.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// The record.
    #[prost(uint64, tag = "2")]
    pub lsn: u64,
}

/// The newest part of a task's history index, and where the older part stands.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct History {
    /// History records in all pages together.
    #[prost(uint64, tag = "1")]
    pub paged: u64,
    /// The newest page; 0 for none.
    #[prost(uint64, tag = "2")]
    pub page: u64,
    /// Records behind the newest page: the first number, then distances.
    #[prost(uint64, repeated, tag = "3")]
    pub tail: Vec<u64>,
    /// Operations behind the newest page, likewise.
    #[prost(uint64, repeated, tag = "4")]
    pub ops: Vec<u64>,
}

/// A stretch of a task's history index.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Page {
    /// The page before; 0 for none.
    #[prost(uint64, tag = "1")]
    pub previous: u64,
    /// History records in all pages before this one.
    #[prost(uint64, tag = "2")]
    pub before: u64,
    /// The records: the first number, then distances.
    #[prost(uint64, repeated, tag = "3")]
    pub records: Vec<u64>,
    /// Operations of the same stretch, likewise.
    #[prost(uint64, repeated, tag = "4")]
    pub ops: Vec<u64>,
}

/// A task as folded.
#[derive(Clone, PartialEq, prost::Message)]
pub struct TaskState {
    /// What was asked for.
    #[prost(message, optional, tag = "1")]
    pub submitted: Option<Submitted>,
    /// Limits in force.
    #[prost(message, optional, tag = "2")]
    pub caps: Option<Caps>,
    /// 1 queued, 2 running, 3 paused, 4 finished, 5 removed.
    #[prost(uint32, tag = "3")]
    pub status: u32,
    /// Why it is paused.
    #[prost(string, tag = "4")]
    pub why: String,
    /// Details of the pause.
    #[prost(string, tag = "5")]
    pub text: String,
    /// Its lease number.
    #[prost(uint64, tag = "6")]
    pub generation: u64,
    /// Wall time of submission, milliseconds.
    #[prost(uint64, tag = "7")]
    pub created_ms: u64,
    /// Wall time of the newest event, milliseconds.
    #[prost(uint64, tag = "8")]
    pub updated_ms: u64,
    /// Active wall time, milliseconds.
    #[prost(uint64, tag = "9")]
    pub active_ms: u64,
    /// Since when it is active.
    #[prost(uint64, optional, tag = "10")]
    pub resumed_ms: Option<u64>,
    /// Its newest record.
    #[prost(uint64, tag = "11")]
    pub last_lsn: u64,
    /// The workspace; without rules and environment where `prepared_lsn` is set.
    #[prost(message, optional, tag = "12")]
    pub prepared: Option<Prepared>,
    /// The record that holds the whole of `prepared`; 0 where it stands here whole.
    #[prost(uint64, tag = "13")]
    pub prepared_lsn: u64,
    /// Model calls made.
    #[prost(uint32, tag = "14")]
    pub steps: u32,
    /// Tokens used.
    #[prost(message, optional, tag = "15")]
    pub usage: Option<Usage>,
    /// Nano-dollars spent.
    #[prost(uint64, tag = "16")]
    pub spent: u64,
    /// Whether some of the spend has no known price.
    #[prost(bool, tag = "17")]
    pub cost_unknown: bool,
    /// Reservations.
    #[prost(message, repeated, tag = "18")]
    pub held: Vec<Held>,
    /// The intent without observation.
    #[prost(message, optional, tag = "19")]
    pub open: Option<OpenIntent>,
    /// The open intent of a user's operation.
    #[prost(message, optional, tag = "20")]
    pub open_op: Option<OpenIntent>,
    /// The coroutine's state.
    #[prost(bytes = "vec", optional, tag = "21")]
    pub state: Option<Vec<u8>>,
    /// Questions.
    #[prost(message, repeated, tag = "22")]
    pub approvals: Vec<Approval>,
    /// Operations.
    #[prost(message, optional, tag = "23")]
    pub ops: Option<Ops>,
    /// The plan.
    #[prost(message, repeated, tag = "24")]
    pub plan: Vec<PlanStep>,
    /// Number of micro-commits.
    #[prost(uint32, tag = "25")]
    pub commits: u32,
    /// How it ended.
    #[prost(message, optional, tag = "26")]
    pub finished: Option<Finished>,
    /// The user's newest words.
    #[prost(uint64, tag = "27")]
    pub told: u64,
    /// Up to where a model call has carried the past.
    #[prost(uint64, tag = "28")]
    pub heard: u64,
    /// Whether the user wants it ended.
    #[prost(bool, tag = "29")]
    pub cancelling: bool,
    /// The newest effect number of a user's operation.
    #[prost(uint32, tag = "30")]
    pub op_seq: u32,
    /// The newest reply's model, as served.
    #[prost(string, tag = "31")]
    pub served: String,
    /// The tip of the task's branch.
    #[prost(string, tag = "32")]
    pub tip: String,
    /// The newest effect that was intended.
    #[prost(uint32, tag = "33")]
    pub seq: u32,
    /// How urgent it is; see `Priority::code`.
    #[prost(uint32, tag = "34")]
    pub priority: u32,
    /// When it goes on by itself.
    #[prost(message, optional, tag = "35")]
    pub timer: Option<Timer>,
    /// Number of its newest timer.
    #[prost(uint64, tag = "36")]
    pub timers: u64,
    /// How often in a row it went on by itself without getting further.
    #[prost(uint32, tag = "37")]
    pub tries: u32,
    /// CPU time that its commands have used, in milliseconds.
    #[prost(uint64, tag = "60")]
    pub cpu_ms: u64,
    /// Bytes by which its directories have grown.
    #[prost(uint64, tag = "61")]
    pub disk_bytes: u64,
    /// CPU time and disk set aside for commands.
    #[prost(message, repeated, tag = "62")]
    pub allowed: Vec<Allowed>,
    /// What the user allowed for the rest of the task.
    #[prost(message, repeated, tag = "45")]
    pub grants: Vec<Granted>,
}

/// Tokens used.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Usage {
    /// Input.
    #[prost(uint64, tag = "1")]
    pub input: u64,
    /// Read from cache.
    #[prost(uint64, tag = "2")]
    pub cached: u64,
    /// Written to cache.
    #[prost(uint64, tag = "3")]
    pub cache_write: u64,
    /// Output.
    #[prost(uint64, tag = "4")]
    pub output: u64,
}

/// A reservation.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Held {
    /// The effect.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// Nano-dollars.
    #[prost(uint64, tag = "2")]
    pub nano_usd: u64,
    /// Tokens.
    #[prost(uint64, tag = "3")]
    pub tokens: u64,
}

/// CPU time and disk set aside for a command.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Allowed {
    /// The effect.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// CPU time in milliseconds.
    #[prost(uint64, optional, tag = "2")]
    pub cpu_ms: Option<u64>,
    /// Bytes of disk.
    #[prost(uint64, optional, tag = "3")]
    pub disk_bytes: Option<u64>,
}

/// An intent without observation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpenIntent {
    /// Where it stands.
    #[prost(uint64, tag = "1")]
    pub lsn: u64,
    /// What.
    #[prost(message, optional, tag = "2")]
    pub intent: Option<Intent>,
}

/// A question; what was answered is kept without its body.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Approval {
    /// The question.
    #[prost(message, optional, tag = "1")]
    pub asked: Option<ApprovalAsked>,
    /// Where it stands.
    #[prost(uint64, tag = "2")]
    pub lsn: u64,
    /// When it was asked.
    #[prost(uint64, tag = "3")]
    pub at_ms: u64,
    /// Yes or no; absent while it waits.
    #[prost(bool, optional, tag = "4")]
    pub yes: Option<bool>,
    /// The text given with the answer.
    #[prost(string, tag = "5")]
    pub text: String,
    /// The lease that had ended when it was answered.
    #[prost(uint64, tag = "6")]
    pub answered_in: u64,
    /// Whether its effect was intended since, which uses the answer up.
    #[prost(bool, tag = "7")]
    pub used: bool,
    /// Why it ended without a person's word.
    #[prost(string, tag = "8")]
    pub lapsed: String,
}

/// The newest operations; older ones are read from their records.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ops {
    /// Operations that are not held here.
    #[prost(uint32, tag = "1")]
    pub below: u32,
    /// The newest ones.
    #[prost(message, repeated, tag = "2")]
    pub entries: Vec<OpKept>,
    /// Numbers in force: first and length of each rising run.
    #[prost(uint32, repeated, tag = "3")]
    pub done: Vec<u32>,
    /// Numbers that were taken back, likewise.
    #[prost(uint32, repeated, tag = "4")]
    pub undone: Vec<u32>,
}

/// One operation.
#[derive(Clone, PartialEq, prost::Message)]
pub struct OpKept {
    /// Where it stands.
    #[prost(uint64, tag = "1")]
    pub lsn: u64,
    /// When.
    #[prost(uint64, tag = "2")]
    pub at_ms: u64,
    /// What.
    #[prost(message, optional, tag = "3")]
    pub done: Option<OpDone>,
}

/// Rising numbers as the first one and distances.
#[must_use]
pub fn pack(lsns: &[Lsn]) -> Vec<u64> {
    let mut before = 0;
    lsns.iter().map(|lsn| lsn.0.saturating_sub(std::mem::replace(&mut before, lsn.0))).collect()
}

/// What [`pack`] was given.
#[must_use]
pub fn unpack(packed: &[u64]) -> Vec<Lsn> {
    let mut at: u64 = 0;
    packed
        .iter()
        .map(|distance| {
            at = at.saturating_add(*distance);
            Lsn(at)
        })
        .collect()
}
