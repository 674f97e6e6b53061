//! A server as the rest of the crate uses it: checked, with its times read.
//!
//! Pure. Invariant: a server's name has no dot, so that `server.tool` is read in one way only.

use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tinkerbell_core::port::Service;

/// Most signs of a server's name.
pub const MOST_NAME: usize = 40;

/// One server.
#[derive(Clone, PartialEq, Eq)]
pub struct Server {
    /// The operator's name for it.
    pub name: String,
    /// Program and arguments.
    pub command: Vec<String>,
    /// Variables, values included.
    pub env: Vec<(String, String)>,
    /// The host's network or none; `None` for what commands get.
    pub network: Option<bool>,
    /// Whether it sees the worktree.
    pub reads: bool,
    /// Whether it may write the worktree.
    pub writes: bool,
    /// Further paths that it may read.
    pub read: Vec<PathBuf>,
    /// The tools that are offered; all when `None`.
    pub tools: Option<BTreeSet<String>>,
    /// Tools that change nothing, by the operator's word.
    pub read_only: BTreeSet<String>,
    /// Longest time for one answer.
    pub timeout: Duration,
    /// Why it can not be used as it is configured.
    pub fault: Option<String>,
}

/// Values of variables may be secret, and stay out of every text.
impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("command", &self.command)
            .field("fault", &self.fault)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Why a name can not be a server's; `None` when it can.
    #[must_use]
    pub fn refuse_name(name: &str) -> Option<String> {
        let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        let fits = !name.is_empty() && name.len() <= MOST_NAME && name.bytes().all(is_sign);
        (!fits).then(|| format!("`{name}` is no name for a server: 1 to {MOST_NAME} letters, digits, `-` and `_`"))
    }

    /// Whether a tool of the server is offered at all.
    #[must_use]
    pub fn offers(&self, tool: &str) -> bool {
        self.tools.as_ref().is_none_or(|tools| tools.contains(tool))
    }

    /// What the sandbox is told, with the program as it was found.
    #[must_use]
    pub fn service(&self, argv: Vec<String>, files: Vec<PathBuf>) -> Service {
        Service {
            name: self.name.clone(),
            argv,
            reads: self.reads,
            writes: self.writes,
            network: self.network,
            read: self.read.iter().cloned().chain(files).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_leave_no_room_for_doubt() {
        for name in ["files", "a", "My-Server_2"] {
            assert_eq!(Server::refuse_name(name), None, "{name}");
        }
        for name in ["", "a.b", "a b", "../x", "fіles", &"x".repeat(41)] {
            assert!(Server::refuse_name(name).is_some(), "{name}");
        }
    }
}
