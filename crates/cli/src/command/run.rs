//! `run` and `attach`.
//!
//! Gives a task and follows it. Invariant: `run --bg` prints the task's id alone, `run --json`
//! prints events with `result` last, and everything else goes to stderr.

use super::follow::{Ending, Follow, INTERRUPTED, question_id};
use super::watch::Watch;
use super::{Desk, is_lost, local};
use crate::args::{Limits, RunArgs, When, Yolo};
use crate::house::{Chore, TrustWish};
use crate::output::Tone;
use crate::render::lines::signs;
use crate::render::one_line;
use crate::render::table::minute;
use crate::units;
use std::io::{self, IsTerminal as _, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_api::wire::{Caps, Halt, ResultBody, ResultError, SubmitRequest, Submitted, TaskView, Usage, YoloRequest};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::words::Priority;

/// Longest prompt in bytes; the daemon takes requests of one mebibyte.
const MAX_PROMPT_BYTES: u64 = 900 << 10;

/// `run`.
pub async fn run(desk: &Desk, args: RunArgs) -> Result<u8, Fault> {
    let around = desk.house.surroundings();
    let cwd = directory(around.cwd.as_deref(), args.cd.as_deref())?;
    let is_alone = !desk.out.can_ask() && !args.bg;
    let request = SubmitRequest {
        goal: prompt(&args)?,
        cwd: cwd.to_str().ok_or_else(|| bad_dir(&cwd, "has a name that is not UTF-8"))?.to_owned(),
        model: args.model.clone(),
        caps: caps(&args.limits),
        verify: args.verify.clone(),
        base: args.base.clone(),
        no_input: desk.is_no_input || args.print || is_alone,
        priority: Some(priority(desk, &args)),
        after_ms: delay(&args.when),
        not_before: args.when.not_before.clone().filter(|text| units::duration(text).is_err()),
        env: around.env,
        yolo: yolo(&args.yolo),
    };
    if !request.no_input && desk.out.can_ask() {
        let chore = Chore::Trust { dir: Some(cwd.clone()), wish: TrustWish::BeforeRun };
        // Whatever is not trusted does not count; that is no reason not to take the task.
        if let Err(fault) = desk.house.chore(chore, Arc::clone(&desk.out)).await {
            desk.out.talk(&desk.out.on_talk(Tone::Look, &one_line(&fault.message, 200)));
        }
    }
    let (client, given) = patiently(desk, &request, &around.key, args.when.wait).await?;
    if args.bg {
        return background(desk, &given, args.json);
    }
    let short = given.short.clone();
    desk.out.talk(&desk.out.on_talk(Tone::Dim, &format!("task {short}")));
    let watch = Watch::open(desk, client, &given.task, !args.json).await?;
    let ending = Follow::new(desk, watch, short.clone(), true, args.json)?.run().await?;
    end(desk, ending, &given.task, &short, args.json).await
}

/// `attach`.
pub async fn attach(desk: &Desk, task: &str, json: bool) -> Result<u8, Fault> {
    let client = desk.client().await?;
    client.environment(desk.house.surroundings().env).await?;
    let view = client.task(task).await?;
    let watch = Watch::open(desk, client, &view.id, !json).await?;
    let ending = Follow::new(desk, watch, view.short.clone(), false, json)?.run().await?;
    end(desk, ending, &view.id, &view.short, json).await
}

/// Somebody who sits before a terminal and follows the task waits for it.
fn priority(desk: &Desk, args: &RunArgs) -> String {
    let own = if args.bg || !desk.out.can_ask() { Priority::Normal } else { Priority::Interactive };
    args.when.priority.clone().unwrap_or_else(|| own.name().to_owned())
}

/// How long from now the task is to begin, in milliseconds, where that was given as a duration.
fn delay(when: &When) -> Option<u64> {
    let text = || when.not_before.as_deref().and_then(|text| units::duration(text).ok());
    when.after.or_else(text).map(|delay| u64::try_from(delay.as_millis()).unwrap_or(u64::MAX))
}

/// Submits; a daemon that takes no more is asked again when it said, for at most `patience`.
async fn patiently(desk: &Desk, request: &SubmitRequest, key: &str, patience: Option<Duration>) -> Result<(Client, Submitted), Fault> {
    let mut left = patience.unwrap_or_default();
    loop {
        let fault = match submit(desk, request, key).await {
            Err(fault) if fault.exit == exit::UNAVAILABLE && fault.retry_after_ms.is_some() => fault,
            submitted => return submitted,
        };
        let asked = Duration::from_millis(fault.retry_after_ms.unwrap_or(1_000).max(100));
        if left.is_zero() {
            let line = format!("try again in {}, or let it wait for room: tinkerbell run --wait …", units::brief(millis(asked)));
            return Err(fault.hint(line));
        }
        let wait = asked.min(left);
        desk.out.talk(&desk.out.on_talk(Tone::Dim, &format!("{}; trying again in {}", fault.message, units::brief(millis(wait)))));
        tokio::time::sleep(wait).await;
        left -= wait;
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// Submits; a connection lost on the way is tried once more, under the same key, so that it stays
/// one task.
async fn submit(desk: &Desk, request: &SubmitRequest, key: &str) -> Result<(Client, Submitted), Fault> {
    let key = (!key.is_empty()).then_some(key);
    let client = desk.client().await?;
    match client.submit(request, key).await {
        Err(fault) if is_lost(&fault) && key.is_some() => {
            let client = desk.again(&client).await?;
            let given = client.submit(request, key).await?;
            Ok((client, given))
        }
        submitted => Ok((client, submitted?)),
    }
}

fn background(desk: &Desk, given: &Submitted, json: bool) -> Result<u8, Fault> {
    if json {
        desk.out.data(&serde_json::json!({ "task": given.task }).to_string());
    } else {
        desk.out.data(&given.task);
    }
    desk.out.talk(&desk.out.on_talk(Tone::Dim, &format!("follow it: tinkerbell attach {}", given.short)));
    Ok(exit::DONE)
}

/// The directory to work in.
fn directory(cwd: Option<&Path>, cd: Option<&Path>) -> Result<PathBuf, Fault> {
    let place = match (cwd, cd) {
        (_, Some(cd)) if cd.is_absolute() => cd.to_owned(),
        (Some(cwd), cd) => cd.map_or_else(|| cwd.to_owned(), |cd| cwd.join(cd)),
        (None, _) => return Err(bad_dir(Path::new("."), "is gone").hint("change into a directory that exists, or give one with --cd")),
    };
    let place = place.canonicalize().map_err(|error| bad_dir(&place, &format!("can not be used: {error}")))?;
    if place.is_dir() { Ok(place) } else { Err(bad_dir(&place, "is not a directory")) }
}

fn bad_dir(dir: &Path, why: &str) -> Fault {
    Fault::new("TB-CLI-001", exit::USAGE, format!("the directory {} {why}", dir.display()))
}

/// The prompt; `-` reads standard input, `--print` appends what is piped in.
fn prompt(args: &RunArgs) -> Result<String, Fault> {
    let words = args.prompt.join(" ");
    let stdin = io::stdin();
    let is_piped = || !stdin.is_terminal() && is_pipe_or_file();
    let text = if words == "-" {
        piped()?
    } else if args.print && is_piped() {
        format!("{words}\n\n{}", piped()?).trim_end().to_owned()
    } else {
        words
    };
    if text.trim().is_empty() {
        return Err(Fault::new("TB-CLI-002", exit::USAGE, "the prompt is empty").hint("tinkerbell run \"what is to be done\""));
    }
    Ok(text)
}

/// Whether standard input has an end: `/dev/null` and sockets of a service manager are left alone.
fn is_pipe_or_file() -> bool {
    use std::os::fd::AsFd as _;
    use std::os::unix::fs::FileTypeExt as _;
    let file = io::stdin().as_fd().try_clone_to_owned().map(std::fs::File::from);
    file.and_then(|file| file.metadata()).is_ok_and(|facts| facts.is_file() || facts.file_type().is_fifo())
}

fn piped() -> Result<String, Fault> {
    let mut text = String::new();
    let read = io::stdin().take(MAX_PROMPT_BYTES + 1).read_to_string(&mut text);
    let bad = |why: &str| Fault::new("TB-CLI-002", exit::USAGE, format!("standard input can not be the prompt: {why}"));
    read.map_err(|error| bad(&error.to_string()))?;
    if text.len() as u64 > MAX_PROMPT_BYTES {
        return Err(bad("it is longer than 900 KiB").hint("put it into a file of the repository and name the file in the prompt"));
    }
    Ok(text)
}

/// How long nobody is asked when no time is named.
const YOLO: Duration = Duration::from_secs(24 * 3_600);

/// That nobody is to be asked, as the daemon takes it.
fn yolo(given: &Yolo) -> Option<YoloRequest> {
    let for_ms = millis(given.yolo_for.unwrap_or(YOLO));
    given.yolo.then(|| YoloRequest { reason: given.reason.clone().unwrap_or_default(), for_ms })
}

/// Limits as the daemon takes them.
pub fn caps(limits: &Limits) -> Caps {
    let millis = |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    Caps {
        cost_micros: limits.budget.map(tinkerbell_core::money::NanoUsd::micros),
        steps: limits.max_steps,
        tokens: limits.max_tokens,
        wall_ms: limits.max_wall_time.map(millis),
        cpu_ms: limits.max_cpu.map(millis),
        disk_bytes: limits.max_disk,
        processes: limits.max_processes,
        memory_bytes: limits.max_memory,
    }
}

/// Says how it ended; the exit code.
async fn end(desk: &Desk, ending: Ending, task: &str, short: &str, json: bool) -> Result<u8, Fault> {
    match ending {
        Ending::Result { result, unseen, signal } => {
            if !json {
                finish(desk, &result, &unseen, short);
            }
            Ok(if result.status == "cancelled" { signal.unwrap_or(result.exit_code) } else { result.exit_code })
        }
        Ending::Halted(halt) => halted(desk, &halt, task, short, json).await,
        Ending::Detached => {
            desk.out.talk(&format!("detached; task {short} goes on: tinkerbell attach {short}"));
            Ok(exit::DONE)
        }
        Ending::Left(code) => {
            if code == INTERRUPTED {
                desk.out.talk(&format!("left; task {short} is being stopped: tinkerbell ps -a"));
            }
            Ok(code)
        }
    }
}

/// The result's text as data, without what stands on this very terminal; the next steps as talk.
fn finish(desk: &Desk, result: &ResultBody, unseen: &str, short: &str) {
    let is_one_terminal = desk.out.is_data_terminal() && desk.out.is_talk_terminal();
    let text = if is_one_terminal { unseen } else { result.text.trim() };
    if result.error.is_none() && !text.is_empty() {
        desk.out.data(&if desk.out.is_data_terminal() { crate::render::visible(text) } else { text.to_owned() });
    }
    if result.undo_token.is_some() {
        desk.out.talk(&format!("{} undo: tinkerbell undo {short}", signs(desk.out.is_ascii()).back));
        desk.out.talk(&format!("  diff: tinkerbell diff {short}"));
        desk.out.talk(&format!("  land: tinkerbell land {short} --squash"));
    }
}

/// The task stands still and we leave: the code and the way on.
async fn halted(desk: &Desk, halt: &Halt, task: &str, short: &str, json: bool) -> Result<u8, Fault> {
    let view = desk.client().await?.task(task).await?;
    let id = question_id(short, view.waiting.as_ref());
    let fault = halt_fault(halt, &id, short, view.waiting.as_ref().is_some_and(|asked| asked.kind == "answer"));
    if json {
        let line = paused(&view, &fault)?;
        desk.out.data(&line);
    }
    Err(fault)
}

/// The way on for a task that stands still.
pub fn halt_fault(halt: &Halt, id: &str, short: &str, is_question: bool) -> Fault {
    let why = one_line(&halt.text, 300);
    match halt.why.as_str() {
        "person" => {
            let fault = Fault::new("TB-CLI-003", exit::NEEDS_PERSON, format!("task {short} waits for you: {why}"));
            let yes = if is_question { format!("tinkerbell approve {id} --answer TEXT") } else { format!("tinkerbell approve {id}") };
            fault.hint(yes).hint(format!("tinkerbell deny {id}")).hint(format!("tinkerbell attach {short}"))
        }
        "budget" => Fault::new("TB-CLI-004", exit::BUDGET, format!("task {short} reached its limit and is paused: {why}"))
            .hint(format!("tinkerbell resume {short} --budget 10usd        (or --max-steps, --max-tokens, --max-wall-time)"))
            .hint(format!("tinkerbell stop {short}")),
        "key" => Fault::new("TB-CLI-005", exit::NO_AUTH, format!("task {short} is paused: {why}"))
            .hint(format!("set the variable and run: tinkerbell resume {short}")),
        _ if halt.until.is_some() => {
            let until = halt.until.as_deref().map(minute).unwrap_or_default();
            let when = if halt.why == "disk" { "when there is room again".to_owned() } else { format!("at {until}") };
            Fault::new("TB-CLI-006", exit::UNAVAILABLE, format!("task {short} is paused and goes on by itself {when}: {why}"))
                .hint(format!("go on at once: tinkerbell resume {short}"))
                .hint(format!("follow it: tinkerbell attach {short}"))
        }
        "halt" => Fault::halted(format!("task {short} is halted: {why}")),
        _ => Fault::new("TB-CLI-006", exit::UNAVAILABLE, format!("task {short} is paused: {why}"))
            .hint(format!("remove the cause, then: tinkerbell resume {short}")),
    }
}

/// A `result` line for a task that has none yet, so that readers always find one at the end.
fn paused(view: &TaskView, fault: &Fault) -> Result<String, Fault> {
    let error = ResultError { code: Some(fault.code.0.to_owned()), message: fault.message.clone(), hints: fault.hints.clone() };
    let result = ResultBody {
        status: "paused".to_owned(),
        exit_code: fault.exit,
        text: fault.message.clone(),
        cost_micros: view.cost_micros,
        usage: Usage { ..view.usage },
        files_changed: Vec::new(),
        commits: view.commits,
        connections: Vec::new(),
        undo_token: view.ops.iter().any(|op| op.in_force).then(|| view.id.clone()),
        error: Some(error),
    };
    let line = serde_json::json!({ "v": 1, "time": view.updated, "task": view.id, "type": "result", "data": result });
    serde_json::to_string(&line).map_err(|error| local(&error.to_string()))
}
