//! A runner whose effects are counters in a world that outlives the engine.
//!
//! Its acts are verifiable: on recovery they look whether they have happened. Invariant: a count
//! above one is an effect done twice.

use crate::{Deps, Engine, Options};
use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use tinkerbell_core::code::Fault;
use tinkerbell_core::coroutine::Wake;
use tinkerbell_core::effect::{Act, Acted, Attempt, EffectClass, Intended, Question, QuestionKind, Stall};
use tinkerbell_core::event::{Action, Ask, Call, FileChange, Finished, Observation, Observed, Op, OpDone, Operated, Prepared, ResultSeen};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::money::{NanoUsd, Usage};
use tinkerbell_core::port::{
    Canvas, Checkpoint, Difference, Effects, Journal, Kept, MicroCommit, OpenSpec, Opened, Runner, Runtime as _, Seen, Step, Stepped, Used,
};
use tinkerbell_core::words::{GitId, Lsn, RunId, TaskId, Workspace};
use tinkerbell_testkit::fake::{FakeClock, SeedEntropy};
use tinkerbell_testkit::memory::MemDisk;
use tokio::sync::Notify;

/// What the task does.
#[derive(Debug, Clone, Default)]
pub(super) struct Script {
    pub(super) effects: u32,
    pub(super) ask_at: Option<u32>,
    pub(super) hang_at: Option<u32>,
    pub(super) hold: u64,
    /// CPU time that each effect uses, as commands do.
    pub(super) cpu_ms: u64,
    /// How often an effect repeats its words; many make a blob.
    pub(super) talks: usize,
}

impl Script {
    pub(super) fn effects(effects: u32) -> Self {
        Self { effects, ..Self::default() }
    }
}

/// What outlives the engine.
#[derive(Clone, Default)]
pub(super) struct World {
    done: Arc<Mutex<BTreeMap<(TaskId, u32), u32>>>,
    quiets: Arc<AtomicU32>,
    free: Arc<AtomicBool>,
    freed: Arc<Notify>,
    seed: Arc<AtomicU32>,
    /// How quieting goes: 0 at once, 1 when released, 2 not at all.
    quieting: Arc<AtomicU32>,
    /// What each act fails with meanwhile.
    pub(super) down: Arc<Mutex<Option<Fault>>>,
    /// What the kill switch says.
    pub(super) halted: Arc<Mutex<Option<Fault>>>,
    /// The tasks that acted, in order.
    order: Arc<Mutex<Vec<TaskId>>>,
}

impl World {
    pub(super) async fn engine(&self, disk: &MemDisk, fuse: Option<usize>, script: Script) -> Engine {
        self.engine_with(disk, fuse, script, Options { watch_slots: 8, ..Options::default() }).await
    }

    pub(super) async fn engine_with(&self, disk: &MemDisk, fuse: Option<usize>, script: Script, options: Options) -> Engine {
        self.engine_on(disk.journal(fuse), disk, script, (&FakeClock::new(), options)).await
    }

    pub(super) async fn engine_on(
        &self,
        journal: Arc<dyn Journal>,
        disk: &MemDisk,
        script: Script,
        (clock, options): (&FakeClock, Options),
    ) -> Engine {
        let deps = Deps {
            journal,
            blobs: Arc::new(disk.clone()),
            runner: Arc::new(FakeRunner { world: self.clone(), script }),
            canvas: Arc::new(NoCanvas),
            clock: Arc::new(clock.clone()),
            entropy: Arc::new(SeedEntropy::new(u64::from(self.seed.fetch_add(1, Ordering::SeqCst)))),
            admission: Arc::new(|submission| async { Ok(submission) }.boxed()),
            halt: {
                let halted = self.halted.clone();
                Arc::new(move || halted.lock().unwrap().clone())
            },
        };
        Engine::open(deps, options).await.unwrap()
    }

    pub(super) fn counts(&self, task: TaskId) -> Vec<u32> {
        let done = self.done.lock().unwrap();
        let of = |seq| done.get(&(task, seq)).copied().unwrap_or(0);
        let newest = done.keys().filter(|(id, _)| *id == task).map(|(_, seq)| *seq).max().unwrap_or(0);
        // Key 0 holds how many effects the script has.
        (1..=newest.max(of(0))).map(of).collect()
    }

    /// The tasks that acted since this was last asked, in order.
    pub(super) fn order(&self) -> Vec<TaskId> {
        std::mem::take(&mut self.order.lock().unwrap())
    }

    pub(super) fn quiets(&self) -> u32 {
        self.quiets.load(Ordering::SeqCst)
    }

    pub(super) fn set_quieting(&self, how: u32) {
        self.quieting.store(how, Ordering::SeqCst);
    }

    pub(super) fn release(&self) {
        self.free.store(true, Ordering::SeqCst);
        self.freed.notify_waiters();
    }

    /// Lets acts hang again that are yet to come.
    pub(super) fn hold(&self) {
        self.free.store(false, Ordering::SeqCst);
    }

    /// Lets everything run that can.
    pub(super) async fn settle(&self) {
        for _ in 0..200 {
            tokio::task::yield_now().await;
        }
    }

    pub(super) async fn names(&self, engine: &Engine, id: TaskId, after: Lsn) -> Vec<&'static str> {
        let events = engine.watch(Some(id), after).take_while(|seen| std::future::ready(!matches!(seen, Ok(Seen::CaughtUp(_)))));
        events
            .filter_map(|seen| async move { if let Ok(Seen::Event(event)) = seen { Some(event.event.name()) } else { None } })
            .collect()
            .await
    }
}

