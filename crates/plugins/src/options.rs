//! `[mcp_servers.NAME]` of the configuration, as types.
//!
//! Only shapes; the roof reads the file and makes a [`crate::Server`] of it. Invariant: every right
//! that a server gets stands here, in the operator's own words, and is off unless it is named.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// One server. User configuration only.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct McpServer {
    /// Program and arguments; the program is a whole path or a name that PATH finds.
    pub command: Vec<String>,
    /// Variables that the server gets beside those of commands.
    pub env: BTreeMap<String, String>,
    /// Its network: `inherit` what commands get, `none`, or `host`.
    pub network: Network,
    /// Whether it sees the task's worktree; true when left out.
    pub reads: Option<bool>,
    /// Whether it may write the task's worktree.
    pub writes: bool,
    /// Further files and directories that it may read.
    pub read: Vec<PathBuf>,
    /// The tools that are offered; all when left out.
    pub tools: Option<Vec<String>>,
    /// Tools that change nothing, by your word; they are called without asking.
    pub read_only: Vec<String>,
    /// Longest time for one answer, e.g. `60s`.
    pub timeout: Option<String>,
    /// Whether it is used; true when left out.
    pub enabled: Option<bool>,
}

/// The network of a server.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Network {
    /// What commands get.
    #[default]
    Inherit,
    /// None.
    None,
    /// The host's; level `full` only.
    Host,
}
