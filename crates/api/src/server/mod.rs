//! The server: `/v1` resources over a Unix socket.
//!
//! Routes and wiring only; handlers stand in `tasks`, streams in `stream`, connections in `accept`.
//! Invariant: each request passed the table of rights, and was made by no browser, before a handler runs.

mod accept;
mod answer;
mod browser;
mod house;
mod rights;
mod serve;
mod stream;
mod tasks;

use crate::wire::{HaltView, UpgradeRequest, UpgradeView};
use accept::{Door, Peer};
use answer::Answer;
use axum::Router;
use axum::extract::{ConnectInfo, DefaultBodyLimit, MatchedPath, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use futures_util::future::BoxFuture;
use rights::{Right, Role, right};
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::Runtime;
use tokio::net::UnixListener;
use tokio_util::sync::CancellationToken;

/// Largest body of a request in bytes.
pub const MAX_BODY_BYTES: usize = 1 << 20;

/// What the server must know of the process around it.
pub trait Daemon: Send + Sync {
    /// Facts that only the process knows.
    fn status(&self) -> DaemonStatus;
    /// Whether it can do work now: replay done, journal writable.
    ///
    /// # Errors
    /// What is missing.
    fn ready(&self) -> Result<(), Fault>;
    /// Whether the loop that does the work is alive; a stuck one does not answer in time.
    fn alive(&self) -> BoxFuture<'_, Result<(), Fault>>;
    /// Begins an orderly shutdown; returns at once.
    fn stop(&self);
    /// Lets another binary take the daemon's place. Returns once that binary has looked at what is
    /// kept and can read it; the rest goes on by itself and shows in [`Self::status`].
    fn upgrade(&self, request: UpgradeRequest) -> BoxFuture<'_, Result<UpgradeView, Fault>>;
    /// Looks at the kill switch now, and obeys it: tasks stand still when this returns, or go on.
    fn halt(&self) -> BoxFuture<'_, HaltView>;
    /// Reads the configuration again; returns a line for people.
    ///
    /// # Errors
    /// The mistake; then the old values stay in force.
    fn reload(&self) -> Result<String, Fault>;
    /// Takes names and values of a client's environment, to be kept in memory only. Called before
    /// the submission that brought them.
    fn environment(&self, values: Vec<tinkerbell_secret::Named>);
}

/// Facts of the daemon's process.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DaemonStatus {
    /// Process id.
    pub pid: u32,
    /// Release.
    pub version: String,
    /// Time since it became ready, in milliseconds.
    pub uptime_ms: u64,
    /// Newest record in the log.
    pub lsn: u64,
    /// Tasks by their status, without removed ones.
    pub states: BTreeMap<String, u64>,
    /// Records on their way to the disk.
    pub lag: u64,
    /// How often the log was opened.
    pub epoch: u64,
    /// Bytes of the log.
    pub journal_bytes: u64,
    /// What the log can take: `ample`, `reserve`, or `read-only: ` and why.
    pub room: String,
    /// Commands that run under keepers.
    pub keepers: u64,
    /// Memory of the process that lies in RAM, in bytes.
    pub rss_bytes: u64,
    /// What a person should know, one line each: a refused configuration, keys that wait for a restart.
    pub notices: Vec<String>,
    /// Keys of the configuration whose new values wait for a restart.
    pub pending: Vec<String>,
    /// The upgrade under way, or the newest one.
    pub upgrade: Option<UpgradeView>,
    /// Sandbox level of commands, once known.
    pub level: Option<String>,
    /// The data directory.
    pub data_dir: String,
    /// Settings that it was started with, `key=value`.
    pub set: Vec<String>,
}

/// All that the server stands on.
#[derive(Clone)]
pub struct ServerState {
    /// The engine.
    pub runtime: Arc<dyn Runtime>,
    /// The process.
    pub daemon: Arc<dyn Daemon>,
    /// For the time of live events.
    pub clock: Arc<dyn Clock>,
    /// Ends the server: no new connections, streams end, open requests are finished.
    pub stop: CancellationToken,
    /// Counts open connections; the roof reads it to know whether anybody is there.
    pub clients: Arc<AtomicUsize>,
    /// The only user id that is served.
    pub uid: u32,
}

impl ServerState {
    /// A state that serves the process's own user.
    #[must_use]
    pub fn new(runtime: Arc<dyn Runtime>, daemon: Arc<dyn Daemon>, clock: Arc<dyn Clock>, stop: CancellationToken) -> Self {
        let uid = rustix::process::geteuid().as_raw();
        Self { runtime, daemon, clock, stop, clients: Arc::new(AtomicUsize::new(0)), uid }
    }
}

