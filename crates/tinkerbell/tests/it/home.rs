//! A home with a repository, a daemon and a scripted model.
//!
//! Every command has a deadline, so that a hang fails. Invariant: dropping it kills the daemon and
//! everything that still runs below its directories.

use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tempfile::TempDir;
use tinkerbell_testkit::llm::{Scripted, Turn};
use tokio::process::Command;

/// No command of a test takes longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a command gave.
#[derive(Debug)]
pub struct Out {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Out {
    /// Checks the exit code; shows everything when it differs.
    pub fn exits(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// Checks that stderr or stdout holds a text.
    pub fn says(self, text: &str) -> Self {
        let all = format!("{}\n{}", self.stdout, self.stderr);
        assert!(all.contains(text), "`{text}` is not in:\n{all}");
        self
    }
}

pub struct Home {
    pub dir: TempDir,
    pub repo: PathBuf,
    pub model: Option<Scripted>,
    pub level: &'static str,
    /// How commands write; by default as `TINKERBELL_TEST_WORKSPACE` says, or the product itself.
    pub workspace: Option<String>,
    /// What each command is run by, such as `nsenter` into a mount namespace.
    pub wrap: Vec<String>,
}

impl Home {
    /// A home whose model plays these turns.
    pub async fn with(turns: Vec<Turn>) -> Self {
        let mut home = Self::bare();
        let model = Scripted::start(turns).await.unwrap();
        home.config(&format!(
            "model = \"local/scripted\"\n[providers.local]\nwire = \"openai\"\nbase_url = \"{}\"\n[models.\"local/scripted\"]\ncontext_tokens = 64000\n",
            model.base_url()
        ));
        home.model = Some(model);
        home
    }

    /// A home without any model.
    pub fn bare() -> Self {
        Self::bare_in(&std::env::temp_dir())
    }

    /// A home without any model, below a directory.
    pub fn bare_in(place: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("tb").tempdir_in(place).unwrap();
        let repo = dir.path().join("repo");
        std::fs::create_dir_all(repo.join("src")).unwrap();
        std::fs::create_dir_all(dir.path().join("home")).unwrap();
        std::fs::write(repo.join("src/a.txt"), "one\ntwo\nthree\n").unwrap();
        std::fs::write(repo.join("run.sh"), "#!/bin/sh\necho hello\n").unwrap();
        let home =
            Self { dir, repo, model: None, level: "auto", workspace: std::env::var("TINKERBELL_TEST_WORKSPACE").ok(), wrap: Vec::new() };
        home.git(&["init", "-q", "-b", "main"]);
        home.git(&["add", "-A"]);
        home.git(&["commit", "-q", "-m", "base"]);
        home
    }

    pub fn config(&self, text: &str) {
        std::fs::create_dir_all(self.tb()).unwrap();
        std::fs::write(self.tb().join("config.toml"), text).unwrap();
    }

    /// `TINKERBELL_HOME`.
    pub fn tb(&self) -> PathBuf {
        self.dir.path().join("tb")
    }

    pub fn git(&self, args: &[&str]) -> String {
        self.git_in(&self.repo, args, &[])
    }

