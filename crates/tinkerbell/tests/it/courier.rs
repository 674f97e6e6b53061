//! Answers outlive the daemon: whatever dies in the middle of a call, what was paid is not bought again.
//!
//! The provider counts its requests and holds its answers, so every kill hits the moment it is meant
//! for. Invariant: a request more than the script has turns is one that a test names.

use crate::home::{Home, exec, finish, kill, until, walk};
use std::path::{Path, PathBuf};
use tinkerbell_testkit::llm::{Fault, Tokens, Turn};

const SECRET: &str = "sk-canary-0123456789abcdef";

/// Words that come in many frames, and stop in their middle until the model is released.
pub fn held(end: &str) -> Turn {
    let usage = Some(Tokens { input: 1_000, cached: 0, output: 500 });
    Turn { usage, ..Turn::text(&format!("{}{end}", "slowly, ".repeat(60))) }.fault(Fault::Hold { bytes: 2_000 })
}

/// The courier of a home.
pub fn courier(home: &Home) -> Option<i32> {
    let pid = std::fs::read_to_string(home.tb().join("data/courier/lock")).ok()?.trim().parse().ok()?;
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&words).contains("__courier").then_some(pid)
}

fn spools(home: &Home) -> Vec<PathBuf> {
    walk(&home.tb().join("data/calls"))
}

/// Waits until a part of the answer is on disk.
pub async fn until_spooled(home: &Home, text: &str) {
    let holds = |path: &PathBuf| std::fs::read(path).is_ok_and(|bytes| String::from_utf8_lossy(&bytes).contains(text));
    until(&format!("`{text}` is in a spool"), || spools(home).iter().any(holds)).await;
}

async fn kill_courier(home: &Home) {
    let pid = courier(home).unwrap();
    kill(pid);
    until("the courier is gone", || !is_alive(pid)).await;
}

fn is_alive(pid: i32) -> bool {
    std::fs::read_link(format!("/proc/{pid}/exe")).is_ok()
}

pub fn release(home: &Home) {
    home.model.as_ref().unwrap().release();
}

