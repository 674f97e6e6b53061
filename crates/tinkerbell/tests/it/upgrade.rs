//! The daemon gives its place to another binary: nothing is lost, done twice, or refused.
//!
//! New binaries are copies of the same one, or scripts in its place. Invariant: whatever the new
//! binary does, the tasks of the old one end as they would have.

use crate::courier::{held, release, until_spooled};
use crate::home::{Home, Out, exec, finish, until};
use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tinkerbell_api::Client;
use tinkerbell_api::client::Arrival;
use tinkerbell_api::wire::{Caps, SubmitRequest};
use tinkerbell_testkit::llm::Turn;

const BINARY: &str = env!("CARGO_BIN_EXE_tinkerbell");

/// A binary of its own for each upgrade, as an installation would bring it.
fn copy(home: &Home, name: &str) -> PathBuf {
    let dir = home.dir.path().join(name);
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("tinkerbell");
    std::fs::copy(BINARY, &path).unwrap();
    path
}

/// A script in the place of a binary.
fn script(home: &Home, text: &str) -> PathBuf {
    let path = home.dir.path().join("new-tinkerbell");
    std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    path
}

/// The real binary, made to fail at a step.
fn failing(home: &Home, step: &str) -> PathBuf {
    script(home, &format!("TINKERBELL_FAIL_AT={step} exec {BINARY} \"$@\""))
}

async fn upgrade(home: &Home, binary: &Path, health: &str) -> Out {
    home.run(&["daemon", "upgrade", binary.to_str().unwrap(), "--health", health]).await
}

async fn status(home: &Home) -> Value {
    let out = home.run(&["daemon", "status", "--json"]).await.exits(0);
    serde_json::from_str(&out.stdout).unwrap()
}

/// The command ran once, its true output reached the model once, and the journal stands.
async fn ended_as_it_should(home: &Home, task: &str) {
    home.run(&["wait", task]).await.exits(0);
    let requests = home.model.as_ref().unwrap().requests();
    let messages = requests.last().unwrap().body["messages"].as_array().unwrap().clone();
    let results: Vec<_> = messages.iter().filter(|message| message["role"] == "tool").collect();
    assert_eq!(results.len(), 1, "{results:?}");
    let text = results[0]["content"].as_str().unwrap();
    assert!(text.starts_with("exit 7 in ") && text.contains("begin\nend"), "{text}");
    let tree = home.inspect(task).await["workspace"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(format!("{tree}/ran.txt")).unwrap(), "x\n", "the command ran once");
    assert_eq!(requests.len(), 2, "one question before the command, one after it");
    home.run(&["wal", "verify"]).await.exits(0);
}

