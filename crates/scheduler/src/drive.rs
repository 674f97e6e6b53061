//! Drivers: one loop per working task, which resumes its coroutine until it stalls or ends.
//!
//! A driver is only a loop; all it knows is in the journal, so it may be dropped at any await.
//! Invariant: at most one driver works on a task, under a lease number that only grows.

use crate::effects::TaskEffects;
use crate::engine::{Engine, Inner};
use crate::metered::Metered;
use crate::timers::DISK_LOOK_MS;
use crate::turns::{Next, Turn};
use crate::waits::{TRIES, provider_wait_ms};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::coroutine::{Input, Wake};
use tinkerbell_core::effect::{Fence, Stall};
use tinkerbell_core::event::{Event, Finished, Paused, Started, StateSaved};
use tinkerbell_core::lifecycle::{Status, Task, check_caps};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::port::{Effects as _, Step, Stepped};
use tinkerbell_core::words::TaskId;
use tokio_util::sync::CancellationToken;

/// What a step costs beside its tokens, so that free ones take turns as well. One unit is a token.
const STEP_COST: u64 = 100;
/// What a millisecond costs in which a step keeps its thread.
const BUSY_COST: u64 = 100;
/// A task that could not be driven is tried again after this long.
const RETRY: Duration = Duration::from_secs(5);

impl Engine {
    /// Lets the task work, if it may and nobody drives it yet.
    pub(crate) fn kick(&self, id: TaskId) {
        {
            let mut world = self.inner.lock();
            if world.stopping || world.still || self.inner.is_halted() {
                return;
            }
            let now_ms = self.inner.deps.clock.now().mono_ms;
            if let Some(slot) = world.slots.get_mut(&id) {
                if !slot.is_ready() || slot.task.cancelling || slot.driver.is_some() {
                    return;
                }
                let stop = self.inner.stop.child_token();
                slot.driver = Some(stop.clone());
                // Under the world's lock, so that whoever stops the driver finds it in the queue.
                self.turns().enter(&slot.task, stop, &self.inner.options, now_ms);
            } else {
                let Some(entry) = world.table.get(id).filter(|entry| entry.flags.is_ready()) else { return };
                // Rare: a start lines them up, with what they use.
                self.turns().enter_asleep(entry, &[], now_ms);
            }
        }
        self.dispatch();
    }

    /// Stops the task's driver and waits until it is gone.
    pub(crate) async fn interrupt(&self, id: TaskId) {
        loop {
            let ended = self.inner.idle.notified();
            tokio::pin!(ended);
            // Registered before the look, so that an end in between is not missed.
            ended.as_mut().enable();
            {
                let mut world = self.inner.lock();
                let Some(slot) = world.slots.get_mut(&id) else { return };
                let Some(stop) = &slot.driver else { return };
                stop.cancel();
                // One that waits for its first turn may wait for long, and has nothing to leave.
                if self.turns().withdraw(id) {
                    slot.driver = None;
                    return;
                }
            }
            ended.await;
        }
    }

