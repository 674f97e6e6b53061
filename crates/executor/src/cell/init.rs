//! `init`, at level `landlock` the stage `__init`: builds the sandbox around itself, waits at the gate, runs the command, reaps.
//!
//! It stays outside the Landlock domain and the filters of the command, so that the command can
//! not signal or trace it. Invariant: when the keeper's end of the control socket closes, every
//! process below this one is killed before it leaves.

use super::control::Control;
use super::{At, Broken, close_standard, filter, landlock, mounts};
use crate::format::Usage;
use crate::groups::STAGES;
use crate::wire::{Cell, CellLevel, FromCell, Walls};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::process::{DumpableBehavior, Resource, Rlimit, Signal, WaitOptions, set_dumpable_behavior};
use rustix::thread::{CapabilitySet, CapabilitySets};
use std::ffi::OsString;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::time::Duration;

/// Runs the stage: `__init <control descriptor>`.
pub fn main(args: &[OsString]) -> i32 {
    let number = args.get(2).and_then(|arg| arg.to_str()).unwrap_or("");
    let Ok(control) = Control::inherit(number) else { return 125 };
    easy_victim();
    run(control)
}

/// A heavy build shall die before the user's session does; raising one's own score is always allowed while a
/// process may be dumped, and where it is not, nothing is lost.
pub fn easy_victim() {
    drop(std::fs::write("/proc/self/oom_score_adj", "300"));
}

/// Builds, waits, runs and reaps; gives the exit code of the stage.
pub fn run(mut control: Control) -> i32 {
    let built = control.cell().at("read the order").and_then(|cell| prepare(&cell, &mut control).map(|command| (cell, command)));
    let (cell, mut command) = match built {
        Ok(built) => built,
        Err(Broken { step, why }) => {
            // The keeper is gone if this fails, and nothing ran.
            drop(control.send(&FromCell::Failed { step, why }));
            return 125;
        }
    };
    if control.send(&FromCell::Ready).is_err() || !control.wait_gate() {
        return 125;
    }
    let child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            eprint_last(&format!("tinkerbell: {}: {error}\n", cell.argv.first().map_or("", String::as_str)));
            let exit = FromCell::Exit { code: Some(127), signal: None, rusage: Usage::default(), is_last: true };
            // The keeper is gone if this fails; then nobody waits for the word.
            drop(control.send(&exit));
            return 127;
        }
    };
    drop(command);
    close_standard();
    serve(control, &child)
}

/// Builds everything and gives the command, ready to be spawned.
fn prepare(cell: &Cell, control: &mut Control) -> Result<Command, Broken> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable).at("forbid dumps")?;
    if cell.level == CellLevel::Full {
        rustix::process::set_parent_process_death_signal(Some(Signal::KILL)).at("parent death signal")?;
        if !cell.host_network {
            loopback_up().at("loopback")?;
        }
        if let Some(port) = cell.proxy_port.filter(|_| !cell.host_network) {
            // Made in here and served from outside: the only way from this network to any other.
            let listener = std::net::TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, port)).at("listen for the proxy")?;
            control.send_beside(&FromCell::Listening, listener.as_fd()).at("hand the listening socket out")?;
        }
        // Resolvable by the usual /etc/hosts, and no view of the host.
        rustix::system::sethostname(b"localhost").at("host name")?;
        mounts::build(&cell.mounts, &cell.walls)?;
    } else {
        rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at("reaper")?;
    }
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o022));
    limits(cell.level, &cell.walls);
    command(cell)
}

#[allow(unsafe_code)]
fn command(cell: &Cell) -> Result<Command, Broken> {
    let (program, args) = cell.argv.split_first().ok_or("empty").at("command")?;
    let mut command = Command::new(program);
    command.args(args).env_clear().envs(cell.env.iter().map(|(k, v)| (k, v))).current_dir(&cell.workdir);
    if cell.level == CellLevel::None {
        // SAFETY: `setsid` takes no argument and is safe between fork and exec.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(|_| ()).map_err(Into::into)) };
        return Ok(command);
    }
    let mut ruleset = Some(landlock::ruleset(&cell.rules, cell.least_abi)?);
    let filters = filter::programs(cell.sockets, cell.segments, &cell.guarded_pids)?;
    drop_capabilities(cell.level)?;
    let restrict = move || {
        rustix::process::setsid()?;
        rustix::thread::set_no_new_privs(true)?;
        let ruleset = ruleset.take().ok_or_else(|| std::io::Error::other("already restricted"))?;
        ruleset.restrict_self().map_err(std::io::Error::other)?;
        for filter in &filters {
            seccompiler::apply_filter(filter).map_err(std::io::Error::other)?;
        }
        Ok(())
    };
    // SAFETY: this process has one thread, so no lock can be held by another one at the fork, and
    // the closure may allocate; everything it needs was built before.
    unsafe { command.pre_exec(restrict) };
    Ok(command)
}

