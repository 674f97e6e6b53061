//! Append-only journal: segments, checksums, hash chain, recovery.
//!
//! It knows types, versions and bytes, never tasks' meaning. A call of `append` gets its numbers at
//! once; one flusher thread writes what has gathered, syncs, and wakes the owners, so under load one
//! sync serves many callers. Invariant: a record is acknowledged and visible only after the
//! `fdatasync` that covers it returned, and an acknowledged record is never dropped silently:
//! opening has it, or refuses and names it, or, where a checkpoint stands for it, every read of it
//! fails and names it.
//!
//! **Torn or corrupt.** A batch is written only after the batch before it is durable. Damaged bytes
//! with proof that they had been acknowledged (a watermark slot in the segment's header, a later
//! batch, a later segment, a clean shutdown) are corrupt, and opening refuses. Without such proof
//! they are torn and are cut. The watermark is written once nothing was acknowledged for 5 ms, so
//! two ends stay open: media damage to the very last batch within those milliseconds, or to it and
//! to the slots together, can not be told from a torn write. Nor can whole segments that are missing
//! at the end, without an outside anchor.
//!
//! **What opening reads.** Of segments whose numbers all lie below the newest checkpoint, only the
//! header: the checkpoint stands for them, so a start needs none of their records. They are verified
//! whole before their first record is read, before anything is compacted, and by a scrub behind the
//! opening. So a damaged record below the checkpoint does not refuse a start: every read of its
//! segment fails, and the journal's state tells of it. A damaged header, or a journal whose beginning
//! is missing, refuses at once. Above the checkpoint, and without one, everything is read at once.

pub mod archive;
mod checkpoint;
mod compact;
mod depot;
pub mod disk;
mod error;
mod flush;
mod format;
#[doc(hidden)]
pub mod fuzz;
mod housekeeping;
mod index;
pub mod inspect;
mod journal;
mod old;
mod options;
mod queue;
mod read;
mod recover;
pub mod repair;
mod scan;
mod seal;
mod share;
mod survey;
mod writer;

#[cfg(test)]
mod tests;

pub use error::Error;
pub use journal::Wal;
pub use options::Options;
pub use recover::Recovery;
