//! The daemon's life: lock, wire, listen, serve, and stop or hand over.
//!
//! Killing it at any moment is safe; a signal only makes the next start shorter. Invariant: one
//! daemon per data directory, by a lock that the kernel releases when the last holder dies.

use crate::clean::CleanLog;
use crate::clock::SystemClock;
use crate::config::Sources;
use crate::environment::Environment;
use crate::halt;
use crate::handover::wire::{Go, Guard, Parcel};
use crate::handover::{self, Closing, Place, Start, Upgrades};
use crate::places::Places;
use crate::service::{self, Facts, FactsOf, Manager};
use crate::wire::{self, Ground, House};
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::fd::AsFd as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tinkerbell_api::wire::UpgradeView;
use tinkerbell_api::{Client, ServerState, socket};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{Found, Sandbox as _, UnitState, Until};
use tinkerbell_secret::Known;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
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
/// Model calls under way may end for this long after a signal; an answer that is paid is kept.
const LAST_WORDS: Duration = Duration::from_secs(3);
/// Requests under way, a landing for example, may take this long before the place is handed over.
const LAST_REQUESTS: Duration = Duration::from_secs(30);
/// How often the service manager hears how a long start goes on.
const STARTING: Duration = Duration::from_secs(2);
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
    /// Whether another process hands its place over on standard input.
    pub handed: bool,
    /// How the binary is started again.
    pub start: Start,
}

/// What a daemon begins with.
struct Opening {
    lock: File,
    listener: Option<UnixListener>,
    /// To whoever watches over our start.
    link: Option<UnixStream>,
    parcel: Option<Parcel>,
    go: Go,
}

/// How a daemon's life ended.
enum Ended {
    Stopped,
    Handed(Box<Closing>, Go, Arc<Upgrades>),
}

/// Runs the daemon until it is told to stop; returns the exit code.
///
/// # Errors
/// When it could not start.
pub fn run(life: &Life) -> Result<u8, Fault> {
    crate::memory::close()?;
    let known = Known::new();
    crate::panic::know(known.clone(), &life.places.state);
    let opening = match if life.handed { taken_over(life, &known)? } else { first(life, &known)? } {
        Ok(opening) => opening,
        Err(code) => return Ok(code),
    };
    // Held beside the one that may be handed over, until nothing of this process works any more.
    let _lock = opening.lock.try_clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("no runtime: {error}")))?;
    let result = runtime.block_on(live(life, opening, known));
    // Blocking work that is still under way (a walk, a sync) is repeated at the next start.
    runtime.shutdown_timeout(Duration::from_secs(1));
    match result {
        Ok(Ended::Stopped) => Ok(exit::DONE),
        Ok(Ended::Handed(closing, go, upgrades)) => hand_over(life, *closing, go, upgrades.place()),
        Err(fault) => {
            tracing::error!(%fault, "the daemon could not go on");
            Err(fault)
        }
    }
}

/// A start of our own; the inner error is the exit code of one that is not needed.
fn first(life: &Life, known: &Arc<Known>) -> Result<Result<Opening, u8>, Fault> {
    life.places.make(rustix::process::getuid().as_raw())?;
    let Some(lock) = service::lock(&life.places.data)? else {
        say(TAKEN);
        return Ok(Err(exit::DONE));
    };
    // A terminal that closes must not take the daemon with it. Failing means that we lead a group
    // already, which is what we want.
    let _leads_already = rustix::process::setsid();
    start_log(&life.places.log(), known.clone())?;
    Ok(Ok(Opening { lock, listener: None, link: None, parcel: None, go: Go::default() }))
}

/// A start in another process's place, or the watch over one.
fn taken_over(life: &Life, known: &Arc<Known>) -> Result<Result<Opening, u8>, Fault> {
    let (parcel, fds, link) = handover::receive()?;
    let _leads_already = rustix::process::setsid();
    start_log(&life.places.log(), known.clone())?;
    if parcel.guard.is_some() {
        handover::watch(&life.start, &life.env, parcel, fds)?;
        return Ok(Err(exit::DONE));
    }
    let (mut place, _) = Place::of(fds)?;
    let Some(go) = handover::settle(&parcel, &link, &life.places, &life.env) else { return Ok(Err(exit::FAILED)) };
    service::claim(&life.places.data, &mut place.lock)?;
    Ok(Ok(Opening { lock: place.lock, listener: Some(place.listener), link: Some(link), parcel: Some(parcel), go }))
}

