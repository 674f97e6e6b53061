//! The keeper: parent of one command, in a session of its own, outliving the daemon.
//!
//! One thread and `poll`. It owns the pipes, the spool, the latch and the trailer; known secrets are
//! taken out of the output before it is written. Invariant: the
//! gate opens only after `started` was published by link(2) under the held lock, so a run begins
//! at most once whatever dies when.

mod ending;
mod launch;
mod proxy;
mod socket;
mod stage;
mod watch;

use crate::error::Error;
use crate::process::mono_ms;
use crate::spool::Writer;
use crate::wire::{FromCell, Order, Reply};
use rustix::event::{PollFd, PollFlags, poll};
use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use tinkerbell_secret::Stream;

/// After the main process ended, output still counts until the pipes are idle for this long.
const IDLE_MS: u64 = 250;
/// … and at most this long, whatever a grandchild writes.
const DRAIN_MS: u64 = 3000;
/// Most bytes waiting for the command's standard input.
const STDIN_BYTES: usize = 1 << 20;
/// Most bytes of standard error that are kept where it is kept apart.
const ERRORS_BYTES: usize = 4096;
/// Time between asking and forcing when the deadline is over.
const DEADLINE_GRACE_MS: u64 = 2000;
/// How often the mark is looked for that ends all commands. It must be so even where nobody lives to
/// tell the keeper.
const MARK_MS: u64 = 200;
/// Time that the init process has to tell of a killed command.
const INIT_GRACE_MS: u64 = 3000;

/// The cause of an end that the kill switch brought.
pub(crate) const HALTED: &str = "halted";

/// A running command and all that belongs to it.
pub(crate) struct Keeper {
    order: Order,
    /// What is known to be secret goes before anything is written; one stream per pipe.
    streams: [Stream; 2],
    _lock: File,
    child: stage::Stage,
    control: UnixStream,
    control_text: Vec<u8>,
    outputs: [Option<File>; 2],
    stdin: Option<File>,
    stdin_queue: Vec<u8>,
    stdin_number: u64,
    stdin_closing: bool,
    listener: UnixListener,
    clients: Vec<socket::Client>,
    spool: Writer,
    /// The end of standard error, where it is kept apart.
    errors: VecDeque<u8>,
    started_ms: u64,
    init_pid: i32,
    watch: watch::Watch,
    /// Room for the trailer.
    trailer: Option<File>,
    main: Option<Ended>,
    /// Whether nothing was left behind it.
    is_over: bool,
    cause: String,
    why: String,
    spent: crate::format::Spent,
    kill_at_ms: Option<u64>,
    /// Whether everything was killed already, and the end is overdue.
    is_forced: bool,
    last_output_ms: u64,
    /// The mark that ends all commands, and when it was last looked for.
    mark: PathBuf,
    marked_ms: u64,
    /// The command's way out, where it has one.
    proxy: Option<proxy::Proxy>,
}

/// How the main process ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Ended {
    code: Option<i32>,
    signal: Option<i32>,
    rusage: crate::format::Usage,
    at_ms: u64,
}

/// Runs the keeper: the order stands on standard input, the reply goes to standard output.
pub fn main(_args: &[OsString]) -> i32 {
    close_inherited();
    // A session of our own, so that the terminal's and the daemon's signals pass us by. Failing
    // means that we lead one already.
    rustix::process::setsid().ok();
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
    let reply = |reply: &Reply| {
        let mut line = serde_json::to_vec(reply).unwrap_or_default();
        line.push(b'\n');
        // The daemon may be gone; then it finds the outcome on disk.
        drop(io::stdout().write_all(&line).and_then(|()| io::stdout().flush()));
    };
    let started = close_memory().and_then(|()| read_order()).and_then(launch::launch);
    let mut keeper = match started {
        Ok(Some(keeper)) => keeper,
        Ok(None) => {
            reply(&Reply::Taken);
            return 0;
        }
        Err(broken) => {
            reply(&Reply::Failed { step: broken.step, why: broken.why });
            return 1;
        }
    };
    reply(&Reply::Started);
    silence();
    match keeper.keep() {
        Ok(()) => 0,
        Err(_) => {
            // Without a trailer the run counts as lost; nothing of it may live on.
            keeper.kill_everything();
            1
        }
    }
}

/// A daemon may have been started with descriptors open that commands must not inherit.
#[allow(unsafe_code)]
fn close_inherited() {
    // SAFETY: the process has just begun; it has opened nothing above the three standard ones yet.
    unsafe { libc::syscall(libc::SYS_close_range, 3_u32, u32::MAX, 0_u32) };
}

