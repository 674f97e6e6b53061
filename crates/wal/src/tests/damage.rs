//! Damaged bytes: found, named, and never taken for a torn tail when they were acknowledged.

use super::memory::MemDisk;
use super::{open, open_with, options, put, recovered};
use crate::Error;
use crate::format::{FLAG_AEAD, FLAG_ZSTD, FRAME_BYTES, Frame, GENESIS, HEADER_BYTES, Header, Trailer, stamp};
use crate::survey::segment_name;
use std::collections::BTreeMap;
use tinkerbell_core::port::Journal;

type Files = BTreeMap<String, Vec<u8>>;

async fn journal(rounds: u64, clean: bool) -> Files {
    let disk = MemDisk::default();
    for round in 0..rounds {
        let wal = open_with(&disk, &options(), round).unwrap();
        for n in 0..3 {
            put(&wal, &format!("{round}.{n}"), 40).await.unwrap();
        }
        if clean {
            wal.close().await.unwrap();
        }
    }
    disk.files()
}

fn damaged(files: &Files, nth: usize, change: impl FnOnce(&mut Vec<u8>)) -> MemDisk {
    let mut files = files.clone();
    change(files.values_mut().nth(nth).unwrap());
    MemDisk::from_files(&files)
}

#[tokio::test]
async fn every_flipped_bit_is_detected_or_lies_in_the_last_batch() {
    let files = journal(2, false).await;
    let whole = recovered(&MemDisk::from_files(&files)).unwrap();
    let batch = FRAME_BYTES + 40 + FRAME_BYTES + 80;
    for (nth, bytes) in files.values().enumerate() {
        let last = nth + 1 == files.len();
        for at in 0..bytes.len() {
            // Every bit of the batches; one bit of each byte of the headers, which one CRC covers.
            let bits = if at < HEADER_BYTES { at % 8..at % 8 + 1 } else { 0..8 };
            for bit in bits {
                let disk = damaged(&files, nth, |bytes| bytes[at] ^= 1 << bit);
                match recovered(&disk) {
                    Err(Error::Corrupt { .. } | Error::Unreadable { .. }) => {}
                    Err(other) => panic!("segment {nth} byte {at} bit {bit}: {other}"),
                    Ok(found) if found == whole => assert!(crate::format::SLOTS.contains(&at), "segment {nth} byte {at}"),
                    Ok(found) => {
                        assert!(last && at >= bytes.len() - batch, "segment {nth} byte {at} bit {bit}: {found:?}");
                        assert_eq!(found, whole[..whole.len() - 1]);
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn a_clean_shutdown_protects_the_last_records() {
    let files = journal(1, true).await;
    let bytes = files.values().next().unwrap();
    let at = bytes.windows(3).position(|w| w == b"0.2").unwrap();
    match recovered(&damaged(&files, 0, |bytes| bytes[at] = b'X')) {
        Err(Error::Corrupt { lsn, offset, file, why }) => {
            assert_eq!((lsn, offset), (5, at as u64 - FRAME_BYTES as u64));
            assert_eq!(&file, files.keys().next().unwrap());
            assert!(why.contains("up to 6 were acknowledged"), "{why}");
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_record_behind_the_trailer_proves_that_the_batch_was_durable() {
    let files = journal(1, false).await;
    let batch = FRAME_BYTES + 40 + FRAME_BYTES + 80;
    // The last batch lost its trailer only, so it was being written: the one before was durable.
    let disk = damaged(&files, 0, |bytes| {
        bytes.truncate(bytes.len() - 1);
        let at = bytes.len() + 1 - 2 * batch + FRAME_BYTES;
        bytes[at] ^= 1;
    });
    assert!(refusal(&disk).contains("corrupt at record 3"), "{}", refusal(&disk));
    // Without the trailer and without anything behind it nothing is proven.
    let disk = damaged(&files, 0, |bytes| {
        bytes.truncate(bytes.len() - batch - 1);
        let at = bytes.len() + 1 - batch + FRAME_BYTES;
        bytes[at] ^= 1;
    });
    assert_eq!(recovered(&disk).unwrap(), ["0.0"]);
}

fn refusal(disk: &MemDisk) -> String {
    match open_with(disk, &options(), 9) {
        Err(error) => error.to_string(),
        Ok(wal) => panic!("opened: {:?}", wal.recovery()),
    }
}

#[tokio::test]
async fn missing_and_foreign_segments_are_named() {
    let files = journal(3, true).await;
    let without = |nth: usize| {
        let keep = files.iter().enumerate().filter(|(n, _)| *n != nth);
        MemDisk::from_files(&keep.map(|(_, (name, bytes))| (name.clone(), bytes.clone())).collect())
    };
    assert!(refusal(&without(0)).contains("earlier segments are missing"));
    assert!(refusal(&without(1)).contains("what lies between is missing"));
    let mut swapped = files.clone();
    let names: Vec<String> = files.keys().cloned().collect();
    swapped.insert(names[1].clone(), files[&names[2]].clone());
    assert!(refusal(&MemDisk::from_files(&swapped)).contains("the header belongs to"));
    let cut = damaged(&files, 1, |bytes| bytes.truncate(HEADER_BYTES));
    assert!(refusal(&cut).contains("is missing"));
    let short = damaged(&files, 1, |bytes| bytes.truncate(100));
    assert!(refusal(&short).contains("header is damaged"));
    let torn = damaged(&files, 0, |bytes| bytes.truncate(bytes.len() - 1));
    assert!(refusal(&torn).contains("follows"), "a torn tail before another segment is damage");
}

#[tokio::test]
async fn a_replaced_batch_breaks_the_chain_even_with_right_checksums() {
    let files = journal(1, false).await;
    let disk = damaged(&files, 0, |bytes| {
        let header = Header::decode(bytes).unwrap();
        let at = bytes.windows(3).position(|w| w == b"0.1").unwrap();
        bytes[at] = b'X';
        let start = at - FRAME_BYTES;
        stamp(&mut bytes[start..start + FRAME_BYTES + 40], 3, header.incarnation).unwrap();
    });
    assert!(refusal(&disk).contains("hash chain is broken"));
}

#[tokio::test]
async fn stale_bytes_of_an_earlier_use_of_the_file_never_validate() {
    let old = journal(1, false).await.into_values().next().unwrap();
    let disk = MemDisk::default();
    let wal = open_with(&disk, &options(), 77).unwrap();
    put(&wal, "fresh", 40).await.unwrap();
    drop(wal);
    let files = disk.files();
    // The file had held another segment of the same shape: its frames begin exactly where the
    // next batch would, with the numbers that would come next and right checksums.
    let disk = damaged(&files, 0, |bytes| bytes.extend_from_slice(&old[bytes.len()..]));
    assert_eq!(recovered(&disk).unwrap(), ["fresh"]);
    let zeros = damaged(&files, 0, |bytes| bytes.resize(bytes.len() + 5000, 0));
    assert_eq!(recovered(&zeros).unwrap(), ["fresh"]);
}

/// A journal of one batch, made by hand.
fn forged(flags: u8, kind: u16) -> MemDisk {
    let header = Header { epoch: 1, first_lsn: 1, incarnation: 5, chain: GENESIS, created_ms: 0, boot_id: [0; 16], seals: None };
    let mut body = Vec::new();
    Frame { lsn: 1, incarnation: 5, kind, schema: 1, flags, key_id: 0, task: 0, payload: b"sealed" }.push(&mut body);
    stamp(&mut body, 1, 5).unwrap();
    Trailer { acked: 0, last: 1, wall_ms: 0, mono_ms: 0, boot_id: [0; 16], head: GENESIS }.push(&mut body, &GENESIS, 5).unwrap();
    MemDisk::from_files(&BTreeMap::from([(segment_name(1, 1), [header.encode(), body].concat())]))
}

#[tokio::test]
async fn records_of_a_newer_release_are_refused_by_name() {
    assert!(recovered(&forged(FLAG_AEAD, 16)).unwrap_err().to_string().contains("record 1 is sealed"));
    assert!(refusal(&forged(FLAG_ZSTD, 16)).contains("record 1 is compressed"));
    assert!(refusal(&forged(0x40, 16)).contains("unknown flags 0x40"));
    assert_eq!(recovered(&forged(0, 16)).unwrap(), ["sealed"]);
    assert!(recovered(&forged(0, 9)).unwrap().is_empty(), "unknown records of the journal itself are passed over");
    let wal = open(&MemDisk::default());
    drop(wal);
    let files = journal(1, true).await;
    let newer = damaged(&files, 0, |bytes| {
        bytes[8] = 2;
        let sum = crc32c::crc32c_append(crc32c::crc32c(&bytes[..1020]), &bytes[2048..4096]);
        bytes[1020..1024].copy_from_slice(&sum.to_le_bytes());
    });
    assert!(refusal(&newer).contains("format version 2"));
}
