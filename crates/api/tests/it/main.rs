//! The door as programs meet it: goldens of the public JSON, and round trips over a real socket
//! with an engine in memory.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod fake;
mod golden;
mod hostile;
mod journey;
