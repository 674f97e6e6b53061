//! The way out of a sandbox: an allowlisting proxy for HTTP, CONNECT and SOCKS5.
//!
//! It runs outside the sandbox as a process of its own, one per command, and is the only way from the
//! command to any network. Which hosts are allowed is the operator's word; this crate reads, judges,
//! dials and writes down. Invariant: nothing is dialled that one rule did not allow by name, and no
//! address that was not tested after its one resolution.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod credential;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod hello;
pub mod host;
mod http;
pub mod options;
mod record;
pub mod rules;
mod serve;
mod socks;
#[cfg(test)]
mod tests;
mod tls;
mod tunnel;
pub mod wire;

pub use serve::{run, variables};
