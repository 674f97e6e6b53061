//! MCP servers: programs that offer tools to a model, started by the operator's configuration.
//!
//! Each runs under a keeper in a sandbox of its own; what it says about its tools is pinned, and what
//! it answers is data. Not here: the sandbox (executor), rules about calls (security). Invariant: no
//! text of a server reaches the model, and no call reaches a server, before a person agreed to this
//! very program and these very descriptions.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod answer;
mod begin;
#[cfg(test)]
mod bench;
mod desk;
mod error;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
mod lines;
mod offer;
pub mod options;
mod pin;
mod plain;
mod reader;
mod server;
mod store;
mod tools;
mod wire;

pub use desk::{Desks, Inspected};
pub use error::Error;
pub use plain::plain;
pub use server::{MOST_NAME, Server};
pub use store::{Approvals, Remembered};
pub use tools::all;
