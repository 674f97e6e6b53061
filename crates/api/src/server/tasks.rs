//! Handlers about tasks: submit, list, show, command, diff, approvals, blobs.
//!
//! Each turns a request into one call of the engine and its answer into JSON; no decisions of its
//! own. Invariant: a submission is answered only after the engine called it durable.

use super::ServerState;
use super::accept::Peer;
use super::answer::{Answer, Asked, bad};
use crate::wire::{self, ApprovalView, CommandRequest, DiffView, Said, SubmitRequest, Submitted, TaskList, TaskView};
use axum::Json;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event;
use tinkerbell_core::lifecycle::{Status, Task};
use tinkerbell_core::port::{Command, Runtime, Submission};
use tinkerbell_core::words::{BlobRef, TaskId};

/// Digits of a task id that people see at least.
const SHORT_DIGITS: usize = 6;
/// Longest key of a submission in bytes.
const MAX_KEY_BYTES: usize = 255;

pub(super) async fn submit(
    State(state): State<ServerState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    headers: HeaderMap,
    Asked(request): Asked<SubmitRequest>,
) -> Result<(StatusCode, Json<Submitted>), Answer> {
    let key = idempotency_key(&headers)?;
    let submission = submission(&request, key, peer.uid.unwrap_or(state.uid))?;
    state.daemon.environment(request.env.into_iter().collect());
    let (task, lsn) = state.runtime.submit(submission).await?;
    let short = shorten(task, &ids(state.runtime.as_ref()));
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

fn submission(request: &SubmitRequest, key: Option<String>, uid: u32) -> Result<Submission, Fault> {
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
        ..Submission::default()
    })
}

fn caps(caps: &wire::Caps) -> event::Caps {
    event::Caps {
        nano_usd: caps.cost_micros.map(|micros| micros.saturating_mul(1_000)),
        steps: caps.steps,
        tokens: caps.tokens,
        wall_ms: caps.wall_ms,
    }
}

pub(super) async fn list(State(state): State<ServerState>) -> Json<TaskList> {
    let tasks = state.runtime.list();
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    let shown = tasks.iter().filter(|task| task.status != Status::Removed);
    Json(TaskList { tasks: shown.map(|task| wire::task_view(task, shorten(task.id, &ids))).collect() })
}

pub(super) async fn show(State(state): State<ServerState>, Path(prefix): Path<String>) -> Result<Json<TaskView>, Answer> {
    let task = find(&state, &prefix)?;
    let short = shorten(task.id, &ids(state.runtime.as_ref()));
    Ok(Json(wire::task_view(&task, short)))
}

pub(super) fn find(state: &ServerState, prefix: &str) -> Result<Task, Fault> {
    state.runtime.get(prefix)
}

fn ids(runtime: &dyn Runtime) -> Vec<TaskId> {
    runtime.list().iter().map(|task| task.id).collect()
}

/// The shortest prefix, of at least six digits, that no other id has.
fn shorten(id: TaskId, all: &[TaskId]) -> String {
    let others = all.iter().filter(|other| **other != id);
    let shared = others.map(|other| ((other.0 ^ id.0).leading_zeros() / 4) as usize).max();
    id.short(shared.map_or(SHORT_DIGITS, |digits| (digits + 1).max(SHORT_DIGITS)))
}

pub(super) async fn command(
    State(state): State<ServerState>,
    ConnectInfo(peer): ConnectInfo<Peer>,
    Path(prefix): Path<String>,
    Asked(request): Asked<CommandRequest>,
) -> Result<Json<Said>, Answer> {
    let task = find(&state, &prefix)?;
    let command = spoken(request, peer.uid.unwrap_or(state.uid));
    let text = state.runtime.command(task.id, command).await?;
    Ok(Json(Said { text }))
}

fn spoken(request: CommandRequest, uid: u32) -> Command {
    match request {
        CommandRequest::Tell { text } => Command::Tell(text),
        CommandRequest::Pause {} => Command::Pause,
        CommandRequest::Resume { caps: raised } => Command::Resume(raised.as_ref().map(caps)),
        CommandRequest::Cancel {} => Command::Cancel,
        CommandRequest::Answer { id, approve, text } => Command::Answer { id, yes: approve, text, uid },
        CommandRequest::Undo { all } => Command::Undo { all },
        CommandRequest::Redo {} => Command::Redo,
        CommandRequest::Restore { op } => Command::Restore { op },
        CommandRequest::Land { branch, message } => Command::Land { branch, message },
        CommandRequest::Remove { force } => Command::Remove { force },
    }
}

pub(super) async fn diff(
    State(state): State<ServerState>,
    Path(prefix): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
) -> Result<Json<DiffView>, Answer> {
    let (from, to) = (number(&query, "from")?, number(&query, "to")?);
    known_only(&query, &["from", "to"])?;
    let task = find(&state, &prefix)?;
    let difference = state.runtime.diff(task.id, from, to).await?;
    Ok(Json(DiffView { files: wire::files(&difference.files), text: difference.text }))
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

pub(super) async fn approvals(State(state): State<ServerState>) -> Json<Value> {
    let tasks = state.runtime.list();
    let ids: Vec<TaskId> = tasks.iter().map(|task| task.id).collect();
    let open: Vec<ApprovalView> = tasks
        .iter()
        .filter(|task| task.is_open())
        .flat_map(|task| task.approvals.values().filter(|approval| approval.answer.is_none()).map(move |approval| (task, approval)))
        .map(|(task, approval)| ApprovalView {
            task: task.id.to_string(),
            short: shorten(task.id, &ids),
            goal: task.submitted.goal.clone(),
            time: wire::timestamp(approval.at_ms),
            question: wire::asked(&approval.asked),
        })
        .collect();
    Json(serde_json::json!({ "approvals": open }))
}

pub(super) async fn blob(State(state): State<ServerState>, Path(blob): Path<String>) -> Result<impl IntoResponse, Answer> {
    let blob: BlobRef = blob.parse().map_err(|error| bad(format!("{error}")))?;
    let bytes = state.runtime.blob(blob).await?;
    Ok(([(header::CONTENT_TYPE, "application/octet-stream")], bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_ids_are_unique_prefixes_of_at_least_six_digits() {
        let of = |text: &str| text.parse::<TaskId>().unwrap();
        let (a, b, c) = (of(&"a".repeat(32)), of(&format!("{}{}", "a".repeat(9), "b".repeat(23))), of(&"c".repeat(32)));
        assert_eq!(shorten(a, &[a, b, c]), "a".repeat(10));
        assert_eq!(shorten(b, &[a, b, c]), "aaaaaaaaab");
        assert_eq!(shorten(c, &[a, b, c]), "cccccc");
        assert_eq!(shorten(c, &[]), "cccccc");
    }
}
