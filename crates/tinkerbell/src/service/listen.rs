//! The daemon's listener: handed over, passed by the service manager, or bound by ourselves.
//!
//! Invariant: a socket is served only where clients look for it.

use listenfd::ListenFd;
use std::os::unix::net::UnixListener as StdListener;
use std::path::Path;
use tinkerbell_api::socket;
use tinkerbell_core::code::Fault;
use tokio::net::UnixListener;

/// The listener at `path`.
///
/// # Errors
/// When the place can not be used; see [`socket::bind`].
pub async fn listener(path: &Path, handed: Option<StdListener>) -> Result<UnixListener, Fault> {
    if let Some(handed) = handed {
        return socket::adopt(handed, path);
    }
    match passed() {
        None => socket::bind(path).await,
        Some(passed) => match socket::adopt(passed, path) {
            Ok(listener) => {
                tracing::info!("the service manager passed the socket");
                Ok(listener)
            }
            Err(fault) => {
                // Clients look at our own place; serving only the other one would be no service.
                tracing::warn!(%fault, "the socket that the service manager passed is not used");
                socket::bind(path).await
            }
        },
    }
}

/// The first Unix socket that the service manager passed to this process.
fn passed() -> Option<StdListener> {
    let mut fds = ListenFd::from_env();
    (0..fds.len()).find_map(|index| fds.take_unix_listener(index).ok().flatten())
}
