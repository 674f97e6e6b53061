//! Batches into segments: the only code that writes records to the disk.
//!
//! It knows nothing of callers or queues. Invariant: a batch is written only after the sync of the
//! one before returned, it lies wholly in one segment, and after any doubt about a sync it is not
//! called again.

use crate::disk::{Disk, DiskFile, Mode, write_full};
use crate::error::Error;
use crate::format::{FRAME_BYTES, Frame, HEADER_BYTES, Head, Header, KIND_FIRST_USER, KIND_SHUTDOWN, Slot, Trailer, stamp};
use crate::options::Options;
use crate::scan::{Span, frames};
use crate::seal::Sealer;
use crate::survey::{NEW_SUFFIX, segment_name};
use std::io;
use std::sync::Arc;
use tinkerbell_core::clock::{Clock, Entropy};

/// The tools of a writer.
pub(crate) struct Tools {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) entropy: Arc<dyn Entropy>,
    pub(crate) sealer: Sealer,
}

/// Where the journal stands on disk.
pub(crate) struct Writer {
    pub(crate) tools: Tools,
    file: Box<dyn DiskFile>,
    name: String,
    epoch: u64,
    incarnation: u64,
    offset: u64,
    /// The newest durable number in this segment; 0 while it is empty.
    durable: u64,
    /// The last watermark slot that was written.
    slot: Slot,
    head: Head,
    segment_bytes: u64,
    boot_id: [u8; 16],
}

/// Why a batch was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// No space, or no key to seal with; the segment is as it was before.
    Full(Error),
    /// What is on disk is in doubt.
    Doubt(String),
}

impl Writer {
    /// Starts the first segment of an epoch.
    pub(crate) fn start(tools: Tools, options: &Options, epoch: u64, next: u64, head: Head) -> Result<Self, Error> {
        let header = header(&tools, options.boot_id, epoch, next, head);
        let (name, file) = create(&*tools.disk, &header).map_err(|e| match e {
            e if is_full(&e) => Error::DiskFull { needed: HEADER_BYTES as u64, file: segment_name(epoch, next) },
            e => Error::io("create a segment in", tools.disk.path(), e),
        })?;
        Ok(Self {
            file,
            name,
            epoch,
            incarnation: header.incarnation,
            offset: HEADER_BYTES as u64,
            durable: 0,
            slot: empty_slot(header.incarnation),
            head,
            segment_bytes: options.segment_bytes,
            boot_id: options.boot_id,
            tools,
        })
    }

    /// Writes frames that have no numbers yet as one batch and makes them durable. `body` is plain:
    /// a batch that is written again is given as it was appended and is sealed anew.
    pub(crate) fn write(&mut self, first: u64, mut body: Vec<u8>, records: u64) -> Result<Span, WriteError> {
        self.roll(first, body.len())?;
        let shape = || WriteError::Doubt("a batch could not be encoded".to_owned());
        self.tools.sealer.seal(&mut body, first, self.incarnation).map_err(WriteError::Full)?;
        stamp(&mut body, first, self.incarnation).ok_or_else(shape)?;
        let now = self.tools.clock.now();
        let trailer = Trailer {
            acked: first.saturating_sub(1),
            last: first.saturating_add(records).saturating_sub(1),
            wall_ms: now.wall_ms,
            mono_ms: now.mono_ms,
            boot_id: self.boot_id,
            head: self.head,
        };
        let span = self.span(&body, first, &trailer);
        let head = trailer.push(&mut body, &self.head, self.incarnation).ok_or_else(shape)?;
        self.put(&body)?;
        self.head = head;
        let len = body.len() as u64;
        self.offset = self.offset.saturating_add(len);
        self.durable = span.last;
        Ok(Span { len, ..span })
    }

    /// Leaves the mark of a clean shutdown.
    pub(crate) fn mark(&mut self, lsn: u64) -> Result<Span, WriteError> {
        let mut body = Vec::with_capacity(FRAME_BYTES);
        let payload = self.epoch.to_le_bytes();
        Frame { lsn, incarnation: 0, kind: KIND_SHUTDOWN, schema: 1, flags: 0, key_id: 0, task: 0, payload: &payload }.push(&mut body);
        self.write(lsn, body, 1)
    }

