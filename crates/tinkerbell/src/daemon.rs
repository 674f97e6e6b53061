//! The daemon's life: lock, wire, bind, serve, stop.
//!
//! Killing it at any moment is safe; a signal only makes the next start shorter. Invariant: one
//! daemon per data directory, by a lock that the kernel releases when the process dies.

use crate::clock::SystemClock;
use crate::config::Sources;
use crate::environment::Environment;
use crate::places::Places;
use crate::wire::{self, House};
use rustix::fs::FlockOperation;
use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tinkerbell_api::server::DaemonStatus;
use tinkerbell_api::{Daemon, ServerState};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::Sandbox as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What a starting daemon says on its standard output once it serves.
pub const READY: &str = "ready";
/// What it says instead when another daemon holds the data directory.
pub const TAKEN: &str = "taken";

/// A daemon that nobody needs leaves after this long.
const IDLE: Duration = Duration::from_secs(600);
/// How often it looks whether anybody needs it.
const LOOK: Duration = Duration::from_secs(20);
/// Drivers that do not stop within this time are left to the next start.
const PATIENCE: Duration = Duration::from_secs(5);
/// The log is begun anew beyond this size; one older file is kept.
const LOG_BYTES: u64 = 8 << 20;

/// How a daemon shall live.
pub struct Life {
    /// Where everything lies.
    pub places: Places,
    /// The process environment.
    pub env: Environment,
    /// Where configuration is read from.
    pub sources: Sources,
    /// Whether it leaves when nobody needs it.
    pub leaves: bool,
}

/// Runs the daemon until it is told to stop; returns the exit code.
///
/// # Errors
/// When it could not start.
pub fn run(life: &Life) -> Result<u8, Fault> {
    let uid = rustix::process::getuid().as_raw();
    life.places.make(uid)?;
    let Some(_lock) = lock(&life.places.data)? else {
        say(TAKEN);
        return Ok(exit::DONE);
    };
    // A terminal that closes must not take the daemon with it. Failing means that we lead a group
    // already, which is what we want.
    let _leads_already = rustix::process::setsid();
    start_log(&life.places.log())?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("no runtime: {error}")))?;
    let result = runtime.block_on(live(life));
    // Blocking work that is still under way (a walk, a sync) is repeated at the next start.
    runtime.shutdown_timeout(Duration::from_secs(1));
    if let Err(fault) = &result {
        tracing::error!(%fault, "the daemon could not go on");
    }
    result.map(|()| exit::DONE)
}

/// The lock on the data directory; `None` when another daemon holds it.
fn lock(data: &Path) -> Result<Option<File>, Fault> {
    let path = data.join("daemon.lock");
    let unusable = |error: &dyn std::fmt::Display| {
        Fault::new("TB-HOME-002", exit::CONFIG, format!("{} can not be used: {error}", path.display()))
            .hint("make it writable and yours, or choose another place: export TINKERBELL_HOME=/path")
    };
    let mut options = OpenOptions::new();
    let mut file = options.create(true).read(true).write(true).truncate(false).mode(0o600).open(&path).map_err(|error| unusable(&error))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(unusable(&error)),
    }
    // For people who look who holds it; the lock itself is what counts.
    file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id())).map_err(|error| unusable(&error))?;
    Ok(Some(file))
}

/// The pid that holds the data directory, if any daemon does.
#[must_use]
pub fn holder(data: &Path) -> Option<u32> {
    let mut file = OpenOptions::new().read(true).write(true).open(data.join("daemon.lock")).ok()?;
    if rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
        return None;
    }
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

fn start_log(path: &Path) -> Result<(), Fault> {
    if path.metadata().is_ok_and(|meta| meta.len() > LOG_BYTES) {
        // Losing an old log is better than not starting.
        let _kept_or_not = std::fs::rename(path, path.with_extension("log.old"));
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|error| {
        Fault::new("TB-HOME-002", exit::CONFIG, format!("{} can not be written: {error}", path.display()))
            .hint("make it writable and yours, or choose another place: export TINKERBELL_HOME=/path")
    })?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_writer(std::sync::Mutex::new(file)).with_ansi(false).with_env_filter(filter);
    // A second subscriber can only come from a second start in one process, which tests do.
    let _first_one_stays = subscriber.try_init();
    Ok(())
}

