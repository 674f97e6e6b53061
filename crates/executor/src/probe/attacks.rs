//! The inside of the self-test: does what a hostile command would do, and reports each answer.
//!
//! Runs as the command of a cell. Invariant: a check passes on the expected error alone; any other
//! answer, success first of all, fails it.

use super::format::{Check, Targets};
use rustix::fs::{CWD, FileType, Mode, XattrFlags};
use std::ffi::OsString;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// The argument that asks for a process to be attacked instead of an attacker.
pub const VICTIM: &str = "victim";

/// Runs the stage: `__probe <targets as JSON>`, or `__probe victim`.
pub fn main(args: &[OsString]) -> i32 {
    let argument = args.get(2).and_then(|arg| arg.to_str()).unwrap_or("");
    if argument == VICTIM {
        let mut sink = Vec::new();
        // It lives until its parent lets go of the pipe.
        drop(std::io::stdin().read_to_end(&mut sink));
        return 0;
    }
    let Ok(targets) = serde_json::from_str::<Targets>(argument) else { return 2 };
    let mut log = Log;
    files(&mut log, &targets);
    links(&mut log, &targets);
    protected(&mut log, &targets);
    layer(&mut log, &targets);
    network(&mut log, &targets);
    processes(&mut log, &targets);
    kernel(&mut log);
    privileges(&mut log);
    permitted(&mut log, &targets);
    0
}

/// Prints checks.
struct Log;

impl Log {
    fn put(&mut self, name: &str, passed: bool, text: String) {
        let mut line = serde_json::to_vec(&Check { name: name.into(), passed, text }).unwrap_or_default();
        line.push(b'\n');
        // Without a reader the check is missing, and so is the end: the level fails.
        drop(std::io::stdout().write_all(&line));
    }

    /// Passes if the act failed.
    fn fails<T>(&mut self, name: &str, result: std::io::Result<T>) {
        match result {
            Ok(_) => self.put(name, false, "it succeeded".into()),
            Err(error) => self.put(name, true, error.to_string()),
        }
    }

    /// Passes if the call failed with this very error.
    fn fails_with(&mut self, name: &str, result: std::io::Result<i64>, errno: i32) {
        match result {
            Ok(value) => self.put(name, false, format!("it gave {value}")),
            Err(error) => self.put(name, error.raw_os_error() == Some(errno), error.to_string()),
        }
    }

    /// Passes if the act worked.
    fn works<T>(&mut self, name: &str, result: std::io::Result<T>) {
        match result {
            Ok(_) => self.put(name, true, "it works".into()),
            Err(error) => self.put(name, false, error.to_string()),
        }
    }
}

fn files(log: &mut Log, targets: &Targets) {
    log.fails("write outside", std::fs::write(targets.outside.join("new"), "x"));
    log.fails("overwrite outside", std::fs::File::options().write(true).truncate(true).open(targets.outside.join("canary")));
    log.fails("delete outside", std::fs::remove_file(targets.outside.join("canary")));
    log.fails("make a directory outside", std::fs::create_dir(targets.outside.join("dir")));
    for (name, dir) in [("write to /usr", "/usr"), ("write to /etc", "/etc"), ("write to /proc/sys", "/proc/sys/kernel")] {
        log.fails(name, std::fs::write(Path::new(dir).join("tinkerbell-probe"), "x"));
    }
    log.fails("write a kernel switch", std::fs::File::options().write(true).open("/proc/sys/kernel/core_pattern"));
    for secret in &targets.secrets {
        // A masked file reads as empty: that tells nothing either.
        let read =
            std::fs::read(secret).and_then(|bytes| if bytes.is_empty() { Err(std::io::Error::other("it is masked")) } else { Ok(()) });
        log.fails(&format!("read `{}`", secret.file_name().unwrap_or_default().to_string_lossy()), read);
    }
    let escape = |base: &str| Path::new(base).join(targets.outside.strip_prefix("/").unwrap_or(&targets.outside)).join("canary");
    log.fails("read by /proc/self/root", std::fs::read(escape("/proc/self/root")));
    log.fails("read by /proc/1/root", std::fs::read(escape("/proc/1/root")));
    log.fails("read a disk", std::fs::File::open("/dev/vda").or_else(|_| std::fs::File::open("/dev/sda")));
    log.fails("read the kernel's memory", std::fs::File::open("/proc/kcore").and_then(|mut file| file.read(&mut [0; 16])));
}

