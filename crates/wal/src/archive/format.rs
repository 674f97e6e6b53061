//! The bytes of an archive's manifests and of the record that tells of one.
//!
//! Pure encoding. All integers are little endian. Invariant: the golden file in `tests/golden/archive`
//! stays readable for ever, and a manifest that is not whole is never taken for one.
//!
//! ```text
//! segment  = the file as it lies in the journal, up to its last batch
//! manifest = "TBWALMAN" | version u32 | crc32c u32 | sequence u64 | sha256 of the one before (32)
//!            | made_ms u64 | entries u32 | entry*
//! entry    = name length u16 | name | first u64 | last u64 | size u64 | codec u32 | chain before (32)
//!            | chain behind (32) | sha256 of the segment (32) | blob reference (44)
//! archived = sequence u64 | first u64 | last u64 | segments u64 | chain behind (32) | manifest (44)
//! ```
//! The checksum covers everything behind itself. Codec 0 means as it is; others are reserved.

use crate::format::{Cursor, Head};
use sha2::{Digest, Sha256};
use tinkerbell_core::words::BlobRef;

/// Type of the record that tells what was archived where.
pub(crate) const KIND_ARCHIVED: u16 = 5;

const MAGIC: [u8; 8] = *b"TBWALMAN";
const VERSION: u32 = 1;
/// Where the covered bytes begin.
const COVERED: usize = 16;

/// One archived segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The file's name in the journal.
    pub(crate) name: String,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) size: u64,
    /// The chain's head before the segment.
    pub(crate) chain: Head,
    /// The chain's head behind it.
    pub(crate) chain_end: Head,
    pub(crate) sha256: [u8; 32],
    pub(crate) blob: BlobRef,
}

/// What one run of archiving stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Manifest {
    /// Counts the manifests of an archive, from 1.
    pub(crate) sequence: u64,
    /// SHA-256 of the manifest before; zeros in the first one.
    pub(crate) before: [u8; 32],
    pub(crate) made_ms: u64,
    pub(crate) entries: Vec<Entry>,
}

impl Manifest {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.sequence.to_le_bytes());
        out.extend_from_slice(&self.before);
        out.extend_from_slice(&self.made_ms.to_le_bytes());
        out.extend_from_slice(&u32::try_from(self.entries.len()).unwrap_or(u32::MAX).to_le_bytes());
        for entry in &self.entries {
            out.extend_from_slice(&u16::try_from(entry.name.len()).unwrap_or(u16::MAX).to_le_bytes());
            out.extend_from_slice(entry.name.as_bytes());
            for number in [entry.first, entry.last, entry.size] {
                out.extend_from_slice(&number.to_le_bytes());
            }
            out.extend_from_slice(&0_u32.to_le_bytes());
            out.extend_from_slice(&entry.chain);
            out.extend_from_slice(&entry.chain_end);
            out.extend_from_slice(&entry.sha256);
            out.extend_from_slice(&entry.blob.to_bytes());
        }
        let sum = crc32c::crc32c(out.get(COVERED..).unwrap_or_default()).to_le_bytes();
        if let Some(slot) = out.get_mut(12..COVERED) {
            slot.copy_from_slice(&sum);
        }
        out
    }

    /// Reads a manifest; the text says why it is none.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, String> {
        let mut cursor = Cursor(bytes);
        if cursor.take::<8>() != Some(MAGIC) {
            return Err("it does not begin like a manifest".to_owned());
        }
        let short = || "it ends early".to_owned();
        let (version, crc) = (cursor.u32().ok_or_else(short)?, cursor.u32().ok_or_else(short)?);
        if version != VERSION {
            return Err(format!("it has format version {version}, this release reads {VERSION}"));
        }
        if crc32c::crc32c(bytes.get(COVERED..).unwrap_or_default()) != crc {
            return Err("its checksum does not match".to_owned());
        }
        Self::fields(&mut cursor).ok_or_else(short)
    }

    fn fields(cursor: &mut Cursor<'_>) -> Option<Self> {
        let (sequence, before, made_ms, count) = (cursor.u64()?, cursor.take()?, cursor.u64()?, cursor.u32()?);
        let mut entries = Vec::new();
        for _ in 0..count {
            entries.push(entry(cursor)?);
        }
        cursor.0.is_empty().then_some(Self { sequence, before, made_ms, entries })
    }
}

fn entry(cursor: &mut Cursor<'_>) -> Option<Entry> {
    let len = usize::from(u16::from_le_bytes(cursor.take()?));
    let (name, rest) = cursor.0.split_at_checked(len)?;
    cursor.0 = rest;
    let name = String::from_utf8(name.to_vec()).ok()?;
    let (first, last, size, codec) = (cursor.u64()?, cursor.u64()?, cursor.u64()?, cursor.u32()?);
    let (chain, chain_end, sha256) = (cursor.take()?, cursor.take()?, cursor.take()?);
    let blob = BlobRef::from_bytes(&cursor.take::<{ BlobRef::ENCODED_BYTES }>()?)?;
    (codec == 0).then_some(Entry { name, first, last, size, chain, chain_end, sha256, blob })
}

/// SHA-256 of bytes.
pub(crate) fn digest(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}

/// The payload of a record of kind [`KIND_ARCHIVED`].
pub(crate) fn archived(manifest: &Manifest, blob: &BlobRef) -> Vec<u8> {
    let mut out = Vec::new();
    let first = manifest.entries.first().map_or(0, |entry| entry.first);
    let (last, chain_end) = manifest.entries.last().map_or((0, [0; 32]), |entry| (entry.last, entry.chain_end));
    for number in [manifest.sequence, first, last, manifest.entries.len() as u64] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.extend_from_slice(&chain_end);
    out.extend_from_slice(&blob.to_bytes());
    out
}
