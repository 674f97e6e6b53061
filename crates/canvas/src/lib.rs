//! Virtual canvas over a git tree: edits, checkpoints, micro-commits, undo, landing.

pub mod edit;
