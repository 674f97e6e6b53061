//! Keepers: what was started is found again, ends truly, and ends wholly.

use crate::both;
use crate::house::*;
use std::time::Duration;
use tinkerbell_core::port::{Found, Level, Sandbox, UnitState, Until};

both!(output_and_exit_code_come_back, house, {
    let (output, ended) = house.run(1, "echo out; echo err >&2; exit 3").await;
    assert!(output.contains("out\n") && output.contains("err\n"), "{output:?}");
    assert_eq!((ended.code, ended.signal, ended.output_bytes, ended.dropped_bytes), (Some(3), None, 8, 0));
});

both!(a_new_daemon_finds_what_the_old_one_started, house, {
    let unit = house.start(1, "echo begin; read word; echo got $word; exit 5").await;
    line(unit.as_ref(), "begin").await;
    drop(unit);
    let second = daemon(&house.options);
    let Found::Unit(unit) = second.attach(house.spec(1, "").run).await.unwrap() else { panic!("not found") };
    unit.stdin(1, "hello\n".into()).await.unwrap();
    unit.stdin(1, "twice\n".into()).await.ok();
    let ended = end(unit.as_ref()).await;
    assert_eq!(ended.code, Some(5));
    assert_eq!(text(unit.as_ref()).await, "begin\ngot hello\n");
    let third = daemon(&house.options);
    let Found::Unit(unit) = third.attach(house.spec(1, "").run).await.unwrap() else { panic!("not found") };
    assert_eq!(end(unit.as_ref()).await, ended);
});

both!(starting_twice_has_one_effect, house, {
    let command = "echo x >> count; cat count";
    let (a, b) = tokio::join!(house.sandbox.start(house.spec(1, command)), house.sandbox.start(house.spec(1, command)));
    for unit in [a.unwrap(), b.unwrap(), house.start(1, command).await] {
        assert_eq!(end(unit.as_ref()).await.code, Some(0));
        assert_eq!(text(unit.as_ref()).await, "x\n");
    }
});

both!(a_killed_keeper_is_lost_and_leaves_nobody, house, {
    let unit = house.start(1, "echo begin; sleep 300 & (sleep 301; true) & setsid sleep 302 & sleep 303").await;
    line(unit.as_ref(), "begin").await;
    let run = house.spec(1, "").run;
    let started = std::fs::read_to_string(house.options.runs_dir.join(run.to_string()).join("started")).unwrap();
    let started: tinkerbell_executor::format::Started = serde_json::from_str(&started).unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(started.keeper.pid).unwrap(), rustix::process::Signal::KILL).unwrap();
    let state = unit.wait(Until { timeout: LONG, line: None, from: 0 }).await.unwrap();
    assert_eq!(state, UnitState::Lost);
    assert_eq!(text(unit.as_ref()).await, "begin\n");
    assert_eq!(marked(&run.to_string()), Vec::<i32>::new());
    let second = daemon(&house.options);
    assert!(matches!(second.attach(run).await.unwrap(), Found::Lost(_)));
    assert!(second.start(house.spec(1, "echo again > again")).await.is_ok());
    assert!(!house.tree().join("again").exists());
});

both!(a_keeper_that_dies_before_its_command_began_is_replaced, house, {
    use std::os::unix::fs::PermissionsExt;
    let (exe, mark) = (house.root().join("faint"), house.root().join("fainted"));
    let real = house.options.exe.display();
    let spec = house.spec(1, "echo here");
    let faint = format!("[ \"$TINKERBELL_KEEPER\" != {} ] || [ -e {1} ] || {{ : > {1}; exit 1; }}", spec.run, mark.display());
    std::fs::write(&exe, format!("#!/bin/sh\n{faint}\nexec {real} \"$@\"\n")).unwrap();
    std::fs::set_permissions(&exe, std::fs::Permissions::from_mode(0o755)).unwrap();
    // A script can not be the attacker of a self-test; what is tried here is the same at each level.
    let options = tinkerbell_executor::SandboxOptions { exe, level: tinkerbell_executor::LevelChoice::None, ..house.options.clone() };
    let unit = daemon(&options).start(spec).await.unwrap();
    assert!(mark.exists(), "the first keeper died");
    end(unit.as_ref()).await;
    assert_eq!(text(unit.as_ref()).await, "here\n");
});

