//! The engine's state and its one way to write.
//!
//! Tasks live in one map under one lock that is held only for folding and queueing, never across
//! a wait. Invariant: the map is the fold of what was queued to the journal, in journal order.

use crate::admission::{Census, INBOX_SLOTS};
use crate::keys::Keys;
use crate::record;
use crate::slot::{PAGE, Slot};
use crate::table::Table;
use crate::timers::{Deadline, Timers};
use crate::turns::Turns;
use crate::upkeep::Upkeep;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Entropy};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::coroutine::Wake;
use tinkerbell_core::event::{Event, Placed};
use tinkerbell_core::lifecycle::Task;
use tinkerbell_core::port::{BlobStore, Canvas, Journal, NewRecord, Runner, Seen, Submission};
use tinkerbell_core::words::{Lsn, Owner, Seq, Subject, TaskId};
use tokio::sync::{Notify, Semaphore, broadcast, mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Checks and completes a submission before it is accepted: default model, default limits,
/// whether the provider exists.
pub type Admission = Arc<dyn Fn(Submission) -> BoxFuture<'static, Result<Submission, Fault>> + Send + Sync>;

/// Says whether all effects are halted, by whom, and how that is lifted. Asked before every effect, so
/// it must be cheap and must not wait.
pub type Halt = Arc<dyn Fn() -> Option<Fault> + Send + Sync>;

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
    /// The kill switch.
    pub halt: Halt,
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
    /// A task that stands still leaves memory after this long.
    pub rest_after: Duration,
    /// Tasks that stand still and may stay in memory; beyond it the longest unused leave at once.
    pub resting: usize,
    /// Records after which the next checkpoint is due.
    pub checkpoint_records: u64,
    /// Growth of the journal in bytes after which the next checkpoint is due.
    pub checkpoint_bytes: u64,
    /// Growth of the journal in bytes after which compaction is due; 0 for never.
    pub compact_bytes: u64,
    /// History records of one task that are kept.
    pub history: u64,
    /// Appends that may wait for the disk before writers wait.
    pub writing: usize,
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
            rest_after: Duration::from_secs(60),
            resting: 4_096,
            checkpoint_records: 20_000,
            checkpoint_bytes: 32 << 20,
            compact_bytes: 128 << 20,
            history: 100_000,
            writing: 4_096,
        }
    }
}

/// What the lock guards.
#[derive(Default)]
pub(crate) struct World {
    pub(crate) slots: BTreeMap<TaskId, Slot>,
    /// Tasks that are not in memory.
    pub(crate) table: Table,
    /// Effects of those that may have left a command behind; few have any.
    pub(crate) asleep_runs: BTreeMap<TaskId, Vec<Seq>>,
    /// Deadlines of tasks at rest that a start found, until the timers have them.
    pub(crate) deadlines: Vec<Deadline>,
    pub(crate) keys: Keys,
    /// Tasks that may leave memory, longest looked at first; each stands here once.
    pub(crate) resting: VecDeque<TaskId>,
    /// Tasks whose history wants a page.
    pub(crate) paging: Vec<TaskId>,
    /// The newest record that was queued or read.
    pub(crate) newest: Lsn,
    pub(crate) census: Census,
    pub(crate) broken: Option<Fault>,
    pub(crate) stopping: bool,
    /// No effect begins: another process is about to take over.
    pub(crate) still: bool,
    /// Counts what may end a wait: new keys, raised limits, a word to go on.
    pub(crate) changes: u64,
}

impl World {
    /// Notes that the task was used, and that it may rest where it stands still.
    pub(crate) fn used(&mut self, id: TaskId, mono_ms: u64) {
        let Some(slot) = self.slots.get_mut(&id) else { return };
        slot.used_ms = mono_ms;
        if !slot.resting && slot.may_rest() {
            slot.resting = true;
            self.resting.push_back(id);
        }
    }

    /// Tasks that are paused for this reason, in memory and at rest.
    pub(crate) fn paused_for(&self, why: &str) -> Vec<TaskId> {
        let asleep = self.table.all().filter(|entry| entry.flags.is_paused_for(why)).map(|entry| entry.id);
        let here = self.slots.iter().filter(|(_, slot)| slot.task.paused_for(why)).map(|(id, _)| *id);
        asleep.chain(here).collect()
    }

