//! The keys of all subjects in a file, each wrapped by a root key that lies in a file of its own.
//!
//! The file is small and is replaced whole, under a lock, so there is no torn state to heal: it is
//! the old one or the new one. Invariants: a key is on stable storage before it is given out; a
//! number is drawn at random and never given twice, so that data never meets a key that is not its
//! own; a damaged or missing file is a fault and never a reason for new keys.

mod error;
mod file;
mod format;
mod root;
#[cfg(test)]
mod tests;

use error::Error;
use file::Locked;
use format::{Entry, Image, State};
use root::{Root, Roots};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tinkerbell_core::clock::Clock;
use tinkerbell_core::code::Fault;
use tinkerbell_core::port::{Keyring, SealKey};
use tinkerbell_core::words::Subject;
use zeroize::Zeroizing;

/// Where the two files lie.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyPlaces {
    /// The keyring; its directory is made with mode 0700.
    pub keyring: PathBuf,
    /// The root key; worth a place outside of what is backed up with the data.
    pub root: PathBuf,
}

/// What may be told of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyFacts {
    /// Its number.
    pub id: u32,
    /// Whose data it seals.
    pub subject: Subject,
    /// When it was made, milliseconds since the epoch.
    pub created_ms: u64,
    /// Whether it was destroyed.
    pub destroyed: bool,
}

/// Keys in a file.
pub struct FileKeyring {
    places: KeyPlaces,
    clock: Arc<dyn Clock>,
    ring: Mutex<Ring>,
}

impl std::fmt::Debug for FileKeyring {
    /// Leaves the keys out.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileKeyring").field("places", &self.places).finish_non_exhaustive()
    }
}

/// The file as it was last read, and its secrets.
#[derive(Default)]
struct Ring {
    keys: Vec<(Entry, Option<Zeroizing<[u8; 32]>>)>,
}

impl FileKeyring {
    /// Reads the keyring; makes nothing: the files come with the first key. Blocks on the disk.
    ///
    /// # Errors
    /// `TB-KEY-001` to `003` and `006`: the file is damaged, its root key is missing or does not fit
    /// or may be read by others, or the disk refuses.
    pub fn open(places: KeyPlaces, clock: Arc<dyn Clock>) -> Result<Arc<Self>, Fault> {
        let ring = Ring::read(&places)?;
        Ok(Arc::new(Self { places, clock, ring: Mutex::new(ring) }))
    }

    /// All keys, oldest first.
    #[must_use]
    pub fn list(&self) -> Vec<KeyFacts> {
        let facts = |entry: &Entry| KeyFacts {
            id: entry.id,
            subject: entry.subject,
            created_ms: entry.created_ms,
            destroyed: entry.state == State::Destroyed,
        };
        self.lock().keys.iter().map(|(entry, _)| facts(entry)).collect()
    }

