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