/// Gives up every capability, for this process and all after it.
fn drop_capabilities(level: CellLevel) -> Result<(), Broken> {
    // The two words of the capability set hold 64 numbers; the kernel answers `invalid` beyond its last.
    for bit in 0..64 {
        let cap = CapabilitySet::from_bits_retain(1 << bit);
        match rustix::thread::remove_capability_from_bounding_set(cap) {
            Ok(()) | Err(rustix::io::Errno::INVAL) => {}
            // An ordinary user can not empty the bounding set and, with `no_new_privs`, can not
            // gain from it either.
            Err(rustix::io::Errno::PERM) if level == CellLevel::Landlock => {}
            Err(error) => return Err(error).at("drop capabilities"),
        }
    }
    rustix::thread::clear_ambient_capability_set().at("drop ambient capabilities")?;
    let none = CapabilitySet::empty();
    rustix::thread::set_capabilities(None, CapabilitySets { effective: none, permitted: none, inheritable: none }).at("drop capabilities")
}

/// Limits that no command needs to pass. Failing to lower one means that it is lower already.
fn limits(level: CellLevel, walls: &Walls) {
    let lower = |resource: Resource, wanted: u64| {
        let old = rustix::process::getrlimit(resource);
        let cap = |limit: Option<u64>| Some(limit.map_or(wanted, |limit| limit.min(wanted)));
        rustix::process::setrlimit(resource, Rlimit { current: cap(old.current), maximum: cap(old.maximum) }).ok();
    };
    lower(Resource::Core, 0);
    lower(Resource::Fsize, 64 << 30);
    // Counted per user and namespace on `full`; elsewhere the user's other processes count too, so
    // that only a far limit is fair there. Root is never bound by it.
    let processes = walls.processes.map_or(4096, |most| most.saturating_add(STAGES));
    lower(Resource::Nproc, if level == CellLevel::Full { processes } else { processes.max(16384) });
    if let Some(seconds) = walls.cpu_s {
        lower(Resource::Cpu, seconds);
    }
    lower(Resource::Nofile, 65536);
    lower(Resource::Memlock, 64 << 20);
}

/// Brings the loopback interface of the new network namespace up.
#[allow(unsafe_code)]
fn loopback_up() -> std::io::Result<()> {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    use std::os::fd::AsRawFd;
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    // SAFETY: all-zero bytes are a valid `ifreq`.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *slot = byte.cast_signed() as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the descriptor is open and the structure, of the size this request expects, lives
    // across the call.
    let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request) };
    if done == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// Last words before standard error closes; where they can not be written nobody reads them.
fn eprint_last(text: &str) {
    use std::io::Write;
    drop(std::io::stderr().write_all(text.as_bytes()));
}

/// Reports the main process's end, reaps all others, and kills what is left when the keeper goes.
fn serve(mut control: Control, child: &Child) -> i32 {
    let main = child.id().cast_signed();
    let Ok(watch) = control.fd().try_clone_to_owned().map(std::os::unix::net::UnixStream::from) else { return 125 };
    let end = move || {
        use std::io::Read;
        let (mut sink, mut watch) = ([0; 64], watch);
        while watch.read(&mut sink).is_ok_and(|count| count > 0) {}
        leave_no_one();
        std::process::exit(0);
    };
    // A command that has taken all processes already leaves no thread to us; then we look by turns.
    let is_alone = std::thread::Builder::new().spawn(end).is_err();
    let options = if is_alone { WaitOptions::NOHANG } else { WaitOptions::empty() };
    loop {
        match rustix::process::wait(options) {
            Ok(Some((pid, status))) if pid.as_raw_pid() == main => {
                let exit = FromCell::Exit {
                    code: status.exit_status(),
                    signal: status.terminating_signal(),
                    is_last: is_childless(),
                    rusage: crate::process::children_usage(),
                };
                // The keeper is gone if this fails; its end of the socket then ends everything.
                drop(control.send(&exit));
            }
            Ok(None) if is_alone && has_ended(&control) => {
                leave_no_one();
                return 0;
            }
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            // Nobody is left. Orphans can not come later: only a child could make them.
            Err(_) => {
                // The end of the wait is the keeper's leave to go; an error means the same.
                drop(control.wait_end());
                return 0;
            }
        }
    }
}

/// Whether nobody is left, whom an orphan could come from. Waits for all that have ended.
fn is_childless() -> bool {
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(None) => return false,
            Ok(Some(_)) | Err(rustix::io::Errno::INTR) => {}
            Err(_) => return true,
        }
    }
}

/// Whether the keeper's end of the socket closed; waits for that for 10 ms. The keeper says nothing more.
fn has_ended(control: &Control) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(control.fd(), PollFlags::IN)];
    let timeout = rustix::time::Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
    poll(&mut fds, Some(&timeout)).is_ok_and(|ready| ready > 0)
}

fn leave_no_one() {
    let own = rustix::process::getpid().as_raw_pid();
    crate::process::kill_until_gone(Duration::from_secs(5), || crate::process::descendants(own));
}
