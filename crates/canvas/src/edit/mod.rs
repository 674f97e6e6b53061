//! The edit engine: patches, replacements and whole files become one list of edits, applied to a
//! view in memory.
//!
//! Pure: it reads no file and writes none; `tools` brings the bytes and takes the changes away.
//! Invariant: either every edit applies and all changes are returned, or none is and the refusal
//! quotes the text that the model needs for its next try.

#[doc(hidden)]
pub mod any;
mod closest;
mod engine;
mod hunks;
mod ladder;
mod omission;
mod op;
mod patch;
mod path;
mod refusal;
mod text;

pub use engine::{Change, apply};
pub use ladder::{Level, Shift};
pub use op::{Edit, Entry, Hunk, HunkLine, Sign, View};
pub use patch::parse;
pub use path::relative;
pub use refusal::{Refusal, quote};
pub use text::{NotText, Text};

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
