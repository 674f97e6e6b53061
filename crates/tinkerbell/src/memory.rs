//! A process's memory, closed to others of the same user.
//!
//! Daemon and courier hold keys; so does a keeper while its command runs, which closes itself. What
//! stays open: root, and a process that may trace all others. Invariant: called before the first secret
//! is received.

use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use tinkerbell_core::code::{Fault, exit};

/// Writes no core file from now on, and lets nobody trace this process or read its `/proc` entries.
///
/// # Errors
/// When the kernel refuses; then the process must not take secrets.
pub fn close() -> Result<(), Fault> {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    let closed = setrlimit(Resource::Core, none).and_then(|()| set_dumpable_behavior(DumpableBehavior::NotDumpable));
    closed.map_err(|error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("its memory can not be closed to others: {error}")))
}
