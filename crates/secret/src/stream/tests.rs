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
