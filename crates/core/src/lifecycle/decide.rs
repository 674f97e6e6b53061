//! The decision: a command and a task in, events or a refusal out.
//!
//! Pure; the scheduler journals what comes out and then acts. Invariant: a refusal changes nothing
//! and says what to do instead.

use super::{OpMove, Status, Task};
use crate::amount::{bytes, span};
use crate::approval::told;
use crate::code::{Fault, exit};
use crate::event::{ApprovalGiven, Caps, Event, Granted, Op, Paused, Signal};
use crate::money::NanoUsd;
use crate::port::{Command, Given, Used};
use crate::words::Priority;

/// What a command leads to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Decided {
    /// Events to journal at once.
    pub events: Vec<Event>,
    /// Operations to do after that, in order, while the task stands still.
    pub ops: Vec<Op>,
    /// Whether running effects must be left first.
    pub interrupt: bool,
    /// One line for people.
    pub text: String,
}

impl Decided {
    fn say(text: impl Into<String>) -> Self {
        Self { text: text.into(), ..Self::default() }
    }

    fn with(mut self, event: Event) -> Self {
        self.events.push(event);
        self
    }
}

/// Decides what a command does to a task.
///
/// # Errors
/// A [`Fault`] when the task can not take the command as it stands.
pub fn decide(task: &Task, command: &Command) -> Result<Decided, Fault> {
    if task.status == Status::Removed {
        return Err(refuse(task, "was removed", "start a new task with `tinkerbell run`"));
    }
    match command {
        Command::Tell(text) => tell(task, text),
        Command::Pause => pause(task),
        Command::Resume(caps) => resume(task, caps.as_ref()),
        Command::Cancel => cancel(task),
        Command::Priority(priority) => prioritise(task, *priority),
        Command::Answer(given) => answer(task, given),
        Command::Undo { all } => move_ops(task, &task.ops.undo(*all, base(task)?)),
        Command::Redo => move_ops(task, &task.ops.redo()),
        Command::Restore { op } => move_ops(task, &task.ops.restore(*op, base(task)?)),
        Command::Land { branch, message } => land(task, branch.as_deref(), message),
        Command::Remove { force } => remove(task, *force),
    }
}

fn refuse(task: &Task, what: &str, hint: &str) -> Fault {
    Fault::new("TB-TASK-002", exit::FAILED, format!("task {} {what}", task.id.short(8))).hint(hint)
}

fn base(task: &Task) -> Result<&str, Fault> {
    task.prepared
        .as_ref()
        .map(|prepared| prepared.checkpoint.as_str())
        .ok_or_else(|| refuse(task, "has no workspace yet, so there is nothing to move", "wait until it has begun"))
}

fn signal(kind: &str, text: &str) -> Event {
    Event::Signal(Signal { kind: kind.to_owned(), text: text.to_owned(), caps: None })
}

fn paused(why: &str, text: &str) -> Event {
    Event::Paused(Paused { why: why.to_owned(), text: text.to_owned(), ..Paused::default() })
}

fn tell(task: &Task, text: &str) -> Result<Decided, Fault> {
    if text.trim().is_empty() {
        return Err(Fault::new("TB-TASK-003", exit::USAGE, "the message is empty").hint("tinkerbell tell TASK \"what to do\""));
    }
    let line = match task.status {
        Status::Finished => "told; the task goes on",
        Status::Paused { .. } => "told; the task reads it once it goes on (`tinkerbell resume`)",
        _ => "told; the task reads it at its next step",
    };
    Ok(Decided::say(line).with(signal("tell", text)))
}

fn pause(task: &Task) -> Result<Decided, Fault> {
    match &task.status {
        Status::Queued | Status::Running => {
            Ok(Decided { interrupt: true, ..Decided::say("paused") }.with(paused("user", "paused by the user")))
        }
        // What would go on by itself stands still now until somebody lets it go on; a question's
        // deadline is no going on.
        Status::Paused { why, .. } if task.timer.is_some() && why != "person" => {
            Ok(Decided::say("paused").with(paused("user", "paused by the user")))
        }
        Status::Paused { .. } => Ok(Decided::say("already paused")),
        _ => Err(refuse(task, "has ended, so it can not be paused", "`tinkerbell tell` gives it more to do")),
    }
}

