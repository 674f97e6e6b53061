//! What is left of the old process while the new one starts.
//!
//! The old daemon replaces its own image by this, so that none of its threads can still act, and keeps
//! its pid, so that a service manager sees it live. Invariant: either the new one has said that it
//! serves, or it is dead and the old binary takes over again.

use super::new::{Place, tell};
use super::wire::{Guard, Parcel, VERSION, Word};
use super::{Start, parcel, step};
use crate::clock::SystemClock;
use crate::environment::Environment;
use crate::service::Manager;
use rustix::process::{Pid, Signal, WaitOptions};
use std::io::{BufRead as _, BufReader};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt as _;
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};

/// Replaces this process by the guard; comes back only when that failed.
pub fn become_guard(start: &Start, parcel: Parcel, guard: Guard, place: &Place, link: &UnixStream) -> Fault {
    let parcel = Parcel { guard: Some(guard), ..parcel };
    replace(start, &parcel, &[place.listener.as_fd(), place.lock.as_fd(), link.as_fd()])
}

/// Watches over the start of the new process; returns once it serves. Where it does not, the old
/// binary takes over again in this process.
///
/// # Errors
/// When not even that was possible.
pub fn watch(start: &Start, env: &Environment, parcel: Parcel, fds: Vec<std::os::fd::OwnedFd>) -> Result<(), Fault> {
    step(env, "guard:begin");
    let (place, rest) = Place::of(fds)?;
    let guard = parcel.guard.clone().unwrap_or_default();
    let manager = Manager::of(env);
    manager.status("handing over to the new binary");
    let why = match rest.into_iter().next().map(UnixStream::from) {
        Some(link) => match serves(&link, &guard, env) {
            Ok(()) => {
                manager.main_pid(guard.child);
                return Ok(());
            }
            Err(why) => why,
        },
        None => "the link to it was lost".to_owned(),
    };
    end(guard.child);
    tracing::error!(why, "the new binary does not serve; the old one takes over again");
    let parcel = Parcel { v: VERSION, go: Some(guard.go), guard: None, took_back: Some(why), ..parcel };
    Err(replace(start, &parcel, &[place.listener.as_fd(), place.lock.as_fd()]))
}

/// Tells the new process that it is its turn, and waits for its word.
fn serves(link: &UnixStream, guard: &Guard, env: &Environment) -> Result<(), String> {
    let lost = |error: std::io::Error| format!("it ended before it served: {error}");
    tell(link, &Word::Go(guard.go.clone())).map_err(lost)?;
    step(env, "guard:told");
    let end_ms = SystemClock.now().mono_ms.saturating_add(guard.health_ms);
    let mut lines = BufReader::new(link);
    let mut line = String::new();
    loop {
        let left = end_ms.saturating_sub(SystemClock.now().mono_ms);
        let late = || format!("it did not serve within {} ms", guard.health_ms);
        if left == 0 {
            return Err(late());
        }
        link.set_read_timeout(Some(Duration::from_millis(left))).map_err(lost)?;
        match lines.read_line(&mut line) {
            Ok(0) => return Err("it ended before it served".to_owned()),
            Ok(_) => {}
            Err(error) if matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut) => return Err(late()),
            Err(error) => return Err(lost(error)),
        }
        match serde_json::from_str(&line) {
            Ok(Word::Healthy {}) => return Ok(()),
            Ok(Word::Refused { why }) => return Err(why),
            // A word of a later release that says nothing about this.
            _ => line.clear(),
        }
    }
}

/// Kills a child and waits until the kernel has taken back all that it held.
fn end(child: u32) {
    let Some(pid) = i32::try_from(child).ok().and_then(Pid::from_raw) else { return };
    // It may have ended by itself; the wait tells no more than that it has.
    let _ended = rustix::process::kill_process(pid, Signal::KILL).is_ok();
    let _reaped = rustix::process::waitpid(Some(pid), WaitOptions::empty()).is_ok();
}

/// Replaces this process by our own binary, which finds the parcel on its standard input.
fn replace(start: &Start, parcel: &Parcel, fds: &[std::os::fd::BorrowedFd<'_>]) -> Fault {
    let failed = |error: std::io::Error| {
        Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("the old binary could not take over again: {error}"))
            .hint("tinkerbell daemon start   replays the journal; nothing is lost")
    };
    let (ours, theirs) = match UnixStream::pair() {
        Ok(pair) => pair,
        Err(error) => return failed(error),
    };
    if let Err(error) = parcel::send(&ours, parcel, fds) {
        return failed(error);
    }
    // `ours` closes by itself at the exec; what was sent waits in the other end.
    failed(std::process::Command::new("/proc/self/exe").args(start.words()).stdin(std::os::fd::OwnedFd::from(theirs)).exec())
}
