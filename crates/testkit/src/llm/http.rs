//! As much HTTP/1.1 as one request and one answer need.
//!
//! Not a server for anything but tests. Invariant: it reads no more than the request.

use super::Request;
use serde_json::Value;
use std::collections::HashMap;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Longest head and longest body.
const MOST_HEAD: usize = 64 * 1024;
const MOST_BODY: usize = 32 * 1024 * 1024;
/// A client that has its answer closes within this time.
const GOODBYE: Duration = Duration::from_secs(20);

/// Reads one request; `None` when the client said nothing.
pub async fn read(socket: &mut TcpStream) -> io::Result<Option<Request>> {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        if bytes.len() > MOST_HEAD || socket.read_buf(&mut bytes).await? == 0 {
            return Ok(None);
        }
    };
    let mut body = bytes.split_off(end);
    let head = String::from_utf8_lossy(&bytes).into_owned();
    let path = head.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let headers: HashMap<String, String> = head
        .lines()
        .skip(1)
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0).min(MOST_BODY);
    while body.len() < length {
        if socket.read_buf(&mut body).await? == 0 {
            return Ok(None);
        }
    }
    let parsed = serde_json::from_slice(&body).unwrap_or(Value::Null);
    Ok(Some(Request { path, headers, bytes: body, body: parsed }))
}

/// Writes a whole answer.
pub async fn whole(socket: &mut TcpStream, status: u16, headers: &[(&str, &str)], body: &str) -> io::Result<()> {
    let kind = if body.starts_with('<') { "text/html" } else { "application/json" };
    let mut head = format!("HTTP/1.1 {status} Scripted\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n", body.len());
    headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
    socket.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    socket.shutdown().await
}

/// Begins a stream of events.
pub async fn begin(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n").await
}

/// Writes a piece of it.
pub async fn chunk(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    if bytes.is_empty() {
        return Ok(());
    }
    let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
    socket.write_all(&framed).await
}

/// The last piece and the end in one write, so that a client that has read the piece has read all.
pub async fn last(socket: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let framed = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n0\r\n\r\n"].concat();
    socket.write_all(&framed).await?;
    socket.shutdown().await
}

/// Whether the client read all that was written: one that dies with bytes unread resets the connection.
pub async fn is_taken(socket: &mut TcpStream) -> bool {
    let mut rest = [0; 64];
    loop {
        match tokio::time::timeout(GOODBYE, socket.read(&mut rest)).await {
            Ok(Ok(0)) => return true,
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return false,
        }
    }
}

/// Ends it as the protocol wants.
pub async fn end(socket: &mut TcpStream) -> io::Result<()> {
    socket.write_all(b"0\r\n\r\n").await?;
    socket.shutdown().await
}
