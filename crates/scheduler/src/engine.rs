//! The engine's state and its one way to write.
//!
//! Tasks live in one map under one lock that is held only for folding and queueing, never across
//! a wait. Invariant: the map is the fold of what was queued to the journal, in journal order.

use crate::admission::{Census, INBOX_SLOTS};
use crate::record;
use crate::timers::Timers;
use crate::turns::Turns;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Entropy};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::coroutine::Wake;
use tinkerbell_core::event::{Action, Event, Observation, Placed};
use tinkerbell_core::lifecycle::{OP_SEQ, Task};
use tinkerbell_core::port::{BlobStore, Canvas, Journal, NewRecord, Runner, Seen, Submission};
use tinkerbell_core::words::{Lsn, Owner, Seq, Subject, TaskId};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Checks and completes a submission before it is accepted: default model, default limits,
/// whether the provider exists.
pub type Admission = Arc<dyn Fn(Submission) -> BoxFuture<'static, Result<Submission, Fault>> + Send + Sync>;

/// What the engine stands on.
pub struct Deps {
    /// The log.
    pub journal: Arc<dyn Journal>,
    /// Large payloads.
    pub blobs: Arc<dyn BlobStore>,
    /// The mind.
    pub runner: Arc<dyn Runner>,
    /// For diffs between operations.
    pub canvas: Arc<dyn Canvas>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Chance.
    pub entropy: Arc<dyn Entropy>,
    /// Checks submissions.
    pub admission: Admission,
}

/// Limits of the engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// Tasks that work at the same time.
    pub running: usize,
    /// Open tasks that are accepted; one more is refused with "try later".
    pub open: usize,
    /// Open tasks of one user that are accepted.
    pub per_tenant: usize,
    /// Tasks that work with one provider at the same time; 0 for any number.
    pub per_provider: u32,
    /// Tasks that work with one host of a model's endpoint at the same time; 0 for any number.
    pub per_host: u32,
    /// Tasks that work for one repository at the same time; 0 for any number.
    pub per_workspace: u32,
    /// The machine's present boot: monotonic time compares within it only. 0 where it is not known:
    /// then timers obey wall time alone.
    pub boot: u128,
    /// Events that a slow watcher may fall behind before it must read the journal again.
    pub watch_slots: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            running: 8,
            open: 1_000_000,
            per_tenant: 1_000_000,
            per_provider: 0,
            per_host: 0,
            per_workspace: 0,
            boot: 0,
            watch_slots: 4_096,
        }
    }
}

/// A task and what the engine keeps beside it.
pub(crate) struct Slot {
    pub(crate) task: Task,
    /// Its first record.
    pub(crate) first: Lsn,
    /// Records that make up its past: intents, observations, words. In journal order.
    pub(crate) past: Vec<Lsn>,
    /// Where the observation of each effect stands.
    pub(crate) observed: BTreeMap<Seq, Lsn>,
    /// Effects that may have left a command behind.
    pub(crate) runs: Vec<Seq>,
    /// Stops the driver.
    pub(crate) driver: Option<CancellationToken>,
    /// One user operation at a time.
    pub(crate) gate: Arc<tokio::sync::Mutex<()>>,
}

impl Slot {
    pub(crate) fn new(task: Task, first: Lsn) -> Self {
        Self { task, first, past: Vec::new(), observed: BTreeMap::new(), runs: Vec::new(), driver: None, gate: Arc::default() }
    }

    /// Folds one event in, and remembers where it stands.
    pub(crate) fn apply(&mut self, placed: &Placed) {
        match &placed.event {
            Event::Intent(intent) if intent.seq < OP_SEQ => {
                self.past.push(placed.lsn);
                if matches!(intent.action, Some(Action::Call(_) | Action::Verify(_))) {
                    self.runs.push(intent.seq);
                }
            }
            Event::Observed(observed) => {
                self.observed.insert(observed.seq, placed.lsn);
                // Only what goes on in the background may still have a keeper.
                if !matches!(&observed.observation, Some(Observation::Result(result)) if result.status == "running") {
                    self.runs.retain(|seq| *seq != observed.seq);
                }
                if observed.seq < OP_SEQ {
                    self.past.push(placed.lsn);
                }
            }
            Event::Signal(signal) if matches!(signal.kind.as_str(), "tell" | "note") => self.past.push(placed.lsn),
            Event::Signal(signal) if signal.kind == "remove" => {
                (self.past, self.runs) = (Vec::new(), Vec::new());
                self.observed.clear();
            }
            _ => {}
        }
        self.task.apply(placed);
    }
}

