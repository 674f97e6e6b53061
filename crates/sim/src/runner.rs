//! The mind of the workload: a coroutine that yields the effects of a task's plan, one by one.
//!
//! It stands where the agent stands, and acts upon the world only through the port. Invariant: its
//! state alone decides what it yields next, so that a crash at any point repeats nothing by itself.

use crate::acts::Acts;
use crate::peer::checkpoint;
use crate::plan::Deed;
use crate::world::World;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use std::sync::Arc;
use tinkerbell_core::code::Fault;
use tinkerbell_core::coroutine::Wake;
use tinkerbell_core::effect::{Act, Acted, Attempt, EffectClass, Fallback, Intended, Question, QuestionKind, Stall};
use tinkerbell_core::event::{Action, Ask, Call, Finished, Observation, Observed, Op, OpDone, Operated, Prepare};
use tinkerbell_core::lifecycle::{OP_SEQ, Task};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::port::{Effects, Runner, Sandbox, Step, Stepped};
use tinkerbell_core::words::{RunId, Seq, TaskId};

/// What a model call may cost at most, in nano-dollars.
pub const HOLD: u64 = 40;

/// What the coroutine waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pending {
    Prepare,
    /// The deed at this place of the plan.
    Deed(u16),
    /// The unit that an `exec` left running; then the deeds after this place.
    Unit(Seq, u16),
    /// A model call that hears what the user said.
    Hear(u16),
    /// Nothing: all is done.
    Nothing(u16),
}

/// The coroutine's whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Mind {
    seq: Seq,
    pending: Pending,
}

impl Mind {
    const fn new() -> Self {
        Self { seq: 1, pending: Pending::Prepare }
    }

    fn save(self) -> Bytes {
        let (kind, unit, at) = match self.pending {
            Pending::Prepare => (0, 0, 0),
            Pending::Deed(at) => (1, 0, at),
            Pending::Unit(unit, at) => (2, unit, at),
            Pending::Hear(at) => (3, 0, at),
            Pending::Nothing(at) => (4, 0, at),
        };
        let text = format!("{} {kind} {unit} {at}", self.seq);
        Bytes::from(text)
    }

    fn load(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let numbers: Vec<u32> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
        let [seq, kind, unit, at] = *numbers.as_slice() else { return None };
        let at = u16::try_from(at).ok()?;
        let pending = match kind {
            0 => Pending::Prepare,
            1 => Pending::Deed(at),
            2 => Pending::Unit(unit, at),
            3 => Pending::Hear(at),
            4 => Pending::Nothing(at),
            _ => return None,
        };
        Some(Self { seq, pending })
    }

    fn go(&mut self, pending: Pending) {
        self.seq += 1;
        self.pending = pending;
    }

    /// Takes what happened; afterwards `pending` is what comes next.
    fn resume(&mut self, wake: &Wake, deeds: &[Deed], unheard: bool) {
        match wake {
            Wake::Started | Wake::Resumed => {
                if let Pending::Nothing(at) = self.pending
                    && unheard
                {
                    self.go(Pending::Hear(at));
                }
                return;
            }
            Wake::Told => {
                if let Pending::Nothing(at) = self.pending {
                    self.go(Pending::Hear(at));
                }
                return;
            }
            Wake::Observed(observation) => self.observe(observation, deeds),
        }
        if let Pending::Deed(at) = self.pending
            && usize::from(at) >= deeds.len()
        {
            self.seq -= 1;
            self.pending = Pending::Nothing(at);
        }
    }

    fn observe(&mut self, observation: &Observation, deeds: &[Deed]) {
        let running = matches!(observation, Observation::Result(result) if result.status == "running");
        match self.pending {
            Pending::Prepare => self.go(Pending::Deed(0)),
            Pending::Deed(at) if running && matches!(deeds.get(usize::from(at)), Some(Deed::Exec { .. })) => {
                let unit = self.seq;
                self.go(Pending::Unit(unit, at + 1));
            }
            Pending::Deed(at) => self.go(Pending::Deed(at + 1)),
            Pending::Unit(unit, at) if running => self.go(Pending::Unit(unit, at)),
            Pending::Unit(_, at) | Pending::Hear(at) => self.go(Pending::Deed(at)),
            Pending::Nothing(_) => {}
        }
    }
}

/// The runner of one daemon.
pub struct SimRunner {
    /// The world.
    pub world: Arc<World>,
    /// How it acts.
    pub acts: Arc<Acts>,
    /// Where commands run.
    pub sandbox: Arc<dyn Sandbox>,
}

impl SimRunner {
    async fn advance(&self, step: Step, effects: Arc<dyn Effects>) -> Result<Stepped, Stall> {
        let name = self.world.name_of(&step.task);
        let deeds = self.world.plan.task(name).map(|task| task.deeds.clone()).unwrap_or_default();
        let mut mind = step.state.as_deref().and_then(Mind::load).unwrap_or(Mind::new());
        mind.resume(&step.input.event, &deeds, step.task.has_unheard());
        if matches!(mind.pending, Pending::Nothing(_)) {
            self.sandbox.stop(step.task.id).await.map_err(Stall::Broken)?;
            let finished = Finished { status: "unverified".into(), text: "done".into(), ..Finished::default() };
            return Ok(Stepped::Done { state: mind.save(), finished });
        }
        let deed = match mind.pending {
            Pending::Deed(at) => deeds.get(usize::from(at)).copied(),
            _ => None,
        };
        if deed == Some(Deed::Question) {
            effects.person(question(mind.seq)).await?;
        }
        let (class, action) = self.intent(mind, deed, &step, name);
        let holds = matches!(action, Action::Ask(_));
        let intended = Intended {
            seq: mind.seq,
            class,
            action,
            hold: NanoUsd(if holds { HOLD } else { 0 }),
            hold_tokens: 0,
            used: None,
            state: mind.save(),
        };
        let act = self.act(&step, name, mind, deed, effects.clone());
        let observed = effects.once(intended, act).await?;
        let observation = observed.observation.ok_or_else(|| Stall::Broken(Fault::new("TB-BUG-001", 1, "an empty observation")))?;
        Ok(Stepped::Again { state: mind.save(), wake: Wake::Observed(observation) })
    }

