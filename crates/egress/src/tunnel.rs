//! Tunnels: what a `CONNECT` or SOCKS5 connection carries is looked at before the first byte passes.
//!
//! TLS must ask for the name of the tunnel; requests of HTTP are judged as if they had come plainly;
//! anything else passes only at a port that the operator named. Where a rule judges single requests, TLS
//! is ended here. Invariant: no byte reaches the host before the first bytes were understood.

use crate::gate::{Gate, No, Target};
use crate::hello::{self, First, Hello};
use crate::host::Host;
use crate::http::{self, Fixed, Place, note};
use crate::record::Record;
use crate::rules::Refusal;
use bytes::{Buf as _, Bytes, BytesMut};
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longest time for the first bytes.
const FIRST: Duration = Duration::from_secs(30);
/// How often a quiet tunnel is looked at.
const LOOK: Duration = Duration::from_secs(60);
/// Looks without a byte after which it is closed.
const LOOKS: u32 = 15;
/// Bytes that are passed at once.
const BLOCK: usize = 32 << 10;

/// A connection of the command.
pub trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A tunnel that was allowed.
pub struct Ready {
    target: Target,
    record: Arc<Record>,
    /// The host, where no request needs to be judged.
    upstream: Option<TcpStream>,
}

/// Judges a tunnel, and connects it where that is all there is to judge.
///
/// # Errors
/// When it is refused, or the host is not reached.
pub async fn open(gate: &Arc<Gate>, host: Host, port: u16, record: &Arc<Record>) -> Result<Ready, No> {
    let target = gate.admit(host, port).await?;
    let mut upstream = None;
    if let Some(rule) = target.reach.open {
        record.allow(gate.rule_id(rule));
        let stream = target.dial().await.map_err(No::Failed)?;
        if let Ok(address) = stream.peer_addr() {
            record.dialled(address);
        }
        upstream = Some(stream);
    }
    Ok(Ready { target, record: record.clone(), upstream })
}

/// Carries what comes, to its end. A boxed future: it may serve requests, which may open tunnels.
pub fn carry(gate: Arc<Gate>, client: Box<dyn Wire>, ready: Ready, place: Place) -> Pin<Box<dyn Future<Output = ()> + Send>> {
    Box::pin(async move {
        let record = ready.record.clone();
        if let Err(no) = look(gate, client, ready, place).await {
            note(no, &record);
        }
    })
}

async fn look(gate: Arc<Gate>, mut client: Box<dyn Wire>, mut ready: Ready, place: Place) -> Result<(), No> {
    let mut seen = BytesMut::new();
    let may_be_raw = ready.target.reach.is_raw;
    loop {
        match hello::first(&seen) {
            First::Http => {
                let fixed = Fixed { target: ready.target, is_sealed: false, record: ready.record, first: ready.upstream };
                http::serve(gate, Ahead::new(seen, client), Some(fixed), place).await;
                return Ok(());
            }
            First::Tls(hello) => {
                check_name(&hello, &ready.target.host)?;
                return sealed(gate, Ahead::new(seen, client), ready, place).await;
            }
            First::Odd(why) => return Err(refused(why)),
            First::Other if may_be_raw && ready.upstream.is_some() => break,
            First::Other => return Err(refused("it speaks neither TLS nor HTTP, and its port is not named in a rule")),
            First::More if seen.len() > hello::MOST => return Err(refused("its first message is too long")),
            First::More => {}
        }
        let mut byte = [0];
        let count = match ready.upstream.as_ref().filter(|_| may_be_raw && seen.is_empty()) {
            Some(upstream) => tokio::select! {
                // Both are cancel safe: a peek takes nothing.
                count = timeout(FIRST, client.read_buf(&mut seen)) => count,
                said = upstream.peek(&mut byte) => match said {
                    // The host greets first: neither TLS nor HTTP does.
                    Ok(count) if count > 0 => break,
                    _ => return Ok(()),
                },
            },
            None => timeout(FIRST, client.read_buf(&mut seen)).await,
        };
        match count {
            Ok(Ok(count)) if count > 0 => {}
            // A client that says nothing wanted nothing.
            _ => return Ok(()),
        }
    }
    relay(&gate, Ahead::new(seen, client), &mut ready).await
}