fn links(log: &mut Log, targets: &Targets) {
    let link = targets.tree.join("link");
    if std::os::unix::fs::symlink(&targets.outside, &link).is_ok() {
        log.fails("write by symbolic link", std::fs::write(link.join("new"), "x"));
        log.fails("read by symbolic link", std::fs::read(link.join("canary")));
    }
    log.fails("hard link to outside", std::fs::hard_link(targets.outside.join("canary"), targets.tree.join("hard")));
    log.fails(
        "rename to outside",
        std::fs::write(targets.tree.join("mine"), "x")
            .and_then(|()| std::fs::rename(targets.tree.join("mine"), targets.outside.join("mine"))),
    );
}

fn protected(log: &mut Log, targets: &Targets) {
    if !targets.is_full {
        return;
    }
    log.fails("write a protected file", std::fs::write(targets.tree.join(".vscode/settings.json"), "x"));
    log.fails("rename a protected directory", std::fs::rename(targets.tree.join(".vscode"), targets.tree.join("x")));
    // Allowed to happen, and undone by the keeper: looked at from outside.
    drop(std::fs::create_dir(targets.tree.join(".claude")).and_then(|()| std::fs::write(targets.tree.join(".claude/settings.json"), "x")));
}

/// In a layer everything in the tree may be tried, and the tree must not notice: looked at from outside.
fn layer(log: &mut Log, targets: &Targets) {
    let Some(layer) = &targets.layer else { return };
    log.fails("list the layer", std::fs::read_dir(layer.join(tinkerbell_core::layer::UPPER)));
    let whiteout = || rustix::fs::mknodat(CWD, targets.tree.join("whiteout"), FileType::CharacterDevice, Mode::RUSR, 0);
    log.fails("make a whiteout", whiteout().map_err(Into::into));
    log.works("write over a file of the tree", std::fs::write(targets.tree.join("file"), "x"));
    log.works("delete from the tree", std::fs::remove_file(targets.tree.join("below/file")));
    let again = std::fs::remove_dir(targets.tree.join("below")).and_then(|()| std::fs::create_dir(targets.tree.join("below")));
    log.works("replace a directory of the tree", again);
    for (path, name, value) in [
        ("below", "user.overlay.redirect", "/../outside"),
        ("below", "trusted.overlay.redirect", "/../outside"),
        ("ok", "user.overlay.metacopy", ""),
    ] {
        drop(std::fs::write(targets.tree.join("ok"), "x"));
        // Whether it is refused or kept under another name is the kernel's choice.
        rustix::fs::setxattr(targets.tree.join(path), name, value.as_bytes(), XattrFlags::empty()).ok();
    }
    log.fails("read by a redirect", std::fs::read(targets.tree.join("below/canary")));
}

fn network(log: &mut Log, targets: &Targets) {
    if targets.port == 0 {
        return;
    }
    let address = SocketAddr::from(([127, 0, 0, 1], targets.port));
    log.fails("connect to the host", TcpStream::connect_timeout(&address, Duration::from_secs(1)));
    let outside = SocketAddr::from(([192, 0, 2, 1], 9));
    log.fails("connect to the world", TcpStream::connect_timeout(&outside, Duration::from_millis(500)));
    log.fails("send a datagram", UdpSocket::bind("0.0.0.0:0").and_then(|socket| socket.send_to(b"x", outside)));
    let name = std::os::unix::net::SocketAddr::from_abstract_name(&targets.abstract_name);
    log.fails("connect to an abstract socket", name.and_then(|name| UnixStream::connect_addr(&name)));
}

fn processes(log: &mut Log, targets: &Targets) {
    log.fails("signal a process outside", call(libc::SYS_kill, [targets.victim.into(), libc::SIGKILL.into(), 0, 0]));
    let environ = format!("/proc/{}/environ", targets.victim);
    log.fails("read the environment of a process outside", std::fs::File::open(environ).and_then(|mut file| file.read(&mut [0; 16])));
    if !targets.is_full {
        // Where it is seen it must be out of reach: these calls ask neither Landlock nor for more than the same user.
        let victim = i64::from(targets.victim);
        log.fails_with("limit a process outside", call(libc::SYS_prlimit64, [victim, libc::RLIMIT_CORE.into(), 1, 0]), libc::EPERM);
        log.fails_with("slow a process outside", call(libc::SYS_setpriority, [0, victim, 1, 0]), libc::EPERM);
        log.fails_with("share memory without a file", call(libc::SYS_shmget, [0, 4096, 0o600, 0]), libc::EPERM);
        let pair = call(libc::SYS_socketpair, [libc::AF_UNIX.into(), libc::SOCK_DGRAM.into(), 0, 1]);
        log.fails_with("a pair of datagram sockets", pair, libc::EPERM);
    }
    log.fails_with("trace", call(libc::SYS_ptrace, [0, 0, 0, 0]), libc::EPERM);
    log.fails_with("read another's memory", call(libc::SYS_process_vm_readv, [targets.victim.into(), 0, 0, 0]), libc::EPERM);
}

