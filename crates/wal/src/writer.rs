//! Batches into segments: the only code that writes records to the disk.
//!
//! It knows nothing of callers or queues. Invariant: a batch is written only after the sync of the
//! one before returned, it lies wholly in one segment, and after any doubt about a sync nothing is
//! written to that segment again: `heal` ends it and begins another one.

use crate::depot::Depot;
use crate::disk::{Disk, DiskFile, Mode, write_full};
use crate::error::Error;
use crate::format::{
    FRAME_BYTES, Frame, HEADER_BYTES, Head, Header, KIND_FIRST_USER, KIND_SHUTDOWN, SLOT_BYTES, Seal, Slot, Trailer, kinds, stamp,
};
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
    pub(crate) depot: Arc<Depot>,
}

/// Where the journal stands on disk.
pub(crate) struct Writer {
    pub(crate) tools: Tools,
    file: Box<dyn DiskFile>,
    name: String,
    epoch: u64,
    incarnation: u64,
    offset: u64,
    /// No batch passes this offset, unless it is the segment's first.
    limit: u64,
    /// Up to here the file holds zeros or bytes of an earlier use.
    filled: u64,
    /// What is filled at once; it grows with the segment.
    stride: u64,
    /// The number of the next batch.
    next: u64,
    /// The newest durable number in this segment; 0 while it is empty.
    durable: u64,
    /// Where this segment's last batch lies, and its length.
    last: (u64, u64),
    /// The last watermark slot that was written.
    slot: Slot,
    head: Head,
    segment_bytes: u64,
    boot_id: [u8; 16],
}

/// What is filled ahead of the records at least and at most.
const STRIDE: (u64, u64) = (64 << 10, 1 << 20);

/// Why a batch was not written.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// No space, or no key to seal with; the segment is as it was before.
    Full(Error),
    /// What is on disk is in doubt.
    Doubt(String),
}

/// A file that has become a segment.
struct Segment {
    name: String,
    file: Box<dyn DiskFile>,
    incarnation: u64,
    /// How far the file is filled, and how far it may be written.
    filled: u64,
    limit: u64,
}

impl Writer {
    /// Starts the first segment of an epoch.
    pub(crate) fn start(tools: Tools, options: &Options, epoch: u64, next: u64, head: Head) -> Result<Self, Error> {
        let header = header(&tools, options.boot_id, epoch, next, head);
        let made = create(&*tools.disk, &header, options.segment_bytes).map_err(|e| match e {
            e if is_full(&e) => Error::DiskFull { needed: HEADER_BYTES as u64, file: segment_name(epoch, next) },
            e => Error::io("create a segment in", tools.disk.path(), e),
        })?;
        Ok(Self {
            slot: empty_slot(made.incarnation),
            file: made.file,
            name: made.name,
            epoch,
            incarnation: made.incarnation,
            offset: HEADER_BYTES as u64,
            limit: made.limit,
            filled: made.filled,
            stride: STRIDE.0,
            next,
            durable: 0,
            last: (0, 0),
            head,
            segment_bytes: options.segment_bytes,
            boot_id: options.boot_id,
            tools,
        })
    }

    /// Writes frames that have no numbers yet as one batch and makes them durable; when the disk is
    /// full, in the reserve. `body` is plain: a batch that is written again is given as it was
    /// appended and is sealed anew. After a failure it holds what it held before.
    pub(crate) fn write(&mut self, first: u64, body: &mut Vec<u8>, records: u64) -> Result<Span, WriteError> {
        self.roll(first, body.len())?;
        match self.attempt(first, body, records) {
            Err(WriteError::Full(Error::DiskFull { .. })) if self.enter_reserve(first)? => self.attempt(first, body, records),
            other => other,
        }
    }

    fn attempt(&mut self, first: u64, body: &mut Vec<u8>, records: u64) -> Result<Span, WriteError> {
        let len = body.len();
        let plain = self.tools.sealer.seals().then(|| body.clone());
        self.finish(first, body, records).inspect_err(|_| match plain {
            Some(plain) => *body = plain,
            None => body.truncate(len),
        })
    }

