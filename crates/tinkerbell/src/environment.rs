//! The process environment, read once, as a value that is passed on.
//!
//! Nobody else in the house reads variables. Invariant: values of variables that may hold keys are
//! never logged, and leave the process only over the peer-checked socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use tinkerbell_secret::{Named, Secret, Shared, in_url};

/// Variables that requests to providers depend on, whatever the provider.
const NETWORK_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE"];

/// Variables that commands of a task see as the user has them.
const COMMAND_VARIABLES: [&str; 5] = ["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"];

/// Variables in which a proxy's address may have a password.
const PROXIES: [&str; 6] = ["HTTPS_PROXY", "HTTP_PROXY", "ALL_PROXY", "https_proxy", "http_proxy", "all_proxy"];

/// What the daemon reads of its own environment, beside what begins with [`DAEMON_PREFIXES`].
const DAEMON_VARIABLES: [&str; 21] = [
    "HOME",
    "USER",
    "LOGNAME",
    "PATH",
    "LANG",
    "TZ",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NO_PROXY",
    "RUSTUP_HOME",
    "CARGO_HOME",
    "GOPATH",
    "GOROOT",
    "JAVA_HOME",
    "PYENV_ROOT",
    "NVM_DIR",
    "MISE_DATA_DIR",
    "RUSTUP_TOOLCHAIN",
];

/// Directories, locale, and our own settings.
const DAEMON_PREFIXES: [&str; 3] = ["XDG_", "LC_", "TINKERBELL_"];

/// The variables of this process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    /// Any of them may be a key, so all of them are kept as one.
    values: BTreeMap<String, Shared>,
}

impl Environment {
    /// Reads the process environment; names and values that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let values =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, Secret::shared(value.into_string().ok()?))));
        Self { values: values.collect() }
    }

    /// An environment of given values.
    #[cfg(test)]
    pub fn of(values: &[(&str, &str)]) -> Self {
        Self { values: values.iter().map(|(name, value)| ((*name).to_owned(), Secret::shared(*value))).collect() }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(|value| value.expose().as_str()).filter(|value| !value.is_empty())
    }

    /// A variable that may hold a key.
    #[must_use]
    pub fn secret(&self, name: &str) -> Option<Shared> {
        self.values.get(name).filter(|value| !value.expose().is_empty()).cloned()
    }

    /// What a daemon is started with: everything that it reads, and no key. Those come over the socket.
    #[must_use]
    pub fn for_daemon(&self, keys: &[String]) -> Vec<(&str, &str)> {
        let is_wanted = |name: &str| DAEMON_VARIABLES.contains(&name) || DAEMON_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
        self.iter().filter(|(name, _)| is_wanted(name) && !keys.iter().any(|key| key == name)).collect()
    }

    /// A variable that holds a path.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// All variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.expose().as_str()))
    }

    /// What a request carries to the daemon: PATH, locale, proxies, and the provider variables
    /// `more`.
    #[must_use]
    pub fn for_request(&self, more: &[String]) -> Vec<(String, String)> {
        let names = COMMAND_VARIABLES.iter().chain(NETWORK_VARIABLES.iter()).copied().chain(more.iter().map(String::as_str));
        names.filter_map(|name| Some((name.to_owned(), self.get(name)?.to_owned()))).collect()
    }
}

/// What clients sent, newest value first, over the daemon's own environment. Memory only.
#[derive(Debug)]
pub struct Received {
    own: Environment,
    sent: Mutex<BTreeMap<String, Shared>>,
}

impl Received {
    /// Nothing received yet.
    #[must_use]
    pub fn new(own: Environment) -> Self {
        Self { own, sent: Mutex::default() }
    }

    /// Takes what a request brought; tells whether anything changed.
    pub fn take(&self, values: Vec<Named>) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        values.into_iter().fold(false, |changed, (name, value)| sent.insert(name, value.clone()) != Some(value) || changed)
    }

    /// All that was received, for the process that takes over.
    #[must_use]
    pub fn sent(&self) -> Vec<Named> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter().collect()
    }

    /// The newest value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Shared> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(name).cloned().filter(|value| !value.expose().is_empty()).or_else(|| self.own.secret(name))
    }

    /// The newest value of a variable that holds no secret.
    #[must_use]
    pub fn plain(&self, name: &str) -> Option<String> {
        self.get(name).map(|value| value.expose().clone())
    }

    /// What commands of tasks see.
    #[must_use]
    pub fn for_commands(&self) -> Vec<(String, String)> {
        COMMAND_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), self.plain(name)?))).collect()
    }

    /// Values that must never be shown, by the names of the variables that may hold them.
    #[must_use]
    pub fn secrets(&self, names: &[String]) -> Vec<Named> {
        let keys = names.iter().filter_map(|name| Some((name.clone(), self.get(name)?)));
        keys.chain(PROXIES.iter().flat_map(|name| self.proxy(name))).collect()
    }

    /// The password in a proxy's address.
    fn proxy(&self, name: &str) -> Vec<Named> {
        let address = self.get(name);
        let found = address.iter().flat_map(|address| in_url(address.expose()));
        found.map(|value| (name.to_owned(), Secret::shared(value))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_carry_only_what_the_daemon_needs() {
        let env = Environment::of(&[("PATH", "/bin"), ("OPENAI_API_KEY", "k"), ("AWS_SECRET", "s"), ("MY_KEY", "m"), ("LANG", "")]);
        let names: Vec<String> = env.for_request(&["MY_KEY".to_owned()]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["PATH", "MY_KEY"]);
    }

    #[test]
    fn the_newest_value_wins_over_the_daemons_own() {
        let received =
            Received::new(Environment::of(&[("PATH", "/old"), ("GROQ_API_KEY", "own-key"), ("https_proxy", "http://u:proxy-pw@h")]));
        let path = || vec![("PATH".to_owned(), Secret::shared("/new"))];
        assert!(received.take(path()));
        assert!(!received.take(path()));
        assert_eq!(received.plain("PATH").as_deref(), Some("/new"));
        let secrets = received.secrets(&["GROQ_API_KEY".to_owned(), "UNSET".to_owned()]);
        let told: Vec<_> = secrets.iter().map(|(name, value)| (name.as_str(), value.expose().as_str())).collect();
        assert_eq!(told, [("GROQ_API_KEY", "own-key"), ("https_proxy", "proxy-pw")]);
        assert!(!format!("{received:?}").contains("own-key"));
    }

    #[test]
    fn a_daemon_is_started_without_keys() {
        let env =
            Environment::of(&[("PATH", "/bin"), ("MY_KEY", "k"), ("AWS_SECRET", "s"), ("TINKERBELL_HOME", "/h"), ("TINKERBELL_KEY", "k")]);
        assert_eq!(env.for_daemon(&["TINKERBELL_KEY".to_owned()]), [("PATH", "/bin"), ("TINKERBELL_HOME", "/h")]);
    }
}
