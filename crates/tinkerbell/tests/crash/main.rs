//! The crash matrix: real processes, real SIGKILLs, and what became of the work.
//!
//! `cargo xtask crash` runs it; without words it is a short, bounded run. The oracle counts what
//! happened in the world (files, answers that a client took, processes), never what a product says
//! of itself. Invariant: the exit code is 1 when one count that must be zero is not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::disallowed_methods
)]

#[path = "../it/home.rs"]
#[allow(dead_code, reason = "shared with the other tests of the house")]
mod home;
mod ours;
mod peers;
mod words;

use std::process::ExitCode;
use words::Words;

fn main() -> ExitCode {
    let words = match Words::parse(std::env::args().skip(1)) {
        Ok(words) => words,
        Err(why) => {
            eprintln!("crash: {why}\n{}", words::USAGE);
            return ExitCode::from(2);
        }
    };
    let Some(words) = words else { return ExitCode::SUCCESS };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let good = runtime.block_on(async {
        let good = words.kills == 0 || ours::run(&words).await;
        match &words.peers {
            Some(dir) => peers::run(dir, words.trials).await && good,
            None => good,
        }
    });
    if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
