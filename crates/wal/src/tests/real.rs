//! The journal on real files: the port's contract, the lock, and looking from outside.

use super::{put, record};
use crate::inspect::{Filter, dump, stat, verify};
use crate::{Options, Wal};
use std::fs;
use std::path::Path;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Journal, NewRecord};
use tinkerbell_core::words::{Lsn, TaskId};
use tinkerbell_testkit::contract;
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};

fn open(dir: &Path, seed: u64) -> Result<Arc<Wal>, Fault> {
    let options = Options { segment_bytes: 100_000, preallocate: Some(false), reserve_bytes: 0, ..Options::new(dir) };
    Wal::open(options, Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(seed)))
}

/// A journal whose clock moves on by 1 ms with each look at it.
pub(super) fn open_ticking(dir: &Path) -> Arc<Wal> {
    struct Ticking(FakeClock);
    impl tinkerbell_core::clock::Clock for Ticking {
        fn now(&self) -> tinkerbell_core::clock::Stamp {
            self.0.advance(std::time::Duration::from_millis(1));
            self.0.now()
        }
        fn sleep(&self, duration: std::time::Duration) -> futures_core::future::BoxFuture<'static, ()> {
            self.0.sleep(duration)
        }
    }
    Wal::open(Options::new(dir), Arc::new(Ticking(FakeClock::new())), Arc::new(SeedEntropy::new(1))).unwrap()
}

#[tokio::test]
async fn it_keeps_the_contract() {
    let dir = tempfile::tempdir().unwrap();
    let seed = std::sync::atomic::AtomicU64::new(0);
    let next = || seed.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    contract::journal::suite(|name| Ok(open(&dir.path().join(name), next())? as Arc<dyn Journal>)).await;
}

#[tokio::test]
async fn a_second_opener_is_told_who_holds_it() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1).unwrap();
    let fault = open(dir.path(), 2).unwrap_err();
    assert_eq!(fault.code.0, "TB-WAL-001");
    assert!(fault.message.contains(&format!("in use by process {}", std::process::id())), "{fault}");
    drop(wal);
    assert_eq!(open(dir.path(), 3).unwrap().state().epoch, 2);
}

#[tokio::test]
async fn a_directory_that_can_not_be_made_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("file"), "").unwrap();
    let fault = open(&dir.path().join("file/journal"), 1).unwrap_err();
    assert_eq!(fault.code.0, "TB-WAL-003");
    assert!(fault.message.contains("file/journal"), "{fault}");
}

#[tokio::test]
async fn it_can_be_looked_at_while_it_runs_and_after() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1).unwrap();
    for n in 0..5 {
        put(&wal, &format!("n{n}"), 10).await.unwrap();
    }
    let other = NewRecord { task: None, kind: 20, ..record("other", 5) };
    wal.append(vec![other]).unwrap().durable.await.unwrap();

    let running = stat(dir.path()).unwrap();
    assert_eq!((running.batches, running.records, running.tip, running.next), (6, 6, Lsn(11), Lsn(13)));
    assert!(!running.clean);
    let checked = verify(dir.path()).unwrap();
    assert!(checked.damage.is_none() && checked.torn.is_none() && checked.notes.is_empty());
    assert_eq!(checked.head.len(), 64);

    wal.close().await.unwrap();
    let closed = stat(dir.path()).unwrap();
    assert!(closed.clean);
    assert_eq!((closed.tip, closed.segments.len()), (Lsn(11), 1));

    let of_task = Filter { task: Some("0000000000000000000000000000".to_owned()), from: Lsn(3), limit: 2, ..Filter::default() };
    let entries = dump(dir.path(), &of_task, None).unwrap();
    assert_eq!(entries.iter().map(|e| e.lsn.0).collect::<Vec<_>>(), [3, 5]);
    let everything = dump(dir.path(), &Filter { own: true, ..Filter::default() }, None).unwrap();
    assert_eq!(everything.iter().map(|e| e.lsn.0).collect::<Vec<_>>(), (1..=14).collect::<Vec<_>>());
    assert_eq!(everything.last().unwrap().kind, 1);
    assert!(everything.iter().all(|e| e.batch_wall_ms > 0));
}

#[tokio::test]
async fn a_record_is_explained_with_its_place_and_its_neighbours() {
    use crate::inspect::explain;
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1).unwrap();
    for n in 0..3 {
        let other = NewRecord { task: Some(TaskId(7)), ..record("other", 5) };
        wal.append(vec![other, record(&format!("n{n}"), 10)]).unwrap().durable.await.unwrap();
    }
    let found = explain(dir.path(), Lsn(5), None).unwrap();
    assert_eq!((found.entry.lsn, &found.entry.payload[..2], found.together), (Lsn(5), &b"n1"[..], (Lsn(4), Lsn(6))));
    assert_eq!((found.before.unwrap().lsn, found.after.unwrap().lsn), (Lsn(2), Lsn(8)));
    let sync = found.sync.unwrap();
    assert_eq!((sync.acked, sync.head.len(), found.stretch.0), (Lsn(3), 64, 4096 + 48 + 5 + 48 + 10 + 128));
    let trailer = explain(dir.path(), Lsn(6), None).unwrap();
    assert_eq!((trailer.entry.kind, trailer.before), (1, None));
    assert_eq!(explain(dir.path(), Lsn(10), None).unwrap_err().code(), "TB-WAL-011");
}

