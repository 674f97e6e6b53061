//! Version 1 of the journal's payloads, in Protocol Buffers encoding.
//!
//! Only data: meaning lives in `lifecycle`. Fields may be added, never renumbered or reused; a
//! breaking change is a new message. Invariant: `tests/golden/v1` stays readable for ever.

mod budget;
mod observed;

pub use budget::{Caps, Released, Reserved, Settled};
pub use observed::{
    Committed, Connection, Failed, FileChange, LostTry, Made, Observation, Observed, Operated, Part, PartKind, PlanStep, Prepared, Reply,
    ResultSeen, Verdict,
};

/// The envelope of every event record.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Entry {
    /// Wall time, milliseconds since the epoch.
    #[prost(uint64, tag = "1")]
    pub at_ms: u64,
    /// What happened.
    #[prost(oneof = "Event", tags = "2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20")]
    pub event: Option<Event>,
}

/// What happened.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// A task was accepted.
    #[prost(message, tag = "2")]
    Submitted(Submitted),
    /// A lease on the task began.
    #[prost(message, tag = "3")]
    Started(Started),
    /// An effect is about to happen.
    #[prost(message, tag = "4")]
    Intent(Intent),
    /// An effect's outcome.
    #[prost(message, tag = "5")]
    Observed(Observed),
    /// Money and tokens were set aside.
    #[prost(message, tag = "6")]
    Reserved(Reserved),
    /// A reservation became spend.
    #[prost(message, tag = "7")]
    Settled(Settled),
    /// A reservation was given back.
    #[prost(message, tag = "8")]
    Released(Released),
    /// The coroutine's state before the intent that follows.
    #[prost(message, tag = "9")]
    StateSaved(StateSaved),
    /// Somebody wants something of the task.
    #[prost(message, tag = "10")]
    Signal(Signal),
    /// A person is asked.
    #[prost(message, tag = "11")]
    ApprovalAsked(ApprovalAsked),
    /// A person answered.
    #[prost(message, tag = "12")]
    ApprovalGiven(ApprovalGiven),
    /// An operation that can be undone.
    #[prost(message, tag = "13")]
    OpDone(OpDone),
    /// The task stands still.
    #[prost(message, tag = "14")]
    Paused(Paused),
    /// The task ended.
    #[prost(message, tag = "15")]
    Finished(Finished),
    /// A command without an intent was found and killed.
    #[prost(message, tag = "16")]
    OrphanReaped(OrphanReaped),
    /// What the task waited for has come due.
    #[prost(message, tag = "17")]
    TimerFired(TimerFired),
    /// The task at rest: stands for all its records before. Bookkeeping, never shown.
    #[prost(message, tag = "18")]
    Snapshot(crate::lifecycle::format::Snapshot),
    /// A stretch of the task's history index. Bookkeeping, never shown.
    #[prost(message, tag = "19")]
    Page(crate::lifecycle::format::Page),
    /// A person allowed more than one deed.
    #[prost(message, tag = "20")]
    Granted(Granted),
}

/// A task was accepted.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Submitted {
    /// The user's words.
    #[prost(string, tag = "1")]
    pub goal: String,
    /// Directory in which the task was given, as bytes of the path.
    #[prost(bytes = "vec", tag = "2")]
    pub cwd: Vec<u8>,
    /// `provider/model`.
    #[prost(string, tag = "3")]
    pub model: String,
    /// Its limits.
    #[prost(message, optional, tag = "4")]
    pub caps: Option<Caps>,
    /// The verification command, where the user gave one.
    #[prost(string, optional, tag = "5")]
    pub verify: Option<String>,
    /// The revision to start from, where the user gave one.
    #[prost(string, optional, tag = "6")]
    pub base: Option<String>,
    /// Whether nobody can be asked while it runs.
    #[prost(bool, tag = "7")]
    pub no_input: bool,
    /// The user's key for this submission, so that a repeated one is the same task.
    #[prost(string, optional, tag = "8")]
    pub idempotency_key: Option<String>,
    /// User id of the submitting peer.
    #[prost(uint32, tag = "9")]
    pub uid: u32,
    /// How urgent it is; see `Priority::code`.
    #[prost(uint32, tag = "10")]
    pub priority: u32,
    /// Host and port of its model's endpoint when it was accepted; empty where none is asked.
    #[prost(string, tag = "11")]
    pub host: String,
    /// Where nobody is to be asked for approvals: who said so, why, and until when.
    #[prost(message, optional, tag = "12")]
    pub waiver: Option<Waiver>,
}

