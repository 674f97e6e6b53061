//! Following a task on the screen: live lines, questions, signals.
//!
//! Shared by `run` and `attach`. Invariant: leaving never ends a task, except by the first SIGINT
//! or SIGTERM of the `run` that gave it.

use super::ask::{self, Reply};
use super::watch::{Glimpse, Watch};
use super::{Desk, local};
use crate::output::Tone;
use crate::prompt::{Asker, Before};
use crate::render::question;
use crate::render::screen::Screen;
use std::sync::Arc;
use tinkerbell_api::wire::{ApprovalRequested, Caps, CommandRequest, Halt, ResultBody};
use tinkerbell_core::code::Fault;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// Exit code after SIGINT here.
pub const INTERRUPTED: u8 = 130;
/// Exit code after SIGTERM here.
pub const TERMINATED: u8 = 143;

/// How following ended.
pub enum Ending {
    /// With the task.
    Result {
        /// Its result.
        result: Box<ResultBody>,
        /// What of the result's text does not stand on the screen yet.
        unseen: String,
        /// The code of the signal here that ended it.
        signal: Option<u8>,
    },
    /// The task stands still and nobody here can help it.
    Halted(Halt),
    /// We leave, the task goes on.
    Detached,
    /// We leave at once because of a second signal.
    Left(u8),
}

/// A task on the screen.
pub struct Follow {
    desk: Desk,
    watch: Watch,
    screen: Screen,
    short: String,
    /// Whether this is the `run` that gave the task.
    is_owner: bool,
    json: bool,
    signals: Signals,
    signalled: Option<u8>,
    /// A signal that cut a question off, and the terminal before that question.
    early: Option<u8>,
    before: Option<Before>,
}

impl Follow {
    pub fn new(desk: &Desk, watch: Watch, short: String, is_owner: bool, json: bool) -> Result<Self, Fault> {
        let screen = Screen::new(Arc::clone(&desk.out), !json);
        let signals = Signals::new()?;
        Ok(Self { desk: desk.clone(), watch, screen, short, is_owner, json, signals, signalled: None, early: None, before: None })
    }

    /// Follows to an end.
    pub async fn run(mut self) -> Result<Ending, Fault> {
        loop {
            let signal = match self.early.take() {
                Some(code) => Some(code),
                // Both branches are cancel safe: the stream keeps its place, signals stay pending.
                None => tokio::select! {
                    glimpse = self.watch.next() => {
                        self.see(glimpse?);
                        None
                    },
                    code = self.signals.next() => Some(code),
                },
            };
            if let Some(code) = signal
                && let Some(ending) = self.on_signal(code).await
            {
                return Ok(ending);
            }
            if self.desk.out.is_closed() {
                return Ok(Ending::Detached);
            }
            if let Some(ending) = self.decide().await? {
                return Ok(ending);
            }
        }
    }

    fn see(&mut self, glimpse: Glimpse) {
        match glimpse {
            Glimpse::Event { raw, envelope } => {
                if self.json {
                    self.desk.out.data(&raw);
                } else if let Some(envelope) = envelope {
                    self.screen.show(&envelope);
                }
            }
            Glimpse::Revived => self.screen.say(Tone::Look, "the daemon was gone; it runs again and the task goes on"),
            Glimpse::CaughtUp => {}
        }
    }

    async fn decide(&mut self) -> Result<Option<Ending>, Fault> {
        if let Some(result) = self.watch.standing.ended() {
            let unseen = self.screen.unseen(&result.text).to_owned();
            self.desk.call(&format!("task {}: {}", self.short, result.status));
            return Ok(Some(Ending::Result { result: Box::new(result.clone()), unseen, signal: self.signalled }));
        }
        // After a signal the end is on its way; nobody is asked any more.
        let Some(halt) = self.watch.halt().await?.filter(|_| self.signalled.is_none()) else { return Ok(None) };
        match halt.why.as_str() {
            "person" if self.desk.out.can_ask() => self.ask(halt).await,
            "budget" if self.desk.out.can_ask() => self.raise(halt).await,
            // Who paused it by hand lets it go on by hand; nothing else passes while we only look.
            "user" => Ok(None),
            // It goes on by itself, and somebody is there who may leave when that takes too long.
            "provider" if halt.until.is_some() && self.desk.out.can_ask() => Ok(None),
            _ if self.is_owner || !self.desk.out.can_ask() => Ok(Some(Ending::Halted(halt))),
            _ => Ok(None),
        }
    }

    async fn ask(&mut self, halt: Halt) -> Result<Option<Ending>, Fault> {
        let Some(asked) = self.watch.standing.asked.clone() else { return Ok(None) };
        let (id, digest) = (asked.id, asked.digest.clone());
        self.desk.call(&format!("task {} waits for you: {}", self.short, asked.title));
        if self.json {
            // As an event it is hard to read.
            ask::show(&self.desk, &asked);
        }
        let later = Ok(Some(if self.is_owner { Ending::Halted(halt) } else { Ending::Detached }));
        // Nothing is approved that was not shown whole.
        let pages = question::pages(&asked);
        for (at, page) in pages.iter().enumerate().skip(1) {
            match self.prompt(ask::more, pages.len().saturating_sub(at)).await? {
                Some(Some(true)) => page.iter().for_each(|row| self.desk.out.error(&format!("    {row}"))),
                Some(Some(false)) => return later,
                Some(None) | None => return Ok(None),
            }
        }
        match self.prompt(ask::prompt, asked.clone()).await? {
            Some(Reply::Given { approve, text, scope }) => {
                if let Err(fault) = self.file(asked, &scope).await {
                    self.screen.say(Tone::Bad, &crate::render::one_line(&fault.message, 200));
                    return Ok(None);
                }
                let request = CommandRequest::Answer { id, approve, text, digest, scope };
                self.command(&request).await;
                self.watch.standing.halted = None;
                Ok(None)
            }
            Some(Reply::Later) => later,
            Some(Reply::Interrupted) | None => Ok(None),
        }
    }

