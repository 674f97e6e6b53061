//! Contract suites: what every adapter of a port must keep, whoever wrote it.
//!
//! A suite knows the port and nothing of the adapter. Invariant: an adapter is wired only after its
//! own tests run the suite.

// A suite is a test that lives outside its crate; tests may fail loudly.
#![allow(clippy::expect_used, clippy::panic)]

pub mod blobs;
pub mod canvas;
pub mod journal;
pub mod keyring;
pub mod model;
pub mod sandbox;
pub mod secrets;
