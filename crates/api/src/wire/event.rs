//! The published event: one envelope for stdout, streams and files alike.
//!
//! Not the journal's own record: several records have no public face. Invariant: `result` says
//! success exactly when it carries no error.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One published event.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Envelope {
    /// Version of the envelope; 1.
    pub v: u32,
    /// Number in the log, below 2^53; absent for progress that is not recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lsn: Option<u64>,
    /// RFC 3339, UTC, milliseconds.
    pub time: String,
    /// The task's whole id.
    pub task: String,
    /// What happened.
    #[serde(flatten)]
    pub body: Body,
}

/// The kinds of event with their data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", content = "data")]
pub enum Body {
    /// A task was accepted.
    #[serde(rename = "task.started")]
    TaskStarted(TaskStarted),
    /// The task stands still for another reason than money, steps, tokens or time.
    #[serde(rename = "task.paused")]
    TaskPaused(Halt),
    /// The task reached a cap and stands still.
    #[serde(rename = "budget.paused")]
    BudgetPaused(Halt),
    /// The plan as the model last gave it.
    #[serde(rename = "plan.updated")]
    PlanUpdated(PlanUpdated),
    /// An item is about to happen.
    #[serde(rename = "item.started")]
    ItemStarted(Box<ItemStarted>),
    /// Progress of an item; not recorded.
    #[serde(rename = "item.updated")]
    ItemUpdated(ItemUpdated),
    /// An item's outcome.
    #[serde(rename = "item.completed")]
    ItemCompleted(Box<ItemCompleted>),
    /// A person is asked.
    #[serde(rename = "approval.requested")]
    ApprovalRequested(ApprovalRequested),
    /// A person answered.
    #[serde(rename = "approval.resolved")]
    ApprovalResolved(ApprovalResolved),
    /// A person allowed more than one deed.
    #[serde(rename = "approval.granted")]
    ApprovalGranted(Granted),
    /// An operation that can be undone.
    #[serde(rename = "operation")]
    Operation(Operation),
    /// The task ended. Always the last event of a run.
    #[serde(rename = "result")]
    Result(Box<ResultBody>),
}

/// Limits; an absent one does not bind.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Caps {
    /// Money in millionths of a US dollar.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Model calls.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u32>,
    /// Tokens in and out together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Working time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// CPU time of all commands together, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu_ms: Option<u64>,
    /// Bytes by which worktree and private directories may grow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_bytes: Option<u64>,
    /// Processes and threads of a command at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processes: Option<u64>,
    /// Memory of a command at once, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_bytes: Option<u64>,
}

/// A task was accepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskStarted {
    /// The user's words.
    pub goal: String,
    /// Directory in which it was given.
    pub cwd: String,
    /// `provider/model`.
    pub model: String,
    /// Its limits.
    pub caps: Caps,
    /// The verification command, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// The revision to start from, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Whether nobody can be asked while it runs.
    pub no_input: bool,
    /// That nobody is asked for approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<YoloView>,
}

/// That nobody is asked for approvals.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct YoloView {
    /// User id of who said so.
    pub owner: u32,
    /// Why.
    pub reason: String,
    /// `command line`, or the configuration file.
    pub source: String,
    /// Until when, RFC 3339.
    pub until: String,
}

/// Why a task stands still.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Halt {
    /// `user`, `budget`, `person`, `key`, `disk`, `provider`, `later`.
    pub why: String,
    /// Details for people.
    pub text: String,
    /// When it goes on by itself, RFC 3339; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
}

/// The plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanUpdated {
    /// The item that gave it.
    pub item: u32,
    /// Its steps in order.
    pub steps: Vec<PlanStep>,
}

/// One step of a plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStep {
    /// What.
    pub text: String,
    /// `pending`, `active`, `done`.
    pub status: String,
}

/// What an item is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ItemKind {
    /// Words of the model or the user.
    Message,
    /// A shell command.
    Command,
    /// An edit of files.
    FileChange,
    /// Another tool.
    ToolCall,
    /// The workspace is made.
    Workspace,
    /// The verification command.
    Verification,
    /// A micro-commit.
    Commit,
    /// Undo, land and the like.
    Operation,
}

/// An item is about to happen.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemStarted {
    /// Its number within the task; the completed item has the same.
    pub item: u32,
    /// What it is.
    pub kind: ItemKind,
    /// One line for people.
    pub title: String,
    /// The model call that it belongs to, counted from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<u32>,
    /// The tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The tool's arguments: JSON text as the model wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub args: Option<String>,
    /// The command, where it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// Whether nobody would have been asked for it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub yolo: bool,
}

/// Progress of an item.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemUpdated {
    /// The item.
    pub item: u32,
    /// What kind of progress.
    pub delta: Delta,
    /// The new piece of text, or why the provider is asked again.
    pub text: String,
    /// For `retrying`: how long the wait is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// Kinds of progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Delta {
    /// A piece of the answer.
    Text,
    /// A piece of the reasoning.
    Reasoning,
    /// A piece of a command's output.
    Output,
    /// The provider is asked again; text so far is void.
    Retrying,
}

/// A tool that the model asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ToolUse {
    /// The provider's id of the call.
    pub id: String,
    /// The tool.
    pub tool: String,
    /// Its arguments: JSON text as the model wrote it.
    pub args: String,
}

/// Tokens.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Input tokens, cache reads included.
    pub input_tokens: u64,
    /// Of those, read from cache.
    pub cached_tokens: u64,
    /// Output tokens.
    pub output_tokens: u64,
}

