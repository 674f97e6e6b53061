//! Sealed journals: what lies on the disk, who can read it, and that no nonce comes twice.

use super::memory::MemDisk;
use super::{options, record};
use crate::disk::Disk;
use crate::format::{FLAG_AEAD, FRAME_BYTES};
use crate::inspect::{Entry, Filter, dump};
use crate::scan::frames;
use crate::survey::survey;
use crate::{Error, Wal};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Journal, Keyring, NewRecord};
use tinkerbell_core::words::{Lsn, Subject, TaskId};
use tinkerbell_testkit::contract;
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};
use tinkerbell_testkit::keys::MemKeyring;

fn open(disk: &MemDisk, seed: u64, keyring: &Arc<MemKeyring>) -> Arc<Wal> {
    let keys: Arc<dyn Keyring> = keyring.clone();
    let (clock, entropy) = (Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(seed)));
    Wal::open_with(Arc::new(disk.clone()), &options(), clock, entropy, Some(keys)).unwrap()
}

fn of(subject: u32, text: &str) -> NewRecord {
    NewRecord { subject: Subject(subject), ..record(text, 0) }
}

async fn texts(wal: &Wal) -> Result<Vec<String>, Fault> {
    let records = wal.read(Lsn(1), usize::MAX).await?;
    Ok(records.iter().map(|r| String::from_utf8_lossy(&r.payload).into_owned()).collect())
}

async fn put(wal: &Wal, records: Vec<NewRecord>) {
    wal.append(records).unwrap().durable.await.unwrap();
}

fn dumped(disk: &MemDisk, keyring: Option<&dyn Keyring>) -> Vec<Entry> {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in disk.files() {
        std::fs::write(dir.path().join(name), bytes).unwrap();
    }
    dump(dir.path(), &Filter::default(), keyring).unwrap()
}

/// Whether the bytes stand anywhere on the disk.
fn holds(disk: &MemDisk, text: &str) -> bool {
    disk.files().values().any(|file| file.windows(text.len()).any(|part| part == text.as_bytes()))
}

#[tokio::test]
async fn a_sealed_journal_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let keyring: Arc<dyn Keyring> = Arc::new(MemKeyring::new(1));
    contract::journal::suite(|name| {
        let options = crate::Options::new(dir.path().join(name));
        let (clock, entropy) = (Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(7)));
        Ok(Wal::open_sealed(options, clock, entropy, Arc::clone(&keyring))? as Arc<dyn Journal>)
    })
    .await;
}

#[tokio::test]
async fn nothing_readable_stands_on_the_disk_and_verifying_needs_no_key() {
    let (disk, keyring) = (MemDisk::default(), Arc::new(MemKeyring::new(1)));
    let wal = open(&disk, 1, &keyring);
    put(&wal, vec![of(1, "canary-one"), of(2, "canary-two")]).await;
    assert_eq!(texts(&wal).await.unwrap(), ["canary-one", "canary-two"]);
    wal.close().await.unwrap();
    assert!(!holds(&disk, "canary"));
    let found = survey(&disk, &mut |_, _, _| {}).unwrap();
    assert!(found.damage.is_none() && found.clean());
}

#[tokio::test]
async fn plain_records_of_before_are_read_beside_sealed_ones() {
    let (disk, keyring) = (MemDisk::default(), Arc::new(MemKeyring::new(1)));
    let plain = super::open_with(&disk, &options(), 1).unwrap();
    put(&plain, vec![of(1, "before")]).await;
    drop(plain);
    let wal = open(&disk, 2, &keyring);
    put(&wal, vec![of(1, "after")]).await;
    assert_eq!(texts(&wal).await.unwrap(), ["before", "after"]);
}

