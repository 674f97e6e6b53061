//! The ports: how floors meet without seeing each other.
//!
//! Each is born with its first adapter and has only the methods in use. Futures are boxed by hand;
//! cancellation is dropping the future. Invariant: an adapter passes the port's contract suite in
//! `testkit` before it is wired.

mod canvas;
mod limits;
mod listing;
mod storage;

pub use canvas::{Applied, Canvas, Checkpoint, Difference, Kept, LandSpec, Landed, Landing, MicroCommit, OpenSpec, Opened};
pub use limits::{Ended, Limits, Meter, Used};
pub use listing::{ListQuery, Listed, Listing};
pub use storage::{
    Appended, BlobStore, Compaction, Journal, JournalState, KEY_DESTROYED, Keyring, Needed, NewRecord, Record, Room, SealKey,
};

use crate::approval::{Approved, Bound, Grant};
use crate::code::Fault;
use crate::coroutine::{Input, Wake};
use crate::effect::{Act, Answer, Fence, Intended, Live, Past, Question, Stall};
use crate::event::{Caps, Finished, Observed, Op, Placed, Waiver};
use crate::lifecycle::Task;
use crate::model::{ModelCall, ModelCard, ModelError, ModelEvent};
use crate::tool::{Consent, ToolCall, ToolContext, ToolOutcome, ToolPlan, ToolSpec, Traffic};
use crate::words::{BlobRef, Lsn, Priority, RunId, Seq, TaskId, Workspace};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

// ---------------------------------------------------------------- models and tools

/// Models, whatever the provider.
pub trait Model: Send + Sync {
    /// What is known of `provider/model`.
    ///
    /// # Errors
    /// When no such provider or model is configured; the fault says how to add one.
    fn card(&self, model: &str) -> Result<ModelCard, Fault>;
    /// Asks, with bounded retries; the stream ends after `Done` or the first error. Dropping the
    /// stream closes the connection. A call whose answer is kept under its id is not made again:
    /// its events come once more, from the first.
    fn complete(&self, call: ModelCall) -> BoxStream<'static, Result<ModelEvent, ModelError>>;
    /// Lets go of what is kept of the task's calls by effects before `before`, whose observations
    /// are durable; a call among them that still runs is cancelled. Failing costs only space.
    fn settle(&self, task: TaskId, before: Seq) -> BoxFuture<'_, ()> {
        let (_, _) = (task, before);
        Box::pin(std::future::ready(()))
    }
    /// Lets go of every kept or running call by an effect that is not among `open`.
    fn sweep(&self, open: Vec<RunId>) -> BoxFuture<'_, ()> {
        drop(open);
        Box::pin(std::future::ready(()))
    }
}

/// One tool.
pub trait Tool: Send + Sync {
    /// Name, description, schema. Constant.
    fn spec(&self) -> ToolSpec;
    /// What a call with these arguments would do, for guard and recovery; pure. Malformed
    /// arguments give a plan that does nothing: `call` then says what is wrong.
    fn plan(&self, args: &str) -> ToolPlan;
    /// What a call would do here and now, for a person to approve. Looks at the world and changes
    /// nothing that matters; asked twice of the same world it gives the same.
    ///
    /// # Errors
    /// When that can not be found out; then it can not be approved either.
    fn bind<'a>(&'a self, ctx: &'a ToolContext, args: &'a str) -> BoxFuture<'a, Result<Bound, Fault>> {
        let (_, _) = (ctx, args);
        Box::pin(std::future::ready(Ok(Bound::default())))
    }
    /// Runs a call. A failure that the model can act on is an outcome, not an error.
    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>>;
    /// What a person must agree to before this call, beyond what the guard decides; asked again after
    /// each answer until there is nothing more. It changes nothing that a task could notice.
    fn consent(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<Option<Consent>, Stall>> {
        drop((ctx, args));
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Remembers the answer to what [`Tool::consent`] asked for under this digest.
    fn consented(&self, ctx: ToolContext, digest: String, yes: bool) -> BoxFuture<'static, Result<(), Stall>> {
        drop((ctx, digest, yes));
        Box::pin(std::future::ready(Ok(())))
    }
}

// ---------------------------------------------------------------- sandbox

/// Sandbox levels, strongest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Namespaces, Landlock, seccomp, limits.
    Full,
    /// Landlock, seccomp, limits, without namespaces.
    Landlock,
    /// Nothing; by operator configuration only.
    None,
}

impl Level {
    /// The level's name in records and configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Landlock => "landlock",
            Self::None => "none",
        }
    }
}

