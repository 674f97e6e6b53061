//! Version 1 of the bytes on disk: segment header, record frame, batch trailer.
//!
//! Pure encoding; when and where bytes are written is decided elsewhere. All integers are little
//! endian. Invariant: `tests/golden/v1` stays readable for ever, and what this module writes for
//! the same input never changes within a version.
//!
//! ```text
//! segment  = header (4096) batch*
//! batch    = frame+ trailer            one fdatasync each
//! frame    = crc32c u32 | len u32 | lsn u64 | incarnation u64 | type u16 | schema u8 | flags u8
//!            | key_id u32 | task u128 | payload (len bytes)
//! trailer  = a frame of type 1 with flag batch_end and this payload:
//!            acked u64 | last u64 | wall_ms u64 | mono_ms u64 | boot id (16) | chain head (32)
//! slot     = crc32c u32 | version u32 | sequence u64 | acked u64 | incarnation u64 | zeros (480)
//! ```
//! Two slots lie in the header at 1024 and 1536; a watermark goes into slot `sequence` modulo 2, so
//! the one before stays whole. A slot's CRC covers everything after itself. A frame's CRC covers everything after itself. The trailer takes a number of its own, so numbers
//! on disk are dense and readers of records see gaps. The chain head is SHA-256 over the head
//! before, the batch's frames, and the trailer from behind its CRC up to the head itself.

use sha2::{Digest, Sha256};

/// The version that this module writes and reads.
pub(crate) const VERSION: u32 = 1;
/// Length of a segment header.
pub(crate) const HEADER_BYTES: usize = 4096;
/// Length of a frame without its payload.
pub(crate) const FRAME_BYTES: usize = 48;
/// Length of a trailer's payload.
pub(crate) const TRAILER_BYTES: usize = 80;
/// Length of a whole trailer.
pub(crate) const TRAILER_FRAME_BYTES: usize = FRAME_BYTES + TRAILER_BYTES;
/// Where the two watermark slots lie; not under the header's checksum because they are rewritten
/// in place.
pub(crate) const SLOTS: std::ops::Range<usize> = 1024..2048;
/// Length of one slot: one sector, so that a power cut leaves it old or new.
pub(crate) const SLOT_BYTES: usize = 512;

/// Type of a batch trailer.
pub(crate) const KIND_TRAILER: u16 = 1;
/// Type of the mark that a clean shutdown leaves.
pub(crate) const KIND_SHUTDOWN: u16 = 2;
/// Types below this belong to the journal itself.
pub(crate) const KIND_FIRST_USER: u16 = 16;

/// The payload is compressed; reserved.
pub(crate) const FLAG_ZSTD: u8 = 1;
/// The payload is sealed; see `seal`.
pub(crate) const FLAG_AEAD: u8 = 2;
/// The payload is a reference to a blob.
pub(crate) const FLAG_BLOB: u8 = 4;
/// The frame ends a batch.
pub(crate) const FLAG_BATCH_END: u8 = 8;

const MAGIC: [u8; 8] = *b"TBWALSEG";
const CHECKED: usize = 1020;

/// A hash chain's head.
pub(crate) type Head = [u8; 32];

/// Where the chain begins.
pub(crate) const GENESIS: Head = [0; 32];

/// What a segment says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) epoch: u64,
    pub(crate) first_lsn: u64,
    pub(crate) incarnation: u64,
    pub(crate) chain: Head,
    pub(crate) created_ms: u64,
    pub(crate) boot_id: [u8; 16],
    /// The segment that failed and that this one goes on from.
    pub(crate) seals: Option<Seal>,
}

/// The end of a segment whose sync failed: what stands in it behind `last` never counts again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seal {
    pub(crate) incarnation: u64,
    /// The last number that was acknowledged in it.
    pub(crate) last: u64,
}

/// Why bytes are not a header or a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Invalid {
    #[error("the bytes end inside it")]
    Short,
    #[error("its checksum does not match")]
    Checksum,
    #[error("it does not begin like a segment")]
    Magic,
    #[error("it has format version {0}, this release reads {VERSION}")]
    Version(u32),
}

impl Header {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_BYTES);
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&VERSION.to_le_bytes());
        out.extend_from_slice(&4096_u32.to_le_bytes());
        out.extend_from_slice(&self.epoch.to_le_bytes());
        out.extend_from_slice(&self.first_lsn.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.chain);
        out.extend_from_slice(&self.created_ms.to_le_bytes());
        out.extend_from_slice(&self.boot_id);
        if let Some(seal) = self.seals {
            out.extend_from_slice(&seal.incarnation.to_le_bytes());
            out.extend_from_slice(&seal.last.to_le_bytes());
        }
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
            epoch: cursor.u64()?,
            first_lsn: cursor.u64()?,
            incarnation: cursor.u64()?,
            chain: cursor.take()?,
            created_ms: cursor.u64()?,
            boot_id: cursor.take()?,
            seals: Some(Seal { incarnation: cursor.u64()?, last: cursor.u64()? }).filter(|seal| seal.last > 0),
        })
    }
}

