//! The same kill, dealt to other agents and to us, with the same scripted model.
//!
//! Each agent runs one shell command of two seconds; in its middle the agent is killed with SIGKILL,
//! its command is not. Then the agent's own way to go on is taken. What is told comes from files
//! that the command writes, from the process table, and from the bytes of the next model request.
//! Invariant: an agent that is not installed or does not get as far as its command is named, not
//! counted.

use crate::home::{finish_within, kill, until};
use crate::ours::{Dice, holds, processes, read};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};
use tinkerbell_testkit::llm::{Scripted, Settings, Turn};
use tokio::process::{Child, Command};

/// The command: it counts its beginnings and ends, and has a status that nobody would guess.
const COMMAND: &str = "echo one-begin; echo x >> one.count; sleep 2; echo y >> one.done; echo one-end; exit 7";
/// An agent that has not begun its command by then will not.
const BEGIN: Duration = Duration::from_secs(45);
/// How long the agent may take to go on.
const RESUME: Duration = Duration::from_secs(60);
/// How long it is watched whether it goes on by itself.
const WATCH: Duration = Duration::from_secs(6);

/// An agent under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Agent {
    Codex,
    Goose,
    Opencode,
    Tinkerbell,
}

/// What one trial showed.
#[derive(Debug, Default, Clone)]
struct Trial {
    resumed_itself: bool,
    command_survived: bool,
    command_done: bool,
    runs: usize,
    told_output: bool,
    told_status: bool,
    told: String,
}

/// Runs the trials and prints the table; says whether ours are as they must be.
pub async fn run(dir: &Path, trials: u32) -> bool {
    let mut rows = Vec::new();
    let mut good = true;
    for agent in [Agent::Codex, Agent::Goose, Agent::Opencode, Agent::Tinkerbell] {
        let Some(bin) = agent.bin(dir) else {
            println!("crash: {agent:?} is skipped: it is not installed in {}", dir.display());
            continue;
        };
        let version = version(&bin).await;
        let mut seen = Vec::new();
        for trial in 0..trials {
            match one(agent, &bin, u64::from(trial)).await {
                Ok(found) => seen.push(found),
                Err(why) => println!("crash: {agent:?}, trial {trial}, does not count: {why}"),
            }
        }
        good &= agent != Agent::Tinkerbell || seen.iter().all(|t| t.resumed_itself && t.runs == 1 && t.told_output && t.told_status);
        rows.push(row(&version, &seen));
    }
    println!(
        "\n| agent | trials | goes on by itself | command lived on | ran twice | model told its true output | and its exit status | model is told |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|---|");
    rows.iter().for_each(|row| println!("{row}"));
    good
}

fn row(version: &str, seen: &[Trial]) -> String {
    let count = |is: fn(&Trial) -> bool| seen.iter().filter(|trial| is(trial)).count();
    let mut told: Vec<&str> = seen.iter().map(|trial| trial.told.as_str()).collect();
    told.sort_unstable();
    told.dedup();
    format!(
        "| {version} | {} | {} | {} | {} | {} | {} | {} |",
        seen.len(),
        count(|t| t.resumed_itself),
        count(|t| t.command_survived && t.command_done),
        count(|t| t.runs > 1),
        count(|t| t.told_output),
        count(|t| t.told_status),
        told.join(" / ")
    )
}

async fn version(bin: &Path) -> String {
    let mut command = Command::new(bin);
    command.arg("--version").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let out = finish_within(command, &["--version"], RESUME).await;
    let name = bin.file_name().unwrap_or_default().to_string_lossy().into_owned();
    let version = out.stdout.split_whitespace().last().unwrap_or("?").to_owned();
    format!("{name} {version}")
}

/// A place for one trial.
struct Place {
    dir: tempfile::TempDir,
    work: PathBuf,
    model: Scripted,
    bin: PathBuf,
}

