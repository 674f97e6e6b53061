//! Long traces with everything switched on, and a power cut at each of their acts.

use super::crash::is_pending;
use super::memory::{MemDisk, Op};
use super::stepped::{now, stepped_with};
use super::{append, options, recovered};
use crate::Options;
use std::time::Duration;
use tinkerbell_core::clock::Entropy;
use tinkerbell_core::port::Journal;
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

struct Trace {
    ops: Vec<Op>,
    sent: Vec<String>,
    /// After how many acts how many records were acknowledged.
    acks: Vec<(usize, usize)>,
}

/// Appends, steps, pauses, failed syncs, crashes and closings as the seed has it.
fn trace(seed: u64, steps: usize) -> Trace {
    let (disk, clock, chance) = (MemDisk::default(), FakeClock::new(), SeedEntropy::new(seed));
    let roll = |sides: u128| (chance.id() % sides) as usize;
    let options = Options { segment_bytes: 9_000, preallocate: Some(true), reserve_bytes: 5_000, ..options() };
    let mut wal = stepped_with(&disk, &options, seed, &clock);
    let (mut sent, mut acks, mut waiting) = (Vec::new(), Vec::new(), Vec::new());
    for step in 0..steps {
        match roll(20) {
            0..9 => {
                let text = format!("n{step}");
                let durable = append(&wal, &text, roll(1500)).durable;
                sent.push(text);
                waiting.push((durable, sent.len()));
            }
            9..16 => drop(wal.step()),
            16 => clock.advance(Duration::from_millis(1 + roll(300) as u64)),
            17 => disk.fault(|f| f.failing_syncs = 1),
            18 => while wal.step() {},
            _ => {
                while wal.step() {}
                if roll(2) == 0 {
                    let mut close = wal.close();
                    while wal.step() {}
                    assert_eq!(now(&mut close), Some(Ok(())));
                }
                drop(wal);
                disk.fault(|f| f.failing_syncs = 0);
                wal = stepped_with(&disk, &options, seed + step as u64, &clock);
            }
        }
        waiting.retain_mut(|(durable, count)| match now(durable) {
            Some(answer) => {
                answer.unwrap();
                acks.push((disk.ops().len(), *count));
                false
            }
            None => true,
        });
    }
    Trace { ops: disk.ops(), sent, acks }
}

impl Trace {
    fn check(&self, kept: impl IntoIterator<Item = Op>, at: usize, what: &str) {
        let kept: Vec<Op> = kept.into_iter().collect();
        let disk = MemDisk::replay(&kept);
        let acked = self.acks.iter().filter(|(ops, _)| *ops <= at).map(|(_, count)| *count).max().unwrap_or(0);
        let found = recovered(&disk).unwrap_or_else(|e| panic!("act {at}, {what}: {e}"));
        assert!(self.sent.starts_with(&found) && found.len() >= acked, "act {at}, {what}: {acked} acknowledged, found {found:?}");
        assert_eq!(recovered(&disk).unwrap(), found, "act {at}, {what}: the second recovery differs");
    }
}

#[test]
fn every_crash_point_of_long_traces_recovers() {
    let (seeds, steps, subsets) = if cfg!(debug_assertions) { (1, 60, 2) } else { (3, 200, 6) };
    for seed in 0..seeds {
        let trace = trace(1000 + seed, steps);
        for at in 0..=trace.ops.len() {
            let before = &trace.ops[..at];
            let what = |kind: &str| format!("seed {seed}, {kind}");
            trace.check(before.to_vec(), at, &what("all"));
            let pending: Vec<usize> = (0..at).filter(|n| is_pending(before, *n)).collect();
            let without = |lost: &dyn Fn(usize) -> bool| (0..at).filter(|n| !lost(*n)).map(|n| before[n].clone()).collect::<Vec<_>>();
            trace.check(without(&|n| pending.contains(&n)), at, &what("none"));
            for one in &pending {
                trace.check(without(&|n| n == *one), at, &what("one dropped"));
            }
            let chance = SeedEntropy::new(seed * 77_777 + at as u64);
            for _ in 0..subsets {
                let set = chance.id();
                let lost = |n: usize| pending.iter().position(|p| *p == n).is_some_and(|bit| set >> (bit % 128) & 1 == 1);
                trace.check(without(&lost), at, &what("a subset"));
            }
            let Some(Op::Write { id, offset, bytes }) = trace.ops.get(at) else { continue };
            for cut in (0..bytes.len()).filter(|cut| (offset + cut).is_multiple_of(512)) {
                let part = Op::Write { id: *id, offset: *offset, bytes: bytes[..cut].to_vec() };
                trace.check(before.iter().cloned().chain([part]), at, &what("torn"));
                let rest = Op::Write { id: *id, offset: offset + cut, bytes: bytes[cut..].to_vec() };
                trace.check(before.iter().cloned().chain([rest]), at, &what("the end before the beginning"));
            }
        }
    }
}
