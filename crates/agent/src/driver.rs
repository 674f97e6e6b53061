//! The driver: acts out what the turn yields, through ports, one effect per step.
//!
//! It decides nothing that the turn could decide. All changes of the world happen inside
//! `Effects::once`. Invariant: dropping a step at any await loses nothing, because the turn's state
//! is recorded with each intent and yields the same intent again.

mod approve;
mod ask;
mod call;
mod commit;
mod consent;
mod finish;
mod gate;
mod grounds;
mod leftover;
mod operate;
mod prepare;
mod stage;
#[cfg(test)]
mod tests;
mod told;
mod verify;

use crate::options::Options;
use crate::turn::{Facts, Turn};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use stage::{Stage, broken};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::coroutine::{Coroutine as _, Wake, Yielded};
use tinkerbell_core::effect::{Intended, Stall};
use tinkerbell_core::event::{Action, Observed, Op};
use tinkerbell_core::lifecycle::{OP_SEQ, Task};
use tinkerbell_core::model::{ModelCard, ToolMode};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::port::{BlobStore, Canvas, Effects, Guard, Landing, Model, Runner, Sandbox, Step, Stepped, Tool};
use tinkerbell_core::tool::ToolSpec;
use tinkerbell_core::words::{RunId, TaskId};
use tinkerbell_secret::Known;

/// The environment for a task's commands, newest first sent by its clients.
pub type EnvOf = Arc<dyn Fn(TaskId) -> Vec<(String, String)> + Send + Sync>;
/// The options in force.
pub type OptionsOf = Arc<dyn Fn() -> Options + Send + Sync>;

/// Smallest answer that is worth asking for, in tokens.
const SMALLEST_ANSWER: u64 = 1_024;

/// What the driver acts through.
#[derive(Clone)]
pub struct Deps {
    /// Models.
    pub model: Arc<dyn Model>,
    /// Tools beside `plan` and `ask`.
    pub tools: Vec<Arc<dyn Tool>>,
    /// The task's tree.
    pub canvas: Arc<dyn Canvas>,
    /// The way to the user's branch.
    pub landing: Arc<dyn Landing>,
    /// Where commands run.
    pub sandbox: Arc<dyn Sandbox>,
    /// Who may do what.
    pub guard: Arc<dyn Guard>,
    /// Where whole outputs are kept.
    pub blobs: Arc<dyn BlobStore>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// The environment for commands.
    pub env: EnvOf,
    /// The options in force.
    pub options: OptionsOf,
    /// What must not be shown, for texts that come in pieces.
    pub known: Arc<Known>,
}

/// Runs turns.
#[derive(Clone)]
pub struct AgentRunner {
    house: Arc<House>,
}

/// What all steps share.
struct House {
    deps: Deps,
    specs: Vec<ToolSpec>,
    /// Real tokens per estimated token and model, in thousandths: learned, never needed for replay.
    factors: Mutex<HashMap<String, u64>>,
}

impl AgentRunner {
    /// A runner over these ports.
    #[must_use]
    pub fn new(mut deps: Deps) -> Self {
        deps.tools.sort_by_key(|tool| rank(tool.spec().name));
        let mut specs: Vec<ToolSpec> = deps.tools.iter().map(|tool| tool.spec()).collect();
        specs.extend([crate::builtin::PLAN, crate::builtin::ASK]);
        specs.sort_by_key(|spec| rank(spec.name));
        Self { house: Arc::new(House { deps, specs, factors: Mutex::default() }) }
    }

    async fn advance(&self, step: Step, effects: Arc<dyn Effects>) -> Result<Stepped, Stall> {
        let house = &self.house;
        let mut turn = match &step.state {
            Some(state) => Turn::load(state).map_err(|error| broken(unreadable(&error.to_string())))?,
            None => Turn::new(),
        };
        let options = (house.deps.options)();
        let card = house.deps.model.card(&step.task.submitted.model);
        let longest = card.as_ref().map_or(SMALLEST_ANSWER, |card| longest_answer(card, &step.task, &options));
        let small = card.as_ref().is_ok_and(|card| card.tools != ToolMode::Native);
        turn.learn(Facts { small, ..Facts::of(&step.task, turn.ops_seen(), longest) });
        let resumed = matches!(step.input.event, Wake::Resumed);
        let (task, fence) = (step.task, step.fence);
        match turn.resume(step.input) {
            Yielded::Done(finished) => {
                let state = Bytes::from(turn.save());
                let finished = finish::complete(house, &task, turn.tree(), finished, &effects).await?;
                Ok(Stepped::Done { state, finished })
            }
            Yielded::Intent { seq, class, action } => {
                let state = Bytes::from(turn.save());
                let tree = turn.tree().to_owned();
                let stage = Stage { house: house.clone(), task, effects, fence, tree, options, card, resumed };
                let intended =
                    Intended { seq, class, action: action.clone(), hold: NanoUsd(0), hold_tokens: 0, used: None, state: state.clone() };
                let observed = perform(Arc::new(stage), intended, action).await?;
                let observation = observed.observation.ok_or_else(|| broken(defect("an effect came back without an observation")))?;
                Ok(Stepped::Again { state, wake: Wake::Observed(observation) })
            }
        }
    }
}

