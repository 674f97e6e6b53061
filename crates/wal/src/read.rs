//! Reading durable records back.
//!
//! Blocking; the journal calls it off the runtime. Invariant: a record is given out only if its
//! checksum holds and its number is the one that was expected there. In a compacted segment any
//! rising number of its stretch is expected.

use crate::disk::{Disk, DiskFile, Mode, read_full};
use crate::error::Error;
use crate::format::{FLAG_BLOB, Frame, KIND_FIRST_USER};
use crate::index::Extent;
use crate::scan::frames;
use crate::seal::{Opened, Opener};
use bytes::Bytes;
use tinkerbell_core::port::Record;
use tinkerbell_core::words::{Lsn, TaskId};

/// Finds the stretch that holds a number; `None` behind the newest durable one.
pub(crate) type Find<'a> = &'a dyn Fn(u64) -> Result<Option<(Extent, String)>, Error>;

/// How often a stretch is looked up again because compaction removed its segment meanwhile.
const ATTEMPTS: u32 = 8;

/// At most `limit` records from `from` on. Those whose key was destroyed are left out.
pub(crate) fn read(disk: &dyn Disk, find: Find<'_>, opener: &mut Opener<'_>, from: u64, limit: usize) -> Result<Vec<Record>, Error> {
    let mut out = Vec::new();
    let mut at = from.max(1);
    let mut open: Option<(String, Box<dyn DiskFile>)> = None;
    let mut left = ATTEMPTS;
    while out.len() < limit {
        let Some((extent, name)) = find(at)? else { break };
        let file = match open.take().filter(|(open, _)| *open == name) {
            Some(file) => file,
            None => match disk.open(&name, Mode::Read) {
                Ok(file) => (name.clone(), file),
                // Compaction shows the new place before it removes the old one.
                Err(e) if e.kind() == std::io::ErrorKind::NotFound && left > 0 => {
                    left = left.saturating_sub(1);
                    continue;
                }
                Err(e) => return Err(Error::io("read", disk.path().join(&name), e)),
            },
        };
        let bytes = stretch(disk, &*file.1, &name, &extent)?;
        let records = match check(&bytes, &name, &extent) {
            // The freed file may be in use again: what counts is where the stretch lies now.
            Err(_) if left > 0 && find(at)?.is_some_and(|(_, now)| now != name) => {
                left = left.saturating_sub(1);
                continue;
            }
            other => other?,
        };
        for frame in records.iter().filter(|frame| frame.lsn >= at && frame.kind >= KIND_FIRST_USER) {
            if out.len() == limit {
                break;
            }
            if let Opened::Plain(payload) = opener.open(frame)? {
                out.push(record(frame, payload));
            }
        }
        at = extent.end;
        open = Some(file);
    }
    Ok(out)
}

/// The bytes of a stretch.
pub(crate) fn stretch(disk: &dyn Disk, file: &dyn DiskFile, name: &str, extent: &Extent) -> Result<Vec<u8>, Error> {
    let len = usize::try_from(extent.len).unwrap_or(usize::MAX);
    read_full(file, extent.offset, len).map_err(|e| Error::io("read", disk.path().join(name), e))
}

/// All frames of a stretch, each with its own number and an intact checksum.
pub(crate) fn check<'a>(bytes: &'a [u8], name: &str, extent: &Extent) -> Result<Vec<Frame<'a>>, Error> {
    let mut good = Vec::new();
    let mut expected = extent.first;
    for (offset, frame) in frames(bytes) {
        let damaged = |why: String| Error::Corrupt {
            lsn: expected,
            file: name.to_owned(),
            offset: extent.offset.saturating_add(offset),
            why: format!("{why}; it was intact when it was written or the journal was opened"),
        };
        let frame = frame.map_err(|invalid| damaged(format!("record {expected} is damaged: {invalid}")))?;
        let fits = if extent.sparse { frame.lsn >= expected && frame.lsn < extent.end } else { frame.lsn == expected };
        if !fits {
            return Err(damaged(format!("record {} stands where {expected} belongs", frame.lsn)));
        }
        expected = frame.lsn.saturating_add(1);
        good.push(frame);
    }
    let short = if extent.sparse { (bytes.len() as u64) < extent.len } else { expected < extent.end };
    if short {
        let why = "the file is shorter than it was".to_owned();
        return Err(Error::Corrupt { lsn: expected, file: name.to_owned(), offset: extent.offset, why });
    }
    Ok(good)
}

/// The payload is a copy: a slice would keep a whole stretch in memory for one small record.
fn record(frame: &Frame<'_>, payload: Bytes) -> Record {
    Record {
        lsn: Lsn(frame.lsn),
        kind: frame.kind,
        schema: frame.schema,
        task: (frame.task != 0).then_some(TaskId(frame.task)),
        blob: frame.flags & FLAG_BLOB != 0,
        payload,
    }
}
