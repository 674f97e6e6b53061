//! The process environment, read once, as a value that is passed on.
//!
//! Nobody else in the house reads variables. Invariant: values of variables that may hold keys are
//! never logged, and leave the process only over the peer-checked socket.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

/// Variables that requests to providers depend on, whatever the provider.
const NETWORK_VARIABLES: [&str; 4] = ["HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY", "SSL_CERT_FILE"];

/// Variables that commands of a task see as the user has them.
const COMMAND_VARIABLES: [&str; 5] = ["PATH", "LANG", "LC_ALL", "LC_CTYPE", "TZ"];

/// The variables of this process.
#[derive(Debug, Clone, Default)]
pub struct Environment {
    values: BTreeMap<String, String>,
}

impl Environment {
    /// Reads the process environment; names and values that are not UTF-8 are left out.
    #[must_use]
    pub fn of_process() -> Self {
        let values = std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { values: values.collect() }
    }

    /// An environment of given values.
    #[cfg(test)]
    pub fn of(values: &[(&str, &str)]) -> Self {
        Self { values: values.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect() }
    }

    /// A variable that is set and not empty.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.values.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A variable that holds a path.
    #[must_use]
    pub fn path(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from)
    }

    /// All variables, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.iter().map(|(name, value)| (name.as_str(), value.as_str()))
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
    sent: Mutex<BTreeMap<String, String>>,
}

impl Received {
    /// Nothing received yet.
    #[must_use]
    pub fn new(own: Environment) -> Self {
        Self { own, sent: Mutex::default() }
    }

    /// Takes what a request brought; tells whether anything changed.
    pub fn take(&self, values: Vec<(String, String)>) -> bool {
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        values.into_iter().fold(false, |changed, (name, value)| sent.insert(name, value.clone()) != Some(value) || changed)
    }

    /// All that was received, for the process that takes over.
    #[must_use]
    pub fn sent(&self) -> Vec<(String, String)> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner).clone().into_iter().collect()
    }

    /// The newest value of a variable.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<String> {
        let sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.get(name).cloned().filter(|value| !value.is_empty()).or_else(|| self.own.get(name).map(str::to_owned))
    }

    /// What commands of tasks see.
    #[must_use]
    pub fn for_commands(&self) -> Vec<(String, String)> {
        COMMAND_VARIABLES.iter().filter_map(|name| Some(((*name).to_owned(), self.get(name)?))).collect()
    }

    /// Values that must never be shown, by the names of the variables that may hold them.
    #[must_use]
    pub fn secrets(&self, names: &[String]) -> Vec<(String, String)> {
        names.iter().filter_map(|name| Some((name.clone(), self.get(name)?))).collect()
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
        let received = Received::new(Environment::of(&[("PATH", "/old"), ("GROQ_API_KEY", "own-key")]));
        assert!(received.take(vec![("PATH".into(), "/new".into())]));
        assert!(!received.take(vec![("PATH".into(), "/new".into())]));
        assert_eq!(received.get("PATH").as_deref(), Some("/new"));
        assert_eq!(received.secrets(&["GROQ_API_KEY".to_owned(), "UNSET".to_owned()]), [("GROQ_API_KEY".to_owned(), "own-key".to_owned())]);
    }
}
