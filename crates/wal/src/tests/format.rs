//! The bytes of version 1, and the golden journal that must stay readable for ever.

use super::memory::MemDisk;
use super::stepped::stepped_at;
use super::{append, open_with, options, recovered};
use crate::format::{Frame, GENESIS, Header, Invalid, watermark};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tinkerbell_core::port::{Journal, NewRecord};
use tinkerbell_core::words::TaskId;
use tinkerbell_testkit::fake::FakeClock;

#[test]
fn a_header_survives_its_bytes_and_begins_with_empty_slots() {
    let header = Header { epoch: 3, first_lsn: 9, incarnation: 0xfeed, chain: [7; 32], created_ms: 11, boot_id: [5; 16], seals: None };
    let bytes = header.encode();
    assert_eq!(bytes.len(), 4096);
    assert!(bytes[1024..2048].iter().all(|byte| *byte == 0));
    assert_eq!(Header::decode(&bytes), Ok(header.clone()));
    assert_eq!(Header::decode(&bytes[..4095]), Err(Invalid::Short));
    let mut marked = bytes;
    marked[1024] = 1;
    assert_eq!(Header::decode(&marked), Ok(header), "the slots are not under its checksum");
    assert_eq!(Header::decode(&[0; 4096]), Err(Invalid::Magic));
}

#[test]
fn a_frame_lies_as_the_format_says() {
    let frame = Frame { lsn: 2, incarnation: 3, kind: 16, schema: 4, flags: 4, key_id: 5, task: 6, payload: b"abc" };
    let mut bytes = Vec::new();
    frame.push(&mut bytes);
    crate::format::stamp(&mut bytes, 2, 3).unwrap();
    assert_eq!(bytes.len(), 48 + 3);
    assert_eq!(bytes[..4], crc32c::crc32c(&bytes[4..]).to_le_bytes());
    assert_eq!(bytes[4..8], 3_u32.to_le_bytes());
    assert_eq!(bytes[8..16], 2_u64.to_le_bytes());
    assert_eq!(bytes[16..24], 3_u64.to_le_bytes());
    assert_eq!(bytes[24..28], [16, 0, 4, 4]);
    assert_eq!(bytes[28..32], 5_u32.to_le_bytes());
    assert_eq!(bytes[32..48], 6_u128.to_le_bytes());
    assert_eq!(Frame::decode(&bytes), Ok(frame));
    assert_eq!(Frame::decode(&bytes[..50]), Err(Invalid::Short));
    assert_eq!(GENESIS, [0; 32]);
}

fn golden_dir(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// Two openings, three segments, every field in use.
async fn written() -> BTreeMap<String, Vec<u8>> {
    let disk = MemDisk::default();
    for seed in [100, 200] {
        let wal = open_with(&disk, &options(), seed).unwrap();
        let small = |text: &'static str| NewRecord {
            subject: tinkerbell_core::words::Subject(1),
            kind: 16,
            schema: 1,
            task: Some(TaskId(0x7f3a_0000_0000_0000_0000_0000_0000_0001)),
            blob: false,
            payload: Bytes::from_static(text.as_bytes()),
        };
        let batch = vec![
            small("one"),
            NewRecord { kind: 27, schema: 2, task: None, blob: true, ..small("two, a reference") },
            NewRecord { kind: u16::MAX, ..small("") },
        ];
        wal.append(batch).unwrap().durable.await.unwrap();
        let long = NewRecord { payload: Bytes::from(vec![b'z'; 1800]), ..small("") };
        wal.append(vec![long]).unwrap().durable.await.unwrap();
        wal.append(vec![small("three")]).unwrap().durable.await.unwrap();
        if seed == 100 {
            wal.close().await.unwrap();
        }
    }
    disk.files()
}

/// What stands in `tests/golden/<name>`, which must be what this release writes. `UPDATE_EXPECT=1`
/// writes the files anew; after a release that is never right.
fn golden(name: &str, now: &BTreeMap<String, Vec<u8>>) -> MemDisk {
    let dir = golden_dir(name);
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::create_dir_all(&dir).unwrap();
        for (name, bytes) in now {
            std::fs::write(dir.join(name), bytes).unwrap();
        }
    }
    let mut golden = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        golden.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    }
    assert!(golden.keys().eq(now.keys()), "{:?} against {:?}", golden.keys(), now.keys());
    for (name, bytes) in &golden {
        assert!(bytes == &now[name], "{name} differs from what this release writes");
    }
    MemDisk::from_files(&golden)
}

#[tokio::test]
async fn what_version_1_wrote_is_read_and_written_the_same() {
    let z = "z".repeat(1800);
    let one = ["one", "two, a reference", "", &z, "three"];
    assert_eq!(recovered(&golden("v1", &written().await)).unwrap(), [one, one].concat());
}

#[test]
fn watermarks_of_version_1_are_read_and_written_the_same() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    let wal = stepped_at(&disk, 300, &clock);
    for text in ["one", "two", "three"] {
        drop(append(&wal, text, 20));
        assert!(wal.step());
        clock.advance(std::time::Duration::from_millis(7));
        assert!(wal.step());
    }
    let disk = golden("v1-watermark", &disk.files());
    assert_eq!(recovered(&disk).unwrap(), ["one", "two", "three"]);
    let bytes = disk.files().into_values().next().unwrap();
    assert_eq!(watermark(&bytes, Header::decode(&bytes).unwrap().incarnation), 6);
}
