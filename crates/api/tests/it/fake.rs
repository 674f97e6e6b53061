//! An engine in memory: keeps what it is given, replays it to watchers.

use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkerbell_api::server::{Daemon, DaemonStatus};
use tinkerbell_api::wire::{HaltView, UpgradeRequest, UpgradeView};
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::{Event, Placed, Submitted};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::port::{Command, Difference, ListQuery, Listed, Listing, Runtime, Seen, Submission};
use tinkerbell_core::words::{BlobRef, Lsn, TaskId};
use tokio::sync::watch;

pub const TASK: TaskId = TaskId(0x7f3a_2c00_0000_0000_0000_0000_0000_0001);

/// The engine, the process and the clock in one.
pub struct Fake {
    pub log: watch::Sender<Vec<Placed>>,
    pub submissions: Mutex<Vec<Submission>>,
    pub commands: Mutex<Vec<Command>>,
    pub env: Mutex<Vec<(String, String)>>,
    pub stops: AtomicUsize,
    pub live: Mutex<Vec<tinkerbell_core::effect::Live>>,
    /// Watches end with a fault after this many events.
    pub break_after: AtomicUsize,
}

impl Fake {
    pub fn new() -> Arc<Self> {
        Arc::new(Self {
            log: watch::channel(Vec::new()).0,
            submissions: Mutex::default(),
            commands: Mutex::default(),
            env: Mutex::default(),
            stops: AtomicUsize::new(0),
            live: Mutex::default(),
            break_after: AtomicUsize::new(usize::MAX),
        })
    }

    pub fn happen(&self, event: Event) {
        self.log.send_modify(|log| {
            let lsn = Lsn(log.len() as u64 + 1);
            log.push(Placed { lsn, at_ms: 1_795_166_043_120 + lsn.0, task: TASK, event });
        });
    }

    fn task(&self) -> Option<Task> {
        let log = self.log.borrow();
        let first = log.first()?;
        let Event::Submitted(submitted) = &first.event else { return None };
        let mut task = Task::new(TASK, first.lsn, first.at_ms, submitted.clone());
        log.iter().skip(1).for_each(|placed| task.apply(placed));
        Some(task)
    }
}

impl Clock for Fake {
    fn now(&self) -> Stamp {
        Stamp { wall_ms: 1_795_166_043_999, mono_ms: 0 }
    }
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(tokio::time::sleep(duration))
    }
}

impl Daemon for Fake {
    fn status(&self) -> DaemonStatus {
        DaemonStatus {
            pid: 4711,
            version: "0.1.0".to_owned(),
            uptime_ms: 5,
            lsn: self.log.borrow().len() as u64,
            data_dir: "/d".to_owned(),
            set: Vec::new(),
            ..DaemonStatus::default()
        }
    }
    fn ready(&self) -> Result<(), Fault> {
        Ok(())
    }
    fn alive(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async { Ok(()) })
    }
    fn upgrade(&self, request: UpgradeRequest) -> BoxFuture<'_, Result<UpgradeView, Fault>> {
        Box::pin(async move { Ok(UpgradeView { state: "looked".to_owned(), binary: request.binary, ..UpgradeView::default() }) })
    }
    fn halt(&self) -> BoxFuture<'_, HaltView> {
        Box::pin(async { HaltView::default() })
    }
    fn reload(&self) -> Result<String, Fault> {
        Ok("nothing has changed".to_owned())
    }
    fn stop(&self) {
        self.stops.fetch_add(1, Ordering::SeqCst);
    }
    fn environment(&self, values: Vec<tinkerbell_secret::Named>) {
        self.env.lock().unwrap().extend(values.into_iter().map(|(name, value)| (name, value.expose().clone())));
    }
}

impl Runtime for Fake {
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>> {
        self.happen(Event::Submitted(Submitted { goal: submission.goal.clone(), model: submission.model.clone(), ..Submitted::default() }));
        self.submissions.lock().unwrap().push(submission);
        Box::pin(async { Ok((TASK, Lsn(1))) })
    }
    fn command(&self, _: TaskId, command: Command) -> BoxFuture<'_, Result<String, Fault>> {
        let text = format!("{command:?}");
        self.commands.lock().unwrap().push(command);
        Box::pin(async { Ok(text) })
    }
    fn get<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listed, Fault>> {
        let found = self.task().filter(|task| task.id.to_string().starts_with(prefix)).map(|task| Listed { task, digits: 1 });
        let none = || Fault::new("TB-TASK-001", exit::USAGE, format!("no task begins with `{prefix}`")).hint("tinkerbell ps -a");
        let found = found.ok_or_else(none);
        Box::pin(async move { found })
    }
    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, Fault>> {
        let tasks: Vec<Listed> = self.task().into_iter().map(|task| Listed { task, digits: 1 }).collect();
        let (total, open) = (tasks.len() as u64, tasks.iter().filter(|found| found.task.is_open()).count() as u64);
        let kept = tasks.into_iter().filter(|found| !query.open || found.task.is_open());
        let page = Listing { tasks: kept.take(query.limit).collect(), before: None, total, open };
        Box::pin(async move { Ok(page) })
    }
    fn watch(&self, _: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
        let past: Vec<Placed> = self.log.borrow().iter().filter(|placed| placed.lsn > after).cloned().collect();
        let seen = past.last().map_or(after, |placed| placed.lsn);
        let live: Vec<Seen> = self.live.lock().unwrap().drain(..).map(Seen::Live).collect();
        let changes = tokio_stream::wrappers::WatchStream::from_changes(self.log.subscribe());
        let fresh = changes.scan(seen, |seen, log| {
            let new: Vec<Placed> = log.into_iter().filter(|placed| placed.lsn > *seen).collect();
            *seen = new.last().map_or(*seen, |placed| placed.lsn);
            async move { Some(stream::iter(new)) }
        });
        let all = stream::iter(past)
            .map(|placed| Seen::Event(Arc::new(placed)))
            .chain(stream::once(async move { Seen::CaughtUp(seen) }))
            .chain(stream::iter(live))
            .chain(fresh.flatten().map(|placed| Seen::Event(Arc::new(placed))));
        let limit = self.break_after.load(Ordering::SeqCst);
        let slow = Fault::new("TB-TEST-002", exit::UNAVAILABLE, "the reader fell behind").transient();
        let end = stream::once(async move { Err(slow) });
        Box::pin(all.map(Ok).take(limit).chain(end))
    }
    fn diff(&self, _: TaskId, from: Option<u32>, to: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>> {
        Box::pin(async move { Ok(Difference { files: Vec::new(), text: format!("{from:?}..{to:?}") }) })
    }
    fn blob(&self, blob: BlobRef) -> BoxFuture<'_, Result<bytes::Bytes, Fault>> {
        Box::pin(async move { Ok(bytes::Bytes::from(vec![b'x'; usize::try_from(blob.size_bytes).unwrap()])) })
    }
}
