//! The kill switch: whatever the daemon does, everything ends, stays ended, and goes on when it is lifted.
//!
//! Times are printed, not asserted, because the machine is shared; the bound is generous. Invariant: the
//! oracle looks at the processes of the host, never at what the product says.

use crate::home::{Home, exec, kill, until};
use serde_json::Value;
use std::collections::HashMap;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tinkerbell_testkit::llm::Turn;

/// Tasks of the big ones.
const TASKS: usize = 20;
/// A halt that takes longer is broken on any machine.
const BOUND: Duration = Duration::from_secs(10);
/// What looks for the mark by itself does so several times in this.
const LOOKS: Duration = Duration::from_millis(700);
/// Children that hear no SIGTERM, in sessions of their own and not.
const STUBBORN: &str =
    "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; sleep 300 & wait' & (trap '' TERM; sleep 301 & wait) & echo up; wait; wait";
/// What a model reads of a command that was halted.
const TOLD: &str = "the user halted everything";

/// How the daemon is when everything is halted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Daemon {
    Healthy,
    Stopped,
    Dead,
}

/// Processes of commands, and their keepers.
fn alive() -> impl Fn(&Home) -> usize {
    |home: &Home| {
        let runs = home.tb().join("data/runs");
        let names = std::fs::read_dir(runs).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
        let marks: Vec<Vec<u8>> = names
            .flat_map(|name| [format!("TINKERBELL_RUN={name}"), format!("TINKERBELL_KEEPER={name}")])
            .map(String::into_bytes)
            .collect();
        let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        let carries = |path: &Path| {
            let environ = std::fs::read(path.join("environ")).unwrap_or_default();
            environ.split(|byte| *byte == 0).any(|entry| marks.iter().any(|mark| mark == entry))
        };
        pids.filter(|entry| carries(&entry.path())).count()
    }
}

fn signal(pid: i32, name: &str) {
    assert!(std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

fn courier(home: &Home) -> bool {
    let mark = home.tb().join("data").into_os_string().into_encoded_bytes();
    let pids = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let words = pids.map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    words.into_iter().any(|line| line.windows(9).any(|word| word == b"__courier") && line.windows(mark.len()).any(|word| word == mark))
}

/// A home in which this many tasks are in the middle of a stubborn command.
async fn busy(tasks: usize, level: &'static str) -> (Home, Vec<String>) {
    let mut home = Home::with(vec![exec("echo first; exit 7"), exec(STUBBORN), Turn::text("done")]).await;
    home.level = level;
    let config = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
    home.config(&format!("{config}[scheduler]\nrunning = {tasks}\n"));
    let mut ids = Vec::new();
    for number in 0..tasks {
        ids.push(home.submit(&[&format!("task {number}")]).await);
    }
    until("all commands run", || home.asked() >= 2 * tasks && up(&home) >= tasks).await;
    (home, ids)
}

/// Runs whose stubborn command has all its processes: the shell, its two children, theirs, and what holds them. Each run
/// by itself, because one that has not begun is never told as halted.
fn up(home: &Home) -> usize {
    let mut counts: HashMap<Vec<u8>, usize> = HashMap::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        if let Some(run) = environ.split(|byte| *byte == 0).find_map(|entry| entry.strip_prefix(b"TINKERBELL_RUN=")) {
            *counts.entry(run.to_vec()).or_default() += 1;
        }
    }
    let runs = std::fs::read_dir(home.tb().join("data/runs")).into_iter().flatten().flatten();
    runs.filter(|run| counts.get(run.file_name().as_encoded_bytes()).is_some_and(|count| *count >= 6)).count()
}

/// Nothing begins for as long as the mark stands, whoever is started and asked.
async fn stays_halted(home: &Home, tasks: usize) {
    let asked = home.asked();
    let listed: Value = serde_json::from_str(&home.run(&["ps", "--json"]).await.exits(0).stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), tasks, "{listed}");
    assert!(listed.as_array().unwrap().iter().all(|task| task["status"] == "halted"), "{listed}");
    home.run(&["run", "more"]).await.exits(69).says("TB-HALT-001").says("halt --lift");
    home.run(&["daemon", "status"]).await.exits(0).says("halted: all effects are halted").says(&format!("{tasks} halted"));
    home.run(&["doctor", "--offline"]).await.says("all effects are halted");
    // A daemon that starts finds the mark, too.
    home.kill_daemon().await;
    home.run(&["daemon", "start"]).await.exits(0);
    tokio::time::sleep(LOOKS).await;
    assert_eq!((alive()(home), home.asked(), courier(home)), (0, asked, false), "something began");
}

/// Every task goes on to its end, and read of each command exactly once how it ended.
async fn goes_on(home: &Home, ids: &[String]) {
    home.run(&["halt", "--lift"]).await.exits(0).says("lifted").says("go on");
    for id in ids {
        home.run(&["wait", id]).await.exits(0);
    }
    let requests = home.model.as_ref().unwrap().requests();
    let lasts = requests.iter().filter(|request| request.body.to_string().contains(TOLD));
    assert_eq!(lasts.clone().count(), ids.len(), "each is told in one request");
    for request in lasts {
        let text = request.body.to_string();
        let count = |word: &str| text.matches(word).count();
        assert_eq!((count("exit 7 in"), count("ended by signal 9"), count(TOLD)), (1, 1, 1), "{text}");
    }
    assert_eq!(requests.len(), 3 * ids.len(), "no model call is made twice");
    home.run(&["halt", "--lift"]).await.exits(0).says("nothing is halted");
}

