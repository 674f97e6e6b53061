//! The user's operations: undo, redo, restore, land, remove.
//!
//! An operation is an effect like any other, so it survives a crash in its middle; the task stands
//! still meanwhile. Invariant: one operation at a time per task.

use crate::effects::TaskEffects;
use crate::engine::Engine;
use bytes::Bytes;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{EffectClass, Intended, Stall};
use tinkerbell_core::event::{Action, Event, Failed, Observation, Observed, Op, Signal};
use tinkerbell_core::lifecycle::{Decided, Task};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::words::{Seq, TaskId};

impl Engine {
    /// Does what was decided, in order; returns a line for people.
    pub(crate) async fn operate(&self, id: TaskId, decided: Decided) -> Result<String, Fault> {
        let mut lines = Vec::new();
        for op in decided.ops {
            let task = self.snapshot(id)?;
            // Commands write to the tree that these operations move or take away.
            if op.kind != "land" {
                self.inner.deps.runner.quiet(id).await?;
            }
            let op = Op { time_s: self.inner.now_ms() / 1_000, cost_micros: task.spent.micros(), ..op };
            lines.push(self.operate_one(task, op).await?);
        }
        lines.extend(Some(decided.text).filter(|text| !text.is_empty()));
        Ok(lines.join("\n"))
    }

    /// Finishes, after a start, what a crash cut off: an operation, or the end of a stopped task.
    /// Nobody else commands the task before that.
    pub(crate) fn finish_half_done(&self, id: TaskId) {
        let Some(gate) = self.inner.lock().slots.get(&id).map(|slot| slot.gate.clone()) else { return };
        // Free: no door is open yet.
        let held = gate.try_lock_owned();
        let engine = self.clone();
        self.inner.drivers.spawn(async move {
            let _one_at_a_time = held;
            engine.finish_operation(id).await;
            if engine.is_cancelling(id)
                && let Err(fault) = engine.finish_cancel(id).await
            {
                tracing::warn!(task = %id, %fault, "a stopped task could not be ended; `tinkerbell stop` tries again");
            }
            engine.kick(id);
        });
    }

    /// Finishes an operation that was cut off; one that fails again is left to the user's next.
    pub(crate) async fn finish_operation(&self, id: TaskId) {
        let Ok(task) = self.snapshot(id) else { return };
        let Some((_, intent)) = task.open_op.clone() else { return };
        if let Some(Action::Op(op)) = intent.action
            && let Err(fault) = self.perform(task, op, intent.seq).await
        {
            tracing::warn!(task = %id, %fault, "an operation that was cut off could not be finished");
        }
    }

    fn snapshot(&self, id: TaskId) -> Result<Task, Fault> {
        let world = self.inner.lock();
        world.slots.get(&id).map(|slot| slot.task.clone()).ok_or_else(|| crate::runtime::unknown(&id.to_string()))
    }

    async fn operate_one(&self, task: Task, op: Op) -> Result<String, Fault> {
        let seq = task.op_seq.saturating_add(1);
        self.perform(task, op, seq).await
    }

    async fn perform(&self, task: Task, op: Op, seq: Seq) -> Result<String, Fault> {
        let (id, kind, open) = (task.id, op.kind.clone(), task.is_open());
        let effects = TaskEffects::new(self.inner.clone(), id, task.generation);
        let intended = Intended {
            seq,
            class: EffectClass::Verifiable,
            action: Action::Op(op.clone()),
            hold: NanoUsd(0),
            hold_tokens: 0,
            used: None,
            state: Bytes::new(),
        };
        let observed = self.inner.deps.runner.operate(task, op, intended, effects).await.map_err(stalled)?;
        let text = outcome(id, &kind, observed)?;
        self.after(id, &kind, &text, open).await?;
        Ok(text)
    }

    /// What follows an operation: the task is removed, or the model is told what was moved.
    async fn after(&self, id: TaskId, kind: &str, text: &str, open: bool) -> Result<(), Fault> {
        let signal = match kind {
            "remove" => Signal { kind: "remove".into(), ..Signal::default() },
            "undo" | "redo" | "restore" if open => {
                Signal { kind: "note".into(), text: format!("The user changed the tree meanwhile: {text}."), caps: None }
            }
            _ => return Ok(()),
        };
        self.inner.record(id, vec![Event::Signal(signal)]).await?.durable().await?;
        if kind == "remove" {
            self.forget(id).await;
        }
        Ok(())
    }

    /// Drops the blobs of a task whose removal is durable. One that fails is tried again at the next
    /// start: the task is gone either way.
    pub(crate) async fn forget(&self, id: TaskId) {
        let Ok(owner) = self.snapshot(id).map(|task| task.owner()) else { return };
        if let Err(fault) = self.inner.deps.blobs.forget(owner).await {
            tracing::warn!(task = %id, %fault, "the blobs of a removed task could not be dropped yet");
        }
    }
}

fn outcome(id: TaskId, kind: &str, observed: Observed) -> Result<String, Fault> {
    match observed.observation {
        Some(Observation::Operated(done)) if done.conflicts.is_empty() => Ok(done.text),
        Some(Observation::Operated(done)) => {
            let names = done.conflicts.join(", ");
            let fault = Fault::new("TB-TASK-007", exit::CONFLICT, format!("nothing was changed: {kind} meets edits of yours in {names}"));
            Err(fault
                .hint("commit or put back your edits of these files, then try again")
                .hint(format!("tinkerbell diff {}   shows the task's change", id.short(8))))
        }
        Some(Observation::Failed(failed)) => Err(from_record(&failed)),
        _ => Err(Fault::new("TB-SCHED-003", exit::INTERNAL, format!("{kind} gave no outcome"))),
    }
}

/// A recorded failure as a fault again. The code's text is the record's; unknown ones keep it in the message.
fn from_record(failed: &Failed) -> Fault {
    let exit = u8::try_from(failed.exit).unwrap_or(exit::FAILED);
    let mut fault = Fault::new("TB-TASK-008", exit, format!("{} ({})", failed.message, failed.code));
    fault.hints.clone_from(&failed.hints);
    fault.retryable = failed.retryable;
    fault
}

fn stalled(stall: Stall) -> Fault {
    match stall {
        Stall::Broken(fault) => fault,
        Stall::Disk(text) => Fault::new("TB-SCHED-004", exit::UNAVAILABLE, format!("the journal takes no records: {text}"))
            .hint("free space on its disk, then run the command again")
            .transient(),
        Stall::Stopped => crate::engine::stopping(),
        other => Fault::new("TB-SCHED-003", exit::INTERNAL, format!("an operation can not wait for {other:?}")),
    }
}
