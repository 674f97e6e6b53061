//! The keyring on real files: the port's contract, damage, foreign and open root keys, rotation.

use super::format::{Entry, Image, State, WRAPPED};
use super::root::{Root, Roots};
use super::*;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use tinkerbell_core::port::KEY_DESTROYED;
use tinkerbell_testkit::contract;
use tinkerbell_testkit::fake::FakeClock;

struct Bench {
    dir: tempfile::TempDir,
    places: KeyPlaces,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let places = KeyPlaces { keyring: dir.path().join("keys/keyring"), root: dir.path().join("elsewhere/root.key") };
        Self { dir, places }
    }

    fn open(&self) -> Result<Arc<FileKeyring>, Fault> {
        FileKeyring::open(self.places.clone(), Arc::new(FakeClock::new()))
    }

    fn code(&self) -> &'static str {
        self.open().map_or_else(|fault| fault.code.0, |_| "opens")
    }
}

#[test]
fn it_keeps_the_contract() {
    let bench = Bench::new();
    contract::keyring::suite(|| Ok(bench.open()? as Arc<dyn Keyring>));
    assert_eq!(bench.open().unwrap().list().len(), 5);
}

#[test]
fn files_come_with_the_first_key_and_are_private() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    assert!(keyring.list().is_empty() && fs::read_dir(bench.dir.path()).unwrap().next().is_none());
    keyring.of(Subject(1)).unwrap();
    for path in [&bench.places.keyring, &bench.places.root] {
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o700);
    }
    let facts = keyring.list()[0];
    assert_eq!((facts.subject, facts.destroyed, facts.created_ms), (Subject(1), false, tinkerbell_testkit::fake::START_WALL_MS));
}

#[test]
fn no_secret_lies_open_in_the_keyring_or_is_shown() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    let key = keyring.of(Subject(1)).unwrap();
    let bytes = fs::read(&bench.places.keyring).unwrap();
    assert!(!bytes.windows(8).any(|part| part == &key.secret[..8]));
    assert!(!format!("{keyring:?}").contains("secret"));
}

#[test]
fn every_changed_byte_and_every_cut_is_a_fault() {
    let bench = Bench::new();
    bench.open().unwrap().of(Subject(1)).unwrap();
    let whole = fs::read(&bench.places.keyring).unwrap();
    for at in 0..whole.len() {
        let mut bad = whole.clone();
        bad[at] ^= 0x10;
        fs::write(&bench.places.keyring, &bad).unwrap();
        assert_eq!(bench.code(), "TB-KEY-001", "byte {at}");
        fs::write(&bench.places.keyring, &whole[..at]).unwrap();
        assert_eq!(bench.code(), "TB-KEY-001", "cut at {at}");
    }
    fs::write(&bench.places.keyring, &whole).unwrap();
    assert_eq!(bench.code(), "opens");
}

#[test]
fn a_damaged_keyring_gives_no_new_key_to_a_running_process() {
    let bench = Bench::new();
    let keyring = bench.open().unwrap();
    let one = keyring.of(Subject(1)).unwrap();
    fs::write(&bench.places.keyring, b"rubbish").unwrap();
    assert!(keyring.of(Subject(1)).unwrap() == one, "what is in memory goes on");
    assert_eq!(keyring.of(Subject(2)).unwrap_err().code.0, "TB-KEY-001");
    assert_eq!(fs::read(&bench.places.keyring).unwrap(), b"rubbish", "nothing was changed");
}

#[test]
fn what_a_crash_left_beside_the_file_does_no_harm() {
    let bench = Bench::new();
    let one = bench.open().unwrap().of(Subject(1)).unwrap();
    fs::write(bench.places.keyring.with_extension("new"), b"half").unwrap();
    let keyring = bench.open().unwrap();
    keyring.of(Subject(2)).unwrap();
    assert!(bench.open().unwrap().find(one.id).unwrap() == one);
}

