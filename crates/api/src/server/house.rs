//! Handlers about the process: health, version, status, stop, environment.
//!
//! No tasks here. Invariant: values of the environment reach the daemon's memory and nothing else.

use super::answer::{Answer, Asked};
use super::{ServerState, named};
use crate::wire::{self, DaemonView, EnvironmentRequest, HaltView, Said, UpgradeRequest, UpgradeView, VersionView};
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::ListQuery;

/// A loop that needs longer for nothing is stuck.
const ALIVE_WAIT: Duration = Duration::from_secs(3);

/// The loop that does the work is alive, not only the one that answers here.
pub(super) async fn health(State(state): State<ServerState>) -> Result<&'static str, Answer> {
    let stuck = || {
        Fault::new("TB-DAEMON-010", exit::UNAVAILABLE, format!("the engine gave no sign of life for {} s", ALIVE_WAIT.as_secs()))
            .hint("tinkerbell daemon logs   may say why; ending it loses nothing: kill -9 PID")
            .transient()
    };
    tokio::time::timeout(ALIVE_WAIT, state.daemon.alive()).await.unwrap_or_else(|_| Err(stuck()))?;
    Ok("ok\n")
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
        states: facts.states,
        lag: facts.lag,
        epoch: facts.epoch,
        journal_bytes: facts.journal_bytes,
        room: facts.room,
        keepers: facts.keepers,
        rss_bytes: facts.rss_bytes,
        notices: facts.notices,
        pending: facts.pending,
        upgrade: facts.upgrade,
        tasks: counted.total,
        open_tasks: counted.open,
        clients: state.clients.load(Ordering::Relaxed) as u64,
        lsn: facts.lsn,
        level: facts.level,
        data_dir: facts.data_dir,
        set: facts.set,
    }))
}

pub(super) async fn stop(State(state): State<ServerState>) -> StatusCode {
    state.daemon.stop();
    StatusCode::ACCEPTED
}

/// Tells the daemon to look at the kill switch.
pub(super) async fn halt(State(state): State<ServerState>) -> Json<HaltView> {
    Json(state.daemon.halt().await)
}

pub(super) async fn reload(State(state): State<ServerState>) -> Result<Json<Said>, Answer> {
    Ok(Json(Said { text: state.daemon.reload()? }))
}

/// Answers once the new binary has looked; what follows shows in the status.
pub(super) async fn upgrade(
    State(state): State<ServerState>,
    Asked(request): Asked<UpgradeRequest>,
) -> Result<(StatusCode, Json<UpgradeView>), Answer> {
    Ok((StatusCode::ACCEPTED, Json(state.daemon.upgrade(request).await?)))
}

pub(super) async fn environment(State(state): State<ServerState>, Asked(request): Asked<EnvironmentRequest>) -> StatusCode {
    state.daemon.environment(named(request.env));
    StatusCode::NO_CONTENT
}