fn resume(task: &Task, caps: Option<&Caps>) -> Result<Decided, Fault> {
    let mut decided = Decided::say("resumed");
    if let Some(caps) = caps.filter(|caps| **caps != Caps::default()) {
        let event = Signal { kind: "caps".to_owned(), text: String::new(), caps: Some(caps.clone()) };
        decided.events.push(Event::Signal(event));
    }
    let raised = !decided.events.is_empty();
    match &task.status {
        Status::Finished => Err(refuse(task, "has ended, so it can not be resumed", "`tinkerbell tell` gives it more to do")),
        Status::Queued | Status::Running => {
            decided.text = if raised { "limits changed; it was running already" } else { "already running" }.to_owned();
            Ok(decided)
        }
        Status::Paused { why, text } if why == "budget" && !raised => {
            Err(Fault::new("TB-TASK-004", exit::BUDGET, format!("task {} stands at a limit: {text}", task.id.short(8))).hint(
                "raise it: tinkerbell resume TASK --budget 5usd (or --max-steps, --max-tokens, --max-wall-time, --max-cpu, --max-disk)",
            ))
        }
        Status::Paused { why, .. } if why == "person" && task.waiting_for().is_some() => {
            Err(Fault::new("TB-TASK-005", exit::NEEDS_PERSON, format!("task {} waits for an answer", task.id.short(8)))
                .hint("tinkerbell inbox                 shows the question")
                .hint("tinkerbell approve TASK          or: deny TASK, approve TASK --answer TEXT"))
        }
        _ => Ok(decided.with(signal("unpause", ""))),
    }
}

fn cancel(task: &Task) -> Result<Decided, Fault> {
    match task.status {
        Status::Finished => Ok(Decided::say("it had ended already")),
        _ => Ok(Decided { interrupt: true, ..Decided::say("stopped") }.with(signal("cancel", ""))),
    }
}

fn prioritise(task: &Task, priority: Priority) -> Result<Decided, Fault> {
    let name = priority.name();
    match task.status {
        Status::Finished => Err(refuse(task, "has ended, so its priority means nothing", "`tinkerbell tell` gives it more to do")),
        _ if task.priority == priority => Ok(Decided::say(format!("its priority is {name} already"))),
        _ => Ok(Decided::say(format!("its priority is {name} now")).with(signal("priority", name))),
    }
}

fn answer(task: &Task, given: &Given) -> Result<Decided, Fault> {
    let id = given.id;
    let Some(approval) = task.approvals.get(&id) else {
        return Err(refuse(task, &format!("has no question {id}"), "`tinkerbell inbox` lists what waits for an answer"));
    };
    let asked = &approval.asked;
    if approval.answer.is_some() {
        let what = match approval.lapsed.as_str() {
            "expired" => format!("waits no longer for an answer to question {id}: it has expired"),
            "replaced" => format!("waits no longer for an answer to question {id}: what would happen has changed"),
            _ => format!("had question {id} answered already"),
        };
        return Err(refuse(task, &what, "an answer is used once; nothing was changed"));
    }
    if !given.digest.is_empty() && given.digest != asked.digest {
        return Err(Fault::new(
            "TB-APPROVE-001",
            exit::CONFLICT,
            format!("question {id} of task {} is not the one that was shown", task.id.short(8)),
        )
        .hint("tinkerbell inbox   shows what is asked now; nothing was approved"));
    }
    let line = if given.yes { "approved" } else { "denied" };
    let scope = if given.yes && given.scope != "once" { given.scope.as_str() } else { "" };
    let mut decided = Decided::say(line).with(Event::ApprovalGiven(ApprovalGiven {
        id,
        yes: given.yes,
        text: given.text.clone(),
        uid: given.uid,
        scope: scope.to_owned(),
        digest: given.digest.clone(),
        ..ApprovalGiven::default()
    }));
    if scope.is_empty() {
        return Ok(decided);
    }
    let Some(offer) = asked.offer.clone().filter(|_| matches!(scope, "task" | "project" | "user")) else {
        return Err(Fault::new(
            "TB-APPROVE-002",
            exit::USAGE,
            format!("question {id} of task {} can only be approved once", task.id.short(8)),
        )
        .hint(format!("tinkerbell approve {}/{id}", task.id.short(8))));
    };
    decided.text = format!("approved, and {} for the {scope}", told(&offer.argv, &offer.options));
    let expires_ms = if scope == "task" { 0 } else { offer.expires_ms };
    let granted = Granted { scope: scope.to_owned(), approval: id, uid: given.uid, expires_ms, ..offer };
    Ok(decided.with(Event::Granted(granted)))
}

/// Events that make a running task stand still for a user's operation.
fn standstill(task: &Task) -> (Vec<Event>, bool) {
    match &task.status {
        Status::Queued | Status::Running => (vec![paused("user", "paused for an operation of the user")], true),
        // Nor may it go on by itself in the middle of the operation; a question's deadline waits for it.
        Status::Paused { why, .. } if task.timer.is_some() && why != "person" => {
            (vec![paused("user", "paused for an operation of the user")], false)
        }
        _ => (Vec::new(), false),
    }
}

