//! The host: limits of this process, the clock, certificates, proxies.
//!
//! Reads only. Invariant: the address of a proxy is not told, because it may hold a password.

use super::super::Shop;
use super::super::text::moment;
use super::report::{Finding, Group};
use crate::clock::SystemClock;
use rustix::process::{Resource, getrlimit};
use std::path::{Path, PathBuf};
use tinkerbell_core::clock::Clock as _;
use tinkerbell_wal::inspect;

/// Files that the daemon with some tasks may hold open.
const FILES: u64 = 1_024;
/// Processes that a build may start.
const PROCESSES: u64 = 256;
/// 2026-01-01: no release is older.
const RELEASED_MS: u64 = 1_767_225_600_000;
/// A clock that runs behind the journal by more than this was set back.
const SLACK_MS: u64 = 5_000;

/// Examines the host.
pub fn look(shop: &Shop<'_>) -> Group {
    let files = getrlimit(Resource::Nofile).current;
    let processes = getrlimit(Resource::Nproc).current;
    let mut findings = vec![
        limit("open files", files, FILES, "ulimit -n 4096 (lasting: LimitNOFILE= or /etc/security/limits.conf)"),
        limit("processes", processes, PROCESSES, "ulimit -u 4096 (lasting: TasksMax= or /etc/security/limits.conf)"),
        clock(SystemClock.now().wall_ms, newest_record(shop)),
        certificates(shop),
    ];
    let proxies: Vec<&str> = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"].into_iter().filter(|name| shop.env.get(name).is_some()).collect();
    if !proxies.is_empty() {
        findings.push(Finding::good("proxy", format!("{} set", proxies.join(", "))));
    }
    Group { name: "Host", findings }
}

/// `None` is no limit.
fn limit(name: &str, current: Option<u64>, least: u64, fix: &str) -> Finding {
    match current {
        None => Finding::good(name, "no limit"),
        Some(most) if most >= least => Finding::good(name, format!("at most {most}")),
        Some(most) => Finding::look(name, format!("at most {most}; {least} are wanted"), fix),
    }
}

/// When the newest batch was written. Only the last segment can hold it, but its name is the
/// journal's own affair; a dump of the last record is cheap enough here.
fn newest_record(shop: &Shop<'_>) -> Option<u64> {
    let dir = shop.places.journal();
    if !dir.exists() {
        return None;
    }
    let tip = inspect::stat(&dir).ok()?.tip;
    let last = inspect::dump(&dir, &inspect::Filter { from: tip, limit: 1, ..inspect::Filter::default() }, None).ok()?;
    last.first().map(|entry| entry.batch_wall_ms)
}

fn clock(now_ms: u64, newest_ms: Option<u64>) -> Finding {
    let fix = "set the clock: sudo timedatectl set-ntp true";
    if now_ms < RELEASED_MS {
        return Finding::look("clock", format!("{} is before this release", moment(now_ms)), fix);
    }
    match newest_ms.filter(|newest| *newest > now_ms.saturating_add(SLACK_MS)) {
        Some(newest) => Finding::look("clock", format!("{} is before the newest record, {}", moment(now_ms), moment(newest)), fix),
        None => Finding::good("clock", moment(now_ms)),
    }
}

fn certificates(shop: &Shop<'_>) -> Finding {
    const PLACES: [&str; 5] = [
        "/etc/ssl/certs/ca-certificates.crt",
        "/etc/pki/tls/certs/ca-bundle.crt",
        "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
        "/etc/ssl/ca-bundle.pem",
        "/etc/ssl/cert.pem",
    ];
    if let Some(own) = shop.env.path("SSL_CERT_FILE") {
        return if own.is_file() {
            Finding::good("certificates", format!("SSL_CERT_FILE: {}", own.display()))
        } else {
            Finding::bad(
                "certificates",
                format!("SSL_CERT_FILE names {}, which is not there", own.display()),
                "unset SSL_CERT_FILE, or give a file of CA certificates",
            )
        };
    }
    let found: Option<PathBuf> = PLACES.iter().map(PathBuf::from).find(|path| Path::is_file(path));
    match found {
        Some(path) => Finding::good("certificates", path.display().to_string()),
        None => Finding::look(
            "certificates",
            "no CA certificates found; hosted models can not be reached",
            "install the package ca-certificates, or set SSL_CERT_FILE",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn low_limits_and_wrong_clocks_are_noticed() {
        let good = |finding: Finding| finding == Finding::good("x", "no limit") || format!("{finding:?}").contains("mark: Good");
        for (current, expected) in [(None, true), (Some(FILES), true), (Some(256), false)] {
            assert_eq!(good(limit("x", current, FILES, "fix")), expected);
        }
        let now = RELEASED_MS + 1_000_000;
        for (now, newest, expected) in [(now, None, true), (now, Some(now), true), (now, Some(now + 60_000), false), (1_000, None, false)] {
            assert_eq!(good(clock(now, newest)), expected);
        }
    }
}
