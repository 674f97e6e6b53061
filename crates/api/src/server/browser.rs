//! Requests that no program of ours makes: a browser's, a proxy's, an upgrade to another protocol.
//!
//! No browser speaks to a Unix socket. But somebody may forward a port to it, and then every page that
//! the user opens could: by another site's form, by a WebSocket, by a name that is made to lead here.
//! Invariant: a request that a browser or a proxy has touched reaches no handler.

use super::MAX_BODY_BYTES;
use super::answer::oversize;
use axum::http::{HeaderMap, Method, Uri, header};
use tinkerbell_core::code::{Fault, exit};

/// Names by which programs may call the daemon; a port is none of them.
const HOSTS: [&str; 2] = ["tinkerbell", "localhost"];

/// Headers that a browser sets and a page can not take away, or that a proxy leaves.
const TELLING: [&str; 8] =
    ["origin", "referer", "cookie", "upgrade", "via", "forwarded", "proxy-connection", "access-control-request-method"];

/// Refuses what did not come from a program of this machine directly.
///
/// # Errors
/// `TB-API-013` with what told it.
pub(super) fn refuse(headers: &HeaderMap, uri: &Uri) -> Result<(), Fault> {
    let no = |what: String| {
        Err(Fault::new("TB-API-013", exit::POLICY, format!("the request looks like a browser's or a proxy's: {what}"))
            .hint("forward no port to the daemon's socket; speak to it from this machine, as `tinkerbell` does"))
    };
    for name in headers.keys().map(header::HeaderName::as_str) {
        if TELLING.contains(&name) || name.starts_with("sec-") || name.starts_with("x-forwarded-") {
            return no(format!("it has a header `{name}`"));
        }
    }
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().and_then(|host| host.to_str().ok()).unwrap_or_default();
    if hosts.next().is_some() || !HOSTS.contains(&host) {
        return no("its host is not `tinkerbell`".to_owned());
    }
    match uri.authority() {
        Some(authority) if !HOSTS.contains(&authority.as_str()) => no("it asks for another host".to_owned()),
        _ => Ok(()),
    }
}

/// Refuses a body that is no JSON, because forms are what other sites can send, and one that is announced
/// as too large, before any of it is read.
///
/// # Errors
/// `TB-API-014`, `TB-API-009`.
pub(super) fn check_body(headers: &HeaderMap, method: &Method) -> Result<(), Fault> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()).map(|length| length.parse::<u64>());
    if length.as_ref().is_some_and(|length| !matches!(length, Ok(length) if *length <= MAX_BODY_BYTES as u64)) {
        return Err(oversize());
    }
    let is_empty =
        headers.get(header::CONTENT_LENGTH).is_none_or(|length| length == "0") && !headers.contains_key(header::TRANSFER_ENCODING);
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.to_str().unwrap_or("?"));
    let is_json = kind.and_then(|kind| kind.split(';').next()).is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json"));
    if is_json || (is_empty && kind.is_none()) {
        return Ok(());
    }
    let kind = kind.unwrap_or("nothing");
    Err(Fault::new("TB-API-014", exit::USAGE, format!("a {method} with a body of type `{kind}` is not taken"))
        .hint("send `Content-Type: application/json`"))
}
