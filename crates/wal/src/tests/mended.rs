//! Healing and compaction together: a seal stands in the next segment's header, and compaction takes
//! headers away.

use super::compact::{found, needs};
use super::crash::is_pending;
use super::memory::{MemDisk, Op};
use super::options;
use super::stepped::{now, put_now, stepped, stepped_with};
use crate::compact::format::Range;
use crate::{Options, Wal};
use std::collections::BTreeMap;
use tinkerbell_core::clock::Entropy;
use tinkerbell_core::port::{Compaction, Journal};
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

fn compact_now(wal: &Wal, gone: &'static [u64]) -> Compaction {
    let mut compaction = wal.compact(needs(move |lsn| !gone.contains(&lsn)));
    for _ in 0..1000 {
        if let Some(done) = now(&mut compaction) {
            return done.unwrap();
        }
        wal.step();
    }
    panic!("compaction does not end");
}

/// Numbers and texts: `b` and `c` stand in the segment that fails under `d`.
const WRITTEN: [(u64, &str, usize); 6] = [(1, "a", 1300), (3, "b", 1300), (5, "c", 100), (7, "d", 100), (9, "e", 1300), (11, "f", 1300)];

/// Writes all of them; the sync of `d` fails, and with `cut` also that of cutting the failed segment.
fn healed(disk: &MemDisk, options: &Options, cut: bool, acked: &mut Vec<(usize, u64)>) -> std::sync::Arc<Wal> {
    let wal = stepped_with(disk, options, 1, &FakeClock::new());
    for (lsn, text, size) in WRITTEN {
        if text == "d" {
            disk.fault(|f| f.syncs = if cut { vec![false, true, false] } else { vec![false] }.into());
        }
        put_now(&wal, text, size).unwrap();
        acked.push((disk.ops().len(), lsn));
    }
    wal
}

struct Trace {
    ops: Vec<Op>,
    acked: Vec<(usize, u64)>,
    gone: &'static [u64],
}

impl Trace {
    fn check(&self, kept: &[Op], at: usize, what: &str) {
        let disk = MemDisk::replay(kept);
        let left = found(&disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        self.compare(&left, at, what);
        assert_eq!(found(&disk).unwrap(), left, "{what}: the second opening differs");
        // It goes on, and compaction does as well.
        let wal = stepped(&disk, 9);
        put_now(&wal, "z", 40).unwrap();
        compact_now(&wal, self.gone);
        drop(wal);
        let more = found(&disk).unwrap_or_else(|e| panic!("{what}, later: {e}"));
        self.compare(&more, at, what);
    }

    fn compare(&self, left: &BTreeMap<u64, String>, at: usize, what: &str) {
        for (lsn, text, _) in WRITTEN {
            let acked = self.acked.iter().any(|(ops, acked)| *ops <= at && *acked == lsn);
            match left.get(&lsn) {
                Some(found) => assert!(found == text || (found == "z" && !acked), "{what}: {lsn} is {found}"),
                None => assert!(!acked || self.gone.contains(&lsn), "{what}: {text} is gone"),
            }
        }
    }
}

#[test]
fn every_crash_around_a_healed_and_compacted_segment_recovers() {
    let sets: [&'static [u64]; 7] = [&[], &[3, 5], &[7], &[1, 3, 5], &[7, 9], &[3, 5, 7], &[1, 3, 5, 7, 9]];
    let mut compacted = 0;
    for (gone, cut, preallocate) in sets.iter().flat_map(|gone| [(*gone, false, gone.len() == 2), (*gone, true, gone.len() == 3)]) {
        let (disk, mut acked) = (MemDisk::default(), Vec::new());
        let options = Options { preallocate: Some(preallocate), ..options() };
        let wal = healed(&disk, &options, cut, &mut acked);
        let start = disk.ops().len();
        let done = compact_now(&wal, gone);
        assert!(!cut || done == Compaction::default(), "the seal is needed until the cut is durable");
        drop(wal);
        let wal = stepped_with(&disk, &options, 2, &FakeClock::new());
        compact_now(&wal, gone);
        drop(wal);
        compacted += disk.files().keys().filter(|name| Range::of_name(name).is_some()).count();
        let trace = Trace { ops: disk.ops(), acked, gone };
        for at in start..=trace.ops.len() {
            let before = &trace.ops[..at];
            let pending: Vec<usize> = (0..at).filter(|n| is_pending(before, *n)).collect();
            let chance = SeedEntropy::new(at as u64);
            let every = 1_u128 << pending.len().min(100);
            let lost: Vec<u128> =
                if every <= 16 { (0..every).collect() } else { (0..16).map(|_| chance.id()).chain([0, u128::MAX]).collect() };
            for set in lost {
                let is_lost = |n: usize| pending.iter().position(|p| *p == n).is_some_and(|bit| set >> (bit % 128) & 1 == 1);
                let kept: Vec<Op> = (0..at).filter(|n| !is_lost(*n)).map(|n| before[n].clone()).collect();
                trace.check(&kept, at, &format!("{gone:?} gone, cut fails {cut}, ahead {preallocate}, act {at}, lost {set:b}"));
            }
        }
    }
    assert!(compacted > 10, "{compacted}");
}

/// The cut of the failed segment is in the cache alone, the process starts anew without a power cut,
/// and compaction takes the seal away: then the power goes.
#[test]
fn a_cut_is_durable_before_compaction_takes_its_seal_away() {
    let (disk, mut acked) = (MemDisk::default(), Vec::new());
    drop(healed(&disk, &options(), true, &mut acked));
    let wal = stepped(&disk, 2);
    let ops = disk.ops();
    let cut = ops.iter().position(|op| matches!(op, Op::Truncate { len, .. } if *len > 4096)).unwrap();
    assert!(!is_pending(&ops, cut), "an opening makes the cut durable");
    assert!(compact_now(&wal, &[7, 9]).segments > 0);
    drop(wal);
    let ops = disk.ops();
    let kept: Vec<Op> = (0..ops.len()).filter(|n| !is_pending(&ops, *n)).map(|n| ops[n].clone()).collect();
    let left = found(&MemDisk::replay(&kept)).unwrap();
    assert_eq!(left.into_values().collect::<Vec<_>>(), ["a", "b", "c", "f"]);
}
