//! The user's index, read so that what stands in it costs no more than its size.
//!
//! The library decodes what git caches in an index by calling itself for each level, and unfolds paths that were
//! shortened, whatever they come to. A delivered repository brings its own index. So the entries are walked over
//! first, and the library gets them alone: nothing here needs what is cached. Invariant: the library never sees
//! an index whose paths pass a limit of [`Budget`], nor any extension but those that change what entries mean.

use crate::budget::Budget;
use crate::error::{Error, Result};
use gix::bstr::{BStr, ByteSlice};
use std::collections::BTreeSet;
use std::path::Path;

/// Largest index that is read: ten times that of the largest repositories.
const FILE_BYTES: u64 = 1 << 30;
/// Times, device, inode, mode, owner and size of an entry.
const STAT: usize = 40;
/// In an entry's flags: two more bytes of them follow.
const EXTENDED: u16 = 0x4000;
/// In an entry's flags: the length of its path; all bits where it does not fit.
const LENGTH: u16 = 0x0fff;

/// Reads the index of a repository; one that is not there is empty.
///
/// # Errors
/// When it is damaged, or passes a limit.
pub fn read(repo: &gix::Repository) -> Result<gix::index::File> {
    let (path, hash) = (repo.index_path(), repo.object_hash());
    let Ok(target) = path.canonicalize() else { return Ok(gix::index::File::from_state(gix::index::State::new(hash), path)) };
    let modified = target.metadata().and_then(|meta| meta.modified()).map_err(Error::io("stat", &path))?;
    let decode = |plain: &[u8]| {
        let options = gix::index::decode::Options { thread_limit: Some(1), ..Default::default() };
        gix::index::State::from_bytes(plain, modified.into(), hash, options).map_err(Error::git("read index")).map(|read| read.0)
    };
    let load = |path: &Path| {
        let bytes = crate::gitdir::small(path, FILE_BYTES).map_err(Error::io("read", path))?.unwrap_or_default();
        decode(&plain(&bytes, hash, path)?)
    };
    let mut state = load(&target)?;
    if let Some(link) = state.link() {
        let shared = load(&target.with_file_name(format!("sharedindex.{}", link.shared_index_checksum)))?;
        let mark: &[u8] = if state.is_sparse() || shared.is_sparse() { b"sdir\0\0\0\0" } else { b"" };
        let empty = decode(&[b"DIRC\0\0\0\x02\0\0\0\0", mark, &vec![0; hash.len_in_bytes()]].concat())?;
        state = joined(empty, &state, &shared).ok_or_else(|| damaged(&path, "its two files do not fit"))?;
    }
    Ok(gix::index::File::from_state(state, path))
}

fn damaged(path: &Path, why: &str) -> Error {
    Error::Git { what: "read index", why: format!("{} is damaged: {why}", path.display()) }
}

/// The two files of a split index as one: what is shared, less what was deleted, with what was replaced or added.
/// Entries that replace others stand first, in order, and have no paths of their own. They go into `out`, which is empty.
fn joined(mut out: gix::index::State, split: &gix::index::State, shared: &gix::index::State) -> Option<gix::index::State> {
    let (mut gone, mut replaced) = (BTreeSet::new(), BTreeSet::new());
    if let Some(bits) = split.link()?.bitmaps.as_ref() {
        let count = shared.entries().len();
        bits.delete.for_each_set_bit(|at| {
            gone.insert(at);
            (at < count).then_some(())
        })?;
        bits.replace.for_each_set_bit(|at| {
            replaced.insert(at);
            (at < count).then_some(())
        })?;
    }
    let mut own = split.entries().iter();
    for (at, entry) in shared.entries().iter().enumerate() {
        let path = entry.path(shared);
        let entry = if replaced.contains(&at) { own.next().filter(|entry| entry.path(split).is_empty())? } else { entry };
        if !gone.contains(&at) {
            out.dangerously_push_entry(entry.stat, entry.id, entry.flags, entry.mode, path);
        }
    }
    for entry in own {
        out.dangerously_push_entry(entry.stat, entry.id, entry.flags, entry.mode, entry.path(split));
    }
    out.sort_entries();
    Some(out)
}

