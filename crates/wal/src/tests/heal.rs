//! A sync that fails: the journal ends the segment, goes on in a new one, and tells nothing false.

use super::crash::is_pending;
use super::memory::{MemDisk, Op};
use super::stepped::{now, put_now, stepped, stepped_at};
use super::{append, options, record, recovered};
use std::time::Duration;
use tinkerbell_core::port::{Journal, Room};
use tinkerbell_core::words::Lsn;
use tinkerbell_testkit::fake::FakeClock;

/// The disk after a power cut: only what was synced.
fn after_power_cut(disk: &MemDisk) -> MemDisk {
    let ops = disk.ops();
    // A failed sync leaves no mark in the trace, so what it covered is still pending.
    let kept: Vec<Op> = (0..ops.len()).filter(|at| !is_pending(&ops, *at)).map(|at| ops[at].clone()).collect();
    MemDisk::replay(&kept)
}

fn segments(disk: &MemDisk) -> usize {
    disk.files().keys().filter(|name| name.ends_with(".wal")).count()
}

#[test]
fn a_failed_sync_is_healed_without_anybody_noticing() {
    let disk = MemDisk::default();
    let wal = stepped(&disk, 1);
    put_now(&wal, "a", 40).unwrap();
    disk.fault(|f| f.failing_syncs = 1);
    let appended = append(&wal, "b", 40);
    let number = appended.first;
    let queued = append(&wal, "c", 40);
    while wal.step() {}
    assert_eq!((now(appended.durable), now(queued.durable)), (Some(Ok(())), Some(Ok(()))));
    assert_eq!((number, segments(&disk), wal.state().room), (Lsn(3), 2, Room::Ample));
    put_now(&wal, "d", 40).unwrap();
    let read = now(wal.read(Lsn(1), 10)).unwrap().unwrap();
    assert_eq!(read.iter().map(|r| r.lsn.0).collect::<Vec<_>>(), [1, 3, 4, 6]);
    drop(wal);
    for disk in [&disk, &after_power_cut(&disk)] {
        assert_eq!(recovered(disk).unwrap(), ["a", "b", "c", "d"]);
        put_now(&stepped(disk, 2), "e", 40).unwrap();
        assert_eq!(recovered(disk).unwrap(), ["a", "b", "c", "d", "e"]);
    }
}

/// The failed segment can not even be cut, so whole batches with right checksums stay behind the
/// seal; they must not come back.
#[test]
fn what_stands_behind_a_seal_is_ignored_for_ever() {
    let disk = MemDisk::default();
    let wal = stepped(&disk, 1);
    put_now(&wal, "a", 40).unwrap();
    // The sync of the batch fails, those of the new segment do not, the cut of the old one does.
    disk.fault(|f| f.failing_syncs = 1);
    put_now(&wal, "b", 40).unwrap();
    drop(wal);
    // The failed segment's bytes as the page cache had them, as if the cut had never happened.
    let ops = disk.ops();
    let cut = ops.iter().rposition(|op| matches!(op, Op::Truncate { .. })).unwrap();
    let uncut = MemDisk::replay(ops[..cut].iter().chain(&ops[cut + 1..]));
    let first = uncut.files().into_values().next().unwrap();
    assert_eq!(first.windows(4).filter(|w| w == b"b   ").count().min(1), 1, "the failed batch is there as well");
    assert_eq!(recovered(&uncut).unwrap(), ["a", "b"]);
    let wal = stepped(&uncut, 2);
    put_now(&wal, "c", 40).unwrap();
    drop(wal);
    assert!(!uncut.files().into_values().next().unwrap().windows(4).any(|w| w == b"b   "), "recovery has cut it");
    assert_eq!(recovered(&uncut).unwrap(), ["a", "b", "c"]);
}

