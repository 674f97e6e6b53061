//! The sandbox: each level attacked now, and which one a task gets.
//!
//! The self-test is the executor's; here it is told. Invariant: a level is called good only if every
//! single check of it held.

use super::super::Shop;
use super::super::apparmor::{self, Read};
use super::report::{Finding, Group, broken};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::options::Network;
use crate::config::{self, Config};
use crate::egress;
use crate::wire;
use std::sync::Arc;
use tinkerbell_core::amount;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Level, Limits};
use tinkerbell_executor::{Check, HostSandbox, LevelChoice, Report, WorkspaceChoice, landlock_abi};

/// Says whether AppArmor gives user namespaces by profile only.
const RESTRICTED: &str = "/proc/sys/kernel/apparmor_restrict_unprivileged_userns";
/// The oldest Landlock that fences enough.
const LEAST_ABI: i32 = 4;

/// Attacks every level and tells.
pub async fn look(shop: &Shop<'_>, config: &Config) -> Group {
    let options = wire::sandbox_options(config, shop.places, shop.env, Arc::default());
    let choices = (options.level, options.workspace);
    let sandbox = HostSandbox::new(options, Arc::new(SystemClock), Arc::new(SystemEntropy));
    let mut findings = match sandbox.probe_report().await {
        Ok(report) => judged(&report, choices),
        Err(fault) => vec![broken("self-test", &fault)],
    };
    findings.push(network(config));
    findings.push(landlock(landlock_abi()));
    findings.push(limits(config));
    findings.push(namespaces(&host));
    Group { name: "Sandbox", findings }
}

/// The levels of a report, the one that a task gets, and how its commands write.
pub fn judged(report: &Report, (choice, workspace): (LevelChoice, WorkspaceChoice)) -> Vec<Finding> {
    let chosen = report.choose(choice);
    let task = match &chosen {
        Ok(Level::None) => {
            Finding::look("a task gets", "level none: commands run unfenced, each is asked for", "set [sandbox] level = \"auto\"")
        }
        Ok(level) => Finding::good("a task gets", format!("level {}", level.name())),
        Err(_) => match report.choose(choice).map_err(Fault::from) {
            Err(fault) => broken("a task gets", &fault),
            Ok(level) => Finding::good("a task gets", format!("level {}", level.name())),
        },
    };
    let is_served = chosen.is_ok();
    let mut findings = vec![task];
    findings.extend(chosen.ok().map(|level| writing(report, level, workspace)));
    findings.extend([level("full", &report.full, choice, is_served), level("landlock", &report.landlock, choice, is_served)]);
    findings
}

/// Whether commands write to the worktree directly or to layers over it.
fn writing(report: &Report, level: Level, workspace: WorkspaceChoice) -> Finding {
    let name = "commands write";
    let held = report.overlay.iter().filter(|check| check.passed).count();
    let checks = format!("{held} of {} checks held", report.overlay.len());
    match (report.overlay(level, workspace).map_err(Fault::from), workspace) {
        (Err(fault), _) => broken(name, &fault),
        (Ok(true), WorkspaceChoice::Overlay) => Finding::good(name, format!("to layers, applied path by path ({checks})")),
        (Ok(true), _) => Finding::good(name, format!("directly to the worktree, the check to a layer ({checks})")),
        (Ok(false), WorkspaceChoice::Auto) if level == Level::Full => {
            let failed = report.overlay.iter().filter(|check| !check.passed).map(|check| format!("{}: {}", check.name, check.text));
            Finding::good(name, "directly to the worktree; layers do not work here").with(failed.collect())
        }
        (Ok(false), _) => Finding::good(name, "directly to the worktree"),
    }
}

fn level(name: &str, checks: &[Check], choice: LevelChoice, is_served: bool) -> Finding {
    if checks.is_empty() {
        let why = if choice == LevelChoice::None { "not tested: [sandbox] level is none" } else { "not tested" };
        return Finding::good(name, why);
    }
    let held = checks.iter().filter(|check| check.passed).count();
    let text = format!("{held} of {} checks held", checks.len());
    let line = |check: &Check| format!("{} {}: {}", if check.passed { "held  " } else { "FAILED" }, check.name, check.text);
    let lines = |passed| checks.iter().filter(|check| check.passed == passed).map(line).collect();
    let fix = fix(name, &host);
    let finding = match (held == checks.len(), is_served) {
        (true, _) => Finding::good(name, text),
        // Another level does the work.
        (false, true) => Finding::look(name, text, fix),
        (false, false) => Finding::bad(name, text, fix),
    };
    finding.with(lines(false)).with_more(lines(true))
}

/// How a level that does not hold is made to.
fn fix(name: &str, read: Read<'_>) -> String {
    if name != "full" {
        return "use a kernel with Landlock ABI 4 (6.7 or newer) and `landlock` in its lsm= list".to_owned();
    }
    if is_restricted(read) && !apparmor::is_held(read) {
        return profile(read);
    }
    "allow user namespaces: sudo sysctl user.max_user_namespaces=15000 (in a container: --security-opt seccomp=unconfined)".to_owned()
}

