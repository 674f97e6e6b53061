//! Parts for tests: a unit whose output is made by a function, and a sandbox that has nothing.

use bytes::Bytes;
use futures_core::future::BoxFuture;
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Chunk, Ended, ExecSpec, Found, Level, Meter, Sandbox, Unit, UnitState, Until, Used};
use tinkerbell_core::tool::Traffic;
use tinkerbell_core::words::{RunId, SERVICE_SEQ, Seq, TaskId};
use tinkerbell_testkit::fake::FakeClock;

const RUN: RunId = RunId { task: TaskId(7), seq: SERVICE_SEQ };

/// What a server writes from an offset on; nothing at the end.
type Output = Box<dyn Fn(u64, usize) -> Vec<u8> + Send + Sync>;

/// A server that writes and never listens.
pub struct Writer {
    pub clock: FakeClock,
    pub output: Output,
    pub is_over: bool,
    /// Bytes before this were not kept.
    pub kept_from: u64,
}

impl Writer {
    /// One that wrote this text and lives on, or has ended.
    pub fn of(clock: &FakeClock, text: &str, is_over: bool) -> Arc<Self> {
        let text = text.as_bytes().to_vec();
        let output: Output = Box::new(move |from, max| {
            let from = usize::try_from(from).unwrap().min(text.len());
            text[from..].iter().take(max).copied().collect()
        });
        Arc::new(Self { clock: clock.clone(), output, is_over, kept_from: 0 })
    }

    /// One that writes the same text for ever.
    pub fn endless(clock: &FakeClock, text: &str) -> Arc<Self> {
        let text = text.as_bytes().to_vec();
        let output: Output = Box::new(move |from, max| {
            let skip = usize::try_from(from % text.len() as u64).unwrap();
            text.iter().cycle().skip(skip).take(max).copied().collect()
        });
        Arc::new(Self { clock: clock.clone(), output, is_over: false, kept_from: 0 })
    }
}

fn ready<T: Send + 'static>(value: T) -> BoxFuture<'static, Result<T, Fault>> {
    Box::pin(std::future::ready(Ok(value)))
}

impl Unit for Writer {
    fn run(&self) -> RunId {
        RUN
    }
    fn wait(&self, until: Until) -> BoxFuture<'_, Result<UnitState, Fault>> {
        self.clock.advance(until.timeout);
        ready(if self.is_over { UnitState::Ended(Ended::default()) } else { UnitState::Running })
    }
    fn output(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Chunk, Fault>> {
        let offset = offset.max(self.kept_from);
        let bytes = Bytes::from((self.output)(offset, max));
        let next = offset + bytes.len() as u64;
        ready(Chunk { offset, bytes, next })
    }
    fn stdin(&self, _number: u64, _bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        ready(())
    }
    fn shown(&self, _seq: Seq, _end: Option<u64>) -> BoxFuture<'_, Result<(u64, Traffic), Fault>> {
        ready((0, Traffic::default()))
    }
    fn signal(&self, _signal: i32) -> BoxFuture<'_, Result<(), Fault>> {
        ready(())
    }
    fn release(&self) -> BoxFuture<'_, Result<(), Fault>> {
        ready(())
    }
}

/// A sandbox in which nothing ever ran.
pub struct NoSandbox;

impl Meter for NoSandbox {
    fn used(&self, _task: TaskId) -> BoxFuture<'_, Result<Used, Fault>> {
        ready(Used::default())
    }
}

impl Sandbox for NoSandbox {
    fn level(&self) -> BoxFuture<'_, Result<Level, Fault>> {
        ready(Level::Full)
    }
    fn start(&self, _spec: ExecSpec) -> BoxFuture<'_, Result<Arc<dyn Unit>, Fault>> {
        Box::pin(std::future::ready(Err(Fault::new("TB-EXEC-001", 69, "nothing starts here"))))
    }
    fn attach(&self, _run: RunId) -> BoxFuture<'_, Result<Found, Fault>> {
        ready(Found::NeverRan)
    }
    fn sweep(&self, _known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        ready(Vec::new())
    }
    fn stop(&self, _task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        ready(())
    }
    fn remove(&self, _task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        ready(())
    }
}