/// What the lock guards.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) slots: BTreeMap<TaskId, Slot>,
    pub(crate) keys: BTreeMap<String, TaskId>,
    pub(crate) census: Census,
    pub(crate) broken: Option<Fault>,
    pub(crate) stopping: bool,
    /// No effect begins: another process is about to take over.
    pub(crate) still: bool,
    /// Counts what may end a wait: new keys, raised limits, a word to go on.
    pub(crate) changes: u64,
}

impl World {
    /// To whom the records of a task belong; a submission says it itself.
    fn owner(&self, task: TaskId, events: &[Event]) -> Owner {
        let uid = match events.first() {
            Some(Event::Submitted(submitted)) => submitted.uid,
            _ => self.slots.get(&task).map_or(0, |slot| slot.task.submitted.uid),
        };
        Owner { subject: Subject(uid), task }
    }
}

/// Events on their way to the watchers, once they are durable.
pub(crate) struct Queued {
    pub(crate) events: Vec<Placed>,
    pub(crate) durable: BoxFuture<'static, Result<(), Fault>>,
    pub(crate) done: oneshot::Sender<Result<(), Fault>>,
}

pub(crate) struct Inner {
    pub(crate) deps: Deps,
    pub(crate) options: Options,
    pub(crate) world: Mutex<World>,
    pub(crate) seen: broadcast::Sender<Seen>,
    pub(crate) publish: mpsc::UnboundedSender<Queued>,
    /// Up to where the journal is durable and shown.
    pub(crate) durable: watch::Sender<Lsn>,
    /// Who may work; locked after the world, never before it.
    pub(crate) turns: Mutex<Turns>,
    /// What is due when; locked after the world, never before it.
    pub(crate) timers: Mutex<Timers>,
    /// Told when a deadline was added.
    pub(crate) timed: Arc<Notify>,
    /// Submissions that may wait for the disk.
    pub(crate) inbox: Arc<Semaphore>,
    /// The newest record that was queued.
    pub(crate) newest: AtomicU64,
    /// Model calls under way.
    pub(crate) asking: watch::Sender<usize>,
    pub(crate) drivers: TaskTracker,
    /// Told whenever a driver ends.
    pub(crate) idle: Notify,
    /// Told when the journal takes no more records.
    failed: Notify,
    pub(crate) stop: CancellationToken,
    /// Told once nobody records any more.
    silent: CancellationToken,
}

/// A cheap handle on the engine.
#[derive(Clone)]
pub struct Engine {
    pub(crate) inner: Arc<Inner>,
}

/// Completes once what was queued is durable.
pub(crate) struct Pending {
    pub(crate) last: Lsn,
    done: oneshot::Receiver<Result<(), Fault>>,
}

impl Pending {
    pub(crate) async fn durable(self) -> Result<Lsn, Fault> {
        match self.done.await {
            Ok(result) => result.map(|()| self.last),
            Err(_) => Err(stopping()),
        }
    }
}

pub(crate) fn stopping() -> Fault {
    Fault::new("TB-SCHED-002", exit::UNAVAILABLE, "the daemon is stopping").hint("run the command again; it starts a new one").transient()
}

impl Engine {
    /// Replays the journal, ends commands nobody knows, and continues every open task.
    ///
    /// # Errors
    /// When the journal or a blob that it refers to can not be read.
    pub async fn open(deps: Deps, options: Options) -> Result<Self, Fault> {
        let world = crate::replay::fold(&deps).await?;
        let (publish, queued) = mpsc::unbounded_channel();
        let (seen, _) = broadcast::channel(options.watch_slots);
        let tip = deps.journal.state().tip;
        let (durable, _) = watch::channel(tip);
        let (asking, _) = watch::channel(0);
        let inner = Arc::new(Inner {
            turns: Mutex::new(Turns::new(options.running)),
            timers: Mutex::default(),
            timed: Arc::default(),
            inbox: Arc::new(Semaphore::new(INBOX_SLOTS)),
            deps,
            options,
            world: Mutex::new(world),
            seen,
            publish,
            durable,
            newest: AtomicU64::new(tip.0),
            asking,
            drivers: TaskTracker::new(),
            idle: Notify::new(),
            failed: Notify::new(),
            stop: CancellationToken::new(),
            silent: CancellationToken::new(),
        });
        let engine = Self { inner };
        // Not one of the drivers: it outlives them, because they wait for it.
        tokio::spawn(publisher(Arc::downgrade(&engine.inner), queued));
        crate::replay::resume(&engine).await?;
        // Nor is this: it holds the engine only while it looks.
        tokio::spawn(crate::timers::keep_time(Arc::downgrade(&engine.inner)));
        Ok(engine)
    }

