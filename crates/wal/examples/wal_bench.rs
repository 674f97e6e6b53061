//! How fast a journal is on a given directory: records a second, counted syncs, CPU a record.
//!
//! ```text
//! cargo run --release -p tinkerbell-wal --example wal_bench -- DIR [RECORDS] [BATCH] [WAITERS] [SIZE]
//! ```
//! `BATCH` records of `SIZE` bytes (48 of them the frame) go in one append, from `WAITERS` tasks that
//! each wait until theirs is durable. First a plain file is measured on the same disk, because its
//! rate is the only honest yardstick. Payloads are sealed, as in a daemon. Not a test: it judges nothing and leaves its files in `DIR`.

use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Entropy, Stamp};
use tinkerbell_core::port::{Journal, NewRecord};
use tinkerbell_testkit::keys::MemKeyring;
use tinkerbell_wal::disk::{Disk, DiskFile, Ground, Lock, Mode, RealDisk};
use tinkerbell_wal::{Options, Wal};

struct Plan {
    dir: PathBuf,
    records: u64,
    batch: u64,
    waiters: u64,
    payload: usize,
}

fn plan() -> Option<Plan> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next()?);
    let mut number = |default: u64| args.next().map_or(Some(default), |text| text.parse().ok());
    let (records, batch, waiters) = (number(10_000)?, number(1)?.max(1), number(1)?.max(1));
    let payload = usize::try_from(number(512)?).ok()?.saturating_sub(48);
    Some(Plan { dir, records, batch, waiters, payload })
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let plan = plan().ok_or("usage: wal_bench DIR [RECORDS] [BATCH] [WAITERS] [SIZE]")?;
    std::fs::create_dir_all(&plan.dir)?;
    let raw = raw(&plan.dir, usize::try_from(plan.batch)? * (plan.payload + 48), 300)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build()?;
    let (found, syncs) = runtime.block_on(journal(&plan))?;
    let mut out = io::stdout().lock();
    let per_second = |count: u64, wall_us: u64| count.saturating_mul(1_000_000) / wall_us.max(1);
    writeln!(out, "plain file   {} syncs/s of {} B each", per_second(300, raw), plan.batch * (plan.payload as u64 + 48))?;
    writeln!(out, "journal      {} records/s in {} ms", per_second(plan.records, found.wall_us), found.wall_us / 1000)?;
    writeln!(out, "syncs        {syncs}, {} a second", per_second(syncs, found.wall_us))?;
    writeln!(out, "cpu          {} ns a record", found.cpu_us.saturating_mul(1000) / plan.records.max(1))?;
    writeln!(out, "against s1   {}x", per_second(plan.records, found.wall_us) / per_second(300, raw).max(1))?;
    Ok(())
}

#[derive(Clone, Copy)]
struct Spent {
    wall_us: u64,
    cpu_us: u64,
}

fn spent() -> Spent {
    let of = |id| {
        let at = rustix::time::clock_gettime(id);
        u64::try_from(at.tv_sec * 1_000_000 + at.tv_nsec / 1_000).unwrap_or(0)
    };
    Spent { wall_us: of(rustix::time::ClockId::Monotonic), cpu_us: of(rustix::time::ClockId::ProcessCPUTime) }
}

fn since(start: Spent) -> Spent {
    let now = spent();
    Spent { wall_us: now.wall_us - start.wall_us, cpu_us: now.cpu_us - start.cpu_us }
}

/// Microseconds that `count` writes of `size` bytes take in a file filled before, each synced.
fn raw(dir: &Path, size: usize, count: u64) -> io::Result<u64> {
    let file = OpenOptions::new().write(true).create(true).truncate(true).open(dir.join("plain"))?;
    file.write_all_at(&vec![0; size * usize::try_from(count).unwrap_or(0)], 0)?;
    file.sync_all()?;
    let (start, bytes) = (spent(), vec![7; size]);
    for n in 0..count {
        file.write_all_at(&bytes, n * size as u64)?;
        file.sync_data()?;
    }
    Ok(since(start).wall_us)
}

