//! MCP servers as configured: from `[mcp_servers.NAME]` to what the plugins are told.
//!
//! Read anew at each use, so that a change counts at once. Invariant: only the operator's own
//! configuration names servers; a repository's `.mcp.json` is shown and never started.

use crate::config::{self, Config};
use crate::live::Live;
use crate::places::Places;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tinkerbell_core::port::Sandbox;
use tinkerbell_plugins::options::{McpServer, Network};
use tinkerbell_plugins::{Desks, Server};
use tinkerbell_secret::{Lookup, Named, Secret, in_url};

/// Longest time for one answer, where none is configured.
const TIMEOUT: Duration = Duration::from_secs(60);
/// The longest that can be configured.
const MOST_TIMEOUT: Duration = Duration::from_secs(3600);
/// The most that is read of a repository's `.mcp.json`.
const MOST_BYTES: u64 = 64 * 1024;
/// What a value begins with that is a configured secret.
const SECRET: &str = "secret:";
/// Words in names of variables that hold secrets.
const SECRET_WORDS: [&str; 7] = ["TOKEN", "KEY", "SECRET", "PASS", "CREDENTIAL", "AUTH", "DSN"];

/// The servers that are on, by name; `lookup` finds the values of `secret:NAME`.
#[must_use]
pub fn servers(config: &Config, lookup: Option<&Lookup>) -> Vec<Server> {
    let on = config.mcp_servers.iter().filter(|(_, server)| server.enabled.unwrap_or(true));
    on.map(|(name, server)| server_of(name, server, lookup)).collect()
}

/// Whether any server is on.
#[must_use]
pub fn is_any_on(config: &Config) -> bool {
    config.mcp_servers.values().any(|server| server.enabled.unwrap_or(true))
}

/// One server as the plugins take it. Without a `lookup` it can be looked at, not started.
#[must_use]
pub fn server_of(name: &str, server: &McpServer, lookup: Option<&Lookup>) -> Server {
    let mut missing = None;
    let mut value = |value: &String| match (value.strip_prefix(SECRET), lookup) {
        (Some(secret), Some(lookup)) => lookup(value).map(|found| found.expose().to_owned()).unwrap_or_else(|| {
            missing = Some(format!("the secret `{secret}` is not there; `tinkerbell secrets ls` shows those that are"));
            String::new()
        }),
        _ => value.clone(),
    };
    let env = server.env.iter().map(|(name, given)| (name.clone(), value(given))).collect();
    let (timeout, bad_time) = match server.timeout.as_deref().map(config::duration_ms) {
        None => (TIMEOUT, None),
        Some(Ok(ms)) => (Duration::from_millis(ms).clamp(Duration::from_secs(1), MOST_TIMEOUT), None),
        Some(Err(why)) => (TIMEOUT, Some(format!("`timeout`: {why}"))),
    };
    let relative = server.read.iter().find(|path| !path.is_absolute());
    let bad_path = relative.map(|path| format!("`read`: {} is no whole path", path.display()));
    Server {
        name: name.to_owned(),
        command: server.command.clone(),
        env,
        network: match server.network {
            Network::Inherit => None,
            Network::None => Some(false),
            Network::Host => Some(true),
        },
        reads: server.reads.unwrap_or(true),
        writes: server.writes,
        read: server.read.clone(),
        tools: server.tools.as_ref().map(|tools| tools.iter().cloned().collect()),
        read_only: server.read_only.iter().cloned().collect(),
        timeout,
        fault: Server::refuse_name(name).or(bad_time).or(bad_path).or(missing),
    }
}

/// What the servers' desks stand on.
#[must_use]
pub fn desks(sandbox: Arc<dyn Sandbox>, clock: Arc<dyn Clock>, places: &Places, servers: Servers) -> Arc<Desks> {
    Desks::new(sandbox, clock, (places.data.join("homes"), places.data.join("mcp")), servers)
}

/// The servers that are on, whenever it is asked.
pub type Servers = Arc<dyn Fn() -> Vec<Server> + Send + Sync>;

/// The servers of the configuration in force.
#[must_use]
pub fn of_live(live: &Arc<Live>, lookup: Lookup) -> Servers {
    let live = live.clone();
    Arc::new(move || servers(&live.config(), Some(&lookup)))
}

