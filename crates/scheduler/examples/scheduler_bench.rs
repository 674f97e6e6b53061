//! What a million tasks at rest cost: memory, start, and the read that brings one back.
//!
//! Run it with `cargo run --release -p tinkerbell-scheduler --example scheduler_bench [TASKS]` (default
//! 1,000,000). It writes a real journal in a temporary directory, a few hundred bytes per task, and
//! measures in a process of its own. Each line is `what  figure`. Invariant: each figure is printed as it was measured.

// Measuring wants the real clock, and a bench may stop where it stands.
#![allow(clippy::disallowed_methods, clippy::unwrap_used, clippy::print_stdout, clippy::panic, clippy::indexing_slicing)]

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::{Intended, Stall};
use tinkerbell_core::event::{self, Event, Observed, Op, Paused, Signal, StateSaved, Submitted};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::port::{
    BlobStore, Canvas, Checkpoint, Difference, Effects, Journal, Kept, ListQuery, MicroCommit, NewRecord, OpenSpec, Opened, Runner,
    Runtime as _, Step, Stepped, Submission,
};
use tinkerbell_core::words::{BlobRef, GitId, Owner, RunId, Subject, TaskId, Workspace};
use tinkerbell_scheduler::{Deps, Engine, Options};
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};
use tinkerbell_wal::Wal;

/// Length of the part of the journal behind the checkpoint.
const TAIL_BYTES: usize = 64 << 20;
/// Events of a task with a long history.
const LONG: u64 = 100_000;

#[tokio::main(worker_threads = 2)]
async fn main() {
    let begun = Instant::now();
    let args: Vec<String> = std::env::args().collect();
    match args.get(1).map(String::as_str) {
        Some("start") => start(Path::new(&args[2]), args[3].parse().unwrap(), begun).await,
        given => all(given.map_or(1_000_000, |text| text.parse().unwrap())).await,
    }
}

async fn all(tasks: u64) {
    let dir = tempfile::tempdir().unwrap();
    child(dir.path().join("idle").as_path(), 0);
    of_kind(tasks, "paused", paused).await;
    of_kind(tasks, "with a deadline", waiting).await;
}

/// The figures with tasks that stand still in this way.
async fn of_kind(tasks: u64, what: &str, event: fn() -> Event) {
    let dir = tempfile::tempdir().unwrap();
    let full = dir.path().join("full");
    let made = Instant::now();
    {
        let wal = journal(&full);
        fill(&wal, tasks, event).await;
        wal.close().await.unwrap();
    }
    say(
        &format!("journal of tasks {what}"),
        format!("{:.1} s for {tasks} tasks, 100 of 10 and 5 of {LONG} events", made.elapsed().as_secs_f64()),
    );
    let made = Instant::now();
    let engine = engine(&full).await;
    say("start without a checkpoint", format!("{:.1} s", made.elapsed().as_secs_f64()));
    let made = Instant::now();
    engine.shutdown(Duration::from_secs(600)).await.unwrap();
    drop(engine);
    say("first snapshots and checkpoint", format!("{:.1} s", made.elapsed().as_secs_f64()));
    {
        let wal = journal(&full);
        tail(&wal).await;
        drop(wal);
    }
    child(&full, tasks);
}

fn say(what: &str, figure: String) {
    println!("{what}  {figure}");
}

fn child(dir: &Path, tasks: u64) {
    let exe = std::env::current_exe().unwrap();
    let ended = std::process::Command::new(exe).arg("start").arg(dir).arg(tasks.to_string()).status().unwrap();
    assert!(ended.success());
}