    fn finish(&mut self, first: u64, body: &mut Vec<u8>, records: u64) -> Result<Span, WriteError> {
        let shape = || WriteError::Doubt("a batch could not be encoded".to_owned());
        self.tools.sealer.seal(body, first, self.incarnation).map_err(WriteError::Full)?;
        stamp(body, first, self.incarnation).ok_or_else(shape)?;
        let now = self.tools.clock.now();
        let trailer = Trailer {
            acked: first.saturating_sub(1),
            last: first.saturating_add(records).saturating_sub(1),
            wall_ms: now.wall_ms,
            mono_ms: now.mono_ms,
            boot_id: self.boot_id,
            head: self.head,
        };
        let span = self.span(body, first, &trailer);
        let head = trailer.push(body, &self.head, self.incarnation).ok_or_else(shape)?;
        self.put(body)?;
        self.head = head;
        let len = body.len() as u64;
        self.last = (self.offset, len);
        self.offset = self.offset.saturating_add(len);
        self.durable = span.last;
        self.next = span.last.saturating_add(1);
        if self.offset.saturating_mul(2) > self.limit {
            self.tools.depot.want();
        }
        Ok(Span { len, ..span })
    }

    /// Leaves the mark of a clean shutdown.
    pub(crate) fn mark(&mut self, lsn: u64) -> Result<Span, WriteError> {
        let mut body = Vec::with_capacity(FRAME_BYTES);
        let payload = self.epoch.to_le_bytes();
        Frame { lsn, incarnation: 0, kind: KIND_SHUTDOWN, schema: 1, flags: 0, key_id: 0, task: 0, payload: &payload }.push(&mut body);
        let span = self.write(lsn, &mut body, 1)?;
        // What was filled ahead is given back; should it stay, it is only zeros behind the mark.
        if self.filled > self.offset
            && let Err(error) = self.file.truncate(self.offset)
        {
            tracing::debug!(%error, "the space behind the last record stays with the journal");
        }
        Ok(span)
    }

    /// Notes in the segment's header what is durable, so that damage to it is never taken for a
    /// torn write. One sync; nothing when it stands there already.
    pub(crate) fn note(&mut self) -> Result<(), WriteError> {
        if self.durable <= self.slot.acked {
            return Ok(());
        }
        let slot = Slot { sequence: self.slot.sequence.saturating_add(1), acked: self.durable, ..self.slot };
        write_full(&*self.file, slot.offset(), &slot.encode()).and_then(|()| self.file.sync()).map_err(|e| match e {
            // Where writing copies, even this needs space. Nothing is in doubt: the slot has its own sector.
            e if is_full(&e) => WriteError::Full(Error::DiskFull { needed: SLOT_BYTES as u64, file: self.name.clone() }),
            e => WriteError::Doubt(format!("writing the watermark of {} failed: {e}", self.name)),
        })?;
        self.slot = slot;
        Ok(())
    }

    /// The segment that is being written.
    pub(crate) fn segment(&self) -> &str {
        &self.name
    }

    fn span(&self, body: &[u8], first: u64, trailer: &Trailer) -> Span {
        let tip = kinds(body).zip(first..).filter(|(kind, _)| *kind >= KIND_FIRST_USER).map(|(_, lsn)| lsn).last().unwrap_or(0);
        let last = trailer.last.saturating_add(1);
        let records = last.saturating_sub(first);
        Span { offset: self.offset, first, last, tip, records, ..Span::default() }
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), WriteError> {
        if let Err(e) = write_full(&*self.file, self.offset, bytes) {
            if !is_full(&e) {
                return Err(WriteError::Doubt(format!("writing {} failed: {e}", self.name)));
            }
            // Nothing was synced, so nothing is in doubt once the half batch is gone for good: its
            // numbers are used again, and its sectors must not mix with theirs after a power cut.
            self.filled = self.offset;
            self.file
                .truncate(self.offset)
                .and_then(|()| self.file.sync())
                .map_err(|e| WriteError::Doubt(format!("taking a half batch back from {} failed: {e}", self.name)))?;
            return Err(WriteError::Full(Error::DiskFull { needed: bytes.len() as u64, file: self.name.clone() }));
        }
        self.fill_ahead(bytes.len() as u64);
        // Never retried: after a failure the kernel may call the pages clean and a second sync
        // would succeed without writing anything.
        self.file.sync().map_err(|e| WriteError::Doubt(format!("syncing {} failed: {e}", self.name)))
    }

