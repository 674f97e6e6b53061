//! The roof: one binary that chooses, wires, starts and stops everything.
//!
//! Only this crate names concrete adapters, reads the environment and opens configuration.
//! Invariant: nothing is built that the command at hand does not need.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

mod chores;
mod clean;
mod clock;
mod config;
mod courier;
mod daemon;
mod demo;
mod egress;
mod environment;
mod halt;
mod handover;
mod house;
mod live;
mod mcp;
mod memory;
mod panic;
mod places;
mod policy;
mod project;
mod secrets;
mod service;
mod start;
mod wire;

use environment::Environment;
use house::Roof;
use std::ffi::OsString;
use std::process::ExitCode;
use std::sync::Arc;
use tinkerbell_cli::{Args, Command, DaemonCommand, Output};
use tinkerbell_core::code::{Fault, exit};

/// A daemon that a client started for itself leaves when nobody needs it; not for people.
const LEAVES: &str = "--leaves";
/// Another process hands its place over on standard input; not for people.
const HANDED: &str = "--handed";

fn main() -> ExitCode {
    let mut argv: Vec<OsString> = std::env::args_os().collect();
    // Keepers and sandbox stages come first: they need a process with a single thread.
    if let Some(code) = tinkerbell_executor::early_main(&argv) {
        return ExitCode::from(u8::try_from(code).unwrap_or(exit::INTERNAL));
    }
    if let Some(code) = egress::early_main(&argv).or_else(|| courier::early_main(&argv)) {
        return ExitCode::from(code);
    }
    panic::install();
    let [leaves, handed] = [LEAVES, HANDED].map(|word| argv.iter().any(|arg| arg == word));
    argv.retain(|arg| arg != LEAVES && arg != HANDED);
    let args = match tinkerbell_cli::parse(argv) {
        Ok(args) => args,
        Err(code) => return ExitCode::from(code),
    };
    ExitCode::from(run(args, Hidden { leaves, handed }))
}

/// What a daemon is told that is not for people.
#[derive(Debug, Clone, Copy)]
pub struct Hidden {
    /// It leaves when nobody needs it.
    pub leaves: bool,
    /// Another process hands its place over.
    pub handed: bool,
}

fn run(args: Args, hidden: Hidden) -> u8 {
    if let Some(code) = tinkerbell_cli::offline(&args) {
        return code;
    }
    let out = Output::process(&args.manners);
    let roof = match roof(&args) {
        Ok(roof) => roof,
        Err(fault) => return out.fail(&fault),
    };
    if let Command::Daemon(DaemonCommand::Start { foreground: true }) = &args.command {
        return roof.be_daemon(hidden).unwrap_or_else(|fault| out.fail(&fault));
    }
    // One thread: a client waits for a socket and for a terminal, and for nothing else.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime {
        Ok(runtime) => {
            let code = runtime.block_on(tinkerbell_cli::run(args, Arc::new(roof)));
            // A thread that still reads the terminal must not hold the exit up.
            runtime.shutdown_background();
            code
        }
        Err(error) => out.fail(&Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("no runtime: {error}"))),
    }
}

fn roof(args: &Args) -> Result<Roof, Fault> {
    let exe = std::env::current_exe().map_err(|error| {
        Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("the path of this program is unknown: {error}")).hint("is /proc mounted?")
    })?;
    Ok(Roof { env: Environment::of_process(), exe, set: args.manners.set.clone(), yes: args.manners.yes, lenient: false })
}
