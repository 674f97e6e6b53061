//! Reading all segments of a directory in order.
//!
//! Changes nothing and needs no lock; `recover` acts on what it tells, `inspect` shows it.
//! Invariant: a gap, a broken chain between segments, or damage before the last segment's tail is
//! always reported as damage, never passed over.

use crate::compact::format::{Kept, Range};
use crate::compact::scan::{Vouching, header as compacted_header, in_force, stretches};
use crate::disk::{Disk, Mode, read_full, read_into};
use crate::error::Error;
use crate::format::{GENESIS, HEADER_BYTES, Head, Header, Invalid};
use crate::scan::{End, Span, scan};
use std::collections::HashMap;
use std::io;

/// Ending of a segment's name.
pub(crate) const SUFFIX: &str = ".wal";
/// Ending of a segment that is being made.
pub(crate) const NEW_SUFFIX: &str = ".new";

/// The name of a segment: epoch and first number, so that names sort in order.
pub(crate) fn segment_name(epoch: u64, first_lsn: u64) -> String {
    format!("{epoch:016x}-{first_lsn:016x}{SUFFIX}")
}

/// One segment as found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) name: String,
    pub(crate) header: Header,
    pub(crate) size: u64,
    pub(crate) end_offset: u64,
    pub(crate) batches: u64,
    pub(crate) records: u64,
    pub(crate) last: Option<Span>,
    /// What its watermark slots tell to have been acknowledged; 0 when they are empty.
    pub(crate) watermark: u64,
    /// Records that compaction dropped from it; `None` when it is as it was written.
    pub(crate) dropped: Option<u64>,
    /// The number behind which it does not count, because its sync failed and another one goes on.
    pub(crate) sealed: Option<u64>,
}

/// A journal as found.
#[derive(Debug)]
pub(crate) struct Survey {
    pub(crate) segments: Vec<Segment>,
    pub(crate) next: u64,
    pub(crate) head: Head,
    pub(crate) epoch: u64,
    pub(crate) tip: u64,
    /// What stands behind the last batch and why it does not count.
    pub(crate) torn: Option<String>,
    /// The first damage; what came before it was read.
    pub(crate) damage: Option<Error>,
    /// Files that a compacted segment stands for and whose removal was cut short.
    pub(crate) superseded: Vec<String>,
    vouching: Vouching,
    /// Segments that failed, by incarnation, and where they end.
    sealed: HashMap<u64, u64>,
}

impl Survey {
    /// Whether the last thing on disk is the mark of a clean shutdown.
    pub(crate) fn clean(&self) -> bool {
        let last = self.segments.iter().rev().find_map(|segment| segment.last);
        self.torn.is_none() && last.is_none_or(|span| span.shutdown)
    }
}

/// Names of segments, in order.
pub(crate) fn segment_names(disk: &dyn Disk) -> Result<Vec<String>, Error> {
    let mut names = disk.list().map_err(|e| Error::io("read the directory", disk.path(), e))?;
    names.retain(|name| name.ends_with(SUFFIX));
    names.sort();
    Ok(names)
}

/// Reads everything; `on_batch` gets each batch that stands, its segment's name, and its bytes, and
/// likewise each stretch of a compacted segment.
pub(crate) fn survey(disk: &dyn Disk, on_batch: &mut dyn FnMut(&str, Span, &[u8])) -> Result<Survey, Error> {
    let (names, superseded) = in_force(segment_names(disk)?);
    let mut found = Survey {
        segments: Vec::new(),
        next: 1,
        head: GENESIS,
        epoch: 0,
        tip: 0,
        torn: None,
        damage: None,
        superseded,
        vouching: Vouching::default(),
        sealed: sealed(disk, &names)?,
    };
    for name in names {
        match one(disk, &name, &mut found, on_batch) {
            Ok(()) => {}
            Err(damage @ (Error::Corrupt { .. } | Error::Unreadable { .. })) => {
                found.damage = Some(damage);
                break;
            }
            Err(other) => return Err(other),
        }
    }
    found.damage = found.damage.or_else(|| found.vouching.damage());
    Ok(found)
}

/// The seals come first, because they stand in later segments than what they end.
fn sealed(disk: &dyn Disk, names: &[String]) -> Result<HashMap<u64, u64>, Error> {
    let mut sealed = HashMap::new();
    for name in names.iter().filter(|name| Range::of_name(name).is_none()) {
        let file = disk.open(name, Mode::Read);
        let front = file.and_then(|file| read_full(&*file, 0, HEADER_BYTES)).map_err(|e| Error::io("read", disk.path().join(name), e))?;
        // A damaged header is told when its segment is read.
        if let Some(seal) = Header::decode(&front).ok().and_then(|header| header.seals) {
            sealed.insert(seal.incarnation, seal.last);
        }
    }
    Ok(sealed)
}

