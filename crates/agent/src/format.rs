//! Version 1 of the turn's saved state, in Protocol Buffers encoding.
//!
//! Only data; the meaning lives in `turn`. Fields may be added, never renumbered or reused.
//! Invariant: `tests/golden/v1` stays readable for ever.

use tinkerbell_core::event::{Call, Finished, Intent};

/// The version that this release writes.
pub const VERSION: u32 = 1;

/// The version of a saved state; `None` when it can not be read at all.
#[must_use]
pub fn version_of(state: &[u8]) -> Option<u32> {
    <State as prost::Message>::decode(state).ok().map(|state| state.version)
}

/// A suspended turn.
#[derive(Clone, PartialEq, prost::Message)]
pub struct State {
    /// Version of this message.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// Number of the newest effect that was yielded.
    #[prost(uint32, tag = "2")]
    pub seq: u32,
    /// Model calls so far.
    #[prost(uint32, tag = "3")]
    pub step: u32,
    /// The effect that it waits for.
    #[prost(message, optional, tag = "4")]
    pub pending: Option<Intent>,
    /// Calls of the newest answer that are still to run, in order.
    #[prost(message, repeated, tag = "5")]
    pub queue: Vec<Call>,
    /// The verification command; empty when there is none.
    #[prost(string, tag = "6")]
    pub verify: String,
    /// Where that command came from.
    #[prost(string, tag = "7")]
    pub verify_origin: String,
    /// Failed rounds of verification after the model believed it was done.
    #[prost(uint32, tag = "8")]
    pub rounds: u32,
    /// Whether the check before the first edit was made.
    #[prost(bool, tag = "9")]
    pub baseline: bool,
    /// The newest checkpoint that the turn knows of.
    #[prost(string, tag = "10")]
    pub tree: String,
    /// The tip of the task's branch.
    #[prost(string, tag = "11")]
    pub tip: String,
    /// The first checkpoint.
    #[prost(string, tag = "12")]
    pub base: String,
    /// The model of the newest answer.
    #[prost(string, tag = "13")]
    pub model: String,
    /// Fingerprints of the newest calls, oldest first.
    #[prost(fixed64, repeated, tag = "14")]
    pub requests: Vec<u64>,
    /// Fingerprints of their outcomes, the tree included; as many as `requests`.
    #[prost(fixed64, repeated, tag = "15")]
    pub outcomes: Vec<u64>,
    /// Malformed answers in a row.
    #[prost(uint32, tag = "16")]
    pub malformed: u32,
    /// Empty answers in a row.
    #[prost(uint32, tag = "17")]
    pub empties: u32,
    /// The tool whose calls fail in a row.
    #[prost(string, tag = "18")]
    pub failing_tool: String,
    /// How many of its calls failed in a row.
    #[prost(uint32, tag = "19")]
    pub failing: u32,
    /// Effects whose commands run in the background.
    #[prost(uint32, repeated, tag = "20")]
    pub units: Vec<u32>,
    /// Sentences for the tail of the next request.
    #[prost(string, repeated, tag = "21")]
    pub nudges: Vec<String>,
    /// Operations of the task that the turn knows of.
    #[prost(uint32, tag = "22")]
    pub ops_seen: u32,
    /// How it ended; absent while it works.
    #[prost(message, optional, tag = "23")]
    pub done: Option<Finished>,
    /// Verification runs in a row whose outcome was lost.
    #[prost(uint32, tag = "24")]
    pub lost_checks: u32,
    /// What the newest result said, in one line: the evidence should the loop guard end the task.
    #[prost(string, tag = "25")]
    pub evidence: String,
    /// Whether the model was urged to act after it had ended without a change.
    #[prost(bool, tag = "26")]
    pub urged: bool,
    /// The newest tree that the check ran on.
    #[prost(string, tag = "27")]
    pub checked: String,
    /// Whether the check takes too long to run after each change.
    #[prost(bool, tag = "28")]
    pub slow_check: bool,
    /// Whether the files that the task names were shown.
    #[prost(bool, tag = "29")]
    pub shown: bool,
}
