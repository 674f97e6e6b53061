//! What a model reads of a command: a status line, and the output folded and cut.
//!
//! Invariant: the text fits the cap, and what was left out or not kept is said with its size.

use crate::traffic;
use std::time::Duration;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Ended, Unit, UnitState, Used};
use tinkerbell_core::text::{cap_tokens, estimate_tokens, fold_output};
use tinkerbell_core::tool::{ToolOutcome, ToolStatus};
use tinkerbell_core::words::Seq;

/// Read at once.
const BLOCK: usize = 4 << 20;
/// Room for status line and hints.
const FRAME_TOKENS: u32 = 60;
/// Where a unit's output ends now.
///
/// # Errors
/// When the spool can not be read.
pub async fn end(unit: &dyn Unit, from: u64) -> Result<u64, Fault> {
    let mut offset = from;
    loop {
        let chunk = unit.output(offset, BLOCK).await?;
        if chunk.bytes.is_empty() {
            return Ok(offset);
        }
        offset = chunk.next;
    }
}

/// What goes into an outcome beside state and output.
pub struct Report {
    /// The effect that reports; it shows what those before it did not.
    pub seq: Seq,
    /// Tool and command, for people.
    pub subject: String,
    /// The unit's name.
    pub unit: String,
    /// Sandbox level.
    pub level: Option<String>,
    /// Most tokens of text.
    pub max_tokens: u32,
    /// How long was waited.
    pub waited: Duration,
}

impl Report {
    /// Reads what is new and writes the outcome.
    ///
    /// # Errors
    /// When the spool can not be read.
    pub async fn write(&self, unit: &dyn Unit, state: UnitState) -> Result<ToolOutcome, Fault> {
        let (from, traffic) = unit.shown(self.seq, None).await?;
        let (raw, next) = read(unit, from).await?;
        unit.shown(self.seq, Some(next)).await?;
        let (status, line, wall_ms) = self.status(&state);
        let folded = fold_output(&raw);
        let refused = traffic::refusals(&traffic.connections);
        let frame = refused.as_ref().map_or(0, |line| u32::try_from(estimate_tokens(line.len())).unwrap_or(u32::MAX));
        let capped = cap_tokens(&folded, self.max_tokens.saturating_sub(FRAME_TOKENS).saturating_sub(frame));
        let mut text = format!("{line}\n");
        match (capped.text.is_empty(), from) {
            (true, 0) => text.push_str("(no output)"),
            (true, _) => text.push_str("(no new output)"),
            _ => text.push_str(&capped.text),
        }
        let hint = hint(&folded, self.level.as_deref(), &traffic.network).filter(|_| !status.is_ok() && refused.is_none());
        for word in hint.map(|hint| format!("[hint: {hint}]")).into_iter().chain(refused) {
            text.push_str(if text.ends_with('\n') { "" } else { "\n" });
            text.push_str(&word);
        }
        let full = capped.cut.then(|| raw.into());
        let mut summary = format!("{} → {}", self.subject, line.split(';').next().unwrap_or(&line));
        let (used, cause) = match state {
            UnitState::Ended(ended) => (ended.used, ended.cause),
            UnitState::Running | UnitState::Lost => (Used::default(), String::new()),
        };
        if LIMITS.contains(&cause.as_str()) {
            summary.push_str(&format!(", limit `{cause}`"));
        }
        let level = self.level.clone();
        Ok(ToolOutcome { status, full, wall_ms, level, used, cause, traffic, ..ToolOutcome::done(summary, text) })
    }

    fn status(&self, state: &UnitState) -> (ToolStatus, String, u64) {
        match state {
            UnitState::Running => {
                let waited_ms = u64::try_from(self.waited.as_millis()).unwrap_or(u64::MAX);
                let line =
                    format!("running as {} after {}; exec_wait follows it, exec_send feeds or ends it", self.unit, seconds(waited_ms));
                (ToolStatus::Running, line, waited_ms)
            }
            UnitState::Lost => {
                let line =
                    "outcome unknown: the keeper of this command is gone, and so are its processes; what follows is partial".to_owned();
                (ToolStatus::Lost, line, 0)
            }
            UnitState::Ended(ended) => ending(ended),
        }
    }
}

