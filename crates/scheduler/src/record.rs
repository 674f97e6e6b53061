//! Events to journal records and back.
//!
//! Large payloads become blobs here, so that the log never embeds a transcript. Invariant: a
//! record that refers to a blob is appended only after the blob is durable.

use bytes::Bytes;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::{self, Event, Placed};
use tinkerbell_core::port::{BlobStore, NewRecord, Record};
use tinkerbell_core::words::{BlobRef, Owner};

/// The code of a blob that is not there.
pub(crate) const BLOB_MISSING: &str = "TB-BLOB-001";
/// Payloads above this go to the blob store (`durability` design: 16 KiB).
pub(crate) const INLINE_BYTES: usize = 16 * 1024;

/// Encodes events of one task; large ones are stored first and referred to.
pub(crate) async fn pack(blobs: &dyn BlobStore, owner: Owner, at_ms: u64, events: &[Event]) -> Result<Vec<NewRecord>, Fault> {
    let mut records = Vec::with_capacity(events.len());
    for event in events {
        let mut record = inline(owner, at_ms, event);
        if record.payload.len() > INLINE_BYTES {
            let blob = blobs.put(owner, record.payload).await?;
            record.payload = Bytes::from(blob.to_bytes());
            record.blob = true;
        }
        records.push(record);
    }
    Ok(records)
}

/// Encodes an event that is known to be small.
pub(crate) fn inline(owner: Owner, at_ms: u64, event: &Event) -> NewRecord {
    let payload = Bytes::from(event::encode(event.clone(), at_ms));
    NewRecord { kind: event.kind(), schema: event::SCHEMA, task: Some(owner.task), subject: owner.subject, blob: false, payload }
}

/// Decodes a record, fetching its payload where it is a blob.
pub(crate) async fn unpack(blobs: &dyn BlobStore, record: Record) -> Result<Option<Placed>, Fault> {
    let Some(task) = record.task else { return Ok(None) };
    let payload = if record.blob {
        let blob = BlobRef::from_bytes(&record.payload).ok_or_else(|| unreadable(&record, "its blob reference is damaged"))?;
        blobs.get(blob).await?
    } else {
        record.payload.clone()
    };
    let (at_ms, event) = event::decode(record.lsn, &payload).map_err(|error| unreadable(&record, &error.to_string()))?;
    Ok(Some(Placed { lsn: record.lsn, at_ms, task, event }))
}

fn unreadable(record: &Record, why: &str) -> Fault {
    Fault::new("TB-SCHED-001", exit::INTERNAL, format!("record {} can not be read: {why}", record.lsn))
        .hint("a newer release may have written it: upgrade tinkerbell")
        .hint("else inspect it with `tinkerbell wal dump` and report it")
}
