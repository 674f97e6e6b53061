//! The port to where secrets come from.
//!
//! It stands here and not among the other ports because `core` does not know the type of a value.
//! Invariant: a value passes the port as a [`Secret`](crate::Secret) and in no other form; in what is
//! refused there is none.

use crate::secret::Shared;
use std::ffi::OsStr;

/// A kind of place that holds secrets: files, variables; later a server that keeps them.
///
/// Looks never wait for a network: a provider that asks over one gives what it fetched last, and
/// fetches by itself. Every provider passes `testkit::contract::secrets`.
pub trait SecretProvider: Send + Sync {
    /// The value that a place holds now; `None` where it holds none, or an empty one. What changed
    /// there counts at the next look. Blocks for as long as a file of 64 KiB takes to read; may be
    /// called by many threads at once.
    ///
    /// # Errors
    /// [`Refused`] where there is something that must not be used, or can not be read.
    fn value(&self, place: &OsStr) -> Result<Option<Shared>, Refused>;
    /// When the value last changed, in seconds since the epoch; `None` where nobody can tell.
    fn changed_s(&self, place: &OsStr) -> Option<i64>;
    /// What a person does so that a place holds a value: one line, mostly a command.
    fn remedy(&self, place: &OsStr) -> String;
}

/// Why a value is not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// In words that follow the place's name: `its mode 644 lets others read it`.
    pub why: String,
    /// What a person does about it, where that is known.
    pub hint: Option<String>,
}

impl Refused {
    /// Without a hint.
    #[must_use]
    pub fn because(why: impl Into<String>) -> Self {
        Self { why: why.into(), hint: None }
    }
}
