//! Scratch.
#![allow(clippy::all, clippy::unwrap_used, missing_docs)]
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkerbell_api::server::{Daemon, DaemonStatus, ServerState, serve};
use tinkerbell_api::{socket, Client};
use tinkerbell_cli::*;
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Live, LiveDelta};
use tinkerbell_core::event::{self, Action, Event, Observation, Placed, Submitted};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::port::{self, Difference, Runtime, Seen, Submission};
use tinkerbell_core::words::{BlobRef, Lsn, TaskId};
use tokio::sync::broadcast;
const TASK: TaskId = TaskId(0x7f3a_2c00_0000_0000_0000_0000_0000_0001);
struct Fake { log: Mutex<Vec<Placed>>, tx: broadcast::Sender<Seen>, go: tokio::sync::Notify, cancelled: std::sync::atomic::AtomicBool }
impl Fake {
    fn ev(&self, event: Event) {
        let mut log = self.log.lock().unwrap();
        let lsn = Lsn(log.len() as u64 + 1);
        let p = Placed { lsn, at_ms: 1_795_166_043_120 + lsn.0, task: TASK, event };
        log.push(p.clone());
        let _ = self.tx.send(Seen::Event(Arc::new(p)));
    }
    fn live(&self, seq: u32, delta: LiveDelta) { let _ = self.tx.send(Seen::Live(Live { task: TASK, seq, delta })); }
    fn task(&self) -> Option<Task> {
        let log = self.log.lock().unwrap();
        let first = log.first()?;
        let Event::Submitted(s) = &first.event else { return None };
        let mut task = Task::new(TASK, first.lsn, first.at_ms, s.clone());
        log.iter().skip(1).for_each(|p| task.apply(p));
        Some(task)
    }
    async fn story(self: Arc<Self>) {
        let nap = |ms| tokio::time::sleep(Duration::from_millis(ms));
        self.ev(Event::Intent(event::Intent { seq: 1, class: 1, action: Some(Action::Ask(event::Ask { step: 1, ..Default::default() })) }));
        nap(400).await;
        let text = "I look at the parser first.\n\nThen I run \x1b[31mthe tests, ok";
        for w in text.split_inclusive(' ') { self.live(1, LiveDelta::Text(w.into())); nap(60).await; }
        let part = event::Part { kind: 0, text: text.into(), ..Default::default() };
        self.ev(Event::Observed(event::Observed { seq: 1, observation: Some(Observation::Reply(event::Reply { parts: vec![part], nano_usd: Some(1_000_000), ..Default::default() })) }));
        let call = event::Call { call_id: "c".into(), tool: "exec".into(), args: r#"{"cmd":"make test"}"#.into(), step: 1 };
        self.ev(Event::Intent(event::Intent { seq: 2, class: 1, action: Some(Action::Call(call)) }));
        for i in 0..8 { self.live(2, LiveDelta::Output(format!("ok {i}\n"))); nap(80).await; }
        let seen = event::ResultSeen { text: "ok".into(), status: "exited".into(), summary: "exec make test → exit 0 in 0.6 s".into(), ..Default::default() };
        self.ev(Event::Observed(event::Observed { seq: 2, observation: Some(Observation::Result(seen)) }));
        let asked = event::ApprovalAsked { id: 1, seq: 3, kind: 1, title: "edit AGENTS.md (protected)".into(), body: "+be bold\n+x".into(), options: vec![], digest: "d".into() };
        self.ev(Event::ApprovalAsked(asked));
        self.ev(Event::Paused(event::Paused { why: "person".into(), text: "edit AGENTS.md".into() }));
        self.go.notified().await;
        if !self.cancelled.load(std::sync::atomic::Ordering::SeqCst) {
            self.ev(Event::ApprovalGiven(event::ApprovalGiven { id: 1, yes: true, ..Default::default() }));
            self.ev(Event::Intent(event::Intent { seq: 4, class: 1, action: Some(Action::Ask(event::Ask { step: 2, ..Default::default() })) }));
            for w in "All done now.".split_inclusive(' ') { self.live(4, LiveDelta::Text(w.into())); nap(100).await; }
            let part = event::Part { kind: 0, text: "All done now.".into(), ..Default::default() };
            self.ev(Event::Observed(event::Observed { seq: 4, observation: Some(Observation::Reply(event::Reply { parts: vec![part], nano_usd: Some(1_000_000), ..Default::default() })) }));
            let f = event::FileChange { path: "src/parse.rs".into(), kind: "changed".into(), plus: 3, minus: 1 };
            self.ev(Event::Finished(event::Finished { status: "verified".into(), text: "All done now.".into(), files: vec![f], commits: 1, ..Default::default() }));
        } else {
            self.ev(Event::Finished(event::Finished { status: "cancelled".into(), exit: 6, text: "stopped by the user".into(), ..Default::default() }));
        }
    }
}
impl Clock for Fake {
    fn now(&self) -> Stamp { Stamp::default() }
    fn sleep(&self, d: Duration) -> BoxFuture<'static, ()> { Box::pin(tokio::time::sleep(d)) }
}
impl Daemon for Fake {
    fn status(&self) -> DaemonStatus { DaemonStatus::default() }
    fn ready(&self) -> Result<(), Fault> { Ok(()) }
    fn stop(&self) {}
    fn environment(&self, _: Vec<(String, String)>) {}
}
struct Rt(Arc<Fake>);
impl Runtime for Rt {
    fn submit(&self, s: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>> {
        self.0.ev(Event::Submitted(Submitted { goal: s.goal, model: "local/qwen".into(), no_input: s.no_input, ..Default::default() }));
        tokio::spawn(self.0.clone().story());
        Box::pin(async { Ok((TASK, Lsn(1))) })
    }
    fn command(&self, _: TaskId, c: port::Command) -> BoxFuture<'_, Result<String, Fault>> {
        if matches!(c, port::Command::Cancel) { self.0.cancelled.store(true, std::sync::atomic::Ordering::SeqCst); }
        self.0.go.notify_one();
        Box::pin(async move { Ok(format!("{c:?}")) })
    }
    fn get(&self, _: &str) -> Result<Task, Fault> { self.0.task().ok_or_else(|| Fault::new("TB-TASK-001", exit::USAGE, "none")) }
    fn list(&self) -> Vec<Task> { self.0.task().into_iter().collect() }
    fn watch(&self, _: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
        let rx = self.0.tx.subscribe();
        let past: Vec<Placed> = self.0.log.lock().unwrap().iter().filter(|p| p.lsn > after).cloned().collect();
        let last = past.last().map_or(after, |p| p.lsn);
        let past = stream::iter(past).map(|p| Seen::Event(Arc::new(p))).chain(stream::once(async move { Seen::CaughtUp(last) }));
        let fresh = stream::unfold(rx, |mut rx| async move { rx.recv().await.ok().map(|s| (s, rx)) })
            .filter(move |s| { let keep = !matches!(s, Seen::Event(p) if p.lsn <= last); async move { keep } });
        Box::pin(past.chain(fresh).map(Ok))
    }
    fn diff(&self, _: TaskId, _: Option<u32>, _: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>> { Box::pin(async { Ok(Difference::default()) }) }
    fn blob(&self, _: BlobRef) -> BoxFuture<'_, Result<bytes::Bytes, Fault>> { Box::pin(async { Ok(bytes::Bytes::new()) }) }
}
struct Roof(std::path::PathBuf);
impl House for Roof {
    fn connect(&self, _: bool) -> BoxFuture<'_, Result<Client, Fault>> { Box::pin(async move { Client::connect(self.0.clone()).await }) }
    fn surroundings(&self) -> Surroundings { Surroundings { cwd: Some("/tmp".into()), ..Default::default() } }
    fn chore(&self, _: Chore, _: Arc<Output>) -> BoxFuture<'_, Result<u8, Fault>> { Box::pin(async { Ok(0) }) }
}
fn main() {
    let args = match parse(std::env::args_os()) { Ok(a) => a, Err(c) => std::process::exit(c.into()) };
    if let Some(c) = offline(&args) { std::process::exit(c.into()) }
    let rt = tokio::runtime::Runtime::new().unwrap();
    let code = rt.block_on(async {
        let dir = std::env::temp_dir().join(format!("tty-{}", std::process::id()));
        let path = dir.join("s");
        let fake = Arc::new(Fake { log: Mutex::default(), tx: broadcast::channel(999).0, go: Default::default(), cancelled: false.into() });
        let listener = socket::bind(&path).await.unwrap();
        tokio::spawn(serve(listener, ServerState::new(Arc::new(Rt(fake.clone())), fake.clone(), fake.clone(), Default::default())));
        let code = run(args, Arc::new(Roof(path))).await;
        std::fs::remove_dir_all(dir).ok();
        code
    });
    rt.shutdown_background();
    std::process::exit(code.into())
}