/// The task ends well, with these words last.
async fn ends_with(home: &Home, task: &str, words: &str) {
    home.run(&["wait", task]).await.exits(0);
    home.run(&["logs", "--full", task]).await.exits(0).says(words);
    home.run(&["wal", "verify"]).await.exits(0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_is_being_given_when_the_daemon_dies_is_heard_to_its_end() {
    let home = Home::with(vec![held("All is well.")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    let carrier = courier(&home);
    for _ in 0..2 {
        home.kill_daemon().await;
        home.run(&["daemon", "start"]).await.exits(0);
        assert_eq!((courier(&home), carrier.is_some()), (carrier, true), "the next daemon takes the same courier");
    }
    release(&home);
    ends_with(&home, &task, "All is well.").await;
    assert_eq!((home.asked(), home.model.as_ref().unwrap().gone().len()), (1, 0));
}

/// The provider has finished, and nobody has recorded it: between answer and observation.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_comes_while_no_daemon_lives_is_delivered_not_bought() {
    let home = Home::with(vec![held("All is well.")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    home.kill_daemon().await;
    release(&home);
    until_spooled(&home, "All is well.").await;
    let carrier = courier(&home).unwrap();
    ends_with(&home, &task, "All is well.").await;
    assert_eq!(home.asked(), 1);
    // And also when the courier has died since.
    let view = home.inspect(&task).await;
    assert!(view["usage"]["input_tokens"].as_u64().unwrap_or(1_000) == 1_000, "charged once: {view}");
    home.run(&["daemon", "stop"]).await.exits(0);
    assert!(!is_alive(carrier), "a courier without calls goes with its daemon");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_whole_answer_survives_daemon_and_courier() {
    let home = Home::with(vec![held("All is well.")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    home.kill_daemon().await;
    release(&home);
    until_spooled(&home, "All is well.").await;
    // The last event follows the last words.
    until_spooled(&home, "127.0.0.1").await;
    kill_courier(&home).await;
    ends_with(&home, &task, "All is well.").await;
    assert_eq!((home.asked(), courier(&home)), (1, None));
}

/// The courier dies in the middle: what came is kept and counted, and the call is made once more.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_whose_courier_dies_is_made_again_once_and_its_words_are_kept() {
    let home = Home::with(vec![held("All is well.")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    kill_courier(&home).await;
    until("it is asked again", || home.asked() == 2).await;
    ends_with(&home, &task, "All is well.").await;
    assert_eq!(home.asked(), 2);
    let logs =
        home.run(&["logs", &task]).await.exits(0).says("paid without an answer").says("the courier died").says("it had said: slowly");
    assert_eq!(logs.stdout.matches("paid without").count(), 1, "{}", logs.stdout);
    let usage = home.inspect(&task).await["usage"].clone();
    assert!(usage["input_tokens"].as_u64().is_some_and(|tokens| tokens > 1_000), "the lost try is counted: {usage}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_loses_daemon_and_courier_is_made_again_once() {
    let home = Home::with(vec![exec("echo x >> count.txt"), held("All is well.")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    let (pid, carrier) = (home.pid().await, courier(&home).unwrap());
    kill(carrier);
    kill(pid);
    until("both are gone", || !is_alive(pid) && !is_alive(carrier)).await;
    ends_with(&home, &task, "All is well.").await;
    // It may have been asked again already, in the moment between both kills.
    assert!((3..=4).contains(&home.asked()), "{} requests", home.asked());
    home.run(&["logs", &task]).await.exits(0).says("it had said: slowly");
}

/// A courier that dies twice in one call: the task is paused, and `resume` goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_cut_off_twice_pauses_its_task() {
    let home = Home::with(vec![held("All is well.").fault(Fault::Hold { bytes: 2_000 }).fault(Fault::Hold { bytes: 2_000 })]).await;
    let task = home.submit(&["go"]).await;
    for round in 1..=2 {
        until("it is asked", || home.asked() == round).await;
        until("words have come", || {
            spools(&home).iter().filter(|path| path.metadata().is_ok_and(|meta| meta.len() > 300)).count() == round
        })
        .await;
        kill_courier(&home).await;
    }
    let started = std::time::Instant::now();
    while matches!(home.inspect(&task).await["status"].as_str(), Some("running" | "queued")) {
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "it never pauses");
    }
    assert_eq!(home.asked(), 2, "it is not asked a third time at once");
    release(&home);
    home.run(&["resume", &task]).await.exits(0);
    ends_with(&home, &task, "All is well.").await;
    assert_eq!(home.asked(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn stopping_a_task_closes_the_providers_connection() {
    let home = Home::with(vec![held("never said")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    home.run(&["stop", &task]).await.exits(0);
    home.run(&["wait", &task]).await.exits(6);
    until("the provider sees it", || !home.model.as_ref().unwrap().gone().is_empty()).await;
    until("nothing is kept of it", || spools(&home).is_empty()).await;
    assert_eq!(home.asked(), 1);
}

/// The daemon is told to stop in the middle of an answer: the courier ends the call alone.
#[tokio::test(flavor = "multi_thread")]
async fn an_orderly_stop_leaves_the_answer_to_the_courier() {
    let home = Home::with(vec![held("All is well.")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    home.run(&["daemon", "stop"]).await.exits(0);
    release(&home);
    until_spooled(&home, "All is well.").await;
    ends_with(&home, &task, "All is well.").await;
    assert_eq!((home.asked(), home.model.as_ref().unwrap().gone().len()), (1, 0));
}

/// A task that is stopped while its answer runs without a daemon: the next daemon ends the call.
#[tokio::test(flavor = "multi_thread")]
async fn answers_that_no_task_waits_for_are_let_go() {
    let home = Home::with(vec![held("never heard")]).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    home.kill_daemon().await;
    home.run(&["stop", &task]).await.exits(0);
    home.run(&["wait", &task]).await.exits(6);
    until("the provider sees it", || !home.model.as_ref().unwrap().gone().is_empty()).await;
    until("nothing is kept of it", || spools(&home).is_empty()).await;
}

/// Another release takes the binary's place: its daemon takes the old courier over.
#[tokio::test(flavor = "multi_thread")]
async fn a_courier_of_a_replaced_binary_is_adopted() {
    let home = Home::with(vec![held("All is well.")]).await;
    let copy = home.dir.path().join("tinkerbell");
    std::fs::copy(env!("CARGO_BIN_EXE_tinkerbell"), &copy).unwrap();
    let mut daemon = tokio::process::Command::new(&copy);
    daemon.args(["daemon", "start", "--foreground"]).env("TINKERBELL_HOME", home.tb()).env("HOME", home.dir.path()).kill_on_drop(true);
    let mut old = daemon.stdout(std::process::Stdio::null()).spawn().unwrap();
    until("the old daemon holds the home", || home.tb().join("run/tinkerbelld.sock").exists()).await;
    let task = home.submit(&["go"]).await;
    until_spooled(&home, "slowly").await;
    let carrier = courier(&home).unwrap();
    old.kill().await.unwrap();
    std::fs::remove_file(&copy).unwrap();
    home.run(&["daemon", "start"]).await.exits(0);
    let exe = |pid: i32| std::fs::read_link(format!("/proc/{pid}/exe")).unwrap();
    assert!(exe(carrier).starts_with(home.dir.path()) && !exe(home.pid().await).starts_with(home.dir.path()));
    release(&home);
    ends_with(&home, &task, "All is well.").await;
    assert_eq!((courier(&home), home.asked()), (Some(carrier), 1));
}

/// No courier can be had: the daemon asks itself, and `doctor` says so.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_courier_the_daemon_asks_itself_and_doctor_says_so() {
    let home = Home::with(vec![Turn::text("All is well.")]).await;
    std::fs::create_dir_all(home.tb().join("data")).unwrap();
    // A directory that is open to others is none that a courier serves in.
    let place = home.tb().join("data/courier");
    std::fs::create_dir(&place).unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    home.run(&["run", "go"]).await.exits(0).says("All is well.");
    let log = std::fs::read_to_string(home.tb().join("state/daemon.log")).unwrap();
    assert!(log.contains("no courier"), "{log}");
    home.run(&["doctor", "--offline"]).await.says("the daemon speaks to providers itself");
    assert_eq!(courier(&home), None);
}

/// A key is in the provider's request and nowhere else, wherever the model repeats it.
#[tokio::test(flavor = "multi_thread")]
async fn keys_stay_in_memory() {
    let home = Home::with(vec![Turn { delay_ms: 0, ..exec(&format!("echo {SECRET}")) }, held(&format!("The key is {SECRET}."))]).await;
    let url = home.model.as_ref().unwrap().base_url();
    home.config(&format!(
        "model = \"local/m\"\n[providers.local]\nwire = \"openai\"\napi_key_env = \"LOCAL_KEY\"\nbase_url = \"{url}\"\n[models.\"local/m\"]\ncontext_tokens = 64000\n"
    ));
    // The daemon is started without the key, so that only the request brings it.
    home.run(&["daemon", "start"]).await.exits(0);
    let args = ["run", "--bg", "go"];
    let mut command = home.command(&args);
    command.env("LOCAL_KEY", SECRET).env("RUST_LOG", "trace");
    let task = finish(command, &args).await.exits(0).stdout.trim().to_owned();
    until_spooled(&home, "slowly").await;
    let carrier = courier(&home).unwrap();
    for (pid, file) in [home.pid().await, carrier].into_iter().flat_map(|pid| [(pid, "cmdline"), (pid, "environ")]) {
        let bytes = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!holds(&bytes), "{file} of {pid}");
    }
    assert_nowhere(&home.tb());
    // The next daemon has no key and needs none: the courier has it.
    home.kill_daemon().await;
    release(&home);
    until_spooled(&home, "The key is [secret LOCAL_KEY]").await;
    ends_with(&home, &task, "The key is [secret LOCAL_KEY]").await;
    assert_nowhere(&home.tb());
    let requests = home.model.as_ref().unwrap().requests();
    assert!(requests.len() == 2 && requests.iter().all(|request| request.headers["authorization"] == format!("Bearer {SECRET}")));
}

fn holds(bytes: &[u8]) -> bool {
    bytes.windows(SECRET.len()).any(|window| window == SECRET.as_bytes())
}

fn assert_nowhere(dir: &Path) {
    for path in walk(dir) {
        assert!(!holds(&std::fs::read(&path).unwrap_or_default()), "{}", path.display());
    }
}
