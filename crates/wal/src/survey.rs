//! Reading all segments of a directory in order.
//!
//! Changes nothing and needs no lock; `recover` acts on what it tells, `inspect` shows it.
//! Invariant: a gap, a broken chain between segments, or damage before the last segment's tail is
//! always reported as damage, never passed over.

use crate::compact::format::{Kept, Range};
use crate::compact::scan::{Vouching, first_of, header as compacted_header, in_force, stretches};
use crate::disk::{Disk, Mode, read_full, read_into};
use crate::error::Error;
use crate::format::{GENESIS, HEADER_BYTES, Head, Header, Invalid};
use crate::index::Index;
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
    /// Whether nothing but its header was read.
    pub(crate) unread: bool,
}

/// A segment of which nothing but the header was read, and what it has to lead to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unread {
    pub(crate) name: String,
    /// The number and the chain's head that it begins with.
    first: u64,
    chain: Head,
    /// The number that comes behind it.
    next: u64,
    /// The chain's head behind it.
    head: Head,
    /// The epoch of the segment before it.
    epoch: u64,
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
    /// Segments that a checkpoint stands for and that were not read.
    pub(crate) unread: Vec<Unread>,
    pub(crate) vouching: Vouching,
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
    survey_behind(disk, 0, on_batch)
}

/// As [`survey`], but of segments whose numbers are all below `through` only the headers are read.
/// Each is given to `on_batch` as one span that is marked as unread.
pub(crate) fn survey_behind(disk: &dyn Disk, through: u64, on_batch: &mut dyn FnMut(&str, Span, &[u8])) -> Result<Survey, Error> {
    let (names, superseded) = in_force(segment_names(disk)?);
    // Old files are removed only for a compacted one that was read and is vouched for.
    let through = if superseded.is_empty() { through } else { 0 };
    let mut found = Survey { superseded, sealed: sealed(disk, &names)?, ..Survey::default() };
    let mut buffer = Vec::new();
    for (at, name) in names.iter().enumerate() {
        let old = names.get(at.saturating_add(1)).filter(|next| first_of(next).is_some_and(|first| first < through));
        let done = match old.map(|next| peek(disk, name, next, &mut found, on_batch)) {
            None | Some(Ok(false)) => one(disk, name, &mut found, &mut buffer, on_batch),
            Some(done) => done.map(|_| ()),
        };
        match done {
            Ok(()) => {}
            Err(damage @ (Error::Corrupt { .. } | Error::Unreadable { .. })) => {
                found.damage = Some(damage);
                break;
            }
            Err(other) => return Err(other),
        }
    }
    // What vouches for those that were read lies in later segments, which were read as well.
    found.damage = found.damage.or_else(|| found.vouching.damage());
    Ok(found)
}

impl Default for Survey {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            next: 1,
            head: GENESIS,
            epoch: 0,
            tip: 0,
            torn: None,
            damage: None,
            superseded: Vec::new(),
            unread: Vec::new(),
            vouching: Vouching::default(),
            sealed: HashMap::new(),
        }
    }
}

/// Reads the header of a segment that a checkpoint stands for, behind which `next` lies. `false` when
/// it has to be read whole: it failed and has to be cut, or it is empty, or `next` does not tell
/// where its chain ends.
fn peek(disk: &dyn Disk, name: &str, next: &str, found: &mut Survey, on_batch: &mut dyn FnMut(&str, Span, &[u8])) -> Result<bool, Error> {
    let failed = |e| Error::io("read", disk.path().join(name), e);
    let file = disk.open(name, Mode::Read).map_err(failed)?;
    let (front, size) = (read_full(&*file, 0, HEADER_BYTES).map_err(failed)?, file.size().map_err(failed)?);
    let (header, kept) = if Range::of_name(name).is_some() {
        let kept = compacted_header(name, &front, found.next)?;
        (stands_for(&kept), Some(kept))
    } else {
        (header(name, &front, found.next)?, None)
    };
    follows(name, &header, found)?;
    let (first, head) = match &kept {
        Some(kept) => (kept.range.last.saturating_add(1), kept.chain_end),
        None => match begins(disk, next) {
            Some(begins) => begins,
            None => return Ok(false),
        },
    };
    if first <= header.first_lsn || found.sealed.contains_key(&header.incarnation) {
        return Ok(false);
    }
    let Header { first_lsn, chain, .. } = header;
    found.unread.push(Unread { name: name.to_owned(), first: first_lsn, chain, next: first, head, epoch: found.epoch });
    let (tip, dropped) = (kept.as_ref().map_or(0, |kept| kept.tip), kept.as_ref().map(|kept| kept.dropped));
    let (offset, last) = (HEADER_BYTES as u64, first.saturating_sub(1));
    let whole = Span { offset, len: size.saturating_sub(offset), first: header.first_lsn, last, tip, unread: true, ..Span::default() };
    on_batch(name, whole, &[]);
    found.epoch = found.epoch.max(header.epoch);
    (found.tip, found.next, found.head, found.torn) = (found.tip.max(tip), first, head, None);
    found.segments.push(Segment { size, end_offset: size, dropped, unread: true, ..Segment::new(name, header) });
    Ok(true)
}

