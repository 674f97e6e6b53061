//! What is kept of servers on disk: the sessions of a task, and what people agreed to.
//!
//! Version 1. Readers accept unknown fields; a newer version is refused. Invariant: a published version
//! never changes its meaning; golden files in `tests/golden` hold it.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Version of both files.
pub const VERSION: u16 = 1;

/// `sessions.json` of a task: which service is which server, and how far we spoke to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sessions {
    /// Format version.
    pub version: u16,
    /// Services that were numbered so far.
    pub next: u32,
    /// By the server's name.
    pub servers: BTreeMap<String, Session>,
    /// Digests that a person said no to, in this task.
    #[serde(default)]
    pub denied: Vec<String>,
}

impl Default for Sessions {
    fn default() -> Self {
        Self { version: VERSION, next: 0, servers: BTreeMap::new(), denied: Vec::new() }
    }
}

/// One server of a task.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Session {
    /// Number of its run; 0 when none is on.
    pub run: u32,
    /// Digest of the program that runs.
    pub launch: String,
    /// Number of the newest message that may have been sent.
    pub sent: u64,
    /// The call that is under way or was the last.
    #[serde(default)]
    pub call: Option<InFlight>,
}

/// A call that was sent, or is just being sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InFlight {
    /// The effect.
    pub seq: u32,
    /// The message's number, under which the keeper delivers it once, and the request's id.
    pub number: u64,
}

/// `approved.json`: what people agreed to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Approved {
    /// Format version.
    pub version: u16,
    /// By the server's name.
    pub servers: BTreeMap<String, Pins>,
}

impl Default for Approved {
    fn default() -> Self {
        Self { version: VERSION, servers: BTreeMap::new() }
    }
}

/// What holds for one server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Pins {
    /// The program that may be started.
    #[serde(default)]
    pub launch: Option<LaunchPin>,
    /// What it may say about its tools.
    #[serde(default)]
    pub tools: Option<ToolsPin>,
}

/// A program that may be started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchPin {
    /// SHA-256 over program, arguments and rights.
    pub digest: String,
    /// What was shown.
    pub text: String,
    /// When it was agreed to, milliseconds since the epoch.
    pub at_ms: u64,
}

/// Descriptions of tools.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToolsPin {
    /// SHA-256 over names, descriptions, schemas and hints.
    pub digest: String,
    /// What was shown, by the tool's name.
    pub tools: BTreeMap<String, String>,
    /// When it was agreed to, milliseconds since the epoch.
    pub at_ms: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::de::DeserializeOwned;
    use std::fmt::Debug;

    fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(golden: &str, value: &T) {
        assert_eq!(&serde_json::from_str::<T>(golden).unwrap(), value);
        assert_eq!(serde_json::to_string(value).unwrap(), golden.trim_end(), "what is written now is the golden form");
        let newer = golden.trim_end().replacen('{', r#"{"of_a_later_release":1,"#, 1);
        assert_eq!(&serde_json::from_str::<T>(&newer).unwrap(), value, "unknown fields are ignored");
    }

    #[test]
    fn files_of_version_1_are_read() {
        let session = Session { run: 0x4000_0001, launch: "ab".into(), sent: 19, call: Some(InFlight { seq: 7, number: 18 }) };
        let servers = [("files".to_owned(), session)].into();
        check(include_str!("../tests/golden/v1/sessions.json"), &Sessions { version: 1, next: 1, servers, denied: vec!["cd".into()] });
        let launch = Some(LaunchPin { digest: "ab".into(), text: "program  /usr/bin/files".into(), at_ms: 1_790_000_000_000 });
        let tools = [("read".to_owned(), "Reads a file.".to_owned())].into();
        let tools = Some(ToolsPin { digest: "ef".into(), tools, at_ms: 1_790_000_000_001 });
        let servers = [("files".to_owned(), Pins { launch, tools })].into();
        check(include_str!("../tests/golden/v1/approved.json"), &Approved { version: 1, servers });
    }
}
