//! What every `BlobStore` keeps.
//!
//! Knows nothing of files or keys. Invariant checked above all: `get` gives the very bytes that
//! were `put`, or a fault.

use bytes::Bytes;
use std::collections::BTreeSet;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::BlobStore;
use tinkerbell_core::words::{Owner, Subject, TaskId};

/// Opens the store of that name, making it when it is new.
pub trait Open: Fn(&str) -> Result<Arc<dyn BlobStore>, Fault> {}
impl<F: Fn(&str) -> Result<Arc<dyn BlobStore>, Fault>> Open for F {}

/// Runs the whole suite.
///
/// # Panics
/// When the adapter breaks a promise of the port.
pub async fn suite(open: impl Open) {
    bytes_come_back_as_they_went_in(&open).await;
    the_same_bytes_have_the_same_reference(&open).await;
    many_can_put_the_same_bytes_at_once(&open).await;
}

/// Whose bytes these are.
pub const OWNER: Owner = Owner { subject: Subject(1000), task: TaskId(7) };

fn samples() -> Vec<Bytes> {
    let long: Vec<u8> = (0..300_000_u32).flat_map(u32::to_le_bytes).collect();
    vec![Bytes::new(), Bytes::from_static(b"x"), Bytes::from(vec![0; 16 * 1024 + 1]), Bytes::from(long)]
}

async fn bytes_come_back_as_they_went_in(open: &impl Open) {
    let store = open("same").expect("opens");
    let mut seen = BTreeSet::new();
    for sample in samples() {
        let blob = store.put(OWNER, sample.clone()).await.expect("stores");
        assert_eq!(blob.size_bytes, sample.len() as u64, "the reference carries the length");
        assert_eq!(store.get(blob).await.expect("reads"), sample, "bytes come back as they went in");
        assert!(seen.insert(blob), "different bytes have different references");
    }
}

async fn the_same_bytes_have_the_same_reference(open: &impl Open) {
    let mut first = Vec::new();
    for round in 0..3 {
        let store = open("twice").expect("opens");
        let mut blobs = Vec::new();
        for sample in samples() {
            blobs.push(store.put(OWNER, sample.clone()).await.expect("stores"));
            blobs.push(store.put(OWNER, sample).await.expect("stores again"));
        }
        if round > 0 {
            assert_eq!(blobs, first, "references survive reopening");
        }
        first = blobs;
        for (blob, sample) in first.iter().step_by(2).zip(samples()) {
            assert_eq!(store.get(*blob).await.expect("reads"), sample, "bytes survive reopening");
        }
    }
}

async fn many_can_put_the_same_bytes_at_once(open: &impl Open) {
    let store = open("many").expect("opens");
    let content = Bytes::from(vec![9; 50_000]);
    let putters: Vec<_> = (0..16)
        .map(|_| {
            let (store, content) = (Arc::clone(&store), content.clone());
            tokio::spawn(async move { store.put(OWNER, content).await })
        })
        .collect();
    let mut blobs = BTreeSet::new();
    for putter in putters {
        blobs.insert(putter.await.expect("putter ends").expect("stores"));
    }
    assert_eq!(blobs.len(), 1, "all got the same reference");
    for blob in blobs {
        assert_eq!(store.get(blob).await.expect("reads"), content, "bytes come back");
    }
}
