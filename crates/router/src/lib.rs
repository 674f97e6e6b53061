//! Models, whatever the provider: which one a name means, what it costs, how it is asked, and what
//! is done when it fails.
//!
//! Knows nothing of tasks beyond their id, and never runs a tool. Invariant: an answer leaves here
//! only when its provider said why it stopped; half a stream never becomes a tool call.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod answer;
mod attempt;
mod catalog;
mod classify;
mod client;
pub mod courier;
mod desk;
mod detect;
mod driven;
mod fault;
mod frames;
#[doc(hidden)]
pub mod fuzz;
pub mod options;
mod probe;
mod provider;
mod render;
mod replay;
mod retry;
mod router;
mod union;

pub use detect::{Detection, KeySeen, ServerSeen, ServerState, detect, keys_seen};
pub use options::Options;
pub use provider::{Environment, Target, key_variables, variables};
pub use router::{Router, default_model};
