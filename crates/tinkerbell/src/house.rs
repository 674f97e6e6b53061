//! The roof as the command line sees it: connections, surroundings, chores.
//!
//! Everything slow or heavy is built only when a command needs it. Invariant: configuration and
//! environment are read here and handed down as values.

use crate::Hidden;
use crate::chores;
use crate::chores::install::{self, Wish};
use crate::config::{self, Sources};
use crate::daemon::{self, Life};
use crate::demo;
use crate::environment::Environment;
use crate::halt;
use crate::handover::Start;
use crate::places::Places;
use crate::start;
use crate::wire;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_api::Client;
use tinkerbell_cli::{Chore, House, Notify, Output, Surroundings};
use tinkerbell_core::clock::Entropy as _;
use tinkerbell_core::code::{Fault, exit};

/// What the process was started with.
pub struct Roof {
    /// The environment.
    pub env: Environment,
    /// Our own binary.
    pub exe: PathBuf,
    /// `--set` options.
    pub set: Vec<String>,
    /// Whether the chores' questions are answered with yes.
    pub yes: bool,
    /// Whether unknown keys are only warned of.
    pub lenient: bool,
}

/// Refuses to talk to a daemon that was started without these settings: it would not heed them, and say nothing.
async fn heeds(client: &Client, set: &[String]) -> Result<(), Fault> {
    let known = client.daemon().await?.set;
    let Some(other) = set.iter().find(|given| !known.contains(given)) else { return Ok(()) };
    Err(Fault::new(
        "TB-CONFIG-008",
        exit::CONFIG,
        format!("the daemon that runs was started without `--set {other}`, and does not heed it"),
    )
    .hint("for one task `tinkerbell run` has options of its own: --model, --max-steps and others (tinkerbell run --help)")
    .hint(format!("for all tasks: tinkerbell daemon stop && tinkerbell --set {other} daemon start   (open tasks go on)")))
}

impl Roof {
    fn places(&self) -> Result<Places, Fault> {
        Places::find(&self.env, rustix::process::getuid().as_raw())
    }

    fn sources(&self, places: &Places) -> Sources {
        Sources { system: PathBuf::from("/etc/tinkerbell"), user: places.config.clone(), set: self.set.clone(), lenient: self.lenient }
    }

    /// What a daemon started for us must be told of our own command line.
    fn passed_on(&self) -> Vec<String> {
        self.set.iter().flat_map(|set| ["--set".to_owned(), set.clone()]).collect()
    }

    /// Runs the daemon in this process.
    ///
    /// # Errors
    /// When it could not start.
    pub fn be_daemon(&self, hidden: Hidden) -> Result<u8, Fault> {
        let places = self.places()?;
        let sources = self.sources(&places);
        let mut args = self.passed_on();
        args.extend(hidden.leaves.then(|| crate::LEAVES.to_owned()));
        let start = Start { args };
        daemon::run(&Life { places, env: self.env.clone(), sources, leaves: hidden.leaves, handed: hidden.handed, start })
    }

    async fn connected(&self, autostart: bool) -> Result<Client, Fault> {
        let places = self.places()?;
        if !autostart {
            return Client::connect(places.socket()).await;
        }
        // A mistake in the configuration is told here, with its line, instead of in a log.
        let config = config::load(&self.sources(&places), &self.env)?.config;
        if Client::connect(places.socket()).await.is_err() {
            // So is one in the policy; a daemon that runs keeps the policy that it has.
            crate::policy::places(&self.sources(&places)).read()?;
        }
        let mut keys = wire::secret_variables(&config, &places);
        keys.extend(crate::secrets::variables(&config));
        let client = start::connect(&places, &start::Own { exe: &self.exe, args: self.passed_on(), env: &self.env, keys }).await?;
        if !self.set.is_empty() {
            heeds(&client, &self.set).await?;
        }
        Ok(client)
    }

    async fn start_daemon(&self, out: &Output) -> Result<u8, Fault> {
        let client = self.connected(true).await?;
        let facts = client.daemon().await?;
        out.talk(&format!("the daemon runs, pid {}", facts.pid));
        Ok(exit::DONE)
    }

    /// Takes a halt back, and lets open tasks go on at once, whether or not a daemon runs.
    async fn lift(&self, out: &Output) -> Result<u8, Fault> {
        let places = self.places()?;
        let Some(mark) = halt::lift(&places.data)? else {
            out.talk("nothing is halted");
            return Ok(exit::DONE);
        };
        out.talk(&format!("lifted; {} no more", halt::line(&mark)));
        let client = self.connected(true).await?;
        // It looks by itself soon; told, it does so now.
        client.halt().await?;
        let open = client.daemon().await?.open_tasks;
        out.talk(&format!("{open} open tasks go on"));
        Ok(exit::DONE)
    }

    async fn done(&self, chore: Chore, out: Arc<Output>) -> Result<u8, Fault> {
        match chore {
            Chore::DaemonStart { .. } => self.start_daemon(&out).await,
            Chore::Lift => self.lift(&out).await,
            Chore::Demo { fast, model } => {
                let config = self.places().map(|places| places.config).unwrap_or_default();
                demo::run(demo::Show { exe: &self.exe, env: &self.env, config: &config, fast, model, out }).await
            }
            other => {
                let places = self.places()?;
                let sources = self.sources(&places);
                let cwd = std::env::current_dir().ok();
                let shop = chores::Shop { places: &places, env: &self.env, sources: &sources, cwd: cwd.as_deref() };
                match other {
                    Chore::DaemonInstall { system, dry_run } => {
                        return install::install(&shop, Wish { exe: &self.exe, system, dry_run }, &out).await;
                    }
                    Chore::DaemonUninstall { system, dry_run } => {
                        return install::uninstall(&shop, Wish { exe: &self.exe, system, dry_run }, &out);
                    }
                    _ => {}
                }
                let unknown = || Err(Fault::new("TB-BUG-001", exit::INTERNAL, format!("nobody does {other:?}")));
                chores::run(&shop, &other, self.yes, &out).await.unwrap_or_else(unknown)
            }
        }
    }
}

impl House for Roof {
    fn connect(&self, autostart: bool) -> BoxFuture<'_, Result<Client, Fault>> {
        self.connected(autostart).boxed()
    }

    fn surroundings(&self) -> Surroundings {
        // A mistake in the configuration is told by `connect`; here it only means the built-in names.
        let mut is_called = true;
        let options = self.places().and_then(|places| {
            let loaded = config::load(&self.sources(&places), &self.env)?;
            is_called = loaded.config.ui.notify == config::options::Wanted::Auto;
            let further = crate::secrets::variables(&loaded.config).into_iter().chain(crate::egress::credentials(&loaded.config));
            Ok((wire::router_options(&loaded.config, &places), further.collect::<Vec<_>>()))
        });
        let (options, further) = options.unwrap_or_default();
        let more: Vec<String> = tinkerbell_router::variables(&options).into_iter().chain(further).collect();
        Surroundings {
            cwd: std::env::current_dir().ok(),
            exe: self.exe.clone(),
            env: self.env.for_request(&more).into_iter().collect(),
            key: format!("{:032x}", crate::clock::SystemEntropy.id()),
            notify: if is_called { Notify::of(|name| self.env.get(name).map(str::to_owned)) } else { Notify::default() },
        }
    }

    fn chore(&self, chore: Chore, out: Arc<Output>) -> BoxFuture<'_, Result<u8, Fault>> {
        self.done(chore, out).boxed()
    }
}
