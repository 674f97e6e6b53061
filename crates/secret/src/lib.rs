//! Secrets: a value that does not show itself, and texts without the values that are known.
//!
//! Ground floor, beside `core`: no I/O, no clock, no environment; where values come from is told
//! elsewhere. Invariant: `expose` is the only way to a value, and what passes a redactor holds no
//! known value in any of the forms in which values travel, however the text was cut into pieces.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod forms;
#[doc(hidden)]
pub mod fuzz;
mod known;
mod locator;
mod patterns;
mod provider;
mod redactor;
mod secret;
mod stream;
mod trie;

pub use known::{Known, MOST_VALUES, OF_REPOSITORY};
pub use locator::{in_git_config, in_url, included_in_git_config};
pub use patterns::hide as hide_patterns;
pub use provider::{Refused, SecretProvider};
pub use redactor::{Redactor, SHORTEST, has_hole};
pub use secret::{Lookup, Named, Secret, Shared};
pub use stream::Stream;
