//! Wiring: every adapter is chosen and named here, and nowhere else.
//!
//! Building order is shutdown order reversed. Invariant: nothing here does work of its own.

use crate::clean::{CleanModel, CleanRunner, CleanRuntime, clean_submission};
use crate::clock::{SystemClock, SystemEntropy};
use crate::config::{self, Config, Sources};
use crate::environment::{Environment, Received};
use crate::live::Live;
use crate::mcp;
use crate::places::Places;
use crate::policy::Policies;
use crate::project;
use crate::secrets::Secrets;
use futures_util::FutureExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tinkerbell_agent::{AgentRunner, Deps as AgentDeps, Options as AgentOptions};
use tinkerbell_blobs::DiskBlobs;
use tinkerbell_canvas::GitCanvas;
use tinkerbell_core::clock::{Clock, Entropy};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::port::{BlobStore, Guard, Journal, Keyring, Model, Runtime, Sandbox, Submission};
use tinkerbell_executor::{HostSandbox, LevelChoice, NetworkChoice, SandboxOptions, WorkspaceChoice};
use tinkerbell_plugins::Desks;
use tinkerbell_router::Router;
use tinkerbell_scheduler::{Admission, Deps, Engine, Halt, Options};
use tinkerbell_secret::{Known, Named};
use tinkerbell_security::{FileKeyring, KeyPlaces, PolicyGuard};
use tinkerbell_wal::Wal;

/// Toolchain variables of the user that commands may see; none of them holds a secret.
const TOOLCHAIN_VARIABLES: [&str; 9] =
    ["RUSTUP_HOME", "CARGO_HOME", "GOPATH", "GOROOT", "JAVA_HOME", "PYENV_ROOT", "NVM_DIR", "MISE_DATA_DIR", "RUSTUP_TOOLCHAIN"];

/// What the daemon is made of.
pub struct House {
    /// The engine.
    pub engine: Engine,
    /// The log.
    pub journal: Arc<dyn Journal>,
    /// Where commands run.
    pub sandbox: Arc<HostSandbox>,
    /// What clients sent.
    pub received: Arc<Received>,
    /// What clients of the engine speak to.
    pub runtime: Arc<dyn Runtime>,
    /// What is secret.
    pub secrets: Arc<Secrets>,
    guard: Arc<PolicyGuard>,
    /// The configuration in force.
    pub live: Arc<Live>,
    /// The policy in force.
    pub policy: Arc<Policies>,
    /// The data directory.
    pub data: PathBuf,
}

/// What the router is told of a configuration.
#[must_use]
pub fn router_options(config: &Config, places: &Places) -> tinkerbell_router::Options {
    tinkerbell_router::Options {
        model: config.model.clone(),
        providers: config.providers.clone(),
        models: config.models.clone(),
        cache_dir: Some(places.cache.clone()),
        ..tinkerbell_router::Options::default()
    }
}

/// Variables that may hold keys: of providers, and of hosts that commands reach.
#[must_use]
pub fn secret_variables(config: &Config, places: &Places) -> Vec<String> {
    let providers = tinkerbell_router::key_variables(&router_options(config, places));
    providers.into_iter().chain(crate::egress::credentials(config)).collect()
}

/// What the sandbox is told of a configuration, limits left out: those may be mistaken.
#[must_use]
pub fn sandbox_options(config: &Config, places: &Places, env: &Environment, known: Arc<Known>) -> SandboxOptions {
    SandboxOptions {
        // The very binary that runs, also after another release was put in its place: daemon and
        // keepers of two releases do not speak the same words.
        exe: PathBuf::from("/proc/self/exe"),
        runs_dir: places.data.join("runs"),
        homes_dir: places.data.join("homes"),
        cache_dir: places.cache.clone(),
        hidden: [Some(places.data.as_path()), Some(&places.state), Some(&places.cache), places.config.parent(), Some(&places.run)]
            .into_iter()
            .flatten()
            .map(Path::to_owned)
            .chain([key_places(config, places).root])
            .collect(),
        limits: tinkerbell_core::port::Limits::default(),
        level: match config.sandbox.level {
            config::options::Level::Auto => LevelChoice::Auto,
            config::options::Level::Full => LevelChoice::Full,
            config::options::Level::Landlock => LevelChoice::Landlock,
            config::options::Level::None => LevelChoice::None,
        },
        network: match crate::egress::network(config) {
            config::options::Network::None => NetworkChoice::None,
            config::options::Network::Proxy => NetworkChoice::Proxy,
            config::options::Network::Host => NetworkChoice::Host,
        },
        way_out: None,
        workspace: match config.sandbox.workspace {
            config::options::Writing::Auto => WorkspaceChoice::Auto,
            config::options::Writing::Overlay => WorkspaceChoice::Overlay,
            config::options::Writing::Direct => WorkspaceChoice::Direct,
        },
        read: config.sandbox.read.clone(),
        home: places.home.clone(),
        path: env.get("PATH").unwrap_or("/usr/local/bin:/usr/bin:/bin").to_owned(),
        env: TOOLCHAIN_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), env.get(name)?.to_owned()))).collect(),
        known,
    }
}

