//! Call: validate, judge, perhaps ask a person, run the tool, checkpoint, record.
//!
//! Whatever goes wrong with a call is a result that the model reads. Invariant: nothing runs that the
//! guard did not allow for these exact bytes, and a refusal is recorded like any other result.

use super::approve;
use super::consent;
use super::grounds;
use super::stage::{Pieces, Stage, broken};
use super::told;
use crate::builtin;
use crate::prompt;
use crate::turn::unit_of;
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;
use std::sync::Arc;
use tinkerbell_core::approval::Approved;
use tinkerbell_core::effect::{Acted, Attempt, EffectClass, Fallback, Intended, LiveDelta, Question, QuestionKind, Stall};
use tinkerbell_core::event::{Call, Observation, Observed, PlanStep, ResultSeen};
use tinkerbell_core::port::{Deed, Grounds, Judgement, Kept, Level, Tool};
use tinkerbell_core::protected::is_protected_file;
use tinkerbell_core::tool::{Sink, ToolCall, ToolContext, ToolOutcome, ToolPlan, ToolStatus, Wrote};
use tinkerbell_core::words::Seq;

/// What is going to become of a call.
pub enum Fate {
    /// A text for the model; nothing runs.
    Tell {
        /// How the call ended.
        status: &'static str,
        /// What the model reads.
        text: String,
        /// The plan, where the call was one.
        plan: Vec<PlanStep>,
    },
    /// The tool runs.
    Run {
        /// The tool.
        tool: Arc<dyn Tool>,
        /// What it said that it would do.
        plan: ToolPlan,
        /// The approval that it needed.
        approved: Option<Approved>,
        /// Why a person would have been asked, where the user wants nobody asked.
        waived: String,
    },
}

impl Fate {
    /// A text and nothing else.
    pub fn tell(status: &'static str, text: impl Into<String>) -> Self {
        Self::Tell { status, text: text.into(), plan: Vec::new() }
    }
}

pub async fn perform(stage: Arc<Stage>, mut intended: Intended, call: Call) -> Result<Observed, Stall> {
    let seq = intended.seq;
    let (acting, asked) = (stage.clone(), call.clone());
    let observed = match fate(&stage, seq, &call).await? {
        Fate::Tell { status, text, plan } => {
            intended.class = EffectClass::Pure;
            stage.once(intended, move |_| async move { tell(&acting, &asked, (status, text, plan)).await }).await?
        }
        Fate::Run { tool, plan, approved, waived } => {
            intended.class = plan.class;
            if plan.command.is_some() {
                intended.used = Some(stage.used().await?);
            }
            let errand = Errand { seq, call: asked, tool, plan, approved };
            let act = move |attempt| async move { run(acting, errand, attempt).await.map(|acted| marked(acted, waived)) };
            stage.once(intended, act).await?
        }
    };
    let_go(&stage, seq, &call, &observed).await;
    Ok(observed)
}

/// Lets the keeper of a command go once its end is on record.
async fn let_go(stage: &Stage, seq: Seq, call: &Call, observed: &Observed) {
    let Some(Observation::Result(result)) = &observed.observation else { return };
    if !matches!(result.status.as_str(), "exited" | "signalled" | "lost") {
        return;
    }
    if let Some(unit) = own(seq, call) {
        stage.release(stage.run(unit)).await;
    }
}

async fn fate(stage: &Stage, seq: Seq, call: &Call) -> Result<Fate, Stall> {
    match call.tool.as_str() {
        "plan" => return Ok(planned(&call.args)),
        "ask" => return question(stage, seq, call).await,
        _ => {}
    }
    let offered = prompt::is_offered(&call.tool, stage.task.prepared.as_ref());
    let Some(tool) = stage.house.tool(&call.tool).filter(|_| offered) else {
        let names: Vec<&str> = stage
            .house
            .specs
            .iter()
            .filter(|spec| prompt::is_offered(spec.name, stage.task.prepared.as_ref()))
            .map(|spec| spec.name)
            .collect();
        return Ok(Fate::tell("failed", format!("there is no tool `{}`; the tools are: {}", call.tool, names.join(", "))));
    };
    if let Err(why) = object(&call.args) {
        return Ok(Fate::tell("failed", format!("{why}; the call was not run. Send it again with the arguments as one JSON object")));
    }
    let plan = tool.plan(&call.args);
    if stage.is_observed(seq).await? {
        // `once` gives the record back; asking a person about what already happened helps nobody.
        return Ok(Fate::Run { tool, plan, approved: None, waived: String::new() });
    }
    judge(stage, seq, call, tool, plan).await
}

