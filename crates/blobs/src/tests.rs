//! The store on real files: the port's contract, damage, what a crash leaves, both layouts.

use crate::pack::{Pack, numbers};
use crate::{DiskBlobs, MOST_BYTES};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{BlobStore, Keyring as _};
use tinkerbell_core::words::{BlobRef, Owner, Subject, TaskId};
use tinkerbell_testkit::contract::{self, blobs::OWNER};
use tinkerbell_testkit::keys::MemKeyring;

/// Small packs, so that a few entries fill several.
const SMALL: u64 = 4_000;

fn open_keys(dir: &Path, keys: &Arc<MemKeyring>, pack_bytes: u64) -> Result<Arc<DiskBlobs>, Fault> {
    DiskBlobs::open_sized(dir, keys.clone(), pack_bytes)
}

fn open(dir: &Path) -> Arc<DiskBlobs> {
    let keys = Arc::new(MemKeyring::new(1));
    // A keyring in memory knows what it was asked for; the one that the store was made with was.
    keys.of(OWNER.subject).unwrap();
    open_keys(dir, &keys, SMALL).unwrap()
}

fn task(n: u128) -> Owner {
    Owner { task: TaskId(n), ..OWNER }
}

fn text(n: u32, size: usize) -> Bytes {
    Bytes::from(format!("{:<size$}", format!("blob {n}")))
}

async fn put(store: &DiskBlobs, owner: Owner, content: Bytes) -> BlobRef {
    store.put(owner, content).await.unwrap()
}

fn packs(dir: &Path) -> Vec<PathBuf> {
    let dir = dir.join("packs");
    numbers(&dir).unwrap().into_iter().map(|number| crate::pack::path(&dir, number)).collect()
}

fn bytes_on_disk(dir: &Path) -> u64 {
    packs(dir).iter().map(|path| fs::metadata(path).unwrap().len()).sum()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(MemKeyring::new(1));
    contract::blobs::suite(|name| Ok(open_keys(&dir.path().join(name), &keys, crate::shelf::PACK_BYTES)? as Arc<dyn BlobStore>)).await;
    contract::blobs::suite(|name| Ok(open_keys(&dir.path().join("small").join(name), &keys, SMALL)? as Arc<dyn BlobStore>)).await;
}

#[tokio::test]
async fn nothing_readable_stands_on_the_disk_and_all_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("blobs");
    put(&open(&root), OWNER, Bytes::from_static(b"a canary in a long enough text")).await;
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&root), mode(&root.join("packs")), mode(&packs(&root)[0])), (0o700, 0o700, 0o600));
    assert!(!fs::read(&packs(&root)[0]).unwrap().windows(6).any(|part| part == b"canary"));
}

#[tokio::test]
async fn a_damaged_entry_is_named_and_others_stay_readable() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let mut blobs = Vec::new();
    for n in 0..8 {
        blobs.push(put(&store, OWNER, text(n, 300)).await);
    }
    drop(store);
    let whole = fs::read(&packs(dir.path())[0]).unwrap();
    // A body, a header, a mark of the beginning: entry 2 lies at 32 + 2 * 416.
    for at in [32 + 2 * 416 + 200, 32 + 2 * 416 + 50, 32 + 2 * 416] {
        let mut bad = whole.clone();
        bad[at] ^= 1;
        packs(dir.path()).into_iter().skip(1).for_each(|path| fs::remove_file(path).unwrap());
        fs::write(&packs(dir.path())[0], &bad).unwrap();
        let store = open(dir.path());
        for (n, blob) in (0..).zip(&blobs) {
            match store.get(*blob).await {
                Ok(content) => assert!(n != 2 && content == text(n, 300), "{n}"),
                Err(fault) => {
                    assert!(
                        n == 2 && fault.code.0 == if at == 32 + 2 * 416 + 200 { "TB-BLOB-002" } else { "TB-BLOB-001" },
                        "{n} {at} {fault}"
                    );
                }
            }
        }
        // Storing it again repairs it.
        assert_eq!(put(&store, OWNER, text(2, 300)).await, blobs[2]);
        assert_eq!(store.get(blobs[2]).await.unwrap(), text(2, 300));
    }
}

