//! Compaction: what is kept, what a crash leaves, and what is noticed.

use super::crash::{is_pending, tear};
use super::memory::{MemDisk, Op};
use super::{everything, open_with, options, put};
use crate::compact::format::{Kept, Range};
use crate::{Error, Wal};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_core::port::{Compaction, Journal, Needed, Record};
use tinkerbell_core::words::Lsn;
use tinkerbell_testkit::fake::SeedEntropy;

/// Needs the numbers that `wanted` says.
pub(super) fn needs(wanted: impl Fn(u64) -> bool + Send + Sync + 'static) -> Needed {
    Arc::new(move |lsn, _, _| wanted(lsn.0))
}

/// What an opening finds: number and text.
pub(super) fn found(disk: &MemDisk) -> Result<BTreeMap<u64, String>, Error> {
    Ok(by_number(&everything(disk)?))
}

fn by_number(records: &[Record]) -> BTreeMap<u64, String> {
    records.iter().map(|r| (r.lsn.0, String::from_utf8_lossy(&r.payload).trim_end().to_owned())).collect()
}

pub(super) async fn readable(wal: &Wal) -> BTreeMap<u64, String> {
    by_number(&wal.read(Lsn(1), usize::MAX).await.unwrap())
}

/// Compacts until there is nothing more to do.
pub(super) async fn compact(wal: &Wal, needed: &Needed) -> Compaction {
    let mut sum = Compaction::default();
    for _ in 0..100 {
        let done = wal.compact(needed.clone()).await.unwrap();
        if done == Compaction::default() {
            return sum;
        }
        sum.segments += done.segments;
        sum.dropped += done.dropped;
        sum.freed_bytes += done.freed_bytes;
    }
    panic!("compaction does not end");
}

fn compacted(disk: &MemDisk) -> Vec<String> {
    disk.files().into_keys().filter(|name| Range::of_name(name).is_some()).collect()
}

/// Thirty records over several segments and two openings.
async fn filled(disk: &MemDisk) {
    for seed in [1, 2] {
        let wal = open_with(disk, &options(), seed).unwrap();
        for n in 0..15 {
            put(&wal, &format!("s{seed}n{n}"), 900).await.unwrap();
        }
        wal.close().await.unwrap();
    }
}

#[tokio::test]
async fn numbers_have_gaps_and_everything_lives_with_that() {
    let disk = MemDisk::default();
    filled(&disk).await;
    let wal = open_with(&disk, &options(), 3).unwrap();
    let before = readable(&wal).await;
    let (tip, bytes) = (wal.state().tip, wal.state().bytes);
    let needed = needs(|lsn| lsn % 20 == 1);
    let done = compact(&wal, &needed).await;
    let after = readable(&wal).await;
    assert!(before.iter().filter(|(lsn, _)| *lsn % 20 == 1).all(|(lsn, text)| after.get(lsn) == Some(text)));
    assert_eq!(done.dropped, (before.len() - after.len()) as u64);
    assert!(after.len() < 6 && done.segments >= 8, "{done:?}, {} left", after.len());
    assert!(wal.state().bytes < bytes / 5 && done.freed_bytes > bytes / 2);
    assert_eq!(wal.state().tip, tip);
    assert_eq!(compacted(&disk).len(), 1, "{:?}", disk.files().keys());
    assert!(put(&wal, "later", 10).await.unwrap() > tip);
    // Again, with fewer needed, over what was compacted already and the records that vouch for it.
    drop(wal);
    let wal = open_with(&disk, &options(), 4).unwrap();
    compact(&wal, &needs(|lsn| lsn == 41)).await;
    assert_eq!(readable(&wal).await.keys().copied().collect::<Vec<_>>(), [41]);
    wal.close().await.unwrap();
    drop(wal);
    assert_eq!(found(&disk).unwrap().keys().copied().collect::<Vec<_>>(), [41]);
    let wal = open_with(&disk, &options(), 5).unwrap();
    compact(&wal, &needs(|_| false)).await;
    assert!(readable(&wal).await.is_empty());
    assert!(put(&wal, "last", 10).await.unwrap() > tip);
    drop(wal);
    assert_eq!(found(&disk).unwrap().into_values().collect::<Vec<_>>(), ["last"]);
}

#[tokio::test]
async fn the_active_segment_is_never_touched() {
    let disk = MemDisk::default();
    let wal = open_with(&disk, &options(), 1).unwrap();
    put(&wal, "a", 10).await.unwrap();
    assert_eq!(compact(&wal, &needs(|_| false)).await, Compaction::default());
    for n in 0..10 {
        put(&wal, &format!("n{n}"), 1500).await.unwrap();
    }
    let active = disk.files().into_keys().last().unwrap();
    let in_active: Vec<u64> =
        readable(&wal).await.into_keys().filter(|lsn| active.contains(&format!("-{:016x}", lsn - lsn % 2 + 1))).collect();
    compact(&wal, &needs(|_| false)).await;
    assert!(disk.files().contains_key(&active));
    let left = readable(&wal).await;
    assert!(!left.is_empty() && in_active.iter().all(|lsn| left.contains_key(lsn)), "{left:?} of {active}");
}

