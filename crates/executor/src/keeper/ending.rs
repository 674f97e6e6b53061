//! Signals, stopping, and the trailer.
//!
//! Invariant: the trailer is written only when no process of the command is left, and it is the
//! last thing that a keeper does.

use super::Keeper;
use super::proxy::Proxy;
use crate::error::Error;
use crate::format::{Process, Trailer, VERSION};
use crate::process::{descendants, identify, kill_cgroup, kill_until_gone, mono_ms, signal, signal_all, stat};
use crate::wire::CellLevel;
use rustix::fs::{Mode, OFlags, ResolveFlags};
use rustix::process::Signal;
use std::fs::File;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::time::Duration;

/// Longest time that killing may take.
const KILL: Duration = Duration::from_secs(5);
/// Longest time that the stages have to leave by themselves.
const LEAVE: Duration = Duration::from_secs(2);

impl Keeper {
    /// Our own processes below us: the stages that hold the command, and its proxy last, or 0.
    pub(super) fn stages(&self) -> [i32; 3] {
        [self.child.pid(), self.init_pid, self.proxy.as_ref().map_or(0, Proxy::pid)]
    }

    /// The command's processes, without our own.
    fn processes(&self) -> Vec<Process> {
        if self.is_over {
            return Vec::new();
        }
        let own = self.stages();
        // Nothing leaves its group at a level that has walls, and no look at the whole host is needed.
        let group = self.watch.groups.processes().filter(|_| self.order.cell.level != CellLevel::None);
        let all = match group {
            Some(pids) => pids
                .into_iter()
                .filter_map(stat)
                .filter(|stat| !stat.zombie)
                .map(|stat| Process { pid: stat.pid, start: stat.start })
                .collect(),
            None => descendants(rustix::process::getpid().as_raw_pid()),
        };
        all.into_iter().filter(|process| !own.contains(&process.pid)).collect()
    }

    pub(super) fn signal_everything(&self, number: Signal) {
        signal_all(&self.processes(), number);
    }

    /// Asks everything to end, and forces it after the grace.
    pub(super) fn stop(&mut self, cause: &str, grace_ms: u64) {
        if self.main.is_none() && self.cause.is_empty() {
            cause.clone_into(&mut self.cause);
        }
        let processes = self.processes();
        signal_all(&processes, Signal::TERM);
        // A stopped process hears nothing until it goes on.
        signal_all(&processes, Signal::CONT);
        let at = mono_ms() + grace_ms;
        self.kill_at_ms = Some(self.kill_at_ms.map_or(at, |old| old.min(at)));
    }

    /// Kills all processes of the command; the stages that hold it end by themselves.
    pub(super) fn kill_everything(&self) {
        kill_until_gone(KILL, || self.processes());
    }

    /// Kills the init process; its control socket then tells that it is gone.
    pub(super) fn end_init(&self) {
        if let Some(init) = identify(self.init_pid) {
            signal(init, Signal::KILL).ok();
        }
    }

    /// Ends what outlived the main process, and writes the end down.
    pub(super) fn finish(&mut self) -> Result<(), Error> {
        let main = self.main.unwrap_or_default();
        // Whoever halted everything kills without a word to us; what ended by itself did so.
        if self.cause.is_empty() && main.code.is_none() && crate::halt::stands(&self.mark) {
            super::HALTED.clone_into(&mut self.cause);
        }
        if self.is_over {
            // The stages take their leave while we write.
            drop(self.control.shutdown(std::net::Shutdown::Both));
        }
        let lingering = u32::try_from(self.processes().len()).unwrap_or(u32::MAX);
        if lingering > 0 {
            self.kill_everything();
        }
        if !self.is_over {
            self.end_cell();
        }
        for index in 0..2 {
            // What stood in the pipe when its writers died.
            for _ in 0..64 {
                if !self.take_output(index) {
                    break;
                }
            }
        }
        (0..2).for_each(|index| self.give_rest(index));
        self.tell_of_replaced();
        self.restore_absent();
        if !self.errors.is_empty() {
            self.errors.push_front(b'\n');
            self.spool.push(2, mono_ms(), self.errors.make_contiguous());
        }
        if self.is_over {
            self.end_cell();
        }
        // After the cell, whose figures are those of all that was waited for; before the trailer, because who reads that
        // finds every connection.
        if let Some(mut proxy) = self.proxy.take() {
            proxy.end();
        }
        if let Some(layer) = &self.order.layer {
            // Before the trailer: who sees the end may take the layer over.
            crate::layer::close(layer)?;
        }
        let total = self.spool.total();
        let (spent, why) = (Some(self.spent), std::mem::take(&mut self.why));
        let trailer = Trailer {
            version: VERSION,
            status: main.code,
            signal: main.signal,
            rusage: main.rusage,
            bytes: total.bytes,
            sha256: total.sha256,
            dropped: total.dropped,
            cause: std::mem::take(&mut self.cause),
            wall_ms: main.at_ms.saturating_sub(self.started_ms),
            lingering,
            why,
            spent,
        };
        write_trailer(&self.order.run_dir, &trailer, self.trailer.as_ref())?;
        // The socket's file is of no use to anyone now; the next start would remove it too.
        drop(std::fs::remove_file(self.order.run_dir.join("s")));
        Ok(())
    }