/// The number and the chain's head that a segment begins with; `None` when its header is damaged,
/// which is told when its own turn comes.
fn begins(disk: &dyn Disk, name: &str) -> Option<(u64, Head)> {
    let file = disk.open(name, Mode::Read).ok()?;
    let front = read_full(&*file, 0, HEADER_BYTES).ok()?;
    if Range::of_name(name).is_some() {
        let kept = compacted_header(name, &front, 0).ok()?;
        return Some((kept.range.first, kept.chain));
    }
    let header = header(name, &front, 0).ok()?;
    Some((header.first_lsn, header.chain))
}

/// Reads a segment of which only the header was read, as an opening that reads everything does, and
/// gives its stretches.
///
/// # Errors
/// When it is damaged, or does not lead to what follows it.
pub(crate) fn reread(disk: &dyn Disk, unread: &Unread, vouching: &mut Vouching) -> Result<Index, Error> {
    let file = &unread.name;
    let Unread { first, chain, epoch, .. } = *unread;
    let mut found = Survey { vouching: std::mem::take(vouching), next: first, head: chain, epoch, ..Survey::default() };
    let mut part = Index::default();
    let read = one(disk, file, &mut found, &mut Vec::new(), &mut |name, span, _| part.add(name, &span));
    *vouching = std::mem::take(&mut found.vouching);
    read?;
    if (found.next, found.head) == (unread.next, unread.head) {
        return Ok(part);
    }
    let why = match found.torn {
        Some(torn) => format!("{torn}, and record {} follows", unread.next),
        None if found.next == unread.next => "the hash chain is broken between it and the next segment".to_owned(),
        None => format!("the next segment begins at record {}: what lies between is missing", unread.next),
    };
    let offset = found.segments.last().map_or(0, |segment| segment.end_offset);
    Err(Error::Corrupt { lsn: found.next, file: file.clone(), offset, why })
}

impl Segment {
    /// One of which nothing is known but its header.
    fn new(name: &str, header: Header) -> Self {
        Self {
            name: name.to_owned(),
            header,
            size: 0,
            end_offset: HEADER_BYTES as u64,
            batches: 0,
            records: 0,
            last: None,
            watermark: 0,
            dropped: None,
            sealed: None,
            unread: false,
        }
    }
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

fn one(
    disk: &dyn Disk,
    name: &str,
    found: &mut Survey,
    bytes: &mut Vec<u8>,
    on_batch: &mut dyn FnMut(&str, Span, &[u8]),
) -> Result<(), Error> {
    // Batch n+1, and so a later segment, is written only after batch n is durable: what looked
    // like a torn tail is damage as soon as another segment follows.
    load(disk, name, bytes).map_err(|e| Error::io("read", disk.path().join(name), e))?;
    if Range::of_name(name).is_some() {
        return compacted(name, bytes, found, on_batch);
    }
    let header = header(name, bytes, found.next)?;
    follows(name, &header, found)?;
    let mut segment = Segment { size: bytes.len() as u64, ..Segment::new(name, header) };
    let mut tip = found.tip;
    let vouching = &mut found.vouching;
    segment.sealed = found.sealed.get(&segment.header.incarnation).copied();
    let scanned = scan(bytes, &segment.header, segment.sealed, &mut |span, whole| {
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
    let (range, header) = (kept.range, stands_for(&kept));
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
        size: bytes.len() as u64,
        end_offset: bytes.len() as u64,
        records: kept.records,
        last: spans.last().copied(),
        dropped: Some(kept.dropped),
        ..Segment::new(name, header)
    });
    found.epoch = found.epoch.max(range.epoch);
    (found.tip, found.next, found.head) = (found.tip.max(kept.tip), range.last.saturating_add(1), kept.chain_end);
    found.torn = None;
    found.vouching.file(kept, bytes);
    Ok(())
}

/// The header of a plain segment in the place of a compacted one.
const fn stands_for(kept: &Kept) -> Header {
    let Kept { range, chain, created_ms, .. } = *kept;
    Header { epoch: range.epoch, first_lsn: range.first, incarnation: 0, chain, created_ms, boot_id: [0; 16], seals: None }
}

/// Reads what the file held when it was asked for its size: a running writer appends behind that,
/// and reading on would mix two moments. The header comes before the size, because its watermark
/// must not tell of bytes that came later.
fn load(disk: &dyn Disk, name: &str, bytes: &mut Vec<u8>) -> io::Result<()> {
    let file = disk.open(name, Mode::Read)?;
    bytes.clear();
    read_into(&*file, bytes, HEADER_BYTES)?;
    if bytes.len() < HEADER_BYTES {
        return Ok(());
    }
    let size = usize::try_from(file.size()?).map_err(|_| io::ErrorKind::FileTooLarge)?;
    read_into(&*file, bytes, size)
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
