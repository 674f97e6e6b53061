//! Commands that change tasks: pause, stop, remove, limits, undo, land and their kin.
//!
//! Each is one word to the daemon, which decides. Invariant: what can be taken back says how.

use super::Desk;
use super::run::caps;
use crate::args::Limits;
use crate::output::Tone;
use crate::render::lines::signs;
use crate::render::{diff as diffs, table, visible};
use tinkerbell_api::Client;
use tinkerbell_api::wire::{CommandRequest, TaskView};
use tinkerbell_core::code::{Fault, exit};

/// Words that need nothing but a task.
#[derive(Debug, Clone, Copy)]
pub enum Verb {
    /// Stand still.
    Pause,
    /// Go on.
    Unpause,
    /// End.
    Stop,
}

/// `pause`, `unpause`, `stop`: all are tried; the first failure gives the exit code.
pub async fn each(desk: &Desk, tasks: &[String], verb: Verb) -> Result<u8, Fault> {
    let client = desk.client().await?;
    if matches!(verb, Verb::Unpause) {
        client.environment(desk.house.surroundings().env).await?;
    }
    let request = match verb {
        Verb::Pause => CommandRequest::Pause {},
        Verb::Unpause => CommandRequest::Resume { caps: None },
        Verb::Stop => CommandRequest::Cancel {},
    };
    all(desk, &client, tasks, &request).await
}

/// `priority`.
pub async fn prioritise(desk: &Desk, task: &str, priority: String) -> Result<u8, Fault> {
    let said = desk.client().await?.command(task, &CommandRequest::Priority { priority }).await?;
    desk.out.data(&visible(&said));
    Ok(exit::DONE)
}

async fn all(desk: &Desk, client: &Client, tasks: &[String], request: &CommandRequest) -> Result<u8, Fault> {
    let mut code = exit::DONE;
    for task in tasks {
        match client.command(task, request).await {
            Ok(said) => desk.out.data(&visible(&said)),
            Err(fault) => {
                let failed = desk.fail(&fault);
                code = if code == exit::DONE { failed } else { code };
            }
        }
    }
    Ok(code)
}

/// `rm`: a person is asked first, because nothing brings a removed task back.
pub async fn remove(desk: &Desk, tasks: &[String], force: bool) -> Result<u8, Fault> {
    let client = desk.client().await?;
    if desk.out.can_ask() && !desk.is_yes && !force {
        let names = tasks.join(", ");
        let question = format!("Remove {} with worktree, branch and checkpoints?", crate::render::one_line(&names, 120));
        let out = std::sync::Arc::clone(&desk.out);
        let answer = tokio::task::spawn_blocking(move || out.confirm(&question, false)).await;
        if answer.ok().flatten() != Some(true) {
            desk.out.talk("nothing was removed");
            return Ok(exit::DONE);
        }
    }
    all(desk, &client, tasks, &CommandRequest::Remove { force }).await
}

/// `resume`: with new limits, if given.
pub async fn resume(desk: &Desk, task: &str, limits: &Limits) -> Result<u8, Fault> {
    let client = desk.client().await?;
    client.environment(desk.house.surroundings().env).await?;
    let caps = (*limits != Limits::default()).then(|| caps(limits));
    say(desk, client.command(task, &CommandRequest::Resume { caps }).await?)
}

/// `undo`.
pub async fn undo(desk: &Desk, task: &str, all: bool) -> Result<u8, Fault> {
    let client = desk.client().await?;
    let view = client.task(task).await?;
    let said = client.command(&view.id, &CommandRequest::Undo { all }).await?;
    back(desk, said, &format!("redo: tinkerbell redo {}", view.short))
}

/// `redo`.
pub async fn redo(desk: &Desk, task: &str) -> Result<u8, Fault> {
    let (view, said) = word(desk, task, CommandRequest::Redo {}).await?;
    back(desk, said, &format!("undo: tinkerbell undo {}", view.short))
}

/// `restore`.
pub async fn restore(desk: &Desk, task: &str, op: u32) -> Result<u8, Fault> {
    let (view, said) = word(desk, task, CommandRequest::Restore { op }).await?;
    back(desk, said, &format!("undo: tinkerbell undo {}", view.short))
}

/// `land`.
pub async fn land(desk: &Desk, task: &str, branch: Option<String>, message: Option<String>) -> Result<u8, Fault> {
    let (view, said) = word(desk, task, CommandRequest::Land { branch, message: message.unwrap_or_default() }).await?;
    back(desk, said, &format!("undo: tinkerbell undo {}", view.short))
}

async fn word(desk: &Desk, task: &str, request: CommandRequest) -> Result<(TaskView, String), Fault> {
    let client = desk.client().await?;
    let view = client.task(task).await?;
    let said = client.command(&view.id, &request).await?;
    Ok((view, said))
}

fn say(desk: &Desk, said: String) -> Result<u8, Fault> {
    desk.out.data(&visible(&said));
    Ok(exit::DONE)
}

fn back(desk: &Desk, said: String, way: &str) -> Result<u8, Fault> {
    let code = say(desk, said)?;
    desk.out.talk(&desk.out.on_talk(Tone::Dim, &format!("{} {way}", signs(desk.out.is_ascii()).back)));
    Ok(code)
}

/// `diff`.
pub async fn diff(desk: &Desk, task: &str, stat: bool, between: (Option<u32>, Option<u32>)) -> Result<u8, Fault> {
    let difference = desk.client().await?.diff(task, between.0, between.1).await?;
    if stat {
        diffs::stat(&difference.files).iter().for_each(|line| desk.out.data(line));
    } else {
        let has_color = desk.out.on_data(Tone::Bad, "x") != "x";
        desk.out.raw(diffs::unified(&difference.text, desk.out.is_data_terminal(), has_color).as_bytes());
    }
    Ok(exit::DONE)
}

/// `op log`.
pub async fn log(desk: &Desk, task: &str, json: bool) -> Result<u8, Fault> {
    let view = desk.client().await?.task(task).await?;
    if json {
        desk.json(&view.ops)?;
    } else {
        table::ops(&view.ops).iter().for_each(|line| desk.out.data(line));
        desk.out.talk(&format!("back to any of them: tinkerbell restore {} OP", view.short));
    }
    Ok(exit::DONE)
}
