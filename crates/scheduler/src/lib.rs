//! The engine: the single writer of the journal, and what drives every task.
//!
//! It resumes coroutines, journals each intent before the act and each observation before the next
//! thought, keeps leases and budgets, and serves the doors. It knows no model, no git and no
//! process: those are behind ports. Invariant: nothing is acknowledged before it is durable, and
//! no effect whose observation is recorded is ever acted again.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod admission;
mod drive;
mod effects;
mod engine;
mod format;
mod halt;
mod keys;
mod lookup;
mod metered;
mod operate;
mod past;
pub mod questions;
pub mod queue;
mod record;
mod replay;
mod rest;
mod rules;
mod runtime;
mod service;
mod slot;
mod table;
#[cfg(test)]
mod tests;
mod timers;
mod turns;
mod upkeep;
mod waits;
mod watch;

pub use engine::{Admission, Deps, Engine, Halt, Options};
pub use rules::Rules;
