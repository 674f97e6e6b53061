//! Limits: what a command may use with everything that it starts, however it hides.
//!
//! Every load is bounded by itself, so that a limit that fails harms nobody. Each test runs with the
//! control groups that this host gives, and once more where none can be made, so that the keeper's own
//! watch must win. Invariant: the end names the limit, and nothing of the command lives on.

use crate::both;
use crate::house::*;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tinkerbell_core::port::{Ended, Level, Limits, Meter as _, Sandbox};
use tinkerbell_executor::{HostSandbox, SandboxOptions};

const MIB: u64 = 1 << 20;

/// A sandbox whose keepers can not make control groups; `None` where that can not be had.
fn groupless(house: &House) -> Option<Arc<HostSandbox>> {
    if !rustix::process::geteuid().is_root() {
        // An ordinary user has none of his own, unless they were delegated.
        return None;
    }
    let dir = house.root().join("groupless");
    std::fs::create_dir_all(&dir).unwrap();
    let (exe, real) = (dir.join("exe"), dir.join("real"));
    if !real.exists() {
        std::fs::copy(&house.options.exe, &real).unwrap();
    }
    let real = real.display();
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = __keeper ] && exec unshare -m sh -c 'umount -l -R /sys/fs/cgroup 2>/dev/null; exec \"$@\"' x {real} \"$@\"\nexec {real} \"$@\"\n"
    );
    if exe.exists() {
        return Some(daemon(&SandboxOptions { exe, read: vec![dir], ..house.options.clone() }));
    }
    std::fs::write(&exe, script).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    let works = std::process::Command::new("unshare").args(["-m", "umount", "-l", "-R", "/sys/fs/cgroup"]).status();
    if !works.is_ok_and(|status| status.success()) {
        eprintln!("skipped without groups: they can not be hidden here");
        return None;
    }
    Some(daemon(&SandboxOptions { exe, read: vec![dir], ..house.options.clone() }))
}