    /// Writes zeros behind a batch that reached the end of what was filled; they become durable
    /// with it, and the next syncs need not make the file longer.
    fn fill_ahead(&mut self, written: u64) {
        let end = self.offset.saturating_add(written);
        if !self.tools.depot.preallocates() || end <= self.filled {
            return;
        }
        self.filled = end;
        let room = usize::try_from(self.limit.saturating_sub(end).min(self.stride)).unwrap_or(0);
        self.stride = self.stride.saturating_mul(2).min(STRIDE.1);
        match write_full(&*self.file, end, &vec![0; room]) {
            Ok(()) => self.filled = end.saturating_add(room as u64),
            // The batch itself is written; whether the disk is in order is for its sync to say.
            Err(error) => tracing::debug!(%error, "the journal's segment was not filled ahead"),
        }
    }

    /// Begins a new segment when the batch would not fit in this one any more.
    fn roll(&mut self, first: u64, needed: usize) -> Result<(), WriteError> {
        let empty = self.offset <= HEADER_BYTES as u64;
        let needed = needed as u64;
        if empty || self.offset.saturating_add(needed) <= self.limit {
            return Ok(());
        }
        let header = header(&self.tools, self.boot_id, self.epoch, first, self.head);
        let disk = &*self.tools.disk;
        let made = match self.tools.depot.take_spare() {
            Some(spare) => reuse(disk, &header, &spare, self.segment_bytes),
            None => create(disk, &header, self.segment_bytes),
        };
        match made {
            Ok(segment) => self.enter(segment),
            Err(e) if is_full(&e) => {
                if !self.enter_reserve(first)? {
                    return Err(WriteError::Full(Error::DiskFull { needed, file: segment_name(self.epoch, first) }));
                }
            }
            Err(e) => return Err(WriteError::Doubt(format!("creating segment {} failed: {e}", segment_name(self.epoch, first)))),
        }
        Ok(())
    }

    /// Makes the reserve a segment; `false` when there is none any more.
    fn enter_reserve(&mut self, first: u64) -> Result<bool, WriteError> {
        let Some((name, size_bytes)) = self.tools.depot.take_reserve() else { return Ok(false) };
        let header = header(&self.tools, self.boot_id, self.epoch, first, self.head);
        tracing::warn!(size_bytes, "the disk is full; the journal goes on in its reserve");
        let segment = reuse(&*self.tools.disk, &header, &name, size_bytes)
            .map_err(|e| WriteError::Doubt(format!("making the reserve segment {} failed: {e}", segment_name(self.epoch, first))))?;
        self.enter(segment);
        Ok(true)
    }

    fn enter(&mut self, segment: Segment) {
        self.file = segment.file;
        self.name = segment.name;
        self.incarnation = segment.incarnation;
        (self.filled, self.limit) = (segment.filled, segment.limit);
        self.offset = HEADER_BYTES as u64;
        (self.durable, self.slot) = (0, empty_slot(segment.incarnation));
        self.last = (0, 0);
    }

