//! Fakes of all ports around one file: its content is the tree.

use super::desk::{TASK, pause};
use crate::{AgentRunner, Deps, Options};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use futures_core::stream::BoxStream;
use futures_util::StreamExt as _;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::{Attempt, EffectClass, Fallback, Stall};
use tinkerbell_core::event::{FileChange, Made, OpDone, Part, PartKind, Submitted};
use tinkerbell_core::model::{Completion, EditStyle, Message, ModelCall, ModelCard, ModelError, ModelEvent, StopReason, ToolMode};
use tinkerbell_core::money::{Price, Usage};
use tinkerbell_core::port::*;
use tinkerbell_core::tool::{ToolContext, ToolOutcome, ToolPlan, ToolSpec, ToolStatus, Wrote};
use tinkerbell_core::words::{GitId, RunId, TaskId, Workspace};
use tinkerbell_secret::Known;
use tinkerbell_testkit::fake::FakeClock;
use tinkerbell_testkit::memory::MemDisk;

/// What survives crashes.
struct State {
    content: String,
    trees: BTreeMap<String, String>,
    tip: GitId,
    commits: Vec<String>,
    runs: HashMap<RunId, String>,
    order: Vec<String>,
    requests: Vec<ModelCall>,
    conflict: bool,
}

#[derive(Clone)]
pub struct World {
    state: Arc<Mutex<State>>,
    script: Arc<Vec<String>>,
    skipped: Arc<AtomicUsize>,
    verify: Option<String>,
    shuffled: bool,
    window: Option<u64>,
    path: &'static str,
    /// The values that are known.
    pub known: Arc<Known>,
    dir: Arc<tempfile::TempDir>,
}

/// A git id made of a text.
fn id(text: &str) -> GitId {
    format!("{:016x}{:024x}", crate::fingerprint::fnv(&[text]), 7).parse().unwrap()
}

impl World {
    pub fn new(script: &[&str]) -> Self {
        let state = State {
            content: "broken".to_owned(),
            trees: BTreeMap::new(),
            tip: id("base"),
            commits: Vec::new(),
            runs: HashMap::new(),
            order: Vec::new(),
            requests: Vec::new(),
            conflict: false,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            script: Arc::new(script.iter().map(|line| (*line).to_owned()).collect()),
            skipped: Arc::default(),
            verify: None,
            shuffled: false,
            window: None,
            path: "a.rs",
            known: Arc::default(),
            dir: Arc::new(tempfile::tempdir().unwrap()),
        }
    }

    pub fn verify(mut self, command: &str) -> Self {
        self.verify = Some(command.to_owned());
        self
    }

    pub fn shuffled(mut self) -> Self {
        self.shuffled = true;
        self
    }

    /// The provider takes only so many tokens, which its card does not say.
    pub fn window(mut self, tokens: u64) -> Self {
        self.window = Some(tokens);
        self
    }

    /// Edits change this file.
    pub fn changing(mut self, path: &'static str) -> Self {
        self.path = path;
        self
    }

    pub fn conflict(&self) {
        self.lock().conflict = true;
    }

    pub fn skip(&self) {
        self.skipped.fetch_add(1, Ordering::SeqCst);
    }

    pub fn submitted(&self) -> Submitted {
        Submitted { goal: "repair it".to_owned(), model: "p/m".to_owned(), verify: self.verify.clone(), ..Submitted::default() }
    }