/// Header and entries, the marks of a sparse or a split index where it has one, and no checksum.
fn plain(bytes: &[u8], hash: gix::hash::Kind, path: &Path) -> Result<Vec<u8>> {
    let damaged = |why: &str| damaged(path, why);
    let content = bytes.len().checked_sub(hash.len_in_bytes()).and_then(|end| bytes.split_at_checked(end));
    let (content, sum) = content.ok_or_else(|| damaged("it is too short"))?;
    if sum.iter().any(|byte| *byte != 0) {
        let mut hasher = gix::hash::hasher(hash);
        hasher.update(content);
        let found = hasher.try_finalize().map_err(Error::git("hash index"))?;
        if found.as_bytes() != sum {
            return Err(damaged("its checksum is another"));
        }
    }
    let mut cursor = Cursor { rest: content };
    let header = (cursor.take(4), cursor.u32(), cursor.u32());
    let (Some(b"DIRC"), Some(version @ 2..=4), Some(count)) = header else { return Err(damaged("it has no header that is known")) };
    entries(&mut cursor, (version, count, hash.len_in_bytes()))?.ok_or_else(|| damaged("an entry is cut off"))?;
    let end = content.len() - cursor.rest.len();
    let mut plain = content.get(..end).unwrap_or_default().to_vec();
    while let Some(name) = cursor.take(4) {
        let extension = cursor.u32().and_then(|size| cursor.take(usize::try_from(size).ok()?));
        match (name, extension) {
            (_, None) => return Err(damaged("an extension is cut off")),
            (b"link" | b"sdir", Some(data)) => {
                plain.extend_from_slice(name);
                plain.extend_from_slice(&u32::try_from(data.len()).unwrap_or(u32::MAX).to_be_bytes());
                plain.extend_from_slice(data);
            }
            // One in small letters changes what the entries mean.
            (name, _) if name.first().is_some_and(u8::is_ascii_lowercase) => return Err(damaged("it has a form that is not known")),
            _ => {}
        }
    }
    plain.resize(plain.len() + hash.len_in_bytes(), 0);
    Ok(plain)
}

/// Walks over the entries; `None` when one is cut off.
fn entries(cursor: &mut Cursor<'_>, (version, count, hash_len): (u32, u32, usize)) -> Result<Option<()>> {
    let (mut budget, mut path) = (Budget::default(), Vec::new());
    for _ in 0..count {
        if cursor.entry(version, hash_len, &mut path).is_none() {
            return Ok(None);
        }
        budget.take(BStr::new(&path))?;
    }
    Ok(Some(()))
}

/// What is left to be walked over.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, size: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(size)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_be_bytes)
    }

    fn u16(&mut self) -> Option<u16> {
        self.take(2)?.try_into().ok().map(u16::from_be_bytes)
    }

    /// What stands before the next zero byte, which is left out.
    fn text(&mut self) -> Option<&'a [u8]> {
        let end = self.rest.find_byte(0)?;
        let text = self.take(end)?;
        self.take(1).map(|_| text)
    }

    /// Git's own number of any length.
    fn number(&mut self) -> Option<usize> {
        let mut value = 0_usize;
        loop {
            let byte = *self.take(1)?.first()?;
            value = value.checked_mul(128)?.checked_add(usize::from(byte & 127))?;
            if byte & 128 == 0 {
                return Some(value);
            }
            value = value.checked_add(1)?;
        }
    }

    /// One entry; `path` is that of the one before, and then its own.
    fn entry(&mut self, version: u32, hash_len: usize, path: &mut Vec<u8>) -> Option<()> {
        let before = self.rest.len();
        self.take(STAT + hash_len)?;
        let flags = self.u16()?;
        if flags & EXTENDED != 0 {
            self.u16()?;
        }
        if version == 4 {
            let strip = self.number()?;
            path.truncate(path.len().checked_sub(strip)?);
            path.extend_from_slice(self.text()?);
            return Some(());
        }
        path.clear();
        if flags & LENGTH == LENGTH {
            path.extend_from_slice(self.text()?);
            return Some(());
        }
        path.extend_from_slice(self.take(usize::from(flags & LENGTH))?);
        // At least one zero byte, up to the next eight.
        let size = before - self.rest.len();
        self.take(((size + 8) & !7) - size).map(|_| ())
    }
}

#[cfg(test)]
#[test]
fn cut_and_bent_indices_are_read_or_refused() {
    use gix::index::entry::{Flags, Mode, Stat};
    let hash = gix::hash::Kind::Sha1;
    let mut state = gix::index::State::new(hash);
    for path in ["a", "dir/b", "dir/longer-name-than-the-others"] {
        state.dangerously_push_entry(Stat::default(), hash.null(), Flags::empty(), Mode::FILE, BStr::new(path));
    }
    let mut whole = Vec::new();
    gix::index::File::from_state(state, "index").write_to(&mut whole, gix::index::write::Options::default()).unwrap();
    let read = |bytes: &[u8]| plain(bytes, hash, Path::new("index"));
    assert!(read(&whole).is_ok());
    let sum = whole.len() - hash.len_in_bytes();
    whole[sum..].fill(0);
    let (mut fine, options) = (0, gix::index::decode::Options { thread_limit: Some(1), ..Default::default() });
    for at in 0..sum {
        assert!(read(&whole[..at]).is_err(), "{at}");
        for version in [2, 3, 4] {
            for bit in 0..8 {
                let mut bent = whole.clone();
                bent[7] = version;
                bent[at] ^= 1 << bit;
                let Ok(plain) = read(&bent) else { continue };
                fine += 1;
                // Whether it is an index is the library's word; here it must come back at all.
                drop(gix::index::State::from_bytes(&plain, std::time::SystemTime::UNIX_EPOCH.into(), hash, options));
            }
        }
    }
    assert!(fine > 100, "{fine}");
}