/// The policy value `approval = "never"`: what would be asked for is done, within the floor.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Waiver {
    /// User id of who said so.
    #[prost(uint32, tag = "1")]
    pub owner: u32,
    /// Why, in the owner's words.
    #[prost(string, tag = "2")]
    pub reason: String,
    /// Where it was said: `command line`, or the configuration file.
    #[prost(string, tag = "3")]
    pub source: String,
    /// Until when it holds, wall time in milliseconds since the epoch.
    #[prost(uint64, tag = "4")]
    pub until_ms: u64,
}

/// A lease began.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Started {
    /// The journal's opening.
    #[prost(uint64, tag = "1")]
    pub epoch: u64,
    /// The lease's number.
    #[prost(uint64, tag = "2")]
    pub generation: u64,
}

/// An effect is about to happen.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Intent {
    /// Its number within the task.
    #[prost(uint32, tag = "1")]
    pub seq: u32,
    /// Its class; see `EffectClass::code`.
    #[prost(uint32, tag = "2")]
    pub class: u32,
    /// What.
    #[prost(oneof = "Action", tags = "3, 4, 5, 6, 7, 8")]
    pub action: Option<Action>,
    /// Whether a waiver was in force: nobody would have been asked.
    #[prost(bool, tag = "9")]
    pub yolo: bool,
}

/// What is going to happen.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Action {
    /// Make the workspace, read rules and environment.
    #[prost(message, tag = "3")]
    Prepare(Prepare),
    /// Ask the model.
    #[prost(message, tag = "4")]
    Ask(Ask),
    /// Run a tool.
    #[prost(message, tag = "5")]
    Call(Call),
    /// Run the verification command.
    #[prost(message, tag = "6")]
    Verify(Verify),
    /// Make a micro-commit.
    #[prost(message, tag = "7")]
    Commit(Commit),
    /// An operation that the user asked for.
    #[prost(message, tag = "8")]
    Op(Op),
}

/// Make the workspace, read rules and environment.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Prepare {}

/// Ask the model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Ask {
    /// The transcript is the task's past up to this record.
    #[prost(uint64, tag = "1")]
    pub through: u64,
    /// The part of the prompt that moves: plan, budget left, open units.
    #[prost(string, tag = "2")]
    pub tail: String,
    /// The step, counted in model calls from 1.
    #[prost(uint32, tag = "3")]
    pub step: u32,
    /// Limit of the answer.
    #[prost(uint64, tag = "4")]
    pub max_output_tokens: u64,
}

/// Run a tool.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Call {
    /// The provider's id for the call.
    #[prost(string, tag = "1")]
    pub call_id: String,
    /// The tool.
    #[prost(string, tag = "2")]
    pub tool: String,
    /// Its arguments, JSON text.
    #[prost(string, tag = "3")]
    pub args: String,
    /// The step that asked for it.
    #[prost(uint32, tag = "4")]
    pub step: u32,
}

/// Run the verification command.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Verify {
    /// The command for `/bin/sh -c`.
    #[prost(string, tag = "1")]
    pub command: String,
    /// Round; 0 is the run before the first edit.
    #[prost(uint32, tag = "2")]
    pub round: u32,
    /// The checkpoint that is put back afterwards; taken just before the intent, so that a crash in
    /// the middle does not lose what background commands wrote until then.
    #[prost(string, tag = "3")]
    pub before: String,
}

/// Make a micro-commit. Carries all that its object id depends on.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Commit {
    /// First line.
    #[prost(string, tag = "1")]
    pub subject: String,
    /// The step.
    #[prost(uint32, tag = "2")]
    pub step: u32,
    /// The branch's tip before.
    #[prost(string, tag = "3")]
    pub parent: String,
    /// Commit time in seconds since the epoch.
    #[prost(uint64, tag = "4")]
    pub time_s: u64,
    /// The checkpoint whose tree is committed.
    #[prost(string, tag = "5")]
    pub tree: String,
    /// The model of the step.
    #[prost(string, tag = "6")]
    pub model: String,
    /// Cost of the task so far, in millionths of a dollar.
    #[prost(uint64, tag = "7")]
    pub cost_micros: u64,
    /// The checkpoint before the change.
    #[prost(string, tag = "8")]
    pub before: String,
    /// The effect that made the change.
    #[prost(uint32, tag = "9")]
    pub cause: u32,
}

