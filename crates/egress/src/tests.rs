//! The proxy from the side of a command, with a resolver of our own and sinks on loopback.
//!
//! Nothing leaves loopback. Invariant: a sink that must stay empty is asked after every attack.

mod attacks;
mod cost;
pub mod house;
mod sealed;
mod work;
