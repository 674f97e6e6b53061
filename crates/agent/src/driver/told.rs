//! What is told of paths: a command chooses them, as many and as long as it likes.
//!
//! Invariant: a record and a text hold a bounded number of names, and no known secret among them.

use tinkerbell_core::event::{Connection, FileChange};
use tinkerbell_core::port::Guard;

/// Most files that a record lists; `tinkerbell diff` shows all.
const MOST_FILES: usize = 2_000;
/// Most bytes of their paths together.
const MOST_BYTES: usize = 256 * 1024;
/// Most names in a text for the model.
const MOST_NAMES: usize = 20;

/// The first of the files that changed, without secrets in their names.
pub fn files(guard: &dyn Guard, files: Vec<FileChange>) -> Vec<FileChange> {
    let mut room = MOST_BYTES;
    let fits = |file: &FileChange| {
        let fits = file.path.len() <= room;
        room = room.saturating_sub(file.path.len());
        fits
    };
    let clean = |file: FileChange| FileChange { path: guard.redact(&file.path), ..file };
    files.into_iter().take(MOST_FILES).take_while(fits).map(clean).collect()
}

/// The first of some names, and how many there are beside them.
pub fn names(guard: &dyn Guard, names: Vec<String>) -> Vec<String> {
    let more = names.len().saturating_sub(MOST_NAMES);
    let mut told: Vec<String> = names.into_iter().take(MOST_NAMES).map(|name| guard.redact(&name)).collect();
    told.extend((more > 0).then(|| format!("and {more} more")));
    told
}

/// A connection without secrets: host, path and method are texts that the command chose.
pub fn connection(guard: &dyn Guard, one: &Connection) -> Connection {
    let methods = one.methods.iter().map(|method| guard.redact(method)).collect();
    Connection { host: guard.redact(&one.host), why: guard.redact(&one.why), methods, ..one.clone() }
}
