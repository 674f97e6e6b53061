//! Building a journal's directory from an archive alone.
//!
//! It writes beside the place where the journal will stand and moves it there at the end. Invariant:
//! what stands at the place named by the caller is a journal whose every checksum and chain link was
//! checked, or nothing.

use super::directory::{make_dir, sync_dir};
use super::format::{Entry, digest};
use super::{Error, contents};
use crate::disk::{Disk, Mode, RealDisk, write_full};
use crate::survey::survey;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::BlobStore;

/// A journal that was built from an archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Restored {
    /// Segments in it.
    pub segments: usize,
    /// Records without batch trailers.
    pub records: u64,
    /// The last number that the archive holds.
    pub through: u64,
    /// Bytes of all segments.
    pub size_bytes: u64,
}

/// Builds a journal in `to`, which must be missing or empty, from what `store` holds.
///
/// # Errors
/// When the archive is empty, incomplete or damaged, when `to` holds something, or when the file
/// system refuses. Then `to` is as it was. Not cancel safe: a directory `to.restoring` may stay.
pub async fn restore(store: &dyn BlobStore, to: &Path) -> Result<Restored, Fault> {
    let part = beside(to);
    for dir in [to, &part] {
        if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
            return Err(Error::NotEmpty(dir.to_owned()).into());
        }
    }
    let entries = path(&contents(store).await?.entries)?;
    make_dir(&part).map_err(|e| crate::Error::io("create", &part, e))?;
    let built = fill(store, &part, &entries).await;
    let built = match built {
        Ok(built) => built,
        Err(fault) => {
            remove(&part, &entries);
            return Err(fault);
        }
    };
    let parent = to.parent().filter(|parent| !parent.as_os_str().is_empty()).map_or_else(|| PathBuf::from("."), Path::to_owned);
    let moved = sync_dir(&part).and_then(|()| std::fs::rename(&part, to)).and_then(|()| sync_dir(&parent));
    moved.map_err(|e| crate::Error::io("move the restored journal to", to, e))?;
    Ok(built)
}

fn beside(to: &Path) -> PathBuf {
    let mut name = to.file_name().unwrap_or_default().to_owned();
    name.push(".restoring");
    to.with_file_name(name)
}

/// What was written so far; the directory stays when something else is in it.
fn remove(part: &Path, entries: &[Entry]) {
    let files = entries.iter().map(|entry| std::fs::remove_file(part.join(&entry.name)));
    let left = files.filter_map(Result::err).find(|e| e.kind() != std::io::ErrorKind::NotFound);
    if let Some(error) = left.or_else(|| std::fs::remove_dir(part).err()) {
        tracing::warn!(%error, dir = %part.display(), "a half restored journal stays");
    }
}

async fn fill(store: &dyn BlobStore, part: &Path, entries: &[Entry]) -> Result<Restored, Fault> {
    let disk = RealDisk::existing(part.to_owned());
    let mut size_bytes = 0_u64;
    for entry in entries {
        let bytes = store.get(entry.blob).await?;
        if bytes.len() as u64 != entry.size || digest(&bytes) != entry.sha256 {
            let why = "its bytes are not those that its manifest names".to_owned();
            return Err(Error::Damaged { what: format!("segment {}", entry.name), why }.into());
        }
        let file = disk.open(&entry.name, Mode::Create);
        let written = file.and_then(|file| write_full(&*file, 0, &bytes).and_then(|()| file.sync()));
        written.map_err(|e| crate::Error::io("write", part.join(&entry.name), e))?;
        size_bytes = size_bytes.saturating_add(entry.size);
    }
    let found = survey(&disk, &mut |_, _, _| {})?;
    if let Some(damage) = found.damage {
        return Err(damage.into());
    }
    let last = entries.last().map_or(0, |entry| entry.last);
    if found.next != last.saturating_add(1) || found.torn.is_some() {
        let missing = format!("a part of the records from {} to {last}", found.next);
        return Err(Error::Incomplete { missing }.into());
    }
    let records = found.segments.iter().map(|segment| segment.records).sum();
    Ok(Restored { segments: entries.len(), records, through: last, size_bytes })
}

/// Segments that follow on each other from the first record to the last one that is archived. Where a
/// range is there twice, as it was written and compacted, the way that reaches the end is taken, by
/// the smaller steps.
fn path(entries: &[Entry]) -> Result<Vec<Entry>, Error> {
    let mut by_first: BTreeMap<u64, Vec<&Entry>> = BTreeMap::new();
    for entry in entries.iter().filter(|entry| is_plain(&entry.name)) {
        by_first.entry(entry.first).or_default().push(entry);
    }
    let Some(end) = entries.iter().map(|entry| entry.last).max() else { return Err(Error::Empty) };
    let mut ways: BTreeMap<u64, Option<&Entry>> = BTreeMap::from([(end.saturating_add(1), None)]);
    for (first, choices) in by_first.iter_mut().rev() {
        choices.sort_by_key(|entry| entry.last);
        if let Some(entry) = choices.iter().find(|entry| ways.contains_key(&entry.last.saturating_add(1))) {
            ways.insert(*first, Some(entry));
        }
    }
    let (mut way, mut at) = (Vec::new(), 1);
    while let Some(Some(entry)) = ways.get(&at) {
        way.push((*entry).clone());
        at = entry.last.saturating_add(1);
    }
    if at == end.saturating_add(1) {
        return Ok(way);
    }
    Err(Error::Incomplete { missing: gap(&by_first, end) })
}

/// A name that can not lead out of the directory.
fn is_plain(name: &str) -> bool {
    name.ends_with(crate::survey::SUFFIX) && name.bytes().all(|byte| byte.is_ascii_hexdigit() || matches!(byte, b'-' | b'.' | b'w' | b'l'))
}

fn gap(by_first: &BTreeMap<u64, Vec<&Entry>>, end: u64) -> String {
    let mut at = 1;
    while let Some(last) = by_first.get(&at).and_then(|choices| choices.iter().map(|entry| entry.last).max()) {
        at = last.saturating_add(1);
    }
    let next = by_first.range(at..).next().map_or(end, |(first, _)| first.saturating_sub(1));
    format!("the segment with the records from {at} to {next}")
}
