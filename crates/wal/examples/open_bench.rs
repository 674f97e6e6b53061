//! How long a journal takes to open: a tail that no checkpoint stands for, and what lies below one.
//!
//! ```text
//! cargo run --release -p tinkerbell-wal --example open_bench -- DIR TAIL_MIB OLD_MIB [SIZE] [BATCH]
//! ```
//! Fills a journal with `OLD_MIB`, takes a checkpoint, adds `TAIL_MIB`, gives it up without closing as
//! a kill does, and opens it ten times, from the page cache. `SIZE` is a record's length with its frame
//! of 48 bytes; `BATCH` records share one sync. Not a test: it judges nothing. `DIR` must be empty.

use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Entropy, Stamp};
use tinkerbell_core::port::{Journal, NewRecord};
use tinkerbell_wal::{Options, Wal};

type Failed = Box<dyn std::error::Error>;

struct Plan {
    dir: PathBuf,
    tail_bytes: u64,
    old_bytes: u64,
    size: u64,
    batch: u64,
}

fn plan() -> Option<Plan> {
    let mut args = std::env::args().skip(1);
    let dir = PathBuf::from(args.next()?);
    let mut number = |default: Option<u64>| args.next().map_or(default, |text| text.parse().ok());
    let (tail, old) = (number(None)?, number(None)?);
    Some(Plan { dir, tail_bytes: tail << 20, old_bytes: old << 20, size: number(Some(512))?.max(48), batch: number(Some(512))?.max(1) })
}

fn main() -> Result<(), Failed> {
    let plan = plan().ok_or("usage: open_bench DIR TAIL_MIB OLD_MIB [SIZE] [BATCH]")?;
    let runtime = tokio::runtime::Builder::new_current_thread().build()?;
    let records = runtime.block_on(fill(&plan))?;
    let mut out = io::stdout().lock();
    for _ in 0..10 {
        let start = spent();
        let wal = open(&plan)?;
        let (wall_us, cpu_us) = since(start);
        let begin = spent();
        runtime.block_on(put(&wal, &plan, 1))?;
        let (first_us, _) = since(begin);
        let found = wal.recovery();
        let per_s = records.saturating_mul(1_000_000) / cpu_us.max(1);
        writeln!(
            out,
            "open {wall_us} us, cpu {cpu_us} us, first durable append {first_us} us, {} of {} segments unread, {records} records in the tail, {per_s} records/s of cpu",
            found.unread, found.segments
        )?;
    }
    Ok(())
}

/// Gives the number of records in the tail.
async fn fill(plan: &Plan) -> Result<u64, Failed> {
    let wal = open(plan)?;
    put(&wal, plan, plan.old_bytes / plan.size).await?;
    if plan.old_bytes > 0 {
        wal.checkpoint(wal.state().tip, Bytes::from_static(b"image")).await?;
    }
    let records = plan.tail_bytes / plan.size;
    put(&wal, plan, records).await?;
    Ok(records)
}

fn open(plan: &Plan) -> Result<Arc<Wal>, Failed> {
    Ok(Wal::open(Options::new(plan.dir.join("journal")), Arc::new(System), Arc::new(System)).map_err(|fault| fault.to_string())?)
}

async fn put(wal: &Wal, plan: &Plan, mut records: u64) -> Result<(), Failed> {
    let payload = Bytes::from(vec![7; usize::try_from(plan.size - 48)?]);
    let record = NewRecord { kind: 16, schema: 1, task: None, subject: Default::default(), blob: false, payload };
    while records > 0 {
        let now = records.min(plan.batch);
        wal.append(vec![record.clone(); usize::try_from(now)?])?.durable.await?;
        records -= now;
    }
    Ok(())
}

fn spent() -> (u64, u64) {
    let of = |id| {
        let at = rustix::time::clock_gettime(id);
        u64::try_from(at.tv_sec * 1_000_000 + at.tv_nsec / 1_000).unwrap_or(0)
    };
    (of(rustix::time::ClockId::Monotonic), of(rustix::time::ClockId::ProcessCPUTime))
}

fn since(start: (u64, u64)) -> (u64, u64) {
    let now = spent();
    (now.0 - start.0, now.1 - start.1)
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