/// Values of servers' variables that stand in the configuration itself and are secret by their names, and
/// passwords in addresses, in whatever variable or argument.
#[must_use]
pub fn in_configuration(config: &Config) -> Vec<Named> {
    let is_secret = |name: &str| SECRET_WORDS.iter().any(|word| name.to_ascii_uppercase().contains(word));
    let mut found = Vec::new();
    for (server, own) in &config.mcp_servers {
        for (name, value) in own.env.iter().filter(|(_, value)| !value.starts_with(SECRET)) {
            let whole = is_secret(name).then(|| value.clone());
            found.extend(whole.into_iter().chain(in_url(value)).map(|value| (name.clone(), Secret::shared(value))));
        }
        // `--db=postgres://user:password@host/` as well as the address alone.
        let passwords = own.command.iter().flat_map(|argument| in_url(argument));
        found.extend(passwords.map(|value| (format!("{server} command"), Secret::shared(value))));
    }
    found
}

/// Names of the servers that a repository brings along. They are never started.
#[must_use]
pub fn of_project(root: &Path) -> Vec<(PathBuf, String)> {
    let path = root.join(".mcp.json");
    let small = std::fs::symlink_metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() <= MOST_BYTES);
    let text = if small { std::fs::read_to_string(&path).unwrap_or_default() } else { String::new() };
    let value: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let names = value.get("mcpServers").and_then(serde_json::Value::as_object).map(|map| map.keys().cloned().collect::<Vec<_>>());
    names.unwrap_or_default().into_iter().map(|name| (path.clone(), name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_what_the_configuration_says_and_nothing_more() {
        let text = "[mcp_servers.files]\ncommand = [\"/bin/x\"]\ntimeout = \"5m\"\nread_only = [\"read\"]\nenv = { API_TOKEN = \"abcdefgh\", MODE = \"fast mode\", OTHER_KEY = \"secret:other\" }\n\
                    [mcp_servers.off]\ncommand = [\"y\"]\nenabled = false\n[mcp_servers.\"a.b\"]\ncommand = [\"z\"]\nnetwork = \"host\"\nwrites = true\n\
                    [mcp_servers.late]\ncommand = [\"z\"]\ntimeout = \"soon\"\nread = [\"rel\"]\n";
        let config: Config = toml::from_str(text).unwrap();
        let lookup: Lookup = Arc::new(|name| (name == "secret:other").then(|| Secret::shared("from a file")));
        let all = servers(&config, Some(&lookup));
        assert_eq!(all.iter().map(|server| server.name.as_str()).collect::<Vec<_>>(), ["a.b", "files", "late"]);
        let [dotted, files, late] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((files.timeout.as_secs(), files.reads, files.writes, files.network), (300, true, false, None));
        assert!(files.read_only.contains("read") && files.fault.is_none() && files.tools.is_none());
        assert_eq!((dotted.network, dotted.writes, dotted.fault.is_some()), (Some(true), true, true));
        assert!(late.fault.as_ref().unwrap().contains("`timeout`"));
        assert!(files.env.contains(&("OTHER_KEY".to_owned(), "from a file".to_owned())), "the secret is looked up");
        let none: Lookup = Arc::new(|_| None);
        assert!(servers(&config, Some(&none))[1].fault.as_ref().unwrap().contains("the secret `other` is not there"));
        let known: Vec<String> = in_configuration(&config).into_iter().map(|(name, value)| format!("{name}={}", value.expose())).collect();
        assert_eq!(known, ["API_TOKEN=abcdefgh"]);
    }

    #[test]
    fn passwords_of_servers_are_known_wherever_they_stand() {
        let text = "[mcp_servers.db]\ncommand = [\"/bin/db\", \"--url=postgres://me:canary-one@host/x\", \"--fast\"]\n\
                    env = { PGPASS = \"canary-two\", SENTRY_DSN = \"https://canary-three@host/1\", DB = \"mysql://me:canary-four@h/x\", \
                    MODE = \"fast-mode\", HOST = \"https://host/x\" }\n";
        let config: Config = toml::from_str(text).unwrap();
        let known = tinkerbell_secret::Known::new();
        known.learn(in_configuration(&config));
        assert_eq!(
            known.redact("canary-one canary-two https://canary-three@host/1 canary-four fast-mode https://host/x /bin/db"),
            "[secret db command] [secret PGPASS] [secret SENTRY_DSN] [secret DB] fast-mode https://host/x /bin/db"
        );
    }

    #[test]
    fn servers_of_a_repository_are_named_and_no_more() {
        let dir = tempfile::tempdir().unwrap();
        assert!(of_project(dir.path()).is_empty());
        std::fs::write(dir.path().join(".mcp.json"), r#"{"mcpServers":{"evil":{"command":"sh"}}}"#).unwrap();
        assert_eq!(of_project(dir.path())[0].1, "evil");
        std::fs::write(dir.path().join(".mcp.json"), "[").unwrap();
        assert!(of_project(dir.path()).is_empty());
    }
}
