//! A journal without threads: nothing happens but what a test asks for.

use super::memory::MemDisk;
use super::{append, open_with, options, record, recovered};
use crate::{Options, Wal};
use bytes::Bytes;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Journal, Room};
use tinkerbell_core::words::Lsn;
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

pub(super) fn stepped(disk: &MemDisk, seed: u64) -> Arc<Wal> {
    stepped_at(disk, seed, &FakeClock::new())
}

pub(super) fn stepped_at(disk: &MemDisk, seed: u64, clock: &FakeClock) -> Arc<Wal> {
    stepped_with(disk, &options(), seed, clock)
}

pub(super) fn stepped_with(disk: &MemDisk, options: &Options, seed: u64, clock: &FakeClock) -> Arc<Wal> {
    Wal::open_stepped(Arc::new(disk.clone()), options, Arc::new(clock.clone()), Arc::new(SeedEntropy::new(seed)), None).unwrap()
}

/// Appends, works until nothing is left to do, and gives what the caller hears.
pub(super) fn put_now(wal: &Wal, text: &str, size: usize) -> Result<(), Fault> {
    let durable = wal.append(vec![record(text, size)])?.durable;
    while wal.step() {}
    now(durable).expect("it was answered")
}

/// Polls once, without a runtime.
pub(super) fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    let mut future = std::pin::pin!(future);
    match future.as_mut().poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

#[test]
fn only_a_step_writes_and_everything_else_runs_inline() {
    let disk = MemDisk::default();
    let wal = stepped(&disk, 1);
    assert!(!wal.step(), "nothing waits");
    let before = disk.ops().len();
    let (first, second) = (append(&wal, "a", 10), append(&wal, "b", 10));
    assert_eq!(disk.ops().len(), before, "an append alone writes nothing");
    let mut first = first.durable;
    assert!(now(&mut first).is_none());
    assert!(wal.step());
    assert_eq!((now(first), now(second.durable)), (Some(Ok(())), Some(Ok(()))));
    assert!(!wal.step());
    assert_eq!(now(wal.read(Lsn(1), 10)).unwrap().unwrap().len(), 2);
    now(wal.checkpoint(Lsn(2), Bytes::from_static(b"image"))).unwrap().unwrap();
    assert_eq!(now(wal.restore()).unwrap().unwrap(), Some((Lsn(2), Bytes::from_static(b"image"))));
    assert_eq!(wal.state().room, Room::Ample);

    let mut last = append(&wal, "c", 10).durable;
    let mut close = wal.close();
    assert!(now(&mut close).is_none());
    assert!(wal.append(vec![record("late", 1)]).is_err());
    while wal.step() {}
    assert_eq!((now(&mut last), now(close)), (Some(Ok(())), Some(Ok(()))));
    assert!(!wal.step(), "it has ended");
    assert_eq!(recovered(&disk).unwrap(), ["a", "b", "c"]);
}

#[test]
fn dropping_it_is_a_crash() {
    let disk = MemDisk::default();
    let wal = stepped(&disk, 1);
    let kept = append(&wal, "kept", 10).durable;
    assert!(wal.step());
    assert_eq!(now(kept), Some(Ok(())));
    let lost = append(&wal, "lost", 10).durable;
    let ops = disk.ops().len();
    drop(wal);
    assert_eq!(disk.ops().len(), ops, "nothing was written on the way out");
    assert!(now(lost).unwrap().is_err(), "never a false acknowledgement");
    let again = open_with(&disk, &options(), 2).unwrap();
    assert!(!again.step(), "a journal with a thread is not stepped");
    drop(again);
    assert_eq!(recovered(&disk).unwrap(), ["kept"]);
}

#[test]
fn the_same_seed_writes_the_same_bytes() {
    let run = || {
        let disk = MemDisk::default();
        let wal = stepped(&disk, 7);
        for n in 0..30 {
            drop(append(&wal, &n.to_string(), n * 40 + 1));
            if n % 3 == 0 {
                wal.step();
            }
        }
        while wal.step() {}
        disk.files()
    };
    assert_eq!(run(), run());
    assert!(run().len() > 1);
}
