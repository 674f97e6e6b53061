//! The router: the port `Model` over everything else in this crate.
//!
//! Resolves a name, asks, and asks again where that can help. It keeps no conversation: all it
//! remembers are clients and what it found out about servers. Invariant: every stream it gives
//! ends, and ends with `Done` or one error.

use crate::attempt::{Item, Try};
use crate::catalog;
use crate::classify::Failure;
use crate::client::Clients;
use crate::detect::Detection;
use crate::driven::Driven;
use crate::fault;
use crate::options::{Options, Wire};
use crate::probe::{self, Probes};
use crate::provider::{Environment, Target, resolve};
use crate::render::Mode;
use crate::replay;
use crate::retry::{self, Next};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use genai::Client;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::PartKind;
use tinkerbell_core::model::{Completion, ModelCall, ModelCard, ModelError, ModelEvent, ToolMode};
use tinkerbell_core::money::Price;
use tinkerbell_core::port::Model;
use tokio::sync::mpsc::{Sender, channel};

/// Pieces on their way to a slow reader; the provider is held back by TCP beyond that.
const PIECES: usize = 64;

/// Models by name; cheap to share.
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    options: RwLock<Arc<Options>>,
    env: Environment,
    clock: Arc<dyn Clock>,
    clients: Clients,
    probes: Probes,
    recordings: Mutex<HashMap<String, Bytes>>,
}

impl Router {
    /// Makes a router. Contacts nobody, and makes no client yet.
    #[must_use]
    pub fn new(options: Options, env: Environment, clock: Arc<dyn Clock>) -> Arc<Self> {
        let probes = Probes::open(options.cache_dir.as_ref());
        let inner = Inner {
            options: RwLock::new(Arc::new(options)),
            env,
            clock,
            clients: Clients::default(),
            probes,
            recordings: Mutex::default(),
        };
        Arc::new(Self { inner: Arc::new(inner) })
    }

    /// Takes new options; calls under way go on with the old ones.
    pub fn reload(&self, options: Options) {
        *self.inner.options.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(options);
    }

    /// Gives a provider of wire `replay` its recording, instead of a file.
    pub fn with_replay(&self, provider: &str, recording: Bytes) {
        self.inner.recordings.lock().unwrap_or_else(PoisonError::into_inner).insert(provider.to_owned(), recording);
    }

    /// What `provider/model` means, for `doctor` and `config show`; no secret is in it.
    ///
    /// # Errors
    /// As [`Model::card`].
    pub fn target(&self, model: &str) -> Result<Target, Fault> {
        self.inner.resolve(model)
    }

    /// The list price of a hosted model, for "would have been" lines; `None` where it is not listed.
    #[must_use]
    pub fn list_price(model: &str) -> Option<Price> {
        let (provider, model) = model.split_once('/')?;
        catalog::find(provider, model).map(|known| known.price)
    }
}

/// The model to use when none is named: the configured one, else that of the first key found, else
/// the first model of a local server. With it comes a line that says why.
///
/// # Errors
/// `TB-ROUTER-001` when there is nothing to choose from; it says what was looked for.
pub fn default_model(options: &Options, detection: &Detection) -> Result<(String, String), Fault> {
    if let Some(model) = &options.model {
        return Ok((model.clone(), "configured".to_owned()));
    }
    let hosted = detection.keys.iter().filter(|seen| seen.is_set).find_map(|seen| {
        let (provider, model) = catalog::DEFAULTS.iter().find(|(provider, _)| *provider == seen.provider)?;
        Some((format!("{provider}/{model}"), format!("{} is set", seen.variable)))
    });
    let local = || {
        detection.servers.iter().find_map(|seen| {
            seen.models().first().map(|model| (format!("{}/{model}", seen.provider), format!("{} answers at {}", seen.name, seen.address)))
        })
    };
    hosted.or_else(local).ok_or_else(|| fault::no_provider(&detection.summary()))
}

impl Model for Router {
    fn card(&self, model: &str) -> Result<ModelCard, Fault> {
        self.inner.resolve(model).map(|target| target.card)
    }

    fn complete(&self, call: ModelCall) -> BoxStream<'static, Item> {
        let inner = self.inner.clone();
        let (tx, rx) = channel(PIECES);
        let work = async move {
            let last = inner.answer(&call, &tx).await.map(|done| ModelEvent::Done(Box::new(done)));
            // Without a reader there is nobody to tell.
            drop(tx.send(last).await);
        };
        Box::pin(Driven::new(rx, Box::pin(work)))
    }
}

impl Inner {
    fn options(&self) -> Arc<Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn resolve(&self, model: &str) -> Result<Target, Fault> {
        resolve(model, &self.options(), &self.env)
    }

    async fn answer(&self, call: &ModelCall, out: &Sender<Item>) -> Result<Completion, ModelError> {
        let target = self.resolve(&call.model)?;
        if target.wire == Wire::Replay {
            return self.replay(call, &target, out).await;
        }
        let key = self.key(&target)?;
        let client = self.clients.get(&target, &self.env)?;
        fits(call, &target)?;
        let asking = Asking { inner: self, call, target: &target, client, key };
        let mode = asking.mode(out).await?;
        asking.ask(call, mode, Some(out)).await
    }

