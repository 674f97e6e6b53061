//! The deterministic simulator: engine, journal and keeper logic under faults, by seed.
//!
//! Not a test of adapters: processes, network and disk are models. What is real is named in
//! `docs/simulation.md`. Invariant: a failure is printed with the seed that brings it back.

mod acts;
mod blobs;
mod client;
mod daemon;
mod dice;
mod disk;
mod files;
mod history;
mod host;
mod journal;
mod judge;
mod life;
mod oracle;
mod peer;
mod plan;
mod plant;
mod report;
mod runner;
mod sandbox;
mod shrink;
mod stats;
mod time;
mod world;

use std::process::ExitCode;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A panic under one of these locks is a finding of its own, so its value is taken as it is.
fn hold<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match report::Wish::parse(&words) {
        Ok(wish) => report::fulfil(&wish),
        Err(why) => {
            report::say(&format!("{why}\n\n{}", report::USAGE));
            ExitCode::from(2)
        }
    }
}
