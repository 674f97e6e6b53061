//! What daemon and courier say to each other; never on disk.
//!
//! Version 1. Each message is `len u32` (little endian) and that many bytes. `Hello`, `Welcome`,
//! `Leave` and `Leaving` keep their meaning in all versions, so that a courier of another version can
//! at least be asked to go. Unknown fields are ignored. Invariant: keys travel here and nowhere else.

use super::format::Event;
use tinkerbell_core::event::{Made, Part};

/// Version of the conversation.
pub const VERSION: u32 = 1;
/// Largest message: a prompt of the largest windows with room to spare.
pub const MESSAGE_MAX_BYTES: usize = 64 << 20;

/// Daemon to courier.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Request {
    /// What is wanted.
    #[prost(oneof = "Wanted", tags = "1, 2, 3, 4, 5")]
    pub wanted: Option<Wanted>,
}

/// What a daemon may want.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Wanted {
    /// Always first.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Make this call, unless it was made already; send its events.
    #[prost(message, tag = "2")]
    Order(Box<Order>),
    /// Send the events of a call that was made already.
    #[prost(message, tag = "3")]
    Attach(Attach),
    /// End a call, by its id; answered by `Done` unless its events are being sent.
    #[prost(string, tag = "4")]
    Cancel(String),
    /// End yourself, unless a call runs.
    #[prost(message, tag = "5")]
    Leave(Nothing),
}

/// Who asks.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Hello {
    /// The daemon's [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub wire: u32,
    /// Its release.
    #[prost(string, tag = "2")]
    pub release: String,
}

/// No content.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Nothing {}

/// Where to go on.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Attach {
    /// The call's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// Events that are known already.
    #[prost(uint64, tag = "2")]
    pub from: u64,
}

/// Courier to daemon.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Reply {
    /// What it is.
    #[prost(oneof = "Said", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub said: Option<Said>,
}

/// What a courier may say.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Said {
    /// To `Hello`.
    #[prost(message, tag = "1")]
    Welcome(Welcome),
    /// An event of the call; the last one ends the sending.
    #[prost(message, tag = "2")]
    Event(Event),
    /// The call neither runs nor has an end.
    #[prost(message, tag = "3")]
    Unknown(Nothing),
    /// Nothing new; the call runs.
    #[prost(message, tag = "4")]
    Alive(Nothing),
    /// To `Cancel`.
    #[prost(message, tag = "5")]
    Done(Nothing),
    /// To `Leave`: no call runs, the process ends.
    #[prost(message, tag = "6")]
    Leaving(Nothing),
    /// To anything that can not be done; why.
    #[prost(string, tag = "7")]
    Refused(String),
}

/// Who answers.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Welcome {
    /// The courier's [`VERSION`].
    #[prost(uint32, tag = "1")]
    pub wire: u32,
    /// Its release.
    #[prost(string, tag = "2")]
    pub release: String,
    /// Its process.
    #[prost(uint32, tag = "3")]
    pub pid: u32,
    /// Calls that run.
    #[prost(uint32, tag = "4")]
    pub calls: u32,
}

/// A call and all that it needs.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Order {
    /// The call's id.
    #[prost(string, tag = "1")]
    pub id: String,
    /// The request.
    #[prost(message, optional, tag = "2")]
    pub call: Option<Call>,
    /// Whom to ask.
    #[prost(message, optional, tag = "3")]
    pub target: Option<Target>,
    /// The key.
    #[prost(string, optional, tag = "4")]
    pub key: Option<String>,
    /// Variables of the network.
    #[prost(message, repeated, tag = "5")]
    pub network: Vec<Pair>,
    /// Values that must not be written down.
    #[prost(message, repeated, tag = "6")]
    pub secrets: Vec<Pair>,
    /// Waits and limits.
    #[prost(message, optional, tag = "7")]
    pub pacing: Option<Pacing>,
}

/// A name and its value, which may be a secret.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Pair {
    /// The name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// The value.
    #[prost(string, tag = "2")]
    pub value: String,
}

impl Drop for Pair {
    fn drop(&mut self) {
        zeroize::Zeroize::zeroize(&mut self.value);
    }
}

