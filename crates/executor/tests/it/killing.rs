//! SIGKILL to a keeper at each of its system calls, and at each of them what follows.
//!
//! `strace` counts the calls and sends the signal; where it is missing or may not trace, the test
//! says so. `TINKERBELL_KEEPER_STRIDE=1` tries every call, the normal run tries a sample. Invariant:
//! the command's own file counts its runs, whatever the sandbox says of them.

use crate::both;
use crate::house::*;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tinkerbell_core::port::{Found, Level, Sandbox, UnitState, Until};
use tinkerbell_executor::SandboxOptions;

/// Calls between two tries in a normal run; prime, so that loops are met in all their places.
const STRIDE: usize = 23;
/// A keeper makes fewer calls than this for a short command.
const MOST: usize = 3_000;

fn number(name: &str, default: usize) -> usize {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Options for a house whose keepers die at the system call whose number stands in a file; with 0
/// they live. Both the binary and the file can be read inside the sandbox, where the self-test runs.
fn mortal(house: &House) -> (SandboxOptions, PathBuf) {
    let dir = house.root().join("mortal");
    std::fs::create_dir_all(&dir).unwrap();
    let (exe, real, when) = (dir.join("exe"), dir.join("real"), dir.join("when"));
    std::fs::copy(&house.options.exe, &real).unwrap();
    std::fs::write(&when, "0").unwrap();
    let trace = "strace -qq -o /dev/null -e trace=all -e signal=none -e inject=all:signal=SIGKILL:when=$n";
    let (real, file) = (real.display(), when.display());
    let script = format!(
        "#!/bin/sh\nread n < {file}\n[ \"$1$n\" != __keeper0 ] && [ \"$1\" = __keeper ] && exec {trace} {real} \"$@\"\nexec {real} \"$@\"\n"
    );
    std::fs::write(&exe, script).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    (SandboxOptions { exe, read: vec![dir], ..house.options.clone() }, when)
}

fn can_trace() -> bool {
    let words = ["-qq", "-o", "/dev/null", "-e", "inject=all:signal=SIGKILL:when=1", "/bin/true"];
    let status = std::process::Command::new("strace").args(words).stderr(std::process::Stdio::null()).status();
    // Killed as it was told to be: then tracing works.
    status.is_ok_and(|status| !status.success())
}

fn runs(tree: &Path, seq: u32) -> usize {
    std::fs::read_to_string(tree.join(format!("count-{seq}"))).unwrap_or_default().lines().count()
}

both!(a_keeper_killed_at_any_call_runs_its_command_at_most_once, house, {
    if !can_trace() {
        eprintln!("skipped: strace is missing or may not trace here");
        return;
    }
    let stride = number("TINKERBELL_KEEPER_STRIDE", STRIDE);
    let (options, when) = mortal(&house);
    daemon(&options).level().await.unwrap();
    let (mut seq, mut n) = (0, 1);
    let (mut never, mut lost, mut done) = (0, 0, 0);
    loop {
        seq += 1;
        let command = format!("echo x >> count-{seq}; echo told-{seq}");
        std::fs::write(&when, n.to_string()).unwrap();
        // The fault may come now or only with the wait: both are words of the sandbox, not ours.
        let killed = daemon(&options).start(house.spec(seq, &command)).await;
        if let Ok(unit) = &killed {
            drop(unit.wait(Until { timeout: LONG, line: None, from: 0 }).await);
        }
        let run = house.spec(seq, "").run;
        std::fs::write(&when, "0").unwrap();
        let next = daemon(&options);
        let found = next.attach(run).await.unwrap();
        let unit = match found {
            Found::NeverRan => {
                assert_eq!(runs(house.tree(), seq), 0, "call {n}: it ran, and is said not to have run");
                never += 1;
                next.start(house.spec(seq, &command)).await.unwrap()
            }
            Found::Lost(unit) => {
                lost += 1;
                unit
            }
            Found::Unit(unit) => unit,
        };
        let state = unit.wait(Until { timeout: LONG, line: None, from: 0 }).await.unwrap();
        let ran = runs(house.tree(), seq);
        match &state {
            UnitState::Ended(ended) => {
                assert_eq!((ended.code, ran), (Some(0), 1), "call {n}");
                assert_eq!(text(unit.as_ref()).await, format!("told-{seq}\n"), "call {n}");
                done += 1;
            }
            UnitState::Lost => assert!(ran <= 1, "call {n}: it ran {ran} times"),
            UnitState::Running => panic!("call {n}: it runs for ever"),
        }
        assert_eq!(marked(&run.to_string()), Vec::<i32>::new(), "call {n}: processes are left");
        // A keeper that needed no more calls than this was not killed at all.
        let is_over = killed.is_ok() && matches!(state, UnitState::Ended(_)) && n > 200;
        if is_over || n > MOST {
            break;
        }
        n += stride;
    }
    eprintln!("keeper killed at {seq} places up to call {n}: {never} never ran, {lost} lost, {done} ended");
    assert!(never > 0 && lost > 0 && done > 0, "the kills met too little: {never} {lost} {done}");
});

both!(a_killed_keeper_leaves_no_control_group, house, {
    let unit = house.start(1, "echo begun; sleep 60").await;
    line(unit.as_ref(), "begun").await;
    let run = house.spec(1, "").run;
    let started = std::fs::read(house.options.runs_dir.join(run.to_string()).join("started")).unwrap();
    let started: serde_json::Value = serde_json::from_slice(&started).unwrap();
    let groups: Vec<PathBuf> = started["groups"]
        .as_array()
        .into_iter()
        .flatten()
        .chain([&started["cgroup"]])
        .filter_map(|dir| dir.as_str())
        .map(PathBuf::from)
        .collect();
    assert!(groups.iter().all(|dir| dir.is_dir()), "{groups:?}");
    let keeper = i32::try_from(started["keeper"]["pid"].as_i64().unwrap()).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(keeper).unwrap(), rustix::process::Signal::KILL).unwrap();
    let state = unit.wait(Until { timeout: LONG, line: None, from: 0 }).await.unwrap();
    assert!(matches!(state, UnitState::Lost), "{state:?}");
    assert!(groups.iter().all(|dir| !dir.exists()), "left behind: {groups:?}");
});