async fn halted(daemon: Daemon) {
    // One of them at the other level, where no namespace ends with its first process.
    let level = if daemon == Daemon::Dead { "landlock" } else { "auto" };
    let (home, ids) = busy(TASKS, level).await;
    let pid = home.pid().await;
    match daemon {
        Daemon::Healthy => {}
        Daemon::Stopped => signal(pid, "-STOP"),
        Daemon::Dead => home.kill_daemon().await,
    }
    let count = alive();
    let before = count(&home);
    let mut command = home.command(&["halt", "--reason", "a test"]);
    let began = Instant::now();
    let halting = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("nothing runs", || count(&home) == 0).await;
    let took = began.elapsed();
    let out = crate::home::out(halting.wait_with_output().await.unwrap()).exits(0).says("all effects are halted").says("a test");
    eprintln!("halt: {daemon:?}: {before} processes of {TASKS} tasks, none after {} ms; {}", took.as_millis(), out.stderr.trim());
    assert!(took < BOUND, "{took:?}");
    match daemon {
        Daemon::Healthy => assert_eq!(home.pid().await, pid, "a daemon that stands still lives on"),
        Daemon::Stopped => assert!(out.says("was killed").stderr.contains(&pid.to_string())),
        Daemon::Dead => drop(out.says("no daemon ran")),
    }
    stays_halted(&home, TASKS).await;
    goes_on(&home, &ids).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_daemon_stands_still() {
    halted(Daemon::Healthy).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_daemon_holds_nothing_back() {
    halted(Daemon::Stopped).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_daemon_everything_ends_as_well() {
    halted(Daemon::Dead).await;
}

/// The mark alone: nobody kills, everybody looks. The daemon lives, or is dead with keepers left.
#[tokio::test(flavor = "multi_thread")]
async fn a_mark_that_somebody_touches_halts_everything() {
    for is_dead in [false, true] {
        let (home, ids) = busy(2, "auto").await;
        if is_dead {
            home.kill_daemon().await;
        }
        let mark = home.tb().join("data/halted");
        let began = Instant::now();
        std::fs::write(&mark, "").unwrap();
        let count = alive();
        until("nothing runs", || count(&home) == 0 && !courier(&home)).await;
        eprintln!("halt: by a mark alone, daemon dead: {is_dead}: {} ms", began.elapsed().as_millis());
        stays_halted(&home, 2).await;
        std::fs::remove_file(&mark).unwrap();
        for id in &ids {
            // The daemon sees by itself that the mark is gone.
            while home.inspect(id).await["status"] == "halted" {}
            home.run(&["wait", id]).await.exits(0);
        }
        let told = home.model.as_ref().unwrap().requests().iter().filter(|request| request.body.to_string().contains(TOLD)).count();
        assert_eq!(told, 2);
    }
}

/// An answer that is being given ends with the courier, and is asked for again after the lift. A keeper
/// that was stopped is continued, so that it can tell the truth.
#[tokio::test(flavor = "multi_thread")]
async fn model_calls_end_and_stopped_keepers_tell() {
    let slow = Turn { delay_ms: 3_000, ..Turn::text("done") };
    let home = Home::with(vec![slow]).await;
    let task = home.submit(&["ask"]).await;
    until("the model is asked", || home.asked() == 1).await;
    home.run(&["halt"]).await.exits(0).says("the courier was killed");
    until("the courier is gone", || !courier(&home)).await;
    home.run(&["halt", "--lift"]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    assert_eq!(home.asked(), 2);
    drop(home);
    let (home, ids) = busy(1, "auto").await;
    let keepers = std::fs::read_dir("/proc").unwrap().flatten().filter(|entry| {
        let environ = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let mark = format!("TINKERBELL_KEEPER={}", ids[0]).into_bytes();
        environ.windows(mark.len()).any(|word| word == mark)
    });
    let keepers: Vec<i32> = keepers.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    assert!(!keepers.is_empty());
    keepers.iter().for_each(|pid| signal(*pid, "-STOP"));
    home.run(&["halt"]).await.exits(0);
    assert_eq!(alive()(&home), 0);
    goes_on(&home, &ids).await;
}

/// Where nothing was ever started, the mark still stands before the first daemon comes.
#[tokio::test(flavor = "multi_thread")]
async fn a_home_that_is_new_can_be_halted() {
    let home = Home::with(vec![Turn::text("done")]).await;
    home.run(&["halt", "--reason", "not yet"]).await.exits(0).says("no daemon ran");
    home.run(&["halt", "--reason", "another word"]).await.exits(0).says("not yet");
    home.run(&["run", "go"]).await.exits(69).says("not yet");
    kill(home.pid().await);
    home.run(&["halt", "--lift"]).await.exits(0);
    home.run(&["run", "go"]).await.exits(0);
}
