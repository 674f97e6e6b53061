//! A few lines of HTTP/1.1 for loopback servers: one request, one answer, one deadline.
//!
//! No TLS, no redirects, no keep-alive: tests talk to servers on this machine. A client library
//! would cost more build time than all chores together.

use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Longest answer that is read; a probe needs far less.
const ANSWER_BYTES: u64 = 4 << 20;

/// Asks for a page and returns its body.
///
/// # Errors
/// No connection, no answer in time, or a status that is not 200.
pub fn get(url: &str, patience: Duration) -> Result<String> {
    exchange("GET", url, "", patience)
}

/// Sends JSON and returns the body of the answer.
///
/// # Errors
/// As [`get`].
pub fn post(url: &str, json: &str, patience: Duration) -> Result<String> {
    exchange("POST", url, json, patience)
}

fn exchange(method: &str, url: &str, body: &str, patience: Duration) -> Result<String> {
    let (authority, path) = split(url)?;
    let address = authority.to_socket_addrs().with_context(|| format!("cannot resolve {authority}"))?.next();
    let address = address.with_context(|| format!("{authority} has no address"))?;
    let mut stream = TcpStream::connect_timeout(&address, patience).with_context(|| format!("cannot reach {url}"))?;
    stream.set_read_timeout(Some(patience))?;
    stream.set_write_timeout(Some(patience))?;
    let length = body.len();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {authority}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer).with_context(|| format!("no whole answer from {url}"))?;
    parse(&String::from_utf8_lossy(&answer)).with_context(|| format!("{method} {url}"))
}

/// Splits `http://host:port/path` into authority and path.
fn split(url: &str) -> Result<(&str, &str)> {
    let Some(rest) = url.strip_prefix("http://") else {
        bail!("{url} is no plain http:// address");
    };
    Ok(rest.find('/').map_or((rest, "/"), |at| rest.split_at(at)))
}

fn parse(answer: &str) -> Result<String> {
    let (head, body) = answer.split_once("\r\n\r\n").context("the answer has no end of headers")?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if status != "200" {
        bail!("status {status}: {}", body.chars().take(400).collect::<String>());
    }
    let chunked = head.to_ascii_lowercase().contains("transfer-encoding: chunked");
    Ok(if chunked { join_chunks(body) } else { body.to_owned() })
}

fn join_chunks(mut body: &str) -> String {
    let mut whole = String::new();
    while let Some((size, rest)) = body.split_once("\r\n") {
        let size = usize::from_str_radix(size.split(';').next().unwrap_or_default().trim(), 16).unwrap_or(0);
        let Some(chunk) = rest.get(..size).filter(|_| size > 0) else { break };
        whole.push_str(chunk);
        body = rest.get(size..).unwrap_or_default().trim_start_matches("\r\n");
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::{parse, split};

    #[test]
    fn addresses_split_into_host_and_path() {
        assert_eq!(split("http://127.0.0.1:8080/v1/models").unwrap(), ("127.0.0.1:8080", "/v1/models"));
        assert_eq!(split("http://localhost:1").unwrap(), ("localhost:1", "/"));
        assert!(split("https://localhost").is_err());
    }

    #[test]
    fn answers_give_body_or_status() {
        assert_eq!(parse("HTTP/1.1 200 OK\r\na: b\r\n\r\nbody").unwrap(), "body");
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nab\nc\r\n1\r\nd\r\n0\r\n\r\n";
        assert_eq!(parse(chunked).unwrap(), "ab\ncd");
        let refused = parse("HTTP/1.1 503 Busy\r\n\r\nloading").unwrap_err().to_string();
        assert_eq!(refused, "status 503: loading");
        assert!(parse("HTTP/1.1 200 OK\r\n").is_err());
    }
}
