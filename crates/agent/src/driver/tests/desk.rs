//! A scheduler of a few lines: a journal in memory, the real fold, and power that may fail.

use crate::AgentRunner;
use futures_core::future::BoxFuture;
use std::future::poll_fn;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use tinkerbell_core::clock::Stamp;
use tinkerbell_core::code::Fault;
use tinkerbell_core::coroutine::{Input, Wake};
use tinkerbell_core::effect::{Act, Answer, Attempt, Fence, Intended, Live, Past, Question, Stall};
use tinkerbell_core::event::{
    Action, ApprovalAsked, ApprovalGiven, Event, Finished, Intent, Observation, Observed, Op, Placed, Released, Reserved, Settled,
    StateSaved, Submitted,
};
use tinkerbell_core::lifecycle::{OP_SEQ, OpMove, Task};
use tinkerbell_core::port::{Effects, Runner as _, Step, Stepped};
use tinkerbell_core::words::{Lsn, TaskId};

/// How a drive ended.
#[derive(Debug)]
pub enum Ended {
    Done(Finished),
    Person(u32),
    Key(String),
    Broken(Fault),
    Other,
    Crashed,
}

/// The journal of one task, and its fold.
#[derive(Clone)]
pub struct Desk {
    inner: Arc<Mutex<Inner>>,
}

struct Inner {
    log: Vec<Placed>,
    task: Task,
}

pub const TASK: TaskId = TaskId(5);

/// One await that a crash may use.
pub async fn pause() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Desk {
    pub fn new(submitted: Submitted) -> Self {
        let task = Task::new(TASK, Lsn(1), 0, submitted.clone());
        let log = vec![Placed { lsn: Lsn(1), at_ms: 0, task: TASK, event: Event::Submitted(submitted) }];
        Self { inner: Arc::new(Mutex::new(Inner { log, task })) }
    }

    fn record(&self, events: Vec<Event>) {
        let mut inner = self.inner.lock().unwrap();
        for event in events {
            let lsn = Lsn(inner.log.len() as u64 + 1);
            let placed = Placed { lsn, at_ms: lsn.0, task: TASK, event };
            inner.task.apply(&placed);
            inner.log.push(placed);
        }
    }

    fn log(&self) -> Vec<Placed> {
        self.inner.lock().unwrap().log.clone()
    }

    pub fn count(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.log().iter().filter(|placed| which(&placed.event)).count()
    }

    pub fn answer(&self, id: u32, yes: bool, text: &str) {
        self.record(vec![Event::ApprovalGiven(ApprovalGiven { id, yes, text: text.to_owned(), ..ApprovalGiven::default() })]);
    }

    /// Texts of all results.
    pub fn results(&self) -> Vec<String> {
        let text = |placed: Placed| match placed.event {
            Event::Observed(Observed { observation: Some(Observation::Result(result)), .. }) => Some(result.text),
            _ => None,
        };
        self.log().into_iter().filter_map(text).collect()
    }

    /// Intents and observations by number, without what a repeated try may add.
    pub fn trace(&self) -> Vec<String> {
        let line = |placed: Placed| match placed.event {
            Event::Intent(intent) => Some(format!("intent {} {}", intent.seq, kind(&intent))),
            Event::Observed(observed) => Some(format!("observed {}", observed.seq)),
            Event::OpDone(op) => Some(format!("op {} {}", op.kind, op.seq)),
            _ => None,
        };
        self.log().into_iter().filter_map(line).collect()
    }

    /// Where the first intent of this kind stands.
    pub fn lsn_of(&self, wanted: &str) -> Lsn {
        let is = |placed: &&Placed| matches!(&placed.event, Event::Intent(intent) if kind(intent) == wanted);
        self.log().iter().find(is).map(|placed| placed.lsn).unwrap()
    }

    pub fn undo(&self) -> Op {
        let task = self.task();
        first(task.ops.undo(false, &task.prepared.unwrap().checkpoint))
    }

    pub fn redo(&self) -> Op {
        first(self.task().ops.redo())
    }

    pub async fn operate(&self, runner: &AgentRunner, op: Op) -> Observed {
        let task = self.task();
        let seq = task.op_seq + 1;
        let action = Action::Op(op.clone());
        let class = tinkerbell_core::effect::EffectClass::Verifiable;
        let intended = Intended { seq, class, action, hold: Default::default(), hold_tokens: 0, used: None, state: Default::default() };
        runner.operate(task, op, intended, Arc::new(self.clone())).await.unwrap()
    }

    /// Drives the task as a scheduler does; `polls` awaits later the power fails.
    pub async fn drive(&self, runner: &AgentRunner, polls: Option<u32>) -> Ended {
        let mut left = polls.unwrap_or(u32::MAX);
        let work = pin!(self.work(runner));
        let mut work = work;
        poll_fn(|cx| {
            if left == 0 {
                return Poll::Ready(Ended::Crashed);
            }
            left -= 1;
            work.as_mut().poll(cx)
        })
        .await
    }

    async fn work(&self, runner: &AgentRunner) -> Ended {
        let mut state = self.task().state;
        let mut wake = if state.is_some() { Wake::Resumed } else { Wake::Started };
        let fence = Fence { epoch: 1, generation: 1 };
        for _ in 0..500 {
            let task = self.task();
            let now = Stamp { wall_ms: 1_000_000, mono_ms: 0 };
            let input = Input { event: wake, lsn: task.last_lsn, now, entropy: 1 };
            let step = Step { task, state, input, fence };
            match runner.step(step, Arc::new(self.clone())).await {
                Ok(Stepped::Again { state: next, wake: seen }) => (state, wake) = (Some(next), seen),
                Ok(Stepped::Done { finished, .. }) => return Ended::Done(finished),
                Err(Stall::Person(id)) => return Ended::Person(id),
                Err(Stall::Key(name)) => return Ended::Key(name),
                Err(Stall::Broken(fault)) => return Ended::Broken(fault),
                Err(_) => return Ended::Other,
            }
        }
        panic!("the task does not end");
    }
}