    /// Open tasks: those that have not ended.
    #[must_use]
    pub fn open_tasks(&self) -> usize {
        self.inner.lock().census.open()
    }

    /// Whether the journal takes records; the fault says why not.
    ///
    /// # Errors
    /// The fault that broke it.
    pub fn ready(&self) -> Result<(), Fault> {
        self.inner.lock().broken.clone().map_or(Ok(()), Err)
    }

    /// Completes when a record could not be made durable. What the engine has folded is ahead of
    /// the journal then, so the process must end and replay; tasks lose nothing by it.
    pub async fn broken(&self) -> Fault {
        loop {
            let told = self.inner.failed.notified();
            if let Err(fault) = self.ready() {
                return fault;
            }
            told.await;
        }
    }

    /// Continues tasks that wait for a key: the environment has new values.
    pub async fn environment_changed(&self) {
        let recorded: Vec<(TaskId, Result<Pending, Fault>)> = {
            let mut world = self.inner.lock();
            // A task that is about to pause for a key looks again instead.
            world.changes += 1;
            let waiting: Vec<TaskId> = world.slots.iter().filter(|(_, slot)| slot.task.paused_for("key")).map(|(id, _)| *id).collect();
            let unpause = || Event::Signal(tinkerbell_core::event::Signal { kind: "unpause".into(), ..Default::default() });
            waiting.into_iter().map(|id| (id, self.inner.record_in(&mut world, id, vec![unpause()]))).collect()
        };
        for (id, _) in recorded.into_iter().filter(|(_, recorded)| recorded.is_ok()) {
            self.kick(id);
        }
    }

    /// Does the work to its end even when nobody waits for it any more: a client that goes away in
    /// the middle must not leave half of it.
    pub(crate) async fn detached<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Fault>> + Send + 'static,
    ) -> Result<T, Fault> {
        self.inner.drivers.spawn(work).await.unwrap_or_else(|_| Err(stopping()))
    }

    /// Leaves all tasks where they are, waits for the drivers, and closes the journal.
    ///
    /// # Errors
    /// When the last records could not be written.
    pub async fn shutdown(&self, patience: Duration) -> Result<(), Fault> {
        self.inner.lock().stopping = true;
        self.inner.stop.cancel();
        self.inner.drivers.close();
        let deadline = self.inner.deps.clock.sleep(patience);
        tokio::select! {
            biased;
            () = self.inner.drivers.wait() => {}
            () = deadline => tracing::warn!("drivers did not stop in time; their tasks continue at the next start"),
        }
        self.inner.silent.cancel();
        self.inner.deps.journal.close().await
    }
}

