//! The servers of a task: started at first use, found again after a restart, ended with the task.
//!
//! Each message has a number that its keeper delivers once, and that is also the request's id; so a
//! call that was under way when the daemon died is sent again under its number, reaches the server at
//! most once, and its answer is read out of the spool. Invariant: a number is on disk before it is used.

use crate::begin::{self, START, said, send, with_meta};
use crate::error::Error;
use crate::format::{InFlight, Session, Sessions, VERSION};
use crate::offer::{Offer, Pages};
use crate::pin::{Launch, Sums};
use crate::reader::{Allowance, Answer, Reader, Waited};
use crate::server::Server;
use crate::store::{self, Approvals};
use crate::wire::Outgoing;
use bytes::Bytes;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::port::{ExecSpec, Found, Level, Sandbox, Unit};
use tinkerbell_core::tool::ToolContext;
use tinkerbell_core::words::{RunId, SERVICE_SEQ, TaskId};

/// The last number that is kept for beginnings.
const BEGUN: u64 = 15;
/// A server is ended after this long; it is started again when it is needed.
const DEADLINE: Duration = Duration::from_secs(24 * 3600);
/// Most pages of a list of tools.
const MOST_PAGES: u32 = 20;
/// Desks that are remembered; those of ended tasks are forgotten first.
const MOST_DESKS: usize = 256;
/// The signal that ends a server at once.
const KILL: i32 = 9;
/// Most bytes of a call's arguments: a keeper holds one MiB for a program that does not read.
const MOST_ARGS: usize = 256 << 10;

/// The servers that are configured now.
pub type ServersOf = Arc<dyn Fn() -> Vec<Server> + Send + Sync>;

/// All desks.
pub struct Desks {
    pub(crate) sandbox: Arc<dyn Sandbox>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) approvals: Approvals,
    homes: PathBuf,
    servers: ServersOf,
    sums: Arc<Sums>,
    tasks: Mutex<HashMap<TaskId, Arc<tokio::sync::Mutex<Desk>>>>,
}

/// What one task knows of its servers.
#[derive(Default)]
pub struct Desk {
    /// As it stands on disk.
    pub book: Sessions,
    /// Questions to a person, by digest, until they are answered.
    pub asked: HashMap<String, Asked>,
    live: HashMap<String, Live>,
    place: PathBuf,
}

/// What a question was about.
pub enum Asked {
    /// May this program be started?
    Launch(String, Box<Launch>),
    /// May it say this of its tools?
    Tools(String, Offer),
}

struct Live {
    reader: Reader,
    launch: String,
    offer: Option<Offer>,
}

/// What a server says when it is asked outside of a task.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// The program, for a person.
    pub launch: String,
    /// Whether it may be started.
    pub is_launch_agreed: bool,
    /// Tools by name, as anybody is shown them.
    pub tools: std::collections::BTreeMap<String, String>,
    /// What was left out.
    pub notes: Vec<String>,
    /// Whether these very descriptions were agreed to.
    pub is_agreed: bool,
    /// Title and text of what would be asked.
    pub question: (String, String),
    offer: Offer,
    pin: Launch,
}

/// What became of a call.
pub enum Called {
    /// The server answered.
    Answered(Answer),
    /// It was sent by an earlier daemon, and no answer will come.
    Unknown(String),
}

impl Desks {
    /// Desks over a sandbox. `homes` is where the sandbox keeps the private homes of tasks.
    #[must_use]
    pub fn new(sandbox: Arc<dyn Sandbox>, clock: Arc<dyn Clock>, (homes, approvals): (PathBuf, PathBuf), servers: ServersOf) -> Arc<Self> {
        let approvals = Approvals::new(approvals);
        Arc::new(Self { sandbox, clock, approvals, homes, servers, sums: Arc::default(), tasks: Mutex::default() })
    }

    /// The servers that are configured now, by name.
    #[must_use]
    pub fn servers(&self) -> Vec<Server> {
        (self.servers)()
    }

    /// The server of this name.
    ///
    /// # Errors
    /// When there is none, or it can not be used as it is configured.
    pub fn server(&self, name: &str) -> Result<Server, Error> {
        let all = self.servers();
        let known = match all.len() {
            0 => "none is configured".to_owned(),
            _ => format!("there are: {}", all.iter().map(|server| server.name.as_str()).collect::<Vec<_>>().join(", ")),
        };
        let server = all.into_iter().find(|server| server.name == name).ok_or(Error::Unknown { name: name.to_owned(), known })?;
        match server.fault.clone() {
            Some(why) => Err(Error::Configured { name: server.name, why }),
            None => Ok(server),
        }
    }