/// What a house is built on, beside its configuration.
pub struct Ground {
    /// What clients sent of their environment to the process before this one.
    pub sent: Vec<Named>,
    /// What is secret; the log knows it, too.
    pub known: Arc<Known>,
}

/// Builds the house on its data directory; open tasks go on before this returns.
///
/// # Errors
/// When the journal refuses, a directory can not be used, or the configuration has a mistake.
pub async fn build(places: &Places, env: &Environment, sources: Sources, ground: Ground) -> Result<House, Fault> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let entropy: Arc<dyn Entropy> = Arc::new(SystemEntropy);
    let loaded = config::load(&sources, env)?;
    let config = loaded.config.clone();
    let (journal, blobs) = storage(places, &config, clock.clone(), entropy.clone()).await?;
    let canvas = GitCanvas::new(canvas_options(&config, places, env));
    let Ground { sent, known } = ground;
    let received = Arc::new(Received::new(env.clone()));
    received.take(sent);
    let secrets = Secrets::new(known.clone(), received.clone());
    secrets.refresh(&config, places)?;
    let way_out = crate::egress::way_out(&config, secrets.credentials())?;
    let limits = config::sandbox_limits(&config, tinkerbell_executor::host_memory())?;
    let options = SandboxOptions { limits, way_out, ..sandbox_options(&config, places, env, known.clone()) };
    let sandbox = HostSandbox::new(options, clock.clone(), entropy.clone());
    let courier = crate::courier::options(places, env, known.clone());
    let router = Router::with_courier(router_options(&config, places), secrets.lookup(), clock.clone(), courier);
    let guard = Arc::new(PolicyGuard::knowing(known.clone()));
    guard.set_path(&received.plain("PATH").unwrap_or_default());
    guard.set_reach(crate::policy::reaches(&config));
    let policy = Policies::begin(guard.clone(), &sources)?;
    let live = Live::new(sources, env.clone(), places.clone(), router.clone(), loaded);
    let model: Arc<dyn Model> = CleanModel::new(router, secrets.clone());
    let runner = AgentRunner::new(AgentDeps {
        model,
        tools: tools(&sandbox, &blobs, &mcp::desks(sandbox.clone(), clock.clone(), places, mcp::of_live(&live, secrets.lookup()))),
        canvas: canvas.clone(),
        landing: canvas.clone(),
        sandbox: sandbox.clone(),
        guard: guard.clone() as Arc<dyn Guard>,
        blobs: blobs.clone(),
        clock: clock.clone(),
        env: commands_env(&received),
        options: agent_options(&live),
        known: known.clone(),
    });
    let admission = admission(Admitting { live: live.clone(), policy: policy.clone(), secrets: secrets.clone(), guard: guard.clone() });
    let (data, halted) = (places.data.clone(), places.data.clone());
    let halt: Halt = Arc::new(move || crate::halt::fault(&halted));
    let runner = CleanRunner::new(Arc::new(runner), known.clone());
    let deps = Deps { journal: journal.clone(), blobs, runner, canvas, clock, entropy, admission, halt };
    let engine = Engine::open(deps, engine_options(&config)).await?;
    let runtime = CleanRuntime::new(Arc::new(engine.clone()), known);
    Ok(House { engine, journal, sandbox, received, runtime, secrets, guard, live, policy, data })
}

/// Where keyring and root key lie. A relative path of the root key begins at the configuration file.
#[must_use]
pub fn key_places(config: &Config, places: &Places) -> KeyPlaces {
    let keys = places.data.join("keys");
    let configured = config.security.root_key.as_ref();
    let root = configured.map(|path| places.config.parent().unwrap_or(&places.data).join(path));
    KeyPlaces { keyring: keys.join("keyring"), root: root.unwrap_or_else(|| keys.join("root.key")) }
}

