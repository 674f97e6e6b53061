//! The engine as the doors see it.
//!
//! Invariant: an answer is given only once what it tells is durable.

use crate::admission::{busy, later};
use crate::engine::{Engine, World, stopping};
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use std::os::unix::ffi::OsStrExt as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::{Event, Paused, Submitted};
use tinkerbell_core::lifecycle::{Decided, Status, Task, decide};
use tinkerbell_core::port::{Command, Difference, ListQuery, Listed, Listing, Runtime, Seen, Submission};
use tinkerbell_core::words::{BlobRef, GitId, Lsn, TaskId};

/// Shortest prefix that names a task, so that a slip of the finger names none.
const PREFIX_DIGITS: usize = 4;

impl Runtime for Engine {
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>> {
        async move {
            if submission.goal.trim().is_empty() {
                return Err(Fault::new("TB-TASK-003", exit::USAGE, "the task is empty").hint("tinkerbell run \"what to do\""));
            }
            if let Some(known) = repeated(&self.inner.lock(), &submission)? {
                return Ok(known);
            }
            let Ok(place) = self.inner.inbox.clone().try_acquire_owned() else { return Err(busy()) };
            let submission = (self.inner.deps.admission)(submission).await?;
            let engine = self.clone();
            self.detached(async move {
                let accepted = engine.accept(submission).await;
                drop(place);
                accepted.map_err(later)
            })
            .await
        }
        .boxed()
    }

    fn command(&self, id: TaskId, command: Command) -> BoxFuture<'_, Result<String, Fault>> {
        let engine = self.clone();
        self.detached(async move { engine.obey(id, command).await }).boxed()
    }

    fn get<'a>(&'a self, prefix: &'a str) -> BoxFuture<'a, Result<Listed, Fault>> {
        async move {
            let world = self.inner.lock();
            find(&world, prefix).map(|task| Listed { digits: digits(&world, task.id), task: self.inner.shown(&task) })
        }
        .boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, Fault>> {
        async move {
            let world = self.inner.lock();
            let kept = || world.slots.values().map(|slot| &slot.task).filter(|task| task.status != Status::Removed);
            let mut tasks: Vec<Task> = kept().filter(|task| !query.open || task.is_open()).cloned().collect();
            tasks.sort_by_key(|task| std::cmp::Reverse(task.last_lsn));
            let (total, open) = (kept().count() as u64, kept().filter(|task| task.is_open()).count() as u64);
            let tasks = tasks
                .into_iter()
                .take(query.limit)
                .map(|task| Listed { digits: digits(&world, task.id), task: self.inner.shown(&task) })
                .collect();
            Ok(Listing { tasks, before: None, total, open })
        }
        .boxed()
    }

    fn watch(&self, task: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
        crate::watch::watch(self.inner.clone(), task, after)
    }

    fn diff(&self, id: TaskId, from: Option<u32>, to: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>> {
        async move {
            let task = self.get(&id.to_string()).await?.task;
            let none = || {
                Fault::new("TB-TASK-006", exit::FAILED, format!("task {} has no workspace to compare", id.short(8)))
                    .hint("wait until it has begun; a removed task has none any more")
            };
            let workspace = task.workspace().ok_or_else(none)?;
            let from = point(&task, from, true)?.ok_or_else(none)?;
            let to = point(&task, to, false)?.ok_or_else(none)?;
            self.inner.deps.canvas.diff(workspace, from, to, true).await
        }
        .boxed()
    }

    fn blob(&self, blob: BlobRef) -> BoxFuture<'_, Result<Bytes, Fault>> {
        self.inner.deps.blobs.get(blob)
    }
}

impl Engine {
    async fn accept(&self, submission: Submission) -> Result<(TaskId, Lsn), Fault> {
        let id = TaskId(self.inner.deps.entropy.id());
        let mut events = vec![Event::Submitted(submitted(&submission))];
        // One append with the submission: what is to begin later never begins at once.
        events.extend(self.later(&submission).map(Event::Paused));
        let pending = {
            let mut world = self.inner.lock();
            // Looked at again: the same request may have been admitted at the same time.
            if let Some(known) = repeated(&world, &submission)? {
                return Ok(known);
            }
            self.admit(&world, submission.uid)?;
            self.inner.record_in(&mut world, id, events)?
        };
        let first = self.inner.lock().slots.get(&id).map(|slot| slot.first);
        let lsn = pending.durable().await?;
        let lsn = first.unwrap_or(lsn);
        self.kick(id);
        Ok((id, lsn))
    }

    async fn obey(&self, id: TaskId, command: Command) -> Result<String, Fault> {
        let gate = self.inner.lock().slots.get(&id).map(|slot| slot.gate.clone()).ok_or_else(|| unknown(&id.to_string()))?;
        let _one_at_a_time = gate.lock().await;
        // What an earlier operation left half done comes first: the next one stands on it.
        self.finish_operation(id).await;
        let decided = self.decided(id, &command).await?;
        if decided.interrupt {
            self.interrupt(id).await;
        }
        let cancelling = matches!(command, Command::Cancel | Command::Remove { .. }) && self.is_cancelling(id);
        if cancelling {
            self.finish_cancel(id).await?;
        }
        let text = if decided.ops.is_empty() { decided.text } else { self.operate(id, decided).await? };
        self.kick(id);
        Ok(text)
    }

