//! From what went wrong to what it means.
//!
//! The only reader of genai's errors; they print whole requests, so nothing of them is passed on
//! but a provider's own sentence, cut and scrubbed. Invariant: a key never gets into a [`Failure`].

use crate::frames::InStream;
use genai::Error;
use reqwest::header::HeaderMap;
use serde_json::Value;
use std::time::Duration;

/// Why a try failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The key was refused.
    Key(u16),
    /// No such model there.
    NoModel(String),
    /// The request was refused as it is.
    Request(u16, String),
    /// The prompt does not fit; the limit where it was told.
    TooLong(Option<u64>),
    /// The account has nothing left; until when, where it was told.
    Quota(String, Option<Duration>),
    /// Overloaded or rate limited.
    Busy {
        /// The status.
        status: u16,
        /// How long to wait, where it was told.
        after: Option<Duration>,
        /// The provider's sentence.
        detail: String,
    },
    /// No connection, or it was lost before the answer began.
    Unreachable(String),
    /// The answer broke off, stalled, or was no answer at all.
    Broken(String),
    /// A whole answer that can not be used.
    Malformed(String),
}

impl Failure {
    /// One line for people, while another try follows.
    pub fn line(&self) -> String {
        match self {
            Self::Key(status) => format!("the key was refused ({status})"),
            Self::NoModel(detail) | Self::Quota(detail, _) | Self::Unreachable(detail) | Self::Broken(detail) | Self::Malformed(detail) => {
                detail.clone()
            }
            Self::Request(status, detail) => format!("request refused ({status}): {detail}"),
            Self::TooLong(_) => "the prompt is too long".to_owned(),
            Self::Busy { status: 429, .. } => "rate limit (429)".to_owned(),
            Self::Busy { status, detail, .. } if detail.is_empty() => format!("provider overloaded ({status})"),
            Self::Busy { status, detail, .. } => format!("provider overloaded ({status}): {detail}"),
        }
    }
}

/// What must not show, and what time it is.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The key in use.
    pub key: Option<&'a str>,
    /// Milliseconds since the epoch, for dates in `retry-after`.
    pub wall_ms: u64,
}

/// Classifies an error of a stream.
pub fn classify(error: &Error, reported: Option<&InStream>, ctx: Context<'_>) -> Failure {
    if let Some(reported) = reported {
        return self::in_stream(reported, ctx);
    }
    match error {
        Error::WebStream { error, .. } => match error.downcast_ref::<Error>() {
            Some(inner) => http(inner, ctx),
            None => transport(error.as_ref()),
        },
        Error::HttpError { .. } | Error::WebModelCall { .. } | Error::WebAdapterCall { .. } => http(error, ctx),
        Error::ChatResponse { body, .. } => self::in_stream(&in_body(body), ctx),
        Error::StreamParse { .. } | Error::InvalidJsonResponseElement { .. } | Error::JsonValueExt(_) | Error::SerdeJson(_) => {
            Failure::Broken("the provider sent something that is no answer".to_owned())
        }
        Error::NoChatResponse { .. } => Failure::Broken("the provider sent nothing".to_owned()),
        // The rest comes from building the request; its text may hold the request, so it stays here.
        _ => Failure::Broken("the request could not be built for this provider".to_owned()),
    }
}

fn http(error: &Error, ctx: Context<'_>) -> Failure {
    let Some(status) = error.status() else {
        return match error {
            Error::WebModelCall { webc_error: genai::webc::Error::Reqwest(inner), .. } => transport(inner),
            _ => Failure::Broken("the provider sent something that is no answer".to_owned()),
        };
    };
    let body = match error {
        Error::HttpError { body, .. } => body.as_str(),
        Error::WebModelCall { webc_error: genai::webc::Error::ResponseFailedStatus { body, .. }, .. } => body.as_str(),
        _ => "",
    };
    of_status(status.as_u16(), error.headers(), body, ctx)
}

