//! The courier's life: takes orders, carries them to their end, and serves who asks.
//!
//! A connection that breaks changes nothing for a call; only `Cancel` ends one. Events go to the
//! spool first and from there to whoever follows, so a slow or dead daemon holds nobody back and no
//! queue grows. Invariant: the provider is asked only after the call's head is on disk.

use super::format::{Event, Head, Kind, VERSION as FORMAT};
use super::socket::{Conn, Place, send};
use super::spool::{Kept, Pen, Spools};
use super::wire::{Attach, MESSAGE_MAX_BYTES, Nothing, Reply, Request, Said, VERSION, Wanted, Welcome};
use super::{CourierHome, convert};
use crate::answer;
use crate::desk::{Desk, Order};
use crate::fault;
use futures_util::StreamExt as _;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::str::FromStr as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_core::effect::HALT_MARK;
use tinkerbell_core::model::CallId;
use tinkerbell_secret::{Known, Named};
use tokio::net::unix::OwnedWriteHalf;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// A courier that nobody needs ends after this long.
const IDLE: Duration = Duration::from_secs(600);
/// How often it looks whether anybody needs it.
const LOOK: Duration = Duration::from_secs(10);
/// A follower hears at least this often that the call still runs.
const BEAT: Duration = Duration::from_secs(5);
/// How often the mark is looked for that ends all calls.
const MARK: Duration = Duration::from_millis(200);
/// First word of a connection.
const HELLO: Duration = Duration::from_secs(10);
/// Most connections at once.
const CONNECTIONS: usize = 128;
/// Most calls at once.
const CALLS: usize = 64;

struct Courier {
    spools: Spools,
    desk: Arc<Desk>,
    clock: Arc<dyn Clock>,
    /// Every secret that an order brought: for the spools, and for our log.
    known: Arc<Known>,
    release: String,
    words: convert::Words,
    running: Mutex<HashMap<CallId, Running>>,
    connections: AtomicUsize,
    leave: Notify,
    /// The mark that ends all calls.
    mark: PathBuf,
}

#[derive(Clone)]
struct Running {
    progress: watch::Receiver<Progress>,
    cancel: CancellationToken,
}

/// How far a call has come.
#[derive(Clone, Default)]
struct Progress {
    /// Rings with each event.
    events: u64,
    /// Set when the disk takes no more: why.
    lost: Option<String>,
    /// Nothing follows.
    is_over: bool,
}

/// Serves a home until nobody needs it. `ready` is called once the socket listens; `false` comes
/// back when another courier serves this home.
///
/// # Errors
/// When directory, lock or socket can not be used.
pub async fn serve(home: CourierHome, known: Arc<Known>, clock: Arc<dyn Clock>, ready: impl FnOnce()) -> io::Result<bool> {
    let place = Place::new(&home.data);
    place.make()?;
    let Some(_lock) = place.lock()? else { return Ok(false) };
    let listener = place.bind()?;
    let courier = Arc::new(Courier {
        mark: home.data.join(HALT_MARK),
        spools: home.spools(),
        desk: Desk::new(home.cache.as_ref(), clock.clone()),
        clock,
        known,
        release: home.release,
        words: convert::Words::default(),
        running: Mutex::default(),
        connections: AtomicUsize::new(0),
        leave: Notify::new(),
    });
    ready();
    tracing::info!(pid = std::process::id(), "ready");
    tokio::select! {
        error = accept(&courier, listener) => return Err(error),
        () = courier.unneeded() => tracing::info!("nobody needs the courier; it leaves"),
        () = courier.leave.notified() => tracing::info!("asked to leave"),
        () = courier.halted() => tracing::warn!("all effects are halted; the calls under way end"),
    }
    Ok(true)
}

