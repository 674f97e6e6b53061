//! What a checkpoint lets an opening leave unread: headers only, and no damage passed over.

use super::compact::{compact, needs, readable};
use super::crash::{is_pending, tear};
use super::memory::{MemDisk, Op};
use super::stepped::{now, put_now, stepped_at};
use super::{open_with, options, put, recovered};
use crate::format::HEADER_BYTES;
use bytes::Bytes;
use tinkerbell_core::port::Journal;
use tinkerbell_core::words::Lsn;
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

/// Thirty records over many segments, and a checkpoint that stands for the first `through` numbers.
async fn journal(through: u64) -> MemDisk {
    let disk = MemDisk::default();
    let wal = open_with(&disk, &options(), 1).unwrap();
    for n in 0..30 {
        put(&wal, &format!("n{n}"), 1200).await.unwrap();
    }
    wal.checkpoint(Lsn(through), Bytes::from_static(b"image")).await.unwrap();
    drop(wal);
    disk
}

fn texts(range: std::ops::Range<u32>) -> Vec<String> {
    range.map(|n| format!("n{n}")).collect()
}

fn segments(disk: &MemDisk) -> Vec<String> {
    disk.files().into_keys().filter(|name| name.ends_with(".wal")).collect()
}

/// The same files with one byte of the `nth` segment changed.
fn damaged(disk: &MemDisk, nth: usize, at: usize) -> MemDisk {
    let (name, mut files) = (segments(disk)[nth].clone(), disk.files());
    files.get_mut(&name).unwrap()[at] ^= 1;
    MemDisk::from_files(&files)
}

#[tokio::test]
async fn old_segments_are_opened_by_their_headers_alone() {
    let disk = MemDisk::from_files(&journal(45).await.files());
    let names = segments(&disk);
    let wal = open_with(&disk, &options(), 2).unwrap();
    let unread = wal.recovery().unread;
    assert!(unread >= 5 && unread < names.len(), "{unread} of {}", names.len());
    assert_eq!((wal.recovery().segments, wal.recovery().tip), (names.len(), Lsn(59)));
    let reads = disk.reads();
    for (nth, name) in names.iter().enumerate() {
        let whole = reads.iter().any(|(read, end)| read == name && *end > HEADER_BYTES);
        assert_eq!(whole, nth >= unread, "{name}");
    }
    let bytes = wal.state().bytes;
    assert_eq!(readable(&wal).await.into_values().collect::<Vec<_>>(), texts(0..30));
    assert!(wal.state().bytes <= bytes && wal.state().damage.is_none());
    // One whose image was damaged stands for nothing.
    let mut files = disk.files();
    *files.get_mut("checkpoint").unwrap().last_mut().unwrap() ^= 1;
    drop(wal);
    let wal = open_with(&MemDisk::from_files(&files), &options(), 2).unwrap();
    assert_eq!(wal.recovery().unread, 0);
    assert_eq!(wal.restore().await.unwrap(), None);
}

#[tokio::test]
async fn a_read_needs_one_segment_and_reads_no_other() {
    let disk = MemDisk::from_files(&journal(45).await.files());
    let wal = open_with(&disk, &options(), 2).unwrap();
    let seen = disk.reads().len();
    let third = wal.read(Lsn(5), 1).await.unwrap();
    assert_eq!(third[0].lsn, Lsn(5));
    let reads = disk.reads();
    let mut touched: Vec<&String> = reads[seen..].iter().map(|(name, _)| name).collect();
    touched.dedup();
    assert_eq!(touched.len(), 1, "{touched:?}");
    let again = disk.reads().len();
    wal.read(Lsn(5), 1).await.unwrap();
    assert_eq!(disk.reads().len(), again + 1, "the second read takes the stretch alone");
}

#[tokio::test]
async fn a_checkpoint_of_another_journal_stands_for_nothing() {
    let disk = journal(500).await;
    let wal = open_with(&disk, &options(), 2).unwrap();
    assert_eq!((wal.recovery().unread, wal.recovery().tip), (0, Lsn(59)));
    assert_eq!(wal.restore().await.unwrap(), None);
}

