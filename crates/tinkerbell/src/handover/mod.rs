//! Handing the daemon's place to another binary, without a refused client or a lost record.
//!
//! `old` looks for a successor while it still works; `guard` is what is left of the old process while
//! the new one starts; `new` is the new one. The sockets and the lock on the data directory pass from
//! hand to hand as descriptors, so nobody else can slip in between. Invariant: at any moment at most
//! one process has the journal open, and whoever holds the descriptors can start on it.

mod guard;
mod look;
mod new;
mod old;
pub mod parcel;
pub mod wire;

pub use guard::{become_guard, watch};
pub use new::{Place, receive, settle, tell};
pub use old::{Closing, Upgrades, healthy};

use crate::environment::Environment;
use tinkerbell_core::code::{Fault, exit};

/// Ends or stops the process at a step of the handover, for tests of debug builds:
/// `TINKERBELL_FAIL_AT=STEP` kills it, `STEP=hang` stops it, `STEP=exit` lets it leave.
#[cfg(debug_assertions)]
pub fn step(env: &Environment, name: &str) {
    let Some(wanted) = env.get("TINKERBELL_FAIL_AT") else { return };
    let (step, how) = wanted.split_once('=').unwrap_or((wanted, "kill"));
    if step != name {
        return;
    }
    tracing::warn!(step, how, "made to fail, for a test");
    match how {
        "hang" => loop {
            std::thread::park();
        },
        "exit" => std::process::exit(1),
        // As the kernel would: no handler, no flush.
        _ => drop(rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)),
    }
}

/// Does nothing in release builds.
#[cfg(not(debug_assertions))]
pub const fn step(_env: &Environment, _name: &str) {}

/// What the processes of a handover need of their own start.
#[derive(Debug, Clone)]
pub struct Start {
    /// What follows `daemon start --foreground`: options of our own command line.
    pub args: Vec<String>,
}

impl Start {
    /// The words that make a binary take over.
    pub fn words(&self) -> impl Iterator<Item = &str> {
        ["daemon", "start", "--foreground", crate::HANDED].into_iter().chain(self.args.iter().map(String::as_str))
    }
}

/// An upgrade that did not happen; nothing was touched.
pub fn refused(why: &str) -> Fault {
    Fault::new("TB-DAEMON-011", exit::FAILED, format!("the upgrade was refused, and nothing was touched: {why}"))
        .hint("the running daemon goes on; `tinkerbell daemon logs` has more")
}