    pub fn git_in(&self, dir: &Path, args: &[&str], env: &[(&str, &Path)]) -> String {
        let output = std::process::Command::new("git")
            .args(["-c", "user.name=U", "-c", "user.email=u@localhost"])
            .args(args)
            .current_dir(dir)
            .env("GIT_CONFIG_GLOBAL", "/dev/null")
            .env("GIT_CONFIG_NOSYSTEM", "1")
            .envs(env.iter().copied())
            .output()
            .unwrap();
        assert!(output.status.success(), "git {args:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// The hash of a directory's content as git would commit it, untracked files included.
    pub fn tree_of(&self, dir: &Path) -> String {
        let index = self.dir.path().join("witness");
        let git_dir = self.repo.join(".git");
        let env = [("GIT_INDEX_FILE", index.as_path()), ("GIT_DIR", git_dir.as_path()), ("GIT_WORK_TREE", dir)];
        self.git_in(dir, &["add", "-A", "-f"], &env);
        let tree = self.git_in(dir, &["write-tree"], &env);
        std::fs::remove_file(index).unwrap();
        tree
    }

    pub fn command(&self, args: &[&str]) -> Command {
        let bin = env!("CARGO_BIN_EXE_tinkerbell").to_owned();
        let words: Vec<&String> = self.wrap.iter().chain([&bin]).collect();
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .args(args)
            .current_dir(&self.repo)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.dir.path().join("home"))
            .env("TINKERBELL_HOME", self.tb())
            .env("TINKERBELL_SANDBOX__LEVEL", self.level)
            .envs(self.workspace.iter().map(|workspace| ("TINKERBELL_SANDBOX__WORKSPACE", workspace)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs `tinkerbell` in the repository.
    pub async fn run(&self, args: &[&str]) -> Out {
        finish(self.command(args), args).await
    }

    /// The same as a future that borrows nothing, to be run beside others.
    pub fn run_owned(&self, args: Vec<String>) -> impl Future<Output = Out> + use<> {
        let command = self.command(&args.iter().map(String::as_str).collect::<Vec<_>>());
        async move { finish(command, &args.iter().map(String::as_str).collect::<Vec<_>>()).await }
    }

    /// Submits in the background; gives the task's id.
    pub async fn submit(&self, args: &[&str]) -> String {
        let all: Vec<&str> = ["run", "--bg"].iter().chain(args).copied().collect();
        self.run(&all).await.exits(0).stdout.trim().to_owned()
    }

    pub async fn inspect(&self, task: &str) -> Value {
        let out = self.run(&["inspect", "--json", task]).await.exits(0);
        serde_json::from_str(&out.stdout).unwrap()
    }

    pub async fn pid(&self) -> i32 {
        let out = self.run(&["daemon", "status", "--json"]).await.exits(0);
        let status: Value = serde_json::from_str(&out.stdout).unwrap();
        status["pid"].as_i64().unwrap().try_into().unwrap()
    }

    /// Whether commands of this home get layers, by what its doctor says; where not, the reason is said.
    pub async fn gives_layers(&self) -> bool {
        let doctor = self.run(&["doctor", "--json", "--offline"]).await.stdout;
        let report: Value = serde_json::from_str(&doctor).unwrap();
        let groups = report["groups"].as_array().unwrap();
        let findings = groups.iter().flat_map(|group| group["findings"].as_array().unwrap());
        let text =
            findings.filter(|finding| finding["name"] == "commands write").map(|finding| finding["text"].to_string()).collect::<String>();
        let gives = text.contains("layer") && !text.contains("do not work");
        if !gives {
            eprintln!("skipped: this host gives no layers: {text}");
        }
        gives
    }

    /// SIGKILL to the daemon, and waits until it is gone.
    pub async fn kill_daemon(&self) {
        let pid = self.pid().await;
        kill(pid);
        until("the daemon is gone", || !Path::new(&format!("/proc/{pid}/exe")).exists()).await;
    }

    /// Waits until a file below the daemon's runs holds a text.
    pub async fn until_output(&self, text: &str) {
        let runs = self.tb().join("data/runs");
        until(&format!("`{text}` is in a spool"), || {
            walk(&runs).iter().any(|path| std::fs::read(path).is_ok_and(|bytes| holds(&bytes, text.as_bytes())))
        })
        .await;
    }

    /// Requests that the model got.
    pub fn asked(&self) -> usize {
        self.model.as_ref().map_or(0, |model| model.requests().len())
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        let data = self.tb().join("data");
        if let Ok(pid) = std::fs::read_to_string(data.join("daemon.lock")).unwrap_or_default().trim().parse::<i32>()
            && std::fs::read_link(format!("/proc/{pid}/exe")).is_ok_and(|exe| exe.ends_with("tinkerbell"))
        {
            kill(pid);
        }
        // Keepers and commands carry their directories in command line or environment.
        let mark = self.dir.path().as_os_str().as_encoded_bytes();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<i32>() else { continue };
            let words = [std::fs::read(entry.path().join("cmdline")), std::fs::read(entry.path().join("environ"))];
            let ours = words.iter().flatten().any(|bytes| holds(bytes, mark));
            if ours && pid != i32::try_from(std::process::id()).unwrap() {
                kill(pid);
            }
        }
    }
}

/// Runs a command to its end.
pub async fn finish(command: Command, args: &[&str]) -> Out {
    finish_within(command, args, PATIENCE).await
}

/// Runs a command to its end, with a patience of its own.
pub async fn finish_within(mut command: Command, args: &[&str], patience: Duration) -> Out {
    let started = Instant::now();
    let output = tokio::time::timeout(patience, command.output()).await;
    out(output.unwrap_or_else(|_| panic!("{args:?} hung for {:?}", started.elapsed())).unwrap())
}

/// What a process gave.
pub fn out(output: std::process::Output) -> Out {
    Out {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// Polls until it holds; fails after the patience.
pub async fn until(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub fn kill(pid: i32) {
    std::process::Command::new("kill").args(["-9", &pid.to_string()]).stderr(Stdio::null()).status().ok();
}

fn holds(bytes: &[u8], text: &[u8]) -> bool {
    bytes.windows(text.len().max(1)).any(|window| window == text)
}

/// All files below a directory.
pub fn walk(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .flat_map(|entry| if entry.file_type().is_ok_and(|kind| kind.is_dir()) { walk(&entry.path()) } else { vec![entry.path()] })
        .collect()
}

/// A turn that runs a command.
pub fn exec(cmd: &str) -> Turn {
    Turn::call("exec", json!({ "cmd": cmd }))
}
