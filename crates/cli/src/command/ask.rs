//! Questions: the inbox, answers, and asking on the terminal.
//!
//! Invariant: nothing is approved that was not shown whole or could not be, and the safe choice is the
//! one that an accidental Enter takes.

use super::Desk;
use crate::args::Format;
use crate::house::{Chore, Granting};
use crate::output::Tone;
use crate::prompt::Asker;
use crate::render::{lines, one_line, question, table, visible};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use tinkerbell_api::Client;
use tinkerbell_api::wire::{ApprovalRequested, ApprovalView, CommandRequest, Offer, millis};
use tinkerbell_core::approval::told;
use tinkerbell_core::code::{Fault, exit};

/// Open tasks that are looked through for those that ask nobody.
const TASKS: u32 = 100;
/// What of that to which an approval is bound can be the same for two tasks.
const DEED: [&str; 7] = ["argv", "program", "first word", "stdin", "sandbox", "file", "diff"];

/// What a person said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// An answer.
    Given {
        /// Approved or answered.
        approve: bool,
        /// The text.
        text: String,
        /// How far it reaches: empty for once, `task`, `project`, `user`.
        scope: String,
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
        ("unknown", _) => decided(asker, ["run it again", "go on without it"], None),
        _ => decided(asker, ["approve", "deny"], asked.offer.as_ref()),
    };
    answered.unwrap_or(Reply::Interrupted)
}

/// Asks whether the rest of a long question is to be shown; `None` for an interruption.
pub fn more(asker: Asker, left: &usize) -> Option<bool> {
    let choices = [format!("show the next of {left} pages"), "decide later".to_owned()];
    asker.choose("There is more of it", &choices, 0).ok().map(|choice| choice == Some(0))
}

/// Asks what to do about a reached limit; the number of the choice.
pub fn budget(asker: Asker, text: &str) -> Option<usize> {
    let choices = ["double all limits and go on", "end the task", "leave it paused"].map(str::to_owned);
    asker.choose(&one_line(text, 160), &choices, 2).ok().flatten()
}

fn decided(asker: Asker, words: [&str; 2], offer: Option<&Offer>) -> io::Result<Reply> {
    let [yes, no] = words.map(str::to_owned);
    let mut choices = vec![yes, no, "decide later".to_owned()];
    if let Some(offer) = offer {
        let allowed = question::line(&told(&offer.argv, &offer.options), 60);
        choices.push(format!("approve {allowed} for the rest of this task"));
        choices.push(format!("approve {allowed} in this project for 30 days"));
    }
    let given = |approve, scope: &str| Reply::Given { approve, text: String::new(), scope: scope.to_owned() };
    Ok(match asker.choose("Your decision", &choices, 2)? {
        Some(0) => given(true, ""),
        Some(1) => given(false, ""),
        Some(3) => given(true, "task"),
        Some(4) => given(true, "project"),
        _ => Reply::Later,
    })
}

fn chosen(asker: Asker, options: &[String]) -> io::Result<Reply> {
    let mut items: Vec<String> = options.iter().map(|option| question::line(option, 160)).collect();
    items.push("other…".to_owned());
    items.push("answer later".to_owned());
    match asker.choose("Your answer", &items, items.len().saturating_sub(1))? {
        Some(at) if at < options.len() => {
            Ok(Reply::Given { approve: true, text: options.get(at).cloned().unwrap_or_default(), scope: String::new() })
        }
        Some(at) if at == options.len() => free(asker),
        _ => Ok(Reply::Later),
    }
}

fn free(asker: Asker) -> io::Result<Reply> {
    let text = asker.text("Your answer (empty: later)", "")?;
    Ok(if text.trim().is_empty() { Reply::Later } else { Reply::Given { approve: true, text, scope: String::new() } })
}

/// `inbox`: what waits for the user.
pub async fn inbox(desk: &Desk, format: Format) -> Result<u8, Fault> {
    let client = desk.client().await?;
    let open = client.approvals().await?;
    if format == Format::Table {
        let unasked = client.tasks(true, TASKS, None).await?.tasks;
        lines::unasked(&unasked).for_each(|line| desk.out.talk(&desk.out.on_talk(Tone::Bad, &line)));
    }
    match format {
        Format::Json => desk.json(&open)?,
        Format::Name => open.iter().for_each(|view| desk.out.data(&format!("{}/{}", view.short, view.question.id))),
        Format::Table if open.is_empty() => desk.out.talk("nothing waits for you"),
        Format::Table => {
            let rows = table::approvals(&open);
            rows.iter().for_each(|line| desk.out.data(line));
            desk.out.talk("tinkerbell inspect TASK shows a question whole; tinkerbell approve ID, tinkerbell deny ID answer it");
            if rows.len() <= open.len() {
                desk.out.talk("tinkerbell approve --all-like ID answers all that are equal");
            }
        }
    }
    Ok(exit::DONE)
}

