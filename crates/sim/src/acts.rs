//! Acts of the workload: what the effects of each class do to the world.
//!
//! Between any two touches of the world the daemon may die. Commands go through the real tools of the
//! executor. Invariant: an act counts in the world at the moment when it happens, not when it is told.

use crate::life::Life;
use crate::peer::{Served, checkpoint};
use crate::runner::{HOLD, operated};
use crate::stats::Count;
use crate::time::SimClock;
use crate::world::World;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::Clock as _;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Acted, Attempt, Fence, Question, QuestionKind, Stall};
use tinkerbell_core::event::{FileChange, Observation, Op, OpDone, Prepared, Reply, ResultSeen};
use tinkerbell_core::money::{NanoUsd, Usage};
use tinkerbell_core::port::{Effects, Limits, Sandbox, Tool};
use tinkerbell_core::tool::{Sink, ToolContext, ToolStatus};
use tinkerbell_core::words::{GitId, Seq, TaskId, Workspace};

/// Tries within one act before the task rests.
const TRIES: u64 = 3;
/// Longest time that an answer of a peer is waited for.
const SILENCE_MS: u64 = 60_000;
/// Size of a large result; above what a record holds inline.
const BIG_BYTES: usize = 17 * 1024;

/// The hands of one daemon.
pub struct Acts {
    /// The world.
    pub world: Arc<World>,
    /// The daemon.
    pub life: Arc<Life>,
    /// Its clock.
    pub clock: Arc<SimClock>,
    /// Where commands run.
    pub sandbox: Arc<dyn Sandbox>,
    /// The real tools over that sandbox.
    pub tools: Vec<Arc<dyn Tool>>,
}

fn result(status: &str, text: String) -> Acted {
    Observation::Result(ResultSeen { status: status.into(), text, ..ResultSeen::default() }).into()
}

fn silent(who: &str) -> Stall {
    Stall::Broken(Fault::new("TB-ROUTER-001", exit::UNAVAILABLE, format!("{who} does not answer")).transient())
}

fn busy(ms: u64) -> Stall {
    Stall::Broken(Fault::new("TB-ROUTER-006", exit::UNAVAILABLE, "the provider is busy").after_ms(ms))
}

fn unknown(seq: Seq) -> Question {
    Question {
        seq,
        kind: QuestionKind::Unknown,
        title: "the outcome is unknown; again?".into(),
        body: "again?".into(),
        digest: format!("u{seq}"),
        ..Question::default()
    }
}

impl Acts {
    /// The moment in which an act begins: the oracle hears of it.
    pub async fn begin(&self, id: TaskId, seq: Seq) {
        self.life.pass().await;
        self.world.oracle.note(self.world.time.now_ms(), || format!("effect {seq} of {} is acted", id.short(6)));
        self.world.oracle.act_begins(id, seq);
    }

    async fn wait(&self, name: (u64, Seq), most_ms: u64, what: u64) {
        let about = [name.0, u64::from(name.1), what];
        let ms = self.world.dice.between(0, most_ms, crate::dice::Topic::Act, &about);
        if ms > 0 {
            self.clock.sleep(Duration::from_millis(ms)).await;
        }
        self.life.pass().await;
    }

    /// Makes the workspace.
    pub async fn prepare(&self, id: TaskId) -> Acted {
        self.life.pass().await;
        self.world.peer.set_tree(id, checkpoint(0));
        Observation::Prepared(Prepared { checkpoint: checkpoint(0), base: checkpoint(0), ..Prepared::default() }).into()
    }

    /// Looks at something.
    pub async fn pure(&self, name: (u64, Seq), big: bool) -> Acted {
        self.wait(name, 400, 0).await;
        self.world.count(Count::Pure);
        result("done", if big { "x".repeat(BIG_BYTES) } else { "seen".to_owned() })
    }

    /// Sends a message under its key until an answer comes.
    pub async fn send(&self, id: TaskId, name: (u64, Seq)) -> Result<Acted, Stall> {
        self.world.count(Count::Idempotent);
        for at in 0..TRIES {
            self.wait(name, 2_000, at).await;
            let answer = self.world.peer.send(id, name, self.world.time.now_ms());
            self.wait(name, 2_000, TRIES + at).await;
            if let Some(answer) = answer {
                return Ok(result("done", answer.to_string()));
            }
            self.clock.sleep(Duration::from_millis(SILENCE_MS)).await;
        }
        Err(silent("the peer"))
    }

    /// Changes something, after a look where it may have been changed before.
    pub async fn look(&self, id: TaskId, name: (u64, Seq), attempt: Attempt) -> Acted {
        self.world.count(Count::Verifiable);
        self.wait(name, 300, 0).await;
        let before = self.world.peer.tree(id);
        let after = checkpoint(name.1.into());
        if attempt == Attempt::First || self.world.peer.done(id, name.1) == 0 {
            self.world.peer.deed(id, name.1);
            self.world.peer.set_tree(id, after.clone());
        }
        self.wait(name, 300, 1).await;
        let op = OpDone { kind: "tool".into(), seq: name.1, before, after, files: vec![FileChange::default()], ..OpDone::default() };
        Acted { op: Some(op), ..result("done", "changed".to_owned()) }
    }

