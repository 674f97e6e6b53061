//! Spools: one file per call, written by the courier and read by both sides.
//!
//! Nothing here is synced but a spool's end: a killed process loses no page cache. Invariant: a
//! reader gives only events whose frames are whole, in the order in which they were written; a spool
//! with a readable head means that the provider may have been asked, one without that it was not.

use super::convert;
use super::format::{Event, FRAME_HEADER_BYTES, Head, Kind, MAGIC, Retrying, VERSION, frame, unframe};
use crate::attempt::Item;
use prost::Message as _;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::PathBuf;
use std::str::FromStr as _;
use std::sync::Arc;
use tinkerbell_core::model::{CallId, Cut, ModelEvent};
use tinkerbell_core::money::Usage;
use tinkerbell_secret::{Redactor, Stream};

/// Bytes that are read at once.
const BLOCK: u64 = 256 * 1024;

/// Where all spools of a home lie.
#[derive(Debug, Clone)]
pub struct Spools {
    dir: PathBuf,
}

/// How a call stands on disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Kept {
    /// The provider was never asked.
    Nothing,
    /// It began; nobody wrote its end.
    Part,
    /// Its last event is there.
    Whole,
}

impl Spools {
    /// The spools below a directory, which need not exist.
    pub const fn new(dir: PathBuf) -> Self {
        Self { dir }
    }

    /// The directory of a call.
    fn of(&self, id: CallId) -> PathBuf {
        self.dir.join(id.to_string())
    }

    /// Every call that has a directory.
    pub fn list(&self) -> Vec<CallId> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter_map(|entry| CallId::from_str(entry.file_name().to_str()?).ok()).collect()
    }

    /// Removes a call's spool; none is no error.
    pub fn remove(&self, id: CallId) {
        match std::fs::remove_dir_all(self.of(id)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => tracing::warn!(%id, %error, "a spool was not removed"),
            _ => {}
        }
    }

    /// How a call stands.
    ///
    /// # Errors
    /// When its spool exists and can not be read, or a later release wrote it.
    pub fn look(&self, id: CallId) -> io::Result<Kept> {
        let Some((_, mut reader)) = self.read(id)? else { return Ok(Kept::Nothing) };
        while let Some(event) = reader.event()? {
            if event.is_last() {
                return Ok(Kept::Whole);
            }
        }
        Ok(Kept::Part)
    }

    /// Opens a spool after its head; `None` where there is none.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn read(&self, id: CallId) -> io::Result<Option<(Head, Reader)>> {
        let mut file = match File::open(self.of(id).join("spool")) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let mut magic = [0; MAGIC.len()];
        if file.read_exact(&mut magic).is_err() {
            return Ok(None);
        }
        if magic != MAGIC {
            return Err(io::Error::other("it is not a spool that this release can read"));
        }
        let mut reader = Reader { file, buffer: Vec::new() };
        let Some(payload) = reader.payload()? else { return Ok(None) };
        let head = Head::decode(&payload[..]).map_err(io::Error::other)?;
        if head.version > VERSION {
            return Err(io::Error::other("a later release wrote it"));
        }
        Ok(Some((head, reader)))
    }

    /// Begins a spool in place of whatever is left of one without a head.
    ///
    /// # Errors
    /// When it can not be made.
    pub fn create(&self, id: CallId, head: &Head, redactor: Arc<Redactor>) -> io::Result<Pen> {
        let dir = self.of(id);
        self.remove(id);
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        let mut file = OpenOptions::new().create_new(true).append(true).mode(0o600).open(dir.join("spool"))?;
        let begin = [&MAGIC[..], &frame(&head.encode_to_vec())].concat();
        file.write_all(&begin)?;
        let stream = Stream::new(redactor.clone());
        Ok(Pen { file, len: begin.len() as u64, redactor, stream, is_reasoning: false })
    }

    /// What is known of a call that nobody carries on. Its text comes as one piece.
    ///
    /// # Errors
    /// As [`Self::look`].
    pub fn cut(&self, id: CallId, is_new: bool) -> io::Result<Cut> {
        let mut cut = Cut { why: "the courier died".to_owned(), text: String::new(), usage: Usage::default(), estimated: true, is_new };
        let Some((head, mut reader)) = self.read(id)? else { return Ok(cut) };
        let mut output = 0;
        while let Some(event) = reader.event()? {
            match event.kind {
                Some(Kind::Text(text)) => {
                    output += text.len();
                    cut.text.push_str(&text);
                }
                Some(Kind::Reasoning(text)) => output += text.len(),
                Some(Kind::Retrying(Retrying { spent, .. })) => {
                    cut.text.clear();
                    output = 0;
                    cut.usage = cut.usage.plus(convert::usage(spent));
                }
                Some(Kind::Cancelled(_)) => "the task was stopped in its middle".clone_into(&mut cut.why),
                _ => {}
            }
        }
        let guess = Usage { input: head.input_tokens, output: crate::answer::tokens(output), ..Usage::default() };
        cut.usage = cut.usage.plus(guess);
        Ok(cut)
    }
}

