//! What a layer's directory keeps beside what the command wrote: `applied` and `notes`.
//!
//! `applied` grows by one record for each path that was brought into the tree while the command still
//! ran: `1 <ino> <size> <mtime> <ctime> <ino> <size> <mtime> <path>`, ended by NUL; the first four
//! numbers are of the layer's file, the others of the tree's, with `- - -` where it was deleted; times in
//! nanoseconds since 1970. `notes` has a line for each change that was not taken over: `r` (refused)
//! or `d` (dropped), a blank, and the text. Invariant: a record that was cut off by a crash is skipped.

use gix::bstr::{BString, ByteSlice};
use rustix::fs::Stat;
use std::collections::BTreeMap;

/// Version of both files' lines.
const VERSION: &str = "1";

/// A file of a layer, as far as it tells that its content is the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper {
    /// Inode.
    pub ino: u64,
    /// Bytes.
    pub size: i64,
    /// Content changed.
    pub mtime: i64,
    /// Anything changed.
    pub ctime: i64,
}

/// A file of the tree as it was put there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lower {
    /// Inode.
    pub ino: u64,
    /// Bytes; 0 for a directory.
    pub size: i64,
    /// Content changed; 0 for a directory.
    pub mtime: i64,
}

/// One path that was brought into the tree; `lower` is none where it was deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record {
    /// What stood in the layer.
    pub upper: Upper,
    /// What stands in the tree since.
    pub lower: Option<Lower>,
}

#[allow(clippy::unnecessary_cast, reason = "the field types differ between systems")]
impl Upper {
    /// Of a stat.
    pub fn of(stat: &Stat) -> Self {
        let nanos = |s: i64, n: i64| s.saturating_mul(1_000_000_000).saturating_add(n);
        Self {
            ino: stat.st_ino as u64,
            size: stat.st_size as i64,
            mtime: nanos(stat.st_mtime as i64, stat.st_mtime_nsec as i64),
            ctime: nanos(stat.st_ctime as i64, stat.st_ctime_nsec as i64),
        }
    }
}

impl Lower {
    /// Of a stat.
    pub fn of(stat: &Stat) -> Self {
        let Upper { ino, size, mtime, .. } = Upper::of(stat);
        if crate::beneath::kind_of(stat) == rustix::fs::FileType::Directory {
            Self { ino, size: 0, mtime: 0 }
        } else {
            Self { ino, size, mtime }
        }
    }
}

/// One record's bytes.
pub fn encode(path: &[u8], record: &Record) -> Vec<u8> {
    let Upper { ino, size, mtime, ctime } = record.upper;
    let lower = record.lower.map_or_else(|| "- - -".to_owned(), |low| format!("{} {} {}", low.ino, low.size, low.mtime));
    let mut out = format!("{VERSION} {ino} {size} {mtime} {ctime} {lower} ").into_bytes();
    out.extend_from_slice(path);
    out.push(0);
    out
}

/// All whole records; of a path's several the last one counts.
pub fn decode(bytes: &[u8]) -> BTreeMap<BString, Record> {
    // What follows the last NUL was cut off.
    let whole = bytes.rfind_byte(0).and_then(|end| bytes.get(..end)).unwrap_or_default();
    whole.split(|byte| *byte == 0).filter_map(one).collect()
}

fn one(line: &[u8]) -> Option<(BString, Record)> {
    let mut fields = line.splitn(9, |byte| *byte == b' ');
    let mut word = || fields.next()?.to_str().ok();
    if word()? != VERSION {
        return None;
    }
    let upper =
        Upper { ino: word()?.parse().ok()?, size: word()?.parse().ok()?, mtime: word()?.parse().ok()?, ctime: word()?.parse().ok()? };
    let lower = (word()?, word()?, word()?);
    let lower = match lower {
        ("-", "-", "-") => None,
        (ino, size, mtime) => Some(Lower { ino: ino.parse().ok()?, size: size.parse().ok()?, mtime: mtime.parse().ok()? }),
    };
    Some((fields.next()?.into(), Record { upper, lower }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_version_1_are_read() {
        let golden = include_bytes!("../../tests/golden/v1/applied");
        let upper = Upper { ino: 1, size: 2, mtime: -3, ctime: 4 };
        let records = [
            (BString::from("a b/c\n"), Record { upper, lower: Some(Lower { ino: 5, size: 6, mtime: 7 }) }),
            (BString::from(&b"\xff"[..]), Record { upper, lower: None }),
        ];
        let written: Vec<u8> = records.iter().flat_map(|(path, record)| encode(path, record)).collect();
        assert_eq!(written, golden, "what is written now is the golden form");
        assert_eq!(decode(golden), records.clone().into());
        let mut cut = golden.to_vec();
        cut.extend_from_slice(b"1 9 9 9 9 9 9 9 half");
        assert_eq!(decode(&cut), records.clone().into(), "a record that was cut off is skipped");
        assert!(decode(b"2 1 1 1 1 1 1 1 newer\0").is_empty());
    }
}
