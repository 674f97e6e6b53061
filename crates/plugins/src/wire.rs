//! The protocol's messages, as far as this client speaks it: revisions 2026-07-28 and 2025-11-25.
//!
//! Only shapes. What a server sends is read field by field; everything else is skipped without being
//! built. Invariant: a message with one key twice is refused, so that no two readers can differ.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The revision without a handshake.
pub const MODERN: &str = "2026-07-28";
/// The newest revision with one.
pub const LEGACY: &str = "2025-11-25";

/// Which of both a server speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Era {
    /// Each request carries all.
    Modern,
    /// `initialize` came first.
    Legacy,
}

/// A request or a notification of ours.
#[derive(Debug, Serialize)]
pub struct Outgoing<'a> {
    jsonrpc: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<u64>,
    method: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    params: Option<serde_json::Value>,
}

impl<'a> Outgoing<'a> {
    /// A request.
    pub const fn request(id: u64, method: &'a str, params: serde_json::Value) -> Self {
        Self { jsonrpc: "2.0", id: Some(id), method, params: Some(params) }
    }

    /// A notification.
    pub const fn notification(method: &'a str) -> Self {
        Self { jsonrpc: "2.0", id: None, method, params: None }
    }

    /// One line.
    pub fn line(&self) -> Vec<u8> {
        // Strings, numbers and values always encode.
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// An answer of ours to a server's request; `id` is its own text.
#[derive(Debug, Serialize)]
pub struct Reply<'a> {
    jsonrpc: &'static str,
    id: &'a RawValue,
    #[serde(skip_serializing_if = "Option::is_none")]
    result: Option<serde_json::Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<serde_json::Value>,
}

impl<'a> Reply<'a> {
    /// What this client does for servers: it says that it is there, and nothing else.
    pub fn to(method: &str, id: &'a RawValue) -> Self {
        let is_ping = method == "ping";
        let error = serde_json::json!({"code": -32601, "message": "this client does not offer that"});
        Self { jsonrpc: "2.0", id, result: is_ping.then(|| serde_json::json!({})), error: (!is_ping).then_some(error) }
    }

    /// One line.
    pub fn line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

/// Anything that a server sends.
#[derive(Debug, Deserialize)]
pub struct Incoming<'a> {
    /// Of a request or an answer.
    #[serde(borrow, default)]
    pub id: Option<&'a RawValue>,
    /// Of a request or a notification.
    #[serde(borrow, default)]
    pub method: Option<Cow<'a, str>>,
    /// Of an answer.
    #[serde(borrow, default)]
    pub result: Option<&'a RawValue>,
    /// Of an answer.
    #[serde(default)]
    pub error: Option<RpcError>,
}

impl Incoming<'_> {
    /// Whether it answers our request of this number.
    pub fn answers(&self, number: u64) -> bool {
        self.method.is_none() && self.id.is_some_and(|id| id.get().trim() == number.to_string())
    }
}

/// An error that a server answers.
#[derive(Debug, Deserialize)]
pub struct RpcError {
    /// Its number.
    #[serde(default)]
    pub code: i64,
    /// Its words.
    #[serde(default)]
    pub message: String,
}

/// The answer to `server/discover`.
#[derive(Debug, Deserialize)]
pub struct Discovered {
    /// Revisions that it speaks.
    #[serde(default, rename = "supportedVersions")]
    pub versions: Vec<String>,
}

/// The answer to `initialize`.
#[derive(Debug, Deserialize)]
pub struct Initialized {
    /// The revision that it chose.
    #[serde(rename = "protocolVersion")]
    pub version: String,
}

/// A page of `tools/list`.
#[derive(Debug, Deserialize)]
pub struct ToolPage<'a> {
    /// The tools.
    #[serde(borrow)]
    pub tools: Vec<&'a RawValue>,
    /// Where the next page begins.
    #[serde(default, rename = "nextCursor")]
    pub next: Option<String>,
}

/// A tool as its server describes it.
#[derive(Debug, Deserialize)]
pub struct ToolEntry<'a> {
    /// Its name.
    pub name: String,
    /// Its name for people.
    #[serde(default)]
    pub title: Option<String>,
    /// What it does.
    #[serde(default)]
    pub description: Option<String>,
    /// JSON Schema of the arguments.
    #[serde(borrow, default, rename = "inputSchema")]
    pub schema: Option<&'a RawValue>,
    /// Hints.
    #[serde(borrow, default)]
    pub annotations: Option<&'a RawValue>,
}

/// The answer to `tools/call`.
#[derive(Debug, Deserialize)]
pub struct CallResult<'a> {
    /// `complete`, or that the server wants to know more first.
    #[serde(default, rename = "resultType")]
    pub kind: Option<String>,
    /// The parts.
    #[serde(default)]
    pub content: Vec<Content>,
    /// The same as data.
    #[serde(borrow, default, rename = "structuredContent")]
    pub structured: Option<&'a RawValue>,
    /// Whether the tool failed.
    #[serde(default, rename = "isError")]
    pub is_error: bool,
}

/// A part of a result.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Content {
    /// `text`, `image`, `audio`, `resource`, `resource_link`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The text.
    pub text: Option<String>,
    /// Bytes in Base64.
    pub data: Option<String>,
    /// What they are.
    #[serde(rename = "mimeType")]
    pub mime: Option<String>,
    /// Of a link.
    pub uri: Option<String>,
    /// An embedded resource.
    pub resource: Option<Resource>,
}

/// An embedded resource.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Resource {
    /// Its name.
    pub uri: Option<String>,
    /// What it is.
    #[serde(rename = "mimeType")]
    pub mime: Option<String>,
    /// Its text.
    pub text: Option<String>,
    /// Or its bytes in Base64.
    pub blob: Option<String>,
}

/// Arguments of `tool_search`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// Words; none lists all.
    #[serde(default)]
    pub query: String,
}

/// Arguments of `tool_use`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Use {
    /// `server.tool`.
    pub tool: String,
    /// Its arguments.
    #[serde(default)]
    pub args: serde_json::Map<String, serde_json::Value>,
}
