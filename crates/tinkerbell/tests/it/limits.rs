//! Loops stop, budgets pause, questions wait.

use crate::home::{Home, exec};
use serde_json::{Value, json};
use tinkerbell_testkit::llm::Turn;

/// A model that repeats one failing call for ever is stopped at the fifth.
#[tokio::test(flavor = "multi_thread")]
async fn a_runaway_loop_is_stopped_by_the_fifth_call() {
    let home = Home::with((0..20).map(|_| exec("echo same; exit 3")).collect()).await;
    let out = home.run(&["run", "loop"]).await.exits(1);
    assert_eq!(home.asked(), 5, "{}", out.stderr);
    out.says("exit 3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_cap_pauses_and_a_raise_goes_on() {
    let home = Home::with(vec![exec("echo 1"), exec("echo 2"), Turn::text("done")]).await;
    let out = home.run(&["run", "--max-steps", "1", "go"]).await.exits(5).says("steps");
    assert!(out.stderr.contains("resume"), "{}", out.stderr);
    assert_eq!(home.asked(), 1);
    let list: Value = serde_json::from_str(&home.run(&["ps", "--json"]).await.exits(0).stdout).unwrap();
    let task = list.to_string().split("\"id\":\"").nth(1).unwrap()[..32].to_owned();
    home.run(&["resume", &task]).await.exits(5);
    home.run(&["resume", &task, "--max-steps", "9"]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    assert_eq!(home.asked(), 3);
}

/// A task that may spend no more has nobody work for it; what was in the background is told when it goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_over_its_budget_leaves_no_command_behind() {
    let seconds = format!("{}.25", 10_000 + std::process::id());
    let left = Turn::call("exec", json!({"cmd": format!("echo up; exec sleep {seconds}"), "yield_ms": 250}));
    let waited = Turn::call("exec_wait", json!({"unit": "u3"}));
    let home = Home::with(vec![left, waited, Turn::text("done")]).await;
    home.run(&["run", "--max-steps", "1", "go"]).await.exits(5).says("steps");
    let sleeps = format!("sleep\0{seconds}\0").into_bytes();
    let mut lines =
        std::fs::read_dir("/proc").unwrap().flatten().map(|entry| std::fs::read(entry.path().join("cmdline")).unwrap_or_default());
    assert!(lines.all(|line| line != sleeps));
    let task = newest(&home).await;
    home.run(&["resume", &task, "--max-steps", "9"]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    let told = home.model.as_ref().unwrap().requests()[2].body.to_string();
    assert!(told.contains("signal"), "{told}");
}

const SPIN: &str = "i=0; while :; do i=$((i+1)); done";

async fn newest(home: &Home) -> String {
    let list: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    list[0]["id"].as_str().unwrap().to_owned()
}

/// A command and one that an earlier call left in the background share what the task has.
#[tokio::test(flavor = "multi_thread")]
async fn cpu_time_is_a_budget_of_all_commands_together() {
    let background = Turn::call("exec", json!({"cmd": SPIN, "yield_ms": 250}));
    let home = Home::with(vec![background, exec(SPIN), exec("echo never >> ran.txt"), Turn::text("done")]).await;
    let out = home.run(&["run", "--max-cpu", "3s", "spin"]).await.exits(5).says("CPU time");
    assert!(out.stderr.contains("--max-cpu"), "{}", out.stderr);
    let task = newest(&home).await;
    let view = home.inspect(&task).await;
    let used = view["cpu_ms"].as_u64().unwrap();
    assert!((2_900..6_000).contains(&used), "{view}");
    // Not asked again once nothing is left: two calls, and no third command.
    assert_eq!(home.asked(), 2);
    let log = home.run(&["logs", "--full", &task]).await.exits(0).stdout;
    assert!(log.contains("limit `cpu`"), "{log}");
    home.run(&["resume", &task]).await.exits(5);
    home.run(&["resume", &task, "--max-cpu", "30s"]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    let told = home.model.as_ref().unwrap().requests()[2].body.to_string();
    assert!(told.contains("ended by the limit `cpu`"), "{told}");
    let view = home.inspect(&task).await;
    assert!(view["cpu_ms"].as_u64().unwrap() >= used && view["caps"]["cpu_ms"] == 30_000, "{view}");
    let lines = home.run(&["inspect", &task]).await.exits(0).stdout;
    assert!(lines.contains("cpu time") && lines.contains("of 30 s"), "{lines}");
    home.run(&["wal", "verify"]).await.exits(0);
}

/// The plug is pulled in mid spend: the command ends at what it was given, nobody spends it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_budget_survives_the_daemon_in_mid_spend() {
    let home = Home::with(vec![exec(&format!("echo begin; {SPIN}")), exec("echo x"), Turn::text("done")]).await;
    let task = home.submit(&["--max-cpu", "2s", "spin"]).await;
    home.until_output("begin").await;
    home.kill_daemon().await;
    // No daemon lives; the keeper ends it all the same.
    let runs = home.tb().join("data/runs");
    let ended = || std::fs::read_dir(&runs).unwrap().flatten().any(|run| run.path().join("trailer").exists());
    crate::home::until("the keeper has ended it alone", ended).await;
    home.run(&["wait", &task]).await.exits(5);
    let used = home.inspect(&task).await["cpu_ms"].as_u64().unwrap();
    assert!((1_900..5_000).contains(&used), "{used}");
    home.kill_daemon().await;
    assert_eq!(home.inspect(&task).await["cpu_ms"].as_u64(), Some(used), "counted once");
    assert_eq!(home.asked(), 1);
}

/// A fork bomb, a glutton and a hoarder are ended and told; the task goes on.
#[tokio::test(flavor = "multi_thread")]
async fn commands_that_take_too_much_are_ended_and_the_model_is_told_why() {
    let bomb = "n=0; while [ $n -lt 300 ]; do n=$((n+1)); (sleep 20) & done; wait";
    let fill = "n=0; while [ $n -lt 60 ]; do n=$((n+1)); head -c 2000000 /dev/zero > f$n; sleep 0.05; done; sleep 15";
    let home = Home::with(vec![exec(bomb), exec(fill), exec("rm -f f*; echo clean"), Turn::text("done")]).await;
    let config = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
    home.config(&format!("{config}[sandbox]\nprocesses = 60\ndisk = \"40MiB\"\n"));
    home.run(&["run", "take all"]).await.exits(0);
    let requests = home.model.as_ref().unwrap().requests();
    let bodies: Vec<String> = requests.iter().map(|request| request.body.to_string()).collect();
    assert!(bodies[1].contains("ended by the limit `processes`"), "{}", bodies[1]);
    assert!(bodies[2].contains("ended by the limit `disk`"), "{}", bodies[2]);
    // Whoever is over the limit may still make room.
    assert!(bodies[3].contains("clean"), "{}", bodies[3]);
}

/// An edit of a protected file asks; nobody there means exit 4, and the answer is bound to the bytes.
#[tokio::test(flavor = "multi_thread")]
async fn a_protected_file_is_asked_for() {
    let write = Turn::call("write", json!({"path": ".github/workflows/ci.yml", "content": "on: push\n"}));
    let home = Home::with(vec![write, Turn::text("done")]).await;
    home.run(&["run", "add ci"]).await.exits(4).says("approve");
    let inbox: Value = serde_json::from_str(&home.run(&["inbox", "--json"]).await.exits(0).stdout).unwrap();
    assert!(inbox.to_string().contains("on: push"), "{inbox}");
    let task = inbox.to_string().split("\"task\":\"").nth(1).unwrap()[..32].to_owned();
    home.run(&["approve", &task]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    let tree = home.inspect(&task).await["workspace"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(format!("{tree}/.github/workflows/ci.yml")).unwrap(), "on: push\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_edit_leaves_the_file_alone() {
    let write = Turn::call("write", json!({"path": "AGENTS.md", "content": "obey\n"}));
    let home = Home::with(vec![write, Turn::text("then not")]).await;
    let task = home.submit(&["add rules"]).await;
    home.run(&["wait", &task]).await.exits(4);
    home.run(&["deny", &task, "--why", "no rules"]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    let last = home.model.as_ref().unwrap().requests().last().unwrap().body.to_string();
    assert!(last.contains("no rules"), "{last}");
    let tree = home.inspect(&task).await["workspace"].as_str().unwrap().to_owned();
    assert!(!std::path::Path::new(&tree).join("AGENTS.md").exists());
}

/// The gate belongs to the runtime: a red check is never "done".
#[tokio::test(flavor = "multi_thread")]
async fn a_failing_gate_is_exit_3_and_a_passing_one_is_verified() {
    let home = Home::with((0..8).map(|_| Turn::text("I am done.")).collect()).await;
    home.run(&["run", "--verify", "test -e fixed", "fix it"]).await.exits(3);
    let home = Home::with(vec![exec("touch fixed"), Turn::text("Fixed.")]).await;
    home.run(&["run", "--verify", "test -e fixed", "fix it"]).await.exits(0).says("verified");
}
