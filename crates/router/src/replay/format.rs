//! Version 1 of recorded turns: one JSON object per line.
//!
//! Shape only. Invariant: a recording that one version plays is played by every later one.

use serde::Deserialize;
use serde_json::{Map, Value};

/// One answer of a model.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// Words.
    pub text: String,
    /// Reasoning.
    pub reasoning: String,
    /// Tool calls, in order.
    pub calls: Vec<Call>,
    /// Tokens; estimated when absent.
    pub usage: Option<Tokens>,
    /// The model whose price it would have cost, `provider/model`.
    pub priced_as: Option<String>,
    /// How long the answer takes.
    pub delay_ms: u64,
}

/// One tool call.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Map<String, Value>,
}

/// Tokens of an answer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tokens {
    /// All input.
    pub input: u64,
    /// Of that, read from cache.
    pub cached: u64,
    /// Output.
    pub output: u64,
}
