//! Ask: renders the request, reserves its ceiling, streams the answer, records it.
//!
//! A provider that is down ends the try, not the task: retryable faults leave the intent open. An
//! answer that came while no daemon lived is found under its call's number.
//! Invariant: the request is rendered from records up to the intent's `through` and from nothing else.

use super::stage::{Stage, broken};
use crate::context::{Sources, render, tokens};
use futures_util::StreamExt as _;
use serde_json::Value;
use std::collections::HashSet;
use std::sync::Arc;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Acted, Intended, LiveDelta, Past, Stall};
use tinkerbell_core::event::{Ask, LostTry, Observation, Observed, Part, PartKind, Reply};
use tinkerbell_core::lifecycle::check_caps;
use tinkerbell_core::model::{Completion, Cut, ModelCall, ModelCard, ModelError, ModelEvent, StopReason};
use tinkerbell_core::money::{NanoUsd, Usage};
use tinkerbell_core::text::cap_tokens;
use tinkerbell_core::words::{Lsn, Seq};

/// Times that a request is made smaller because the provider says that it does not fit.
const SHRINKS: u32 = 3;
/// Most requests of one effect: cut-off ones of earlier days are walked over, which costs nothing.
const ATTEMPTS: u32 = 64;
/// Most text of a cut-off try that is recorded, in tokens; the whole of it was shown.
const CUT_TOKENS: u32 = 2_000;

