//! An event stream that comes back by itself after a short loss.
//!
//! Reads server-sent events; knows the published envelope. Invariant: no recorded event is given
//! twice or skipped, because every reconnection asks for what follows the last number seen.

use super::http::{self, Call};
use crate::wire::{Envelope, Problem};
use bytes::{Buf as _, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::path::PathBuf;
use std::time::Duration;
use tinkerbell_core::code::Fault;

/// Reconnections in a row, without an event between them, before the loss is told.
const TRIES: u32 = 3;
/// Pause before a reconnection.
const PAUSE: Duration = Duration::from_millis(100);
/// Four missed keep-alives: the daemon is stuck or gone.
const SILENCE: Duration = Duration::from_secs(60);
/// Longest event in bytes; the daemon caps what it puts into one.
const MAX_EVENT_BYTES: usize = 64 << 20;

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq)]
pub enum Arrival {
    /// A published event.
    Event {
        /// Its JSON, byte for byte as the daemon sent it.
        raw: String,
        /// The same, typed; `None` for types that this release does not know.
        envelope: Option<Box<Envelope>>,
    },
    /// All that was recorded up to this number was given; what follows is new.
    CaughtUp(u64),
}

/// A stream of events.
pub struct EventStream {
    path: PathBuf,
    place: String,
    live: bool,
    last: u64,
    body: Option<Incoming>,
    buffer: BytesMut,
    failures: u32,
    /// Whether a loss was met that no pause followed yet.
    must_pause: bool,
}

impl EventStream {
    pub(super) async fn open(path: PathBuf, place: String, after: u64, live: bool) -> Result<Self, Fault> {
        let mut stream = Self { path, place, live, last: after, body: None, buffer: BytesMut::new(), failures: 0, must_pause: false };
        stream.reopen().await?;
        Ok(stream)
    }

    /// The number of the last recorded event that was given.
    #[must_use]
    pub const fn last(&self) -> u64 {
        self.last
    }

    /// The next event; waits for it. Cancel safe, also while the stream comes back: a call that is dropped counts as
    /// no failure, and the next one goes on where it stood.
    ///
    /// # Errors
    /// The daemon's fault when it ended the stream for a reason; `TB-API-001` or `002` when it is
    /// gone: start it again and open a new stream after [`Self::last`].
    pub async fn next(&mut self) -> Result<Arrival, Fault> {
        loop {
            match self.take() {
                Ok(Some(arrival)) => {
                    self.failures = 0;
                    return Ok(arrival);
                }
                // A refused connection is told at once: only the caller can start a daemon.
                Ok(None) if self.body.is_none() => self.reopen().await?,
                Ok(None) => {
                    if let Err(fault) = self.fill().await {
                        self.lose(fault)?;
                    }
                }
                // Also a reader that fell behind comes back this way.
                Err(fault) => self.lose(fault)?,
            }
        }
    }

    async fn reopen(&mut self) -> Result<(), Fault> {
        if std::mem::take(&mut self.must_pause) {
            tokio::time::sleep(PAUSE).await;
        }
        let place = format!("{}?live={}", self.place, u8::from(self.live));
        let call = Call::get(&place).after(self.last);
        self.body = Some(http::send(&self.path, call).await?.into_body());
        Ok(())
    }

    /// Gives the connection up, for a new one where that may help.
    fn lose(&mut self, fault: Fault) -> Result<(), Fault> {
        self.body = None;
        self.buffer.clear();
        self.must_pause = true;
        self.failures += 1;
        if fault.retryable && self.failures <= TRIES { Ok(()) } else { Err(fault) }
    }

    /// Reads one more piece of the body.
    async fn fill(&mut self) -> Result<(), Fault> {
        let Some(body) = &mut self.body else { return Err(http::lost_text("the stream was closed")) };
        let frame = match tokio::time::timeout(SILENCE, body.frame()).await {
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(http::lost_text(&error.to_string())),
            Ok(None) => return Err(http::lost_text("the daemon ended the stream")),
            Err(_) => return Err(http::lost_text("nothing was heard for a minute")),
        };
        if let Some(bytes) = frame.data_ref() {
            self.buffer.extend_from_slice(bytes);
        }
        if self.buffer.len() > MAX_EVENT_BYTES {
            return Err(http::garbled("an event is larger than 64 MiB"));
        }
        Ok(())
    }

    /// Takes the next whole event out of the buffer; comments are passed over.
    fn take(&mut self) -> Result<Option<Arrival>, Fault> {
        while let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\n\n") {
            let block = self.buffer.split_to(end);
            self.buffer.advance(2);
            let text = String::from_utf8_lossy(&block).into_owned();
            if let Some(arrival) = self.read(&text)? {
                return Ok(Some(arrival));
            }
        }
        Ok(None)
    }

    fn read(&mut self, block: &str) -> Result<Option<Arrival>, Fault> {
        let field = |name: &str| block.lines().find_map(|line| line.strip_prefix(name)).map(|rest| rest.strip_prefix(' ').unwrap_or(rest));
        let Some(data) = field("data:") else { return Ok(None) };
        match field("event:") {
            Some("caught-up") => Ok(data.parse().ok().map(Arrival::CaughtUp)),
            Some("problem") => Err(self.told(data)),
            _ => {
                if let Some(lsn) = field("id:").and_then(|id| id.parse().ok()) {
                    self.last = lsn;
                }
                let envelope = serde_json::from_str(data).ok().map(Box::new);
                Ok(Some(Arrival::Event { raw: data.to_owned(), envelope }))
            }
        }
    }

    fn told(&mut self, data: &str) -> Fault {
        self.body = None;
        serde_json::from_str::<Problem>(data).map_or_else(|_| http::garbled("it ended the stream without a reason"), Problem::fault)
    }
}
