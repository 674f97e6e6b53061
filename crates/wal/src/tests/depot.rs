//! Segments filled ahead, spares and the reserve.

use super::memory::{MemDisk, Op};
use super::stepped::{put_now, stepped_with};
use super::{options, recovered};
use crate::Options;
use std::time::Duration;
use tinkerbell_core::port::{Journal, Room};
use tinkerbell_testkit::fake::FakeClock;

const SEGMENT: u64 = 20_000;

fn filled() -> Options {
    Options { segment_bytes: SEGMENT, preallocate: Some(true), ..options() }
}

fn reserved() -> Options {
    Options { reserve_bytes: 30_000, ..options() }
}

fn texts(count: usize) -> Vec<String> {
    (0..count).map(|n| n.to_string()).collect()
}

#[test]
fn the_next_segment_stands_ready_and_syncs_make_no_file_longer() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    let wal = stepped_with(&disk, &filled(), 1, &clock);
    for n in 0..100 {
        put_now(&wal, &n.to_string(), 900).unwrap();
    }
    let segments = disk.files().keys().filter(|name| name.ends_with(".wal")).count();
    assert!(segments > 4, "{segments} segments");
    assert!(disk.ops().iter().any(|op| matches!(op, Op::Rename { from, to, .. } if from.starts_with("spare-") && to.ends_with(".wal"))));
    // A batch goes where bytes were before, but for the first of a segment that was not prepared.
    let (mut lens, mut longer) = (std::collections::BTreeMap::new(), 0);
    for op in disk.ops() {
        if let Op::Write { id, offset, bytes } = op {
            let len = lens.entry(id).or_insert(0);
            longer += usize::from(bytes.windows(8).any(|w| w == b"        ") && offset + bytes.len() > *len);
            *len = (offset + bytes.len()).max(*len);
        }
    }
    assert!(longer <= 2, "{longer} batches made a file longer");
    assert_eq!(recovered(&disk).unwrap(), texts(100));
    let mut close = wal.close();
    while wal.step() {}
    assert_eq!(super::stepped::now(&mut close), Some(Ok(())));
    let newest = disk.files().into_iter().rfind(|(name, _)| name.ends_with(".wal")).unwrap().1;
    assert_ne!(newest.last(), Some(&0), "the space behind the last record is given back");
    assert_eq!(recovered(&disk).unwrap(), texts(100));
}

#[test]
fn a_freed_segment_is_used_again_and_its_old_records_never_come_back() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    let wal = stepped_with(&disk, &filled(), 1, &clock);
    for n in 0..40 {
        put_now(&wal, &format!("old {n}"), 900).unwrap();
    }
    drop(wal);
    // A segment of another journal of the same shape: its frames lie exactly where the next ones
    // go, with the numbers that come next and right checksums.
    let bytes = disk.files().into_iter().find(|(name, _)| name.ends_with(".wal")).unwrap().1;
    let (disk, spare) = (MemDisk::default(), "freed.wal");
    let wal = stepped_with(&disk, &filled(), 4, &clock);
    disk.put(spare, bytes);
    wal.depot().retire(spare).unwrap();
    assert!(disk.files().contains_key("spare-0000000000000001"), "{:?}", disk.files().keys());
    for n in 0..25 {
        put_now(&wal, &n.to_string(), 900).unwrap();
        assert_eq!(recovered(&MemDisk::from_files(&disk.files())).unwrap(), texts(n + 1));
    }
    assert!(!disk.files().contains_key("spare-0000000000000001"), "it is in use");
    drop(wal);
    let left = |disk: &MemDisk| disk.files().values().filter(|bytes| bytes.windows(4).any(|w| w == b"old ")).count();
    assert_eq!(left(&disk), 1, "old bytes lie behind the new ones");
    let wal = stepped_with(&disk, &filled(), 5, &clock);
    assert_eq!((wal.recovery().cut_bytes, recovered(&disk).unwrap(), left(&disk)), (0, texts(25), 0));
}

#[test]
fn unfinished_and_foreign_files_of_the_depot_are_tidied_away() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    drop(stepped_with(&disk, &filled(), 1, &clock));
    let mut files = disk.files();
    files.insert("spare-0000000000000009.new".into(), vec![0; 100]);
    files.insert("spare-0000000000000003".into(), vec![0; 100]);
    files.insert("reserve.new".into(), vec![0; 100]);
    files.insert("reserve".into(), vec![0; 100]);
    let disk = MemDisk::from_files(&files);
    drop(stepped_with(&disk, &filled(), 2, &clock));
    assert!(disk.files().keys().all(|name| name.ends_with(".wal")), "{:?}", disk.files().keys());
}

#[test]
fn a_full_disk_goes_on_in_the_reserve_and_gets_it_back() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    disk.fault(|f| f.capacity = Some(200_000));
    let wal = stepped_with(&disk, &reserved(), 1, &clock);
    while wal.step() {}
    assert_eq!(disk.files()["reserve"].len(), 30_000);
    put_now(&wal, "0", 900).unwrap();
    let used = |disk: &MemDisk| disk.files().values().map(Vec::len).sum::<usize>();
    let full = used(&disk) + 500;
    disk.fault(|f| f.capacity = Some(full));
    assert_eq!(wal.state().room, Room::Ample);
    let mut count = 1;
    let fault = loop {
        match put_now(&wal, &count.to_string(), 900) {
            Ok(()) => {
                assert_eq!(wal.state().room, Room::Reserve);
                count += 1;
            }
            Err(fault) => break fault,
        }
        assert!(count < 100, "the reserve ends");
    };
    assert!(count > 20, "{count} records found room in the reserve");
    assert!(fault.is_disk_full() && fault.retryable, "{fault:?}");
    assert_eq!(fault.code.0, "TB-WAL-004");
    assert_eq!(recovered(&disk).unwrap(), texts(count));
    clock.advance(Duration::from_secs(1));
    assert!(!wal.step() || wal.state().room == Room::Reserve, "a full disk gives nothing back");

    disk.fault(|f| f.capacity = Some(400_000));
    put_now(&wal, &count.to_string(), 900).unwrap();
    clock.advance(Duration::from_secs(1));
    while wal.step() {}
    assert_eq!((wal.state().room, disk.files()["reserve"].len()), (Room::Ample, 30_000));
    assert_eq!(recovered(&disk).unwrap(), texts(count + 1));
}

#[test]
fn an_empty_first_segment_gives_its_name_to_the_reserve() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    disk.fault(|f| f.capacity = Some(200_000));
    let wal = stepped_with(&disk, &reserved(), 1, &clock);
    while wal.step() {}
    disk.fault(|f| f.capacity = Some(1));
    put_now(&wal, "0", 5_000).unwrap();
    assert_eq!((wal.state().room, recovered(&disk).unwrap()), (Room::Reserve, texts(1)));
}

#[test]
fn a_small_disk_keeps_no_reserve() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    disk.fault(|f| f.capacity = Some(100_000));
    let wal = stepped_with(&disk, &reserved(), 1, &clock);
    while wal.step() {}
    assert!(!disk.files().contains_key("reserve"));
    disk.fault(|f| f.capacity = Some(200_000));
    clock.advance(Duration::from_secs(61));
    while wal.step() {}
    assert!(disk.files().contains_key("reserve"), "it is taken when there is space");
}