#[tokio::test]
async fn a_destroyed_key_erases_and_a_missing_one_is_named() {
    let (disk, keyring) = (MemDisk::default(), Arc::new(MemKeyring::new(1)));
    let wal = open(&disk, 1, &keyring);
    put(&wal, vec![of(1, "hers"), of(2, "his"), of(1, "hers too"), of(2, "his too")]).await;
    let gone = keyring.of(Subject(1)).unwrap().id;
    keyring.destroy(Subject(1));
    assert_eq!(texts(&wal).await.unwrap(), ["his", "his too"]);
    assert_eq!(wal.read(Lsn(1), 1).await.unwrap()[0].lsn, Lsn(2), "numbers stay");
    let entries = dumped(&disk, Some(&*keyring));
    assert_eq!(entries[0].sealed, Some(format!("erased, key {gone} was destroyed")));
    assert_eq!((entries[1].sealed.as_deref(), &entries[1].payload[..]), (None, &b"his"[..]));
    let lost = keyring.of(Subject(2)).unwrap().id;
    keyring.lose(Subject(2));
    let fault = texts(&wal).await.unwrap_err();
    assert!(fault.code.0 == "TB-KEY-004" && fault.message.contains(&lost.to_string()), "{fault}");
    let entries = dumped(&disk, Some(&*keyring));
    assert_eq!(entries[1].sealed, Some(format!("sealed, key {lost} is missing")));
    assert_eq!(dumped(&disk, None)[0].sealed, Some(format!("sealed, key {gone} is missing")));
    let other = Arc::new(MemKeyring::new(2));
    other.of(Subject(1)).unwrap();
    assert_eq!(dumped(&disk, Some(&*other))[0].sealed, Some(format!("sealed, key {gone} does not fit")));
}

#[tokio::test]
async fn without_a_key_nothing_is_written_and_later_records_are() {
    struct Moody(MemKeyring);
    impl Keyring for Moody {
        fn of(&self, subject: Subject) -> Result<tinkerbell_core::port::SealKey, Fault> {
            if subject == Subject(9) { Err(Fault::new("TB-KEY-006", 69, "no key today")) } else { self.0.of(subject) }
        }
        fn find(&self, id: u32) -> Result<tinkerbell_core::port::SealKey, Fault> {
            self.0.find(id)
        }
    }
    let disk = MemDisk::default();
    let keys: Arc<dyn Keyring> = Arc::new(Moody(MemKeyring::new(1)));
    let (clock, entropy) = (Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(1)));
    let wal = Wal::open_with(Arc::new(disk.clone()), &options(), clock, entropy, Some(keys)).unwrap();
    put(&wal, vec![of(1, "one")]).await;
    let refused = wal.append(vec![of(9, "secret")]).unwrap().durable.await.unwrap_err();
    assert_eq!(refused.code.0, "TB-KEY-006");
    put(&wal, vec![of(1, "two")]).await;
    assert_eq!(texts(&wal).await.unwrap(), ["one", "two"]);
    assert!(!holds(&disk, "secret"));
}

/// Key, nonce and bytes of every sealed frame on the disk.
fn seals(disk: &MemDisk) -> Vec<([u64; 4], Vec<u8>)> {
    let mut found = Vec::new();
    for file in disk.files().values().filter(|file| file.len() > 4096) {
        for frame in frames(&file[4096..]).map_while(|(_, frame)| frame.ok()).filter(|frame| frame.flags & FLAG_AEAD != 0) {
            let (tries, bytes) = frame.payload.split_first_chunk::<4>().unwrap();
            found.push(([frame.key_id.into(), frame.incarnation, frame.lsn, u32::from_le_bytes(*tries).into()], bytes.to_vec()));
        }
    }
    found
}

