//! The watermark slots: when they are written, and what they prove.

use super::memory::{MemDisk, Op};
use super::stepped::{now, stepped_at};
use super::{append, open_with, options, recovered};
use crate::Error;
use crate::format::{HEADER_BYTES, Header, SLOTS, watermark};
use std::time::Duration;
use tinkerbell_testkit::fake::FakeClock;

/// A journal of `count` records, each with its watermark.
fn marked(count: usize) -> MemDisk {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    let wal = stepped_at(&disk, 1, &clock);
    for n in 0..count {
        let durable = append(&wal, &n.to_string(), 40).durable;
        while wal.step() {}
        assert_eq!(now(durable), Some(Ok(())));
        clock.advance(Duration::from_millis(10));
        while wal.step() {}
    }
    disk
}

fn slot(disk: &MemDisk) -> u64 {
    let bytes = disk.files().into_values().last().unwrap();
    watermark(&bytes, Header::decode(&bytes).unwrap().incarnation)
}

#[test]
fn a_watermark_is_written_once_and_only_when_nothing_waits() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    let wal = stepped_at(&disk, 1, &clock);
    let syncs = disk.syncs();
    for n in 0..10 {
        drop(append(&wal, &n.to_string(), 1));
        assert!(wal.step());
        clock.advance(Duration::from_millis(4));
        assert!(!wal.step(), "4 ms are not idle");
    }
    assert_eq!((disk.syncs() - syncs, slot(&disk)), (10, 0), "a busy journal pays one sync a batch");
    drop(append(&wal, "waits", 1));
    clock.advance(Duration::from_millis(50));
    assert!(wal.step());
    assert_eq!(slot(&disk), 0, "the batch goes first");
    clock.advance(Duration::from_millis(5));
    assert!(wal.step());
    assert_eq!((disk.syncs() - syncs, slot(&disk)), (12, 22));
    clock.advance(Duration::from_secs(1));
    assert!(!wal.step(), "there is nothing new to note");
}

#[test]
fn damage_to_the_last_batch_is_corrupt_once_its_watermark_stands() {
    let files = marked(3).files();
    assert_eq!(recovered(&MemDisk::from_files(&files)).unwrap(), ["0", "1", "2"]);
    let whole = files.values().next().unwrap();
    let batch = (whole.len() - HEADER_BYTES) / 3;
    let check = |what: &str, change: &dyn Fn(&mut Vec<u8>)| {
        let mut files = files.clone();
        change(files.values_mut().next().unwrap());
        match recovered(&MemDisk::from_files(&files)) {
            Err(Error::Corrupt { lsn, why, .. }) => {
                assert!(lsn >= 5 && why.contains("up to 6 were acknowledged"), "{what}: record {lsn}: {why}");
            }
            other => panic!("{what}: {other:?}"),
        }
    };
    for at in whole.len() - batch..whole.len() {
        for bit in 0..8 {
            check("flip", &|bytes| bytes[at] ^= 1 << bit);
        }
        check("cut", &|bytes| bytes.truncate(at));
        if at + 8 < whole.len() {
            check("zeros", &|bytes| bytes[at..].fill(0));
        }
    }
}

#[test]
fn a_torn_slot_leaves_the_one_before() {
    let disk = marked(3);
    let ops = disk.ops();
    let last = ops.iter().rposition(|op| matches!(op, Op::Write { offset, .. } if SLOTS.contains(offset))).unwrap();
    let Op::Write { id, offset, bytes } = &ops[last] else { unreachable!() };
    for cut in 0..bytes.len() {
        let part = Op::Write { id: *id, offset: *offset, bytes: bytes[..cut].to_vec() };
        let disk = MemDisk::replay(ops[..last].iter().chain([&part]));
        // The slot that is being replaced is the one before the last one.
        assert!([4, 6].contains(&slot(&disk)), "cut at {cut}: {}", slot(&disk));
        assert_eq!(recovered(&disk).unwrap(), ["0", "1", "2"]);
    }
}

#[test]
fn a_slot_of_an_earlier_use_of_the_file_says_nothing() {
    let old = marked(3).files().into_values().next().unwrap();
    let disk = MemDisk::default();
    drop(open_with(&disk, &options(), 99).unwrap());
    let mut files = disk.files();
    files.values_mut().next().unwrap()[SLOTS].copy_from_slice(&old[SLOTS]);
    assert!(recovered(&MemDisk::from_files(&files)).unwrap().is_empty());
}

#[tokio::test]
async fn a_thread_writes_it_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    let wal = super::real::open_ticking(dir.path());
    super::put(&wal, "x", 10).await.unwrap();
    let found = || crate::inspect::stat(dir.path()).unwrap().watermark.0;
    let tries = (0..2000).take_while(|_| found() != 2).inspect(|_| std::thread::yield_now()).count();
    assert!(tries < 2000, "no watermark after {tries} looks");
}