async fn perform(stage: Arc<Stage>, intended: Intended, action: Action) -> Result<Observed, Stall> {
    match action {
        Action::Prepare(_) => prepare::perform(stage, intended).await,
        Action::Ask(ask) => ask::perform(stage, intended, ask).await,
        Action::Call(call) => call::perform(stage, intended, call).await,
        Action::Verify(verify) => verify::perform(stage, intended, verify).await,
        Action::Commit(commit) => commit::perform(stage, intended, commit).await,
        Action::Op(_) => Err(broken(defect("a turn yielded an operation of the user"))),
    }
}

impl Runner for AgentRunner {
    fn step(&self, step: Step, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Stepped, Stall>> {
        Box::pin(self.advance(step, effects))
    }

    fn operate(&self, task: Task, op: Op, intended: Intended, effects: Arc<dyn Effects>) -> BoxFuture<'_, Result<Observed, Stall>> {
        Box::pin(operate::perform(self.house.clone(), task, op, intended, effects))
    }

    fn quiet(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            self.house.deps.model.settle(task, OP_SEQ).await;
            self.house.deps.sandbox.stop(task).await
        })
    }

    fn sweep(&self, known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        Box::pin(async move {
            self.house.deps.model.sweep(known.clone()).await;
            self.house.deps.sandbox.sweep(known).await
        })
    }
}

impl House {
    fn tool(&self, name: &str) -> Option<Arc<dyn Tool>> {
        self.deps.tools.iter().find(|tool| tool.spec().name == name).cloned()
    }

    /// Real tokens per thousand estimated ones.
    fn factor(&self, model: &str) -> u64 {
        self.factors.lock().unwrap_or_else(PoisonError::into_inner).get(model).copied().unwrap_or(1_250)
    }

    /// Learns from a call's usage; held between plain bounds, so that one odd answer breaks nothing.
    fn learn_factor(&self, model: &str, estimated: u64, real: u64) {
        // Never less than was estimated: what is sent may be chosen to teach a low factor, and then a dense
        // request would pass a cap.
        let seen = (real.saturating_mul(1_000) / estimated.max(1)).clamp(1_000, 3_000);
        let margin = seen.saturating_add(seen / 10);
        self.factors.lock().unwrap_or_else(PoisonError::into_inner).insert(model.to_owned(), margin);
    }
}

/// The place of a tool in each request.
fn rank(name: &'static str) -> (usize, &'static str) {
    let place = crate::TOOL_ORDER.iter().position(|known| *known == name);
    (place.unwrap_or(crate::TOOL_ORDER.len()), name)
}

/// Limit of an answer: what model and window allow, and not more than half of the money left buys.
fn longest_answer(card: &ModelCard, task: &Task, options: &Options) -> u64 {
    let window = (card.context_tokens / 4).max(256);
    let longest = card.max_output_tokens.min(options.max_output_tokens).min(window).max(1);
    let price = card.price.map_or(0, |price| price.output_pico);
    let Some(cap) = task.caps.nano_usd.filter(|_| price > 0) else { return longest };
    let left = NanoUsd(cap).minus(task.spent).minus(task.held_total().0);
    longest.min((left.0.saturating_mul(500) / price).max(SMALLEST_ANSWER))
}

fn unreadable(why: &str) -> Fault {
    Fault::new("TB-AGENT-004", exit::INTERNAL, why.to_owned()).hint("the journal is untouched: start the release that wrote it")
}

/// A broken invariant of ours.
fn defect(what: &str) -> Fault {
    tracing::error!(what, "defect");
    Fault::new("TB-AGENT-006", exit::INTERNAL, format!("a defect of ours: {what}"))
        .hint("please report it with `tinkerbell logs TASK --json`")
}