async fn start(dir: &Path, tasks: u64, begun: Instant) {
    let wal = journal(dir);
    let (read, read_cpu) = (begun.elapsed(), cpu_ms());
    let engine = engine_on(wal, dir).await;
    let (open, open_cpu) = (begun.elapsed(), cpu_ms() - read_cpu);
    engine.submit(Submission { goal: "first".into(), cwd: "/".into(), ..Submission::default() }).await.unwrap();
    let split = format!("journal open {:.0} ms (CPU {read_cpu}), engine open {:.0} ms (CPU {open_cpu})", ms(read), ms(open - read));
    say(&format!("{tasks} tasks: from main to the first durable submit"), format!("{:.0} ms, of it {split}", ms(begun.elapsed())));
    say(&format!("{tasks} tasks: memory"), format!("{:.1} MiB", rss_mib()));
    if tasks == 0 {
        return;
    }
    let listed = Instant::now();
    let page = engine.list(ListQuery::default()).await.unwrap();
    say(&format!("list of the newest {} of {}", page.tasks.len(), page.total), format!("{:.1} ms", ms(listed.elapsed())));
    let mut middle = Vec::new();
    for (what, first, count) in [("any task", 0, tasks), ("10 events", SHORT, 100), ("100,000 events", LONGEST, 5)] {
        let mut took: Vec<Duration> = Vec::new();
        for n in 0..2_000 {
            let id = id(first + n * 7_919 % count).to_string();
            let begun = Instant::now();
            engine.get(&id).await.unwrap();
            took.push(begun.elapsed());
        }
        took.sort();
        middle.push(ms(took[1_000]) * 1e3);
        say(&format!("cold load, {what}"), format!("p50 {:.0} us, p99 {:.0} us", ms(took[1_000]) * 1e3, ms(took[1_980]) * 1e3));
    }
    say("cold load, slope from 10 to 100,000 events", format!("{:+.1} %", (middle[2] / middle[1] - 1.0) * 100.0));
    let timed = Instant::now();
    engine.shutdown(Duration::from_secs(600)).await.unwrap();
    say("the next checkpoint and the end", format!("{:.2} s", timed.elapsed().as_secs_f64()));
}

/// Where the numbers of tasks with ten and with many events begin.
const SHORT: u64 = 1 << 40;
const LONGEST: u64 = 1 << 41;

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Processor time of this process so far, in ticks of ten milliseconds.
fn cpu_ms() -> u64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields = text.rsplit(')').next().unwrap().split_whitespace().skip(11).take(2);
    fields.map(|ticks| ticks.parse::<u64>().unwrap()).sum::<u64>() * 10
}

fn rss_mib() -> f64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<f64>().unwrap() / 1024.0
}

/// Ids spread as random ones do.
fn id(n: u64) -> TaskId {
    let mixed = |n: u64| (n ^ (n >> 31)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    TaskId(u128::from(mixed(n + 1)) << 64 | u128::from(mixed(n ^ 0x5555)))
}

fn record(task: TaskId, event: Event) -> NewRecord {
    let (kind, payload) = (event.kind(), Bytes::from(event::encode(event, 1)));
    NewRecord { kind, schema: event::SCHEMA, task: Some(task), subject: Subject(0), blob: false, payload }
}

fn submitted() -> Event {
    let goal = "make the parser accept CRLF line ends and say so in the manual".to_owned();
    Event::Submitted(Submitted { goal, cwd: b"/home/user/project".to_vec(), model: "local/model".into(), ..Submitted::default() })
}

/// Many wait for a quota that comes back in a month.
fn waiting() -> Event {
    let due_wall_ms = tinkerbell_testkit::fake::START_WALL_MS + 30 * 86_400_000;
    let timer = Some(event::Timer { id: 1, due_wall_ms, ..event::Timer::default() });
    Event::Paused(Paused { why: "provider".into(), text: "the quota is spent".into(), timer, tries: 1 })
}

fn paused() -> Event {
    Event::Paused(Paused { why: "user".into(), text: "paused by the user".into(), ..Paused::default() })
}

fn note() -> Event {
    Event::Signal(Signal { kind: "note".into(), text: "a note".into(), caps: None })
}

async fn fill(wal: &Wal, tasks: u64, event: fn() -> Event) {
    let mut batch = Vec::new();
    let state = || Event::StateSaved(StateSaved { state: vec![7; 300], seq: 1 });
    for n in 0..tasks {
        batch.extend([record(id(n), submitted()), record(id(n), state()), record(id(n), event())]);
        flush(wal, &mut batch, 3_000).await;
    }
    for (first, count, events) in [(SHORT, 100, 10), (LONGEST, 5, LONG)] {
        for n in first..first + count {
            batch.push(record(id(n), submitted()));
            for _ in 0..events {
                batch.push(record(id(n), note()));
                flush(wal, &mut batch, 3_000).await;
            }
            batch.push(record(id(n), paused()));
        }
    }
    flush(wal, &mut batch, 1).await;
}

/// What a few busy tasks wrote after the checkpoint.
async fn tail(wal: &Wal) {
    let (mut batch, mut written) = (Vec::new(), 0);
    while written < TAIL_BYTES {
        let task = id(written as u64 % 64);
        let record = record(task, Event::StateSaved(StateSaved { state: vec![7; 420], seq: 1 }));
        written += record.payload.len() + 60;
        batch.push(record);
        flush(wal, &mut batch, 3_000).await;
    }
    flush(wal, &mut batch, 1).await;
}

async fn flush(wal: &Wal, batch: &mut Vec<NewRecord>, most: usize) {
    if batch.len() >= most {
        wal.append(std::mem::take(batch)).unwrap().durable.await.unwrap();
    }
}

fn journal(dir: &Path) -> Arc<Wal> {
    let options = tinkerbell_wal::Options { preallocate: Some(false), reserve_bytes: 0, ..tinkerbell_wal::Options::new(dir) };
    Wal::open(options, Arc::new(FakeClock::new()), Arc::new(SeedEntropy::new(u64::from(std::process::id())))).unwrap()
}

async fn engine(dir: &Path) -> Engine {
    engine_on(journal(dir), dir).await
}

async fn engine_on(journal: Arc<Wal>, dir: &Path) -> Engine {
    let deps = Deps {
        journal,
        blobs: Arc::new(Files(dir.with_extension("blobs"))),
        runner: Arc::new(Idle),
        canvas: Arc::new(Idle),
        clock: Arc::new(FakeClock::new()),
        entropy: Arc::new(SeedEntropy::new(u64::from(std::process::id()))),
        admission: Arc::new(|submission| async { Ok(submission) }.boxed()),
        halt: Arc::new(|| None),
    };
    // More than a daemon takes by default.
    Engine::open(deps, Options { open: usize::MAX, per_tenant: usize::MAX, ..Options::default() }).await.unwrap()
}

/// Blobs as plain files, so that each process finds those of the one before.
struct Files(PathBuf);

impl BlobStore for Files {
    fn put(&self, owner: Owner, content: Bytes) -> BoxFuture<'_, Result<BlobRef, Fault>> {
        let hash = *blake3::hash(&content).as_bytes();
        let blob = BlobRef { key_id: owner.subject.0, hash, size_bytes: content.len() as u64 };
        std::fs::create_dir_all(&self.0).unwrap();
        std::fs::write(self.0.join(blob.to_string()), content).unwrap();
        async move { Ok(blob) }.boxed()
    }
    fn get(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        let found = std::fs::read(self.0.join(blob.to_string()));
        async move { Ok(Bytes::from(found.unwrap())) }.boxed()
    }
    fn list(&self, _: Owner) -> BoxFuture<'_, Result<Vec<BlobRef>, Fault>> {
        async { Ok(Vec::new()) }.boxed()
    }
    fn forget(&self, _: Owner) -> BoxFuture<'_, Result<(), Fault>> {
        async { Ok(()) }.boxed()
    }
}

