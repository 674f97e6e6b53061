//! One server's stream: reading messages out of its spool, within bounds of time and memory.
//!
//! Invariants: at most one line is in memory beside one block of the spool, and a request ends after
//! its deadline, its bytes and its messages, whatever the server does.

use crate::error::Error;
use crate::lines::{Lines, Piece};
use crate::plain::{first, plain};
use crate::wire::{Era, Incoming, Reply};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::port::{Unit, UnitState, Until};

/// Read at once.
const BLOCK: usize = 256 << 10;
/// A look at the server at least this often while an answer is waited for.
const LOOK: Duration = Duration::from_secs(1);
/// Most bytes that a server may write while it owes an answer.
const MOST_BYTES: u64 = 64 << 20;
/// Most messages that are no answer to us, in the same time.
const MOST_MESSAGES: u32 = 10_000;
/// Most lines that are no messages, in the same time.
const MOST_NOISE: u32 = 1_000;
/// Most requests of the server that are answered, in the same time.
const MOST_REPLIES: usize = 32;
/// Most signs of a server's last words that are told.
const MOST_WORDS: usize = 600;

/// What a server answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// A result, as its JSON text.
    Result(String),
    /// An error, in its words.
    Error(String),
}

/// What came of waiting.
#[derive(Debug, PartialEq, Eq)]
pub enum Waited {
    /// The answer to the request of this number.
    Answered(u64, Answer),
    /// The time is over.
    Late,
    /// The server wants to be answered first.
    Asked(Vec<Vec<u8>>),
    /// The server ended without an answer; its last words.
    Gone(String),
}

/// How much a server may still write before it answers.
#[derive(Debug, Clone, Copy)]
pub struct Allowance {
    bytes: u64,
    messages: u32,
    noise: u32,
    replies: usize,
}

impl Allowance {
    /// For reading what an earlier daemon was told, too: bounded by what is kept of a server.
    pub fn history() -> Self {
        Self { messages: u32::MAX, noise: u32::MAX, ..Self::default() }
    }
}

impl Default for Allowance {
    fn default() -> Self {
        Self { bytes: MOST_BYTES, messages: MOST_MESSAGES, noise: MOST_NOISE, replies: MOST_REPLIES }
    }
}

/// A server that runs, as far as it was read.
pub struct Reader {
    /// The server.
    pub name: String,
    /// Its unit.
    pub unit: Arc<dyn Unit>,
    /// Which revision it speaks, once known.
    pub era: Era,
    /// Whether it said that its tools changed since they were listed.
    pub changed: bool,
    clock: Arc<dyn Clock>,
    /// It runs since before this daemon; what was not kept of its past is nobody's loss.
    is_adopted: bool,
    offset: u64,
    lines: Lines,
    open: VecDeque<Vec<u8>>,
    words: Vec<u8>,
}

