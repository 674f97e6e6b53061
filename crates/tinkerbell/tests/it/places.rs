//! Places that are missing, foreign, full, read-only or taken.
//!
//! Where a test needs what only root may do it says so and passes. Invariant: whatever is wrong with
//! a place, nothing that was recorded is lost, and the message says what to do.

use crate::home::{Home, exec, finish, out, until};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tinkerbell_testkit::llm::Turn;

/// `nobody`, as every Linux knows it.
const SOMEBODY_ELSE: u32 = 65_534;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A mount namespace with a file system of its own at a home's place; ends when dropped.
struct Island(Child);

impl Island {
    /// Mounts `size` bytes at `TINKERBELL_HOME`, with its configuration. `None` where that is not allowed.
    fn at(home: &mut Home, size: &str) -> Option<Self> {
        let place = home.tb();
        std::fs::create_dir_all(&place).unwrap();
        let config = std::fs::read_to_string(place.join("config.toml")).unwrap();
        let script = r#"mount -t tmpfs -o "size=$1,mode=700" tmpfs "$2" && printf %s "$3" > "$2/config.toml" && echo up && exec sleep 120"#;
        let mut child = Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", script, "sh", size])
            .args([place.to_str().unwrap(), &config])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take()?), &mut line).ok()?;
        if line.trim() != "up" {
            child.wait().ok();
            eprintln!("skipped: this user may not mount a file system of its own");
            return None;
        }
        home.wrap = ["nsenter", "-t", &child.id().to_string(), "-m", "--wd=.", "--"].map(str::to_owned).to_vec();
        Some(Self(child))
    }

    /// Runs a shell line inside.
    fn sh(&self, script: &str, place: &Path) {
        let done = Command::new("nsenter")
            .args(["-t", &self.0.id().to_string(), "-m", "--", "sh", "-c", script, "sh"])
            .arg(place)
            .output()
            .unwrap();
        assert!(done.status.success(), "{script}: {}", String::from_utf8_lossy(&done.stderr));
    }
}

