//! From the house's own words to the public JSON.
//!
//! Pure. What one record alone does not say (which tool an outcome belongs to, what the task has
//! cost) comes from [`Facts`]. Invariant: the same journal gives the same published events, from
//! whatever number a reader starts.

use super::event::{
    ApprovalRequested, ApprovalResolved, Body, Caps, Connection, Delta, Envelope, Fact, FileChange, Granted, Halt, ItemCompleted, ItemKind,
    ItemStarted, ItemUpdated, Offer, Operation, PlanStep, PlanUpdated, ResultBody, ResultError, TaskStarted, ToolUse, Usage, YoloView,
};
use super::view::{OpView, PausedView, TaskView};
use std::collections::BTreeMap;
use tinkerbell_core::code::exit;
use tinkerbell_core::effect::{Live, LiveDelta, QuestionKind};
use tinkerbell_core::event::{self, Action, Event, Observation, PartKind, Placed};
use tinkerbell_core::lifecycle::{OpEntry, Status, Task};
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::words::{BlobRef, TaskId};

/// What a task's earlier records say that later published events need.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Facts {
    /// Kind and tool of the items that have begun and not ended.
    items: BTreeMap<u32, (ItemKind, Option<String>)>,
    usage: Usage,
    spent: NanoUsd,
    is_cost_unknown: bool,
}

impl Facts {
    /// Takes in one record, in journal order.
    pub fn absorb(&mut self, event: &Event) {
        match event {
            Event::Intent(intent) => {
                if let Some(item) = item_started(intent) {
                    self.items.insert(intent.seq, (item.kind, item.tool));
                }
            }
            Event::Observed(observed) => {
                self.items.remove(&observed.seq);
                if let Some(Observation::Reply(reply)) = &observed.observation {
                    self.is_cost_unknown |= reply.nano_usd.is_none();
                }
            }
            Event::Settled(settled) => {
                self.spent = self.spent.plus(NanoUsd(settled.nano_usd));
                self.usage.input_tokens = self.usage.input_tokens.saturating_add(settled.input_tokens);
                self.usage.cached_tokens = self.usage.cached_tokens.saturating_add(settled.cached_tokens);
                self.usage.output_tokens = self.usage.output_tokens.saturating_add(settled.output_tokens);
            }
            _ => {}
        }
    }

    fn item(&self, seq: u32) -> (ItemKind, Option<String>) {
        self.items.get(&seq).cloned().unwrap_or((ItemKind::ToolCall, None))
    }

    /// Whether publishing this event needs facts at all.
    #[must_use]
    pub const fn needed_by(event: &Event) -> bool {
        match event {
            Event::Finished(_) => true,
            Event::Observed(observed) => matches!(observed.observation, Some(Observation::Result(_) | Observation::Failed(_))),
            _ => false,
        }
    }
}

/// The published event of a record; `None` for records without a public face.
#[must_use]
pub fn envelope(placed: &Placed, facts: &Facts) -> Option<Envelope> {
    let body = body(placed, facts)?;
    let time = timestamp(placed.at_ms);
    Some(Envelope { v: super::VERSION, lsn: Some(placed.lsn.0), time, task: placed.task.to_string(), body })
}

/// Progress as a published event without a number.
#[must_use]
pub fn live(live: &Live, now_ms: u64) -> Envelope {
    let (delta, text, wait_ms) = match &live.delta {
        LiveDelta::Text(text) => (Delta::Text, text.clone(), None),
        LiveDelta::Reasoning(text) => (Delta::Reasoning, text.clone(), None),
        LiveDelta::Output(text) => (Delta::Output, text.clone(), None),
        LiveDelta::Retrying { why, wait_ms } => (Delta::Retrying, why.clone(), Some(*wait_ms)),
    };
    let body = Body::ItemUpdated(ItemUpdated { item: live.seq, delta, text, wait_ms });
    Envelope { v: super::VERSION, lsn: None, time: timestamp(now_ms), task: live.task.to_string(), body }
}

