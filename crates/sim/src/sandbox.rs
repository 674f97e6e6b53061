//! The sandbox port over simulated processes, with the host adapter's order of acts.
//!
//! Invariant: what may be done about a run is decided by the executor's own table, never here.

use crate::dice::{Dice, Topic};
use crate::host::{Host, Order};
use crate::life::Life;
use crate::plant::Plant;
use crate::time::SimClock;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{Chunk, ExecSpec, Found, Level, Meter, Sandbox, Unit, UnitState, Until, Used};
use tinkerbell_core::tool::Traffic;
use tinkerbell_core::words::{RunId, Seq, TaskId};
use tinkerbell_executor::verdict::{Sweep, Verdict};

/// Keepers that are tried for one start, as the host adapter tries them.
const KEEPERS: u32 = 3;

/// The adapter of one daemon.
pub struct SimSandbox {
    /// The machine.
    pub host: Arc<Host>,
    /// The daemon.
    pub life: Arc<Life>,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// Its luck.
    pub dice: Dice,
    /// The bug that is planted, if any.
    pub plant: Option<Plant>,
    /// As the adapter found it when it was made.
    pub is_new_boot: AtomicBool,
}

fn fault(why: &str) -> Fault {
    Fault::new("TB-EXEC-003", exit::INTERNAL, why.to_owned())
}

impl SimSandbox {
    fn unit(&self, id: RunId) -> Arc<dyn Unit> {
        Arc::new(SimUnit { id, host: self.host.clone(), life: self.life.clone(), clock: self.clock.clone() })
    }

    async fn start_run(&self, spec: ExecSpec) -> Result<Arc<dyn Unit>, Fault> {
        let (id, order) = (spec.run, Order::parse(&spec.command).ok_or_else(|| fault("no such command"))?);
        self.life.pass().await;
        self.host.note_boot(false);
        let known = self.host.with(id, |run| std::mem::replace(&mut run.directory, true));
        if known && !self.host.settle(id).may_start() && self.plant != Some(Plant::DoubleStart) {
            return Ok(self.unit(id));
        }
        if self.plant == Some(Plant::DoubleStart) && known {
            // The latch is ignored: whatever stands there is taken for nothing.
            self.host.remove(id);
            self.host.with(id, |run| run.directory = true);
        }
        for _ in 0..KEEPERS {
            self.life.pass().await;
            let keeper = self.host.spawn(id, order);
            loop {
                let news = self.host.news.notified();
                let (lives, begun) = self.host.with(id, |run| (run.keepers.contains(&keeper), run.started));
                if begun || !lives {
                    break;
                }
                news.await;
            }
            self.life.pass().await;
            if !self.host.settle(id).may_start() {
                return Ok(self.unit(id));
            }
        }
        Err(fault("no keeper could be started").transient())
    }

    async fn find(&self, id: RunId) -> Found {
        self.life.pass().await;
        let found = self.host.settle(id);
        let verdict = found.of_known(self.is_new_boot.load(Ordering::Relaxed));
        if verdict != found {
            self.host.with(id, |run| (run.directory, run.lost) = (true, true));
        }
        if self.plant == Some(Plant::DoubleStart) && verdict == Verdict::Running {
            return Found::NeverRan;
        }
        match verdict {
            Verdict::Absent | Verdict::NeverRan => Found::NeverRan,
            Verdict::Running | Verdict::Ended => Found::Unit(self.unit(id)),
            Verdict::Lost => Found::Lost(self.unit(id)),
        }
    }

    async fn stop_run(&self, id: RunId) {
        self.life.pass().await;
        let is_running = match self.host.settle(id) {
            Verdict::NeverRan => !self.host.withdraw(id) && self.host.verdict(id) == Verdict::Running,
            verdict => verdict == Verdict::Running,
        };
        while is_running && self.host.settle(id) == Verdict::Running {
            self.life.pass().await;
            self.host.cancel(id);
            self.clock.sleep(Duration::from_millis(3)).await;
        }
        if is_running {
            self.life.pass().await;
            self.host.settle(id);
        }
    }

    async fn sweep_all(&self, known: Vec<RunId>) -> Vec<(RunId, String)> {
        let mut found = Vec::new();
        if self.is_new_boot.load(Ordering::Relaxed) {
            for id in &known {
                self.find(*id).await;
            }
        }
        for id in self.host.runs().into_iter().filter(|id| !known.contains(id)) {
            self.life.pass().await;
            match self.host.verdict(id).sweep(self.host.with(id, |run| run.lost)) {
                Sweep::Stop => {
                    self.stop_run(id).await;
                    found.push((id, "it was running and no task knew it; it was ended".to_owned()));
                }
                Sweep::End => {
                    self.host.settle(id);
                    found.push((id, "its keeper was gone; what it left running was ended".to_owned()));
                }
                Sweep::Leave => {}
            }
        }
        self.life.pass().await;
        self.host.note_boot(true);
        self.is_new_boot.store(false, Ordering::Relaxed);
        found
    }
}