/// Becomes the guard of the new process; comes back only when that failed.
fn hand_over(life: &Life, closing: Closing, go: Go, place: &Place) -> Result<u8, Fault> {
    let (parcel, health_ms) = (closing.parcel.clone(), closing.health_ms);
    let (child, link) = closing.release();
    let link =
        link.map_err(|error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("the link to the new binary was lost: {error}")))?;
    let fault = handover::become_guard(&life.start, parcel, Guard { child, health_ms, go: go.clone() }, place, &link);
    tracing::error!(%fault, "nobody watches over the new binary; it is on its own");
    handover::tell(&link, &handover::wire::Word::Go(go)).map_err(|_| fault)?;
    Ok(exit::DONE)
}

fn start_log(path: &Path, known: Arc<Known>) -> Result<(), Fault> {
    if path.metadata().is_ok_and(|meta| meta.len() > LOG_BYTES) {
        // Losing an old log is better than not starting.
        let _kept_or_not = std::fs::rename(path, path.with_extension("log.old"));
    }
    let file = OpenOptions::new().create(true).append(true).mode(0o600).open(path).map_err(|error| {
        Fault::new("TB-HOME-002", exit::CONFIG, format!("{} can not be written: {error}", path.display()))
            .hint("make it writable and yours, or choose another place: export TINKERBELL_HOME=/path")
    })?;
    let filter = tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    let subscriber = tracing_subscriber::fmt().with_writer(CleanLog::new(file, known)).with_ansi(false).with_env_filter(filter);
    // A second subscriber can only come from a second start in one process, which tests do.
    let _first_one_stays = subscriber.try_init();
    Ok(())
}

/// Tells the starter how it went. A starter that has gone is no reason to stop.
fn say(word: &str) {
    let mut out = std::io::stdout();
    let _starter_gone = writeln!(out, "{word}").and_then(|()| out.flush());
}

async fn live(life: &Life, opening: Opening, known: Arc<Known>) -> Result<Ended, Fault> {
    let manager = Manager::of(&life.env);
    known.learn(opening.go.known());
    let house = Arc::new(built(life, manager, Ground { sent: opening.go.sent(), known }).await?);
    fail_at(life, &opening, "new:opened");
    let stop = CancellationToken::new();
    let path = life.places.socket();
    let listener = service::listener(&path, opening.listener).await?;
    let (upgrades, mut closings) = upgrades(life, &listener, opening.lock)?;
    let data = life.places.data.display().to_string();
    let facts = Facts::new(FactsOf { house: house.clone(), stop: stop.clone(), upgrades: upgrades.clone(), data });
    let state = ServerState::new(house.runtime.clone(), facts.clone(), Arc::new(SystemClock), stop.clone());
    let clients = state.clients.clone();
    let watched = halt::guard(&house, stop.clone());
    watched.map_err(|error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("no thread for the kill switch: {error}")))?;
    let server = tokio::spawn(tinkerbell_api::serve(listener, state));
    // Whoever handed over has done its part; clients need no patience any more.
    let _none_stood = std::fs::remove_file(socket::handover_mark(&path)).is_err();
    if let Some(parcel) = &opening.parcel {
        arrived(life, &house, &upgrades, (parcel, &opening.go), opening.link.as_ref()).await?;
    }
    tracing::info!(pid = std::process::id(), version = env!("CARGO_PKG_VERSION"), "ready");
    say(READY);
    manager.ready(&facts.line());
    let line = {
        let facts = facts.clone();
        move || facts.line()
    };
    let beside = [
        tokio::spawn(facts.clone().learn_level()),
        tokio::spawn(pulse(house.clone(), facts.clone(), manager)),
        tokio::spawn(service::follow(house.clone(), manager, line)),
    ];
    let watch = || house.is_busy() || clients.load(Ordering::Relaxed) > 0;
    let closing = tokio::select! {
        () = stop.cancelled() => { tracing::info!("asked to stop"); None }
        result = told_to_stop(|| service::reload(&house, manager, &facts.line()), upgrades.clone()) => { result?; None }
        () = unneeded(life.leaves, watch) => { tracing::info!("nobody needs the daemon; it leaves"); None }
        fault = house.engine.broken() => { tracing::error!(%fault, "the journal takes no records; the next start replays it"); None }
        closing = closings.recv() => closing,
    };
    beside.iter().for_each(tokio::task::JoinHandle::abort);
    match closing {
        None => {
            manager.stopping();
            stop.cancel();
            house.leave();
            house.engine.stand_still(LAST_WORDS).await;
            let ended = house.engine.shutdown(PATIENCE).await;
            farewell(&house).await;
            if tokio::time::timeout(PATIENCE, server).await.is_err() {
                tracing::warn!("some clients did not go; their connections are cut");
            }
            tracing::info!("stopped");
            ended.map(|()| Ended::Stopped)
        }
        Some(closing) => Ok(close(life, &house, (stop, server), closing, upgrades).await),
    }
}

