//! What is at hand without configuration: keys in the environment, servers on this machine.
//!
//! Looks at names of variables and at loopback only. Invariant: the value of a key never leaves
//! this module, and all looking ends within a quarter of a second.

use crate::client;
use crate::provider::{self, Environment};
use futures_util::future::join_all;
use serde_json::Value;
use std::time::Duration;

/// Longest wait for a server on this machine.
const PATIENCE: Duration = Duration::from_millis(250);

/// A variable that may hold a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeySeen {
    /// Whose key.
    pub provider: &'static str,
    /// The variable's name.
    pub variable: &'static str,
    /// Whether it is set; its value stays where it is.
    pub is_set: bool,
}

/// How a local server stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerState {
    /// It answers and has these models.
    Found(Vec<String>),
    /// Nobody listens.
    Refused,
    /// Somebody listens and gave no list of models in time.
    Silent,
}

/// A server that was looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerSeen {
    /// What it is called.
    pub name: &'static str,
    /// The built-in provider's name to use it by.
    pub provider: &'static str,
    /// Host and port.
    pub address: String,
    /// The value for `base_url`.
    pub base_url: String,
    /// How it stands.
    pub state: ServerState,
}

impl ServerSeen {
    /// Its models; empty when it does not answer.
    #[must_use]
    pub fn models(&self) -> &[String] {
        match &self.state {
            ServerState::Found(models) => models,
            _ => &[],
        }
    }
}

/// All that was seen.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Detection {
    /// Keys, in the order of choice.
    pub keys: Vec<KeySeen>,
    /// Servers, in the order of choice.
    pub servers: Vec<ServerSeen>,
}

impl Detection {
    /// One line: how many keys were looked for, and how each server stands.
    #[must_use]
    pub fn summary(&self) -> String {
        let set = self.keys.iter().filter(|seen| seen.is_set).count();
        let set = if set == 0 { "none".to_owned() } else { set.to_string() };
        let mut parts = vec![format!("{} environment keys ({set} set)", self.keys.len())];
        parts.extend(self.servers.iter().map(|seen| {
            let state = match &seen.state {
                ServerState::Found(models) if models.is_empty() => "no models".to_owned(),
                ServerState::Found(models) => format!("{} models", models.len()),
                ServerState::Refused => "refused".to_owned(),
                ServerState::Silent => "no answer".to_owned(),
            };
            format!("{} at {} ({state})", seen.name, seen.address)
        }));
        parts.join(" · ")
    }
}

/// Which variables that may hold a key are set, in the order of choice.
#[must_use]
pub fn keys_seen(env: &Environment) -> Vec<KeySeen> {
    provider::keys()
        .map(|(provider, variable)| KeySeen {
            provider,
            variable,
            is_set: env(variable).is_some_and(|value| !value.expose().trim().is_empty()),
        })
        .collect()
}

/// Looks at the environment and at the usual local ports, all at once.
pub async fn detect(env: &Environment) -> Detection {
    let keys = keys_seen(env);
    let ollama = provider::resolve("ollama/any", &crate::Options::default(), env).ok().filter(|target| target.is_local);
    let ollama = ollama.map_or_else(|| "http://127.0.0.1:11434/v1/".to_owned(), |target| target.base_url);
    let places = [
        ("Ollama", "ollama", ollama),
        ("LM Studio", "lmstudio", "http://127.0.0.1:1234/v1/".to_owned()),
        ("llama.cpp", "llamacpp", "http://127.0.0.1:8080/v1/".to_owned()),
        ("vLLM", "vllm", "http://127.0.0.1:8000/v1/".to_owned()),
    ];
    let servers = join_all(places.map(|(name, provider, base_url)| async move {
        let state = tokio::time::timeout(PATIENCE, look(&base_url)).await.unwrap_or(ServerState::Silent);
        let address = base_url.trim_start_matches("http://").trim_end_matches("/v1/").to_owned();
        ServerSeen { name, provider, address, base_url, state }
    }))
    .await;
    Detection { keys, servers }
}

/// Every one of them lists its models at `/v1/models`, Ollama included.
async fn look(base_url: &str) -> ServerState {
    let Ok(client) = client::plain() else { return ServerState::Silent };
    let reply = match client.get(format!("{base_url}models")).send().await {
        Ok(reply) => reply,
        Err(error) if error.is_connect() => return ServerState::Refused,
        Err(_) => return ServerState::Silent,
    };
    let Ok(text) = reply.text().await else { return ServerState::Silent };
    let body: Value = serde_json::from_str(&text).unwrap_or(Value::Null);
    match body.get("data").and_then(Value::as_array) {
        Some(list) => ServerState::Found(list.iter().filter_map(|model| model.get("id")?.as_str().map(str::to_owned)).collect()),
        None => ServerState::Silent,
    }
}