async fn with_a_command() -> (Home, String) {
    let home = Home::with(vec![exec("echo begin; echo x >> ran.txt; sleep 2; echo end; exit 7"), Turn::text("It ended with 7.")]).await;
    let task = home.submit(&["count to one"]).await;
    home.until_output("begin").await;
    (home, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_runs_on_through_an_upgrade() {
    let (home, task) = with_a_command().await;
    let old = home.pid().await;
    upgrade(&home, &copy(&home, "new"), "10s").await.exits(0).says("1 run on");
    let now = status(&home).await;
    assert_ne!(now["pid"].as_i64().unwrap(), i64::from(old));
    assert_eq!((&now["upgrade"]["state"], &now["upgrade"]["adopted"]), (&"done".into(), &1.into()));
    let exe = std::fs::read_link(format!("/proc/{}/exe", now["pid"])).unwrap();
    assert_eq!(exe, home.dir.path().join("new/tinkerbell"));
    ended_as_it_should(&home, &task).await;
    until("the old process is gone", || !Path::new(&format!("/proc/{old}/exe")).exists()).await;
}

/// An answer that is being given goes on in the courier: it is heard to its end and paid once.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_being_given_goes_on_through_an_upgrade() {
    let home = Home::with(vec![held("All is well.")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    upgrade(&home, &copy(&home, "new"), "10s").await.exits(0).says("model calls carried on: 1");
    release(&home);
    home.run(&["wait", &task]).await.exits(0);
    home.run(&["logs", "--full", &task]).await.exits(0).says("All is well.");
    assert_eq!(home.asked(), 1, "the answer was paid once");
}

/// Who follows a task sees each recorded event once and in order, and hears nothing of the upgrade.
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_run_goes_on_through_an_upgrade() {
    let home = Home::with(vec![exec("echo begin; sleep 2; echo end"), Turn::text("All is well.")]).await;
    let mut command = home.command(&["run", "--json", "go"]);
    let run = tokio::spawn(async move { command.output().await.unwrap() });
    home.until_output("begin").await;
    upgrade(&home, &copy(&home, "new"), "10s").await.exits(0);
    let output = tokio::time::timeout(Duration::from_secs(60), run).await.unwrap().unwrap();
    let (text, talk) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert_eq!(output.status.code(), Some(0), "{text}\n{talk}");
    let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<u64> = events.iter().filter_map(|event| event["lsn"].as_u64()).collect();
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert_eq!(events.last().unwrap()["type"], "result");
    assert!(!talk.contains("was gone"), "{talk}");
}

/// A binary that is none, that does not understand, or that only looks: nothing is touched.
#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_take_over_is_refused_and_nothing_is_touched() {
    let (home, task) = with_a_command().await;
    let (pid, epoch) = {
        let now = status(&home).await;
        (now["pid"].clone(), now["epoch"].clone())
    };
    let refuses = "echo '{\"word\":\"refused\",\"why\":\"record 5 has type 99, which this release does not know\"}' >&0";
    for (text, said) in
        [("exit 0", "ended without a word"), (refuses, "record 5 has type 99"), ("echo hello >&0", "nothing that a tinkerbell")]
    {
        upgrade(&home, &script(&home, text), "10s").await.exits(1).says("TB-DAEMON-011").says(said);
    }
    upgrade(&home, &script(&home, "exec sleep 60"), "100ms").await.exits(1).says("said nothing");
    upgrade(&home, Path::new("/nonexistent/tinkerbell"), "10s").await.exits(1).says("can not be read");
    upgrade(&home, &home.repo.join("src/a.txt"), "10s").await.exits(1).says("not a file that can be run");
    home.run(&["daemon", "upgrade", "--dry-run", BINARY]).await.exits(0).says("can read all");
    let now = status(&home).await;
    assert_eq!((&now["pid"], &now["epoch"]), (&pid, &epoch), "the same process on the same opening of the journal");
    ended_as_it_should(&home, &task).await;
}

/// A binary that fails after its turn has come: the old one takes over again, in its own process.
#[tokio::test(flavor = "multi_thread")]
async fn a_binary_that_does_not_serve_is_ended_and_the_old_one_takes_over_again() {
    let (home, task) = with_a_command().await;
    let pid = home.pid().await;
    for (step, said) in [("new:turn=exit", "ended before it served"), ("new:opened=hang", "did not serve within 1500 ms")] {
        upgrade(&home, &failing(&home, step), "1500ms").await.exits(1).says("TB-DAEMON-014").says(said);
        assert_eq!(home.pid().await, pid, "the process is the same, for whoever watches over it");
        assert_eq!(status(&home).await["upgrade"]["state"], "taken-back");
    }
    ended_as_it_should(&home, &task).await;
    upgrade(&home, &copy(&home, "good"), "10s").await.exits(0);
}

/// SIGKILL at each step of a handover, to each of the processes that take part in it.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_at_any_step_loses_nothing() {
    let old = ["old:look", "old:drain", "old:closing", "old:closed", "guard:begin", "guard:told"];
    let new = ["new:look", "new:looked", "new:turn", "new:opened", "new:serving"];
    for pair in old.map(|step| (step, false)).into_iter().chain(new.map(|step| (step, true))).collect::<Vec<_>>().chunks(2) {
        futures_util::future::join_all(pair.iter().map(|(step, is_new)| killed_at(step, *is_new))).await;
    }
}

async fn killed_at(step: &str, is_new: bool) {
    let home = Home::with(vec![exec("echo begin; echo x >> ran.txt; sleep 2; echo end; exit 7"), Turn::text("It ended with 7.")]).await;
    let mut daemon = home.command(&["daemon", "start", "--foreground"]);
    if !is_new {
        daemon.env("TINKERBELL_FAIL_AT", step);
    }
    let mut daemon = daemon.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null()).kill_on_drop(false).spawn().unwrap();
    let socket = home.tb().join("run/tinkerbelld.sock");
    until("the daemon serves", || socket.exists()).await;
    let task = home.submit(&["count to one"]).await;
    home.until_output("begin").await;
    let binary = if is_new { failing(&home, step) } else { copy(&home, "new") };
    let args = ["daemon", "upgrade", binary.to_str().unwrap(), "--health", "5s"];
    // Its answer may die with the process that would have given it; the tasks must not.
    let told = tokio::time::timeout(Duration::from_secs(15), finish(home.command(&args), &args)).await;
    ended_as_it_should(&home, &task).await;
    let log = std::fs::read_to_string(home.tb().join("state/daemon.log")).unwrap();
    assert!(log.contains("made to fail, for a test"), "{step} was not reached: {told:?}");
    let now = status(&home).await;
    assert!(now["room"] == "ample", "{step}: {told:?} {now}");
    // The first process has died or was replaced; whoever it was, it is reaped here.
    if step.starts_with("old") || step.starts_with("guard") {
        daemon.wait().await.unwrap();
    }
}