/// Lets the courier go, if it has nothing to carry.
async fn farewell(house: &House) {
    if tokio::time::timeout(PATIENCE, house.farewell()).await.is_err() {
        tracing::warn!("the courier gave no answer; it ends by itself when nobody needs it");
    }
}

/// The upgrades of this process, holding what it would hand over.
fn upgrades(life: &Life, listener: &tokio::net::UnixListener, lock: File) -> Result<(Arc<Upgrades>, mpsc::Receiver<Closing>), Fault> {
    let held = listener.as_fd().try_clone_to_owned();
    let held = held.map_err(|error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("the socket can not be held: {error}")))?;
    let place = Place { listener: UnixListener::from(held), lock };
    Ok(Upgrades::new(life.start.clone(), life.env.clone(), place, life.places.data.display().to_string()))
}

/// Builds the house, and lets the service manager know that it takes long.
async fn built(life: &Life, manager: Manager, ground: Ground) -> Result<House, Fault> {
    let building = wire::build(&life.places, &life.env, life.sources.clone(), ground);
    tokio::pin!(building);
    let mut waited = Duration::ZERO;
    loop {
        tokio::select! {
            house = &mut building => return house,
            () = tokio::time::sleep(STARTING) => {
                waited += STARTING;
                manager.starting(&format!("reading the journal for {} s", waited.as_secs()), STARTING * 15);
            }
        }
    }
}

/// Ends the process at a step of a handover that is not the way back, for tests.
fn fail_at(life: &Life, opening: &Opening, name: &str) {
    if opening.parcel.as_ref().is_some_and(|parcel| parcel.took_back.is_none()) {
        handover::step(&life.env, name);
    }
}

/// Proves that clients are served, tells it, and counts what became of commands meanwhile.
async fn arrived(
    life: &Life,
    house: &Arc<House>,
    upgrades: &Arc<Upgrades>,
    (parcel, go): (&Parcel, &Go),
    link: Option<&UnixStream>,
) -> Result<(), Fault> {
    let is_back = parcel.took_back.is_some();
    // Through the socket, as any client would: that is what the old one waits for.
    Client::connect(life.places.socket()).await?.ready().await?;
    if !is_back {
        handover::step(&life.env, "new:serving");
    }
    let gap_ms = if go.closed_ms == 0 { 0 } else { SystemClock.now().mono_ms.saturating_sub(go.closed_ms) };
    link.into_iter().for_each(handover::healthy);
    let why = parcel.took_back.clone().unwrap_or_default();
    tracing::info!(from = parcel.from_pid, release = parcel.from_version, gap_ms, why, "took the place over");
    upgrades.came_from(UpgradeView {
        state: "handing-over".to_owned(),
        from_pid: parcel.from_pid,
        from_version: parcel.from_version.clone(),
        binary: parcel.binary.clone(),
        version: if is_back { String::new() } else { env!("CARGO_PKG_VERSION").to_owned() },
        carried: go.carried,
        gap_ms,
        why,
        ..UpgradeView::default()
    });
    let (house, upgrades, runs) = (Arc::clone(house), Arc::clone(upgrades), go.runs.clone());
    tokio::spawn(async move {
        count(&house, &upgrades, &runs).await;
        upgrades.note(|view| view.state = if is_back { "taken-back" } else { "done" }.to_owned());
    });
    Ok(())
}

