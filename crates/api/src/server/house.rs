//! Handlers about the process: health, version, status, stop, environment.
//!
//! No tasks here. Invariant: values of the environment reach the daemon's memory and nothing else.

use super::ServerState;
use super::answer::{Answer, Asked};
use crate::wire::{self, DaemonView, EnvironmentRequest, VersionView};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::atomic::Ordering;
use tinkerbell_core::port::ListQuery;

/// The loop is alive: it answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

pub(super) async fn ready(State(state): State<ServerState>) -> Result<&'static str, Answer> {
    state.daemon.ready()?;
    Ok("ready\n")
}

pub(super) async fn version() -> Json<VersionView> {
    Json(VersionView { version: crate::RELEASE.to_owned(), wire: wire::VERSION })
}

pub(super) async fn status(State(state): State<ServerState>) -> Result<Json<DaemonView>, Answer> {
    let facts = state.daemon.status();
    let counted = state.runtime.list(ListQuery { limit: 0, ..ListQuery::default() }).await?;
    Ok(Json(DaemonView {
        pid: facts.pid,
        version: facts.version,
        uptime_ms: facts.uptime_ms,
        tasks: counted.total,
        open_tasks: counted.open,
        clients: state.clients.load(Ordering::Relaxed) as u64,
        lsn: facts.lsn,
        level: facts.level,
        data_dir: facts.data_dir,
    }))
}

pub(super) async fn stop(State(state): State<ServerState>) -> StatusCode {
    state.daemon.stop();
    StatusCode::ACCEPTED
}

pub(super) async fn environment(State(state): State<ServerState>, Asked(request): Asked<EnvironmentRequest>) -> StatusCode {
    state.daemon.environment(request.env.into_iter().collect());
    StatusCode::NO_CONTENT
}
