//! What any bytes must not do to redaction; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks.

use crate::forms;
use crate::patterns;
use crate::redactor::{Redactor, SHORTEST};
use crate::secret::{Named, Secret};
use crate::stream::Stream;
use crate::{in_git_config, in_url, included_in_git_config};
use aho_corasick::AhoCorasick;
use std::borrow::Cow;
use std::sync::Arc;

/// Most values of one input.
const VALUES: usize = 2;
/// Longest value of one input in bytes: its forms are looked for one by one.
const VALUE_BYTES: usize = 40;

/// Both of the following.
pub fn secret(data: &[u8]) {
    stream(data);
    looks(data);
}

/// Redacts a text as a whole and cut into pieces: the output is the same, and holds no value. The input is
/// values that end with NUL, how to cut, and a text, in which bytes from 1 to 8 stand for a form of a value.
fn stream(data: &[u8]) {
    let mut parts: Vec<&[u8]> = data.splitn(VALUES + 1, |byte| *byte == 0).collect();
    let rest = parts.pop().unwrap_or_default();
    let values: Vec<String> =
        parts.iter().map(|part| String::from_utf8_lossy(part.get(..VALUE_BYTES).unwrap_or(part)).into_owned()).collect();
    let (cuts, text) = rest.split_at(rest.len().min(4));
    let forms: Vec<String> = values.iter().map(|value| value.trim()).filter(|value| value.len() >= SHORTEST).flat_map(forms::of).collect();
    let text = woven(text, &forms);
    let named: Vec<Named> = values.iter().enumerate().map(|(at, value)| (format!("S{at}"), Secret::shared(value.clone()))).collect();
    let redactor = Arc::new(Redactor::new(&named));
    let whole = redactor.redact_bytes(&text).into_owned();
    let pieces = in_pieces(&redactor, &text, cuts);
    assert!(pieces == whole, "cuts change the output: {:?} {:?}", String::from_utf8_lossy(&pieces), String::from_utf8_lossy(&whole));
    // A name beside plain text may by chance look like a value; between names stands nothing known.
    let Ok(matcher) = AhoCorasick::new(&forms) else { return };
    for between in between(&whole) {
        assert!(!matcher.is_match(between), "a value is left in {:?}", String::from_utf8_lossy(between));
    }
}

/// What stands between the names.
fn between(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    let mark = b"[secret S";
    while let Some((before, rest)) = bytes.windows(mark.len()).position(|window| window == mark).and_then(|at| bytes.split_at_checked(at)) {
        found.push(before);
        let end = rest.iter().position(|byte| *byte == b']').map_or(rest.len(), |at| at + 1);
        bytes = rest.get(end..).unwrap_or_default();
    }
    found.push(bytes);
    found
}

/// The text with forms in the place of small bytes: the byte behind one chooses.
fn woven(text: &[u8], forms: &[String]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            1..=8 if !forms.is_empty() => {
                let pick = usize::from(bytes.next().copied().unwrap_or_default()) % forms.len();
                let form = forms.get(pick).map_or(&[][..], |form| form.as_bytes());
                // All of it, its beginning, or its end.
                let half = form.len() / 2;
                let part = match byte {
                    1 => form.get(..half),
                    2 => form.get(half..),
                    3 => form.get(..form.len().saturating_sub(1)),
                    4 => form.get(1..),
                    _ => Some(form),
                };
                out.extend_from_slice(part.unwrap_or_default());
            }
            other => out.push(*other),
        }
    }
    out
}

fn in_pieces(redactor: &Arc<Redactor>, text: &[u8], cuts: &[u8]) -> Vec<u8> {
    let mut stream = Stream::new(redactor.clone());
    let mut out = Vec::new();
    let mut rest = text;
    let mut lens = cuts.iter().map(|cut| usize::from(*cut)).cycle();
    while !rest.is_empty() {
        let len = lens.next().unwrap_or(1).min(rest.len());
        // A piece of no bytes is one, too; a byte by itself follows it.
        out.extend(stream.push(rest.get(..len).unwrap_or_default()));
        rest = rest.get(len..).unwrap_or_default();
        if len == 0 {
            out.extend(stream.push(rest.get(..1).unwrap_or_default()));
            rest = rest.get(1..).unwrap_or_default();
        }
    }
    out.extend(stream.finish());
    out
}

/// Looks for values by their looks, in addresses and in git's configuration: it ends, what it takes for
/// nothing stays untouched, and what it finds was there.
fn looks(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    match patterns::hide(&text) {
        Cow::Borrowed(same) => assert_eq!(same, text),
        Cow::Owned(hidden) => assert!(hidden != text && hidden.contains("[hidden: "), "{hidden}"),
    }
    for found in in_url(&text)
        .iter()
        .chain(&in_git_config(&text))
        .chain(&included_in_git_config(&text).into_iter().filter(|path| !path.is_empty()).collect::<Vec<_>>())
    {
        assert!(!found.is_empty() && found.len() <= text.len(), "{found}");
    }
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let seeds: [&[u8]; 4] = [
        include_bytes!("../tests/seeds/forms"),
        include_bytes!("../tests/seeds/overlaps"),
        include_bytes!("../tests/seeds/looks"),
        include_bytes!("../tests/seeds/git-config"),
    ];
    tinkerbell_testkit::hammer::hammer(&seeds, 300, secret);
}
