//! Where secrets come from: files that only their owner can read, and variables that clients sent.
//!
//! A file is looked at whenever its value is wanted, so a changed one counts at the next use; every
//! value that was ever given stays known to the redactor. Invariant: a value leaves here only as a
//! [`Secret`], and is known before it leaves.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_secret::{Known, Lookup, SHORTEST, Secret, Shared};
use zeroize::Zeroizing;

/// The longest value that is read from a file.
const MOST_BYTES: u64 = 64 * 1024;
/// Mode bits of group and others.
const OTHERS: u32 = 0o077;

/// Where one secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A file that belongs to us or to root, and that nobody else may read.
    File(PathBuf),
    /// A variable of the environment that the newest client sent.
    Env(String),
}

/// How a secret stands; its value is not in here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SecretState {
    /// There is a value.
    Present,
    /// There is one, too short to be found in texts.
    Short,
    /// There is none.
    Missing,
    /// The file is refused: why.
    Refused(String),
}

/// A secret as people may see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretSeen {
    /// Its name.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
    /// How it stands.
    pub state: SecretState,
    /// When its file last changed, in seconds since the epoch.
    pub changed_s: Option<i64>,
}

/// Secrets by name.
pub struct SecretStore {
    sources: RwLock<BTreeMap<String, Source>>,
    env: Lookup,
    known: Arc<Known>,
    uid: u32,
    read: Mutex<BTreeMap<PathBuf, Kept>>,
}

/// What was read of a file, as long as it does not change.
struct Kept {
    stamp: (u64, u64, i64, i64, u32, u32),
    value: Shared,
}

impl SecretStore {
    /// A store for user `uid` without sources; what it gives becomes known to `known`.
    #[must_use]
    pub fn new(uid: u32, env: Lookup, known: Arc<Known>) -> Arc<Self> {
        Arc::new(Self { sources: RwLock::default(), env, known, uid, read: Mutex::default() })
    }

    /// Takes new sources, and learns what they hold now.
    pub fn reload(&self, sources: BTreeMap<String, Source>) {
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
        self.learn_all();
    }

    /// Learns what all sources hold now. What is refused is told when it is wanted.
    pub fn learn_all(&self) {
        for (name, _) in self.sources() {
            // A refused file has no value to learn; whoever wants it hears why.
            drop(self.get(&name));
        }
    }

    /// The value of a secret now; `None` where there is none. Blocks for as long as a small file
    /// takes to read.
    ///
    /// # Errors
    /// `TB-SECRET-001` for a name that no configuration holds, `TB-SECRET-002` for a file that is
    /// refused.
    pub fn get(&self, name: &str) -> Result<Option<Shared>, Fault> {
        let source = self.sources.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let Some(source) = source else { return Err(unknown(name)) };
        let value = match &source {
            Source::Env(variable) => (self.env)(variable).filter(|value| !value.expose().is_empty()),
            Source::File(path) => self.file(path)?,
        };
        self.known.learn(value.iter().map(|value| (name.to_owned(), value.clone())));
        Ok(value)
    }

    /// All secrets, by name.
    #[must_use]
    pub fn list(&self) -> Vec<SecretSeen> {
        let seen = |(name, source): (String, Source)| {
            let state = match self.get(&name) {
                Err(fault) => SecretState::Refused(fault.message),
                Ok(None) => SecretState::Missing,
                Ok(Some(value)) if value.expose().trim().len() < SHORTEST => SecretState::Short,
                Ok(Some(_)) => SecretState::Present,
            };
            let changed_s = match &source {
                Source::File(path) => path.metadata().ok().map(|meta| meta.mtime()),
                Source::Env(_) => None,
            };
            SecretSeen { name, source, state, changed_s }
        };
        self.sources().into_iter().map(seen).collect()
    }

    fn sources(&self) -> BTreeMap<String, Source> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn file(&self, path: &Path) -> Result<Option<Shared>, Fault> {
        use rustix::fs::{Mode, OFlags};
        // Without waiting for a writer, should it be a pipe.
        let file = match rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(refused(path, &error.to_string())),
        };
        let meta = file.metadata().map_err(|error| refused(path, &error.to_string()))?;
        if !meta.is_file() || meta.len() > MOST_BYTES {
            return Err(refused(path, "it is not a plain file of at most 64 KiB"));
        }
        if ![0, self.uid].contains(&meta.uid()) {
            return Err(refused(path, &format!("it belongs to user {}, not to {} or root", meta.uid(), self.uid)));
        }
        if meta.mode() & OTHERS != 0 {
            let why = format!("its mode {:o} lets others read or change it", meta.mode() & 0o7777);
            return Err(refused(path, &why).hint(format!("chmod 600 {}", path.display())));
        }
        let stamp = (meta.ino(), meta.len(), meta.ctime(), meta.ctime_nsec(), meta.uid(), meta.mode());
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = read.get(path).filter(|known| known.stamp == stamp) {
            return Ok(Some(known.value.clone()));
        }
        let mut text = Zeroizing::new(String::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1));
        file.take(MOST_BYTES).read_to_string(&mut text).map_err(|error| refused(path, &error.to_string()))?;
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let value = Secret::shared(line.strip_suffix('\r').unwrap_or(line));
        read.insert(path.to_owned(), Kept { stamp, value: value.clone() });
        Ok(Some(value).filter(|value| !value.expose().is_empty()))
    }
}

