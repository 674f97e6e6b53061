//! The door for programs: the public JSON, HTTP over a Unix socket, and the client for it.
//!
//! Knows the engine only as `Arc<dyn Runtime>` and the process around it as `Arc<dyn Daemon>`.
//! Invariant: nobody but the owner of the process gets an answer beyond a refusal.

pub mod client;
pub mod server;
pub mod socket;
pub mod wire;

pub use client::Client;
pub use server::{Daemon, ServerState, serve};

/// The release, as client and server compare it.
pub const RELEASE: &str = env!("CARGO_PKG_VERSION");
