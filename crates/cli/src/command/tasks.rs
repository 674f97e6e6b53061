//! Commands that look at tasks: ps, inspect, logs, wait; and tell.
//!
//! Nothing is changed, but for words. Invariant: what they print is data, on stdout.

use super::follow::question_id;
use super::run::halt_fault;
use super::watch::{Glimpse, Watch};
use super::{Desk, ask};
use crate::args::Format;
use crate::output::Tone;
use crate::render::lines::{Depth, banner, lines};
use crate::render::{diff, one_line, table, visible};
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_api::wire::{Body, CommandRequest, Envelope, TaskView};
use tinkerbell_core::amount::{bytes, span};
use tinkerbell_core::code::{Fault, exit};

/// Tasks that one answer of the daemon holds at most.
const PAGE: u32 = 1_000;

/// `ps`.
pub async fn ps(desk: &Desk, format: Format, all: bool, limit: u32) -> Result<u8, Fault> {
    let client = desk.client().await?;
    let mut page = client.tasks(!all, limit.min(PAGE), None).await?;
    let mut tasks = std::mem::take(&mut page.tasks);
    while let Some(before) = page.before.filter(|_| tasks.len() < limit as usize) {
        let left = limit.saturating_sub(u32::try_from(tasks.len()).unwrap_or(limit));
        page = client.tasks(!all, left.min(PAGE), Some(before)).await?;
        tasks.append(&mut page.tasks);
    }
    match format {
        Format::Json => desk.json(&tasks)?,
        Format::Name => tasks.iter().for_each(|task| desk.out.data(&task.id)),
        Format::Table => {
            table::tasks(&tasks).iter().for_each(|line| desk.out.data(line));
            if tasks.is_empty() && page.total > 0 {
                desk.out.talk(&format!("no open task; {} have ended: tinkerbell ps -a", page.total));
            }
        }
    }
    if page.before.is_some() {
        let there = if all { page.total } else { page.open };
        desk.out.talk(&format!("{} of {there} are shown; more: tinkerbell ps --limit N", tasks.len()));
    }
    Ok(exit::DONE)
}

/// `tell`.
pub async fn tell(desk: &Desk, task: &str, text: &str) -> Result<u8, Fault> {
    let client = desk.client().await?;
    client.environment(desk.house.surroundings().env).await?;
    let said = client.command(task, &CommandRequest::Tell { text: text.to_owned() }).await?;
    desk.out.data(&visible(&said));
    Ok(exit::DONE)
}

/// `inspect`.
pub async fn inspect(desk: &Desk, task: &str, json: bool) -> Result<u8, Fault> {
    let view = desk.client().await?.task(task).await?;
    if json {
        desk.json(&view)?;
        return Ok(exit::DONE);
    }
    facts(&view).iter().for_each(|(name, value)| desk.out.data(&format!("{name:<10} {value}")));
    section(desk, "plan", view.plan.iter().map(|step| format!("[{}] {}", one_line(&step.status, 10), one_line(&step.text, 160))).collect());
    section(desk, "operations", if view.ops.is_empty() { Vec::new() } else { table::ops(&view.ops) });
    if let Some(result) = &view.result {
        section(desk, "changed", diff::stat(&result.files_changed));
        section(desk, "result", visible(&result.text).lines().map(str::to_owned).collect());
    }
    if let Some(asked) = &view.waiting {
        ask::show_whole(desk, asked);
        desk.out.talk(&format!("tinkerbell approve {0}/{1}   tinkerbell deny {0}/{1}", view.short, asked.id));
    }
    Ok(exit::DONE)
}

fn section(desk: &Desk, name: &str, lines: Vec<String>) {
    if lines.is_empty() {
        return;
    }
    desk.out.data(&desk.out.on_data(Tone::Strong, name));
    lines.iter().for_each(|line| desk.out.data(&format!("  {line}")));
}

/// What commands have used, where there is something to say, and what they may.
fn resources(view: &TaskView) -> Vec<(&'static str, String)> {
    let caps = &view.caps;
    let of = |used: String, cap: Option<String>| cap.map_or(used.clone(), |cap| format!("{used} of {cap}"));
    let mut lines = Vec::new();
    if view.cpu_ms > 0 || caps.cpu_ms.is_some() {
        lines.push(("cpu time", of(span(view.cpu_ms), caps.cpu_ms.map(span))));
    }
    if view.disk_bytes > 0 || caps.disk_bytes.is_some() {
        lines.push(("disk", of(bytes(view.disk_bytes), caps.disk_bytes.map(bytes))));
    }
    lines.extend(caps.processes.map(|most| ("processes", format!("at most {most} at once"))));
    lines.extend(caps.memory_bytes.map(|most| ("memory", format!("at most {} at once", bytes(most)))));
    lines
}