#[test]
fn a_missing_foreign_open_or_damaged_root_key_is_named_and_left_alone() {
    let bench = Bench::new();
    bench.open().unwrap().of(Subject(1)).unwrap();
    let root = &bench.places.root;
    let text = fs::read_to_string(root).unwrap();
    fs::remove_file(root).unwrap();
    let fault = bench.open().unwrap_err();
    assert!(fault.code.0 == "TB-KEY-002" && fault.message.contains(root.to_str().unwrap()), "{fault}");
    assert!(!root.exists(), "no new root key for an old keyring");
    let other = Bench::new();
    other.open().unwrap().of(Subject(1)).unwrap();
    fs::copy(&other.places.root, root).unwrap();
    assert_eq!(bench.code(), "TB-KEY-002");
    fs::write(root, text.replace("key 1", "key 9")).unwrap();
    assert_eq!(bench.code(), "TB-KEY-001");
    fs::write(root, &text).unwrap();
    fs::set_permissions(root, fs::Permissions::from_mode(0o640)).unwrap();
    let fault = bench.open().unwrap_err();
    assert!(fault.code.0 == "TB-KEY-003" && fault.hints[0].contains("chmod 600"), "{fault}");
    fs::set_permissions(root, fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(bench.code(), "opens");
}

#[test]
fn rotating_the_root_keeps_the_keys_and_makes_the_old_root_worthless() {
    let bench = Bench::new();
    let running = bench.open().unwrap();
    let one = running.of(Subject(1)).unwrap();
    let old = fs::read(&bench.places.root).unwrap();
    let before = fs::read(&bench.places.keyring).unwrap();
    assert_eq!(bench.open().unwrap().rotate_root(), Ok(1));
    assert_ne!(fs::read(&bench.places.root).unwrap(), old);
    assert!(bench.open().unwrap().find(one.id).unwrap() == one);
    let two = running.of(Subject(2)).unwrap();
    assert!(bench.open().unwrap().find(two.id).unwrap() == two, "a process that ran meanwhile goes on under the new root");
    // The two states that a crash in the middle leaves: both roots with the old or the new keyring.
    let new = fs::read(&bench.places.root).unwrap();
    let after = fs::read(&bench.places.keyring).unwrap();
    fs::write(&bench.places.root, [&old[..], &new].concat()).unwrap();
    for keyring in [before, after] {
        fs::write(&bench.places.keyring, keyring).unwrap();
        assert!(bench.open().unwrap().find(one.id).unwrap() == one);
    }
    fs::write(&bench.places.root, old).unwrap();
    assert_eq!(bench.code(), "TB-KEY-002");
}

#[test]
fn two_processes_never_lose_each_others_keys() {
    let bench = Bench::new();
    let rings = [bench.open().unwrap(), bench.open().unwrap()];
    std::thread::scope(|scope| {
        for (n, ring) in (0..).zip(&rings) {
            scope.spawn(move || (0..10).for_each(|s| drop(ring.of(Subject(s + n * 5)).unwrap())));
        }
    });
    let all = bench.open().unwrap();
    assert_eq!(all.list().len(), 15);
    assert!(rings.iter().all(|ring| (5..10).all(|s| ring.of(Subject(s)).unwrap() == all.of(Subject(s)).unwrap())));
}

/// A fixed root, a whole key and a destroyed one.
fn written() -> Vec<u8> {
    let root = Root::fixed(7);
    let entry = |id, subject, state| Entry { id, subject: Subject(subject), state, created_ms: 1_795_166_043_120, wrapped: [0; WRAPPED] };
    let whole = entry(0xfeed, 1000, State::Whole).wrapped_with(&root, &[42; 32], [9; 12]).unwrap();
    Image { root_id: root.id(), entries: vec![whole, entry(0xdead, 1001, State::Destroyed)] }.encode()
}

/// `UPDATE_EXPECT=1` writes the file anew; after a release that is never right.
#[test]
fn what_version_1_wrote_is_read_and_written_the_same() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/keyring-v1");
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::create_dir_all(golden.parent().unwrap()).unwrap();
        fs::write(&golden, written()).unwrap();
    }
    assert_eq!(fs::read(&golden).unwrap(), written());
    let bench = Bench::new();
    let lock = super::file::Locked::take(&bench.places.keyring).unwrap();
    fs::copy(&golden, &bench.places.keyring).unwrap();
    Roots(vec![Root::fixed(7)]).write(&bench.places.root, &lock).unwrap();
    drop(lock);
    let keyring = bench.open().unwrap();
    assert!(keyring.find(0xfeed).unwrap() == SealKey { id: 0xfeed, secret: [42; 32] });
    let fault = keyring.find(0xdead).unwrap_err();
    assert!(fault.code.0 == KEY_DESTROYED && fault.message.contains("57005"), "{fault}");
    assert_ne!(keyring.of(Subject(1001)).unwrap().id, 0xdead, "a destroyed key does not come back");
    assert_eq!(keyring.rotate_root(), Ok(3));
    assert_eq!(bench.open().unwrap().find(0xdead).unwrap_err().code.0, KEY_DESTROYED);
}
