//! Undo, byte for byte, over random trees: whatever one state is, the other comes back.

use crate::house::*;
use proptest::prelude::*;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

/// One thing done to a tree; paths collide on purpose.
#[derive(Debug, Clone)]
enum Deed {
    File(u8, Vec<u8>, u32),
    Link(u8, u8),
    Dir(u8),
    Remove(u8),
}

const NAMES: [&[u8]; 12] = [b"a", b"b", b"b/c", b"b/c/d", b"b/e", b"\xffodd", b"f/g", b"f", b"f/g/h", b"x y", b"z.log", b".gitignore"];

fn deed() -> impl Strategy<Value = Deed> {
    let content = prop_oneof![
        Just(b"line\r\nline\n".to_vec()),
        Just(Vec::new()),
        Just(b"z.log\nf/\n".to_vec()),
        proptest::collection::vec(any::<u8>(), 0..40)
    ];
    let name = 0..u8::try_from(NAMES.len()).unwrap();
    prop_oneof![
        4 => (name.clone(), content, prop_oneof![Just(0o644), Just(0o755), Just(0o600), Just(0o444)]).prop_map(|(n, c, m)| Deed::File(n, c, m)),
        1 => (name.clone(), name.clone()).prop_map(|(n, t)| Deed::Link(n, t)),
        1 => name.clone().prop_map(Deed::Dir),
        2 => name.prop_map(Deed::Remove),
    ]
}

fn clear(path: &Path) {
    match path.symlink_metadata() {
        Ok(meta) if meta.is_dir() => std::fs::remove_dir_all(path).unwrap(),
        Ok(_) => std::fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

fn act(root: &Path, deed: &Deed) {
    let at = |n: &u8| root.join(std::ffi::OsStr::from_bytes(NAMES[usize::from(*n)]));
    let (Deed::File(n, ..) | Deed::Link(n, _) | Deed::Dir(n) | Deed::Remove(n)) = deed;
    let path = at(n);
    clear(&path);
    if matches!(deed, Deed::Remove(_)) {
        return;
    }
    let mut above = path.parent().unwrap().to_owned();
    while above != root {
        if above.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
            clear(&above);
        }
        above = above.parent().unwrap().to_owned();
    }
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    match deed {
        Deed::File(_, content, mode) => {
            std::fs::write(&path, content).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(*mode)).unwrap();
        }
        Deed::Link(_, target) => symlink(std::ffi::OsStr::from_bytes(NAMES[usize::from(*target)]), &path).unwrap(),
        Deed::Dir(_) => std::fs::create_dir_all(&path).unwrap(),
        Deed::Remove(_) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_state_that_was_recorded_comes_back(first in proptest::collection::vec(deed(), 0..12), second in proptest::collection::vec(deed(), 0..12), third in proptest::collection::vec(deed(), 0..6)) {
        let house = House::with(|options| options.ignored = tinkerbell_canvas::IgnoredFiles::Keep);
        house.write("a", "start\n");
        house.commit_all("start");
        let opened = house.open();
        let mut states = vec![(opened.checkpoint.clone(), tree(&opened))];
        for deeds in [&first, &second, &third] {
            deeds.iter().for_each(|deed| act(&opened.workspace.tree, deed));
            states.push((house.take(&opened), tree(&opened)));
        }
        for (id, want) in [2, 0, 3, 1].map(|at: usize| &states[at]) {
            house.restore(&opened, id);
            prop_assert_eq!(&tree(&opened), want);
        }
    }
    #[test]
    fn ignored_files_never_keep_a_state_from_coming_back(first in proptest::collection::vec(deed(), 0..12), second in proptest::collection::vec(deed(), 0..12)) {
        let house = House::new();
        house.write("a", "start\n");
        house.commit_all("start");
        let opened = house.open();
        let mut states = vec![opened.checkpoint.clone()];
        for deeds in [&first, &second] {
            deeds.iter().for_each(|deed| act(&opened.workspace.tree, deed));
            states.push(house.take(&opened));
        }
        for at in [1, 0, 2, 1] {
            house.restore(&opened, &states[at]);
            let now = house.take(&opened);
            // Ignored files that became visible may be there beside what was recorded.
            let wrong: Vec<_> = house.diff(&opened, &states[at], &now).files.into_iter().filter(|file| file.kind != "added").collect();
            prop_assert_eq!(wrong, vec![]);
            house.commit(&opened, &now, "state").unwrap();
        }
        house.git(&["fsck", "--strict"]);
    }
}
