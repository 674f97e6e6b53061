//! `wal export`: every record as one line of JSON.
//!
//! Reads without the lock, one segment at a time. Invariant: the payload stands in each line as its
//! very bytes, so nothing is lost by what this release can not name.

use super::super::text::moment;
use super::super::{Shop, keys};
use super::{details, is_missing, kind_name};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::sync::Arc;
use tinkerbell_blobs::DiskBlobs;
use tinkerbell_cli::Output;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event;
use tinkerbell_core::port::{BlobStore, Keyring};
use tinkerbell_core::words::BlobRef;
use tinkerbell_wal::disk::{Disk as _, Lock, RealDisk};
use tinkerbell_wal::inspect::{self, Entry, Filter};
use tokio::sync::mpsc;

/// Records that wait to be printed.
const AHEAD: usize = 64;

/// Prints all records, or those of the task with this prefix.
///
/// # Errors
/// The damage that ended the list early, with exit code 1, why the journal or a blob can not be read,
/// or that a daemon runs where blobs are asked for.
pub async fn export(shop: &Shop<'_>, task: Option<&str>, blobs: bool, out: &Output) -> Result<u8, Fault> {
    if is_missing(shop, out) {
        return Ok(exit::DONE);
    }
    let dir = shop.places.journal();
    // One process at a time may have the blobs open; the journal's lock tells who that is.
    let (held, store) = if blobs { opened(shop).map(|(held, store)| (Some(held), Some(store)))? } else { (None, None) };
    let prefix = task.map(str::to_ascii_lowercase);
    // Without its keys the journal can be exported still; what is sealed says so.
    let keyring = keys::open(shop).inspect_err(|fault| out.talk(&format!("note: {fault}"))).ok();
    let (send, mut entries) = mpsc::channel::<Entry>(AHEAD);
    let reader = tokio::task::spawn_blocking(move || {
        inspect::stream(&dir, &Filter::default(), keyring.as_deref().map(|keys| keys as &dyn Keyring), &mut |entry| {
            let text = entry.task.map(|task| task.to_string()).unwrap_or_default();
            if prefix.as_ref().is_none_or(|prefix| text.starts_with(prefix.as_str())) {
                // Whoever reads the lines has enough of them.
                drop(send.blocking_send(entry));
            }
        })?;
        inspect::verify(&dir)
    });
    while let Some(entry) = entries.recv().await {
        out.data(&line(&entry, store.as_deref()).await?);
        if out.is_closed() {
            entries.close();
            break;
        }
    }
    let ended = |error| Fault::new("TB-WAL-003", exit::INTERNAL, format!("the journal's reading ended early: {error}"));
    let damage = reader.await.map_err(ended)??.damage;
    drop(held);
    match damage {
        None => Ok(exit::DONE),
        Some(damage) => Err(Fault { exit: exit::FAILED, ..Fault::from(damage) }),
    }
}

type Held = Box<dyn Send + Sync>;

fn opened(shop: &Shop<'_>) -> Result<(Held, Arc<dyn BlobStore>), Fault> {
    let dir = shop.places.journal();
    let failed = |error: std::io::Error| Fault::new("TB-WAL-003", exit::UNAVAILABLE, format!("cannot lock {}: {error}", dir.display()));
    match RealDisk::existing(dir.clone()).lock().map_err(failed)? {
        Lock::Held(held) => Ok((held, DiskBlobs::open(shop.places.data.join("blobs"), keys::open(shop)?)?)),
        Lock::Taken { pid } => Err(Fault::from(tinkerbell_wal::Error::Locked { dir, pid })
            .hint("stop the daemon first: tinkerbell daemon stop; without `--blobs` the journal is read beside it")),
    }
}

async fn line(entry: &Entry, store: Option<&dyn BlobStore>) -> Result<String, Fault> {
    let mut value = json!({
        "lsn": entry.lsn.0,
        "time": moment(entry.batch_wall_ms),
        "task": entry.task.map(|task| task.to_string()),
        "kind": entry.kind,
        "event": kind_name(entry.kind),
    });
    let mut payload = entry.payload.clone();
    let mut is_whole = !entry.blob;
    if let (true, Some(blob)) = (entry.blob, BlobRef::from_bytes(&entry.payload)) {
        put(&mut value, "blob", blob.to_string().into());
        if let Some(store) = store {
            payload = store.get(blob).await?;
            is_whole = true;
        }
    }
    if let Some(why) = &entry.sealed {
        put(&mut value, "sealed", why.clone().into());
    } else if is_whole {
        match event::decode(entry.lsn, &payload) {
            Ok((at_ms, event)) => {
                put(&mut value, "time", moment(at_ms).into());
                put(&mut value, "event", event.name().into());
                put(&mut value, "details", details(&event).into());
            }
            Err(error) => put(&mut value, "unreadable", error.why.to_string().into()),
        }
    }
    if is_whole && entry.sealed.is_none() {
        put(&mut value, "payload", STANDARD.encode(&payload).into());
    }
    Ok(value.to_string())
}

fn put(value: &mut serde_json::Value, key: &str, what: serde_json::Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(key.to_owned(), what);
    }
}
