//! The router: the port `Model` over everything else in this crate.
//!
//! Resolves a name and has the question asked: by the courier, which outlives the daemon, or where
//! there is none in this process. It keeps no conversation. Invariant: every stream it gives ends,
//! and ends with `Done` or one error.

use crate::attempt::Item;
use crate::catalog;
use crate::courier::{Carried, CourierOptions, Link};
use crate::desk::{Desk, NETWORK, Order, fits};
use crate::detect::Detection;
use crate::driven::Driven;
use crate::fault;
use crate::options::{Options, Wire};
use crate::provider::{Environment, Target, key_variables, resolve};
use crate::replay;
use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use futures_util::stream::BoxStream;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::PartKind;
use tinkerbell_core::model::{Completion, ModelCall, ModelCard, ModelError, ModelEvent};
use tinkerbell_core::money::Price;
use tinkerbell_core::port::Model;
use tinkerbell_core::words::{RunId, Seq, TaskId};
use tinkerbell_secret::{Named, Secret, Shared};
use tokio::sync::mpsc::{Sender, channel};

/// Pieces on their way to a slow reader; beyond that whoever sends them is held back.
const PIECES: usize = 64;

/// Models by name; cheap to share.
pub struct Router {
    inner: Arc<Inner>,
}

struct Inner {
    options: RwLock<Arc<Options>>,
    env: Environment,
    clock: Arc<dyn Clock>,
    desk: Arc<Desk>,
    link: Option<Arc<Link>>,
    recordings: Mutex<HashMap<String, Bytes>>,
}

impl Router {
    /// Makes a router that asks in this process. Contacts nobody, and makes no client yet.
    #[must_use]
    pub fn new(options: Options, env: Environment, clock: Arc<dyn Clock>) -> Arc<Self> {
        Self::make(options, env, clock, None)
    }

    /// Makes a router whose calls go through a courier; it is started with the first one.
    #[must_use]
    pub fn with_courier(options: Options, env: Environment, clock: Arc<dyn Clock>, courier: CourierOptions) -> Arc<Self> {
        let link = Link::new(courier, clock.clone());
        Self::make(options, env, clock, Some(link))
    }

    fn make(options: Options, env: Environment, clock: Arc<dyn Clock>, link: Option<Arc<Link>>) -> Arc<Self> {
        let desk = Desk::new(options.cache_dir.as_ref(), clock.clone());
        let inner = Inner { options: RwLock::new(Arc::new(options)), env, clock, desk, link, recordings: Mutex::default() };
        Arc::new(Self { inner: Arc::new(inner) })
    }

    /// The daemon is about to end: from now on calls that it drops go on in the courier.
    pub fn leave(&self) {
        if let Some(link) = &self.inner.link {
            link.leave();
        }
    }

    /// Lets a courier without calls end, and waits a moment until it has.
    pub async fn farewell(&self) {
        if let Some(link) = &self.inner.link {
            link.farewell().await;
        }
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

    fn settle(&self, task: TaskId, before: Seq) -> BoxFuture<'_, ()> {
        async move {
            if let Some(link) = &self.inner.link {
                link.settle(task, before).await;
            }
        }
        .boxed()
    }

    fn sweep(&self, open: Vec<RunId>) -> BoxFuture<'_, ()> {
        async move {
            if let Some(link) = &self.inner.link {
                link.sweep(open).await;
            }
        }
        .boxed()
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
        let order = || self.order(call, target);
        let Some(link) = &self.link else { return self.desk.answer(&order()?, out).await };
        match link.carry(call.id(), order, out).await? {
            Carried::Answer(done) => Ok(*done),
            Carried::Alone(order) => self.desk.answer(&order, out).await,
        }
    }

    /// All that a call needs, as it stands now.
    fn order(&self, call: &ModelCall, target: Target) -> Result<Order, ModelError> {
        let key = self.key(&target)?;
        fits(call, &target)?;
        let options = self.options();
        let values = |names: &mut dyn Iterator<Item = String>| -> Vec<Named> {
            names.filter_map(|name| (self.env)(&name).map(|value| (name, value))).collect()
        };
        Ok(Order {
            call: call.clone(),
            target,
            key,
            network: values(&mut NETWORK.iter().map(|name| (*name).to_owned())),
            secrets: self.secrets(values(&mut key_variables(&options).into_iter())),
            pacing: options.pacing,
        })
    }

    /// What must never be written down: keys by the names of their variables, and all else that is known.
    fn secrets(&self, mut keys: Vec<Named>) -> Vec<Named> {
        let known = self.link.as_ref().map(|link| link.known().values()).unwrap_or_default();
        let further: Vec<Named> = known.into_iter().filter(|(_, value)| !keys.iter().any(|(_, key)| key == value)).collect();
        keys.extend(further);
        keys
    }

    fn key(&self, target: &Target) -> Result<Option<Shared>, ModelError> {
        let found = target.keys.iter().find_map(|name| (self.env)(name)).filter(|key| !key.expose().trim().is_empty());
        let found = found.map(|key| if key.expose().trim() == key.expose() { key } else { Secret::shared(key.expose().trim()) });
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
