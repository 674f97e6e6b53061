//! Content-addressed bytes on disk, one file each.
//!
//! It knows nothing of tasks, packs or remote stores. A blob is named by its BLAKE3 under a random key
//! of this installation, because a plain hash would tell a reader of names which known bytes we hold.
//! Invariant: a reference is given out only once its bytes are on stable storage, and bytes are given
//! out only if they match their reference.

mod error;
mod key;
mod store;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use store::DiskBlobs;
