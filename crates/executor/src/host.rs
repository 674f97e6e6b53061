//! The sandbox port on this host: keepers, one directory per run.
//!
//! What a command may see is `profile`'s word, which level works is `probe`'s; this module starts,
//! finds and ends. Invariant: a run directory that exists is reconciled before anything starts.

use crate::approval;
use crate::crowd::Crowd;
use crate::error::Error;
use crate::halt;
use crate::ledger::Ledger;
use crate::options::{NetworkChoice, SandboxOptions, WorkspaceChoice};
use crate::probe::{self, Extent, Report};
use crate::profile::{self, Plan};
use crate::run::{Run, Standing};
use crate::unit::{HostUnit, ask, blocking};
use crate::verdict::{Sweep, Verdict};
use crate::wire::{Hidden, Order, Reply, Request, Walls};
use futures_core::future::BoxFuture;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tinkerbell_core::approval::Bound;
use tinkerbell_core::clock::{Clock, Entropy};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{ExecSpec, Found, Level, Limits, Meter, Sandbox, Unit, Used};
use tinkerbell_core::words::{RunId, TaskId};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// Longest time from the keeper's start to the open gate.
const START: Duration = Duration::from_secs(30);
/// Between asking and forcing when a task is stopped.
const GRACE_MS: u64 = 50;
/// Longest time that a keeper may need until it hears.
const HEAR: Duration = Duration::from_secs(1);
/// Keepers that are tried for one start.
const KEEPERS: u32 = 3;
/// Longest time until a stopped run is gone.
const STOP: Duration = Duration::from_secs(8);

/// What the self-test and the operator's choice give together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Proven {
    /// The level.
    pub level: Level,
    /// Whether commands may be given layers.
    pub overlay: bool,
}

impl Proven {
    /// For one command. A check's writes are dropped anyway, so it gets a layer where it can. What
    /// another command writes must be seen by those that run beside it, and it must see what they and
    /// the file tools write; a service, which lives as long as its task, more than any.
    fn of(self, spec: &ExecSpec, choice: WorkspaceChoice) -> Self {
        let is_wanted = choice == WorkspaceChoice::Overlay || crate::layer::is_check(spec);
        Self { overlay: self.overlay && is_wanted && spec.service.is_none(), ..self }
    }
}

/// The adapter.
pub struct HostSandbox {
    pub(crate) options: SandboxOptions,
    clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    /// The machine was started anew since runs were last swept: a missing directory proves nothing.
    is_new_boot: AtomicBool,
    proven: tokio::sync::Mutex<Option<Arc<Report>>>,
    /// Whether it was said that a layer could not be had.
    has_warned: AtomicBool,
    /// What of the system only user 0 may read.
    private: profile::Private,
    /// Commands that run at once.
    crowd: Arc<Crowd>,
}

impl HostSandbox {
    /// Makes the adapter; touches nothing yet.
    #[must_use]
    pub fn new(options: SandboxOptions, clock: Arc<dyn Clock>, entropy: Arc<dyn Entropy>) -> Arc<Self> {
        let boot = std::fs::read_to_string(options.runs_dir.join("boot")).unwrap_or_default();
        let is_new_boot = AtomicBool::new(!boot.is_empty() && boot != crate::process::boot_id());
        let (proven, has_warned, private) = (tokio::sync::Mutex::new(None), AtomicBool::new(false), profile::Private::default());
        Arc::new(Self { options, clock, entropy, is_new_boot, proven, has_warned, private, crowd: Arc::default() })
    }

    /// Runs the self-test of every level now, whatever the cache says; for `doctor`.
    ///
    /// # Errors
    /// When the test could not be set up at all.
    pub async fn probe_report(&self) -> Result<Report, Fault> {
        let report = Arc::new(self.attacked(Extent::Whole).await?);
        probe::store(&self.options, &report);
        *self.proven.lock().await = Some(Arc::clone(&report));
        Ok(Report::clone(&report))
    }

