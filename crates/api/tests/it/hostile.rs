//! What no program of ours sends: browsers, proxies, slow and huge requests, wrong methods.
//!
//! Raw bytes on a real socket. Invariant: nothing here reaches the engine.

use crate::fake::Fake;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_api::{ServerState, serve, socket};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_util::sync::CancellationToken;

struct Door {
    engine: Arc<Fake>,
    path: PathBuf,
    _dir: tempfile::TempDir,
}

async fn door() -> Door {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/s");
    let engine = Fake::new();
    let listener = socket::bind(&path).await.unwrap();
    let state = ServerState::new(engine.clone(), engine.clone(), engine.clone(), CancellationToken::new());
    tokio::spawn(serve(listener, state));
    Door { engine, path, _dir: dir }
}

impl Door {
    /// Sends bytes and reads all that comes; the status and the body.
    async fn says(&self, bytes: &[u8]) -> (u16, String) {
        let mut stream = socket::connect(&self.path).await.unwrap();
        // A server that refuses early may close before it has taken all.
        stream.write_all(bytes).await.ok();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer)).await;
        let text = String::from_utf8_lossy(&answer).into_owned();
        assert!(read.is_ok(), "no end: {text}");
        let status = text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
        (status, text)
    }
}

fn request(line: &str, headers: &[&str], body: &str) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nconnection: close\r\n");
    headers.iter().for_each(|header| text.push_str(&format!("{header}\r\n")));
    format!("{text}\r\n{body}").into_bytes()
}