    /// After a failed write or sync: makes sure that what was acknowledged last is on the medium,
    /// ends the segment there for ever, and begins a new one. The error says why it can not go on.
    pub(crate) fn heal(&mut self) -> Result<(), String> {
        self.read_back().map_err(|why| format!("the last acknowledged batch in {} can not be read back: {why}", self.name))?;
        let seals = (self.durable > 0).then_some(Seal { incarnation: self.incarnation, last: self.durable });
        let header = Header { seals, ..header(&self.tools, self.boot_id, self.epoch, self.next, self.head) };
        let disk = &*self.tools.disk;
        let segment = create(disk, &header, self.segment_bytes)
            .map_err(|e| format!("a new segment {} could not be made: {e}", segment_name(self.epoch, self.next)))?;
        // The seal ends the failed segment already; that its rest is gone matters only to
        // compaction, which must not take the seal away before.
        let cut = seals.is_none() || self.file.truncate(self.offset).and_then(|()| self.file.sync()).is_ok();
        if !cut {
            self.tools.depot.hold_compaction();
        }
        tracing::warn!(failed = self.name, now = segment.name, last = self.durable, "the journal goes on in a new segment");
        self.enter(segment);
        Ok(())
    }

    fn read_back(&self) -> Result<(), String> {
        let (offset, len) = self.last;
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(0)];
        let mut done = 0;
        while let Some(rest) = bytes.get_mut(done..).filter(|rest| !rest.is_empty()) {
            match self.file.read_direct(offset.saturating_add(done as u64), rest) {
                Ok(0) => return Err("the file is too short".to_owned()),
                Ok(n) => done += n,
                Err(e) => return Err(e.to_string()),
            }
        }
        if len == 0 {
            return Ok(());
        }
        let mut trailer = None;
        for (_, frame) in frames(&bytes) {
            let frame = frame.map_err(|invalid| invalid.to_string())?;
            trailer = Trailer::decode(frame.payload).filter(|_| frame.is_trailer() && frame.incarnation == self.incarnation);
        }
        let stands = trailer.is_some_and(|trailer| trailer.head == self.head);
        if stands { Ok(()) } else { Err("it is not what was written".to_owned()) }
    }
}

const fn empty_slot(incarnation: u64) -> Slot {
    Slot { sequence: 0, acked: 0, incarnation }
}

fn header(tools: &Tools, boot_id: [u8; 16], epoch: u64, first_lsn: u64, chain: Head) -> Header {
    let random = tools.entropy.id();
    let incarnation = u64::try_from(random & u128::from(u64::MAX)).unwrap_or_default();
    Header { epoch, first_lsn, incarnation, chain, created_ms: tools.clock.now().wall_ms, boot_id, seals: None }
}

/// A file that is about to become a segment.
struct Draft<'a> {
    name: &'a str,
    file: Box<dyn DiskFile>,
    filled: u64,
}

/// A segment gets its name only once its header is durable: a named segment is never half made. A
/// power cut can not change that, because a name points to a file and not to another name: if the
/// new one is durable, it shows the file that was synced, also when an earlier try at the same
/// name failed. A named segment with a damaged header is therefore always damage.
fn create(disk: &dyn Disk, header: &Header, limit: u64) -> io::Result<Segment> {
    let name = format!("{}{NEW_SUFFIX}", segment_name(header.epoch, header.first_lsn));
    let file = disk.open(&name, Mode::Create)?;
    publish(disk, header, Draft { name: &name, file, filled: HEADER_BYTES as u64 }, limit)
}

/// Makes a segment of a file that is as long as it shall be. What it holds from an earlier use stays
/// behind the new header and carries another incarnation.
fn reuse(disk: &dyn Disk, header: &Header, name: &str, limit: u64) -> io::Result<Segment> {
    let file = disk.open(name, Mode::Edit)?;
    let filled = file.size()?;
    publish(disk, header, Draft { name, file, filled }, limit)
}

fn publish(disk: &dyn Disk, header: &Header, draft: Draft<'_>, limit: u64) -> io::Result<Segment> {
    let Draft { name: from, file, filled } = draft;
    let name = segment_name(header.epoch, header.first_lsn);
    write_full(&*file, 0, &header.encode())?;
    file.sync()?;
    disk.rename(from, &name)?;
    // From here on the name may be durable, so a full disk is no harmless failure any more: a batch
    // that went into the old segment instead would contradict the new one.
    disk.sync_dir().map_err(io::Error::other)?;
    Ok(Segment { name, file, incarnation: header.incarnation, filled, limit })
}

pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
