//! Streams against whole texts, over random secrets, forms and cuts.

use super::*;
use crate::forms;
use crate::secret::{Named, Secret};
use proptest::prelude::*;

fn redactor(values: &[String]) -> Arc<Redactor> {
    let named: Vec<Named> = values.iter().enumerate().map(|(at, value)| (format!("S{at}"), Secret::shared(value.clone()))).collect();
    Arc::new(Redactor::new(&named))
}

fn in_pieces(redactor: &Arc<Redactor>, text: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut stream = Stream::new(redactor.clone());
    let mut out = Vec::new();
    let mut from = 0;
    for cut in cuts {
        let to = (from + cut).min(text.len());
        out.extend(stream.push(&text[from..to]));
        from = to;
    }
    out.extend(stream.push(&text[from..]));
    out.extend(stream.finish());
    out
}

/// Few signs, so that values repeat, begin alike and overlap.
fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[ab]{8,12}", "[a-c/+\" ]{8,20}", "[A-Za-z0-9_/+=-]{16,100}", "[ -~]{8,40}", "[a-zé€😀'\\\\\n]{8,24}"]
}

/// A piece of text: a form of a value, the beginning or the end of one, or noise.
fn piece() -> impl Strategy<Value = (u8, usize, usize, String)> {
    (0_u8..4, 0_usize..64, 1_usize..24, "[ab \"/é]{0,6}")
}

proptest! {


    #[test]
    fn pieces_give_what_the_whole_gives_and_no_form_is_left(
        values in prop::collection::vec(value(), 1..5),
        pieces in prop::collection::vec(piece(), 1..12),
        cuts in prop::collection::vec(0_usize..40, 0..40),
    ) {
        let mut text = Vec::new();
        for (kind, pick, len, noise) in &pieces {
            let forms = forms::of(values[pick % values.len()].trim());
            let form = forms.get((pick * 7 + len) % forms.len().max(1)).map_or(&[][..], |form| form.as_bytes());
            match kind {
                0 => text.extend_from_slice(form),
                1 => text.extend_from_slice(&form[..(*len).min(form.len())]),
                2 => text.extend_from_slice(&form[form.len().saturating_sub(*len)..]),
                _ => text.extend_from_slice(noise.as_bytes()),
            }
        }
        let redactor = redactor(&values);
        let whole = redactor.redact_bytes(&text).into_owned();
        prop_assert_eq!(&in_pieces(&redactor, &text, &cuts), &whole);
        prop_assert_eq!(&in_pieces(&redactor, &text, &vec![1; text.len()]), &whole);
        // Between names stands nothing that is known. (A name beside plain text may by chance look
        // like the beginning of a value; that tells nothing.)
        let shown = String::from_utf8_lossy(&whole).into_owned();
        for between in shown.split("[secret S").map(|rest| rest.split_once(']').map_or(rest, |(_, rest)| rest)) {
            for value in values.iter().map(|value| value.trim()).filter(|value| value.len() >= crate::SHORTEST) {
                for form in forms::of(value) {
                    prop_assert!(!between.contains(&form), "{form:?} in {between:?}");
                }
            }
        }
    }
}

#[test]
fn only_what_may_become_a_form_is_held_back() {
    let redactor = redactor(&["secret-value-1".to_owned()]);
    let mut stream = Stream::new(redactor);
    assert_eq!(stream.push_text("prompt> "), "prompt> ");
    assert_eq!(stream.push_text("a secret-va"), "a ");
    assert_eq!(stream.held(), 9);
    assert_eq!(stream.push_text("t is no secret"), "secret-vat is no ");
    assert_eq!(stream.push_text("-value-1!"), "[secret S0]!");
    assert_eq!(stream.push_text("sec"), "");
    assert_eq!(stream.finish_text(), "sec");
}

#[test]
fn a_value_that_overlaps_itself_is_held_in_bounds() {
    let redactor = redactor(&["aaaaaaaa".to_owned()]);
    let mut stream = Stream::new(redactor.clone());
    let mut out = Vec::new();
    for _ in 0..1000 {
        out.extend(stream.push(b"aaaaaaaaaaaaaaaa"));
        assert!(stream.held() <= 22, "{}", stream.held());
    }
    out.extend(stream.finish());
    assert_eq!(out, b"[secret S0]");
    assert_eq!(redactor.redact(&"a".repeat(16_000)), "[secret S0]");
}

#[test]
fn a_new_value_is_known_from_the_next_piece_on() {
    let mut stream = Stream::new(redactor(&["first-value".to_owned()]));
    assert_eq!(stream.push_text("first-v"), "");
    stream.renew(&redactor(&["first-value".to_owned(), "later-value".to_owned()]));
    assert_eq!(stream.push_text("alue later-value"), "[secret S0] [secret S1]");
}