    /// Does what must not be done twice, and asks where it may have been done before.
    pub async fn unsafe_deed(&self, id: TaskId, name: (u64, Seq), attempt: Attempt, effects: Arc<dyn Effects>) -> Result<Acted, Stall> {
        if attempt == Attempt::Recover {
            self.world.count(Count::UnsafeAsked);
            if !effects.person(unknown(name.1)).await?.yes {
                return Ok(result("done", "left as it is".to_owned()));
            }
        }
        self.world.count(Count::Unsafe);
        self.wait(name, 300, 0).await;
        self.world.peer.deed(id, name.1);
        self.wait(name, 300, 1).await;
        Ok(result("done", "done".to_owned()))
    }

    /// Asks the model; waits out short refusals itself.
    pub async fn ask(&self, id: TaskId, name: (u64, Seq)) -> Result<Acted, Stall> {
        for at in 0..TRIES {
            self.wait(name, 20_000, at).await;
            let served = self.world.peer.ask(id, name, HOLD, self.world.time.now_ms());
            self.wait(name, 20_000, TRIES + at).await;
            match served {
                Served::Answer(cost) => {
                    let reply = Reply { nano_usd: Some(cost), stop: "end".into(), ..Reply::default() };
                    return Ok(Acted {
                        observation: Observation::Reply(reply),
                        spent: Some((NanoUsd(cost), Usage::default())),
                        op: None,
                        used: None,
                    });
                }
                Served::Throttled(ms) if ms <= SILENCE_MS => self.clock.sleep(Duration::from_millis(ms)).await,
                Served::Throttled(ms) => return Err(busy(ms)),
                Served::Silence => self.clock.sleep(Duration::from_millis(SILENCE_MS)).await,
            }
        }
        Err(silent("the provider"))
    }

    /// Calls a real tool of the executor.
    pub async fn tool(
        &self,
        (id, seq): (TaskId, Seq),
        (tool, args): (&str, String),
        fence: Fence,
        (attempt, effects): (Attempt, Arc<dyn Effects>),
    ) -> Result<Acted, Stall> {
        let found = self.tools.iter().find(|known| known.spec().name == tool);
        let missing = || Stall::Broken(Fault::new("TB-BUG-001", exit::INTERNAL, format!("no tool {tool}")));
        let tool = found.ok_or_else(missing)?;
        if attempt == Attempt::Recover {
            self.world.count(Count::ExecAdopted);
        }
        let outcome = tool.call(self.context(id, seq, fence, attempt)?, args).await?;
        self.life.pass().await;
        let (status, number) = match outcome.status {
            ToolStatus::Done => ("done", 0),
            ToolStatus::Failed => ("failed", 0),
            ToolStatus::Exited(code) => ("exited", code),
            ToolStatus::Signalled(signal) => ("signalled", signal),
            ToolStatus::Running => ("running", 0),
            ToolStatus::Lost => {
                self.world.count(Count::ExecLost);
                // A person is asked, as the agent does it; whether it runs again is a new call's business.
                effects.person(unknown(seq)).await?;
                ("lost", 0)
            }
        };
        let seen = ResultSeen { text: outcome.text, status: status.into(), number, ..ResultSeen::default() };
        Ok(Observation::Result(seen).into())
    }

    fn context(&self, task: TaskId, seq: Seq, fence: Fence, attempt: Attempt) -> Result<ToolContext, Stall> {
        let base: GitId = checkpoint(0).parse().map_err(|_| silent("git"))?;
        let path = PathBuf::from("/simulated");
        let workspace = Workspace {
            task,
            repo: path.clone(),
            tree: path.clone(),
            git_dir: path.clone(),
            common_dir: path,
            branch: String::new(),
            base,
        };
        Ok(ToolContext {
            task,
            seq,
            workspace,
            fence,
            attempt,
            max_output_tokens: 2_000,
            env: Vec::new(),
            live: Sink::default(),
            limits: Limits::default(),
            approved: None,
        })
    }

    /// One operation of the user.
    pub async fn operate(self: Arc<Self>, id: TaskId, seq: Seq, op: Op, attempt: Attempt) -> Result<Acted, Stall> {
        self.begin(id, seq).await;
        self.world.count(Count::Operation);
        let before = self.world.peer.tree(id);
        match op.kind.as_str() {
            "remove" => self.sandbox.remove(id).await.map_err(Stall::Broken)?,
            "land" | "unland" => {
                if attempt == Attempt::First || self.world.peer.done(id, seq) == 0 {
                    self.world.peer.deed(id, seq);
                }
            }
            _ => self.world.peer.set_tree(id, op.target.clone()),
        }
        self.life.pass().await;
        Ok(operated(&op, seq, before))
    }
}
