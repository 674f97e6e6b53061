//! The daemon's side: starts the courier, hands it calls, and fetches what is kept of them.
//!
//! Disk is asked first: a spool that has its end needs no courier. Invariant: a call is handed over
//! only when its spool shows that the provider was never asked.

use super::format::{Event, Kind};
use super::serve::stands;
use super::socket::{Conn, Place, pack, send};
use super::spool::{Kept, Spools};
use super::wire::{Attach, Hello, MESSAGE_MAX_BYTES, Nothing, Reply, Request, Said, VERSION, Wanted};
use super::{CourierOptions, convert};
use crate::attempt::Item;
use crate::desk::Order;
use crate::fault;
use std::collections::HashSet;
use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::Fault;
use tinkerbell_core::effect::HALT_MARK;
use tinkerbell_core::model::{CallId, Completion, ModelError, ModelEvent};
use tinkerbell_core::words::{RunId, Seq, TaskId};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

/// A courier that does not listen within this time was not started.
const START: Duration = Duration::from_secs(10);
/// One word and its answer.
const ANSWER: Duration = Duration::from_secs(5);
/// A courier that is silent for this long, without a beat, is stuck.
const SILENCE: Duration = Duration::from_secs(60);
/// After a failed start, calls go without a courier for this long.
const REFUSED_MS: u64 = 30_000;
/// How often a broken connection is made anew within one call.
const RECONNECTS: u32 = 5;
/// The log is begun anew beyond this size.
const LOG_BYTES: u64 = 4 << 20;

/// How a call went.
pub enum Carried {
    /// The courier had or got the answer.
    Answer(Box<Completion>),
    /// There is no courier: the order is given back, unasked.
    Alone(Box<Order>),
}

/// The way to one home's courier.
pub struct Link {
    options: CourierOptions,
    place: Place,
    spools: Spools,
    words: convert::Words,
    clock: Arc<dyn Clock>,
    /// Held open so that the courier knows that a daemon lives; the lock makes starts one by one.
    stays: tokio::sync::Mutex<Option<Conn>>,
    is_leaving: Arc<AtomicBool>,
    refused: Mutex<Option<(u64, String)>>,
    /// Tasks that may have spools.
    tasks: Mutex<HashSet<TaskId>>,
}

/// How listening to a call ended without its last event.
enum Broken {
    /// The courier does not know it.
    Unknown,
    /// The connection is gone.
    Gone,
}

impl Link {
    /// A link; starts nothing yet.
    pub fn new(options: CourierOptions, clock: Arc<dyn Clock>) -> Arc<Self> {
        let spools = options.home.spools();
        let tasks = spools.list().into_iter().map(|id| id.task).collect();
        Arc::new(Self {
            place: Place::new(&options.home.data),
            spools,
            words: convert::Words::default(),
            clock,
            stays: tokio::sync::Mutex::new(None),
            is_leaving: Arc::new(AtomicBool::new(false)),
            refused: Mutex::new(None),
            tasks: Mutex::new(tasks),
            options,
        })
    }

    /// Brings a call to its end: from disk, from the courier that carries it, or by a new order.
    ///
    /// # Errors
    /// What the call came to; `Cut` when nobody carries it any more.
    pub async fn carry(
        &self,
        id: CallId,
        order: impl FnOnce() -> Result<Order, ModelError> + Send,
        out: &Sender<Item>,
    ) -> Result<Carried, ModelError> {
        self.tasks().insert(id.task);
        let mut is_new = false;
        let conn = match self.look(id)? {
            Kept::Whole => return self.deliver(id, 0, out).await,
            Kept::Part => self.attach(id, 0).await?,
            Kept::Nothing => {
                let order = order()?;
                is_new = true;
                let handed = self.hand_over(&order).await;
                // A courier that dies of the halt can not be told from one that does not start.
                if handed.is_err() && stands(&self.options.home.data.join(HALT_MARK)) {
                    return Err(Fault::halted("all effects are halted; no model was asked").into());
                }
                match handed {
                    Ok(conn) => Some(conn),
                    Err(why) => {
                        tracing::warn!(%id, why, "no courier; the daemon asks the provider itself");
                        return Ok(Carried::Alone(Box::new(order)));
                    }
                }
            }
        };
        let mut conn = conn.map(|conn| Listening::new(conn, id, self.is_leaving.clone()));
        let mut heard = 0;
        for _ in 0..RECONNECTS {
            let broken = match &mut conn {
                Some(listening) => match self.hear(listening, &mut heard, out).await {
                    Ok(last) => return self.end(id, last, is_new),
                    Err(broken) => broken,
                },
                None => Broken::Unknown,
            };
            is_new |= heard > 0;
            if self.look(id)? == Kept::Whole {
                return self.deliver(id, heard, out).await;
            }
            if matches!(broken, Broken::Unknown) {
                return Err(self.cut_off(id, is_new, heard, out).await);
            }
            conn = self.attach(id, heard).await?.map(|conn| Listening::new(conn, id, self.is_leaving.clone()));
        }
        Err(fault::courier_mute("its connection broke again and again").into())
    }