/// An item's outcome.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ItemCompleted {
    /// Its number within the task; absent for words of the user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// What it is.
    pub kind: ItemKind,
    /// `done`, `failed`, `exited`, `signalled`, `running`, `lost`, `denied`.
    pub status: String,
    /// Whether it went well.
    pub ok: bool,
    /// One line for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub summary: String,
    /// The message, or what the model reads of the outcome.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Who wrote a message: `model` or `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<String>,
    /// The model's reasoning, where the provider shows it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reasoning: String,
    /// Tools that the model asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<ToolUse>,
    /// The model that answered, as its provider names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tokens of a message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usage: Option<Usage>,
    /// Cost of a message in millionths of a US dollar; absent where the price is unknown.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_micros: Option<u64>,
    /// Failed tries before the answer.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u32,
    /// The tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The command's exit code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Wall time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wall_ms: Option<u64>,
    /// Sandbox level of a command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// Network of a command: `none`, `proxy`, `host`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Its connections through the proxy that have ended, those alike as one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Connection>,
    /// Files that it changed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub files: Vec<FileChange>,
    /// The whole output where `text` was cut: read it under `/v1/blobs/`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub full: Option<String>,
    /// The commit that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// Notes for people.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// The error's code, where it failed for good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Why a person would have been asked, where nobody was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waived: Option<String>,
}

/// Connections of a command that differ in nothing but size and time.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Connection {
    /// When the first began, milliseconds since 1970.
    pub at_ms: u64,
    /// How it was asked for: `http`, `connect`, `socks`; `more` for those that are not told one by one.
    pub scheme: String,
    /// The host as it was asked for.
    pub host: String,
    /// The port; 0 where none could be read.
    pub port: u32,
    /// The address that was dialled; empty when none was.
    pub address: String,
    /// Whether it was allowed.
    pub allowed: bool,
    /// The rule, or why it was refused or failed.
    pub why: String,
    /// Requests by method, as `GET 3`, where they could be read.
    pub methods: Vec<String>,
    /// Bytes from the command.
    pub up_bytes: u64,
    /// Bytes to the command.
    pub down_bytes: u64,
    /// How long they were open, all together, milliseconds.
    pub open_ms: u64,
    /// How many.
    pub count: u32,
}

/// One changed file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct FileChange {
    /// Path in the tree.
    pub path: String,
    /// `added`, `changed`, `deleted`.
    pub kind: String,
    /// Lines added.
    pub plus: u32,
    /// Lines removed.
    pub minus: u32,
}

/// A person is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalRequested {
    /// Number within the task, from 1.
    pub id: u32,
    /// The item that waits.
    pub item: u32,
    /// `approval`, `answer`, `unknown`.
    pub kind: String,
    /// One line: what and why.
    pub title: String,
    /// Exactly what would happen.
    pub body: String,
    /// Answers to choose from.
    pub options: Vec<String>,
    /// SHA-256 of what is approved, hexadecimal.
    pub digest: String,
    /// Equal for equal questions of all tasks.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub like: String,
    /// Unanswered, or approved and not used, it is void from this time on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// What else an approval is bound to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub facts: Vec<Fact>,
    /// The rules that want a person asked.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<String>,
    /// What may be allowed beyond this one time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub offer: Option<Offer>,
    /// What in title, body and options may mislead whoever reads them: characters that act on a terminal,
    /// change the direction of text or show nothing, and letters that look like others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub marks: Vec<String>,
}

/// A name and a value that an approval is bound to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Fact {
    /// The name.
    pub name: String,
    /// The value.
    pub value: String,
}

/// What may be allowed beyond one time: commands that begin like this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Offer {
    /// Its name.
    pub id: String,
    /// The first words.
    pub argv: Vec<String>,
    /// Options that may follow; others must not.
    pub options: Vec<String>,
    /// The command that it was made for.
    pub example: String,
    /// For project and user it holds until then.
    pub expires: String,
}

/// A person answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalResolved {
    /// Which question.
    pub id: u32,
    /// Approved, or answered.
    pub approved: bool,
    /// The text given with it.
    pub text: String,
    /// Why it ended without a person's word: `expired`, `replaced`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lapsed: Option<String>,
    /// How far the approval reaches, beyond one time: `task`, `project`, `user`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// A person allowed more than one deed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Granted {
    /// What.
    #[serde(flatten)]
    pub offer: Offer,
    /// `task`, `project`, `user`.
    pub scope: String,
    /// The question that was answered with it.
    pub approval: u32,
}

/// An operation that can be undone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Operation {
    /// `tool`, `undo`, `redo`, `restore`, `land`, `unland`.
    pub kind: String,
    /// The item that it was.
    pub item: u32,
    /// One line for people.
    pub summary: String,
    /// Files that it changed.
    pub files: Vec<FileChange>,
    /// The commit that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// For `undo` and `redo`: the operations taken or brought back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<u32>,
    /// For `land`: the reference that moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultBody {
    /// `verified`, `unverified`, `gate-failed`, `failed`, `cancelled`; `paused` where a run ended
    /// without its task.
    pub status: String,
    /// Exit code of the command line.
    pub exit_code: u8,
    /// The model's last words, or the reason.
    pub text: String,
    /// Money spent in millionths of a US dollar; null where a price is unknown.
    pub cost_micros: Option<u64>,
    /// Tokens used.
    pub usage: Usage,
    /// All files that differ from the base.
    pub files_changed: Vec<FileChange>,
    /// Number of micro-commits.
    pub commits: u32,
    /// Connections of commands in the background that no call has told.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub connections: Vec<Connection>,
    /// What `tinkerbell undo` takes; null where nothing changed.
    pub undo_token: Option<String>,
    /// What went wrong; present exactly when `exit_code` is not 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ResultError>,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ResultError {
    /// The error code, for `tinkerbell explain`; absent where the outcome is no fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What failed.
    pub message: String,
    /// What to do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
}

// serde's `skip_serializing_if` passes a reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}