impl Reader {
    /// At the beginning of the stream.
    pub fn new(name: &str, unit: Arc<dyn Unit>, clock: Arc<dyn Clock>) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            era: Era::Legacy,
            changed: false,
            clock,
            is_adopted: false,
            offset: 0,
            lines: Lines::default(),
            open: VecDeque::new(),
            words: Vec::new(),
        }
    }

    /// It ran before this reader: its past is read, holes and all.
    pub fn adopt(&mut self) {
        self.is_adopted = true;
    }

    fn broke(&self, why: impl Into<String>) -> Error {
        Error::Broke { name: self.name.clone(), why: why.into() }
    }

    /// Whether the server lives.
    pub async fn is_running(&self) -> bool {
        let now = Until { timeout: Duration::ZERO, line: None, from: 0 };
        matches!(self.unit.wait(now).await, Ok(UnitState::Running))
    }

    /// Reads what has come since, without waiting; for the word that tools changed.
    ///
    /// # Errors
    /// When the server broke a bound.
    pub async fn catch_up(&mut self) -> Result<(), Error> {
        let mut allowance = if self.is_adopted { Allowance::history() } else { Allowance::default() };
        while self.fill(&mut allowance).await? {
            while let Some(line) = self.open.pop_front() {
                // Late answers are nobody's any more.
                let _stale = self.take(&line, &[], &mut allowance)?;
            }
        }
        Ok(())
    }

    /// Waits for the answer to one of `numbers` until `end_ms` of the monotonic clock. Cancel safe: what
    /// was read and not asked for is gone, and the caller begins anew from the start of the stream.
    ///
    /// # Errors
    /// When the server broke a bound or the protocol, or its spool can not be read.
    pub async fn wait(&mut self, numbers: &[u64], end_ms: u64, allowance: &mut Allowance) -> Result<Waited, Error> {
        let mut is_over = false;
        loop {
            while let Some(line) = self.open.pop_front() {
                if let Some(waited) = self.take(&line, numbers, allowance)? {
                    return Ok(waited);
                }
            }
            if self.fill(allowance).await? {
                continue;
            }
            if is_over {
                return Ok(Waited::Gone(self.last_words()));
            }
            let left = Duration::from_millis(end_ms.saturating_sub(self.clock.now().mono_ms));
            if left.is_zero() {
                return Ok(Waited::Late);
            }
            let until = Until { timeout: left.min(LOOK), line: Some(String::new()), from: self.offset };
            let state = self.unit.wait(until).await.map_err(|fault| Error::House(fault.message))?;
            // What it wrote last is read once more before it counts as gone.
            is_over = state != UnitState::Running;
        }
    }

    /// Reads one block; whether there was any.
    async fn fill(&mut self, allowance: &mut Allowance) -> Result<bool, Error> {
        let chunk = self.unit.output(self.offset, BLOCK).await.map_err(|fault| Error::House(fault.message))?;
        if chunk.bytes.is_empty() {
            return Ok(false);
        }
        if chunk.offset > self.offset && self.is_adopted {
            self.lines.skip();
        } else if chunk.offset > self.offset {
            return Err(self.broke("it wrote more than is kept of one server, and an answer may be lost"));
        }
        let count = chunk.bytes.len() as u64;
        allowance.bytes = allowance
            .bytes
            .checked_sub(count)
            .ok_or_else(|| self.broke(format!("it wrote more than {} MiB without an answer", MOST_BYTES >> 20)))?;
        self.offset = chunk.next;
        for piece in self.lines.push(&chunk.bytes) {
            match piece {
                Piece::Line(line) => self.open.push_back(line),
                Piece::TooLong => return Err(self.broke("it sent a message of more than 4 MiB")),
            }
        }
        Ok(true)
    }

    fn take(&mut self, line: &[u8], numbers: &[u64], allowance: &mut Allowance) -> Result<Option<Waited>, Error> {
        let line = line.trim_ascii();
        if line.is_empty() {
            return Ok(None);
        }
        if line.first() != Some(&b'{') {
            // Many programs greet on standard output; that is no message, and harmless in small doses.
            self.words.extend(line.iter().take(MOST_WORDS).chain(b"\n"));
            let over = self.words.len().saturating_sub(4 * MOST_WORDS);
            drop(self.words.drain(..over));
            allowance.noise = allowance
                .noise
                .checked_sub(1)
                .ok_or_else(|| self.broke(format!("it wrote more than {MOST_NOISE} lines that are no messages")))?;
            return Ok(None);
        }
        let message: Incoming<'_> =
            serde_json::from_slice(line).map_err(|error| self.broke(format!("it sent a malformed message: {error}")))?;
        if let Some(number) = numbers.iter().copied().find(|number| message.answers(*number)) {
            return Ok(Some(Waited::Answered(number, answer(&message).ok_or_else(|| self.broke("its answer is empty"))?)));
        }
        allowance.messages = allowance
            .messages
            .checked_sub(1)
            .ok_or_else(|| self.broke(format!("it sent more than {MOST_MESSAGES} messages and no answer")))?;
        match (message.method.as_deref(), message.id) {
            (Some("notifications/tools/list_changed"), _) => self.changed = true,
            (Some(method), Some(id)) if id.get().len() <= 256 && !numbers.is_empty() => {
                allowance.replies =
                    allowance.replies.checked_sub(1).ok_or_else(|| self.broke("it asks without end and does not answer"))?;
                return Ok(Some(Waited::Asked(vec![Reply::to(method, id).line()])));
            }
            _ => {}
        }
        Ok(None)
    }

    /// What it said last that was no message; its standard error stands there when it has ended.
    fn last_words(&self) -> String {
        let all = [self.words.as_slice(), self.lines.rest()].concat();
        let text = plain(&String::from_utf8_lossy(&all));
        let count = text.trim().chars().count();
        text.trim().chars().skip(count.saturating_sub(MOST_WORDS)).collect()
    }
}

pub fn answer(message: &Incoming<'_>) -> Option<Answer> {
    match (&message.error, message.result) {
        (Some(error), _) => {
            let (words, _) = first(&plain(&error.message), MOST_WORDS);
            Some(Answer::Error(format!("{words} (error {})", error.code)))
        }
        (None, Some(result)) => Some(Answer::Result(result.get().to_owned())),
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests;
