//! A model server that says what a script says, and fails as the script wants it.
//!
//! HTTP/1.1 on loopback, by hand, so that a cut or a stall is exactly where it was asked for. Which
//! turn is due follows from the conversation in the request, so a question that is asked again
//! after a crash gets the same answer. Invariant: every request is kept, with its exact bytes.

pub mod dialect;
pub mod format;
mod http;

pub use dialect::Dialect;
pub use format::{Call, Fault, Tokens, Turn};

use dialect::Asked;
use serde_json::{Value, json};
use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// How long a stalled answer stays open.
const STALL: Duration = Duration::from_secs(600);

impl Turn {
    /// Words, and the end.
    #[must_use]
    pub fn text(text: &str) -> Self {
        Self { text: text.to_owned(), ..Self::default() }
    }

    /// One tool call.
    #[must_use]
    pub fn call(tool: &str, args: Value) -> Self {
        Self { calls: vec![Call { tool: tool.to_owned(), args, id: None }], ..Self::default() }
    }

    /// Adds a fault for the next request that meets this turn.
    #[must_use]
    pub fn fault(mut self, fault: Fault) -> Self {
        self.faults.push(fault);
        self
    }

    /// Makes the last fault stay.
    #[must_use]
    pub fn forever(mut self) -> Self {
        self.forever = true;
        self
    }

    /// Sets the reasoning.
    #[must_use]
    pub fn thinking(mut self, text: &str) -> Self {
        text.clone_into(&mut self.reasoning);
        self
    }
}

impl Fault {
    /// A bare status.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Status { status, retry_after: None, body: None }
    }
}

/// A request that came in.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// Path and query.
    pub path: String,
    /// Headers; names in lower case.
    pub headers: HashMap<String, String>,
    /// The body's exact bytes.
    pub bytes: Vec<u8>,
    /// The body as JSON; null when it is none.
    pub body: Value,
}

/// How a script is played.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// Turns go by order of requests, not by the conversation: faults then count per request.
    pub sequential: bool,
    /// Names that `/v1/models` lists.
    pub models: Vec<String>,
    /// Address to listen at; a free port on loopback when absent.
    pub listen: Option<SocketAddr>,
}

struct State {
    turns: Vec<Turn>,
    settings: Settings,
    requests: Mutex<Vec<Request>>,
    met: Mutex<HashMap<usize, usize>>,
    gone: Mutex<Vec<String>>,
    taken: Mutex<Vec<usize>>,
    gate: watch::Sender<bool>,
}

/// The server; it ends when this is dropped.
pub struct Scripted {
    address: SocketAddr,
    state: Arc<State>,
    serving: JoinHandle<()>,
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Reads a script: one turn per line; empty lines and lines that begin with `#` are left out.
///
/// # Errors
/// The line's number and what is wrong with it.
pub fn parse_script(text: &str) -> Result<Vec<Turn>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(|(at, line)| serde_json::from_str(line).map_err(|error| format!("line {}: {error}", at + 1))).collect()
}

