//! Effects as the scheduler gives them to a runner: intent, act, observation.
//!
//! Invariant: an act starts only after its intent is durable, and an effect with a recorded
//! observation returns that record without acting.

use crate::engine::Inner;
use crate::past::ReadPast;
use crate::questions::{self, Standing};
use crate::slot::Slot;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Act, Acted, Answer, Attempt, Intended, Live, Past, Question, Stall};
use tinkerbell_core::event::{Action, Event, Intent, Observed, Placed, Released, Reserved, Settled, StateSaved};
use tinkerbell_core::lifecycle::{Allowance, OP_SEQ, Task, allowance, check_caps};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::port::{Effects, Room, Seen};
use tinkerbell_core::words::{Lsn, TaskId};

/// The effects of one task under one lease.
pub(crate) struct TaskEffects {
    inner: Arc<Inner>,
    task: TaskId,
    generation: u64,
    /// What was read of the past, so that a step reads only what is new.
    read: tokio::sync::Mutex<ReadPast>,
    /// Events of this lease that the past will want, kept so that it need not wait for the disk.
    fresh: Mutex<BTreeMap<Lsn, Event>>,
}

/// What the journal knows of an effect before it is acted.
enum Known {
    New,
    Intended,
    Observed(Lsn),
}

impl TaskEffects {
    pub(crate) fn new(inner: Arc<Inner>, task: TaskId, generation: u64) -> Arc<Self> {
        Arc::new(Self { inner, task, generation, read: tokio::sync::Mutex::default(), fresh: Mutex::default() })
    }

    /// Refuses to act for a lease that has ended or a task that stands still.
    fn check_lease(&self, slot: &Slot, operation: bool) -> Result<(), Stall> {
        let current = slot.task.generation == self.generation;
        if operation || current { Ok(()) } else { Err(Stall::Stopped) }
    }

    /// Refuses to act while all effects are halted. The kill switch itself is asked, so that no daemon
    /// needs to have been told.
    fn check_halt(&self) -> Result<(), Stall> {
        (self.inner.deps.halt)().map_or(Ok(()), |fault| Err(Stall::Broken(fault)))
    }

    fn known(&self, intended: &Intended) -> Result<Known, Stall> {
        let world = self.inner.lock();
        let slot = world.slots.get(&self.task).ok_or(Stall::Stopped)?;
        self.check_lease(slot, intended.seq > OP_SEQ)?;
        if let Some(lsn) = slot.observed.get(&intended.seq) {
            return Ok(Known::Observed(*lsn));
        }
        let open = if intended.seq > OP_SEQ { &slot.task.open_op } else { &slot.task.open };
        Ok(match open {
            Some((_, intent)) if intent.seq == intended.seq => Known::Intended,
            _ => Known::New,
        })
    }

    async fn recorded(&self, lsn: Lsn) -> Result<Placed, Stall> {
        let missing = || Stall::Broken(Fault::new("TB-SCHED-003", exit::INTERNAL, format!("record {lsn} is missing from the journal")));
        crate::rest::read(&self.inner.deps, lsn).await.map_err(Stall::Broken)?.ok_or_else(missing)
    }

