//! Append-only journal: segments, checksums, hash chain, recovery.
//!
//! It knows types, versions and bytes, never tasks' meaning. A call of `append` gets its numbers at
//! once; one flusher thread writes what has gathered, syncs, and wakes the owners, so under load one
//! sync serves many callers. Invariant: a record is acknowledged and visible only after the
//! `fdatasync` that covers it returned, and an acknowledged record is never dropped silently:
//! opening has it, or refuses and names it.
//!
//! **Torn or corrupt.** A batch is written only after the batch before it is durable. Damaged bytes
//! with proof that they had been acknowledged (a watermark slot in the segment's header, a later
//! batch, a later segment, a clean shutdown) are corrupt, and opening refuses. Without such proof
//! they are torn and are cut. The watermark is written once nothing was acknowledged for 5 ms, so
//! two ends stay open: media damage to the very last batch within those milliseconds, or to it and
//! to the slots together, can not be told from a torn write.
//! Whole segments missing at the end can not be noticed without an outside anchor either.

pub mod archive;
mod checkpoint;
mod compact;
mod depot;
pub mod disk;
mod error;
mod flush;
mod format;
mod housekeeping;
mod index;
pub mod inspect;
mod journal;
mod options;
mod queue;
mod read;
mod recover;
mod scan;
mod seal;
mod survey;
mod writer;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use journal::Wal;
pub use options::Options;
pub use recover::Recovery;
