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
use tinkerbell_core::port::{Appended, BlobStore, Compaction, Journal, JournalState, Needed, NewRecord, Record, Room};
use tinkerbell_core::words::{BlobRef, Lsn, Owner};

/// What survives a crash.
#[derive(Debug, Default)]
struct Disk {
    records: Vec<Record>,
    tip: Lsn,
    checkpoint: Option<(Lsn, Bytes)>,
    blobs: BTreeMap<(Owner, BlobRef), Bytes>,
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
        let first = disk.tip.next();
        let last = Lsn(first.0 + records.len() as u64 - 1);
        if !power.on || records.len() > power.left {
            // An append is atomic: all of it is lost, and its writer hears nothing.
            power.on = false;
            return Ok(Appended { first, last, durable: future::pending().boxed() });
        }
        power.left -= records.len();
        disk.tip = last;
        for (lsn, new) in (first.0..).zip(records) {
            let NewRecord { kind, schema, task, subject: _, blob, payload } = new;
            disk.records.push(Record { lsn: Lsn(lsn), kind, schema, task, blob, payload });
        }
        Ok(Appended { first, last, durable: future::ready(Ok(())).boxed() })
    }

    fn read(&self, from: Lsn, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, Fault>> {
        let disk = self.disk.lock();
        let found = disk.records.iter().filter(|record| record.lsn >= from).take(limit).cloned().collect();
        future::ready(Ok(found)).boxed()
    }

    fn state(&self) -> JournalState {
        let disk = self.disk.lock();
        JournalState {
            tip: disk.tip,
            epoch: self.epoch,
            bytes: disk.records.iter().map(|r| r.payload.len() as u64).sum(),
            room: Room::Ample,
            damage: None,
        }
    }

    fn checkpoint(&self, through: Lsn, image: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        if self.state.lock().unwrap_or_else(PoisonError::into_inner).on {
            self.disk.lock().checkpoint = Some((through, image));
        }
        future::ready(Ok(())).boxed()
    }

    fn restore(&self) -> BoxFuture<'_, Result<Option<(Lsn, Bytes)>, Fault>> {
        future::ready(Ok(self.disk.lock().checkpoint.clone())).boxed()
    }

    fn compact(&self, needed: Needed) -> BoxFuture<'_, Result<Compaction, Fault>> {
        let mut disk = self.disk.lock();
        let before = disk.records.len();
        disk.records.retain(|record| needed(record.lsn, record.kind, record.task));
        let dropped = (before - disk.records.len()) as u64;
        future::ready(Ok(Compaction { dropped, ..Compaction::default() })).boxed()
    }

    fn close(&self) -> BoxFuture<'_, Result<(), Fault>> {
        future::ready(Ok(())).boxed()
    }
}

impl BlobStore for MemDisk {
    fn put(&self, owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        let mut hash = [0_u8; 32];
        for (salt, part) in (0_u64..).zip(hash.chunks_mut(8)) {
            let mut hasher = DefaultHasher::new();
            (salt, owner.subject, &content).hash(&mut hasher);
            part.copy_from_slice(&hasher.finish().to_le_bytes());
        }
        let blob = BlobRef { key_id: owner.subject.0, hash, size_bytes: content.len() as u64 };
        self.lock().blobs.entry((owner, blob)).or_insert(content);
        future::ready(Ok(blob)).boxed()
    }

    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        let found = self.lock().blobs.iter().find(|((_, known), _)| *known == blob).map(|(_, content)| content.clone());
        future::ready(found.ok_or_else(|| Fault::new("TB-BLOB-001", exit::FAILED, format!("blob {blob} is missing")))).boxed()
    }

    fn list(&self, owner: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        let found = self.lock().blobs.keys().filter(|(whose, _)| *whose == owner).map(|(_, blob)| *blob).collect();
        future::ready(Ok(found)).boxed()
    }

    fn forget(&self, owner: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        self.lock().blobs.retain(|(whose, _), _| *whose != owner);
        future::ready(Ok(())).boxed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::journal::compaction_drops_only_what_is_not_needed;

    #[tokio::test]
    async fn it_compacts_as_every_journal_does() {
        let disk = MemDisk::default();
        compaction_drops_only_what_is_not_needed(&|_: &str| Ok(disk.journal(None) as Arc<dyn Journal>)).await;
    }
}
