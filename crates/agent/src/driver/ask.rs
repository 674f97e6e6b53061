//! Ask: renders the request, reserves its ceiling, streams the answer, records it.
//!
//! A provider that is down ends the try, not the task: retryable faults leave the intent open.
//! Invariant: the request is rendered from records up to the intent's `through` and from nothing else.

use super::stage::{Stage, broken};
use crate::context::{Sources, render, tokens};
use futures_util::StreamExt as _;
use std::collections::HashSet;
use std::sync::Arc;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Acted, Intended, LiveDelta, Past, Stall};
use tinkerbell_core::event::{Ask, Observation, Observed, Part, PartKind, Reply};
use tinkerbell_core::model::{Completion, ModelCall, ModelCard, ModelError, ModelEvent, StopReason};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::words::{Lsn, Seq};

/// Times that a request is made smaller because the provider says that it does not fit.
const SHRINKS: u32 = 3;

pub async fn perform(stage: Arc<Stage>, mut intended: Intended, ask: Ask) -> Result<Observed, Stall> {
    let card = stage.card.clone().map_err(broken)?;
    let past = stage.effects.past(Lsn(0)).await?;
    let call = build(&stage, &card, &past, &ask, card.context_tokens).map_err(broken)?;
    let input = tokens(&call).saturating_mul(stage.house.factor(&card.name)) / 1_000;
    intended.hold = card.price.map_or(NanoUsd(0), |price| price.ceiling(input, call.max_output_tokens));
    intended.hold_tokens = input.saturating_add(call.max_output_tokens);
    let seq = intended.seq;
    let asking = Asking { stage: stage.clone(), card, past, ask, seq };
    stage.once(intended, move |_| asking.run(call)).await
}

fn build(stage: &Stage, card: &ModelCard, past: &[Past], ask: &Ask, window: u64) -> Result<ModelCall, Fault> {
    let sources = Sources { task: &stage.task, card, tools: &stage.house.specs, past, ask, stall: stage.options.stall };
    render(&sources, window)
}

struct Asking {
    stage: Arc<Stage>,
    card: ModelCard,
    past: Vec<Past>,
    ask: Ask,
    seq: Seq,
}

impl Asking {
    async fn run(self, mut call: ModelCall) -> Result<Acted, Stall> {
        let started = self.stage.house.deps.clock.now();
        let mut window = self.card.context_tokens;
        for _ in 0..=SHRINKS {
            let estimated = tokens(&call);
            match self.complete(call).await {
                Ok(completion) => {
                    if !completion.estimated {
                        self.stage.house.learn_factor(&self.card.name, estimated, completion.usage.input);
                    }
                    let wall_ms = self.stage.house.deps.clock.now().mono_ms.saturating_sub(started.mono_ms);
                    return Ok(self.acted(completion, wall_ms));
                }
                Err(ModelError::NeedsKey(name)) => return Err(Stall::Key(name)),
                Err(ModelError::Fault(fault)) => return Err(broken(fault)),
                Err(ModelError::TooLong { limit }) => {
                    // Three quarters of what was refused, or what the provider says that it takes.
                    let smaller = estimated.saturating_add(self.ask.max_output_tokens).saturating_mul(3) / 4;
                    window = limit.filter(|limit| *limit < window).unwrap_or(smaller).min(smaller);
                    call = build(&self.stage, &self.card, &self.past, &self.ask, window).map_err(broken)?;
                }
            }
        }
        let message = "the provider refuses the request as too long, also after it was made smaller".to_owned();
        Err(broken(Fault::new("TB-AGENT-003", exit::FAILED, message).hint("set `context_tokens` of the model in the configuration")))
    }

    async fn complete(&self, call: ModelCall) -> Result<Completion, ModelError> {
        let mut stream = self.stage.house.deps.model.complete(call);
        while let Some(event) = stream.next().await {
            match event? {
                ModelEvent::Text(text) => self.stage.live(self.seq, LiveDelta::Text(self.stage.clean(&text))),
                ModelEvent::Reasoning(text) => self.stage.live(self.seq, LiveDelta::Reasoning(self.stage.clean(&text))),
                ModelEvent::Retrying { why, wait } => {
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    self.stage.live(self.seq, LiveDelta::Retrying { why, wait_ms });
                }
                ModelEvent::Done(completion) => return Ok(*completion),
            }
        }
        let fault = Fault::new("TB-AGENT-005", exit::UNAVAILABLE, "the model's stream ended without an answer");
        Err(ModelError::Fault(fault.hint("`tinkerbell resume TASK` asks again").transient()))
    }

    fn acted(&self, mut completion: Completion, wall_ms: u64) -> Acted {
        // A cut answer may end within a call: it is never read as one.
        let whole = completion.stop != StopReason::Length;
        if whole && crate::rescue::rescue(&mut completion.parts) {
            completion.stop = StopReason::Calls;
        }
        let usage = completion.usage;
        let cost = self.card.price.map(|price| price.cost(usage));
        let reply = Reply {
            parts: self.parts(completion.parts),
            made: Some(completion.made),
            input_tokens: usage.input,
            cached_tokens: usage.cached,
            cache_write_tokens: usage.cache_write,
            output_tokens: usage.output,
            estimated: completion.estimated,
            stop: completion.stop.word().to_owned(),
            nano_usd: cost.map(|cost| cost.0),
            wall_ms,
            retries: completion.retries,
        };
        Acted { observation: Observation::Reply(reply), spent: Some((cost.unwrap_or_default(), usage)), op: None }
    }

    /// The parts as they are recorded: without secrets in words, and with an id of its own for each call.
    fn parts(&self, parts: Vec<Part>) -> Vec<Part> {
        let mut seen = HashSet::new();
        let fix = |(index, mut part): (usize, Part)| {
            if part.kind == PartKind::Text as i32 || part.kind == PartKind::Reasoning as i32 {
                part.text = self.stage.clean(&part.text);
            }
            if part.kind == PartKind::Call as i32 && (part.call_id.is_empty() || !seen.insert(part.call_id.clone())) {
                part.call_id = format!("call_{}_{index}", self.seq);
            }
            part
        };
        parts.into_iter().enumerate().map(fix).collect()
    }
}
