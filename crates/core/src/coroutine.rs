//! The coroutine: a task that thinks between effects, as data.
//!
//! A suspended coroutine is its saved state, not a future and not a stack. Invariant: the same
//! state and input give the same yield, on any machine, for ever.

use crate::clock::Stamp;
use crate::effect::EffectClass;
use crate::event::{Action, Finished, Observation};
use crate::words::{Lsn, Seq};

/// What resumes a coroutine.
#[derive(Debug, Clone, PartialEq)]
pub struct Input {
    /// What happened.
    pub event: Wake,
    /// The newest record of the task that the coroutine may know of.
    pub lsn: Lsn,
    /// The moment; the coroutine has no other clock.
    pub now: Stamp,
    /// Chance; the coroutine has no other source of it.
    pub entropy: u128,
}

/// The kinds of event that resume a coroutine.
#[derive(Debug, Clone, PartialEq)]
pub enum Wake {
    /// The task begins.
    Started,
    /// The state was loaded again: yield the pending intent once more.
    Resumed,
    /// The pending effect's outcome.
    Observed(Observation),
    /// The user spoke when the coroutine believed it was done.
    Told,
}

/// What a coroutine gives back.
#[derive(Debug, Clone, PartialEq)]
pub enum Yielded {
    /// It wants this effect, and waits for its observation.
    Intent {
        /// The effect's number.
        seq: Seq,
        /// Its class.
        class: EffectClass,
        /// What.
        action: Action,
    },
    /// It is done.
    Done(Finished),
}

/// A state that can not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A newer release wrote it.
    #[error("the task's state has version {found}, this release reads up to {known}; upgrade tinkerbell")]
    Newer {
        /// Version found.
        found: u32,
        /// Newest version known.
        known: u32,
    },
    /// It is damaged.
    #[error("the task's state is unreadable: {0}")]
    Damaged(String),
}

/// A cooperative task.
pub trait Coroutine: Sized {
    /// Thinks until the next effect. No I/O, no clock, no chance.
    fn resume(&mut self, input: Input) -> Yielded;
    /// The state as bytes, small (512 bytes typically).
    fn save(&self) -> Vec<u8>;
    /// Reads what `save` of this or an earlier version wrote.
    ///
    /// # Errors
    /// [`LoadError`] when the bytes are damaged or newer than this release.
    fn load(state: &[u8]) -> Result<Self, LoadError>;
}
