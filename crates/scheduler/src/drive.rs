//! Drivers: one loop per working task, which resumes its coroutine until it stalls or ends.
//!
//! A driver is only a loop; all it knows is in the journal, so it may be dropped at any await.
//! Invariant: at most one driver works on a task, under a lease number that only grows.

use crate::effects::TaskEffects;
use crate::engine::{Engine, Inner};
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::coroutine::{Input, Wake};
use tinkerbell_core::effect::{Fence, Stall};
use tinkerbell_core::event::{Event, Finished, Paused, Started, StateSaved};
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{Effects as _, Step, Stepped};
use tinkerbell_core::words::TaskId;
use tokio_util::sync::CancellationToken;

/// A task that could not be driven is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);

impl Engine {
    /// Lets the task work, if it may and nobody drives it yet.
    pub(crate) fn kick(&self, id: TaskId) {
        let stop = self.inner.stop.child_token();
        {
            let mut world = self.inner.lock();
            if world.stopping {
                return;
            }
            let Some(slot) = world.slots.get_mut(&id) else { return };
            let may = matches!(slot.task.status, Status::Queued | Status::Running) && !slot.task.cancelling;
            if !may || slot.driver.is_some() {
                return;
            }
            slot.driver = Some(stop.clone());
        }
        let engine = self.clone();
        self.inner.drivers.spawn(async move { engine.drive(id, stop).await });
    }

