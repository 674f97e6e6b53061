//! The redactor: texts without known values.
//!
//! Every place where a form of a value stands is covered, also where two of them overlap, and each
//! run of covered bytes becomes the name of the value that begins it. Invariant: no known form of at
//! least eight bytes is left, and cutting the input into pieces changes nothing in the output.

use crate::forms;
use crate::secret::Named;
use aho_corasick::{AhoCorasick, Input, MatchKind};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// Shortest value that is looked for, in bytes: shorter ones occur by chance.
pub const SHORTEST: usize = 8;

/// What is looked for. Cheap to clone through an [`Arc`]; made anew when a value is added.
#[derive(Default)]
pub struct Redactor {
    /// Finds the needle at a place; its patterns are numbered as `needles`.
    matcher: Option<AhoCorasick>,
    /// In the order of their bytes.
    needles: Vec<(Zeroizing<Vec<u8>>, Arc<str>)>,
    longest: usize,
}

impl fmt::Debug for Redactor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Redactor({} forms)", self.needles.len())
    }
}

impl Redactor {
    /// Knows these values by name. White space around a value does not count; what is then shorter
    /// than [`SHORTEST`] is left out.
    #[must_use]
    pub fn new<'a>(values: impl IntoIterator<Item = &'a Named>) -> Self {
        let mut forms: BTreeMap<Vec<u8>, Arc<str>> = BTreeMap::new();
        for (name, value) in values {
            let value = value.expose().trim();
            if value.len() < SHORTEST {
                continue;
            }
            let mark: Arc<str> = Arc::from(format!("[secret {name}]"));
            for form in forms::of(value) {
                forms.entry(form.into_bytes()).or_insert_with(|| mark.clone());
            }
        }
        let needles: Vec<_> = forms.into_iter().map(|(form, mark)| (Zeroizing::new(form), mark)).collect();
        // The longest at a place, so that a form that another one begins with is covered whole.
        let build = || AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(needles.iter().map(|(form, _)| form.as_slice()));
        // It fails beyond two thousand million states, which no list of secrets has.
        let matcher = if needles.is_empty() { None } else { build().ok() };
        let longest = needles.iter().map(|(form, _)| form.len()).max().unwrap_or_default();
        Self { matcher, needles, longest }
    }

    /// Whether nothing is looked for.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.matcher.is_none()
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
        if self.matcher.as_ref().is_none_or(|matcher| !matcher.is_match(bytes)) {
            return Cow::Borrowed(bytes);
        }
        let mut out = Vec::with_capacity(bytes.len());
        self.cover(bytes, bytes.len(), 0, &mut out);
        Cow::Owned(out)
    }

    /// Writes `bytes[..end]` to `out` with names in place of forms. The first `covered` bytes belong
    /// to a form whose name was written already; gives how far the last form reaches.
    pub(crate) fn cover(&self, bytes: &[u8], end: usize, mut covered: usize, out: &mut Vec<u8>) -> usize {
        let mut from = 0;
        while let Some(found) = self.find(bytes, from).filter(|found| found.start < end) {
            // A form that begins within another one lengthens it.
            if found.start >= covered {
                out.extend_from_slice(bytes.get(covered..found.start).unwrap_or_default());
                out.extend_from_slice(found.mark.as_bytes());
            }
            covered = covered.max(found.end);
            from = found.start + 1;
        }
        out.extend_from_slice(bytes.get(covered..end).unwrap_or_default());
        covered
    }

    fn find(&self, bytes: &[u8], from: usize) -> Option<Found<'_>> {
        if from >= bytes.len() {
            return None;
        }
        let found = self.matcher.as_ref()?.find(Input::new(bytes).range(from..))?;
        let (_, mark) = self.needles.get(found.pattern().as_usize())?;
        Some(Found { start: found.start(), end: found.end(), mark })
    }

    /// Where the end of `bytes` begins that may still become a form with what follows; its length if
    /// nothing of it can.
    pub(crate) fn pending(&self, bytes: &[u8]) -> usize {
        let first = bytes.len().saturating_sub(self.longest.saturating_sub(1));
        (first..bytes.len()).find(|from| bytes.get(*from..).is_some_and(|tail| self.begins(tail))).unwrap_or(bytes.len())
    }

    /// Whether a needle begins with `tail` and is longer.
    fn begins(&self, tail: &[u8]) -> bool {
        let at = self.needles.partition_point(|(form, _)| form.as_slice() <= tail);
        self.needles.get(at).is_some_and(|(form, _)| form.starts_with(tail))
    }
}

/// A form at its place.
struct Found<'a> {
    start: usize,
    end: usize,
    mark: &'a str,
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
