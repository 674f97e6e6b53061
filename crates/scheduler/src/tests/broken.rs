//! A journal that takes no more records: everybody who waits for that must hear of it.

use super::submission;
use super::world::{Script, World};
use crate::Options;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{Appended, Compaction, Journal, JournalState, Needed, NewRecord, Record, Runtime as _};
use tinkerbell_core::words::Lsn;
use tinkerbell_testkit::fake::FakeClock;
use tinkerbell_testkit::memory::{MemDisk, MemJournal};

/// Refuses every append once it is told to.
struct Refusing {
    inner: Arc<MemJournal>,
    refuses: AtomicBool,
}

impl Journal for Refusing {
    fn append(&self, records: Vec<NewRecord>) -> Result<Appended, Fault> {
        if self.refuses.load(Ordering::SeqCst) {
            return Err(Fault::new("TB-WAL-005", exit::UNAVAILABLE, "the journal stopped accepting records"));
        }
        self.inner.append(records)
    }
    fn read(&self, from: Lsn, limit: usize) -> BoxFuture<'_, Result<Vec<Record>, Fault>> {
        self.inner.read(from, limit)
    }
    fn state(&self) -> JournalState {
        self.inner.state()
    }
    fn checkpoint(&self, through: Lsn, image: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        self.inner.checkpoint(through, image)
    }
    fn restore(&self) -> BoxFuture<'_, Result<Option<(Lsn, Bytes)>, Fault>> {
        self.inner.restore()
    }
    fn compact(&self, needed: Needed) -> BoxFuture<'_, Result<Compaction, Fault>> {
        self.inner.compact(needed)
    }
    fn close(&self) -> BoxFuture<'_, Result<(), Fault>> {
        self.inner.close()
    }
}

/// The simulator found it: a watermark could not be written while no batch was on its way.
#[tokio::test]
async fn a_journal_that_breaks_while_nothing_is_on_its_way_is_told_of() {
    let (disk, world) = (MemDisk::default(), World::default());
    let journal = Arc::new(Refusing { inner: disk.journal(None), refuses: AtomicBool::new(false) });
    let engine = world.engine_on(journal.clone(), &disk, Script::effects(1), (&FakeClock::new(), Options::default())).await;
    let waiting = tokio::spawn({
        let engine = engine.clone();
        async move { engine.broken().await }
    });
    world.settle().await;
    journal.refuses.store(true, Ordering::SeqCst);
    assert!(engine.submit(submission()).await.is_err());
    let fault = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("nobody was told").unwrap();
    assert_eq!(fault.code.0, "TB-WAL-005");
}