    /// Files what reaches beyond the task.
    async fn file(&self, asked: ApprovalRequested, scope: &str) -> Result<(), Fault> {
        if !matches!(scope, "project" | "user") {
            return Ok(());
        }
        let open = self.watch.client.approvals().await?;
        let view = open.iter().find(|view| view.task == self.watch.task && view.question.id == asked.id);
        match view {
            Some(view) => ask::grant(&self.desk, &self.watch.client, view, scope).await,
            // Somebody else was faster; the answer says so.
            None => Ok(()),
        }
    }

    async fn raise(&mut self, halt: Halt) -> Result<Option<Ending>, Fault> {
        let text = halt.text.clone();
        let Some(choice) = self.prompt(|asker, text: &String| ask::budget(asker, text), text).await? else { return Ok(None) };
        match choice {
            Some(0) => {
                let caps = double(&self.watch.client.task(&self.watch.task).await?.caps);
                self.command(&CommandRequest::Resume { caps: Some(caps) }).await;
            }
            Some(1) => self.command(&CommandRequest::Cancel {}).await,
            _ => return Ok(Some(if self.is_owner { Ending::Halted(halt) } else { Ending::Detached })),
        }
        self.watch.standing.halted = None;
        Ok(None)
    }

    /// Asks on the terminal, with the moving row out of the way; `None` when a signal came instead of an answer.
    async fn prompt<I: Send + 'static, T: Send + 'static>(
        &mut self,
        question: impl FnOnce(Asker, &I) -> T + Send + 'static,
        about: I,
    ) -> Result<Option<T>, Fault> {
        self.screen.rest();
        let (asker, before) = (self.desk.out.asker(), Before::now(self.desk.out.asker()));
        let asked = tokio::task::spawn_blocking(move || question(asker, &about));
        // A key that interrupts is a signal where it comes before the terminal hands out single keys, and then no
        // key ends the question. Whoever waits for that key is left behind, with nobody to hear the answer.
        let answer = tokio::select! {
            biased;
            answer = asked => Some(answer.map_err(|error| local(&format!("the question could not be asked: {error}")))?),
            code = self.signals.next() => {
                self.early = Some(code);
                self.desk.out.talk("");
                None
            }
        };
        if answer.is_none() {
            self.before = before;
            self.before.iter().for_each(Before::restore);
        }
        self.screen.resume();
        Ok(answer)
    }

    /// Gives the task a word; a refusal (somebody else was faster) is shown, not fatal.
    async fn command(&mut self, request: &CommandRequest) {
        if let Err(fault) = self.watch.client.command(&self.watch.task, request).await {
            self.screen.say(Tone::Look, &crate::render::one_line(&fault.message, 200));
        }
    }

    async fn on_signal(&mut self, code: u8) -> Option<Ending> {
        if code == 0 || !self.is_owner {
            return Some(Ending::Detached);
        }
        if self.signalled.is_some() {
            return Some(Ending::Left(code));
        }
        self.signalled = Some(code);
        self.screen.say(Tone::Look, &format!("stopping task {}; once more to leave at once", self.short));
        let request = CommandRequest::Cancel {};
        // A daemon that is stuck must not hold a second signal up. Dropping the call is safe: the
        // daemon has it or has it not, and we leave either way.
        let answer = tokio::select! {
            answer = self.watch.client.command(&self.watch.task, &request) => answer,
            again = self.signals.next() => return Some(Ending::Left(if again == 0 { code } else { again })),
        };
        match answer {
            Ok(_) => None,
            Err(fault) => {
                self.screen.say(Tone::Bad, &crate::render::one_line(&fault.message, 200));
                Some(Ending::Left(code))
            }
        }
    }
}

/// Once more at the very end: a question that a signal cut off may have begun to read keys only then.
impl Drop for Follow {
    fn drop(&mut self) {
        self.before.iter().for_each(Before::restore);
    }
}

/// Twice what held so far; what was unlimited stays so.
fn double(caps: &Caps) -> Caps {
    Caps {
        cost_micros: caps.cost_micros.map(|n| n.saturating_mul(2)),
        steps: caps.steps.map(|n| n.saturating_mul(2)),
        tokens: caps.tokens.map(|n| n.saturating_mul(2)),
        wall_ms: caps.wall_ms.map(|n| n.saturating_mul(2)),
        cpu_ms: caps.cpu_ms.map(|n| n.saturating_mul(2)),
        disk_bytes: caps.disk_bytes.map(|n| n.saturating_mul(2)),
        processes: caps.processes.map(|n| n.saturating_mul(2)),
        memory_bytes: caps.memory_bytes.map(|n| n.saturating_mul(2)),
    }
}

/// The signals that a person sends.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> Result<Self, Fault> {
        let on = |kind| signal(kind).map_err(|error| local(&format!("signals can not be received: {error}")));
        Ok(Self { interrupt: on(SignalKind::interrupt())?, terminate: on(SignalKind::terminate())?, hangup: on(SignalKind::hangup())? })
    }

    /// The exit code of the next signal; 0 for a lost terminal. Cancel safe.
    async fn next(&mut self) -> u8 {
        tokio::select! {
            _ = self.interrupt.recv() => INTERRUPTED,
            _ = self.terminate.recv() => TERMINATED,
            _ = self.hangup.recv() => 0,
        }
    }
}

/// The open question, for callers that only show it.
pub fn question_id(short: &str, asked: Option<&ApprovalRequested>) -> String {
    asked.map_or_else(|| short.to_owned(), |asked| format!("{short}/{}", asked.id))
}