    pub(crate) async fn drive(&self, id: TaskId, stop: CancellationToken, turn: Turn) {
        let outcome = tokio::select! {
            // The stop first: nothing new is begun after it. Both branches only drop work that the
            // journal can repeat.
            biased;
            () = stop.cancelled() => Ok(()),
            outcome = self.work(id, &turn) => outcome,
        };
        // Before the driver is said to be gone: the next one comes to the queue anew.
        drop(turn);
        if let Some(slot) = self.inner.lock().slots.get_mut(&id) {
            slot.driver = None;
        }
        self.inner.idle.notify_waiters();
        if let Err(fault) = outcome {
            tracing::error!(task = %id, %fault, "a task could not be driven; it is tried again in a moment");
            // At once would be a loop without end that helps nobody.
            tokio::select! {
                biased;
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

    async fn work(&self, id: TaskId, turn: &Turn) -> Result<(), Fault> {
        if self.inner.is_halted() {
            return Ok(());
        }
        // One that waited at rest comes into memory with its turn.
        let Some(_held) = self.inner.hold(id).await? else { return Ok(()) };
        let Some((task, fence)) = self.lease(id).await? else { return Ok(()) };
        let effects = TaskEffects::new(self.inner.clone(), id, fence.generation);
        let mut wake = Inner::first_wake(task.state.as_ref());
        let mut state = task.state;
        loop {
            let changes = self.inner.lock().changes;
            let task = effects.task();
            let before = task.usage.total();
            let step = Step { task, state: state.clone(), input: self.input(id, wake), fence };
            let (stepped, busy_ms) = self.step(step, effects.clone()).await;
            let tokens = effects.task().usage.total().saturating_sub(before);
            match stepped {
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
            if busy_ms > 0 {
                // It kept a thread of the house; others of the same thread come first now.
                tokio::task::yield_now().await;
            }
            let cost = STEP_COST.saturating_add(tokens).saturating_add(busy_ms.saturating_mul(BUSY_COST));
            if let Next::Wait(slot) = turn.over(cost) {
                slot.await.map_err(|_| crate::engine::stopping())?;
                // What was decided meanwhile (a pause, an end) has stopped this driver already.
            }
        }
    }

    /// One step, which ends at the latest when the task's working time is used up; and how long it
    /// kept its thread, in milliseconds.
    async fn step(&self, step: Step, effects: Arc<TaskEffects>) -> (Result<Stepped, Stall>, u64) {
        let deps = &self.inner.deps;
        let mut step = Metered::new(deps.runner.step(step, effects.clone()), &*deps.clock);
        loop {
            let task = effects.task();
            let now_ms = self.inner.now_ms();
            let left = task.caps.wall_ms.map(|cap| cap.saturating_sub(task.active_at(now_ms)));
            let used_up = async {
                match left {
                    // At least a moment, so that the step itself finds out what is used up already.
                    Some(left) => deps.clock.sleep(Duration::from_millis(left.max(1))).await,
                    None => std::future::pending().await,
                }
            };
            // Dropping a step is safe: it is repeated from the journal.
            tokio::select! {
                biased;
                stepped = &mut step => return (stepped, step.busy_ms()),
                () = used_up => {}
            }
            // Raised meanwhile, or only the wall clock says so: look again.
            if let Err(text) = check_caps(&effects.task(), self.inner.now_ms(), (NanoUsd(0), 0), false) {
                return (Err(Stall::Budget(text)), step.busy_ms());
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
        if matches!(stall, Stall::Budget(_)) {
            self.end_commands(id).await;
        }
        let (mut retries, mut left_ms) = (None, None);
        let (why, text) = match stall {
            Stall::Stopped => return Ok(()),
            Stall::Person(number) => match self.question(id, number) {
                Some((title, expires_ms)) => {
                    left_ms = (expires_ms > 0).then(|| expires_ms.saturating_sub(self.inner.now_ms()));
                    ("person", title)
                }
                // Answered in between: the driver's end looks again.
                None => return Ok(()),
            },
            Stall::Budget(text) => ("budget", text),
            Stall::Key(name) => ("key", format!("needs key {name}")),
            Stall::Disk(text) => ("disk", text),
            Stall::Broken(fault) if fault.is_halt() => ("halt", fault.message),
            Stall::Broken(fault) if fault.is_disk_full() => ("disk", fault.message),
            // A refused key is no end of the task: it goes on with a better one.
            Stall::Broken(fault) if fault.exit == exit::NO_AUTH => ("key", fault.message),
            Stall::Broken(fault) if fault.retryable => {
                retries = Some(fault.clone());
                ("provider", fault.message)
            }
            Stall::Broken(fault) => return self.fail(id, fault).await,
        };
        let pending = {
            let mut world = self.inner.lock();
            let due = world.slots.get(&id).is_some_and(|slot| slot.task.status == Status::Running);
            let still = why != "person" || world.slots.get(&id).is_some_and(|slot| slot.task.waiting_for().is_some());
            if !due || !still || (why != "person" && world.changes != changes) {
                return Ok(());
            }
            let (timers, tried) = world.slots.get(&id).map_or((0, 0), |slot| (slot.task.timers, slot.task.tries));
            let mut paused = self.paused(why, text, retries.as_ref(), (timers, tried));
            if let Some(left_ms) = left_ms {
                // Nobody may ever answer: at its deadline the question is over, and the task goes on.
                paused.timer = Some(self.inner.timer(timers, left_ms));
            }
            self.inner.record_in(&mut world, id, vec![Event::Paused(paused)])?
        };
        pending.durable().await.map(|_| ())
    }

    /// Ends what a task that has spent its budget left in the background: nobody pays for it any more. An effect
    /// that is open is looked at again when the task goes on, and its command stays.
    async fn end_commands(&self, id: TaskId) {
        let is_open = self.inner.lock().slots.get(&id).is_none_or(|slot| slot.task.open.is_some());
        if is_open {
            return;
        }
        if let Err(fault) = self.inner.deps.runner.quiet(id).await {
            tracing::warn!(task = %id, %fault, "background commands of a task over its budget were not ended");
        }
    }

    /// The pause, with the moment at which the task goes on by itself where it does.
    fn paused(&self, why: &str, mut text: String, retries: Option<&Fault>, (timers, tried): (u64, u32)) -> Paused {
        let mut tries = 0;
        let wait_ms = match retries {
            Some(fault) => {
                tries = tried.saturating_add(1);
                // The low half of 128 random bits.
                let wait_ms = provider_wait_ms(fault, tries, self.inner.deps.entropy.id() as u64);
                if wait_ms.is_none() {
                    text = format!("{text} (tried {TRIES} times in a row; `tinkerbell resume` tries again)");
                }
                wait_ms
            }
            None if why == "disk" => Some(DISK_LOOK_MS),
            None => None,
        };
        let timer = wait_ms.map(|wait_ms| self.inner.timer(timers, wait_ms));
        Paused { why: why.into(), text, timer, tries }
    }

    /// Title and deadline of a question that waits.
    fn question(&self, id: TaskId, number: u32) -> Option<(String, u64)> {
        let world = self.inner.lock();
        let approval = world.slots.get(&id)?.task.approvals.get(&number)?;
        approval.answer.is_none().then(|| (approval.asked.title.clone(), approval.asked.expires_ms))
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
