//! The public JSON about the daemon's own life: handing its place to another binary.
//!
//! Only shapes. Invariant: fields may be added, never renamed or given another meaning.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Asks the daemon to let another binary take its place.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// Absolute path of the new binary.
    pub binary: String,
    /// How long the daemon waits for model calls under way, in milliseconds; the courier carries the
    /// rest on, and the new binary takes them up.
    #[serde(default)]
    pub drain_ms: u64,
    /// How long the new binary may take from the closing of the log to its first answer, in
    /// milliseconds; then the old one takes over again.
    #[serde(default = "health_ms")]
    pub health_ms: u64,
    /// Only look whether the new binary could take over.
    #[serde(default)]
    pub dry_run: bool,
}

const fn health_ms() -> u64 {
    10_000
}

/// How the daemon stands to the kill switch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct HaltView {
    /// Whether all effects are halted.
    pub halted: bool,
    /// By whom, since when and why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
    /// Tasks that still work although all effects are halted.
    #[serde(default)]
    pub working: u64,
}

/// How an upgrade stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UpgradeView {
    /// `looked`, `draining`, `handing-over`, `done`, `refused`, `taken-back`.
    pub state: String,
    /// The process that gave its place away.
    pub from_pid: u32,
    /// Its release.
    pub from_version: String,
    /// The new binary.
    pub binary: String,
    /// Its release, once it has told.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub version: String,
    /// Records that the new binary looked at.
    #[serde(default)]
    pub records: u64,
    /// Model calls that went on in the courier.
    #[serde(default)]
    pub carried: u64,
    /// Commands that ran on and were found again.
    #[serde(default)]
    pub adopted: u64,
    /// Commands that had ended, whose outcome was delivered.
    #[serde(default)]
    pub finished: u64,
    /// Commands whose outcome can not be known.
    #[serde(default)]
    pub indeterminate: u64,
    /// Time in which nobody answered, in milliseconds.
    #[serde(default)]
    pub gap_ms: u64,
    /// Why it was refused or taken back.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
}