/// Classifies an HTTP status with what came beside it.
pub fn of_status(status: u16, headers: Option<&HeaderMap>, body: &str, ctx: Context<'_>) -> Failure {
    let parsed: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let said = in_body(&parsed);
    let detail = sentence(if said.message.is_empty() && parsed.is_null() { body } else { &said.message }, ctx);
    let header = |name: &str| headers.and_then(|all| all.get(name)).and_then(|value| value.to_str().ok());
    let given_up = header("x-should-retry") == Some("false");
    if is_too_long(status, &said) {
        return Failure::TooLong(limit(&parsed, &said.message));
    }
    let after = || retry_after(header("retry-after-ms"), header("retry-after"), &parsed, ctx.wall_ms);
    match status {
        401 | 403 => Failure::Key(status),
        402 => Failure::Quota(detail, after()),
        404 => Failure::NoModel(detail),
        429 if said.kind.contains("quota") || said.kind.contains("billing") || given_up => Failure::Quota(detail, after()),
        // "Not implemented" will not be implemented by asking again.
        408 | 409 | 425 | 429 | 500 | 502..=599 if !given_up => Failure::Busy { status, after: after(), detail },
        _ => Failure::Request(status, detail),
    }
}

/// Classifies an error that a stream reported.
pub fn in_stream(said: &InStream, ctx: Context<'_>) -> Failure {
    let status = match said.kind.as_str() {
        "overloaded_error" => 529,
        "rate_limit_error" | "rate_limit_exceeded" | "429" | "RESOURCE_EXHAUSTED" => 429,
        "authentication_error" | "permission_error" | "401" | "403" | "invalid_api_key" => return Failure::Key(401),
        "insufficient_quota" | "billing_error" | "402" => return Failure::Quota(sentence(&said.message, ctx), None),
        "invalid_request_error" | "invalid_prompt" | "400" => 400,
        "not_found_error" | "404" => return Failure::NoModel(sentence(&said.message, ctx)),
        _ => 500,
    };
    if is_too_long(400, said) {
        return Failure::TooLong(limit(&Value::Null, &said.message));
    }
    match status {
        400 => Failure::Request(400, sentence(&said.message, ctx)),
        500 => Failure::Broken(format!("the provider failed within its answer: {}", sentence(&said.message, ctx))),
        status => Failure::Busy { status, after: None, detail: sentence(&said.message, ctx) },
    }
}

fn in_body(body: &Value) -> InStream {
    let error = match body {
        Value::Array(list) => list.first().and_then(|first| first.get("error")).unwrap_or(body),
        _ => body.get("error").unwrap_or(body),
    };
    let word = |name: &str| match error.get(name) {
        Some(Value::String(word)) => Some(word.clone()),
        Some(Value::Number(code)) => Some(code.to_string()),
        _ => None,
    };
    let message = word("message").or_else(|| error.as_str().map(str::to_owned)).unwrap_or_default();
    // A type like `invalid_request_error` says less than the code beside it, so both are kept.
    let kind = [word("type"), word("code"), word("status")].into_iter().flatten().find(|kind| kind.parse::<u16>().is_err());
    let precise = word("code").filter(|code| code.contains("context") || code.contains("quota"));
    InStream { kind: precise.or(kind).or_else(|| word("code")).unwrap_or_default(), message }
}

fn is_too_long(status: u16, said: &InStream) -> bool {
    const WORDS: &[&str] = &[
        "context length",
        "context_length",
        "context window",
        "context size",
        "prompt is too long",
        "maximum context",
        "too many tokens",
        "exceeds the maximum number of tokens",
        "input is too long",
        "request_too_large",
    ];
    let message = said.message.to_ascii_lowercase();
    let by_word = matches!(status, 400 | 413 | 422 | 500) && WORDS.iter().any(|word| message.contains(word));
    status == 413 || by_word || matches!(said.kind.as_str(), "context_length_exceeded" | "exceed_context_size_error" | "request_too_large")
}

/// The number that a refusal names as the limit.
fn limit(body: &Value, message: &str) -> Option<u64> {
    if let Some(window) = body.pointer("/error/n_ctx").and_then(Value::as_u64) {
        return Some(window);
    }
    let after = ["maximum context length is ", "> ", "tokens allowed (", "context window of ", "context size (", "limit of "];
    after.iter().find_map(|words| {
        let (_, rest) = message.split_once(words)?;
        let digits: String = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',').filter(char::is_ascii_digit).collect();
        digits.parse().ok().filter(|limit| *limit > 255)
    })
}

