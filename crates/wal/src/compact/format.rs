//! The bytes of a compacted segment and of the record that vouches for it.
//!
//! Pure encoding. All integers are little endian. Invariant: the golden file in `tests/golden/v1-compacted`
//! stays readable for ever, and a compacted segment holds nothing that depends on when or where it
//! was made: the same frames give the same bytes.
//!
//! ```text
//! file    = header (4096) frame*           frames as they were, each with its own number
//! header  = "TBWALSEG" | version u32 | 4096 u32 | epoch u64 | first u64 | last u64 | generation u64
//!           | tip u64 | records u64 | dropped u64 | body bytes u64 | created_ms u64
//!           | chain before (32) | chain behind (32) | zeros | crc32c u32 at 1020 | zeros
//! name    = epoch-first-last-generation.wal, each of 16 hexadecimal digits
//! retired = epoch u64 | first u64 | last u64 | generation u64 | kept u64 | dropped u64
//!           | chain behind (32) | SHA-256 of the file (32)
//! ```
//! The version is one that a release without compaction refuses by number, as written by a newer one.

use crate::format::{Cursor, HEADER_BYTES, Head, Invalid, header_checksum};
use crate::survey::SUFFIX;

/// Type of the record that vouches for a compacted segment.
pub(crate) const KIND_RETIRED: u16 = 4;

const MAGIC: [u8; 8] = *b"TBWALSEG";
/// Far from the versions of plain segments, which count up from 1.
const VERSION: u32 = 0x0001_0001;
const CHECKED: usize = 1020;
/// Digits of a number in a name.
const DIGITS: usize = 16;

/// The range that a compacted segment stands for, and which of several it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Range {
    /// The epoch of the first segment that it replaced, so that names sort in order.
    pub(crate) epoch: u64,
    /// Its first number.
    pub(crate) first: u64,
    /// Its last number.
    pub(crate) last: u64,
    /// The newest number that had been given when it was made; of two files, the greater counts.
    pub(crate) generation: u64,
}

impl Range {
    /// The name of the compacted segment.
    pub(crate) fn name(&self) -> String {
        let Self { epoch, first, last, generation } = self;
        format!("{epoch:016x}-{first:016x}-{last:016x}-{generation:016x}{SUFFIX}")
    }

    /// Reads a name; `None` when it is not that of a compacted segment.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let mut parts = name.strip_suffix(SUFFIX)?.split('-').map(|part| {
            let whole = part.len() == DIGITS;
            whole.then(|| u64::from_str_radix(part, 16).ok()).flatten()
        });
        let range = Self { epoch: parts.next()??, first: parts.next()??, last: parts.next()??, generation: parts.next()?? };
        (parts.next().is_none() && range.name() == name).then_some(range)
    }

    /// Whether a segment that begins at `first` lies in it.
    pub(crate) const fn holds(&self, first: u64) -> bool {
        self.first <= first && first <= self.last
    }
}

/// What a compacted segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) range: Range,
    /// The newest number in the range that readers saw before; 0 when there was none.
    pub(crate) tip: u64,
    /// Frames in the file.
    pub(crate) records: u64,
    /// Records of the range that readers saw and that are gone.
    pub(crate) dropped: u64,
    /// Length of all frames.
    pub(crate) body_bytes: u64,
    /// When the first segment that it replaced was made.
    pub(crate) created_ms: u64,
    /// The chain's head before the range.
    pub(crate) chain: Head,
    /// The chain's head behind the range.
    pub(crate) chain_end: Head,
}

impl Kept {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&4096_u32.to_le_bytes());
        let Range { epoch, first, last, generation } = self.range;
        for number in [epoch, first, last, generation, self.tip, self.records, self.dropped, self.body_bytes, self.created_ms] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.chain_end);
        out.resize(HEADER_BYTES, 0);
        let sum = header_checksum(&out).to_le_bytes();
        if let Some(slot) = out.get_mut(CHECKED..CHECKED + 4) {
            slot.copy_from_slice(&sum);
        }
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Invalid> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or(Invalid::Short)?;
        let mut cursor = Cursor(bytes);
        if cursor.take::<8>() != Some(MAGIC) {
            return Err(Invalid::Magic);
        }
        let version = cursor.u32().ok_or(Invalid::Short)?;
        let sum = bytes.get(CHECKED..).and_then(|rest| Cursor(rest).u32());
        if sum != Some(header_checksum(bytes)) {
            return Err(Invalid::Checksum);
        }
        if version != VERSION {
            return Err(Invalid::Version(version));
        }
        Self::fields(cursor).ok_or(Invalid::Short)
    }

    fn fields(mut cursor: Cursor<'_>) -> Option<Self> {
        cursor.u32()?;
        Some(Self {
            range: range(&mut cursor)?,
            tip: cursor.u64()?,
            records: cursor.u64()?,
            dropped: cursor.u64()?,
            body_bytes: cursor.u64()?,
            created_ms: cursor.u64()?,
            chain: cursor.take()?,
            chain_end: cursor.take()?,
        })
    }
}

/// The payload of a record of kind [`KIND_RETIRED`]: a compacted segment that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Retired {
    pub(crate) range: Range,
    pub(crate) kept: u64,
    pub(crate) dropped: u64,
    pub(crate) chain_end: Head,
    pub(crate) sha256: [u8; 32],
}

impl Retired {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let Range { epoch, first, last, generation } = self.range;
        let mut out = Vec::with_capacity(112);
        for number in [epoch, first, last, generation, self.kept, self.dropped] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.extend_from_slice(&self.chain_end);
        out.extend_from_slice(&self.sha256);
        out
    }

    /// Reads the payload; a later schema may add fields behind these.
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(payload);
        Some(Self {
            range: range(&mut cursor)?,
            kept: cursor.u64()?,
            dropped: cursor.u64()?,
            chain_end: cursor.take()?,
            sha256: cursor.take()?,
        })
    }
}

fn range(cursor: &mut Cursor<'_>) -> Option<Range> {
    Some(Range { epoch: cursor.u64()?, first: cursor.u64()?, last: cursor.u64()?, generation: cursor.u64()? })
}
