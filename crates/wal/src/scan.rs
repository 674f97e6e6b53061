//! Reading one segment's bytes: which batches stand, and what the bytes behind them mean.
//!
//! Pure; it neither opens nor cuts files. Invariant: bytes are called torn only when nothing shows
//! that they were ever acknowledged. Batch n+1 is written only after the sync of batch n returned,
//! so damaged bytes are corrupt when their number is at most the `acked` of any later trailer or
//! of a watermark slot, or when a valid record lies behind the trailer of their own batch.

use crate::format::{
    FLAG_ZSTD, Frame, HEADER_BYTES, Head, Header, Invalid, KIND_FIRST_USER, KIND_SHUTDOWN, TRAILER_FRAME_BYTES, Trailer, chain, watermark,
};
use crate::share::{each, shares};

/// One batch that stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Span {
    /// Where it begins in the segment.
    pub(crate) offset: u64,
    /// Its length with the trailer.
    pub(crate) len: u64,
    /// Its first number.
    pub(crate) first: u64,
    /// Its trailer's number.
    pub(crate) last: u64,
    /// The last number of a kind that readers see; 0 when there is none.
    pub(crate) tip: u64,
    /// Records without the trailer.
    pub(crate) records: u64,
    /// Whether it is the mark of a clean shutdown.
    pub(crate) shutdown: bool,
    /// Whether it holds records of the journal itself beside its trailer.
    pub(crate) own: bool,
    /// Whether it is a stretch of a compacted segment: its numbers have gaps, and no trailer ends it.
    pub(crate) sparse: bool,
    /// Whether it stands for a whole segment that was not read.
    pub(crate) unread: bool,
}

/// What follows the last batch that stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// Nothing that was written into this segment: zeros, or bytes of an earlier use of the file.
    Clean,
    /// Bytes that were never acknowledged.
    Torn {
        /// What is wrong with them.
        why: String,
    },
    /// Bytes that were acknowledged and are damaged.
    Corrupt { offset: u64, lsn: u64, why: String },
    /// Valid bytes of a newer release.
    Unreadable { offset: u64, what: String },
}

/// One segment's batches and end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Scanned {
    /// Number that would come next.
    pub(crate) next: u64,
    /// The chain's head after the last batch.
    pub(crate) head: Head,
    /// Where the last batch ends.
    pub(crate) end_offset: u64,
    /// What the watermark slots tell to have been acknowledged; 0 when they are empty.
    pub(crate) watermark: u64,
    pub(crate) end: End,
}

enum Step {
    Batch(Span, Head),
    Bad(End),
}

/// Walks a whole segment and hands each batch that stands to `on_batch` with its bytes. What lies
/// behind number `sealed` does not count, whatever it is.
pub(crate) fn scan(bytes: &[u8], header: &Header, sealed: Option<u64>, on_batch: &mut dyn FnMut(Span, &[u8])) -> Scanned {
    let watermark = watermark(bytes, header.incarnation);
    let mut found = Scanned { next: header.first_lsn, head: header.chain, end_offset: HEADER_BYTES as u64, watermark, end: End::Clean };
    let mut rest = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let ends = |next: u64| sealed.is_some_and(|last| next > last);
    let mut spans = Vec::new();
    while !rest.is_empty() && !ends(found.next) {
        match batch(rest, header.incarnation, &found) {
            Step::Batch(span, head) => {
                rest = split(rest, span.len).1;
                spans.push(span);
                found.next = span.last.saturating_add(1);
                found.head = head;
                found.end_offset = span.offset.saturating_add(span.len);
            }
            Step::Bad(end) => {
                // What was filled ahead, or what an earlier use of the file left, tells nothing.
                let leftover = matches!(end, End::Torn { .. }) && find(rest, header.incarnation.to_le_bytes()).is_none();
                found.end = if leftover { End::Clean } else { end };
                break;
            }
        }
    }
    if let Some(at) = broken(bytes, &header.chain, &spans) {
        unlink(bytes, header, spans.split_off(at), &mut found);
    }
    for span in spans {
        on_batch(span, slice(bytes, &span));
    }
    let watermark = watermark.max(sealed.unwrap_or(0));
    if found.end == End::Clean && found.next <= watermark {
        let why = format!("record {} is missing, and records up to {watermark} were acknowledged", found.next);
        found.end = End::Corrupt { offset: found.end_offset, lsn: found.next, why };
    }
    found
}