    /// The desk of a task; what earlier daemons wrote down is read.
    ///
    /// # Errors
    /// When its file can not be read.
    pub async fn desk(&self, task: TaskId) -> Result<Arc<tokio::sync::Mutex<Desk>>, Error> {
        if let Some(desk) = self.tasks().get(&task) {
            return Ok(Arc::clone(desk));
        }
        let place = self.homes.join(task.to_string()).join("services");
        let file = place.join("sessions.json");
        let book = blocking(move || load(&file)).await?;
        let desk = Arc::new(tokio::sync::Mutex::new(Desk { book, place, ..Desk::default() }));
        let mut tasks = self.tasks();
        if tasks.len() >= MOST_DESKS {
            // Whoever works holds its desk. All that is lost is read again.
            tasks.retain(|_, desk| Arc::strong_count(desk) > 1);
        }
        Ok(Arc::clone(tasks.entry(task).or_insert(desk)))
    }

    fn tasks(&self) -> std::sync::MutexGuard<'_, HashMap<TaskId, Arc<tokio::sync::Mutex<Desk>>>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What would be started for a server.
    ///
    /// # Errors
    /// As [`Launch::of`].
    pub async fn launch(&self, ctx: &ToolContext, server: &Server) -> Result<Launch, Error> {
        let path = ctx.env.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.clone());
        let path = path.unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".to_owned());
        let places = [ctx.workspace.tree.clone(), self.homes.join(ctx.task.to_string())];
        let (server, sums) = (server.clone(), Arc::clone(&self.sums));
        blocking(move || {
            let writable: Vec<PathBuf> = places.iter().filter_map(|place| place.canonicalize().ok()).collect();
            Launch::of(&server, &path, (&writable, &sums))
        })
        .await
    }

    /// What a server offers now; it is started if need be, and asked anew each time, so that no change
    /// of its words goes unseen.
    ///
    /// # Errors
    /// When it does not run, or breaks the protocol.
    pub async fn offer(&self, desk: &mut Desk, ctx: &ToolContext, (server, launch): (&Server, &Launch)) -> Result<Offer, Error> {
        let mut live = self.connect(desk, ctx, server, launch).await?;
        match self.list(desk, &mut live, server).await {
            Ok(offer) => {
                live.offer = Some(offer.clone());
                desk.live.insert(server.name.clone(), live);
                Ok(offer)
            }
            Err(error) => Err(end(desk, live, error).await),
        }
    }

    async fn list(&self, desk: &mut Desk, live: &mut Live, server: &Server) -> Result<Offer, Error> {
        let mut pages = Pages::default();
        let mut cursor: Option<String> = None;
        live.reader.changed = false;
        for _ in 0..MOST_PAGES {
            let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
            let number = desk.number(&server.name).await?;
            let page = match self.ask(desk, &mut live.reader, (number, "tools/list", params), server.timeout.max(START)).await? {
                Answer::Result(page) => page,
                Answer::Error(why) => return Err(Error::Refused { name: server.name.clone(), why }),
            };
            cursor = pages.take(server, &page)?.filter(|cursor| cursor.len() <= 4_096);
            if cursor.is_none() {
                return Ok(pages.finish(server));
            }
        }
        Err(Error::Broke { name: server.name.clone(), why: format!("its list of tools has more than {MOST_PAGES} pages") })
    }

    /// Calls a tool whose server was asked for its offer just before.
    ///
    /// # Errors
    /// When the call did not reach the server, or the server failed while it owed the answer.
    pub async fn call(
        &self,
        desk: &mut Desk,
        ctx: &ToolContext,
        server: &Server,
        (tool, args): (&str, &serde_json::Map<String, Value>),
    ) -> Result<Called, Error> {
        let params = json!({ "name": tool, "arguments": args });
        if params.to_string().len() > MOST_ARGS {
            return Err(Error::Refused { name: server.name.clone(), why: "the arguments are larger than 256 KiB".to_owned() });
        }
        let Some(mut live) = desk.live.remove(&server.name) else {
            return Err(Error::Ended { name: server.name.clone(), why: "it ended before the call".to_owned() });
        };
        // The word that tools changed may have come since they were listed.
        if let Err(error) = live.reader.catch_up().await {
            return Err(end(desk, live, error).await);
        }
        if live.reader.changed {
            desk.live.insert(server.name.clone(), live);
            return Err(Error::Refused { name: server.name.clone(), why: "its tools changed just now; send the call again".to_owned() });
        }
        let number = desk.begin_call(&server.name, ctx.seq).await?;
        match self.ask(desk, &mut live.reader, (number, "tools/call", params), server.timeout).await {
            Ok(answer) => {
                desk.live.insert(server.name.clone(), live);
                Ok(Called::Answered(answer))
            }
            Err(error) => Err(end(desk, live, error).await),
        }
    }

    /// The call of this effect that an earlier daemon may have sent; `None` when there was none.
    ///
    /// # Errors
    /// When the house fails; never for what the server does.
    pub async fn recover(
        &self,
        desk: &mut Desk,
        ctx: &ToolContext,
        server: &Server,
        (tool, args): (&str, &serde_json::Map<String, Value>),
    ) -> Result<Option<Called>, Error> {
        let Some((session, call)) = desk.in_flight(&server.name, ctx.seq) else { return Ok(None) };
        let run = RunId { task: ctx.task, seq: session.run };
        let unknown = |why: String| Ok(Some(Called::Unknown(why)));
        let (unit, is_lost) = match self.sandbox.attach(run).await.map_err(|fault| Error::House(fault.message))? {
            Found::Unit(unit) => (unit, false),
            Found::Lost(unit) => (unit, true),
            Found::NeverRan => return unknown("nothing is left of the server".to_owned()),
        };
        let mut reader = Reader::new(&server.name, unit, Arc::clone(&self.clock));
        reader.adopt();
        let end_ms = self.clock.now().mono_ms.saturating_add(millis(server.timeout));
        if !is_lost && reader.is_running().await {
            // The beginning of the conversation tells the revision; it stands in the spool.
            if let Err(error) = begin::greet(self.clock.as_ref(), &mut reader).await {
                return unknown(error.to_string());
            }
            let params = with_meta(json!({ "name": tool, "arguments": args }), reader.era);
            // Under its old number: if it reached the keeper before, it is not delivered again.
            let sent = reader.unit.stdin(call.number, Outgoing::request(call.number, "tools/call", params).line().into()).await;
            if let Err(fault) = sent {
                tracing::debug!(%run, %fault, "a call was not sent again");
            }
        }
        let mut allowance = Allowance::history();
        loop {
            match reader.wait(&[call.number], end_ms, &mut allowance).await {
                Ok(Waited::Answered(_, answer)) => {
                    let live = Live { reader, launch: session.launch, offer: None };
                    desk.live.insert(server.name.clone(), live);
                    return Ok(Some(Called::Answered(answer)));
                }
                Ok(Waited::Asked(replies)) => self.reply(desk, &reader, replies).await?,
                Ok(Waited::Late) => return unknown(format!("the server gave no answer within {} s", server.timeout.as_secs())),
                Ok(Waited::Gone(words)) => return unknown(format!("the server is gone{}", said(&words))),
                Err(error) => return unknown(error.to_string()),
            }
        }
    }

    /// The running server, found or started, and greeted.
    async fn connect(&self, desk: &mut Desk, ctx: &ToolContext, server: &Server, launch: &Launch) -> Result<Live, Error> {
        if let Some(live) = desk.live.remove(&server.name) {
            if live.launch == launch.digest && live.reader.is_running().await {
                return Ok(live);
            }
            kill(live.reader.unit.as_ref()).await;
        }
        let house = |fault: tinkerbell_core::code::Fault| Error::Ended { name: server.name.clone(), why: fault.message };
        let level = self.sandbox.level().await.map_err(house)?;
        if level == Level::None {
            let why = "it would run without a sandbox; set [sandbox] level = \"auto\"".to_owned();
            return Err(Error::Configured { name: server.name.clone(), why });
        }
        let session = desk.book.servers.get(&server.name).cloned().unwrap_or_default();
        let mut unit = None;
        if session.run != 0 {
            let found = self.sandbox.attach(RunId { task: ctx.task, seq: session.run }).await.map_err(house)?;
            if let Found::Unit(found) = found {
                let reader = Reader::new(&server.name, found, Arc::clone(&self.clock));
                if session.launch == launch.digest && reader.is_running().await {
                    unit = Some(reader.unit);
                } else {
                    kill(reader.unit.as_ref()).await;
                }
            }
        }
        let is_found = unit.is_some();
        let unit = match unit {
            Some(unit) => unit,
            None => self.sandbox.start(self.spec(desk, ctx, (server, launch)).await?).await.map_err(house)?,
        };
        let mut reader = Reader::new(&server.name, unit, Arc::clone(&self.clock));
        if is_found {
            reader.adopt();
        }
        let mut greeted = begin::greet(self.clock.as_ref(), &mut reader).await;
        if is_found && greeted.is_ok() {
            // Answers to an earlier daemon are nobody's any more.
            greeted = reader.catch_up().await;
        }
        let live = Live { reader, launch: launch.digest.clone(), offer: None };
        match greeted {
            Ok(()) => Ok(live),
            Err(error) => Err(end(desk, live, error).await),
        }
    }

    /// What is started, under a number of its own that is on disk before.
    async fn spec(&self, desk: &mut Desk, ctx: &ToolContext, (server, launch): (&Server, &Launch)) -> Result<ExecSpec, Error> {
        desk.book.next = desk.book.next.saturating_add(1) % SERVICE_SEQ;
        let seq = SERVICE_SEQ.saturating_add(desk.book.next);
        let session = Session { run: seq, launch: launch.digest.clone(), sent: BEGUN, call: None };
        desk.book.servers.insert(server.name.clone(), session);
        desk.save().await?;
        Ok(ExecSpec {
            run: RunId { task: ctx.task, seq },
            fence: ctx.fence,
            command: String::new(),
            workdir: String::new(),
            workspace: ctx.workspace.clone(),
            env: ctx.env.iter().chain(&server.env).cloned().collect(),
            deadline: DEADLINE,
            limits: ctx.limits,
            service: Some(server.service(launch.argv.clone(), launch.files.clone())),
            approved: None,
        })
    }

    /// Sends a request and waits for its answer.
    async fn ask(
        &self,
        desk: &mut Desk,
        reader: &mut Reader,
        (number, method, params): (u64, &str, Value),
        timeout: Duration,
    ) -> Result<Answer, Error> {
        let end_ms = self.clock.now().mono_ms.saturating_add(millis(timeout));
        send(reader, number, &Outgoing::request(number, method, with_meta(params, reader.era))).await?;
        let mut allowance = Allowance::default();
        loop {
            match reader.wait(&[number], end_ms, &mut allowance).await? {
                Waited::Answered(_, answer) => return Ok(answer),
                Waited::Late => return Err(Error::Late { name: reader.name.clone(), seconds: timeout.as_secs() }),
                Waited::Gone(words) => {
                    let why = format!("it ended before it answered{}", said(&words));
                    return Err(Error::Ended { name: reader.name.clone(), why });
                }
                Waited::Asked(replies) => self.reply(desk, reader, replies).await?,
            }
        }
    }

    async fn reply(&self, desk: &mut Desk, reader: &Reader, replies: Vec<Vec<u8>>) -> Result<(), Error> {
        for line in replies {
            let number = desk.number(&reader.name).await?;
            reader.unit.stdin(number, Bytes::from(line)).await.map_err(|fault| Error::House(fault.message))?;
        }
        Ok(())
    }

    /// Starts a server as a task would, lists its tools, and ends it.
    ///
    /// # Errors
    /// When it does not run, or breaks the protocol.
    pub async fn inspect(&self, ctx: &ToolContext, server: &Server) -> Result<Inspected, Error> {
        let launch = self.launch(ctx, server).await?;
        let desk = self.desk(ctx.task).await?;
        let mut desk = desk.lock().await;
        let offered = self.offer(&mut desk, ctx, (server, &launch)).await;
        if let Err(fault) = self.sandbox.remove(ctx.task).await {
            tracing::warn!(%fault, "what a look at an MCP server left behind was not removed");
        }
        let offer = offered?;
        let known = self.approvals.of(&server.name)?;
        let is_agreed = known.tools.as_ref().is_some_and(|pin| pin.digest == offer.digest);
        Ok(Inspected {
            launch: launch.text.clone(),
            is_launch_agreed: known.launch.is_some_and(|pin| pin.digest == launch.digest),
            tools: offer.tools.clone(),
            notes: offer.notes.clone(),
            is_agreed,
            question: offer.question(server, known.tools.as_ref()),
            offer,
            pin: launch,
        })
    }

    /// Remembers that a person agreed to a server's program by typing its command.
    ///
    /// # Errors
    /// When there is no such program, or it can not be written down.
    pub async fn agree_to_launch(&self, ctx: &ToolContext, server: &Server) -> Result<(), Error> {
        let launch = self.launch(ctx, server).await?;
        self.approvals.agree_launch(&server.name, launch_pin(&launch, self.clock.now().wall_ms))
    }

    /// Remembers that a person agreed to what was inspected.
    ///
    /// # Errors
    /// When it can not be written.
    pub fn agree(&self, server: &Server, seen: &Inspected) -> Result<(), Error> {
        let now_ms = self.clock.now().wall_ms;
        self.approvals.agree_launch(&server.name, launch_pin(&seen.pin, now_ms))?;
        self.approvals.agree_tools(&server.name, seen.offer.pin(now_ms))
    }
}

