//! Tables: tasks, questions, operations.
//!
//! Pure. Invariant: no cell contains a line feed, so one row is one line.

use super::{one_line, question};
use crate::units::{brief, size};
use tinkerbell_api::wire::{ApprovalView, OpView, TaskView};
use tinkerbell_core::money::NanoUsd;

/// Rows in columns as wide as their widest cell; the last column is as long as it likes.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let head: Vec<String> = head.iter().map(|&name| name.to_owned()).collect();
    let all = || std::iter::once(&head).chain(rows);
    let width = |column: usize| all().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let line = |row: &Vec<String>| {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    all().map(line).collect()
}

/// Tasks, newest last.
#[must_use]
pub fn tasks(tasks: &[TaskView]) -> Vec<String> {
    let rows: Vec<Vec<String>> = tasks
        .iter()
        .map(|task| {
            vec![
                task.short.clone(),
                if task.yolo.is_some() { format!("{} YOLO", state(task)) } else { state(task) },
                one_line(&task.priority, 12),
                minute(&task.updated),
                task.steps.to_string(),
                cost(task.cost_micros),
                used(task.cpu_ms, brief),
                used(task.disk_bytes, size),
                one_line(&task.model, 30),
                one_line(&task.goal, 60),
            ]
        })
        .collect();
    table(&["TASK", "STATUS", "PRIORITY", "UPDATED", "STEPS", "COST", "CPU", "DISK", "MODEL", "GOAL"], &rows)
}

/// What commands have used; a dash where they have used nothing yet.
fn used(amount: u64, shown: fn(u64) -> String) -> String {
    if amount == 0 { "-".to_owned() } else { shown(amount) }
}

/// A task's state in one or two words.
#[must_use]
pub fn state(task: &TaskView) -> String {
    if task.status == "removed" {
        return task.status.clone();
    }
    let until = task.paused.as_ref().filter(|paused| !matches!(paused.why.as_str(), "disk" | "person")).and_then(|paused| paused.wait_ms);
    let when = until.map_or_else(String::new, |wait_ms| format!(" (in {})", brief(wait_ms)));
    match (&task.result, &task.paused) {
        (Some(result), _) => one_line(&result.status, 20),
        (None, Some(paused)) if paused.why == "key" => one_line(&paused.text, 40),
        (None, Some(paused)) if paused.why == "disk" => "disk full".to_owned(),
        (None, Some(paused)) if paused.why == "provider" => format!("provider down{when}"),
        _ => one_line(&task.status, 20) + &when,
    }
}

/// Money for people.
#[must_use]
pub fn cost(micros: Option<u64>) -> String {
    micros.map_or_else(|| "unknown".to_owned(), |micros| NanoUsd(micros.saturating_mul(1_000)).to_string())
}

/// The minute of a timestamp: `2026-11-20 09:14Z`.
#[must_use]
pub fn minute(time: &str) -> String {
    match (time.get(..10), time.get(11..16)) {
        (Some(day), Some(minute)) => one_line(&format!("{day} {minute}Z"), 20),
        _ => one_line(time, 20),
    }
}

/// Open questions.
#[must_use]
pub fn approvals(open: &[ApprovalView]) -> Vec<String> {
    // Equal questions are one row; those of older releases say of none that it is equal.
    let mut groups: Vec<(&ApprovalView, usize)> = Vec::new();
    for view in open {
        match groups.iter_mut().find(|(first, _)| !view.question.like.is_empty() && first.question.like == view.question.like) {
            Some((_, more)) => *more += 1,
            None => groups.push((view, 0)),
        }
    }
    let rows: Vec<Vec<String>> = groups
        .into_iter()
        .map(|(view, more)| {
            let more = if more == 0 { String::new() } else { format!(" +{more}") };
            let warned = if view.question.marks.is_empty() { "" } else { "! " };
            vec![
                format!("{}/{}{more}", view.short, view.question.id),
                minute(&view.time),
                view.question.kind.clone(),
                format!("{warned}{}", question::line(&view.question.title, 80)),
            ]
        })
        .collect();
    table(&["ID", "ASKED", "KIND", "QUESTION"], &rows)
}

/// Operations of a task.
#[must_use]
pub fn ops(ops: &[OpView]) -> Vec<String> {
    let rows: Vec<Vec<String>> = ops
        .iter()
        .map(|op| {
            // Moves through the log are not in force or out of it; what they moved is.
            let force = match (op.kind.as_str(), op.in_force) {
                ("undo" | "redo" | "unland", _) => "-",
                (_, true) => "yes",
                (_, false) => "no",
            };
            let commit = op.commit.as_deref().and_then(|commit| commit.get(..10)).unwrap_or("-");
            vec![
                op.number.to_string(),
                minute(&op.time),
                one_line(&op.kind, 10),
                force.to_owned(),
                op.files.len().to_string(),
                commit.to_owned(),
                one_line(&op.summary, 70),
            ]
        })
        .collect();
    table(&["OP", "TIME", "KIND", "IN FORCE", "FILES", "COMMIT", "SUMMARY"], &rows)
}
