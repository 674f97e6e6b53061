//! Sealing of payloads with the key of their subject, and opening them again.
//!
//! AES-256-GCM over the payload; everything else of a frame stays readable, so checksums and the
//! hash chain run over what is sealed and need no keys. Invariant: no nonce is ever used twice with
//! one key. Numbers recur after a torn tail, after a full disk and when a tail is written again, so
//! the key is derived for one incarnation of a segment, and the nonce counts the tries within it.
//!
//! ```text
//! key     = BLAKE3 keyed with the subject's key, over "tinkerbell wal record 1" | incarnation u64
//! nonce   = lsn u64 | try u32
//! sealed  = try u32 | ciphertext | tag (16)
//! covered = the frame's type, schema, flags, key_id and task, as they lie in it
//! ```

use crate::error::Error;
use crate::format::{FLAG_AEAD, FRAME_BYTES, Frame};
use bytes::Bytes;
use crypto::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use std::collections::HashMap;
use std::sync::Arc;
use tinkerbell_core::port::{KEY_DESTROYED, Keyring, SealKey};
use tinkerbell_core::words::Subject;

/// Bytes that sealing adds to a payload.
pub(crate) const SEAL_BYTES: usize = TRY_BYTES + TAG_BYTES;
const TRY_BYTES: usize = 4;
const TAG_BYTES: usize = 16;
/// What of a frame is covered beside the payload.
const COVERED: std::ops::Range<usize> = 24..FRAME_BYTES;
const KEY_ID: std::ops::Range<usize> = 28..32;
const CONTEXT: &[u8] = b"tinkerbell wal record 1";

/// Appends a frame that is to be sealed: its subject stands where the key's number will stand, and
/// there is room for what sealing adds.
pub(crate) fn push(frame: &Frame<'_>, subject: Subject, out: &mut Vec<u8>) {
    let mut payload = Vec::with_capacity(frame.payload.len() + SEAL_BYTES);
    payload.resize(TRY_BYTES, 0);
    payload.extend_from_slice(frame.payload);
    payload.resize(frame.payload.len() + SEAL_BYTES, 0);
    Frame { flags: frame.flags | FLAG_AEAD, key_id: subject.0, payload: &payload, ..*frame }.push(out);
}

/// Seals batches on their way to the disk.
pub(crate) struct Sealer {
    keyring: Option<Arc<dyn Keyring>>,
    incarnation: u64,
    tries: u32,
    keys: HashMap<u32, (u32, LessSafeKey)>,
}

impl Sealer {
    /// Without a keyring nothing is sealed.
    pub(crate) fn new(keyring: Option<Arc<dyn Keyring>>) -> Self {
        Self { keyring, incarnation: 0, tries: 0, keys: HashMap::new() }
    }

    /// Whether it seals anything.
    pub(crate) const fn seals(&self) -> bool {
        self.keyring.is_some()
    }

    /// Seals all frames of [`push`] in a batch that is about to be stamped with `first_lsn` and
    /// `incarnation`. The batch must not have been sealed before: whoever writes one again seals
    /// its plain bytes again.
    ///
    /// # Errors
    /// When a key can not be had; then the batch must not be written.
    pub(crate) fn seal(&mut self, batch: &mut [u8], first_lsn: u64, incarnation: u64) -> Result<(), Error> {
        let Some(keyring) = self.keyring.clone() else { return Ok(()) };
        if self.incarnation != incarnation {
            self.keys.clear();
            (self.incarnation, self.tries) = (incarnation, 0);
        }
        self.tries = self.tries.checked_add(1).ok_or_else(unsealable)?;
        let (mut rest, mut lsn) = (batch, first_lsn);
        while !rest.is_empty() {
            let len = rest.get(4..8).and_then(|len| Some(u32::from_le_bytes(len.try_into().ok()?))).ok_or_else(unsealable)?;
            let size = usize::try_from(len).ok().and_then(|len| len.checked_add(FRAME_BYTES)).ok_or_else(unsealable)?;
            let (frame, tail) = rest.split_at_mut_checked(size).ok_or_else(unsealable)?;
            if frame.get(27).is_some_and(|flags| flags & FLAG_AEAD != 0) {
                self.one(&*keyring, frame, lsn)?;
            }
            (rest, lsn) = (tail, lsn.saturating_add(1));
        }
        Ok(())
    }