/// Opens keyring, journal and blobs; recovery reads the disk, so it runs beside the runtime.
async fn storage(
    places: &Places,
    config: &Config,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
) -> Result<(Arc<dyn Journal>, Arc<dyn BlobStore>), Fault> {
    let (archive, keys) = (config.journal.archive.clone(), key_places(config, places));
    let (journal, blobs) = (places.journal(), places.data.join("blobs"));
    let open = move || {
        let keyring: Arc<dyn Keyring> = FileKeyring::open(keys, clock.clone())?;
        let journal = Wal::open_sealed(tinkerbell_wal::Options::new(journal), clock, entropy, keyring.clone())?;
        if let Some(dir) = archive {
            journal.archive_to(tinkerbell_wal::archive::Directory::create(dir)?);
        }
        let journal: Arc<dyn Journal> = journal;
        let blobs: Arc<dyn BlobStore> = DiskBlobs::open(blobs, keyring)?;
        Ok((journal, blobs))
    };
    let ended = |error| Fault::new("TB-DAEMON-001", exit::INTERNAL, format!("the journal's opening ended early: {error}"));
    tokio::task::spawn_blocking(open).await.map_err(ended)?
}

fn tools(sandbox: &Arc<HostSandbox>, blobs: &Arc<dyn BlobStore>, desks: &Arc<Desks>) -> Vec<Arc<dyn tinkerbell_core::port::Tool>> {
    let commands = tinkerbell_executor::tools::all(sandbox.clone() as Arc<dyn Sandbox>);
    commands.into_iter().chain(tinkerbell_canvas::tools::all(blobs.clone())).chain(tinkerbell_plugins::all(desks)).collect()
}

fn engine_options(config: &Config) -> Options {
    let (own, known) = (&config.scheduler, Options::default());
    Options {
        running: own.running.unwrap_or(known.running),
        open: own.open.unwrap_or(known.open),
        per_tenant: own.per_tenant.unwrap_or(known.per_tenant),
        per_provider: own.per_provider.unwrap_or(known.per_provider),
        per_host: own.per_host.unwrap_or(known.per_host),
        per_workspace: own.per_workspace.unwrap_or(known.per_workspace),
        boot: crate::clock::boot(),
        ..known
    }
}

fn canvas_options(config: &Config, places: &Places, env: &Environment) -> tinkerbell_canvas::Options {
    tinkerbell_canvas::Options {
        carry: config.workspace.carry.clone().unwrap_or_else(default_carry),
        ignored: match config.workspace.ignored {
            config::options::Ignored::Skip => tinkerbell_canvas::IgnoredFiles::Skip,
            config::options::Ignored::Keep => tinkerbell_canvas::IgnoredFiles::Keep,
        },
        excludes: git_excludes(places, env),
        ..tinkerbell_canvas::Options::new(places.data.clone())
    }
}

/// The ignore file that git reads when `core.excludesFile` names none.
fn git_excludes(places: &Places, env: &Environment) -> Option<PathBuf> {
    let config = env.path("XDG_CONFIG_HOME").filter(|dir| dir.is_absolute()).or_else(|| Some(places.home.as_ref()?.join(".config")))?;
    Some(config.join("git/ignore"))
}

/// What a worktree lacks to build and test: dependencies that were installed beside the sources.
/// Files that hold secrets, `.env` first of all, are carried only when the user names them.
fn default_carry() -> Vec<String> {
    ["node_modules", ".venv", "venv", "vendor"].map(str::to_owned).to_vec()
}

fn commands_env(received: &Arc<Received>) -> Arc<dyn Fn(tinkerbell_core::words::TaskId) -> Vec<(String, String)> + Send + Sync> {
    let received = received.clone();
    Arc::new(move |_task| received.for_commands())
}

fn agent_options(live: &Arc<Live>) -> Arc<dyn Fn() -> AgentOptions + Send + Sync> {
    let (live, store) = (live.clone(), project::store(live.places()));
    Arc::new(move || {
        let (reading, looking) = (store.clone(), store.clone());
        AgentOptions {
            verify: live.config().verify.command,
            // What can not be read was refused at the submission; then a day holds.
            question_lasts_ms: config::question_lasts_ms(&live.config()).unwrap_or_default(),
            project: Arc::new(move |tree, repository| project::of_task(&reading, tree, repository)),
            // A store that can not be read trusts nothing.
            is_trusted: Arc::new(move |repository, digest| looking.holds(repository, digest).unwrap_or(false)),
            servers: mcp::is_any_on(&live.config()),
            ..AgentOptions::default()
        }
    })
}