/// What `approve` and `deny` are told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wish {
    /// TASK or TASK/NUMBER.
    pub id: Option<String>,
    /// Approve or deny.
    pub approve: bool,
    /// The answer, or why not.
    pub text: String,
    /// `once`, `task`, `project`, `user`.
    pub scope: String,
    /// All that ask for the same.
    pub is_like: bool,
    /// All that this rule asks about.
    pub rule: Option<String>,
}

/// `approve` and `deny`.
pub async fn answer(desk: &Desk, wish: &Wish) -> Result<u8, Fault> {
    if wish.approve {
        wish.rule.as_deref().map_or(Ok(()), known_to_the_user)?;
    }
    let client = desk.client().await?;
    let open = client.approvals().await?;
    let chosen = match &wish.id {
        Some(id) => vec![one(&client, &open, id).await?],
        None => open.iter().filter(|view| concerns(view, wish)).cloned().collect(),
    };
    let is_batch = wish.id.is_none() || wish.is_like;
    let mut all = chosen.clone();
    if let Some(first) = chosen.first().filter(|first| wish.is_like && !first.question.like.is_empty()) {
        let (same, others): (Vec<_>, Vec<_>) = alike(open, first).partition(|view| !wish.approve || deed(view) == deed(first));
        all.extend(same);
        others.iter().for_each(|view| {
            let id = format!("{}/{}", view.short, view.question.id);
            desk.out.talk(&format!("{id} is the same call with other files, programs or in another repository; answer it by itself"));
        });
    }
    if all.is_empty() {
        desk.out.talk("nothing of that waits for you");
        return Ok(exit::DONE);
    }
    if let [view] = all.as_slice()
        && view.question.kind == "answer"
        && wish.approve
        && wish.text.is_empty()
    {
        show(desk, &view.question);
        return Err(Fault::new("TB-CLI-008", exit::USAGE, "this is a question, not an approval")
            .hint(format!("tinkerbell approve {}/{} --answer TEXT", view.short, view.question.id)));
    }
    if is_batch && wish.approve {
        let mut shown = BTreeSet::new();
        all.iter().filter(|view| shown.insert(format!("{:?}", deed(view)))).for_each(|view| show(desk, &view.question));
    }
    let mut done = exit::DONE;
    for view in &all {
        match give(desk, &client, view, wish).await {
            Ok(said) if is_batch => desk.out.data(&format!("{}/{} {}", view.short, view.question.id, visible(&said))),
            Ok(said) => desk.out.data(&visible(&said)),
            // One that was answered meanwhile keeps the others from nothing.
            Err(fault) if is_batch => done = desk.fail(&fault),
            Err(fault) => return Err(fault),
        }
    }
    Ok(done)
}

/// The other questions that ask for the same call.
fn alike(open: Vec<ApprovalView>, first: &ApprovalView) -> impl Iterator<Item = ApprovalView> {
    let is_like = |view: &ApprovalView| {
        view.question.like == first.question.like && (&view.task, view.question.id) != (&first.task, first.question.id)
    };
    open.into_iter().filter(is_like)
}

/// What would happen, as far as it is the same for two tasks: where, what is shown, and what it is bound to. Each
/// task has a directory of its own.
fn deed(view: &ApprovalView) -> (&str, &str, Vec<(&str, &str)>) {
    let asked = &view.question;
    let told = asked.facts.iter().map(|fact| (fact.name.as_str(), fact.value.as_str()));
    (&view.repository, &asked.body, told.filter(|(name, _)| DEED.contains(name)).collect())
}

/// Refuses a rule of a repository: others may have one of the same name, and say something else with it.
fn known_to_the_user(rule: &str) -> Result<(), Fault> {
    if !rule.starts_with("project:") {
        return Ok(());
    }
    let what = format!("`{}` is a rule of a repository, and others may have one of that name", visible(rule));
    Err(Fault::new("TB-CLI-008", exit::USAGE, what).hint("answer its questions one by one: tinkerbell inbox"))
}

/// Whether a batch is about this question. Only what a yes or no decides is approved in a batch.
fn concerns(view: &ApprovalView, wish: &Wish) -> bool {
    let is_decision = !wish.approve || view.question.kind == "approval";
    is_decision && wish.rule.as_ref().is_none_or(|rule| view.question.rules.contains(rule))
}