/// An operation that the user asked for.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Op {
    /// `undo`, `undo-all`, `redo`, `restore`, `land`, `unland`, `remove`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The checkpoint to go to, for undo, redo and restore.
    #[prost(string, tag = "2")]
    pub target: String,
    /// For landing: the branch, or empty for the current one.
    #[prost(string, tag = "3")]
    pub branch: String,
    /// For landing: the message's first line.
    #[prost(string, tag = "4")]
    pub subject: String,
    /// Numbers of the operations that this one takes back or brings back.
    #[prost(uint32, repeated, tag = "5")]
    pub ops: Vec<u32>,
    /// Commit time in seconds since the epoch.
    #[prost(uint64, tag = "6")]
    pub time_s: u64,
    /// The landing commit, for `unland`.
    #[prost(string, tag = "7")]
    pub landed: String,
    /// Cost of the task so far, in millionths of a dollar.
    #[prost(uint64, tag = "8")]
    pub cost_micros: u64,
}

/// The coroutine's state before the intent that follows.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StateSaved {
    /// The state, in the agent's own format.
    #[prost(bytes = "vec", tag = "1")]
    pub state: Vec<u8>,
    /// The effect that it waits for.
    #[prost(uint32, tag = "2")]
    pub seq: u32,
}

/// Somebody wants something of the task.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Signal {
    /// `tell`, `note`, `cancel`, `pause`, `unpause`, `caps`, `key`, `priority`, `remove`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The words, for `tell` and `note`; the new one, for `priority`.
    #[prost(string, tag = "2")]
    pub text: String,
    /// The new limits, for `caps`.
    #[prost(message, optional, tag = "3")]
    pub caps: Option<Caps>,
}

/// A person is asked.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ApprovalAsked {
    /// Number within the task, from 1.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// The effect that waits.
    #[prost(uint32, tag = "2")]
    pub seq: u32,
    /// See `QuestionKind::code`.
    #[prost(uint32, tag = "3")]
    pub kind: u32,
    /// One line.
    #[prost(string, tag = "4")]
    pub title: String,
    /// Exactly what would happen.
    #[prost(string, tag = "5")]
    pub body: String,
    /// Answers to choose from.
    #[prost(string, repeated, tag = "6")]
    pub options: Vec<String>,
    /// SHA-256 of what is approved, hexadecimal; since `nonce` is given, over
    /// `approval::canonical` of facts, expiry and nonce.
    #[prost(string, tag = "7")]
    pub digest: String,
    /// What an approval is bound to.
    #[prost(message, repeated, tag = "8")]
    pub facts: Vec<Fact>,
    /// Unanswered or unused it is void from this moment on, wall time in milliseconds; 0 for never.
    #[prost(uint64, tag = "9")]
    pub expires_ms: u64,
    /// Makes this question differ from every other one.
    #[prost(string, tag = "10")]
    pub nonce: String,
    /// Equal for equal questions, whenever and in whichever task they are asked.
    #[prost(string, tag = "11")]
    pub like: String,
    /// The rules that want a person asked.
    #[prost(string, repeated, tag = "12")]
    pub rules: Vec<String>,
    /// What may be allowed beyond this one time.
    #[prost(message, optional, tag = "13")]
    pub offer: Option<Granted>,
}

/// A name and a value that an approval is bound to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Fact {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// Its value.
    #[prost(string, tag = "2")]
    pub value: String,
}

/// A person allowed more than one deed; the same words offer it.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Granted {
    /// Its name.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The first words of the commands.
    #[prost(string, repeated, tag = "2")]
    pub argv: Vec<String>,
    /// Options that may follow.
    #[prost(string, repeated, tag = "3")]
    pub options: Vec<String>,
    /// The command that it was made for.
    #[prost(string, tag = "4")]
    pub example: String,
    /// Holds until then, wall time in milliseconds; 0 for the end of the task.
    #[prost(uint64, tag = "5")]
    pub expires_ms: u64,
    /// `task`, `project`, `user`; only the first is judged by this record.
    #[prost(string, tag = "6")]
    pub scope: String,
    /// The question that was answered with it.
    #[prost(uint32, tag = "7")]
    pub approval: u32,
    /// User id of the answering peer.
    #[prost(uint32, tag = "8")]
    pub uid: u32,
}

