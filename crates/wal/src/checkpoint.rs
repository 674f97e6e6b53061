//! The checkpoint: one file beside the segments that makes a start fast.
//!
//! It is written beside the old one and renamed over it. Invariant: a file that is torn, damaged or
//! of another version counts as missing, because the records tell the same.
//!
//! ```text
//! file = "TBWALCKP" | version u32 | crc32c u32 | through u64 | image
//! ```
//! The checksum covers everything behind itself; integers are little endian.

use crate::disk::{Disk, Mode, read_full, write_full};
use crate::error::Error;

/// The file's name.
pub(crate) const NAME: &str = "checkpoint";
const NEW: &str = "checkpoint.new";
const MAGIC: [u8; 8] = *b"TBWALCKP";
const VERSION: u32 = 1;
/// Where the covered bytes begin.
const COVERED: usize = 16;
const HEADER: usize = 24;

/// Replaces the checkpoint.
pub(crate) fn write(disk: &dyn Disk, through: u64, image: &[u8]) -> Result<(), Error> {
    let mut bytes = Vec::with_capacity(HEADER + image.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c_append(crc32c::crc32c(&through.to_le_bytes()), image).to_le_bytes());
    bytes.extend_from_slice(&through.to_le_bytes());
    bytes.extend_from_slice(image);
    let written = disk.open(NEW, Mode::Create).and_then(|file| {
        write_full(&*file, 0, &bytes)?;
        file.sync()
    });
    written.and_then(|()| disk.rename(NEW, NAME)).and_then(|()| disk.sync_dir()).map_err(|e| Error::io("write", disk.path().join(NAME), e))
}

/// Reads the checkpoint.
pub(crate) fn read(disk: &dyn Disk) -> Result<Option<(u64, Vec<u8>)>, Error> {
    let failed = |e| Error::io("read", disk.path().join(NAME), e);
    let file = match disk.open(NAME, Mode::Read) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(failed(e)),
    };
    let len = file.size().map_err(failed)?;
    let bytes = read_full(&*file, 0, usize::try_from(len).unwrap_or(usize::MAX)).map_err(failed)?;
    Ok(decode(bytes))
}

fn decode(mut bytes: Vec<u8>) -> Option<(u64, Vec<u8>)> {
    let front = [&MAGIC[..], &VERSION.to_le_bytes()].concat();
    let sum = u32::from_le_bytes(bytes.strip_prefix(&front[..])?.get(..4)?.try_into().ok()?);
    if crc32c::crc32c(bytes.get(COVERED..)?) != sum {
        return None;
    }
    let through = u64::from_le_bytes(bytes.get(COVERED..HEADER)?.try_into().ok()?);
    bytes.drain(..HEADER);
    Some((through, bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::RealDisk;

    #[test]
    fn a_checkpoint_comes_back_and_a_damaged_one_counts_as_missing() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::existing(dir.path().to_owned());
        assert_eq!(read(&disk).unwrap(), None);
        for image in [&b"one"[..], b"", b"three"] {
            write(&disk, 7, image).unwrap();
            assert_eq!(read(&disk).unwrap(), Some((7, image.to_vec())));
        }
        let whole = std::fs::read(dir.path().join(NAME)).unwrap();
        for at in 0..whole.len() {
            let mut bad = whole.clone();
            bad[at] ^= 1;
            assert_eq!(decode(bad), None, "byte {at}");
            assert_eq!(decode(whole[..at].to_vec()), None, "cut at {at}");
        }
    }
}
