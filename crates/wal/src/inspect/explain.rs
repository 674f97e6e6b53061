//! One record and everything that is known of it, for `tinkerbell wal explain`.
//!
//! Invariant: as for all of `inspect`, nothing in the directory is changed.

use super::{Entry, entry, look};
use crate::error::Error;
use crate::format::Trailer;
use crate::scan::frames;
use crate::seal::Opener;
use std::path::Path;
use tinkerbell_core::port::Keyring;
use tinkerbell_core::words::Lsn;

/// A record with its place and its neighbours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explained {
    /// The record itself.
    pub entry: Entry,
    /// The numbers that lie with it in one batch, or in one stretch of a compacted segment.
    pub together: (Lsn, Lsn),
    /// Where that begins in the segment, and how many bytes it takes.
    pub stretch: (u64, u64),
    /// The sync that made it durable; `None` in a compacted segment, which keeps no trailers.
    pub sync: Option<Sync>,
    /// The record before it of the same task.
    pub before: Option<Entry>,
    /// The record behind it of the same task.
    pub after: Option<Entry>,
}

/// What the trailer of a batch says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sync {
    /// Everything up to this number was durable before.
    pub acked: Lsn,
    /// Wall time, milliseconds since the epoch.
    pub wall_ms: u64,
    /// Milliseconds on the clock that never jumps.
    pub mono_ms: u64,
    /// The boot in which that clock counted, hexadecimal.
    pub boot: String,
    /// The chain's head behind the batch, hexadecimal.
    pub head: String,
}

/// Looks one record up, trailers and marks included.
///
/// # Errors
/// [`Error::NotHere`] when it does not stand in the journal, and when the directory or a segment can
/// not be read. Damage behind it is no error.
pub fn explain(dir: &Path, lsn: Lsn, keyring: Option<&dyn Keyring>) -> Result<Explained, Error> {
    let mut opener = Opener::new(keyring);
    let mut found: Option<Explained> = None;
    look(dir, &mut |file, span, bytes| {
        if lsn.0 < span.first || lsn.0 > span.last {
            return;
        }
        let whole = || frames(bytes).filter_map(|(offset, frame)| Some((offset, frame.ok()?)));
        let trailer = whole().last().filter(|(_, frame)| frame.is_trailer()).and_then(|(_, frame)| Trailer::decode(frame.payload));
        let Some((offset, frame)) = whole().find(|(_, frame)| frame.lsn == lsn.0) else { return };
        let place = (file, span.offset.saturating_add(offset));
        found = Some(Explained {
            entry: entry(&mut opener, place, &frame, trailer.map_or(0, |trailer| trailer.wall_ms)),
            together: (Lsn(span.first), Lsn(span.last)),
            stretch: (span.offset, span.len),
            sync: trailer.map(|trailer| sync(&trailer)),
            before: None,
            after: None,
        });
    })
    .and_then(|survey| {
        let mut explained = found.ok_or(Error::NotHere { lsn: lsn.0, tip: survey.tip })?;
        neighbours(dir, &mut explained, &mut opener)?;
        Ok(explained)
    })
}

/// Goes over the journal once more, because only now the task is known.
fn neighbours(dir: &Path, of: &mut Explained, opener: &mut Opener<'_>) -> Result<(), Error> {
    let Some(task) = of.entry.task else { return Ok(()) };
    let lsn = of.entry.lsn.0;
    look(dir, &mut |file, span, bytes| {
        if of.after.as_ref().is_some_and(|after| after.lsn.0 < span.first) {
            return;
        }
        for (offset, frame) in frames(bytes).filter_map(|(offset, frame)| Some((offset, frame.ok()?))) {
            if frame.task != task.0 || frame.lsn == lsn {
                continue;
            }
            let place = (file, span.offset.saturating_add(offset));
            if frame.lsn < lsn {
                of.before = Some(entry(opener, place, &frame, 0));
            } else if of.after.as_ref().is_none_or(|after| after.lsn.0 >= frame.lsn) {
                of.after = Some(entry(opener, place, &frame, 0));
            }
        }
    })?;
    Ok(())
}

fn sync(trailer: &Trailer) -> Sync {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let Trailer { acked, wall_ms, mono_ms, boot_id, head, .. } = trailer;
    Sync { acked: Lsn(*acked), wall_ms: *wall_ms, mono_ms: *mono_ms, boot: hex(boot_id), head: hex(head) }
}
