//! The proxy's life: plan in, listening socket in, connections until the keeper lets go.
//!
//! Invariant: it opens no socket to listen on; it has the one that was handed in, or none.

use crate::credential::placeholder;
use crate::gate::{Gate, System};
use crate::hello;
use crate::http;
use crate::record::Log;
use crate::rules::Allowlist;
use crate::socks;
use crate::tls::Tls;
use crate::wire::{Answer, Plan};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
use std::io::{self, IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_core::clock::Clock;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// Connections that are served at once; others wait in the kernel's queue.
const CONNECTIONS: usize = 128;
/// Longest time for a client's first byte.
const FIRST: Duration = Duration::from_secs(30);
/// Largest plan.
const PLAN_BYTES: u32 = 4 << 20;
/// Longest time that work for no one may hold up the end.
const END: Duration = Duration::from_millis(200);

/// Serves one run. `control` is the socket to the keeper, `connections` the file of records, `bundle`
/// where certificates go that the command is to trust.
///
/// # Errors
/// When the keeper is gone before it began, or the socket can not be served.
pub fn run(mut control: UnixStream, connections: &Path, bundle: &Path, clock: Arc<dyn Clock>) -> io::Result<()> {
    let gate = read_plan(&mut control).and_then(|plan| prepare(plan, connections, bundle, clock));
    let answer = gate.as_ref().map_or_else(|why| Answer::Failed { why: why.clone() }, |_| Answer::Ready);
    let mut line = serde_json::to_vec(&answer)?;
    line.push(b'\n');
    control.write_all(&line)?;
    let gate = gate.map_err(io::Error::other)?;
    let Some(listener) = receive(&control)? else { return Ok(()) };
    let listener = std::net::TcpListener::from(listener);
    listener.set_nonblocking(true)?;
    control.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let served = runtime.block_on(async move {
        let mut control = tokio::net::UnixStream::from_std(control)?;
        let listener = TcpListener::from_std(listener)?;
        tokio::select! {
            served = accept(gate, listener) => served,
            // The keeper says nothing more: its end is the end.
            _ = tokio::io::AsyncReadExt::read_u8(&mut control) => Ok(()),
        }
    });
    // Connections that are open end here, and each leaves its record.
    runtime.shutdown_timeout(END);
    served
}

fn read_plan(control: &mut UnixStream) -> Result<Plan, String> {
    let mut len = [0; 4];
    control.read_exact(&mut len).map_err(|error| format!("no plan came: {error}"))?;
    let len = u32::from_le_bytes(len);
    if len > PLAN_BYTES {
        return Err("the plan is too long".to_owned());
    }
    let mut text = vec![0; len as usize];
    control.read_exact(&mut text).map_err(|error| format!("no plan came: {error}"))?;
    serde_json::from_slice(&text).map_err(|error| format!("the plan is malformed: {error}"))
}

fn prepare(plan: Plan, connections: &Path, bundle: &Path, clock: Arc<dyn Clock>) -> Result<Arc<Gate>, String> {
    let allow = Allowlist::compile(&plan.egress)?;
    let log = Log::open(connections, clock).map_err(|error| format!("{} can not be written: {error}", connections.display()))?;
    let tls = if allow.reads_tls() { Some(Tls::new(plan.authorities.as_deref())?) } else { None };
    if let Some(tls) = &tls {
        std::fs::write(bundle, tls.bundle()).map_err(|error| format!("{} can not be written: {error}", bundle.display()))?;
    }
    Ok(Gate::new(allow, plan.values.into_iter().collect(), tls, log, Box::new(System)))
}

/// Waits for the listening socket; `None` when the keeper has gone.
fn receive(control: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut beside = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let got = recvmsg(control.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut beside, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Ok(None);
    }
    let fd = beside.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    fd.map(Some).ok_or_else(|| io::Error::other("no socket was handed over"))
}

/// Serves every connection that comes.
///
/// # Errors
/// When the socket can not be served any more.
pub async fn accept(gate: Arc<Gate>, listener: TcpListener) -> io::Result<()> {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return Ok(()) };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            // Too many open files, or a client that left while it waited: the next one may be served.
            Err(_) => {
                tokio::time::sleep(Duration::from_millis(20)).await;
                continue;
            }
        };
        let gate = gate.clone();
        tokio::spawn(async move {
            client(gate, stream, Arc::new(place)).await;
        });
    }
}

/// Tells by the first byte what a client speaks.
async fn client(gate: Arc<Gate>, stream: TcpStream, place: http::Place) {
    // Small writes are forwarded as they come; failing only makes them slower.
    stream.set_nodelay(true).ok();
    let mut byte = [0];
    match timeout(FIRST, stream.peek(&mut byte)).await {
        Ok(Ok(1)) if byte == [5] => socks::serve(gate, Box::new(stream), place).await,
        Ok(Ok(1)) if matches!(hello::first(&byte), hello::First::More | hello::First::Http) && byte != [22] => {
            http::serve(gate, stream, None, place).await;
        }
        Ok(Ok(1)) => gate.log.begin("other", "", 0).refuse("it speaks neither HTTP nor SOCKS5 to the proxy"),
        _ => {}
    }
}

/// Variables that a command sees for the credentials of a list: placeholders.
#[must_use]
pub fn variables(allow: &Allowlist) -> Vec<(String, String)> {
    let names = allow.rules().iter().filter_map(|rule| rule.credential.as_ref()).map(|credential| credential.name.clone());
    names.map(|name| (name.clone(), placeholder(&name))).collect()
}