pub async fn perform(stage: Arc<Stage>, mut intended: Intended, ask: Ask) -> Result<Observed, Stall> {
    let card = stage.card.clone().map_err(broken)?;
    let past = stage.effects.past(Lsn(0)).await?;
    let seq = intended.seq;
    let call = build(&stage, &card, &past, &ask, card.context_tokens).map_err(broken)?;
    let input = tokens(&call).saturating_mul(stage.house.factor(&card.name)) / 1_000;
    intended.hold = card.price.map_or(NanoUsd(0), |price| price.ceiling(input, call.max_output_tokens));
    intended.hold_tokens = input.saturating_add(call.max_output_tokens);
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

/// What cut-off requests of the effect have cost.
#[derive(Default)]
struct Lost {
    tries: Vec<LostTry>,
    usage: Usage,
    /// Those that were cut off while we listened.
    new: u32,
}

impl Asking {
    /// Asks until there is an answer. Requests are numbered, and an earlier daemon numbered them the
    /// same: each that it made is found again under its number, answered, refused or cut off.
    async fn run(self, mut call: ModelCall) -> Result<Acted, Stall> {
        let started = self.stage.house.deps.clock.now();
        let mut window = self.card.context_tokens;
        let mut lost = Lost::default();
        let mut shrinks = 0;
        for attempt in 0..ATTEMPTS {
            call.seq = self.seq;
            call.attempt = attempt;
            let estimated = tokens(&call);
            match self.complete(call.clone()).await {
                Ok(completion) => {
                    if !completion.estimated {
                        self.stage.house.learn_factor(&self.card.name, estimated, completion.usage.input);
                    }
                    let wall_ms = self.stage.house.deps.clock.now().mono_ms.saturating_sub(started.mono_ms);
                    return Ok(self.acted(completion, lost, wall_ms));
                }
                Err(ModelError::NeedsKey(name)) => return Err(Stall::Key(name)),
                Err(ModelError::Fault(fault)) => return Err(broken(fault)),
                Err(ModelError::Cut(cut)) => self.again(*cut, &mut lost)?,
                Err(ModelError::TooLong { .. }) if shrinks == SHRINKS => break,
                Err(ModelError::TooLong { limit }) => {
                    shrinks += 1;
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

    /// Notes a request that was cut off. It is made again once; what it cost must fit beside what is
    /// reserved for the new one.
    fn again(&self, cut: Cut, lost: &mut Lost) -> Result<(), Stall> {
        lost.new += u32::from(cut.is_new);
        if lost.new > 1 {
            let fault = Fault::new("TB-ROUTER-021", exit::UNAVAILABLE, format!("the model's answer was cut off twice: {}", cut.why));
            return Err(broken(
                fault.hint("`tinkerbell resume TASK` asks again").hint("`tinkerbell doctor` shows the courier").transient(),
            ));
        }
        lost.usage = lost.usage.plus(cut.usage);
        let cost = self.card.price.map_or(NanoUsd(0), |price| price.cost(lost.usage));
        let now_ms = self.stage.house.deps.clock.now().wall_ms;
        check_caps(&self.stage.effects.task(), now_ms, (cost, lost.usage.total()), false).map_err(Stall::Budget)?;
        let why = format!("{}; it is asked again", cut.why);
        self.stage.live(self.seq, LiveDelta::Retrying { why, wait_ms: 0 });
        lost.tries.push(LostTry {
            why: cut.why,
            input_tokens: cut.usage.input,
            output_tokens: cut.usage.output,
            estimated: cut.estimated,
            text: cap_tokens(&self.stage.clean(&cut.text), CUT_TOKENS).text,
        });
        Ok(())
    }

    async fn complete(&self, call: ModelCall) -> Result<Completion, ModelError> {
        let mut stream = self.stage.house.deps.model.complete(call);
        let (words, thoughts) = (self.stage.pieces(self.seq, LiveDelta::Text), self.stage.pieces(self.seq, LiveDelta::Reasoning));
        while let Some(event) = stream.next().await {
            match event? {
                ModelEvent::Text(text) => {
                    thoughts.finish();
                    words.show(&text);
                }
                ModelEvent::Reasoning(text) => {
                    words.finish();
                    thoughts.show(&text);
                }
                ModelEvent::Retrying { why, wait, .. } => {
                    let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                    self.stage.live(self.seq, LiveDelta::Retrying { why, wait_ms });
                }
                ModelEvent::Done(completion) => {
                    thoughts.finish();
                    words.finish();
                    return Ok(*completion);
                }
            }
        }
        let fault = Fault::new("TB-AGENT-005", exit::UNAVAILABLE, "the model's stream ended without an answer");
        Err(ModelError::Fault(fault.hint("`tinkerbell resume TASK` asks again").transient()))
    }

    fn acted(&self, mut completion: Completion, mut lost: Lost, wall_ms: u64) -> Acted {
        // A cut answer may end within a call: it is never read as one.
        let whole = completion.stop != StopReason::Length;
        if whole && crate::rescue::rescue(&mut completion.parts) {
            completion.stop = StopReason::Calls;
        }
        let usage = completion.usage;
        if completion.lost != Usage::default() {
            lost.usage = lost.usage.plus(completion.lost);
            lost.tries.push(LostTry {
                why: format!("{} failed tries", completion.retries),
                input_tokens: completion.lost.input,
                output_tokens: completion.lost.output,
                ..LostTry::default()
            });
        }
        let cost = self.card.price.map(|price| price.cost(usage).plus(price.cost(lost.usage)));
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
            lost: lost.tries,
        };
        let spent = (cost.unwrap_or_default(), usage.plus(lost.usage));
        Acted { observation: Observation::Reply(reply), spent: Some(spent), op: None, used: None }
    }

    /// The parts as they are recorded: without secrets in words, and with an id of its own for each call.
    fn parts(&self, parts: Vec<Part>) -> Vec<Part> {
        let mut seen = HashSet::new();
        let fix = |(index, mut part): (usize, Part)| {
            // Arguments, too: what is executed is what is recorded. Opaque parts are signed by their maker.
            if part.kind != PartKind::Opaque as i32 {
                part.text = self.stage.clean(&part.text);
                if part.kind == PartKind::Call as i32 {
                    part.text = clean_args(part.text, &|text| self.stage.clean(text));
                }
                part.tool = nameable(self.stage.clean(&part.tool));
                part.call_id = self.stage.clean(&part.call_id);
            }
            if part.kind == PartKind::Call as i32 && (part.call_id.is_empty() || !seen.insert(part.call_id.clone())) {
                part.call_id = format!("call_{}_{index}", self.seq);
            }
            part
        };
        parts.into_iter().enumerate().map(fix).collect()
    }
}

/// Arguments that hold no secret when a tool has read them, either: JSON can write every sign by its number.
fn clean_args(args: String, clean: &dyn Fn(&str) -> String) -> String {
    let hides = args.contains("\\u") || args.contains("\\/");
    let Some(mut value) = hides.then(|| serde_json::from_str(&args).ok()).flatten() else { return args };
    if clean_value(&mut value, clean) { value.to_string() } else { args }
}

/// Cleans every text within a value, names of fields among them; tells whether one was changed.
fn clean_value(value: &mut Value, clean: &dyn Fn(&str) -> String) -> bool {
    let fix = |text: &mut String| {
        let fresh = clean(text);
        let is_other = fresh != *text;
        *text = fresh;
        is_other
    };
    match value {
        Value::String(text) => fix(text),
        Value::Array(all) => all.iter_mut().fold(false, |any, one| clean_value(one, clean) | any),
        Value::Object(fields) => {
            let mut any = false;
            let old = std::mem::take(fields);
            for (mut name, mut inner) in old {
                any |= fix(&mut name) | clean_value(&mut inner, clean);
                fields.insert(name, inner);
            }
            any
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

/// Names of tools go back to providers, which take no brackets and no spaces in them.
fn nameable(tool: String) -> String {
    if tool.contains("[secret ") { tool.replace(['[', ' ', ']'], "_") } else { tool }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_json_hides_is_found() {
        let clean = |text: &str| text.replace("hunter22", "[secret X]");
        let check = |args: &str, wanted: &str| assert_eq!(clean_args(args.to_owned(), &clean), wanted);
        check("{\"cmd\":\"echo \\u0068unter22\"}", "{\"cmd\":\"echo [secret X]\"}");
        check("{\"a\":[{\"hunter\\u00322\":1}]}", "{\"a\":[{\"[secret X]\":1}]}");
        // What holds none stays byte for byte, as does what is no JSON.
        check("{ \"cmd\": \"echo \\u0041\" }", "{ \"cmd\": \"echo \\u0041\" }");
        check("{\\u0068unter22", "{\\u0068unter22");
    }

    #[test]
    fn a_tool_s_name_stays_one() {
        assert_eq!(nameable("[secret MY_KEY]".to_owned()), "_secret_MY_KEY_");
        assert_eq!(nameable("fly to".to_owned()), "fly to");
    }
}
