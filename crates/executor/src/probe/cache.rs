//! The self-test's result on disk, good for one kernel, boot, user, binary and network.
//!
//! Invariant: a cache that can not be read or does not match is no cache; it is never an error.

use super::format::{Report, VERSION};
use crate::options::{NetworkChoice, SandboxOptions};
use std::os::unix::fs::MetadataExt;

/// What a result holds for.
#[must_use]
pub fn key(options: &SandboxOptions) -> String {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    // Size, time and inode instead of a hash of tens of megabytes at each start.
    let binary = std::fs::metadata(&options.exe)
        .map(|meta| format!("{}-{}-{}-{}", meta.dev(), meta.ino(), meta.size(), meta.mtime_nsec() + meta.mtime() * 1_000_000_000))
        .unwrap_or_default();
    let network = if options.network == NetworkChoice::Host { "host" } else { "none" };
    let boot = crate::process::boot_id();
    let uid = rustix::process::geteuid().as_raw();
    // A container on the same kernel has its own namespaces and filters.
    let place = std::fs::read_link("/proc/self/ns/user").unwrap_or_default();
    let confined = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let confined: Vec<&str> =
        confined.lines().filter(|l| l.starts_with("Seccomp:") || l.starts_with("NoNewPrivs:") || l.starts_with("CapBnd:")).collect();
    let confined = confined.join(" ").replace('\t', "");
    let choices = format!("{:?} {:?}", options.level, options.workspace);
    format!("{release} {boot} {uid} {binary} {network} {choices} {} {confined} {}", place.display(), switches())
}

/// Switches of the host that decide whether user namespaces work.
fn switches() -> String {
    let read = |name: &str| std::fs::read_to_string(format!("/proc/sys/{name}")).unwrap_or_default().trim().to_owned();
    ["kernel/apparmor_restrict_unprivileged_userns", "kernel/unprivileged_userns_clone", "user/max_user_namespaces"].map(read).join("/")
}

/// The cached result, if it holds now.
#[must_use]
pub fn load(options: &SandboxOptions) -> Option<Report> {
    let bytes = std::fs::read(options.cache_dir.join("sandbox-probe.json")).ok()?;
    let report: Report = serde_json::from_slice(&bytes).ok()?;
    (report.version == VERSION && report.key == key(options)).then_some(report)
}

/// Keeps a result that lets commands run; failing only costs the next start some time. A refusal is
/// not kept: it may have been a bad moment, and whoever repairs the host wants to be believed.
pub fn store(options: &SandboxOptions, report: &Report) {
    if report.choose(options.level).is_err() {
        return;
    }
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(&options.cache_dir)?;
        let temporary = options.cache_dir.join(format!("sandbox-probe.{}.new", std::process::id()));
        std::fs::write(&temporary, serde_json::to_vec(report)?)?;
        std::fs::rename(&temporary, options.cache_dir.join("sandbox-probe.json"))
    };
    if let Err(error) = write() {
        tracing::warn!(%error, "the sandbox's self-test could not be cached");
    }
}
