//! What any bytes must not do to the edit engine; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; nothing is written anywhere.

use super::{Edit, Entry, Text, View, apply, parse};

/// Reads a patch and applies it to a small view: all of it, or nothing with a word.
pub fn patch(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let file = |text: &str| Entry::File(text.as_bytes().to_vec());
    let view = View::from([("a".to_owned(), file("one\ntwo\r\nthree\n")), ("src/b.rs".to_owned(), file("fn b() {\n\tb()\n}\n"))]);
    if let Ok(edits) = parse(&text) {
        tried(&view, &edits);
    }
    let (old, new) = text.split_once('\0').unwrap_or((&text, ""));
    tried(&view, &[Edit::Replace { path: "a".to_owned(), old: old.to_owned(), new: new.to_owned(), near_line: None }]);
    if let Ok(read) = Text::parse(data) {
        assert_eq!(read.to_bytes(), data, "a text is kept to the byte");
    }
}

fn tried(view: &View, edits: &[Edit]) {
    match apply(view, edits) {
        Err(refusal) => assert!(refusal.to_string().starts_with("nothing changed: "), "{refusal}"),
        Ok(changes) => changes.iter().for_each(|change| assert_ne!(change.before, change.after, "a change that changes nothing")),
    }
}

#[cfg(test)]
#[test]
fn any_bytes_are_survived() {
    let seeds = [
        &b"*** Begin Patch\n*** Update File: a\n@@\n one\n-two\n+TWO\n*** Add File: n\n+x\n*** Delete File: src/b.rs\n*** End Patch"[..],
        b"*** Begin Patch\n*** Update File: src/b.rs\n*** Move to: c\n@@ fn b\n-\tb()\n+\tc()\n*** End of File\n*** End Patch",
    ];
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, patch);
}
