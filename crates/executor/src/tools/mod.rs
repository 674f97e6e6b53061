//! The command tools: `exec`, `exec_send`, `exec_wait`.
//!
//! They speak the sandbox port only, so any sandbox serves them. Invariant: a recovered `exec` asks
//! the keeper before it starts anything.

mod live;
mod report;
mod wire;

use crate::tools::report::Report;
use futures_core::future::BoxFuture;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::approval::Bound;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::{Attempt, EffectClass, Fallback, Stall};
use tinkerbell_core::port::{ExecSpec, Found, Sandbox, Tool, Unit, UnitState, Until};
use tinkerbell_core::tool::{ToolContext, ToolOutcome, ToolPlan, ToolSpec, ToolStatus};
use tinkerbell_core::words::RunId;

/// How long a command may run before it yields, by default and at least and at most.
const YIELD_MS: (u64, u64, u64) = (10_000, 250, 30_000);
/// How long `exec_wait` waits, by default and at most.
const WAIT_MS: (u64, u64) = (30_000, 300_000);
/// A command that nobody ends is ended after this long.
const DEADLINE: Duration = Duration::from_secs(4 * 3600);
/// The sign by which a model closes standard input: Ctrl-D.
const END_OF_INPUT: char = '\u{4}';

/// The three tools over one sandbox.
#[must_use]
pub fn all(sandbox: Arc<dyn Sandbox>) -> Vec<Arc<dyn Tool>> {
    let bench = Bench { sandbox };
    vec![Arc::new(Exec(bench.clone())), Arc::new(Send(bench.clone())), Arc::new(Wait(bench))]
}

/// What the tools share.
#[derive(Clone)]
struct Bench {
    sandbox: Arc<dyn Sandbox>,
}

struct Exec(Bench);
struct Send(Bench);
struct Wait(Bench);

impl Tool for Exec {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "exec",
            description: "Run a shell command in the workspace (sandboxed; no network unless granted). Returns exit code and output. \
                A command that still runs after yield_ms goes on as a unit: follow it with exec_wait, feed it with exec_send. \
                Standard input stays open, so give programs that would read it a file. Do not commit: the runtime commits.",
            schema: r#"{"type":"object","properties":{"cmd":{"type":"string","description":"text for /bin/sh -c"},"workdir":{"type":"string","description":"relative to the workspace's root"},"yield_ms":{"type":"integer","minimum":250,"maximum":30000},"max_output_tokens":{"type":"integer","minimum":1},"why":{"type":"string","description":"one line for the user"}},"required":["cmd"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, args: &str) -> ToolPlan {
        match serde_json::from_str::<wire::Exec>(args) {
            Ok(args) => plan(EffectClass::Adoptable(Fallback::Unsafe), Some(args.cmd)),
            Err(_) => plan(EffectClass::Pure, None),
        }
    }

    fn bind<'a>(&'a self, ctx: &'a ToolContext, args: &'a str) -> BoxFuture<'a, Result<Bound, Fault>> {
        Box::pin(async move {
            match serde_json::from_str(args) {
                Ok(args) => self.0.sandbox.facts(spec(RunId { task: ctx.task, seq: ctx.seq }, ctx, args)).await,
                Err(_) => Ok(Bound::default()),
            }
        })
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let bench = self.0.clone();
        Box::pin(async move {
            match serde_json::from_str(&args) {
                Ok(args) => bench.exec(ctx, args).await,
                Err(error) => Ok(malformed("exec", &error)),
            }
        })
    }
}

impl Tool for Send {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "exec_send",
            description: "Write to the standard input of a running unit, or signal it; returns its new output. \
                Give either stdin (end lines with \\n; \\u0004 at the end closes it) or signal (INT, TERM, KILL, …).",
            schema: r#"{"type":"object","properties":{"unit":{"type":"string","description":"as exec named it: u7"},"stdin":{"type":"string"},"signal":{"type":"string"}},"required":["unit"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, args: &str) -> ToolPlan {
        match serde_json::from_str::<wire::Send>(args) {
            // The keeper knows each write by its number, so a repeat is not delivered twice.
            Ok(wire::Send { stdin: Some(_), signal: None, .. }) => plan(EffectClass::Idempotent, None),
            Ok(_) => plan(EffectClass::Unsafe, None),
            Err(_) => plan(EffectClass::Pure, None),
        }
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let bench = self.0.clone();
        Box::pin(async move {
            match serde_json::from_str(&args) {
                Ok(args) => bench.send(ctx, args).await,
                Err(error) => Ok(malformed("exec_send", &error)),
            }
        })
    }
}

impl Tool for Wait {
    fn spec(&self) -> ToolSpec {
        ToolSpec {
            name: "exec_wait",
            description: "Wait for a running unit to end, or for a new line of output that contains until_line, or for timeout_ms; \
                returns its new output.",
            schema: r#"{"type":"object","properties":{"unit":{"type":"string","description":"as exec named it: u7"},"until_line":{"type":"string"},"timeout_ms":{"type":"integer","minimum":0,"maximum":300000}},"required":["unit"],"additionalProperties":false}"#,
        }
    }