/// Reads events.
pub struct Reader {
    file: File,
    /// Bytes that were read and not yet given.
    buffer: Vec<u8>,
}

impl Reader {
    fn payload(&mut self) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some((payload, end)) = unframe(&self.buffer) {
                let payload = payload.to_vec();
                self.buffer.drain(..end);
                return Ok(Some(payload));
            }
            if io::Read::by_ref(&mut self.file).take(BLOCK).read_to_end(&mut self.buffer)? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next event that is whole; `None` when there is none yet, or never will be.
    ///
    /// # Errors
    /// When the file can not be read.
    pub fn event(&mut self) -> io::Result<Option<Event>> {
        self.payload()?.map(|payload| Event::decode(&payload[..]).map_err(io::Error::other)).transpose()
    }
}

/// Writes a spool.
pub struct Pen {
    file: File,
    len: u64,
    redactor: Arc<Redactor>,
    /// A secret may come in pieces; none of them may be written before the next is seen.
    stream: Stream,
    is_reasoning: bool,
}

impl Pen {
    /// Writes an item of the stream.
    ///
    /// # Errors
    /// When the disk does not take it; the spool ends with the event before.
    pub fn write(&mut self, item: &Item) -> io::Result<()> {
        let (text, is_reasoning) = match item {
            Ok(ModelEvent::Text(text)) => (text, false),
            Ok(ModelEvent::Reasoning(text)) => (text, true),
            other => {
                self.flush()?;
                let redactor = self.redactor.clone();
                return self.put(&convert::event(other, &|text| redactor.redact(text).into_owned()));
            }
        };
        if self.is_reasoning != is_reasoning {
            self.flush()?;
            self.is_reasoning = is_reasoning;
        }
        let now = self.stream.push_text(text);
        self.piece(now)
    }

    /// Writes that the call was ended from outside.
    ///
    /// # Errors
    /// As [`Self::write`].
    pub fn cancelled(&mut self) -> io::Result<()> {
        self.flush()?;
        self.put(&Event::of(Kind::Cancelled(super::format::Cancelled {})))
    }

    /// The file, for a sync beside the runtime.
    ///
    /// # Errors
    /// When the system has no descriptor left.
    pub fn file(&self) -> io::Result<File> {
        self.file.try_clone()
    }

    fn flush(&mut self) -> io::Result<()> {
        let held = self.stream.finish_text();
        self.piece(held)
    }

    fn piece(&mut self, text: String) -> io::Result<()> {
        if text.is_empty() {
            return Ok(());
        }
        self.put(&Event::of(if self.is_reasoning { Kind::Reasoning(text) } else { Kind::Text(text) }))
    }

    fn put(&mut self, event: &Event) -> io::Result<()> {
        let frame = frame(&event.encode_to_vec());
        debug_assert!(frame.len() > FRAME_HEADER_BYTES || event.kind.is_none());
        if let Err(error) = self.file.write_all(&frame) {
            // Half a frame would hide what follows it.
            self.file.set_len(self.len)?;
            return Err(error);
        }
        self.len += frame.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
