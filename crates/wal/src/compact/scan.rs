//! Reading compacted segments at an opening, and whether each is vouched for.
//!
//! Pure but for the bytes that it is given. Invariant: a compacted segment counts only if the newest
//! retirement record of its name, which lies in the chain of a later segment, holds its SHA-256; so a
//! changed one is damage, as a changed plain segment is.

use super::format::{KIND_RETIRED, Kept, Range, Retired};
use crate::error::Error;
use crate::format::{HEADER_BYTES, Invalid, KIND_FIRST_USER};
use crate::scan::{Span, frames, too_new};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

/// A stretch of frames in a compacted segment is ended at this length, as the index joins batches.
const STRETCH_BYTES: u64 = 64 * 1024;

/// Names in order, without segments that a compacted one stands for; those come second.
pub(crate) fn in_force(names: Vec<String>) -> (Vec<String>, Vec<String>) {
    let mut ranges: Vec<Range> = names.iter().filter_map(|name| Range::of_name(name)).collect();
    ranges.sort_by_key(|range| std::cmp::Reverse(range.generation));
    let mut valid: Vec<Range> = Vec::new();
    for range in ranges {
        // A newer one that covers it took its place; its removal was cut short.
        if !valid.iter().any(|newer| newer.holds(range.first) && newer.holds(range.last)) {
            valid.push(range);
        }
    }
    names.into_iter().partition(|name| match Range::of_name(name) {
        Some(range) => valid.contains(&range),
        None => first_of(name).is_none_or(|first| !valid.iter().any(|range| range.holds(first))),
    })
}

/// The first number that a plain segment's name tells.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    u64::from_str_radix(name.get(17..33)?, 16).ok()
}

/// What was found of compacted segments and of records that vouch for them.
#[derive(Debug, Default)]
pub(crate) struct Vouching {
    files: Vec<(Kept, [u8; 32])>,
    retired: BTreeMap<String, Retired>,
}

impl Vouching {
    /// Notes the retirement records among the frames in `bytes`.
    pub(crate) fn note(&mut self, bytes: &[u8]) {
        let own = frames(bytes).filter_map(|(_, frame)| frame.ok()).filter(|frame| frame.kind == KIND_RETIRED);
        for retired in own.filter_map(|frame| Retired::decode(frame.payload)) {
            self.retired.insert(retired.range.name(), retired);
        }
    }

    /// Notes a compacted segment.
    pub(crate) fn file(&mut self, kept: Kept, bytes: &[u8]) {
        self.files.push((kept, Sha256::digest(bytes).into()));
    }

    /// The first compacted segment that nothing vouches for.
    pub(crate) fn damage(&self) -> Option<Error> {
        self.files.iter().find_map(|(kept, sha256)| {
            let file = kept.range.name();
            let why = match self.retired.get(&file) {
                Some(retired) if retired.sha256 == *sha256 && retired.chain_end == kept.chain_end => return None,
                Some(_) => "the compacted segment is not the one that its retirement record names: it was replaced",
                None => "no retirement record vouches for the compacted segment",
            };
            Some(Error::Corrupt { lsn: kept.range.first, file, offset: 0, why: why.to_owned() })
        })
    }
}

/// Reads the header of a compacted segment.
pub(crate) fn header(name: &str, bytes: &[u8], lsn: u64) -> Result<Kept, Error> {
    let corrupt = |why: String| Error::Corrupt { lsn, file: name.to_owned(), offset: 0, why };
    let kept = Kept::decode(bytes).map_err(|invalid| match invalid {
        Invalid::Version(_) => Error::Unreadable { file: name.to_owned(), offset: 0, what: invalid.to_string() },
        _ => corrupt(format!("the compacted segment's header is damaged: {invalid}")),
    })?;
    if kept.range.name() != name {
        return Err(corrupt(format!("the header belongs to {}", kept.range.name())));
    }
    Ok(kept)
}

/// The stretches of a compacted segment; together they cover its whole range.
pub(crate) fn stretches(name: &str, bytes: &[u8], kept: &Kept) -> Result<Vec<Span>, Error> {
    let corrupt = |lsn, offset, why| Error::Corrupt { lsn, file: name.to_owned(), offset, why };
    let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
    let mut builder = Stretches::new(kept.range.first);
    let (mut records, mut next) = (0_u64, kept.range.first);
    for (at, frame) in frames(body) {
        let offset = at.saturating_add(HEADER_BYTES as u64);
        let frame = frame.map_err(|invalid| corrupt(next, offset, format!("a kept record is damaged: {invalid}")))?;
        if let Some(what) = too_new(&frame) {
            return Err(Error::Unreadable { file: name.to_owned(), offset, what });
        }
        if frame.lsn < next || frame.lsn > kept.range.last {
            return Err(corrupt(next, offset, format!("record {} stands where {next} or a later one belongs", frame.lsn)));
        }
        builder.push(frame.lsn, frame.kind, frame.size() as u64);
        (records, next) = (records.saturating_add(1), frame.lsn.saturating_add(1));
    }
    if body.len() as u64 != kept.body_bytes || records != kept.records {
        return Err(corrupt(next, bytes.len() as u64, "the compacted segment is shorter or longer than it was".to_owned()));
    }
    Ok(builder.end(kept.range.last))
}

/// Joins frames to stretches of a useful length.
pub(crate) struct Stretches {
    done: Vec<Span>,
    open: Span,
}

impl Stretches {
    pub(crate) fn new(first: u64) -> Self {
        let open = Span { offset: HEADER_BYTES as u64, first, sparse: true, ..Span::default() };
        Self { done: Vec::new(), open }
    }

    pub(crate) fn push(&mut self, lsn: u64, kind: u16, len: u64) {
        if self.open.len >= STRETCH_BYTES {
            let offset = self.open.offset.saturating_add(self.open.len);
            let next = Span { offset, first: self.open.last.saturating_add(1), sparse: true, ..Span::default() };
            self.done.push(std::mem::replace(&mut self.open, next));
        }
        self.open.len = self.open.len.saturating_add(len);
        self.open.last = lsn;
        self.open.records = self.open.records.saturating_add(1);
        if kind >= KIND_FIRST_USER {
            self.open.tip = lsn;
        } else {
            self.open.own = true;
        }
    }

    /// The last stretch reaches to the range's end, whatever is left of it.
    pub(crate) fn end(mut self, last: u64) -> Vec<Span> {
        self.open.last = last;
        self.done.push(self.open);
        self.done
    }
}