/// The same by looking at each place for each form, one after the other: slow, and plain to see.
fn naive(values: &[String], text: &[u8]) -> Vec<u8> {
    let mut all: std::collections::BTreeMap<Vec<u8>, String> = std::collections::BTreeMap::new();
    for (at, value) in values.iter().enumerate().filter(|(_, value)| value.trim().len() >= crate::SHORTEST) {
        for form in forms::of(value.trim()) {
            all.entry(form.into_bytes()).or_insert_with(|| format!("[secret S{at}]"));
        }
    }
    let (mut out, mut covered) = (Vec::new(), 0);
    for at in 0..text.len() {
        let found = all.iter().filter(|(form, _)| text[at..].starts_with(form)).max_by_key(|(form, _)| form.len());
        if at >= covered {
            out.extend_from_slice(found.map_or(&text[at..=at], |(_, mark)| mark.as_bytes()));
        }
        covered = covered.max(found.map_or(0, |(form, _)| at + form.len()));
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn the_quick_way_gives_what_the_plain_one_gives(
        values in prop::collection::vec(prop_oneof!["[ab]{8,9}", "[ab]{8,14}", "[a-c]{8,20}"], 1..6),
        pieces in prop::collection::vec((0_u8..5, 0_usize..64, 1_usize..24, "[abc]{0,6}"), 1..10),
        cut in 1_usize..20,
    ) {
        let mut text = Vec::new();
        for (kind, pick, len, noise) in &pieces {
            let value = values[pick % values.len()].as_bytes();
            match kind {
                0 | 1 => text.extend_from_slice(value),
                2 => text.extend_from_slice(&value[..(*len).min(value.len())]),
                3 => text.extend_from_slice(&value[value.len().saturating_sub(*len)..]),
                _ => text.extend_from_slice(noise.as_bytes()),
            }
        }
        let (redactor, plain) = (redactor(&values), naive(&values, &text));
        prop_assert_eq!(&redactor.redact_bytes(&text).into_owned(), &plain);
        prop_assert_eq!(&in_pieces(&redactor, &text, &vec![cut; text.len() / cut]), &plain);
        // A cut at each place.
        for at in 0..text.len() {
            prop_assert_eq!(&in_pieces(&redactor, &text, &[at]), &plain);
        }
    }
}

/// What a hostile repository would teach: one value within the other, and a text that nearly holds the
/// longer one everywhere. Each byte read anew for each would be three thousand million steps.
#[test]
fn time_is_in_proportion_to_the_text() {
    let begun = cpu_ms();
    let redactor = redactor(&["aaaaaaaa".to_owned(), "a".repeat(60_000)]);
    let text = format!("{}b", "a".repeat(55_000));
    for pieces in [text.len(), 4_096, 50] {
        let mut stream = Stream::new(redactor.clone());
        let mut out = Vec::new();
        for piece in text.as_bytes().chunks(pieces).take(2_000) {
            out.extend(stream.push(piece));
        }
        out.extend(stream.finish());
        assert!(out.starts_with(b"[secret S0]") && out.len() <= b"[secret S0]b".len(), "{} bytes", out.len());
    }
    // A build without optimisation takes two to four seconds of the processor.
    let took = cpu_ms() - begun;
    assert!(took < 15_000, "{took} ms");
}

fn cpu_ms() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    now.tv_sec * 1_000 + now.tv_nsec / 1_000_000
}

#[test]
fn memory_is_in_proportion_to_the_forms() {
    let value: String = "abcdefghijklmnopqrstuvwxyz0123456789 \"'/+%&".chars().cycle().take(20_000).collect();
    let (redactor, bytes) = (redactor(std::slice::from_ref(&value)), forms::bytes(&value));
    // With a table for each place it would be hundreds of times as much.
    assert!(redactor.memory() < 64 * bytes, "{} of {bytes}", redactor.memory());
}

#[test]
fn where_not_everything_can_be_looked_for_nothing_is_shown() {
    let named = [("S0".to_owned(), Secret::shared("secret-value-1"))];
    let redactor = Arc::new(Redactor::within(&named, 10));
    assert!(!redactor.is_empty() && redactor.redact("").is_empty());
    assert!(redactor.redact("any text").starts_with("[all hidden"));
    let mut stream = Stream::new(redactor);
    assert!(stream.push_text("secret-").starts_with("[all hidden"));
    assert_eq!((stream.push_text("value-1 and more").as_str(), stream.held(), stream.finish_text().as_str()), ("", 0, ""));
}
