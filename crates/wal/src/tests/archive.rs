//! The archive: what goes in before it is dropped, and a journal that is built from it alone.

use super::compact::needs;
use super::record;
use crate::archive::format::{Entry, Manifest, digest};
use crate::archive::{Directory, Error, restore};
use crate::inspect::verify;
use crate::{Options, Wal};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{BlobStore, Journal, Record};
use tinkerbell_core::words::{BlobRef, Lsn, Owner};
use tinkerbell_testkit::contract;
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

fn open(dir: &Path, seed: u64) -> Arc<Wal> {
    let small = Options { segment_bytes: 20_000, ..Options::new(dir) };
    Wal::open(small, Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(seed))).unwrap()
}

async fn fill(wal: &Wal, from: u64, count: u64) {
    for n in from..from + count {
        wal.append(vec![record(&format!("n{n}"), 900)]).unwrap().durable.await.unwrap();
    }
}

async fn all(wal: &Wal) -> Vec<Record> {
    wal.read(Lsn(1), usize::MAX).await.unwrap()
}

/// A journal that was compacted with an archive, and everything that was ever written to it.
async fn archived(dir: &Path) -> Vec<Record> {
    let mut written = Vec::new();
    for round in 0..3 {
        let wal = open(&dir.join("journal"), round);
        wal.archive_to(Directory::create(dir.join("archive")).unwrap());
        fill(&wal, round * 100, 60).await;
        written.extend(wal.read(written.last().map_or(Lsn(1), |r: &Record| r.lsn.next()), usize::MAX).await.unwrap());
        while wal.compact(needs(|lsn| lsn % 50 == 1)).await.unwrap().segments > 0 {}
        wal.close().await.unwrap();
    }
    let wal = open(&dir.join("journal"), 9);
    assert!(all(&wal).await.len() < 40, "most records were dropped");
    wal.archive_to(Directory::create(dir.join("archive")).unwrap());
    let done = wal.archive_sealed().await.unwrap();
    assert!(done.segments > 0 && done.through >= written.last().unwrap().lsn.0, "{done:?}");
    assert_eq!(wal.archive_sealed().await.unwrap().segments, 0, "a second run has nothing to copy");
    wal.close().await.unwrap();
    written
}

async fn restored(dir: &Path) -> Result<crate::archive::Restored, Fault> {
    restore(&*Directory::existing(dir.join("archive")), &dir.join("restored")).await
}

#[tokio::test]
async fn a_plain_directory_keeps_the_contract_of_blobs() {
    let dir = tempfile::tempdir().unwrap();
    contract::blobs::suite(|name| Ok(Directory::create(dir.path().join(name))? as Arc<dyn BlobStore>)).await;
    let store = Directory::create(dir.path().join("listed")).unwrap();
    let owner = contract::blobs::OWNER;
    let mut put = Vec::new();
    for text in ["c", "a", "b", "a"] {
        put.push(store.put(owner, Bytes::from(text)).await.unwrap());
    }
    assert_eq!(Directory::existing(dir.path().join("listed")).list(owner).await.unwrap(), put[..3], "oldest first");
    store.forget(owner).await.unwrap();
    store.forget(owner).await.unwrap();
    assert!(store.list(owner).await.unwrap().is_empty());
    assert_eq!(store.get(put[0]).await.unwrap_err().code.0, "TB-WAL-017");
}

#[tokio::test]
async fn a_journal_is_built_from_its_archive_alone() {
    let dir = tempfile::tempdir().unwrap();
    let written = archived(dir.path()).await;
    std::fs::remove_dir_all(dir.path().join("journal")).unwrap();
    let report = restored(dir.path()).await.unwrap();
    assert!(report.segments > 10 && report.through >= written.last().unwrap().lsn.0, "{report:?}");
    let to = dir.path().join("restored");
    assert!(verify(&to).unwrap().damage.is_none());
    let wal = open(&to, 20);
    assert_eq!(all(&wal).await, written, "what compaction dropped from the journal is back");
    fill(&wal, 1_000, 1).await;
    // It is the same journal to the archive, and goes on with it.
    wal.archive_to(Directory::create(dir.path().join("archive")).unwrap());
    wal.close().await.unwrap();
    let wal = open(&to, 21);
    wal.archive_to(Directory::create(dir.path().join("archive")).unwrap());
    assert!(wal.archive_sealed().await.unwrap().segments > 0);
    assert_eq!(restored(dir.path()).await.unwrap_err().code.0, "TB-WAL-019");
}

#[tokio::test]
async fn a_compacted_journal_that_gets_an_archive_late_is_restored_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(&dir.path().join("journal"), 1);
    fill(&wal, 0, 60).await;
    while wal.compact(needs(|lsn| lsn % 50 == 1)).await.unwrap().segments > 0 {}
    wal.close().await.unwrap();
    for seed in 2..5 {
        let wal = open(&dir.path().join("journal"), seed);
        if seed != 3 {
            wal.archive_to(Directory::create(dir.path().join("archive")).unwrap());
        }
        fill(&wal, seed * 100, 60).await;
        while wal.compact(needs(|lsn| lsn % 50 == 1)).await.unwrap().segments > 0 {}
        wal.close().await.unwrap();
    }
    let wal = open(&dir.path().join("journal"), 9);
    wal.archive_to(Directory::create(dir.path().join("archive")).unwrap());
    wal.archive_sealed().await.unwrap();
    let needed: Vec<Record> = all(&wal).await.into_iter().filter(|record| record.lsn.0 % 50 == 1).collect();
    restored(dir.path()).await.unwrap();
    let back = all(&open(&dir.path().join("restored"), 10)).await;
    assert!(needed.iter().all(|record| back.contains(record)));
}

