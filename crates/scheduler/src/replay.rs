//! Start-up: a checkpoint and the records after it become tasks again, and open tasks go on.
//!
//! Nothing is guessed: a record that can not be read refuses the start; a checkpoint that can not be
//! read is passed over, because the records tell the same. Invariant: after `fold`, the world is
//! what it was when the last durable record was written.

use crate::engine::{Deps, Engine, Options, World, fold as fold_one};
use crate::format::Image;
use crate::record::{BLOB_MISSING, unpack};
use crate::rest::{load, thicken};
use crate::slot::Slot;
use crate::table::{Entry, Flags, Table};
use crate::timers::Deadline;
use crate::turns::claims;
use futures_util::future::join;
use std::collections::{BTreeMap, BTreeSet};
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::{Event, OrphanReaped};
use tinkerbell_core::lifecycle::Status;
use tinkerbell_core::port::Record;
use tinkerbell_core::words::{Lsn, RunId, TaskId};

/// Records read at once.
const CHUNK: usize = 4_096;
/// The kind of a snapshot's record.
const SNAPSHOT: u16 = 33;

/// Folds the newest checkpoint and what came after it; without one, the whole journal.
pub(crate) async fn fold(deps: &Deps, options: &Options) -> Result<World, Fault> {
    // One record proves that the keys are here: a start that needs none of the old records would
    // else begin with new keys, and the old records would wait for theirs in vain.
    deps.journal.read(deps.journal.state().tip, 1).await?;
    if let Some((through, bytes)) = deps.journal.restore().await?
        && let Some(image) = Image::read(bytes)
    {
        match from_image(deps, options, &image, through).await {
            Ok(world) => return Ok(world),
            Err(fault) => tracing::warn!(%fault, "the checkpoint is passed over; the whole journal is read"),
        }
    }
    tail(deps, options, World::default(), Lsn(1)).await
}

async fn from_image(deps: &Deps, options: &Options, image: &Image, through: Lsn) -> Result<World, Fault> {
    let mut world = World { table: Table::of(image.tasks()), ..World::default() };
    let (mut awake, mut deadlines) = (Vec::new(), image.deadlines(options.boot).peekable());
    for entry in image.tasks() {
        if entry.flags.is_open() {
            world.census.moved(entry.flags.tenant(), false, true, 0);
        }
        let mut is_lost = entry.flags.has(Flags::TIMER);
        while let Some(deadline) = deadlines.next_if(|deadline| deadline.id <= entry.id) {
            if deadline.id == entry.id && entry.flags.waits_for(deadline.wall_ms) {
                is_lost = false;
                world.deadlines.push(deadline);
            }
        }
        // A deadline that came due while the checkpoint was taken stands in the task alone.
        if (entry.flags.has(Flags::AWAKE) || is_lost) && !entry.flags.is_removed() {
            awake.push(entry);
        }
    }
    image.keys().for_each(|(hash, task)| world.keys.restore(hash, task));
    for entry in awake {
        let slot = load(deps, entry.id, entry.lsn).await?;
        world.wake(slot, deps.clock.now().mono_ms);
    }
    tail(deps, options, world, through.next()).await
}

/// Folds all records from `from` on.
async fn tail(deps: &Deps, options: &Options, mut world: World, mut from: Lsn) -> Result<World, Fault> {
    let (mut bare, mut crowded) = (Bare::default(), options.resting);
    world.newest = Lsn(from.0.saturating_sub(1));
    let mut records = deps.journal.read(from, CHUNK).await?;
    while let Some(last) = records.last() {
        world.newest = last.lsn;
        from = last.lsn.next();
        // The next ones are read while these are folded; polled first, so that the reading begins.
        let (next, folded) = join(deps.journal.read(from, CHUNK), take_all(deps, &mut world, &mut bare, records)).await;
        folded?;
        records = next?;
        // A journal without checkpoint may hold more tasks than memory should.
        if world.resting.len() > crowded {
            rest(&mut world, options);
            // Those without a snapshot stay: looking at them at each chunk would take for ever.
            crowded = options.resting.max(world.resting.len().saturating_mul(2));
        }
    }
    bare.judged()?;
    for slot in world.slots.values_mut().filter(|slot| slot.thin) {
        thicken(deps, slot).await?;
    }
    Ok(world)
}

async fn take_all(deps: &Deps, world: &mut World, bare: &mut Bare, records: Vec<Record>) -> Result<(), Fault> {
    for record in records {
        let task = record.task;
        if let Err(fault) = take(deps, world, bare, record).await {
            bare.take(task, fault)?;
        }
    }
    Ok(())
}

async fn take(deps: &Deps, world: &mut World, bare: &mut Bare, record: Record) -> Result<(), Fault> {
    let Some(task) = record.task else { return Ok(()) };
    if let Some(entry) = world.table.get(task) {
        if record.lsn <= entry.lsn || entry.flags.is_removed() {
            return Ok(());
        }
        let slot = load(deps, task, entry.lsn).await?;
        world.wake(slot, deps.clock.now().mono_ms);
    }
    // A snapshot stands for it already.
    if record.kind != SNAPSHOT && world.slots.get(&task).is_some_and(|slot| record.lsn <= slot.snapshot) {
        return Ok(());
    }
    let Some(placed) = unpack(&*deps.blobs, record).await? else { return Ok(()) };
    bare.look(&placed.event, placed.task);
    fold_one(world, &placed);
    world.used(task, deps.clock.now().mono_ms);
    Ok(())
}