/// What clients met during the upgrades.
#[derive(Default)]
struct Met {
    asked: AtomicU64,
    submitted: AtomicU64,
    failed: AtomicU64,
    over: AtomicBool,
    longest_ms: AtomicU64,
}

/// Asks and submits without pause; every failure counts.
async fn hammer(path: PathBuf, repo: PathBuf, met: Arc<Met>, number: usize) {
    let mut turn = 0_u64;
    while !met.over.load(Ordering::SeqCst) {
        turn += 1;
        let began = Instant::now();
        let answer = async {
            let client = Client::connect(&path).await?;
            if turn % 20 == 3 {
                let (goal, cwd) = (format!("task {turn} of {number}"), repo.display().to_string());
                let request = SubmitRequest { goal, cwd, caps: Caps { steps: Some(0), ..Caps::default() }, ..SubmitRequest::default() };
                client.submit(&request, Some(&format!("{number}-{turn}"))).await?;
                met.submitted.fetch_add(1, Ordering::SeqCst);
            }
            client.tasks(false, 20, None).await.map(drop)
        };
        if let Err(fault) = answer.await {
            met.failed.fetch_add(1, Ordering::SeqCst);
            eprintln!("client {number}: {fault}");
        }
        met.asked.fetch_add(1, Ordering::SeqCst);
        met.longest_ms.fetch_max(began.elapsed().as_millis().try_into().unwrap(), Ordering::SeqCst);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Follows all events; gives their numbers in order of arrival.
async fn follow(path: PathBuf, met: Arc<Met>) -> Vec<u64> {
    let client = Client::connect(&path).await.unwrap();
    let mut stream = client.events(None, 0, false).await.unwrap();
    let mut seen = Vec::new();
    let mut is_last_look = false;
    loop {
        match tokio::time::timeout(Duration::from_millis(200), stream.next()).await {
            Ok(Ok(Arrival::Event { envelope, .. })) => seen.extend(envelope.and_then(|envelope| envelope.lsn)),
            Ok(Ok(Arrival::CaughtUp(_))) => {}
            Ok(Err(fault)) => {
                met.failed.fetch_add(1, Ordering::SeqCst);
                eprintln!("watcher: {fault}");
                return seen;
            }
            Err(_) if is_last_look => return seen,
            Err(_) => is_last_look = met.over.load(Ordering::SeqCst),
        }
    }
}

/// Upgrade after upgrade under load. Five here; `TINKERBELL_UPGRADES=100` for the figures in
/// `docs/benchmarks.md`.
#[tokio::test(flavor = "multi_thread")]
async fn upgrades_under_load_refuse_no_client_and_lose_no_event() {
    let count: usize = std::env::var("TINKERBELL_UPGRADES").ok().and_then(|text| text.parse().ok()).unwrap_or(5);
    // One task that works all the time, the others have no budget and wait for one.
    let commands = count + 5;
    let turns = (0..commands).map(|number| exec(&format!("echo {number} >> ran.txt; sleep 0.2; echo said {number}.")));
    let home = Home::with(turns.chain([Turn::text("All ran.")]).collect()).await;
    home.run(&["daemon", "start"]).await.exits(0);
    let path = home.tb().join("run/tinkerbelld.sock");
    let worker = home.submit(&["run them all"]).await;
    let met = Arc::new(Met::default());
    let watcher = tokio::spawn(follow(path.clone(), met.clone()));
    let clients: Vec<_> = (0..2).map(|number| tokio::spawn(hammer(path.clone(), home.repo.clone(), met.clone(), number))).collect();
    let binaries = [copy(&home, "a"), copy(&home, "b")];
    let mut gaps = Vec::new();
    for number in 0..count {
        upgrade(&home, &binaries[number % 2], "10s").await.exits(0);
        gaps.push(status(&home).await["upgrade"]["gap_ms"].as_u64().unwrap());
    }
    home.run(&["wait", "--timeout", "55s", &worker]).await.exits(0);
    met.over.store(true, Ordering::SeqCst);
    for client in clients {
        client.await.unwrap();
    }
    let seen = watcher.await.unwrap();
    let whole = follow(path.clone(), met.clone()).await;
    let tree = home.inspect(&worker).await["workspace"].as_str().unwrap().to_owned();
    let ran: Vec<String> = std::fs::read_to_string(format!("{tree}/ran.txt")).unwrap().lines().map(str::to_owned).collect();
    assert_eq!(ran, (0..commands).map(|number| number.to_string()).collect::<Vec<_>>(), "each command ran once, in order");
    let last = home.model.as_ref().unwrap().requests().last().unwrap().body.to_string();
    assert!((0..commands).all(|number| last.matches(&format!("said {number}.")).count() >= 1), "every output reached the model");
    assert_eq!(home.asked(), commands + 1, "no model call was made twice");
    gaps.sort_unstable();
    let figures = format!(
        "{count} upgrades, {commands} commands once each: {} requests ({} submissions), {} failed, longest {} ms; gap p50 {} ms, max {} ms; {} events seen",
        met.asked.load(Ordering::SeqCst),
        met.submitted.load(Ordering::SeqCst),
        met.failed.load(Ordering::SeqCst),
        met.longest_ms.load(Ordering::SeqCst),
        gaps[gaps.len() / 2],
        gaps[gaps.len() - 1],
        seen.len(),
    );
    eprintln!("{figures}");
    assert_eq!(met.failed.load(Ordering::SeqCst), 0, "{figures}");
    assert!(seen.windows(2).all(|pair| pair[0] < pair[1]), "an event came twice or out of order: {figures}");
    assert_eq!(seen, whole.iter().copied().take_while(|lsn| Some(lsn) <= seen.last()).collect::<Vec<_>>(), "{figures}");
    assert!(met.submitted.load(Ordering::SeqCst) > 0, "{figures}");
    home.run(&["wal", "verify"]).await.exits(0);
}