async fn judge(stage: &Stage, seq: Seq, call: &Call, tool: Arc<dyn Tool>, plan: ToolPlan) -> Result<Fate, Stall> {
    let commands = plan.command.is_some() || plan.mcp.is_some() || call.tool == "exec_send";
    let level = if commands { stage.house.deps.sandbox.level().await } else { Ok(Level::Full) };
    let tool_call = ToolCall { id: call.call_id.clone(), name: call.tool.clone(), args: call.args.clone() };
    let mut deed = Deed {
        task: stage.task.id,
        call: tool_call,
        plan: plan.clone(),
        level: level.as_ref().ok().copied(),
        workspace: stage.workspace()?,
        grounds: Grounds {
            grants: stage.effects.task().grants(),
            now_ms: stage.house.deps.clock.now().wall_ms,
            is_unasked: stage.is_unasked(),
            ..Grounds::default()
        },
    };
    if stage.house.deps.guard.weighs(&deed) {
        grounds::gather(stage, &mut deed.grounds).await?;
    }
    let judgement = stage.house.deps.guard.judge(&deed);
    if !matches!(judgement, Judgement::Refuse { .. })
        && let Some(answer) = consent::refused(stage, seq, call, tool.as_ref()).await?
    {
        return Ok(Fate::tell("denied", approve::denied(&answer)));
    }
    match judgement {
        Judgement::Allow => Ok(Fate::Run { tool, plan, approved: None, waived: String::new() }),
        Judgement::Waived { why } => Ok(Fate::Run { tool, plan, approved: None, waived: stage.clean(&why) }),
        Judgement::Refuse { why } => {
            let cause = level.err().map_or(String::new(), |fault| format!(": {}", fault.message));
            Ok(Fate::tell("failed", format!("refused by policy: {why}{cause}. This will not change by trying again or differently")))
        }
        asking @ Judgement::Ask { .. } => approve::ask(stage, seq, call, (tool, plan), asking).await,
    }
}

fn object(args: &str) -> Result<(), String> {
    let value: serde_json::Value = serde_json::from_str(args).map_err(|error| format!("the arguments are no valid JSON: {error}"))?;
    if value.is_object() { Ok(()) } else { Err("the arguments must be a JSON object".to_owned()) }
}

fn planned(args: &str) -> Fate {
    match builtin::plan(args) {
        Ok(plan) => Fate::Tell { status: "done", text: "plan recorded".to_owned(), plan },
        Err(why) => Fate::tell("failed", why),
    }
}

async fn question(stage: &Stage, seq: Seq, call: &Call) -> Result<Fate, Stall> {
    let (title, options) = match builtin::ask(&call.args) {
        Ok(asked) => asked,
        Err(why) => return Ok(Fate::tell("failed", why)),
    };
    let digest = digest(&["ask", &title, &options.join("\n")]);
    let title = stage.clean(&title);
    let lasts_ms = stage.options.question_lasts_ms;
    let asked = Question { seq, kind: QuestionKind::Answer, body: title.clone(), title, options, digest, lasts_ms, ..Question::default() };
    let answer = stage.effects.person(asked).await?;
    if answer.expired {
        return Ok(Fate::tell("denied", "Nobody answered in time; decide yourself and say so at the end."));
    }
    Ok(match (answer.yes, answer.text.as_str()) {
        (true, "") => Fate::tell("done", "The user says yes."),
        (true, text) => Fate::tell("done", format!("The user answers: {text}")),
        (false, "") => Fate::tell("denied", "The user declines to answer; decide yourself and say so at the end."),
        (false, text) => Fate::tell("denied", format!("The user declines: {text}")),
    })
}