    pub fn runner(&self) -> AgentRunner {
        let mut tools: Vec<Arc<dyn Tool>> = vec![Arc::new(Exec(self.clone())), Arc::new(Edit(self.clone()))];
        if self.shuffled {
            tools.reverse();
        }
        AgentRunner::new(Deps {
            model: Arc::new(self.clone()),
            tools,
            canvas: Arc::new(self.clone()),
            landing: Arc::new(self.clone()),
            sandbox: Arc::new(self.clone()),
            guard: Arc::new(self.clone()),
            blobs: Arc::new(MemDisk::default()),
            clock: Arc::new(FakeClock::eager()),
            env: Arc::new(|_| Vec::new()),
            options: Arc::new(Options::default),
            known: self.known.clone(),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub fn content(&self) -> String {
        self.lock().content.clone()
    }

    pub fn tip(&self) -> GitId {
        self.lock().tip.clone()
    }

    pub fn commits(&self) -> Vec<String> {
        self.lock().commits.clone()
    }

    pub fn requests(&self) -> Vec<ModelCall> {
        self.lock().requests.clone()
    }

    /// Commands in the order in which they were really started.
    pub fn executions(&self) -> Vec<String> {
        self.lock().order.clone()
    }

    /// Starts a command as a keeper does: at most once per run.
    fn execute(&self, run: RunId, command: &str) {
        let mut state = self.lock();
        if state.runs.insert(run, command.to_owned()).is_none() {
            state.order.push(command.to_owned());
            if command.contains("touch") {
                state.content.push_str(" touched");
            }
        }
    }
}

impl Model for World {
    fn card(&self, _model: &str) -> Result<ModelCard, Fault> {
        Ok(ModelCard {
            name: "p/m".to_owned(),
            provider: "p".to_owned(),
            wire: "openai".to_owned(),
            host: String::new(),
            context_tokens: 32_000,
            max_output_tokens: 4_000,
            tools: ToolMode::Native,
            price: Some(Price { input_pico: 1_000_000, output_pico: 2_000_000, ..Price::default() }),
            edits: EditStyle::Replace,
        })
    }

    fn complete(&self, call: ModelCall) -> BoxStream<'static, Result<ModelEvent, ModelError>> {
        let answers = call.messages.iter().filter(|message| matches!(message, Message::Assistant { .. })).count();
        let line = self.script.get(answers + self.skipped.load(Ordering::SeqCst)).cloned().unwrap_or_else(|| "say end".to_owned());
        let too_long = self.window.is_some_and(|window| crate::context::tokens(&call) > window);
        {
            // Asked again after a crash, the request must be the same, so only new ones are kept.
            let mut state = self.lock();
            if state.requests.last() != Some(&call) {
                state.requests.push(call);
            }
        }
        let event = match line.as_str() {
            _ if too_long => Err(ModelError::TooLong { limit: None }),
            "down" => Err(ModelError::Fault(Fault::new("TB-ROUTER-001", exit::UNAVAILABLE, "down").transient())),
            "nokey" => Err(ModelError::NeedsKey("P_KEY".to_owned())),
            line => Ok(ModelEvent::Done(Box::new(completion(line)))),
        };
        futures_util::stream::once(async move {
            pause().await;
            event
        })
        .boxed()
    }
}

/// `say WORDS`, or `TOOL ARGUMENTS`.
fn completion(line: &str) -> Completion {
    let (verb, rest) = line.split_once(' ').unwrap();
    let says = verb == "say";
    let kind = if says { PartKind::Text } else { PartKind::Call };
    let tool = if says { String::new() } else { verb.to_owned() };
    Completion {
        parts: vec![Part { kind: kind as i32, text: rest.to_owned(), call_id: String::new(), tool }],
        made: Made { served: "m-served".to_owned(), ..Made::default() },
        usage: Usage { input: 100, output: 10, ..Usage::default() },
        estimated: false,
        stop: if says { StopReason::End } else { StopReason::Calls },
        retries: 0,
        lost: Usage::default(),
    }
}

struct Exec(World);

impl Tool for Exec {
    fn spec(&self) -> ToolSpec {
        ToolSpec { name: "exec", description: "runs", schema: "{}" }
    }

    fn plan(&self, args: &str) -> ToolPlan {
        let value: serde_json::Value = serde_json::from_str(args).unwrap_or_default();
        let command = value.get("cmd").and_then(|cmd| cmd.as_str()).map(str::to_owned);
        ToolPlan { class: EffectClass::Adoptable(Fallback::Unsafe), writes: Vec::new(), deletes: 0, command, mcp: None }
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let (world, command) = (self.0.clone(), self.plan(&args).command.unwrap_or_default());
        Box::pin(async move {
            pause().await;
            let lost = command == "lose";
            world.execute(RunId { task: ctx.task, seq: ctx.seq }, &command);
            pause().await;
            let status = if lost { ToolStatus::Lost } else { ToolStatus::Exited(0) };
            let text = match command.as_str() {
                "leak" => "s3cretvalue".to_owned(),
                "long" => "words ".repeat(2_000),
                _ => "exit 0".to_owned(),
            };
            let level = command.strip_prefix("at ").map(str::to_owned);
            Ok(ToolOutcome { status, level, ..ToolOutcome::done("exec did", text) })
        })
    }
}

struct Edit(World);

impl Tool for Edit {
    fn spec(&self) -> ToolSpec {
        ToolSpec { name: "edit", description: "edits", schema: "{}" }
    }

    fn plan(&self, args: &str) -> ToolPlan {
        let path = if args.contains("AGENTS.md") { "AGENTS.md" } else { "a.rs" };
        ToolPlan { class: EffectClass::Verifiable, writes: vec![path.to_owned()], deletes: 0, command: None, mcp: None }
    }

    fn call(&self, ctx: ToolContext, args: String) -> BoxFuture<'static, Result<ToolOutcome, Stall>> {
        let world = self.0.clone();
        Box::pin(async move {
            let value: serde_json::Value = serde_json::from_str(&args).unwrap();
            pause().await;
            assert!(ctx.attempt == Attempt::Recover || world.content() != "fixed", "an edit is made once");
            world.lock().content = value["to"].as_str().unwrap().to_owned();
            pause().await;
            let wrote = vec![Wrote { path: value["path"].as_str().unwrap_or("a.rs").to_owned(), before: None, content: None }];
            Ok(ToolOutcome { wrote, ..ToolOutcome::done("edit did", "ok") })
        })
    }
}

impl Canvas for World {
    fn open(&self, spec: OpenSpec) -> BoxFuture<'_, Result<Opened, Fault>> {
        Box::pin(async move {
            let path = self.dir.path().to_owned();
            let workspace = Workspace {
                task: spec.task,
                repo: path.clone(),
                tree: path,
                git_dir: "/g".into(),
                common_dir: "/c".into(),
                branch: "refs/heads/tinkerbell/5".to_owned(),
                base: id("base"),
            };
            let checkpoint = self.checkpoint(workspace.clone(), None).await?.id;
            Ok(Opened { workspace, subdir: String::new(), checkpoint, notes: Vec::new() })
        })
    }