/// A person answered.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ApprovalGiven {
    /// Which question.
    #[prost(uint32, tag = "1")]
    pub id: u32,
    /// Approved or answered.
    #[prost(bool, tag = "2")]
    pub yes: bool,
    /// The text given with it.
    #[prost(string, tag = "3")]
    pub text: String,
    /// User id of the answering peer.
    #[prost(uint32, tag = "4")]
    pub uid: u32,
    /// Why it ended without a person's word: `expired`, `replaced`; empty where a person answered.
    #[prost(string, tag = "5")]
    pub lapsed: String,
    /// How far the approval reaches: empty for once, `task`, `project`, `user`.
    #[prost(string, tag = "6")]
    pub scope: String,
    /// The digest of the question that the answering side was shown, where it said so.
    #[prost(string, tag = "7")]
    pub digest: String,
}

/// An operation that can be undone.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OpDone {
    /// `tool`, `undo`, `redo`, `restore`, `land`, `unland`.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// The effect that it was.
    #[prost(uint32, tag = "2")]
    pub seq: u32,
    /// Checkpoint before.
    #[prost(string, tag = "3")]
    pub before: String,
    /// Checkpoint after.
    #[prost(string, tag = "4")]
    pub after: String,
    /// The commit that it made, on the task's branch or, for `land`, on the user's.
    #[prost(string, tag = "5")]
    pub commit: String,
    /// One line for people.
    #[prost(string, tag = "6")]
    pub summary: String,
    /// What changed.
    #[prost(message, repeated, tag = "7")]
    pub files: Vec<FileChange>,
    /// For `undo` and `redo`: the operations taken or brought back.
    #[prost(uint32, repeated, tag = "8")]
    pub ops: Vec<u32>,
    /// For `land`: the full name of the reference that moved.
    #[prost(string, tag = "9")]
    pub reference: String,
    /// For `land`: where that reference stood before; empty when it was made.
    #[prost(string, tag = "10")]
    pub previous: String,
}

/// The task stands still.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Paused {
    /// `user`, `budget`, `person`, `key`, `disk`, `provider`, `later`.
    #[prost(string, tag = "1")]
    pub why: String,
    /// Details for people.
    #[prost(string, tag = "2")]
    pub text: String,
    /// When it goes on by itself, where it does.
    #[prost(message, optional, tag = "3")]
    pub timer: Option<Timer>,
    /// How often in a row it has paused for this reason and is to go on by itself; 0 where that is
    /// not counted.
    #[prost(uint32, tag = "4")]
    pub tries: u32,
}

/// A moment on both clocks. Within the boot in which it was set monotonic time decides, because
/// wall time may jump; after another boot wall time does, because nothing else is left.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Timer {
    /// Its number within the task, from 1; each deadline has its own.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Wall time, milliseconds since the epoch.
    #[prost(uint64, tag = "2")]
    pub due_wall_ms: u64,
    /// Monotonic time, milliseconds.
    #[prost(uint64, tag = "3")]
    pub due_mono_ms: u64,
    /// The machine's boot in which it was set, 16 bytes.
    #[prost(bytes = "vec", tag = "4")]
    pub boot: Vec<u8>,
}

/// A timer came due and is used up.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TimerFired {
    /// Which.
    #[prost(uint64, tag = "1")]
    pub id: u64,
}

/// The task ended.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Finished {
    /// `verified`, `unverified`, `gate-failed`, `failed`, `cancelled`.
    #[prost(string, tag = "1")]
    pub status: String,
    /// Exit code of the command line.
    #[prost(uint32, tag = "2")]
    pub exit: u32,
    /// The model's last words, or the reason.
    #[prost(string, tag = "3")]
    pub text: String,
    /// The error code, where it failed.
    #[prost(string, tag = "4")]
    pub code: String,
    /// What to do, where it failed.
    #[prost(string, repeated, tag = "5")]
    pub hints: Vec<String>,
    /// All files that differ from the base.
    #[prost(message, repeated, tag = "6")]
    pub files: Vec<FileChange>,
    /// Number of micro-commits.
    #[prost(uint32, tag = "7")]
    pub commits: u32,
    /// Connections of commands in the background that no effect has told.
    #[prost(message, repeated, tag = "8")]
    pub connections: Vec<Connection>,
}

/// A command without an intent was found and killed.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct OrphanReaped {
    /// The run.
    #[prost(string, tag = "1")]
    pub run: String,
    /// What was found and done.
    #[prost(string, tag = "2")]
    pub text: String,
}