fn unknown(name: &str) -> Fault {
    Fault::new("TB-SECRET-001", exit::CONFIG, format!("there is no secret `{name}` in the configuration"))
        .hint(format!("[secrets.{name}] file = \"/path\""))
        .hint("tinkerbell secrets ls   shows those that are there")
}

fn refused(path: &Path, why: &str) -> Fault {
    Fault::new("TB-SECRET-002", exit::CONFIG, format!("{} can not be used as a secret: {why}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    struct Shelf {
        dir: tempfile::TempDir,
        store: Arc<SecretStore>,
        known: Arc<Known>,
    }

    impl Shelf {
        fn new() -> Self {
            let (dir, known) = (tempfile::tempdir().unwrap(), Known::new());
            let env: Lookup = Arc::new(|name| (name == "MY_KEY").then(|| Secret::shared("key-of-a-client")));
            let store = SecretStore::new(rustix::process::geteuid().as_raw(), env, known.clone());
            let file = Source::File(dir.path().join("token"));
            let named = [("file", file), ("env", Source::Env("MY_KEY".to_owned())), ("none", Source::Env("NONE".to_owned()))];
            store.reload(named.map(|(name, source)| (name.to_owned(), source)).into());
            Self { dir, store, known }
        }

        fn write(&self, text: &str, mode: u32) {
            let path = self.dir.path().join("token");
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        }

        fn value(&self, name: &str) -> String {
            match self.store.get(name) {
                Ok(value) => value.map_or("none".to_owned(), |value| value.expose().clone()),
                Err(fault) => format!("{}: {}", fault.code.0, fault.message.replace(self.dir.path().to_str().unwrap(), "")),
            }
        }
    }

    #[test]
    fn values_come_from_files_and_variables() {
        let shelf = Shelf::new();
        assert_eq!(
            (shelf.value("file"), shelf.value("env"), shelf.value("none")),
            ("none".into(), "key-of-a-client".into(), "none".into())
        );
        shelf.write("first-value\n", 0o600);
        assert_eq!(shelf.value("file"), "first-value");
        shelf.write("second-value\r\n", 0o400);
        assert_eq!(shelf.value("file"), "second-value");
        assert_eq!(
            shelf.known.redact("first-value second-value key-of-a-client"),
            "[secret file] [secret file] [secret env]",
            "old values stay known"
        );
        assert!(shelf.value("other").starts_with("TB-SECRET-001"));
    }

    #[test]
    fn files_that_others_can_read_are_refused() {
        let shelf = Shelf::new();
        shelf.write("a-value-of-mine", 0o640);
        assert_eq!(shelf.value("file"), "TB-SECRET-002: /token can not be used as a secret: its mode 640 lets others read or change it");
        shelf.write("a-value-of-mine", 0o600);
        assert_eq!(shelf.value("file"), "a-value-of-mine");
        // A mode that is opened later counts, too, although the content is the same.
        shelf.write("a-value-of-mine", 0o604);
        assert!(shelf.value("file").contains("mode 604"));
        shelf.write(&"x".repeat(70_000), 0o600);
        assert!(shelf.value("file").contains("64 KiB"));
        std::fs::remove_file(shelf.dir.path().join("token")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, shelf.dir.path().join("token"), rustix::fs::FileType::Fifo, 0o600.into(), 0).unwrap();
        assert!(shelf.value("file").contains("plain file"));
    }

    #[test]
    fn a_list_tells_all_but_the_values() {
        let shelf = Shelf::new();
        shelf.write("short", 0o600);
        let seen = shelf.store.list();
        let told: Vec<_> = seen.iter().map(|seen| (seen.name.as_str(), &seen.state)).collect();
        assert_eq!(told, [("env", &SecretState::Present), ("file", &SecretState::Short), ("none", &SecretState::Missing)]);
        assert!(seen[1].changed_s.is_some());
        assert!(!format!("{seen:?}").contains("key-of-a-client"));
    }
}