/// How long the provider asks to wait: milliseconds, seconds, a date, or Gemini's `retryDelay`.
fn retry_after(millis: Option<&str>, after: Option<&str>, body: &Value, wall_ms: u64) -> Option<Duration> {
    let seconds = |text: &str| {
        text.trim().parse::<f64>().ok().filter(|secs| secs.is_finite() && *secs >= 0.0).map(|secs| Duration::from_secs_f64(secs.min(1e9)))
    };
    if let Some(wait) = millis.and_then(|text| text.trim().parse::<u64>().ok()) {
        return Some(Duration::from_millis(wait));
    }
    if let Some(text) = after {
        return seconds(text).or_else(|| {
            let at = jiff::fmt::rfc2822::parse(text.trim()).ok()?.timestamp().as_millisecond();
            Some(Duration::from_millis(u64::try_from(at).ok()?.saturating_sub(wall_ms)))
        });
    }
    let root = body.get(0).unwrap_or(body);
    let details = root.pointer("/error/details").and_then(Value::as_array)?;
    details.iter().find_map(|detail| seconds(detail.get("retryDelay")?.as_str()?.strip_suffix('s')?))
}

fn transport(error: &(dyn std::error::Error + 'static)) -> Failure {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    match error.downcast_ref::<reqwest::Error>() {
        Some(inner) if inner.is_connect() || inner.is_timeout() => Failure::Unreachable(root.to_string()),
        Some(inner) if inner.is_request() => Failure::Unreachable(format!("the connection was closed before an answer ({root})")),
        Some(_) => Failure::Broken("the connection was lost within the answer".to_owned()),
        None => Failure::Broken("the provider sent bytes that are no text".to_owned()),
    }
}

/// One short line of a provider's text, without the key.
fn sentence(text: &str, ctx: Context<'_>) -> String {
    const MOST: usize = 240;
    let text = match ctx.key.filter(|key| key.len() >= 4) {
        Some(key) => text.replace(key, "[key]"),
        None => text.to_owned(),
    };
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= MOST { line } else { line.chars().take(MOST).chain(['…']).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::{HeaderName, HeaderValue};

    const CTX: Context<'static> = Context { key: Some("sk-secret"), wall_ms: 1_445_412_470_000 };

    fn check(status: u16, headers: &[(&'static str, &'static str)], body: &str) -> Failure {
        let map = headers.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect();
        of_status(status, Some(&map), body, CTX)
    }

    #[test]
    fn waits_are_read_in_every_spelling() {
        let busy = |millis| Failure::Busy { status: 429, after: Some(Duration::from_millis(millis)), detail: String::new() };
        assert_eq!(check(429, &[("retry-after", "7")], ""), busy(7_000));
        assert_eq!(check(429, &[("retry-after", "0.5")], ""), busy(500));
        assert_eq!(check(429, &[("retry-after-ms", "120"), ("retry-after", "7")], ""), busy(120));
        assert_eq!(check(429, &[("retry-after", "Wed, 21 Oct 2015 07:28:00 GMT")], ""), busy(10_000));
        assert_eq!(check(429, &[], r#"[{"error":{"details":[{"retryDelay":"34s"}]}}]"#), busy(34_000));
        assert_eq!(check(529, &[], "overloaded"), Failure::Busy { status: 529, after: None, detail: "overloaded".to_owned() });
    }

    #[test]
    fn refusals_are_told_apart() {
        for (status, body, failure) in [
            (401, "sk-secret is wrong", Failure::Key(401)),
            (402, "{}", Failure::Quota(String::new(), None)),
            (429, r#"{"error":{"type":"insufficient_quota","message":"pay"}}"#, Failure::Quota("pay".to_owned(), None)),
            (404, r#"{"error":"model 'x' not found"}"#, Failure::NoModel("model 'x' not found".to_owned())),
            (400, r#"{"error":{"message":"bad sk-secret\n here"}}"#, Failure::Request(400, "bad [key] here".to_owned())),
            (
                400,
                r#"{"error":{"code":400,"type":"exceed_context_size_error","message":"too big","n_prompt_tokens":9,"n_ctx":4096}}"#,
                Failure::TooLong(Some(4096)),
            ),
            (
                400,
                r#"{"error":{"message":"This model's maximum context length is 8,192 tokens.","code":"context_length_exceeded"}}"#,
                Failure::TooLong(Some(8192)),
            ),
            (
                400,
                r#"{"error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}"#,
                Failure::TooLong(Some(200_000)),
            ),
            (413, "", Failure::TooLong(None)),
            (503, "loading", Failure::Busy { status: 503, after: None, detail: "loading".to_owned() }),
        ] {
            assert_eq!(check(status, &[], body), failure, "{status} {body}");
        }
        let spent = Failure::Quota(String::new(), Some(Duration::from_secs(172_800)));
        assert_eq!(check(429, &[("x-should-retry", "false"), ("retry-after", "172800")], ""), spent);
        assert_eq!(check(500, &[("x-should-retry", "false")], "no"), Failure::Request(500, "no".to_owned()));
    }
}
