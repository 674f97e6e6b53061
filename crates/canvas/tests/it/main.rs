//! The canvas against real repositories, with the real git as oracle.
//!
//! One binary for all integration tests. Invariant: each test has its own repository and data
//! directory, so they run in parallel and leave nothing behind.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr, missing_docs)]

mod astray;
mod hostile;
mod house;
mod land;
mod layers;
mod layers_killed;
mod mapped;
mod measure;
mod random;
mod work;