    /// To whom the records of a task belong; a submission says it itself.
    fn owner(&self, task: TaskId, events: &[Event]) -> Owner {
        let uid = match events.first() {
            Some(Event::Submitted(submitted)) => submitted.uid,
            _ => self.slots.get(&task).map_or(0, |slot| slot.task.submitted.uid),
        };
        Owner { subject: Subject(uid), task }
    }
}

/// Appends for which there is room beyond what makes writers wait: those who hold the lock can not
/// wait, and there are never so many of them at once.
const SPARE: usize = 1_024;

/// Writing to a task that is not in memory would lose the event for it.
fn asleep(task: TaskId) -> Fault {
    tracing::error!(%task, "defect: an event for a task that is not in memory");
    Fault::new("TB-SCHED-003", exit::INTERNAL, format!("a defect of ours: task {} was not woken before it was written to", task.short(8)))
}

pub(crate) fn crowded() -> Fault {
    Fault::new("TB-SCHED-007", exit::UNAVAILABLE, "too many records wait for the disk").hint("try again in a moment").after_ms(1_000)
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
    pub(crate) publish: mpsc::Sender<Queued>,
    /// Told whenever an append has become durable.
    written: Notify,
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
    /// Whether all effects are halted, as far as the engine was told; the kill switch itself is asked
    /// before every effect.
    pub(crate) halted: AtomicBool,
    /// Held by whoever notes a halt or its end in the journal.
    pub(crate) halting: tokio::sync::Mutex<()>,
    /// Told once nobody records any more.
    silent: CancellationToken,
    /// Who looks after memory, checkpoints and compaction; one at a time.
    pub(crate) upkeep: tokio::sync::Mutex<Upkeep>,
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
        let world = crate::replay::fold(&deps, &options).await?;
        let (publish, queued) = mpsc::channel(options.writing.saturating_add(SPARE));
        let (seen, _) = broadcast::channel(options.watch_slots);
        let tip = deps.journal.state().tip;
        let (durable, _) = watch::channel(tip);
        let (asking, _) = watch::channel(0);
        let stop = CancellationToken::new();
        let is_halted = (deps.halt)().is_some();
        let inner = Arc::new(Inner {
            turns: Mutex::new(Turns::new(options.running, stop.clone())),
            timers: Mutex::default(),
            timed: Arc::default(),
            inbox: Arc::new(Semaphore::new(INBOX_SLOTS)),
            deps,
            options,
            world: Mutex::new(world),
            seen,
            publish,
            written: Notify::new(),
            durable,
            newest: AtomicU64::new(tip.0),
            asking,
            drivers: TaskTracker::new(),
            idle: Notify::new(),
            failed: Notify::new(),
            stop,
            halted: AtomicBool::new(is_halted),
            halting: tokio::sync::Mutex::default(),
            silent: CancellationToken::new(),
            upkeep: tokio::sync::Mutex::default(),
        });
        let engine = Self { inner };
        // Not one of the drivers: it outlives them, because they wait for it.
        tokio::spawn(publisher(Arc::downgrade(&engine.inner), queued));
        crate::replay::resume(&engine).await?;
        engine.remember_halt();
        // Nor is this: it holds the engine only while it looks.
        tokio::spawn(crate::timers::keep_time(Arc::downgrade(&engine.inner)));
        tokio::spawn(crate::upkeep::keep_house(Arc::downgrade(&engine.inner)));
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
        let waiting: Vec<TaskId> = {
            let mut world = self.inner.lock();
            // A task that is about to pause for a key looks again instead.
            world.changes += 1;
            world.paused_for("key")
        };
        for id in waiting {
            if let Err(fault) = self.unpause(id, "key").await {
                tracing::warn!(task = %id, %fault, "a task that waited for a key could not go on");
            }
        }
    }

    /// Lets a task go on, if it is paused for this reason.
    pub(crate) async fn unpause(&self, id: TaskId, why: &str) -> Result<(), Fault> {
        self.inner.room().await;
        let Some(_held) = self.inner.hold(id).await? else { return Ok(()) };
        {
            let mut world = self.inner.lock();
            if !world.slots.get(&id).is_some_and(|slot| slot.task.paused_for(why)) {
                return Ok(());
            }
            let unpause = Event::Signal(tinkerbell_core::event::Signal { kind: "unpause".into(), ..Default::default() });
            // What the task does next waits for the disk, and for this record with it.
            drop(self.inner.record_in(&mut world, id, vec![unpause])?);
        }
        self.kick(id);
        Ok(())
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
        if self.ready().is_ok() {
            let deadline = self.inner.deps.clock.sleep(patience);
            // Only the next start is slower without it.
            tokio::select! {
                biased;
                made = self.inner.checkpoint_now() => made.unwrap_or_else(|fault| tracing::warn!(%fault, "no checkpoint was made")),
                () = deadline => tracing::warn!("no checkpoint was made in time; the next start reads more of the journal"),
            }
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

    /// Waits until there is room for an append. Nobody may wait here under the lock; who publishes
    /// waits for the disk alone, so the room always comes or the journal breaks.
    pub(crate) async fn room(&self) {
        loop {
            let written = self.written.notified();
            tokio::pin!(written);
            // Registered before the look, so that nothing in between is missed.
            written.as_mut().enable();
            if self.publish.capacity() > SPARE || self.silent.is_cancelled() {
                return;
            }
            tokio::select! {
                biased;
                () = self.silent.cancelled() => return,
                () = written => {}
            }
        }
    }

    /// Journals events of one task and folds them in; large payloads become blobs first.
    pub(crate) async fn record(&self, task: TaskId, events: Vec<Event>) -> Result<Pending, Fault> {
        self.room().await;
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
        self.room().await;
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
        if world.table.get(task).is_some_and(|entry| !entry.flags.is_removed()) {
            return Err(asleep(task));
        }
        let Ok(permit) = self.publish.try_reserve() else { return Err(crowded()) };
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
        world.newest = appended.last;
        world.used(task, self.deps.clock.now().mono_ms);
        let (done, wait) = oneshot::channel();
        permit.send(Queued { events: placed, durable: appended.durable, done });
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
            world.keys.insert(key, placed.task);
        }
        let task = Task::new(placed.task, placed.lsn, placed.at_ms, submitted.clone());
        world.census.moved(submitted.uid, false, true, placed.at_ms);
        world.slots.entry(placed.task).or_insert_with(|| Slot::new(task, placed.lsn));
    } else if let (Event::Snapshot(snapshot), false) = (&placed.event, world.slots.contains_key(&placed.task)) {
        if let Some(slot) = Slot::of(placed.task, placed.lsn, snapshot.clone()) {
            world.census.moved(slot.task.submitted.uid, false, slot.task.is_open(), placed.at_ms);
            world.slots.insert(placed.task, slot);
        }
    } else if let Some(slot) = world.slots.get_mut(&placed.task) {
        let was_open = slot.task.is_open();
        match &placed.event {
            // Records before it are missing here: it stands for them all.
            Event::Snapshot(snapshot) if snapshot.folded != slot.folded => {
                if let Some(rested) = Slot::of(placed.task, placed.lsn, snapshot.clone()) {
                    *slot = rested;
                }
            }
            _ => slot.apply(placed),
        }
        if slot.history.tail.len() == 2 * PAGE {
            world.paging.push(placed.task);
        }
        world.census.moved(slot.task.submitted.uid, was_open, slot.task.is_open(), placed.at_ms);
    }
}

/// Shows events to watchers in journal order, each only once it is durable.
async fn publisher(inner: std::sync::Weak<Inner>, mut queued: mpsc::Receiver<Queued>) {
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
                next.events.into_iter().filter(|event| !event.event.is_bookkeeping()).for_each(|event| {
                    // Nobody watches: that is no error.
                    let _nobody = inner.seen.send(Seen::Event(Arc::new(event)));
                });
            }
            Err(fault) => {
                inner.lock().broken = Some(fault.clone());
                inner.failed.notify_one();
            }
        }
        inner.written.notify_waiters();
        // The caller may have gone; the record stays.
        let _gone = next.done.send(result);
    }
}
