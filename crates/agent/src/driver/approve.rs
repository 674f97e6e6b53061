//! Approve: what a person is asked before a call, and what the answer allows.
//!
//! The question is bound to what the call would do here and now, looked at again whenever the task comes
//! by. Invariant: a call that needs an approval runs only with one in its hand, and a deed that was denied
//! again and again is not asked for for ever.

use super::call::{Fate, digest as hash};
use super::stage::Stage;
use std::sync::Arc;
use tinkerbell_core::effect::{Answer, Attempt, Question, QuestionKind, Stall};
use tinkerbell_core::event::Call;
use tinkerbell_core::port::{Judgement, Tool};
use tinkerbell_core::tool::{ToolContext, ToolOutcome, ToolPlan};
use tinkerbell_core::words::Seq;

/// Denials of the same deed after which it is not asked for any more, and the task waits for a word.
const MOST_DENIALS: usize = 3;

/// Asks a person for what the guard did not allow by itself.
pub async fn ask(stage: &Stage, seq: Seq, call: &Call, (tool, plan): (Arc<dyn Tool>, ToolPlan), judged: Judgement) -> Result<Fate, Stall> {
    let Judgement::Ask { why, digest, policy, rules, offer } = judged else {
        return Ok(Fate::Run { tool, plan, approved: None, waived: String::new() });
    };
    let now = stage.effects.task();
    if let Some(used) = now.approval_in_use(seq, &digest) {
        // What was begun under an approval is brought to its end under it, also when half of it is done
        // and the files are not as they were.
        return Ok(Fate::Run { tool, plan, approved: used.approved(), waived: String::new() });
    }
    let bound = match tool.bind(&stage.context(seq, Attempt::First)?, &call.args).await {
        Ok(bound) => bound,
        Err(fault) => return Ok(Fate::tell("failed", format!("not run: nobody could approve it, because {}", fault.message))),
    };
    let body = bound.shown.unwrap_or_else(|| body(&call.args, plan.command.as_deref()));
    let title = format!("{}: {why}", call.tool);
    if now.denials(&digest) >= MOST_DENIALS {
        return stuck(stage, seq, (title, body, digest)).await;
    }
    let mut facts = vec![("policy".to_owned(), policy)];
    facts.extend(bound.facts);
    let asked = Question {
        seq,
        kind: QuestionKind::Approval,
        title: title.clone(),
        body: stage.clean_own(&body),
        digest: digest.clone(),
        facts,
        lasts_ms: stage.options.question_lasts_ms,
        rules,
        offer,
        ..Question::default()
    };
    let answer = stage.effects.person(asked).await?;
    if answer.yes {
        return Ok(Fate::Run { tool, plan, approved: answer.approved, waived: String::new() });
    }
    if stage.effects.task().denials(&digest) >= MOST_DENIALS {
        return stuck(stage, seq, (title, body, digest)).await;
    }
    Ok(Fate::tell("denied", denied(&answer)))
}

/// Whether what was approved is still what the call would do; the outcome that says so if not. A command
/// is compared by its keeper, closer to its start.
pub async fn compare(tool: &dyn Tool, context: &ToolContext, args: &str, now_ms: u64) -> Option<ToolOutcome> {
    let approved = context.approved.as_ref().filter(|_| context.attempt == Attempt::First)?;
    let differs = |what: &str| {
        let text = format!("not run: {what}. Call it again if it is still needed: the user is then asked anew");
        Some(ToolOutcome::failed("not run: not as approved", text))
    };
    if now_ms >= approved.expires_ms {
        return differs("its approval has expired");
    }
    match tool.bind(context, args).await {
        Ok(bound) if approved.facts.ends_with(&bound.facts) => None,
        Ok(_) => differs("what it would do is not what was approved"),
        Err(fault) => differs(&fault.message),
    }
}

/// A deed that was denied several times: the task waits for a word on what to do instead.
async fn stuck(stage: &Stage, seq: Seq, (title, body, like): (String, String, String)) -> Result<Fate, Stall> {
    let title = format!("denied {MOST_DENIALS} times, and the task wants it again; what shall it do instead? ({title})");
    let asked = Question {
        seq,
        kind: QuestionKind::Answer,
        title,
        body: stage.clean_own(&body),
        digest: hash(&["stuck", &like]),
        lasts_ms: stage.options.question_lasts_ms,
        ..Question::default()
    };
    let answer = stage.effects.person(asked).await?;
    Ok(Fate::tell("denied", denied(&Answer { yes: false, ..answer })))
}

/// What the model reads of a denial.
pub fn denied(answer: &Answer) -> String {
    const FORBEARANCE: &str = "Do not try to get around it; go on without it, or end and say what is blocked.";
    if answer.expired {
        return format!("Nobody answered in time, so this counts as denied. {FORBEARANCE}");
    }
    let said = if answer.text.is_empty() { String::new() } else { format!(" and said: {}", answer.text) };
    format!("The user denied this{said}. {FORBEARANCE}")
}

/// What a person sees before deciding: the command or the edit, whole.
fn body(args: &str, command: Option<&str>) -> String {
    if let Some(command) = command {
        return command.to_owned();
    }
    let value: serde_json::Value = serde_json::from_str(args).unwrap_or_default();
    let field = |name: &str| value.get(name).and_then(serde_json::Value::as_str);
    let led = |mark: &str, text: &str| text.lines().map(|line| format!("{mark}{line}\n")).collect::<String>();
    if let Some(patch) = field("patch") {
        return patch.to_owned();
    }
    match (field("path"), field("old"), field("new"), field("content")) {
        (Some(path), Some(old), Some(new), _) => format!("{path}\n{}{}", led("-", old), led("+", new)),
        (Some(path), _, _, Some(content)) => format!("{path}\n{}", led("+", content)),
        _ => args.to_owned(),
    }
}