impl Drop for Island {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A full disk stops work with its name; once there is room, everything goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_is_named_and_loses_nothing() {
    let wait = "while [ ! -e go ]; do sleep 0.05; done; echo went on";
    let mut home = Home::with(vec![exec(wait), exec("echo second"), Turn::text("done")]).await;
    let Some(island) = Island::at(&mut home, "8m") else { return };
    let place = home.tb();
    let task = home.submit(&["work"]).await;
    until("the command is asked for", || home.asked() == 1).await;
    let mut tree = None;
    for _ in 0..200 {
        tree = home.inspect(&task).await["workspace"].as_str().map(str::to_owned);
        if tree.is_some() {
            break;
        }
    }
    let tree = tree.unwrap();
    // `cat` fills the disk to the last byte and fails then, as it should.
    island.sh("cat /dev/zero > \"$1/filling\" 2> /dev/null; test -s \"$1/filling\"", &place);
    island.sh("ln -s / \"$1/go\"", Path::new(&tree));
    // The journal's last block has room for a few records more; what it takes it keeps.
    let mut taken = vec![task.clone()];
    let refused = loop {
        let out = home.run(&["run", "--bg", "more"]).await;
        if out.code != 0 {
            break out.exits(69);
        }
        taken.push(out.stdout.trim().to_owned());
        assert!(taken.len() < 50, "a full disk takes everything");
    };
    assert!(refused.stderr.contains("full") && refused.stderr.contains("free"), "{}", refused.stderr);
    island.sh("rm \"$1/filling\"", &place);
    home.run(&["daemon", "start"]).await.exits(0);
    for other in taken.iter().skip(1) {
        home.run(&["stop", other]).await.exits(0);
        let out = home.run(&["wait", other]).await;
        assert_eq!(out.code, 6, "{}", home.inspect(other).await);
    }
    // A keeper that could not write down how its command ended leaves a question; what could not be
    // recorded otherwise, a pause; or nothing of it was hit at all.
    for _ in 0..4 {
        match home.run(&["wait", &task]).await.code {
            4 => drop(home.run(&["approve", &task]).await.exits(0)),
            69 => drop(home.run(&["resume", &task]).await.exits(0)),
            _ => break,
        }
    }
    let out = home.run(&["wait", &task]).await;
    assert_eq!(out.code, 0, "{}", home.inspect(&task).await);
    home.run(&["wal", "verify"]).await.exits(0);
    let log = home.run(&["logs", "--full", &task]).await.exits(0).stdout;
    assert_eq!(log.matches("second\n").count(), 1, "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_only_place_is_named() {
    let mut home = Home::with(vec![]).await;
    let _island = if is_root() {
        let Some(island) = Island::at(&mut home, "1m") else { return };
        island.sh("mount -o remount,ro \"$1\"", &home.tb());
        Some(island)
    } else {
        std::fs::set_permissions(home.tb(), std::fs::Permissions::from_mode(0o500)).unwrap();
        None
    };
    for args in [["run", "go"], ["daemon", "start"]] {
        home.run(&args).await.exits(78).says("TB-HOME-002").says(home.tb().to_str().unwrap()).says("TINKERBELL_HOME");
    }
    // What needs no place still works.
    home.run(&["explain", "TB-HOME-002"]).await.exits(0);
    std::fs::set_permissions(home.tb(), std::fs::Permissions::from_mode(0o700)).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_run_directory_and_socket_are_refused() {
    if !is_root() {
        return eprintln!("skipped: only root can give a directory to somebody else");
    }
    let home = Home::with(vec![]).await;
    let run = home.tb().join("run");
    std::fs::create_dir_all(&run).unwrap();
    std::os::unix::fs::chown(&run, Some(SOMEBODY_ELSE), None).unwrap();
    for args in [["run", "go"], ["daemon", "start"]] {
        home.run(&args).await.exits(78).says("belongs to user 65534").says("TINKERBELL_HOME");
    }
    std::os::unix::fs::chown(&run, Some(0), None).unwrap();
    let socket = run.join("tinkerbelld.sock");
    let _listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    std::os::unix::fs::chown(&socket, Some(SOMEBODY_ELSE), None).unwrap();
    home.run(&["ps"]).await.exits(78).says("belongs to user 65534").says("TINKERBELL_HOME");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_in_the_sockets_place_is_not_removed() {
    let home = Home::with(vec![]).await;
    std::fs::create_dir_all(home.tb().join("run")).unwrap();
    let socket = home.tb().join("run/tinkerbelld.sock");
    std::fs::write(&socket, "mine").unwrap();
    home.run(&["daemon", "start"]).await.exits(69).says("is not a socket").says("mv ");
    assert_eq!(std::fs::read_to_string(socket).unwrap(), "mine");
}

/// A daemon that is there and does not answer, as when somebody stopped it.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_that_does_not_answer_is_told() {
    let home = Home::with(vec![]).await;
    home.run(&["daemon", "start"]).await.exits(0);
    let pid = home.pid().await.to_string();
    Command::new("kill").args(["-STOP", &pid]).status().unwrap();
    home.run(&["ps"]).await.exits(69).says("does not answer").says("kill");
    Command::new("kill").args(["-CONT", &pid]).status().unwrap();
    home.run(&["ps"]).await.exits(0);
}

/// Many clients start at once on an empty home: one daemon, and everybody is served.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_race_share_one_daemon() {
    let home = Home::with(vec![]).await;
    let races: Vec<_> = (0..4).map(|_| tokio::spawn(home.run_owned(["daemon", "status", "--json"].map(str::to_owned).to_vec()))).collect();
    let starts: Vec<_> = (0..4).map(|_| tokio::spawn(home.run_owned(vec!["ps".to_owned()]))).collect();
    for start in starts {
        start.await.unwrap().exits(0);
    }
    for race in races {
        assert!(matches!(race.await.unwrap().code, 0 | 69), "asked too early, or answered");
    }
    let held = std::fs::read_to_string(home.tb().join("data/daemon.lock")).unwrap();
    assert_eq!(held.trim().parse::<i32>().unwrap(), home.pid().await);
}

/// Two homes may not share one socket.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_data_directory_does_not_take_the_socket() {
    let home = Home::with(vec![]).await;
    home.run(&["daemon", "start"]).await.exits(0);
    let pid = home.pid().await;
    let shared = home.dir.path().join("shared");
    std::fs::create_dir_all(shared.join("tinkerbell")).unwrap();
    std::fs::set_permissions(shared.join("tinkerbell"), std::fs::Permissions::from_mode(0o700)).unwrap();
    let other = |data: &str| {
        let args = ["daemon", "start", "--foreground"];
        let mut command = home.command(&args);
        let dir = home.dir.path().join(data);
        command.env_remove("TINKERBELL_HOME").env("XDG_RUNTIME_DIR", &shared).env("XDG_DATA_HOME", dir).kill_on_drop(true);
        (command, args)
    };
    let (mut first, _) = other("one");
    let mut child = first.spawn().unwrap();
    let socket = shared.join("tinkerbell/tinkerbelld.sock");
    until("the first serves", || std::os::unix::net::UnixStream::connect(&socket).is_ok()).await;
    let (second, args) = other("two");
    finish(second, &args).await.exits(69).says("TB-API-004").says("TINKERBELL_HOME");
    child.kill().await.unwrap();
    assert_eq!(home.pid().await, pid, "the daemon of another home does not mind");
}

/// Without `HOME` there must be another word on where to put things.
#[tokio::test(flavor = "multi_thread")]
async fn no_home_is_told_and_tinkerbell_home_is_enough() {
    let home = Home::with(vec![exec("echo \"home is ${HOME:-none}\""), Turn::text("done")]).await;
    let args = ["run", "go"];
    let mut command = home.command(&args);
    command.env_remove("HOME").env_remove("TINKERBELL_HOME");
    finish(command, &args).await.exits(78).says("TB-HOME-001").says("export HOME").says("TINKERBELL_HOME");
    for args in [&["--version"][..], &["run", "--help"], &["explain", "TB-HOME-001"]] {
        let mut command = home.command(args);
        command.env_remove("HOME").env_remove("TINKERBELL_HOME");
        finish(command, args).await.exits(0);
    }
    let mut command = home.command(&args);
    command.env_remove("HOME");
    finish(command, &args).await.exits(0);
}

/// The directory that we are called in is gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_deleted_working_directory_is_told_and_cd_is_enough() {
    let home = Home::with(vec![Turn::text("done")]).await;
    let bin = env!("CARGO_BIN_EXE_tinkerbell");
    let repo = home.repo.to_str().unwrap();
    let inside = |args: &str| {
        let script = format!("mkdir gone && cd gone && rmdir ../gone && exec {bin} {args}");
        let mut command = std::process::Command::new("sh");
        command.args(["-c", &script]).current_dir(home.dir.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", home.dir.path().join("home")).env("TINKERBELL_HOME", home.tb());
        tokio::task::spawn_blocking(move || out(command.stdin(Stdio::null()).output().unwrap()))
    };
    inside("run go").await.unwrap().exits(2).says("--cd");
    inside("ps").await.unwrap().exits(0);
    inside(&format!("run --cd {repo} go")).await.unwrap().exits(0);
}

/// Without user namespaces the next level does the work; the level that was pinned is refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_user_namespaces_still_works() {
    let cage = ["unshare", "-Ur", "sh", "-c", "echo 0 > /proc/sys/user/max_user_namespaces && exec \"$@\"", "sh"];
    let can = Command::new(cage[0]).args(&cage[1..]).arg("true").output().is_ok_and(|done| done.status.success());
    let turns = || vec![exec("echo made > made.txt; ls -la / > /dev/null; ls -a .."), Turn::text("done")];
    if can {
        let mut home = Home::with(turns()).await;
        home.wrap = cage.map(str::to_owned).to_vec();
        let run = home.run(&["run", "go"]).await.exits(0);
        assert!(run.stderr.contains("landlock"), "{}", run.stderr);
        home.run(&["doctor"]).await.says("landlock");
        home.run(&["daemon", "stop"]).await.exits(0);
        let mut home = Home::with(vec![exec("echo made > made.txt"), Turn::text("not possible here")]).await;
        (home.wrap, home.level) = (cage.map(str::to_owned).to_vec(), "full");
        let run = home.run(&["run", "go"]).await;
        let said = format!(
            "{}{}",
            run.stderr,
            home.model.as_ref().unwrap().requests().last().map(|last| last.body.to_string()).unwrap_or_default()
        );
        assert!(said.contains("full") && said.contains("namespace"), "exit {}: {said}", run.code);
    } else {
        eprintln!("half of it skipped: no user namespace can be made here to forbid more of them in");
    }
    let mut home = Home::with(turns()).await;
    home.level = "landlock";
    let run = home.run(&["run", "go"]).await.exits(0);
    assert!(run.stderr.contains("landlock"), "{}", run.stderr);
}
