//! The cell's end of the control socket to its keeper.
//!
//! Invariant: its descriptor is closed on exec from the moment a stage owns it, so that no command
//! ever holds it; PID 1 has it from its parent by fork.

use crate::wire::{Cell, FromCell};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixStream;

/// The socket.
pub struct Control(UnixStream);

impl Control {
    /// Takes over the descriptor that the parent left open for us, named in the arguments.
    #[allow(unsafe_code)]
    pub fn inherit(number: &str) -> io::Result<Self> {
        let number: i32 = number.parse().map_err(|_| io::Error::other("no control descriptor"))?;
        if number < 3 {
            return Err(io::Error::other("no control descriptor"));
        }
        // SAFETY: the parent stage opened this descriptor for this process alone and names it once;
        // nothing else in this freshly executed process owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(number) };
        rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
        Ok(Self(UnixStream::from(fd)))
    }

    /// The descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Sends one message.
    pub fn send(&mut self, message: &FromCell) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        self.0.write_all(&line)
    }

    /// Sends one message and a descriptor beside it.
    pub fn send_beside(&mut self, message: &FromCell, fd: BorrowedFd<'_>) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        crate::pass::send(&self.0, &line, fd)
    }

    /// Reads what to build: a length and JSON.
    pub fn cell(&mut self) -> io::Result<Cell> {
        let mut len = [0; 4];
        self.0.read_exact(&mut len)?;
        let mut bytes = vec![0; u32::from_le_bytes(len) as usize];
        self.0.read_exact(&mut bytes)?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Waits for the gate; `false` when the keeper is gone.
    pub fn wait_gate(&mut self) -> bool {
        let mut gate = [0];
        self.0.read_exact(&mut gate).is_ok() && gate == [b'G']
    }

    /// Waits until the keeper closes its end or dies.
    pub fn wait_end(&self) -> io::Result<()> {
        let mut other = self.0.try_clone()?;
        let mut sink = [0; 64];
        while other.read(&mut sink)? > 0 {}
        Ok(())
    }
}