fn first(moves: OpMove) -> Op {
    match moves {
        OpMove::Do(ops) => ops.into_iter().next().unwrap(),
        OpMove::Nothing(why) => panic!("{why}"),
    }
}

fn kind(intent: &Intent) -> &'static str {
    match intent.action {
        Some(Action::Prepare(_)) => "prepare",
        Some(Action::Ask(_)) => "ask",
        Some(Action::Call(_)) => "call",
        Some(Action::Verify(_)) => "verify",
        Some(Action::Commit(_)) => "commit",
        Some(Action::Op(_)) => "op",
        None => "none",
    }
}

impl Effects for Desk {
    fn once(&self, intended: Intended, act: Act) -> BoxFuture<'_, Result<Observed, Stall>> {
        Box::pin(async move {
            let seq = intended.seq;
            let known = self.log().into_iter().find_map(|placed| match placed.event {
                Event::Observed(observed) if observed.seq == seq => Some(observed),
                _ => None,
            });
            if let Some(observed) = known {
                return Ok(observed);
            }
            let task = self.task();
            let open = if seq > OP_SEQ { &task.open_op } else { &task.open };
            let attempt = if open.as_ref().is_some_and(|(_, intent)| intent.seq == seq) { Attempt::Recover } else { Attempt::First };
            pause().await;
            let mut events = Vec::new();
            if attempt == Attempt::First {
                events.push(Event::StateSaved(StateSaved { state: intended.state.to_vec(), seq }));
                events.push(Event::Intent(Intent {
                    seq,
                    class: intended.class.code(),
                    action: Some(intended.action.clone()),
                    yolo: false,
                }));
            } else {
                events.push(Event::Released(Released { seq, why: "again".to_owned() }));
            }
            if intended.hold.0 > 0 {
                events.push(Event::Reserved(Reserved {
                    seq,
                    nano_usd: intended.hold.0,
                    tokens: intended.hold_tokens,
                    ..Reserved::default()
                }));
            }
            if seq > OP_SEQ {
                events.retain(|event| !matches!(event, Event::StateSaved(_)));
            }
            self.record(events);
            pause().await;
            let acted = act(attempt).await?;
            pause().await;
            let observed = Observed { seq, observation: Some(acted.observation) };
            let mut events = vec![Event::Observed(observed.clone())];
            events.extend(
                acted.spent.map(|(cost, usage)| {
                    Event::Settled(Settled { seq, nano_usd: cost.0, input_tokens: usage.input, ..Settled::default() })
                }),
            );
            events.extend(acted.op.map(Event::OpDone));
            self.record(events);
            pause().await;
            Ok(observed)
        })
    }

    fn past(&self, after: Lsn) -> BoxFuture<'_, Result<Vec<Past>, Stall>> {
        Box::pin(async move {
            pause().await;
            let mut open = Vec::new();
            let mut past = Vec::new();
            for placed in self.log() {
                match placed.event {
                    Event::Intent(intent) => open.push((placed.lsn, intent)),
                    Event::Observed(observed) => {
                        let at = open.iter().position(|(_, intent)| intent.seq == observed.seq).unwrap();
                        let (intent_lsn, intent) = open.remove(at);
                        let (action, observation) = (intent.action.unwrap(), observed.observation.unwrap());
                        if placed.lsn > after {
                            past.push(Past::Effect { lsn: placed.lsn, intent_lsn, seq: observed.seq, action, observation });
                        }
                    }
                    _ => {}
                }
            }
            Ok(past)
        })
    }

    fn person(&self, question: Question) -> BoxFuture<'_, Result<Answer, Stall>> {
        Box::pin(async move {
            pause().await;
            let approvals = self.task().approvals;
            let same = |asked: &ApprovalAsked| asked.seq == question.seq && asked.digest == question.digest;
            if let Some((id, approval)) = approvals.iter().find(|(_, approval)| same(&approval.asked)) {
                let answer = approval.answer.clone().map(|(yes, text)| Answer { yes, text, ..Answer::default() });
                return answer.ok_or(Stall::Person(*id));
            }
            let id = u32::try_from(approvals.len()).unwrap() + 1;
            let Question { seq, kind, title, body, options, digest, .. } = question;
            let (kind, like) = (kind.code(), digest.clone());
            self.record(vec![Event::ApprovalAsked(ApprovalAsked {
                id,
                seq,
                kind,
                title,
                body,
                options,
                digest,
                like,
                ..Default::default()
            })]);
            Err(Stall::Person(id))
        })
    }

    fn task(&self) -> Task {
        self.inner.lock().unwrap().task.clone()
    }

    fn live(&self, _live: Live) {}
}
