//! The sandbox as the house uses it, with real keepers, on every level that this host gives.
//!
//! Needs nothing but loopback and a temporary directory. Invariant: a level that the host does not
//! give is said to be skipped, never silently passed.
#![cfg(target_os = "linux")]
#![allow(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr
)]

#[path = "it/cost.rs"]
mod cost;
#[path = "it/house.rs"]
mod house;
#[path = "it/keeping.rs"]
mod keeping;
#[path = "it/killing.rs"]
mod killing;
#[path = "it/layers.rs"]
mod layers;
#[path = "it/limits.rs"]
mod limits;
#[path = "it/secrets.rs"]
mod secrets;
#[path = "it/toolchains.rs"]
mod toolchains;
#[path = "it/walls.rs"]
mod walls;