    /// Notes in the segment's header what is durable, so that damage to it is never taken for a
    /// torn write. One sync; nothing when it stands there already.
    pub(crate) fn note(&mut self) -> Result<(), WriteError> {
        if self.durable <= self.slot.acked {
            return Ok(());
        }
        let slot = Slot { sequence: self.slot.sequence.saturating_add(1), acked: self.durable, ..self.slot };
        write_full(&*self.file, slot.offset(), &slot.encode())
            .and_then(|()| self.file.sync())
            .map_err(|e| WriteError::Doubt(format!("writing the watermark of {} failed: {e}", self.name)))?;
        self.slot = slot;
        Ok(())
    }

    /// The segment that is being written.
    pub(crate) fn segment(&self) -> &str {
        &self.name
    }

    fn span(&self, body: &[u8], first: u64, trailer: &Trailer) -> Span {
        let seen = frames(body).filter_map(|(_, frame)| frame.ok());
        let tip = seen.filter(|frame| frame.kind >= KIND_FIRST_USER).map(|frame| frame.lsn).last().unwrap_or(0);
        let last = trailer.last.saturating_add(1);
        let records = last.saturating_sub(first);
        Span { offset: self.offset, first, last, tip, records, ..Span::default() }
    }

    fn put(&self, bytes: &[u8]) -> Result<(), WriteError> {
        if let Err(e) = write_full(&*self.file, self.offset, bytes) {
            if !is_full(&e) {
                return Err(WriteError::Doubt(format!("writing {} failed: {e}", self.name)));
            }
            // Nothing was synced, so nothing is in doubt once the half batch is gone for good: its
            // numbers are used again, and its sectors must not mix with theirs after a power cut.
            self.file
                .truncate(self.offset)
                .and_then(|()| self.file.sync())
                .map_err(|e| WriteError::Doubt(format!("taking a half batch back from {} failed: {e}", self.name)))?;
            return Err(WriteError::Full(Error::DiskFull { needed: bytes.len() as u64, file: self.name.clone() }));
        }
        // Never retried: after a failure the kernel may call the pages clean and a second sync
        // would succeed without writing anything.
        self.file.sync().map_err(|e| WriteError::Doubt(format!("syncing {} failed: {e}", self.name)))
    }

    /// Begins a new segment when the batch would not fit in this one any more.
    fn roll(&mut self, first: u64, needed: usize) -> Result<(), WriteError> {
        let empty = self.offset <= HEADER_BYTES as u64;
        if empty || self.offset.saturating_add(needed as u64) <= self.segment_bytes {
            return Ok(());
        }
        let header = header(&self.tools, self.boot_id, self.epoch, first, self.head);
        let (name, file) = create(&*self.tools.disk, &header).map_err(|e| {
            let file = segment_name(self.epoch, first);
            if is_full(&e) {
                return WriteError::Full(Error::DiskFull { needed: HEADER_BYTES as u64, file });
            }
            WriteError::Doubt(format!("creating segment {file} failed: {e}"))
        })?;
        (self.name, self.file) = (name, file);
        self.incarnation = header.incarnation;
        self.offset = HEADER_BYTES as u64;
        (self.durable, self.slot) = (0, empty_slot(header.incarnation));
        Ok(())
    }
}

const fn empty_slot(incarnation: u64) -> Slot {
    Slot { sequence: 0, acked: 0, incarnation }
}

fn header(tools: &Tools, boot_id: [u8; 16], epoch: u64, first_lsn: u64, chain: Head) -> Header {
    let random = tools.entropy.id();
    let incarnation = u64::try_from(random & u128::from(u64::MAX)).unwrap_or_default();
    Header { epoch, first_lsn, incarnation, chain, created_ms: tools.clock.now().wall_ms, boot_id }
}

/// A segment gets its name only once its header is durable: a named segment is never half made.
fn create(disk: &dyn Disk, header: &Header) -> io::Result<(String, Box<dyn DiskFile>)> {
    let name = segment_name(header.epoch, header.first_lsn);
    let new = format!("{name}{NEW_SUFFIX}");
    let file = disk.open(&new, Mode::Create)?;
    write_full(&*file, 0, &header.encode())?;
    file.sync()?;
    disk.rename(&new, &name)?;
    // From here on the name may be durable, so a full disk is no harmless failure any more: a batch
    // that went into the old segment instead would contradict the new one.
    disk.sync_dir().map_err(io::Error::other)?;
    Ok((name, file))
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