    /// Stops the task's driver and waits until it is gone.
    pub(crate) async fn interrupt(&self, id: TaskId) {
        loop {
            let ended = self.inner.idle.notified();
            tokio::pin!(ended);
            // Registered before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            match self.inner.lock().slots.get(&id).and_then(|slot| slot.driver.as_ref()) {
                Some(stop) => stop.cancel(),
                None => return,
            }
            ended.await;
        }
    }

    async fn drive(&self, id: TaskId, stop: CancellationToken) {
        let outcome = tokio::select! {
            // The stop first: nothing new is begun after it. Both branches only drop work that the
            // journal can repeat.
            biased;
            () = stop.cancelled() => Ok(()),
            outcome = self.work(id) => outcome,
        };
        if let Some(slot) = self.inner.lock().slots.get_mut(&id) {
            slot.driver = None;
        }
        self.inner.idle.notify_waiters();
        if let Err(fault) = outcome {
            tracing::error!(task = %id, %fault, "a task could not be driven; it is tried again in a moment");
            // At once would be a loop without end that helps nobody.
            tokio::select! {
                () = self.inner.stop.cancelled() => return,
                () = self.inner.deps.clock.sleep(RETRY) => {}
            }
        }
        // A word that arrived while the driver was ending finds nobody: look once more.
        self.kick_if_due(id, &stop);
    }

    fn kick_if_due(&self, id: TaskId, stop: &CancellationToken) {
        if !stop.is_cancelled() && self.inner.lock().broken.is_none() {
            self.kick(id);
        }
    }

    async fn work(&self, id: TaskId) -> Result<(), Fault> {
        let _slot_in_use = self.inner.slots_free.clone().acquire_owned().await.map_err(|_| crate::engine::stopping())?;
        let Some((task, fence)) = self.lease(id).await? else { return Ok(()) };
        let effects = TaskEffects::new(self.inner.clone(), id, fence.generation);
        let mut wake = Inner::first_wake(task.state.as_ref());
        let mut state = task.state;
        loop {
            let changes = self.inner.lock().changes;
            let step = Step { task: effects.task(), state: state.clone(), input: self.input(id, wake), fence };
            match self.inner.deps.runner.step(step, effects.clone()).await {
                Ok(Stepped::Again { state: next, wake: seen }) => {
                    state = Some(next);
                    wake = seen;
                }
                Ok(Stepped::Done { state: last, finished }) => {
                    state = Some(last.clone());
                    let heard = !effects.task().has_unheard();
                    // A word that came while the end was written is not left behind it.
                    if heard && self.finish(id, Some(last.to_vec()), finished, |task| works(task) && !task.has_unheard()).await? {
                        return Ok(());
                    }
                    if !works(&effects.task()) {
                        return Ok(());
                    }
                    wake = Wake::Told;
                }
                Err(stall) => return self.stall(id, stall, changes).await,
            }
        }
    }

    /// Takes the lease: no older driver or daemon may act on the task after this.
    async fn lease(&self, id: TaskId) -> Result<Option<(Task, Fence)>, Fault> {
        let epoch = self.inner.deps.journal.state().epoch;
        let (pending, generation) = {
            let mut world = self.inner.lock();
            let Some(slot) = world.slots.get(&id) else { return Ok(None) };
            if !matches!(slot.task.status, Status::Queued | Status::Running) || slot.task.cancelling {
                return Ok(None);
            }
            let generation = slot.task.generation.saturating_add(1);
            let started = Event::Started(Started { epoch, generation });
            (self.inner.record_in(&mut world, id, vec![started])?, generation)
        };
        // The first intent waits for the disk; the lease need not wait twice.
        drop(pending);
        let task = self.inner.lock().slots.get(&id).map(|slot| slot.task.clone());
        Ok(task.map(|task| (task, Fence { epoch, generation })))
    }

    fn input(&self, id: TaskId, event: Wake) -> Input {
        let lsn = self.inner.lock().slots.get(&id).map(|slot| slot.task.last_lsn).unwrap_or_default();
        Input { event, lsn, now: self.inner.deps.clock.now(), entropy: self.inner.deps.entropy.id() }
    }

    /// Records the end of a task where `still` holds; says whether it did.
    async fn finish(
        &self,
        id: TaskId,
        state: Option<Vec<u8>>,
        finished: Finished,
        still: impl Fn(&Task) -> bool + Send,
    ) -> Result<bool, Fault> {
        let mut events = Vec::new();
        // The state stays usable: the user may speak again, and then the coroutine goes on.
        events.extend(state.map(|state| Event::StateSaved(StateSaved { state, seq: 0 })));
        events.push(Event::Finished(finished));
        let Some(pending) = self.inner.record_if(id, events, still).await? else { return Ok(false) };
        pending.durable().await.map(|_| true)
    }

    /// Ends a cancelled task: its commands first, then its record.
    pub(crate) async fn finish_cancel(&self, id: TaskId) -> Result<(), Fault> {
        self.inner.deps.runner.quiet(id).await?;
        let finished = Finished {
            status: "cancelled".into(),
            exit: u32::from(exit::CANCELLED),
            text: "stopped by the user".into(),
            ..Finished::default()
        };
        self.finish(id, None, finished, Task::is_open).await.map(drop)
    }

    /// Pauses or ends a task that can not go on, unless what it lacks has come since `changes`.
    async fn stall(&self, id: TaskId, stall: Stall, changes: u64) -> Result<(), Fault> {
        let (why, text) = match stall {
            Stall::Stopped => return Ok(()),
            Stall::Person(number) => match self.question(id, number) {
                Some(title) => ("person", title),
                // Answered in between: the driver's end looks again.
                None => return Ok(()),
            },
            Stall::Budget(text) => ("budget", text),
            Stall::Key(name) => ("key", format!("needs key {name}")),
            Stall::Disk(text) => ("disk", text),
            Stall::Broken(fault) if fault.is_disk_full() => ("disk", fault.message),
            // A refused key is no end of the task: it goes on with a better one.
            Stall::Broken(fault) if fault.exit == exit::NO_AUTH => ("key", fault.message),
            Stall::Broken(fault) if fault.retryable => ("provider", fault.message),
            Stall::Broken(fault) => return self.fail(id, fault).await,
        };
        let paused = Event::Paused(Paused { why: why.into(), text, ..Paused::default() });
        let pending = {
            let mut world = self.inner.lock();
            let due = world.slots.get(&id).is_some_and(|slot| slot.task.status == Status::Running);
            let still = why != "person" || world.slots.get(&id).is_some_and(|slot| slot.task.waiting_for().is_some());
            if !due || !still || (why != "person" && world.changes != changes) {
                return Ok(());
            }
            self.inner.record_in(&mut world, id, vec![paused])?
        };
        pending.durable().await.map(|_| ())
    }

    fn question(&self, id: TaskId, number: u32) -> Option<String> {
        let world = self.inner.lock();
        let approval = world.slots.get(&id)?.task.approvals.get(&number)?;
        approval.answer.is_none().then(|| approval.asked.title.clone())
    }

    async fn fail(&self, id: TaskId, fault: Fault) -> Result<(), Fault> {
        tracing::error!(task = %id, %fault, "a task failed");
        self.inner.deps.runner.quiet(id).await?;
        let finished = Finished {
            status: "failed".into(),
            exit: u32::from(fault.exit),
            text: fault.message.clone(),
            code: fault.code.to_string(),
            hints: fault.hints,
            ..Finished::default()
        };
        self.finish(id, None, finished, works).await.map(drop)
    }
}

/// Whether a driver may still speak for the task: nobody has paused or stopped it meanwhile.
fn works(task: &Task) -> bool {
    task.status == Status::Running && !task.cancelling
}
