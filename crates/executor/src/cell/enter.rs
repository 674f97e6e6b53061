//! `__enter`: leaves the host's namespaces and becomes the parent of their PID 1, which is `init`.
//!
//! It stays as the parent, so that its death takes PID 1 and with it the whole sandbox along. PID 1 is forked and not
//! executed anew: nothing but the control socket is in this memory, and an execution costs 2 ms. Invariant: the
//! user's number is mapped to itself, never to 0, so that programs see who they are.

use super::control::Control;
use super::{At, Broken, close_standard, init};
use crate::wire::FromCell;
use rustix::process::{Pid, Signal, WaitOptions, set_parent_process_death_signal, waitpid};
use rustix::thread::{CapabilitySet, CapabilitySets, UnshareFlags};
use std::ffi::OsString;

/// Runs the stage: `__enter <control descriptor> <host network: 0 or 1>`.
pub fn main(args: &[OsString]) -> i32 {
    let text = |at: usize| args.get(at).and_then(|arg| arg.to_str()).unwrap_or("");
    let Ok(mut control) = Control::inherit(text(2)) else { return 125 };
    match run(&mut control, text(3) == "1") {
        Ok(None) => init::run(control),
        Ok(Some(child)) => {
            // Our copy must close, or the keeper would never see the end of PID 1.
            drop(control);
            // The command's pipes too, or their end would never be seen.
            close_standard();
            end_of(child).unwrap_or(125)
        }
        Err(broken) => {
            // The keeper is gone if this fails, and nothing ran.
            drop(control.send(&FromCell::Failed { step: broken.step, why: broken.why }));
            125
        }
    }
}

/// The number of PID 1, or `None` in PID 1.
fn run(control: &mut Control, host_network: bool) -> Result<Option<Pid>, Broken> {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    init::easy_victim();
    leave(host_network)?;
    std::fs::write("/proc/self/setgroups", "deny").at("deny setgroups")?;
    std::fs::write("/proc/self/uid_map", format!("{uid} {uid} 1\n")).at("map the user")?;
    std::fs::write("/proc/self/gid_map", format!("{gid} {gid} 1\n")).at("map the group")?;
    keep_capabilities()?;
    // Only now: a change of credentials clears it.
    set_parent_process_death_signal(Some(Signal::KILL)).at("parent death signal")?;
    let child = fork().at("start PID 1")?;
    if let Some(pid) = child {
        control.send(&FromCell::Init { pid: pid.as_raw_nonzero().get() }).at("report PID 1")?;
    }
    Ok(child)
}

#[allow(unsafe_code)]
fn fork() -> std::io::Result<Option<Pid>> {
    // SAFETY: this process has one thread, so the child finds no lock held by another.
    match unsafe { libc::fork() } {
        pid if pid < 0 => Err(std::io::Error::last_os_error()),
        pid => Ok(Pid::from_raw(pid)),
    }
}

/// The exit code of the child, when it has ended.
fn end_of(child: Pid) -> Option<i32> {
    loop {
        match waitpid(Some(child), WaitOptions::empty()) {
            Ok(Some((_, status))) => return status.exit_status(),
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return None,
        }
    }
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

/// Keeps of the new namespace's capabilities those that building needs; `init` drops them all before the command runs.
fn keep_capabilities() -> Result<(), Broken> {
    let wanted = CapabilitySet::SYS_ADMIN
        | CapabilitySet::NET_ADMIN
        | CapabilitySet::SETPCAP
        | CapabilitySet::SYS_CHROOT
        | CapabilitySet::DAC_OVERRIDE
        | CapabilitySet::DAC_READ_SEARCH
        | CapabilitySet::FOWNER;
    let sets = CapabilitySets { effective: wanted, permitted: wanted, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets).at("keep capabilities")
}