#[tokio::test]
async fn one_call_does_bounded_work_and_says_that_there_is_more() {
    let disk = MemDisk::default();
    filled(&disk).await;
    let small = crate::Options { compact_bytes: 2_000, ..options() };
    let wal = open_with(&disk, &small, 3).unwrap();
    let needed = needs(|lsn| lsn % 3 == 1);
    let mut calls = 0;
    while wal.compact(needed.clone()).await.unwrap() != Compaction::default() {
        calls += 1;
        assert!(calls < 50);
    }
    assert!(calls > 3, "{calls} calls");
    assert!(readable(&wal).await.keys().filter(|lsn| *lsn % 3 == 1).count() >= 10);
}

/// A trace that appends, compacts, appends and compacts again; when each act of compaction began, what
/// was acknowledged and what is not needed any more.
struct Trace {
    ops: Vec<Op>,
    /// After so many acts, these had been acknowledged.
    acked: Vec<(usize, BTreeMap<u64, String>)>,
    /// From so many acts on, only these were needed.
    needed: Vec<(usize, Vec<u64>)>,
}

impl Trace {
    async fn record() -> Self {
        let disk = MemDisk::default();
        let mut trace = Self { ops: Vec::new(), acked: Vec::new(), needed: Vec::new() };
        let mut all = BTreeMap::new();
        for round in 0..4_u64 {
            let wal = open_with(&disk, &options(), round).unwrap();
            for n in 0..6 {
                let text = format!("r{round}n{n}");
                all.insert(put(&wal, &text, 1300).await.unwrap().0, text);
                trace.acked.push((disk.ops().len(), all.clone()));
            }
            let keep: Vec<u64> = all.keys().copied().filter(|lsn| (lsn + round) % 5 == 0).collect();
            trace.needed.push((disk.ops().len(), keep.clone()));
            compact(&wal, &needs(move |lsn| keep.contains(&lsn))).await;
            all = readable(&wal).await;
            put(&wal, "between", 10).await.unwrap();
            all = [all, readable(&wal).await].into_iter().flatten().collect();
            if round == 2 {
                wal.close().await.unwrap();
            }
        }
        trace.ops = disk.ops();
        trace
    }