/// Serves until `state.stop` is cancelled and every client that was let in is answered. Who connects
/// after the stop stays in the queue of the socket, for whoever else holds it.
///
/// # Errors
/// When the listener breaks.
pub async fn serve(listener: UnixListener, state: ServerState) -> io::Result<()> {
    let door = Door::new(listener, Arc::clone(&state.clients), state.stop.clone(), state.uid);
    serve::serve(door, router(state)).await;
    Ok(())
}

/// A resource of the door: its path, and the handlers of its methods.
type Route = (&'static str, MethodRouter<ServerState>);

/// Every resource; what is not here does not exist. Who may use which stands in `rights`.
fn routes() -> Vec<Route> {
    vec![
        ("/healthz", get(house::health)),
        ("/readyz", get(house::ready)),
        ("/version", get(house::version)),
        ("/v1/daemon", get(house::status)),
        ("/v1/daemon/stop", post(house::stop)),
        ("/v1/daemon/upgrade", post(house::upgrade)),
        ("/v1/daemon/halt", post(house::halt)),
        ("/v1/daemon/reload", post(house::reload)),
        ("/v1/env", post(house::environment)),
        ("/v1/tasks", get(tasks::list).post(tasks::submit)),
        ("/v1/tasks/{prefix}", get(tasks::show)),
        ("/v1/tasks/{prefix}/commands", post(tasks::command)),
        ("/v1/tasks/{prefix}/diff", get(tasks::diff)),
        ("/v1/tasks/{prefix}/events", get(stream::task)),
        ("/v1/events", get(stream::all)),
        ("/v1/approvals", get(tasks::approvals)),
        ("/v1/blobs/{blob}", get(tasks::blob)),
    ]
}

fn router(state: ServerState) -> Router {
    let routes = routes().into_iter().fold(Router::new(), |router, (path, handlers)| router.route(path, handlers));
    routes
        .fallback(nothing_here)
        .method_not_allowed_fallback(not_so)
        .layer(DefaultBodyLimit::max(MAX_BODY_BYTES))
        .layer(middleware::from_fn_with_state(state.clone(), gate))
        .with_state(state)
}

/// Refuses foreign users, crowds and browsers before anything else is looked at.
async fn gate(State(state): State<ServerState>, ConnectInfo(peer): ConnectInfo<Peer>, request: Request, next: Next) -> Response {
    let mut response = match judge(&state, &peer, &request) {
        Ok(Right::Yes) => next.run(request).await,
        Ok(_) if request.extensions().get::<MatchedPath>().is_some() => not_so(request).await.into_response(),
        Ok(_) => nothing_here(request).await.into_response(),
        Err(fault) => Answer(fault).into_response(),
    };
    response.headers_mut().insert("tinkerbell-version", axum::http::HeaderValue::from_static(crate::RELEASE));
    response
}

fn judge(state: &ServerState, peer: &Peer, request: &Request) -> Result<Right, Fault> {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let right = right(Role::of(peer.uid, state.uid), route, request.method());
    if right == Right::No {
        let who = peer.uid.map_or_else(|| "an unknown user".to_owned(), |uid| format!("user {uid}"));
        return Err(Fault::new("TB-API-006", exit::NO_AUTH, format!("this daemon belongs to user {} and refuses {who}", state.uid))
            .hint("run `tinkerbell` as the user who started the daemon"));
    }
    if peer.is_crowded {
        return Err(Fault::new("TB-API-007", exit::UNAVAILABLE, "too many clients are connected at the same time")
            .hint("close some `attach` or `logs -f`, then try again")
            .transient());
    }
    browser::refuse(request.headers(), request.uri())?;
    browser::check_body(request.headers(), request.method())?;
    Ok(right)
}

async fn nothing_here(request: Request) -> Answer {
    Answer(
        Fault::new("TB-API-005", exit::USAGE, format!("there is no resource `{}`", request.uri().path())).hint("resources begin with /v1/"),
    )
}

async fn not_so(request: Request) -> Answer {
    let text = format!("`{}` does not take {}", request.uri().path(), request.method());
    Answer(Fault::new("TB-API-010", exit::USAGE, text))
}

/// Values of an environment as what they may be: secrets.
fn named(env: BTreeMap<String, String>) -> Vec<tinkerbell_secret::Named> {
    env.into_iter().map(|(name, value)| (name, tinkerbell_secret::Secret::shared(value))).collect()
}

#[cfg(test)]
mod tests;
