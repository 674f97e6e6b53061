//! The house as its user meets it: the real binary, real daemons, a scripted model on loopback.
//!
//! One binary for all of it, because linking is the dear part. Invariant: each test has a home, a
//! repository and a daemon of its own, and leaves none of them behind.
// Deadlines of tests are about the real world, so they ask the real clock.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::print_stderr)]

mod approvals;
mod attack;
mod bad_input;
mod builds;
mod canary;
mod courier;
mod durable;
mod egress;
mod elsewhere;
mod escapes;
mod halt;
mod home;
mod limits;
mod llm;
mod local_api;
mod mcp;
mod measured;
mod missing;
mod obedient;
mod overlay;
mod places;
mod policy;
mod provider;
mod repository;
mod risk;
mod sealed;
mod servers;
mod service;
mod terminal;
mod too_large;
mod torture;
mod trust;
mod undo;
mod upgrade;
mod yolo;
