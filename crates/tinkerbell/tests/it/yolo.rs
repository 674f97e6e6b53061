//! Nobody is asked: by the user's word alone, within the floor, marked everywhere, and not for good.

use crate::home::{Home, exec};
use serde_json::{Value, json};
use tinkerbell_testkit::llm::Turn;

const ASK_RM: &str =
    "[[rule]]\nid = \"rm\"\nargv = [\"rm\"]\ndecision = \"ask\"\n[[rule]]\nid = \"no\"\nargv = [\"wget\"]\ndecision = \"forbid\"\n";

fn edit(path: &str) -> Turn {
    Turn::call("write", json!({"path": path, "content": "x\n"}))
}

/// What would be asked for is done; what is forbidden stays so; each effect carries the mark.
#[tokio::test(flavor = "multi_thread")]
async fn asks_become_deeds_and_every_view_says_so() {
    let home = Home::with(vec![exec("rm run.sh"), exec("wget x"), exec("env wget x"), edit("AGENTS.md"), Turn::text("done")]).await;
    std::fs::write(home.tb().join("policy.toml"), ASK_RM).unwrap();
    let out = home.run(&["run", "--yolo", "--reason", "a test host", "tidy"]).await.exits(0);
    let out = out
        .says("YOLO: nobody is asked for approvals until")
        .says("(a test host; command line)")
        .says("YOLO, not asked: (medium risk: it discards work; you did not ask for it) rule `rm`");
    assert!(out.stderr.contains("it changes protected files: AGENTS.md"), "{}", out.stderr);
    let list: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let task = list[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(list[0]["yolo"]["reason"].as_str(), Some("a test host"));
    home.run(&["ps", "-a"]).await.exits(0).says("YOLO");
    home.run(&["inspect", &task]).await.exits(0).says("YOLO: nobody is asked");
    let log = home.run(&["logs", &task, "--json"]).await.exits(0).stdout;
    let events: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let of = |kind: &str| events.iter().filter(|event| event["type"] == kind).map(|event| event["data"].clone()).collect::<Vec<_>>();
    assert!(of("item.started").len() >= 5 && of("item.started").iter().all(|item| item["yolo"] == true), "{log}");
    let waived = of("item.completed").iter().filter(|item| item["waived"].is_string()).count();
    assert_eq!(waived, 2, "{log}");
    let asked = home.model.as_ref().unwrap().requests().last().unwrap().body.to_string();
    assert!(asked.contains("refused by policy: rule `no` of the user policy"), "{asked}");
    assert!(
        asked.contains("rule `no` and 1 more of the user policy might concern it; nobody is asked, and what a rule may forbid"),
        "{asked}"
    );
}

/// What steers us is asked for all the same, and what is critical is refused.
#[tokio::test(flavor = "multi_thread")]
async fn the_floor_stays() {
    let home = Home::with(vec![edit(".tinkerbell/policy.toml"), Turn::text("done")]).await;
    home.run(&["run", "--yolo", "go"]).await.exits(4).says("it changes the project's own settings or policy");
}

/// It ends by itself; a task that goes on after that asks again.
#[tokio::test(flavor = "multi_thread")]
async fn it_ends_and_then_is_asked_again() {
    let home = Home::with(vec![exec("rm run.sh"), Turn::text("done")]).await;
    std::fs::write(home.tb().join("policy.toml"), ASK_RM).unwrap();
    home.run(&["run", "--yolo", "--yolo-for", "169h", "tidy"]).await.exits(2).says("a week is the longest").says("until");
    home.run(&["run", "--yolo", "--yolo-for", "1ms", "tidy"]).await.exits(4).says("rule `rm` of the user policy");
    let list: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    assert_eq!(list[0]["yolo"], Value::Null, "{list}");
}

/// The user's configuration may say it, with a reason and an end; a repository and a model may not.
#[tokio::test(flavor = "multi_thread")]
async fn only_the_user_may_say_it() {
    let home = Home::with(vec![exec("rm run.sh"), Turn::text("done")]).await;
    std::fs::write(home.tb().join("policy.toml"), ASK_RM).unwrap();
    let config = home.tb().join("config.toml");
    let own = std::fs::read_to_string(&config).unwrap();
    let never = "[approvals]\nmode = \"never\"\n";
    std::fs::create_dir_all(home.repo.join(".tinkerbell")).unwrap();
    std::fs::write(home.repo.join(".tinkerbell/config.toml"), never).unwrap();
    home.run(&["run", "go"]).await.exits(78).says("a project must not set `approvals.mode`");
    std::fs::remove_file(home.repo.join(".tinkerbell/config.toml")).unwrap();
    std::fs::write(&config, format!("{own}{never}")).unwrap();
    home.run(&["run", "go"]).await.exits(78).says("TB-POLICY-007");
    std::fs::write(&config, format!("{own}{never}reason = \"ci\"\nuntil = \"2100-01-01T00:00:00Z\"\n")).unwrap();
    home.run(&["run", "go"]).await.exits(0).says("YOLO: nobody is asked").says("(ci; ");
    home.run(&["doctor", "--offline"]).await.says("YOLO: nobody is asked for approvals until 2100-01-01");
}

/// The inbox names open tasks that ask nobody, too.
#[tokio::test(flavor = "multi_thread")]
async fn the_inbox_names_tasks_that_ask_nobody() {
    let home = Home::with(vec![Turn::call("ask", json!({"question": "which?"})), Turn::text("done")]).await;
    home.run(&["run", "--yolo", "go"]).await.exits(4);
    home.run(&["inbox"]).await.exits(0).says("YOLO: nobody is asked for approvals until").says("no reason was given");
}