fn host(name: &str) -> Option<String> {
    std::fs::read_to_string(name).ok()
}

fn is_restricted(read: Read<'_>) -> bool {
    read(RESTRICTED).is_some_and(|text| text.trim() == "1")
}

/// The line that puts the profile of this program in force.
fn profile(read: Read<'_>) -> String {
    let exe = std::env::current_exe().and_then(|exe| exe.canonicalize()).unwrap_or_default();
    apparmor::remedy(read, &exe)
}

/// Which network commands get.
fn network(config: &Config) -> Finding {
    let text = egress::told(config);
    match egress::network(config) {
        Network::Host => Finding::look("network", text, "list the hosts that are needed instead: [egress] presets, [[egress.host]]"),
        Network::None | Network::Proxy => Finding::good("network", text),
    }
}

/// What each command may use on this host.
fn limits(config: &Config) -> Finding {
    match config::sandbox_limits(config, tinkerbell_executor::host_memory()) {
        Ok(limits) => Finding::good("limits of a command", said(&limits)),
        Err(fault) => broken("limits of a command", &fault),
    }
}

fn said(limits: &Limits) -> String {
    let size = |bytes: Option<u64>| bytes.map_or("any".to_owned(), amount::bytes);
    let most = limits.processes.map_or("any".to_owned(), |most| most.to_string());
    format!("memory {}, processes {most}, disk {} per task", size(limits.memory_bytes), size(limits.disk_bytes))
}

fn landlock(abi: i32) -> Finding {
    if abi >= LEAST_ABI {
        return Finding::good("Landlock", format!("ABI {abi}"));
    }
    Finding::look(
        "Landlock",
        format!("ABI {abi}; level landlock needs {LEAST_ABI}"),
        "use kernel 6.7 or newer with `landlock` in its lsm= list (cat /sys/kernel/security/lsm)",
    )
}

/// What the kernel's switches say of user namespaces; the self-test says whether they work.
fn namespaces(read: Read<'_>) -> Finding {
    let number = |name: &str| read(name).and_then(|text| text.trim().parse::<u64>().ok());
    let name = "user namespaces";
    if number("/proc/sys/user/max_user_namespaces") == Some(0) {
        return Finding::look(name, "switched off: user.max_user_namespaces is 0", "sudo sysctl user.max_user_namespaces=15000");
    }
    if number("/proc/sys/kernel/unprivileged_userns_clone") == Some(0) {
        return Finding::look(
            name,
            "for root only: kernel.unprivileged_userns_clone is 0",
            "sudo sysctl kernel.unprivileged_userns_clone=1",
        );
    }
    if is_restricted(read) && apparmor::is_held(read) {
        return Finding::good(name, "given by AppArmor only to programs with a profile, and this one runs under its own");
    }
    if is_restricted(read) {
        let text = "given by AppArmor only to programs with a profile, and this one was started without its own";
        return Finding::look(name, text, profile(read));
    }
    match number("/proc/sys/user/max_user_namespaces") {
        Some(most) => Finding::good(name, format!("allowed, at most {most}")),
        None => Finding::look(name, "this kernel has none", "use a kernel with CONFIG_USER_NS for level full"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profile_is_offered_where_it_is_what_lacks() {
        let profile = "/proc/self/attr/apparmor/current";
        for (held, good, offered) in [("tinkerbell (unconfined)\n", true, false), ("unconfined\n", false, true)] {
            let set = [("/proc/sys/user/max_user_namespaces", "9\n"), (RESTRICTED, "1\n"), (profile, held)];
            let read = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
            let text = "given by AppArmor only to programs with a profile, and this one runs under its own";
            assert_eq!(namespaces(&read) == Finding::good("user namespaces", text), good, "{held}");
            assert_eq!(fix("full", &read) == apparmor::INSTALL, offered, "{held}");
            assert!(fix("landlock", &read).contains("Landlock"), "{held}");
        }
        assert!(fix("full", &|_: &str| None).contains("max_user_namespaces"));
    }

    #[test]
    fn switches_of_the_kernel_are_understood() {
        for (set, good) in [
            (vec![("/proc/sys/user/max_user_namespaces", "15000\n")], true),
            (vec![("/proc/sys/user/max_user_namespaces", "0\n")], false),
            (vec![("/proc/sys/user/max_user_namespaces", "9"), ("/proc/sys/kernel/unprivileged_userns_clone", "0")], false),
            (vec![("/proc/sys/user/max_user_namespaces", "9"), ("/proc/sys/kernel/apparmor_restrict_unprivileged_userns", "1")], false),
            (vec![], false),
        ] {
            let read = |name: &str| set.iter().find(|(known, _)| *known == name).map(|(_, text)| (*text).to_owned());
            assert_eq!(namespaces(&read) == Finding::good("user namespaces", "allowed, at most 15000"), good, "{set:?}");
        }
    }
}