/// Its memory holds secrets: nobody reads it, and no core file is written.
fn close_memory() -> Result<(), crate::cell::Broken> {
    use crate::cell::At;
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) }).at("forbid core files")?;
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("forbid dumps")
}

fn read_order() -> Result<Order, crate::cell::Broken> {
    use crate::cell::At;
    let mut text = zeroize::Zeroizing::new(Vec::new());
    io::stdin().read_to_end(&mut text).at("read the order")?;
    serde_json::from_slice(&text).at("read the order")
}

/// Lets go of the daemon's pipes.
fn silence() {
    if let Ok(null) = File::options().read(true).write(true).open("/dev/null") {
        // Failing keeps a pipe to a daemon open that will never read it; harmless.
        rustix::stdio::dup2_stdin(&null).ok();
        rustix::stdio::dup2_stdout(&null).ok();
    }
}

/// What became ready in one round of `poll`.
#[derive(Default)]
struct Ready {
    control: bool,
    outputs: [bool; 2],
    stdin: bool,
    listener: bool,
    clients: Vec<usize>,
}

impl Keeper {
    /// Serves until the command's end is on disk.
    fn keep(&mut self) -> Result<(), Error> {
        while !self.is_drained() {
            let ready = self.wait().map_err(Error::files(&self.order.run_dir))?;
            let before = self.spool.offset();
            if ready.control {
                self.hear_cell();
            }
            for (index, is_ready) in ready.outputs.into_iter().enumerate() {
                if is_ready && self.take_output(index) {
                    // Also when all of it is held back for what follows.
                    self.last_output_ms = mono_ms();
                }
            }
            if ready.stdin {
                self.feed_stdin();
            }
            if ready.listener {
                self.accept();
            }
            for index in ready.clients.into_iter().rev() {
                self.serve_client(index);
            }
            if self.spool.offset() > before {
                self.notify();
            }
            self.enforce_deadlines();
            self.enforce_limits();
        }
        self.finish()
    }

    /// Whether main process and output have ended.
    fn is_drained(&self) -> bool {
        let Some(main) = self.main else { return false };
        let now = mono_ms();
        self.outputs.iter().all(Option::is_none)
            || now >= main.at_ms.max(self.last_output_ms) + self.idle_ms()
            || now >= main.at_ms + DRAIN_MS
    }

    /// Nobody waits for the words of a command that was told to end.
    fn idle_ms(&self) -> u64 {
        if self.cause.is_empty() { IDLE_MS } else { 10 }
    }

