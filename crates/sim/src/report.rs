//! The command line: many histories on all cores, or one again; and what is said of them.
//!
//! Invariant: the exit code is 0 only when every history kept every promise and every kind of fault
//! was met where the run was long enough for it.

use crate::history::{Outcome, catch_panics, run};
use crate::hold;
use crate::plan::Plan;
use crate::plant::Plant;
use crate::shrink::shrink;
use crate::stats::Stats;
use std::io::Write as _;
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

/// What `--help` says.
pub const USAGE: &str = "\
usage: cargo xtask sim [--seed N] [--seconds S] [--base N] [--plant NAME]

  --seed N       one history, told in full; a failing one is made smaller
  --seconds S    fresh histories for so long, after those of seeds.txt (default 60)
  --base N       the first fresh seed (default: by chance)
  --plant NAME   with a bug on purpose: early-ack, double-start, dropped-tail, double-delivery,
                 double-timer, early-act
";

/// Seeds that found something once.
const SEEDS: &str = include_str!("../seeds.txt");
/// Histories after which every kind of fault must have been met.
const LONG: u64 = 2_000;
/// Each of so many histories is run twice and must be the same.
const TWICE: u64 = 500;
/// Threads.
const WORKERS: u64 = 2;
/// Clock ticks of the kernel per second, as /proc counts them.
const TICKS: u64 = 100;

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Wish {
    seed: Option<u64>,
    seconds: Option<u64>,
    base: Option<u64>,
    plant: Option<Plant>,
}

impl Wish {
    /// Reads the command line.
    ///
    /// # Errors
    /// What is not understood.
    pub fn parse(words: &[&str]) -> Result<Self, String> {
        let mut wish = Self::default();
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let value = rest.next().copied().ok_or_else(|| format!("`{word}` wants a value"))?;
            let number = || value.parse::<u64>().map_err(|_| format!("`{value}` is no number"));
            match *word {
                "--seed" => wish.seed = Some(number()?),
                "--seconds" => wish.seconds = Some(number()?),
                "--base" => wish.base = Some(number()?),
                "--plant" => wish.plant = Some(Plant::parse(value).ok_or_else(|| format!("there is no bug `{value}`"))?),
                other => return Err(format!("`{other}` is not understood")),
            }
        }
        Ok(wish)
    }
}

/// Prints lines.
pub fn say(text: &str) {
    // A closed pipe is no reason to fail: the exit code tells the rest.
    drop(writeln!(std::io::stdout(), "{text}"));
}

/// Does what is asked for.
pub fn fulfil(wish: &Wish) -> ExitCode {
    catch_panics();
    match wish.seed {
        Some(seed) => one(seed, wish.plant),
        None => many(wish),
    }
}

fn one(seed: u64, plant: Option<Plant>) -> ExitCode {
    let plan = Plan::new(seed);
    say(&format!("seed {seed}\n{plan}"));
    let outcome = run(plan.clone(), plant, true);
    if outcome.violation.is_some() {
        return failed(seed, plan, outcome, plant);
    }
    say(&format!("history:\n{}\nrecords:\n{}", outcome.lines.join("\n"), outcome.events));
    say(&format!("{}\nseed {seed} keeps every promise; sum {:016x}", outcome.stats.text(), outcome.sum));
    ExitCode::SUCCESS
}

fn failed(seed: u64, plan: Plan, outcome: Outcome, plant: Option<Plant>) -> ExitCode {
    let (plan, outcome) = shrink(plan, outcome, plant);
    let Some(found) = &outcome.violation else { return ExitCode::FAILURE };
    say(&format!("\nFAILED: {}\n{}\n", found.kind, found.text));
    say(&format!("the smallest plan that fails like this:\n{plan}\n\nits last moments:\n{}\n", outcome.lines.join("\n")));
    say(&format!("its last records:\n{}", outcome.events));
    let bug = plant.map(|plant| format!(" --plant {}", plant.name())).unwrap_or_default();
    say(&format!("seed {seed}; again with: cargo xtask sim --seed {seed}{bug}"));
    ExitCode::FAILURE
}

/// What all workers share.
struct Run {
    next: AtomicU64,
    stop: AtomicBool,
    stats: Mutex<Stats>,
    failure: Mutex<Option<u64>>,
    unsteady: Mutex<Option<u64>>,
    plant: Option<Plant>,
}

fn many(wish: &Wish) -> ExitCode {
    let base = wish.base.unwrap_or_else(chance);
    let seconds = wish.seconds.unwrap_or(60);
    let shared = Run {
        next: AtomicU64::new(base),
        stop: AtomicBool::new(false),
        stats: Mutex::default(),
        failure: Mutex::default(),
        unsteady: Mutex::default(),
        plant: wish.plant,
    };
    let begun = uptime();
    let known: Vec<u64> = if wish.plant.is_none() { seeds() } else { Vec::new() };
    say(&format!("{} known seeds, then fresh ones from {base} for {seconds} s on {WORKERS} threads", known.len()));
    known.into_iter().for_each(|seed| shared.one(seed));
    std::thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| shared.work());
        }
        while uptime() - begun < seconds as f64 && !shared.stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        shared.stop.store(true, Ordering::Relaxed);
    });
    summary(&shared, uptime() - begun)
}

