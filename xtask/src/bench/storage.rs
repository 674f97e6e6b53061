//! `bench wal` and `bench scheduler`: ratios to the raw disk and to SQLite, taken in turns.
//!
//! The measuring programs are examples of the crates, built in release; this module runs them in
//! interleaved rounds and compares within a round, because a shared disk drifts. Invariant: a ratio
//! is the median of the rounds' own ratios, never a quotient of two bests.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::Row;
use crate::shell;

/// Rounds; the disk is shared.
const ROUNDS: usize = 7;
/// SQLite through Python's own module: `BATCH` rows of `SIZE` bytes in each of `COUNT` commits.
const SQLITE: &str = "
import sqlite3, sys, time, os
path, count, batch, size = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
db = sqlite3.connect(path, isolation_level=None)
db.execute('pragma journal_mode=wal'); db.execute('pragma synchronous=full'); db.execute('pragma wal_autocheckpoint=4000')
db.execute('create table if not exists log(n integer primary key, body blob)')
body = bytes(size)
start = time.monotonic()
for _ in range(count):
    db.execute('begin')
    for _ in range(batch): db.execute('insert into log(body) values(?)', (body,))
    db.execute('commit')
print('rate', count * batch / (time.monotonic() - start))
";

/// Figures of the journal: D1 to D4 of the durability goals.
pub fn wal(_: &Path) -> Result<Vec<Row>> {
    let program = example("tinkerbell-wal", "wal_bench")?;
    let dir = scratch("wal")?;
    let row = |what: &str, figure: String, budget: &str| Row { what: what.into(), figure, budget: budget.into() };
    let mut rows = Vec::new();
    let counted = run(&program, &dir.join("d1"), [1_000, 1, 1])?;
    let syncs = counted.syncs / 1_000.0;
    rows.push(row("D1: fdatasync per sequential append, counted over 1,000", format!("{syncs:.3}"), "≤ 1.0"));
    for (what, records, batch, goal) in
        [("D2: sequential append against the raw disk", 400, 1, "≥ 0.95"), ("D2: batches of 64 against the raw disk", 12_800, 64, "≥ 0.95")]
    {
        let (mut ours, mut theirs) = (Vec::new(), Vec::new());
        for round in 0..ROUNDS {
            let place = dir.join(format!("d2-{batch}-{round}"));
            let found = run(&program, &place, [records, batch, 1])?;
            ours.push(found.rate / (found.raw * batch as f64));
            theirs.extend(sqlite(&place, records / batch, batch)?.map(|rate| rate / (found.raw * batch as f64)));
            std::fs::remove_dir_all(&place).context("clear the bench's directory")?;
        }
        rows.push(row(what, format!("{:.2}", median(&mut ours)), goal));
        let rival = if theirs.is_empty() { "skipped: no python3 with sqlite3".to_owned() } else { format!("{:.2}", median(&mut theirs)) };
        rows.push(row(&format!("the same by SQLite, write-ahead log, synchronous=full, batch {batch}"), rival, ""));
    }
    let mut gain = Vec::new();
    for round in 0..ROUNDS {
        let place = dir.join(format!("d3-{round}"));
        let found = run(&program, &place, [40_000, 1, 512])?;
        gain.push(found.rate / found.raw);
        std::fs::remove_dir_all(&place).context("clear the bench's directory")?;
    }
    rows.push(row("D3: 512 async waiters against one sync a record", format!("{:.0}×", median(&mut gain)), "≥ 250×"));
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        let place = memory.join(format!("tinkerbell-bench-{}", std::process::id()));
        let mut cpu = Vec::new();
        for round in 0..ROUNDS {
            cpu.push(run(&program, &place.join(round.to_string()), [200_000, 1, 512])?.cpu_ns / 1_000.0);
        }
        std::fs::remove_dir_all(&place).context("clear the bench's directory")?;
        rows.push(row("D4: CPU per record of 512 B on tmpfs, sealed, 512 waiters", format!("{:.2} µs", median(&mut cpu)), "≤ 1.0 µs"));
    }
    std::fs::remove_dir_all(&dir).context("clear the bench's directory")?;
    Ok(rows)
}

/// What one run of the journal's bench said.
struct Found {
    /// Syncs per second of a plain file on the same disk.
    raw: f64,
    /// Records per second.
    rate: f64,
    syncs: f64,
    cpu_ns: f64,
}

fn run(program: &Path, dir: &Path, words: [u64; 3]) -> Result<Found> {
    std::fs::create_dir_all(dir)?;
    let output = Command::new(program).arg(dir).args(words.map(|word| word.to_string())).output().context("start wal_bench")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("wal_bench failed: {}", String::from_utf8_lossy(&output.stderr));
    }
    let number = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)).with_context(|| format!("no `{name}` in\n{text}"))?;
        let word = line.split_whitespace().next().unwrap_or_default().trim_end_matches(',');
        word.parse::<f64>().with_context(|| format!("`{name}` is no number in\n{text}"))
    };
    Ok(Found { raw: number("plain file")?, rate: number("journal")?, syncs: number("syncs")?, cpu_ns: number("cpu")? })
}

/// Rows per second of SQLite in the same directory; `None` where it can not be had.
fn sqlite(dir: &Path, commits: u64, batch: u64) -> Result<Option<f64>> {
    let words = [dir.join("rival.db").display().to_string(), commits.to_string(), batch.to_string(), "464".to_owned()];
    let Ok(output) = Command::new("python3").args(["-c", SQLITE]).args(words).output() else { return Ok(None) };
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text.strip_prefix("rate ").and_then(|rate| rate.trim().parse().ok()))
}

/// Figures of the scheduler: what its own benches print, line by line.
pub fn scheduler(_: &Path) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for name in ["queue_bench", "scheduler_bench"] {
        let program = example("tinkerbell-scheduler", name)?;
        let output = Command::new(&program).output().with_context(|| format!("start {name}"))?;
        if !output.status.success() {
            bail!("{name} failed: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            let (what, figure) = line.split_once("  ").unwrap_or((line, ""));
            rows.push(Row { what: what.trim().into(), figure: figure.trim().into(), budget: String::new() });
        }
    }
    Ok(rows)
}

/// An example, built in release.
///
/// # Errors
/// It does not build.
pub fn example(package: &str, name: &str) -> Result<PathBuf> {
    let mut build = Command::new(shell::cargo());
    if !shell::succeeds(build.args(["build", "--release", "--package", package, "--example", name]))? {
        bail!("the release build of {name} failed");
    }
    Ok(shell::target_dir().join("release/examples").join(name))
}

fn scratch(name: &str) -> Result<PathBuf> {
    let dir = shell::target_dir().join("bench").join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&dir)?;
    Ok(dir)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(0.0)
}
