//! The measurements themselves: command line, daemon, demo.
//!
//! Each one takes a home of its own in a temporary folder and leaves nothing behind, so figures do
//! not depend on what a developer has done before.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use super::child::{Cost, cost};
use super::{Row, status_kb};

/// Odd, so that the median is a run that happened.
const RUNS: usize = 11;
const DAEMON_RUNS: usize = 5;
const READY_DEADLINE: Duration = Duration::from_secs(20);
const STOP_DEADLINE: Duration = Duration::from_secs(10);
/// Short against the 150 ms that are measured; it is the precision of the figure.
const POLL: Duration = Duration::from_millis(2);
/// After the start the allocator and lazy parts settle; the figure is the resting one.
const SETTLE: Duration = Duration::from_secs(2);

/// `--version` and `--help`.
pub fn cli(binary: &Path) -> Result<Vec<Row>> {
    let home = Home::new()?;
    let mut rows = Vec::new();
    for flag in ["--version", "--help"] {
        let costs = repeat(RUNS, || cost(home.command(binary).arg(flag).stdout(Stdio::null())))?;
        rows.push(Row {
            what: format!("`{flag}`: CPU, median of {RUNS}"),
            figure: ms(median(&costs, |cost| cost.cpu)?),
            budget: "≤ 5 ms".into(),
        });
        rows.push(Row {
            what: format!("`{flag}`: peak memory"),
            figure: mb(costs.iter().map(|cost| cost.peak_kb).max().unwrap_or(0)),
            budget: "≤ 15 MB".into(),
        });
    }
    Ok(rows)
}

/// Start on an empty home until `daemon status` succeeds; memory at rest.
pub fn daemon(binary: &Path) -> Result<Vec<Row>> {
    let mut ready = Vec::new();
    let mut resting_kb = 0;
    for run in 0..DAEMON_RUNS {
        let home = Home::new()?;
        let start = Instant::now();
        let mut server = Daemon::start(&home, binary)?;
        server.wait_ready(&home, binary)?;
        ready.push(start.elapsed());
        if run + 1 == DAEMON_RUNS {
            std::thread::sleep(SETTLE);
            let status = fs::read_to_string(format!("/proc/{}/status", server.child.id()));
            let status = status.context("idle memory is read from /proc, which is not there")?;
            resting_kb = status_kb(&status, "VmRSS").context("the daemon has no VmRSS")?;
        }
        server.stop(&home, binary)?;
    }
    ready.sort_unstable();
    let median = ready.get(ready.len() / 2).copied().context("no run")?;
    Ok(vec![
        Row { what: format!("daemon ready on an empty home, median of {DAEMON_RUNS}"), figure: ms(median), budget: "≤ 150 ms".into() },
        Row { what: "daemon idle memory".into(), figure: mb(resting_kb), budget: "≤ 30 MB".into() },
    ])
}

/// The whole demo without pauses.
pub fn demo(binary: &Path) -> Result<Vec<Row>> {
    let home = Home::new()?;
    let cost = cost(home.command(binary).args(["demo", "--fast"]).stdout(Stdio::null()))?;
    Ok(vec![
        Row { what: "`demo --fast`: wall".into(), figure: format!("{:.1} s", cost.wall.as_secs_f64()), budget: "≤ 40 s".into() },
        Row { what: "`demo --fast`: CPU of the client and what it waited for".into(), figure: ms(cost.cpu), budget: String::new() },
    ])
}

/// An empty home that vanishes afterwards.
pub struct Home(PathBuf);

impl Home {
    pub fn new() -> Result<Self> {
        let nanos = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_nanos();
        let path = std::env::temp_dir().join(format!("tb-bench-{}-{nanos}", std::process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot create {}", path.display()))?;
        Ok(Self(path))
    }

    /// Where it lies.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The binary with this home.
    pub fn command(&self, binary: &Path) -> Command {
        let mut command = Command::new(binary);
        command.env("TINKERBELL_HOME", &self.0).stdin(Stdio::null());
        command
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok(); // a left-over folder in the temporary place harms nobody
    }
}

/// A daemon in the foreground, of this measurement alone.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it; it may not serve yet.
    pub fn start(home: &Home, binary: &Path) -> Result<Self> {
        let mut command = home.command(binary);
        command.args(["daemon", "start", "--foreground"]).stdout(Stdio::null()).stderr(Stdio::null());
        Ok(Self { child: command.spawn().context("cannot start the daemon")? })
    }

    /// Waits until it answers.
    pub fn wait_ready(&mut self, home: &Home, binary: &Path) -> Result<()> {
        let start = Instant::now();
        loop {
            let mut ask = home.command(binary);
            ask.args(["daemon", "status", "--json"]).stdout(Stdio::null()).stderr(Stdio::null());
            if ask.status()?.success() {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the daemon ended before it was ready: {status}");
            }
            if start.elapsed() > READY_DEADLINE {
                bail!("the daemon was not ready after {READY_DEADLINE:?}");
            }
            std::thread::sleep(POLL);
        }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks it to stop, and waits.
    pub fn stop(&mut self, home: &Home, binary: &Path) -> Result<()> {
        home.command(binary).args(["daemon", "stop"]).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() > STOP_DEADLINE {
                bail!("the daemon did not stop within {STOP_DEADLINE:?}");
            }
            std::thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Only a failed measurement leaves it running; then nothing else would ever stop it.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn repeat(times: usize, mut measure: impl FnMut() -> Result<Cost>) -> Result<Vec<Cost>> {
    (0..times).map(|_| measure()).collect()
}

fn median(costs: &[Cost], of: impl Fn(&Cost) -> Duration) -> Result<Duration> {
    let mut values: Vec<Duration> = costs.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().context("nothing was measured")
}

fn ms(time: Duration) -> String {
    format!("{:.1} ms", time.as_secs_f64() * 1000.0)
}

fn mb(kb: u64) -> String {
    let tenths = kb * 10 / 1024;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::{mb, ms};
    use std::time::Duration;

    #[test]
    fn figures_carry_their_unit() {
        assert_eq!(ms(Duration::from_micros(4_250)), "4.2 ms");
        assert_eq!(mb(15_360), "15.0 MB");
        assert_eq!(mb(1_075), "1.0 MB");
    }
}
