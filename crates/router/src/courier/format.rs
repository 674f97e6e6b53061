//! What a courier leaves on disk: a call's spool, and in it the events of its answer.
//!
//! Version 1. A spool is [`MAGIC`] and frames `len u32 | crc32c u32 | payload`, little endian; the
//! sum covers length and payload. The first payload is a [`Head`], each further one an [`Event`];
//! the last event of a whole spool is `Done`, `Failed` or `Cancelled`. Unknown fields are ignored.
//! Invariant: no field here ever holds a key, a header or a prompt.

use tinkerbell_core::event::{Made, Part};

/// Version of the spool.
pub const VERSION: u32 = 1;
/// Bytes before the first frame.
pub const MAGIC: [u8; 8] = *b"TBCALLS\x01";
/// Bytes before a frame's payload.
pub const FRAME_HEADER_BYTES: usize = 8;
/// Largest payload: an answer ends at 8 MiB of text, and its parts may hold it twice.
pub const FRAME_MAX_BYTES: usize = 64 << 20;

/// Which call a spool belongs to.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Head {
    /// Format version.
    #[prost(uint32, tag = "1")]
    pub version: u32,
    /// The call's id.
    #[prost(string, tag = "2")]
    pub id: String,
    /// The model, `provider/model`.
    #[prost(string, tag = "3")]
    pub model: String,
    /// When it began, wall time in milliseconds.
    #[prost(uint64, tag = "4")]
    pub started_ms: u64,
    /// Our own count of the request's tokens: what a call cut off has cost at least.
    #[prost(uint64, tag = "5")]
    pub input_tokens: u64,
}

/// One event of an answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Event {
    /// What it is; an unknown kind is skipped.
    #[prost(oneof = "Kind", tags = "1, 2, 3, 4, 5, 6")]
    pub kind: Option<Kind>,
}

/// The kinds of event.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    /// A piece of text.
    #[prost(string, tag = "1")]
    Text(String),
    /// A piece of reasoning.
    #[prost(string, tag = "2")]
    Reasoning(String),
    /// A try failed and another follows.
    #[prost(message, tag = "3")]
    Retrying(Retrying),
    /// The whole answer.
    #[prost(message, tag = "4")]
    Done(Answer),
    /// There is none.
    #[prost(message, tag = "5")]
    Failed(Failure),
    /// The daemon wanted it no more.
    #[prost(message, tag = "6")]
    Cancelled(Cancelled),
}

/// A failed try.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Retrying {
    /// Why.
    #[prost(string, tag = "1")]
    pub why: String,
    /// Until the next, in milliseconds.
    #[prost(uint64, tag = "2")]
    pub wait_ms: u64,
    /// What it used.
    #[prost(message, optional, tag = "3")]
    pub spent: Option<Tokens>,
}

/// Tokens as a provider counts them.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Tokens {
    /// Input, cache reads and writes included.
    #[prost(uint64, tag = "1")]
    pub input: u64,
    /// Of those, read from the cache.
    #[prost(uint64, tag = "2")]
    pub cached: u64,
    /// Of those, written to it.
    #[prost(uint64, tag = "3")]
    pub cache_write: u64,
    /// Output.
    #[prost(uint64, tag = "4")]
    pub output: u64,
}

/// A whole answer.
#[derive(Clone, PartialEq, prost::Message)]
pub struct Answer {
    /// Its parts in order.
    #[prost(message, repeated, tag = "1")]
    pub parts: Vec<Part>,
    /// Who made it.
    #[prost(message, optional, tag = "2")]
    pub made: Option<Made>,
    /// What it used.
    #[prost(message, optional, tag = "3")]
    pub usage: Option<Tokens>,
    /// Whether that is our estimate.
    #[prost(bool, tag = "4")]
    pub estimated: bool,
    /// `end`, `calls`, `length`, `filter`.
    #[prost(string, tag = "5")]
    pub stop: String,
    /// Failed tries before it.
    #[prost(uint32, tag = "6")]
    pub retries: u32,
    /// What those used.
    #[prost(message, optional, tag = "7")]
    pub lost: Option<Tokens>,
}

/// A call without an answer.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct Failure {
    /// Set when the prompt does not fit; all else is empty then.
    #[prost(message, optional, tag = "1")]
    pub too_long: Option<TooLong>,
    /// The error's code.
    #[prost(string, tag = "2")]
    pub code: String,
    /// Exit code of the command line.
    #[prost(uint32, tag = "3")]
    pub exit: u32,
    /// What failed.
    #[prost(string, tag = "4")]
    pub message: String,
    /// What to do.
    #[prost(string, repeated, tag = "5")]
    pub hints: Vec<String>,
    /// Whether it may pass.
    #[prost(bool, tag = "6")]
    pub retryable: bool,
    /// When it may pass, in milliseconds, where the provider said so.
    #[prost(uint64, optional, tag = "7")]
    pub retry_after_ms: Option<u64>,
}

/// The prompt does not fit.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TooLong {
    /// Tokens that fit, as far as known.
    #[prost(uint64, optional, tag = "1")]
    pub limit: Option<u64>,
}

/// Nothing more is known of it.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Cancelled {}

impl Event {
    /// An event of this kind.
    #[must_use]
    pub const fn of(kind: Kind) -> Self {
        Self { kind: Some(kind) }
    }

    /// Whether nothing can follow it.
    #[must_use]
    pub const fn is_last(&self) -> bool {
        matches!(self.kind, Some(Kind::Done(_) | Kind::Failed(_) | Kind::Cancelled(_)))
    }
}

/// A payload as a frame.
#[must_use]
pub fn frame(payload: &[u8]) -> Vec<u8> {
    let len = u32::try_from(payload.len()).unwrap_or(u32::MAX).to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&len), payload).to_le_bytes();
    [&len[..], &sum[..], payload].concat()
}

/// The first payload of `bytes` and how many bytes its frame has; `None` when it is not whole or
/// its sum is wrong.
#[must_use]
pub fn unframe(bytes: &[u8]) -> Option<(&[u8], usize)> {
    let head: [u8; 4] = bytes.get(..4)?.try_into().ok()?;
    let sum: [u8; 4] = bytes.get(4..FRAME_HEADER_BYTES)?.try_into().ok()?;
    let len = usize::try_from(u32::from_le_bytes(head)).ok().filter(|len| *len <= FRAME_MAX_BYTES)?;
    let end = FRAME_HEADER_BYTES + len;
    let payload = bytes.get(FRAME_HEADER_BYTES..end)?;
    let is_sound = crc32c::crc32c_append(crc32c::crc32c(&head), payload) == u32::from_le_bytes(sum);
    is_sound.then_some((payload, end))
}

#[cfg(test)]
mod tests;
