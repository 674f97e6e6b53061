//! Approvals are bound to bytes and to a repository; a store that others could write is none.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn bundle(parts: &[(&str, &str)]) -> Bundle {
    Bundle::new(parts.iter().map(|(name, text)| Part { name: (*name).to_owned(), bytes: text.as_bytes().to_vec() }).collect())
}

fn store(dir: &Path) -> TrustStore {
    TrustStore::new(dir.join("data/trust.toml"), rustix::process::getuid().as_raw())
}

#[test]
fn the_form_on_disk_stays_readable() {
    let golden = include_str!("../../tests/golden/v1/trust.toml");
    let file = TrustFile {
        version: 1,
        approved: vec![Approved {
            repository: "/home/u/p".to_owned(),
            digest: "ab".repeat(32),
            files: vec![".mcp.json".to_owned(), ".tinkerbell/config.toml".to_owned()],
            at_ms: 1_700_000_000_000,
        }],
    };
    assert_eq!(toml::to_string(&file).unwrap(), golden);
    assert_eq!(toml::from_str::<TrustFile>(golden).unwrap(), file);
}

#[test]
fn any_change_of_a_name_or_a_byte_is_another_bundle() {
    let base = [("a", "one"), ("b", "two")];
    let same = bundle(&[("b", "two"), ("a", "one")]).digest();
    assert_eq!(bundle(&base).digest(), same, "order does not count");
    let others: [&[(&str, &str)]; 7] = [
        &[],
        &[("a", "one")],
        &[("a", "one"), ("b", "twO")],
        &[("a", "one"), ("c", "two")],
        &[("a", "oneb"), ("", "two")],
        &[("a", "two"), ("b", "one")],
        &[("a", "one"), ("b", "two"), ("c", "")],
    ];
    for other in others {
        assert_ne!(bundle(other).digest(), same, "{other:?}");
    }
}

#[test]
fn only_the_very_bytes_of_the_very_repository_are_trusted() {
    let dir = tempfile::tempdir().unwrap();
    let (one, two) = (dir.path().join("one"), dir.path().join("two"));
    [&one, &two].iter().for_each(|path| std::fs::create_dir(path).unwrap());
    let store = store(dir.path());
    let (first, second) = (bundle(&[("x", "1")]), bundle(&[("x", "2")]));
    assert_eq!(store.standing(&one, &Bundle::default()), Ok(Standing::Empty));
    assert_eq!(store.standing(&one, &first), Ok(Standing::New));
    store.approve(&one, &first, 7).unwrap();
    assert_eq!(store.standing(&one, &first), Ok(Standing::Trusted));
    assert_eq!(store.standing(&one, &second), Ok(Standing::Changed(7)));
    assert_eq!(store.standing(&two, &first), Ok(Standing::New));
    // Two branches may differ; a link is no other repository.
    store.approve(&one, &second, 8).unwrap();
    std::os::unix::fs::symlink(&one, dir.path().join("link")).unwrap();
    assert_eq!(store.standing(&dir.path().join("link"), &first), Ok(Standing::Trusted));
    assert_eq!((store.revoke(&one), store.revoke(&one)), (Ok(2), Ok(0)));
    assert_eq!(store.standing(&one, &first), Ok(Standing::New));
    for at in 0..40 {
        store.approve(&one, &bundle(&[("x", &at.to_string())]), at).unwrap();
    }
    assert_eq!(store.standing(&one, &bundle(&[("x", "0")])), Ok(Standing::Changed(39)), "the oldest go");
    assert_eq!(store.holds(&one, &bundle(&[("x", "39")]).digest()), Ok(true));
}

#[test]
fn a_store_that_others_could_write_or_that_is_damaged_holds_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = store(dir.path());
    let (repo, own) = (dir.path(), bundle(&[("x", "1")]));
    store.approve(repo, &own, 7).unwrap();
    let file = dir.path().join("data/trust.toml");
    assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mode = |path: &Path, mode: u32| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    for (path, bad, good) in [(file.as_path(), 0o666, 0o600), (file.parent().unwrap(), 0o777, 0o700)] {
        mode(path, bad);
        assert_eq!(store.standing(repo, &own).unwrap_err().code.0, "TB-TRUST-001");
        assert_eq!(store.approve(repo, &own, 8).unwrap_err().code.0, "TB-TRUST-001");
        mode(path, good);
    }
    let other = TrustStore::new(file.clone(), rustix::process::getuid().as_raw() + 1);
    if rustix::process::getuid().as_raw() != 0 {
        assert_eq!(other.standing(repo, &own).unwrap_err().code.0, "TB-TRUST-001");
    }
    for text in ["version = 2\n", "version = 1\nmore = true\n", "version = 1\n[[approved]]\nrepository = 1\n", "\u{0}"] {
        std::fs::write(&file, text).unwrap();
        assert_eq!(store.standing(repo, &own).unwrap_err().code.0, "TB-TRUST-001", "{text:?}");
    }
}

#[test]
fn parts_are_small_plain_files_without_links_on_the_way() {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("repo");
    std::fs::create_dir_all(root.join(".tinkerbell")).unwrap();
    std::fs::write(dir.path().join("outside"), "x").unwrap();
    std::fs::write(root.join(".tinkerbell/config.toml"), "abc").unwrap();
    let read = |name: &str| read_part(&root, name, 16).map_err(|fault| fault.code.0);
    assert_eq!(read(".tinkerbell/config.toml").unwrap().unwrap().bytes, b"abc");
    assert_eq!((read("none"), read(".tinkerbell/config.toml/x")), (Ok(None), Ok(None)));
    std::fs::write(root.join("long"), "x".repeat(17)).unwrap();
    std::os::unix::fs::symlink("../outside", root.join("link")).unwrap();
    std::os::unix::fs::symlink(".tinkerbell", root.join("dir")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, root.join("pipe"), rustix::fs::FileType::Fifo, Mode::from(0o600), 0).unwrap();
    for name in ["long", "link", "dir/config.toml", "pipe", ".tinkerbell", "../outside"] {
        assert_eq!(read(name), Err("TB-TRUST-002"), "{name}");
    }
}
