//! The spool: a command's output on disk, its beginning and its end, in checked frames.
//!
//! The head file takes the first 8 MiB; after it two tail files of 4 MiB take turns, so that the
//! last 4 to 8 MiB are always there, even if the keeper dies. Nothing is synced here: a killed
//! process loses no page cache, and the trailer's sync covers the rest. Invariant: a reader never
//! returns a byte whose frame does not match its sum.

use crate::error::Error;
use crate::format::{FRAME_HEADER_BYTES, FRAME_MAX_BYTES, Frame, SPOOL_MAGIC};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use tinkerbell_core::port::Chunk;

/// File sizes, frame headers included.
#[derive(Debug, Clone, Copy)]
pub struct Caps {
    /// Of the head file.
    pub head_bytes: u64,
    /// Of each of the two tail files.
    pub tail_bytes: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self { head_bytes: 8 << 20, tail_bytes: 4 << 20 }
    }
}

/// Names of the files, in the order in which they are tried.
const FILES: [&str; 3] = ["spool", "spool.1", "spool.2"];

/// Writes frames.
pub struct Writer {
    dir: PathBuf,
    caps: Caps,
    file: File,
    /// Which of [`FILES`] is written now.
    index: usize,
    file_len: u64,
    /// Payload bytes that each file holds.
    kept: [u64; 3],
    seq: u64,
    offset: u64,
    hash: Sha256,
}

/// What the writer can say at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Total {
    /// All bytes.
    pub bytes: u64,
    /// Bytes that are not on disk.
    pub dropped: u64,
    /// SHA-256 of all bytes.
    pub sha256: String,
}

impl Writer {
    /// Creates the head file in a run's directory.
    ///
    /// # Errors
    /// When it can not be created.
    pub fn create(dir: &Path, caps: Caps) -> io::Result<Self> {
        let file = fresh(&dir.join("spool"))?;
        let file_len = SPOOL_MAGIC.len() as u64;
        Ok(Self { dir: dir.to_owned(), caps, file, index: 0, file_len, kept: [0; 3], seq: 0, offset: 0, hash: Sha256::new() })
    }

    /// Bytes taken so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Takes output. A full disk drops bytes and counts them: the command must not die of it.
    pub fn push(&mut self, stream: u8, mono_ms: u64, bytes: &[u8]) {
        self.hash.update(bytes);
        for piece in bytes.chunks(FRAME_MAX_BYTES) {
            let mut out = Vec::with_capacity(FRAME_HEADER_BYTES + piece.len());
            Frame { seq: self.seq, offset: self.offset, mono_ms, stream, bytes: piece }.encode(&mut out);
            if self.write_frame(&out).is_ok()
                && let Some(kept) = self.kept.get_mut(self.index)
            {
                *kept += piece.len() as u64;
            }
            self.seq += 1;
            self.offset += piece.len() as u64;
        }
    }

    fn write_frame(&mut self, frame: &[u8]) -> io::Result<()> {
        let cap = if self.index == 0 { self.caps.head_bytes } else { self.caps.tail_bytes };
        if self.file_len + frame.len() as u64 > cap {
            self.turn()?;
        }
        if let Err(error) = self.file.write_all(frame) {
            // Half a frame would hide all that follow it.
            self.file.set_len(self.file_len)?;
            self.file.seek(SeekFrom::Start(self.file_len))?;
            return Err(error);
        }
        self.file_len += frame.len() as u64;
        Ok(())
    }

    /// Goes on to the next tail file, emptying it.
    fn turn(&mut self) -> io::Result<()> {
        let next = if self.index == 1 { 2 } else { 1 };
        let name = FILES.get(next).copied().unwrap_or("spool.1");
        self.file = fresh(&self.dir.join(name))?;
        self.index = next;
        self.file_len = SPOOL_MAGIC.len() as u64;
        if let Some(kept) = self.kept.get_mut(next) {
            *kept = 0;
        }
        Ok(())
    }

    /// Counts and hash of everything taken.
    #[must_use]
    pub fn total(&self) -> Total {
        let kept: u64 = self.kept.iter().sum();
        let sha256 = self.hash.clone().finalize().iter().map(|b| format!("{b:02x}")).collect();
        Total { bytes: self.offset, dropped: self.offset.saturating_sub(kept), sha256 }
    }
}

