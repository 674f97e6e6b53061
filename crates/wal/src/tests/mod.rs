//! Tests of the whole journal on a disk that lives in memory, and on the real one.

mod archive;
mod churn;
mod compact;
mod crash;
mod damage;
mod depot;
mod faults;
mod flips;
mod format;
mod heal;
mod memory;
mod mended;
mod old;
mod real;
mod repair;
mod seal;
mod stepped;
mod torture;
mod watermark;

use crate::disk::Disk;
use crate::old::Old;
use crate::read::read;
use crate::recover::recover;
use crate::{Error, Options, Wal};
use bytes::Bytes;
use memory::MemDisk;
use std::sync::{Arc, Mutex};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Appended, Journal, NewRecord, Record};
use tinkerbell_core::words::{Lsn, TaskId};
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

/// Small segments, so that a short trace crosses several.
fn options() -> Options {
    Options { segment_bytes: 6 * 1024, preallocate: Some(false), reserve_bytes: 0, boot_id: [0xb0; 16], ..Options::new("/nowhere") }
}

fn open_with(disk: &MemDisk, options: &Options, seed: u64) -> Result<Arc<Wal>, Error> {
    Wal::open_on(Arc::new(disk.clone()), options, Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(seed)))
}

fn open(disk: &MemDisk) -> Arc<Wal> {
    open_with(disk, &options(), 1).unwrap()
}

/// A record whose payload is `text`, padded to `size`.
fn record(text: &str, size: usize) -> NewRecord {
    let payload = format!("{text:<size$}");
    NewRecord {
        kind: 16,
        schema: 1,
        task: Some(TaskId(0xabc)),
        subject: tinkerbell_core::words::Subject(1),
        blob: false,
        payload: Bytes::from(payload),
    }
}

fn append(wal: &Wal, text: &str, size: usize) -> Appended {
    wal.append(vec![record(text, size)]).unwrap()
}

async fn put(wal: &Wal, text: &str, size: usize) -> Result<Lsn, Fault> {
    let appended = wal.append(vec![record(text, size)])?;
    appended.durable.await?;
    Ok(appended.last)
}

/// All records that recovery finds, in order; what it did not read is read by their readers.
fn everything(disk: &MemDisk) -> Result<Vec<Record>, Error> {
    let found = recover(disk)?;
    let shared: Arc<dyn Disk> = Arc::new(disk.clone());
    let old = Old::new(&shared, &Arc::new(Mutex::new(found.index)), found.unread, found.vouching, 0);
    read(disk, &|lsn| old.find(lsn), &mut crate::seal::Opener::new(None), 1, usize::MAX)
}

/// What recovery finds: the records' texts, in order.
fn recovered(disk: &MemDisk) -> Result<Vec<String>, Error> {
    let records = everything(disk)?;
    Ok(records.iter().map(|r| String::from_utf8_lossy(&r.payload).trim_end().to_owned()).collect())
}