/// The variable that marks a command as the gate's own check. What earlier commands left in their
/// home (a test runner in cargo's configuration, an alias) must not decide whether it passes.
pub const CHECK: &str = "TINKERBELL_CHECK";

/// A command to run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExecSpec {
    /// Names the keeper's directory: the same run never starts twice.
    pub run: RunId,
    /// Who starts it.
    pub fence: Fence,
    /// Text for `/bin/sh -c`.
    pub command: String,
    /// Where, relative to the workspace's tree; empty for its root.
    pub workdir: String,
    /// The workspace; its tree is writable, its git directories are readable.
    pub workspace: Workspace,
    /// Environment beyond the sandbox's own fixed one; with [`CHECK`] in it the command gets a home
    /// that no other command has written.
    pub env: Vec<(String, String)>,
    /// The command is ended after this long.
    pub deadline: Duration,
    /// What it may use; the operator's own limits hold beside these.
    pub limits: Limits,
    /// Set for a program that serves the task beside its commands; `command` and `workdir` do not
    /// count then.
    pub service: Option<Service>,
    /// The approval that it needed; the keeper runs nothing that differs from it.
    pub approved: Option<Approved>,
}

/// A program that serves a task: it speaks over its standard streams and has a home of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Names its private home within the task's; letters, digits, `-` and `_`.
    pub name: String,
    /// Program and arguments, run without a shell.
    pub argv: Vec<String>,
    /// Whether it sees the worktree, in which it then stands.
    pub reads: bool,
    /// Whether it may also write it.
    pub writes: bool,
    /// The host's network, or none; `None` for what commands get.
    pub network: Option<bool>,
    /// Further paths that it may read.
    pub read: Vec<PathBuf>,
}

/// How a command stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitState {
    /// It runs.
    Running,
    /// It ended; this is the keeper's own record of it.
    Ended(Ended),
    /// The keeper is gone without a record: the outcome can not be known.
    Lost,
}

/// What to wait for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Until {
    /// At most this long.
    pub timeout: Duration,
    /// Or until a line of output, after `from`, contains this text.
    pub line: Option<String>,
    /// Offset in the output from which lines count.
    pub from: u64,
}

/// Output bytes from an offset (both streams interleaved in order of arrival).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chunk {
    /// Where the bytes begin.
    pub offset: u64,
    /// The bytes.
    pub bytes: Bytes,
    /// Where the next chunk begins.
    pub next: u64,
}

/// A command under a keeper. Dropping the handle leaves the command running.
pub trait Unit: Send + Sync {
    /// Which run it is.
    fn run(&self) -> RunId;
    /// Waits for the end, a line, or the timeout. Cancel safe.
    fn wait(&self, until: Until) -> BoxFuture<'_, Result<UnitState, Fault>>;
    /// Output from `offset`, at most `max` bytes; empty at the end.
    fn output(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Chunk, Fault>>;
    /// Writes to its standard input; `number` counts the writes, so that none is delivered twice.
    fn stdin(&self, number: u64, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>>;
    /// Where the output ends that effects before `seq` have shown, and what the command did on the network
    /// that they have not told; `end` notes where the output of `seq` itself ends. An effect that is done
    /// again after a crash shows the same again.
    fn shown(&self, seq: Seq, end: Option<u64>) -> BoxFuture<'_, Result<(u64, Traffic), Fault>>;
    /// Sends a signal by its Linux number to all its processes.
    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), Fault>>;
    /// Lets the keeper go once the end is recorded; the spool stays until the task is removed.
    fn release(&self) -> BoxFuture<'_, Result<(), Fault>>;
}

/// What stands of an earlier run.
pub enum Found {
    /// A keeper or its finished record; ask the unit.
    Unit(Arc<dyn Unit>),
    /// It never ran: starting it is safe.
    NeverRan,
    /// The keeper is lost; its processes are gone. The unit still serves the partial output.
    Lost(Arc<dyn Unit>),
}

/// Where commands run.
pub trait Sandbox: Meter {
    /// The level that a command would get now, proven by attack.
    ///
    /// # Errors
    /// When no complete level passes its self-test; the fault says why and the way out.
    fn level(&self) -> BoxFuture<'_, Result<Level, Fault>>;
    /// What exactly [`Self::start`] would run, program files and all, for an approval to be bound to.
    ///
    /// # Errors
    /// When the command could not be started either.
    fn facts(&self, spec: ExecSpec) -> BoxFuture<'_, Result<Bound, Fault>> {
        let facts = vec![("command".to_owned(), spec.command), ("directory".to_owned(), spec.workdir)];
        Box::pin(std::future::ready(Ok(Bound { facts, shown: None })))
    }
    /// Starts a command, at most once per run id, ever.
    fn start(&self, spec: ExecSpec) -> BoxFuture<'_, Result<Arc<dyn Unit>, Fault>>;
    /// Finds an earlier run again.
    fn attach(&self, run: RunId) -> BoxFuture<'_, Result<Found, Fault>>;
    /// Kills every run that stands on disk or lives and is not in `known`; tells what it found.
    fn sweep(&self, known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>>;
    /// Kills every live run of the task. The spools stay.
    fn stop(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>>;
    /// Kills what lives and removes the task's spools and private homes.
    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>>;
}

// ---------------------------------------------------------------- guard

/// What is about to happen, for the guard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deed {
    /// The task.
    pub task: TaskId,
    /// The call.
    pub call: ToolCall,
    /// What it would do.
    pub plan: ToolPlan,
    /// The level that commands get.
    pub level: Option<Level>,
    /// Where.
    pub workspace: Workspace,
    /// What it rests on.
    pub grounds: Grounds,
}

/// What a deed rests on beyond its own bytes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Grounds {
    /// The user's own words, oldest first. Nothing else authorises.
    pub words: Arc<[String]>,
    /// What others wrote and the model has read, newest first: results of tools, rules of the repository.
    pub untrusted: Arc<[String]>,
    /// Whether more was read than stands there.
    pub is_cut: bool,
    /// Whether the user gave the deed itself, word for word: then only a rule can forbid it.
    pub is_users: bool,
    /// Whether the user wants nobody asked, as of now.
    pub is_unasked: bool,
    /// What the user allowed for the rest of the task.
    pub grants: Vec<Grant>,
    /// Wall time in milliseconds since the epoch: what has expired allows nothing.
    pub now_ms: u64,
}