    fn key(&self, target: &Target) -> Result<Option<String>, ModelError> {
        let found = target.keys.iter().find_map(|name| (self.env)(name)).map(|key| key.trim().to_owned()).filter(|key| !key.is_empty());
        match target.keys.first() {
            Some(name) if found.is_none() && target.needs_key => Err(ModelError::NeedsKey(name.clone())),
            _ => Ok(found),
        }
    }

    async fn replay(&self, call: &ModelCall, target: &Target, out: &Sender<Item>) -> Result<Completion, ModelError> {
        let given = self.recordings.lock().unwrap_or_else(PoisonError::into_inner).get(&target.provider).cloned();
        let recording = match (given, &target.path) {
            (Some(bytes), _) => bytes,
            (None, Some(path)) => Bytes::from(
                tokio::fs::read(path)
                    .await
                    .map_err(|error| fault::replay(format!("the recording {} can not be read: {error}", path.display())))?,
            ),
            (None, None) => return Err(fault::replay(format!("provider `{}` has no recording", target.provider)).into()),
        };
        let (completion, wait) = replay::answer(&recording, call, target)?;
        self.clock.sleep(wait).await;
        for part in &completion.parts {
            let piece = if part.kind == PartKind::Text as i32 {
                ModelEvent::Text(part.text.clone())
            } else if part.kind == PartKind::Reasoning as i32 {
                ModelEvent::Reasoning(part.text.clone())
            } else {
                continue;
            };
            // Without a reader there is nobody to tell.
            drop(out.send(Ok(piece)).await);
        }
        Ok(completion)
    }
}

/// Ollama cuts a long prompt without a word, so it is refused here.
fn fits(call: &ModelCall, target: &Target) -> Result<(), ModelError> {
    let needed = crate::answer::estimate_input(call);
    if target.wire == Wire::Ollama && needed > target.card.context_tokens {
        return Err(ModelError::TooLong { limit: Some(target.card.context_tokens) });
    }
    Ok(())
}

/// One call with all its tries.
struct Asking<'a> {
    inner: &'a Inner,
    call: &'a ModelCall,
    target: &'a Target,
    client: Client,
    key: Option<String>,
}

impl Asking<'_> {
    /// How tools are to be called; asks the model once where nobody said.
    async fn mode(&self, out: &Sender<Item>) -> Result<Mode, ModelError> {
        match self.target.card.tools {
            ToolMode::Native => return Ok(Mode::Native),
            ToolMode::JsonSchema => return Ok(Mode::Union),
            ToolMode::Auto => {}
        }
        if let Some(mode) = self.inner.probes.get(self.target) {
            return Ok(mode);
        }
        let question = probe::question(self.call);
        let mode = match self.attempt(&question, Mode::Native, None, false).await {
            Ok(answer) => probe::verdict(&answer),
            Err(Failure::Malformed(_)) => Mode::Union,
            Err(Failure::Request(status, _) | Failure::Busy { status, after: None, .. }) if probe::is_refusal(self.target.wire, status) => {
                Mode::Union
            }
            // The server is not well: the question itself goes the long way, with all its tries.
            Err(_) => probe::verdict(&self.ask(&question, Mode::Native, Some(out)).await?),
        };
        self.inner.probes.put(self.target, mode).await;
        Ok(mode)
    }

    async fn attempt(&self, call: &ModelCall, mode: Mode, out: Option<&Sender<Item>>, lenient: bool) -> Result<Completion, Failure> {
        let one = Try {
            call,
            target: self.target,
            mode,
            client: &self.client,
            key: self.key.as_deref(),
            wall_ms: self.inner.clock.now().wall_ms,
            pacing: self.inner.options().pacing,
            lenient,
        };
        one.run(out).await
    }

    async fn ask(&self, call: &ModelCall, mode: Mode, out: Option<&Sender<Item>>) -> Result<Completion, ModelError> {
        let pacing = self.inner.options().pacing;
        let seed = seed(call);
        let mut tried = 0_u32;
        let mut lenient = false;
        loop {
            let failure = match self.attempt(call, mode, out, lenient).await {
                Ok(completion) => return Ok(Completion { retries: tried, ..completion }),
                Err(failure) => failure,
            };
            tried += 1;
            // The second useless answer in a row is shown to the model itself.
            lenient = matches!(failure, Failure::Malformed(_));
            match retry::next(&failure, tried, self.target, pacing, seed) {
                Next::Stop(error) => return Err(error),
                Next::Wait(wait) => {
                    tell(out, failure.line(), wait).await;
                    self.inner.clock.sleep(wait).await;
                }
            }
        }
    }
}

async fn tell(out: Option<&Sender<Item>>, why: String, wait: Duration) {
    if let Some(out) = out {
        // Without a reader there is nobody to tell.
        drop(out.send(Ok(ModelEvent::Retrying { why, wait })).await);
    }
}

/// Spreads the waits of different tasks and steps; the same call waits the same.
fn seed(call: &ModelCall) -> u64 {
    let task = (call.task.0 >> 64) as u64 ^ call.task.0 as u64;
    task.wrapping_add(call.messages.len() as u64)
}