    fn plan(&self, _args: &str) -> ToolPlan {
        plan(EffectClass::Pure, None)
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let bench = self.0.clone();
        Box::pin(async move {
            match serde_json::from_str(&args) {
                Ok(args) => bench.wait(ctx, args).await,
                Err(error) => Ok(malformed("exec_wait", &error)),
            }
        })
    }
}

fn plan(class: EffectClass, command: Option<String>) -> ToolPlan {
    ToolPlan { class, writes: Vec::new(), deletes: 0, command, mcp: None }
}

fn malformed(tool: &str, error: &serde_json::Error) -> ToolOutcome {
    ToolOutcome::failed(format!("{tool}: bad arguments"), format!("{tool} was not run, its arguments are wrong: {error}"))
}

impl Bench {
    async fn exec(&self, ctx: ToolContext, args: wire::Exec) -> Result<ToolOutcome, Stall> {
        let level = self.sandbox.level().await.map_err(Stall::Broken)?;
        let (default, least, most) = YIELD_MS;
        let timeout = Duration::from_millis(args.yield_ms.unwrap_or(default).clamp(least, most));
        let report = Report {
            seq: ctx.seq,
            subject: format!("exec {}", one_line(&args.cmd)),
            unit: format!("u{}", ctx.seq),
            level: Some(level.name().to_owned()),
            max_tokens: args.max_output_tokens.unwrap_or(u32::MAX).min(ctx.max_output_tokens),
            waited: timeout,
        };
        let run = RunId { task: ctx.task, seq: ctx.seq };
        let found = match ctx.attempt {
            Attempt::First => Found::NeverRan,
            Attempt::Recover => self.sandbox.attach(run).await.map_err(Stall::Broken)?,
        };
        let unit = match found {
            Found::Unit(unit) => unit,
            Found::Lost(unit) => return report.write(unit.as_ref(), UnitState::Lost).await.map_err(Stall::Broken),
            Found::NeverRan => match self.sandbox.start(spec(run, &ctx, args)).await {
                Ok(unit) => unit,
                Err(fault) => return refused(&report.subject, fault),
            },
        };
        let state = live::watch(unit.as_ref(), timeout, &ctx.live).await.map_err(Stall::Broken)?;
        report.write(unit.as_ref(), state).await.map_err(Stall::Broken)
    }

    async fn wait(&self, ctx: ToolContext, args: wire::Wait) -> Result<ToolOutcome, Stall> {
        let (default, most) = WAIT_MS;
        let timeout = Duration::from_millis(args.timeout_ms.unwrap_or(default).min(most));
        let report = report(&ctx, "exec_wait", &args.unit, timeout);
        let unit = match self.find(&ctx, &args.unit, &report).await? {
            Ok(unit) => unit,
            Err(outcome) => return Ok(outcome),
        };
        let until = Until { timeout, line: args.until_line, from: unit.shown(ctx.seq, None).await.map_err(Stall::Broken)?.0 };
        let state = unit.wait(until).await.map_err(Stall::Broken)?;
        report.write(unit.as_ref(), state).await.map_err(Stall::Broken)
    }

    async fn send(&self, ctx: ToolContext, args: wire::Send) -> Result<ToolOutcome, Stall> {
        let report = report(&ctx, "exec_send", &args.unit, Duration::from_secs(1));
        let unit = match self.find(&ctx, &args.unit, &report).await? {
            Ok(unit) => unit,
            Err(outcome) => return Ok(outcome),
        };
        let from = report::end(unit.as_ref(), unit.shown(ctx.seq, None).await.map_err(Stall::Broken)?.0).await.map_err(Stall::Broken)?;
        let sent = match (args.stdin, args.signal) {
            (Some(text), None) => write(unit.as_ref(), ctx.seq, &text).await,
            (None, Some(signal)) => match signal_number(&signal) {
                // Whether it arrived before the crash nobody knows; a second one may mean more than one
                // (two INT end what one interrupts), so the model looks and decides.
                Some(_) if ctx.attempt == Attempt::Recover => Ok(()),
                Some(number) => unit.signal(number).await,
                None => {
                    return Ok(ToolOutcome::failed(
                        report.subject,
                        format!("there is no signal {signal:?}; use INT, TERM, KILL, HUP, USR1 or a number"),
                    ));
                }
            },
            _ => return Ok(ToolOutcome::failed(report.subject, "give either `stdin` or `signal`")),
        };
        if let Err(fault) = sent {
            let why = fault.message;
            return Ok(ToolOutcome::failed(report.subject, format!("nothing was sent: {why}; `exec_wait` shows how {} stands", args.unit)));
        }
        // An answer to what was sent: its first sign, and then a moment for the rest.
        for (timeout, line) in [(1_000, Some(String::new())), (150, None)] {
            unit.wait(Until { timeout: Duration::from_millis(timeout), line, from }).await.map_err(Stall::Broken)?;
        }
        let now = Until { timeout: Duration::ZERO, line: None, from };
        let state = unit.wait(now).await.map_err(Stall::Broken)?;
        report.write(unit.as_ref(), state).await.map_err(Stall::Broken)
    }

