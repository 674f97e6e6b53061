//! What can go wrong with a server.
//!
//! To the model each is a failed call; to the operator a fault with a code. Invariant: the text says
//! whose fault it is and what to do, and holds no more than a little of what the server said.

use tinkerbell_core::code::{Fault, exit};

/// Failures of a server, or of what we keep of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such server is configured.
    #[error("there is no MCP server `{name}`; {known}")]
    Unknown {
        /// The name.
        name: String,
        /// Which there are.
        known: String,
    },
    /// It can not be used as it is configured.
    #[error("MCP server `{name}` can not be used: {why}")]
    Configured {
        /// The server.
        name: String,
        /// Why.
        why: String,
    },
    /// It could not be started, or ended.
    #[error("MCP server `{name}` does not run: {why}")]
    Ended {
        /// The server.
        name: String,
        /// Why, with the end of its standard error.
        why: String,
    },
    /// It broke the protocol or a limit.
    #[error("MCP server `{name}` was ended: {why}")]
    Broke {
        /// The server.
        name: String,
        /// What it did.
        why: String,
    },
    /// It gave no answer in time.
    #[error("MCP server `{name}` gave no answer within {seconds} s and was ended")]
    Late {
        /// The server.
        name: String,
        /// The limit.
        seconds: u64,
    },
    /// It answered with an error.
    #[error("MCP server `{name}` refused: {why}")]
    Refused {
        /// The server.
        name: String,
        /// Its words.
        why: String,
    },
    /// Our own files can not be used.
    #[error("what was agreed to about MCP servers can not be kept at {path}: {why}")]
    Files {
        /// Where.
        path: String,
        /// Why.
        why: String,
    },
    /// The sandbox or the keeper failed.
    #[error("{0}")]
    House(String),
}

impl Error {
    /// A file error with its place.
    pub(crate) fn files(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.display().to_string();
        move |error| Self::Files { path, why: error.to_string() }
    }

    /// The stable code; each has a page.
    #[must_use]
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown { .. } => "TB-MCP-001",
            Self::Configured { .. } => "TB-MCP-002",
            Self::Ended { .. } | Self::Broke { .. } | Self::Late { .. } | Self::Refused { .. } | Self::House(_) => "TB-MCP-003",
            Self::Files { .. } => "TB-MCP-004",
        }
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        let exit = match &error {
            Error::Unknown { .. } => exit::USAGE,
            Error::Configured { .. } => exit::CONFIG,
            Error::Files { .. } => exit::INTERNAL,
            _ => exit::UNAVAILABLE,
        };
        let fault = Self::new(error.code(), exit, error.to_string());
        match error {
            Error::Unknown { .. } => fault.hint("tinkerbell mcp list   shows those that are configured"),
            Error::Configured { .. } => fault.hint("tinkerbell config show --origin   names the file and line"),
            Error::Files { .. } => fault.hint("make the directory writable and yours"),
            _ => fault.hint("tinkerbell mcp tools NAME   starts it in its sandbox and shows what it says"),
        }
    }
}
