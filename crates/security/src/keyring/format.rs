//! Version 1 of the keyring on disk.
//!
//! ```text
//! file  = "TBKEYRNG" | version u32 | count u32 | root id (16) | crc32c u32 | entry*
//! entry = id u32 | subject u32 | state u8 | zero (7) | created_ms u64 | wrapped (60)
//! wrapped = nonce (12) | AES-256-GCM of the key under the root key (32) | tag (16); zero when destroyed
//! ```
//! Integers are little endian. The checksum covers the whole file but itself; the cipher covers an
//! entry's front. Invariant: `tests/golden/keyring-v1` stays readable for ever.

use super::error::Error;
use super::root::{Root, RootId, chance};
use crypto::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tinkerbell_core::words::Subject;
use zeroize::Zeroizing;

const MAGIC: [u8; 8] = *b"TBKEYRNG";
const VERSION: u32 = 1;
const HEADER: usize = 36;
const SUM: std::ops::Range<usize> = 32..HEADER;
const FRONT: usize = 24;
const ENTRY: usize = FRONT + WRAPPED;
/// Length of a wrapped key.
pub(super) const WRAPPED: usize = NONCE_LEN + 32 + 16;

/// Whether a key is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Whole = 1,
    Destroyed = 2,
}

/// One key as it lies in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) id: u32,
    pub(super) subject: Subject,
    pub(super) state: State,
    pub(super) created_ms: u64,
    pub(super) wrapped: [u8; WRAPPED],
}

/// The whole file.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Image {
    pub(super) root_id: RootId,
    pub(super) entries: Vec<Entry>,
}

impl Entry {
    fn front(&self) -> [u8; FRONT] {
        let mut out = [0; FRONT];
        let parts =
            [&self.id.to_le_bytes()[..], &self.subject.0.to_le_bytes(), &[self.state as u8; 1], &[0; 7], &self.created_ms.to_le_bytes()];
        for (to, from) in out.iter_mut().zip(parts.concat()) {
            *to = from;
        }
        out
    }

    /// The entry with its secret wrapped by `root`; a destroyed one has none.
    pub(super) fn wrapped_by(&self, root: &Root, secret: Option<&[u8; 32]>) -> Result<Self, Error> {
        let Some(secret) = secret else { return Ok(self.clone()) };
        self.wrapped_with(root, secret, *chance::<NONCE_LEN>()?)
    }

    pub(super) fn wrapped_with(&self, root: &Root, secret: &[u8; 32], nonce: [u8; NONCE_LEN]) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(*secret);
        let at = Nonce::assume_unique_for_key(nonce);
        let tag = cipher(root)?.seal_in_place_separate_tag(at, Aad::from(self.front()), &mut *bytes).map_err(|_| Error::Cipher)?;
        let wrapped = [&nonce[..], &bytes[..], tag.as_ref()].concat();
        Ok(Self { wrapped: wrapped.try_into().map_err(|_| Error::Cipher)?, ..self.clone() })
    }

    /// The secret; `None` when it was destroyed.
    pub(super) fn opened_by(&self, root: &Root) -> Result<Option<Zeroizing<[u8; 32]>>, &'static str> {
        if self.state == State::Destroyed {
            return Ok(None);
        }
        let (nonce, sealed) = self.wrapped.split_first_chunk::<NONCE_LEN>().ok_or("it is too short")?;
        let mut bytes = Zeroizing::new(sealed.to_vec());
        let cipher = cipher(root).map_err(|_| "the cipher refused its work")?;
        let plain = cipher.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(self.front()), &mut bytes);
        let plain = plain.map_err(|_| "it does not open under the root key")?;
        Ok(Some(Zeroizing::new(<[u8; 32]>::try_from(&*plain).map_err(|_| "it has a wrong length")?)))
    }
}

fn cipher(root: &Root) -> Result<LessSafeKey, Error> {
    UnboundKey::new(&AES_256_GCM, root.secret()).map(LessSafeKey::new).map_err(|_| Error::Cipher)
}

impl Image {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER + self.entries.len() * ENTRY);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        out.extend_from_slice(&self.root_id);
        out.extend_from_slice(&[0; 4]);
        for entry in &self.entries {
            out.extend_from_slice(&entry.front());
            out.extend_from_slice(&entry.wrapped);
        }
        let sum = checksum(&out).to_le_bytes();
        if let Some(slot) = out.get_mut(SUM) {
            slot.copy_from_slice(&sum);
        }
        out
    }

    /// Reads a file whole.
    pub(super) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let (header, rest) = bytes.split_at_checked(HEADER).ok_or("it is too short")?;
        let mut cursor = Cursor(header);
        if cursor.take::<8>() != Some(MAGIC) {
            return Err("it does not begin like a keyring".to_owned());
        }
        let version = cursor.u32().unwrap_or_default();
        if version != VERSION {
            return Err(format!("it has version {version}, this release reads {VERSION}; use the newer release"));
        }
        let count = cursor.u32().and_then(|count| usize::try_from(count).ok()).unwrap_or_default();
        let root_id = cursor.take().unwrap_or_default();
        if cursor.u32() != Some(checksum(bytes)) {
            return Err("its checksum does not match".to_owned());
        }
        if count.checked_mul(ENTRY) != Some(rest.len()) {
            return Err(format!("it says {count} keys and has another length"));
        }
        let entries = rest.chunks_exact(ENTRY).map(entry).collect::<Option<Vec<_>>>().ok_or("a key has an unknown state")?;
        Ok(Self { root_id, entries })
    }
}

fn entry(bytes: &[u8]) -> Option<Entry> {
    let mut cursor = Cursor(bytes);
    let (id, subject, state) = (cursor.u32()?, Subject(cursor.u32()?), cursor.take::<8>()?);
    let state = match state {
        [1, ..] => State::Whole,
        [2, ..] => State::Destroyed,
        _ => return None,
    };
    Some(Entry { id, subject, state, created_ms: u64::from_le_bytes(cursor.take()?), wrapped: cursor.take()? })
}

fn checksum(bytes: &[u8]) -> u32 {
    let front = crc32c::crc32c(bytes.get(..SUM.start).unwrap_or_default());
    crc32c::crc32c_append(front, bytes.get(SUM.end..).unwrap_or_default())
}

struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
}
