//! What is known to be secret, and where it comes from: clients, files, configuration, repositories.
//!
//! One place that tells the redactor about all of them. Invariant: it is told before a value is used
//! and before a client's words are recorded.

use crate::config::Config;
use crate::config::options::Patterns;
use crate::environment::Received;
use crate::live::Live;
use crate::places::Places;
use std::collections::BTreeMap;
use std::sync::Arc;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_secret::{Known, Lookup, Named, Secret, SecretProvider, in_url};
use tinkerbell_security::{Files, Providers, SecretStore, Source, Variables};

/// What the name of a key begins with that is a configured secret.
const SECRET: &str = "secret:";

/// Parts of a header's name that say that its value is a secret.
const TELLING: [&str; 5] = ["auth", "key", "token", "secret", "cookie"];

/// All secrets of a house.
pub struct Secrets {
    /// What is redacted.
    pub known: Arc<Known>,
    /// Configured secrets.
    pub store: Arc<SecretStore>,
    received: Arc<Received>,
}

impl Secrets {
    /// Over what clients sent; nothing is configured yet.
    #[must_use]
    pub fn new(known: Arc<Known>, received: Arc<Received>) -> Arc<Self> {
        let env = received.clone();
        let store = SecretStore::new(providers(Arc::new(move |name| env.get(name))), known.clone());
        Arc::new(Self { known, store, received })
    }

    /// Takes the configuration in force, and learns all that it and the clients say now.
    ///
    /// # Errors
    /// `TB-SECRET-004` for a secret with no source, or with two.
    pub fn refresh(&self, config: &Config, places: &Places) -> Result<(), Fault> {
        self.known.set_patterns(config.security.patterns == Patterns::On);
        let keys = crate::wire::secret_variables(config, places);
        self.known.learn(self.received.secrets(&keys));
        self.known.learn(in_configuration(config));
        self.store.reload(sources(config, places)?);
        Ok(())
    }

    /// As [`Self::refresh`], with what was in force; its mistakes were told when it was read.
    pub fn refresh_from(&self, live: &Live) {
        if let Err(fault) = self.refresh(&live.config(), live.places()) {
            tracing::warn!(%fault, "a configured secret can not be used");
        }
    }

    /// Keys by their variables, and configured ones by `secret:NAME`.
    #[must_use]
    pub fn lookup(&self) -> Lookup {
        let (store, received) = (self.store.clone(), self.received.clone());
        Arc::new(move |name| match name.strip_prefix(SECRET) {
            None => received.get(name),
            Some(secret) => store.get(secret).unwrap_or_else(|fault| {
                tracing::warn!(%fault, "a configured secret can not be used");
                None
            }),
        })
    }

    /// Credentials of hosts: a configured secret of that name, or a variable.
    #[must_use]
    pub fn credentials(&self) -> Lookup {
        let (store, received) = (self.store.clone(), self.received.clone());
        // A name that is not configured is a variable's.
        Arc::new(move |name| store.get(name).ok().flatten().or_else(|| received.get(name)))
    }

    /// Whether there is a key under this name.
    ///
    /// # Errors
    /// Why a configured secret can not be used.
    pub fn has(&self, name: &str) -> Result<bool, Fault> {
        match name.strip_prefix(SECRET) {
            None => Ok(self.received.get(name).is_some()),
            Some(secret) => self.store.get(secret).map(|value| value.is_some()),
        }
    }
}

/// Variables that configured secrets come from: a client sends them along.
#[must_use]
pub fn variables(config: &Config) -> Vec<String> {
    config.secrets.values().filter_map(|source| source.env.clone()).collect()
}

/// What the keys of `[secrets.NAME]` stand for; another provider is one line here and one key there.
#[must_use]
pub fn providers(env: Lookup) -> Providers {
    let files: Arc<dyn SecretProvider> = Arc::new(Files::of(rustix::process::geteuid().as_raw()));
    [("file", files), ("env", Arc::new(Variables::new(env)))].into()
}