impl Inner {
    pub(crate) fn lock(&self) -> MutexGuard<'_, World> {
        // A panic while folding leaves at worst one event unfolded; the journal still has it, and
        // refusing all service for that would lose more than it protects.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.deps.clock.now().wall_ms
    }

    /// Journals events of one task and folds them in; large payloads become blobs first.
    pub(crate) async fn record(&self, task: TaskId, events: Vec<Event>) -> Result<Pending, Fault> {
        let at_ms = self.now_ms();
        let owner = self.lock().owner(task, &events);
        let records = record::pack(&*self.deps.blobs, owner, at_ms, &events).await?;
        self.queue(&mut self.lock(), (task, at_ms), events, records)
    }

    /// As [`Self::record`], under a lock that the caller holds; for events that are small.
    pub(crate) fn record_in(&self, world: &mut World, task: TaskId, events: Vec<Event>) -> Result<Pending, Fault> {
        let at_ms = self.now_ms();
        let owner = world.owner(task, &events);
        let records = events.iter().map(|event| record::inline(owner, at_ms, event)).collect();
        self.queue(world, (task, at_ms), events, records)
    }

    /// As [`Self::record`], where `still` holds at the moment of writing; `None` where it does not.
    pub(crate) async fn record_if(
        &self,
        task: TaskId,
        events: Vec<Event>,
        still: impl Fn(&Task) -> bool + Send,
    ) -> Result<Option<Pending>, Fault> {
        let at_ms = self.now_ms();
        let owner = self.lock().owner(task, &events);
        let records = record::pack(&*self.deps.blobs, owner, at_ms, &events).await?;
        let mut world = self.lock();
        if !world.slots.get(&task).is_some_and(|slot| still(&slot.task)) {
            return Ok(None);
        }
        self.queue(&mut world, (task, at_ms), events, records).map(Some)
    }

    fn queue(&self, world: &mut World, place: (TaskId, u64), events: Vec<Event>, records: Vec<NewRecord>) -> Result<Pending, Fault> {
        if let Some(fault) = &world.broken {
            return Err(fault.clone());
        }
        let (task, at_ms) = place;
        let appended = self.deps.journal.append(records).inspect_err(|fault| {
            if !fault.retryable {
                world.broken = Some(fault.clone());
                // A journal can break while nothing is on its way that would tell of it.
                self.failed.notify_one();
            }
        })?;
        self.newest.fetch_max(appended.last.0, Ordering::Relaxed);
        let placed: Vec<Placed> =
            events.into_iter().zip(appended.first.0..).map(|(event, lsn)| Placed { lsn: Lsn(lsn), at_ms, task, event }).collect();
        for event in &placed {
            fold(world, event);
            self.remember(task, &event.event);
        }
        let (done, wait) = oneshot::channel();
        // The publisher lives as long as this engine; if it is gone, the caller hears "stopping".
        let _gone = self.publish.send(Queued { events: placed, durable: appended.durable, done });
        Ok(Pending { last: appended.last, done: wait })
    }

    /// What resumes a task that has no driver yet.
    pub(crate) fn first_wake(state: Option<&Bytes>) -> Wake {
        if state.is_some() { Wake::Resumed } else { Wake::Started }
    }
}

/// Folds one event into the map of tasks.
pub(crate) fn fold(world: &mut World, placed: &Placed) {
    if let Event::Submitted(submitted) = &placed.event {
        if let Some(key) = &submitted.idempotency_key {
            world.keys.insert(key.clone(), placed.task);
        }
        let task = Task::new(placed.task, placed.lsn, placed.at_ms, submitted.clone());
        world.census.moved(submitted.uid, false, true, placed.at_ms);
        world.slots.entry(placed.task).or_insert_with(|| Slot::new(task, placed.lsn));
    } else if let Some(slot) = world.slots.get_mut(&placed.task) {
        let was_open = slot.task.is_open();
        slot.apply(placed);
        world.census.moved(slot.task.submitted.uid, was_open, slot.task.is_open(), placed.at_ms);
    }
}

/// Shows events to watchers in journal order, each only once it is durable.
async fn publisher(inner: std::sync::Weak<Inner>, mut queued: mpsc::UnboundedReceiver<Queued>) {
    let Some(stop) = inner.upgrade().map(|inner| inner.silent.clone()) else { return };
    loop {
        let next = tokio::select! {
            biased;
            next = queued.recv() => next,
            // After the stop, what is queued already is still published; nothing new is waited for.
            () = stop.cancelled() => queued.try_recv().ok(),
        };
        let Some(next) = next else { return };
        let result = next.durable.await;
        let Some(inner) = inner.upgrade() else { return };
        match &result {
            Ok(()) => {
                if let Some(last) = next.events.last() {
                    inner.durable.send_replace(last.lsn);
                }
                next.events.into_iter().for_each(|event| {
                    // Nobody watches: that is no error.
                    let _nobody = inner.seen.send(Seen::Event(Arc::new(event)));
                });
            }
            Err(fault) => {
                inner.lock().broken = Some(fault.clone());
                inner.failed.notify_one();
            }
        }
        // The caller may have gone; the record stays.
        let _gone = next.done.send(result);
    }
}