    /// How many of these runs have a live keeper. Reads a few small files of each.
    #[must_use]
    pub fn alive(&self, runs: &[RunId]) -> usize {
        runs.iter().filter(|id| self.run(**id).look().is_ok_and(|standing| standing == Standing::Running)).count()
    }

    /// The self-test's report. What a halt cut off proves nothing, and must not be remembered.
    async fn attacked(&self, extent: Extent) -> Result<Report, Error> {
        let mark = halt::mark(&self.options.runs_dir);
        let before = halt::stands(&mark);
        let report = if before { Err(Error::Halted) } else { probe::run(self, extent).await };
        if halt::stands(&mark) { Err(Error::Halted) } else { report }
    }

    async fn proven(&self) -> Result<Proven, Error> {
        let mut slot = self.proven.lock().await;
        let report = match slot.as_ref() {
            Some(report) => Arc::clone(report),
            None => {
                let report = match probe::load(&self.options) {
                    Some(report) => report,
                    None => {
                        let report = self.attacked(Extent::Decided).await?;
                        probe::store(&self.options, &report);
                        report
                    }
                };
                Arc::clone(slot.insert(Arc::new(report)))
            }
        };
        let level = report.choose(self.options.level)?;
        let overlay = report.overlay(level, self.options.workspace)?;
        Ok(Proven { level, overlay })
    }

    fn run(&self, id: RunId) -> Run {
        Run::new(&self.options.runs_dir, id.to_string())
    }

    fn unit(&self, id: RunId) -> Arc<dyn Unit> {
        Arc::new(HostUnit::new(id, self.run(id), Arc::clone(&self.clock)))
    }