/// The first batch that does not follow from the one before it. Each trailer carries its head, so
/// that links are checked apart from each other, in shares.
fn broken(bytes: &[u8], begin: &Head, spans: &[Span]) -> Option<usize> {
    let links: Vec<(Option<&Span>, &Span)> = std::iter::once(None).chain(spans.iter().map(Some)).zip(spans).collect();
    let share = links.len().div_ceil(shares(bytes.len())).max(1);
    let holds = |(before, span): &(Option<&Span>, &Span)| {
        let before = before.map_or(Some(*begin), |before| head(slice(bytes, before)));
        let whole = slice(bytes, span);
        let (frames, trailer) = whole.split_at(whole.len().saturating_sub(TRAILER_FRAME_BYTES));
        before.is_some_and(|before| chain(&before, frames, trailer).is_some_and(|now| head(whole) == Some(now)))
    };
    let found = each(links.chunks(share).collect(), &|part| part.iter().position(|link| !holds(link)));
    found.into_iter().enumerate().find_map(|(n, at)| Some(at?.saturating_add(n.saturating_mul(share))))
}

/// Takes back what was read from the first broken link on.
fn unlink(bytes: &[u8], header: &Header, spans: Vec<Span>, found: &mut Scanned) {
    let Some(span) = spans.first() else { return };
    let before = bytes.get(HEADER_BYTES..).map_or(&[][..], |body| split(body, span.offset.saturating_sub(HEADER_BYTES as u64)).0);
    (found.next, found.end_offset) = (span.first, span.offset);
    found.head = head(before).unwrap_or(header.chain);
    found.end = End::Corrupt {
        offset: span.offset.saturating_add(span.len).saturating_sub(TRAILER_FRAME_BYTES as u64),
        lsn: span.first,
        why: "the hash chain is broken: the batch or one before it was replaced".to_owned(),
    };
}

/// The bytes of a batch.
fn slice<'a>(bytes: &'a [u8], span: &Span) -> &'a [u8] {
    split(split(bytes, span.offset).1, span.len).0
}

/// The chain's head behind a batch, with which its trailer ends.
fn head(batch: &[u8]) -> Option<Head> {
    batch.last_chunk().copied()
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    usize::try_from(at).ok().and_then(|at| bytes.split_at_checked(at)).unwrap_or((bytes, &[]))
}

/// Reads one batch at the beginning of `rest`.
fn batch(rest: &[u8], incarnation: u64, before: &Scanned) -> Step {
    let mut span = Span { offset: before.end_offset, first: before.next, ..Span::default() };
    let mut lsn = before.next;
    let mut at = 0_usize;
    loop {
        let offset = before.end_offset.saturating_add(at as u64);
        let tail = rest.get(at..).unwrap_or_default();
        let frame = match check(tail, incarnation, lsn) {
            Ok(frame) => frame,
            Err(why) => {
                let acked = acknowledged(tail, incarnation).max(before.watermark);
                return Step::Bad(judge(acked, offset, lsn, why));
            }
        };
        if let Some(what) = too_new(&frame) {
            return Step::Bad(End::Unreadable { offset, what });
        }
        if frame.is_trailer() {
            return end_of_batch(at, &frame, span);
        }
        span.records += 1;
        if frame.kind >= KIND_FIRST_USER {
            span.tip = lsn;
        } else {
            span.own = true;
        }
        span.shutdown = frame.kind == KIND_SHUTDOWN;
        at += frame.size();
        lsn = lsn.saturating_add(1);
    }
}

fn check(bytes: &[u8], incarnation: u64, lsn: u64) -> Result<Frame<'_>, String> {
    let frame = Frame::decode(bytes).map_err(|invalid: Invalid| format!("record {lsn} is damaged: {invalid}"))?;
    if frame.incarnation != incarnation {
        return Err("a record of an earlier use of this file".to_owned());
    }
    if frame.lsn != lsn {
        return Err(format!("record {} stands where {lsn} belongs", frame.lsn));
    }
    Ok(frame)
}

pub(crate) fn too_new(frame: &Frame<'_>) -> Option<String> {
    let flags = frame.unknown_flags();
    if flags & FLAG_ZSTD != 0 {
        return Some(format!("record {} is compressed", frame.lsn));
    }
    if flags != 0 {
        return Some(format!("record {} has unknown flags {flags:#04x}", frame.lsn));
    }
    (frame.is_trailer() && frame.schema != 1).then(|| format!("trailer {} has version {}", frame.lsn, frame.schema))
}