    fn tasks(&self) -> MutexGuard<'_, HashSet<TaskId>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn look(&self, id: CallId) -> Result<Kept, ModelError> {
        self.spools.look(id).map_err(|error| fault::spool(&error.to_string()).into())
    }

    /// Gives the events of a spool that has its end, those after the first `heard`.
    async fn deliver(&self, id: CallId, heard: u64, out: &Sender<Item>) -> Result<Carried, ModelError> {
        let broken = |error: io::Error| fault::spool(&error.to_string());
        let Some((_, mut reader)) = self.spools.read(id).map_err(broken)? else {
            return Err(fault::spool("it is gone").into());
        };
        let mut number = 0;
        while let Some(event) = reader.event().map_err(broken)? {
            if event.is_last() {
                return self.end(id, event, false);
            }
            if number >= heard {
                self.tell(event, out).await;
            }
            number += 1;
        }
        Err(fault::spool("its end is gone").into())
    }

    async fn tell(&self, event: Event, out: &Sender<Item>) {
        if let Some(item) = convert::item(event, &self.words) {
            // Without a reader there is nobody to tell.
            drop(out.send(item).await);
        }
    }

    /// What the last event means. Only answers, and refusals that every daemon must meet again, are
    /// kept: whoever asks again after a failure wants the provider's word, not ours.
    fn end(&self, id: CallId, last: Event, is_new: bool) -> Result<Carried, ModelError> {
        if matches!(last.kind, Some(Kind::Cancelled(_))) {
            let cut = self.spools.cut(id, is_new).map_err(|error| fault::spool(&error.to_string()))?;
            return Err(ModelError::Cut(Box::new(cut)));
        }
        match convert::item(last, &self.words) {
            Some(Ok(ModelEvent::Done(done))) => Ok(Carried::Answer(done)),
            Some(Err(error @ ModelError::TooLong { .. })) => Err(error),
            Some(Err(error)) => {
                self.spools.remove(id);
                Err(error)
            }
            _ => Err(fault::courier_mute("it ended without an end").into()),
        }
    }

    /// A call that nobody carries: shows what of its text was not shown yet.
    async fn cut_off(&self, id: CallId, is_new: bool, heard: u64, out: &Sender<Item>) -> ModelError {
        let cut = match self.spools.cut(id, is_new) {
            Ok(cut) => cut,
            Err(error) => return fault::spool(&error.to_string()).into(),
        };
        if heard == 0 && !cut.text.is_empty() {
            // Without a reader there is nobody to tell.
            drop(out.send(Ok(ModelEvent::Text(cut.text.clone()))).await);
        }
        tracing::warn!(%id, bytes = cut.text.len(), "an answer was cut off with its courier");
        ModelError::Cut(Box::new(cut))
    }

    /// Passes events on until the last one, which it gives back.
    async fn hear(&self, listening: &mut Listening, heard: &mut u64, out: &Sender<Item>) -> Result<Event, Broken> {
        loop {
            let next = match &mut listening.conn {
                Some(conn) => timeout(SILENCE, conn.hears.next::<Reply>(MESSAGE_MAX_BYTES)).await,
                None => return Err(Broken::Gone),
            };
            let Ok(Ok(Some(reply))) = next else {
                listening.conn = None;
                return Err(Broken::Gone);
            };
            match reply.said {
                Some(Said::Event(event)) if event.is_last() => {
                    listening.conn = None;
                    return Ok(event);
                }
                Some(Said::Event(event)) => {
                    *heard += 1;
                    self.tell(event, out).await;
                }
                Some(Said::Unknown(_)) => {
                    listening.conn = None;
                    return Err(Broken::Unknown);
                }
                // A beat, or a word of a later release.
                _ => {}
            }
        }
    }

    /// A connection on which the events of a call come; `None` when no courier lives.
    async fn attach(&self, id: CallId, from: u64) -> Result<Option<Conn>, ModelError> {
        for _ in 0..RECONNECTS {
            match self.greet().await {
                Ok((_, false)) => return Err(fault::courier_mute("a courier of another release has the call and will end it").into()),
                Ok((mut conn, true)) => {
                    let attach = request(Wanted::Attach(Attach { id: id.to_string(), from }));
                    if send(&mut conn.speaks, &attach).await.is_ok() {
                        return Ok(Some(conn));
                    }
                }
                Err(_) if self.place.holder().is_none() => return Ok(None),
                Err(error) => {
                    tracing::debug!(%error, "the courier lives and does not listen");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
        Err(fault::courier_mute("it lives and does not listen").into())
    }

    /// Hands a new call over, to a courier that is started when there is none.
    async fn hand_over(&self, order: &Order) -> Result<Conn, String> {
        let mut conn = self.connected().await?;
        let mut words = request(Wanted::Order(Box::new(convert::order(order))));
        let sent = send(&mut conn.speaks, &words).await.map_err(|error| error.to_string());
        if let Some(Wanted::Order(order)) = &mut words.wanted {
            zeroize::Zeroize::zeroize(&mut order.key);
        }
        sent.map(|()| conn)
    }

    /// Connects and says hello; tells whether both speak the same version.
    async fn greet(&self) -> io::Result<(Conn, bool)> {
        let mut conn = self.place.connect().await?;
        let hello = Hello { wire: VERSION, release: self.options.home.release.clone() };
        send(&mut conn.speaks, &request(Wanted::Hello(hello))).await?;
        match timeout(ANSWER, conn.hears.next::<Reply>(MESSAGE_MAX_BYTES)).await??.and_then(|reply| reply.said) {
            Some(Said::Welcome(welcome)) => Ok((conn, welcome.wire == VERSION)),
            _ => Err(io::Error::other("it does not know our hello")),
        }
    }

    async fn connected(&self) -> Result<Conn, String> {
        if let Ok((conn, true)) = self.greet().await {
            return Ok(conn);
        }
        let mut stays = self.stays.lock().await;
        let known = self.refused().clone();
        if let Some((_, why)) = known.filter(|(at_ms, _)| self.clock.now().mono_ms.saturating_sub(*at_ms) < REFUSED_MS) {
            return Err(why);
        }
        let started = async {
            *stays = Some(self.started().await?);
            let (conn, _) = self.greet().await.map_err(|error| error.to_string())?;
            Ok(conn)
        }
        .await;
        self.note(started.as_ref().err());
        started
    }

    /// The first connection to a courier, started if need be.
    async fn started(&self) -> Result<Conn, String> {
        match self.greet().await {
            Ok((conn, true)) => return Ok(conn),
            Ok((conn, false)) => {
                if !self.ask_to_leave(conn).await {
                    return Err("a courier of another release carries calls still".to_owned());
                }
            }
            Err(_) => {}
        }
        self.spawn().await?;
        let (conn, speaks_alike) = self.greet().await.map_err(|error| format!("it was started and does not answer: {error}"))?;
        if speaks_alike { Ok(conn) } else { Err("a courier of another release serves this home".to_owned()) }
    }

    async fn spawn(&self) -> Result<(), String> {
        let words = |error: &dyn std::fmt::Display| format!("it could not be started: {error}");
        self.place.make().map_err(|error| words(&error))?;
        let (program, args) = self.options.command.split_first().ok_or("it has no command")?;
        if self.options.log.metadata().is_ok_and(|meta| meta.len() > LOG_BYTES) {
            // Losing an old log is better than having no courier.
            drop(std::fs::rename(&self.options.log, self.options.log.with_extension("log.old")));
        }
        let log = OpenOptions::new().create(true).append(true).mode(0o600).open(&self.options.log).map_err(|error| words(&error))?;
        let mut child = tokio::process::Command::new(program)
            .args(args)
            .env_clear()
            .envs(self.options.env.iter().cloned())
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(log))
            .spawn()
            .map_err(|error| words(&error))?;
        let out = child.stdout.take().ok_or("it has no output")?;
        let mut line = String::new();
        let read = timeout(START, BufReader::new(out).read_line(&mut line)).await;
        // It is not waited for: it outlives us, and the runtime reaps it if it does not.
        match (read, line.trim()) {
            (Ok(Ok(_)), super::READY | super::TAKEN) => Ok(()),
            (Err(_), _) => Err(format!("it was not ready within {} s", START.as_secs())),
            _ => Err(format!("it ended at once; its log is {}", self.options.log.display())),
        }
    }

    fn refused(&self) -> MutexGuard<'_, Option<(u64, String)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes for `doctor` whether there is a courier.
    fn note(&self, why: Option<&String>) {
        *self.refused() = why.map(|why| (self.clock.now().mono_ms, why.clone()));
        let noted = match why {
            Some(why) => std::fs::write(self.place.refused(), why),
            None => match std::fs::remove_file(self.place.refused()) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            },
        };
        if let Err(error) = noted {
            tracing::debug!(%error, "how the courier stands was not noted");
        }
    }

    /// Lets go of calls; those that run are cancelled first.
    async fn drop_calls(&self, ids: Vec<CallId>) {
        for id in ids {
            if !matches!(self.spools.look(id), Ok(Kept::Whole)) {
                self.cancel(id).await;
            }
            let spools = self.spools.clone();
            // A removal that fails costs space, and the next sweep tries again.
            drop(tokio::task::spawn_blocking(move || spools.remove(id)).await);
        }
    }

    async fn cancel(&self, id: CallId) {
        let Ok((mut conn, true)) = self.greet().await else { return };
        if send(&mut conn.speaks, &request(Wanted::Cancel(id.to_string()))).await.is_ok() {
            // It waits for the call's end by itself; beyond that the sweep will do.
            drop(timeout(ANSWER * 2, conn.hears.next::<Reply>(MESSAGE_MAX_BYTES)).await);
        }
    }

    /// As [`tinkerbell_core::port::Model::settle`].
    pub async fn settle(&self, task: TaskId, before: Seq) {
        if !self.tasks().contains(&task) {
            return;
        }
        let (gone, left): (Vec<CallId>, Vec<CallId>) =
            self.spools.list().into_iter().filter(|id| id.task == task).partition(|id| id.seq < before);
        self.drop_calls(gone).await;
        if left.is_empty() {
            self.tasks().remove(&task);
        }
    }

    /// As [`tinkerbell_core::port::Model::sweep`].
    pub async fn sweep(&self, open: Vec<RunId>) {
        let open: HashSet<RunId> = open.into_iter().collect();
        let is_known = |id: &CallId| open.contains(&RunId { task: id.task, seq: id.seq });
        let unknown: Vec<CallId> = self.spools.list().into_iter().filter(|id| !is_known(id)).collect();
        if !unknown.is_empty() {
            tracing::info!(count = unknown.len(), "letting go of answers that no task waits for");
        }
        self.drop_calls(unknown).await;
    }

    /// What no spool may hold.
    pub fn known(&self) -> &tinkerbell_secret::Known {
        &self.options.known
    }

    /// From now on dropping a call's stream leaves the call running: the next daemon fetches it.
    pub fn leave(&self) {
        self.is_leaving.store(true, Ordering::SeqCst);
    }

    /// Lets the courier end when it has nothing to carry, and waits a moment until it has.
    pub async fn farewell(&self) {
        drop(self.stays.lock().await.take());
        if let Ok((conn, _)) = self.greet().await {
            self.ask_to_leave(conn).await;
        }
    }

    async fn ask_to_leave(&self, mut conn: Conn) -> bool {
        if send(&mut conn.speaks, &request(Wanted::Leave(Nothing {}))).await.is_err() {
            return false;
        }
        let said = timeout(ANSWER, conn.hears.next::<Reply>(MESSAGE_MAX_BYTES)).await;
        if !matches!(said, Ok(Ok(Some(Reply { said: Some(Said::Leaving(_)) })))) {
            return false;
        }
        let gone = async {
            while self.place.holder().is_some() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(ANSWER, gone).await.is_ok()
    }
}

const fn request(wanted: Wanted) -> Request {
    Request { wanted: Some(wanted) }
}

/// A connection on which a call's events come. Dropping it before the last one cancels the call,
/// unless the daemon leaves.
struct Listening {
    conn: Option<Conn>,
    id: CallId,
    is_leaving: Arc<AtomicBool>,
}

impl Listening {
    const fn new(conn: Conn, id: CallId, is_leaving: Arc<AtomicBool>) -> Self {
        Self { conn: Some(conn), id, is_leaving }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take()
            && !self.is_leaving.load(Ordering::SeqCst)
        {
            // A few bytes on an idle socket are always taken; if not, the sweep ends the call.
            drop(conn.speaks.try_write(&pack(&request(Wanted::Cancel(self.id.to_string())))));
        }
    }
}