    /// Starts at a given level, in a layer or not; the self-test starts its own attacks this way.
    pub(crate) async fn start_at(&self, proven: Proven, spec: ExecSpec, plan: Plan) -> Result<Arc<dyn Unit>, Error> {
        let Proven { level, overlay } = proven;
        let (id, run) = (spec.run, self.run(spec.run));
        let mut options = self.options_for(&spec);
        if level != Level::Full && level != Level::None && options.network == NetworkChoice::Host {
            return Err(Error::Network(level.name()));
        }
        if plan.is_probe && options.network == NetworkChoice::Proxy {
            // The walls are tested without their one door.
            options.network = NetworkChoice::None;
        }
        if level != Level::Full && options.network == NetworkChoice::Proxy {
            return Err(Error::Egress(level.name()));
        }
        let order = blocking(move || {
            if halt::stands(&halt::mark(&options.runs_dir)) {
                return Err(Error::Halted);
            }
            make_dir(&options.runs_dir)?;
            note_boot(&options.runs_dir)?;
            match std::fs::create_dir(&run.dir) {
                Ok(()) => {}
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                    if !run.settle()?.verdict().may_start() {
                        return Ok(None);
                    }
                }
                Err(error) => return Err(Error::files(&run.dir)(error)),
            }
            let layer = if overlay { Some(crate::layer::make(&spec)?) } else { crate::layer::unmake(&spec).map(|()| None)? };
            let notice = plan.notice.clone();
            let (mut cell, watched) = profile::build(&options, &spec, (level, layer.as_deref()), plan)?;
            let (limits, ledger, base) = bounds(&options, &spec)?;
            cell.walls = walls(&limits, &spec);
            let roots = roots(&options, &spec);
            let deadline_ms = u64::try_from(spec.deadline.as_millis()).unwrap_or(u64::MAX >> 1);
            let errors_apart = spec.service.is_some();
            Ok(Some(Order {
                run: run.name,
                run_dir: run.dir,
                exe: options.exe,
                epoch: spec.fence.epoch,
                generation: spec.fence.generation,
                deadline_ms,
                cell,
                roots,
                tree: spec.workspace.tree,
                absent: watched.absent,
                guarded: watched.guarded,
                errors_apart,
                limits: limits.into(),
                ledger,
                base,
                approved: spec.approved.map(Into::into),
                way_out: options.way_out.filter(|_| options.network == NetworkChoice::Proxy).map(|way| (way.plan)()),
                network: if level == Level::None { "host" } else { options.network.name() }.to_owned(),
                layer,
                notice,
                secrets: options.known.values().into_iter().map(|(name, value)| Hidden { name, value }).collect(),
            }))
        })
        .await?;
        if let Some(order) = order {
            launch(&order, &self.run(id)).await?;
        }
        Ok(self.unit(id))
    }

    /// Starts what could not be given its layer as if there were none, and says so: to whoever reads the
    /// command's output each time, and once in the log.
    async fn start_directly(&self, proven: Proven, (spec, plan): (ExecSpec, Plan), why: &str) -> Result<Arc<dyn Unit>, Error> {
        if !self.has_warned.swap(true, Ordering::Relaxed) {
            tracing::warn!(run = %spec.run, why, "no layer could be laid over a worktree, so its commands write to it directly");
        }
        let notice = format!("no layer could be laid over the worktree, so this command wrote to it directly: {why}");
        self.start_at(Proven { overlay: false, ..proven }, spec, Plan { notice, ..plan }).await
    }

    /// What a run is told of the host: a service may have a network of its own and read more.
    fn options_for(&self, spec: &ExecSpec) -> SandboxOptions {
        let mut options = self.options.clone();
        options.hidden.extend(self.private.of_system(self.clock.now().mono_ms));
        if let Some(service) = &spec.service {
            options.read.extend(service.read.iter().cloned());
            options.network = match service.network {
                Some(true) => NetworkChoice::Host,
                Some(false) => NetworkChoice::None,
                None => options.network,
            };
        }
        options
    }

    async fn stop_task(&self, task: TaskId) -> Result<(), Error> {
        let mut joined = tokio::task::JoinSet::new();
        let mut result = Ok(());
        for run in self.runs().await?.into_iter().filter(|(id, _)| id.task == task).map(|(_, run)| run) {
            joined.spawn(stop_run(Arc::clone(&self.clock), run));
        }
        while let Some(done) = joined.join_next().await {
            let done = done.unwrap_or_else(|error| Err(Error::Internal(format!("stopping failed: {error}"))));
            result = result.and(done);
        }
        result
    }

    /// Whether one more command of the task may run. A check and a service come when the runtime wants them.
    async fn has_room(&self, spec: &ExecSpec) -> Result<(), Error> {
        if spec.service.is_some() || crate::layer::is_check(spec) {
            return Ok(());
        }
        let (crowd, dir, own) = (Arc::clone(&self.crowd), self.options.runs_dir.clone(), spec.run);
        blocking(move || crowd.enter(&dir, own).map_err(Error::Crowded)).await
    }

    /// Every run directory.
    async fn runs(&self) -> Result<Vec<(RunId, Run)>, Error> {
        let dir = self.options.runs_dir.clone();
        blocking(move || {
            let entries = match std::fs::read_dir(&dir) {
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
                other => other.map_err(Error::files(&dir))?,
            };
            let names = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok());
            Ok(names.filter_map(|name| Some((name.parse().ok()?, Run::new(&dir, name)))).collect())
        })
        .await
    }

    async fn find(&self, id: RunId) -> Result<Found, Error> {
        let (run, is_new_boot) = (self.run(id), self.is_new_boot.load(Ordering::Relaxed));
        let verdict = blocking(move || {
            let found = run.settle()?.verdict();
            let verdict = found.of_known(is_new_boot);
            if verdict != found {
                run.mark_lost("the machine was started anew")?;
            }
            Ok(verdict)
        })
        .await?;
        Ok(match verdict {
            Verdict::Absent | Verdict::NeverRan => Found::NeverRan,
            Verdict::Running | Verdict::Ended => Found::Unit(self.unit(id)),
            Verdict::Lost => Found::Lost(self.unit(id)),
        })
    }

    async fn sweep_all(&self, known: Vec<RunId>) -> Result<Vec<(RunId, String)>, Error> {
        let mut found = Vec::new();
        if self.is_new_boot.load(Ordering::Relaxed) {
            // The verdict for open intents must outlive this process, so it is written down.
            for id in &known {
                self.find(*id).await?;
            }
        }
        // A task that has something under way may have services, too; it finds them again by itself.
        let tasks: BTreeSet<TaskId> = known.iter().map(|id| id.task).collect();
        let is_known = |id: &RunId| known.contains(id) || (id.is_service() && tasks.contains(&id.task));
        for (id, run) in self.runs().await?.into_iter().filter(|(id, _)| !is_known(id)) {
            match self.reap(run).await {
                Ok(told) => found.extend(told.map(|text| (id, text.to_owned()))),
                // One directory that can not be judged must not keep all tasks from going on.
                Err(error) => tracing::warn!(run = %id, %error, "a command that no task knows could not be ended"),
            }
        }
        let runs_dir = self.options.runs_dir.clone();
        blocking(move || make_dir(&runs_dir).and_then(|()| write_boot(&runs_dir))).await?;
        self.is_new_boot.store(false, Ordering::Relaxed);
        Ok(found)
    }

    /// Ends what a run left that no task knows; says what it was, if anything.
    async fn reap(&self, run: Run) -> Result<Option<&'static str>, Error> {
        let probe = run.clone();
        let verdict = blocking(move || Ok(probe.look()?.verdict())).await?;
        match verdict.sweep(run.dir.join("lost").exists()) {
            Sweep::Stop => {
                stop_run(Arc::clone(&self.clock), run).await?;
                Ok(Some("it was running and no task knew it; it was ended"))
            }
            Sweep::End => {
                blocking(move || run.settle()).await?;
                Ok(Some("its keeper was gone; what it left running was ended"))
            }
            Sweep::Leave => Ok(None),
        }
    }

    async fn remove_task(&self, task: TaskId) -> Result<(), Error> {
        self.stop_task(task).await?;
        self.crowd.forget(task);
        let mut paths: Vec<PathBuf> = self.runs().await?.into_iter().filter(|(id, _)| id.task == task).map(|(_, run)| run.dir).collect();
        paths.push(self.options.homes_dir.join(task.to_string()));
        blocking(move || paths.iter().try_for_each(|path| remove_tree(path).map_err(Error::files(path)))).await
    }
}

