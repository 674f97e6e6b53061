//! The router against the scripted server: every wire, every fault, real sockets on loopback.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod contract;
mod courier;
mod faults;
mod house;
mod modes;
mod prefix;
mod replays;
