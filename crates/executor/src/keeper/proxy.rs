//! The proxy of a command, as the keeper holds it: started before the cell, ended after it.
//!
//! Plan and listening socket travel over one socket, which is the proxy's standard input: when the
//! keeper dies, the proxy reads its end and leaves. Invariant: the plan stands in no argument, no
//! variable and no file.

use crate::cell::{At, Broken};
use crate::wire::{FromProxy, Order};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Longest time until it has read its plan.
const READY: Duration = Duration::from_secs(10);
/// Longest time that it may need to write its last records.
const END: Duration = Duration::from_secs(3);
/// Longest word of it.
const WORD_BYTES: u64 = 64 << 10;

/// A running proxy.
pub(super) struct Proxy {
    child: Child,
    control: UnixStream,
}

/// Starts the proxy that the order asks for, if any, and waits until it has read its plan.
pub(super) fn start(order: &Order) -> Result<Option<Proxy>, Broken> {
    let Some(plan) = &order.way_out else { return Ok(None) };
    let (ours, theirs) = UnixStream::pair().at("socket of the proxy")?;
    ours.set_read_timeout(Some(READY)).at("socket of the proxy")?;
    ours.set_write_timeout(Some(READY)).at("socket of the proxy")?;
    let mut command = Command::new(&order.exe);
    command.arg("__egress").arg(order.run_dir.join(crate::traffic::FILE)).arg(order.run_dir.join(crate::profile::BUNDLE));
    command.env_clear().env("TINKERBELL_RUN", &order.run);
    command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null()).stderr(Stdio::null());
    let child = command.spawn().at("start the proxy")?;
    // The command holds a copy of the proxy's end, which would hide its death from us.
    drop(command);
    let mut proxy = Proxy { child, control: ours };
    match proxy.talk(plan) {
        Ok(()) => Ok(Some(proxy)),
        Err(broken) => {
            proxy.end();
            Err(broken)
        }
    }
}

impl Proxy {
    fn talk(&mut self, plan: &str) -> Result<(), Broken> {
        let len = u32::try_from(plan.len()).at("send the proxy its plan")?;
        self.control.write_all(&len.to_le_bytes()).at("send the proxy its plan")?;
        self.control.write_all(plan.as_bytes()).at("send the proxy its plan")?;
        let (mut line, mut byte) = (Vec::new(), [0]);
        while (line.len() as u64) < WORD_BYTES && self.control.read(&mut byte).at("hear the proxy")? == 1 && byte != [b'\n'] {
            line.extend(byte);
        }
        match serde_json::from_slice(&line).at("hear the proxy")? {
            FromProxy::Ready => Ok(()),
            FromProxy::Failed { why } => Err(Broken { step: "start the proxy".into(), why }),
        }
    }

    /// Its number, so that it is not taken for a process of the command.
    pub(super) fn pid(&self) -> i32 {
        self.child.id().cast_signed()
    }

    /// Gives it the socket on which the command will ask.
    pub(super) fn listen_on(&self, listener: &OwnedFd) -> Result<(), Broken> {
        crate::pass::send(&self.control, b"L", listener.as_fd()).at("give the proxy its socket")
    }

    /// Lets it write its last records and leave; kills it where it does not.
    pub(super) fn end(&mut self) {
        // It may be gone already.
        drop(self.control.shutdown(std::net::Shutdown::Both));
        let rounds = END.as_millis() / 2;
        for _ in 0..rounds {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