async fn one(client: &Client, open: &[ApprovalView], id: &str) -> Result<ApprovalView, Fault> {
    let (prefix, number) = split(id)?;
    let task = client.task(prefix).await?;
    let found = open.iter().find(|view| view.task == task.id && number.is_none_or(|number| view.question.id == number));
    found.cloned().ok_or_else(|| {
        Fault::new("TB-CLI-008", exit::USAGE, format!("task {} has no such open question", task.short)).hint("tinkerbell inbox")
    })
}

async fn give(desk: &Desk, client: &Client, view: &ApprovalView, wish: &Wish) -> Result<String, Fault> {
    let question = &view.question;
    if wish.approve {
        grant(desk, client, view, &wish.scope).await?;
    }
    let (digest, scope) = (question.digest.clone(), if wish.approve { wish.scope.clone() } else { String::new() });
    let request = CommandRequest::Answer { id: question.id, approve: wish.approve, text: wish.text.clone(), digest, scope };
    client.command(&view.task, &request).await
}

/// Files what reaches beyond the task, before the answer: a grant that is filed and not used does no harm,
/// and is listed.
pub async fn grant(desk: &Desk, client: &Client, view: &ApprovalView, scope: &str) -> Result<(), Fault> {
    if !matches!(scope, "project" | "user") {
        return Ok(());
    }
    let Some(offer) = &view.question.offer else {
        return Err(Fault::new("TB-APPROVE-002", exit::USAGE, "this can only be approved once")
            .hint(format!("tinkerbell approve {}/{}", view.short, view.question.id)));
    };
    let wish = Granting {
        id: offer.id.clone(),
        argv: offer.argv.clone(),
        options: offer.options.clone(),
        example: offer.example.clone(),
        expires_ms: millis(&offer.expires).unwrap_or_default(),
        project: (scope == "project").then(|| view.repository.clone()),
        asked: format!("{}/{}", view.short, view.question.id),
    };
    desk.house.chore(Chore::Grant(wish), Arc::clone(&desk.out)).await?;
    client.reload().await.map(drop)
}

/// `policy grants revoke`.
pub async fn revoke(desk: &Desk, id: String) -> Result<u8, Fault> {
    let done = desk.house.chore(Chore::PolicyRevoke { id }, Arc::clone(&desk.out)).await?;
    // A daemon that runs hears of it at once; one that does not reads the file when it starts.
    if let Ok(client) = desk.house.connect(false).await {
        client.reload().await?;
    }
    Ok(done)
}

/// Shows a question on stderr: whole, where it is no longer than a page; else its first page and where the
/// rest stands.
pub fn show(desk: &Desk, asked: &ApprovalRequested) {
    head(desk, asked);
    let pages = question::pages(asked);
    pages.first().into_iter().flatten().for_each(|row| desk.out.error(&format!("    {row}")));
    foot(desk, asked);
    question::missing(&pages, "TASK").iter().for_each(|line| desk.out.error(&desk.out.on_talk(Tone::Look, line)));
}

/// Shows a question whole, on stderr.
pub fn show_whole(desk: &Desk, asked: &ApprovalRequested) {
    head(desk, asked);
    question::pages(asked).iter().flatten().for_each(|row| desk.out.error(&format!("    {row}")));
    foot(desk, asked);
}

fn head(desk: &Desk, asked: &ApprovalRequested) {
    desk.out.error(&desk.out.on_talk(Tone::Look, &question::line(&asked.title, 400)));
}

fn foot(desk: &Desk, asked: &ApprovalRequested) {
    asked.options.iter().for_each(|option| desk.out.error(&format!("    - {}", question::line(option, 160))));
    question::notes(asked).iter().for_each(|note| desk.out.error(&format!("  {note}")));
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
    fn a_batch_is_never_about_a_rule_of_a_repository() {
        assert_eq!((known_to_the_user("deploys"), known_to_the_user("risk")), (Ok(()), Ok(())));
        assert_eq!(known_to_the_user("project:deploys").unwrap_err().code.0, "TB-CLI-008");
    }

    #[test]
    fn a_question_is_named_by_task_or_by_task_and_number() {
        assert_eq!(split("7f3a2c").unwrap(), ("7f3a2c", None));
        assert_eq!(split("7f3a2c/2").unwrap(), ("7f3a2c", Some(2)));
        for id in ["7f3a2c/", "7f3a2c/x", "a/1/2"] {
            assert_eq!(split(id).unwrap_err().code.0, "TB-CLI-008", "{id}");
        }
    }
}