/// Milliseconds since the epoch as RFC 3339.
#[must_use]
pub fn timestamp(at_ms: u64) -> String {
    let stamp = i64::try_from(at_ms).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok()).unwrap_or_default();
    stamp.strftime("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()
}

/// RFC 3339 as milliseconds since the epoch; `None` when it is none, or lies before it.
#[must_use]
pub fn millis(text: &str) -> Option<u64> {
    let stamp: jiff::Timestamp = text.trim().parse().ok()?;
    u64::try_from(stamp.as_millisecond()).ok()
}

fn body(placed: &Placed, facts: &Facts) -> Option<Body> {
    Some(match &placed.event {
        Event::Submitted(submitted) => Body::TaskStarted(task_started(submitted)),
        Event::Intent(intent) => Body::ItemStarted(Box::new(item_started(intent)?)),
        Event::Observed(observed) => observation(observed.seq, observed.observation.as_ref()?, facts)?,
        Event::ApprovalAsked(asked) => Body::ApprovalRequested(question(asked)),
        Event::Granted(granted) => {
            Body::ApprovalGranted(Granted { offer: offer(granted), scope: granted.scope.clone(), approval: granted.approval })
        }
        Event::ApprovalGiven(given) => {
            let (lapsed, scope) = (filled(&given.lapsed), filled(&given.scope));
            Body::ApprovalResolved(ApprovalResolved { id: given.id, approved: given.yes, text: given.text.clone(), lapsed, scope })
        }
        Event::OpDone(done) => Body::Operation(operation(done)),
        Event::Paused(paused) => {
            let until = paused.timer.as_ref().map(|timer| timestamp(timer.due_wall_ms));
            let halt = Halt { why: paused.why.clone(), text: paused.text.clone(), until };
            if halt.why == "budget" { Body::BudgetPaused(halt) } else { Body::TaskPaused(halt) }
        }
        Event::Finished(finished) => Body::Result(Box::new(result(placed.task, finished, facts))),
        Event::Signal(signal) if signal.kind == "tell" => Body::ItemCompleted(Box::new(ItemCompleted {
            role: Some("user".to_owned()),
            text: signal.text.clone(),
            ..blank(ItemKind::Message)
        })),
        _ => return None,
    })
}

fn task_started(submitted: &event::Submitted) -> TaskStarted {
    TaskStarted {
        goal: submitted.goal.clone(),
        cwd: String::from_utf8_lossy(&submitted.cwd).into_owned(),
        model: submitted.model.clone(),
        caps: submitted.caps.as_ref().map(caps).unwrap_or_default(),
        verify: submitted.verify.clone(),
        base: submitted.base.clone(),
        no_input: submitted.no_input,
        yolo: yolo(submitted),
    }
}

fn yolo(submitted: &event::Submitted) -> Option<YoloView> {
    let waiver = submitted.waiver.as_ref()?;
    let (reason, source) = (waiver.reason.clone(), waiver.source.clone());
    Some(YoloView { owner: waiver.owner, reason, source, until: timestamp(waiver.until_ms) })
}

fn caps(caps: &event::Caps) -> Caps {
    Caps {
        cost_micros: caps.nano_usd.map(|n| NanoUsd(n).micros()),
        steps: caps.steps,
        tokens: caps.tokens,
        wall_ms: caps.wall_ms,
        cpu_ms: caps.cpu_ms,
        disk_bytes: caps.disk_bytes,
        processes: caps.processes,
        memory_bytes: caps.memory_bytes,
    }
}

