//! One pack: its file, and walking its entries.
//!
//! Invariant: a walk reads only what lies within the length that it was given, and never takes bytes
//! for an entry whose header does not match its checksum.

use crate::error::Error;
use crate::format::{ENTRY_HEADER, Entry, MAGIC, PACK_HEADER, STEP, is_known, pack_header, pack_version};
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SUFFIX: &str = ".pack";
/// How much of a damaged stretch is searched at once.
const WINDOW: usize = 256 * 1024;

/// An open pack.
#[derive(Debug, Clone)]
pub(crate) struct Pack {
    pub(crate) file: Arc<File>,
    pub(crate) path: PathBuf,
    /// Bytes up to the end of the last entry.
    pub(crate) size: u64,
    /// Whether a stretch of it is damaged; then it is left as it is.
    pub(crate) damaged: bool,
}

/// What a walk met.
pub(crate) enum Step {
    /// An entry at an offset.
    Entry(u64, Entry),
    /// No entry from here to there, although entries follow.
    Gap(u64),
    /// No entry from here to the end.
    Tail(u64),
}

/// The path of a pack.
pub(crate) fn path(dir: &Path, number: u32) -> PathBuf {
    dir.join(format!("{number:08x}{SUFFIX}"))
}

/// Numbers of the packs in a directory, in order.
pub(crate) fn numbers(dir: &Path) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number = name.to_str().and_then(|name| name.strip_suffix(SUFFIX)).and_then(|hex| u32::from_str_radix(hex, 16).ok());
        found.extend(number);
    }
    found.sort_unstable();
    Ok(found)
}

impl Pack {
    /// Makes an empty pack; it has its name only once its header is durable.
    pub(crate) fn create(dir: &Path, number: u32) -> io::Result<Self> {
        let path = path(dir, number);
        let new = path.with_extension("new");
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all_at(&pack_header(), 0)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(dir)?.sync_all()?;
        Ok(Self { file: Arc::new(file), path, size: PACK_HEADER as u64, damaged: false })
    }

    /// Opens a pack as it stands.
    pub(crate) fn open(dir: &Path, number: u32) -> Result<Self, Error> {
        let path = path(dir, number);
        let failed = |e| Error::io("open", &path, e);
        let file = OpenOptions::new().read(true).write(true).open(&path).map_err(failed)?;
        let size = file.metadata().map_err(failed)?.len();
        let mut header = [0; PACK_HEADER];
        file.read_exact_at(&mut header, 0).map_err(failed)?;
        match pack_version(&header) {
            Some(version) if is_known(version) => Ok(Self { file: Arc::new(file), path, size, damaged: false }),
            Some(version) => Err(Error::Newer { path, version }),
            None => Err(Error::NoPack(path)),
        }
    }

    /// Reads a body.
    pub(crate) fn body(&self, offset: u64, len: u32) -> io::Result<Vec<u8>> {
        let mut body = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut body, offset.saturating_add(ENTRY_HEADER as u64))?;
        Ok(body)
    }

    /// Reads an entry with its body; `None` when either is damaged.
    pub(crate) fn entry(&self, offset: u64, len: u32) -> io::Result<Option<(Entry, Vec<u8>)>> {
        let Some(entry) = self.header(offset)?.filter(|entry| entry.len == len) else { return Ok(None) };
        let body = match self.body(offset, len) {
            Ok(body) => body,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            Err(e) => return Err(e),
        };
        Ok(entry.fits(&body).then_some((entry, body)))
    }

    pub(crate) fn header(&self, offset: u64) -> io::Result<Option<Entry>> {
        let mut bytes = [0; ENTRY_HEADER];
        match self.file.read_exact_at(&mut bytes, offset) {
            Ok(()) => Ok(Entry::decode(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
            Err(e) => Err(e),
        }
    }

    /// Walks all entries; bodies are not read.
    pub(crate) fn walk(&self, on: &mut dyn FnMut(Step) -> io::Result<()>) -> io::Result<()> {
        let mut at = PACK_HEADER as u64;
        while at < self.size {
            let fits = |entry: &Entry| at.saturating_add(entry.size()) <= self.size;
            if let Some(entry) = self.header(at)?.filter(fits) {
                on(Step::Entry(at, entry))?;
                at = at.saturating_add(entry.size());
                continue;
            }
            match self.search(at.saturating_add(STEP))? {
                Some(next) => {
                    on(Step::Gap(at))?;
                    at = next;
                }
                None => return on(Step::Tail(at)),
            }
        }
        Ok(())
    }

    /// The next place at or behind `from` where an entry begins.
    fn search(&self, from: u64) -> io::Result<Option<u64>> {
        let mut at = from.next_multiple_of(STEP);
        let mut window = vec![0; WINDOW];
        while at < self.size {
            let read = self.file.read_at(&mut window, at)?;
            let places = (0_u64..).zip(window.get(..read).unwrap_or_default().chunks_exact(16));
            for (n, _) in places.filter(|(_, bytes)| bytes.starts_with(&MAGIC)) {
                let place = at.saturating_add(n * STEP);
                if self.header(place)?.is_some_and(|entry| place.saturating_add(entry.size()) <= self.size) {
                    return Ok(Some(place));
                }
            }
            // A read may give less than it was asked for.
            let whole = (read as u64) / STEP * STEP;
            if whole == 0 {
                break;
            }
            at = at.saturating_add(whole);
        }
        Ok(None)
    }
}
