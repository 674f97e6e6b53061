//! Version 1 of a pack: its header and its entries.
//!
//! Pure encoding. Integers are little endian; entries begin at multiples of 16 bytes, so that they
//! are found again behind a damaged stretch. Invariant: `tests/golden/v2` stays readable for ever.
//!
//! ```text
//! pack  = "TBBLPACK" | version u32 | zero (20) | entry*
//! entry = "TBLB" | kind u8 | zero (3) | seq u64 | len u32 | key_id u32 | subject u32 | zero u32 | task u128
//!         | address (32) | body crc32c u32 | zero (8) | crc32c u32 of all before | body (len) | zero to 16
//! kind  = 1 blob: body is what `seal` made · 2 forgotten: the owner's entries of lower seq are dead
//! ```

use tinkerbell_core::words::{Owner, Subject, TaskId};

/// Length of a pack's header.
pub(crate) const PACK_HEADER: usize = 32;
/// Length of an entry without its body.
pub(crate) const ENTRY_HEADER: usize = 96;
/// Where entries may begin.
pub(crate) const STEP: u64 = 16;

const PACK_MAGIC: [u8; 8] = *b"TBBLPACK";
const VERSION: u32 = 1;
/// What every entry begins with.
pub(crate) const MAGIC: [u8; 4] = *b"TBLB";
const SUM: std::ops::Range<usize> = 92..ENTRY_HEADER;

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Blob = 1,
    Forgotten = 2,
}

/// An entry's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// Rises with every entry of the store; kept when an entry moves to another pack.
    pub(crate) seq: u64,
    /// Length of the body.
    pub(crate) len: u32,
    pub(crate) key_id: u32,
    pub(crate) owner: Owner,
    pub(crate) address: [u8; 32],
    pub(crate) body_crc: u32,
}

/// A pack's header.
pub(crate) fn pack_header() -> Vec<u8> {
    let mut out = PACK_MAGIC.to_vec();
    out.extend_from_slice(&VERSION.to_le_bytes());
    out.resize(PACK_HEADER, 0);
    out
}

/// The version that a pack's header names; `None` when it is none.
pub(crate) fn pack_version(bytes: &[u8]) -> Option<u32> {
    let rest = bytes.strip_prefix(&PACK_MAGIC)?;
    rest.first_chunk().map(|version| u32::from_le_bytes(*version))
}

/// Whether this release reads packs of that version.
pub(crate) const fn is_known(version: u32) -> bool {
    version == VERSION
}

impl Entry {
    /// The whole entry as bytes.
    pub(crate) fn encode(&self, body: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(ENTRY_HEADER + body.len() + 16);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&[self.kind as u8, 0, 0, 0]);
        out.extend_from_slice(&self.seq.to_le_bytes());
        out.extend_from_slice(&self.len.to_le_bytes());
        out.extend_from_slice(&self.key_id.to_le_bytes());
        out.extend_from_slice(&self.owner.subject.0.to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&self.owner.task.0.to_le_bytes());
        out.extend_from_slice(&self.address);
        out.extend_from_slice(&self.body_crc.to_le_bytes());
        out.resize(SUM.start, 0);
        out.extend_from_slice(&crc32c::crc32c(&out).to_le_bytes());
        out.extend_from_slice(body);
        out.resize(out.len().next_multiple_of(16), 0);
        out
    }

    /// Reads a header; `None` when the bytes are none.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let header = bytes.get(..ENTRY_HEADER)?;
        let mut cursor = Cursor(header);
        if cursor.take::<4>()? != MAGIC || crc32c::crc32c(header.get(..SUM.start)?).to_le_bytes() != *header.get(SUM)? {
            return None;
        }
        let kind = match cursor.take::<4>()? {
            [1, ..] => Kind::Blob,
            [2, ..] => Kind::Forgotten,
            _ => return None,
        };
        let seq = u64::from_le_bytes(cursor.take()?);
        let (len, key_id, subject) = (cursor.u32()?, cursor.u32()?, Subject(cursor.u32()?));
        cursor.u32()?;
        let task = TaskId(u128::from_le_bytes(cursor.take()?));
        let (address, body_crc) = (cursor.take()?, cursor.u32()?);
        Some(Self { kind, seq, len, key_id, owner: Owner { subject, task }, address, body_crc })
    }

    /// What it takes in a pack.
    pub(crate) fn size(&self) -> u64 {
        (ENTRY_HEADER as u64 + u64::from(self.len)).next_multiple_of(STEP)
    }

    /// Whether the body is the one that was written.
    pub(crate) fn fits(&self, body: &[u8]) -> bool {
        body.len() as u64 == u64::from(self.len) && crc32c::crc32c(body) == self.body_crc
    }
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
