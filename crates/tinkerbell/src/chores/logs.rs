//! `daemon logs`: the end of the daemon's log, and what comes after it.
//!
//! Reads the file itself, so that it works when the daemon does not. Invariant: at most
//! [`TAIL_BYTES`] are read to find the last lines, however large the file is.

use super::Shop;
use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;
use tinkerbell_cli::{Output, visible};
use tinkerbell_core::code::{Fault, exit};

/// The most that is read from the end.
const TAIL_BYTES: u64 = 4 << 20;
/// How often a followed log is looked at.
const LOOK: Duration = Duration::from_millis(200);

/// Shows the last `lines` of the log; with `follow` also what is added, until the reader leaves.
///
/// # Errors
/// `TB-HOME-002` when the log can not be read.
pub async fn logs(shop: &Shop<'_>, follow: bool, lines: usize, out: &Output) -> Result<u8, Fault> {
    let path = shop.places.log();
    let unreadable = |error: std::io::Error| {
        Fault::new("TB-HOME-002", exit::CONFIG, format!("{} can not be read: {error}", path.display()))
            .hint(format!("look at its owner and mode: ls -l {}", path.display()))
    };
    let mut place = match tail(&path, lines).map_err(unreadable)? {
        Some((text, place)) => {
            show(&text, out);
            Some(place)
        }
        None => {
            out.talk(&format!("there is no log yet: {}", path.display()));
            None
        }
    };
    while follow && !out.is_closed() {
        tokio::time::sleep(LOOK).await;
        let (text, now) = match more(&path, place).map_err(unreadable)? {
            Some(found) => found,
            None => continue,
        };
        show(&text, out);
        place = Some(now);
    }
    Ok(exit::DONE)
}

/// Which file, and how far it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Place {
    inode: u64,
    offset: u64,
}

fn show(text: &str, out: &Output) {
    // A log may quote what a provider or a command wrote.
    text.lines().for_each(|line| out.data(&visible(line)));
}

fn open(path: &Path) -> std::io::Result<Option<File>> {
    match File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The last lines, with the place behind them; `None` without a file.
fn tail(path: &Path, lines: usize) -> std::io::Result<Option<(String, Place)>> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let meta = file.metadata()?;
    let start = meta.len().saturating_sub(TAIL_BYTES);
    let (text, taken) = read_lines(&mut file, start)?;
    let kept: Vec<&str> = text.lines().rev().take(lines).collect();
    let text = kept.into_iter().rev().collect::<Vec<_>>().join("\n");
    Ok(Some((text, Place { inode: meta.ino(), offset: start.saturating_add(taken) })))
}

/// Whole lines from an offset on, with their bytes: half a line waits for its other half.
fn read_lines(file: &mut File, start: u64) -> std::io::Result<(String, u64)> {
    file.seek(SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
    bytes.truncate(bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1));
    Ok((String::from_utf8_lossy(&bytes).into_owned(), bytes.len() as u64))
}

/// What was added since; a log that was begun anew is read from its start.
fn more(path: &Path, place: Option<Place>) -> std::io::Result<Option<(String, Place)>> {
    let Some(mut file) = open(path)? else { return Ok(None) };
    let meta = file.metadata()?;
    let known = place.filter(|place| place.inode == meta.ino() && place.offset <= meta.len());
    let start = known.map_or(0, |place| place.offset);
    let (text, taken) = read_lines(&mut file, start)?;
    Ok(Some((text, Place { inode: meta.ino(), offset: start.saturating_add(taken) })))
}

#[cfg(test)]
mod tests {
    use super::super::bench::{Bench, Heard};
    use super::*;

    #[tokio::test]
    async fn the_last_lines_are_shown_and_nothing_acts_on_the_terminal() {
        let (bench, heard) = (Bench::new(), Heard::new());
        assert_eq!(logs(&bench.shop(), false, 2, &heard.out).await, Ok(exit::DONE));
        assert!(heard.talk().contains("no log yet"));
        bench.write("home/state/daemon.log", "one\ntwo\nthr\x1bee\nhalf");
        logs(&bench.shop(), false, 2, &heard.out).await.unwrap();
        assert_eq!(heard.data(), "two\nthr\\x1bee\n");
    }

    #[test]
    fn a_followed_log_goes_on_and_starts_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.log");
        std::fs::write(&path, "one\ntw").unwrap();
        let (text, place) = tail(&path, 10).unwrap().unwrap();
        assert_eq!((text.as_str(), place.offset), ("one", 4));
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let (text, place) = more(&path, Some(place)).unwrap().unwrap();
        assert_eq!((text.as_str(), place.offset), ("two\n", 8));
        std::fs::write(&path, "new\n").unwrap();
        assert_eq!(more(&path, Some(place)).unwrap().unwrap().0, "new\n");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(more(&path, Some(place)).unwrap(), None);
    }
}