/// A trailer whose checksum holds can not be a torn one, so any contradiction in it is damage. The
/// chain is checked once all batches are known.
fn end_of_batch(at: usize, frame: &Frame<'_>, mut span: Span) -> Step {
    let offset = span.offset.saturating_add(at as u64);
    let corrupt = |why: &str| Step::Bad(End::Corrupt { offset, lsn: span.first, why: why.to_owned() });
    let Some(trailer) = Trailer::decode(frame.payload) else {
        return corrupt("the batch's trailer has the wrong length");
    };
    if trailer.acked.checked_add(1) != Some(span.first) || trailer.last.checked_add(1) != Some(frame.lsn) {
        return corrupt("the batch's trailer names other records");
    }
    span.last = frame.lsn;
    span.len = (at + frame.size()) as u64;
    Step::Batch(span, trailer.head)
}

/// Decides between torn and corrupt for the bytes at `offset`, where `lsn` was expected.
fn judge(acked: u64, offset: u64, lsn: u64, why: String) -> End {
    if acked >= lsn {
        return End::Corrupt { offset, lsn, why: format!("{why}, and records up to {acked} were acknowledged") };
    }
    End::Torn { why }
}

/// The highest number that the frames found anywhere in `bytes` prove to have been acknowledged.
fn acknowledged(bytes: &[u8], incarnation: u64) -> u64 {
    evidence(bytes, incarnation).acked
}

/// What whole frames tell that stand somewhere among damaged bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Evidence {
    /// The highest number that must have been acknowledged; 0 when nothing shows it.
    pub(crate) acked: u64,
    /// The highest number seen.
    pub(crate) newest: u64,
    /// Whole records, without trailers and the journal's own.
    pub(crate) records: u64,
}

/// Looks for whole frames anywhere in `bytes`.
pub(crate) fn evidence(bytes: &[u8], incarnation: u64) -> Evidence {
    let needle = incarnation.to_le_bytes();
    let (mut seen, mut first_trailer) = (Evidence::default(), None);
    let mut at = 0_usize;
    while let Some(found) = find(bytes.get(at..).unwrap_or_default(), needle) {
        let start = (at + found).checked_sub(16);
        let frame = start.and_then(|start| bytes.get(start..)).and_then(|bytes| Frame::decode(bytes).ok());
        let (Some(frame), Some(start)) = (frame, start) else {
            at += found + 1;
            continue;
        };
        seen.newest = seen.newest.max(frame.lsn);
        seen.records = seen.records.saturating_add(u64::from(frame.kind >= KIND_FIRST_USER));
        if let Some(trailer) = frame.is_trailer().then(|| Trailer::decode(frame.payload)).flatten() {
            seen.acked = seen.acked.max(trailer.acked);
            first_trailer = first_trailer.or(Some(frame.lsn));
        }
        at = start + frame.size();
    }
    match first_trailer {
        Some(trailer) if seen.newest > trailer => Evidence { acked: seen.acked.max(trailer), ..seen },
        _ => seen,
    }
}

/// Bytes that are looked through at once, as many as fit in the machine's wide registers.
const WIDE: usize = 128;

/// Looks for one byte of the needle that is not zero, in wide steps: what was filled ahead, tens of
/// MiB of zeros, has none and takes no longer than reading it.
fn find(bytes: &[u8], needle: [u8; 8]) -> Option<usize> {
    let (pivot, byte) = needle.iter().copied().enumerate().find(|(_, byte)| *byte != 0).unwrap_or((0, 0));
    let mut at = 0_usize;
    for wide in bytes.chunks(WIDE) {
        if wide.iter().fold(false, |hit, one| hit | (*one == byte)) {
            let starts = (at..).zip(wide).filter(|(_, one)| **one == byte).filter_map(|(at, _)| at.checked_sub(pivot));
            for start in starts {
                if bytes.get(start..).is_some_and(|rest| rest.starts_with(&needle)) {
                    return Some(start);
                }
            }
        }
        at += wide.len();
    }
    None
}

/// The frames of a batch that stands, with their offsets in it.
pub(crate) fn frames(bytes: &[u8]) -> impl Iterator<Item = (u64, Result<Frame<'_>, Invalid>)> {
    let mut at = 0_usize;
    std::iter::from_fn(move || {
        let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
        let offset = at as u64;
        let frame = Frame::decode(rest);
        at = frame.as_ref().map_or(usize::MAX, |frame| at.saturating_add(frame.size()));
        Some((offset, frame))
    })
}
