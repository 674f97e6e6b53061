//! The configuration of models and providers, as `config.toml` spells it.
//!
//! Only shapes and defaults: what a name resolves to is decided in `provider`, and unknown keys are
//! refused by the loader in the roof, which knows the file's lines. Invariant: an empty value of
//! every type here is valid and means "what is built in".

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Everything that the router is told.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Options {
    /// The default model, `provider/model`.
    pub model: Option<String>,
    /// Providers by name; a built-in one may be changed in part.
    pub providers: BTreeMap<String, Provider>,
    /// What is known of single models, by `provider/model`.
    pub models: BTreeMap<String, Model>,
    /// Directory for what was found out about servers; in memory only when absent.
    #[serde(skip)]
    pub cache_dir: Option<PathBuf>,
    /// Waits and limits.
    #[serde(skip)]
    pub pacing: Pacing,
}

/// One provider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Provider {
    /// The wire it speaks; needed unless the name is a built-in provider's.
    pub wire: Option<Wire>,
    /// Where it listens, e.g. `http://127.0.0.1:8080/v1`.
    pub base_url: Option<String>,
    /// Name of the variable that holds its key.
    pub api_key_env: Option<String>,
    /// Its key as a configured secret, `secret:NAME`; never the key itself.
    pub api_key: Option<String>,
    /// File of recorded turns, for the wire `replay`.
    pub path: Option<PathBuf>,
    /// Further HTTP headers.
    pub headers: BTreeMap<String, String>,
}

/// What is spoken with a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Wire {
    /// Chat completions.
    Openai,
    /// OpenAI's Responses.
    OpenaiResponses,
    /// Anthropic's Messages.
    Anthropic,
    /// Gemini's generateContent.
    Gemini,
    /// Ollama, through its chat completions.
    Ollama,
    /// Recorded turns.
    Replay,
}

impl Wire {
    /// The wire's name in configuration and provenance.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::OpenaiResponses => "openai-responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::Replay => "replay",
        }
    }

    /// The wire of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        let all = [Self::Openai, Self::OpenaiResponses, Self::Anthropic, Self::Gemini, Self::Ollama, Self::Replay];
        all.into_iter().find(|wire| wire.name() == name)
    }
}

/// How a model calls tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Tools {
    /// Its own tool calls.
    Native,
    /// Answers bound to a JSON schema.
    JsonSchema,
    /// Found out by one small question.
    Auto,
}

/// How much a model shall think before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Reasoning {
    /// Not at all, where the provider allows it.
    Off,
    /// As it likes; its reasoning is kept and shown.
    On,
    /// Little.
    Low,
    /// Some.
    Medium,
    /// Much.
    High,
    /// As much as it can.
    Max,
}

impl Reasoning {
    /// Its name in the configuration.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::On => "on",
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Max => "max",
        }
    }

    /// The degree of a name.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        [Self::Off, Self::On, Self::Low, Self::Medium, Self::High, Self::Max].into_iter().find(|degree| degree.name() == name)
    }
}

/// What is known of one model. Prices are US dollars per million tokens.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Model {
    /// Tokens that fit into one call, in and out.
    pub context_tokens: Option<u64>,
    /// Most tokens of one answer.
    pub max_output_tokens: Option<u64>,
    /// How it calls tools; `native` when absent.
    pub tools: Option<Tools>,
    /// Price of input.
    pub input_usd_per_mtok: Option<f64>,
    /// Price of output, reasoning included.
    pub output_usd_per_mtok: Option<f64>,
    /// Price of input read from the provider's cache; that of input when absent.
    pub cached_usd_per_mtok: Option<f64>,
    /// How much it thinks; the provider's own default when absent.
    pub reasoning: Option<Reasoning>,
}

/// Waits and limits of a call. Not part of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pacing {
    /// Most tries, the first included.
    pub tries: u32,
    /// Wait after the first failure; doubled after each further one.
    pub base: Duration,
    /// Longest wait that we choose ourselves.
    pub cap: Duration,
    /// A longer `retry-after` is a spent quota, no wait.
    pub patience: Duration,
    /// One try ends after this long, progress or not.
    pub deadline: Duration,
    /// On loopback the first token may take this many times the stall limit: a small machine reads
    /// a long prompt for minutes before it says a word.
    pub local_first_token: u32,
    /// But not longer than this.
    pub first_token: Duration,
}

impl Default for Pacing {
    fn default() -> Self {
        Self {
            tries: 5,
            base: Duration::from_millis(500),
            cap: Duration::from_secs(60),
            patience: Duration::from_secs(300),
            deadline: Duration::from_secs(1_800),
            local_first_token: 5,
            first_token: Duration::from_secs(600),
        }
    }
}
