//! The telling: events in, lines for a reader out, and the kill at the right moment.
//!
//! It shows only what events say. Invariant: a promise that was not kept ends the demo with an
//! error instead of a nice line.

use super::actor::Daemon;
use super::stage::Stage;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_api::Client;
use tinkerbell_api::client::{Arrival, EventStream};
use tinkerbell_api::wire::{ApprovalRequested, Body, CommandRequest, Delta, ItemCompleted, ItemKind, ItemStarted, ItemUpdated, ResultBody};
use tinkerbell_cli::{Output, visible};
use tinkerbell_core::code::{Fault, exit};

/// The command that the daemon is killed in.
const LONG: &str = "all-numbers";
/// How long nobody watches over that command.
const ALONE: Duration = Duration::from_millis(1_500);

/// What must be known at the end.
pub struct Ending {
    task: String,
    live: bool,
    /// Exit code of the task.
    pub exit: u8,
    /// Whether the daemon was killed.
    pub killed: bool,
    /// Outcomes of the long command that arrived.
    pub long_runs: u32,
    long_item: Option<u32>,
}

impl Ending {
    /// Nothing happened yet.
    #[must_use]
    pub fn new(task: &str, live: bool) -> Self {
        Self { task: task.to_owned(), live, exit: exit::FAILED, killed: false, long_runs: 0, long_item: None }
    }

    /// The task's branch.
    ///
    /// # Errors
    /// When the daemon does not answer.
    pub async fn branch(&self, client: &Client) -> Result<String, Fault> {
        Ok(client.task(&self.task).await?.branch.unwrap_or_default())
    }
}

/// The teller.
pub struct Story {
    out: Arc<Output>,
    pace: Duration,
}

impl Story {
    /// A teller that leaves time to read, or not.
    #[must_use]
    pub const fn new(out: Arc<Output>, fast: bool) -> Self {
        let pace = if fast { Duration::ZERO } else { Duration::from_millis(1_200) };
        Self { out, pace }
    }

    /// A heading.
    pub fn head(&self, text: &str) {
        self.out.data(&format!("\n── {text}"));
    }

    /// A line below it.
    pub fn line(&self, text: &str) {
        self.out.data(&format!("   {}", visible(text)));
    }

    /// Several lines.
    pub fn show(&self, text: &str) {
        text.lines().for_each(|line| self.line(line));
    }

    /// A diff, without what only git reads.
    pub fn diff(&self, text: &str) {
        let kept = text.lines().filter(|line| !line.starts_with("index ") && !line.starts_with("new file mode"));
        kept.take(60).for_each(|line| self.line(line));
    }

    /// Time to read.
    pub async fn pause(&self) {
        tokio::time::sleep(self.pace).await;
    }

    /// A promise, kept or not.
    ///
    /// # Errors
    /// `TB-DEMO-003` when it was not kept.
    pub fn check(&self, promise: &str, kept: bool) -> Result<(), Fault> {
        let sign = if kept { "✓" } else { "✗" };
        self.line(&format!("{sign} {promise}"));
        if kept {
            return Ok(());
        }
        Err(Fault::new("TB-DEMO-003", exit::FAILED, format!("a promise was not kept: {promise}"))
            .hint("please report this with the output above"))
    }

    /// Follows the task to its end; kills the daemon once on the way.
    pub async fn follow(&self, mut daemon: Daemon, stage: &Stage, ending: &mut Ending) -> Result<Daemon, Fault> {
        let mut after = 0;
        loop {
            let client = daemon.client().await?;
            let mut events = client.events(Some(&ending.task), after, true).await?;
            match self.watch(&client, &mut events, ending).await? {
                Scene::Ended => return Ok(daemon),
                Scene::Long => {
                    after = events.last();
                    daemon = self.kill(daemon, stage, ending).await?;
                }
            }
        }
    }

