//! Runs one program and learns what it cost, from the kernel's own books.
//!
//! `wait4` gives CPU time in microseconds and the highest resident size of exactly this child; no
//! safe wrapper of it is among our libraries. The highest resident size starts at that of the
//! process that forked, so the figure is never below this chore's own few megabytes.
#![allow(unsafe_code, reason = "one system call, wait4; see `wait`")]

use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// What a program cost.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    /// From start to end.
    pub wall: Duration,
    /// User and system time of the program and of the children that it waited for.
    pub cpu: Duration,
    /// Highest resident size in kB.
    pub peak_kb: u64,
}

/// Runs a program to its end.
///
/// # Errors
/// It cannot be started, or it does not succeed.
pub fn cost(command: &mut Command) -> Result<Cost> {
    let start = Instant::now();
    let child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let (status, usage) = wait(&child)?;
    let wall = start.elapsed();
    if status != 0 {
        bail!("{command:?} failed with wait status {status:#x}");
    }
    // Kilobytes on Linux, bytes on macOS.
    let unit = if cfg!(target_os = "macos") { 1024 } else { 1 };
    Ok(Cost { wall, cpu: duration(usage.ru_utime) + duration(usage.ru_stime), peak_kb: u64::try_from(usage.ru_maxrss).unwrap_or(0) / unit })
}

fn wait(child: &Child) -> Result<(i32, libc::rusage)> {
    let pid = libc::pid_t::try_from(child.id()).context("the process id is out of range")?;
    let mut status = 0;
    // SAFETY: `rusage` is plain integers, for which all zeroes are a valid value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers come from live, exclusive references, and `pid` is a child that
        // nobody else waits for: `Child` is only borrowed and never waited for by the caller.
        let waited = unsafe { libc::wait4(pid, &raw mut status, 0, &raw mut usage) };
        if waited == pid {
            return Ok((status, usage));
        }
        let error = std::io::Error::last_os_error();
        if error.kind() != std::io::ErrorKind::Interrupted {
            return Err(error).context("wait4");
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(seconds) + Duration::from_micros(micros)
}

#[cfg(test)]
mod tests {
    use super::cost;
    use std::process::Command;

    #[test]
    fn a_program_that_ran_has_a_cost() {
        let cost = cost(Command::new("/bin/sh").args(["-c", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done"])).unwrap();
        assert!(cost.cpu.as_micros() > 0, "{cost:?}");
        assert!(cost.peak_kb > 100, "{cost:?}");
        assert!(cost.wall >= cost.cpu / 4, "{cost:?}");
    }

    #[test]
    fn a_failed_program_has_none() {
        assert!(cost(Command::new("/bin/sh").args(["-c", "exit 3"])).is_err());
        assert!(cost(&mut Command::new("/no/such/program")).is_err());
    }
}
