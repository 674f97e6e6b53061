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
    many_can_put_different_bytes_at_once(&open).await;
    equal_bytes_of_two_subjects_have_two_references(&open).await;
    an_owner_has_a_list(&open).await;
    forgetting_leaves_what_others_stored(&open).await;
}

/// Whose bytes these are.
pub const OWNER: Owner = Owner { subject: Subject(1000), task: TaskId(7) };

fn other(subject: u32, task: u128) -> Owner {
    Owner { subject: Subject(subject), task: TaskId(task) }
}

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

async fn many_can_put_different_bytes_at_once(open: &impl Open) {
    let store = open("crowd").expect("opens");
    let putters: Vec<_> = (0..32_u8)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { store.put(OWNER, Bytes::from(vec![n; 2_000])).await })
        })
        .collect();
    let mut blobs = Vec::new();
    for putter in putters {
        blobs.push(putter.await.expect("putter ends").expect("stores"));
    }
    drop(store);
    let store = open("crowd").expect("opens again");
    for (n, blob) in (0..).zip(blobs) {
        assert_eq!(store.get(blob).await.expect("reads"), vec![n; 2_000], "what was acknowledged survives reopening");
    }
}

async fn equal_bytes_of_two_subjects_have_two_references(open: &impl Open) {
    let store = open("subjects").expect("opens");
    let content = Bytes::from_static(b"the same words");
    let one = store.put(other(1, 1), content.clone()).await.expect("stores");
    let two = store.put(other(2, 1), content.clone()).await.expect("stores");
    let same = store.put(other(1, 2), content.clone()).await.expect("stores");
    assert_ne!(one, two, "a reference does not tell that two subjects have the same bytes");
    assert_eq!(one, same, "tasks of one subject share references");
    for blob in [one, two] {
        assert_eq!(store.get(blob).await.expect("reads"), content);
    }
}

async fn an_owner_has_a_list(open: &impl Open) {
    let mut stored = Vec::new();
    for round in 0..3_u8 {
        let store = open("list").expect("opens");
        assert_eq!(store.list(other(5, 5)).await.expect("lists"), stored, "the list survives reopening, oldest first");
        for n in 0..4 {
            let content = Bytes::from(vec![round * 16 + n; 100]);
            stored.push(store.put(other(5, 5), content.clone()).await.expect("stores"));
            store.put(other(5, 5), content.clone()).await.expect("stores again");
            store.put(other(5, 6), content).await.expect("stores for another task");
        }
        assert_eq!(store.list(other(5, 5)).await.expect("lists"), stored, "each is listed once, oldest first");
        assert_eq!(store.list(other(5, 7)).await.expect("lists"), [], "who stored nothing has an empty list");
    }
}

async fn forgetting_leaves_what_others_stored(open: &impl Open) {
    let (mine, hers) = (other(9, 1), other(9, 2));
    let content = |n: u8| Bytes::from(vec![n; 500]);
    let store = open("forget").expect("opens");
    let shared = store.put(mine, content(1)).await.expect("stores");
    store.put(hers, content(1)).await.expect("stores");
    let own = store.put(mine, content(2)).await.expect("stores");
    store.forget(mine).await.expect("forgets");
    store.forget(mine).await.expect("forgetting twice is harmless");
    store.forget(other(10, 1)).await.expect("forgetting nothing is harmless");
    drop(store);
    for _ in 0..2 {
        let store = open("forget").expect("opens again");
        assert!(store.get(own).await.is_err(), "what was forgotten is gone for good");
        assert_eq!(store.get(shared).await.expect("reads"), content(1), "what another task stored stays");
        assert_eq!(store.list(mine).await.expect("lists"), []);
        assert_eq!(store.list(hers).await.expect("lists"), [shared]);
    }
    let store = open("forget").expect("opens again");
    assert_eq!(store.put(mine, content(2)).await.expect("stores"), own, "a forgotten owner may store again");
    drop(store);
    let store = open("forget").expect("opens again");
    assert_eq!(store.get(own).await.expect("reads"), content(2), "what was stored after forgetting stays");
}