impl Scripted {
    /// Serves these turns on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start(turns: Vec<Turn>) -> io::Result<Self> {
        Self::start_with(turns, Settings::default()).await
    }

    /// Serves these turns so.
    ///
    /// # Errors
    /// When the address can not be had.
    pub async fn start_with(turns: Vec<Turn>, settings: Settings) -> io::Result<Self> {
        let listener = TcpListener::bind(settings.listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 0)))).await?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            turns,
            settings,
            requests: Mutex::default(),
            met: Mutex::default(),
            gone: Mutex::default(),
            taken: Mutex::default(),
            gate: watch::Sender::new(false),
        });
        let serving = tokio::spawn(accept(listener, state.clone()));
        Ok(Self { address, state, serving })
    }

    /// Where it listens: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The value for `base_url`: `http://127.0.0.1:PORT/v1`.
    #[must_use]
    pub fn base_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Why answers could not be written: clients that closed the connection early.
    #[must_use]
    pub fn gone(&self) -> Vec<String> {
        self.state.gone.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Turns whose whole answer reached its client, in order; one that stands here twice was paid twice.
    /// A client that dies with bytes unread resets the connection and does not count.
    #[must_use]
    pub fn taken(&self) -> Vec<usize> {
        self.state.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Lets answers that are held go on, those to come included.
    pub fn release(&self) {
        self.state.gate.send_replace(true);
    }

    /// Questions that came in so far, in order.
    #[must_use]
    pub fn requests(&self) -> Vec<Request> {
        self.state.requests.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    let mut open = tokio::task::JoinSet::new();
    while let Ok((socket, _)) = listener.accept().await {
        while open.try_join_next().is_some() {}
        open.spawn(serve(socket, state.clone()));
    }
}

/// One connection, one request: clients reconnect, and a fault never hits the wrong question.
async fn serve(mut socket: TcpStream, state: Arc<State>) {
    let Ok(Some(request)) = http::read(&mut socket).await else { return };
    if let Err(error) = answer(&mut socket, &state, request).await {
        // A client that went away is part of the game, and says so here.
        state.gone.lock().unwrap_or_else(PoisonError::into_inner).push(error.to_string());
    }
}

async fn answer(socket: &mut TcpStream, state: &State, request: Request) -> io::Result<()> {
    let Some(dialect) = Dialect::of(&request.path) else {
        return listing(socket, state, &request.path).await;
    };
    let number = if state.settings.sequential {
        state.requests.lock().unwrap_or_else(PoisonError::into_inner).len()
    } else {
        dialect.answers(&request.body)
    };
    state.requests.lock().unwrap_or_else(PoisonError::into_inner).push(request.clone());
    let Some(turn) = state.turns.get(number) else {
        let body = json!({"error": {"type": "invalid_request_error", "message": format!("the script is over: turn {} was asked for", number + 1)}});
        return http::whole(socket, 400, &[], &body.to_string()).await;
    };
    let fault = meet(state, number, turn);
    tokio::time::sleep(Duration::from_millis(turn.delay_ms)).await;
    let asked = Asked { body: &request.body, bytes: request.bytes.len(), number };
    play(socket, state, dialect, (turn, fault.as_ref()), &asked).await?;
    if matches!(fault, None | Some(Fault::Hold { .. })) && http::is_taken(socket).await {
        state.taken.lock().unwrap_or_else(PoisonError::into_inner).push(number);
    }
    Ok(())
}

/// The fault that is due for this turn now.
fn meet(state: &State, number: usize, turn: &Turn) -> Option<Fault> {
    let mut met = state.met.lock().unwrap_or_else(PoisonError::into_inner);
    let times = met.entry(number).or_default();
    let fault = turn.faults.get(*times).or_else(|| turn.faults.last().filter(|_| turn.forever));
    *times += 1;
    fault.cloned()
}

async fn play(
    socket: &mut TcpStream,
    state: &State,
    dialect: Dialect,
    (turn, fault): (&Turn, Option<&Fault>),
    asked: &Asked<'_>,
) -> io::Result<()> {
    match fault {
        Some(Fault::Status { status, retry_after, body }) => {
            let plain = || json!({"error": {"type": "scripted", "message": format!("scripted status {status}")}}).to_string();
            let headers: Vec<(&str, &str)> = retry_after.iter().map(|value| ("retry-after", value.as_str())).collect();
            return http::whole(socket, *status, &headers, &body.clone().unwrap_or_else(plain)).await;
        }
        Some(Fault::Garbage) => return http::whole(socket, 200, &[], "<html><body>It works!</body></html>").await,
        Some(Fault::Reset) => return Ok(()),
        _ => {}
    }
    let body = match fault {
        Some(Fault::BadFrames) => "data: {\"choices\": [\n\n".to_owned(),
        _ => dialect::frames(dialect, turn, fault, asked).concat(),
    };
    http::begin(socket).await?;
    match fault {
        Some(Fault::Cut { bytes, quiet }) => {
            http::chunk(socket, body.as_bytes().get(..*bytes).unwrap_or(body.as_bytes())).await?;
            if *quiet { http::end(socket).await } else { Ok(()) }
        }
        Some(Fault::Hold { bytes }) => {
            // Whole frames only: a heartbeat in the middle of one would break it.
            let begun = body.get(..*bytes).unwrap_or(&body);
            let (first, rest) = body.split_at(begun.rfind("\n\n").map_or(0, |at| at + 2));
            http::chunk(socket, first.as_bytes()).await?;
            let mut gate = state.gate.subscribe();
            tokio::select! {
                // The gate lives as long as the server.
                opened = gate.wait_for(|open| *open) => drop(opened.map_err(io::Error::other)?),
                // Heartbeats find out when the client goes.
                gone = heartbeats(socket) => gone?,
            }
            http::chunk(socket, rest.as_bytes()).await?;
            http::end(socket).await
        }
        Some(Fault::Stall { bytes }) => {
            http::chunk(socket, body.as_bytes().get(..*bytes).unwrap_or_default()).await?;
            heartbeats(socket).await
        }
        _ => http::last(socket, body.as_bytes()).await,
    }
}

/// Comments keep the connection alive and say nothing.
async fn heartbeats(socket: &mut TcpStream) -> io::Result<()> {
    let pause = Duration::from_millis(20);
    for _ in 0..STALL.as_millis() / pause.as_millis() {
        http::chunk(socket, b": still here\n\n").await?;
        tokio::time::sleep(pause).await;
    }
    Ok(())
}

async fn listing(socket: &mut TcpStream, state: &State, path: &str) -> io::Result<()> {
    if !path.ends_with("/models") {
        return http::whole(socket, 404, &[], &json!({"error": {"message": "no such path"}}).to_string()).await;
    }
    let data: Vec<Value> = state.settings.models.iter().map(|name| json!({"id": name, "object": "model"})).collect();
    http::whole(socket, 200, &[], &json!({"object": "list", "data": data}).to_string()).await
}
