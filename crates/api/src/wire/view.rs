//! Views: what the resources answer.
//!
//! Snapshots of a fold at one moment. Invariant: ids are whole; `short` is for people only.

use super::event::{ApprovalRequested, Caps, FileChange, PlanStep, ResultBody, Usage, YoloView};
use super::service::UpgradeView;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The answer to a submission.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Submitted {
    /// The task's whole id.
    pub task: String,
    /// Its shortest unique prefix of at least six digits.
    pub short: String,
    /// Where the submission stands in the log.
    pub lsn: u64,
}

/// A task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskView {
    /// Whole id.
    pub id: String,
    /// Shortest unique prefix of at least six digits.
    pub short: String,
    /// `queued`, `running`, `paused`, `needs-you`, `over-budget`, `needs-key`, `scheduled`,
    /// `halted`, `finished`.
    pub status: String,
    /// Whether it still has work to do.
    pub open: bool,
    /// The user's words.
    pub goal: String,
    /// `provider/model`.
    pub model: String,
    /// The model that answered last, as its provider names it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub served: String,
    /// Directory in which it was given.
    pub cwd: String,
    /// RFC 3339.
    pub created: String,
    /// RFC 3339.
    pub updated: String,
    /// Time in milliseconds since it was created, up to its newest event.
    pub age_ms: u64,
    /// Model calls made.
    pub steps: u32,
    /// Tokens used.
    pub usage: Usage,
    /// Money spent in millionths of a US dollar; null where a price is unknown.
    pub cost_micros: Option<u64>,
    /// CPU time that commands have used, in milliseconds.
    #[serde(default)]
    pub cpu_ms: u64,
    /// Bytes by which worktree and private directories have grown.
    #[serde(default)]
    pub disk_bytes: u64,
    /// Limits in force.
    pub caps: Caps,
    /// Whether nobody can be asked.
    pub no_input: bool,
    /// That nobody is asked for approvals, while that holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<YoloView>,
    /// `interactive`, `normal`, `batch` or `maintenance`.
    #[serde(default)]
    pub priority: String,
    /// Why it stands still.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<PausedView>,
    /// The question that waits, oldest first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waiting: Option<ApprovalRequested>,
    /// The plan.
    pub plan: Vec<PlanStep>,
    /// Operations, oldest first.
    pub ops: Vec<OpView>,
    /// Number of micro-commits.
    pub commits: u32,
    /// The user's repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repo: Option<String>,
    /// The task's own tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workspace: Option<String>,
    /// The task's branch, short.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub branch: Option<String>,
    /// The commit it starts on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Sandbox level of its commands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The verification command in force.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// Where that command came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify_origin: Option<String>,
    /// Things the user should know.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// How it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<ResultBody>,
    /// Its newest record.
    pub lsn: u64,
}

/// Why a task stands still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PausedView {
    /// `user`, `budget`, `person`, `key`, `disk`, `provider`, `later`.
    pub why: String,
    /// Details.
    pub text: String,
    /// When it goes on by itself, RFC 3339; absent where it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// How long that is from now, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<u64>,
}

/// An operation in a task's log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct OpView {
    /// Its number, for `restore`.
    pub number: u32,
    /// Whether it is in force (not undone).
    pub in_force: bool,
    /// RFC 3339.
    pub time: String,
    /// Where it stands in the log.
    pub lsn: u64,
    /// `tool`, `undo`, `redo`, `restore`, `land`, `unland`.
    pub kind: String,
    /// One line for people.
    pub summary: String,
    /// Files that it changed.
    pub files: Vec<FileChange>,
    /// The commit that it made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub commit: Option<String>,
    /// The operations that it took or brought back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<u32>,
}

/// A page of tasks.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TaskList {
    /// Newest activity first; each with its newest operations only.
    pub tasks: Vec<TaskView>,
    /// Where the next page begins, for `before`; absent on the last page.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<u64>,
    /// Tasks that are not removed.
    #[serde(default)]
    pub total: u64,
    /// Of those, tasks with work to do.
    #[serde(default)]
    pub open: u64,
}

/// An open question of some task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ApprovalView {
    /// The task's whole id.
    pub task: String,
    /// Its short id.
    pub short: String,
    /// The task's goal.
    pub goal: String,
    /// When it was asked, RFC 3339.
    pub time: String,
    /// The repository in which the task works; empty before it has begun.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub repository: String,
    /// The question.
    pub question: ApprovalRequested,
}

/// What a command to a task gave.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Said {
    /// One line for people.
    pub text: String,
}

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DiffView {
    /// Changed files.
    pub files: Vec<FileChange>,
    /// Unified diff.
    pub text: String,
}

/// The daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct DaemonView {
    /// Process id.
    pub pid: u32,
    /// Release.
    pub version: String,
    /// Time since it became ready, in milliseconds.
    pub uptime_ms: u64,
    /// Tasks that are not removed.
    pub tasks: u64,
    /// Of those, tasks with work to do.
    pub open_tasks: u64,
    /// Connections of clients.
    pub clients: u64,
    /// Newest record in the log.
    pub lsn: u64,
    /// Tasks that are not removed, by their status.
    #[serde(default)]
    pub states: BTreeMap<String, u64>,
    /// Records on their way to the disk.
    #[serde(default)]
    pub lag: u64,
    /// How often the log was opened.
    #[serde(default)]
    pub epoch: u64,
    /// Bytes of the log.
    #[serde(default)]
    pub journal_bytes: u64,
    /// What the log can take: `ample`, `reserve`, or `read-only: ` and why.
    #[serde(default)]
    pub room: String,
    /// Commands that run under keepers.
    #[serde(default)]
    pub keepers: u64,
    /// Memory of the process that lies in RAM, in bytes; 0 when unknown.
    #[serde(default)]
    pub rss_bytes: u64,
    /// What a person should know, one line each.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notices: Vec<String>,
    /// Keys of the configuration whose new values wait for a restart.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub pending: Vec<String>,
    /// The upgrade under way, or the one that this process came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upgrade: Option<UpgradeView>,
    /// Sandbox level of commands, once known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub level: Option<String>,
    /// The data directory.
    pub data_dir: String,
    /// Settings that it was started with, `key=value`, over those of its files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub set: Vec<String>,
}

/// Release of the daemon and version of the interface.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VersionView {
    /// Release.
    pub version: String,
    /// Version of the public JSON.
    pub wire: u32,
}
