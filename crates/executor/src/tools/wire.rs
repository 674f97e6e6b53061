//! Arguments of the command tools as a model writes them.
//!
//! Unknown keys are refused by name, because a misspelt key that is ignored misleads the model.
//! Invariant: scripts and replays stand on these names.

use serde::Deserialize;

/// Arguments of `exec`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// Text for `/bin/sh -c`.
    pub cmd: String,
    /// Relative to the workspace's root.
    pub workdir: Option<String>,
    /// Yield after this long.
    pub yield_ms: Option<u64>,
    /// Cut the output to this.
    pub max_output_tokens: Option<u32>,
    /// For people.
    pub why: Option<String>,
}

/// Arguments of `exec_send`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Send {
    /// `u7`.
    pub unit: String,
    /// Text to write.
    pub stdin: Option<String>,
    /// Signal name or number.
    pub signal: Option<Signal>,
}

/// A signal by name or number.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Signal {
    /// `15`.
    Number(i32),
    /// `TERM` or `SIGTERM`.
    Name(String),
}

/// Arguments of `exec_wait`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wait {
    /// `u7`.
    pub unit: String,
    /// Return once a new line contains this.
    pub until_line: Option<String>,
    /// Return after this long.
    pub timeout_ms: Option<u64>,
}
