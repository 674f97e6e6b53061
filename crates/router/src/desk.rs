//! The desk: one call with all its tries, wherever it runs, in the courier or in the daemon.
//!
//! All that it remembers are clients and what it found out about servers; it looks up nothing, for
//! the order carries all it needs. Invariant: every stream it gives ends, and ends with `Done` or
//! one error.

use crate::attempt::{Item, Lost, Try};
use crate::classify::Failure;
use crate::client::Clients;
use crate::driven::Driven;
use crate::options::{Pacing, Wire};
use crate::probe::{self, Probes};
use crate::provider::{Environment, Target};
use crate::render::Mode;
use crate::retry::{self, Next};
use futures_util::stream::BoxStream;
use genai::Client;
use std::path::PathBuf;
use std::sync::Arc;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::model::{Completion, ModelCall, ModelError, ModelEvent, ToolMode};
use tinkerbell_core::money::Usage;
use tinkerbell_secret::{Named, Shared};
use tokio::sync::mpsc::{Sender, channel};

/// Pieces on their way to a slow reader; the provider is held back by TCP beyond that.
const PIECES: usize = 64;

/// Variables of the network that a call depends on.
pub const NETWORK: &[&str] = &["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy"];

/// All that one call needs.
#[derive(Clone, PartialEq)]
pub struct Order {
    /// The request.
    pub call: ModelCall,
    /// Whom to ask.
    pub target: Target,
    /// With which key.
    pub key: Option<Shared>,
    /// Those of [`NETWORK`] that are set.
    pub network: Vec<Named>,
    /// Values that must never be shown, by name.
    pub secrets: Vec<Named>,
    /// Waits and limits.
    pub pacing: Pacing,
}

/// Asks providers.
pub struct Desk {
    clock: Arc<dyn Clock>,
    clients: Clients,
    probes: Probes,
}

impl Desk {
    /// A desk; contacts nobody, and makes no client yet.
    pub fn new(cache_dir: Option<&PathBuf>, clock: Arc<dyn Clock>) -> Arc<Self> {
        Arc::new(Self { clock, clients: Clients::default(), probes: Probes::open(cache_dir) })
    }

    /// Asks. Dropping the stream closes the connection.
    pub fn stream(self: &Arc<Self>, order: Order) -> BoxStream<'static, Item> {
        let desk = self.clone();
        let (tx, rx) = channel(PIECES);
        let work = async move {
            let last = desk.answer(&order, &tx).await.map(|done| ModelEvent::Done(Box::new(done)));
            // Without a reader there is nobody to tell.
            drop(tx.send(last).await);
        };
        Box::pin(Driven::new(rx, Box::pin(work)))
    }

    /// Answers one order; pieces go to `out` as they come.
    pub async fn answer(&self, order: &Order, out: &Sender<Item>) -> Result<Completion, ModelError> {
        let network = order.network.clone();
        let env: Environment = Arc::new(move |name| network.iter().find(|(known, _)| known == name).map(|(_, value)| value.clone()));
        let client = self.clients.get(&order.target, &env)?;
        let asking = Asking { desk: self, order, client };
        let mode = asking.mode(out).await?;
        asking.ask(&order.call, mode, Some(out)).await
    }
}

/// One call with all its tries.
struct Asking<'a> {
    desk: &'a Desk,
    order: &'a Order,
    client: Client,
}

impl Asking<'_> {
    /// How tools are to be called; asks the model once where nobody said.
    async fn mode(&self, out: &Sender<Item>) -> Result<Mode, ModelError> {
        let target = &self.order.target;
        match target.card.tools {
            ToolMode::Native => return Ok(Mode::Native),
            ToolMode::JsonSchema => return Ok(Mode::Union),
            ToolMode::Auto => {}
        }
        if let Some(mode) = self.desk.probes.get(target) {
            return Ok(mode);
        }
        let question = probe::question(&self.order.call);
        let mode = match self.attempt(&question, Mode::Native, None, false).await.map_err(|lost| lost.failure) {
            Ok(answer) => probe::verdict(&answer),
            Err(Failure::Malformed(_)) => Mode::Union,
            Err(Failure::Request(status, _) | Failure::Busy { status, after: None, .. }) if probe::is_refusal(target.wire, status) => {
                Mode::Union
            }
            // The server is not well: the question itself goes the long way, with all its tries.
            Err(_) => probe::verdict(&self.ask(&question, Mode::Native, Some(out)).await?),
        };
        self.desk.probes.put(target, mode).await;
        Ok(mode)
    }

    async fn attempt(&self, call: &ModelCall, mode: Mode, out: Option<&Sender<Item>>, lenient: bool) -> Result<Completion, Lost> {
        let one = Try {
            call,
            target: &self.order.target,
            mode,
            client: &self.client,
            key: self.order.key.as_ref().map(|key| key.expose().as_str()),
            wall_ms: self.desk.clock.now().wall_ms,
            pacing: self.order.pacing,
            lenient,
        };
        one.run(out).await
    }

    async fn ask(&self, call: &ModelCall, mode: Mode, out: Option<&Sender<Item>>) -> Result<Completion, ModelError> {
        let seed = seed(call);
        let mut tried = 0_u32;
        let mut lenient = false;
        let mut lost = Usage::default();
        loop {
            let Lost { failure, spent } = match self.attempt(call, mode, out, lenient).await {
                Ok(completion) => return Ok(Completion { retries: tried, lost, ..completion }),
                Err(failed) => failed,
            };
            tried += 1;
            lost = lost.plus(spent);
            // The second useless answer in a row is shown to the model itself.
            lenient = matches!(failure, Failure::Malformed(_));
            match retry::next(&failure, tried, &self.order.target, self.order.pacing, seed) {
                Next::Stop(error) => return Err(error),
                Next::Wait(wait) => {
                    tell(out, ModelEvent::Retrying { why: failure.line(), wait, spent }).await;
                    self.desk.clock.sleep(wait).await;
                }
            }
        }
    }
}

async fn tell(out: Option<&Sender<Item>>, event: ModelEvent) {
    if let Some(out) = out {
        // Without a reader there is nobody to tell.
        drop(out.send(Ok(event)).await);
    }
}

/// Spreads the waits of different tasks and steps; the same call waits the same.
fn seed(call: &ModelCall) -> u64 {
    let task = (call.task.0 >> 64) as u64 ^ call.task.0 as u64;
    task.wrapping_add(call.messages.len() as u64)
}

/// Ollama cuts a long prompt without a word, so it is refused here.
///
/// # Errors
/// `TooLong`.
pub fn fits(call: &ModelCall, target: &Target) -> Result<(), ModelError> {
    let needed = crate::answer::estimate_input(call);
    if target.wire == Wire::Ollama && needed > target.card.context_tokens {
        return Err(ModelError::TooLong { limit: Some(target.card.context_tokens) });
    }
    Ok(())
}
