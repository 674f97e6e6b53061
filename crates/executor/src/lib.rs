//! Commands under keepers in sandboxes; the blocking mains of keeper and sandbox.
//!
//! The daemon starts a keeper, the keeper a cell, the cell the command; each is this same binary in
//! another role. What to run and who may run it is decided elsewhere. Invariant: a command runs at
//! a level that was proven by attack on this host, and at most once per run id.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]
#![cfg(target_os = "linux")]

mod approval;
mod cell;
mod crowd;
mod disk;
mod error;
pub mod format;
#[doc(hidden)]
pub mod fuzz;
mod groups;
pub mod halt;
mod host;
mod keeper;
mod layer;
mod ledger;
mod memory;
mod options;
mod pass;
mod probe;
mod process;
mod profile;
mod remove;
mod run;
mod seatbelt;
mod spool;
pub mod tools;
mod traffic;
mod unit;
pub mod verdict;
mod wire;

pub use cell::landlock_abi;
pub use error::Error;
pub use groups::host_memory;
pub use host::HostSandbox;
pub use options::{LevelChoice, NetworkChoice, SandboxOptions, WayOut, WorkspaceChoice};
pub use probe::{Check, Report};
pub use seatbelt::seatbelt;

use std::ffi::OsString;

/// Runs the stage that `args` (program name first) asks for and gives its exit code; `None` for an
/// ordinary start. Call it before any thread or runtime exists: namespaces need a process with one
/// thread.
#[must_use]
pub fn early_main(args: &[OsString]) -> Option<i32> {
    match args.get(1)?.to_str()? {
        "__keeper" => Some(keeper::main(args)),
        "__enter" => Some(cell::enter_main(args)),
        "__init" => Some(cell::init_main(args)),
        "__probe" => Some(probe::main(args)),
        _ => None,
    }
}