/// Whether TLS asks for the host that the tunnel was opened for.
fn check_name(hello: &Hello, host: &Host) -> Result<(), No> {
    if hello.is_hidden {
        return Err(refused("its greeting hides a name (encrypted client hello)"));
    }
    let is_same = match (&hello.name, host) {
        (None, Host::Address(_)) => true,
        (None, Host::Name(_)) => return Err(refused("its greeting names no host")),
        (Some(name), host) => Host::parse(name).is_ok_and(|asked| asked == *host),
    };
    if is_same { Ok(()) } else { Err(refused("its greeting names another host than the tunnel")) }
}

fn refused(why: &str) -> No {
    No::Refused(Refusal { why: why.to_owned(), way: "a connection must name one host, the same in every place".to_owned() })
}

async fn sealed(gate: Arc<Gate>, client: Ahead, mut ready: Ready, place: Place) -> Result<(), No> {
    if ready.upstream.is_some() {
        return relay(&gate, client, &mut ready).await;
    }
    let tls = gate.tls.as_ref().ok_or_else(|| No::Failed("TLS can not be read here".into()))?;
    let acceptor = tls.inward(&ready.target.host).map_err(No::Failed)?;
    let greeted = timeout(FIRST, acceptor.accept(client)).await.map_err(|_| No::Failed("its greeting was not finished".into()))?;
    let why =
        |error: io::Error| No::Failed(format!("the command does not take the proxy's certificate ({error}): it must read SSL_CERT_FILE"));
    let stream = greeted.map_err(why)?;
    let fixed = Fixed { target: ready.target, is_sealed: true, record: ready.record, first: None };
    http::serve(gate.clone(), stream, Some(fixed), place).await;
    Ok(())
}

/// Passes bytes both ways until both sides have ended, one has failed, or both are quiet for long.
async fn relay(gate: &Gate, client: Ahead, ready: &mut Ready) -> Result<(), No> {
    let (Some(upstream), Some(rule)) = (ready.upstream.take(), ready.target.reach.open) else { return Ok(()) };
    let (from_client, to_client) = tokio::io::split(client);
    let (from_host, to_host) = upstream.into_split();
    let record = &ready.record;
    let up = pump(from_client, to_host, record, |bytes| {
        record.up(bytes);
        gate.spend(rule, bytes)
    });
    let down = pump(from_host, to_client, record, |bytes| {
        record.down(bytes);
        true
    });
    match tokio::try_join!(up, down) {
        Err(Stopped::Budget) => Err(crate::gate::over_budget(gate.rule_id(rule)).into()),
        _ => Ok(()),
    }
}

/// Why a direction stopped.
enum Stopped {
    /// The rest may not be sent.
    Budget,
    /// The other side is gone, or nothing came for long.
    Over,
}

async fn pump<R, W>(mut from: R, mut to: W, record: &Record, mut take: impl FnMut(u64) -> bool) -> Result<(), Stopped>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut block = vec![0; BLOCK];
    let (mut total, mut quiet) = (record.total(), 0);
    loop {
        let count = match timeout(LOOK, from.read(&mut block)).await {
            Ok(Ok(count)) => count,
            Ok(Err(_)) => return Err(Stopped::Over),
            Err(_) => {
                quiet = if record.total() == total { quiet + 1 } else { 0 };
                total = record.total();
                if quiet >= LOOKS {
                    return Err(Stopped::Over);
                }
                continue;
            }
        };
        if count == 0 {
            // Half closed: the other direction goes on.
            return to.shutdown().await.map_err(|_| Stopped::Over);
        }
        if !take(count as u64) {
            return Err(Stopped::Budget);
        }
        let bytes = block.get(..count).unwrap_or_default();
        match timeout(LOOK * LOOKS, to.write_all(bytes)).await {
            Ok(Ok(())) => {}
            _ => return Err(Stopped::Over),
        }
    }
}

/// A connection of which some bytes were read already.
pub struct Ahead {
    seen: Bytes,
    rest: Box<dyn Wire>,
}

impl Ahead {
    fn new(seen: BytesMut, rest: Box<dyn Wire>) -> Self {
        Self { seen: seen.freeze(), rest }
    }
}

impl AsyncRead for Ahead {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.seen.is_empty() {
            return Pin::new(&mut self.rest).poll_read(cx, buf);
        }
        let count = self.seen.len().min(buf.remaining());
        buf.put_slice(self.seen.get(..count).unwrap_or_default());
        self.seen.advance(count);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Ahead {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.rest).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(cx)
    }
}