fn kernel(log: &mut Log) {
    log.fails_with("io_uring", call(libc::SYS_io_uring_setup, [1, 0, 0, 0]), libc::EPERM);
    log.fails_with("bpf", call(libc::SYS_bpf, [0, 0, 0, 0]), libc::EPERM);
    log.fails_with("perf events", call(libc::SYS_perf_event_open, [0, 0, 0, 0]), libc::EPERM);
    log.fails_with("userfaultfd", call(libc::SYS_userfaultfd, [0, 0, 0, 0]), libc::EPERM);
    log.fails_with("keyring", call(libc::SYS_keyctl, [0, 0, 0, 0]), libc::EPERM);
    log.fails_with("mount", call(libc::SYS_mount, [0, 0, 0, 0]), libc::EPERM);
    log.fails_with("new user namespace", call(libc::SYS_unshare, [libc::CLONE_NEWUSER.into(), 0, 0, 0]), libc::EPERM);
    log.fails_with("enter a namespace", call(libc::SYS_setns, [0, 0, 0, 0]), libc::EPERM);
    log.fails_with("clone3", call(libc::SYS_clone3, [0, 0, 0, 0]), libc::ENOSYS);
    let flags = i64::from(libc::CLONE_NEWUSER | libc::CLONE_NEWNS);
    log.fails_with("clone into new namespaces", call(libc::SYS_clone, [flags, 0, 0, 0]), libc::EPERM);
    log.fails_with("type into the terminal", call(libc::SYS_ioctl, [0, 0x5412, 0, 0]), libc::EPERM);
    log.fails_with("open by handle", call(libc::SYS_open_by_handle_at, [-1, 0, 0, 0]), libc::EPERM);
    log.fails_with("socket of a rare family", call(libc::SYS_socket, [libc::AF_VSOCK.into(), libc::SOCK_STREAM.into(), 0, 0]), libc::EPERM);
    if cfg!(target_arch = "x86_64") {
        log.fails_with("call of the x32 ABI", call(0x4000_0000 | libc::SYS_getpid, [0; 4]), libc::EPERM);
    }
}

fn privileges(log: &mut Log) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim().to_owned();
    let mut expect = |name: &str, wanted: &dyn Fn(&str) -> bool| {
        let value = field(name);
        log.put(&format!("status {name}"), wanted(&value), value);
    };
    expect("NoNewPrivs:", &|value| value == "1");
    expect("Seccomp:", &|value| value == "2");
    for name in ["CapEff:", "CapPrm:", "CapInh:", "CapAmb:"] {
        expect(name, &|value| !value.is_empty() && value.bytes().all(|byte| byte == b'0'));
    }
    let core = rustix::process::getrlimit(rustix::process::Resource::Core);
    log.put("no core files", core.maximum == Some(0), format!("{:?}", core.maximum));
}

/// A sandbox that refuses everything is as useless as one that refuses nothing.
fn permitted(log: &mut Log, targets: &Targets) {
    log.works("write to the workspace", std::fs::write(targets.tree.join("ok"), "x"));
    log.works("write to the private home", std::fs::write(targets.home.join("ok"), "x"));
    log.works("write to the temporary directory", std::fs::write(targets.tmp.join("ok"), "x"));
    log.works("write to /dev/null", std::fs::write("/dev/null", "x"));
    let shell = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).status();
    log.works(
        "run a shell",
        shell.and_then(|status| if status.code() == Some(7) { Ok(()) } else { Err(std::io::Error::other(status.to_string())) }),
    );
    log.works(
        "use threads",
        std::thread::Builder::new().spawn(|| ()).and_then(|thread| thread.join().map_err(|_| std::io::Error::other("it panicked"))),
    );
}

/// A raw system call with small numbers as arguments: none of them is a valid pointer, so the
/// kernel can neither read nor write our memory by it.
#[allow(unsafe_code)]
fn call(number: i64, args: [i64; 4]) -> std::io::Result<i64> {
    let [a, b, c, d] = args;
    // SAFETY: see above; of the calls made here only `unshare` and `clone` could change this
    // process, both are expected to fail, and it has one thread and nothing to lose.
    let done = unsafe { libc::syscall(number, a, b, c, d, 0_i64, 0_i64) };
    if done < 0 { Err(std::io::Error::last_os_error()) } else { Ok(done) }
}
