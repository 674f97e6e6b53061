//! The mind: the turn as a coroutine, the context a model sees, and the driver of the effects.
//!
//! Not here: tools (executor), models (router), the journal (scheduler); they come in through ports.
//! Invariant: the coroutine is pure, so a replay of the journal yields the same intents.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod builtin;
mod context;
mod driver;
mod fingerprint;
pub mod format;
pub mod options;
mod prompt;
mod rescue;
mod survey;
mod turn;

pub use driver::{AgentRunner, Deps, EnvOf, OptionsOf};
pub use options::{Options, Project, ReadProject};
pub use turn::{Facts, Turn};

/// The tools in the order in which every request lists them; others follow by name.
pub const TOOL_ORDER: [&str; 10] = ["exec", "exec_send", "exec_wait", "read", "search", "edit", "write", "apply_patch", "plan", "ask"];