impl Meter for SimSandbox {
    fn used(&self, _task: TaskId) -> BoxFuture<'_, Result<Used, Fault>> {
        // A simulated command costs nothing.
        async { Ok(Used::default()) }.boxed()
    }
}

impl Sandbox for SimSandbox {
    fn level(&self) -> BoxFuture<'_, Result<Level, Fault>> {
        async { Ok(Level::Full) }.boxed()
    }

    fn start(&self, spec: ExecSpec) -> BoxFuture<'_, Result<Arc<dyn Unit>, Fault>> {
        let wait_ms = self.dice.between(0, 20, Topic::Keeper, &[u64::from(spec.run.seq)]);
        async move {
            self.clock.sleep(Duration::from_millis(wait_ms)).await;
            self.start_run(spec).await
        }
        .boxed()
    }

    fn attach(&self, run: RunId) -> BoxFuture<'_, Result<Found, Fault>> {
        async move { Ok(self.find(run).await) }.boxed()
    }

    fn sweep(&self, known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        async move { Ok(self.sweep_all(known).await) }.boxed()
    }

    fn stop(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            for id in self.host.runs().into_iter().filter(|id| id.task == task) {
                self.stop_run(id).await;
            }
            Ok(())
        }
        .boxed()
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        async move {
            self.stop(task).await?;
            for id in self.host.runs().into_iter().filter(|id| id.task == task) {
                self.life.pass().await;
                self.host.remove(id);
            }
            Ok(())
        }
        .boxed()
    }
}

/// A run as a daemon holds it.
struct SimUnit {
    id: RunId,
    host: Arc<Host>,
    life: Arc<Life>,
    clock: Arc<SimClock>,
}

impl SimUnit {
    async fn await_state(&self, until: Until) -> Result<UnitState, Fault> {
        let end_ms = self.clock.now().mono_ms + crate::millis(until.timeout);
        loop {
            self.life.pass().await;
            let news = self.host.news.notified();
            match self.host.settle(self.id) {
                Verdict::Ended => return Ok(UnitState::Ended(self.host.with(self.id, |run| run.trailer.clone()).unwrap_or_default())),
                Verdict::Lost => return Ok(UnitState::Lost),
                Verdict::Absent | Verdict::NeverRan => return Err(fault("the run never ran")),
                Verdict::Running => {}
            }
            let left = end_ms.saturating_sub(self.clock.now().mono_ms);
            if left == 0 {
                return Ok(UnitState::Running);
            }
            tokio::select! {
                biased;
                () = news => {}
                () = self.clock.sleep(Duration::from_millis(left)) => {}
            }
        }
    }
}

impl Unit for SimUnit {
    fn run(&self) -> RunId {
        self.id
    }

    fn wait(&self, until: Until) -> BoxFuture<'_, Result<UnitState, Fault>> {
        self.await_state(until).boxed()
    }

    fn output(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Chunk, Fault>> {
        async move {
            self.life.pass().await;
            let bytes = self.host.with(self.id, |run| {
                let from = usize::try_from(offset).unwrap_or(usize::MAX);
                let rest = run.output.get(from..).unwrap_or_default();
                Bytes::copy_from_slice(rest.get(..max).unwrap_or(rest))
            });
            let next = offset + bytes.len() as u64;
            Ok(Chunk { offset, bytes, next })
        }
        .boxed()
    }

    fn stdin(&self, _number: u64, _bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        async { Err(fault("these commands read nothing")) }.boxed()
    }

    fn shown(&self, seq: Seq, end: Option<u64>) -> BoxFuture<'_, Result<(u64, Traffic), Fault>> {
        async move {
            self.life.pass().await;
            let end = self.host.with(self.id, |run| match end {
                None => run.shown.range(..seq).next_back().map_or(0, |(_, end)| *end),
                Some(end) => {
                    run.shown.insert(seq, end);
                    end
                }
            });
            Ok((end, Traffic::default()))
        }
        .boxed()
    }

    fn signal(&self, _signal: i32) -> BoxFuture<'_, Result<(), Fault>> {
        async { Err(fault("these commands hear no signals")) }.boxed()
    }

    fn release(&self) -> BoxFuture<'_, Result<(), Fault>> {
        async { Ok(()) }.boxed()
    }
}
