//! Pull the plug: the daemon is killed, and nothing is lost or done twice.

use crate::home::{Home, exec};
use tinkerbell_testkit::llm::Turn;

/// The promise, word for word: killed in mid-command, it goes on by itself; the command ran once and
/// its true output and exit code are in the transcript.
#[tokio::test(flavor = "multi_thread")]
async fn killed_in_mid_command_it_finishes_by_itself() {
    let cmd = "echo begin; echo x >> ran.txt; sleep 2; echo end; exit 7";
    let home = Home::with(vec![exec(cmd), Turn::text("It ended with 7.")]).await;
    let task = home.submit(&["count to one"]).await;
    home.until_output("begin").await;
    home.kill_daemon().await;
    home.run(&["daemon", "start"]).await.exits(0);
    home.run(&["wait", &task]).await.exits(0);
    // The model reads one result with the true exit code and the output from both sides of the kill.
    let requests = home.model.as_ref().unwrap().requests();
    let messages = requests.last().unwrap().body["messages"].as_array().unwrap().clone();
    let results: Vec<_> = messages.iter().filter(|message| message["role"] == "tool").collect();
    assert_eq!(results.len(), 1, "{results:?}");
    let text = results[0]["content"].as_str().unwrap();
    assert!(text.starts_with("exit 7 in ") && text.contains("begin\nend"), "{text}");
    // So does the person, who sees it once.
    let log = home.run(&["logs", "--full", &task]).await.exits(0).stdout;
    assert_eq!(log.matches("begin\n").count(), 1, "{log}");
    let tree = home.inspect(&task).await["workspace"].as_str().unwrap().to_owned();
    assert_eq!(std::fs::read_to_string(format!("{tree}/ran.txt")).unwrap(), "x\n", "the command ran once");
    // A restart asks nothing twice: one question before the command, one after it.
    assert_eq!(home.asked(), 2);
    home.run(&["wal", "verify"]).await.exits(0);
}

/// The command ends while no daemon lives: its outcome is delivered, not lost.
#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_while_no_daemon_lives_is_delivered() {
    let home = Home::with(vec![exec("echo begin; sleep 1; echo done > done.txt; echo end"), Turn::text("ok")]).await;
    let task = home.submit(&["go"]).await;
    home.until_output("begin").await;
    let tree = home.inspect(&task).await["workspace"].as_str().unwrap().to_owned();
    home.kill_daemon().await;
    crate::home::until("the command has ended alone", || std::path::Path::new(&tree).join("done.txt").exists()).await;
    home.run(&["wait", &task]).await.exits(0);
    let requests = home.model.as_ref().unwrap().requests();
    assert!(requests.last().unwrap().body.to_string().contains("end"));
}

/// Killed between two model calls and in the middle of one: answers that were paid are not bought again.
#[tokio::test(flavor = "multi_thread")]
async fn an_attached_run_survives_the_daemon() {
    let home = Home::with(vec![exec("echo begin; sleep 2; echo end"), Turn::text("All is well.")]).await;
    let mut command = home.command(&["run", "go"]);
    let run = tokio::spawn(async move { command.output().await.unwrap() });
    home.until_output("begin").await;
    home.kill_daemon().await;
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), run).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("All is well."), "{text}");
    assert_eq!(home.asked(), 2);
}

/// Two daemons on one directory: the second leaves, the first serves on.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_daemon_leaves_quietly() {
    let home = Home::with(vec![]).await;
    home.run(&["daemon", "start"]).await.exits(0);
    let pid = home.pid().await;
    home.run(&["daemon", "start", "--foreground"]).await.exits(0);
    home.run(&["daemon", "start"]).await.exits(0);
    assert_eq!(home.pid().await, pid);
    home.run(&["daemon", "stop"]).await.exits(0);
}

/// A stale socket of a killed daemon is replaced.
#[tokio::test(flavor = "multi_thread")]
async fn a_stale_socket_is_replaced() {
    let home = Home::with(vec![]).await;
    home.run(&["daemon", "start"]).await.exits(0);
    home.kill_daemon().await;
    assert!(home.tb().join("run/tinkerbelld.sock").exists());
    home.run(&["ps"]).await.exits(0);
    home.run(&["daemon", "start"]).await.exits(0);
    home.pid().await;
}

/// Another release takes the binary's place while its daemon runs: commands still start.
#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_binary_does_not_stop_the_running_daemon() {
    let home = Home::with(vec![exec("echo still here"), Turn::text("ok")]).await;
    let copy = home.dir.path().join("tinkerbell");
    std::fs::copy(env!("CARGO_BIN_EXE_tinkerbell"), &copy).unwrap();
    let mut daemon = tokio::process::Command::new(&copy);
    daemon.args(["daemon", "start", "--foreground"]).env("TINKERBELL_HOME", home.tb()).env("HOME", home.dir.path()).kill_on_drop(true);
    let mut child = daemon.stdout(std::process::Stdio::null()).spawn().unwrap();
    let started = std::time::Instant::now();
    loop {
        let out = home.run(&["daemon", "status", "--json"]).await;
        // The level is proven before the file changes, as a daemon does soon after its start.
        let status: serde_json::Value = serde_json::from_str(&out.stdout).unwrap_or_default();
        if status["level"].is_string() {
            break;
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(60), "{}", out.stderr);
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    std::fs::remove_file(&copy).unwrap();
    std::fs::write(&copy, "another release").unwrap();
    home.run(&["run", "go"]).await.exits(0);
    let last = home.model.as_ref().unwrap().requests().last().unwrap().body.to_string();
    assert!(last.contains("still here"), "{last}");
    home.run(&["daemon", "stop"]).await.exits(0);
    child.wait().await.unwrap();
}
