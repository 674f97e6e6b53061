//! From events to lines.
//!
//! Pure: the same event gives the same lines, on a terminal and off it. Invariant: an outcome says
//! in words whether it went well; signs and colours only repeat it.

use super::table::minute;
use super::{diff, one_line, question, table, visible};
use crate::output::Tone;
use crate::units;
use tinkerbell_api::wire::{
    ApprovalRequested, Body, Connection, Envelope, Halt, ItemCompleted, ItemKind, PlanUpdated, ResultBody, TaskView, YoloView,
};
use tinkerbell_core::approval::told;

/// Longest summary on one line.
const WIDE: usize = 160;
/// Most connections of one command that are told.
const CONNECTIONS: usize = 8;
/// Lines of output that stand under a failed command.
const TAIL_LINES: usize = 8;

/// One line with its meaning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The meaning.
    pub tone: Tone,
    /// The sign before it; empty for continuations.
    pub sign: &'static str,
    /// The text, safe to show.
    pub text: String,
}

/// How much to show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Depth {
    /// Whole messages instead of their first line.
    pub messages: bool,
    /// Outputs of commands too.
    pub outputs: bool,
    /// Only ASCII signs.
    pub is_ascii: bool,
}

impl Line {
    fn new(tone: Tone, sign: &'static str, text: impl Into<String>) -> Self {
        Self { tone, sign, text: text.into() }
    }

    fn more(text: &str) -> Self {
        Self::new(Tone::Dim, "", text)
    }

    /// The line as text without colour.
    #[must_use]
    pub fn plain(&self) -> String {
        let line = if self.sign.is_empty() { format!("    {}", self.text) } else { format!("{} {}", self.sign, self.text) };
        line.trim_end().to_owned()
    }
}

/// The signs, by whether they may be other than ASCII.
#[derive(Debug, Clone, Copy)]
pub struct Signs {
    /// It went well.
    pub good: &'static str,
    /// It failed.
    pub bad: &'static str,
    /// A message.
    pub says: &'static str,
    /// Something else.
    pub dot: &'static str,
    /// A person is wanted.
    pub ask: &'static str,
    /// It stands still.
    pub halt: &'static str,
    /// It can be taken back.
    pub back: &'static str,
}

/// The signs to use.
#[must_use]
pub const fn signs(is_ascii: bool) -> Signs {
    if is_ascii {
        Signs { good: "+", bad: "x", says: ">", dot: "-", ask: "?", halt: "=", back: "<-" }
    } else {
        Signs { good: "✓", bad: "✗", says: "◆", dot: "·", ask: "?", halt: "‖", back: "↩" }
    }
}

/// The lines of an event; none for events that only a program needs.
#[must_use]
pub fn lines(envelope: &Envelope, depth: Depth) -> Vec<Line> {
    let signs = signs(depth.is_ascii);
    match &envelope.body {
        Body::TaskStarted(started) => {
            let text = format!("{}  {}", one_line(&started.goal, WIDE), one_line(&format!("({})", started.model), 60));
            let mut out = vec![Line::new(Tone::Strong, signs.dot, text)];
            out.extend(started.yolo.as_ref().map(|yolo| Line::new(Tone::Bad, signs.ask, banner(yolo))));
            out
        }
        Body::PlanUpdated(plan) => plan_lines(plan, signs),
        Body::ItemCompleted(item) => item_lines(item, depth, signs),
        Body::ApprovalRequested(asked) => question_lines(asked, &envelope.task, signs),
        Body::ApprovalResolved(resolved) => {
            let word = match (resolved.approved, resolved.lapsed.as_deref()) {
                (true, _) => "approved",
                (false, Some("expired")) => "denied: nobody answered in time",
                (false, Some(_)) => "replaced by another question: what would happen has changed",
                (false, None) => "denied",
            };
            let tail = if resolved.text.is_empty() { String::new() } else { format!(": {}", one_line(&resolved.text, WIDE)) };
            vec![Line::new(Tone::Look, signs.ask, format!("{word}{tail}"))]
        }
        Body::ApprovalGranted(granted) => {
            let allowed = one_line(&told(&granted.offer.argv, &granted.offer.options), WIDE);
            vec![Line::new(Tone::Look, signs.ask, format!("allowed for the {}: {allowed}", one_line(&granted.scope, 20)))]
        }
        Body::TaskPaused(halt) | Body::BudgetPaused(halt) => vec![halt_line(halt, signs)],
        Body::Result(result) => result_lines(result, signs),
        // An operation's item says the same and more.
        Body::ItemStarted(_) | Body::ItemUpdated(_) | Body::Operation(_) => Vec::new(),
    }
}

