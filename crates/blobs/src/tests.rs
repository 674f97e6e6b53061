//! The store on real files: the port's contract, damage, and what a crash leaves.

use crate::DiskBlobs;
use bytes::Bytes;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_core::port::BlobStore;
use tinkerbell_core::words::BlobRef;
use tinkerbell_testkit::contract::{self, blobs::OWNER};
use tinkerbell_testkit::fake::SeedEntropy;

fn open(dir: &Path, seed: u64) -> Arc<DiskBlobs> {
    DiskBlobs::open(dir, Arc::new(SeedEntropy::new(seed))).unwrap()
}

fn file_of(dir: &Path, blob: BlobRef) -> PathBuf {
    let hex: String = blob.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    dir.join(&hex[..2]).join(&hex[2..])
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    contract::blobs::suite(|name| Ok(open(&dir.path().join(name), 1) as Arc<dyn BlobStore>)).await;
}

#[tokio::test]
async fn damaged_bytes_are_not_given_out_and_storing_them_again_repairs_a_wrong_length() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1);
    let content = Bytes::from_static(b"precious");
    let blob = store.put(OWNER, content.clone()).await.unwrap();
    let path = file_of(dir.path(), blob);
    for bad in [&b"previous"[..], b"preciou", b"", b"precious!"] {
        fs::write(&path, bad).unwrap();
        let fault = store.get(blob).await.unwrap_err();
        assert_eq!(fault.code.0, "TB-BLOB-002");
        assert!(fault.message.contains(path.to_str().unwrap()), "{fault}");
    }
    store.put(OWNER, content.clone()).await.unwrap();
    assert_eq!(store.get(blob).await.unwrap(), content);
}

#[tokio::test]
async fn names_differ_between_installations() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let content = Bytes::from_static(b"the same");
    let a = open(one.path(), 1).put(OWNER, content.clone()).await.unwrap();
    let b = open(two.path(), 2).put(OWNER, content).await.unwrap();
    assert_ne!(a, b);
    assert_eq!(open(one.path(), 3).get(b).await.unwrap_err().code.0, "TB-BLOB-001");
    let other = BlobRef { key_id: 7, ..a };
    assert_eq!(open(one.path(), 3).get(other).await.unwrap_err().code.0, "TB-BLOB-004");
}

#[tokio::test]
async fn everything_is_private_and_left_overs_of_a_crash_are_removed() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("blobs");
    let blob = open(&root, 1).put(OWNER, Bytes::from_static(b"x")).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&root), mode(&root.join("key")), mode(&file_of(&root, blob))), (0o700, 0o600, 0o600));
    fs::write(root.join("new/half"), "half a blo").unwrap();
    assert_eq!(open(&root, 2).get(blob).await.unwrap(), "x");
    assert_eq!(fs::read_dir(root.join("new")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_damaged_key_is_an_error_and_not_a_new_key() {
    let dir = tempfile::tempdir().unwrap();
    open(dir.path(), 1);
    fs::write(dir.path().join("key"), "short").unwrap();
    let fault = DiskBlobs::open(dir.path(), Arc::new(SeedEntropy::new(1))).unwrap_err();
    assert_eq!(fault.code.0, "TB-BLOB-004");
}

#[tokio::test]
async fn a_directory_that_can_not_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let fault = DiskBlobs::open(dir.path().join("file/blobs"), Arc::new(SeedEntropy::new(1))).unwrap_err();
    assert_eq!(fault.code.0, "TB-BLOB-003");
    assert!(!fault.hints.is_empty());
}
