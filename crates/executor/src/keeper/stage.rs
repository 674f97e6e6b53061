//! The cell's outer process: begun in the command's control group, with pipes to the keeper.
//!
//! Moving a process into a group makes the kernel wait until every processor has passed a quiet state,
//! 5 to 20 ms; a process that is born there (clone3(2), `CLONE_INTO_CGROUP`, Linux 5.7) costs nothing. The
//! standard library can not ask for that. Invariant: between fork and exec the child only makes system calls.

use crate::cell::{At, Broken};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{Pid, PidfdFlags, Signal, WaitOptions, kill_process, pidfd_open, waitpid};
use rustix::time::Timespec;
use std::ffi::{CString, OsStr};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::Duration;

/// Of `linux/sched.h`; the constant of the library is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A process of ours that holds the command.
pub(super) struct Stage {
    pid: Pid,
    has_ended: bool,
    /// The ends of its pipes, until they are taken.
    pub stdin: Option<OwnedFd>,
    pub stdout: Option<OwnedFd>,
    pub stderr: Option<OwnedFd>,
}

/// What is executed.
pub(super) struct Program<'a> {
    pub exe: &'a Path,
    pub args: &'a [&'a str],
    /// Its whole environment, `NAME=value`.
    pub env: &'a [String],
}

impl Stage {
    /// Starts a program, in this control group of version 2 where the kernel can do that; elsewhere it begins
    /// where we stand. Descriptors that are not closed on exec pass to it.
    pub(super) fn start(program: &Program<'_>, group: Option<&Path>) -> Result<Self, Broken> {
        let step = || format!("start `{}`", program.exe.display());
        let image = Image::of(program).at(step())?;
        let pipe = || rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).at("pipes");
        let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) = (pipe()?, pipe()?, pipe()?);
        let (told, tell) = pipe()?;
        let group = group.and_then(|dir| File::open(dir).ok());
        let (args, env) = (pointers(&image.args), pointers(&image.env));
        let standard = [in_read.as_raw_fd(), out_write.as_raw_fd(), err_write.as_raw_fd()];
        let pid = fork(group.as_ref().map(AsRawFd::as_raw_fd)).at(step())?;
        let Some(pid) = pid else { become_it((&image.exe, &args, &env), standard, tell.as_raw_fd()) };
        drop((in_read, out_write, err_write, tell));
        let mut stage = Self { pid, has_ended: false, stdin: Some(in_write), stdout: Some(out_read), stderr: Some(err_read) };
        // Its end of this pipe closes when the program runs.
        let mut word = [0; 4];
        match File::from(told).read_exact(&mut word) {
            Err(_) => Ok(stage),
            Ok(()) => {
                stage.wait();
                Err(std::io::Error::from_raw_os_error(i32::from_ne_bytes(word))).at(step())
            }
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Whether it has ended; whoever asks last has waited for it.
    pub(super) fn has_ended(&mut self) -> bool {
        self.look(WaitOptions::NOHANG)
    }

    /// Waits for its end for at most this long, and tells whether it came.
    pub(super) fn ends_within(&mut self, limit: Duration) -> bool {
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: i64::from(limit.subsec_nanos()) };
        if let Ok(pidfd) = pidfd_open(self.pid, PidfdFlags::empty()) {
            // An interruption ends the wait early, and the caller then forces the end, which is harmless.
            poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit)).ok();
        }
        self.has_ended()
    }

    /// Kills it and waits for its end.
    pub(super) fn end(&mut self) {
        if !self.has_ended() {
            // It can not have gone: nobody but us waits for it.
            kill_process(self.pid, Signal::KILL).ok();
            self.wait();
        }
    }

    fn wait(&mut self) {
        while !self.look(WaitOptions::empty()) {}
    }

    fn look(&mut self, options: WaitOptions) -> bool {
        self.has_ended = self.has_ended
            || match waitpid(Some(self.pid), options) {
                Ok(found) => found.is_some(),
                Err(rustix::io::Errno::INTR) => false,
                // No child of ours any more.
                Err(_) => true,
            };
        self.has_ended
    }
}