/// Runs a command under limits, first with the host's control groups, then without any.
async fn each(house: &House, seq: u32, limits: Limits, command: &str, check: impl Fn(&str, &str, &Ended)) {
    let bare = groupless(house);
    let sandboxes = [("as it is", Some(house.sandbox.clone())), ("without groups", bare)];
    for (n, (name, sandbox)) in (0..).zip(sandboxes) {
        let Some(sandbox) = sandbox else { continue };
        let mut spec = house.spec(seq + n, command);
        spec.limits = limits;
        let run = spec.run.to_string();
        let begun = Instant::now();
        let unit = sandbox.start(spec).await.unwrap();
        let ended = end(unit.as_ref()).await;
        let output = text(unit.as_ref()).await;
        let started = std::fs::read_to_string(house.options.runs_dir.join(&run).join("started")).unwrap();
        let means = started.split("\"means\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or("").to_owned();
        eprintln!("{} {name} ({means}): {:?} {} {:?}", house.level.name(), begun.elapsed(), ended.why, ended.used);
        if name == "without groups" {
            assert!(means.starts_with("memory watch, processes watch") && means.ends_with("cpu watch, disk watch"), "{means}");
        }
        check(name, &output, &ended);
        assert_eq!(marked(&run), Vec::<i32>::new(), "{name}: processes are left");
    }
}

both!(a_fork_bomb_is_ended_and_named, house, {
    // At most 400 processes that end by themselves after 15 s, should nobody end them.
    let bomb = "n=0; while [ $n -lt 400 ]; do n=$((n+1)); (sleep 15) & done; wait; echo over";
    let limits = Limits { processes: Some(40), ..Limits::default() };
    each(&house, 1, limits, bomb, |name, output, ended| {
        assert_eq!(ended.cause, "processes", "{name}: {ended:?} {output}");
        assert!(ended.why.contains("more than 40 "), "{ended:?}");
        assert!(!output.contains("over"), "{output}");
    })
    .await;
    // One that forks twice and lets the middle one die, so that nobody is its parent.
    let orphans = "n=0; while [ $n -lt 300 ]; do n=$((n+1)); (setsid sh -c 'sleep 15 &' ) & done; wait; sleep 15; echo over";
    each(&house, 11, limits, orphans, |name, output, ended| {
        assert_eq!(ended.cause, "processes", "{name}: {ended:?} {output}");
    })
    .await;
    // Just below the limit nothing happens.
    each(&house, 21, limits, "for i in 1 2 3 4 5 6 7 8; do sleep 0.5 & done; wait; echo fine", |name, output, ended| {
        assert_eq!((ended.code, ended.cause.as_str(), output), (Some(0), "", "fine\n"), "{name}: {ended:?}");
        assert!(ended.used.processes >= 8, "{ended:?}");
    })
    .await;
});

both!(memory_is_limited_for_all_processes_together, house, {
    if !has_python() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let limits = Limits { memory_bytes: Some(96 * MIB), ..Limits::default() };
    let one = "python3 -c 'import time; x = bytearray(160 << 20); time.sleep(5); print(\"over\")'";
    each(&house, 1, limits, one, |name, output, ended| {
        assert_eq!(ended.cause, "memory", "{name}: {ended:?} {output}");
        assert!(ended.why.contains("the limit is 96.0 MiB"), "{ended:?}");
        assert!(!output.contains("over"));
    })
    .await;
    // Each of six is small; four of them are started by one that is gone.
    let many = "for i in 1 2 3 4 5 6; do (python3 -c 'import time; x = bytearray(30 << 20); time.sleep(8)' &) ; done; sleep 9; echo over";
    each(&house, 11, limits, many, |name, output, ended| {
        assert_eq!(ended.cause, "memory", "{name}: {ended:?} {output}");
    })
    .await;
    // What is shared counts once: eight children of one process with 60 MiB.
    let shared = "import os, time\nx = bytearray(60 << 20)\nfor i in range(8):\n  if os.fork() == 0:\n    time.sleep(1.5); os._exit(0)\ntime.sleep(2)\nprint('fine')";
    std::fs::write(house.tree().join("shared.py"), shared).unwrap();
    each(&house, 21, limits, "python3 shared.py", |name, output, ended| {
        assert_eq!((ended.code, ended.cause.as_str(), output), (Some(0), "", "fine\n"), "{name}: {ended:?}");
    })
    .await;
});

both!(memory_that_no_process_maps_counts_too, house, {
    if !has_python() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let limits = Limits { memory_bytes: Some(96 * MIB), ..Limits::default() };
    // 160 MiB at most, bit by bit, of which nothing is mapped.
    let unnamed = "import os, time\nfd = os.memfd_create('x')\nfor i in range(80):\n  os.write(fd, b'x' * (2 << 20)); time.sleep(0.03)\ntime.sleep(8)\nprint('over')";
    std::fs::write(house.tree().join("unnamed.py"), unnamed).unwrap();
    each(&house, 1, limits, "python3 unnamed.py", |name, output, ended| {
        assert_eq!(ended.cause, "memory", "{name}: {ended:?} {output}");
        assert!(!output.contains("over"), "{output}");
    })
    .await;
    // What is held and mapped by several counts once.
    let mapped = "import mmap, os, time\nfd = os.memfd_create('x')\nos.ftruncate(fd, 50 << 20)\nm = mmap.mmap(fd, 50 << 20)\nfor i in range(50):\n  m.write(b'x' * (1 << 20))\nfor i in range(4):\n  if os.fork() == 0:\n    sum(m[j] for j in range(0, 50 << 20, 4096)); time.sleep(1.5); os._exit(0)\ntime.sleep(2)\nprint('fine')";
    std::fs::write(house.tree().join("mapped.py"), mapped).unwrap();
    each(&house, 11, limits, "python3 mapped.py", |name, output, ended| {
        assert_eq!((ended.code, ended.cause.as_str(), output), (Some(0), "", "fine\n"), "{name}: {ended:?}");
    })
    .await;
    // Half of it in the room for shared memory, half in a process. That room is the host's on the other level.
    if house.level == Level::Full {
        let both =
            "head -c 44000000 /dev/zero > /dev/shm/x; python3 -c 'import time; x = bytearray(70 << 20); time.sleep(8); print(\"over\")'";
        each(&house, 21, limits, both, |name, output, ended| {
            assert_eq!(ended.cause, "memory", "{name}: {ended:?} {output}");
            assert!(!output.contains("over"), "{output}");
        })
        .await;
    }
});

// Segments, queues and semaphores of the host are out of reach, and nothing is left in the kernel.
both!(segments_that_outlive_a_command_are_refused, house, {
    if !has_python() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let limits = Limits { memory_bytes: Some(96 * MIB), ..Limits::default() };
    let calls = "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor name, args in (('shmget', (0, 4096, 0o1600)), ('msgget', (0, 0o1600)), ('semget', (0, 1, 0o1600)), ('shmat', (0, None, 0)), ('shmctl', (0, 2, None))):\n  ctypes.set_errno(0)\n  getattr(libc, name)(*args)\n  print(name, ctypes.get_errno())";
    std::fs::write(house.tree().join("calls.py"), calls).unwrap();
    let is_full = house.level == Level::Full;
    each(&house, 1, limits, "python3 calls.py", |name, output, ended| {
        assert_eq!(ended.code, Some(0), "{name}: {output}");
        if !is_full || name == "without groups" {
            assert_eq!(output, "shmget 1\nmsgget 1\nsemget 1\nshmat 1\nshmctl 1\n", "{name}");
        }
    })
    .await;
});

fn has_python() -> bool {
    std::process::Command::new("python3").args(["-c", ""]).status().is_ok()
}

both!(cpu_time_is_limited_for_all_processes_together, house, {
    let spin = "i=0; while :; do i=$((i+1)); done";
    let limits = Limits { cpu_ms: Some(1_000), ..Limits::default() };
    each(&house, 1, limits, &format!("({spin}) & ({spin}) & wait"), |name, _, ended| {
        assert_eq!(ended.cause, "cpu", "{name}: {ended:?}");
        assert!((900..4_000).contains(&ended.used.cpu_ms), "{ended:?}");
    })
    .await;
    // Children that nobody waits for take nothing of their time with them.
    let limits = Limits { cpu_ms: Some(1_500), ..Limits::default() };
    let short =
        "trap '' CHLD; n=0; while [ $n -lt 60 ]; do n=$((n+1)); sh -c 'i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done'; done; echo over";
    each(&house, 11, limits, short, |name, output, ended| {
        assert_eq!(ended.cause, "cpu", "{name}: {ended:?} {output}");
    })
    .await;
});

both!(commands_beside_each_other_share_what_the_task_has_left, house, {
    let spin = "i=0; while :; do i=$((i+1)); done";
    let spec = |seq: u32, command: &str, cpu_ms: u64| {
        let mut spec = house.spec(seq, command);
        spec.limits = Limits { cpu_ms: Some(cpu_ms), ..Limits::default() };
        spec
    };
    let one = house.sandbox.start(spec(1, spin, 2_000)).await.unwrap();
    let two = house.sandbox.start(spec(2, spin, 2_000)).await.unwrap();
    let (first, second) = (end(one.as_ref()).await, end(two.as_ref()).await);
    assert_eq!((first.cause.as_str(), second.cause.as_str()), ("cpu", "cpu"));
    let total = house.sandbox.used(house.task).await.unwrap();
    assert_eq!(total.cpu_ms, first.used.cpu_ms + second.used.cpu_ms);
    assert!((1_900..4_000).contains(&total.cpu_ms), "{total:?}");
    // Figures of a keeper that was killed stay counted.
    let three = house.sandbox.start(spec(3, spin, 60_000)).await.unwrap();
    let deadline = Instant::now() + LONG;
    while house.sandbox.used(house.task).await.unwrap().cpu_ms < total.cpu_ms + 300 {
        assert!(Instant::now() < deadline, "its figures are never noted");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let run = house.spec(3, "").run.to_string();
    let lock = std::fs::read_to_string(house.options.runs_dir.join(&run).join("lock")).unwrap();
    let keeper: i32 = lock.split("\"pid\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(keeper).unwrap(), rustix::process::Signal::KILL).unwrap();
    drop(three);
    house.sandbox.stop(house.task).await.unwrap();
    assert!(daemon(&house.options).used(house.task).await.unwrap().cpu_ms >= total.cpu_ms + 300);
    assert_eq!(marked(&run), Vec::<i32>::new());
});

both!(what_goes_on_after_the_main_process_is_ended_and_counted, house, {
    let limits = Limits { cpu_ms: Some(60_000), ..Limits::default() };
    let spin = "(while :; do :; done) & sleep 0.3; echo main is over";
    each(&house, 1, limits, spin, |name, output, ended| {
        assert_eq!((ended.code, output), (Some(0), "main is over\n"), "{name}: {ended:?}");
        assert!(ended.used.cpu_ms >= 50 && ended.wall_ms < 5_000, "{ended:?}");
    })
    .await;
});

both!(disk_is_limited_for_the_worktree_and_the_private_directories, house, {
    let limits = Limits { disk_bytes: Some(24 * MIB), ..Limits::default() };
    std::fs::write(house.tree().join("before"), vec![1; 40 << 20]).unwrap();
    // What stood there before the first command is nobody's growth; a hole takes no room.
    each(&house, 1, limits, "truncate -s 2G hole; head -c 4000000 /dev/zero > some; rm hole some; echo fine", |name, output, ended| {
        assert_eq!((ended.code, ended.cause.as_str(), output), (Some(0), "", "fine\n"), "{name}: {ended:?}");
    })
    .await;
    // Files that others remove at the same time hide growth until the next look at every file, ten seconds later at most.
    let fill = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); head -c 2000000 /dev/zero > $DIR/f$n; sleep 0.05; done; sleep 15; echo over";
    for (seq, dir) in [(11, "."), (21, "$HOME"), (31, "/tmp")] {
        let dir = if dir == "/tmp" && house.level != Level::Full { "$TMPDIR" } else { dir };
        let command = format!("DIR={dir}; rm -f $DIR/f*; {fill}");
        each(&house, seq, limits, &command, |name, output, ended| {
            assert_eq!(ended.cause, "disk", "{dir} {name}: {ended:?} {output}");
            assert!(!output.contains("over") && ended.why.contains("the limit is 24.0 MiB"), "{ended:?}");
        })
        .await;
        house.run(seq + 5, &format!("rm -rf {dir}/f*")).await;
    }
    // Many empty files.
    let names = "mkdir -p many; n=0; while [ $n -lt 30000 ]; do n=$((n+1)); : > many/$n; done; sleep 15; echo over";
    each(&house, 41, limits, names, |name, output, ended| {
        assert_eq!(ended.cause, "disk", "{name}: {ended:?} {output}");
        std::fs::remove_dir_all(house.tree().join("many")).unwrap();
    })
    .await;
    // A file that has no name any more.
    let hidden = "exec 9>gone; rm gone; n=0; while [ $n -lt 60 ]; do n=$((n+1)); head -c 2000000 /dev/zero >&9; sleep 0.05; done; sleep 12; echo over";
    each(&house, 51, limits, hidden, |name, output, ended| {
        assert_eq!(ended.cause, "disk", "{name}: {ended:?} {output}");
    })
    .await;
});

both!(the_watch_costs_little, house, {
    // Forty processes at rest for three seconds: what the keeper uses meanwhile is the watch alone.
    let limits = Limits { memory_bytes: Some(4 << 30), processes: Some(4_096), cpu_ms: Some(600_000), disk_bytes: Some(20 << 30) };
    let command = "n=0; while [ $n -lt 40 ]; do n=$((n+1)); sleep 3 & done; echo begun; wait";
    let bare = groupless(&house);
    for (seq, sandbox) in (1..).zip([Some(house.sandbox.clone()), bare]) {
        let Some(sandbox) = sandbox else { continue };
        let mut spec = house.spec(seq, command);
        spec.limits = limits;
        let run = spec.run.to_string();
        let unit = sandbox.start(spec).await.unwrap();
        line(unit.as_ref(), "begun").await;
        let lock = std::fs::read_to_string(house.options.runs_dir.join(&run).join("lock")).unwrap();
        let keeper: i32 = lock.split("\"pid\":").nth(1).unwrap().split(',').next().unwrap().parse().unwrap();
        let ticks = || {
            let stat = std::fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap_or_default();
            let rest = stat.rsplit(')').next().unwrap_or_default().split(' ').collect::<Vec<_>>();
            rest.get(12).zip(rest.get(13)).map_or(0, |(user, system)| user.parse::<u64>().unwrap() + system.parse::<u64>().unwrap())
        };
        let (before, begun) = (ticks(), Instant::now());
        tokio::time::sleep(Duration::from_secs(2)).await;
        let (cost, wall) = ((ticks() - before) * 10, begun.elapsed());
        eprintln!(
            "{} {}: the keeper used {cost} ms of CPU time in {wall:?}",
            house.level.name(),
            if seq == 1 { "as it is" } else { "without groups" }
        );
        // A fiftieth is the aim; a busy machine counts in whole ticks.
        assert!(cost <= 200, "{cost} ms in {wall:?}");
        end(unit.as_ref()).await;
    }
});

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_operators_limits_hold_beside_the_tasks() {
    for level in [Level::Full, Level::Landlock] {
        let Some(house) = House::at(level).await else { continue };
        let limits = Limits { processes: Some(10), ..Limits::default() };
        let sandbox = daemon(&SandboxOptions { limits, ..house.options.clone() });
        let mut spec = house.spec(1, "for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21 22 23 24; do sleep 5 & done; wait");
        spec.limits.processes = Some(1_000);
        let unit = sandbox.start(spec).await.unwrap();
        let ended = end(unit.as_ref()).await;
        assert_eq!(ended.cause, "processes", "{ended:?}: {}", text(unit.as_ref()).await);
        assert!(ended.why.contains("more than 10 "), "{ended:?}");
    }
}