impl Meter for HostSandbox {
    fn used(&self, task: TaskId) -> BoxFuture<'_, Result<Used, Fault>> {
        let private = self.options.homes_dir.join(task.to_string());
        let total = move || Ledger::of(&private).total().map_err(Error::files(&private));
        Box::pin(async move { Ok(blocking(total).await?) })
    }
}

impl Sandbox for HostSandbox {
    fn level(&self) -> BoxFuture<'_, Result<Level, Fault>> {
        Box::pin(async move { Ok(self.proven().await?.level) })
    }

    fn facts(&self, spec: ExecSpec) -> BoxFuture<'_, Result<Bound, Fault>> {
        Box::pin(async move {
            let (proven, options) = (self.proven().await?.of(&spec, self.options.workspace), self.options_for(&spec));
            let run = spec.run;
            let look = move || {
                let layer = if proven.overlay { Some(crate::layer::at(&spec)?) } else { None };
                let (cell, _) = profile::build(&options, &spec, (proven.level, layer.as_deref()), Plan::shell(&spec.command))?;
                approval::facts(&cell).map_err(|broken| Error::Approval { run: run.to_string(), why: broken.to_string() })
            };
            Ok(Bound { facts: blocking(look).await?, shown: None })
        })
    }

    fn start(&self, spec: ExecSpec) -> BoxFuture<'_, Result<Arc<dyn Unit>, Fault>> {
        Box::pin(async move {
            let proven = self.proven().await?.of(&spec, self.options.workspace);
            self.has_room(&spec).await?;
            let plan = match &spec.service {
                Some(service) => Plan { argv: service.argv.clone(), ..Plan::default() },
                None => Plan::shell(&spec.command),
            };
            match self.start_at(proven, spec.clone(), plan.clone()).await {
                Err(Error::Layer { why, .. }) if self.options.workspace == WorkspaceChoice::Auto => {
                    Ok(self.start_directly(proven, (spec, plan), &why).await?)
                }
                other => Ok(other?),
            }
        })
    }

    fn attach(&self, run: RunId) -> BoxFuture<'_, Result<Found, Fault>> {
        Box::pin(async move { Ok(self.find(run).await?) })
    }

    fn sweep(&self, known: Vec<RunId>) -> BoxFuture<'_, Result<Vec<(RunId, String)>, Fault>> {
        Box::pin(async move { Ok(self.sweep_all(known).await?) })
    }

    fn stop(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(self.stop_task(task).await?) })
    }

    fn remove(&self, task: TaskId) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(self.remove_task(task).await?) })
    }
}

