//! Version 1 of the script: one JSON object per line, a turn each.
//!
//! Shape only; it is a superset of what the provider `replay` plays, so one file can serve both.
//! Invariant: unknown keys are refused, so that a slip in a script is no silent pass.

use serde::Deserialize;
use serde_json::Value;

/// What the server answers to the n-th question of a conversation.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Turn {
    /// Words.
    pub text: String,
    /// Reasoning before them.
    pub reasoning: String,
    /// Tool calls, in order.
    pub calls: Vec<Call>,
    /// Tokens; counted from the bytes when absent.
    pub usage: Option<Tokens>,
    /// Tells no usage at all.
    pub hides_usage: bool,
    /// Names this model instead of the asked one.
    pub served: Option<String>,
    /// Read by `replay` only.
    pub priced_as: Option<String>,
    /// How long the answer waits.
    pub delay_ms: u64,
    /// What goes wrong: the k-th request for this turn meets the k-th fault, later ones none.
    pub faults: Vec<Fault>,
    /// The last fault stays.
    pub forever: bool,
}

/// One tool call.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// The tool.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub args: Value,
    /// The provider's id; made from turn and place when absent.
    #[serde(default)]
    pub id: Option<String>,
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

/// What can go wrong.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Fault {
    /// An HTTP status instead of an answer.
    Status {
        /// The number.
        status: u16,
        /// Value of `retry-after`.
        #[serde(default)]
        retry_after: Option<String>,
        /// The body; a plain error object when absent.
        #[serde(default)]
        body: Option<String>,
    },
    /// The answer ends after so many bytes of its body.
    Cut {
        /// How many.
        bytes: usize,
        /// Ends as if all were said, instead of breaking the connection.
        #[serde(default)]
        quiet: bool,
    },
    /// Status 200 and a page of HTML.
    Garbage,
    /// Frames that are no JSON.
    BadFrames,
    /// The frames up to this byte, then heartbeats until `release` is called, then the rest.
    Hold {
        /// How many.
        bytes: usize,
    },
    /// So many bytes, then nothing but heartbeats.
    Stall {
        /// How many.
        #[serde(default)]
        bytes: usize,
    },
    /// The connection is closed without a byte.
    Reset,
    /// The arguments of calls are cut in the middle, all else is well.
    MalformedArgs,
    /// The stream of chat completions ends without its `[DONE]`.
    NoDone,
    /// It stops for calls and makes none.
    NoCalls,
    /// Entries of calls come without index.
    NoIndex,
    /// Calls come as a fenced object in the text.
    AsText,
    /// It stops because of the output limit, in the middle of a call.
    Length,
    /// An error of this type within the stream, after its first half.
    ErrorEvent {
        /// Its type.
        kind: String,
    },
}