/// Tells the starter how it went. A starter that has gone is no reason to stop.
fn say(word: &str) {
    let mut out = std::io::stdout();
    let _starter_gone = writeln!(out, "{word}").and_then(|()| out.flush());
}

async fn live(life: &Life) -> Result<(), Fault> {
    let house = Arc::new(wire::build(&life.places, &life.env, life.sources.clone()).await?);
    let stop = CancellationToken::new();
    let listener = tinkerbell_api::socket::bind(&life.places.socket()).await?;
    let facts = Arc::new(Facts {
        house: house.clone(),
        stop: stop.clone(),
        since: SystemClock.now().mono_ms,
        data: life.places.data.display().to_string(),
        level: std::sync::OnceLock::new(),
    });
    let state = ServerState::new(Arc::new(house.engine.clone()), facts.clone(), Arc::new(SystemClock), stop.clone());
    let clients = state.clients.clone();
    let server = tokio::spawn(tinkerbell_api::serve(listener, state));
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "ready");
    say(READY);
    let prober = tokio::spawn(learn_level(facts));
    let watch = || house.is_busy() || clients.load(Ordering::Relaxed) > 0;
    tokio::select! {
        () = stop.cancelled() => tracing::info!("asked to stop"),
        result = told_to_stop() => result?,
        () = unneeded(life.leaves, watch) => tracing::info!("nobody needs the daemon; it leaves"),
        fault = house.engine.broken() => tracing::error!(%fault, "the journal takes no records; the next start replays it"),
    }
    stop.cancel();
    prober.abort();
    let ended = house.engine.shutdown(PATIENCE).await;
    if tokio::time::timeout(PATIENCE, server).await.is_err() {
        tracing::warn!("some clients did not go; their connections are cut");
    }
    tracing::info!("stopped");
    ended
}

async fn learn_level(facts: Arc<Facts>) {
    match facts.house.sandbox.level().await {
        Ok(level) => {
            // Learnt once; a later answer would be the same.
            let _known = facts.level.set(level.name().to_owned());
        }
        Err(fault) => tracing::warn!(%fault, "no sandbox level is complete on this host"),
    }
}

async fn told_to_stop() -> Result<(), Fault> {
    let broken = |error: std::io::Error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("signals can not be heard: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(broken)?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            // A closed terminal is no wish to stop.
            _ = hangup.recv() => {}
        }
    }
    tracing::info!("told to stop by a signal");
    tokio::spawn(async move {
        // A second one means: at once. That is safe, because SIGKILL is.
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        std::process::exit(143);
    });
    Ok(())
}

/// Completes once nobody has needed the daemon for [`IDLE`].
async fn unneeded(leaves: bool, needed: impl Fn() -> bool) {
    if !leaves {
        return std::future::pending().await;
    }
    let mut idle = Duration::ZERO;
    while idle < IDLE {
        tokio::time::sleep(LOOK).await;
        idle = if needed() { Duration::ZERO } else { idle + LOOK };
    }
}

struct Facts {
    house: Arc<House>,
    stop: CancellationToken,
    since: u64,
    data: String,
    level: std::sync::OnceLock<String>,
}

impl Daemon for Facts {
    fn status(&self) -> DaemonStatus {
        DaemonStatus {
            pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: SystemClock.now().mono_ms.saturating_sub(self.since),
            lsn: self.house.journal.state().tip.0,
            level: self.level.get().cloned(),
            data_dir: self.data.clone(),
        }
    }

    fn ready(&self) -> Result<(), Fault> {
        self.house.engine.ready()
    }

    fn stop(&self) {
        self.stop.cancel();
    }

    fn environment(&self, values: Vec<(String, String)>) {
        self.house.environment(values);
    }
}
