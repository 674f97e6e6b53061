//! The file `state.json` of a running service, and the part of the model's answers that we read.
//!
//! `serve.py` writes the first, the model server the second. Unknown fields are ignored on purpose:
//! both writers may add some.

use serde::Deserialize;

/// A running service, as its server wrote it down.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct State {
    /// Process id of the server; 0 for a server that somebody else started.
    pub pid: i32,
    /// Base address, with `/v1`.
    pub url: String,
    /// Name of the model.
    pub model: String,
}

/// `GET /v1/models`.
#[derive(Debug, Deserialize)]
pub struct Models {
    /// The models on offer.
    pub data: Vec<Model>,
}

/// One model on offer.
#[derive(Debug, Deserialize)]
pub struct Model {
    /// Its name.
    pub id: String,
}

/// `POST /v1/chat/completions`, without streaming.
#[derive(Debug, Deserialize)]
pub struct Completion {
    /// The answers; we ask for one.
    pub choices: Vec<Choice>,
    /// Speed, where the server tells it.
    #[serde(default)]
    pub timings: Timings,
}

/// One answer.
#[derive(Debug, Deserialize)]
pub struct Choice {
    /// Why the answer ended; `stop` for a whole one.
    pub finish_reason: String,
    /// The text.
    pub message: Message,
}

/// The text of an answer.
#[derive(Debug, Deserialize)]
pub struct Message {
    /// JSON in our case.
    pub content: String,
}

/// Tokens per second.
#[derive(Debug, Default, Clone, Copy, PartialEq, Deserialize)]
pub struct Timings {
    /// Reading the prompt.
    #[serde(default)]
    pub prompt_per_second: f64,
    /// Writing the answer.
    #[serde(default)]
    pub predicted_per_second: f64,
}

/// The schema-bound answer that the probe asks for.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProbeCall {
    /// The tool that the model chose.
    pub tool: String,
    /// Its one argument.
    pub cmd: String,
}