/// Where configured secrets come from. A relative path begins at the configuration file.
///
/// # Errors
/// `TB-SECRET-004` for a secret with no source, or with two.
pub fn sources(config: &Config, places: &Places) -> Result<BTreeMap<String, Source>, Fault> {
    let base = places.config.parent().unwrap_or(&places.data);
    let one = |(name, given): (&String, &crate::config::options::SecretSource)| match (&given.file, &given.env) {
        (Some(file), None) => Ok((name.clone(), Source { provider: "file", place: base.join(file).into() })),
        (None, Some(variable)) => Ok((name.clone(), Source { provider: "env", place: variable.into() })),
        _ => Err(Fault::new("TB-SECRET-004", exit::CONFIG, format!("the secret `{name}` needs one source: `file` or `env`"))
            .hint(format!("[secrets.{name}] file = \"/path\""))),
    };
    config.secrets.iter().map(one).collect()
}

/// Secrets that stand in the configuration itself: headers that authorise, passwords in addresses.
fn in_configuration(config: &Config) -> Vec<Named> {
    let mut found = crate::mcp::in_configuration(config);
    for (provider, own) in &config.providers {
        let is_telling = |name: &str| TELLING.iter().any(|part| name.to_ascii_lowercase().contains(part));
        for (header, value) in own.headers.iter().filter(|(name, _)| is_telling(name)) {
            // `Bearer TOKEN`: the token is used without its scheme elsewhere.
            let values = [Some(value.as_str()), value.split_whitespace().next_back()].into_iter().flatten();
            found.extend(values.map(|value| (format!("{provider} {header}"), Secret::shared(value))));
        }
        let address = own.base_url.iter().flat_map(|address| in_url(address));
        found.extend(address.map(|value| (format!("{provider} base_url"), Secret::shared(value))));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chores::bench::Bench;
    use crate::config;
    use crate::environment::Environment;

    fn secrets(bench: &Bench, text: &str) -> (Arc<Secrets>, Result<(), Fault>) {
        std::fs::create_dir_all(bench.places.config.parent().unwrap()).unwrap();
        std::fs::write(&bench.places.config, text).unwrap();
        let config = config::load(&bench.sources, &bench.env).unwrap().config;
        let received = Arc::new(Received::new(Environment::of(&[("OPENAI_API_KEY", "canary-of-openai"), ("MINE", "canary-of-mine")])));
        let secrets = Secrets::new(Known::new(), received);
        let told = secrets.refresh(&config, &bench.places);
        (secrets, told)
    }

    #[test]
    fn everything_that_is_configured_is_known() {
        let bench = Bench::new();
        let text = "[secrets.file]\nfile = \"token\"\n[secrets.variable]\nenv = \"MINE\"\n[providers.x]\nwire = \"openai\"\n\
                    base_url = \"https://u:canary-of-url@h/\"\napi_key = \"secret:file\"\n[providers.x.headers]\nX-Auth = \"Bearer canary-of-header\"\n\
                    X-Title = \"a-title-that-is-none\"\n";
        let (secrets, told) = secrets(&bench, text);
        told.unwrap();
        assert_eq!((secrets.has("secret:file"), secrets.has("OPENAI_API_KEY")), (Ok(false), Ok(true)));
        let path = bench.places.config.parent().unwrap().join("token");
        std::fs::write(&path, "canary-of-file\n").unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        assert_eq!((secrets.lookup())("secret:file").unwrap().expose(), "canary-of-file");
        let text = "canary-of-openai canary-of-mine canary-of-url canary-of-header canary-of-file a-title-that-is-none";
        assert_eq!(
            secrets.known.redact(text),
            "[secret OPENAI_API_KEY] [secret variable] [secret x base_url] [secret x X-Auth] [secret file] a-title-that-is-none"
        );
        assert_eq!(secrets.has("secret:other").unwrap_err().code.0, "TB-SECRET-001");
    }

    #[test]
    fn a_secret_has_one_source() {
        let bench = Bench::new();
        for text in ["[secrets.a]\n", "[secrets.a]\nfile = \"x\"\nenv = \"Y\"\n"] {
            assert_eq!(secrets(&bench, text).1.unwrap_err().code.0, "TB-SECRET-004", "{text}");
        }
    }
}
