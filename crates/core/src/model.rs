//! What the house says to a model and hears from it, whatever the provider.
//!
//! The transcript is ours, not a provider's: parts keep who made them, so that signed reasoning goes
//! back only to its maker. Invariant: rendering a call from the same past gives the same bytes.

use crate::code::Fault;
use crate::event::{Made, Part};
use crate::money::{Price, Usage};
use crate::tool::ToolSpec;
use crate::words::{RunId, Seq, TaskId};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// How a model calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolMode {
    /// Through the provider's own tool calls.
    Native,
    /// Through an answer bound to a JSON schema; one call per step.
    JsonSchema,
    /// Found out by one probe, then one of the others.
    Auto,
}

/// Which edit tool a model family handles best; both are always there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EditStyle {
    /// V4A patches.
    Patch,
    /// Exact search and replace.
    Replace,
}

/// What is known of a model before it is asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelCard {
    /// `provider/model`, as given with `-m`.
    pub name: String,
    /// The provider's name in the configuration.
    pub provider: String,
    /// The wire that is spoken.
    pub wire: String,
    /// Host and port of the endpoint; empty for `replay`.
    pub host: String,
    /// Tokens that fit into one call, in and out.
    pub context_tokens: u64,
    /// Most tokens that one answer may have.
    pub max_output_tokens: u64,
    /// How it calls tools.
    pub tools: ToolMode,
    /// Its prices; `None` where unknown. Zero for endpoints on loopback and for replays.
    pub price: Option<Price>,
    /// Which edit tool to recommend.
    pub edits: EditStyle,
}

/// A message of the transcript.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The user's words, or the runtime's in the user's place.
    User(String),
    /// An answer, with who made it.
    Assistant {
        /// Its parts in order.
        parts: Vec<Part>,
        /// Its provenance; `None` for texts that no model made.
        made: Option<Made>,
    },
    /// A tool's result.
    Tool {
        /// The call it answers.
        call_id: String,
        /// The tool.
        tool: String,
        /// What the model reads.
        text: String,
    },
}

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelCall {
    /// The task, for affinity and for the environment that carries its key.
    pub task: TaskId,
    /// The effect that asks.
    pub seq: Seq,
    /// Counts the requests within the effect: one that was made smaller, or made again, is another.
    pub attempt: u32,
    /// The model, `provider/model`.
    pub model: String,
    /// The byte-stable prefix: identity, rules, AGENTS.md, environment.
    pub system: String,
    /// The tools, in fixed order.
    pub tools: Vec<ToolSpec>,
    /// Goal and history.
    pub messages: Vec<Message>,
    /// What moves (plan, budget left, time): sent last, never part of the stable prefix.
    pub tail: String,
    /// Limit of the answer.
    pub max_output_tokens: u64,
    /// No progress for this long ends the try.
    pub stall: Duration,
}

impl ModelCall {
    /// Its name among all calls.
    #[must_use]
    pub const fn id(&self) -> CallId {
        CallId { task: self.task, seq: self.seq, attempt: self.attempt }
    }
}

/// Names a call for ever: a daemon that comes back names the same one again, and an answer that was
/// given meanwhile is found under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId {
    /// The task.
    pub task: TaskId,
    /// The effect.
    pub seq: Seq,
    /// The request within it, from 0.
    pub attempt: u32,
}

impl fmt::Display for CallId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.task, self.seq, self.attempt)
    }
}

/// A text that names no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no call's id")]
pub struct BadCallId;

impl FromStr for CallId {
    type Err = BadCallId;
    fn from_str(text: &str) -> Result<Self, BadCallId> {
        let (effect, attempt) = text.rsplit_once('-').ok_or(BadCallId)?;
        let effect: RunId = effect.parse().map_err(|_| BadCallId)?;
        Ok(Self { task: effect.task, seq: effect.seq, attempt: attempt.parse().map_err(|_| BadCallId)? })
    }
}

/// What a stream of an answer brings.
#[derive(Debug, Clone, PartialEq)]
pub enum ModelEvent {
    /// A piece of text.
    Text(String),
    /// A piece of reasoning.
    Reasoning(String),
    /// A try failed and another follows after the wait. Text streamed so far is void.
    Retrying {
        /// What failed.
        why: String,
        /// How long the wait is.
        wait: Duration,
        /// What the provider said that the failed try used; nothing where it said nothing.
        spent: Usage,
    },
    /// The whole answer; always the last event.
    Done(Box<Completion>),
}

/// A whole answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Its parts in order; call arguments are complete JSON text.
    pub parts: Vec<Part>,
    /// Its provenance.
    pub made: Made,
    /// What it used.
    pub usage: Usage,
    /// Whether usage is our estimate.
    pub estimated: bool,
    /// Why it stopped.
    pub stop: StopReason,
    /// Failed tries before it.
    pub retries: u32,
    /// What the provider said that those used.
    pub lost: Usage,
}

/// What is known of a call that ended without an end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cut {
    /// What cut it off, in words.
    pub why: String,
    /// The text that had come.
    pub text: String,
    /// What it used.
    pub usage: Usage,
    /// Whether a part of the usage is our estimate.
    pub estimated: bool,
    /// Whether it happened just now, and not before this call of [`crate::port::Model::complete`].
    pub is_new: bool,
}

/// Why an answer stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopReason {
    /// The model was done.
    End,
    /// The model wants tools.
    Calls,
    /// The output limit cut it; its calls must not run.
    Length,
    /// The provider's filter ended it.
    Filter,
}

impl StopReason {
    /// The word that the journal carries.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::End => "end",
            Self::Calls => "calls",
            Self::Length => "length",
            Self::Filter => "filter",
        }
    }
}

/// A call that failed after all its tries.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModelError {
    /// The key is not in the environment that the task's clients sent.
    #[error("needs key {0}")]
    NeedsKey(String),
    /// The prompt does not fit; the number is the refusal's limit, where it was told.
    #[error("the prompt does not fit into the model's context")]
    TooLong {
        /// Tokens that fit, as far as known.
        limit: Option<u64>,
    },
    /// It was cut off and will never be whole. The same request under the next attempt is a new call.
    #[error("the call was cut off: {}", .0.why)]
    Cut(Box<Cut>),
    /// Anything else, with its code and what to do.
    #[error(transparent)]
    Fault(#[from] Fault),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_calls_name_is_read_back() {
        let id = CallId { task: TaskId(0x2a), seq: 7, attempt: 3 };
        assert_eq!(id.to_string(), "0000000000000000000000000000002a-7-3");
        assert_eq!(id.to_string().parse(), Ok(id));
        for text in ["", "-", "7", "0000000000000000000000000000002a-7", "0000000000000000000000000000002a-x-3"] {
            assert_eq!(text.parse::<CallId>(), Err(BadCallId), "{text}");
        }
    }
}
