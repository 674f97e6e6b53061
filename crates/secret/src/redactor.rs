//! The redactor: texts without known values.
//!
//! Every place where a form of a value stands is covered, also where two of them overlap, and each
//! run of covered bytes becomes the name of the value that begins it. Two readers share the work: a quick
//! one leaps to where the next form begins, and a steady one reads from there, each byte once, until
//! nothing of a form is left open. Invariant: no known form of at least eight bytes is left, cutting the
//! input into pieces changes nothing in the output, and the time is in proportion to the input.

use crate::forms;
use crate::secret::Named;
use crate::trie::{ROOT, Trie};
use aho_corasick::{AhoCorasick, AhoCorasickKind, Input, MatchKind};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// How what stands in the place of a secret begins; its name and a bracket follow.
const HOLE: &str = "[secret ";

/// Whether something may have been taken out of a text.
#[must_use]
pub fn has_hole(text: &str) -> bool {
    text.contains(HOLE)
}

/// Shortest value that is looked for, in bytes: shorter ones occur by chance.
pub const SHORTEST: usize = 8;
/// Bytes of forms up to which the quick reader may have a table of all bytes at each place, which takes a
/// thousand times as much memory.
const TABLE_BYTES: usize = 16 << 10;
/// Bytes of forms beyond which nothing is looked for any more, and nothing is shown either.
const MOST_BYTES: usize = 1 << 30;
/// What is shown then.
const BLIND: &str = "[all hidden: there are more secrets than can be looked for]";

/// What is looked for. Cheap to clone through an [`Arc`]; made anew when a value is added.
#[derive(Default)]
pub struct Redactor {
    /// Finds where the next form begins. Where it is missing, the steady reader reads everything.
    quick: Option<AhoCorasick>,
    /// Reads each byte once; its forms are numbered as `marks`.
    steady: Trie,
    marks: Vec<Arc<str>>,
    longest: usize,
    /// There is more to look for than can be: nothing is shown.
    is_blind: bool,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} forms)", self.marks.len())
    }
}

