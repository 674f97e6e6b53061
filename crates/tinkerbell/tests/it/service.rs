//! The daemon as a service: what it tells the service manager, and configuration that changes.
//!
//! The service manager is a socket of the test. Invariant: nothing here needs systemd to run.

use crate::home::{Home, exec, kill, until};
use serde_json::Value;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tinkerbell_testkit::llm::Turn;
use tokio::process::Child;

/// Where the daemon reports to.
struct Manager {
    socket: UnixDatagram,
    heard: Vec<String>,
}

impl Manager {
    fn new(home: &Home) -> (Self, std::path::PathBuf) {
        let path = home.dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
        (Self { socket, heard: Vec::new() }, path)
    }

    /// Waits until a line was said that begins so; gives the whole datagram.
    async fn hears(&mut self, begins: &str) -> String {
        let started = Instant::now();
        loop {
            let mut bytes = [0_u8; 4096];
            if let Ok(length) = self.socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                self.heard.push(text.clone());
                if text.lines().any(|line| line.starts_with(begins)) {
                    return text;
                }
            }
            assert!(started.elapsed() < Duration::from_secs(60), "never `{begins}`: {:?}", self.heard);
            tokio::task::yield_now().await;
        }
    }
}

fn daemon(home: &Home, env: &[(&str, &Path)]) -> Child {
    let mut command = home.command(&["daemon", "start", "--foreground"]);
    command.envs(env.iter().copied()).env("WATCHDOG_USEC", "400000");
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
}

fn signal(pid: i32, name: &str) {
    assert!(std::process::Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

async fn status(home: &Home) -> Value {
    let out = home.run(&["daemon", "status", "--json"]).await.exits(0);
    serde_json::from_str(&out.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_manager_hears_of_start_life_reload_upgrade_and_end() {
    let home = Home::with(vec![exec("env; echo seen; sleep 0.1"), Turn::text("ok")]).await;
    let (mut manager, path) = Manager::new(&home);
    let mut first = daemon(&home, &[("NOTIFY_SOCKET", &path)]);
    manager.hears("READY=1").await;
    // Ready means ready: a client gets its answer at once.
    let pid = home.pid().await;
    manager.hears("WATCHDOG=1").await;
    assert!(manager.hears("STATUS=").await.contains("open tasks"));
    signal(pid, "-HUP");
    assert!(manager.hears("RELOADING=1").await.contains("MONOTONIC_USEC="));
    manager.hears("READY=1").await;
    // What concerns the daemon's process reaches no command.
    home.run(&["run", "look"]).await.exits(0);
    let seen = home.model.as_ref().unwrap().requests().last().unwrap().body.to_string();
    assert!(seen.contains("seen") && !seen.contains("NOTIFY_SOCKET") && !seen.contains("WATCHDOG"), "{seen}");
    // The guard tells who the main process is from now on, and leaves.
    home.run(&["daemon", "upgrade"]).await.exits(0);
    let told = manager.hears("MAINPID=").await;
    let next = home.pid().await;
    assert!(told.lines().any(|line| line == format!("MAINPID={next}")), "{told}");
    assert!(first.wait().await.unwrap().success());
    manager.hears("WATCHDOG=1").await;
    signal(next, "-TERM");
    manager.hears("STOPPING=1").await;
    until("it has ended", || !Path::new(&format!("/proc/{next}/exe")).exists()).await;
    home.run(&["wal", "stat"]).await.exits(0).says("closed in order");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_client_starts_a_daemon_on_a_socket_that_was_passed() {
    let home = Home::with(vec![]).await;
    let run = home.tb().join("run");
    std::fs::create_dir_all(&run).unwrap();
    let socket = run.join("tinkerbelld.sock");
    let mut activate = tokio::process::Command::new("systemd-socket-activate");
    activate.arg("-l").arg(&socket).arg("-E").arg(format!("TINKERBELL_HOME={}", home.tb().display()));
    activate.args(["-E", "HOME=/nonexistent", "-E", "PATH=/usr/bin:/bin", env!("CARGO_BIN_EXE_tinkerbell")]);
    activate.args(["daemon", "start", "--foreground"]).stdout(Stdio::null()).stderr(Stdio::null()).kill_on_drop(true);
    // Where systemd's tool is not installed there is nothing to try.
    let Ok(child) = activate.spawn() else { return };
    until("the socket listens", || socket.exists()).await;
    let inode = |path: &Path| std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(path).unwrap());
    let before = inode(&socket);
    home.run(&["ps"]).await.exits(0);
    assert_eq!(home.pid().await, i32::try_from(child.id().unwrap()).unwrap(), "the process that was activated serves");
    assert_eq!(inode(&socket), before, "on the very socket that was passed");
    kill(home.pid().await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_counts_and_a_broken_one_does_not() {
    let home = Home::with(vec![]).await;
    home.run(&["daemon", "start"]).await.exits(0);
    let whole = std::fs::read_to_string(home.tb().join("config.toml")).unwrap();
    let shows = async |what: &str, holds: &dyn Fn(&Value) -> bool| {
        let started = Instant::now();
        loop {
            let now = status(&home).await;
            if holds(&now) {
                return now;
            }
            assert!(started.elapsed() < Duration::from_secs(30), "never {what}: {now}");
        }
    };
    // As an editor writes: a new file in the old one's place.
    let write = |text: &str| {
        let beside = home.tb().join("config.toml~");
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, home.tb().join("config.toml")).unwrap();
    };
    write(&format!("{whole}\nnonsense = 1\n"));
    let now = shows("rejected", &|now| now["notices"][0].as_str().is_some_and(|text| text.starts_with("config.rejected: "))).await;
    assert!(now["notices"][0].as_str().unwrap().contains("config.toml:"), "{now}");
    home.run(&["doctor", "--offline"]).await.says("config.rejected");
    write(&format!("{whole}\n[workspace]\nignored = \"keep\"\n"));
    shows("pending", &|now| now["pending"][0] == "workspace.ignored" && now["notices"].as_array().is_some_and(|all| all.len() == 1)).await;
    home.run(&["config", "show"]).await.exits(0).says("workspace.ignored = \"keep\"  # counts after a restart");
    home.run(&["daemon", "reload"]).await.exits(0).says("nothing has changed");
    write(&whole);
    shows("clean", &|now| now["notices"].is_null() && now["pending"].is_null()).await;
    home.run(&["daemon", "status"]).await.exits(0).says("room ample").says("memory ");
}