/// Covers the whole header but the checksum itself and the slots.
pub(crate) fn header_checksum(bytes: &[u8]) -> u32 {
    let front = crc32c::crc32c(bytes.get(..CHECKED).unwrap_or_default());
    crc32c::crc32c_append(front, bytes.get(SLOTS.end..HEADER_BYTES).unwrap_or_default())
}

/// One record as it lies in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Frame<'a> {
    pub(crate) lsn: u64,
    pub(crate) incarnation: u64,
    pub(crate) kind: u16,
    pub(crate) schema: u8,
    pub(crate) flags: u8,
    pub(crate) key_id: u32,
    pub(crate) task: u128,
    pub(crate) payload: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Appends the frame; its checksum is left zero for [`stamp`].
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        let len = u32::try_from(self.payload.len()).unwrap_or(u32::MAX);
        out.extend_from_slice(&0_u32.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.lsn.to_le_bytes());
        out.extend_from_slice(&self.incarnation.to_le_bytes());
        out.extend_from_slice(&self.kind.to_le_bytes());
        out.push(self.schema);
        out.push(self.flags);
        out.extend_from_slice(&self.key_id.to_le_bytes());
        out.extend_from_slice(&self.task.to_le_bytes());
        out.extend_from_slice(self.payload);
    }

    /// Reads the frame that `bytes` begin with.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Self, Invalid> {
        let mut cursor = Cursor(bytes);
        let (crc, len) = (cursor.u32().ok_or(Invalid::Short)?, cursor.u32().ok_or(Invalid::Short)?);
        let end = usize::try_from(len).ok().and_then(|len| len.checked_add(FRAME_BYTES)).ok_or(Invalid::Short)?;
        let covered = bytes.get(4..end).ok_or(Invalid::Short)?;
        if crc32c::crc32c(covered) != crc {
            return Err(Invalid::Checksum);
        }
        Self::fields(cursor, bytes.get(FRAME_BYTES..end).unwrap_or_default()).ok_or(Invalid::Short)
    }

    fn fields(mut cursor: Cursor<'_>, payload: &'a [u8]) -> Option<Self> {
        Some(Self {
            lsn: cursor.u64()?,
            incarnation: cursor.u64()?,
            kind: cursor.u16()?,
            schema: cursor.take::<1>()?[0],
            flags: cursor.take::<1>()?[0],
            key_id: cursor.u32()?,
            task: u128::from_le_bytes(cursor.take()?),
            payload,
        })
    }

    /// Length on disk.
    pub(crate) const fn size(&self) -> usize {
        FRAME_BYTES + self.payload.len()
    }

    pub(crate) const fn is_trailer(&self) -> bool {
        self.kind == KIND_TRAILER && self.flags & FLAG_BATCH_END != 0
    }

    /// Flags that this release can not undo.
    pub(crate) const fn unknown_flags(&self) -> u8 {
        self.flags & !(FLAG_BLOB | FLAG_BATCH_END | FLAG_AEAD)
    }
}

/// Gives the frames in `bytes` consecutive numbers, their incarnation, and their checksums.
/// `None` when `bytes` are not whole frames.
pub(crate) fn stamp(bytes: &mut [u8], first_lsn: u64, incarnation: u64) -> Option<()> {
    let (mut rest, mut lsn) = (bytes, first_lsn);
    while !rest.is_empty() {
        let len = usize::try_from(Cursor(rest.get(4..8)?).u32()?).ok()?;
        let (frame, tail) = rest.split_at_mut_checked(FRAME_BYTES.checked_add(len)?)?;
        frame.get_mut(8..16)?.copy_from_slice(&lsn.to_le_bytes());
        frame.get_mut(16..24)?.copy_from_slice(&incarnation.to_le_bytes());
        let crc = crc32c::crc32c(frame.get(4..)?);
        frame.get_mut(..4)?.copy_from_slice(&crc.to_le_bytes());
        (rest, lsn) = (tail, lsn.checked_add(1)?);
    }
    Some(())
}