#[tokio::test]
async fn damage_below_the_checkpoint_is_told_by_reads_and_above_it_refuses() {
    let disk = journal(45).await;
    let unread = open_with(&MemDisk::from_files(&disk.files()), &options(), 2).unwrap().recovery().unread;
    for nth in 0..segments(&disk).len() - 1 {
        let len = disk.files()[&segments(&disk)[nth]].len();
        for at in (HEADER_BYTES..len).step_by(97).chain([len - 1]) {
            let bad = damaged(&disk, nth, at);
            let opened = open_with(&bad, &options(), 2);
            let Ok(wal) = opened else {
                assert!(nth >= unread && opened.unwrap_err().code() == "TB-WAL-002", "segment {nth} byte {at}");
                continue;
            };
            assert!(nth < unread, "segment {nth} byte {at}");
            let fault = wal.read(Lsn(1), usize::MAX).await.unwrap_err();
            assert_eq!(fault.code.0, "TB-WAL-002", "segment {nth} byte {at}");
            assert!(wal.state().damage.unwrap().contains(&segments(&disk)[nth]));
            // What lies elsewhere is there, new records are taken, and nothing is compacted.
            assert_eq!(wal.read(Lsn(45), 1).await.unwrap().len(), 1);
            put(&wal, "new", 10).await.unwrap();
            let before = bad.files().len();
            assert_eq!(wal.compact(needs(|_| false)).await.unwrap_err().code.0, "TB-WAL-002");
            assert_eq!(bad.files().len(), before);
        }
    }
}

#[tokio::test]
async fn a_damaged_header_and_a_missing_segment_refuse_or_are_found() {
    let disk = journal(45).await;
    assert_eq!(open_with(&damaged(&disk, 2, 40), &options(), 2).unwrap_err().code(), "TB-WAL-002");
    let names = segments(&disk);
    for gone in &names[..names.len() - 1] {
        let mut files = disk.files();
        files.remove(gone);
        match open_with(&MemDisk::from_files(&files), &options(), 2) {
            Err(error) => assert_eq!(error.code(), "TB-WAL-002", "without {gone}"),
            Ok(wal) => assert_eq!(wal.read(Lsn(1), usize::MAX).await.unwrap_err().code.0, "TB-WAL-002", "without {gone}"),
        }
    }
}

#[tokio::test]
async fn the_scrub_finds_damage_that_nobody_reads() {
    let disk = journal(45).await;
    let (whole, bad) = (MemDisk::from_files(&disk.files()), damaged(&disk, 3, HEADER_BYTES + 60));
    for (disk, expected) in [(whole, false), (bad, true)] {
        let clock = FakeClock::new();
        let wal = stepped_at(&disk, 3, &clock);
        put_now(&wal, "first", 10).unwrap();
        assert_eq!(wal.state().damage, None, "the scrub waits");
        let unread = wal.recovery().unread;
        let reads = disk.reads().len();
        clock.advance(std::time::Duration::from_secs(2));
        let mut steps = 0;
        while wal.step() {
            steps += 1;
            assert!(steps < 100);
        }
        assert!(steps > unread, "{steps} steps");
        assert!(disk.reads().len() > reads);
        assert_eq!(wal.state().damage.is_some(), expected, "{:?}", wal.state());
        let all = now(wal.read(Lsn(1), usize::MAX)).unwrap();
        assert_eq!(all.is_err(), expected);
        put_now(&wal, "last", 10).unwrap();
    }
}

