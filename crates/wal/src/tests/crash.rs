//! Power cuts at every moment of a recorded trace.

use super::memory::{MemDisk, Op};
use super::{append, open, open_with, options, put, recovered};
use tinkerbell_core::clock::Entropy;
use tinkerbell_core::port::Journal;
use tinkerbell_testkit::fake::SeedEntropy;

/// What was sent, and after how many acts how much of it was acknowledged.
struct Trace {
    ops: Vec<Op>,
    sent: Vec<String>,
    acks: Vec<(usize, usize)>,
}

impl Trace {
    fn acked(&self, ops: usize) -> usize {
        self.acks.iter().filter(|(at, _)| *at <= ops).map(|(_, count)| *count).max().unwrap_or(0)
    }

    /// Recovers twice, as if the first recovery had been cut short as well.
    fn check(&self, disk: &MemDisk, at: usize, what: &str) {
        let found = recovered(disk).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(self.sent.starts_with(&found), "{what}: found {found:?}");
        assert!(found.len() >= self.acked(at), "{what}: {} acknowledged, {} found", self.acked(at), found.len());
        assert_eq!(recovered(disk).unwrap(), found, "{what}: the second recovery differs");
    }
}

async fn trace(sizes: &[usize]) -> Trace {
    let disk = MemDisk::default();
    let (mut sent, mut acks) = (Vec::new(), Vec::new());
    for round in 0..3_u64 {
        let wal = open_with(&disk, &options(), round).unwrap();
        for (n, size) in sizes.iter().enumerate() {
            let text = format!("r{round}n{n}");
            sent.push(text.clone());
            if n % 3 == 1 {
                // Two appends on their way at once; they may or may not share a batch.
                let first = append(&wal, &text, *size);
                let second = format!("{text}b");
                sent.push(second.clone());
                let second = append(&wal, &second, *size);
                first.durable.await.unwrap();
                second.durable.await.unwrap();
            } else {
                put(&wal, &text, *size).await.unwrap();
            }
            acks.push((disk.ops().len(), sent.len()));
        }
        if round == 1 {
            wal.close().await.unwrap();
        }
    }
    Trace { ops: disk.ops(), sent, acks }
}

#[tokio::test]
async fn every_prefix_of_the_trace_recovers() {
    let trace = trace(&[10, 700, 1, 2000, 64]).await;
    assert!(trace.ops.iter().filter(|op| matches!(op, Op::Create { .. })).count() > 5, "the trace rolls segments");
    for at in 0..=trace.ops.len() {
        let before = &trace.ops[..at];
        trace.check(&MemDisk::replay(before), at, &format!("after act {at}"));
        let Some(Op::Write { id, offset, bytes }) = trace.ops.get(at) else { continue };
        for cut in (0..bytes.len()).filter(|cut| cut % 127 == 0 || *cut < 20 || bytes.len() - cut < 3) {
            let part = Op::Write { id: *id, offset: *offset, bytes: bytes[..cut].to_vec() };
            let disk = MemDisk::replay(before.iter().chain([&part]));
            trace.check(&disk, at, &format!("{cut} bytes into act {at}"));
        }
    }
}

#[tokio::test]
async fn every_byte_of_a_small_trace_recovers() {
    let trace = trace(&[5, 9]).await;
    for (at, op) in trace.ops.iter().enumerate() {
        let Op::Write { id, offset, bytes } = op else { continue };
        for cut in (0..bytes.len()).filter(|cut| bytes.len() < 4096 || cut % 512 == 0) {
            let part = Op::Write { id: *id, offset: *offset, bytes: bytes[..cut].to_vec() };
            let disk = MemDisk::replay(trace.ops[..at].iter().chain([&part]));
            trace.check(&disk, at, &format!("{cut} bytes into act {at}"));
        }
    }
}

/// Which acts a power cut may undo: writes without a later sync of their file, names without a
/// later sync of the directory.
pub(super) fn is_pending(ops: &[Op], at: usize) -> bool {
    let later = &ops[at + 1..];
    match &ops[at] {
        Op::Write { id, .. } | Op::Truncate { id, .. } => !later.iter().any(|op| matches!(op, Op::Sync { id: i } if i == id)),
        Op::Create { .. } | Op::Rename { .. } | Op::Remove { .. } => !later.iter().any(|op| matches!(op, Op::SyncDir)),
        Op::Sync { .. } | Op::SyncDir => false,
    }
}

/// A write of which an arbitrary set of 512-byte sectors reached the disk.
pub(super) fn tear(op: &Op, chance: &SeedEntropy) -> Vec<Op> {
    let Op::Write { id, offset, bytes } = op else {
        return if chance.id().is_multiple_of(2) { vec![op.clone()] } else { Vec::new() };
    };
    let mut parts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let end = bytes.len().min(at + 512 - (offset + at) % 512);
        if chance.id().is_multiple_of(2) {
            parts.push(Op::Write { id: *id, offset: offset + at, bytes: bytes[at..end].to_vec() });
        }
        at = end;
    }
    parts
}

#[tokio::test]
async fn any_subset_of_unsynced_sectors_recovers() {
    let trace = trace(&[10, 1700, 50, 3000]).await;
    for at in 0..=trace.ops.len() {
        let before = &trace.ops[..at];
        let pending: Vec<bool> = (0..at).map(|n| is_pending(before, n)).collect();
        let rounds = if pending.contains(&true) { 12 } else { 1 };
        for seed in 0..rounds {
            let chance = SeedEntropy::new(seed * 1000 + at as u64);
            let kept: Vec<Op> =
                before.iter().zip(&pending).flat_map(|(op, pending)| if *pending { tear(op, &chance) } else { vec![op.clone()] }).collect();
            trace.check(&MemDisk::replay(&kept), at, &format!("after act {at}, seed {seed}"));
        }
    }
}

#[tokio::test]
async fn appends_go_on_after_a_torn_tail_was_cut() {
    let disk = MemDisk::default();
    let wal = open(&disk);
    put(&wal, "kept", 10).await.unwrap();
    put(&wal, "lost", 10).await.unwrap();
    drop(wal);
    let mut files = disk.files();
    let (name, bytes) = files.iter_mut().next().unwrap();
    assert_eq!(name, "0000000000000001-0000000000000001.wal");
    bytes.truncate(bytes.len() - 1);
    let disk = MemDisk::from_files(&files);
    let wal = open_with(&disk, &options(), 2).unwrap();
    assert!(!wal.recovery().clean);
    assert!(wal.recovery().cut_bytes > 0);
    put(&wal, "new", 10).await.unwrap();
    drop(wal);
    assert_eq!(recovered(&disk).unwrap(), ["kept", "new"]);
}