fn ending(ended: &Ended) -> (ToolStatus, String, u64) {
    let time = seconds(ended.wall_ms);
    let why = match ended.cause.as_str() {
        "" => String::new(),
        // Keepers of earlier releases gave no numbers.
        "deadline" if ended.why.is_empty() => "; its deadline was over".to_owned(),
        cause if LIMITS.contains(&cause) => format!("; ended by the limit `{cause}`: {}. {}", ended.why, way_out(cause)),
        "halted" => "; the user halted everything, and lets it go on now".to_owned(),
        cause => format!("; {cause}"),
    };
    match (ended.code, ended.signal) {
        (Some(code), _) => (ToolStatus::Exited(code), format!("exit {code} in {time}{why}"), ended.wall_ms),
        (None, Some(signal)) => (ToolStatus::Signalled(signal), format!("ended by signal {signal} after {time}{why}"), ended.wall_ms),
        (None, None) => (ToolStatus::Lost, format!("ended without a status after {time}{why}"), ended.wall_ms),
    }
}

/// Causes that are limits.
const LIMITS: [&str; 5] = ["deadline", "memory", "processes", "cpu", "disk"];

/// What a model can do about a limit; raising it is the user's.
const fn way_out(cause: &str) -> &'static str {
    match cause.as_bytes() {
        b"deadline" => "Run less at once, or in parts",
        b"memory" => {
            "Use less at once (fewer parallel jobs, smaller input); only the user can raise it (`--max-memory`, `[sandbox] memory`)"
        }
        b"processes" => "Start fewer at once (fewer parallel jobs); only the user can raise it (`--max-processes`, `[sandbox] processes`)",
        b"cpu" => "Only the user can raise it (`tinkerbell resume TASK --max-cpu …`)",
        _ => "Remove what is not needed any more; only the user can raise it (`--max-disk`, `[sandbox] disk`)",
    }
}

fn seconds(ms: u64) -> String {
    format!("{}.{} s", ms / 1000, ms % 1000 / 100)
}

/// All output from an offset, holes named; and where it ends.
async fn read(unit: &dyn Unit, from: u64) -> Result<(Vec<u8>, u64), Fault> {
    let (mut raw, mut offset) = (Vec::new(), from);
    loop {
        let chunk = unit.output(offset, BLOCK).await?;
        if chunk.bytes.is_empty() {
            return Ok((raw, offset));
        }
        if chunk.offset > offset {
            raw.extend(format!("\n[… {} bytes were not kept …]\n", chunk.offset - offset).into_bytes());
        }
        raw.extend_from_slice(&chunk.bytes);
        offset = chunk.next;
    }
}

/// What the sandbox has to do with a failure, where it has.
fn hint(output: &str, level: Option<&str>, network: &str) -> Option<&'static str> {
    let has = |words: &[&str]| words.iter().any(|word| output.contains(word));
    if has(&["index.lock", "HEAD.lock", "refs/heads"]) && has(&["Read-only file system", "Permission denied"]) {
        return Some("git's own directory is read-only here: the runtime commits each accepted step itself, do not commit");
    }
    let offline = [
        "Could not resolve host",
        "Temporary failure in name resolution",
        "Name or service not known",
        "Network is unreachable",
        "EAI_AGAIN",
        "ENOTFOUND",
        "attempting to make an HTTP request, but --offline was specified",
        "you may be running offline",
        "you're using offline mode",
        "module lookup disabled by GOPROXY=off",
        "No matching distribution found",
        "ENOTCACHED",
    ];
    if has(&offline) && network == "proxy" {
        return Some("programs reach the network only through the proxy in HTTPS_PROXY; this one did not use it, or has no such setting");
    }
    if has(&offline) && network != "host" {
        return Some(
            "commands have no network here; work with what is installed (only the user can grant it: `[egress] presets` or hosts)",
        );
    }
    let is_socket = has(&["socket", "listen", "bind", "connect"]) && has(&["Operation not permitted", "PermissionError", "EPERM"]);
    if level != Some("full") && is_socket {
        return Some("at sandbox level `landlock` programs can not open sockets, loopback included; run what needs none");
    }
    None
}