    /// The unit of this name, or the outcome that tells the model what it has instead.
    async fn find(&self, ctx: &ToolContext, name: &str, report: &Report) -> Result<Result<Arc<dyn Unit>, ToolOutcome>, Stall> {
        let missing = || {
            Ok(Err(ToolOutcome::failed(
                report.subject.clone(),
                format!("there is no unit `{name}` in this task; `exec` names units as u7"),
            )))
        };
        let Some(seq) = name.strip_prefix('u').and_then(|seq| seq.parse().ok()) else { return missing() };
        match self.sandbox.attach(RunId { task: ctx.task, seq }).await.map_err(Stall::Broken)? {
            Found::Unit(unit) => Ok(Ok(unit)),
            Found::NeverRan => missing(),
            Found::Lost(unit) => {
                let outcome = report.write(unit.as_ref(), UnitState::Lost).await.map_err(Stall::Broken)?;
                // Waiting for a lost unit changes nothing: the model is told, nobody is asked.
                Ok(Err(ToolOutcome { status: ToolStatus::Failed, ..outcome }))
            }
        }
    }
}

fn report(ctx: &ToolContext, tool: &str, unit: &str, waited: Duration) -> Report {
    Report {
        seq: ctx.seq,
        subject: format!("{tool} {unit}"),
        unit: unit.to_owned(),
        level: None,
        max_tokens: ctx.max_output_tokens,
        waited,
    }
}

fn spec(run: RunId, ctx: &ToolContext, args: wire::Exec) -> ExecSpec {
    ExecSpec {
        run,
        fence: ctx.fence,
        command: args.cmd,
        workdir: args.workdir.unwrap_or_default(),
        workspace: ctx.workspace.clone(),
        env: ctx.env.clone(),
        deadline: DEADLINE,
        service: None,
        limits: ctx.limits,
        approved: ctx.approved.clone(),
    }
}

/// A wrong working directory is the model's to mend, and what changed since its approval is asked for
/// again; everything else is ours.
fn refused(subject: &str, fault: Fault) -> Result<ToolOutcome, Stall> {
    if matches!(fault.code.0, "TB-EXEC-005" | "TB-EXEC-008") {
        return Ok(ToolOutcome::failed(subject, format!("not run: {}", fault.message)));
    }
    if fault.code.0 == "TB-APPROVE-004" {
        return Ok(ToolOutcome::failed(
            subject,
            format!("not run: {}. Call it again if it is still needed: the user is then asked anew", fault.message),
        ));
    }
    if fault.message.contains("os error 28") {
        return Err(Stall::Disk(fault.message));
    }
    Err(Stall::Broken(fault))
}

/// Two numbers per effect: the text, and the closing of the input.
async fn write(unit: &dyn Unit, seq: u32, text: &str) -> Result<(), Fault> {
    let number = u64::from(seq) * 2;
    let body = text.trim_end_matches(END_OF_INPUT);
    if !body.is_empty() {
        unit.stdin(number, body.to_owned().into()).await?;
    }
    if body.len() < text.len() {
        unit.stdin(number + 1, bytes::Bytes::new()).await?;
    }
    Ok(())
}

/// Linux numbers of the signals that a model may want.
fn signal_number(signal: &wire::Signal) -> Option<i32> {
    const NAMES: &[(&str, i32)] = &[
        ("HUP", libc::SIGHUP),
        ("INT", libc::SIGINT),
        ("QUIT", libc::SIGQUIT),
        ("KILL", libc::SIGKILL),
        ("USR1", libc::SIGUSR1),
        ("USR2", libc::SIGUSR2),
        ("PIPE", libc::SIGPIPE),
        ("ALRM", libc::SIGALRM),
        ("TERM", libc::SIGTERM),
        ("CONT", libc::SIGCONT),
        ("STOP", libc::SIGSTOP),
        ("TSTP", libc::SIGTSTP),
        ("WINCH", libc::SIGWINCH),
    ];
    match signal {
        wire::Signal::Number(number) => Some(*number).filter(|number| (1..=31).contains(number)),
        wire::Signal::Name(name) => {
            let upper = name.to_ascii_uppercase();
            let short = upper.strip_prefix("SIG").unwrap_or(&upper);
            let by_number = short.parse().ok().filter(|number| (1..=31).contains(number));
            NAMES.iter().find(|(known, _)| *known == short).map(|(_, number)| *number).or(by_number)
        }
    }
}

/// The first line of a command, short enough for a summary.
fn one_line(command: &str) -> String {
    let line = command.trim().lines().next().unwrap_or("");
    let short: String = line.chars().take(80).collect();
    if short.len() < command.trim().len() { format!("{short}…") } else { short }
}

#[cfg(test)]
mod tests;
