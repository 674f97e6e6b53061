//! A disk that fails: no false acknowledgement, and the way back.

use super::crash::is_pending;
use super::memory::MemDisk;
use super::{append, open, open_with, options, put, record, recovered};
use crate::{Error, Options};
use std::sync::Arc;
use tinkerbell_core::port::Journal;
use tinkerbell_core::words::Lsn;

fn texts(records: &[tinkerbell_core::port::Record]) -> Vec<String> {
    records.iter().map(|r| String::from_utf8_lossy(&r.payload).trim_end().to_owned()).collect()
}

#[tokio::test]
async fn a_failed_sync_poisons_and_is_never_tried_again() {
    let disk = MemDisk::default();
    let wal = open(&disk);
    put(&wal, "safe", 10).await.unwrap();
    disk.fault(|f| (f.hold, f.sync) = (true, true));
    let waiting: Vec<_> = (0..5).map(|n| append(&wal, &n.to_string(), 10)).collect();
    let syncs = disk.syncs();
    disk.fault(|f| f.hold = false);
    for appended in waiting {
        assert_eq!(appended.durable.await.unwrap_err().code.0, "TB-WAL-005");
    }
    disk.fault(|f| f.sync = false);
    assert_eq!(wal.append(vec![record("late", 10)]).err().unwrap().code.0, "TB-WAL-005");
    assert_eq!(wal.close().await.unwrap_err().code.0, "TB-WAL-005");
    assert_eq!(disk.syncs(), syncs, "no sync after the failed one");
    assert_eq!(texts(&wal.read(Lsn(1), 100).await.unwrap()), ["safe"], "what was durable can be read");
    assert_eq!(wal.state().tip, Lsn(1));
    assert!(matches!(open_with(&disk, &options(), 2), Err(Error::Locked { pid: Some(42), .. })), "the lock stays");
    drop(wal);
    let wal = open_with(&disk, &options(), 2).unwrap();
    put(&wal, "after", 10).await.unwrap();
    drop(wal);
    // What the failed sync left in the cache counts now, so it must have been written again.
    let ops = disk.ops();
    let durable = (0..ops.len()).filter(|at| !is_pending(&ops, *at)).map(|at| &ops[at]);
    assert_eq!(recovered(&MemDisk::replay(durable)).unwrap(), recovered(&disk).unwrap());
    let found = recovered(&disk).unwrap();
    assert_eq!((found.first().unwrap().as_str(), found.last().unwrap().as_str()), ("safe", "after"));
}

#[tokio::test]
async fn a_write_error_poisons() {
    let disk = MemDisk::default();
    let wal = open(&disk);
    disk.fault(|f| f.write = Some(5));
    let fault = put(&wal, "x", 10).await.unwrap_err();
    assert_eq!(fault.code.0, "TB-WAL-005");
    assert!(fault.message.contains("writing 0000000000000001-0000000000000001.wal failed"), "{fault}");
    assert!(!fault.hints.is_empty());
}

#[tokio::test]
async fn a_full_disk_refuses_and_goes_on_when_there_is_space() {
    let disk = MemDisk::default();
    let wal = open(&disk);
    put(&wal, "first", 10).await.unwrap();
    let before = disk.files();
    for space in [0, 1, 100, 185] {
        disk.fault(|f| f.space = Some(space));
        let fault = put(&wal, "refused", 10).await.unwrap_err();
        assert_eq!((fault.code.0, fault.retryable), ("TB-WAL-004", true));
        assert!(fault.hints[0].contains("free space"));
        assert_eq!(disk.files(), before, "nothing of the batch stays");
    }
    disk.fault(|f| f.space = None);
    assert_eq!(put(&wal, "second", 10).await.unwrap(), Lsn(3));
    // Also when the space ends where a new segment must begin.
    disk.fault(|f| f.space = Some(3000));
    assert_eq!(put(&wal, "refused", 5000).await.unwrap_err().code.0, "TB-WAL-004");
    disk.fault(|f| f.space = None);
    put(&wal, "third", 5000).await.unwrap();
    wal.close().await.unwrap();
    assert_eq!(recovered(&disk).unwrap(), ["first", "second", "third"]);
}

#[tokio::test]
async fn a_full_disk_at_the_end_leaves_only_the_mark_out() {
    let disk = MemDisk::default();
    let wal = open(&disk);
    put(&wal, "kept", 10).await.unwrap();
    disk.fault(|f| f.space = Some(20));
    wal.close().await.unwrap();
    disk.fault(|f| f.space = None);
    drop(wal);
    assert_eq!(recovered(&disk).unwrap(), ["kept"]);
}

