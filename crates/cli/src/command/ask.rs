//! Questions: the inbox, answers, and asking on the terminal.
//!
//! Invariant: nothing is approved that was not shown whole, and the safe choice is the one that
//! an accidental Enter takes.

use super::Desk;
use crate::args::Format;
use crate::output::Tone;
use crate::prompt::Asker;
use crate::render::{one_line, table, visible};
use std::io;
use tinkerbell_api::wire::{ApprovalRequested, CommandRequest};
use tinkerbell_core::code::{Fault, exit};

/// What a person said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Given {
        /// Approved or answered.
        approve: bool,
        /// The text.
        text: String,
    },
    /// Not now.
    Later,
    /// Ctrl-c; the signal arrives by itself.
    Interrupted,
}

/// Asks on the terminal. Blocks. The question itself stands on the screen already.
pub fn prompt(asker: Asker, asked: &ApprovalRequested) -> Reply {
    let answered = match (asked.kind.as_str(), asked.options.is_empty()) {
        ("answer", true) => free(asker),
        ("answer", false) => chosen(asker, &asked.options),
        ("unknown", _) => decided(asker, ["run it again", "go on without it"]),
        _ => decided(asker, ["approve", "deny"]),
    };
    answered.unwrap_or(Reply::Interrupted)
}

/// Asks what to do about a reached limit; the number of the choice.
pub fn budget(asker: Asker, text: &str) -> Option<usize> {
    let choices = ["double all limits and go on", "end the task", "leave it paused"].map(str::to_owned);
    asker.choose(&one_line(text, 160), &choices, 2).ok().flatten()
}

fn decided(asker: Asker, words: [&str; 2]) -> io::Result<Reply> {
    let [yes, no] = words.map(str::to_owned);
    let choice = asker.choose("Your decision", &[yes, no, "decide later".to_owned()], 2)?;
    Ok(match choice {
        Some(0) => Reply::Given { approve: true, text: String::new() },
        Some(1) => Reply::Given { approve: false, text: String::new() },
        _ => Reply::Later,
    })
}

fn chosen(asker: Asker, options: &[String]) -> io::Result<Reply> {
    let mut items: Vec<String> = options.iter().map(|option| one_line(option, 160)).collect();
    items.push("other…".to_owned());
    items.push("answer later".to_owned());
    match asker.choose("Your answer", &items, items.len().saturating_sub(1))? {
        Some(at) if at < options.len() => Ok(Reply::Given { approve: true, text: options.get(at).cloned().unwrap_or_default() }),
        Some(at) if at == options.len() => free(asker),
        _ => Ok(Reply::Later),
    }
}

fn free(asker: Asker) -> io::Result<Reply> {
    let text = asker.text("Your answer (empty: later)", "")?;
    Ok(if text.trim().is_empty() { Reply::Later } else { Reply::Given { approve: true, text } })
}

/// `inbox`: what waits for the user.
pub async fn inbox(desk: &Desk, format: Format) -> Result<u8, Fault> {
    let open = desk.client().await?.approvals().await?;
    match format {
        Format::Json => desk.json(&open)?,
        Format::Name => open.iter().for_each(|view| desk.out.data(&format!("{}/{}", view.short, view.question.id))),
        Format::Table if open.is_empty() => desk.out.talk("nothing waits for you"),
        Format::Table => {
            table::approvals(&open).iter().for_each(|line| desk.out.data(line));
            desk.out.talk("tinkerbell inspect TASK shows a question whole; tinkerbell approve ID, tinkerbell deny ID answer it");
        }
    }
    Ok(exit::DONE)
}

/// `approve` and `deny`.
pub async fn answer(desk: &Desk, id: &str, approve: bool, text: String) -> Result<u8, Fault> {
    let (prefix, number) = split(id)?;
    let client = desk.client().await?;
    let task = client.task(prefix).await?;
    let open: Vec<_> = client.approvals().await?.into_iter().filter(|view| view.task == task.id).collect();
    let found = open.iter().find(|view| number.is_none_or(|number| view.question.id == number));
    let Some(view) = found else {
        return Err(
            Fault::new("TB-CLI-008", exit::USAGE, format!("task {} has no such open question", task.short)).hint("tinkerbell inbox")
        );
    };
    let question = &view.question;
    if question.kind == "answer" && approve && text.is_empty() {
        show(desk, question);
        return Err(Fault::new("TB-CLI-008", exit::USAGE, "this is a question, not an approval")
            .hint(format!("tinkerbell approve {}/{} --answer TEXT", view.short, question.id)));
    }
    let digest = question.digest.clone();
    let request = CommandRequest::Answer { id: question.id, approve, text, digest, scope: String::new() };
    let said = client.command(&task.id, &request).await?;
    desk.out.data(&visible(&said));
    Ok(exit::DONE)
}

/// Shows a question whole, on stderr.
pub fn show(desk: &Desk, question: &ApprovalRequested) {
    desk.out.error(&desk.out.on_talk(Tone::Look, &one_line(&question.title, 200)));
    visible(&question.body).lines().for_each(|line| desk.out.error(&format!("    {line}")));
    question.options.iter().for_each(|option| desk.out.error(&format!("    - {}", one_line(option, 160))));
}

/// `TASK` or `TASK/NUMBER`.
fn split(id: &str) -> Result<(&str, Option<u32>), Fault> {
    let Some((task, number)) = id.split_once('/') else { return Ok((id, None)) };
    match number.parse() {
        Ok(number) => Ok((task, Some(number))),
        Err(_) => {
            Err(Fault::new("TB-CLI-008", exit::USAGE, format!("`{}` is not TASK or TASK/NUMBER", one_line(id, 60)))
                .hint("tinkerbell inbox"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_is_named_by_task_or_by_task_and_number() {
        assert_eq!(split("7f3a2c").unwrap(), ("7f3a2c", None));
        assert_eq!(split("7f3a2c/2").unwrap(), ("7f3a2c", Some(2)));
        for id in ["7f3a2c/", "7f3a2c/x", "a/1/2"] {
            assert_eq!(split(id).unwrap_err().code.0, "TB-CLI-008", "{id}");
        }
    }
}
