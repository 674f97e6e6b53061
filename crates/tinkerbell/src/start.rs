//! Starting a daemon from a client: spawn ourselves, wait until it serves.
//!
//! The loser of a race between two clients ends quietly and uses the winner's. Invariant: returning
//! `Ok` means that somebody answered on the socket.

use crate::daemon::{READY, TAKEN};
use crate::environment::Environment;
use crate::places::Places;
use crate::service::VARIABLES;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_core::code::{Fault, exit};
use tokio::io::{AsyncBufReadExt as _, BufReader};

/// A daemon that does not serve within this time has failed. Generous: replaying a large journal
/// on a busy machine takes seconds, and the caller sees the daemon's own error sooner.
const PATIENCE: Duration = Duration::from_secs(20);
/// How long a daemon that another client started may take.
const OTHERS: Duration = Duration::from_secs(5);
/// How long one that another daemon kept from starting is waited for before the next try.
const AGAIN: Duration = Duration::from_millis(300);

/// What a daemon is started with.
pub struct Own<'a> {
    /// The binary.
    pub exe: &'a Path,
    /// Options of our own command line that it must be told.
    pub args: Vec<String>,
    /// Our environment.
    pub env: &'a Environment,
    /// Variables that hold keys.
    pub keys: Vec<String>,
}

/// A client, with a daemon started for it when none answers.
///
/// # Errors
/// The connection's fault, or why the daemon could not be started.
pub async fn connect(places: &Places, own: &Own<'_>) -> Result<Client, Fault> {
    let mut first = Client::connect(places.socket()).await;
    if first.as_ref().is_err_and(|fault| fault.code.0 == "TB-API-002") {
        // A daemon on its way out may still take a connection that it never answers; a moment
        // later it is gone and says so.
        tokio::time::sleep(Duration::from_millis(100)).await;
        first = Client::connect(places.socket()).await;
    }
    match first {
        Ok(client) => return Ok(client),
        Err(fault) if fault.code.0 != "TB-API-001" => return Err(fault),
        Err(_) => {}
    }
    let tries = async {
        loop {
            let patience = match spawn(places, own).await? {
                Spawned::Ready => OTHERS,
                // It may be a daemon that has just stopped and not yet let go.
                Spawned::Taken => AGAIN,
            };
            match wait(places, patience).await {
                Err(fault) if fault.code.0 == "TB-API-001" => {}
                other => return other,
            }
        }
    };
    match tokio::time::timeout(PATIENCE, tries).await {
        Ok(result) => result,
        Err(_) => Err(failed(places, &format!("another one holds the data and does not answer within {} s", PATIENCE.as_secs()))),
    }
}

/// How a daemon's start went.
enum Spawned {
    /// It serves.
    Ready,
    /// Another one holds the data directory.
    Taken,
}

async fn wait(places: &Places, patience: Duration) -> Result<Client, Fault> {
    let tries = async {
        loop {
            match Client::connect(places.socket()).await {
                Err(fault) if fault.code.0 == "TB-API-001" => tokio::time::sleep(Duration::from_millis(20)).await,
                other => return other,
            }
        }
    };
    match tokio::time::timeout(patience, tries).await {
        Ok(result) => result,
        Err(_) => Client::connect(places.socket()).await,
    }
}

async fn spawn(places: &Places, own: &Own<'_>) -> Result<Spawned, Fault> {
    places.make(rustix::process::getuid().as_raw())?;
    let log = OpenOptions::new().create(true).append(true).mode(0o600).open(places.log());
    let log = log.map_err(|error| failed(places, &format!("{} can not be written: {error}", places.log().display())))?;
    let mut command = tokio::process::Command::new(own.exe);
    // Keys go over the socket: what stands in a process's environment can not be taken back. If we run
    // in somebody's service, its manager's protocol is not the daemon's either.
    command.env_clear().envs(own.env.for_daemon(&own.keys).into_iter().filter(|(name, _)| !VARIABLES.contains(name)));
    let mut child = command
        .args(["daemon", "start", "--foreground", "--leaves"])
        .args(&own.args)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::from(log))
        .spawn()
        .map_err(|error| failed(places, &format!("{} can not be run: {error}", own.exe.display())))?;
    let Some(out) = child.stdout.take() else { return Ok(Spawned::Taken) };
    let mut line = String::new();
    let mut reader = BufReader::new(out);
    let read = tokio::time::timeout(PATIENCE, reader.read_line(&mut line)).await;
    match (read, line.trim()) {
        (Ok(Ok(_)), READY) => Ok(Spawned::Ready),
        (Ok(Ok(_)), TAKEN) => Ok(Spawned::Taken),
        (Ok(_), _) => Err(failed(places, &last_words(places))),
        (Err(_), _) => Err(failed(places, &format!("it did not answer within {} s", PATIENCE.as_secs()))),
    }
}

fn last_words(places: &Places) -> String {
    let text = std::fs::read_to_string(places.log()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().rev().take(12).collect();
    // The error that the daemon printed on its way out, with its hints.
    let start = lines.iter().position(|line| line.starts_with("error[")).map_or(lines.len().min(1), |at| at + 1);
    let words: Vec<&str> = lines.into_iter().take(start).rev().collect();
    if words.is_empty() { "it ended without a word".to_owned() } else { words.join("\n") }
}

fn failed(places: &Places, why: &str) -> Fault {
    Fault::new("TB-DAEMON-002", exit::UNAVAILABLE, format!("the daemon could not be started: {why}"))
        .hint(format!("its log: {}", places.log().display()))
        .hint("tinkerbell daemon start --foreground   shows what it says")
}