#[tokio::test]
async fn a_torn_end_is_cut_wherever_it_was_torn() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    let (one, two) = (put(&store, OWNER, text(1, 96)).await, put(&store, OWNER, text(2, 96)).await);
    drop(store);
    let path = packs(dir.path())[0].clone();
    let whole = fs::read(&path).unwrap();
    let end_of_one = 32 + (whole.len() - 32) / 2;
    for cut in (end_of_one..whole.len()).step_by(7) {
        // Short, or as long as it should be with its last pages still blank.
        for blank in [false, true] {
            let mut torn = whole[..cut].to_vec();
            if blank {
                torn.resize(whole.len(), 0);
            }
            fs::write(&path, torn).unwrap();
            let store = open(dir.path());
            assert_eq!(store.get(one).await.unwrap(), text(1, 96));
            assert_eq!(store.get(two).await.unwrap_err().code.0, "TB-BLOB-001", "cut at {cut}");
            assert_eq!(put(&store, OWNER, text(2, 96)).await, two);
            assert_eq!(open(dir.path()).get(two).await.unwrap(), text(2, 96));
        }
    }
}

#[tokio::test]
async fn forgetting_gives_the_room_back_and_outlives_compaction() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(MemKeyring::new(1));
    let mut store = open_keys(dir.path(), &keys, SMALL).unwrap();
    let mut kept = Vec::new();
    for round in 0..12_u32 {
        let owner = task(u128::from(round));
        for n in 0..12 {
            put(&store, owner, text(round * 100 + n, 400)).await;
        }
        kept.push(put(&store, task(999), text(round * 100 + 99, 50)).await);
        store.forget(owner).await.unwrap();
        if round % 3 == 2 {
            store = open_keys(dir.path(), &keys, SMALL).unwrap();
        }
        for old in 0..=round {
            assert_eq!(store.list(task(u128::from(old))).await.unwrap(), [], "round {round}: {old} stays forgotten");
        }
    }
    assert_eq!(store.list(task(999)).await.unwrap(), kept, "oldest first, also after moving");
    for (round, blob) in (0..).zip(&kept) {
        assert_eq!(store.get(*blob).await.unwrap(), text(round * 100 + 99, 50));
    }
    let size = bytes_on_disk(dir.path());
    assert!(size < 20_000, "{size} bytes left of 75,000");
}

/// After each act of a compaction the directory is copied, as a crash would leave it; each copy
/// must hold exactly what counts.
#[tokio::test]
async fn a_crash_during_compaction_loses_and_resurrects_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(MemKeyring::new(1));
    let store = open_keys(dir.path(), &keys, SMALL).unwrap();
    for n in 0..6 {
        put(&store, task(1), text(n, 400)).await;
        put(&store, task(2), text(n, 40)).await;
    }
    drop(store);
    let before: Vec<(PathBuf, Vec<u8>)> = packs(dir.path()).into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect();
    let store = open_keys(dir.path(), &keys, SMALL).unwrap();
    store.forget(task(1)).await.unwrap();
    let live = store.list(task(2)).await.unwrap();
    assert!(!before[0].0.exists(), "the first pack was rewritten");
    drop(store);
    // The old pack is still there beside its copy.
    fs::write(&before[0].0, &before[0].1).unwrap();
    for _ in 0..3 {
        let store = open_keys(dir.path(), &keys, SMALL).unwrap();
        assert_eq!(store.list(task(1)).await.unwrap(), []);
        assert_eq!(store.list(task(2)).await.unwrap(), live);
        put(&store, task(3), text(77, 3_000)).await;
        store.forget(task(3)).await.unwrap();
    }
}

#[tokio::test]
async fn too_large_a_blob_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let fault = open(dir.path()).put(OWNER, Bytes::from(vec![0; MOST_BYTES + 1])).await.unwrap_err();
    assert!(fault.code.0 == "TB-BLOB-010" && fault.message.contains("67108864"), "{fault}");
}

#[tokio::test]
async fn without_its_key_a_blob_is_closed_and_the_fault_names_the_key() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(MemKeyring::new(1));
    let store = open_keys(dir.path(), &keys, SMALL).unwrap();
    let blob = put(&store, OWNER, text(1, 10)).await;
    keys.destroy(OWNER.subject);
    assert_eq!(store.get(blob).await.unwrap_err().code.0, tinkerbell_core::port::KEY_DESTROYED);
    let other = open_keys(dir.path(), &Arc::new(MemKeyring::new(1)), SMALL).unwrap();
    let fault = other.get(blob).await.unwrap_err();
    assert!(fault.code.0 == "TB-KEY-004" && fault.message.contains(&blob.key_id.to_string()), "{fault}");
    let foreign = Arc::new(MemKeyring::new(2));
    put(&open_keys(&dir.path().join("x"), &foreign, SMALL).unwrap(), OWNER, text(1, 10)).await;
    assert_eq!(open_keys(dir.path(), &foreign, SMALL).unwrap().get(blob).await.unwrap_err().code.0, "TB-KEY-007");
}

