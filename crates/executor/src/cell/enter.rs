//! `__enter`: leaves the host's namespaces and starts `__init` as PID 1 of the new ones.
//!
//! It stays as the parent, so that its death takes PID 1 and with it the whole sandbox along.
//! Invariant: the user's number is mapped to itself, never to 0, so that programs see who they are.

use super::control::Control;
use super::{At, Broken, close_standard};
use crate::wire::FromCell;
use rustix::process::{Signal, set_parent_process_death_signal};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use std::ffi::OsString;
use std::os::fd::AsRawFd;
use std::process::Command;

/// The inode that runs, also after its file was replaced or removed.
const OURSELVES: &str = "/proc/self/exe";

/// Runs the stage: `__enter <control descriptor> <host network: 0 or 1>`.
pub fn main(args: &[OsString]) -> i32 {
    let text = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or("");
    let Ok(mut control) = Control::inherit(text(2)) else { return 125 };
    match run(&mut control, text(3) == "1") {
        Ok(mut child) => {
            // Our copy must close, or the keeper would never see the end of PID 1.
            drop(control);
            // The command's pipes too, or their end would never be seen.
            close_standard();
            child.wait().ok().and_then(|status| status.code()).unwrap_or(125)
        }
        Err(broken) => {
            // The keeper is gone if this fails, and nothing ran.
            drop(control.send(&FromCell::Failed { step: broken.step, why: broken.why }));
            125
        }
    }
}

fn run(control: &mut Control, host_network: bool) -> Result<std::process::Child, Broken> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    leave(host_network)?;
    std::fs::write("/proc/self/setgroups", "deny").at("deny setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n")).at("map the user")?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n")).at("map the group")?;
    keep_capabilities()?;
    // Only now: a change of credentials clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).at("parent death signal")?;
    rustix::io::fcntl_setfd(control.fd(), rustix::io::FdFlags::empty()).at("pass the control socket")?;
    let child = Command::new(OURSELVES).arg("__init").arg(control.fd().as_raw_fd().to_string()).spawn().at("start PID 1")?;
    control.send(&FromCell::Init { pid: child.id().cast_signed() }).at("report PID 1")?;
    Ok(child)
}

#[allow(unsafe_code)]
fn leave(host_network: bool) -> Result<(), Broken> {
    let mut flags = UnshareFlags::NEWUSER
        | UnshareFlags::NEWNS
        | UnshareFlags::NEWPID
        | UnshareFlags::NEWIPC
        | UnshareFlags::NEWUTS
        | UnshareFlags::NEWCGROUP;
    if !host_network {
        flags |= UnshareFlags::NEWNET;
    }
    // SAFETY: the flags do not hold `FILES`, the only one that can take descriptors from another
    // thread; this process has one thread anyway.
    unsafe { rustix::thread::unshare_unsafe(flags) }.at("new namespaces")
}

/// Makes the new namespace's capabilities survive the exec of `__init`, which runs as a user other
/// than 0 and would lose them; `__init` drops them all before the command runs.
fn keep_capabilities() -> Result<(), Broken> {
    let wanted = CapabilitySet::SYS_ADMIN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::SETPCAP
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER;
    let held = rustix::thread::capabilities(None).at("read capabilities")?;
    let sets = CapabilitySets { inheritable: wanted, ..held };
    rustix::thread::set_capabilities(None, sets).at("inherit capabilities")?;
    for cap in wanted.iter() {
        rustix::thread::configure_capability_in_ambient_set(cap, true).at("raise capabilities")?;
    }
    Ok(())
}
