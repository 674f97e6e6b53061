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

impl Runtime for Engine {
    fn submit(&self, submission: Submission) -> BoxFuture<'_, Result<(TaskId, Lsn), Fault>> {
        async move {
            if submission.goal.trim().is_empty() {
                return Err(Fault::new("TB-TASK-003", exit::USAGE, "the task is empty").hint("tinkerbell run \"what to do\""));
            }
            if let Some(known) = self.repeated(&submission).await? {
                return Ok(known);
            }
            if let Some(fault) = (self.inner.deps.halt)() {
                return Err(fault);
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
        self.look_up(prefix).boxed()
    }

    fn list(&self, query: ListQuery) -> BoxFuture<'_, Result<Listing, Fault>> {
        self.page(query).boxed()
    }

    fn watch(&self, task: Option<TaskId>, after: Lsn) -> BoxStream<'static, Result<Seen, Fault>> {
        crate::watch::watch(self.inner.clone(), task, after)
    }

    fn diff(&self, id: TaskId, from: Option<u32>, to: Option<u32>) -> BoxFuture<'_, Result<Difference, Fault>> {
        async move {
            let task = self.look_up(&id.to_string()).await?.task;
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
        self.inner.room().await;
        let pending = {
            let mut world = self.inner.lock();
            // Looked at again: the same request may have been admitted at the same time.
            if let Some(known) = same(&world, &submission)? {
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
        let _held = self.inner.hold(id).await?.ok_or_else(|| unknown(&id.to_string()))?;
        let gate = self.inner.lock().slots.get(&id).map(|slot| slot.gate.clone()).ok_or_else(|| unknown(&id.to_string()))?;
        let _one_at_a_time = gate.lock().await;
        let operates = matches!(
            command,
            Command::Undo { .. } | Command::Redo | Command::Restore { .. } | Command::Land { .. } | Command::Remove { .. }
        );
        if let Some(fault) = (self.inner.deps.halt)().filter(|_| operates) {
            // Before anything is recorded: the pause for an operation would outlive the halt.
            return Err(fault);
        }
        // What an earlier operation left half done comes first: the next one stands on it.
        self.finish_operation(id).await;
        if matches!(command, Command::Undo { .. } | Command::Redo | Command::Restore { .. }) {
            self.complete_ops(id).await?;
        }
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
        self.inner.room().await;
        let (decided, pending) = {
            let mut world = self.inner.lock();
            let slot = world.slots.get(&id).ok_or_else(|| unknown(&id.to_string()))?;
            if let Command::Answer(given) = command
                && let Some(late) = late(&slot.task, given.id, self.inner.now_ms())
            {
                // Wall time has jumped past the end of the question; the clock of its timer has not.
                drop(self.inner.record_in(&mut world, id, vec![crate::questions::lapse(given.id, "expired")])?);
                drop(world);
                self.kick(id);
                return Err(late);
            }
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

    /// The task that this submission's key stands for already, also when it is not in memory.
    async fn repeated(&self, submission: &Submission) -> Result<Option<(TaskId, Lsn)>, Fault> {
        let known = submission.idempotency_key.as_ref().and_then(|key| self.inner.lock().keys.get(key));
        let Some(id) = known else { return Ok(None) };
        // Held until it is compared.
        let _held = self.inner.hold(id).await?;
        same(&self.inner.lock(), submission)
    }

    /// Puts all operations of a task in memory in their places.
    async fn complete_ops(&self, id: TaskId) -> Result<(), Fault> {
        let found = self.inner.lock().slots.get(&id).map(|slot| (slot.task.clone(), slot.history.clone()));
        let Some((mut task, history)) = found.filter(|(task, _)| task.ops.below() > 0) else { return Ok(()) };
        crate::rest::complete_ops(&self.inner.deps, &mut task, &history).await?;
        let older = task.ops.entries().iter().cloned();
        if let Some(slot) = self.inner.lock().slots.get_mut(&id) {
            let below = slot.task.ops.below();
            slot.task.ops.complete(older.filter(|entry| entry.number <= below).collect());
        }
        Ok(())
    }

    pub(crate) fn is_cancelling(&self, id: TaskId) -> bool {
        self.inner.lock().slots.get(&id).is_some_and(|slot| slot.task.cancelling && slot.task.is_open())
    }
}

/// The task in memory that this submission's key stands for already.
fn same(world: &World, submission: &Submission) -> Result<Option<(TaskId, Lsn)>, Fault> {
    let Some(key) = &submission.idempotency_key else { return Ok(None) };
    let Some(slot) = world.keys.get(key).and_then(|id| world.slots.get(&id)) else { return Ok(None) };
    if slot.task.submitted.idempotency_key.as_ref() != Some(key) || slot.task.status == Status::Removed {
        return Ok(None);
    }
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
        waiver: submission.waiver.clone(),
    }
}

/// The refusal of an answer to a question whose time is over, though nobody has said so yet.
fn late(task: &Task, question: u32, now_ms: u64) -> Option<Fault> {
    let approval = task.approvals.get(&question).filter(|approval| approval.answer.is_none() && approval.has_expired(now_ms))?;
    let what = format!("question {} of task {} has expired", approval.asked.id, task.id.short(8));
    Some(Fault::new("TB-APPROVE-003", exit::FAILED, what).hint("nothing was approved; the task goes on without it, and may ask again"))
}

pub(crate) fn unknown(id: &str) -> Fault {
    Fault::new("TB-TASK-001", exit::USAGE, format!("there is no task `{id}`")).hint("tinkerbell ps -a   lists all tasks")
}