/// Program, arguments and environment as the kernel wants them, made before the fork.
struct Image {
    exe: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Image {
    fn of(program: &Program<'_>) -> Result<Self, std::ffi::NulError> {
        let exe = CString::new(program.exe.as_os_str().as_bytes())?;
        let args = program.args.iter().map(|arg| CString::new(OsStr::new(arg).as_bytes()));
        let args = std::iter::once(Ok(exe.clone())).chain(args).collect::<Result<_, _>>()?;
        let env = program.env.iter().map(|entry| CString::new(entry.as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { exe, args, env })
    }
}

/// Pointers to the texts, ended by null.
fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
}

/// Becomes the program, given as path, arguments and environment; says why not through `tell`. Runs in the child.
#[allow(unsafe_code)]
fn become_it((exe, args, env): (&CString, &[*const libc::c_char], &[*const libc::c_char]), standard: [RawFd; 3], tell: RawFd) -> ! {
    // SAFETY: the descriptors are open and above 2, because the standard ones were open at the fork; the arrays end
    // with null and point to texts that live until the exec.
    unsafe {
        for (to, from) in (0..).zip(standard) {
            libc::dup2(from, to);
        }
        // The runtime ignores it, and ignoring would pass to the program.
        libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        libc::execve(exe.as_ptr(), args.as_ptr(), env.as_ptr());
        let why = (*libc::__errno_location()).to_ne_bytes();
        libc::write(tell, why.as_ptr().cast(), why.len());
        libc::_exit(127)
    }
}

/// The child's number, or `None` in the child.
#[allow(unsafe_code)]
fn fork(group: Option<RawFd>) -> std::io::Result<Option<Pid>> {
    let born = group.and_then(|group| u64::try_from(group).ok()).map_or(-1, |cgroup| {
        // SAFETY: all-zero bytes are valid arguments, which ask for what fork(2) does.
        let mut asked: libc::clone_args = unsafe { std::mem::zeroed() };
        asked.flags = CLONE_INTO_CGROUP;
        asked.exit_signal = libc::SIGCHLD as u64;
        asked.cgroup = cgroup;
        // SAFETY: without `CLONE_VM` the child has its own copy of memory and goes on with its own copy of this stack;
        // the keeper has one thread here, so no lock is held by another.
        unsafe { libc::syscall(libc::SYS_clone3, &raw const asked, size_of::<libc::clone_args>()) }
    });
    let pid = match i32::try_from(born) {
        Ok(pid) if pid >= 0 => pid,
        // An older kernel, or a host that forbids it: it is moved into its groups later.
        // SAFETY: as above.
        _ => unsafe { libc::fork() },
    };
    if pid < 0 { Err(std::io::Error::last_os_error()) } else { Ok(Pid::from_raw(pid)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn start(exe: &str, args: &[&str]) -> Result<Stage, Broken> {
        Stage::start(&Program { exe: Path::new(exe), args, env: &["WORD=said".to_owned()] }, None)
    }

    #[test]
    fn a_program_gets_arguments_environment_and_pipes() {
        let mut stage = start("/bin/sh", &["-c", "read line; echo $WORD $line $#; echo apart >&2; exit 3", "name", "one"]).unwrap();
        let mut stdin = File::from(stage.stdin.take().unwrap());
        std::io::Write::write_all(&mut stdin, b"heard\n").unwrap();
        let mut text = String::new();
        File::from(stage.stdout.take().unwrap()).read_to_string(&mut text).unwrap();
        File::from(stage.stderr.take().unwrap()).read_to_string(&mut text).unwrap();
        assert_eq!(text, "said heard 1\napart\n");
        stage.end();
        assert!(stage.has_ended());
    }

    #[test]
    fn what_can_not_be_executed_says_why() {
        let broken = start("/nowhere/at-all", &[]).err().unwrap();
        assert!(broken.step.contains("/nowhere/at-all") && broken.why.contains("No such file"), "{broken}");
        let broken = start("/bin/sh\0", &[]).err().unwrap();
        assert!(broken.why.contains("nul byte"), "{broken}");
    }
}
