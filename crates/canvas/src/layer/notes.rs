//! What is told of a layer: one line for each change that was not taken over.
//!
//! Of a command that has ended they are written down before the act they tell of, so that doing it
//! again after a crash tells the same. Invariant: no line holds a control character, whatever a
//! command has called its files.

use crate::error::{Error, Result};
use std::io::Write;
use std::path::Path;

/// Most lines that are kept; the number of the others is not known after a restart.
const KEPT_LINES: usize = 500;
/// Most lines that are told at once.
const TOLD: usize = 20;

/// The notes of one layer.
#[derive(Debug, Default)]
pub struct Notes {
    lines: Vec<(Kind, String)>,
    more: usize,
    file: Option<std::fs::File>,
}

/// What a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A change that was not taken over.
    Refused,
    /// A file of the tree that a check had changed.
    Dropped,
}

impl Notes {
    /// Reads what was written down before.
    pub fn open(dir: &Path) -> Result<Self> {
        let path = dir.join("notes");
        let text = match std::fs::read(&path) {
            Err(why) if why.kind() == std::io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(Error::io("read", &path))?,
        };
        let text = String::from_utf8_lossy(&text).into_owned();
        let line = |line: &str| match line.split_once(' ') {
            Some(("r", text)) => Some((Kind::Refused, text.to_owned())),
            Some(("d", text)) => Some((Kind::Dropped, text.to_owned())),
            _ => None,
        };
        // A line that was cut off has no end; the act it tells of has not happened.
        let whole = text.rfind('\n').and_then(|end| text.get(..end)).unwrap_or_default();
        Ok(Self { lines: whole.lines().filter_map(line).collect(), more: 0, file: None })
    }

    /// From now on writes each new line down.
    pub fn keep(&mut self, dir: &Path) -> Result<()> {
        let path = dir.join("notes");
        self.file = Some(std::fs::File::options().create(true).append(true).open(&path).map_err(Error::io("open", &path))?);
        Ok(())
    }

    /// Adds a line unless it stands already.
    pub fn add(&mut self, kind: Kind, text: String) -> Result<()> {
        let line = (kind, text);
        if self.lines.contains(&line) {
            return Ok(());
        }
        if self.lines.len() >= KEPT_LINES {
            self.more += 1;
            return Ok(());
        }
        if let Some(file) = &mut self.file {
            let mark = if kind == Kind::Refused { 'r' } else { 'd' };
            file.write_all(format!("{mark} {}\n", line.1).as_bytes()).map_err(Error::io("write", Path::new("notes")))?;
        }
        self.lines.push(line);
        Ok(())
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = &String> {
        self.lines.iter().filter(move |line| line.0 == kind).map(|line| &line.1)
    }

    /// What was not taken over, cut to a few lines.
    pub fn refused(&self) -> Vec<String> {
        let mut lines: Vec<String> = self.of(Kind::Refused).take(TOLD).cloned().collect();
        let rest = self.of(Kind::Refused).count().saturating_sub(TOLD) + self.more;
        if rest > 0 {
            lines.push(format!("… and {rest} more"));
        }
        lines
    }

    /// Files of the tree that a check had changed.
    pub fn dropped(&self) -> Vec<String> {
        self.of(Kind::Dropped).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_kept_once_and_cut() {
        let dir = tempfile::tempdir().unwrap();
        let mut notes = Notes::open(dir.path()).unwrap();
        notes.keep(dir.path()).unwrap();
        for number in [1, 1, 2] {
            notes.add(Kind::Refused, format!("`{number}`: no")).unwrap();
        }
        notes.add(Kind::Dropped, "a".into()).unwrap();
        std::fs::write(dir.path().join("notes"), [std::fs::read(dir.path().join("notes")).unwrap(), b"r cut".to_vec()].concat()).unwrap();
        let mut again = Notes::open(dir.path()).unwrap();
        assert_eq!((again.refused(), again.dropped()), (vec!["`1`: no".to_owned(), "`2`: no".to_owned()], vec!["a".to_owned()]));
        for number in 0..1000 {
            again.add(Kind::Refused, number.to_string()).unwrap();
        }
        assert_eq!((again.refused().len(), again.refused().last().unwrap().as_str()), (TOLD + 1, "… and 982 more"));
    }
}