/// A mind that never gets anywhere.
struct Idle;

impl Runner for Idle {
    fn step(&self, _: Step, _: Arc<dyn Effects>) -> BoxFuture<'_, Result<Stepped, Stall>> {
        futures_util::future::pending().boxed()
    }
    fn operate(&self, _: Task, _: Op, _: Intended, _: Arc<dyn Effects>) -> BoxFuture<'_, Result<Observed, Stall>> {
        futures_util::future::pending().boxed()
    }
    fn quiet(&self, _: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        async { Ok(()) }.boxed()
    }
    fn sweep(&self, _: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

fn none<T: Send + 'static>() -> BoxFuture<'static, Result<T, Fault>> {
    async { Err(Fault::new("TB-CANVAS-001", 1, "no canvas here")) }.boxed()
}

impl Canvas for Idle {
    fn open(&self, _: OpenSpec) -> BoxFuture<'_, Result<Opened, Fault>> {
        none()
    }
    fn checkpoint(&self, _: Workspace, _: Option<Kept>) -> BoxFuture<'_, Result<Checkpoint, Fault>> {
        none()
    }
    fn restore(&self, _: Workspace, _: GitId) -> BoxFuture<'_, Result<GitId, Fault>> {
        none()
    }
    fn commit(&self, _: Workspace, _: MicroCommit) -> BoxFuture<'_, Result<GitId, Fault>> {
        none()
    }
    fn diff(&self, _: Workspace, _: GitId, _: GitId, _: bool) -> BoxFuture<'_, Result<Difference, Fault>> {
        none()
    }
    fn tip(&self, _: Workspace) -> BoxFuture<'_, Result<GitId, Fault>> {
        none()
    }
    fn remove(&self, _: Workspace) -> BoxFuture<'_, Result<(), Fault>> {
        none()
    }
}