impl Redactor {
    /// Knows these values by name. White space around a value does not count; what is then shorter
    /// than [`SHORTEST`] is left out.
    #[must_use]
    pub fn new<'a>(values: impl IntoIterator<Item = &'a Named>) -> Self {
        Self::within(values, MOST_BYTES)
    }

    /// As [`Self::new`]; beyond this many bytes of forms, nothing is shown.
    pub(crate) fn within<'a>(values: impl IntoIterator<Item = &'a Named>, most_bytes: usize) -> Self {
        let mut all: BTreeMap<Vec<u8>, Arc<str>> = BTreeMap::new();
        let mut bytes = 0_usize;
        for (name, value) in values {
            let value = value.expose().trim();
            if value.len() < SHORTEST {
                continue;
            }
            let mark: Arc<str> = Arc::from(format!("{HOLE}{name}]"));
            for form in forms::of(value) {
                bytes = bytes.saturating_add(form.len());
                all.entry(form.into_bytes()).or_insert_with(|| mark.clone());
            }
            if bytes > most_bytes {
                return Self { is_blind: true, ..Self::default() };
            }
        }
        let (forms, marks): (Vec<_>, Vec<_>) = all.into_iter().map(|(form, mark)| (Zeroizing::new(form), mark)).unzip();
        let longest = forms.iter().map(|form| form.len()).max().unwrap_or_default();
        Self { quick: quick(&forms), steady: Trie::new(&forms), marks, longest, is_blind: false }
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.marks.is_empty() && !self.is_blind
    }

    /// Bytes of memory that it takes.
    #[must_use]
    pub fn memory(&self) -> usize {
        self.steady.memory() + self.quick.as_ref().map_or(0, AhoCorasick::memory_usage)
    }

    /// The text with each known form replaced by its secret's name.
    #[must_use]
    pub fn redact<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.redact_bytes(text.as_bytes()) {
            Cow::Borrowed(_) => Cow::Borrowed(text),
            Cow::Owned(bytes) => Cow::Owned(crate::stream::text(bytes)),
        }
    }

    /// The same for bytes that need not be text.
    #[must_use]
    pub fn redact_bytes<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        if self.is_empty() || bytes.is_empty() {
            return Cow::Borrowed(bytes);
        }
        let mut reading = Reading::default();
        self.read(bytes, true, &mut reading);
        if reading.runs.is_empty() && !self.is_blind {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len());
        self.give(bytes, bytes.len(), &mut reading, &mut out);
        Cow::Owned(out)
    }

    /// Reads what was not read yet of `bytes`. Where it `ends` there, what may become a form is none.
    pub(crate) fn read(&self, bytes: &[u8], ends: bool, reading: &mut Reading) {
        if self.is_blind {
            reading.read = bytes.len();
        }
        // From here on a form may begin that ends in what follows.
        let open = if ends { bytes.len() } else { bytes.len().saturating_sub(self.longest.saturating_sub(1)) };
        while reading.read < bytes.len() {
            if let Some(quick) = self.quick.as_ref().filter(|_| reading.at == ROOT && reading.read < open) {
                let next = quick.find(Input::new(bytes).range(reading.read..)).map_or(open, |found| found.start());
                reading.read = next.min(open).max(reading.read);
            }
            while let Some(byte) = bytes.get(reading.read) {
                reading.at = self.steady.step(reading.at, *byte);
                reading.read += 1;
                if let Some((len, number)) = self.steady.ended(reading.at) {
                    reading.cover(Run { start: reading.read.saturating_sub(len), end: reading.read, number });
                }
                if reading.at == ROOT && reading.read < open && self.quick.is_some() {
                    break;
                }
            }
        }
    }

    /// Up to where of what was read nothing can become a form any more.
    pub(crate) fn certain(&self, reading: &Reading) -> usize {
        reading.read.saturating_sub(self.steady.open(reading.at))
    }

    /// Writes `bytes[..end]` to `out` with names in place of runs, where `end` is [`Self::certain`] or the
    /// end of all. What follows is counted from `end` on.
    pub(crate) fn give(&self, bytes: &[u8], end: usize, reading: &mut Reading, out: &mut Vec<u8>) {
        if self.is_blind {
            if end > 0 && !std::mem::replace(&mut reading.is_told, true) {
                out.extend_from_slice(BLIND.as_bytes());
            }
            return;
        }
        let mut from = reading.covered;
        let given = reading.runs.iter().take_while(|run| run.start < end).count();
        for run in reading.runs.drain(..given) {
            // A run that goes on from before has its name already.
            if run.start >= from {
                out.extend_from_slice(bytes.get(from..run.start).unwrap_or_default());
                out.extend_from_slice(self.marks.get(run.number).map_or(&[][..], |mark| mark.as_bytes()));
            }
            from = from.max(run.end);
        }
        out.extend_from_slice(bytes.get(from..end).unwrap_or_default());
        reading.covered = from.saturating_sub(end);
        reading.read = reading.read.saturating_sub(end);
        for run in &mut reading.runs {
            (run.start, run.end) = (run.start.saturating_sub(end), run.end.saturating_sub(end));
        }
    }
}

/// The quick reader: the longest form at the first place that has one.
fn quick(forms: &[Zeroizing<Vec<u8>>]) -> Option<AhoCorasick> {
    if forms.is_empty() {
        return None;
    }
    let bytes: usize = forms.iter().map(|form| form.len()).sum();
    let kind = (bytes > TABLE_BYTES).then_some(AhoCorasickKind::ContiguousNFA);
    // It fails beyond two thousand million places; then the steady reader reads everything.
    AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).kind(kind).build(forms.iter().map(|form| form.as_slice())).ok()
}