async fn one(agent: Agent, bin: &Path, seed: u64) -> Result<Trial, String> {
    let place = Place::new(agent, bin).await;
    let mut child = place.command(agent, false).spawn().map_err(|e| e.to_string())?;
    let begun = place.begins(&mut child).await;
    if !begun {
        kill_all(&place.agents());
        return Err(format!("it never began its command; it asked the model {} times", place.model.requests().len()));
    }
    tokio::time::sleep(Duration::from_millis(200 + Dice::new(seed).below(900))).await;
    kill_all(&place.victims(agent));
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut trial = Trial { command_survived: !place.commands().is_empty(), ..Trial::default() };
    let asked = place.model.requests().len();
    let since = Instant::now();
    while since.elapsed() < WATCH && !trial.resumed_itself {
        trial.resumed_itself = place.model.requests().len() > asked;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    if trial.resumed_itself {
        tokio::time::timeout(RESUME, child.wait()).await.map_err(|_| "it went on and never ended")?.map_err(|e| e.to_string())?;
    } else {
        let out = tokio::time::timeout(RESUME, place.command(agent, true).output()).await;
        if let Ok(Ok(out)) = &out
            && !out.status.success()
            && place.model.requests().len() == asked
        {
            return Err(format!("its own resume failed: {}", String::from_utf8_lossy(&out.stderr).chars().take(300).collect::<String>()));
        }
    }
    until("the command is over", || place.commands().is_empty()).await;
    place.judge(&mut trial);
    kill_all(&place.agents());
    Ok(trial)
}

fn kill_all(pids: &[i32]) {
    pids.iter().copied().for_each(kill);
}

impl Agent {
    fn bin(self, dir: &Path) -> Option<PathBuf> {
        let modules = dir.join("node_modules");
        let path = match self {
            Self::Codex => modules.join(".bin/codex"),
            Self::Goose => modules.join("@aaif/goose-binary-linux-x64/bin/goose"),
            Self::Opencode => modules.join("opencode-linux-x64/bin/opencode"),
            Self::Tinkerbell => PathBuf::from(env!("CARGO_BIN_EXE_tinkerbell")),
        };
        path.exists().then_some(path)
    }

    /// The first answer: the command, through whichever tool the agent has for it.
    fn call(self) -> Turn {
        match self {
            Self::Codex => Turn::call("exec_command", json!({"cmd": COMMAND, "yield_time_ms": 10_000})),
            Self::Goose => Turn::call("shell", json!({"command": COMMAND})),
            Self::Opencode => Turn::call("bash", json!({"command": COMMAND, "description": "count"})),
            Self::Tinkerbell => Turn::call("exec", json!({"cmd": COMMAND})),
        }
    }
}

impl Place {
    async fn new(agent: Agent, bin: &Path) -> Self {
        let dir = tempfile::Builder::new().prefix("crash").tempdir().unwrap();
        let work = dir.path().join("work");
        std::fs::create_dir_all(&work).unwrap();
        for args in [
            &["init", "-q", "-b", "main"][..],
            &["-c", "user.name=U", "-c", "user.email=u@localhost", "commit", "-q", "--allow-empty", "-m", "base"],
        ] {
            let done = std::process::Command::new("git").args(args).current_dir(&work).status().unwrap();
            assert!(done.success());
        }
        let settings = Settings { models: vec!["scripted".to_owned()], ..Settings::default() };
        let turns = vec![agent.call(), Turn::text("All done."), Turn::text("All done.")];
        let model = Scripted::start_with(turns, settings).await.unwrap();
        let place = Self { dir, work, model, bin: bin.to_owned() };
        place.configure(agent);
        place
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn configure(&self, agent: Agent) {
        let url = self.model.base_url();
        match agent {
            Agent::Codex => self.write(
                ".codex/config.toml",
                &format!(
                    "model = \"scripted\"\nmodel_provider = \"local\"\n[model_providers.local]\nname = \"local\"\nbase_url = \"{url}\"\nwire_api = \"responses\"\nenv_key = \"LOCAL_KEY\"\n"
                ),
            ),
            Agent::Opencode => self.write(
                ".config/opencode/opencode.json",
                &json!({
                    "autoupdate": false, "share": "disabled", "permission": {"bash": "allow"}, "small_model": "local/scripted",
                    "provider": {"local": {"npm": "@ai-sdk/openai-compatible", "name": "local", "options": {"baseURL": url, "apiKey": "k"},
                        "models": {"scripted": {"name": "scripted"}}}}
                })
                .to_string(),
            ),
            Agent::Goose => {}
            Agent::Tinkerbell => self.write(
                "tb/config.toml",
                &format!(
                    "model = \"local/scripted\"\n[providers.local]\nwire = \"openai\"\nbase_url = \"{url}\"\n[models.\"local/scripted\"]\ncontext_tokens = 64000\n"
                ),
            ),
        }
    }

    fn command(&self, agent: Agent, again: bool) -> Command {
        let mut command = Command::new(&self.bin);
        let words: &[&str] = match (agent, again) {
            (Agent::Codex, false) => &["exec", "--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check", "do it"],
            (Agent::Codex, true) => {
                &["exec", "--dangerously-bypass-approvals-and-sandbox", "--skip-git-repo-check", "resume", "--last", "go on"]
            }
            (Agent::Goose, false) => &["run", "--name", "trial", "-t", "do it"],
            (Agent::Goose, true) => &["run", "--name", "trial", "--resume", "-t", "go on"],
            (Agent::Opencode, false) => &["run", "-m", "local/scripted", "do it"],
            (Agent::Opencode, true) => &["run", "-m", "local/scripted", "--continue", "go on"],
            (Agent::Tinkerbell, false) => &["run", "do it"],
            (Agent::Tinkerbell, true) => &["ps"],
        };
        let home = self.dir.path();
        command
            .args(words)
            .current_dir(&self.work)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .env("CODEX_HOME", home.join(".codex"))
            .env("XDG_CONFIG_HOME", home.join(".config"))
            .env("TINKERBELL_HOME", home.join("tb"))
            .env("LOCAL_KEY", "k")
            .env("GOOSE_PROVIDER", "openai")
            .env("GOOSE_MODEL", "scripted")
            .env("GOOSE_MODE", "auto")
            .env("GOOSE_DISABLE_KEYRING", "1")
            .env("OPENAI_API_KEY", "k")
            .env("OPENAI_HOST", self.model.url())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    async fn begins(&self, child: &mut Child) -> bool {
        let since = Instant::now();
        while since.elapsed() < BEGIN {
            if self.runs() > 0 {
                return true;
            }
            if let Ok(Some(_)) = child.try_wait() {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        false
    }

    /// Where the command's files are: an agent may work in a tree of its own.
    fn files(&self, name: &str) -> Vec<PathBuf> {
        crate::home::walk(self.dir.path()).into_iter().filter(|path| path.file_name().is_some_and(|found| found == name)).collect()
    }

    fn runs(&self) -> usize {
        self.files("one.count").iter().map(|path| std::fs::read_to_string(path).unwrap_or_default().lines().count()).sum()
    }

    /// Processes of the trial: they carry its directory in their environment.
    fn all(&self) -> Vec<i32> {
        let mark = self.dir.path().as_os_str().as_encoded_bytes().to_vec();
        let own = i32::try_from(std::process::id()).unwrap();
        let ours = |pid: &i32| *pid != own && ["environ", "cmdline"].iter().any(|file| holds(&read(*pid, file), &mark));
        processes().into_iter().filter(ours).collect()
    }

    /// The command and its children: shells, and what they run.
    fn commands(&self) -> Vec<i32> {
        let is_shell = |pid: &i32| {
            let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
            let name = exe.file_name().unwrap_or_default().to_string_lossy().into_owned();
            ["sh", "bash", "dash", "sleep", "busybox"].contains(&name.as_str())
        };
        self.all().into_iter().filter(is_shell).collect()
    }

    fn agents(&self) -> Vec<i32> {
        let commands = self.commands();
        self.all().into_iter().filter(|pid| !commands.contains(pid)).collect()
    }

    /// What is killed: the agent; of ours the daemon, which is what keeps the state.
    fn victims(&self, agent: Agent) -> Vec<i32> {
        if agent != Agent::Tinkerbell {
            return self.agents();
        }
        let lock = std::fs::read_to_string(self.dir.path().join("tb/data/daemon.lock")).unwrap_or_default();
        lock.trim().parse().into_iter().collect()
    }

    fn judge(&self, trial: &mut Trial) {
        trial.runs = self.runs();
        trial.command_done = !self.files("one.done").is_empty();
        let requests = self.model.requests();
        let Some(last) = requests.last() else { return };
        let results = results(&last.body);
        trial.told_output = results.iter().any(|text| text.contains("one-begin") && text.contains("one-end"));
        trial.told_status = results.iter().any(|text| text.contains('7'));
        trial.told = match results.last() {
            Some(text) => {
                let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ").replace('|', "/").chars().take(90).collect();
                format!("`{}`", line.replace('`', "'"))
            }
            None => "nothing".to_owned(),
        };
    }
}

/// What a request tells of tool results, on either wire.
fn results(body: &Value) -> Vec<String> {
    let flat = |value: &Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let chat = body["messages"].as_array().into_iter().flatten().filter(|m| m["role"] == "tool").map(|m| flat(&m["content"]));
    let outputs = |item: &&Value| item["type"].as_str().is_some_and(|kind| kind.ends_with("_call_output"));
    let responses = body["input"].as_array().into_iter().flatten().filter(outputs).map(|item| flat(&item["output"]));
    chat.chain(responses).collect()
}