/// What is remembered of a program.
pub fn launch_pin(launch: &Launch, at_ms: u64) -> crate::format::LaunchPin {
    crate::format::LaunchPin { digest: launch.digest.clone(), text: launch.text.clone(), at_ms }
}

impl Desk {
    /// The offer that the running server made last.
    pub fn offered(&self, server: &str) -> Option<&Offer> {
        self.live.get(server)?.offer.as_ref()
    }

    /// The call of an effect that was begun, with the session that it belongs to.
    pub fn in_flight(&self, server: &str, seq: u32) -> Option<(Session, InFlight)> {
        let session = self.book.servers.get(server)?;
        Some((session.clone(), session.call.filter(|call| call.seq == seq)?))
    }

    /// The next number of a server; on disk before it is used.
    async fn number(&mut self, server: &str) -> Result<u64, Error> {
        let session = self.book.servers.entry(server.to_owned()).or_default();
        session.sent = session.sent.max(BEGUN).saturating_add(1);
        let number = session.sent;
        self.save().await?;
        Ok(number)
    }

    /// The number of a call that begins now.
    async fn begin_call(&mut self, server: &str, seq: u32) -> Result<u64, Error> {
        let session = self.book.servers.entry(server.to_owned()).or_default();
        let number = session.sent.max(BEGUN).saturating_add(1);
        (session.sent, session.call) = (number, Some(InFlight { seq, number }));
        self.save().await?;
        Ok(number)
    }

