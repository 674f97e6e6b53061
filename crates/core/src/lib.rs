//! The language of the house: words, events, the pure lifecycle, and the ports.
//!
//! Everyone depends on this crate and it depends on nobody: no I/O, no async runtime, no clock,
//! no randomness. Invariant: the same inputs give the same outputs on any machine, for ever, because
//! replay after a crash stands on it.

pub mod amount;
pub mod approval;
pub mod clock;
pub mod code;
pub mod coroutine;
pub mod effect;
pub mod event;
pub mod layer;
pub mod lifecycle;
pub mod marks;
pub mod model;
pub mod money;
pub mod port;
pub mod protected;
pub mod text;
pub mod tool;
pub mod words;
