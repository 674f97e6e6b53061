//! What any bytes must not do to the edit engine; run by `cargo xtask fuzz`.
//!
//! Invariant: an entry function here only asks; nothing is written anywhere.

use super::{Edit, Entry, Text, View, apply, parse, relative};
use crate::layer::format;
use std::path::Path;

/// Both of the following.
pub fn edits(data: &[u8]) {
    patch(data);
    paths(data);
}

/// Reads a text as a path, and bytes as the records of a layer after a crash.
fn paths(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let root = Path::new("/w/tree");
    if let Ok(path) = relative(root, &text) {
        assert!(path.split('/').all(|part| part != ".." && part != "." && !part.eq_ignore_ascii_case(".git")), "{path}");
        assert!(!path.starts_with('/') && (path.is_empty() || relative(root, &path).as_ref() == Ok(&path)), "{path}");
    }
    let records = format::decode(data);
    let bytes: Vec<u8> = records.iter().flat_map(|(path, record)| format::encode(path, record)).collect();
    assert_eq!(format::decode(&bytes), records, "what was understood is the same after a journey");
}

/// Reads a patch and applies it to a small view: all of it, or nothing with a word.
fn patch(data: &[u8]) {
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
        include_bytes!("../../tests/golden/v1/applied"),
        b"./src//a.rs",
    ];
    tinkerbell_testkit::hammer::hammer(&seeds, 4_000, edits);
}
