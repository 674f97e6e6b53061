//! A command under its keeper, as the daemon holds it.
//!
//! Everything true stands on disk; the socket only rings and takes orders. Invariant: dropping a
//! unit, or the daemon with it, changes nothing for the command.

use crate::error::Error;
use crate::run::{Run, Standing, ended};
use crate::spool::{self, Cursor};
use crate::wire::{Answer, Request};
use bytes::Bytes;
use futures_core::future::BoxFuture;
use rustix::fs::{CWD, Mode, OFlags};
use std::os::fd::AsRawFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Chunk, Unit, UnitState, Until};
use tinkerbell_core::tool::Traffic;
use tinkerbell_core::words::{RunId, Seq};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::UnixStream;

/// Longest wait for an answer of a keeper.
const ANSWER: Duration = Duration::from_secs(5);
/// Without a bell the files are looked at this often.
const LOOK: Duration = Duration::from_millis(20);
/// With one, this often, should a ring be lost.
const LOOK_ANYWAY: Duration = Duration::from_secs(1);
/// Read at once while looking for a line.
const BLOCK: usize = 1 << 20;

/// The unit.
pub struct HostUnit {
    id: RunId,
    run: Run,
    clock: Arc<dyn Clock>,
    cursor: Mutex<Cursor>,
}

impl HostUnit {
    /// The unit of a run that stands on disk.
    pub fn new(id: RunId, run: Run, clock: Arc<dyn Clock>) -> Self {
        Self { id, run, clock, cursor: Mutex::new(Cursor::default()) }
    }

    async fn standing(&self) -> Result<Standing, Error> {
        let run = self.run.clone();
        blocking(move || run.settle()).await
    }

    async fn read(&self, offset: u64, max: usize) -> Result<Chunk, Error> {
        let dir = self.run.dir.clone();
        let mut cursor = *self.cursor.lock().unwrap_or_else(PoisonError::into_inner);
        let (chunk, cursor) = blocking(move || spool::read(&dir, offset, max, &mut cursor).map(|chunk| (chunk, cursor))).await?;
        *self.cursor.lock().unwrap_or_else(PoisonError::into_inner) = cursor;
        Ok(chunk)
    }

    async fn await_state(&self, until: Until) -> Result<UnitState, Error> {
        let end_ms = self.clock.now().mono_ms.saturating_add(u64::try_from(until.timeout.as_millis()).unwrap_or(u64::MAX));
        let mut search = until.line.map(|line| Search { line, offset: until.from, carry: Vec::new() });
        let mut bell = None;
        loop {
            if bell.is_none() {
                bell = watch(&self.run).await.ok();
            }
            // The line before the end: a line that came with the end is found either way.
            let is_found = match &mut search {
                Some(search) => search.run(self).await?,
                None => false,
            };
            match self.standing().await? {
                Standing::Ended(trailer) => return Ok(UnitState::Ended(ended(&trailer))),
                Standing::Lost => return Ok(UnitState::Lost),
                Standing::Running if !is_found => {}
                Standing::Running => return Ok(UnitState::Running),
                Standing::Absent | Standing::NeverRan => {
                    return Err(Error::Internal(format!("run {} never ran", self.run.name)));
                }
            }
            let left = Duration::from_millis(end_ms.saturating_sub(self.clock.now().mono_ms));
            if left.is_zero() {
                return Ok(UnitState::Running);
            }
            self.sleep_or_bell(left, &mut bell).await;
        }
    }

    /// Waits for news. Both branches are cancel safe: a lost ring costs one look.
    async fn sleep_or_bell(&self, left: Duration, bell: &mut Option<UnixStream>) {
        let Some(stream) = bell else { return self.clock.sleep(left.min(LOOK)).await };
        let mut sink = [0; 256];
        let is_gone = tokio::select! {
            count = stream.read(&mut sink) => !count.is_ok_and(|count| count > 0),
            () = self.clock.sleep(left.min(LOOK_ANYWAY)) => false,
        };
        if is_gone {
            *bell = None;
        }
    }
}

/// Looks for a line in growing output.
struct Search {
    line: String,
    offset: u64,
    carry: Vec<u8>,
}

