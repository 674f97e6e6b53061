//! Configuration: files and variables in layers, each value with its origin.
//!
//! Built-in < `/etc/tinkerbell/config.toml` < `conf.d/*.toml` < user < `TINKERBELL_SECTION__KEY` <
//! `--set`. A project's own file stands apart: it may only tighten. Invariant: a file with a
//! mistake is refused whole, with file, line and column.

mod applies;
mod keys;
mod load;
pub mod options;
mod project;
#[cfg(test)]
mod tests;
mod tighten;
mod waiver;

pub use applies::{Applies, applies};
pub use load::{Loaded, Origin, Sources, load};
pub use options::Config;
pub use project::{PROJECT_FILE, ProjectFile, read_project};
pub use tighten::{lower_budget, lower_duration, tighten};
pub use waiver::waiver;

#[cfg(test)]
use load::Layer;
use tinkerbell_core::amount::parse_bytes;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::event::Caps;
use tinkerbell_core::money::NanoUsd;
use tinkerbell_core::port::Limits;

/// Default money cap: 5 US dollars.
const BUDGET: NanoUsd = NanoUsd(5_000_000_000);
/// Default number of model calls.
const STEPS: u32 = 300;
/// Default working time: four hours.
const WALL_MS: u64 = 4 * 3_600_000;
/// Default token cap where no price is known.
const TOKENS: u64 = 20_000_000;

/// Default memory of a command: this part of the host's, or of the container's.
pub(crate) const MEMORY: &str = "75%";
/// Default number of processes and threads of a command.
pub(crate) const PROCESSES: u64 = 4_096;
/// Default disk of a task.
pub(crate) const DISK: &str = "20GiB";
/// A shell with a pipe needs as much.
const LEAST_PROCESSES: u64 = 8;
const LEAST_MEMORY: u64 = 16 << 20;

/// Reads a duration as people write it: `90s`, `15m`, `4h`, `1d`, or a number of seconds.
///
/// # Errors
/// The text, when it is none.
pub fn duration_ms(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit.trim() {
        "" | "s" => 1_000,
        "ms" => 1,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(format!("`{text}` is not a duration; write it like `90s`, `15m` or `4h`")),
    };
    let number: u64 = number.parse().map_err(|_| format!("`{text}` is not a duration; write it like `90s`, `15m` or `4h`"))?;
    number.checked_mul(factor).ok_or_else(|| format!("`{text}` is too long"))
}

/// How long a question waits for an answer, in milliseconds; `None` for a day.
///
/// # Errors
/// `TB-CONFIG-004` when the configured time can not be read.
pub fn question_lasts_ms(config: &Config) -> Result<Option<u64>, Fault> {
    let bad = |why: String| {
        Fault::new("TB-CONFIG-004", exit::CONFIG, format!("approvals.expires: {why}"))
            .hint("tinkerbell config show --origin   names the file and line")
    };
    config.approvals.expires.as_deref().map(duration_ms).transpose().map_err(bad)
}

/// The limits of a task: what was asked for, else what is configured, else the defaults.
///
/// # Errors
/// `TB-CONFIG-004` when a configured limit can not be read, or a money cap is asked for a model
/// whose price is not known.
pub fn caps(config: &Config, asked: &Caps, priced: bool, model: &str) -> Result<Caps, Fault> {
    let limits = &config.limits;
    let configured = limits.budget.as_deref().map(NanoUsd::parse).transpose().map_err(|why| bad(format!("limits.budget: {why}")))?;
    let wall = limits.max_wall_time.as_deref().map(duration_ms).transpose().map_err(|why| bad(format!("limits.max_wall_time: {why}")))?;
    if !priced && asked.nano_usd.is_some() {
        return Err(Fault::new("TB-CONFIG-005", exit::CONFIG, format!("a money cap needs a price, and none is known for {model}"))
            .hint(format!("set it:  [models.\"{model}\"]  input_usd_per_mtok = …  output_usd_per_mtok = …"))
            .hint("or cap tokens instead: --max-tokens 2000000"));
    }
    let money = if priced { Some(asked.nano_usd.or(configured.map(|usd| usd.0)).unwrap_or(BUDGET.0)) } else { None };
    let tokens = asked.tokens.or(limits.max_tokens);
    Ok(Caps {
        nano_usd: money,
        steps: Some(asked.steps.or(limits.max_steps).unwrap_or(STEPS)),
        tokens: if priced { tokens } else { Some(tokens.unwrap_or(TOKENS)) },
        wall_ms: Some(asked.wall_ms.or(wall).unwrap_or(WALL_MS)),
        ..resources(limits, asked)?
    })
}

fn bad(why: String) -> Fault {
    Fault::new("TB-CONFIG-004", exit::CONFIG, why).hint("tinkerbell config show --origin   names the file and line")
}

/// Limits of what commands use: what was asked for, else what is configured, else none.
fn resources(limits: &options::Limits, asked: &Caps) -> Result<Caps, Fault> {
    let read = |key: &str, text: Option<&str>, read: &dyn Fn(&str) -> Result<u64, String>| {
        text.map(read).transpose().map_err(|why| bad(format!("{key}: {why}")))
    };
    Ok(Caps {
        cpu_ms: asked.cpu_ms.or(read("limits.max_cpu", limits.max_cpu.as_deref(), &duration_ms)?),
        disk_bytes: asked.disk_bytes.or(read("limits.max_disk", limits.max_disk.as_deref(), &parse_bytes)?),
        processes: asked.processes.or(limits.max_processes),
        memory_bytes: asked.memory_bytes.or(read("limits.max_memory", limits.max_memory.as_deref(), &parse_bytes)?),
        ..Caps::default()
    })
}

/// What any command may use, by the operator's word or by default, on a host with so much memory.
///
/// # Errors
/// `TB-CONFIG-004` when a value can not be read.
pub fn sandbox_limits(config: &Config, host_bytes: u64) -> Result<Limits, Fault> {
    let sandbox = &config.sandbox;
    let memory = sandbox.memory.as_deref().unwrap_or(MEMORY);
    let memory = part_of(memory, host_bytes).map_err(|why| bad(format!("sandbox.memory: {why}")))?;
    let disk = parse_bytes(sandbox.disk.as_deref().unwrap_or(DISK)).map_err(|why| bad(format!("sandbox.disk: {why}")))?;
    let processes = sandbox.processes.unwrap_or(PROCESSES);
    if processes < LEAST_PROCESSES || memory < LEAST_MEMORY {
        return Err(bad(format!("sandbox.processes and sandbox.memory must leave room for a shell: {LEAST_PROCESSES} and 16MiB at least")));
    }
    Ok(Limits { memory_bytes: Some(memory), processes: Some(processes), cpu_ms: None, disk_bytes: Some(disk) })
}

/// An amount of bytes, or a part of the whole in per cent.
fn part_of(text: &str, whole: u64) -> Result<u64, String> {
    let Some(number) = text.trim().strip_suffix('%') else { return parse_bytes(text) };
    let percent = number.trim().parse::<u64>().ok().filter(|percent| (1..=100).contains(percent));
    let percent = percent.ok_or_else(|| format!("`{text}` is no part; write it like `75%`"))?;
    Ok(whole / 100 * percent)
}