/// A request to a model.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Call {
    /// The model, `provider/model`.
    #[prost(string, tag = "1")]
    pub model: String,
    /// The stable prefix.
    #[prost(string, tag = "2")]
    pub system: String,
    /// The tools.
    #[prost(message, repeated, tag = "3")]
    pub tools: Vec<Tool>,
    /// Goal and history.
    #[prost(message, repeated, tag = "4")]
    pub messages: Vec<Message>,
    /// What moves.
    #[prost(string, tag = "5")]
    pub tail: String,
    /// Limit of the answer.
    #[prost(uint64, tag = "6")]
    pub max_output_tokens: u64,
    /// Milliseconds without progress that end a try.
    #[prost(uint64, tag = "7")]
    pub stall_ms: u64,
}

/// A tool.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Tool {
    /// Its name.
    #[prost(string, tag = "1")]
    pub name: String,
    /// What it does.
    #[prost(string, tag = "2")]
    pub description: String,
    /// JSON schema of its arguments.
    #[prost(string, tag = "3")]
    pub schema: String,
}

/// A message of the transcript.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Message {
    /// What it is.
    #[prost(oneof = "Spoken", tags = "1, 2, 3")]
    pub spoken: Option<Spoken>,
}

/// The kinds of message.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Spoken {
    /// The user's words.
    #[prost(string, tag = "1")]
    User(String),
    /// An answer.
    #[prost(message, tag = "2")]
    Assistant(Assistant),
    /// A tool's result.
    #[prost(message, tag = "3")]
    Result(ToolResult),
}

/// An answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Assistant {
    /// Its parts.
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<Part>,
    /// Who made it.
    #[prost(message, optional, tag = "2")]
    pub made: Option<Made>,
}

/// A tool's result.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct ToolResult {
    /// The call it answers.
    #[prost(string, tag = "1")]
    pub call_id: String,
    /// The tool.
    #[prost(string, tag = "2")]
    pub tool: String,
    /// The text.
    #[prost(string, tag = "3")]
    pub text: String,
}

/// One model at one place.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Target {
    /// The provider's name.
    #[prost(string, tag = "1")]
    pub provider: String,
    /// The model's name at the provider.
    #[prost(string, tag = "2")]
    pub model: String,
    /// What is spoken, as the configuration spells it.
    #[prost(string, tag = "3")]
    pub wire: String,
    /// Where.
    #[prost(string, tag = "4")]
    pub base_url: String,
    /// Host and port.
    #[prost(string, tag = "5")]
    pub host: String,
    /// Whether it is this machine.
    #[prost(bool, tag = "6")]
    pub is_local: bool,
    /// Variables that may hold the key: for messages only.
    #[prost(string, repeated, tag = "7")]
    pub keys: Vec<String>,
    /// Further headers.
    #[prost(message, repeated, tag = "8")]
    pub headers: Vec<Pair>,
    /// How much it shall think, as the configuration spells it; empty for the default.
    #[prost(string, tag = "9")]
    pub reasoning: String,
    /// How tools are called: `native`, `json-schema`, `auto`.
    #[prost(string, tag = "10")]
    pub tools: String,
    /// Tokens that fit into a call.
    #[prost(uint64, tag = "11")]
    pub context_tokens: u64,
    /// Most tokens of an answer.
    #[prost(uint64, tag = "12")]
    pub max_output_tokens: u64,
}

/// Waits and limits, in milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Pacing {
    /// Most tries.
    #[prost(uint32, tag = "1")]
    pub tries: u32,
    /// Wait after the first failure.
    #[prost(uint64, tag = "2")]
    pub base_ms: u64,
    /// Longest wait of our choice.
    #[prost(uint64, tag = "3")]
    pub cap_ms: u64,
    /// A longer `retry-after` is a spent quota.
    #[prost(uint64, tag = "4")]
    pub patience_ms: u64,
    /// One try ends after this long.
    #[prost(uint64, tag = "5")]
    pub deadline_ms: u64,
    /// How many stall limits the first token may take on loopback.
    #[prost(uint32, tag = "6")]
    pub local_first_token: u32,
    /// But not longer than this.
    #[prost(uint64, tag = "7")]
    pub first_token_ms: u64,
}

#[cfg(test)]
mod tests;