async fn accept(courier: &Arc<Courier>, listener: tokio::net::UnixListener) -> io::Error {
    let mut failures = 0;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                failures = 0;
                if courier.connections.fetch_add(1, Ordering::Relaxed) >= CONNECTIONS {
                    courier.connections.fetch_sub(1, Ordering::Relaxed);
                    continue;
                }
                let courier = courier.clone();
                tokio::spawn(async move {
                    let served = match Conn::of(stream) {
                        Ok(conn) => courier.serve(conn).await,
                        Err(error) => Err(error),
                    };
                    courier.connections.fetch_sub(1, Ordering::Relaxed);
                    if let Err(error) = served {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            Err(error) if failures > 100 => return error,
            Err(error) => {
                failures += 1;
                tracing::warn!(%error, "a connection was not taken");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

const fn reply(said: Said) -> Reply {
    Reply { said: Some(said) }
}

impl Courier {
    fn running(&self) -> MutexGuard<'_, HashMap<CallId, Running>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn unneeded(&self) {
        let mut idle = Duration::ZERO;
        while idle < IDLE {
            tokio::time::sleep(LOOK).await;
            let needed = self.connections.load(Ordering::Relaxed) > 0 || !self.running().is_empty();
            idle = if needed { Duration::ZERO } else { idle + LOOK };
        }
    }

    /// Completes when all effects are halted. Looked for here, too, because no daemon may live to tell.
    async fn halted(&self) {
        while !stands(&self.mark) {
            tokio::time::sleep(MARK).await;
        }
    }

    async fn serve(self: &Arc<Self>, mut conn: Conn) -> io::Result<()> {
        let first = timeout(HELLO, conn.hears.next::<Request>(MESSAGE_MAX_BYTES)).await??;
        let Some(Wanted::Hello(hello)) = first.and_then(|request| request.wanted) else {
            return send(&mut conn.speaks, &reply(Said::Refused("it did not say hello".to_owned()))).await;
        };
        let calls = u32::try_from(self.running().len()).unwrap_or(u32::MAX);
        let welcome = Welcome { wire: VERSION, release: self.release.clone(), pid: std::process::id(), calls };
        send(&mut conn.speaks, &reply(Said::Welcome(welcome))).await?;
        // A daemon holds one connection open only to say that it lives, so this wait has no end but
        // the peer's; what is asked for has its own.
        while let Some(request) = conn.hears.next::<Request>(MESSAGE_MAX_BYTES).await? {
            let Some(wanted) = request.wanted else {
                send(&mut conn.speaks, &reply(Said::Refused("that is unknown here".to_owned()))).await?;
                continue;
            };
            let speaks_alike = hello.wire == VERSION;
            match wanted {
                Wanted::Leave(_) => {
                    let is_idle = self.running().is_empty();
                    let said = if is_idle { Said::Leaving(Nothing {}) } else { Said::Refused("a call runs".to_owned()) };
                    send(&mut conn.speaks, &reply(said)).await?;
                    if is_idle {
                        self.leave.notify_one();
                        return Ok(());
                    }
                }
                _ if !speaks_alike => send(&mut conn.speaks, &reply(Said::Refused("another version".to_owned()))).await?,
                Wanted::Hello(_) => {}
                Wanted::Cancel(id) => {
                    self.cancel(&id).await;
                    send(&mut conn.speaks, &reply(Said::Done(Nothing {}))).await?;
                }
                Wanted::Order(order) => match self.begin(*order) {
                    Ok(id) => self.follow(&mut conn, id, 0).await?,
                    Err(fault) => send(&mut conn.speaks, &failed(&fault)).await?,
                },
                Wanted::Attach(Attach { id, from }) => match CallId::from_str(&id) {
                    Ok(id) => self.follow(&mut conn, id, from).await?,
                    Err(_) => send(&mut conn.speaks, &reply(Said::Unknown(Nothing {}))).await?,
                },
            }
        }
        Ok(())
    }

    /// Ends a call and waits until that is written down.
    async fn cancel(&self, id: &str) {
        let Some(mut running) = CallId::from_str(id).ok().and_then(|id| self.running().get(&id).cloned()) else { return };
        running.cancel.cancel();
        // The call's own end of the channel goes with it, so this ends either way.
        let ended = timeout(BEAT, running.progress.wait_for(|progress| progress.is_over)).await;
        drop(ended);
    }

    /// Starts a call that was not made before.
    fn begin(self: &Arc<Self>, order: super::wire::Order) -> Result<CallId, Fault> {
        if stands(&self.mark) {
            return Err(Fault::halted("all effects are halted; no model was asked"));
        }
        let order = convert::read_order(order, &self.words).map_err(|why| fault::courier_mute(&why))?;
        let id = order.call.id();
        // Held until the spool stands, so that one call never begins twice.
        let mut running = self.running();
        if running.contains_key(&id) {
            return Ok(id);
        }
        if running.len() >= CALLS {
            return Err(Fault::new("TB-ROUTER-020", exit::UNAVAILABLE, "the courier carries as many calls as it can").transient());
        }
        let broken = |error: io::Error| fault::spool(&error.to_string());
        if self.spools.look(id).map_err(broken)? != Kept::Nothing {
            return Ok(id);
        }
        let head = Head {
            version: FORMAT,
            id: id.to_string(),
            model: order.call.model.clone(),
            started_ms: self.clock.now().wall_ms,
            input_tokens: answer::estimate_input(&order.call),
        };
        self.known.learn(named(&order));
        let pen = self.spools.create(id, &head, self.known.redactor()).map_err(broken)?;
        let (tx, progress) = watch::channel(Progress::default());
        let cancel = CancellationToken::new();
        running.insert(id, Running { progress, cancel: cancel.clone() });
        tokio::spawn(self.clone().carry(order, pen, tx, cancel));
        Ok(id)
    }

    /// Brings one call to its end.
    async fn carry(self: Arc<Self>, order: Order, mut pen: Pen, progress: watch::Sender<Progress>, cancel: CancellationToken) {
        let id = order.call.id();
        let mut stream = self.desk.stream(order);
        let mut lost = None;
        loop {
            // Both branches are cancel safe; the stream is dropped, and its connection closed, only
            // when the call is to end.
            let item = tokio::select! {
                biased;
                () = cancel.cancelled() => None,
                item = stream.next() => item,
            };
            // A small write to the page cache is quicker than handing it to another thread.
            let (written, is_last) = match &item {
                Some(item) => (pen.write(item), !matches!(item, Ok(event) if !is_done(event))),
                None => (pen.cancelled(), true),
            };
            if let Err(error) = written {
                lost = Some(error.to_string());
                break;
            }
            if is_last {
                break;
            }
            progress.send_modify(|progress| progress.events += 1);
        }
        drop(stream);
        if let Some(error) = &lost {
            tracing::error!(%id, error, "an answer can not be written down");
        }
        self.running().remove(&id);
        progress.send_modify(|progress| {
            progress.is_over = true;
            progress.lost.clone_from(&lost);
        });
        // Who follows has the end already; the sync is for power cuts while no daemon lives.
        if let Ok(file) = pen.file() {
            let synced = tokio::task::spawn_blocking(move || file.sync_data()).await;
            if !matches!(synced, Ok(Ok(()))) {
                tracing::warn!(%id, "a spool was not synced");
            }
        }
    }

    /// Sends a call's events from number `from` on, until its end; a `Cancel` meanwhile is obeyed.
    async fn follow(&self, conn: &mut Conn, id: CallId, from: u64) -> io::Result<()> {
        let Conn { hears, speaks } = conn;
        let running = self.running().get(&id).cloned();
        let cancel = running.as_ref().map(|running| running.cancel.clone());
        let sending = self.send_events(speaks, id, from, running);
        tokio::pin!(sending);
        loop {
            tokio::select! {
                sent = &mut sending => return sent,
                request = hears.next::<Request>(MESSAGE_MAX_BYTES) => match request?.and_then(|request| request.wanted) {
                    Some(Wanted::Cancel(_)) => cancel.iter().for_each(CancellationToken::cancel),
                    // The daemon is gone, or says what has no place here: the call goes on alone.
                    _ => return Err(io::ErrorKind::ConnectionAborted.into()),
                },
            }
        }
    }

    async fn send_events(&self, speaks: &mut OwnedWriteHalf, id: CallId, from: u64, running: Option<Running>) -> io::Result<()> {
        let Some((_, mut reader)) = self.spools.read(id)? else {
            return send(speaks, &reply(Said::Unknown(Nothing {}))).await;
        };
        let mut progress = running.map(|running| running.progress);
        let mut number = 0;
        loop {
            // Looked at before reading, so that nothing written since is missed.
            let seen = progress.as_mut().map(|progress| progress.borrow_and_update().clone());
            while let Some(event) = reader.event()? {
                let is_last = event.is_last();
                if number >= from {
                    send(speaks, &reply(Said::Event(event))).await?;
                }
                number += 1;
                if is_last {
                    return Ok(());
                }
            }
            match (seen, &mut progress) {
                (Some(Progress { lost: Some(why), .. }), _) => return send(speaks, &failed(&fault::spool(&why))).await,
                (Some(Progress { is_over: false, .. }), Some(progress)) => {
                    if timeout(BEAT, progress.changed()).await.is_err() {
                        send(speaks, &reply(Said::Alive(Nothing {}))).await?;
                    }
                }
                // It is over, or was before we came, without an end on disk.
                _ => return send(speaks, &reply(Said::Unknown(Nothing {}))).await,
            }
        }
    }
}

/// Whether a mark stands. One that can not be looked at counts.
pub(super) fn stands(mark: &Path) -> bool {
    mark.symlink_metadata().map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true)
}

const fn is_done(event: &tinkerbell_core::model::ModelEvent) -> bool {
    matches!(event, tinkerbell_core::model::ModelEvent::Done(_))
}

fn failed(fault: &Fault) -> Reply {
    reply(Said::Event(Event::of(Kind::Failed(convert::of_fault(fault, &str::to_owned)))))
}

/// All secrets of an order by name; the key's own name stands with the target.
fn named(order: &Order) -> Vec<Named> {
    let key = order.key.clone().map(|key| (order.target.keys.first().cloned().unwrap_or_else(|| "KEY".to_owned()), key));
    order.secrets.iter().cloned().chain(key).collect()
}
