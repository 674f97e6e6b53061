//! A proxy with its resolver and its records, and hosts that note who came.

use crate::gate::{Gate, Resolve};
use crate::options::{Egress, HostEntry};
use crate::record::Log;
use crate::rules::Allowlist;
use crate::tls::Tls;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tinkerbell_core::clock::{Clock, Stamp};
use tinkerbell_core::event::Connection;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

pub struct Still;

impl Clock for Still {
    fn now(&self) -> Stamp {
        Stamp { wall_ms: 1_790_000_000_000, mono_ms: 5 }
    }
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// Every name leads to the same addresses.
#[derive(Clone)]
pub struct Everywhere(pub Vec<IpAddr>);

/// The one global address that this machine has in tests.
pub const OWN: [u8; 4] = [45, 33, 32, 156];

impl Resolve for Everywhere {
    fn resolve(&self, _name: String) -> Pin<Box<dyn Future<Output = std::io::Result<Vec<IpAddr>>> + Send>> {
        let found = self.0.clone();
        Box::pin(async move { Ok(found) })
    }
    fn is_own(&self, address: IpAddr) -> bool {
        address == IpAddr::from(OWN)
    }
}

pub struct House {
    pub gate: Arc<Gate>,
    pub proxy: SocketAddr,
    dir: tempfile::TempDir,
}

/// An entry for one port.
pub fn entry(name: &str, port: u16) -> HostEntry {
    HostEntry { name: name.to_owned(), ports: vec![port], ..HostEntry::default() }
}

impl House {
    pub async fn with(host: Vec<HostEntry>, resolver: Everywhere, authorities: Option<&std::path::Path>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let allow = Allowlist::compile(&Egress { host, presets: Vec::new() }).unwrap();
        let log = Log::open(&dir.path().join("connections"), Arc::new(Still)).unwrap();
        let tls = allow.reads_tls().then(|| Tls::new(authorities).unwrap());
        let values = [("KEY".to_owned(), "true-value".to_owned())].into();
        let gate = Gate::new(allow, values, tls, log, Box::new(resolver));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = listener.local_addr().unwrap();
        tokio::spawn(crate::serve::accept(gate.clone(), listener));
        Self { gate, proxy, dir }
    }

    /// Sends bytes to the proxy and reads until it closes or is quiet for long.
    pub async fn say(&self, bytes: &[u8]) -> String {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        stream.shutdown().await.ok();
        rest(&mut stream).await
    }

    /// A tunnel by `CONNECT`; the stream behind the answer, or the answer.
    pub async fn connect(&self, to: &str) -> Result<TcpStream, String> {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n\r\n").as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => break,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        if head.starts_with("HTTP/1.1 200") { Ok(stream) } else { Err(head + &rest(&mut stream).await) }
    }

    /// A tunnel by SOCKS5 to a name of any bytes; the stream, or the code of the refusal.
    pub async fn socks(&self, name: &[u8], port: u16) -> Result<TcpStream, u8> {
        self.socks_to([vec![3, name.len() as u8], name.to_vec()].concat(), port).await
    }

    pub async fn socks_to(&self, address: Vec<u8>, port: u16) -> Result<TcpStream, u8> {
        let mut stream = TcpStream::connect(self.proxy).await.unwrap();
        stream.write_all(&[5, 1, 0]).await.unwrap();
        let mut hello = [0; 2];
        stream.read_exact(&mut hello).await.unwrap();
        assert_eq!(hello, [5, 0]);
        let request = [vec![5, 1, 0], address, port.to_be_bytes().to_vec()].concat();
        stream.write_all(&request).await.unwrap();
        let mut answer = [0; 10];
        stream.read_exact(&mut answer).await.map_err(|_| 255_u8)?;
        if answer[1] == 0 { Ok(stream) } else { Err(answer[1]) }
    }

    /// The records so far, once there are as many; those of open connections are not among them.
    pub async fn records(&self, count: usize) -> Vec<Connection> {
        for _ in 0..500 {
            let text = std::fs::read_to_string(self.dir.path().join("connections")).unwrap();
            if text.lines().count() >= count {
                return text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{}", std::fs::read_to_string(self.dir.path().join("connections")).unwrap());
    }
}

/// What comes until the other side closes; at most some seconds.
pub async fn rest(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    drop(tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut all)).await);
    String::from_utf8_lossy(&all).into_owned()
}

/// A host that answers every request with a short text and keeps the connection.
pub struct Sink {
    pub port: u16,
    pub address: IpAddr,
    heard: Arc<Mutex<Vec<String>>>,
    came: Arc<Mutex<usize>>,
}

impl Sink {
    pub async fn at(address: &str) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (heard, came) = (Arc::new(Mutex::new(Vec::new())), Arc::new(Mutex::new(0)));
        let sink = Self { port, address: address.parse().unwrap(), heard: heard.clone(), came: came.clone() };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                *came.lock().unwrap() += 1;
                tokio::spawn(serve(stream, heard.clone()));
            }
        });
        sink
    }

    /// How many connections came.
    pub fn came(&self) -> usize {
        *self.came.lock().unwrap()
    }

    /// Requests that came, heads and bodies.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap().clone()
    }
}

/// A server of HTTP that is as lenient as servers are: it takes bare line feeds, and reads on.
pub async fn serve<S: AsyncRead + tokio::io::AsyncWrite + Unpin>(mut stream: S, heard: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    loop {
        let Some((head, body)) = one(&mut stream, &mut buffer).await else { return };
        let text = format!("{head}{body}");
        let is_head = head.starts_with("HEAD ");
        heard.lock().unwrap().push(text);
        let answer =
            if is_head { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n" } else { "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello" };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn one<S: AsyncRead + Unpin>(stream: &mut S, buffer: &mut Vec<u8>) -> Option<(String, String)> {
    let end = |bytes: &[u8]| bytes.windows(4).position(|four| four == b"\r\n\r\n").map(|at| at + 4);
    while end(buffer).is_none() {
        if stream.read_buf(buffer).await.ok()? == 0 {
            return None;
        }
    }
    let head: Vec<u8> = buffer.drain(..end(buffer)?).collect();
    let head = String::from_utf8_lossy(&head).into_owned();
    let lower = head.to_ascii_lowercase();
    let mut body = Vec::new();
    if lower.contains("transfer-encoding: chunked") {
        while !buffer.ends_with(b"0\r\n\r\n") {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        body.append(buffer);
    } else if let Some((_, rest)) = lower.split_once("content-length: ") {
        let len: usize = rest.lines().next()?.trim().parse().ok()?;
        while buffer.len() < len {
            if stream.read_buf(buffer).await.ok()? == 0 {
                return None;
            }
        }
        body.extend(buffer.drain(..len));
    }
    Some((head, String::from_utf8_lossy(&body).into_owned()))
}
