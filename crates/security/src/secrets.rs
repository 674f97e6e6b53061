//! Secrets by name, each from a provider: files that only their owner can read, and variables that
//! clients sent.
//!
//! A provider is asked whenever a value is wanted, so what changed counts at the next use; every value
//! that was ever given stays known to the redactor. Invariant: a value leaves here only as a secret, and
//! is known before it leaves.

mod env;
mod file;

pub use env::Variables;
pub use file::Files;

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::sync::{Arc, PoisonError, RwLock};
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_secret::{Known, Refused, SHORTEST, SecretProvider, Shared};

/// Where one secret comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its provider, as the configuration calls it: `file`, `env`.
    pub provider: &'static str,
    /// What the provider is asked for: a path, a variable.
    pub place: OsString,
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
    /// It is refused: why.
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
    /// When it last changed, in seconds since the epoch, where the provider can tell.
    pub changed_s: Option<i64>,
    /// What to do about it; empty where nothing is to be done or known.
    pub remedy: String,
}

/// Providers by the name that the configuration gives them.
pub type Providers = BTreeMap<&'static str, Arc<dyn SecretProvider>>;

/// Secrets by name.
pub struct SecretStore {
    sources: RwLock<BTreeMap<String, Source>>,
    providers: Providers,
    known: Arc<Known>,
}

impl SecretStore {
    /// A store over these providers, without sources; what it gives becomes known to `known`.
    #[must_use]
    pub fn new(providers: Providers, known: Arc<Known>) -> Arc<Self> {
        Arc::new(Self { sources: RwLock::default(), providers, known })
    }

    /// Takes new sources, and learns what they hold now.
    pub fn reload(&self, sources: BTreeMap<String, Source>) {
        *self.sources.write().unwrap_or_else(PoisonError::into_inner) = sources;
        self.learn_all();
    }

    /// Learns what all sources hold now. What is refused is told when it is wanted.
    pub fn learn_all(&self) {
        for (name, _) in self.sources() {
            // What is refused has no value to learn; whoever wants it hears why.
            drop(self.get(&name));
        }
    }

    /// The value of a secret now; `None` where there is none. Blocks for as long as its provider does.
    ///
    /// # Errors
    /// `TB-SECRET-001` for a name that no configuration holds, `TB-SECRET-002` for one that its provider
    /// refuses.
    pub fn get(&self, name: &str) -> Result<Option<Shared>, Fault> {
        let source = self.sources.read().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
        let Some(source) = source else { return Err(unknown(name)) };
        self.look(name, &source).map_err(|refused| fault(&source, refused))
    }

    /// All secrets, by name.
    #[must_use]
    pub fn list(&self) -> Vec<SecretSeen> {
        self.sources().into_iter().map(|(name, source)| self.seen(name, source)).collect()
    }

    fn seen(&self, name: String, source: Source) -> SecretSeen {
        let provider = self.providers.get(source.provider);
        let (state, remedy) = match self.look(&name, &source) {
            Err(refused) => {
                let remedy = refused.hint.clone().unwrap_or_default();
                (SecretState::Refused(fault(&source, refused).message), remedy)
            }
            Ok(None) => (SecretState::Missing, provider.map(|provider| provider.remedy(&source.place)).unwrap_or_default()),
            Ok(Some(value)) if value.expose().trim().len() < SHORTEST => {
                (SecretState::Short, format!("use a value of {SHORTEST} bytes or more"))
            }
            Ok(Some(_)) => (SecretState::Present, String::new()),
        };
        let changed_s = provider.and_then(|provider| provider.changed_s(&source.place));
        SecretSeen { name, source, state, changed_s, remedy }
    }

    /// The value at a source, known before it is given.
    fn look(&self, name: &str, source: &Source) -> Result<Option<Shared>, Refused> {
        let Some(provider) = self.providers.get(source.provider) else {
            return Err(Refused::because(format!("there is no provider `{}`", source.provider)));
        };
        let value = provider.value(&source.place)?;
        self.known.learn(value.iter().map(|value| (name.to_owned(), value.clone())));
        Ok(value)
    }

