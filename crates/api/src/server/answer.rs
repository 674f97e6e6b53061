//! Answers: faults as problems, bodies as checked requests.
//!
//! No decisions about tasks. Invariant: a body with a field that we do not know is refused by the
//! field's name, never half understood.

use crate::wire::Problem;
use axum::body::Bytes;
use axum::extract::FromRequest;
use axum::extract::Request;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use std::time::Duration;
use tinkerbell_core::code::{Fault, exit};

/// A fault as an answer.
pub(super) struct Answer(pub Fault);

impl From<Fault> for Answer {
    fn from(fault: Fault) -> Self {
        Self(fault)
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        let problem = Problem::new(&self.0);
        let status = StatusCode::from_u16(problem.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            // Whole seconds are all that the header can say; too early would be refused again.
            let seconds = self.0.retry_after_ms.map_or(1, |wait| wait.div_ceil(1_000).max(1));
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }
}

/// A JSON body, read with our own error texts.
pub(super) struct Asked<T>(pub T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Asked<T> {
    type Rejection = Answer;

    async fn from_request(request: Request, state: &S) -> Result<Self, Answer> {
        let headers = request.headers().clone();
        let read = tokio::time::timeout(BODY, Bytes::from_request(request, state)).await.map_err(|_| slow())?;
        let bytes = read.map_err(|rejection| too_large(&rejection))?;
        require_json(&headers)?;
        Ok(Self(parse(&bytes)?))
    }
}

/// Longest time for a body.
const BODY: Duration = Duration::from_secs(10);

fn slow() -> Fault {
    bad(format!("the request's body did not come within {} s", BODY.as_secs()))
}

/// A body beyond what is taken.
pub(super) fn oversize() -> Fault {
    Fault::new("TB-API-009", exit::USAGE, format!("the request is larger than {} bytes", super::MAX_BODY_BYTES))
        .hint("put long texts into a file of the repository and name it in the goal")
}

fn too_large(rejection: &BytesRejection) -> Fault {
    let text = rejection.body_text();
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        return oversize();
    }
    bad(format!("the request's body can not be read: {text}"))
}

fn require_json(headers: &HeaderMap) -> Result<(), Fault> {
    let given = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if given.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("application/json")) {
        return Ok(());
    }
    Err(bad(format!("the body's type is `{given}`")).hint("send `Content-Type: application/json`"))
}

/// Reads a body; an unknown field is named, with the nearest known one.
pub(super) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Fault> {
    serde_json::from_slice(bytes).map_err(|error| {
        let text = error.to_string();
        let fault = bad(format!("the request is not understood: {text}"));
        match nearest_in(&text) {
            Some(near) => fault.hint(format!("did you mean `{near}`?")),
            None => fault,
        }
    })
}

pub(super) fn bad(text: String) -> Fault {
    Fault::new("TB-API-012", exit::USAGE, text)
}

/// The known name that is nearest to the unknown one in serde's message.
fn nearest_in(message: &str) -> Option<String> {
    if !message.starts_with("unknown ") {
        return None;
    }
    let mut names = message.split('`').skip(1).step_by(2);
    let unknown = names.next()?;
    names.map(|known| (distance(unknown, known), known)).filter(|(far, _)| *far <= 3).min().map(|(_, known)| known.to_owned())
}

/// Edit distance by letters.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.chars().enumerate() {
        let mut next = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let swap = row.get(j).copied().unwrap_or(0) + usize::from(a != *b);
            let drop = row.get(j + 1).copied().unwrap_or(0) + 1;
            let add = next.last().copied().unwrap_or(0) + 1;
            next.push(swap.min(drop).min(add));
        }
        row = next;
    }
    row.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{CommandRequest, SubmitRequest};

    fn hints<T: DeserializeOwned>(body: &str) -> (String, Vec<String>) {
        let Err(fault) = parse::<T>(body.as_bytes()) else { panic!("accepted: {body}") };
        assert_eq!(fault.exit, exit::USAGE);
        (fault.message, fault.hints)
    }

    #[test]
    fn an_unknown_field_is_refused_by_name_with_the_nearest_known_one() {
        let (message, hint) = hints::<SubmitRequest>(r#"{"gaol":"x","cwd":"/"}"#);
        assert!(message.contains("`gaol`"), "{message}");
        assert_eq!(hint, ["did you mean `goal`?"]);
        let (_, hint) = hints::<CommandRequest>(r#"{"command":"undu"}"#);
        assert_eq!(hint, ["did you mean `undo`?"]);
        let (message, _) = hints::<CommandRequest>(r#"{"command":"undo","al":true}"#);
        assert!(message.contains("`al`"), "{message}");
        let (message, _) = hints::<CommandRequest>(r#"{"command":"pause","now":true}"#);
        assert!(message.contains("`now`"), "{message}");
    }

    #[test]
    fn malformed_bodies_are_refused() {
        for body in ["", "{", "[]", "null", r#"{"goal":1,"cwd":"/"}"#, r#"{"goal":"x"}"#, r#"{"goal":"x","cwd":"/","caps":{"step":1}}"#] {
            hints::<SubmitRequest>(body);
        }
    }
}