fn item_started(intent: &event::Intent) -> Option<ItemStarted> {
    let mut item = ItemStarted {
        item: intent.seq,
        kind: ItemKind::ToolCall,
        title: String::new(),
        step: None,
        tool: None,
        args: None,
        command: None,
        yolo: intent.yolo,
    };
    match intent.action.as_ref()? {
        Action::Prepare(_) => (item.kind, item.title) = (ItemKind::Workspace, "make the workspace".to_owned()),
        Action::Ask(ask) => {
            (item.kind, item.title) = (ItemKind::Message, format!("ask the model (step {})", ask.step));
            item.step = Some(ask.step);
        }
        Action::Call(call) => {
            item.kind = tool_kind(&call.tool);
            item.command = command_of(&call.tool, &call.args);
            item.title = item.command.as_ref().map_or_else(|| call_title(call), |command| format!("{} {command}", call.tool));
            item.step = Some(call.step);
            item.tool = Some(call.tool.clone());
            item.args = Some(call.args.clone());
        }
        Action::Verify(verify) => {
            (item.kind, item.title) = (ItemKind::Verification, format!("verify {}", verify.command));
            item.command = Some(verify.command.clone());
        }
        Action::Commit(commit) => (item.kind, item.title) = (ItemKind::Commit, commit.subject.clone()),
        Action::Op(op) => (item.kind, item.title) = (ItemKind::Operation, op.kind.clone()),
    }
    Some(item)
}

fn tool_kind(tool: &str) -> ItemKind {
    match tool {
        "exec" | "exec_send" | "exec_wait" => ItemKind::Command,
        "apply_patch" | "edit" | "write" => ItemKind::FileChange,
        _ => ItemKind::ToolCall,
    }
}

fn string_arg(args: &str, name: &str) -> Option<String> {
    let value: serde_json::Value = serde_json::from_str(args).ok()?;
    value.get(name)?.as_str().map(str::to_owned)
}

fn command_of(tool: &str, args: &str) -> Option<String> {
    if tool == "exec" { string_arg(args, "cmd") } else { None }
}

/// The tool with the one argument that tells most.
fn call_title(call: &event::Call) -> String {
    let named = ["path", "pattern", "unit", "question"].iter().find_map(|name| string_arg(&call.args, name));
    named.map_or_else(|| call.tool.clone(), |named| format!("{} {named}", call.tool))
}

fn blank(kind: ItemKind) -> ItemCompleted {
    ItemCompleted {
        item: None,
        kind,
        status: "done".to_owned(),
        ok: true,
        summary: String::new(),
        text: String::new(),
        role: None,
        reasoning: String::new(),
        calls: Vec::new(),
        model: None,
        usage: None,
        cost_micros: None,
        retries: 0,
        tool: None,
        exit_code: None,
        signal: None,
        wall_ms: None,
        level: None,
        network: None,
        connections: Vec::new(),
        files: Vec::new(),
        full: None,
        commit: None,
        notes: Vec::new(),
        code: None,
        waived: None,
    }
}

fn observation(seq: u32, observation: &Observation, facts: &Facts) -> Option<Body> {
    let mut item = match observation {
        Observation::Prepared(prepared) => prepared_item(prepared),
        Observation::Reply(reply) => reply_item(reply),
        Observation::Result(result) if !result.plan.is_empty() => {
            return Some(Body::PlanUpdated(PlanUpdated { item: seq, steps: plan(&result.plan) }));
        }
        Observation::Result(result) => result_item(seq, result, facts),
        Observation::Verdict(verdict) => verdict_item(verdict),
        Observation::Committed(committed) => ItemCompleted { commit: filled(&committed.commit), ..blank(ItemKind::Commit) },
        Observation::Operated(operated) => operated_item(operated),
        Observation::Failed(failed) => failed_item(seq, failed, facts),
    };
    item.item = Some(seq);
    Some(Body::ItemCompleted(Box::new(item)))
}

fn prepared_item(prepared: &event::Prepared) -> ItemCompleted {
    let branch = prepared.branch.strip_prefix("refs/heads/").unwrap_or(&prepared.branch);
    ItemCompleted {
        summary: format!("workspace on branch {branch}"),
        level: filled(&prepared.level),
        notes: prepared.notes.clone(),
        ..blank(ItemKind::Workspace)
    }
}