fn facts(view: &TaskView) -> Vec<(&'static str, String)> {
    let line = |text: &str| one_line(text, 300);
    let mut facts =
        vec![("task", view.id.clone()), ("status", table::state(view)), ("goal", line(&view.goal)), ("model", line(&view.model))];
    facts.extend(view.yolo.as_ref().map(|yolo| ("yolo", banner(yolo))));
    if let Some(paused) = &view.paused {
        facts.push(("paused", line(&format!("{}: {}", paused.why, paused.text))));
        facts.extend(paused.until.as_ref().map(|until| ("until", table::minute(until))));
    }
    facts.push(("priority", line(&view.priority)));
    facts.push(("created", view.created.clone()));
    facts.push(("updated", view.updated.clone()));
    facts.push(("steps", used(view.steps.into(), view.caps.steps.map(u64::from))));
    facts.push(("tokens", used(view.usage.input_tokens.saturating_add(view.usage.output_tokens), view.caps.tokens)));
    let cap = view.caps.cost_micros.map(|micros| format!(" of {}", table::cost(Some(micros)))).unwrap_or_default();
    facts.push(("cost", format!("{}{cap}", table::cost(view.cost_micros))));
    facts.extend(resources(view));
    let places = [
        ("directory", Some(&view.cwd)),
        ("branch", view.branch.as_ref()),
        ("worktree", view.workspace.as_ref()),
        ("base", view.base.as_ref()),
        ("sandbox", view.level.as_ref()),
        ("verify", view.verify.as_ref()),
    ];
    facts.extend(places.into_iter().filter_map(|(name, value)| value.map(|value| (name, line(value)))));
    facts.extend(view.notes.iter().map(|note| ("note", line(note))));
    facts
}

fn used(now: u64, cap: Option<u64>) -> String {
    cap.map_or_else(|| now.to_string(), |cap| format!("{now} of {cap}"))
}

/// What `logs` shows.
#[derive(Debug, Clone, Copy)]
pub struct LogDepth {
    /// Go on with what happens.
    pub follow: bool,
    /// Whole outputs.
    pub full: bool,
    /// Events as JSON.
    pub json: bool,
}

/// `logs`.
pub async fn logs(desk: &Desk, task: &str, depth: LogDepth) -> Result<u8, Fault> {
    let client = desk.client().await?;
    let view = client.task(task).await?;
    let mut watch = Watch::open(desk, client, &view.id, false).await?;
    loop {
        match watch.next().await? {
            Glimpse::Event { raw, .. } if depth.json => desk.out.data(&raw),
            Glimpse::Event { envelope: Some(envelope), .. } => log(desk, &watch.client, &envelope, depth).await?,
            Glimpse::Event { .. } | Glimpse::Revived => {}
            Glimpse::CaughtUp if depth.follow => {}
            Glimpse::CaughtUp => return Ok(exit::DONE),
        }
        if desk.out.is_closed() || (depth.follow && watch.standing.ended().is_some()) {
            return Ok(exit::DONE);
        }
    }
}

async fn log(desk: &Desk, client: &Client, envelope: &Envelope, depth: LogDepth) -> Result<(), Fault> {
    let mut shown = envelope.clone();
    let mut whole = None;
    if let Body::ItemCompleted(item) = &mut shown.body
        && depth.full
        && let Some(blob) = &item.full
    {
        // The whole output replaces the text that was cut from it.
        item.text.clear();
        whole = Some(client.blob(blob).await?);
    }
    let time = one_line(envelope.time.get(11..19).unwrap_or_default(), 8);
    let all = lines(&shown, Depth { messages: true, outputs: depth.full, is_ascii: desk.out.is_ascii() });
    for (at, line) in all.iter().enumerate() {
        let clock = if at == 0 { time.as_str() } else { "" };
        desk.out.data(&format!("{} {}", desk.out.on_data(Tone::Dim, &format!("{clock:<8}")), desk.out.on_data(line.tone, &line.plain())));
    }
    if let Some(bytes) = whole {
        visible(&String::from_utf8_lossy(&bytes)).lines().for_each(|line| desk.out.data(&format!("             {line}")));
    }
    Ok(())
}

/// `wait`.
pub async fn wait(desk: &Desk, task: &str, timeout: Option<Duration>) -> Result<u8, Fault> {
    let client = desk.client().await?;
    let view = client.task(task).await?;
    let ended = until_end(desk, client, &view);
    let Some(limit) = timeout else { return ended.await };
    tokio::time::timeout(limit, ended).await.unwrap_or_else(|_| {
        Err(Fault::new("TB-CLI-009", exit::DEADLINE, format!("task {} has not ended in time", view.short))
            .hint(format!("it goes on: tinkerbell attach {}", view.short)))
    })
}

async fn until_end(desk: &Desk, client: Client, view: &TaskView) -> Result<u8, Fault> {
    let mut watch = Watch::open(desk, client, &view.id, false).await?;
    loop {
        watch.next().await?;
        if let Some(result) = watch.standing.ended() {
            return Ok(result.exit_code);
        }
        // Waiting for a person is what `wait` may do, unless nobody can be asked. Who paused the
        // task by hand will let it go on by hand.
        let is_alone = desk.is_no_input || !desk.out.can_ask();
        if let Some(halt) = watch.halt().await?.filter(|halt| is_alone && halt.why != "user") {
            if halt.why == "person" {
                let asked = watch.standing.asked.as_ref();
                let id = question_id(&view.short, asked);
                return Err(halt_fault(&halt, &id, &view.short, asked.is_some_and(|asked| asked.kind == "answer")));
            }
            return Ok(match halt.why.as_str() {
                "budget" => exit::BUDGET,
                "key" => exit::NO_AUTH,
                "disk" | "provider" | "halt" => exit::UNAVAILABLE,
                _ => exit::NEEDS_PERSON,
            });
        }
    }
}