/// The types of the frames in `bytes`, which this process encoded; nothing is checked again.
pub(crate) fn kinds(bytes: &[u8]) -> impl Iterator<Item = u16> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let len = usize::try_from(Cursor(rest.get(4..)?).u32()?).ok()?;
        let kind = Cursor(rest.get(24..)?).u16()?;
        rest = rest.get(FRAME_BYTES.checked_add(len)?..)?;
        Some(kind)
    })
}

/// What a batch trailer says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    /// All numbers up to this one were durable before the batch was written.
    pub(crate) acked: u64,
    /// The batch's last record.
    pub(crate) last: u64,
    pub(crate) wall_ms: u64,
    pub(crate) mono_ms: u64,
    pub(crate) boot_id: [u8; 16],
    pub(crate) head: Head,
}

impl Trailer {
    pub(crate) fn decode(payload: &[u8]) -> Option<Self> {
        if payload.len() != TRAILER_BYTES {
            return None;
        }
        let mut cursor = Cursor(payload);
        Some(Self {
            acked: cursor.u64()?,
            last: cursor.u64()?,
            wall_ms: cursor.u64()?,
            mono_ms: cursor.u64()?,
            boot_id: cursor.take()?,
            head: cursor.take()?,
        })
    }

    /// Ends the batch in `out`, whose frames are stamped; gives the new head, which replaces the
    /// one in `self`.
    pub(crate) fn push(&self, out: &mut Vec<u8>, before: &Head, incarnation: u64) -> Option<Head> {
        let start = out.len();
        let mut payload = Vec::with_capacity(TRAILER_BYTES);
        for number in [self.acked, self.last, self.wall_ms, self.mono_ms] {
            payload.extend_from_slice(&number.to_le_bytes());
        }
        payload.extend_from_slice(&self.boot_id);
        payload.resize(TRAILER_BYTES, 0);
        let lsn = self.last.checked_add(1)?;
        let frame = Frame { lsn, incarnation, kind: KIND_TRAILER, schema: 1, flags: FLAG_BATCH_END, key_id: 0, task: 0, payload: &payload };
        frame.push(out);
        let head = chain(before, out.get(..start)?, out.get(start..)?)?;
        let at = out.len().checked_sub(head.len())?;
        out.get_mut(at..)?.copy_from_slice(&head);
        stamp(out.get_mut(start..)?, lsn, incarnation)?;
        Some(head)
    }
}

/// The head after a batch of `frames` with this `trailer` frame.
pub(crate) fn chain(before: &Head, frames: &[u8], trailer: &[u8]) -> Option<Head> {
    let covered = trailer.get(4..TRAILER_FRAME_BYTES.checked_sub(before.len())?)?;
    let mut hash = Sha256::new();
    hash.update(before);
    hash.update(frames);
    hash.update(covered);
    Some(hash.finalize().into())
}

/// What a watermark slot says: everything up to `acked` in this segment was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slot {
    /// Counts the slots written to this segment, from 1.
    pub(crate) sequence: u64,
    pub(crate) acked: u64,
    pub(crate) incarnation: u64,
}

impl Slot {
    /// The slot's place in the segment.
    pub(crate) const fn offset(&self) -> u64 {
        SLOTS.start as u64 + (self.sequence % 2) * SLOT_BYTES as u64
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(SLOT_BYTES);
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&VERSION.to_le_bytes());
        for number in [self.sequence, self.acked, self.incarnation] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        out.resize(SLOT_BYTES, 0);
        let sum = crc32c::crc32c(out.get(4..).unwrap_or_default()).to_le_bytes();
        if let Some(front) = out.first_chunk_mut() {
            *front = sum;
        }
        out
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let mut cursor = Cursor(bytes);
        let (crc, version) = (cursor.u32()?, cursor.u32()?);
        if crc32c::crc32c(bytes.get(4..)?) != crc || version != VERSION {
            return None;
        }
        Some(Self { sequence: cursor.u64()?, acked: cursor.u64()?, incarnation: cursor.u64()? })
    }
}

/// The newest watermark in a segment's header; 0 when there is none. A damaged slot counts as
/// missing: it only ever adds knowledge.
pub(crate) fn watermark(header: &[u8], incarnation: u64) -> u64 {
    let slots = header.get(SLOTS).unwrap_or_default().chunks_exact(SLOT_BYTES).filter_map(Slot::decode);
    slots.filter(|slot| slot.incarnation == incarnation).map(|slot| slot.acked).max().unwrap_or(0)
}

/// Reads integers off the front.
pub(crate) struct Cursor<'a>(pub(crate) &'a [u8]);

impl Cursor<'_> {
    pub(crate) fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, tail) = self.0.split_first_chunk::<N>()?;
        self.0 = tail;
        Some(*head)
    }
    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_le_bytes)
    }
    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }
    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }
}