fn reply_item(reply: &event::Reply) -> ItemCompleted {
    let mut item = blank(ItemKind::Message);
    for part in &reply.parts {
        match part.kind() {
            PartKind::Text => item.text.push_str(&part.text),
            PartKind::Reasoning => item.reasoning.push_str(&part.text),
            PartKind::Call => {
                item.calls.push(ToolUse { id: part.call_id.clone(), tool: part.tool.clone(), args: part.text.clone() });
            }
            PartKind::Opaque => {}
        }
    }
    item.role = Some("model".to_owned());
    item.model = reply.made.as_ref().and_then(|made| filled(&made.served));
    item.usage = Some(Usage { input_tokens: reply.input_tokens, cached_tokens: reply.cached_tokens, output_tokens: reply.output_tokens });
    item.cost_micros = reply.nano_usd.map(|n| NanoUsd(n).micros());
    item.retries = reply.retries;
    item.notes = reply.lost.iter().map(lost_note).collect();
    item.wall_ms = Some(reply.wall_ms);
    item
}

/// A try that was paid in vain, in one line, with what it had said.
fn lost_note(lost: &event::LostTry) -> String {
    let about = if lost.estimated { "about " } else { "" };
    let tokens = lost.input_tokens.saturating_add(lost.output_tokens);
    let mut note = format!("paid without an answer, {about}{tokens} tokens: {}", lost.why);
    if !lost.text.is_empty() {
        note.push_str(&format!("; it had said: {}", lost.text));
    }
    note
}

fn result_item(seq: u32, result: &event::ResultSeen, facts: &Facts) -> ItemCompleted {
    let (kind, tool) = facts.item(seq);
    let mut item = blank(kind);
    item.status.clone_from(&result.status);
    item.ok = matches!(result.status.as_str(), "done" | "running") || (result.status == "exited" && result.number == 0);
    item.summary.clone_from(&result.summary);
    item.text.clone_from(&result.text);
    item.tool = tool;
    item.exit_code = (result.status == "exited").then_some(result.number);
    item.signal = (result.status == "signalled").then_some(result.number);
    item.wall_ms = Some(result.wall_ms);
    item.level = filled(&result.level);
    item.network = filled(&result.network);
    item.connections = connections(&result.connections);
    item.files = files(&result.files);
    item.full = BlobRef::from_bytes(&result.full).map(|blob| blob.to_string());
    item.waived = filled(&result.waived);
    item
}

fn connections(all: &[event::Connection]) -> Vec<Connection> {
    let shown = |one: &event::Connection| Connection {
        at_ms: one.at_ms,
        scheme: one.scheme.clone(),
        host: one.host.clone(),
        port: one.port,
        address: one.address.clone(),
        allowed: one.allowed,
        why: one.why.clone(),
        methods: one.methods.clone(),
        up_bytes: one.up_bytes,
        down_bytes: one.down_bytes,
        open_ms: one.open_ms,
        count: one.count,
    };
    all.iter().map(shown).collect()
}

fn verdict_item(verdict: &event::Verdict) -> ItemCompleted {
    ItemCompleted {
        status: if verdict.passed { "done" } else { "failed" }.to_owned(),
        ok: verdict.passed,
        summary: if verdict.passed { "verification passed" } else { "verification failed" }.to_owned(),
        text: verdict.text.clone(),
        exit_code: (verdict.exit >= 0).then_some(verdict.exit),
        signal: (verdict.exit < 0).then(|| verdict.exit.saturating_neg()),
        wall_ms: Some(verdict.wall_ms),
        network: filled(&verdict.network),
        connections: connections(&verdict.connections),
        full: BlobRef::from_bytes(&verdict.full).map(|blob| blob.to_string()),
        notes: verdict.restored.iter().map(|path| format!("put back: {path}")).collect(),
        ..blank(ItemKind::Verification)
    }
}