#[tokio::test]
async fn a_directory_or_pack_that_can_not_be_used_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let keys = Arc::new(MemKeyring::new(1));
    let fault = open_keys(&dir.path().join("file/blobs"), &keys, SMALL).unwrap_err();
    assert!(fault.code.0 == "TB-BLOB-003" && !fault.hints.is_empty());
    put(&open(dir.path()), OWNER, text(1, 10)).await;
    let path = packs(dir.path())[0].clone();
    let mut bytes = fs::read(&path).unwrap();
    bytes[8] = 9;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open_keys(dir.path(), &keys, SMALL).unwrap_err().code.0, "TB-BLOB-011");
    bytes[0] = 0;
    fs::write(&path, &bytes).unwrap();
    assert_eq!(open_keys(dir.path(), &keys, SMALL).unwrap_err().code.0, "TB-BLOB-012");
}

fn golden(version: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(version)
}

/// A store of the first layout: one file per blob, hashed under the installation's key.
fn first_layout() -> BTreeMap<PathBuf, Vec<u8>> {
    let key = [7; 32];
    let blobs = ["", "precious", "a longer text of the first layout"].map(|content| {
        let hex = blake3::keyed_hash(&key, content.as_bytes()).to_hex();
        (PathBuf::from(&hex[..2]).join(&hex[2..]), content.as_bytes().to_vec())
    });
    blobs.into_iter().chain([(PathBuf::from("key"), key.to_vec())]).collect()
}

#[tokio::test]
async fn the_first_layout_is_read() {
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        for (path, bytes) in first_layout() {
            let path = golden("v1").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }
    let dir = tempfile::tempdir().unwrap();
    for (path, bytes) in first_layout() {
        assert_eq!(fs::read(golden("v1").join(&path)).unwrap(), bytes, "{}", path.display());
        fs::create_dir_all(dir.path().join(&path).parent().unwrap()).unwrap();
        fs::write(dir.path().join(path), bytes).unwrap();
    }
    let store = open(dir.path());
    for content in ["", "precious", "a longer text of the first layout"] {
        let hash = *blake3::keyed_hash(&[7; 32], content.as_bytes()).as_bytes();
        let blob = BlobRef { key_id: 1, hash, size_bytes: content.len() as u64 };
        assert_eq!(store.get(blob).await.unwrap(), content);
        assert_ne!(put(&store, OWNER, Bytes::from(content)).await, blob, "new ones go into packs");
        assert_eq!(store.get(BlobRef { size_bytes: 99, ..blob }).await.unwrap_err().code.0, "TB-BLOB-002");
    }
    let missing = BlobRef { key_id: 1, hash: [0; 32], size_bytes: 1 };
    assert_eq!(store.get(missing).await.unwrap_err().code.0, "TB-BLOB-001");
    fs::write(dir.path().join("key"), "short").unwrap();
    let keys = Arc::new(MemKeyring::new(1));
    assert_eq!(open_keys(dir.path(), &keys, SMALL).unwrap_err().code.0, "TB-BLOB-004");
}

/// `UPDATE_EXPECT=1` writes the file anew; after a release that is never right.
#[tokio::test]
async fn what_was_packed_is_read_and_packed_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let keys = Arc::new(MemKeyring::new(17));
    let store = open_keys(dir.path(), &keys, SMALL).unwrap();
    let hers = Owner { subject: Subject(1), task: TaskId(u128::MAX) };
    let mut blobs = Vec::new();
    for (owner, content) in [(OWNER, ""), (hers, "hers"), (task(8), "gone"), (OWNER, "a longer text of the second layout")] {
        blobs.push((put(&store, owner, Bytes::from(content)).await, content));
    }
    store.forget(task(8)).await.unwrap();
    drop(store);
    let now = fs::read(&packs(dir.path())[0]).unwrap();
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(golden("v2")).unwrap();
        fs::write(golden("v2").join("00000001.pack"), &now).unwrap();
    }
    assert!(fs::read(golden("v2").join("00000001.pack")).unwrap() == now, "the pack differs from the golden one");
    let store = open_keys(dir.path(), &keys, SMALL).unwrap();
    for (blob, content) in blobs {
        match store.get(blob).await {
            Ok(found) => assert_eq!(found, content),
            Err(fault) => assert!(content == "gone" && fault.code.0 == "TB-BLOB-001", "{fault}"),
        }
    }
    assert!(Pack::open(&golden("v2"), 1).is_ok());
}