    fn checkpoint(&self, _workspace: Workspace, kept: Option<Kept>) -> BoxFuture<'_, Result<Checkpoint, Fault>> {
        Box::pin(async move {
            pause().await;
            let mut state = self.lock();
            let name = "AGENTS.md".to_owned();
            let is_put_back = kept.is_some_and(|kept| kept.wrote.iter().all(|wrote| wrote.path != name));
            let restored = if is_put_back { vec![name] } else { Vec::new() };
            let (id, content) = (id(&state.content), state.content.clone());
            state.trees.insert(id.to_string(), content);
            Ok(Checkpoint { id, restored, layers: Vec::new() })
        })
    }

    fn restore(&self, _workspace: Workspace, to: GitId) -> BoxFuture<'_, Result<GitId, Fault>> {
        Box::pin(async move {
            pause().await;
            let mut state = self.lock();
            let before = id(&state.content);
            state.content = state.trees[to.as_str()].clone();
            Ok(before)
        })
    }

    fn commit(&self, _workspace: Workspace, commit: MicroCommit) -> BoxFuture<'_, Result<GitId, Fault>> {
        Box::pin(async move {
            pause().await;
            let made = id(&format!("{} {} {} {}", commit.tree, commit.parent, commit.message, commit.time_s));
            let mut state = self.lock();
            if state.tip == made {
                return Ok(made);
            }
            if state.tip != commit.parent {
                return Err(Fault::new("TB-CANVAS-009", exit::CONFLICT, "the branch moved"));
            }
            state.tip = made.clone();
            state.commits.push(commit.message);
            Ok(made)
        })
    }

    fn diff(&self, _workspace: Workspace, from: GitId, to: GitId, _text: bool) -> BoxFuture<'_, Result<Difference, Fault>> {
        Box::pin(async move {
            pause().await;
            let change = FileChange { path: self.path.to_owned(), kind: "changed".to_owned(), plus: 1, minus: 1 };
            Ok(Difference { files: if from == to { Vec::new() } else { vec![change] }, text: String::new() })
        })
    }

    fn tip(&self, _workspace: Workspace) -> BoxFuture<'_, Result<GitId, Fault>> {
        Box::pin(async move { Ok(self.lock().tip.clone()) })
    }

    fn remove(&self, _workspace: Workspace) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(()) })
    }
}