both!(output_is_shown_once_and_again_only_to_the_same_effect, house, {
    let unit = house.start(1, "echo one; read word; echo two").await;
    line(unit.as_ref(), "one").await;
    assert_eq!(unit.shown(1, None).await.unwrap().0, 0);
    unit.shown(1, Some(4)).await.unwrap();
    let Found::Unit(again) = daemon(&house.options).attach(house.spec(1, "").run).await.unwrap() else { panic!("not found") };
    assert_eq!((again.shown(1, None).await.unwrap().0, again.shown(5, None).await.unwrap().0), (0, 4));
});

both!(stopping_leaves_no_survivors, house, {
    let unit = house
        .start(
            1,
            "trap '' TERM INT HUP; setsid sh -c 'trap \"\" TERM; env -i sleep 300' & sleep 301 & echo begin; while :; do sleep 1; done",
        )
        .await;
    line(unit.as_ref(), "begin").await;
    house.sandbox.stop(house.task).await.unwrap();
    let ended = end(unit.as_ref()).await;
    assert_eq!((ended.signal, ended.cause.as_str()), (Some(9), "cancelled"));
    assert_eq!(marked(&unit.run().to_string()), Vec::<i32>::new());
});

both!(empty_and_large_outputs_are_counted, house, {
    let (output, ended) = house.run(1, "true").await;
    assert_eq!((output.as_str(), ended.output_bytes), ("", 0));
    let (output, ended) = house.run(2, "head -c 30000000 /dev/zero | tr '\\0' 'a'; echo; echo end").await;
    assert_eq!(ended.output_bytes, 30_000_005);
    assert_eq!(ended.dropped_bytes, 30_000_005 - output.len() as u64);
    assert!(output.starts_with("aaaa") && output.ends_with("a\nend\n") && output.len() > 11 << 20);
});

both!(a_grandchild_that_holds_the_pipe_does_not_hold_the_end, house, {
    let (output, ended) = house.run(1, "sleep 300 & echo done").await;
    assert_eq!((output.as_str(), ended.code), ("done\n", Some(0)));
    assert!(ended.wall_ms < 5_000);
    assert_eq!(marked(&house.spec(1, "").run.to_string()), Vec::<i32>::new());
});

both!(a_deadline_ends_the_command_and_says_so, house, {
    let mut spec = house.spec(1, "sleep 300");
    spec.deadline = Duration::from_millis(200);
    let unit = house.sandbox.start(spec).await.unwrap();
    let ended = end(unit.as_ref()).await;
    assert_eq!((ended.signal, ended.cause.as_str()), (Some(15), "deadline"));
});

both!(a_signal_reaches_the_command, house, {
    let unit = house.start(1, "trap 'echo caught; exit 4' USR1; echo begin; while :; do sleep 0.05; done").await;
    line(unit.as_ref(), "begin").await;
    unit.signal(10).await.unwrap();
    line(unit.as_ref(), "caught").await;
    assert_eq!(end(unit.as_ref()).await.code, Some(4));
});