struct FakeRunner {
    world: World,
    script: Script,
}

impl FakeRunner {
    /// The effect that follows: state is the number of the effect that is waited for.
    fn next(&self, step: &Step) -> Option<u32> {
        let at = step.state.as_ref().and_then(|state| state.first()).map_or(0, |n| u32::from(*n));
        let next = match step.input.event {
            Wake::Started => 1,
            Wake::Resumed => at.max(1),
            Wake::Observed(_) | Wake::Told => at + 1,
        };
        let told = u32::from(step.task.told > Lsn(0));
        (next <= self.script.effects + told).then_some(next)
    }

    fn act(&self, task: TaskId, seq: u32) -> Act {
        let (world, hang, hold) = (self.world.clone(), self.script.hang_at == Some(seq), self.script.hold);
        let (planned, talks, cpu_ms) = (self.script.effects, self.script.talks.max(1), self.script.cpu_ms);
        Box::new(move |attempt| {
            async move {
                if hang {
                    let freed = world.freed.notified();
                    if !world.free.load(Ordering::SeqCst) {
                        freed.await;
                    }
                }
                if let Some(fault) = world.down.lock().unwrap().clone() {
                    return Err(Stall::Broken(fault));
                }
                world.order.lock().unwrap().push(task);
                let mut done = world.done.lock().unwrap();
                done.insert((task, 0), planned);
                let count = done.entry((task, seq)).or_insert(0);
                // Verifiable: on recovery, look first.
                if attempt == Attempt::First || *count == 0 {
                    *count += 1;
                }
                let result = ResultSeen { text: format!("effect {seq}").repeat(talks), status: "done".into(), ..ResultSeen::default() };
                let (before, after) = ((seq - 1).to_string(), seq.to_string());
                // The first effect of a task makes its workspace, as in the real house.
                let prepared = Prepared { checkpoint: "0".into(), ..Prepared::default() };
                let observation = if seq == 1 { Observation::Prepared(prepared) } else { Observation::Result(result) };
                Ok(Acted {
                    observation,
                    spent: (hold > 0).then_some((NanoUsd(hold), Usage::default())),
                    op: Some(OpDone { kind: "tool".into(), seq, before, after, files: vec![FileChange::default()], ..OpDone::default() }),
                    used: (cpu_ms > 0).then(|| Used { cpu_ms: cpu_ms * u64::from(seq), ..Used::default() }),
                })
            }
            .boxed()
        })
    }
}

impl Runner for FakeRunner {
    fn step(&self, step: Step, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Stepped, Stall>> {
        async move {
            let Some(seq) = self.next(&step) else {
                let finished = Finished { status: "unverified".into(), text: "done".into(), ..Finished::default() };
                let at = step.state.and_then(|state| state.first().copied()).unwrap_or(0);
                return Ok(Stepped::Done { state: Bytes::from(vec![at]), finished });
            };
            if self.script.ask_at == Some(seq) {
                let question = Question {
                    seq,
                    kind: QuestionKind::Approval,
                    title: "may I".into(),
                    body: "b".into(),
                    digest: "d".into(),
                    ..Question::default()
                };
                assert!(effects.person(question).await?.yes);
            }
            // The one ask of this task carries all words that it was told.
            let action = if step.input.event == Wake::Told || step.task.has_unheard() {
                Action::Ask(Ask { through: step.input.lsn.0, step: 1, ..Ask::default() })
            } else {
                Action::Call(Call { tool: "count".into(), ..Call::default() })
            };
            let state = Bytes::from(vec![u8::try_from(seq).unwrap()]);
            let hold = NanoUsd(self.script.hold);
            let before = Used { cpu_ms: self.script.cpu_ms * u64::from(seq - 1), ..Used::default() };
            let used = (self.script.cpu_ms > 0).then_some(before);
            let intended = Intended { seq, class: EffectClass::Verifiable, action, hold, hold_tokens: 0, used, state: state.clone() };
            let observed = effects.once(intended, self.act(step.task.id, seq)).await?;
            Ok(Stepped::Again { state, wake: Wake::Observed(observed.observation.unwrap()) })
        }
        .boxed()
    }

    fn operate(&self, _task: Task, op: Op, intended: Intended, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Observed, Stall>> {
        let text = format!("{} done", op.kind);
        let op =
            (op.kind != "remove").then(|| OpDone { kind: op.kind.clone(), after: op.target.clone(), ops: op.ops, ..OpDone::default() });
        let act: Act = Box::new(move |_| {
            let observation = Observation::Operated(Operated { text, ..Operated::default() });
            async move { Ok(Acted { observation, spent: None, op, used: None }) }.boxed()
        });
        async move { effects.once(intended, act).await }.boxed()
    }

    fn quiet(&self, _task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        self.world.quiets.fetch_add(1, Ordering::SeqCst);
        let world = self.world.clone();
        async move {
            match world.quieting.load(Ordering::SeqCst) {
                1 if !world.free.load(Ordering::SeqCst) => world.freed.notified().await,
                2 => return Err(Fault::new("TB-EXEC-003", 1, "something survives")),
                _ => {}
            }
            Ok(())
        }
        .boxed()
    }

    fn sweep(&self, _known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        async { Ok(Vec::new()) }.boxed()
    }
}

/// The engine asks the canvas only for diffs, which no test here wants.
struct NoCanvas;

fn none<T>() -> BoxFuture<'static, Result<T, Fault>> {
    async { Err(Fault::new("TB-CANVAS-001", 1, "no canvas here")) }.boxed()
}

impl Canvas for NoCanvas {
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