/// Lets tasks leave memory that stand still and have a snapshot; all that is read here is durable.
fn rest(world: &mut World, options: &Options) {
    for _ in 0..world.resting.len() {
        let Some(id) = world.resting.pop_front() else { return };
        let Some(slot) = world.slots.get_mut(&id) else { continue };
        if slot.may_rest() && (!slot.dirty || slot.task.status == Status::Removed) {
            let timer = slot.task.timer.as_ref().map(|timer| Deadline::of(id, timer, options.boot));
            world.deadlines.extend(timer);
            world.evict(id, options.history);
        } else if slot.may_rest() {
            world.resting.push_back(id);
        } else {
            slot.resting = false;
        }
    }
}

/// Records whose blobs are gone. That is right for a task that is removed later, because its blobs go
/// with it, and damage for every other.
#[derive(Default)]
struct Bare {
    missing: BTreeMap<TaskId, Fault>,
    removed: BTreeSet<TaskId>,
}

impl Bare {
    fn take(&mut self, task: Option<TaskId>, fault: Fault) -> Result<(), Fault> {
        match task {
            Some(task) if fault.code.0 == BLOB_MISSING => {
                self.missing.entry(task).or_insert(fault);
                Ok(())
            }
            _ => Err(fault),
        }
    }

    fn look(&mut self, event: &Event, task: TaskId) {
        if matches!(event, Event::Signal(signal) if signal.kind == "remove") {
            self.removed.insert(task);
        }
    }

    fn judged(self) -> Result<(), Fault> {
        let kept = self.missing.into_iter().find(|(task, _)| !self.removed.contains(task));
        kept.map_or(Ok(()), |(_, fault)| Err(fault))
    }
}

/// Ends commands that no task knows, finishes what was half done, and drives what is open.
pub(crate) async fn resume(engine: &Engine) -> Result<(), Fault> {
    reap(engine).await?;
    let inner = &engine.inner;
    let asleep = std::mem::take(&mut inner.lock().deadlines);
    inner.timers().restore(asleep);
    let deadlines: Vec<_> = inner.lock().slots.values().filter_map(|slot| Some((slot.task.id, slot.task.timer.clone()?))).collect();
    deadlines.iter().for_each(|(id, timer)| inner.timers().add(*id, timer, inner.options.boot));
    let tasks: Vec<(TaskId, Status, bool, bool)> = inner
        .lock()
        .slots
        .values()
        .map(|slot| (slot.task.id, slot.task.status.clone(), slot.task.cancelling, slot.task.open_op.is_some()))
        .collect();
    for (id, status, cancelling, half_operated) in tasks {
        match status {
            Status::Removed => engine.forget(id).await,
            Status::Queued | Status::Running | Status::Paused { .. } if cancelling => engine.finish_half_done(id),
            _ if half_operated => engine.finish_half_done(id),
            Status::Queued | Status::Running => engine.kick(id),
            _ => {}
        }
    }
    line_up(engine).await
}

/// Lets the tasks at rest wait for their turns that want to work; all of them before the first begins.
async fn line_up(engine: &Engine) -> Result<(), Fault> {
    let inner = &engine.inner;
    let options = &inner.options;
    let is_limited = options.per_provider > 0 || options.per_host > 0 || options.per_workspace > 0;
    let ready: Vec<Entry> = inner.lock().table.all().filter(|entry| entry.flags.is_ready()).copied().collect();
    let now_ms = inner.deps.clock.now().mono_ms;
    for entry in ready {
        // What it uses stands in the task alone; where nothing is limited nobody asks.
        let claims = if is_limited { claims(&load(&inner.deps, entry.id, entry.lsn).await?.task, options) } else { Vec::new() };
        engine.turns().enter_asleep(entry, &claims, now_ms);
    }
    engine.dispatch();
    Ok(())
}

async fn reap(engine: &Engine) -> Result<(), Fault> {
    let inner = &engine.inner;
    let (mut found, asleep) = {
        let world = inner.lock();
        let found: Vec<RunId> = world.slots.values().flat_map(known).collect();
        let asleep: Vec<_> = world.table.all().filter(|entry| entry.flags.has(Flags::RUNS)).copied().collect();
        (found, asleep)
    };
    for entry in asleep.iter().filter(|entry| !entry.flags.is_removed()) {
        let slot = load(&inner.deps, entry.id, entry.lsn).await?;
        found.extend(known(&slot));
        if !slot.runs.is_empty() {
            inner.lock().asleep_runs.insert(entry.id, slot.runs);
        }
    }
    for (run, text) in inner.deps.runner.sweep(found).await? {
        tracing::warn!(%run, text, "ended a command that no task knows");
        let _held = inner.hold(run.task).await?;
        let event = Event::OrphanReaped(OrphanReaped { run: run.to_string(), text });
        inner.record(run.task, vec![event]).await?.durable().await?;
    }
    Ok(())
}

/// Effects whose outcome may still be found outside: the commands, and the open question to a model.
pub(crate) fn known(slot: &Slot) -> Vec<RunId> {
    let asked = slot.task.open.as_ref().filter(|_| slot.task.is_open()).map(|(_, intent)| intent.seq);
    slot.runs.iter().copied().chain(asked).map(|seq| RunId { task: slot.task.id, seq }).collect()
}
