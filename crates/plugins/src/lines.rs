//! Lines out of a stream that a stranger writes.
//!
//! Pure: bytes in, whole lines out, never more than one line in memory. Invariant: it holds at most
//! [`LINE_BYTES`] and what was pushed last.

/// Longest line, and so the longest message of a server.
pub const LINE_BYTES: usize = 4 << 20;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A whole line without its end.
    Line(Vec<u8>),
    /// A line that is longer than [`LINE_BYTES`].
    TooLong,
}

/// Splits a stream.
#[derive(Debug, Default)]
pub struct Lines {
    open: Vec<u8>,
    /// The rest of a line whose beginning is missing is thrown away.
    skips: bool,
}

impl Lines {
    /// Takes bytes; gives the lines that are whole now and not empty.
    pub fn push(&mut self, mut bytes: &[u8]) -> Vec<Piece> {
        let mut found = Vec::new();
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (line, rest) = bytes.split_at(end);
            bytes = rest.get(1..).unwrap_or_default();
            if std::mem::take(&mut self.skips) {
                continue;
            }
            if self.open.len() + line.len() > LINE_BYTES {
                self.open = Vec::new();
                found.push(Piece::TooLong);
                continue;
            }
            let mut whole = std::mem::take(&mut self.open);
            whole.extend_from_slice(line);
            // Blank lines mean nothing, and could be many.
            if !whole.is_empty() {
                found.push(Piece::Line(whole));
            }
        }
        if self.skips {
            return found;
        }
        if self.open.len() + bytes.len() > LINE_BYTES {
            self.open = Vec::new();
            self.skips = true;
            found.push(Piece::TooLong);
        } else {
            self.open.extend_from_slice(bytes);
        }
        found
    }

    /// Forgets the open line, and what follows of it.
    pub fn skip(&mut self) {
        self.open = Vec::new();
        self.skips = true;
    }

    /// What stands behind the last line end; for the last words of a server that has ended.
    pub fn rest(&self) -> &[u8] {
        &self.open
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_whole_however_the_stream_is_cut() {
        let text = b"one\n\ntwo\nthree";
        for step in 1..text.len() {
            let mut lines = Lines::default();
            let found: Vec<Piece> = text.chunks(step).flat_map(|chunk| lines.push(chunk)).collect();
            let expected: Vec<Piece> = [&b"one"[..], b"two"].map(|line| Piece::Line(line.to_vec())).into();
            assert_eq!((found, lines.rest()), (expected, &b"three"[..]), "{step}");
        }
    }

    #[test]
    fn an_endless_line_takes_no_memory_and_is_told_once() {
        let mut lines = Lines::default();
        let block = vec![b'x'; 1 << 20];
        let mut told = 0;
        for _ in 0..64 {
            told += lines.push(&block).len();
            assert!(lines.open.capacity() <= 2 * LINE_BYTES);
        }
        assert_eq!(told, 1);
        assert_eq!(lines.push(b"x\nnext\n"), [Piece::Line(b"next".to_vec())]);
    }
}