/// The guard's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Go on.
    Allow,
    /// Go on, because the user wants nobody asked.
    Waived {
        /// Why a person would have been asked.
        why: String,
    },
    /// Ask a person first.
    Ask {
        /// Why, in one line.
        why: String,
        /// SHA-256 of the exact bytes of the deed, hexadecimal.
        digest: String,
        /// SHA-256 of the rules in force, hexadecimal: an approval is void under others.
        policy: String,
        /// The rules that want a person asked.
        rules: Vec<String>,
        /// What the person may allow beyond this one time.
        offer: Option<Grant>,
    },
    /// Never.
    Refuse {
        /// Why, and what to do instead; the model reads it.
        why: String,
    },
}

/// Who may do what.
pub trait Guard: Send + Sync {
    /// Judges a deed. Pure in its arguments and the policy in force.
    fn judge(&self, deed: &Deed) -> Judgement;
    /// Whether the judgement may depend on words and untrusted texts, which then have to be gathered.
    fn weighs(&self, _deed: &Deed) -> bool {
        false
    }
    /// Replaces known secrets in text by their names, exact values only.
    fn redact(&self, text: &str) -> String;
}

// ---------------------------------------------------------------- engine

/// What the scheduler gives a runner to act through.
pub trait Effects: Send + Sync {
    /// Journals the intent, acts, journals the observation. An effect that was observed before is
    /// not acted again; one that was intended before is recovered by its class.
    ///
    /// # Errors
    /// [`Stall`] when it can not happen now. Cancel safe: dropping it leaves the intent open.
    fn once(&self, intended: Intended, act: Act) -> BoxFuture<'_, Result<Observed, Stall>>;
    /// The task's past after `after`, in journal order.
    fn past(&self, after: Lsn) -> BoxFuture<'_, Result<Vec<Past>, Stall>>;
    /// The recorded answer to the same question of the same effect, bound to the same facts; else
    /// journals the question and stalls. An approval that has expired or was used is none.
    fn person(&self, question: Question) -> BoxFuture<'_, Result<Answer, Stall>>;
    /// The task as folded so far.
    fn task(&self) -> Task;
    /// Shows progress to whoever watches; never recorded.
    fn live(&self, live: Live);
}

/// One step of a task.
pub struct Step {
    /// The task as folded so far.
    pub task: Task,
    /// The coroutine's state; `None` before the first step.
    pub state: Option<Bytes>,
    /// What resumes it.
    pub input: Input,
    /// The lease.
    pub fence: Fence,
}

