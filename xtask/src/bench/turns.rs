//! What one step of the loop costs when neither model nor tool takes time.
//!
//! The release binary plays a recorded model that only rewrites its plan, and the daemon's own CPU
//! time is read from the kernel. Invariant: journal, budget, prompt and coroutine are all real.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::Row;
use super::house::{Daemon, Home};

/// Enough that start-up does not count, below the default cap of 300.
const STEPS: u32 = 200;

/// CPU of the daemon per step.
pub fn measure(binary: &Path) -> Result<Vec<Row>> {
    let home = Home::new()?;
    let repo = home.path().join("repo");
    prepare(&home, &repo)?;
    let mut server = Daemon::start(&home, binary)?;
    server.wait_ready(&home, binary)?;
    // The first task pays for what is built once: the sandbox's self-test, the worktree.
    play(&home, binary, &repo, "warm-up")?;
    let before = cpu(server.pid())?;
    play(&home, binary, &repo, "measured")?;
    let spent = cpu(server.pid())?.saturating_sub(before);
    server.stop(&home, binary)?;
    let per_step = spent.as_secs_f64() * 1000.0 / f64::from(STEPS + 1);
    Ok(vec![Row {
        what: format!("loop overhead: daemon CPU per step, over {STEPS} steps"),
        figure: format!("{per_step:.2} ms"),
        budget: "≤ 1 ms".into(),
    }])
}

fn prepare(home: &Home, repo: &Path) -> Result<()> {
    fs::create_dir(repo)?;
    fs::write(repo.join("a.txt"), "a\n")?;
    git(repo, &["init", "--quiet", "--initial-branch=main"])?;
    git(repo, &["add", "--all"])?;
    git(repo, &["-c", "user.name=b", "-c", "user.email=b@localhost", "commit", "--quiet", "--message=base"])?;
    let turns = home.path().join("turns.jsonl");
    let plans = (0..STEPS).map(|step| {
        let steps = serde_json::json!([{ "text": format!("step {step}"), "status": "active" }]);
        serde_json::json!({ "calls": [{ "tool": "plan", "args": { "steps": steps } }], "usage": { "input": 100, "output": 10 } })
    });
    let end = serde_json::json!({ "text": "done", "usage": { "input": 100, "output": 10 } });
    let lines: String = plans.chain([end]).map(|turn| format!("{turn}\n")).collect();
    fs::write(&turns, lines)?;
    let config = format!("model = \"bench/recorded\"\n[providers.bench]\nwire = \"replay\"\npath = \"{}\"\n", turns.display());
    Ok(fs::write(home.path().join("config.toml"), config)?)
}

fn git(dir: &Path, args: &[&str]) -> Result<()> {
    let status = Command::new("git").args(args).current_dir(dir).env("GIT_CONFIG_GLOBAL", "/dev/null").status().context("git is needed")?;
    if !status.success() {
        bail!("git {args:?} failed");
    }
    Ok(())
}

fn play(home: &Home, binary: &Path, repo: &PathBuf, goal: &str) -> Result<()> {
    let run = home.command(binary).args(["run", "--quiet", goal]).current_dir(repo).stdout(Stdio::null()).output()?;
    if !run.status.success() {
        bail!("the task failed: {}", String::from_utf8_lossy(&run.stderr));
    }
    Ok(())
}

/// User and system time of a process, from fields 14 and 15 of `/proc/PID/stat`, in hundredths.
fn cpu(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).context("CPU time is read from /proc, which is not there")?;
    parse_cpu(&text).context("the kernel's line was not understood")
}

fn parse_cpu(stat: &str) -> Option<Duration> {
    // The name in parentheses may hold spaces; what follows it does not.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    // USER_HZ is 100 on every Linux that runs Rust's standard library.
    Some(Duration::from_millis(ticks * 10))
}

#[cfg(test)]
mod tests {
    use super::parse_cpu;
    use std::time::Duration;

    #[test]
    fn cpu_is_read_behind_the_name() {
        let line = "7 (a b) c) S 1 7 7 0 -1 4194560 1 0 0 0 12 30 0 0 20 0 1 0 5 1 1";
        assert_eq!(parse_cpu(line), Some(Duration::from_millis(420)));
        assert_eq!(parse_cpu("7 nothing"), None);
    }
}
