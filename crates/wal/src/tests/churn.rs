//! Compaction over long times: random histories against a model, and logs that must not grow.

use super::compact::{compact, found, needs, readable};
use super::crash::{is_pending, tear};
use super::memory::{MemDisk, Op};
use super::{open_with, options, record};
use crate::{Options, Wal};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use tinkerbell_core::clock::Entropy;
use tinkerbell_core::port::{Journal, NewRecord};
use tinkerbell_core::words::Lsn;
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

/// What must be, and what may be, readable.
#[derive(Debug, Clone, Default)]
struct Model {
    acked: BTreeMap<u64, String>,
    unneeded: BTreeSet<u64>,
}

impl Model {
    /// Checks what an opening found; texts tell a record from every other, so `sent` is enough to
    /// know one that was never acknowledged.
    fn check(&self, found: &BTreeMap<u64, String>, sent: &BTreeSet<String>, what: &str) {
        for (lsn, text) in &self.acked {
            match found.get(lsn) {
                Some(seen) => assert_eq!(seen, text, "{what}: record {lsn}"),
                None => assert!(self.unneeded.contains(lsn), "{what}: record {lsn} is gone"),
            }
        }
        for (lsn, text) in found {
            assert!(sent.contains(text), "{what}: nobody wrote record {lsn}: {text}");
        }
    }
}

struct History {
    chance: SeedEntropy,
    disk: MemDisk,
    /// The acts that made the disk as it was after the last crash.
    start: Vec<Op>,
    openings: u64,
    model: Model,
    sent: BTreeSet<String>,
}

impl History {
    fn below(&self, n: u128) -> u64 {
        u64::try_from(self.chance.id() % n).unwrap()
    }

    fn open(&mut self) -> Arc<Wal> {
        self.openings += 1;
        let small = Options { compact_bytes: 3_000 + 3_000 * (self.openings % 4), ..options() };
        open_with(&self.disk, &small, self.openings).unwrap()
    }

    async fn append(&mut self, wal: &Wal) {
        let batch: Vec<(String, usize)> =
            (0..=self.below(3)).map(|n| (format!("{}.{n}", self.sent.len()), usize::try_from(20 + self.below(1_500)).unwrap())).collect();
        self.sent.extend(batch.iter().map(|(text, _)| text.clone()));
        let appended = wal.append(batch.iter().map(|(text, size)| record(text, *size)).collect()).unwrap();
        appended.durable.await.unwrap();
        self.model.acked.extend((appended.first.0..).zip(batch.into_iter().map(|(text, _)| text)));
    }

    async fn compact(&mut self, wal: &Wal) {
        let share = u128::from(1 + self.below(9));
        let fresh: Vec<u64> = self.model.acked.keys().copied().filter(|_| self.chance.id() % 10 < share).collect();
        self.model.unneeded.extend(fresh);
        let unneeded = self.model.unneeded.clone();
        wal.compact(needs(move |lsn| !unneeded.contains(&lsn))).await.unwrap();
    }

    /// Cuts the power somewhere in the last action and opens what is left.
    fn crash(&mut self, before: usize, model: Model, what: &str) {
        let ops = self.disk.ops();
        let at = before + usize::try_from(self.below(ops.len() as u128 - before as u128 + 1)).unwrap();
        let ops = &ops[..at];
        let left = ops.iter().enumerate().flat_map(|(n, op)| if is_pending(ops, n) { tear(op, &self.chance) } else { vec![op.clone()] });
        let left: Vec<Op> = self.start.iter().cloned().chain(left).collect();
        self.disk = MemDisk::replay(&left);
        self.start = left;
        let seen = found(&self.disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        model.check(&seen, &self.sent, what);
        self.model.acked = seen;
    }
}

async fn history(seed: u64) {
    let mut it = History {
        chance: SeedEntropy::new(seed),
        disk: MemDisk::default(),
        start: Vec::new(),
        openings: 0,
        model: Model::default(),
        sent: BTreeSet::new(),
    };
    let mut wal = it.open();
    for act in 0..40 {
        let what = format!("seed {seed}, act {act}");
        let (before, model) = (it.disk.ops().len(), it.model.clone());
        let unneeded = match it.below(10) {
            0..6 => {
                it.append(&wal).await;
                model.unneeded.clone()
            }
            6..9 => {
                it.compact(&wal).await;
                it.model.unneeded.clone()
            }
            _ => {
                wal.close().await.unwrap();
                drop(wal);
                wal = it.open();
                model.unneeded.clone()
            }
        };
        let seen = readable(&wal).await;
        it.model.check(&seen, &it.sent, &what);
        it.model.acked = seen;
        if it.below(6) == 0 {
            drop(wal);
            it.crash(before, Model { unneeded, ..model }, &what);
            wal = it.open();
            assert_eq!(readable(&wal).await, it.model.acked, "{what}: the journal reads what its opening found");
        }
    }
}

#[tokio::test]
async fn any_history_keeps_what_is_needed() {
    for seed in 0..60 {
        history(seed).await;
    }
}

fn at(dir: &Path, openings: u64) -> Arc<Wal> {
    let small = Options { segment_bytes: 256 << 10, compact_bytes: 1 << 20, reserve_bytes: 0, ..Options::new(dir) };
    Wal::open(small, Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(openings))).unwrap()
}

