//! The client: typed calls over the daemon's socket.
//!
//! One connection per call: on a Unix socket it costs less than a pool would. Starting a daemon is
//! the caller's business. Invariant: a fault arrives as the daemon meant it, with code and exit.

mod events;
mod http;

pub use events::{Arrival, EventStream};

use crate::socket;
use crate::wire::{
    ApprovalView, CommandRequest, DaemonView, DiffView, EnvironmentRequest, HaltView, Said, SubmitRequest, Submitted, TaskList, TaskView,
    UpgradeRequest, UpgradeView, VersionView,
};
use bytes::Bytes;
use http::Call;
use hyper::Method;
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tinkerbell_core::code::Fault;

/// A daemon that does not even tell its release for this long is stuck or stopped.
const ANSWER_WAIT: Duration = Duration::from_secs(5);
/// As often it is asked again while one process hands the socket to another.
const HANDOVER_WAITS: u32 = 11;

/// A daemon's socket and the calls to it; cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    path: PathBuf,
}

impl Client {
    /// A client for the daemon at `path`, proven to be there and to speak our version.
    ///
    /// # Errors
    /// `TB-API-001` when nobody listens, `TB-API-002` when nobody answers, `TB-API-003` when the place belongs to somebody else,
    /// `TB-API-011` when client and daemon are too far apart.
    pub async fn connect(path: impl Into<PathBuf>) -> Result<Self, Fault> {
        let client = Self { path: path.into() };
        let mut left = HANDOVER_WAITS;
        loop {
            // Its release is at hand at any time; who can not tell it now tells nothing else either.
            match tokio::time::timeout(ANSWER_WAIT, client.version()).await {
                Ok(version) => return version.map(|_| client),
                Err(_) if left > 0 && socket::handover_mark(&client.path).exists() => left -= 1,
                Err(_) => return Err(http::silent(&client.path)),
            }
        }
    }

    /// The socket's path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Submits a task; with a key, a repeated submission is the same task.
    ///
    /// # Errors
    /// The daemon's fault, or `TB-API-001`/`002` when it is not there.
    pub async fn submit(&self, request: &SubmitRequest, key: Option<&str>) -> Result<Submitted, Fault> {
        self.json(Call::post("/v1/tasks", request)?.key(key)).await
    }