    fn sources(&self) -> BTreeMap<String, Source> {
        self.sources.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn unknown(name: &str) -> Fault {
    Fault::new("TB-SECRET-001", exit::CONFIG, format!("there is no secret `{name}` in the configuration"))
        .hint(format!("[secrets.{name}] file = \"/path\""))
        .hint("tinkerbell secrets ls   shows those that are there")
}

fn fault(source: &Source, Refused { why, hint }: Refused) -> Fault {
    let fault = Fault::new("TB-SECRET-002", exit::CONFIG, format!("{} can not be used as a secret: {why}", source.place.display()));
    match hint {
        Some(hint) => fault.hint(hint),
        None => fault,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ffi::OsStr;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::Mutex;
    use tinkerbell_secret::{Lookup, Secret};
    use tinkerbell_testkit::contract::secrets::{Hand, suite};

    fn files() -> Arc<dyn SecretProvider> {
        Arc::new(Files::of(rustix::process::geteuid().as_raw()))
    }

    /// Files below a directory.
    struct Drawer(tempfile::TempDir);

    impl Hand for Drawer {
        fn provider(&self) -> Arc<dyn SecretProvider> {
            files()
        }

        fn place(&self, name: &str) -> OsString {
            self.0.path().join(name).into()
        }

        fn put(&self, place: &OsStr, value: Option<&str>) {
            let Some(value) = value else { return std::fs::remove_file(place).unwrap() };
            let new = self.0.path().join("new");
            std::fs::write(&new, value).unwrap();
            std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o600)).unwrap();
            std::fs::rename(new, place).unwrap();
        }
    }

    /// What a client sent.
    #[derive(Clone, Default)]
    struct Shell(Arc<Mutex<BTreeMap<String, String>>>);

    impl Hand for Shell {
        fn provider(&self) -> Arc<dyn SecretProvider> {
            let shell = self.clone();
            Arc::new(Variables::new(Arc::new(move |name| shell.0.lock().unwrap().get(name).map(Secret::shared))))
        }

        fn place(&self, name: &str) -> OsString {
            name.to_uppercase().into()
        }

        fn put(&self, place: &OsStr, value: Option<&str>) {
            let name = place.to_str().unwrap().to_owned();
            match value {
                Some(value) => drop(self.0.lock().unwrap().insert(name, value.to_owned())),
                None => drop(self.0.lock().unwrap().remove(&name)),
            }
        }
    }

    #[test]
    fn files_keep_the_contract() {
        suite(&Drawer(tempfile::tempdir().unwrap()));
    }

    #[test]
    fn variables_keep_the_contract() {
        suite(&Shell::default());
    }

    struct Shelf {
        dir: tempfile::TempDir,
        store: Arc<SecretStore>,
        known: Arc<Known>,
    }

    impl Shelf {
        fn new() -> Self {
            let (dir, known) = (tempfile::tempdir().unwrap(), Known::new());
            let env: Lookup = Arc::new(|name| (name == "MY_KEY").then(|| Secret::shared("key-of-a-client")));
            let variables: Arc<dyn SecretProvider> = Arc::new(Variables::new(env));
            let store = SecretStore::new([("file", files()), ("env", variables)].into(), known.clone());
            let file = Source { provider: "file", place: dir.path().join("token").into() };
            let variable = |name: &str| Source { provider: "env", place: name.into() };
            let named = [("file", file), ("env", variable("MY_KEY")), ("none", variable("NONE"))];
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
        assert!(shelf.store.list()[1].remedy.starts_with("chmod 600 /"));
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
        assert_eq!((seen[0].remedy.as_str(), seen[2].remedy.as_str()), ("", "export NONE=…"));
        assert!(!format!("{seen:?}").contains("key-of-a-client"));
    }
}