/// Directories whose growth counts: the worktree, and the task's private home and temporary files.
fn roots(options: &SandboxOptions, spec: &ExecSpec) -> Vec<PathBuf> {
    // What is written to a layer is moved into the tree later, and counts once.
    let layers = tinkerbell_core::layer::home(&spec.workspace);
    [spec.workspace.tree.clone(), options.homes_dir.join(spec.run.task.to_string())].into_iter().chain(layers).collect()
}

/// What a command may use, where its task's figures stand, and what its directories took at first.
fn bounds(options: &SandboxOptions, spec: &ExecSpec) -> Result<(Limits, PathBuf, u64), Error> {
    let mut ledger = Ledger::of(&options.homes_dir.join(spec.run.task.to_string()));
    let base = ledger.base(|| crate::disk::walk(&roots(options, spec)).bytes).map_err(Error::files(ledger.dir()))?;
    let mut limits = spec.limits.tighter(options.limits);
    // From its start on, as the command gets it; for keepers that share it, up to this total.
    let used = ledger.total().map_err(Error::files(ledger.dir()))?;
    limits.cpu_ms = limits.cpu_ms.map(|left| used.cpu_ms.saturating_add(left));
    Ok((limits, ledger.dir().to_owned(), base))
}

/// Walls that the kernel can keep without control groups.
fn walls(limits: &Limits, spec: &ExecSpec) -> Walls {
    // Of each process alone, and a little beyond: the watch over all of them comes first.
    let cpu_s = spec.limits.cpu_ms.map(|left| left / 1_000 + 2);
    Walls { processes: limits.processes, cpu_s, shared_bytes: limits.memory_bytes.map(|bytes| bytes / 2) }
}

/// Ends one live run: asks its keeper, and deals with a keeper that does not hear.
async fn stop_run(clock: Arc<dyn Clock>, run: Run) -> Result<(), Error> {
    let probe = run.clone();
    // Settled, not looked at: a lost keeper leaves a command behind that nobody else will end.
    let is_running = blocking(move || match probe.settle() {
        Ok(Standing::NeverRan) => Ok(!probe.withdraw()? && probe.look()? == Standing::Running),
        Ok(standing) => Ok(standing == Standing::Running),
        // Damaged files name nobody; the mark in the environment still does.
        Err(_) => probe.end_processes().map(|()| false),
    });
    if !is_running.await? {
        return Ok(());
    }
    // A keeper that does not hear is dealt with below, with its command.
    let is_heard = ask_to_stop(clock.as_ref(), &run).await?;
    let wait = Duration::from_millis(3);
    let rounds = if is_heard { STOP.as_millis() / wait.as_millis() } else { 0 };
    for _ in 0..rounds {
        let probe = run.clone();
        if blocking(move || probe.settle()).await? != Standing::Running {
            return Ok(());
        }
        clock.sleep(wait).await;
    }
    blocking(move || {
        run.end_processes()?;
        run.settle().map(drop)
    })
    .await
}

/// Asks a keeper to end its command; one that has only begun has no socket yet and is asked again.
async fn ask_to_stop(clock: &dyn Clock, run: &Run) -> Result<bool, Error> {
    let request = Request::Stop { cause: "cancelled".into(), grace_ms: GRACE_MS };
    let end_ms = clock.now().mono_ms.saturating_add(u64::try_from(HEAR.as_millis()).unwrap_or(u64::MAX));
    while ask(run, &request).await.is_err() {
        let probe = run.clone();
        if clock.now().mono_ms >= end_ms || blocking(move || probe.look()).await? != Standing::Running {
            return Ok(false);
        }
        clock.sleep(Duration::from_millis(3)).await;
    }
    Ok(true)
}

