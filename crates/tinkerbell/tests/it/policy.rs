//! Policy files, as a user writes them, against what a model asks for.

use crate::home::{Home, exec, until};
use serde_json::Value;
use tinkerbell_testkit::llm::Turn;

const NO_PUSH: &str =
    "[[rule]]\nid = \"no-push\"\nargv = [\"git\", \"push\"]\ndecision = \"forbid\"\nwhy = \"people push\"\nmatch = [\"git push -f\"]\n";
const ASK_RM: &str = "[[rule]]\nid = \"rm\"\nargv = [\"rm\"]\ndecision = \"ask\"\n";

fn last_request(home: &Home) -> String {
    home.model.as_ref().unwrap().requests().last().unwrap().body.to_string()
}

/// A forbidden command is not run, and the model reads why; the one beside it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_forbidden_command_never_runs_and_the_model_is_told() {
    let home = Home::with(vec![exec("touch before && git push origin main"), exec("touch after"), Turn::text("done")]).await;
    std::fs::write(home.tb().join("policy.toml"), NO_PUSH).unwrap();
    home.run(&["run", "push it"]).await.exits(0);
    let said = last_request(&home);
    assert!(said.contains("refused by policy: people push (rule `no-push` of the user policy)"), "{said}");
    let list: Value = serde_json::from_str(&home.run(&["ps", "-a", "--json"]).await.exits(0).stdout).unwrap();
    let task = list[0]["short"].as_str().unwrap().to_owned();
    let tree = home.inspect(&task).await["workspace"].as_str().unwrap().to_owned();
    let tree = std::path::Path::new(&tree);
    assert!(tree.join("after").exists() && !tree.join("before").exists());
}

/// The repository's file tightens: the command waits for a person, and nobody there is exit 4.
#[tokio::test(flavor = "multi_thread")]
async fn a_projects_file_makes_a_command_wait_and_may_not_allow() {
    let home = Home::with(vec![exec("rm run.sh"), Turn::text("done")]).await;
    std::fs::create_dir_all(home.repo.join(".tinkerbell")).unwrap();
    let file = home.repo.join(".tinkerbell/policy.toml");
    std::fs::write(&file, ASK_RM.replace("ask", "allow")).unwrap();
    home.run(&["run", "tidy"]).await.exits(78).says("TB-POLICY-005");
    assert_eq!(home.asked(), 0, "no task was taken");
    std::fs::write(&file, ASK_RM).unwrap();
    home.run(&["run", "tidy"]).await.exits(4).says("rule `project:rm` of the project policy");
    let inbox: Value = serde_json::from_str(&home.run(&["inbox", "--json"]).await.exits(0).stdout).unwrap();
    let task = inbox.to_string().split("\"task\":\"").nth(1).unwrap()[..32].to_owned();
    home.run(&["approve", &task]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
}

/// The user's file counts from the moment it is written; a mistake in it changes nothing but is told.
#[tokio::test(flavor = "multi_thread")]
async fn a_changed_file_counts_at_once_and_a_mistake_leaves_the_old_one_in_force() {
    let home = Home::with(vec![exec("git push"), Turn::text("done")]).await;
    home.run(&["run", "one"]).await.exits(0);
    assert!(!last_request(&home).contains("refused by policy"));
    let file = home.tb().join("policy.toml");
    std::fs::write(&file, NO_PUSH).unwrap();
    home.run(&["run", "two"]).await.exits(0);
    let said = last_request(&home);
    assert!(said.contains("people push"), "{said}");
    std::fs::write(&file, NO_PUSH.replace("git push -f", "git pull")).unwrap();
    home.run(&["run", "three"]).await.exits(78).says("policy.toml:6: rule `no-push` does not match its example `git pull`");
    let status = home.run(&["daemon", "status"]).await.exits(0);
    assert!(format!("{}{}", status.stdout, status.stderr).contains("policy.rejected: the old policy stays in force"), "{}", status.stdout);
    // The watch of the directory sees the mended file without any command.
    std::fs::write(&file, format!("{NO_PUSH}{ASK_RM}")).unwrap();
    let log = home.tb().join("state/daemon.log");
    let changes = || std::fs::read_to_string(&log).unwrap_or_default().matches("the policy changed").count();
    until("the mended file was read", || changes() == 2).await;
    home.run(&["run", "three"]).await.exits(0);
    assert!(last_request(&home).contains("people push"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_policy_is_checked_tried_and_explained_without_a_daemon() {
    let home = Home::bare();
    std::fs::create_dir_all(home.tb()).unwrap();
    home.run(&["policy", "show"]).await.exits(0).says("sandboxed-commands");
    home.run(&["policy", "test"]).await.exits(0).says("do what they say");
    home.run(&["policy", "explain", "git push"]).await.exits(0).says("allow: the sandbox contains the command");
    std::fs::write(home.tb().join("policy.toml"), NO_PUSH).unwrap();
    home.run(&["policy", "explain", "ls; git push"]).await.exits(0).says("forbid: people push");
    // A name that stands for reasons of our own would make the rule something else to a reader.
    std::fs::write(home.tb().join("policy.toml"), NO_PUSH.replace("no-push", "risk")).unwrap();
    home.run(&["policy", "check"]).await.exits(78).says("policy.toml:2: no rule can be called `risk`");
    home.run(&["run", "go"]).await.exits(78).says("TB-POLICY-003");
    std::fs::write(home.tb().join("policy.toml"), "x = 1").unwrap();
    home.run(&["policy", "check"]).await.exits(78).says("policy.toml:1: unknown field `x`");
    home.run(&["run", "go"]).await.exits(78).says("TB-POLICY-003");
    home.run(&["explain", "TB-POLICY-003"]).await.exits(0).says("[[rule]]");
    assert!(!home.tb().join("data").exists(), "no daemon was started");
}