    fn check(&self, disk: &MemDisk, at: usize, what: &str) {
        let left = found(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        let empty = BTreeMap::new();
        let acked = self.acked.iter().filter(|(ops, _)| *ops <= at).map(|(_, all)| all).next_back().unwrap_or(&empty);
        for (lsn, text) in acked {
            let maybe = self.needed.iter().any(|(ops, keep)| *ops <= at && !keep.contains(lsn));
            match left.get(lsn) {
                Some(found) => assert_eq!(found, text, "{what}: record {lsn}"),
                None => assert!(maybe, "{what}: record {lsn} is gone"),
            }
        }
        assert_eq!(&found(disk).unwrap(), &left, "{what}: the second opening differs");
        let leftovers: Vec<String> = disk.files().into_keys().filter(|name| name.ends_with(".new")).collect();
        assert!(leftovers.is_empty(), "{what}: {leftovers:?}");
    }
}

#[tokio::test]
async fn every_act_of_compaction_may_be_the_last() {
    let trace = Trace::record().await;
    let renames = trace.ops.iter().filter(|op| matches!(op, Op::Rename { to, .. } if Range::of_name(to).is_some())).count();
    assert!(renames >= 3, "{renames} compactions");
    for at in 0..=trace.ops.len() {
        let before = &trace.ops[..at];
        trace.check(&MemDisk::replay(before), at, &format!("after act {at}"));
        let pending: Vec<bool> = (0..at).map(|n| is_pending(before, n)).collect();
        let rounds = if pending.contains(&true) { 6 } else { 0 };
        for seed in 0..rounds {
            let chance = SeedEntropy::new(seed * 1000 + at as u64);
            let kept: Vec<Op> =
                before.iter().zip(&pending).flat_map(|(op, pending)| if *pending { tear(op, &chance) } else { vec![op.clone()] }).collect();
            trace.check(&MemDisk::replay(&kept), at, &format!("after act {at}, seed {seed}"));
        }
    }
}

/// A journal with one compacted segment.
async fn with_one() -> (MemDisk, String) {
    let disk = MemDisk::default();
    filled(&disk).await;
    let wal = open_with(&disk, &options(), 3).unwrap();
    compact(&wal, &needs(|lsn| lsn % 20 == 1)).await;
    drop(wal);
    let [name]: [String; 1] = compacted(&disk).try_into().unwrap();
    (disk, name)
}

fn code(disk: &MemDisk) -> (&'static str, String) {
    let error = found(disk).unwrap_err();
    (error.code(), error.to_string())
}

#[tokio::test]
async fn a_changed_compacted_segment_is_damage() {
    let (disk, name) = with_one().await;
    let whole = disk.files();
    for at in (0..whole[&name].len()).step_by(37) {
        let mut files = whole.clone();
        files.get_mut(&name).unwrap()[at] ^= 4;
        let (code, text) = code(&MemDisk::from_files(&files));
        assert!(matches!(code, "TB-WAL-002" | "TB-WAL-009"), "byte {at}: {text}");
    }
    for cut in [0, 4095, 4096, 5000] {
        let mut files = whole.clone();
        files.get_mut(&name).unwrap().truncate(cut);
        assert_eq!(code(&MemDisk::from_files(&files)).0, "TB-WAL-002", "cut at {cut}");
    }
    let mut files = whole.clone();
    files.remove(&name);
    assert!(code(&MemDisk::from_files(&files)).1.contains("earlier segments are missing"));
    // One whose checksums all hold, with one record fewer: only the retirement record tells.
    let mut kept = Kept::decode(&whole[&name]).unwrap();
    let first = crate::format::Frame::decode(&whole[&name][4096..]).unwrap().size();
    kept.records -= 1;
    kept.body_bytes -= first as u64;
    let forged = [kept.encode(), whole[&name][4096 + first..].to_vec()].concat();
    files.insert(name.clone(), forged);
    let (forged, text) = code(&MemDisk::from_files(&files));
    assert!(forged == "TB-WAL-002" && text.contains("it was replaced"), "{text}");
    // One that was put there while nothing had been compacted.
    let untouched = MemDisk::default();
    filled(&untouched).await;
    drop(open_with(&untouched, &options(), 3).unwrap());
    let planted = [untouched.files(), BTreeMap::from([(name.clone(), whole[&name].clone())])].into_iter().flatten().collect();
    let (planted, text) = code(&MemDisk::from_files(&planted));
    assert!(planted == "TB-WAL-002" && text.contains("no retirement record"), "{text}");
}

#[tokio::test]
async fn a_full_disk_leaves_everything_as_it_was() {
    let disk = MemDisk::default();
    filled(&disk).await;
    let wal = open_with(&disk, &options(), 3).unwrap();
    let before = disk.files();
    for space in [0, 100, 5_000, 8_000] {
        disk.fault(|f| f.space = Some(space));
        let fault = wal.compact(needs(|lsn| lsn % 5 == 1)).await.unwrap_err();
        assert_eq!((fault.code.0, fault.retryable), ("TB-WAL-004", true), "{fault}");
        disk.fault(|f| f.space = None);
        assert_eq!(disk.files(), before, "with {space} bytes");
    }
    assert!(compact(&wal, &needs(|lsn| lsn % 5 == 1)).await.dropped > 0);
}

#[tokio::test]
async fn a_compaction_that_is_dropped_half_way_has_done_nothing() {
    let disk = MemDisk::default();
    filled(&disk).await;
    let wal = Wal::open_stepped(
        Arc::new(disk.clone()),
        &options(),
        Arc::new(tinkerbell_testkit::fake::FakeClock::new()),
        Arc::new(SeedEntropy::new(3)),
        None,
    )
    .unwrap();
    let before = disk.files();
    let mut compaction = wal.compact(needs(|_| false));
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    assert!(compaction.as_mut().poll(&mut context).is_pending(), "it waits for its retirement record");
    assert_eq!(disk.files().len(), before.len() + 1);
    drop(compaction);
    assert_eq!(disk.files(), before);
    let all = by_number(&wal.read(Lsn(1), usize::MAX).await.unwrap());
    assert_eq!(all.len(), 30);
    assert!(wal.step(), "the retirement record that nobody waits for");
    drop(wal);
    assert_eq!(found(&disk).unwrap(), all);
}

#[tokio::test]
async fn a_compaction_ends_when_the_journal_closes() {
    let disk = MemDisk::default();
    filled(&disk).await;
    let wal = open_with(&disk, &options(), 3).unwrap();
    wal.close().await.unwrap();
    let closed = disk.files();
    assert_eq!(wal.compact(needs(|_| false)).await.unwrap_err().code.0, "TB-WAL-008");
    assert_eq!(disk.files(), closed);
}

fn golden_dir() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden/v1-compacted")
}

/// `UPDATE_EXPECT=1` writes the files anew; after a release that is never right.
#[tokio::test]
async fn a_compacted_segment_of_version_1_is_read_and_written_the_same() {
    let (disk, name) = with_one().await;
    let now = disk.files();
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
    assert!(golden.contains_key(&name), "{:?}", golden.keys());
    assert!(golden[&name] == now[&name], "{name} differs from what this release writes");
    let left = found(&MemDisk::from_files(&golden)).unwrap();
    assert_eq!(
        left.into_iter().collect::<Vec<_>>(),
        [(1, "s1n0"), (21, "s1n10"), (41, "s2n4"), (61, "s2n14")].map(|(lsn, text)| (lsn, text.to_owned()))
    );
}