    async fn watch(&self, client: &Client, events: &mut EventStream, ending: &mut Ending) -> Result<Scene, Fault> {
        loop {
            let waits = ending.long_item.is_some() && !ending.killed;
            let arrival = tokio::select! {
                arrival = events.next() => arrival?,
                // Where the command's output is not shown live, its running time is the sign.
                () = tokio::time::sleep(Duration::from_secs(3)), if waits => return Ok(Scene::Long),
            };
            let Arrival::Event { envelope: Some(envelope), .. } = arrival else { continue };
            match envelope.body {
                Body::ItemStarted(item) => self.started(&item, ending),
                Body::ItemUpdated(update) if self.is_moment(&update, ending) => return Ok(Scene::Long),
                Body::ItemCompleted(item) => self.completed(&item, ending).await,
                Body::PlanUpdated(plan) => plan.steps.iter().for_each(|step| {
                    let sign = match step.status.as_str() {
                        "done" => "✓",
                        "active" => "▸",
                        _ => "·",
                    };
                    self.line(&format!("  {sign} {}", step.text));
                }),
                Body::ApprovalRequested(asked) => self.approve(client, &asked, ending).await?,
                Body::BudgetPaused(halt) | Body::TaskPaused(halt) if halt.why != "person" => {
                    return Err(Fault::new("TB-DEMO-003", exit::FAILED, format!("the task stands still: {}", halt.text)));
                }
                Body::Result(result) => {
                    self.result(&result, ending);
                    return Ok(Scene::Ended);
                }
                _ => {}
            }
        }
    }

    fn started(&self, item: &ItemStarted, ending: &mut Ending) {
        let Some(command) = &item.command else { return };
        let is_long = command.contains(LONG) || (ending.live && item.kind == ItemKind::Command);
        if is_long && !ending.killed && item.kind == ItemKind::Command {
            ending.long_item = Some(item.item);
        }
        self.line(&format!("$ {command}"));
    }

    fn is_moment(&self, update: &ItemUpdated, ending: &Ending) -> bool {
        let is_long = ending.long_item == Some(update.item) && update.delta == Delta::Output;
        if is_long && !ending.killed {
            update.text.lines().for_each(|line| self.line(&format!("| {line}")));
        }
        is_long && !ending.killed && (ending.live || update.text.contains("part 2"))
    }

    async fn completed(&self, item: &ItemCompleted, ending: &mut Ending) {
        if item.item.is_some() && item.item == ending.long_item {
            ending.long_runs += 1;
        }
        match item.kind {
            ItemKind::Message if !item.text.is_empty() => {
                self.line(&format!("“{}”", item.text.trim()));
                self.pause().await;
            }
            ItemKind::Command | ItemKind::Verification => {
                let output: Vec<&str> = item.text.lines().filter(|line| !line.trim().is_empty()).collect();
                let shown = output.len().saturating_sub(5);
                output.iter().skip(shown).for_each(|line| self.line(&format!("| {line}")));
                let level = item.level.as_ref().map(|level| format!(" (sandbox: {level})")).unwrap_or_default();
                self.line(&format!("→ {}{level}", item.summary));
            }
            ItemKind::FileChange => self.line(&format!("→ {}", item.summary)),
            _ => {}
        }
    }

    async fn kill(&self, daemon: Daemon, stage: &Stage, ending: &mut Ending) -> Result<Daemon, Fault> {
        ending.killed = true;
        let pid = daemon.pid();
        daemon.kill().await?;
        self.head(&format!("kill -9 {pid}: the daemon is gone, in the middle of that command"));
        self.line("nobody watches; the command's keeper writes its output down");
        tokio::time::sleep(ALONE).await;
        let daemon = Daemon::start(stage).await?;
        self.line(&format!("a new daemon, pid {}: it reads the journal, finds the keeper, and goes on unasked", daemon.pid()));
        Ok(daemon)
    }

    async fn approve(&self, client: &Client, asked: &ApprovalRequested, ending: &Ending) -> Result<(), Fault> {
        self.head(&format!("It asks you: {}", asked.title));
        self.show(&asked.body);
        let approve = self.ask().await?;
        self.line(if approve { "approved" } else { "denied" });
        let answer =
            CommandRequest::Answer { id: asked.id, approve, text: String::new(), digest: asked.digest.clone(), scope: String::new() };
        client.command(&ending.task, &answer).await.map(drop)
    }

    /// Asks a person where there is one; else the demo answers for them, and says so.
    async fn ask(&self) -> Result<bool, Fault> {
        if self.pace.is_zero() || !self.out.can_ask() {
            self.line("(nobody can be asked here: the demo says yes for you)");
            return Ok(true);
        }
        let out = self.out.clone();
        let asked = tokio::task::spawn_blocking(move || out.confirm("approve this change?", true)).await;
        // Without an answer nothing is approved.
        Ok(asked.ok().flatten().unwrap_or(false))
    }

    fn result(&self, result: &ResultBody, ending: &mut Ending) {
        ending.exit = result.exit_code;
        self.head(&format!("The task is done: {}", result.status));
        self.line(result.text.trim());
        for file in &result.files_changed {
            self.line(&format!("{:<8} {}  +{} −{}", file.kind, file.path, file.plus, file.minus));
        }
    }
}

enum Scene {
    Ended,
    Long,
}
