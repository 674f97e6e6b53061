//! Names and seals contents with the key of their subject.
//!
//! ```text
//! naming, sealing = BLAKE3 keyed with the subject's key, over "tinkerbell blob name 1" and "… seal 1"
//! address         = BLAKE3 keyed with naming, over the content
//! body            = AES-256-GCM of the content, nonce zero, nothing else covered,
//!                   under BLAKE3 keyed with sealing, over the address
//! ```
//! Invariant: a key seals one content only. It follows from the address, which follows from the
//! content; so no nonce can come twice with other bytes, whatever is written again, and a body opens
//! only under the very address that names it.

use crate::error::Error;
use crypto::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use tinkerbell_core::port::SealKey;
use tinkerbell_core::words::BlobRef;

/// Bytes that sealing adds.
pub(crate) const TAG_BYTES: usize = 16;

/// The reference of a content under its subject's key.
pub(crate) fn name(key: &SealKey, content: &[u8]) -> BlobRef {
    let naming = blake3::keyed_hash(&key.secret, b"tinkerbell blob name 1");
    let hash = blake3::keyed_hash(naming.as_bytes(), content);
    BlobRef { key_id: key.id, hash: *hash.as_bytes(), size_bytes: content.len() as u64 }
}

/// The body of an entry.
pub(crate) fn seal(key: &SealKey, blob: BlobRef, content: &[u8]) -> Result<Vec<u8>, Error> {
    let mut body = Vec::with_capacity(content.len() + TAG_BYTES);
    body.extend_from_slice(content);
    let tag = cipher(key, blob)?.seal_in_place_separate_tag(nonce(), Aad::empty(), &mut body).map_err(|_| Error::Cipher)?;
    body.extend_from_slice(tag.as_ref());
    Ok(body)
}

/// The content again; `None` when the body is not the blob's.
pub(crate) fn open(key: &SealKey, blob: BlobRef, mut body: Vec<u8>) -> Result<Option<Vec<u8>>, Error> {
    let Ok(content) = cipher(key, blob)?.open_in_place(nonce(), Aad::empty(), &mut body) else { return Ok(None) };
    let len = content.len();
    body.truncate(len);
    Ok(Some(body).filter(|content| name(key, content) == blob))
}

fn cipher(key: &SealKey, blob: BlobRef) -> Result<LessSafeKey, Error> {
    let sealing = blake3::keyed_hash(&key.secret, b"tinkerbell blob seal 1");
    let own = blake3::keyed_hash(sealing.as_bytes(), &blob.hash);
    UnboundKey::new(&AES_256_GCM, own.as_bytes()).map(LessSafeKey::new).map_err(|_| Error::Cipher)
}

fn nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; NONCE_LEN])
}
