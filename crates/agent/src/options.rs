//! Options of the agent, as values: the roof reads files and hands these in.
//!
//! Nothing here reads a file or an environment. Invariant: a project's own file can name a check
//! and nothing else, because a repository must not be able to widen what it is allowed.

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::code::Fault;

/// What a project's own file may say.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Project {
    /// `[verify] command`.
    pub verify: Option<String>,
}

/// Reads a project's own file below the task's tree; the roof parses it and refuses what it may not hold.
pub type ReadProject = Arc<dyn Fn(&Path) -> Result<Project, Fault> + Send + Sync>;

/// What can be set.
#[derive(Clone)]
pub struct Options {
    /// `[verify] command` of the user's configuration.
    pub verify: Option<String>,
    /// Reads the project's own file.
    pub project: ReadProject,
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
}

impl Default for Options {
    fn default() -> Self {
        Self {
            verify: None,
            project: Arc::new(|_| Ok(Project::default())),
            stall: Duration::from_secs(120),
            max_output_tokens: 16_384,
            result_tokens: 10_000,
            verify_deadline: Duration::from_secs(20 * 60),
            servers: false,
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
            .finish_non_exhaustive()
    }
}