    /// Wraps all keys anew under a fresh root key and discards the old one; gives their count. The
    /// keys themselves and what they sealed stay as they are. Safe to be killed at any point, and
    /// beside a daemon. Blocks on the disk.
    ///
    /// # Errors
    /// As [`FileKeyring::open`]; then the old root key is still in force.
    pub fn rotate_root(&self) -> Result<usize, Fault> {
        let lock = Locked::take(&self.places.keyring)?;
        let ring = Ring::read(&self.places)?;
        let image = read_image(&self.places.keyring)?;
        let old = match &image {
            Some(image) => Some(Roots::read(&self.places.root)?.for_keyring(&image.root_id, &self.places.root)?),
            None => None,
        };
        let new = Root::random()?;
        // Both roots stand in the file while the keyring changes hands: whichever of its two states
        // a crash leaves, its root is there.
        Roots(old.into_iter().chain([new.clone()]).collect()).write(&self.places.root, &lock)?;
        let keys = ring.keys.iter();
        let entries = keys.map(|(entry, secret)| entry.wrapped_by(&new, secret.as_deref())).collect::<Result<Vec<_>, _>>()?;
        let count = entries.len();
        write_image(&self.places.keyring, &Image { root_id: new.id(), entries }, &lock)?;
        Roots(vec![new]).write(&self.places.root, &lock)?;
        *self.lock() = Ring::read(&self.places)?;
        Ok(count)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the subject's key. The file is read again under its lock, because another process may
    /// have changed it since.
    fn make(&self, subject: Subject) -> Result<SealKey, Error> {
        let lock = Locked::take(&self.places.keyring)?;
        let mut ring = Ring::read(&self.places)?;
        if let Some(key) = ring.of(subject) {
            *self.lock() = ring;
            return Ok(key);
        }
        let image = read_image(&self.places.keyring)?;
        let root = match &image {
            Some(image) => Roots::read(&self.places.root)?.for_keyring(&image.root_id, &self.places.root)?,
            None => Roots::read_or_make(&self.places.root, &lock)?,
        };
        let secret = root::chance::<32>()?;
        let id = ring.fresh_id()?;
        let entry = Entry { id, subject, state: State::Whole, created_ms: self.clock.now().wall_ms, wrapped: [0; format::WRAPPED] };
        let entry = entry.wrapped_by(&root, Some(&secret))?;
        let mut entries = image.map(|image| image.entries).unwrap_or_default();
        entries.push(entry.clone());
        write_image(&self.places.keyring, &Image { root_id: root.id(), entries }, &lock)?;
        let key = SealKey { id, secret: *secret };
        ring.keys.push((entry, Some(secret)));
        *self.lock() = ring;
        Ok(key)
    }
}

impl Keyring for FileKeyring {
    fn of(&self, subject: Subject) -> Result<SealKey, Fault> {
        let known = self.lock().of(subject);
        match known {
            Some(key) => Ok(key),
            None => Ok(self.make(subject)?),
        }
    }

    fn find(&self, id: u32) -> Result<SealKey, Fault> {
        let ring = self.lock();
        match ring.keys.iter().find(|(entry, _)| entry.id == id) {
            Some((_, Some(secret))) => Ok(SealKey { id, secret: **secret }),
            Some((_, None)) => Err(Error::Destroyed(id).into()),
            None => Err(Error::Missing { id, path: self.places.keyring.clone() }.into()),
        }
    }
}

impl Ring {
    fn read(places: &KeyPlaces) -> Result<Self, Error> {
        let Some(image) = read_image(&places.keyring)? else { return Ok(Self::default()) };
        let root = Roots::read(&places.root)?.for_keyring(&image.root_id, &places.root)?;
        let open = |entry: Entry| match entry.opened_by(&root) {
            Ok(secret) => Ok((entry, secret)),
            Err(why) => Err(Error::Damaged { path: places.keyring.clone(), why: format!("key {}: {why}", entry.id) }),
        };
        Ok(Self { keys: image.entries.into_iter().map(open).collect::<Result<_, _>>()? })
    }

    fn of(&self, subject: Subject) -> Option<SealKey> {
        let mut whole = self.keys.iter().filter(|(entry, _)| entry.subject == subject);
        whole.find_map(|(entry, secret)| Some(SealKey { id: entry.id, secret: **secret.as_ref()? }))
    }

    /// Random, so that keys of a lost keyring and of the one that replaces it never share a number.
    fn fresh_id(&self) -> Result<u32, Error> {
        loop {
            let id = u32::from_le_bytes(*root::chance::<4>()?);
            // The lowest numbers name keys that are no subject's.
            if id >= 16 && self.keys.iter().all(|(entry, _)| entry.id != id) {
                return Ok(id);
            }
        }
    }
}

fn read_image(path: &Path) -> Result<Option<Image>, Error> {
    let Some(bytes) = file::read(path)? else { return Ok(None) };
    Image::decode(&bytes).map(Some).map_err(|why| Error::Damaged { path: path.to_owned(), why })
}

fn write_image(path: &Path, image: &Image, lock: &Locked) -> Result<(), Error> {
    file::replace(path, &image.encode(), lock)
}