/// That nobody is asked, for every view of a task.
#[must_use]
pub fn banner(yolo: &YoloView) -> String {
    let reason = if yolo.reason.is_empty() { "no reason was given" } else { &yolo.reason };
    format!("YOLO: nobody is asked for approvals until {} ({}; {})", minute(&yolo.until), one_line(reason, 80), one_line(&yolo.source, 60))
}

/// A line for each of these tasks that asks nobody.
pub fn unasked(tasks: &[TaskView]) -> impl Iterator<Item = String> {
    tasks.iter().filter_map(|task| Some(format!("{} {}", task.short, banner(task.yolo.as_ref()?))))
}

fn plan_lines(plan: &PlanUpdated, signs: Signs) -> Vec<Line> {
    let mut out = vec![Line::new(Tone::Plain, signs.dot, "plan")];
    out.extend(plan.steps.iter().map(|step| {
        let mark = match step.status.as_str() {
            "done" => "[x]",
            "active" => "[>]",
            _ => "[ ]",
        };
        Line::more(&format!("{mark} {}", one_line(&step.text, WIDE)))
    }));
    out
}

fn item_lines(item: &ItemCompleted, depth: Depth, signs: Signs) -> Vec<Line> {
    match item.kind {
        ItemKind::Message => return message_lines(item, depth, signs),
        // A commit follows the edit that it records; its own line would say the same again.
        ItemKind::Commit if item.ok => return Vec::new(),
        _ => {}
    }
    let (tone, sign) = match (item.ok, item.kind) {
        (false, _) => (Tone::Bad, signs.bad),
        (true, ItemKind::Workspace) => (Tone::Plain, signs.dot),
        (true, ItemKind::Operation) => (Tone::Plain, signs.back),
        (true, _) => (Tone::Good, signs.good),
    };
    let mut out = vec![Line::new(tone, sign, headline(item))];
    // What failed for good ends the task, and the result says its hints.
    let notes = if item.code.is_some() { &[] } else { item.notes.as_slice() };
    out.extend(notes.iter().map(|note| Line::more(&one_line(note, WIDE))));
    out.extend(network_lines(&item.connections));
    out.extend(item.waived.iter().map(|why| Line::more(&format!("YOLO, not asked: {}", one_line(why, WIDE)))));
    if depth.outputs {
        out.extend(visible(&item.text).lines().map(Line::more));
    } else if !item.ok && matches!(item.kind, ItemKind::Command | ItemKind::Verification) {
        out.extend(tail(&item.text));
    }
    out
}

/// Where a command went on the network, and where it was kept from going.
fn network_lines(all: &[Connection]) -> Vec<Line> {
    let line = |one: &Connection| {
        let times = if one.count > 1 { format!(" {} times", one.count) } else { String::new() };
        let methods = if one.methods.is_empty() { String::new() } else { format!(", {}", one.methods.join(" ")) };
        let verdict = if one.allowed { "" } else { "refused " };
        let size = if one.allowed { format!(", {} up, {} down", one.up_bytes, one.down_bytes) } else { String::new() };
        Line::more(&one_line(&format!("network: {verdict}{}:{}{times}{methods}{size} ({})", one.host, one.port, one.why), WIDE))
    };
    let rest = all.len().saturating_sub(CONNECTIONS);
    let more = (rest > 0).then(|| Line::more(&format!("network: and {rest} others")));
    all.iter().take(CONNECTIONS).map(line).chain(more).collect()
}

fn headline(item: &ItemCompleted) -> String {
    let mut text = one_line(&item.summary, WIDE);
    if text.is_empty() {
        text = item.tool.clone().unwrap_or_else(|| format!("{:?}", item.kind).to_lowercase());
    }
    match item.kind {
        ItemKind::Workspace => item.level.iter().for_each(|level| text.push_str(&format!(", commands at level {level}"))),
        ItemKind::Verification => item.wall_ms.iter().for_each(|ms| text.push_str(&format!(" in {}", units::brief(*ms)))),
        _ => {}
    }
    if !item.ok && !text.contains("fail") && !text.contains("exit") {
        text.push_str(&format!(" ({})", one_line(&item.status, 20)));
    }
    if let Some(code) = &item.code {
        text.push_str(&format!(" [{}]", one_line(code, 20)));
    }
    text
}

