//! Redaction: exact values of known secrets, in the forms in which they travel.
//!
//! No patterns and no guesses: a guess would hide code. Invariant: no known value of at least
//! eight bytes leaves in plain, Base64, hexadecimal, URL or JSON form.

use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use zeroize::Zeroizing;

/// Shortest value that is looked for: shorter ones occur by chance.
const SHORTEST: usize = 8;
/// Shortest form of a value that is looked for.
const SHORTEST_FORM: usize = 8;

/// What is looked for, longest first, with what stands in its place.
#[derive(Default)]
pub struct Redactor {
    needles: Vec<(Zeroizing<String>, String)>,
}

impl Redactor {
    /// Knows these secrets by name and value; values under eight bytes are left out.
    pub fn new(secrets: Vec<(String, String)>) -> Self {
        let mut forms: BTreeMap<String, String> = BTreeMap::new();
        for (name, value) in secrets {
            let value = Zeroizing::new(value);
            if value.len() < SHORTEST {
                continue;
            }
            for form in forms_of(&value) {
                forms.entry(form).or_insert_with(|| format!("[secret {name}]"));
            }
        }
        let mut needles: Vec<_> = forms.into_iter().map(|(form, mark)| (Zeroizing::new(form), mark)).collect();
        needles.sort_by_key(|(form, _)| std::cmp::Reverse(form.len()));
        Self { needles }
    }

    /// The text with each known form replaced by its secret's name.
    pub fn redact(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (form, mark) in &self.needles {
            if out.contains(form.as_str()) {
                out = out.replace(form.as_str(), mark);
            }
        }
        out
    }
}

/// The forms in which a value travels.
fn forms_of(value: &str) -> Vec<String> {
    let bytes = value.as_bytes();
    let mut forms = vec![value.to_owned(), hex(bytes, false), hex(bytes, true)];
    forms.extend([url(value, false), url(value, true), json(value)]);
    for engine in [&STANDARD_NO_PAD, &URL_SAFE_NO_PAD] {
        forms.extend((0..3).map(|shift| inner_base64(engine, bytes, shift)));
    }
    forms.retain(|form| form.len() >= SHORTEST_FORM);
    forms
}

/// The signs that a value gives within a longer Base64 text at this position, without those at
/// its edges, which its neighbours change too.
fn inner_base64(engine: &impl base64::Engine, value: &[u8], shift: usize) -> String {
    let mut padded = vec![0_u8; shift];
    padded.extend_from_slice(value);
    let whole = engine.encode(&padded);
    // Each sign holds six bits: skip those that hold bits before the value, drop one that ends after it.
    let first = (shift * 8).div_ceil(6);
    let last = padded.len() * 8 / 6;
    whole.get(first..last.min(whole.len())).unwrap_or_default().to_owned()
}

fn hex(bytes: &[u8], upper: bool) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        let wrote = if upper { write!(out, "{byte:02X}") } else { write!(out, "{byte:02x}") };
        // Writing into a string can not fail.
        wrote.unwrap_or_default();
        out
    })
}

fn url(value: &str, upper: bool) -> String {
    value.bytes().fold(String::with_capacity(value.len()), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            out.push(char::from(byte));
            return out;
        }
        let wrote = if upper { write!(out, "%{byte:02X}") } else { write!(out, "%{byte:02x}") };
        // Writing into a string can not fail.
        wrote.unwrap_or_default();
        out
    })
}

fn json(value: &str) -> String {
    value.chars().fold(String::with_capacity(value.len()), |mut out, sign| {
        match sign {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            other => out.push(other),
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

    const VALUE: &str = "sk-\"te/st+\\value=42";

    #[test]
    fn every_form_of_a_secret_is_replaced() {
        let redactor = Redactor::new(vec![("API_KEY".to_owned(), VALUE.to_owned())]);
        let hex_text = hex(VALUE.as_bytes(), false);
        let texts = [
            format!("key is {VALUE}."),
            format!("dump {hex_text}"),
            format!("dump {}", hex_text.to_uppercase()),
            format!("GET /?key={}", url(VALUE, true)),
            format!("{{\"key\":\"{}\"}}", json(VALUE)),
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
        let redactor = Redactor::new(vec![("SHORT".to_owned(), "abc".to_owned()), ("LONG".to_owned(), "abcdefgh".to_owned())]);
        assert_eq!(redactor.redact("abc abcdefg"), "abc abcdefg");
        assert_eq!(redactor.redact("xabcdefghx"), "x[secret LONG]x");
    }

    #[test]
    fn the_longest_value_wins() {
        let redactor = Redactor::new(vec![("A".to_owned(), "12345678".to_owned()), ("B".to_owned(), "1234567890".to_owned())]);
        assert_eq!(redactor.redact("1234567890 12345678"), "[secret B] [secret A]");
    }
}