#[test]
fn every_crash_while_healing_recovers() {
    let disk = MemDisk::default();
    let wal = stepped(&disk, 1);
    put_now(&wal, "a", 40).unwrap();
    let (start, acked) = (disk.ops().len(), ["a"]);
    disk.fault(|f| f.failing_syncs = 1);
    put_now(&wal, "b", 700).unwrap();
    put_now(&wal, "c", 40).unwrap();
    drop(wal);
    let ops = disk.ops();
    for at in start..=ops.len() {
        let before = &ops[..at];
        let pending: Vec<usize> = (0..at).filter(|n| is_pending(before, *n)).collect();
        // Each set of up to ten acts that a power cut may undo.
        assert!(pending.len() <= 10, "{} acts", pending.len());
        for set in 0..1_u32 << pending.len() {
            let lost = |n: usize| pending.iter().position(|p| *p == n).is_some_and(|bit| set & 1 << bit != 0);
            let kept: Vec<Op> = (0..at).filter(|n| !lost(*n)).map(|n| ops[n].clone()).collect();
            let disk = MemDisk::replay(&kept);
            let found = recovered(&disk).unwrap_or_else(|e| panic!("act {at}, set {set:b}: {e}"));
            assert!(found.starts_with(&acked.map(str::to_owned)), "act {at}, set {set:b}: {found:?}");
            assert!(["a", "b", "c"].map(str::to_owned).starts_with(&found), "act {at}, set {set:b}: {found:?}");
            put_now(&stepped(&disk, 3), "after", 40).unwrap();
            assert_eq!(recovered(&disk).unwrap(), [found, vec!["after".to_owned()]].concat(), "act {at}, set {set:b}");
        }
    }
}

#[test]
fn two_failures_in_a_row_end_in_reading_only() {
    for failing in [2, 3, 4] {
        let disk = MemDisk::default();
        let wal = stepped(&disk, 1);
        put_now(&wal, "a", 40).unwrap();
        // The batch; then the new segment's header, or the batch in it.
        disk.fault(|f| f.failing_syncs = failing);
        let fault = put_now(&wal, "b", 40).unwrap_err();
        assert_eq!(fault.code.0, "TB-WAL-005");
        assert!(matches!(wal.state().room, Room::ReadOnly(why) if why.contains("failed")));
        assert!(wal.append(vec![record("late", 1)]).is_err());
        assert_eq!(now(wal.read(Lsn(1), 10)).unwrap().unwrap().len(), 1, "reading goes on");
        drop(wal);
        disk.fault(|f| f.failing_syncs = 0);
        let wal = stepped(&disk, 2);
        put_now(&wal, "c", 40).unwrap();
        let found = recovered(&disk).unwrap();
        assert_eq!((found.first().unwrap().as_str(), found.last().unwrap().as_str()), ("a", "c"));
    }
}

#[test]
fn a_lost_acknowledged_batch_is_never_built_upon() {
    let disk = MemDisk::default();
    let wal = stepped(&disk, 1);
    put_now(&wal, "a", 40).unwrap();
    disk.fault(|f| (f.failing_syncs, f.lost) = (1, true));
    let fault = put_now(&wal, "b", 40).unwrap_err();
    assert!(fault.message.contains("can not be read back"), "{fault}");
    assert!(matches!(wal.state().room, Room::ReadOnly(_)));
}

#[test]
fn a_failed_watermark_and_a_failed_mark_are_healed_too() {
    let (disk, clock) = (MemDisk::default(), FakeClock::new());
    let wal = stepped_at(&disk, 1, &clock);
    put_now(&wal, "a", 40).unwrap();
    disk.fault(|f| f.failing_syncs = 1);
    clock.advance(Duration::from_millis(10));
    while wal.step() {}
    assert_eq!((segments(&disk), wal.state().room), (2, Room::Ample));
    put_now(&wal, "b", 40).unwrap();
    disk.fault(|f| f.failing_syncs = 1);
    let mut close = wal.close();
    while wal.step() {}
    assert_eq!((now(&mut close), segments(&disk)), (Some(Ok(())), 3));
    drop(close);
    drop(wal);
    let wal = stepped(&disk, 2);
    assert!(wal.recovery().clean);
    assert_eq!(recovered(&disk).unwrap(), ["a", "b"]);
    assert_eq!(options().reserve_bytes, 0);
}

#[test]
fn the_real_disk_reads_back_around_the_cache() {
    use crate::disk::{Disk as _, Mode, RealDisk, write_full};
    let dir = tempfile::tempdir().unwrap();
    let file = RealDisk::existing(dir.path().to_owned()).open("x", Mode::Create).unwrap();
    let bytes: Vec<u8> = (0..20_000_u32).map(|n| n as u8).collect();
    write_full(&*file, 0, &bytes).unwrap();
    file.sync().unwrap();
    for (offset, len) in [(0, 1), (1, 4096), (4095, 2), (5000, 9000), (19_999, 1)] {
        let mut buf = vec![0; len];
        assert_eq!(file.read_direct(offset, &mut buf).unwrap(), len);
        assert_eq!(buf, bytes[offset as usize..offset as usize + len], "{len} bytes at {offset}");
    }
    assert_eq!(file.read_direct(20_000, &mut [0; 8]).unwrap(), 0);
}