#[tokio::test]
async fn short_writes_are_continued() {
    let disk = MemDisk::default();
    let wal = open(&disk);
    disk.fault(|f| f.short = Some(7));
    put(&wal, "a", 300).await.unwrap();
    put(&wal, "b", 300).await.unwrap();
    wal.close().await.unwrap();
    assert_eq!(recovered(&disk).unwrap(), ["a", "b"]);
}

#[tokio::test]
async fn what_gathers_during_a_sync_shares_the_next_one() {
    let disk = MemDisk::default();
    let wal = open_with(&disk, &Options { segment_bytes: 1 << 20, ..options() }, 1).unwrap();
    disk.fault(|f| f.hold = true);
    let waiting: Vec<_> = (0..200).map(|n| append(&wal, &n.to_string(), 10)).collect();
    let syncs = disk.syncs();
    disk.fault(|f| f.hold = false);
    let mut numbers = Vec::new();
    for appended in waiting {
        appended.durable.await.unwrap();
        numbers.push(appended.first.0);
    }
    // The first may have been taken alone before the others came.
    assert!(disk.syncs() - syncs <= 2, "{} syncs for 200 appends", disk.syncs() - syncs);
    assert!(numbers.is_sorted_by(|a, b| a < b));
    drop(wal);
    assert_eq!(recovered(&disk).unwrap(), (0..200).map(|n| n.to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn the_queue_and_a_single_append_are_bounded() {
    let disk = MemDisk::default();
    let small = Options { queue_bytes: 2000, batch_bytes: 1500, batch_records: 4, ..options() };
    let wal = open_with(&disk, &small, 1).unwrap();
    assert_eq!(wal.append(vec![record("x", 1500)]).err().unwrap().code.0, "TB-WAL-007");
    assert_eq!(wal.append(vec![record("x", 1); 5]).err().unwrap().code.0, "TB-WAL-007");
    disk.fault(|f| f.hold = true);
    let waiting = [append(&wal, "a", 900), append(&wal, "b", 900)];
    let fault = wal.append(vec![record("c", 900)]).err().unwrap();
    assert_eq!((fault.code.0, fault.retryable), ("TB-WAL-006", true));
    disk.fault(|f| f.hold = false);
    for appended in waiting {
        appended.durable.await.unwrap();
    }
    put(&wal, "c", 900).await.unwrap();
    wal.append(vec![record("d", 1); 4]).unwrap().durable.await.unwrap();
    wal.close().await.unwrap();
    assert_eq!(recovered(&disk).unwrap(), ["a", "b", "c", "d", "d", "d", "d"]);
}

#[tokio::test]
async fn dropping_the_future_does_not_take_the_records_back() {
    let disk = MemDisk::default();
    let wal = open(&disk);
    drop(append(&wal, "unheard", 10));
    put(&wal, "heard", 10).await.unwrap();
    drop(append(&wal, "last", 10));
    drop(wal);
    assert_eq!(recovered(&disk).unwrap(), ["unheard", "heard", "last"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn concurrent_appends_stay_dense_whole_and_in_order() {
    let disk = MemDisk::default();
    let wal = open_with(&disk, &Options { segment_bytes: 40_000, batch_records: 16, ..options() }, 1).unwrap();
    let writers: Vec<_> = (0..12)
        .map(|writer| {
            let wal = Arc::clone(&wal);
            tokio::spawn(async move {
                for n in 0..40 {
                    let pair = vec![record(&format!("{writer}.{n}a"), 30), record(&format!("{writer}.{n}b"), 30)];
                    wal.append(pair).unwrap().durable.await.unwrap();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.unwrap();
    }
    wal.close().await.unwrap();
    let found = recovered(&disk).unwrap();
    assert_eq!(found.len(), 12 * 40 * 2);
    for pair in found.chunks(2) {
        assert_eq!(pair[0].trim_end_matches('a'), pair[1].trim_end_matches('b'), "an append stays together");
    }
    for writer in 0..12 {
        let own: Vec<_> = found.iter().filter(|t| t.starts_with(&format!("{writer}.")) && t.ends_with('a')).collect();
        assert_eq!(own, (0..40).map(|n| format!("{writer}.{n}a")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
    }
}