    /// Lets the stages go: they end when our end of the control socket closes.
    fn end_cell(&mut self) {
        drop(self.control.shutdown(std::net::Shutdown::Both));
        if !self.child.ends_within(LEAVE) {
            if let Some(init) = identify(self.init_pid) {
                signal(init, Signal::KILL).ok();
            }
            self.child.end();
        }
        let (spent, breach) = self.watch.close(crate::process::children_usage());
        self.spent = spent;
        if let Some(breach) = breach.filter(|_| self.cause.is_empty()) {
            breach.cause.clone_into(&mut self.cause);
            self.why = breach.why;
        }
        if let Some(cgroup) = self.watch.groups.unified.as_ref().and_then(|dir| dir.to_str()) {
            // A group that can not be removed is empty and only untidy.
            let _is_gone = kill_cgroup(cgroup, KILL);
        }
        self.watch.groups.remove();
    }

    /// Says which protected paths were replaced by somebody on the host: the command could write there
    /// from then on, and what stands there now may be its work.
    fn tell_of_replaced(&mut self) {
        use std::os::unix::fs::MetadataExt;
        for guarded in std::mem::take(&mut self.order.guarded) {
            let now = self.order.tree.join(&guarded.path).symlink_metadata().map(|meta| (meta.dev(), meta.ino()));
            if now.ok() != Some(guarded.file) {
                let path = guarded.path.display();
                let word =
                    format!("`{path}` is protected and was replaced from outside while this command ran; look at it before you trust it");
                self.spool.push(3, mono_ms(), format!("\n[tinkerbell: {word}]\n").as_bytes());
            }
        }
    }

    /// Removes protected paths that were absent at the start, and says so in the output.
    fn restore_absent(&mut self) {
        for path in std::mem::take(&mut self.order.absent) {
            let word = match remove_beneath(&self.order.tree, &path) {
                Ok(false) => continue,
                Ok(true) => format!("removed `{}`: it is protected, commands may not create it", path.display()),
                Err(error) => format!("`{}` is protected and could not be removed: {error}", path.display()),
            };
            self.spool.push(3, mono_ms(), format!("\n[tinkerbell: {word}]\n").as_bytes());
        }
    }
}

/// Removes a path below the tree, if it is there. The keeper stands outside the sandbox, so it must
/// not follow a link that the command left on the way: `.github` may lead anywhere by now.
fn remove_beneath(tree: &Path, relative: &Path) -> std::io::Result<bool> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::openat(rustix::fs::CWD, tree, flags, Mode::empty())?;
    let (Some(parent), Some(name)) = (relative.parent(), relative.file_name()) else { return Ok(false) };
    let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
    // No such directory, or none of the tree's own: then the protected path does not exist either.
    let Ok(parent) = rustix::fs::openat2(&root, parent, flags, Mode::empty(), beneath) else { return Ok(false) };
    let path = Path::new("/proc/self/fd").join(parent.as_raw_fd().to_string()).join(name);
    match path.symlink_metadata() {
        Err(_) => Ok(false),
        // As a directory it is free; what is protected in it is looked at by itself.
        Ok(meta) if meta.is_dir() && relative.to_str().is_some_and(tinkerbell_core::protected::is_above) => Ok(false),
        Ok(meta) if meta.is_dir() => crate::remove::tree(&path).map(|()| true),
        Ok(_) => std::fs::remove_file(&path).map(|()| true),
    }
}

/// Bytes that a trailer takes at most: its longest form has 1,000.
const TRAILER_BYTES: usize = 4096;

/// The trailer's file with its blocks taken, so that a disk that is full at the end has room for it.
/// Without them the end is written as far as the disk then allows.
pub(super) fn reserve_trailer(dir: &Path) -> Option<File> {
    let file = File::create(dir.join("trailer.new")).ok()?;
    (&file).write_all(&[b' '; TRAILER_BYTES]).ok()?;
    Some(file)
}

/// One sync: a reader that sees the name sees the whole content, after power loss too. The blanks of
/// the reserve stay behind the text, where JSON allows them: nothing is allocated here.
fn write_trailer(dir: &Path, trailer: &Trailer, reserved: Option<&File>) -> Result<(), Error> {
    let temporary = dir.join("trailer.new");
    let write = || -> std::io::Result<()> {
        let text = serde_json::to_vec(trailer)?;
        match reserved.filter(|_| text.len() <= TRAILER_BYTES) {
            Some(file) => {
                std::os::unix::fs::FileExt::write_all_at(file, &text, 0)?;
                file.sync_data()?;
            }
            None => {
                let mut file = File::create(&temporary)?;
                file.write_all(&text)?;
                file.sync_data()?;
            }
        }
        std::fs::rename(&temporary, dir.join("trailer"))
    };
    write().map_err(Error::files(dir.join("trailer")))
}