impl Run {
    fn work(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            self.one(self.next.fetch_add(1, Ordering::Relaxed));
        }
    }

    fn one(&self, seed: u64) {
        let outcome = run(Plan::new(seed), self.plant, false);
        hold(&self.stats).add(&outcome.stats);
        if outcome.violation.is_some() {
            hold(&self.failure).get_or_insert(seed);
            self.stop.store(true, Ordering::Relaxed);
        } else if seed.is_multiple_of(TWICE) && cfg!(tokio_unstable) && run(Plan::new(seed), self.plant, false).sum != outcome.sum {
            hold(&self.unsteady).get_or_insert(seed);
            self.stop.store(true, Ordering::Relaxed);
        }
    }
}

fn summary(shared: &Run, wall: f64) -> ExitCode {
    let stats = hold(&shared.stats).clone();
    let cpu = cpu_seconds();
    let hours = stats.virtual_ms as f64 / 3_600_000.0;
    say(&format!(
        "{} histories, {} of them with a crash, {} deaths, {hours:.0} virtual hours in {wall:.1} s ({cpu:.1} s of CPU)",
        stats.histories,
        stats.crashed,
        stats.deaths()
    ));
    let per_minute = stats.crashed as f64 * 60.0 / wall.max(0.001);
    say(&format!("{per_minute:.0} crash histories per minute, {:.0} virtual hours per CPU hour", hours * 3_600.0 / cpu.max(0.001)));
    say(&stats.text());
    if let Some(seed) = *hold(&shared.failure) {
        say(&format!("after {wall:.1} s and {} histories:", stats.histories));
        let plan = Plan::new(seed);
        let outcome = run(plan.clone(), shared.plant, true);
        if outcome.violation.is_none() {
            say(&format!("seed {seed} failed and does not fail again: the simulator is not deterministic"));
            return ExitCode::FAILURE;
        }
        return failed(seed, plan, outcome, shared.plant);
    }
    if let Some(seed) = *hold(&shared.unsteady) {
        say(&format!("FAILED: seed {seed} gives another history when it is run again: the simulator is not deterministic"));
        return ExitCode::FAILURE;
    }
    if let Some(plant) = shared.plant {
        say(&format!("FAILED: the planted bug {} was not found", plant.name()));
        return ExitCode::FAILURE;
    }
    let missing = stats.missing();
    if stats.histories >= LONG && !missing.is_empty() {
        say(&format!("FAILED: never met in {} histories: {missing:?}", stats.histories));
        return ExitCode::FAILURE;
    }
    say("every promise was kept");
    ExitCode::SUCCESS
}

/// The seeds of the list; what stands behind a number is the reason.
fn seeds() -> Vec<u64> {
    SEEDS.lines().filter_map(|line| line.split_whitespace().next()?.parse().ok()).collect()
}

/// A first seed that nobody chose; short enough to be typed.
fn chance() -> u64 {
    let text = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap_or_default();
    let digits: String = text.chars().filter(char::is_ascii_hexdigit).take(8).collect();
    u64::from_str_radix(&digits, 16).unwrap_or(1) * 1_000
}

/// Seconds since the machine started.
fn uptime() -> f64 {
    let text = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    text.split(' ').next().and_then(|word| word.parse().ok()).unwrap_or(0.0)
}

/// Seconds of CPU that this process has used.
fn cpu_seconds() -> f64 {
    let text = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = text.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().collect()).unwrap_or_default();
    let ticks: u64 = [11, 12].iter().filter_map(|at| fields.get(*at)?.parse::<u64>().ok()).sum();
    ticks as f64 / TICKS as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plant::ALL;

    #[test]
    fn arguments_are_read_or_refused_by_name() {
        let wish = Wish::parse(&["--seed", "7", "--plant", "early-ack"]).unwrap();
        assert_eq!(wish, Wish { seed: Some(7), plant: Some(Plant::EarlyAck), ..Wish::default() });
        for bad in [&["--seed"][..], &["--seed", "x"], &["--plant", "none"], &["now", "1"]] {
            assert!(Wish::parse(bad).is_err(), "{bad:?}");
        }
        for (name, plant) in ALL {
            assert_eq!((Plant::parse(name), plant.name()), (Some(*plant), *name));
            assert!(USAGE.contains(name), "{name} stands in the usage");
        }
    }

    #[test]
    fn the_list_of_seeds_gives_reasons() {
        for line in SEEDS.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            assert!(line.split_whitespace().count() > 3, "{line}");
        }
    }

    #[test]
    fn some_histories_keep_every_promise() {
        for seed in 1..40 {
            let outcome = run(Plan::new(seed), None, false);
            assert_eq!(outcome.violation, None, "seed {seed}");
        }
    }
}