    /// Journals what precedes the act. What was reserved for a try that was cut off still holds, for
    /// its answer may be there already; only when more is needed now, it is replaced.
    async fn announce(&self, intended: &Intended, attempt: Attempt) -> Result<(), Stall> {
        let asks = matches!(intended.action, Action::Ask(_));
        let mut reserves = intended.hold > NanoUsd(0) || intended.hold_tokens > 0;
        let mut events = Vec::new();
        let mut task = self.task();
        if attempt == Attempt::Recover
            && let Some((money, tokens)) = task.held.get(&intended.seq).copied()
        {
            if money >= intended.hold && tokens >= intended.hold_tokens {
                return Ok(());
            }
            task.held.remove(&intended.seq);
            events.push(Event::Released(Released { seq: intended.seq, why: "more is needed than was reserved".into() }));
        }
        if attempt == Attempt::First && intended.seq < OP_SEQ {
            events.push(Event::StateSaved(StateSaved { state: intended.state.to_vec(), seq: intended.seq }));
        }
        if asks || reserves {
            // A cut-off call was counted as a step when it was first intended.
            let counts = asks && attempt == Attempt::First;
            check_caps(&task, self.inner.now_ms(), (intended.hold, intended.hold_tokens), counts).map_err(Stall::Budget)?;
        }
        // A command that was begun goes on under what was left for it then.
        let used = intended.used.filter(|_| attempt == Attempt::First);
        let allowed = used.map(|used| allowance(&task, used)).transpose().map_err(Stall::Budget)?.unwrap_or_default();
        reserves |= allowed != Allowance::default();
        if reserves {
            let (nano_usd, tokens) = (intended.hold.0, intended.hold_tokens);
            let held = Reserved { seq: intended.seq, nano_usd, tokens, cpu_ms: allowed.cpu_ms, disk_bytes: allowed.disk_bytes };
            events.push(Event::Reserved(held));
        }
        if attempt == Attempt::First {
            let action = Some(intended.action.clone());
            let yolo = task.is_unasked(self.inner.now_ms());
            events.push(Event::Intent(Intent { seq: intended.seq, class: intended.class.code(), action, yolo }));
        }
        if events.is_empty() {
            return Ok(());
        }
        // What is under way may end on what room is left; nothing new is begun.
        let room = self.inner.deps.journal.state().room;
        if attempt == Attempt::First && intended.seq < OP_SEQ && room != Room::Ample {
            return Err(Stall::Disk(match room {
                Room::ReadOnly(why) => why,
                _ => "the journal's disk is full".to_owned(),
            }));
        }
        let announced = events.last().cloned();
        let pending = self.inner.record(self.task, events).await.map_err(disk)?;
        if let Some(event @ Event::Intent(_)) = announced.filter(|_| intended.seq < OP_SEQ) {
            self.fresh().insert(pending.last, event);
        }
        pending.durable().await.map_err(disk)?;
        Ok(())
    }

    /// Journals what the act gave. The next intent waits for it to be durable, so this does not.
    async fn conclude(&self, intended: &Intended, acted: Acted) -> Result<Observed, Stall> {
        let observed = Observed { seq: intended.seq, observation: Some(acted.observation) };
        let mut events = vec![Event::Observed(observed.clone())];
        let task = self.task();
        let held = task.held.contains_key(&intended.seq);
        // Totals that are known already need no record of their own.
        let used = acted.used.filter(|used| held || used.cpu_ms > task.cpu_ms || used.disk_bytes != task.disk_bytes);
        match (acted.spent, used) {
            (Some((cost, usage)), _) => events.push(Event::Settled(Settled {
                seq: intended.seq,
                nano_usd: cost.0,
                input_tokens: usage.input,
                cached_tokens: usage.cached,
                output_tokens: usage.output,
                ..Settled::default()
            })),
            (None, Some(used)) => events.push(Event::Settled(Settled {
                seq: intended.seq,
                cpu_ms: Some(used.cpu_ms),
                disk_bytes: Some(used.disk_bytes),
                ..Settled::default()
            })),
            (None, None) if held => events.push(Event::Released(Released { seq: intended.seq, why: "nothing was spent".into() })),
            (None, None) => {}
        }
        events.extend(acted.op.map(Event::OpDone));
        let operation = intended.seq > OP_SEQ;
        let after_first = events.len().saturating_sub(1) as u64;
        let pending = self.inner.record(self.task, events).await.map_err(disk)?;
        if !operation {
            let lsn = Lsn(pending.last.0.saturating_sub(after_first));
            self.fresh().insert(lsn, Event::Observed(observed.clone()));
        }
        if operation {
            // A person waits for an operation, so it must be durable before it is told.
            pending.durable().await.map_err(disk)?;
        }
        Ok(observed)
    }
}

/// A journal that takes nothing more stalls the task instead of losing it.
fn disk(fault: Fault) -> Stall {
    Stall::Disk(fault.message)
}