fn one(disk: &dyn Disk, name: &str, found: &mut Survey, on_batch: &mut dyn FnMut(&str, Span, &[u8])) -> Result<(), Error> {
    // Batch n+1, and so a later segment, is written only after batch n is durable: what looked
    // like a torn tail is damage as soon as another segment follows.
    let bytes = load(disk, name).map_err(|e| Error::io("read", disk.path().join(name), e))?;
    if Range::of_name(name).is_some() {
        return compacted(name, &bytes, found, on_batch);
    }
    let header = header(name, &bytes, found.next)?;
    follows(name, &header, found)?;
    let mut segment = Segment {
        name: name.to_owned(),
        size: bytes.len() as u64,
        end_offset: HEADER_BYTES as u64,
        batches: 0,
        records: 0,
        last: None,
        watermark: 0,
        dropped: None,
        sealed: None,
        header,
    };
    let mut tip = found.tip;
    let vouching = &mut found.vouching;
    segment.sealed = found.sealed.get(&segment.header.incarnation).copied();
    let scanned = scan(&bytes, &segment.header, segment.sealed, &mut |span, whole| {
        segment.batches += 1;
        segment.records += span.records;
        segment.last = Some(span);
        tip = tip.max(span.tip);
        if span.own {
            vouching.note(whole);
        }
        on_batch(name, span, whole);
    });
    segment.end_offset = scanned.end_offset;
    segment.watermark = scanned.watermark;
    found.epoch = found.epoch.max(segment.header.epoch);
    found.segments.push(segment);
    (found.tip, found.next, found.head) = (tip, scanned.next, scanned.head);
    match scanned.end {
        End::Clean => found.torn = None,
        End::Torn { why } => found.torn = Some(why),
        End::Corrupt { offset, lsn, why } => return Err(Error::Corrupt { lsn, file: name.to_owned(), offset, why }),
        End::Unreadable { offset, what } => return Err(Error::Unreadable { file: name.to_owned(), offset, what }),
    }
    Ok(())
}

/// As [`one`], for a compacted segment: no tail can be torn, because it got its name when it was whole.
fn compacted(name: &str, bytes: &[u8], found: &mut Survey, on_batch: &mut dyn FnMut(&str, Span, &[u8])) -> Result<(), Error> {
    let kept = compacted_header(name, bytes, found.next)?;
    let Kept { range, chain, created_ms, .. } = kept;
    let header = Header { epoch: range.epoch, first_lsn: range.first, incarnation: 0, chain, created_ms, boot_id: [0; 16], seals: None };
    follows(name, &header, found)?;
    let spans = stretches(name, bytes, &kept)?;
    for span in &spans {
        let end = span.offset.saturating_add(span.len);
        let whole = usize::try_from(span.offset).ok().zip(usize::try_from(end).ok()).and_then(|(from, to)| bytes.get(from..to));
        let whole = whole.unwrap_or_default();
        if span.own {
            found.vouching.note(whole);
        }
        on_batch(name, *span, whole);
    }
    found.segments.push(Segment {
        name: name.to_owned(),
        size: bytes.len() as u64,
        end_offset: bytes.len() as u64,
        batches: 0,
        records: kept.records,
        last: spans.last().copied(),
        watermark: 0,
        dropped: Some(kept.dropped),
        sealed: None,
        header,
    });
    found.epoch = found.epoch.max(range.epoch);
    (found.tip, found.next, found.head) = (found.tip.max(kept.tip), range.last.saturating_add(1), kept.chain_end);
    found.torn = None;
    found.vouching.file(kept, bytes);
    Ok(())
}

/// Reads what the file held when it was asked for its size: a running writer appends behind that,
/// and reading on would mix two moments. The header comes before the size, because its watermark
/// must not tell of bytes that came later.
fn load(disk: &dyn Disk, name: &str) -> io::Result<Vec<u8>> {
    let file = disk.open(name, Mode::Read)?;
    let mut bytes = read_full(&*file, 0, HEADER_BYTES)?;
    if bytes.len() < HEADER_BYTES {
        return Ok(bytes);
    }
    let size = usize::try_from(file.size()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    read_into(&*file, &mut bytes, size)?;
    Ok(bytes)
}

fn header(name: &str, bytes: &[u8], lsn: u64) -> Result<Header, Error> {
    let corrupt = |why: String| Error::Corrupt { lsn, file: name.to_owned(), offset: 0, why };
    let header = Header::decode(bytes).map_err(|invalid| match invalid {
        Invalid::Version(_) => Error::Unreadable { file: name.to_owned(), offset: 0, what: invalid.to_string() },
        // A segment gets its name only after its header is durable, so this is never a torn write.
        _ => corrupt(format!("the segment's header is damaged: {invalid}")),
    })?;
    if segment_name(header.epoch, header.first_lsn) != name {
        return Err(corrupt(format!("the header belongs to {}", segment_name(header.epoch, header.first_lsn))));
    }
    Ok(header)
}

fn follows(name: &str, header: &Header, found: &Survey) -> Result<(), Error> {
    if header.first_lsn == found.next && header.chain == found.head && header.epoch >= found.epoch {
        return Ok(());
    }
    let (lsn, first) = (found.next, header.first_lsn);
    let Some(before) = found.segments.last() else {
        let why = format!("the journal begins at record {first}: earlier segments are missing");
        return Err(Error::Corrupt { lsn, file: name.to_owned(), offset: 0, why });
    };
    let why = match (&found.torn, first == lsn) {
        (Some(torn), _) => format!("{torn}, and {name} follows"),
        (None, true) => format!("the hash chain is broken between it and {name}"),
        (None, false) => format!("{name} begins at record {first}: what lies between is missing"),
    };
    Err(Error::Corrupt { lsn, file: before.name.clone(), offset: before.end_offset, why })
}
