//! The self-test's result: what the attacking stage prints, and what the cache keeps.
//!
//! Version 2; a cache of another version is ignored. Invariant: no key, no belief.

use serde::{Deserialize, Serialize};

/// Version of the cache file.
pub const VERSION: u16 = 2;

/// One attack or one permitted act.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What was tried.
    pub name: String,
    /// Whether the sandbox behaved.
    pub passed: bool,
    /// What happened.
    pub text: String,
}

/// Both levels' checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Format version.
    pub version: u16,
    /// Kernel release, boot id, user, binary, network: what the result holds for.
    pub key: String,
    /// Level `full`.
    pub full: Vec<Check>,
    /// Level `landlock`.
    pub landlock: Vec<Check>,
    /// Level `full` with a layer over the workspace.
    pub overlay: Vec<Check>,
}

/// What the attacking stage is told, on its argument list: no secrets in it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Targets {
    /// Whether it runs at level `full`.
    pub is_full: bool,
    /// The layer over the workspace, if there is one.
    pub layer: Option<std::path::PathBuf>,
    /// The workspace.
    pub tree: std::path::PathBuf,
    /// The private home, as the command sees it.
    pub home: std::path::PathBuf,
    /// The temporary directory, as the command sees it.
    pub tmp: std::path::PathBuf,
    /// A directory outside it with a file `canary`.
    pub outside: std::path::PathBuf,
    /// Files that must not be readable.
    pub secrets: Vec<std::path::PathBuf>,
    /// A listening TCP port on the host's loopback; 0 where the host's network is granted.
    pub port: u16,
    /// A listening socket with an abstract name.
    pub abstract_name: String,
    /// A process outside, as the host numbers it.
    pub victim: i32,
}