    /// A page of tasks, newest activity first: open ones or all, at most `limit` (1 to 1,000),
    /// before the place that an earlier page named.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn tasks(&self, open: bool, limit: u32, before: Option<u64>) -> Result<TaskList, Fault> {
        let before = before.map_or_else(String::new, |before| format!("&before={before}"));
        self.json(Call::get(&format!("/v1/tasks?open={}&limit={limit}{before}", u8::from(open)))).await
    }

    /// One task by a unique prefix of its id.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn task(&self, prefix: &str) -> Result<TaskView, Fault> {
        self.json(Call::get(&format!("/v1/tasks/{}", segment(prefix)))).await
    }

    /// Gives a task a word; returns a line for people.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn command(&self, task: &str, request: &CommandRequest) -> Result<String, Fault> {
        let said: Said = self.json(Call::post(&format!("/v1/tasks/{}/commands", segment(task)), request)?).await?;
        Ok(said.text)
    }

    /// Events of one task or of all, after a number; with live progress if wanted.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn events(&self, task: Option<&str>, after: u64, live: bool) -> Result<EventStream, Fault> {
        let place = task.map_or_else(|| "/v1/events".to_owned(), |task| format!("/v1/tasks/{}/events", segment(task)));
        EventStream::open(self.path.clone(), place, after, live).await
    }

    /// What changed between two operations (`None`: base, now).
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn diff(&self, task: &str, from: Option<u32>, to: Option<u32>) -> Result<DiffView, Fault> {
        let fields = [("from", from), ("to", to)].into_iter().filter_map(|(name, n)| n.map(|n| format!("{name}={n}")));
        let query = fields.collect::<Vec<_>>().join("&");
        self.json(Call::get(&format!("/v1/tasks/{}/diff?{query}", segment(task)))).await
    }

    /// Stored bytes by the reference that an event gave.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn blob(&self, blob: &str) -> Result<Bytes, Fault> {
        http::call(&self.path, Call::get(&format!("/v1/blobs/{}", segment(blob)))).await
    }

    /// Open questions of all tasks.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn approvals(&self) -> Result<Vec<ApprovalView>, Fault> {
        let mut lists: BTreeMap<String, Vec<ApprovalView>> = self.json(Call::get("/v1/approvals")).await?;
        Ok(lists.remove("approvals").unwrap_or_default())
    }

    /// The daemon's own facts.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn daemon(&self) -> Result<DaemonView, Fault> {
        self.json(Call::get("/v1/daemon")).await
    }

    /// Asks the daemon to stop; it does so after the answer.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn stop(&self) -> Result<(), Fault> {
        http::call(&self.path, Call::empty(Method::POST, "/v1/daemon/stop")).await.map(drop)
    }

    /// Lets the daemon read its configuration again; returns a line for people.
    ///
    /// # Errors
    /// The mistake in the configuration; the old values stay in force. Or as for [`Self::submit`].
    pub async fn reload(&self) -> Result<String, Fault> {
        let said: Said = self.json(Call::empty(Method::POST, "/v1/daemon/reload")).await?;
        Ok(said.text)
    }

    /// Tells the daemon to look at the kill switch; returns once it obeys, or says who still works.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn halt(&self) -> Result<HaltView, Fault> {
        self.json(Call::empty(Method::POST, "/v1/daemon/halt")).await
    }

    /// Asks the daemon to let another binary take its place. Returns once that binary has looked; how
    /// it goes on shows in [`Self::daemon`].
    ///
    /// # Errors
    /// Why it was refused; nothing was touched then. Or as for [`Self::submit`].
    pub async fn upgrade(&self, request: &UpgradeRequest) -> Result<UpgradeView, Fault> {
        self.json(Call::post("/v1/daemon/upgrade", request)?).await
    }

    /// Sends names and values of our environment; the newest value of a name wins.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn environment(&self, env: BTreeMap<String, String>) -> Result<(), Fault> {
        http::call(&self.path, Call::post("/v1/env", &EnvironmentRequest { env })?).await.map(drop)
    }

    /// Whether the daemon can do work now.
    ///
    /// # Errors
    /// What is missing, or as for [`Self::submit`].
    pub async fn ready(&self) -> Result<(), Fault> {
        http::call(&self.path, Call::get("/readyz")).await.map(drop)
    }

    /// The daemon's release.
    ///
    /// # Errors
    /// As for [`Self::submit`].
    pub async fn version(&self) -> Result<VersionView, Fault> {
        self.json(Call::get("/version")).await
    }

    async fn json<T: for<'de> Deserialize<'de>>(&self, call: Call) -> Result<T, Fault> {
        let bytes = http::call(&self.path, call).await?;
        serde_json::from_slice(&bytes).map_err(|error| http::garbled(&format!("its answer is not understood: {error}")))
    }
}

/// Whether a connection to the daemon at `path` can be made at all.
///
/// # Errors
/// As for [`Client::connect`].
pub async fn probe(path: &Path) -> Result<(), Fault> {
    socket::connect(path).await.map(drop)
}

/// A text as one segment of a path: what is not plain is percent-encoded.
fn segment(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
        out
    })
}

#[cfg(test)]
mod tests {
    use super::segment;

    #[test]
    fn odd_ids_stay_one_segment() {
        for (text, shown) in [("7f3a2c", "7f3a2c"), ("../x", "..%2Fx"), ("a b?c#d", "a%20b%3Fc%23d"), ("ü", "%C3%BC")] {
            assert_eq!(segment(text), shown);
        }
    }
}