/// How far a text was read, and what was found that was not given yet. Places are counted from the first
/// byte that was not given.
#[derive(Debug, Default)]
pub struct Reading {
    /// Where the steady reader stands.
    at: u32,
    /// Bytes that were read.
    read: usize,
    /// In order; they do not overlap.
    runs: Vec<Run>,
    /// Bytes that belong to a run whose name was given.
    covered: usize,
    /// Whether it was told that nothing is shown.
    is_told: bool,
}

impl Reading {
    /// Begins to read again from the first byte that was not given, as a new redactor must.
    pub(crate) fn again(&mut self) {
        (self.at, self.read) = (ROOT, 0);
        self.runs.clear();
    }

    /// Nothing follows: what comes next is another text.
    pub(crate) const fn end(&mut self) {
        self.at = ROOT;
    }

    /// Adds a form that ends where no other one ended so far. Those that it overlaps become one with it;
    /// the one that begins first, and of these the longest, gives the name.
    fn cover(&mut self, mut found: Run) {
        while let Some(last) = self.runs.last().copied().filter(|last| found.start < last.end) {
            if last.start < found.start {
                (found.start, found.number) = (last.start, last.number);
            }
            self.runs.pop();
        }
        self.runs.push(found);
    }
}

/// Bytes that known forms cover, one overlapping the next.
#[derive(Debug, Clone, Copy)]
struct Run {
    start: usize,
    end: usize,
    /// Of the form that begins it.
    number: usize,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Secret;
    use base64::Engine as _;
    use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

    const VALUE: &str = "sk-\"te/st+\\value=42";

    fn knows(values: &[(&str, &str)]) -> Redactor {
        let named: Vec<Named> = values.iter().map(|(name, value)| ((*name).to_owned(), Secret::shared(*value))).collect();
        Redactor::new(&named)
    }

    #[test]
    fn every_form_of_a_secret_is_replaced() {
        let redactor = knows(&[("API_KEY", VALUE)]);
        let texts = [
            format!("key is {VALUE}."),
            format!("{{\"key\":\"{}\"}}", VALUE.replace('\\', "\\\\").replace('"', "\\\"")),
            STANDARD.encode(VALUE),
            STANDARD.encode(format!("user:{VALUE}@host")),
            STANDARD.encode(format!("a{VALUE}")),
            STANDARD.encode(format!("ab{VALUE}z")),
            URL_SAFE_NO_PAD.encode(format!("abcd{VALUE}z")),
        ];
        for text in texts {
            let clean = redactor.redact(&text);
            assert!(clean.contains("[secret API_KEY]"), "{text} → {clean}");
            assert!(!clean.contains(VALUE), "{clean}");
        }
    }

    #[test]
    fn short_values_and_other_texts_stay() {
        let redactor = knows(&[("SHORT", "abc"), ("LONG", "abcdefgh\n")]);
        assert!(matches!(redactor.redact("abc abcdefg"), Cow::Borrowed("abc abcdefg")));
        assert_eq!(redactor.redact("xabcdefghx"), "x[secret LONG]x");
        assert!(matches!(knows(&[]).redact("x"), Cow::Borrowed("x")));
    }

    #[test]
    fn the_longest_value_wins_and_overlapping_ones_leave_no_rest() {
        let redactor = knows(&[("A", "12345678"), ("B", "1234567890"), ("C", "67890-tail")]);
        assert_eq!(redactor.redact("1234567890 12345678"), "[secret B] [secret A]");
        assert_eq!(redactor.redact("<1234567890-tail>"), "<[secret B]>");
        assert_eq!(redactor.redact("1234567812345678"), "[secret A][secret A]");
    }

    #[test]
    fn bytes_that_are_no_text_stay_as_they_are() {
        let redactor = knows(&[("A", "12345678")]);
        assert_eq!(redactor.redact_bytes(b"\xff12345678\xfe").as_ref(), b"\xff[secret A]\xfe");
    }
}