fn message_lines(item: &ItemCompleted, depth: Depth, signs: Signs) -> Vec<Line> {
    let mut out: Vec<Line> = item.notes.iter().map(|note| Line::new(Tone::Look, signs.dot, one_line(note, WIDE))).collect();
    if item.text.trim().is_empty() {
        return out;
    }
    let (sign, who) = if item.role.as_deref() == Some("user") { (signs.ask, "you: ") } else { (signs.says, "") };
    if !depth.messages {
        out.push(Line::new(Tone::Plain, sign, format!("{who}{}", one_line(&item.text, WIDE))));
        return out;
    }
    let text = visible(item.text.trim());
    let mut rest = text.lines();
    out.push(Line::new(Tone::Plain, sign, format!("{who}{}", rest.next().unwrap_or_default())));
    out.extend(rest.map(|line| Line { tone: Tone::Plain, ..Line::more(line) }));
    out
}

/// The last lines of an output, where the reason mostly stands.
fn tail(text: &str) -> Vec<Line> {
    let shown = visible(text);
    let lines: Vec<&str> = shown.lines().filter(|line| !line.trim().is_empty()).collect();
    let from = lines.len().saturating_sub(TAIL_LINES);
    lines.iter().skip(from).map(|line| Line::more(&one_line(line, WIDE))).collect()
}

/// A question with exactly what would happen.
fn question_lines(asked: &ApprovalRequested, task: &str, signs: Signs) -> Vec<Line> {
    let mut out = vec![Line::new(Tone::Look, signs.ask, question::line(&asked.title, 400))];
    let pages = question::pages(asked);
    out.extend(pages.first().into_iter().flatten().map(|row| Line::more(row)));
    out.extend(question::missing(&pages, task.get(..8).unwrap_or(task)).iter().map(|line| Line::more(line)));
    out.extend(asked.options.iter().map(|option| Line::more(&format!("- {}", question::line(option, WIDE)))));
    out.extend(question::notes(asked).iter().map(|note| Line::more(note)));
    out
}

fn halt_line(halt: &Halt, signs: Signs) -> Line {
    let why = match halt.why.as_str() {
        "person" => "waits for you",
        "budget" => "budget reached",
        "key" => "needs a key",
        "disk" => "disk trouble",
        "provider" => "provider down",
        "later" => "scheduled",
        "halt" => "halted",
        _ => "paused",
    };
    let until = halt.until.as_deref().filter(|_| halt.why != "disk").map(|until| match halt.why.as_str() {
        "person" => format!(" (unanswered it counts as denied from {} on)", minute(until)),
        _ => format!(" (goes on by itself at {})", minute(until)),
    });
    let text = one_line(&halt.text, WIDE) + &until.unwrap_or_default();
    Line::new(Tone::Look, signs.halt, if text.is_empty() { why.to_owned() } else { format!("{why}: {text}") })
}

fn result_lines(result: &ResultBody, signs: Signs) -> Vec<Line> {
    let (tone, sign) = match result.status.as_str() {
        "verified" => (Tone::Good, signs.good),
        "unverified" => (Tone::Look, signs.good),
        "cancelled" | "paused" => (Tone::Look, signs.halt),
        _ => (Tone::Bad, signs.bad),
    };
    let label = match result.status.as_str() {
        "gate-failed" => "finished, but the verification failed",
        "unverified" => "done, unverified (no verification command)",
        "verified" => "done, verified",
        other => other,
    };
    let mut parts = vec![one_line(label, WIDE), diff::sum(&result.files_changed)];
    parts.push(format!("{} in / {} out tokens", result.usage.input_tokens, result.usage.output_tokens));
    parts.push(format!("cost {}", table::cost(result.cost_micros)));
    let mut out = vec![Line::new(tone, sign, parts.join(" · "))];
    out.extend(result.files_changed.iter().map(|file| Line::more(&diff::file(file))));
    out.extend(network_lines(&result.connections));
    if let Some(error) = &result.error {
        let code = error.code.as_ref().map(|code| format!("[{}] ", one_line(code, 20))).unwrap_or_default();
        out.push(Line { tone: Tone::Bad, ..Line::more(&format!("{code}{}", one_line(&error.message, 400))) });
        out.extend(error.hints.iter().map(|hint| Line::more(&one_line(hint, WIDE))));
    }
    out
}
