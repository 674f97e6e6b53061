//! Virtual canvas over a git tree: edits, checkpoints, micro-commits, undo, landing.
//!
//! The house's only door to git. It never runs a hook, a filter or any other program, and never
//! writes the user's working tree, index, HEAD or branches except by landing. Invariant: whatever a
//! checkpoint recorded can be brought back byte for byte.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod base;
mod beneath;
mod borrowed;
mod budget;
mod canvas;
mod carry;
mod commit;
mod desk;
mod diff;
pub mod edit;
pub mod error;
mod found;
mod gitdir;
mod ignored;
mod index;
mod land;
mod layer;
mod lineends;
mod merge;
mod options;
mod patterns;
mod restore;
mod snapshot;
mod stale;
mod store;
mod sync;
pub mod tools;
mod trees;
mod unland;
mod user;
mod walk;
mod worktree;

pub use canvas::GitCanvas;
pub use options::{IgnoredFiles, Options};