#[tokio::test]
async fn the_same_number_is_never_sealed_twice_with_one_nonce() {
    let keyring = Arc::new(MemKeyring::new(1));
    let mut seen = BTreeMap::new();
    // The same number again and again: each round finds the tail of the round before torn.
    for round in 0..6_u64 {
        let disk = MemDisk::default();
        let wal = open(&disk, 40 + round, &keyring);
        put(&wal, vec![of(1, &format!("round {round}"))]).await;
        for (nonce, bytes) in seals(&disk) {
            assert_eq!(nonce[2], 1, "it is the same number each time");
            assert!(seen.insert(nonce, bytes).is_none(), "{nonce:?} came twice");
        }
    }
    // Within one incarnation: a batch that is given back and written again.
    let mut sealer = crate::seal::Sealer::new(Some(keyring.clone()));
    let mut nonces = BTreeSet::new();
    for text in ["full disk", "full again", "room now"] {
        let mut batch = Vec::new();
        let frame =
            crate::format::Frame { lsn: 0, incarnation: 0, kind: 16, schema: 1, flags: 0, key_id: 0, task: 7, payload: text.as_bytes() };
        crate::seal::push(&frame, Subject(1), &mut batch);
        sealer.seal(&mut batch, 5, 99).unwrap();
        assert!(nonces.insert(batch[FRAME_BYTES..FRAME_BYTES + 4].to_vec()), "a try comes once");
    }
}

#[tokio::test]
async fn a_changed_header_does_not_open() {
    let (disk, keyring) = (MemDisk::default(), Arc::new(MemKeyring::new(1)));
    let wal = open(&disk, 1, &keyring);
    put(&wal, vec![of(1, "whose?")]).await;
    drop(wal);
    let files = disk.files();
    let (_, file) = files.iter().find(|(name, _)| name.ends_with(".wal")).unwrap();
    let (_, frame) = frames(&file[4096..]).next().unwrap();
    let frame = frame.unwrap();
    let mut opener = crate::seal::Opener::new(Some(&*keyring));
    assert!(opener.open(&frame).is_ok());
    for forged in [
        crate::format::Frame { task: 1, ..frame },
        crate::format::Frame { kind: 17, ..frame },
        crate::format::Frame { schema: 2, ..frame },
        crate::format::Frame { lsn: 2, ..frame },
        crate::format::Frame { incarnation: 2, ..frame },
        crate::format::Frame { flags: frame.flags | 4, ..frame },
        crate::format::Frame { payload: &frame.payload[..3], ..frame },
    ] {
        assert!(matches!(opener.open(&forged), Err(Error::Misfit { .. })), "{forged:?}");
    }
}

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1-sealed")
}

/// Two openings, two subjects, every field in use.
async fn written() -> BTreeMap<String, Vec<u8>> {
    let (disk, keyring) = (MemDisk::default(), Arc::new(MemKeyring::new(17)));
    for seed in [100, 200] {
        let wal = open(&disk, seed, &keyring);
        let task = Some(TaskId(0x7f3a_0000_0000_0000_0000_0000_0000_0001));
        let first = NewRecord { task, ..of(1, "one") };
        let second = NewRecord { kind: 27, schema: 2, task: None, blob: true, ..of(2, "two, a reference") };
        put(&wal, vec![first, second, NewRecord { kind: u16::MAX, ..of(1, "") }]).await;
        put(&wal, vec![NewRecord { payload: Bytes::from(vec![b'z'; 1800]), ..of(1000, "") }]).await;
        wal.close().await.unwrap();
    }
    disk.files()
}

/// `UPDATE_EXPECT=1` writes the files anew; after a release that is never right.
#[tokio::test]
async fn what_was_sealed_is_read_and_sealed_the_same() {
    let now = written().await;
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(golden_dir()).unwrap();
        for (name, bytes) in &now {
            std::fs::write(golden_dir().join(name), bytes).unwrap();
        }
    }
    let mut golden = BTreeMap::new();
    for entry in std::fs::read_dir(golden_dir()).unwrap() {
        let entry = entry.unwrap();
        golden.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    }
    assert!(golden == now, "{:?} differ from what this release writes: {:?}", golden.keys(), now.keys());
    let disk = MemDisk::from_files(&golden);
    assert!(!disk.list().unwrap().is_empty());
    let keyring = Arc::new(MemKeyring::new(17));
    // Keys are given in the order in which their subjects were first seen.
    for subject in [1, 2, 1000] {
        keyring.of(Subject(subject)).unwrap();
    }
    let z = "z".repeat(1800);
    let one = ["one", "two, a reference", "", &z];
    assert_eq!(texts(&open(&disk, 300, &keyring)).await.unwrap(), [one, one].concat());
}