    fn admit(&self, world: &World, tenant: u32) -> Result<(), Fault> {
        if world.stopping {
            return Err(stopping());
        }
        let options = &self.inner.options;
        world.census.admit(tenant, options.open, options.per_tenant, self.inner.now_ms())
    }

    /// The pause of a task that is to begin later.
    fn later(&self, submission: &Submission) -> Option<Paused> {
        let until = submission.not_before_ms.map(|at_ms| at_ms.saturating_sub(self.inner.now_ms()));
        let wait_ms = until.max(submission.delay_ms).filter(|wait_ms| *wait_ms > 0)?;
        let timer = Some(self.inner.timer(0, wait_ms));
        Some(Paused { why: "later".into(), text: "begins later".into(), timer, tries: 0 })
    }

    async fn decided(&self, id: TaskId, command: &Command) -> Result<Decided, Fault> {
        let (decided, pending) = {
            let mut world = self.inner.lock();
            let slot = world.slots.get(&id).ok_or_else(|| unknown(&id.to_string()))?;
            let mut decided = decide(&slot.task, command)?;
            if matches!(command, Command::Resume(_)) {
                // A task that is about to pause for what this gives looks again instead.
                world.changes += 1;
            }
            let events = std::mem::take(&mut decided.events);
            let pending = if events.is_empty() { None } else { Some(self.inner.record_in(&mut world, id, events)?) };
            if let Command::Priority(priority) = command {
                self.turns().reprioritise(id, *priority);
            }
            (decided, pending)
        };
        if let Some(pending) = pending {
            pending.durable().await?;
        }
        Ok(decided)
    }

    pub(crate) fn is_cancelling(&self, id: TaskId) -> bool {
        self.inner.lock().slots.get(&id).is_some_and(|slot| slot.task.cancelling && slot.task.is_open())
    }
}

/// The task that this submission's key stands for already.
fn repeated(world: &World, submission: &Submission) -> Result<Option<(TaskId, Lsn)>, Fault> {
    let Some(key) = &submission.idempotency_key else { return Ok(None) };
    let Some(slot) = world.keys.get(key).and_then(|id| world.slots.get(id)) else { return Ok(None) };
    if slot.task.submitted.goal == submission.goal {
        return Ok(Some((slot.task.id, slot.first)));
    }
    Err(Fault::new("TB-TASK-009", exit::USAGE, format!("the key `{key}` was used for another task")).hint("use a new idempotency key"))
}

/// The checkpoint after an operation; without a number, the base or the newest.
fn point(task: &Task, op: Option<u32>, start: bool) -> Result<Option<GitId>, Fault> {
    let base = task.prepared.as_ref().map(|prepared| prepared.checkpoint.as_str());
    let text = match op {
        None if start => base,
        None => task.checkpoint(),
        Some(0) => base,
        Some(number) => {
            let entry = task.ops.entry(number).ok_or_else(|| {
                Fault::new("TB-TASK-006", exit::FAILED, format!("there is no operation {number}")).hint("tinkerbell op log TASK")
            })?;
            Some(entry.done.after.as_str())
        }
    };
    Ok(text.and_then(|text| text.parse().ok()))
}

fn submitted(submission: &Submission) -> Submitted {
    Submitted {
        goal: submission.goal.clone(),
        cwd: submission.cwd.as_os_str().as_bytes().to_vec(),
        model: submission.model.clone(),
        caps: Some(submission.caps.clone()),
        verify: submission.verify.clone(),
        base: submission.base.clone(),
        no_input: submission.no_input,
        idempotency_key: submission.idempotency_key.clone(),
        uid: submission.uid,
        priority: submission.priority.code(),
        host: submission.host.clone(),
    }
}

/// Digits of the id that no other id begins with: more than its neighbours share with it.
fn digits(world: &World, id: TaskId) -> usize {
    use std::ops::Bound::{Excluded, Unbounded};
    let before = world.slots.range(..id).next_back();
    let after = world.slots.range((Excluded(id), Unbounded)).next();
    let shared = before.into_iter().chain(after).map(|(other, _)| ((other.0 ^ id.0).leading_zeros() / 4) as usize).max();
    shared.map_or(1, |shared| shared + 1)
}

fn find(world: &World, prefix: &str) -> Result<Task, Fault> {
    let prefix = prefix.to_ascii_lowercase();
    if prefix.len() < PREFIX_DIGITS {
        return Err(unknown(&prefix).hint(format!("give at least {PREFIX_DIGITS} digits of the id")));
    }
    let kept = world.slots.values().filter(|slot| slot.task.status != Status::Removed);
    let mut hits = kept.filter(|slot| slot.task.id.to_string().starts_with(&prefix));
    match (hits.next(), hits.next()) {
        (Some(slot), None) => Ok(slot.task.clone()),
        (Some(_), Some(_)) => Err(Fault::new("TB-TASK-001", exit::USAGE, format!("more than one task begins with `{prefix}`"))
            .hint("give more digits; `tinkerbell ps -a` shows enough of each")),
        (None, _) => Err(unknown(&prefix)),
    }
}

pub(crate) fn unknown(id: &str) -> Fault {
    Fault::new("TB-TASK-001", exit::USAGE, format!("there is no task `{id}`")).hint("tinkerbell ps -a   lists all tasks")
}
