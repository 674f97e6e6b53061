//! Event streams: server-sent events, resumable by number.
//!
//! The id of each event is its LSN; live progress has none. A comment goes out every 15 s.
//! Invariant: a stream that starts after N sends the same events as one that started at 0 and
//! passed N.

use super::ServerState;
use super::answer::{Answer, bad};
use super::tasks::{find, flag, known_only, number};
use crate::wire::{self, Envelope, Facts, Problem};
use axum::extract::{Path, Query, State};
use axum::http::HeaderMap;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::Fault;
use tinkerbell_core::event::Placed;
use tinkerbell_core::port::{Runtime, Seen};
use tinkerbell_core::words::{Lsn, TaskId};
use tokio_util::sync::CancellationToken;

const KEEP_ALIVE: Duration = Duration::from_secs(15);

type Events = Sse<axum::response::sse::KeepAliveStream<BoxStream<'static, Result<Event, Infallible>>>>;

pub(super) async fn task(
    State(state): State<ServerState>,
    Path(prefix): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Result<Events, Answer> {
    let task = find(&state, &prefix).await?.task;
    open(&state, Some(task.id), &query, &headers)
}

pub(super) async fn all(
    State(state): State<ServerState>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
) -> Result<Events, Answer> {
    open(&state, None, &query, &headers)
}

fn open(state: &ServerState, task: Option<TaskId>, query: &BTreeMap<String, String>, headers: &HeaderMap) -> Result<Events, Answer> {
    known_only(query, &["after", "live", "follow"])?;
    let after = Lsn(start(query, headers)?);
    let publisher = Publisher {
        runtime: Arc::clone(&state.runtime),
        clock: Arc::clone(&state.clock),
        seen: state.runtime.watch(task, after),
        stop: state.stop.clone(),
        facts: HashMap::new(),
        is_whole: after == Lsn(0),
        has_live: flag(query, "live", false)?,
        follows: flag(query, "follow", true)?,
        is_over: false,
    };
    let events = publisher.events().boxed();
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}

/// The number after which to start: `Last-Event-ID` wins, because a reconnecting browser repeats
/// the old address.
fn start(query: &BTreeMap<String, String>, headers: &HeaderMap) -> Result<u64, Fault> {
    let Some(value) = headers.get("last-event-id") else { return Ok(number(query, "after")?.unwrap_or(0)) };
    let text = value.to_str().unwrap_or_default();
    text.parse().map_err(|_| bad(format!("`Last-Event-ID` must be a number, not `{text}`")))
}

/// Turns what the engine shows into server-sent events.
struct Publisher {
    runtime: Arc<dyn Runtime>,
    clock: Arc<dyn Clock>,
    seen: BoxStream<'static, Result<Seen, Fault>>,
    stop: CancellationToken,
    facts: HashMap<TaskId, Facts>,
    /// Whether the stream began at 0, so that `facts` never misses anything.
    is_whole: bool,
    has_live: bool,
    follows: bool,
    is_over: bool,
}

impl Publisher {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> + Send {
        stream::unfold(self, |mut publisher| -> BoxFuture<'static, _> {
            Box::pin(async move {
                let event = publisher.next().await?;
                Some((Ok(event), publisher))
            })
        })
    }

    async fn next(&mut self) -> Option<Event> {
        while !self.is_over {
            // Both branches are cancel safe: a stream's `next` and a token's `cancelled`.
            let seen = tokio::select! {
                () = self.stop.cancelled() => return None,
                seen = self.seen.next() => seen?,
            };
            let event = match seen {
                Ok(Seen::Event(placed)) => self.publish(&placed).await,
                Ok(Seen::Live(live)) if self.has_live => encode(&wire::live(&live, self.clock.now().wall_ms)),
                Ok(Seen::Live(_)) => None,
                Ok(Seen::CaughtUp(lsn)) => {
                    self.is_over = !self.follows;
                    Some(Event::default().event("caught-up").data(lsn.to_string()))
                }
                Err(fault) => {
                    self.is_over = true;
                    let problem = serde_json::to_string(&Problem::new(&fault)).unwrap_or_default();
                    Some(Event::default().event("problem").data(problem))
                }
            };
            if event.is_some() {
                return event;
            }
        }
        None
    }

    async fn publish(&mut self, placed: &Placed) -> Option<Event> {
        if !self.is_whole && !self.facts.contains_key(&placed.task) && Facts::needed_by(&placed.event) {
            let facts = history(Arc::clone(&self.runtime), placed.task, placed.lsn).await;
            self.facts.insert(placed.task, facts);
        }
        let none = Facts::default();
        let published = wire::envelope(placed, self.facts.get(&placed.task).unwrap_or(&none));
        if self.is_whole {
            self.facts.entry(placed.task).or_default().absorb(&placed.event);
        } else if let Some(facts) = self.facts.get_mut(&placed.task) {
            facts.absorb(&placed.event);
        }
        encode(&published?)
    }
}

/// What the task's records before `until` say; read once per task of a resumed stream.
async fn history(runtime: Arc<dyn Runtime>, task: TaskId, until: Lsn) -> Facts {
    let mut facts = Facts::default();
    let mut past = runtime.watch(Some(task), Lsn(0));
    while let Some(Ok(Seen::Event(placed))) = past.next().await {
        if placed.lsn >= until {
            break;
        }
        facts.absorb(&placed.event);
    }
    facts
}

fn encode(envelope: &Envelope) -> Option<Event> {
    let data = serde_json::to_string(envelope).ok()?;
    let event = Event::default().data(data);
    Some(match envelope.lsn {
        Some(lsn) => event.id(lsn.to_string()),
        None => event,
    })
}
