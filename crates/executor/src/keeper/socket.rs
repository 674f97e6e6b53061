//! The keeper's socket: standard input, signals, stopping, and the bell for news.
//!
//! Requests are lines of JSON. Invariant: a chunk of standard input is delivered at most once per
//! number, however often a daemon sends it.

use super::{Keeper, STDIN_BYTES};
use crate::wire::{Answer, Request};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;

/// Most daemons and tools that may be connected at once.
const CLIENTS: usize = 16;
/// Longest request: a chunk of standard input as a list of numbers.
const REQUEST_BYTES: usize = 8 << 20;

/// One connection.
pub(crate) struct Client {
    stream: UnixStream,
    text: Vec<u8>,
    watches: bool,
}

impl Client {
    /// Its descriptor.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Keeper {
    pub(super) fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            let is_ours = rustix::net::sockopt::socket_peercred(&stream).is_ok_and(|peer| peer.uid == rustix::process::geteuid());
            if is_ours && self.clients.len() < CLIENTS && stream.set_nonblocking(true).is_ok() {
                self.clients.push(Client { stream, text: Vec::new(), watches: false });
            }
        }
    }

    pub(super) fn serve_client(&mut self, index: usize) {
        let Some(client) = self.clients.get_mut(index) else { return };
        let mut block = [0; 65536];
        let is_open = match client.stream.read(&mut block) {
            Ok(0) => false,
            Ok(count) => {
                client.text.extend(block.iter().take(count));
                client.text.len() <= REQUEST_BYTES
            }
            Err(error) => matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted),
        };
        let mut lines = Vec::new();
        while let Some(end) = client.text.iter().position(|byte| *byte == b'\n') {
            lines.push(client.text.drain(..=end).collect::<Vec<u8>>());
        }
        for line in lines {
            let answer = match serde_json::from_slice(&line) {
                Ok(request) => self.obey(index, request),
                Err(error) => Some(Answer::Refused { why: error.to_string() }),
            };
            if let (Some(answer), Some(client)) = (answer, self.clients.get_mut(index)) {
                let mut line = serde_json::to_vec(&answer).unwrap_or_default();
                line.push(b'\n');
                // A client that does not read its one-line answers loses them.
                drop(client.stream.write_all(&line));
            }
        }
        if !is_open {
            self.clients.remove(index);
        }
    }

    fn obey(&mut self, index: usize, request: Request) -> Option<Answer> {
        let refused = |why: &str| Some(Answer::Refused { why: why.to_owned() });
        match request {
            Request::Watch => {
                if let Some(client) = self.clients.get_mut(index) {
                    client.watches = true;
                }
                return None;
            }
            Request::Stdin { number, .. } if number <= self.stdin_number => {}
            Request::Stdin { .. } if self.stdin.is_none() || self.stdin_closing => return refused("its standard input is closed"),
            Request::Stdin { bytes, .. } if self.stdin_queue.len() + bytes.len() > STDIN_BYTES => {
                return refused("it does not read its standard input, and 1 MiB is waiting already");
            }
            Request::Stdin { number, bytes } => {
                self.stdin_number = number;
                self.stdin_closing |= bytes.is_empty();
                self.stdin_queue.extend(bytes);
                self.feed_stdin();
            }
            Request::Signal { signal } => match rustix::process::Signal::from_named_raw(signal) {
                Some(signal) => self.signal_everything(signal),
                None => return refused("there is no such signal"),
            },
            Request::Stop { cause, grace_ms } => self.stop(&cause, grace_ms),
        }
        Some(Answer::Done)
    }

    /// Rings for everyone who watches. A full socket means that the bell was heard already.
    pub(super) fn notify(&mut self) {
        self.clients.retain_mut(|client| {
            if !client.watches {
                return true;
            }
            match client.stream.write_all(b"!") {
                Ok(()) => true,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            }
        });
    }
}