    fn intent(&self, mind: Mind, deed: Option<Deed>, step: &Step, name: u64) -> (EffectClass, Action) {
        let call = |tool: &str, args: String| Action::Call(Call { tool: tool.into(), args, ..Call::default() });
        let ask = Action::Ask(Ask { through: step.input.lsn.0, step: mind.seq, ..Ask::default() });
        match (mind.pending, deed) {
            (Pending::Prepare, _) => (EffectClass::Verifiable, Action::Prepare(Prepare {})),
            (Pending::Hear(_), _) | (_, Some(Deed::Ask)) => (EffectClass::Idempotent, ask),
            (Pending::Unit(unit, _), _) => (EffectClass::Pure, call("exec_wait", wait_args(unit))),
            (_, Some(Deed::Exec { .. })) => {
                let args = exec_args(&self.world, deed, (name, mind.seq));
                (EffectClass::Adoptable(Fallback::Unsafe), call("exec", args))
            }
            (_, Some(Deed::Send)) => (EffectClass::Idempotent, call("send", String::new())),
            (_, Some(Deed::Look)) => (EffectClass::Verifiable, call("look", String::new())),
            (_, Some(Deed::Unsafe)) => (EffectClass::Unsafe, call("unsafe", String::new())),
            _ => (EffectClass::Pure, call("pure", String::new())),
        }
    }

    fn act(&self, step: &Step, name: u64, mind: Mind, deed: Option<Deed>, effects: Arc<dyn Effects>) -> Act {
        let (acts, id, fence, seq) = (self.acts.clone(), step.task.id, step.fence, mind.seq);
        let args = match mind.pending {
            Pending::Unit(unit, _) => Some(("exec_wait", wait_args(unit))),
            _ if matches!(deed, Some(Deed::Exec { .. })) => Some(("exec", exec_args(&self.world, deed, (name, seq)))),
            _ => None,
        };
        Box::new(move |attempt: Attempt| {
            async move {
                acts.begin(id, seq).await;
                let acted = match (mind.pending, deed, args) {
                    (Pending::Prepare, ..) => acts.prepare(id).await,
                    (.., Some((tool, args))) => return acts.tool((id, seq), (tool, args), fence, (attempt, effects)).await,
                    (Pending::Hear(_), ..) | (_, Some(Deed::Ask), _) => return acts.ask(id, (name, seq)).await,
                    (_, Some(Deed::Send), _) => return acts.send(id, (name, seq)).await,
                    (_, Some(Deed::Look), _) => acts.look(id, (name, seq), attempt).await,
                    (_, Some(Deed::Unsafe), _) => return acts.unsafe_deed(id, (name, seq), attempt, effects).await,
                    (_, other, _) => acts.pure((name, seq), other == Some(Deed::Pure { big: true })).await,
                };
                Ok(acted)
            }
            .boxed()
        })
    }

    async fn op(&self, task: Task, op: Op, intended: Intended, effects: Arc<dyn Effects>) -> Result<Observed, Stall> {
        let (acts, id, seq) = (self.acts.clone(), task.id, intended.seq);
        let act: Act = Box::new(move |attempt| acts.operate(id, seq, op, attempt).boxed());
        effects.once(intended, act).await
    }
}

/// What an operation gives.
pub fn operated(op: &Op, seq: Seq, before: String) -> Acted {
    let text = format!("{} {} done", op.kind, seq - OP_SEQ);
    let done = OpDone { kind: op.kind.clone(), seq, before, after: op.target.clone(), ops: op.ops.clone(), ..OpDone::default() };
    let op =
        (op.kind != "remove").then(|| OpDone { commit: if op.kind == "land" { checkpoint(seq.into()) } else { String::new() }, ..done });
    Acted { observation: Observation::Operated(Operated { text, ..Operated::default() }), spent: None, op, used: None }
}

fn question(seq: Seq) -> Question {
    Question {
        seq,
        kind: QuestionKind::Answer,
        title: "which way".into(),
        body: "which way".into(),
        digest: format!("q{seq}"),
        ..Question::default()
    }
}

fn wait_args(unit: Seq) -> String {
    format!(r#"{{"unit":"u{unit}","timeout_ms":120000}}"#)
}

fn exec_args(world: &World, deed: Option<Deed>, name: (u64, Seq)) -> String {
    let Some(Deed::Exec { ms, lines, yield_ms }) = deed else { return String::new() };
    let order = world.order(name, ms, lines);
    format!(r#"{{"cmd":"{}","yield_ms":{yield_ms}}}"#, order.text())
}

impl Runner for SimRunner {
    fn step(&self, step: Step, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Stepped, Stall>> {
        self.advance(step, effects).boxed()
    }

    fn operate(&self, task: Task, op: Op, intended: Intended, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Observed, Stall>> {
        self.op(task, op, intended, effects).boxed()
    }

    fn quiet(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        self.sandbox.stop(task)
    }

    fn sweep(&self, known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        self.sandbox.sweep(known)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mind_survives_its_bytes() {
        for pending in [Pending::Prepare, Pending::Deed(3), Pending::Unit(7, 2), Pending::Hear(1), Pending::Nothing(9)] {
            let mind = Mind { seq: 12, pending };
            assert_eq!(Mind::load(&mind.save()), Some(mind));
        }
    }
}
