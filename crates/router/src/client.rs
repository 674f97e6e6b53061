//! HTTP clients, made when first needed.
//!
//! Where no CA certificates are installed a client with roots can not be made at all, not even for
//! plain HTTP; hence two kinds. Invariant: plain HTTP needs nothing from the system.

use crate::fault;
use crate::provider::{Environment, Target};
use genai::Client;
use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;
use tinkerbell_core::code::Fault;

/// The clients of one router, by what they need.
#[derive(Default)]
pub struct Clients {
    made: Mutex<HashMap<Kind, Client>>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
enum Kind {
    Plain,
    Secure { proxy: Option<String>, except: Option<String> },
}

impl Clients {
    /// The client for a target.
    ///
    /// # Errors
    /// `TB-ROUTER-012` when TLS is needed and no CA certificates are found.
    pub fn get(&self, target: &Target, env: &Environment) -> Result<Client, Fault> {
        let kind = kind(target, env);
        let mut made = self.made.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Some(client) = made.get(&kind) {
            return Ok(client.clone());
        }
        let client = Client::builder().with_reqwest(make(&kind)?).build().map_err(|error| fault::no_client(&error.to_string()))?;
        made.insert(kind, client.clone());
        Ok(client)
    }
}

fn kind(target: &Target, env: &Environment) -> Kind {
    if target.base_url.starts_with("http://") {
        return Kind::Plain;
    }
    let first =
        |names: &[&str]| names.iter().find_map(|name| env(name)).map(|value| value.expose().clone()).filter(|value| !value.is_empty());
    let proxy = first(&["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"]).filter(|_| !target.is_local);
    Kind::Secure { proxy, except: first(&["NO_PROXY", "no_proxy"]) }
}

fn make(kind: &Kind) -> Result<reqwest::Client, Fault> {
    // The process's own environment says nothing here: proxies come with the request's environment.
    let builder = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(Duration::from_secs(15))
        .tcp_nodelay(true)
        .pool_max_idle_per_host(4)
        .tcp_keepalive(Duration::from_secs(30));
    let builder = match kind {
        Kind::Plain | Kind::Secure { proxy: None, .. } => builder,
        Kind::Secure { proxy: Some(url), except } => {
            let proxy =
                reqwest::Proxy::all(url).map_err(|_| fault::configuration("the proxy's address is not valid", "correct HTTPS_PROXY"))?;
            builder.proxy(proxy.no_proxy(except.as_deref().and_then(reqwest::NoProxy::from_string)))
        }
    };
    let builder = if *kind == Kind::Plain { builder.tls_certs_only([]) } else { builder };
    builder.build().map_err(|error| fault::no_client(&root(&error)))
}

/// The innermost reason: the outer ones say "builder error".
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// A client for looking at local servers: no proxy, no certificates.
pub fn plain() -> Result<reqwest::Client, Fault> {
    make(&Kind::Plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::Options;
    use std::sync::Arc;

    #[test]
    fn plain_clients_need_nothing_and_secure_ones_say_what_they_lack() {
        plain().unwrap();
        let env: Environment = Arc::new(|_| None);
        let target = crate::provider::resolve("openai/gpt-5", &Options::default(), &env).unwrap();
        if let Err(fault) = Clients::default().get(&target, &env) {
            assert_eq!(fault.code.0, "TB-ROUTER-012");
        }
    }

    #[test]
    fn proxies_come_from_the_requests_environment_and_never_for_loopback() {
        let env: Environment =
            Arc::new(|name| (name == "HTTPS_PROXY").then(|| tinkerbell_secret::Secret::shared("http://proxy.example:3128")));
        let at = |model: &str| crate::provider::resolve(model, &Options::default(), &env).unwrap();
        assert!(matches!(kind(&at("openai/gpt-5"), &env), Kind::Secure { proxy: Some(_), .. }));
        assert!(kind(&at("ollama/qwen"), &env) == Kind::Plain);
    }
}