/// How a step ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Stepped {
    /// Go on with this.
    Again {
        /// The coroutine's state.
        state: Bytes,
        /// What resumes it next.
        wake: Wake,
    },
    /// The coroutine is done.
    Done {
        /// The coroutine's state, should the user speak again.
        state: Bytes,
        /// How it ended.
        finished: Finished,
    },
}

/// Runs coroutines; the mind behind the scheduler.
pub trait Runner: Send + Sync {
    /// Advances one yield. Cancel safe: a dropped step is repeated from the journal.
    fn step(&self, step: Step, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Stepped, Stall>>;
    /// Does one operation of the user (undo, land, remove…) while the task stands still.
    fn operate(&self, task: Task, op: Op, intended: Intended, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Observed, Stall>>;
    /// Ends all commands and model calls of the task.
    fn quiet(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>>;
    /// Finds commands and kept model calls that are not among `known`, and ends them; tells of the
    /// commands.
    fn sweep(&self, known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>>;
}

// ---------------------------------------------------------------- runtime (inbound)

/// A task to accept.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Submission {
    /// The user's words.
    pub goal: String,
    /// Directory in which it was given.
    pub cwd: PathBuf,
    /// `provider/model`; empty for the configured default.
    pub model: String,
    /// Limits; unset ones take the defaults.
    pub caps: Caps,
    /// Verification command.
    pub verify: Option<String>,
    /// Revision to start from.
    pub base: Option<String>,
    /// Whether nobody can be asked.
    pub no_input: bool,
    /// The client's key for this submission.
    pub idempotency_key: Option<String>,
    /// The peer.
    pub uid: u32,
    /// How urgent it is.
    pub priority: Priority,
    /// Host and port of the model's endpoint; filled in when the submission is checked.
    pub host: String,
    /// Begin not before this long from now, in milliseconds.
    pub delay_ms: Option<u64>,
    /// Begin not before this wall time, milliseconds since the epoch.
    pub not_before_ms: Option<u64>,
    /// Where nobody is to be asked for approvals.
    pub waiver: Option<Waiver>,
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Given {
    /// The question's number within the task.
    pub id: u32,
    /// Approve or deny.
    pub yes: bool,
    /// Text given with it.
    pub text: String,
    /// The peer.
    pub uid: u32,
    /// The digest of the question that was shown; an answer to another one is refused. Empty where
    /// the answering side saw none.
    pub digest: String,
    /// How far the approval reaches: `once` (or empty), `task`, `project`, `user`.
    pub scope: String,
}

/// A word to a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// More words from the user.
    Tell(String),
    /// Stand still.
    Pause,
    /// Go on; with new limits, if given.
    Resume(Option<Caps>),
    /// End it.
    Cancel,
    /// Make it more or less urgent.
    Priority(Priority),
    /// Answer a question by its number.
    Answer(Given),
    /// Take back the last operation, or all.
    Undo {
        /// All of them.
        all: bool,
    },
    /// Bring back what the last undo took.
    Redo,
    /// Bring the tree to the state after operation `op`; 0 is the base.
    Restore {
        /// The operation's number.
        op: u32,
    },
    /// Land the change.
    Land {
        /// The branch; `None` for the current one.
        branch: Option<String>,
        /// The message; empty for one made from the goal.
        message: String,
    },
    /// Remove the task with all it keeps.
    Remove {
        /// Also when it is still running.
        force: bool,
    },
}

/// What a watcher sees.
#[derive(Debug, Clone, PartialEq)]
pub enum Seen {
    /// A durable event.
    Event(Arc<Placed>),
    /// Progress.
    Live(Live),
    /// The past up to here was replayed; what follows is new.
    CaughtUp(Lsn),
}

/// The engine as the doors see it.
pub trait Runtime: Send + Sync {
    /// Accepts a task; returns once that is durable.
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>>;
    /// Gives a task a word; returns a line for people once the word is durable and, for
    /// operations, done.
    fn command(&self, task: TaskId, command: Command) -> BoxFuture<'_, Result<String, Fault>>;
    /// Finds one task, whole, by a unique prefix of its id.
    fn get<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listed, Fault>>;
    /// A page of tasks, newest activity first; removed ones are left out.
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, Fault>>;
    /// Events after `after`, of one task or of all, and then live ones. A reader that falls too
    /// far behind is dropped and comes back with its last number.
    fn watch(&self, task: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>>;
    /// What changed in a task between two of its operations (`None`: base, now), as a diff.
    fn diff(&self, task: TaskId, from: Option<u32>, to: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>>;
    /// Stored bytes, for `logs --full` and cut outputs.
    fn blob(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>>;
}