both!(stopping_ends_every_process_however_it_hides, house, {
    let hide = "setsid sh -c 'trap \"\" TERM HUP; nohup sleep 300 & sleep 301 & wait' & (trap '' TERM; sleep 302 & wait) & echo here; wait";
    let mut times = Vec::new();
    for seq in 1..=u32::try_from(number("TINKERBELL_CANCELS", 10)).unwrap() {
        let unit = house.start(seq, hide).await;
        line(unit.as_ref(), "here").await;
        let begun = Instant::now();
        house.sandbox.stop(house.task).await.unwrap();
        times.push(begun.elapsed());
        let left = marked(&house.spec(seq, "").run.to_string());
        assert_eq!(left, Vec::<i32>::new(), "after {seq}");
        house.sandbox.remove(house.task).await.unwrap();
    }
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)];
    eprintln!("{} cancels at level {}: p50 {:?}, p99 {:?}, most {:?}", times.len(), house.level.name(), at(50), at(99), at(100));
});

/// Whoever is root may have a small disk of his own.
fn small_disk(at: &Path) -> Option<Mounted> {
    std::fs::create_dir_all(at).unwrap();
    let done = std::process::Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m,mode=0700", "tmpfs"]).arg(at).status();
    done.is_ok_and(|status| status.success()).then(|| Mounted(at.to_owned()))
}

struct Mounted(PathBuf);

impl Drop for Mounted {
    fn drop(&mut self) {
        drop(std::process::Command::new("umount").arg("-l").arg(&self.0).status());
    }
}

both!(a_full_disk_does_not_cost_the_outcome, house, {
    let Some(disk) = small_disk(&house.root().join("data/small")) else {
        eprintln!("skipped: no small disk can be mounted here");
        return;
    };
    let mut options = house.options.clone();
    options.runs_dir = disk.0.join("runs");
    let small = daemon(&options);
    let unit =
        small.start(house.spec(1, "echo begin; while ! test -e full; do sleep 0.02; done; yes | head -c 3000000; exit 9")).await.unwrap();
    line(unit.as_ref(), "begin").await;
    // To the last byte: what the keeper needs at the end it must have taken before.
    let fill = format!("cat /dev/zero > {0}/filler 2>/dev/null; cat /dev/zero > {0}/filler2 2>/dev/null; true", disk.0.display());
    std::process::Command::new("sh").args(["-c", &fill]).status().unwrap();
    std::fs::write(house.tree().join("full"), "").unwrap();
    let ended = end(unit.as_ref()).await;
    assert_eq!((ended.code, ended.output_bytes), (Some(9), 3_000_006));
    assert!(ended.dropped_bytes >= 2_000_000, "{ended:?}");
    let Found::Unit(again) = daemon(&options).attach(house.spec(1, "").run).await.unwrap() else { panic!("not found") };
    assert_eq!(end(again.as_ref()).await, ended);
    tokio::time::timeout(Duration::from_secs(20), small.stop(house.task)).await.unwrap().unwrap();
});