    fn wait(&self) -> io::Result<Ready> {
        let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: self.timeout_ms() * 1_000_000 };
        let mut fds = vec![PollFd::new(&self.control, PollFlags::IN), PollFd::new(&self.listener, PollFlags::IN)];
        let outputs: Vec<usize> = (0..2).filter(|index| self.outputs.get(*index).is_some_and(Option::is_some)).collect();
        fds.extend(self.outputs.iter().flatten().map(|file| PollFd::from_borrowed_fd(file.as_fd(), PollFlags::IN)));
        let clients = fds.len();
        fds.extend(self.clients.iter().map(|client| PollFd::from_borrowed_fd(client.fd(), PollFlags::IN)));
        let stdin = fds.len();
        if let (Some(pipe), false) = (&self.stdin, self.stdin_queue.is_empty()) {
            fds.push(PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::OUT));
        }
        match poll(&mut fds, Some(&timeout)) {
            Err(rustix::io::Errno::INTR) => return Ok(Ready::default()),
            other => other?,
        };
        let hot = |at: usize| fds.get(at).is_some_and(|fd| !fd.revents().is_empty());
        let mut ready = Ready { control: hot(0), listener: hot(1), stdin: hot(stdin), ..Ready::default() };
        for (at, index) in outputs.into_iter().enumerate() {
            if let Some(slot) = ready.outputs.get_mut(index) {
                *slot = hot(2 + at);
            }
        }
        ready.clients = (0..self.clients.len()).filter(|index| hot(clients + index)).collect();
        Ok(ready)
    }

    /// Time until something is due, at most until the next look for the mark.
    fn timeout_ms(&self) -> i64 {
        let now = mono_ms();
        // Once something ends the command, its deadline is no date to wake up for.
        let mut due = if self.cause.is_empty() { self.started_ms + self.order.deadline_ms } else { now + 999 };
        if let Some(at) = self.kill_at_ms {
            due = due.min(at);
        }
        due = due.min(self.watch.next_ms());
        if let Some(main) = self.main {
            due = due.min(main.at_ms.max(self.last_output_ms) + self.idle_ms()).min(main.at_ms + DRAIN_MS);
        }
        i64::try_from(due.saturating_sub(now).clamp(1, MARK_MS)).unwrap_or(1)
    }

    fn hear_cell(&mut self) {
        let mut block = [0; 4096];
        match self.control.read(&mut block) {
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(count) if count > 0 => {
                self.control_text.extend(block.iter().take(count));
                while let Some(end) = self.control_text.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = self.control_text.drain(..=end).collect();
                    if let Ok(FromCell::Exit { code, signal, rusage, is_last }) = serde_json::from_slice(&line) {
                        self.is_over = is_last;
                        self.main.get_or_insert(Ended { code, signal, rusage, at_ms: mono_ms() });
                    }
                }
            }
            // The init process is gone without a word: something killed it, and its children with it.
            _ => {
                self.main.get_or_insert(Ended { signal: Some(libc::SIGKILL), at_ms: mono_ms(), ..Ended::default() });
                self.kill_everything();
            }
        }
    }

    /// Takes what stands in a pipe, and tells whether there was anything.
    fn take_output(&mut self, index: usize) -> bool {
        let mut block = [0; crate::format::FRAME_MAX_BYTES];
        let Some(slot) = self.outputs.get_mut(index) else { return false };
        let Some(file) = slot else { return false };
        match file.read(&mut block) {
            Ok(count) if count > 0 => {
                let bytes = block.get(..count).unwrap_or_default();
                let clean = self.streams.get_mut(index).map(|stream| stream.push(bytes)).unwrap_or_default();
                self.take(index, &clean);
                return true;
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(_) | Err(_) => {
                *slot = None;
                self.give_rest(index);
            }
        }
        false
    }

    /// Keeps output without secrets: in the spool, or for its end.
    fn take(&mut self, index: usize, clean: &[u8]) {
        if index == 1 && self.order.errors_apart {
            self.errors.extend(clean);
            let over = self.errors.len().saturating_sub(ERRORS_BYTES);
            drop(self.errors.drain(..over));
        } else if !clean.is_empty() {
            self.spool.push(if index == 0 { 1 } else { 2 }, mono_ms(), clean);
        }
    }

    /// Gives what was held back because it might have become a secret: nothing follows.
    fn give_rest(&mut self, index: usize) {
        let rest = self.streams.get_mut(index).map(Stream::finish).unwrap_or_default();
        self.take(index, &rest);
    }

    fn feed_stdin(&mut self) {
        let Some(pipe) = &mut self.stdin else { return };
        match pipe.write(&self.stdin_queue) {
            Ok(count) => drop(self.stdin_queue.drain(..count)),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            // Nobody reads any more.
            Err(_) => {
                self.stdin_queue.clear();
                self.stdin_closing = true;
            }
        }
        if self.stdin_closing && self.stdin_queue.is_empty() {
            self.stdin = None;
        }
    }

    /// Ends a command that passed a limit, at once: grace would be more of the same.
    fn enforce_limits(&mut self) {
        let stages = self.stages();
        let Some(breach) = self.watch.look(mono_ms(), stages) else { return };
        if self.cause.is_empty() {
            breach.cause.clone_into(&mut self.cause);
            self.why = breach.why;
        }
        self.watch.groups.freeze(true);
        self.kill_everything();
        self.watch.groups.freeze(false);
        if self.main.is_none() {
            self.is_forced = true;
            let at = mono_ms() + INIT_GRACE_MS;
            self.kill_at_ms = Some(self.kill_at_ms.map_or(at, |old| old.min(at)));
        }
    }

    fn enforce_deadlines(&mut self) {
        let now = mono_ms();
        if self.main.is_none() && now >= self.marked_ms + MARK_MS {
            self.marked_ms = now;
            if crate::halt::stands(&self.mark) {
                self.stop(HALTED, 0);
            }
        }
        if self.main.is_none() && self.cause.is_empty() && now >= self.started_ms + self.order.deadline_ms {
            self.why = format!("it ran longer than {}", tinkerbell_core::amount::span(self.order.deadline_ms));
            self.stop("deadline", DEADLINE_GRACE_MS);
        }
        if self.kill_at_ms.is_some_and(|at| now >= at) {
            // An init process that does not tell of a killed command is killed itself next time.
            if self.is_forced && self.main.is_none() {
                self.end_init();
            }
            self.is_forced = true;
            self.kill_at_ms = self.main.is_none().then_some(now + INIT_GRACE_MS);
            self.kill_everything();
        }
    }
}
