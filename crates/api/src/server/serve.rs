//! Serving connections: one protocol, with limits on everything that a client may make us hold.
//!
//! HTTP/1.1 alone, no upgrade to anything else. Invariant: no client holds a connection longer than
//! [`HEAD`] without a whole head of a request, nor makes us keep more than [`HEAD_BYTES`] of it.

use super::accept::{Door, Peer};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

/// Longest time from the first moment of a connection, or from the end of the answer before, to the
/// last byte of a request's head.
const HEAD: Duration = Duration::from_secs(10);
/// Most bytes of a head.
const HEAD_BYTES: usize = 64 << 10;
/// Most headers of a request; ours have five.
const HEADERS: usize = 48;

/// Serves whoever the door lets in until it is closed, and answers who was let in.
pub(super) async fn serve(mut door: Door, router: Router) {
    let (connections, quit) = (TaskTracker::new(), CancellationToken::new());
    let closing = door.closing();
    tokio::pin!(closing);
    loop {
        // Both branches are cancel safe: a connection that was not taken stays in the queue.
        let (visit, peer) = tokio::select! {
            biased;
            () = &mut closing => break,
            visit = door.accept() => visit,
        };
        connections.spawn(talk(TokioIo::new(visit), peer, router.clone(), quit.clone()));
    }
    quit.cancel();
    connections.close();
    connections.wait().await;
}

async fn talk(io: TokioIo<super::accept::Visit>, peer: Peer, router: Router, quit: CancellationToken) {
    let service = service_fn(move |request: Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer.clone()));
        router.clone().oneshot(request)
    });
    let mut builder = Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(HEAD).max_headers(HEADERS).max_buf_size(HEAD_BYTES);
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        biased;
        ended = &mut connection => ended,
        () = quit.cancelled() => {
            // The request under way is answered; the next one is another daemon's.
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a client's connection ended");
    }
}
