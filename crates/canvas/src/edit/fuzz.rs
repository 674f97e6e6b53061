//! Random patches: whatever is sent, the engine neither panics nor applies a part.

use super::*;
use proptest::prelude::*;

fn line() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("*** Begin Patch".to_owned()),
        Just("*** End Patch".to_owned()),
        Just("*** Update File: a".to_owned()),
        Just("*** Update File: b".to_owned()),
        Just("*** Add File: n".to_owned()),
        Just("*** Delete File: b".to_owned()),
        Just("*** Move to: m".to_owned()),
        Just("*** End of File".to_owned()),
        Just("@@".to_owned()),
        Just("@@ fn x".to_owned()),
        "[-+ ]?[ \t]{0,2}[xyz\u{201c}\u{e4}\r]{0,2}",
    ]
}

fn file() -> impl Strategy<Value = String> {
    proptest::collection::vec("[ \t]{0,2}[xyz\u{201c}\u{e4}]{0,2}(\r\n|\n)", 0..8).prop_map(|l| l.concat())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_patch_applies_whole_or_not_at_all(lines in proptest::collection::vec(line(), 0..24), a in file(), b in file()) {
        let view = View::from([("a".to_owned(), Entry::File(a.into_bytes())), ("b".to_owned(), Entry::File(b.into_bytes()))]);
        for text in [lines.join("\n"), format!("*** Begin Patch\n*** Update File: a\n{}\n*** End Patch", lines.join("\n"))] {
            let Ok(edits) = parse(&text) else { continue };
            match apply(&view, &edits) {
                Err(refusal) => prop_assert!(refusal.to_string().starts_with("nothing changed: ")),
                Ok(changes) => for change in &changes {
                    prop_assert_ne!(&change.before, &change.after);
                    let stood = match view.get(&change.path) { Some(Entry::File(bytes)) => Some(bytes), _ => None };
                    prop_assert_eq!(change.before.as_ref(), stood);
                },
            }
        }
    }

    #[test]
    fn a_replacement_changes_only_its_place(file in file(), old in "[xyz \n]{1,4}", new in "[xyz \n]{0,4}") {
        let view = View::from([("a".to_owned(), Entry::File(file.clone().into_bytes()))]);
        let edit = Edit::Replace { path: "a".to_owned(), old: old.clone(), new: new.clone(), near_line: None };
        if let Ok(changes) = apply(&view, &[edit]) && let [change] = changes.as_slice() && change.levels == [Level::Exact] {
            let flat = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace("\r\n", "\n");
            prop_assert_eq!(flat(change.after.as_deref().unwrap_or_default()), flat(file.as_bytes()).replacen(&old, &new, 1));
        }
    }

    #[test]
    fn any_bytes_survive_as_text(bytes in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b'a'), any::<u8>()], 0..40)) {
        if let Ok(text) = Text::parse(&bytes) {
            prop_assert_eq!(text.to_bytes(), bytes);
        }
    }
}