both!(unknown_runs_never_ran_and_sweeping_ends_orphans, house, {
    assert!(matches!(house.sandbox.attach(house.spec(9, "").run).await.unwrap(), Found::NeverRan));
    let orphan = house.start(1, "echo begin; sleep 300").await;
    let known = house.start(2, "echo begin; read x; exit 6").await;
    line(orphan.as_ref(), "begin").await;
    // What can not be read is left alone and keeps nobody from the rest.
    let damaged = house.options.runs_dir.join(house.spec(9, "").run.to_string());
    std::fs::create_dir(&damaged).unwrap();
    std::fs::write(damaged.join("started"), "\0\0\0").unwrap();
    let found = daemon(&house.options).sweep(vec![known.run()]).await.unwrap();
    assert_eq!(found.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [orphan.run()]);
    assert_eq!(end(orphan.as_ref()).await.cause, "cancelled");
    known.stdin(1, bytes::Bytes::new()).await.unwrap();
    assert_eq!(end(known.as_ref()).await.code, Some(6));
    assert_eq!(house.sandbox.sweep(Vec::new()).await.unwrap(), []);
    house.sandbox.remove(house.task).await.unwrap();
    assert!(!house.options.runs_dir.join(known.run().to_string()).exists());
    assert!(!house.options.homes_dir.join(house.task.to_string()).exists());
});

both!(the_port_s_contract_is_kept, house, {
    let spec = |seq: u32, command: &str| house.spec(100 + seq, command);
    let daemon = || -> std::sync::Arc<dyn Sandbox> { daemon(&house.options) };
    tinkerbell_testkit::contract::sandbox::suite(tinkerbell_testkit::contract::sandbox::Bench { spec, daemon }).await;
});

/// Limits of memory and processes are per command: a task does not multiply them without end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ninth_command_at_once_is_refused_and_a_tenth_is_not_when_one_has_ended() {
    let Some(house) = House::at(Level::None).await else { return };
    let mut units = Vec::new();
    for seq in 1..=8 {
        units.push(house.start(seq, "exec sleep 600").await);
    }
    let fault = house.sandbox.start(house.spec(9, "true")).await.err().unwrap();
    assert_eq!(fault.code.0, "TB-EXEC-008", "{fault}");
    // Another daemon counts those that it did not start.
    let fault = daemon(&house.options).start(house.spec(9, "true")).await.err().unwrap();
    assert_eq!(fault.code.0, "TB-EXEC-008", "{fault}");
    let last = units.pop().unwrap();
    last.signal(9).await.unwrap();
    end(last.as_ref()).await;
    house.sandbox.start(house.spec(10, "true")).await.unwrap();
    house.sandbox.stop(house.spec(1, "").run.task).await.unwrap();
}

/// The kernel calls a process dead whose first thread has ended, whatever the others do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_without_its_first_thread_ends_with_its_command() {
    if std::process::Command::new("python3").arg("-V").output().is_err() {
        eprintln!("skipped: there is no python3");
        return;
    }
    let Some(house) = House::at(Level::Landlock).await else { return };
    let number = if cfg!(target_arch = "x86_64") { 60 } else { 93 };
    let program = format!(
        "import ctypes, os, threading, time\n\
         def live():\n  block = bytearray(40 << 20)\n  time.sleep(0.1)\n  open('pid', 'w').write(str(os.getpid()))\n  time.sleep(600)\n\
         threading.Thread(target=live).start()\nctypes.CDLL(None).syscall({number}, 0)\n"
    );
    std::fs::write(house.tree().join("two.py"), program).unwrap();
    let (_, ended) = house.run(1, "python3 two.py > /dev/null 2>&1 & until [ -s pid ]; do :; done; exit 3").await;
    assert_eq!(ended.code, Some(3));
    let pid = std::fs::read_to_string(house.tree().join("pid")).unwrap();
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lines = threads.map(|thread| std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default());
    let is_alive = |line: &String| line.rsplit_once(')').is_some_and(|(_, rest)| !rest.starts_with(" Z") && !rest.starts_with(" X"));
    assert_eq!(lines.filter(is_alive).collect::<Vec<_>>(), Vec::<String>::new());
    // As the command itself it holds memory that counts, and ends when it is told to.
    let mut spec = house.spec(2, "exec python3 two.py");
    spec.limits.memory_bytes = Some(20 << 20);
    let unit = house.sandbox.start(spec).await.unwrap();
    assert_eq!(end(unit.as_ref()).await.cause, "memory");
}