async fn journal(plan: &Plan) -> Result<(Spent, u64), Box<dyn std::error::Error>> {
    let syncs = Arc::new(AtomicU64::new(0));
    let disk = Counting { inner: RealDisk::create(plan.dir.join("journal"))?, syncs: Arc::clone(&syncs) };
    let keys = Arc::new(MemKeyring::new(1));
    let wal = Wal::open_with(Arc::new(disk), &Options::new("."), Arc::new(System), Arc::new(System), Some(keys))?;
    let left = Arc::new(AtomicU64::new(plan.records.div_ceil(plan.batch)));
    let (before, start) = (syncs.load(Ordering::Relaxed), spent());
    let tasks: Vec<_> = (0..plan.waiters)
        .map(|_| tokio::spawn(waiter(Arc::clone(&wal), Arc::clone(&left), plan.batch, Bytes::from(vec![7; plan.payload]))))
        .collect();
    for task in tasks {
        task.await??;
    }
    let (found, counted) = (since(start), syncs.load(Ordering::Relaxed) - before);
    wal.close().await?;
    Ok((found, counted))
}

async fn waiter(wal: Arc<Wal>, left: Arc<AtomicU64>, batch: u64, payload: Bytes) -> Result<(), tinkerbell_core::code::Fault> {
    while left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok() {
        let record = NewRecord { kind: 16, schema: 1, task: None, subject: Default::default(), blob: false, payload: payload.clone() };
        let records = (0..batch).map(|_| record.clone()).collect();
        wal.append(records)?.durable.await?;
    }
    Ok(())
}

/// The system's clock and numbers that differ from run to run; nothing here needs more.
struct System;

impl Clock for System {
    fn now(&self) -> Stamp {
        let ms = |id| {
            let at = rustix::time::clock_gettime(id);
            u64::try_from(at.tv_sec * 1_000 + at.tv_nsec / 1_000_000).unwrap_or(0)
        };
        Stamp { wall_ms: ms(rustix::time::ClockId::Realtime), mono_ms: ms(rustix::time::ClockId::Monotonic) }
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Entropy for System {
    fn id(&self) -> u128 {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
        u128::from(at.tv_nsec.unsigned_abs()) << 64 | u128::from(at.tv_sec.unsigned_abs() ^ at.tv_nsec.unsigned_abs() << 20)
    }
}

/// The real disk, with its syncs of files counted.
struct Counting {
    inner: RealDisk,
    syncs: Arc<AtomicU64>,
}

impl Disk for Counting {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn list(&self) -> io::Result<Vec<String>> {
        self.inner.list()
    }
    fn lock(&self) -> io::Result<Lock> {
        self.inner.lock()
    }
    fn open(&self, name: &str, mode: Mode) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(CountingFile { inner: self.inner.open(name, mode)?, syncs: Arc::clone(&self.syncs) }))
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.inner.rename(from, to)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.inner.remove(name)
    }
    fn sync_dir(&self) -> io::Result<()> {
        self.inner.sync_dir()
    }
    fn ground(&self) -> io::Result<Ground> {
        self.inner.ground()
    }
}

struct CountingFile {
    inner: Box<dyn DiskFile>,
    syncs: Arc<AtomicU64>,
}

impl DiskFile for CountingFile {
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_at(offset, buf)
    }
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.inner.write_at(offset, bytes)
    }
    fn sync(&self) -> io::Result<()> {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.inner.sync()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.inner.truncate(len)
    }
    fn size(&self) -> io::Result<u64> {
        self.inner.size()
    }
    fn read_direct(&self, offset: u64, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read_direct(offset, buf)
    }
    fn allocate(&self, len: u64) -> io::Result<()> {
        self.inner.allocate(len)
    }
}