    fn one(&mut self, keyring: &dyn Keyring, frame: &mut [u8], lsn: u64) -> Result<(), Error> {
        let slot = frame.get_mut(KEY_ID).and_then(|slot| slot.first_chunk_mut::<4>()).ok_or_else(unsealable)?;
        let subject = u32::from_le_bytes(*slot);
        if !self.keys.contains_key(&subject) {
            let key = keyring.of(Subject(subject)).map_err(Error::Key)?;
            self.keys.insert(subject, (key.id, derive(&key, self.incarnation).ok_or_else(unsealable)?));
        }
        let (id, key) = self.keys.get(&subject).ok_or_else(unsealable)?;
        *slot = id.to_le_bytes();
        let (head, payload) = frame.split_at_mut_checked(FRAME_BYTES).ok_or_else(unsealable)?;
        let (tries, rest) = payload.split_first_chunk_mut::<TRY_BYTES>().ok_or_else(unsealable)?;
        let (plain, tag) = rest.split_last_chunk_mut::<TAG_BYTES>().ok_or_else(unsealable)?;
        *tries = self.tries.to_le_bytes();
        let covered = Aad::from(head.get(COVERED).unwrap_or_default());
        let sealed = key.seal_in_place_separate_tag(nonce(lsn, *tries), covered, plain).map_err(|_| unsealable())?;
        *tag = sealed.as_ref().try_into().map_err(|_| unsealable())?;
        Ok(())
    }
}

fn unsealable() -> Error {
    Error::Unsealable
}

/// What a payload is once it was looked at with the keys at hand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Opened {
    /// The bytes as they were appended.
    Plain(Bytes),
    /// Its key was destroyed on purpose.
    Erased,
}

/// Opens payloads; keeps derived keys while it lives.
pub(crate) struct Opener<'a> {
    keyring: Option<&'a dyn Keyring>,
    keys: HashMap<(u32, u64), Option<LessSafeKey>>,
}

impl<'a> Opener<'a> {
    pub(crate) fn new(keyring: Option<&'a dyn Keyring>) -> Self {
        Self { keyring, keys: HashMap::new() }
    }

    /// The payload of a frame, sealed or not.
    ///
    /// # Errors
    /// When the key is missing or does not fit; the error names record and key.
    pub(crate) fn open(&mut self, frame: &Frame<'_>) -> Result<Opened, Error> {
        if frame.flags & FLAG_AEAD == 0 {
            return Ok(Opened::Plain(Bytes::copy_from_slice(frame.payload)));
        }
        let (lsn, id) = (frame.lsn, frame.key_id);
        let which = (id, frame.incarnation);
        if !self.keys.contains_key(&which) {
            let key = self.find(lsn, &which)?;
            self.keys.insert(which, key);
        }
        let Some(Some(key)) = self.keys.get(&which) else { return Ok(Opened::Erased) };
        let misfit = || Error::Misfit { lsn, key: id };
        let (tries, sealed) = frame.payload.split_first_chunk::<TRY_BYTES>().ok_or_else(misfit)?;
        let mut bytes = sealed.to_vec();
        let len = key.open_in_place(nonce(lsn, *tries), Aad::from(covered(frame)), &mut bytes).map_err(|_| misfit())?.len();
        bytes.truncate(len);
        Ok(Opened::Plain(Bytes::from(bytes)))
    }

    /// The derived key; `None` when it was destroyed.
    fn find(&self, lsn: u64, which: &(u32, u64)) -> Result<Option<LessSafeKey>, Error> {
        let Some(keyring) = self.keyring else { return Err(Error::Sealed { lsn, key: which.0 }) };
        match keyring.find(which.0) {
            Ok(key) => derive(&key, which.1).ok_or(Error::Unsealable).map(Some),
            Err(fault) if fault.code.0 == KEY_DESTROYED => Ok(None),
            Err(fault) => Err(Error::Key(fault)),
        }
    }
}

fn covered(frame: &Frame<'_>) -> [u8; FRAME_BYTES - 24] {
    let mut head = Vec::with_capacity(FRAME_BYTES);
    Frame { payload: &[], ..*frame }.push(&mut head);
    head.get(COVERED).and_then(|part| part.try_into().ok()).unwrap_or_default()
}

fn derive(key: &SealKey, incarnation: u64) -> Option<LessSafeKey> {
    let mut hash = blake3::Hasher::new_keyed(&key.secret);
    hash.update(CONTEXT);
    hash.update(&incarnation.to_le_bytes());
    UnboundKey::new(&AES_256_GCM, hash.finalize().as_bytes()).ok().map(LessSafeKey::new)
}

fn nonce(lsn: u64, tries: [u8; TRY_BYTES]) -> Nonce {
    let mut nonce = [0; NONCE_LEN];
    let (front, back) = nonce.split_at_mut(8);
    front.copy_from_slice(&lsn.to_le_bytes());
    back.copy_from_slice(&tries);
    Nonce::assume_unique_for_key(nonce)
}