/// What a submission is completed with.
#[derive(Clone)]
struct Admitting {
    live: Arc<Live>,
    policy: Arc<Policies>,
    secrets: Arc<Secrets>,
    guard: Arc<PolicyGuard>,
}

/// Completes a submission: newest configuration, model, limits.
fn admission(with: Admitting) -> Admission {
    Arc::new(move |submission: Submission| {
        let with = with.clone();
        async move {
            with.policy.admit(root_of(&submission.cwd))?;
            admit(&with, submission).await
        }
        .boxed()
    })
}

async fn admit(with: &Admitting, mut submission: Submission) -> Result<Submission, Fault> {
    let live = &with.live;
    live.reload()?;
    let config = live.config();
    with.secrets.refresh(&config, live.places())?;
    // A goal may hold what the repository's own configuration holds.
    with.guard.look_at(&root_of(&submission.cwd).join(".git"));
    submission = clean_submission(submission, &with.secrets.known)?;
    config::question_lasts_ms(&config)?;
    if submission.model.is_empty() {
        submission.model = choose_model(&router_options(&config, live.places()), with.secrets.lookup()).await?;
    }
    let target = live.router().target(&submission.model)?;
    let mut has_key = false;
    for name in &target.keys {
        has_key = has_key || with.secrets.has(name)?;
    }
    if let Some(name) = target.keys.first().filter(|_| target.needs_key && !has_key) {
        return Err(Fault::new("TB-ROUTER-013", exit::NO_AUTH, format!("{} needs a key, and {name} is not set", submission.model))
            .hint(how_to_give(name))
            .hint("or name another variable: [providers.NAME] api_key_env = \"MY_KEY\""));
    }
    if submission.waiver.is_none() {
        let (place, now_ms) = (live.places().config.display().to_string(), SystemClock.now().wall_ms);
        submission.waiver = config::waiver(&config.approvals, &place, submission.uid, now_ms)?;
    }
    let is_priced = target.card.price.is_some();
    let mut config = config;
    config::tighten(&mut config.limits, config::read_project(root_of(&submission.cwd))?.config.limits, is_priced)?;
    submission.host = target.card.host.clone();
    submission.caps = config::caps(&config, &submission.caps, is_priced, &submission.model)?;
    Ok(submission)
}

fn how_to_give(key: &str) -> String {
    match key.strip_prefix("secret:") {
        Some(secret) => format!("write it into the file that [secrets.{secret}] names, or export its variable"),
        None => format!("export {key}=…"),
    }
}

/// The model to use when none is named.
async fn choose_model(options: &tinkerbell_router::Options, env: tinkerbell_router::Environment) -> Result<String, Fault> {
    if let Some(model) = &options.model {
        return Ok(model.clone());
    }
    let detection = tinkerbell_router::detect(&env).await;
    tinkerbell_router::default_model(options, &detection).map(|(model, _why)| model)
}

/// The repository around a directory, or the directory.
fn root_of(cwd: &Path) -> &Path {
    cwd.ancestors().find(|dir| dir.join(".git").exists()).unwrap_or(cwd)
}

impl House {
    /// Takes what a client sent of its environment; tasks that wait for a key go on.
    pub fn environment(&self, values: Vec<Named>) {
        if !self.received.take(values) {
            return;
        }
        self.secrets.refresh_from(&self.live);
        self.guard.set_path(&self.received.plain("PATH").unwrap_or_default());
        let engine = self.engine.clone();
        tokio::spawn(async move { engine.environment_changed().await });
    }

    /// Reads the configuration again; tells what changed.
    ///
    /// # Errors
    /// The mistake; then the old values stay in force.
    pub fn reload(&self) -> Result<String, Fault> {
        let policy = self.policy.reload();
        let changed = self.live.reload()?;
        // A provider may name another variable for its key now.
        self.secrets.refresh(&self.live.config(), self.live.places())?;
        let line = changed.line();
        Ok(if policy? { format!("the policy changed; {line}") } else { line })
    }

    /// The daemon ends: answers that are being given go on in the courier.
    pub fn leave(&self) {
        self.live.router().leave();
    }

    /// Lets the courier end, too, when it carries nothing.
    pub async fn farewell(&self) {
        self.live.router().farewell().await;
    }

    /// Whether any task is open, so that the daemon should stay.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.engine.open_tasks() > 0
    }
}