/// SHA-256 over length-led parts, hexadecimal.
pub fn digest(parts: &[&str]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update(part.len().to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().fold(String::new(), |mut out, byte| {
        // Writing into a string can not fail.
        write!(out, "{byte:02x}").unwrap_or_default();
        out
    })
}

async fn tell(stage: &Stage, call: &Call, (status, text, plan): (&'static str, String, Vec<PlanStep>)) -> Result<Acted, Stall> {
    let (text, _) = stage.cut(&text, None, stage.result_tokens()).await?;
    let first: String = text.lines().next().unwrap_or_default().chars().take(100).collect();
    let summary = if plan.is_empty() { format!("{} → {first}", call.tool) } else { format!("plan of {} steps", plan.len()) };
    let result = ResultSeen { text, status: status.to_owned(), summary, plan, ..ResultSeen::default() };
    Ok(Acted::from(Observation::Result(result)))
}

/// A call that may run.
struct Errand {
    seq: Seq,
    call: Call,
    tool: Arc<dyn Tool>,
    plan: ToolPlan,
    approved: Option<Approved>,
}

async fn run(stage: Arc<Stage>, errand: Errand, attempt: Attempt) -> Result<Acted, Stall> {
    let Errand { seq, call, tool, plan, approved } = errand;
    let shown = stage.pieces(seq, LiveDelta::Output);
    let context = ToolContext { live: live(&shown), approved, ..stage.context(seq, attempt)? };
    if steers(&plan) && attempt == Attempt::First {
        // What is approved is this call, not what a background command did to its neighbours.
        stage.house.deps.canvas.checkpoint(stage.workspace()?, Some(stage.before()?.into())).await.map_err(broken)?;
    }
    let now_ms = stage.house.deps.clock.now().wall_ms;
    let differs = if plan.command.is_none() { approve::compare(&*tool, &context, &call.args, now_ms).await } else { None };
    let outcome = match differs {
        Some(differs) => Ok(differs),
        None => tool.call(context, call.args.clone()).await,
    };
    shown.finish();
    let mut outcome = outcome?;
    if outcome.status == ToolStatus::Lost {
        outcome.text = lost(&stage, seq, (&plan, &call.args), &outcome).await?;
    }
    let mut result = seen(&stage, &outcome).await?;
    if touches(&call, &plan, &outcome) {
        checkpoint(&stage, outcome.wrote, own(seq, &call), &mut result).await?;
    }
    let used = if commands(&call, &plan) { Some(stage.used().await?) } else { None };
    Ok(Acted { used, ..Acted::from(Observation::Result(result)) })
}

/// A result with the question in whose place the user's waiver stood.
fn marked(mut acted: Acted, waived: String) -> Acted {
    if let Observation::Result(result) = &mut acted.observation {
        result.waived = waived;
    }
    acted
}

/// Shows a running call's output to whoever watches, without secrets.
fn live(shown: &Pieces) -> Sink {
    let shown = shown.clone();
    Sink::new(move |piece| shown.show(piece))
}

/// What the model reads of a command whose outcome is unknown. A person decides whether it may run
/// again; it then runs as a new call, because a keeper never starts the same run twice.
async fn lost(stage: &Stage, seq: Seq, (plan, args): (&ToolPlan, &str), outcome: &ToolOutcome) -> Result<String, Stall> {
    let known = outcome.text.trim_end();
    if !matches!(plan.class, EffectClass::Unsafe | EffectClass::Adoptable(Fallback::Unsafe)) {
        return Ok(format!("{known}\nThe outcome of this command is unknown. It may be run again: look at the state first, then decide."));
    }
    let command = plan.command.clone().unwrap_or_else(|| plan.mcp.as_ref().map_or(String::new(), |_| args.to_owned()));
    let digest = digest(&["unknown", &command]);
    let what = plan.mcp.as_ref().map_or_else(|| "this command".to_owned(), |mcp| format!("the call of {}", mcp.name()));
    let title = format!("the outcome of {what} is unknown; may it run again?");
    let lasts_ms = stage.options.question_lasts_ms;
    let (kind, body) = (QuestionKind::Unknown, stage.clean_own(&command));
    let asked = Question { seq, kind, title, body, digest, lasts_ms, ..Question::default() };
    let answer = stage.effects.person(asked).await?;
    let said = if answer.text.is_empty() { String::new() } else { format!(" The user said: {}", answer.text) };
    let next = if answer.expired {
        "Nobody said in time whether it may run again: inspect what it did and go on from there."
    } else if answer.yes {
        "The user allows to run it again: call it again if it is still needed."
    } else {
        "The user does not want it run again: inspect what it did and go on from there."
    };
    Ok(format!("{known}\nThe outcome of this command is unknown. {next}{said}"))
}

async fn seen(stage: &Stage, outcome: &ToolOutcome) -> Result<ResultSeen, Stall> {
    let (status, number) = match outcome.status {
        ToolStatus::Done => ("done", 0),
        ToolStatus::Failed => ("failed", 0),
        ToolStatus::Exited(code) => ("exited", code),
        ToolStatus::Signalled(signal) => ("signalled", signal),
        ToolStatus::Running => ("running", 0),
        ToolStatus::Lost => ("lost", 0),
    };
    let (text, full) = stage.cut(&outcome.text, outcome.full.clone(), stage.result_tokens()).await?;
    Ok(ResultSeen {
        text,
        status: status.to_owned(),
        number,
        full,
        summary: stage.clean(&outcome.summary),
        wall_ms: outcome.wall_ms,
        level: outcome.level.clone().unwrap_or_default(),
        cpu_ms: outcome.used.cpu_ms,
        memory_bytes: outcome.used.memory_bytes,
        processes: outcome.used.processes,
        cause: outcome.cause.clone(),
        network: outcome.traffic.network.clone(),
        connections: outcome.traffic.connections.iter().map(|one| told::connection(stage.guard(), one)).collect(),
        ..ResultSeen::default()
    })
}

/// Whether the tree may differ after the call. Waiting for a command may see what it wrote.
fn touches(call: &Call, plan: &ToolPlan, outcome: &ToolOutcome) -> bool {
    let changes = plan.class != EffectClass::Pure || commands(call, plan);
    changes && outcome.status != ToolStatus::Failed
}

/// Whether the call has to do with a command.
fn commands(call: &Call, plan: &ToolPlan) -> bool {
    plan.command.is_some() || matches!(call.tool.as_str(), "exec_wait" | "exec_send")
}

/// Whether the call writes protected files, which then were approved.
fn steers(plan: &ToolPlan) -> bool {
    plan.writes.iter().any(|path| is_protected_file(path))
}

async fn checkpoint(stage: &Stage, wrote: Vec<Wrote>, own: Option<Seq>, result: &mut ResultSeen) -> Result<(), Stall> {
    let before = stage.before()?;
    // Also at level `full`, whose mounts guard the root's own names only, and after file tools,
    // beside which a command may run in the background: a leave is for what the tool wrote, and for no more.
    let kept = Kept { at: before.clone(), wrote, thorough: false };
    let taken = stage.house.deps.canvas.checkpoint(stage.workspace()?, Some(kept)).await.map_err(broken)?;
    let files = stage.changes(&before, &taken.id).await?;
    result.before = before.to_string();
    // Checkpoints of the same tree may have different ids; only a difference makes an operation.
    result.after = if files.is_empty() { before.to_string() } else { taken.id.to_string() };
    result.files = told::files(stage.guard(), files);
    if !taken.restored.is_empty() {
        let names = told::names(stage.guard(), taken.restored).join(", ");
        result.text.push_str(&format!("\n[protected files cannot be changed by commands and were put back: {names}]"));
    }
    if own.is_some() {
        let in_layer = taken.layers.iter().any(|layer| Some(layer.run) == own);
        result.workspace = if in_layer { "overlay" } else { "direct" }.to_owned();
    }
    // Of other commands only what is new: their own calls tell it whole.
    for layer in taken.layers.iter().filter(|layer| Some(layer.run) == own || layer.is_news) {
        for line in &layer.refused {
            result.text.push_str(&stage.clean(&format!("\n[u{}: {line}]", layer.run)));
        }
    }
    Ok(())
}

/// The command that a call is about, by the effect that started it.
fn own(seq: Seq, call: &Call) -> Option<Seq> {
    match call.tool.as_str() {
        "exec" => Some(seq),
        "exec_wait" | "exec_send" => unit_of(&call.args),
        _ => None,
    }
}
