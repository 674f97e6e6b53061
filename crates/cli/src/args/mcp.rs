//! Words about MCP servers.
//!
//! Only the grammar. Invariant: what widens a server's rights is an option of its own, off by default.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};

/// Commands about MCP servers.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum McpCommand {
    /// Add a server to your configuration, or replace it
    Add(Box<McpAdd>),
    /// List the servers, and what was agreed to
    #[command(visible_alias = "ls")]
    List {
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show one server
    Get {
        /// The server
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Remove a server from your configuration, and what was agreed to
    #[command(visible_alias = "rm")]
    Remove {
        /// The server
        name: String,
    },
    /// Start a server in its sandbox and show what it offers
    Tools {
        /// The server
        name: String,
        /// As JSON
        #[arg(long)]
        json: bool,
    },
    /// Show what a server is and says, and agree to it; `--yes` agrees without asking
    Approve {
        /// The server
        name: String,
    },
}

/// A server to add.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct McpAdd {
    /// Your name for it: letters, digits, `-`, `_`
    pub name: String,
    /// Program and arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
    /// A variable that it gets
    #[arg(short, long, value_name = "NAME=VALUE", value_parser = variable)]
    pub env: Vec<(String, String)>,
    /// Its network
    #[arg(long, value_parser = PossibleValuesParser::new(["inherit", "none", "host"]))]
    pub network: Option<String>,
    /// Let it not see the worktree
    #[arg(long, conflicts_with = "writes")]
    pub no_reads: bool,
    /// Let it write the worktree
    #[arg(long)]
    pub writes: bool,
    /// A further path that it may read
    #[arg(long, value_name = "PATH")]
    pub read: Vec<String>,
    /// Offer only these tools
    #[arg(long, value_delimiter = ',', value_name = "TOOL")]
    pub tools: Vec<String>,
    /// Tools that change nothing, by your word; called without asking
    #[arg(long, value_delimiter = ',', value_name = "TOOL")]
    pub read_only: Vec<String>,
    /// Longest time for one answer, e.g. `60s`
    #[arg(long, value_name = "DURATION")]
    pub timeout: Option<String>,
}

fn variable(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it like NAME=VALUE")?;
    let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if is_name { Ok((name.to_owned(), value.to_owned())) } else { Err(format!("`{name}` is no name of a variable")) }
}