fn move_ops(task: &Task, step: &OpMove) -> Result<Decided, Fault> {
    match step {
        OpMove::Nothing(why) => Err(Fault::new("TB-TASK-006", exit::FAILED, why.clone()).hint("tinkerbell op log TASK")),
        OpMove::Do(ops) => {
            let (events, interrupt) = standstill(task);
            Ok(Decided { events, ops: ops.clone(), interrupt, text: String::new() })
        }
    }
}

fn land(task: &Task, branch: Option<&str>, message: &str) -> Result<Decided, Fault> {
    base(task)?;
    let subject = if message.trim().is_empty() { task.submitted.goal.as_str() } else { message };
    let op = Op {
        kind: "land".to_owned(),
        target: task.checkpoint().unwrap_or_default().to_owned(),
        branch: branch.unwrap_or_default().to_owned(),
        subject: subject.to_owned(),
        ..Op::default()
    };
    let (events, interrupt) = standstill(task);
    Ok(Decided { events, ops: vec![op], interrupt, text: String::new() })
}

fn remove(task: &Task, force: bool) -> Result<Decided, Fault> {
    if task.is_open() && !force {
        return Err(refuse(task, "has not ended", "stop it first, or: tinkerbell rm --force TASK"));
    }
    let events = if task.is_open() { vec![signal("cancel", "")] } else { Vec::new() };
    let op = Op { kind: "remove".to_owned(), ..Op::default() };
    Ok(Decided { events, ops: vec![op], interrupt: task.is_open(), text: String::new() })
}

/// Whether the task may spend this much more at `now_ms`; the text of a refusal names the limit.
///
/// `asks` says whether the effect is a model call, which alone counts as a step.
///
/// # Errors
/// The limit that would be passed, for people.
pub fn check_caps(task: &Task, now_ms: u64, hold: (NanoUsd, u64), asks: bool) -> Result<(), String> {
    let (held_usd, held_tokens) = task.held_total();
    if let Some(steps) = task.caps.steps.filter(|steps| asks && task.steps >= *steps) {
        return Err(format!("{steps} steps are used up"));
    }
    let tokens = task.usage.total().saturating_add(held_tokens).saturating_add(hold.1);
    if let Some(cap) = task.caps.tokens.filter(|cap| tokens > *cap) {
        return Err(format!("{} of {cap} tokens are used, and the next call may need {}", task.usage.total(), hold.1));
    }
    let money = task.spent.plus(held_usd).plus(hold.0);
    if let Some(cap) = task.caps.nano_usd.map(NanoUsd).filter(|cap| money > *cap) {
        return Err(format!("{} of {cap} are spent, and the next call may cost {}", task.spent, hold.0));
    }
    if let Some(cap) = task.caps.wall_ms.filter(|cap| task.active_at(now_ms) >= *cap) {
        return Err(format!("{} s of working time are used up", cap / 1_000));
    }
    allowance(task, Used { cpu_ms: task.cpu_ms, disk_bytes: task.disk_bytes, ..Used::default() }).map(drop)
}

/// What is left for a command, where the task has such limits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Allowance {
    /// CPU time in milliseconds. Commands that run beside each other share it.
    pub cpu_ms: Option<u64>,
    /// Bytes of disk, shared likewise.
    pub disk_bytes: Option<u64>,
}

/// What is left for a command of the task, whose commands have `used` so much until now; the text of
/// a refusal names the limit and what raises it.
///
/// # Errors
/// The limit that is reached, for people.
pub fn allowance(task: &Task, used: Used) -> Result<Allowance, String> {
    let cpu_ms = used.cpu_ms.max(task.cpu_ms);
    let left = |cap: Option<u64>, used: u64| cap.map(|cap| cap.saturating_sub(used));
    let allowed = Allowance { cpu_ms: left(task.caps.cpu_ms, cpu_ms), disk_bytes: left(task.caps.disk_bytes, used.disk_bytes) };
    if allowed.cpu_ms == Some(0) {
        let cap = span(task.caps.cpu_ms.unwrap_or(0));
        return Err(format!("{} of {cap} of CPU time are used by its commands (raise it: --max-cpu)", span(cpu_ms)));
    }
    if allowed.disk_bytes == Some(0) {
        let cap = bytes(task.caps.disk_bytes.unwrap_or(0));
        return Err(format!("{} of {cap} of disk are taken by its commands (raise it: --max-disk)", bytes(used.disk_bytes)));
    }
    Ok(allowed)
}
