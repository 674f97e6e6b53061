//! Content-addressed bytes on disk, sealed with the keys of their subjects, in append-only packs.
//!
//! It knows owners and keys, never what a task means. A blob is named by its BLAKE3 under a key of its
//! subject, because a plain hash would tell a reader of names which known bytes we hold. Invariant: a
//! reference is given out only once its bytes are on stable storage, and bytes are given out only if
//! they match their reference.

mod compact;
mod error;
mod format;
mod index;
mod legacy;
mod pack;
mod seal;
mod shelf;
mod store;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use store::{DiskBlobs, MOST_BYTES};
