//! A journal and a blob store in memory that survive a simulated crash.
//!
//! Not a model of a disk: what is durable is all there, what is not is gone. Invariant: after the
//! fuse has burnt, nothing more becomes durable and nobody is told that it did.

use bytes::Bytes;
use futures_util::future::{self, BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{Appended, BlobStore, Journal, NewRecord, Record};
use tinkerbell_core::words::{BlobRef, Lsn};

/// What survives a crash.
#[derive(Debug, Default)]
struct Disk {
    records: Vec<Record>,
    blobs: BTreeMap<BlobRef, Bytes>,
    epoch: u64,
}

/// A disk that several journals may be opened on, one after another.
#[derive(Debug, Clone, Default)]
pub struct MemDisk {
    disk: Arc<Mutex<Disk>>,
}

impl MemDisk {
    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All durable records.
    #[must_use]
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.clone()
    }

    /// Opens a journal that loses power after `fuse` further records; `None` for never.
    #[must_use]
    pub fn journal(&self, fuse: Option<usize>) -> Arc<MemJournal> {
        let mut disk = self.lock();
        disk.epoch += 1;
        let left = fuse.map_or(usize::MAX, |fuse| fuse);
        Arc::new(MemJournal { disk: self.clone(), epoch: disk.epoch, state: Mutex::new(Power { left, on: true }) })
    }
}

#[derive(Debug)]
struct Power {
    left: usize,
    on: bool,
}

/// The journal.
#[derive(Debug)]
pub struct MemJournal {
    disk: MemDisk,
    epoch: u64,
    state: Mutex<Power>,
}

impl Journal for MemJournal {
    fn append(&self, records: Vec<NewRecord>) -> Result<Appended, Fault> {
        let mut power = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let mut disk = self.disk.lock();
        let first = Lsn(disk.records.len() as u64 + 1);
        let last = Lsn(first.0 + records.len() as u64 - 1);
        if !power.on || records.len() > power.left {
            // An append is atomic: all of it is lost, and its writer hears nothing.
            power.on = false;
            return Ok(Appended { first, last, durable: future::pending().boxed() });
        }
        power.left -= records.len();
        for (lsn, new) in (first.0..).zip(records) {
            let NewRecord { kind, schema, task, blob, payload } = new;
            disk.records.push(Record { lsn: Lsn(lsn), kind, schema, task, blob, payload });
        }
        Ok(Appended { first, last, durable: future::ready(Ok(())).boxed() })
    }

    fn read(&self, from: Lsn, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, Fault>> {
        let disk = self.disk.lock();
        let found = disk.records.iter().filter(|record| record.lsn >= from).take(limit).cloned().collect();
        future::ready(Ok(found)).boxed()
    }

    fn tip(&self) -> Lsn {
        Lsn(self.disk.lock().records.len() as u64)
    }

    fn epoch(&self) -> u64 {
        self.epoch
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Fault>> {
        future::ready(Ok(())).boxed()
    }
}

impl BlobStore for MemDisk {
    fn put(&self, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        let mut hash = [0_u8; 32];
        for (salt, part) in (0_u64..).zip(hash.chunks_mut(8)) {
            let mut hasher = DefaultHasher::new();
            (salt, &content).hash(&mut hasher);
            part.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        let blob = BlobRef { key_id: 1, hash, size_bytes: content.len() as u64 };
        self.lock().blobs.insert(blob, content);
        future::ready(Ok(blob)).boxed()
    }

    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        let found = self.lock().blobs.get(&blob).cloned();
        future::ready(found.ok_or_else(|| Fault::new("TB-BLOB-001", exit::FAILED, format!("blob {blob} is missing")))).boxed()
    }

    fn remove(&self, blob: BlobRef) -> BoxFuture<'_, Result<(), Fault>> {
        self.lock().blobs.remove(&blob);
        future::ready(Ok(())).boxed()
    }
}