impl Effects for TaskEffects {
    fn once(&self, intended: Intended, act: Act) -> BoxFuture<'_, Result<Observed, Stall>> {
        async move {
            let attempt = match self.known(&intended)? {
                Known::Observed(lsn) => {
                    let placed = self.recorded(lsn).await?;
                    return match placed.event {
                        Event::Observed(observed) => Ok(observed),
                        other => Err(Stall::Broken(Fault::new(
                            "TB-SCHED-003",
                            exit::INTERNAL,
                            format!("record {lsn} is `{}` where an observation was expected", other.name()),
                        ))),
                    };
                }
                Known::Intended => Attempt::Recover,
                Known::New => Attempt::First,
            };
            // Counted before the look, so that whoever waits for none never misses one.
            let _asking = self.inner.asking(&intended.action);
            if intended.seq <= OP_SEQ && self.inner.lock().still {
                return Err(Stall::Stopped);
            }
            self.check_halt()?;
            self.announce(&intended, attempt).await?;
            // Again, because the disk may have taken its time: nothing begins after a halt.
            self.check_halt()?;
            let acted = act(attempt).await?;
            self.conclude(&intended, acted).await
        }
        .boxed()
    }

    fn past(&self, after: Lsn) -> BoxFuture<'_, Result<Vec<Past>, Stall>> {
        async move {
            let mut read = self.read.lock().await;
            let history = self.inner.lock().slots.get(&self.task).map(|slot| slot.history.clone()).ok_or(Stall::Stopped)?;
            for lsn in read.wanted(&self.inner.deps, &history).await.map_err(Stall::Broken)? {
                let fresh = self.fresh().remove(&lsn);
                let event = match fresh {
                    Some(event) => Some(event),
                    None => self.durable_event(&mut read, lsn).await?,
                };
                read.take(lsn, event);
            }
            Ok(read.after(after))
        }
        .boxed()
    }

    fn person(&self, question: Question) -> BoxFuture<'_, Result<Answer, Stall>> {
        async move {
            let (task, now_ms) = (self.task(), self.inner.now_ms());
            let is_observed = self.inner.lock().slots.get(&self.task).is_some_and(|slot| slot.observed.contains_key(&question.seq));
            let (events, outcome) = match questions::find(&task, &question, (self.generation, is_observed), now_ms) {
                Standing::Answered(answer) => return Ok(answer),
                Standing::Waiting(id) => return Err(Stall::Person(id)),
                Standing::Expired(id) => (vec![questions::lapse(id, "expired")], Ok(Answer { expired: true, ..Answer::default() })),
                Standing::New => {
                    let (id, events) = questions::ask(&task, question, now_ms, self.inner.deps.entropy.id());
                    (events, Err(Stall::Person(id)))
                }
            };
            // A person's word that came meanwhile is looked at instead.
            let unchanged = |now: &Task| now.approvals == task.approvals;
            let Some(pending) = self.inner.record_if(self.task, events, unchanged).await.map_err(disk)? else {
                return Err(Stall::Stopped);
            };
            pending.durable().await.map_err(disk)?;
            outcome
        }
        .boxed()
    }

    fn task(&self) -> Task {
        let world = self.inner.lock();
        match world.slots.get(&self.task) {
            Some(slot) => slot.task.clone(),
            // A lease exists only for a task in memory, and a task that is driven stays there.
            None => Task::new(self.task, Lsn(0), 0, tinkerbell_core::event::Submitted::default()),
        }
    }

    fn live(&self, live: Live) {
        // Nobody watches: that is no error.
        let _nobody = self.inner.seen.send(Seen::Live(live));
    }
}

impl TaskEffects {
    fn fresh(&self) -> MutexGuard<'_, BTreeMap<Lsn, Event>> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn durable_event(&self, read: &mut ReadPast, lsn: Lsn) -> Result<Option<Event>, Stall> {
        let mut durable = self.inner.durable.subscribe();
        if durable.wait_for(|tip| *tip >= lsn).await.is_err() {
            return Err(Stall::Stopped);
        }
        read.event(&self.inner.deps, lsn).await.map_err(Stall::Broken)
    }
}
