//! Memory of a command that no mapping shows: files without a name and the room for shared memory.
//!
//! Looked for only where no control group counts it. What is held and mapped as well is counted once.
//! Invariant: a look costs as much as the processes have descriptors, and one that can not see a
//! process leaves it out.

use crate::process;
use std::collections::HashSet;
use std::io::BufRead as _;
use std::os::linux::fs::MetadataExt as _;

/// What a file without a name is called where descriptors are shown.
const UNNAMED: &str = "/memfd:";
/// Most files that are told apart; a task has fewer descriptors than this.
const MOST: usize = 1 << 20;

/// A file system and a number in it.
type Place = (u64, u64);

/// Memory that is held by descriptors or names.
#[derive(Debug, Default)]
pub struct Held {
    /// Bytes.
    pub bytes: u64,
    files: HashSet<Place>,
    shared: Option<u64>,
}

/// What these processes hold; `is_apart` where they have a `/dev/shm` of their own.
#[must_use]
pub fn held(pids: &[i32], is_apart: bool) -> Held {
    let mut held = Held::default();
    for pid in pids {
        let Ok(entries) = std::fs::read_dir(process::place(*pid).join("fd")) else { continue };
        for entry in entries.flatten() {
            let path = entry.path();
            let is_unnamed =
                std::fs::read_link(&path).is_ok_and(|target| target.as_os_str().as_encoded_bytes().starts_with(UNNAMED.as_bytes()));
            let Some(meta) = is_unnamed.then(|| std::fs::metadata(&path).ok()).flatten() else { continue };
            if held.files.len() < MOST && held.files.insert((meta.st_dev(), meta.st_ino())) {
                held.bytes = held.bytes.saturating_add(meta.st_blocks().saturating_mul(512));
            }
        }
    }
    // The stages and processes that just end show no root; any other one shows the same.
    let room = |pid: &i32| {
        let at = process::place(*pid).join("root/dev/shm");
        let (seen, meta) = (rustix::fs::statfs(&at).ok()?, std::fs::metadata(&at).ok()?);
        let unit = u64::try_from(seen.f_bsize).unwrap_or(4_096);
        Some((seen.f_blocks.saturating_sub(seen.f_bfree).saturating_mul(unit), meta.st_dev()))
    };
    if let Some((bytes, device)) = pids.iter().filter(|_| is_apart).find_map(room) {
        held.bytes = held.bytes.saturating_add(bytes);
        held.shared = Some(device);
    }
    held
}

impl Held {
    fn has(&self, place: Place) -> bool {
        self.shared == Some(place.0) || self.files.contains(&place)
    }

    /// Memory of a process beside what is held: its share of each mapping. `None` where that can not be read.
    #[must_use]
    pub fn beside(&self, pid: i32) -> Option<u64> {
        if self.bytes == 0 {
            return process::share(pid);
        }
        let file = std::fs::File::open(process::place(pid).join("smaps")).ok()?;
        let (mut total, mut counts) = (0_u64, true);
        for line in std::io::BufReader::new(file).split(b'\n') {
            let line = line.ok()?;
            let line = String::from_utf8_lossy(&line);
            if let Some(size) = line.strip_prefix("Pss:") {
                let kib: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
                total = total.saturating_add(if counts { kib << 10 } else { 0 });
            } else if let Some(place) = place(&line) {
                counts = !self.has(place);
            }
        }
        Some(total)
    }
}

/// The file of a mapping's first line, as in `7f00-7f01 rw-s 00000000 00:01 1024 /memfd:x (deleted)`.
fn place(line: &str) -> Option<Place> {
    let mut words = line.split_ascii_whitespace();
    let (_, device) = (words.next()?.split_once('-')?, words.nth(2)?);
    let (high, low) = device.split_once(':')?;
    let number = |text: &str| u32::from_str_radix(text, 16).ok();
    Some((rustix::fs::makedev(number(high)?, number(low)?), words.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{major, minor};
    use std::io::Write as _;

    #[test]
    fn files_without_a_name_count_once_mapped_or_not() {
        let own = i32::try_from(std::process::id()).unwrap();
        let before = held(&[own], false).bytes;
        let fd = rustix::fs::memfd_create("x", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
        let mut file = std::fs::File::from(fd);
        file.write_all(&vec![1; 8 << 20]).unwrap();
        let again = file.try_clone().unwrap();
        let now = held(&[own, own], false);
        assert!(now.bytes >= before + (8 << 20) && now.bytes < before + (9 << 20), "{before} {now:?}");
        let meta = file.metadata().unwrap();
        assert!(now.has((meta.st_dev(), meta.st_ino())));
        let line = format!(
            "7f00-7f01 rw-s 00000000 {:02x}:{:02x} {} /memfd:x (deleted)",
            major(meta.st_dev()),
            minor(meta.st_dev()),
            meta.st_ino()
        );
        assert_eq!(place(&line), Some((meta.st_dev(), meta.st_ino())));
        assert!(now.beside(own).is_some_and(|bytes| bytes > 1 << 20));
        drop((file, again));
    }

    #[test]
    fn only_first_lines_of_mappings_name_a_file() {
        for (line, found) in [
            ("00400000-00452000 r-xp 00000000 08:02 173521 /usr/bin/x y", Some((rustix::fs::makedev(8, 2), 173_521))),
            ("7ffc-7ffd rw-p 00000000 00:00 0 [stack]", Some((0, 0))),
            ("Size:               4 kB", None),
            ("VmFlags: rd wr mr mw me ac", None),
            ("", None),
        ] {
            assert_eq!(place(line), found, "{line}");
        }
    }
}