/// The archive's files, segments and manifests, in the order of storing.
fn files(dir: &Path) -> (Vec<PathBuf>, Vec<PathBuf>) {
    let of = |task: u128| {
        let home = dir.join("archive").join(format!("00000000-{task:032x}"));
        let mut found: Vec<PathBuf> = std::fs::read_dir(home).unwrap().map(|entry| entry.unwrap().path()).collect();
        found.sort();
        found
    };
    (of(1), of(2))
}

#[tokio::test]
async fn what_is_missing_or_damaged_is_named_and_nothing_is_restored() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(restored(dir.path()).await.unwrap_err().code.0, "TB-WAL-020");
    archived(dir.path()).await;
    let (segments, manifests) = files(dir.path());
    assert!(segments.len() > 10 && manifests.len() > 2);
    for (path, missing) in [(&segments[3], "blob 0-"), (&manifests[1], "manifest 2, before number 3")] {
        let whole = std::fs::read(path).unwrap();
        std::fs::remove_file(path).unwrap();
        let fault = restored(dir.path()).await.unwrap_err();
        assert_eq!((fault.code.0, fault.exit), ("TB-WAL-017", exit::FAILED));
        assert!(fault.message.contains(missing) && !fault.hints.is_empty(), "{fault}");
        std::fs::write(path, &whole).unwrap();
        for at in [0, 20, whole.len() / 2, whole.len() - 1] {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            std::fs::write(path, &bad).unwrap();
            assert_eq!(restored(dir.path()).await.unwrap_err().code.0, "TB-WAL-018", "byte {at}");
        }
        std::fs::write(path, &whole).unwrap();
    }
    assert!(!dir.path().join("restored").exists() && !dir.path().join("restored.restoring").exists());
    restored(dir.path()).await.unwrap();
}

#[tokio::test]
async fn an_archive_serves_one_journal() {
    let dir = tempfile::tempdir().unwrap();
    archived(dir.path()).await;
    let other = open(&dir.path().join("other"), 77);
    other.archive_to(Directory::create(dir.path().join("archive")).unwrap());
    fill(&other, 0, 300).await;
    let before = all(&other).await;
    assert_eq!(other.archive_sealed().await.unwrap_err().code.0, "TB-WAL-016");
    assert_eq!(other.compact(needs(|_| false)).await.unwrap_err().code.0, "TB-WAL-016");
    assert_eq!(all(&other).await, before, "nothing is dropped that the archive did not take");
}

/// Fails every fifth time.
struct Shaky(Arc<Directory>, AtomicU64);

impl Shaky {
    fn fails(&self) -> bool {
        self.1.fetch_add(1, Ordering::Relaxed) % 5 == 4
    }
}

impl BlobStore for Shaky {
    fn put(&self, owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        if self.fails() {
            return Box::pin(async { Err(Fault::new("TB-TEST-001", exit::UNAVAILABLE, "the store is away".to_owned())) });
        }
        self.0.put(owner, content)
    }
    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        self.0.get(blob)
    }
    fn list(&self, owner: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        self.0.list(owner)
    }
    fn forget(&self, owner: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        self.0.forget(owner)
    }
}

#[tokio::test]
async fn nothing_is_dropped_before_the_archive_has_it() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(&dir.path().join("journal"), 1);
    wal.archive_to(Arc::new(Shaky(Directory::create(dir.path().join("archive")).unwrap(), AtomicU64::new(0))));
    let (mut failures, mut dropped) = (0, 0);
    let mut written: Vec<Record> = Vec::new();
    for round in 0..30 {
        fill(&wal, round * 100, 20).await;
        written.extend(wal.read(written.last().map_or(Lsn(1), |r| r.lsn.next()), usize::MAX).await.unwrap());
        let before = all(&wal).await;
        match wal.compact(needs(|_| false)).await {
            Ok(done) => dropped += done.dropped,
            Err(fault) => {
                assert_eq!(fault.code.0, "TB-TEST-001");
                assert_eq!(all(&wal).await, before);
                failures += 1;
            }
        }
    }
    assert!(failures > 3 && dropped > 100, "{failures} failures, {dropped} dropped");
    restored(dir.path()).await.unwrap();
    let back = all(&open(&dir.path().join("restored"), 2)).await;
    let left = all(&wal).await;
    assert!(written.iter().all(|record| back.contains(record) || left.contains(record)), "every record is in one of both");
}

#[test]
fn a_manifest_survives_its_bytes_and_nothing_else() {
    let blob = BlobRef { key_id: 0, hash: [3; 32], size_bytes: 9 };
    let entry = Entry {
        name: "0000000000000001-0000000000000001.wal".to_owned(),
        first: 1,
        last: 44,
        size: 5_000,
        chain: [0; 32],
        chain_end: [1; 32],
        sha256: [2; 32],
        blob,
    };
    let manifest = Manifest { sequence: 3, before: digest(b"before"), made_ms: 11, entries: vec![entry.clone(), entry] };
    let bytes = manifest.encode();
    let golden = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/archive/manifest-1");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(golden.parent().unwrap()).unwrap();
        std::fs::write(&golden, &bytes).unwrap();
    }
    assert!(std::fs::read(golden).unwrap() == bytes, "the golden manifest differs from what this release writes");
    assert_eq!(Manifest::decode(&bytes).unwrap(), manifest);
    for at in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[at] ^= 1;
        assert!(Manifest::decode(&bad).is_err(), "byte {at}");
        assert!(Manifest::decode(&bytes[..at]).is_err(), "cut at {at}");
    }
    assert_eq!(Error::Empty.code(), "TB-WAL-020");
}