    /// Writes the book down.
    pub async fn save(&self) -> Result<(), Error> {
        let (book, place) = (self.book.clone(), self.place.clone());
        blocking(move || {
            use std::os::unix::fs::DirBuilderExt as _;
            std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&place).map_err(Error::files(&place))?;
            let file = place.join("sessions.json");
            let bytes = serde_json::to_vec(&book).map_err(|error| Error::files(&file)(error.into()))?;
            store::write(&file, &bytes).map_err(Error::files(&file))
        })
        .await
    }
}

fn load(file: &Path) -> Result<Sessions, Error> {
    let text = match std::fs::read(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Sessions::default()),
        other => other.map_err(Error::files(file))?,
    };
    let book: Sessions = serde_json::from_slice(&text).map_err(|error| Error::files(file)(error.into()))?;
    if book.version > VERSION {
        return Err(Error::files(file)(std::io::Error::other("a newer release wrote it; use the newer one")));
    }
    Ok(book)
}

/// Ends a server that failed; the next use starts another.
async fn end(desk: &mut Desk, live: Live, error: Error) -> Error {
    kill(live.reader.unit.as_ref()).await;
    if let Some(session) = desk.book.servers.get_mut(&live.reader.name) {
        session.launch.clear();
    }
    match desk.save().await {
        Ok(()) => error,
        Err(unsaved) => unsaved,
    }
}

async fn kill(unit: &dyn Unit) {
    if let Err(fault) = unit.signal(KILL).await {
        tracing::debug!(run = %unit.run(), %fault, "a server was gone before it was ended");
    }
}

pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Runs blocking file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::House(format!("a worker thread failed: {error}")))?
}