#[tokio::test]
async fn torn_tails_and_damage_are_shown_without_being_touched() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1).unwrap();
    for n in 0..3 {
        put(&wal, &format!("n{n}"), 10).await.unwrap();
    }
    drop(wal);
    let path = dir.path().join("0000000000000001-0000000000000001.wal");
    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 30]).unwrap();
    let torn = verify(dir.path()).unwrap();
    assert_eq!((torn.records, torn.torn.unwrap().0), (2, 156));
    assert_eq!(stat(dir.path()).unwrap().torn_bytes, 156);

    let mut bytes = whole.clone();
    bytes[4096 + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let damage = verify(dir.path()).unwrap().damage.unwrap();
    assert_eq!(damage.code(), "TB-WAL-002");
    assert!(damage.to_string().contains("corrupt at record 1"), "{damage}");
    assert!(stat(dir.path()).unwrap().damage.is_some());
    assert!(dump(dir.path(), &Filter::default(), None).unwrap().is_empty());
    let fault = open(dir.path(), 2).unwrap_err();
    assert_eq!(fault.code.0, "TB-WAL-002");
    assert_eq!(fault.hints.len(), 3);
    assert_eq!(fs::read(&path).unwrap(), bytes, "nothing was changed");
}

#[tokio::test]
async fn an_empty_or_missing_directory_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let empty = stat(dir.path()).unwrap();
    assert_eq!((empty.tip, empty.next, empty.segments.len()), (Lsn(0), Lsn(1), 0));
    assert!(stat(&dir.path().join("missing")).is_err());
}

#[tokio::test]
async fn damage_while_running_is_told_and_not_given_out() {
    let dir = tempfile::tempdir().unwrap();
    let wal = open(dir.path(), 1).unwrap();
    for n in 0..3 {
        put(&wal, &format!("n{n}"), 10).await.unwrap();
    }
    let path = dir.path().join("0000000000000001-0000000000000001.wal");
    let whole = fs::read(&path).unwrap();
    let mut bytes = whole.clone();
    bytes[4096 + 50] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let fault = wal.read(Lsn(1), 10).await.unwrap_err();
    assert!(fault.message.contains("corrupt at record 1") && fault.message.contains("was intact"), "{fault}");
    fs::write(&path, &whole[..whole.len() - 10]).unwrap();
    assert_eq!(wal.read(Lsn(1), 10).await.unwrap_err().code.0, "TB-WAL-002");
    fs::write(&path, &whole).unwrap();
    assert_eq!(wal.read(Lsn(2), 10).await.unwrap().len(), 2);
}

/// A file system of 1 MiB; `None` where mounting is not allowed.
struct Small(tempfile::TempDir);

impl Small {
    fn mount() -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let made = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(dir.path()).output();
        made.is_ok_and(|made| made.status.success()).then_some(Self(dir))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg(self.0.path()).output());
    }
}

#[tokio::test]
async fn a_real_full_disk_goes_on_in_the_reserve_and_comes_back() {
    let Some(small) = Small::mount() else {
        println!("skipped: a small file system can not be mounted here");
        return;
    };
    let options = Options { reserve_bytes: 128 << 10, preallocate: Some(false), ..Options::new(small.0.path().join("journal")) };
    let open = |seed| {
        let disk = crate::disk::RealDisk::create(options.dir.clone()).unwrap();
        let clock = Arc::new(FakeClock::new());
        let wal = Wal::open_stepped(Arc::new(disk), &options, clock.clone(), Arc::new(SeedEntropy::new(seed)), None).unwrap();
        while wal.step() {}
        (wal, clock)
    };
    let (wal, clock) = open(1);
    assert!(options.dir.join("reserve").exists());
    let ballast = small.0.path().join("ballast");
    let filled = fs::write(&ballast, vec![1; 2 << 20]);
    assert_eq!(filled.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    let mut count = 0;
    let put = |wal: &Wal, n: usize| super::stepped::put_now(wal, &n.to_string(), 3000);
    let fault = loop {
        match put(&wal, count) {
            Ok(()) => count += 1,
            Err(fault) => break fault,
        }
        assert!(count < 1000, "a full disk takes no end of records");
    };
    assert!(count > 30 && fault.is_disk_full() && fault.retryable, "{count} records, then {fault}");
    assert_eq!(wal.state().room, tinkerbell_core::port::Room::Reserve);
    fs::remove_file(&ballast).unwrap();
    put(&wal, count).unwrap();
    clock.advance(std::time::Duration::from_secs(1));
    while wal.step() {}
    assert_eq!(wal.state().room, tinkerbell_core::port::Room::Ample);
    drop(wal);
    let (wal, _) = open(2);
    let records = wal.read(Lsn(1), 1000).await.unwrap();
    assert_eq!(records.len(), count + 1, "what was acknowledged is there, and nothing else");
}
