//! One HTTP call over one connection.
//!
//! Knows requests, deadlines and problems; nothing of tasks. Invariant: an answer is read to at
//! most [`MAX_ANSWER_BYTES`], whoever gives it.

use crate::socket;
use crate::wire::Problem;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1::handshake;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};

/// Outputs and diffs are capped below this by the daemon.
const MAX_ANSWER_BYTES: usize = 512 << 20;
/// Landing and undo of large trees answer only when they are done.
const ANSWER_WAIT: Duration = Duration::from_secs(600);

/// A request in the making.
pub(super) struct Call {
    method: Method,
    place: String,
    body: Bytes,
    key: Option<String>,
    last_event: Option<u64>,
}

impl Call {
    pub(super) fn empty(method: Method, place: &str) -> Self {
        Self { method, place: place.to_owned(), body: Bytes::new(), key: None, last_event: None }
    }

    pub(super) fn get(place: &str) -> Self {
        Self::empty(Method::GET, place)
    }

    pub(super) fn post(place: &str, body: &impl Serialize) -> Result<Self, Fault> {
        let bytes = serde_json::to_vec(body).map_err(|error| garbled(&format!("our request can not be written: {error}")))?;
        Ok(Self { body: Bytes::from(bytes), ..Self::empty(Method::POST, place) })
    }

    pub(super) fn key(mut self, key: Option<&str>) -> Self {
        self.key = key.map(str::to_owned);
        self
    }

    pub(super) fn after(mut self, lsn: u64) -> Self {
        self.last_event = Some(lsn);
        self
    }

    fn request(self) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request = Request::builder().method(self.method).uri(self.place).header("host", "tinkerbell");
        if !self.body.is_empty() {
            request = request.header("content-type", "application/json");
        }
        if let Some(key) = self.key {
            request = request.header("idempotency-key", key);
        }
        if let Some(lsn) = self.last_event {
            request = request.header("last-event-id", lsn);
        }
        request.body(Full::new(self.body)).map_err(|error| garbled(&format!("our request is malformed: {error}")))
    }
}

/// Makes the call and reads the whole answer.
pub(super) async fn call(path: &Path, call: Call) -> Result<Bytes, Fault> {
    let answered = async { whole(send(path, call).await?).await };
    match tokio::time::timeout(ANSWER_WAIT, answered).await {
        Ok(answer) => answer,
        Err(_) => Err(lost(path, "it did not answer in ten minutes")),
    }
}

/// Makes the call; the answer's body is still to be read. Problems are faults already.
pub(super) async fn send(path: &Path, call: Call) -> Result<Response<Incoming>, Fault> {
    let request = call.request()?;
    let stream = socket::connect(path).await?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(|error| lost(path, &error.to_string()))?;
    // Ends by itself when the response is read or dropped.
    tokio::spawn(async move { connection.await.ok() });
    let response = sender.send_request(request).await.map_err(|error| lost(path, &error.to_string()))?;
    check_release(&response)?;
    if response.status().is_success() {
        return Ok(response);
    }
    Err(problem(response).await)
}

async fn whole(response: Response<Incoming>) -> Result<Bytes, Fault> {
    let body = Limited::new(response.into_body(), MAX_ANSWER_BYTES).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| lost_text(&format!("its answer broke off: {error}")))
}

async fn problem(response: Response<Incoming>) -> Fault {
    let status = response.status();
    let bytes = whole(response).await.unwrap_or_default();
    match serde_json::from_slice::<Problem>(&bytes) {
        Ok(problem) => problem.fault(),
        Err(_) if status == StatusCode::SERVICE_UNAVAILABLE => lost_text("it is busy"),
        Err(_) => garbled(&format!("it answered with status {}", status.as_u16())),
    }
}

/// One minor release apart works; more does not.
fn check_release(response: &Response<Incoming>) -> Result<(), Fault> {
    let theirs = response.headers().get("tinkerbell-version").and_then(|value| value.to_str().ok()).unwrap_or_default();
    if are_compatible(crate::RELEASE, theirs) {
        return Ok(());
    }
    let text =
        format!("this is tinkerbell {} and the daemon is {}", crate::RELEASE, if theirs.is_empty() { "something else" } else { theirs });
    Err(Fault::new("TB-API-011", exit::UNAVAILABLE, text).hint("tinkerbell daemon stop && tinkerbell daemon start"))
}

fn are_compatible(ours: &str, theirs: &str) -> bool {
    let parts = |text: &str| {
        let mut numbers = text.split('.').map(str::parse::<u64>);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    };
    match (parts(ours), parts(theirs)) {
        (Some((major, minor)), Some((other_major, other_minor))) => major == other_major && minor.abs_diff(other_minor) <= 1,
        _ => false,
    }
}

fn lost(path: &Path, why: &str) -> Fault {
    lost_text(&format!("{why} ({})", path.display()))
}

pub(super) fn lost_text(why: &str) -> Fault {
    Fault::new("TB-API-002", exit::UNAVAILABLE, format!("the connection to the daemon was lost: {why}"))
        .hint("tasks go on by themselves; `tinkerbell ps` shows them")
        .transient()
}

/// Somebody took the connection and says nothing.
pub(super) fn silent(path: &Path) -> Fault {
    Fault::new("TB-API-002", exit::UNAVAILABLE, format!("the daemon at {} does not answer", path.display()))
        .hint("is it stopped or stuck? its pid is in `data/daemon.lock`; ending it loses nothing: kill -9 PID")
        .hint("tinkerbell daemon start")
        .transient()
}

pub(super) fn garbled(why: &str) -> Fault {
    Fault::new("TB-API-008", exit::INTERNAL, format!("the daemon can not be understood: {why}"))
        .hint("tinkerbell daemon stop && tinkerbell daemon start")
}

#[cfg(test)]
mod tests {
    use super::are_compatible;

    #[test]
    fn one_minor_release_apart_works() {
        for (ours, theirs, works) in
            [("0.1.0", "0.1.9", true), ("0.1.0", "0.2.0", true), ("0.1.0", "0.3.0", false), ("1.0.0", "0.9.0", false), ("0.1.0", "", false)]
        {
            assert_eq!(are_compatible(ours, theirs), works, "{ours} {theirs}");
        }
    }
}
