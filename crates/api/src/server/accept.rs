//! Connections: who they are and how many.
//!
//! Knows nothing of requests. Invariant: the peer's user id comes from the kernel, and at most
//! [`HARD_LIMIT`] connections are open at once.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;

/// Connections beyond this many are told to come back later.
const SOFT_LIMIT: usize = 256;
/// Beyond this many, the next ones wait in the kernel's queue: answering costs a descriptor too.
const HARD_LIMIT: usize = 320;
/// Connections of users other than the owner, root included; beyond it they are cut.
const STRANGERS: usize = 16;
/// How long a client that was let in may take to speak when the door closes.
const HEAR: Duration = Duration::from_secs(2);

/// The other end of a connection.
#[derive(Debug, Clone)]
pub(super) struct Peer {
    /// Its user id, as the kernel says.
    pub uid: Option<u32>,
    /// Whether too many connections were open when it came.
    pub is_crowded: bool,
}

/// The listener with its count.
pub(super) struct Door {
    listener: UnixListener,
    slots: Arc<Semaphore>,
    /// Room for users other than the owner.
    strangers: Arc<Semaphore>,
    owner: u32,
    clients: Arc<AtomicUsize>,
    /// Connections that have not said a word yet.
    unheard: Arc<watch::Sender<usize>>,
    stop: CancellationToken,
}

impl Door {
    pub(super) fn new(listener: UnixListener, clients: Arc<AtomicUsize>, stop: CancellationToken, owner: u32) -> Self {
        let (unheard, _) = watch::channel(0);
        let [slots, strangers] = [HARD_LIMIT, STRANGERS].map(|most| Arc::new(Semaphore::new(most)));
        Self { listener, slots, strangers, owner, clients, unheard: Arc::new(unheard), stop }
    }

    /// Completes after the stop, once every client that was let in has been heard: closing on one
    /// that is about to speak would look to it like a crash. Who comes later waits in the kernel's
    /// queue, where the next process that holds the socket finds it.
    pub(super) fn closing(&self) -> impl Future<Output = ()> + Send + use<> {
        let (stop, mut unheard) = (self.stop.clone(), self.unheard.subscribe());
        async move {
            stop.cancelled().await;
            // One that stays silent is cut.
            let _silent_or_gone = tokio::time::timeout(HEAR, unheard.wait_for(|count| *count == 0)).await.is_err();
        }
    }
}

impl Door {
    /// The next connection, once there is room for it. Cancel safe.
    pub(super) async fn accept(&mut self) -> (Visit, Peer) {
        loop {
            let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else {
                // The semaphore is never closed while the door stands.
                std::future::pending::<()>().await;
                continue;
            };
            // Both branches are cancel safe: a connection that was not taken stays in the queue.
            let accepted = tokio::select! {
                biased;
                () = self.stop.cancelled() => std::future::pending().await,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    let uid = stream.peer_cred().ok().map(|cred| cred.uid());
                    let stranger = if uid == Some(self.owner) { None } else { Some(Arc::clone(&self.strangers).try_acquire_owned()) };
                    // Who is refused anyway takes no room from the owner.
                    let Ok(stranger) = stranger.transpose() else { continue };
                    let open = self.clients.fetch_add(1, Ordering::Relaxed);
                    self.unheard.send_modify(|count| *count = count.saturating_add(1));
                    let unheard = Some(Unheard(Arc::clone(&self.unheard)));
                    let visit = Visit { stream, unheard, clients: Arc::clone(&self.clients), _slot: slot, _stranger: stranger };
                    return (visit, Peer { uid, is_crowded: open >= SOFT_LIMIT });
                }
                Err(error) => {
                    // Mostly "too many open files": waiting lets some of them close.
                    tracing::warn!(%error, "accepting a client failed");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }
}

/// One open connection; leaving is counted by dropping it.
pub(super) struct Visit {
    stream: UnixStream,
    unheard: Option<Unheard>,
    clients: Arc<AtomicUsize>,
    _slot: OwnedSemaphorePermit,
    _stranger: Option<OwnedSemaphorePermit>,
}

/// A connection that has not said a word yet.
struct Unheard(Arc<watch::Sender<usize>>);

impl Drop for Unheard {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        self.clients.fetch_sub(1, Ordering::Relaxed);
    }
}

impl AsyncRead for Visit {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() && buffer.filled().len() > before {
            self.unheard = None;
        }
        read
    }
}

impl AsyncWrite for Visit {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