/// Files and bytes in the directory.
fn size(dir: &Path) -> (usize, u64) {
    // A spare may get its name at this moment; what is gone has no size.
    let files: Vec<u64> = std::fs::read_dir(dir).unwrap().filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len())).collect();
    (files.len(), files.iter().sum())
}

fn small(kind: u16, n: u64) -> NewRecord {
    NewRecord { kind, payload: Bytes::from(format!("{n:064}")), ..record("", 0) }
}

/// A million records of one task; its newest snapshot and the last few are needed.
#[tokio::test]
async fn a_million_records_of_one_task_stay_below_two_mebibytes() {
    const SNAPSHOT: u16 = 33;
    let dir = tempfile::tempdir().unwrap();
    let wal = at(dir.path(), 1);
    let (mut sent, mut most, mut snapshot) = (0_u64, (0, 0), Lsn(0));
    while sent < 1_000_000 {
        let batch: Vec<NewRecord> = (sent..sent + 1_000).map(|n| small(if n % 1_000 == 0 { SNAPSHOT } else { 20 }, n)).collect();
        let appended = wal.append(batch).unwrap();
        (sent, snapshot) = (sent + 1_000, appended.first);
        appended.durable.await.unwrap();
        if sent % 10_000 == 0 {
            let (newest, tip) = (snapshot, appended.last);
            compact(&wal, &needs(move |lsn| lsn == newest.0 || lsn + 8 > tip.0)).await;
            let now = size(dir.path());
            most = (most.0.max(now.0), most.1.max(now.1));
        }
    }
    assert!(most.0 < 16 && most.1 < 2 << 20, "{} files and {} bytes at most", most.0, most.1);
    let tip = wal.state().tip;
    wal.close().await.unwrap();
    drop(wal);
    let wal = at(dir.path(), 2);
    assert_eq!(wal.state().tip, tip);
    let found = wal.read(snapshot, 1_000).await.unwrap();
    assert_eq!((found.len(), found[0].kind, found[999].lsn), (1_000, SNAPSHOT, tip));
}

/// One timer a minute for a year, of a thousand sleeping tasks that each keep one record for ever; the
/// machine starts anew each week.
#[tokio::test]
async fn a_year_of_idle_churn_stays_a_handful_of_files() {
    const TIMER: u16 = 32;
    let dir = tempfile::tempdir().unwrap();
    let mut wal = at(dir.path(), 1);
    wal.append((0..1_000).map(|n| small(18, n)).collect()).unwrap().durable.await.unwrap();
    let (mut newest, mut most) = (Lsn(0), (0, 0));
    for day in 0..365 {
        let minutes: Vec<NewRecord> = (0..1_440).map(|n| small(TIMER, day * 1_440 + n)).collect();
        let appended = wal.append(minutes).unwrap();
        newest = appended.last;
        appended.durable.await.unwrap();
        if day % 7 == 6 {
            wal.close().await.unwrap();
            drop(wal);
            wal = at(dir.path(), day + 2);
        }
        let last = newest;
        let needed: tinkerbell_core::port::Needed = Arc::new(move |lsn, kind, _| kind == 18 || lsn == last);
        compact(&wal, &needed).await;
        let now = size(dir.path());
        most = (most.0.max(now.0), most.1.max(now.1));
    }
    assert!(most.0 <= 8 && most.1 < 2 << 20, "{} files and {} bytes at most", most.0, most.1);
    wal.close().await.unwrap();
    drop(wal);
    let wal = at(dir.path(), 1_000);
    let kept = wal.read(Lsn(1), usize::MAX).await.unwrap();
    assert_eq!(kept.iter().filter(|record| record.kind == 18).count(), 1_000);
    assert!(kept.iter().any(|record| record.lsn == newest));
}
