//! Requests: what clients send.
//!
//! Unknown fields are refused by name. Invariant: `env` is never logged; its `Debug` shows names
//! only.

use super::event::Caps;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// A task to accept.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SubmitRequest {
    /// The user's words.
    pub goal: String,
    /// Directory in which it is given; absolute.
    pub cwd: String,
    /// `provider/model`; absent for the configured default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Limits; absent ones take the defaults.
    #[serde(default)]
    pub caps: Caps,
    /// Verification command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<String>,
    /// Revision to start from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub base: Option<String>,
    /// Whether nobody can be asked.
    #[serde(default)]
    pub no_input: bool,
    /// `interactive`, `normal`, `batch` or `maintenance`; absent for `normal`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub priority: Option<String>,
    /// Begin not before this long from now, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_ms: Option<u64>,
    /// Begin not before this time, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_before: Option<String>,
    /// PATH, locale and provider variables; kept in memory only.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub env: BTreeMap<String, String>,
    /// That nobody is to be asked for approvals.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub yolo: Option<YoloRequest>,
}

/// That nobody is to be asked for approvals, for a while.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct YoloRequest {
    /// Why.
    #[serde(default)]
    pub reason: String,
    /// For how long from now, in milliseconds; at most a week.
    pub for_ms: u64,
}

impl fmt::Debug for SubmitRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SubmitRequest")
            .field("goal", &self.goal)
            .field("cwd", &self.cwd)
            .field("model", &self.model)
            .field("env", &self.env.keys().collect::<Vec<_>>())
            .finish_non_exhaustive()
    }
}

/// Environment for the daemon; the newest value of a name wins.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnvironmentRequest {
    /// Names and values; kept in memory only.
    pub env: BTreeMap<String, String>,
}

impl fmt::Debug for EnvironmentRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EnvironmentRequest").field("env", &self.env.keys().collect::<Vec<_>>()).finish()
    }
}

/// A word to a task.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum CommandRequest {
    /// More words from the user.
    Tell {
        /// The words.
        text: String,
    },
    /// Stand still.
    Pause {},
    /// Go on; with new limits, if given.
    Resume {
        /// Limits to raise.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        caps: Option<Caps>,
    },
    /// End it.
    Cancel {},
    /// Make it more or less urgent.
    Priority {
        /// `interactive`, `normal`, `batch` or `maintenance`.
        priority: String,
    },
    /// Answer a question.
    Answer {
        /// The question's number within the task.
        id: u32,
        /// Approve or deny.
        approve: bool,
        /// Text given with it.
        #[serde(default)]
        text: String,
        /// The digest of the question that was shown; an answer to another one is refused. Empty takes
        /// whatever stands under the number.
        #[serde(default)]
        digest: String,
        /// How far an approval reaches: `once` (or empty), `task`, `project`, `user`; beyond `once` where
        /// the question has an offer.
        #[serde(default)]
        scope: String,
    },
    /// Take back the last operation, or all.
    Undo {
        /// All of them.
        #[serde(default)]
        all: bool,
    },
    /// Bring back what the last undo took.
    Redo {},
    /// Bring the tree to the state after an operation.
    Restore {
        /// The operation's number; 0 is the base.
        op: u32,
    },
    /// Land the change on the user's branch as one commit.
    Land {
        /// The branch; absent for the one that is checked out.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        branch: Option<String>,
        /// The message; empty for one made from the goal.
        #[serde(default)]
        message: String,
    },
    /// Remove the task with all it keeps.
    Remove {
        /// Also when it is still running.
        #[serde(default)]
        force: bool,
    },
}