impl Search {
    async fn run(&mut self, unit: &HostUnit) -> Result<bool, Error> {
        loop {
            let chunk = unit.read(self.offset, BLOCK).await?;
            if chunk.bytes.is_empty() {
                return Ok(false);
            }
            self.offset = chunk.next;
            self.carry.extend_from_slice(&chunk.bytes);
            if self.carry.split(|byte| *byte == b'\n').any(|line| contains(line, self.line.as_bytes())) {
                return Ok(true);
            }
            let keep = self.carry.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
            self.carry.drain(..keep.max(self.carry.len().saturating_sub(BLOCK)));
        }
    }
}

fn contains(line: &[u8], text: &[u8]) -> bool {
    text.is_empty() || line.windows(text.len()).any(|window| window == text)
}

impl Unit for HostUnit {
    fn run(&self) -> RunId {
        self.id
    }

    fn wait(&self, until: Until) -> BoxFuture<'_, Result<UnitState, Fault>> {
        Box::pin(async move { Ok(self.await_state(until).await?) })
    }

    fn output(&self, offset: u64, max: usize) -> BoxFuture<'_, Result<Chunk, Fault>> {
        Box::pin(async move { Ok(self.read(offset, max).await?) })
    }

    fn stdin(&self, number: u64, bytes: Bytes) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(ask(&self.run, &Request::Stdin { number, bytes: bytes.to_vec() }).await?) })
    }

    fn shown(&self, seq: Seq, end: Option<u64>) -> BoxFuture<'_, Result<(u64, Traffic), Fault>> {
        let run = self.run.clone();
        let work = move || match end {
            None => Ok((run.shown(seq)?, run.traffic(seq)?)),
            Some(end) => run.note_shown(seq, end).map(|()| (end, Traffic::default())),
        };
        Box::pin(async move { Ok(blocking(work).await?) })
    }

    fn signal(&self, signal: i32) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move { Ok(ask(&self.run, &Request::Signal { signal }).await?) })
    }

    // A keeper leaves by itself once the end is on disk; what stays is a layer that was applied.
    fn release(&self) -> BoxFuture<'_, Result<(), Fault>> {
        let run = self.run.clone();
        let work = move || match run.started()?.and_then(|started| started.layer) {
            Some(layer) => crate::layer::forget(&layer),
            None => Ok(()),
        };
        Box::pin(async move { Ok(blocking(work).await?) })
    }
}

/// Runs blocking file work where it may block.
pub(crate) async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    tokio::task::spawn_blocking(work).await.map_err(|error| Error::Internal(format!("a worker thread failed: {error}")))?
}

/// Connects through the directory's descriptor, because the path may exceed 107 bytes.
async fn connect(run: &Run) -> std::io::Result<UnixStream> {
    let dir = rustix::fs::openat(CWD, &run.dir, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    UnixStream::connect(format!("/proc/self/fd/{}/s", dir.as_raw_fd())).await
}

async fn watch(run: &Run) -> std::io::Result<UnixStream> {
    let mut stream = connect(run).await?;
    send(&mut stream, &Request::Watch).await?;
    Ok(stream)
}

async fn send(stream: &mut UnixStream, request: &Request) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(request)?;
    line.push(b'\n');
    stream.write_all(&line).await
}

/// Gives a keeper an order and waits for its answer.
pub(crate) async fn ask(run: &Run, request: &Request) -> Result<(), Error> {
    let unreachable = |why: String| Error::Unreachable { run: run.name.clone(), why };
    let talk = async {
        let mut stream = connect(run).await?;
        send(&mut stream, request).await?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await?;
        Ok::<_, std::io::Error>(line)
    };
    let line = tokio::time::timeout(ANSWER, talk).await;
    let line = line.map_err(|_| unreachable("no answer in 5 s".into()))?.map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused => unreachable("it has ended".into()),
        _ => unreachable(error.to_string()),
    })?;
    match serde_json::from_str(&line) {
        Ok(Answer::Done) => Ok(()),
        Ok(Answer::Refused { why }) => Err(Error::Refused { run: run.name.clone(), why }),
        Err(_) => Err(unreachable("it has ended".into())),
    }
}