/// What became of the commands that ran when the place changed hands.
async fn count(house: &House, upgrades: &Upgrades, runs: &[String]) {
    for run in runs.iter().filter_map(|run| run.parse().ok()) {
        let unit = match house.sandbox.attach(run).await {
            Ok(Found::Unit(unit)) => unit,
            Ok(Found::Lost(_)) => {
                upgrades.note(|view| view.indeterminate = view.indeterminate.saturating_add(1));
                continue;
            }
            Ok(Found::NeverRan) | Err(_) => continue,
        };
        let state = unit.wait(Until { timeout: Duration::ZERO, line: None, from: 0 }).await;
        upgrades.note(|view| match state {
            Ok(UnitState::Running) => view.adopted = view.adopted.saturating_add(1),
            Ok(UnitState::Ended(_)) => view.finished = view.finished.saturating_add(1),
            Ok(UnitState::Lost) | Err(_) => view.indeterminate = view.indeterminate.saturating_add(1),
        });
    }
}

type Server = tokio::task::JoinHandle<std::io::Result<()>>;

/// The last step before another process takes over: answers who was let in, and closes the journal.
async fn close(
    life: &Life,
    house: &House,
    (stop, server): (CancellationToken, Server),
    closing: Closing,
    upgrades: Arc<Upgrades>,
) -> Ended {
    handover::step(&life.env, "old:closing");
    let mark = socket::handover_mark(&life.places.socket());
    if let Err(error) = std::fs::write(&mark, b"") {
        tracing::debug!(%error, "clients are not told to be patient");
    }
    let closed_ms = SystemClock.now().mono_ms;
    stop.cancel();
    if tokio::time::timeout(LAST_REQUESTS, server).await.is_err() {
        tracing::warn!("some requests took too long; their connections are cut");
    }
    let runs = house.engine.open_runs();
    house.leave();
    if let Err(fault) = house.engine.shutdown(PATIENCE).await {
        // The next process replays what is on disk, as after a crash.
        tracing::error!(%fault, "the journal was not closed in order");
    }
    handover::step(&life.env, "old:closed");
    let go = Go::of(&house.received.sent(), &house.secrets.known.values(), &runs, closing.carried, closed_ms);
    Ended::Handed(Box::new(closing), go, upgrades)
}

/// Gives the service manager signs of life that come from the engine, not from a timer.
async fn pulse(house: Arc<House>, facts: Arc<Facts>, manager: Manager) {
    let every = manager.pulse().unwrap_or(LOOK).min(LOOK);
    loop {
        tokio::time::sleep(every).await;
        match tokio::time::timeout(every, house.engine.beat()).await {
            Ok(Ok(_)) => {
                manager.alive();
                manager.status(&facts.line());
            }
            Ok(Err(fault)) => tracing::warn!(%fault, "the engine has no heartbeat"),
            Err(_) => tracing::error!("the engine gave no sign of life in time"),
        }
    }
}

async fn told_to_stop(reload: impl Fn(), upgrades: Arc<Upgrades>) -> Result<(), Fault> {
    let broken = |error: std::io::Error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("signals can not be heard: {error}"));
    let mut term = signal(SignalKind::terminate()).map_err(broken)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(broken)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(broken)?;
    loop {
        tokio::select! {
            _ = term.recv() => break,
            _ = interrupt.recv() => break,
            // A closed terminal is no wish to stop.
            _ = hangup.recv() => reload(),
        }
    }
    tracing::info!("told to stop by a signal");
    tokio::spawn(async move {
        // A second one means: at once. That is safe, because SIGKILL is.
        tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        // A successor that waits would take an end without a word for its turn.
        upgrades.abandon();
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
