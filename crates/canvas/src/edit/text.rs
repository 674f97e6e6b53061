//! A text file as lines with their own ends, so that what is not edited stays byte for byte.
//!
//! Knows UTF-8, its byte order mark, LF and CRLF, also mixed. Invariant: `Text::parse(b)?.to_bytes()`
//! is `b` for every text.

/// Why bytes are no text that can be edited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NotText {
    /// They hold a zero byte.
    Binary,
    /// They are not UTF-8 from this offset on.
    NotUtf8(usize),
}

/// How a line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Eol {
    /// `\n`.
    Lf,
    /// `\r\n`.
    CrLf,
    /// The file ends here without a line end.
    None,
}

impl Eol {
    const fn text(self) -> &'static str {
        match self {
            Self::Lf => "\n",
            Self::CrLf => "\r\n",
            Self::None => "",
        }
    }
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextLine {
    /// Without its end.
    pub text: String,
    /// Its end.
    pub eol: Eol,
}

/// A whole file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    bom: bool,
    lines: Vec<TextLine>,
}

const BOM: &str = "\u{feff}";

impl Text {
    /// Reads a file's bytes.
    ///
    /// # Errors
    /// When they are binary or not UTF-8.
    pub fn parse(bytes: &[u8]) -> Result<Self, NotText> {
        if bytes.contains(&0) {
            return Err(NotText::Binary);
        }
        let all = std::str::from_utf8(bytes).map_err(|e| NotText::NotUtf8(e.valid_up_to()))?;
        let (bom, body) = all.strip_prefix(BOM).map_or((false, all), |rest| (true, rest));
        let lines = body.split_inclusive('\n').map(|piece| match (piece.strip_suffix("\r\n"), piece.strip_suffix('\n')) {
            (Some(text), _) => TextLine { text: text.to_owned(), eol: Eol::CrLf },
            (None, Some(text)) => TextLine { text: text.to_owned(), eol: Eol::Lf },
            (None, None) => TextLine { text: piece.to_owned(), eol: Eol::None },
        });
        Ok(Self { bom, lines: lines.collect() })
    }

    /// The file's bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut out = String::from(if self.bom { BOM } else { "" });
        for line in &self.lines {
            out.push_str(&line.text);
            out.push_str(line.eol.text());
        }
        out.into_bytes()
    }

    /// The lines without their ends.
    #[must_use]
    pub fn line_texts(&self) -> Vec<&str> {
        self.lines.iter().map(|l| l.text.as_str()).collect()
    }

    /// How many lines there are; a last line without an end counts.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lines.len()
    }

    /// Whether there is no line at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether most lines end in CRLF.
    #[must_use]
    pub fn is_crlf(&self) -> bool {
        self.usual_eol() == Eol::CrLf
    }

    /// Whether the file starts with a byte order mark.
    #[must_use]
    pub const fn has_bom(&self) -> bool {
        self.bom
    }

    /// Whether the last line has an end; true for an empty file.
    #[must_use]
    pub fn ends_with_newline(&self) -> bool {
        self.lines.last().is_none_or(|l| l.eol != Eol::None)
    }

    /// The text with every line end as `\n`.
    #[must_use]
    pub fn joined(&self) -> String {
        self.lines.iter().flat_map(|l| [l.text.as_str(), if l.eol == Eol::None { "" } else { "\n" }]).collect()
    }

    /// The line end that most lines have.
    #[must_use]
    pub fn usual_eol(&self) -> Eol {
        let crlf = self.lines.iter().filter(|l| l.eol == Eol::CrLf).count();
        let lf = self.lines.iter().filter(|l| l.eol == Eol::Lf).count();
        if crlf > lf { Eol::CrLf } else { Eol::Lf }
    }

    /// Replaces bytes `at..at + len` of the joined text; new line ends follow their neighbours.
    #[must_use]
    pub fn with_span(&self, at: usize, len: usize, new: &str) -> Self {
        let joined = self.joined();
        let (head, rest) = joined.split_at_checked(at).unwrap_or((&joined, ""));
        let (gone, tail) = rest.split_at_checked(len).unwrap_or((rest, ""));
        let ends: Vec<Eol> = self.lines.iter().map(|l| l.eol).filter(|e| *e != Eol::None).collect();
        let above = head.matches('\n').count();
        let inside = gone.matches('\n').count();
        let near = ends.get(above).or_else(|| ends.get(above.wrapping_sub(1))).copied().unwrap_or_else(|| self.usual_eol());
        let mut fresh = ends.iter().skip(above).take(inside).copied();
        let middle: Vec<Eol> = new.matches('\n').map(|_| fresh.next().unwrap_or(near)).collect();
        let mut all = ends.iter().take(above).chain(&middle).chain(ends.iter().skip(above + inside)).copied();
        let text = format!("{head}{new}{tail}");
        let lines = text.split_inclusive('\n').map(|piece| match piece.strip_suffix('\n') {
            Some(line) => TextLine { text: line.to_owned(), eol: all.next().unwrap_or(near) },
            None => TextLine { text: piece.to_owned(), eol: Eol::None },
        });
        Self { bom: self.bom, lines: lines.collect() }
    }

    /// Replaces `count` lines from `at`; the missing or present end of the file's last line is kept.
    #[must_use]
    pub fn with_lines(&self, at: usize, count: usize, fresh: Vec<Fresh>) -> Self {
        let neighbour = self.lines.get(at).or_else(|| self.lines.get(at.wrapping_sub(1))).map(|l| l.eol);
        let near = neighbour.filter(|e| *e != Eol::None).unwrap_or_else(|| self.usual_eol());
        let mut lines: Vec<TextLine> = self.lines.iter().take(at).cloned().collect();
        lines.extend(fresh.into_iter().filter_map(|f| match f {
            Fresh::Kept(index) => self.lines.get(index).cloned(),
            Fresh::New(text) => Some(TextLine { text, eol: near }),
        }));
        lines.extend(self.lines.iter().skip(at + count).cloned());
        let last = lines.len().saturating_sub(1);
        let ended = self.ends_with_newline();
        for (index, line) in lines.iter_mut().enumerate() {
            if index == last && !ended {
                line.eol = Eol::None;
            } else if line.eol == Eol::None {
                line.eol = near;
            }
        }
        Self { bom: self.bom, lines }
    }
}

/// A line of the result of [`Text::with_lines`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fresh {
    /// The old line with this index, as it stands.
    Kept(usize),
    /// A new line.
    New(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_the_round_trip() {
        for text in ["", "a", "a\n", "\n", "\r\n", "a\r\nb\n\u{feff}c", "\u{feff}a\r\n", "a\rb\r\r\n", "\u{feff}"] {
            assert_eq!(Text::parse(text.as_bytes()).unwrap().to_bytes(), text.as_bytes(), "{text:?}");
        }
        assert_eq!(Text::parse(b"a\0b"), Err(NotText::Binary));
        assert_eq!(Text::parse(b"ab\xff"), Err(NotText::NotUtf8(2)));
    }
}