/// A compacted segment below the checkpoint is opened by its header, and vouched for by the scrub.
#[tokio::test]
async fn a_replaced_compacted_segment_is_found_behind_the_opening() {
    let disk = journal(1).await;
    let wal = open_with(&disk, &options(), 2).unwrap();
    compact(&wal, &needs(|lsn| lsn % 3 == 1)).await;
    for n in 30..60 {
        put(&wal, &format!("n{n}"), 1200).await.unwrap();
    }
    let all = readable(&wal).await;
    wal.checkpoint(Lsn(wal.state().tip.0 - 4), Bytes::new()).await.unwrap();
    drop(wal);
    let wal = open_with(&MemDisk::from_files(&disk.files()), &options(), 3).unwrap();
    assert!(wal.recovery().unread > 3);
    assert_eq!(readable(&wal).await, all);
    assert!(compact(&wal, &needs(|lsn| lsn % 9 == 1)).await.dropped > 0);
    drop(wal);
    let name = segments(&disk).into_iter().find(|name| name.len() > 40).unwrap();
    let mut files = disk.files();
    let kept = crate::compact::format::Kept::decode(&files[&name]).unwrap();
    let first = crate::format::Frame::decode(&files[&name][HEADER_BYTES..]).unwrap().size();
    let forged = crate::compact::format::Kept { records: kept.records - 1, body_bytes: kept.body_bytes - first as u64, ..kept };
    let bytes = [forged.encode(), files[&name][HEADER_BYTES + first..].to_vec()].concat();
    files.insert(name, bytes);
    let wal = open_with(&MemDisk::from_files(&files), &options(), 3).unwrap();
    let fault = wal.compact(needs(|_| false)).await.unwrap_err();
    assert!(fault.message.contains("it was replaced"), "{fault}");
    assert!(wal.state().damage.is_some());
}

/// Power cuts at every act of a trace in which checkpoints are taken at random.
#[tokio::test]
async fn crashes_with_checkpoints_at_random_lose_nothing() {
    for seed in 0..4 {
        let (disk, chance) = (MemDisk::default(), SeedEntropy::new(seed));
        let (mut sent, mut acks) = (Vec::new(), Vec::new());
        for round in 0..3 {
            let wal = open_with(&disk, &options(), seed * 10 + round).unwrap();
            for n in 0..7 {
                use tinkerbell_core::clock::Entropy as _;
                let text = format!("r{round}n{n}");
                sent.push(text.clone());
                put(&wal, &text, 900).await.unwrap();
                acks.push((disk.ops().len(), sent.len()));
                if chance.id().is_multiple_of(3) {
                    let back = u64::try_from(chance.id() % 8).unwrap();
                    wal.checkpoint(Lsn(wal.state().tip.0.saturating_sub(back)), Bytes::from_static(b"image")).await.unwrap();
                }
            }
        }
        let ops = disk.ops();
        for at in 0..=ops.len() {
            let before = &ops[..at];
            let pending: Vec<bool> = (0..at).map(|n| is_pending(before, n)).collect();
            for torn in 0..if pending.contains(&true) { 4 } else { 1 } {
                let chance = SeedEntropy::new(torn * 1000 + at as u64);
                let kept: Vec<Op> = before
                    .iter()
                    .zip(&pending)
                    .flat_map(|(op, pending)| if *pending && torn > 0 { tear(op, &chance) } else { vec![op.clone()] })
                    .collect();
                let disk = MemDisk::replay(&kept);
                let what = format!("seed {seed}, act {at}, torn {torn}");
                let found = recovered(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
                let acked = acks.iter().filter(|(ops, _)| *ops <= at).map(|(_, count)| *count).max().unwrap_or(0);
                assert!(sent.starts_with(&found) && found.len() >= acked, "{what}: {found:?}");
                assert_eq!(recovered(&disk).unwrap(), found, "{what}");
            }
        }
    }
}

/// The stepped journal does the same for the same seed, scrub and all.
#[tokio::test]
async fn the_scrub_is_deterministic() {
    let files = journal(45).await.files();
    let run = || {
        let (disk, clock) = (MemDisk::from_files(&files), FakeClock::new());
        let wal = stepped_at(&disk, 3, &clock);
        for n in 0..5 {
            put_now(&wal, &n.to_string(), 700).unwrap();
            clock.advance(std::time::Duration::from_millis(400));
            wal.step();
        }
        (disk.reads(), disk.files())
    };
    assert_eq!(run(), run());
}