fn fresh(path: &Path) -> io::Result<File> {
    let mut file = File::create(path)?;
    file.write_all(&SPOOL_MAGIC)?;
    Ok(file)
}

/// Where a reader stands, so that following a long output does not read it from the start again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Cursor {
    position: u64,
    offset: u64,
}

/// Reads output bytes from `offset`, at most `max`.
///
/// # Errors
/// When a file exists and can not be read.
pub fn read(dir: &Path, offset: u64, max: usize, cursor: &mut Cursor) -> Result<Chunk, Error> {
    let mut taker = Taker { offset, max, chunk: None };
    if cursor.offset > offset {
        *cursor = Cursor::default();
    }
    read_head(dir, cursor, &mut taker).map_err(Error::files(dir.join("spool")))?;
    if !taker.is_full() {
        let mut tails = Vec::new();
        for name in ["spool.1", "spool.2"] {
            let bytes = read_whole(&dir.join(name)).map_err(Error::files(dir.join(name)))?;
            let first = bytes.get(SPOOL_MAGIC.len()..).and_then(Frame::decode).map(|(frame, _)| frame.offset);
            tails.extend(first.map(|first| (first, bytes)));
        }
        tails.sort_by_key(|(first, _)| *first);
        for (_, bytes) in &tails {
            taker.take_all(bytes.get(SPOOL_MAGIC.len()..).unwrap_or_default());
        }
    }
    Ok(taker.finish())
}

fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

/// Reads the head file in blocks, moving the cursor over frames that lie before the offset.
fn read_head(dir: &Path, cursor: &mut Cursor, taker: &mut Taker) -> io::Result<()> {
    let mut file = match File::open(dir.join("spool")) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    let mut position = cursor.position.max(SPOOL_MAGIC.len() as u64);
    let mut block = Vec::new();
    while !taker.is_full() {
        file.seek(SeekFrom::Start(position))?;
        block.clear();
        Read::by_ref(&mut file).take(1 << 20).read_to_end(&mut block)?;
        let mut used = 0;
        while let Some((frame, len)) = block.get(used..).and_then(Frame::decode) {
            let end = frame.offset + frame.bytes.len() as u64;
            taker.take(&frame);
            if taker.is_full() {
                break;
            }
            used += len;
            *cursor = Cursor { position: position + used as u64, offset: end };
        }
        if used == 0 {
            break;
        }
        position += used as u64;
    }
    Ok(())
}

/// Collects the wanted bytes out of frames.
struct Taker {
    offset: u64,
    max: usize,
    chunk: Option<(u64, Vec<u8>)>,
}

impl Taker {
    fn is_full(&self) -> bool {
        self.chunk.as_ref().is_some_and(|(_, bytes)| bytes.len() >= self.max)
    }

    fn take(&mut self, frame: &Frame<'_>) {
        let end = frame.offset + frame.bytes.len() as u64;
        let next = self.chunk.as_ref().map_or(self.offset, |(start, bytes)| start + bytes.len() as u64);
        if end <= next {
            return;
        }
        let start = frame.offset.max(next);
        // A hole (dropped bytes) ends the chunk: a chunk is contiguous.
        if start > next && self.chunk.is_some() {
            self.max = 0;
            return;
        }
        let skip = usize::try_from(start - frame.offset).unwrap_or(usize::MAX);
        let (_, bytes) = self.chunk.get_or_insert_with(|| (start, Vec::new()));
        let room = self.max.saturating_sub(bytes.len());
        bytes.extend(frame.bytes.iter().skip(skip).take(room));
    }

    fn take_all(&mut self, mut input: &[u8]) {
        while !self.is_full()
            && let Some((frame, len)) = Frame::decode(input)
        {
            self.take(&frame);
            input = input.get(len..).unwrap_or_default();
        }
    }

    fn finish(self) -> Chunk {
        match self.chunk {
            None => Chunk { offset: self.offset, bytes: bytes::Bytes::new(), next: self.offset },
            Some((start, bytes)) => Chunk { offset: start, next: start + bytes.len() as u64, bytes: bytes.into() },
        }
    }
}

#[cfg(test)]
mod tests;