fn operated_item(operated: &event::Operated) -> ItemCompleted {
    let ok = operated.conflicts.is_empty();
    ItemCompleted {
        status: if ok { "done" } else { "failed" }.to_owned(),
        ok,
        summary: operated.text.clone(),
        commit: filled(&operated.commit),
        notes: operated.conflicts.iter().map(|path| format!("conflict: {path}")).collect(),
        ..blank(ItemKind::Operation)
    }
}

fn failed_item(seq: u32, failed: &event::Failed, facts: &Facts) -> ItemCompleted {
    let (kind, tool) = facts.item(seq);
    ItemCompleted {
        status: "failed".to_owned(),
        ok: false,
        summary: failed.message.clone(),
        code: filled(&failed.code),
        notes: failed.hints.clone(),
        tool,
        ..blank(kind)
    }
}

fn operation(done: &event::OpDone) -> Operation {
    Operation {
        kind: done.kind.clone(),
        item: done.seq,
        summary: done.summary.clone(),
        files: files(&done.files),
        commit: filled(&done.commit),
        ops: done.ops.clone(),
        reference: filled(&done.reference),
    }
}

fn question(asked: &event::ApprovalAsked) -> ApprovalRequested {
    let kind = match QuestionKind::from_code(asked.kind) {
        QuestionKind::Approval => "approval",
        QuestionKind::Answer => "answer",
        QuestionKind::Unknown => "unknown",
    };
    ApprovalRequested {
        id: asked.id,
        item: asked.seq,
        kind: kind.to_owned(),
        title: asked.title.clone(),
        body: asked.body.clone(),
        options: asked.options.clone(),
        digest: asked.digest.clone(),
        like: asked.like.clone(),
        expires: (asked.expires_ms > 0).then(|| timestamp(asked.expires_ms)),
        facts: asked.facts.iter().map(|fact| Fact { name: fact.name.clone(), value: fact.value.clone() }).collect(),
        rules: asked.rules.clone(),
        offer: asked.offer.as_ref().map(offer),
        marks: marks([asked.title.as_str(), &asked.body].into_iter().chain(asked.options.iter().map(String::as_str))),
    }
}

fn marks<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<String> {
    tinkerbell_core::marks::marks(&texts.collect::<Vec<_>>().join("\n"))
}

fn offer(granted: &event::Granted) -> Offer {
    Offer {
        id: granted.id.clone(),
        argv: granted.argv.clone(),
        options: granted.options.clone(),
        example: granted.example.clone(),
        expires: if granted.expires_ms == 0 { String::new() } else { timestamp(granted.expires_ms) },
    }
}

/// The result; where the record's own words disagree, failure wins.
fn result(task: TaskId, finished: &event::Finished, facts: &Facts) -> ResultBody {
    let is_success = matches!(finished.status.as_str(), "verified" | "unverified") && finished.exit == 0 && finished.code.is_empty();
    let status = match finished.status.as_str() {
        "verified" | "unverified" if !is_success => "failed",
        other => other,
    };
    let exit_code = u8::try_from(finished.exit).unwrap_or(exit::INTERNAL);
    let fallback = match status {
        "gate-failed" => exit::GATE,
        "cancelled" => exit::CANCELLED,
        _ => exit::FAILED,
    };
    let message = || if finished.text.is_empty() { status.to_owned() } else { finished.text.clone() };
    ResultBody {
        status: status.to_owned(),
        exit_code: if !is_success && exit_code == exit::DONE { fallback } else { exit_code },
        text: finished.text.clone(),
        cost_micros: (!facts.is_cost_unknown).then(|| facts.spent.micros()),
        usage: facts.usage,
        files_changed: files(&finished.files),
        commits: finished.commits,
        connections: connections(&finished.connections),
        undo_token: (!finished.files.is_empty()).then(|| task.to_string()),
        error: (!is_success).then(|| ResultError { code: filled(&finished.code), message: message(), hints: finished.hints.clone() }),
    }
}

