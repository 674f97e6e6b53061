//! The way out of commands: what the operator allows, and the proxy's process.
//!
//! The proxy is this binary in another role, started by the keeper of a command. Invariant: values of
//! credentials reach it on its standard input only, and no command.

use crate::clock::SystemClock;
use crate::config::Config;
use crate::config::options::Network;
use rustix::process::{DumpableBehavior, Resource, Rlimit};
use std::ffi::OsString;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use tinkerbell_core::code::{Fault, exit};
use tinkerbell_egress::options::Preset;
use tinkerbell_egress::rules::Allowlist;
use tinkerbell_egress::wire::Plan;
use tinkerbell_executor::WayOut;
use tinkerbell_secret::Lookup;

/// The argument that asks for this role.
const ROLE: &str = "__egress";

/// Runs the proxy when the arguments (program name first) ask for it, and gives its exit code.
#[must_use]
pub fn early_main(args: &[OsString]) -> Option<u8> {
    let [_, role, connections, bundle] = args else { return None };
    (role == ROLE).then(|| if serve(Path::new(connections), Path::new(bundle)).is_ok() { exit::DONE } else { exit::INTERNAL })
}

fn serve(connections: &Path, bundle: &Path) -> std::io::Result<()> {
    // Its memory holds credentials and the key of an authority: nobody reads it, no core file is written.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::process::setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    let control = UnixStream::from(std::io::stdin().as_fd().try_clone_to_owned()?);
    tinkerbell_egress::run(control, connections, bundle, Arc::new(SystemClock))
}

/// Which network commands get: what is said, or a proxy where hosts are listed and nothing is said.
#[must_use]
pub fn network(config: &Config) -> Network {
    config.sandbox.network.unwrap_or(if config.egress.is_empty() { Network::None } else { Network::Proxy })
}

/// Reads the list, so that a mistake in it is told when it is made.
///
/// # Errors
/// `TB-EGRESS-002` for a mistake in an entry, `TB-EGRESS-003` for a proxy without any host.
pub fn check(config: &Config) -> Result<Allowlist, Fault> {
    let list = Allowlist::compile(&config.egress).map_err(|why| {
        Fault::new("TB-EGRESS-002", exit::CONFIG, format!("the hosts that commands may reach are not understood: {why}"))
            .hint("the form of an entry stands in docs/egress.md")
    })?;
    if network(config) == Network::Proxy && config.egress.is_empty() {
        return Err(Fault::new("TB-EGRESS-003", exit::CONFIG, "`sandbox.network = \"proxy\"` and no host is allowed")
            .hint("allow well-known registries:  [egress]  presets = [\"cargo\", \"npm\", \"pip\", \"go\", \"git\"]")
            .hint("or a host of your own:        [[egress.host]]  name = \"example.com\""));
    }
    Ok(list)
}

/// Variables that hold credentials of hosts.
#[must_use]
pub fn credentials(config: &Config) -> Vec<String> {
    config.egress.host.iter().filter_map(|entry| entry.credential.clone()).collect()
}

/// What the sandbox is told of the proxy, where commands get one.
///
/// # Errors
/// As [`check`].
pub fn way_out(config: &Config, values: Lookup) -> Result<Option<WayOut>, Fault> {
    let list = check(config)?;
    if network(config) != Network::Proxy {
        return Ok(None);
    }
    let (egress, names) = (config.egress.clone(), credentials(config));
    let plan = move || {
        let told = names.iter().filter_map(|name| Some((name.clone(), values(name)?.expose().clone()))).collect();
        let authorities = values("SSL_CERT_FILE").map(|path| path.expose().into());
        // A plan that can not be written is an empty one, which the proxy refuses.
        serde_json::to_string(&Plan { egress: egress.clone(), values: told, authorities }).unwrap_or_default()
    };
    Ok(Some(WayOut { plan: Arc::new(plan), env: tinkerbell_egress::variables(&list), reads_tls: list.reads_tls() }))
}

/// Which network commands get, in one line for people.
#[must_use]
pub fn told(config: &Config) -> String {
    match network(config) {
        Network::None => "none: commands reach no host".to_owned(),
        Network::Host => "host: commands reach whatever this machine does".to_owned(),
        Network::Proxy => {
            let presets = config.egress.presets.iter().map(|preset| format!("preset {}", spelled(*preset)));
            let hosts = config.egress.host.iter().map(|entry| entry.name.clone());
            format!("proxy: commands reach {}", presets.chain(hosts).collect::<Vec<_>>().join(", "))
        }
    }
}

const fn spelled(preset: Preset) -> &'static str {
    match preset {
        Preset::Cargo => "cargo",
        Preset::Npm => "npm",
        Preset::Pip => "pip",
        Preset::Go => "go",
        Preset::Git => "git",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::{Environment, Received};
    use tinkerbell_secret::Secret;

    fn config(text: &str) -> Config {
        toml::from_str(text).unwrap()
    }

    #[test]
    fn the_network_is_what_is_said_or_what_follows() {
        for (text, wanted) in [
            ("", Network::None),
            ("[egress]\npresets = [\"cargo\"]", Network::Proxy),
            ("[[egress.host]]\nname = \"a.example\"", Network::Proxy),
            ("[sandbox]\nnetwork = \"none\"\n[egress]\npresets = [\"cargo\"]", Network::None),
            ("[sandbox]\nnetwork = \"host\"", Network::Host),
        ] {
            assert_eq!(network(&config(text)), wanted, "{text}");
        }
        assert_eq!(check(&config("[sandbox]\nnetwork = \"proxy\"")).unwrap_err().code.0, "TB-EGRESS-003");
        assert_eq!(check(&config("[[egress.host]]\nname = \"*\"")).unwrap_err().code.0, "TB-EGRESS-002");
        assert!(toml::from_str::<Config>("[[egress.host]]\nnam = \"a\"").is_err());
    }

    #[test]
    fn values_are_in_the_plan_and_placeholders_in_the_environment() {
        let config = config("[[egress.host]]\nname = \"a.example\"\ncredential = \"KEY\"");
        let received = Arc::new(Received::new(Environment::of(&[("KEY", "true-value")])));
        let newest = received.clone();
        let way = way_out(&config, Arc::new(move |name| newest.get(name))).unwrap().unwrap();
        assert_eq!(way.env, [("KEY".to_owned(), "tinkerbell-placeholder-KEY".to_owned())]);
        assert!((way.plan)().contains("true-value") && way.reads_tls);
        received.take(vec![("KEY".into(), Secret::shared("newer-value"))]);
        assert!((way.plan)().contains("newer-value"), "the next command gets the newest value");
        assert!(!format!("{way:?}").contains("value"));
        assert_eq!(told(&config), "proxy: commands reach a.example");
    }
}