impl Landing for World {
    fn land(&self, spec: LandSpec) -> BoxFuture<'_, Result<Landed, Fault>> {
        Box::pin(async move {
            let mut state = self.lock();
            if state.conflict {
                return Ok(Landed { conflicts: vec!["a.rs".to_owned()], ..Landed::default() });
            }
            state.commits.push(spec.message);
            let notes = vec!["hooks were not run".to_owned()];
            Ok(Landed { commit: "c0ffee".to_owned(), reference: "refs/heads/main".to_owned(), notes, ..Landed::default() })
        })
    }

    fn unland(&self, _workspace: Workspace, landed: OpDone, _time_s: u64) -> BoxFuture<'_, Result<Landed, Fault>> {
        Box::pin(async move { Ok(Landed { commit: landed.previous, reference: landed.reference, ..Landed::default() }) })
    }
}

/// A command that ended; the gate passes once the content was fixed.
struct Gate {
    run: RunId,
    code: i32,
}

impl Unit for Gate {
    fn run(&self) -> RunId {
        self.run
    }

    fn wait(&self, _until: Until) -> BoxFuture<'_, Result<UnitState, Fault>> {
        Box::pin(async move {
            pause().await;
            Ok(UnitState::Ended(Ended { code: Some(self.code), ..Ended::default() }))
        })
    }

    fn output(&self, offset: u64, _max: usize) -> BoxFuture<'_, Result<Chunk, Fault>> {
        let bytes = if offset == 0 { Bytes::from_static(b"gate\n") } else { Bytes::new() };
        let next = offset + bytes.len() as u64;
        Box::pin(async move { Ok(Chunk { offset, bytes, next }) })
    }

    fn stdin(&self, _number: u64, _bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(()) })
    }

    fn shown(&self, _seq: u32, _end: Option<u64>) -> BoxFuture<'_, Result<(u64, tinkerbell_core::tool::Traffic), Fault>> {
        Box::pin(async move { Ok((0, tinkerbell_core::tool::Traffic::default())) })
    }

    fn signal(&self, _signal: i32) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(()) })
    }

    fn release(&self) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(()) })
    }
}

impl Meter for World {
    fn used(&self, _task: TaskId) -> BoxFuture<'_, Result<Used, Fault>> {
        Box::pin(async move { Ok(Used::default()) })
    }
}

impl Sandbox for World {
    fn level(&self) -> BoxFuture<'_, Result<Level, Fault>> {
        Box::pin(async move { Ok(Level::Full) })
    }

    fn start(&self, spec: ExecSpec) -> BoxFuture<'_, Result<Arc<dyn Unit>, Fault>> {
        Box::pin(async move {
            pause().await;
            assert!(!self.lock().runs.contains_key(&spec.run), "a run starts at most once");
            self.execute(spec.run, &spec.command);
            Ok(self.gate(spec.run))
        })
    }

    fn attach(&self, run: RunId) -> BoxFuture<'_, Result<Found, Fault>> {
        Box::pin(async move {
            pause().await;
            Ok(if self.lock().runs.contains_key(&run) { Found::Unit(self.gate(run)) } else { Found::NeverRan })
        })
    }

    fn sweep(&self, _known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        Box::pin(async move { Ok(Vec::new()) })
    }

    fn stop(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        assert_eq!(task, TASK);
        Box::pin(async move { Ok(()) })
    }

    fn remove(&self, _task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(()) })
    }
}

impl World {
    fn gate(&self, run: RunId) -> Arc<dyn Unit> {
        Arc::new(Gate { run, code: i32::from(!self.content().starts_with("fixed")) })
    }
}

impl Guard for World {
    fn judge(&self, deed: &Deed) -> Judgement {
        match deed.plan.command.as_deref() {
            Some(text) if text.starts_with("danger") => Judgement::Ask {
                why: "dangerous".to_owned(),
                digest: "d1gest".to_owned(),
                policy: "p".to_owned(),
                rules: Vec::new(),
                offer: None,
            },
            Some("forbidden") => Judgement::Refuse { why: "never".to_owned() },
            _ => Judgement::Allow,
        }
    }

    fn redact(&self, text: &str) -> String {
        self.known.redact(text).replace("s3cretvalue", "[secret K]")
    }
}
