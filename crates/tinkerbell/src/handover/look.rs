//! The look that a new binary takes before anything is touched: can it read what is kept?
//!
//! Read-only and beside the daemon that still writes. Invariant: what is not known for certain to be
//! readable is refused, with the record's number.

use super::wire::Parcel;
use std::path::Path;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event;
use tinkerbell_wal::inspect;

/// Looks at every record's type and version, and at the versions of live tasks; returns the number
/// of records.
///
/// # Errors
/// What can not be read, in one line.
pub fn look(journal: &Path, parcel: &Parcel) -> Result<u64, String> {
    let newest = tinkerbell_agent::format::VERSION;
    if let Some(state) = parcel.states.iter().find(|state| **state > newest) {
        return Err(format!("a live task has state version {state}, and this release reads up to {newest}"));
    }
    if !journal.exists() {
        return Ok(0);
    }
    let kinds = inspect::kinds(journal).map_err(|error| Fault::from(error).message)?;
    if let Some(((kind, schema), lsn)) = kinds.found.iter().find(|((kind, schema), _)| !event::is_known(*kind, *schema)) {
        return Err(format!("record {lsn} has type {kind} in version {schema}, which this release does not know"));
    }
    match kinds.damage {
        Some(damage) => Err(damage),
        None => Ok(kinds.records),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use std::sync::Arc;
    use tinkerbell_core::port::{Journal as _, NewRecord};
    use tinkerbell_core::words::Subject;
    use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};
    use tinkerbell_wal::{Options, Wal};

    async fn journal(dir: &Path, kind: u16, schema: u8) {
        let wal = Wal::open(Options::new(dir.to_owned()), Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(1))).unwrap();
        let record = |kind, schema| NewRecord { kind, schema, task: None, subject: Subject(0), blob: false, payload: Bytes::new() };
        wal.append(vec![record(17, 1), record(kind, schema)]).unwrap().durable.await.unwrap();
        wal.close().await.unwrap();
    }

    #[tokio::test]
    async fn what_this_release_does_not_know_is_refused_by_number() {
        for (kind, schema, said) in [(18, 1, None), (18, 2, Some("record 2 has type 18 in version 2")), (900, 1, Some("type 900"))] {
            let dir = tempfile::tempdir().unwrap();
            journal(dir.path(), kind, schema).await;
            let seen = look(dir.path(), &Parcel::default());
            match said {
                None => assert_eq!(seen, Ok(2)),
                Some(text) => assert!(seen.as_ref().unwrap_err().contains(text), "{seen:?}"),
            }
        }
    }

    #[test]
    fn a_newer_state_of_a_live_task_is_refused_and_an_empty_place_is_not() {
        let none = Path::new("/nonexistent/journal");
        assert_eq!(look(none, &Parcel { states: vec![1], ..Parcel::default() }), Ok(0));
        assert!(look(none, &Parcel { states: vec![99], ..Parcel::default() }).unwrap_err().contains("99"));
    }
}
