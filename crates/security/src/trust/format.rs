//! Version 1 of the file that says which repositories' own files were approved.
//!
//! TOML, so that a person can read it. Fields may be added, never renamed. Invariant:
//! `tests/golden/v1/trust.toml` stays readable for ever.

use serde::{Deserialize, Serialize};

/// The newest version that this release reads.
pub const VERSION: u32 = 1;

/// The whole file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// Version of this form.
    pub version: u32,
    /// What was approved, oldest first.
    #[serde(default)]
    pub approved: Vec<Approved>,
}

/// One approval.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approved {
    /// The repository's main worktree, links followed.
    pub repository: String,
    /// SHA-256 over names and contents, hexadecimal.
    pub digest: String,
    /// The files, for people.
    pub files: Vec<String>,
    /// When, wall time in milliseconds since the epoch.
    pub at_ms: u64,
}
