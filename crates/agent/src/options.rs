//! Options of the agent, as values: the roof reads files and hands these in.
//!
//! Nothing here reads a file or an environment. Invariant: a project's own file can name a check
//! and nothing else, and that only while its bytes are trusted, because a repository must not be able to
//! widen what it is allowed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::code::Fault;

/// What a project's own file may say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// `[verify] command`, where it is trusted.
    pub verify: Option<String>,
    /// The digest under which what it brings is trusted; empty where nothing of it counts.
    pub trust: String,
    /// What does not count, and why, for people.
    pub notes: Vec<String>,
}

/// Reads a project's own files below the task's tree, for the user's repository; the roof parses them,
/// refuses what they may not hold, and leaves out what nobody trusts.
pub type ReadProject = Arc<dyn Fn(&Path, &Path) -> Result<Project, Fault> + Send + Sync>;
/// Whether what was trusted for a repository under this digest still is.
pub type IsTrusted = Arc<dyn Fn(&Path, &str) -> bool + Send + Sync>;

/// What can be set.
#[derive(Clone)]
pub struct Options {
    /// `[verify] command` of the user's configuration.
    pub verify: Option<String>,
    /// Reads the project's own files.
    pub project: ReadProject,
    /// Looks again whether they are trusted.
    pub is_trusted: IsTrusted,
    /// A model that makes no progress for this long has its try ended.
    pub stall: Duration,
    /// Most tokens of one answer, where the model's card allows them.
    pub max_output_tokens: u64,
    /// Most tokens of one result, where the model's window allows them.
    pub result_tokens: u32,
    /// A verification run is ended after this long.
    pub verify_deadline: Duration,
    /// Whether a task that begins now is offered the tools of MCP servers.
    pub servers: bool,
    /// A question that waits longer, in milliseconds, counts as denied; `None` for a day.
    pub question_lasts_ms: Option<u64>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            verify: None,
            project: Arc::new(|_, _| Ok(Project::default())),
            is_trusted: Arc::new(|_, _| true),
            stall: Duration::from_secs(120),
            max_output_tokens: 16_384,
            result_tokens: 10_000,
            verify_deadline: Duration::from_secs(20 * 60),
            servers: false,
            question_lasts_ms: None,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("verify", &self.verify)
            .field("stall", &self.stall)
            .field("max_output_tokens", &self.max_output_tokens)
            .field("result_tokens", &self.result_tokens)
            .field("verify_deadline", &self.verify_deadline)
            .field("servers", &self.servers)
            .field("question_lasts_ms", &self.question_lasts_ms)
            .finish_non_exhaustive()
    }
}