/// A task as the resources show it; `short` is its shortest unique prefix.
#[must_use]
pub fn task_view(task: &Task, short: String) -> TaskView {
    let facts = Facts {
        items: BTreeMap::new(),
        usage: Usage { input_tokens: task.usage.input, cached_tokens: task.usage.cached, output_tokens: task.usage.output },
        spent: task.spent,
        is_cost_unknown: task.cost_unknown,
    };
    let place = task.workspace();
    let prepared = task.prepared.as_ref();
    TaskView {
        id: task.id.to_string(),
        short,
        status: task.status.word().to_owned(),
        open: task.is_open(),
        goal: task.submitted.goal.clone(),
        model: task.submitted.model.clone(),
        served: task.served.clone(),
        cwd: String::from_utf8_lossy(&task.submitted.cwd).into_owned(),
        created: timestamp(task.created_ms),
        updated: timestamp(task.updated_ms),
        age_ms: task.updated_ms.saturating_sub(task.created_ms),
        steps: task.steps,
        usage: facts.usage,
        cost_micros: (!facts.is_cost_unknown).then(|| facts.spent.micros()),
        cpu_ms: task.cpu_ms,
        disk_bytes: task.disk_bytes,
        caps: caps(&task.caps),
        no_input: task.submitted.no_input,
        yolo: yolo(&task.submitted),
        priority: task.priority.name().to_owned(),
        paused: paused(task),
        waiting: task.waiting_for().map(|approval| question(&approval.asked)),
        plan: plan(&task.plan),
        ops: task.ops.entries().iter().map(|entry| op(entry, task.ops.in_force(entry.number))).collect(),
        commits: task.commits,
        repo: place.as_ref().map(|place| place.repo.display().to_string()),
        workspace: place.as_ref().map(|place| place.tree.display().to_string()),
        branch: place.as_ref().map(|place| place.branch.strip_prefix("refs/heads/").unwrap_or(&place.branch).to_owned()),
        base: place.as_ref().map(|place| place.base.to_string()),
        level: prepared.and_then(|prepared| filled(&prepared.level)),
        verify: prepared.and_then(|prepared| filled(&prepared.verify)).or_else(|| task.submitted.verify.clone()),
        verify_origin: prepared.and_then(|prepared| filled(&prepared.verify_origin)),
        notes: prepared.map(|prepared| prepared.notes.clone()).unwrap_or_default(),
        result: task.finished.as_ref().map(|finished| result(task.id, finished, &facts)),
        lsn: task.last_lsn.0,
    }
}

/// The question of an approval, for lists of them.
#[must_use]
pub(crate) fn asked(asked: &event::ApprovalAsked) -> ApprovalRequested {
    question(asked)
}

fn paused(task: &Task) -> Option<PausedView> {
    let Status::Paused { why, text } = &task.status else { return None };
    let until = task.timer.as_ref().map(|timer| timestamp(timer.due_wall_ms));
    Some(PausedView { why: why.clone(), text: text.clone(), until, wait_ms: None })
}

fn op(entry: &OpEntry, in_force: bool) -> OpView {
    OpView {
        number: entry.number,
        in_force,
        time: timestamp(entry.at_ms),
        lsn: entry.lsn.0,
        kind: entry.done.kind.clone(),
        summary: entry.done.summary.clone(),
        files: files(&entry.done.files),
        commit: filled(&entry.done.commit),
        ops: entry.done.ops.clone(),
    }
}

fn plan(steps: &[event::PlanStep]) -> Vec<PlanStep> {
    steps.iter().map(|step| PlanStep { text: step.text.clone(), status: step.status.clone() }).collect()
}

pub(crate) fn files(files: &[event::FileChange]) -> Vec<FileChange> {
    files.iter().map(|file| FileChange { path: file.path.clone(), kind: file.kind.clone(), plus: file.plus, minus: file.minus }).collect()
}

fn filled(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}
