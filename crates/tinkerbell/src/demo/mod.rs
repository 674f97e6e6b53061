//! `tinkerbell demo`: one task from start to undo, with its daemon killed in the middle.
//!
//! The model's turns are recorded; everything else is real: sandbox, git, journal, keepers, the
//! kill. Invariant: it touches nothing outside its own temporary directory, and removes that.

mod actor;
mod stage;
mod story;

use crate::environment::Environment;
use actor::Daemon;
use stage::Stage;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use story::{Ending, Story};
use tinkerbell_api::wire::{Caps, CommandRequest, SubmitRequest};
use tinkerbell_cli::Output;
use tinkerbell_core::clock::Entropy as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::money::NanoUsd;

/// What the sample's task is.
const GOAL: &str = "4 comes out as IIII: make the checks pass, try every number, and let the build server do so too";
/// The whole demo ends within this time.
const DEADLINE: Duration = Duration::from_secs(180);
/// A live model is given more.
const LIVE_DEADLINE: Duration = Duration::from_secs(1_800);

/// How the demo is to be given.
pub struct Show<'a> {
    /// Our own binary.
    pub exe: &'a Path,
    /// The environment, for PATH and, with a live model, its key.
    pub env: &'a Environment,
    /// The user's configuration, for a live model.
    pub config: &'a Path,
    /// Without pauses for the reader.
    pub fast: bool,
    /// A live model instead of the recording.
    pub model: Option<String>,
    /// Where to tell it.
    pub out: Arc<Output>,
}

/// Gives the demo; returns the exit code.
///
/// # Errors
/// When git is missing, no sandbox level is complete, or a promise was not kept.
pub async fn run(show: Show<'_>) -> Result<u8, Fault> {
    let stage = Stage::set(&show, crate::clock::SystemEntropy.id())?;
    let deadline = if show.model.is_some() { LIVE_DEADLINE } else { DEADLINE };
    let result = tokio::select! {
        result = tokio::time::timeout(deadline, play(&show, &stage)) => result.unwrap_or_else(|_| Err(late(deadline))),
        // The stage is cleared below, whichever way the play ends.
        _ = tokio::signal::ctrl_c() => Ok(130),
    };
    stage.clear().await;
    result
}

fn late(deadline: Duration) -> Fault {
    Fault::new("TB-DEMO-002", exit::DEADLINE, format!("the demo did not end within {} s", deadline.as_secs()))
        .hint("this machine may be very busy: try again")
}

async fn play(show: &Show<'_>, stage: &Stage) -> Result<u8, Fault> {
    let story = Story::new(show.out.clone(), show.fast);
    story.head("A sample repository, a failing check, and a task");
    story.line(&format!("sample   {}", stage.sample.display()));
    story.line(&format!("task     {GOAL}"));
    story.line(&format!("model    {}", show.model.as_deref().unwrap_or("recorded turns (no key, no network); all else is real")));
    let daemon = Daemon::start(stage).await?;
    story.line(&format!("daemon   pid {}, its own, with its own journal", daemon.pid()));
    story.pause().await;

    let client = daemon.client().await?;
    let request = SubmitRequest {
        goal: GOAL.to_owned(),
        cwd: stage.sample.display().to_string(),
        model: show.model.clone(),
        caps: Caps::default(),
        env: show.env.for_request(&tinkerbell_router::variables(&tinkerbell_router::Options::default())).into_iter().collect(),
        ..SubmitRequest::default()
    };
    let task = client.submit(&request, None).await?;
    story.head(&format!("Task {} is durable, and begins", task.short));
    let mut ending = Ending::new(&task.task, show.model.is_some());
    let daemon = story.follow(daemon, stage, &mut ending).await?;
    let client = daemon.client().await?;

    story.head("What it did, and why");
    story.show(&stage.log(&ending.branch(&client).await?)?);
    story.diff(&client.diff(&task.task, None, None).await?.text);
    story.line(&cost(&client.task(&task.task).await?, show.model.is_none()));
    story.check("your own files were not touched", stage.is_untouched()?)?;
    story.pause().await;

    story.head("Undo: back to the first byte, shell effects included");
    let tree = client.task(&task.task).await?.workspace.unwrap_or_default();
    let (base, changed) = (stage.base_tree()?, stage.tree_of(Path::new(&tree))?);
    story.line(&format!("before the task   tree {base}"));
    story.line(&format!("after the task    tree {changed}"));
    client.command(&task.task, &CommandRequest::Undo { all: true }).await?;
    let undone = stage.tree_of(Path::new(&tree))?;
    story.line(&format!("after undo --all  tree {undone}"));
    story.check("the tree is what it was", undone == base && changed != base)?;
    story.check("the recorded outcome arrived exactly once", ending.long_runs == 1 || show.model.is_some())?;
    story.check("the daemon was killed and the task went on", ending.killed)?;
    daemon.stop().await?;
    story.head("Now with your own");
    story.line("tinkerbell doctor                       what this machine offers");
    story.line("tinkerbell run \"what you want done\"     in a git repository, with a model of yours");
    Ok(ending.exit)
}

fn cost(task: &tinkerbell_api::wire::TaskView, recorded: bool) -> String {
    let spent = NanoUsd(task.cost_micros.unwrap_or(0).saturating_mul(1_000));
    let usage = task.usage;
    if !recorded {
        return format!("cost     {spent} for {} tokens in, {} out", usage.input_tokens, usage.output_tokens);
    }
    let tokens = tinkerbell_core::money::Usage {
        input: usage.input_tokens,
        cached: usage.cached_tokens,
        cache_write: 0,
        output: usage.output_tokens,
    };
    let would = tinkerbell_router::Router::list_price(&task.served).map(|price| price.cost(tokens));
    match would {
        Some(would) => format!("cost     {spent}; would have been {would} with {}", task.served),
        None => format!("cost     {spent} for {} tokens in, {} out", usage.input_tokens, usage.output_tokens),
    }
}