/// Starts a keeper. One that dies before its command began is replaced: nothing ran.
async fn launch(order: &Order, run: &Run) -> Result<(), Error> {
    let mut left = KEEPERS;
    loop {
        left -= 1;
        let error = match spawn_keeper(order).await {
            Err(error @ Error::Keeper { .. }) => error,
            other => return other,
        };
        let probe = run.clone();
        match blocking(move || probe.settle()).await? {
            Standing::NeverRan if left > 0 => tracing::warn!(run = run.name, %error, "another keeper is started"),
            Standing::NeverRan | Standing::Absent => return Err(error),
            // The command had begun: the unit tells how it stands.
            Standing::Running | Standing::Ended(_) | Standing::Lost => return Ok(()),
        }
    }
}

/// Starts the keeper and waits for its word. Once the order is written it acts on its own: losing
/// the word loses nothing, the next `attach` finds the truth.
async fn spawn_keeper(order: &Order) -> Result<(), Error> {
    let failed = |why: String| Error::Keeper { run: order.run.clone(), why };
    let mut command = tokio::process::Command::new(&order.exe);
    // Its environment is visible to the same user, so it gets none of ours.
    command.arg("__keeper").env_clear().env("TINKERBELL_KEEPER", &order.run);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(false);
    let mut child = command.spawn().map_err(|error| failed(format!("`{}`: {error}", order.exe.display())))?;
    let text = zeroize::Zeroizing::new(serde_json::to_vec(order).map_err(|error| failed(error.to_string()))?);
    let talk = async {
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(&text).await?;
        }
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).await?;
        }
        Ok::<_, std::io::Error>(line)
    };
    let line = tokio::time::timeout(START, talk).await.map_err(|_| failed("no word from it in 30 s".into()))?;
    match line.as_ref().ok().and_then(|line| serde_json::from_str(line).ok()) {
        Some(Reply::Started | Reply::Taken) => Ok(()),
        Some(Reply::Failed { step, .. }) if step == halt::MARK => Err(Error::Halted),
        Some(Reply::Failed { step, why }) if step.starts_with(approval::STEP) => Err(Error::Approval { run: order.run.clone(), why }),
        Some(Reply::Failed { step, why }) if step.starts_with(crate::layer::STEP) => {
            Err(Error::Layer { run: order.run.clone(), why: format!("{step}: {why}") })
        }
        Some(Reply::Failed { step, why }) => Err(Error::Cell { run: order.run.clone(), step, why }),
        None => {
            // Its pipe closes before its lock; only a process that is gone has let go of both.
            let _gone = tokio::time::timeout(HEAR, child.wait()).await;
            Err(failed(line.map_or_else(|error| error.to_string(), |_| "it ended without a word".into())))
        }
    }
}

pub(crate) fn make_dir(path: &Path) -> Result<(), Error> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(Error::files(path))
}

/// Notes the boot in which runs began, where none is noted yet.
fn note_boot(runs_dir: &Path) -> Result<(), Error> {
    if runs_dir.join("boot").exists() { Ok(()) } else { write_boot(runs_dir) }
}

/// Durable before any command begins: where a power cut takes the note away, a run whose directory
/// went with it would be taken for one that never ran.
fn write_boot(runs_dir: &Path) -> Result<(), Error> {
    use std::io::Write as _;
    let path = runs_dir.join("boot");
    // Two first commands may begin at once, each on a thread of its own.
    let new = runs_dir.join(format!("boot.{:?}", std::thread::current().id()));
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::create(&new)?;
        file.write_all(crate::process::boot_id().as_bytes())?;
        file.sync_all()?;
        std::fs::rename(&new, &path)?;
        std::fs::File::open(runs_dir)?.sync_all()
    };
    write().map_err(Error::files(path))
}

/// Removes a tree in which build tools may have made directories read-only.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match crate::remove::tree(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
