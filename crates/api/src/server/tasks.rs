//! Handlers about tasks: submit, list, show, command, diff, approvals, blobs.
//!
//! Each turns a request into one call of the engine and its answer into JSON; no decisions of its
//! own. Invariant: a submission is answered only after the engine called it durable.

use super::accept::Peer;
use super::answer::{Answer, Asked, bad};
use super::{ServerState, named};
use crate::wire::{self, ApprovalView, CommandRequest, DiffView, Said, SubmitRequest, Submitted, TaskList, TaskView, YoloRequest};
use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event;
use tinkerbell_core::port::{Command, Given, ListQuery, Listed, Submission};
use tinkerbell_core::words::{BlobRef, Lsn, Priority};

/// Digits of a task id that people see at least.
const SHORT_DIGITS: usize = 6;
/// Longest key of a submission in bytes.
const MAX_KEY_BYTES: usize = 255;
/// Longest time for which a request can say that nobody is asked, a week: a task that sleeps for a year must
/// not wake up with such a word.
const LONGEST_YOLO_MS: u64 = 7 * 24 * 3_600_000;

pub(super) async fn submit(
    State(state): State<ServerState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    Asked(request): Asked<SubmitRequest>,
) -> Result<(StatusCode, Json<Submitted>), Answer> {
    let key = idempotency_key(&headers)?;
    let submission = submission(&request, key, peer.uid.unwrap_or(state.uid), state.clock.now().wall_ms)?;
    state.daemon.environment(named(request.env));
    let (task, lsn) = state.runtime.submit(submission).await?;
    let short = task.short(find(&state, &task.to_string()).await.map_or(SHORT_DIGITS, |found| digits(&found)));
    Ok((StatusCode::CREATED, Json(Submitted { task: task.to_string(), short, lsn: lsn.0 })))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Fault> {
    let Some(value) = headers.get("idempotency-key") else { return Ok(None) };
    let text = value.to_str().unwrap_or_default();
    if text.is_empty() || text.len() > MAX_KEY_BYTES {
        return Err(bad(format!("`Idempotency-Key` must be 1 to {MAX_KEY_BYTES} visible ASCII characters")));
    }
    Ok(Some(text.to_owned()))
}

fn submission(request: &SubmitRequest, key: Option<String>, uid: u32, now_ms: u64) -> Result<Submission, Fault> {
    let cwd = PathBuf::from(&request.cwd);
    if request.goal.trim().is_empty() {
        return Err(bad("`goal` is empty".to_owned()).hint("say what is to be done"));
    }
    if !cwd.is_absolute() {
        return Err(bad(format!("`cwd` must be an absolute path, not `{}`", request.cwd)));
    }
    Ok(Submission {
        goal: request.goal.clone(),
        cwd,
        model: request.model.clone().unwrap_or_default(),
        caps: caps(&request.caps),
        verify: request.verify.clone(),
        base: request.base.clone(),
        no_input: request.no_input,
        idempotency_key: key,
        uid,
        priority: request.priority.as_deref().map(priority).transpose()?.unwrap_or_default(),
        delay_ms: request.after_ms,
        not_before_ms: request.not_before.as_deref().map(moment).transpose()?,
        waiver: request.yolo.as_ref().map(|yolo| waiver(yolo, uid, now_ms)).transpose()?,
        ..Submission::default()
    })
}

fn waiver(yolo: &YoloRequest, owner: u32, now_ms: u64) -> Result<event::Waiver, Fault> {
    if yolo.for_ms > LONGEST_YOLO_MS {
        return Err(bad(format!("`yolo.for_ms` is {}; a week is the longest, {LONGEST_YOLO_MS}", yolo.for_ms))
            .hint("tinkerbell run --yolo --yolo-for 7d …   is the most that a request can say")
            .hint("an end further off is the operator's to write: `until` in [approvals] of your configuration"));
    }
    let until_ms = now_ms.saturating_add(yolo.for_ms);
    Ok(event::Waiver { owner, reason: yolo.reason.clone(), source: "command line".to_owned(), until_ms })
}

fn priority(text: &str) -> Result<Priority, Fault> {
    let known = || Priority::ALL.map(Priority::name).join(", ");
    text.parse().map_err(|_| bad(format!("`{text}` is no priority; there are {}", known())))
}

fn moment(text: &str) -> Result<u64, Fault> {
    wire::millis(text).ok_or_else(|| bad(format!("`{text}` is no time")).hint("write it like 2026-12-01T07:00:00Z, or as a duration: 2h"))
}

fn caps(caps: &wire::Caps) -> event::Caps {
    event::Caps {
        nano_usd: caps.cost_micros.map(|micros| micros.saturating_mul(1_000)),
        steps: caps.steps,
        tokens: caps.tokens,
        wall_ms: caps.wall_ms,
        cpu_ms: caps.cpu_ms,
        disk_bytes: caps.disk_bytes,
        processes: caps.processes,
        memory_bytes: caps.memory_bytes,
    }
}

/// Tasks in one answer when the client names no number, and at most.
const PAGE: (usize, usize) = (100, 1_000);

pub(super) async fn list(
    State(state): State<ServerState>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<TaskList>, Answer> {
    known_only(&query, &["open", "limit", "before"])?;
    let asked = ListQuery {
        open: flag(&query, "open", false)?,
        waiting: false,
        limit: number(&query, "limit")?.unwrap_or(PAGE.0).min(PAGE.1),
        before: number(&query, "before")?.map(Lsn),
    };
    let page = state.runtime.list(asked).await?;
    let now_ms = state.clock.now().wall_ms;
    let tasks = page.tasks.iter().map(|found| view(found, now_ms)).collect();
    Ok(Json(TaskList { tasks, before: page.before.map(|lsn| lsn.0), total: page.total, open: page.open }))
}

pub(super) async fn show(State(state): State<ServerState>, Path(prefix): Path<String>) -> Result<Json<TaskView>, Answer> {
    Ok(Json(view(&find(&state, &prefix).await?, state.clock.now().wall_ms)))
}

pub(super) async fn find(state: &ServerState, prefix: &str) -> Result<Listed, Fault> {
    state.runtime.get(prefix).await
}

fn view(found: &Listed, now_ms: u64) -> TaskView {
    let mut view = wire::task_view(&found.task, found.task.id.short(digits(found)));
    if let (Some(paused), Some(timer)) = (&mut view.paused, &found.task.timer) {
        paused.wait_ms = Some(timer.due_wall_ms.saturating_sub(now_ms));
    }
    if !found.task.is_unasked(now_ms) {
        view.yolo = None;
    }
    view
}

/// Digits that people see: those that name the task, and at least six.
fn digits(found: &Listed) -> usize {
    found.digits.max(SHORT_DIGITS)
}

pub(super) async fn command(
    State(state): State<ServerState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(prefix): Path<String>,
    Asked(request): Asked<CommandRequest>,
) -> Result<Json<Said>, Answer> {
    let task = find(&state, &prefix).await?.task;
    let command = spoken(request, peer.uid.unwrap_or(state.uid))?;
    let text = state.runtime.command(task.id, command).await?;
    Ok(Json(Said { text }))
}

fn spoken(request: CommandRequest, uid: u32) -> Result<Command, Fault> {
    Ok(match request {
        CommandRequest::Tell { text } => Command::Tell(text),
        CommandRequest::Pause {} => Command::Pause,
        CommandRequest::Resume { caps: raised } => Command::Resume(raised.as_ref().map(caps)),
        CommandRequest::Cancel {} => Command::Cancel,
        CommandRequest::Priority { priority: text } => Command::Priority(priority(&text)?),
        CommandRequest::Answer { id, approve, text, digest, scope } => {
            Command::Answer(Given { id, yes: approve, text, uid, digest, scope })
        }
        CommandRequest::Undo { all } => Command::Undo { all },
        CommandRequest::Redo {} => Command::Redo,
        CommandRequest::Restore { op } => Command::Restore { op },
        CommandRequest::Land { branch, message } => Command::Land { branch, message },
        CommandRequest::Remove { force } => Command::Remove { force },
    })
}

pub(super) async fn diff(
    State(state): State<ServerState>,
    Path(prefix): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<DiffView>, Answer> {
    let (from, to) = (number(&query, "from")?, number(&query, "to")?);
    known_only(&query, &["from", "to"])?;
    let task = find(&state, &prefix).await?.task;
    let difference = state.runtime.diff(task.id, from, to).await?;
    Ok(Json(DiffView { files: wire::files(&difference.files), text: difference.text }))
}

/// A yes or no among the query's fields.
pub(super) fn flag(query: &BTreeMap<String, String>, name: &str, default: bool) -> Result<bool, Fault> {
    match query.get(name).map(String::as_str) {
        None => Ok(default),
        Some("1" | "true") => Ok(true),
        Some("0" | "false") => Ok(false),
        Some(other) => Err(bad(format!("`{name}` must be 1 or 0, not `{other}`"))),
    }
}

/// A number among the query's fields; absent when it is not there.
pub(super) fn number<T: std::str::FromStr>(query: &BTreeMap<String, String>, name: &str) -> Result<Option<T>, Fault> {
    let Some(text) = query.get(name) else { return Ok(None) };
    text.parse().map(Some).map_err(|_| bad(format!("`{name}` must be a number, not `{text}`")))
}

/// Refuses query fields that we do not know.
pub(super) fn known_only(query: &BTreeMap<String, String>, known: &[&str]) -> Result<(), Fault> {
    match query.keys().find(|name| !known.contains(&name.as_str())) {
        Some(unknown) => Err(bad(format!("unknown query field `{unknown}`; known are {}", known.join(", ")))),
        None => Ok(()),
    }
}

pub(super) async fn approvals(State(state): State<ServerState>) -> Result<Json<Value>, Answer> {
    let asked = ListQuery { open: true, waiting: true, limit: PAGE.1, before: None };
    let mut waiting = state.runtime.list(asked).await?.tasks;
    // Oldest first: who has waited longest is asked about first.
    waiting.sort_by_key(|found| (found.task.created_ms, found.task.id));
    let open = waiting.iter().flat_map(|found| {
        found.task.approvals.values().filter(|approval| approval.answer.is_none()).map(move |approval| ApprovalView {
            task: found.task.id.to_string(),
            short: found.task.id.short(digits(found)),
            goal: found.task.submitted.goal.clone(),
            time: wire::timestamp(approval.at_ms),
            repository: found.task.workspace().map(|workspace| workspace.repo.display().to_string()).unwrap_or_default(),
            question: wire::asked(&approval.asked),
        })
    });
    Ok(Json(serde_json::json!({ "approvals": open.collect::<Vec<_>>() })))
}

pub(super) async fn blob(State(state): State<ServerState>, Path(blob): Path<String>) -> Result<impl IntoResponse, Answer> {
    let blob: BlobRef = blob.parse().map_err(|error| bad(format!("{error}")))?;
    let bytes = state.runtime.blob(blob).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes))
}