#[tokio::test]
async fn a_browser_a_proxy_and_a_wrong_host_are_refused() {
    let door = door().await;
    let host = "host: tinkerbell";
    let cases: &[(&str, &[&str], u16)] = &[
        ("GET /version", &[host], 200),
        ("GET /version", &["host: localhost"], 200),
        ("GET http://tinkerbell/version", &[host], 200),
        ("GET /version", &[], 403),
        ("GET /version", &["host:"], 403),
        ("GET /version", &["host: localhost:8080"], 403),
        ("GET /version", &["host: 127.0.0.1"], 403),
        ("GET /version", &["host: attacker.example"], 403),
        ("GET /version", &["host: tinkerbell.attacker.example"], 403),
        ("GET /version", &[host, "host: attacker.example"], 403),
        ("GET http://attacker.example/version", &[host], 403),
        ("GET /version", &[host, "origin: http://attacker.example"], 403),
        ("GET /version", &[host, "origin: null"], 403),
        ("GET /version", &[host, "Origin: http://tinkerbell"], 403),
        ("GET /version", &[host, "sec-fetch-site: same-origin"], 403),
        ("GET /version", &[host, "sec-fetch-mode: navigate"], 403),
        ("GET /version", &[host, "referer: http://attacker.example/"], 403),
        ("GET /version", &[host, "cookie: a=b"], 403),
        ("GET /version", &[host, "x-forwarded-for: 10.0.0.1"], 403),
        ("GET /version", &[host, "forwarded: for=10.0.0.1"], 403),
        ("GET /version", &[host, "via: 1.1 proxy"], 403),
        ("GET /v1/events", &[host, "upgrade: websocket", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==", "sec-websocket-version: 13"], 403),
        ("GET /v1/events", &[host, "upgrade: h2c"], 403),
        ("OPTIONS /v1/tasks", &[host, "access-control-request-method: POST", "origin: http://attacker.example"], 403),
        ("POST /v1/daemon/stop", &[host, "origin: http://attacker.example", "content-length: 0"], 403),
    ];
    for (line, headers, wanted) in cases {
        let (status, text) = door.says(&request(line, headers, "")).await;
        assert_eq!(status, *wanted, "{line} {headers:?}: {text}");
        assert!(*wanted != 403 || text.contains("TB-API-013"), "{text}");
        assert!(!text.to_ascii_lowercase().contains("access-control-allow"), "{text}");
    }
    assert_eq!(door.engine.stops.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn wrong_methods_places_types_and_sizes_are_refused() {
    let door = door().await;
    let host = "host: tinkerbell";
    let goal = r#"{"goal":"x","cwd":"/"}"#;
    let length = format!("content-length: {}", goal.len());
    let many: Vec<String> = (0..100).map(|at| format!("x-{at}: y")).collect();
    let many: Vec<&str> = [host].into_iter().chain(many.iter().map(String::as_str)).collect();
    let long = format!("x: {}", "y".repeat(128 << 10));
    let cases: &[(&str, &[&str], &str, u16)] = &[
        ("DELETE /v1/tasks", &[host], "", 405),
        ("PUT /v1/daemon", &[host], "", 405),
        ("TRACE /version", &[host], "", 405),
        ("OPTIONS /v1/tasks", &[host], "", 405),
        ("CONNECT tinkerbell:80", &[host], "", 403),
        ("GET /", &[host], "", 404),
        ("GET /v2/tasks", &[host], "", 404),
        ("GET /v1/tasks/../daemon", &[host], "", 404),
        ("GET //v1/daemon", &[host], "", 404),
        ("POST /v1/tasks", &[host, &length, "content-type: text/plain"], goal, 400),
        ("POST /v1/tasks", &[host, &length, "content-type: application/x-www-form-urlencoded"], goal, 400),
        ("POST /v1/tasks", &[host, &length, "content-type: multipart/form-data; boundary=x"], goal, 400),
        ("POST /v1/tasks", &[host, &length], goal, 400),
        ("POST /v1/daemon/stop", &[host, &length, "content-type: text/plain"], goal, 400),
        ("POST /v1/tasks", &[host, "content-length: 2000000", "content-type: application/json"], "{", 413),
        ("GET /version", &many, "", 431),
        ("GET /version", &[host, &long], "", 431),
        ("POST /v1/tasks", &[host, "content-length: 5", "content-length: 6"], "xxxxx", 400),
        ("POST /v1/tasks", &[host, "transfer-encoding: chunked, identity", "content-type: application/json"], "0\r\n\r\n", 400),
    ];
    for (line, headers, body, wanted) in cases {
        let (status, text) = door.says(&request(line, headers, body)).await;
        let short: String = text.chars().take(300).collect();
        assert_eq!(status, *wanted, "{line}: {short}");
    }
    for bytes in
        [&b"\x16\x03\x01\x02\x00\x01"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\r\n\r\n\0\0\0", b"GET /version HTTP/9.9\r\n\r\n"]
    {
        let (status, text) = door.says(bytes).await;
        assert!(matches!(status, 0 | 400 | 505), "{text}");
    }
    assert!(door.engine.submissions.lock().unwrap().is_empty() && door.engine.stops.load(std::sync::atomic::Ordering::SeqCst) == 0);
}

/// Clients that send a byte now and then hold nobody up, and are cut.
#[tokio::test]
async fn slow_clients_are_cut_and_hold_nobody_up() {
    let door = door().await;
    let head = async {
        let mut stream = socket::connect(&door.path).await.unwrap();
        stream.write_all(b"GET /version HTTP/1.1\r\nhost: tink").await.unwrap();
        let mut answer = Vec::new();
        let dripping = async {
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                if stream.write_all(b"e").await.is_err() {
                    break;
                }
            }
            stream.read_to_end(&mut answer).await.ok();
        };
        assert!(tokio::time::timeout(Duration::from_secs(40), dripping).await.is_ok(), "a slow head is served for ever");
    };
    let silent = async {
        let mut stream = socket::connect(&door.path).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(40), stream.read_to_end(&mut answer)).await;
        assert!(read.is_ok(), "a silent client is kept for ever");
    };
    let body = async {
        let headers = ["host: tinkerbell", "content-length: 10", "content-type: application/json"];
        let (status, text) = door.says(&request("POST /v1/tasks", &headers, "{")).await;
        assert_eq!(status, 400, "{text}");
    };
    let others = async {
        for _ in 0..20 {
            assert_eq!(door.says(&request("GET /version", &["host: tinkerbell"], "")).await.0, 200);
        }
    };
    tokio::join!(head, silent, body, others);
}

/// More clients at once than are served: they are told, and those after them are served.
#[tokio::test]
async fn a_crowd_is_told_to_come_back() {
    let door = door().await;
    let mut held = Vec::new();
    for _ in 0..260 {
        held.push(socket::connect(&door.path).await.unwrap());
    }
    let (status, text) = door.says(&request("GET /version", &["host: tinkerbell"], "")).await;
    assert_eq!(status, 503, "{text}");
    drop(held);
    let mut status = 503;
    for _ in 0..500 {
        if status == 200 {
            break;
        }
        tokio::task::yield_now().await;
        status = door.says(&request("GET /version", &["host: tinkerbell"], "")).await.0;
    }
    assert_eq!(status, 200);
}
