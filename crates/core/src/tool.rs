//! What a tool is to the model and to the loop: a name, a schema, a call, an outcome.
//!
//! Adapters live elsewhere. Invariant: a tool's failure is an observation for the model, never an
//! error of the task; only a fault of our own house is an error.

use crate::approval::Approved;
use crate::effect::{EffectClass, Fence};
use crate::event::Connection;
use crate::port::{Limits, Used};
use crate::words::{BlobRef, Seq, TaskId, Workspace};
use bytes::Bytes;
use std::fmt;
use std::sync::Arc;

/// A tool as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolSpec {
    /// Stable name, e.g. `exec`.
    pub name: &'static str,
    /// What it does and when to use it; part of the byte-stable prompt prefix.
    pub description: &'static str,
    /// JSON Schema of the arguments as compact JSON text; unknown keys are refused by it.
    pub schema: &'static str,
}

/// One call that a model asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolCall {
    /// The id by which the provider pairs call and result.
    pub id: String,
    /// The tool's name as the model wrote it; it may name no tool at all.
    pub name: String,
    /// The arguments as JSON text, as the model wrote them; they may be malformed.
    pub args: String,
}

/// Shows pieces of output while a call runs; nothing of it is recorded.
#[derive(Clone)]
pub struct Sink(Arc<dyn Fn(&str) + Send + Sync>);

impl Sink {
    /// A sink that hands each piece, whole lines of text, to `show`.
    pub fn new(show: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self(Arc::new(show))
    }

    /// Shows a piece.
    pub fn show(&self, piece: &str) {
        (self.0)(piece);
    }
}

impl Default for Sink {
    /// A sink that shows nothing.
    fn default() -> Self {
        Self::new(|_| {})
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sink")
    }
}

/// What a tool is told beside its arguments.
#[derive(Debug, Clone)]
pub struct ToolContext {
    /// The task.
    pub task: TaskId,
    /// The effect's number; names the keeper of a command.
    pub seq: Seq,
    /// Where the task works.
    pub workspace: Workspace,
    /// Who may act: refused by keepers when older than what they have seen.
    pub fence: Fence,
    /// First try, or recovery of an effect whose outcome was not recorded.
    pub attempt: crate::effect::Attempt,
    /// Most tokens of output that the model may be shown.
    pub max_output_tokens: u32,
    /// Environment for commands, newest values of the request (PATH, locale); never secrets.
    pub env: Vec<(String, String)>,
    /// Where output is shown while the call runs.
    pub live: Sink,
    /// What a command may use.
    pub limits: Limits,
    /// The approval under which the call runs, where it needed one.
    pub approved: Option<Approved>,
}

/// How a call ended, in the words that the loop guard and the doors use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolStatus {
    /// It did what was asked.
    Done,
    /// It refused or failed, and changed nothing.
    Failed,
    /// A command ended with this exit code.
    Exited(i32),
    /// A command was ended by this signal.
    Signalled(i32),
    /// A command runs on as unit `u<seq>`.
    Running,
    /// A command's outcome can not be known (its keeper is gone); a person or the class decides.
    Lost,
}

impl ToolStatus {
    /// Whether the model should read this as success.
    #[must_use]
    pub const fn is_ok(&self) -> bool {
        matches!(self, Self::Done | Self::Exited(0) | Self::Running)
    }
}

/// What a call gave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolOutcome {
    /// How it ended.
    pub status: ToolStatus,
    /// What the model reads; already cut to the token cap.
    pub text: String,
    /// The whole output where `text` was cut.
    pub full: Option<Bytes>,
    /// One line for people: `exec cargo test → exit 0 in 3.2 s`.
    pub summary: String,
    /// Wall time in milliseconds.
    pub wall_ms: u64,
    /// The sandbox level a command ran at, by name.
    pub level: Option<String>,
    /// What a command that ended used.
    pub used: Used,
    /// The limit that ended it: `memory`, `processes`, `cpu`, `disk`, `deadline`; empty otherwise.
    pub cause: String,
    /// What a command did on the network.
    pub traffic: Traffic,
    /// What a file tool made of files.
    pub wrote: Vec<Wrote>,
}

/// A file as a file tool left it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wrote {
    /// Path from the tree's root.
    pub path: String,
    /// BLAKE3 of what it replaced, hexadecimal; `None` where there was no file.
    pub before: Option<String>,
    /// BLAKE3 of the content, hexadecimal; `None` where the file was removed.
    pub content: Option<String>,
}

/// What a command did on the network.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Traffic {
    /// The network it had: `none`, `proxy`, `host`; empty where it is not known.
    pub network: String,
    /// Connections that ended, those alike as one; cut to a bounded number.
    pub connections: Vec<Connection>,
}

impl ToolOutcome {
    /// A call that did what was asked.
    #[must_use]
    pub fn done(summary: impl Into<String>, text: impl Into<String>) -> Self {
        let (text, summary, used, traffic) = (text.into(), summary.into(), Used::default(), Traffic::default());
        let (wall_ms, cause, wrote) = (0, String::new(), Vec::new());
        Self { status: ToolStatus::Done, text, full: None, summary, wall_ms, level: None, used, cause, traffic, wrote }
    }

    /// A call that changed nothing, with the text that tells the model its next move.
    #[must_use]
    pub fn failed(summary: impl Into<String>, text: impl Into<String>) -> Self {
        Self { status: ToolStatus::Failed, ..Self::done(summary, text) }
    }
}

/// What the guard must know of a call before it may run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolPlan {
    /// How recovery treats the call.
    pub class: EffectClass,
    /// Workspace paths that a file tool would write, relative, `/`-separated.
    pub writes: Vec<String>,
    /// Tracked files that it would delete.
    pub deletes: u32,
    /// The command text, for tools that run one.
    pub command: Option<String>,
    /// The server and its tool, for calls of an MCP server.
    pub mcp: Option<McpCall>,
}

/// A call of a tool that an MCP server offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct McpCall {
    /// The server, by the operator's name for it; without a dot.
    pub server: String,
    /// The tool, by the server's name for it.
    pub tool: String,
    /// Whether the operator says that it changes nothing; never the server's own word.
    pub read_only: bool,
}

impl McpCall {
    /// The name by which policy and people know it. Built-in tools have no dot in theirs, so neither
    /// can stand for the other.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}.{}", self.server, self.tool)
    }
}

/// What a person must have agreed to before a call is made, beside the guard's rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consent {
    /// One line: what and why.
    pub title: String,
    /// All that is agreed to, shown whole.
    pub body: String,
    /// SHA-256 over its canonical bytes, hexadecimal.
    pub digest: String,
    /// Whether the call has something to go on with when the answer is no.
    pub optional: bool,
}

/// A reference by which a cut output can be read again.
#[must_use]
pub fn output_name(blob: &BlobRef) -> String {
    format!("blob:{blob}")
}
