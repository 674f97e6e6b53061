//! From the order to the open gate: lock, cell, latch.
//!
//! Every failure in here means that nothing ran. Invariant: the steps keep this order (lock,
//! spawn held at the gate, `started` by link, gate), which is what makes a start unrepeatable.

use super::Keeper;
use super::stage::{Program, Stage};
use super::watch::Watch;
use crate::cell::{At, Broken};
use crate::format::{Lock, Process, Started, VERSION};
use crate::groups::Groups;
use crate::process::{boot_id, identify, mono_ms, wall_ms};
use crate::spool::{Caps, Writer};
use crate::wire::{CellLevel, FromCell, Order};
use rustix::fs::{CWD, FlockOperation, Mode, OFlags};
use std::fs::File;
use std::io::Write;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tinkerbell_secret::{Named, Redactor, Stream};

/// Longest time that building a sandbox may take.
const READY: Duration = Duration::from_secs(20);

/// Starts the command; `None` when another keeper has or had this run.
pub fn launch(mut order: Order) -> Result<Option<Keeper>, Broken> {
    std::env::set_current_dir("/").at("leave the directory")?;
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).at("reaper")?;
    let own = identify(rustix::process::getpid().as_raw_pid()).ok_or("not in /proc").at("find ourselves")?;
    let Some(lock) = take_lock(&order.run_dir, own)? else { return Ok(None) };
    if order.run_dir.join("started").exists() || !is_in_place(&lock, &order.run_dir) {
        return Ok(None);
    }
    let mut spool = Writer::create(&order.run_dir, Caps::default()).at("create the spool")?;
    if !order.notice.is_empty() {
        spool.push(3, mono_ms(), format!("[tinkerbell: {}]\n", order.notice).as_bytes());
    }
    let listener = listen(&order.run_dir).at("open the socket")?;
    let mut proxy = super::proxy::start(&order)?;
    // It may hold credentials, which nobody else needs.
    order.way_out = None;
    let mut groups = Groups::make(&order.run, &order.limits.into());
    let (mut child, mut control) = match spawn_cell(&order, &groups) {
        Ok(spawned) => spawned,
        Err(broken) => {
            groups.remove();
            return Err(broken);
        }
    };
    // What a segment holds is seen by control groups alone, and only a namespace ends it with the command.
    order.cell.segments = order.cell.level == CellLevel::Full && (groups.has_memory() || order.limits.memory_bytes.is_none());
    let mut give_up = |child: &mut Stage, groups: &Groups| {
        // It is held at the gate and dies with our end of the socket; killing is only faster.
        child.end();
        if let Some(proxy) = &mut proxy {
            proxy.end();
        }
        groups.remove();
    };
    let (init, way_out) = match await_ready(&order, &child, &mut control) {
        Ok(ready) => ready,
        Err(broken) => {
            give_up(&mut child, &groups);
            return Err(broken);
        }
    };
    // The last moment at which nothing has begun. A mark that comes later finds the cell, which stands.
    let mark = crate::halt::mark(order.run_dir.parent().unwrap_or(&order.run_dir));
    if crate::halt::stands(&mark) {
        give_up(&mut child, &groups);
        return Err(Broken { step: crate::halt::MARK.into(), why: "all effects are halted".into() });
    }
    if let Err(broken) = crate::approval::check(&order, wall_ms()) {
        // As above: it never left the gate.
        give_up(&mut child, &groups);
        return Err(broken);
    }
    // All before the gate: what the command starts is born in them. Most stages were born in the first themselves.
    groups.enter(&[child.pid(), init]);
    if !publish(&order, own, (&child, init), &groups)? {
        give_up(&mut child, &groups);
        return Ok(None);
    }
    if let (Some(proxy), Some(way_out)) = (&proxy, way_out) {
        proxy.listen_on(&way_out)?;
    }
    let trailer = super::ending::reserve_trailer(&order.run_dir);
    // A cell that was killed at the gate does not hear it; that is found out, and written down, as the
    // end of every other command is.
    let _heard = control.write_all(b"G").is_ok();
    let watch = Watch::new(&order, groups);
    let keeper = assemble(Parts { order, lock, child, control, listener, spool, watch })?;
    Ok(Some(Keeper { init_pid: init, trailer, mark, proxy, ..keeper }))
}

/// What a launch has made so far, on its way into a keeper.
struct Parts {
    order: Order,
    lock: File,
    child: Stage,
    control: UnixStream,
    listener: UnixListener,
    spool: Writer,
    watch: Watch,
}

fn assemble(parts: Parts) -> Result<Keeper, Broken> {
    let Parts { mut order, lock, mut child, control, listener, spool, watch } = parts;
    let output = |fd: OwnedFd| -> Result<File, Broken> {
        nonblocking(&fd)?;
        Ok(File::from(fd))
    };
    let outputs = [child.stdout.take().map(output).transpose()?, child.stderr.take().map(output).transpose()?];
    let stdin = child.stdin.take().map(File::from);
    if let Some(pipe) = &stdin {
        nonblocking(pipe)?;
    }
    control.set_read_timeout(None).at("control socket")?;
    control.set_nonblocking(true).at("control socket")?;
    let now = mono_ms();
    let redactor = redactor(&mut order);
    Ok(Keeper {
        order,
        streams: [Stream::new(redactor.clone()), Stream::new(redactor)],
        _lock: lock,
        child,
        control,
        control_text: Vec::new(),
        outputs,
        stdin,
        stdin_queue: Vec::new(),
        stdin_number: 0,
        stdin_closing: false,
        listener,
        clients: Vec::new(),
        spool,
        errors: std::collections::VecDeque::new(),
        started_ms: now,
        init_pid: 0,
        watch,
        trailer: None,
        main: None,
        is_over: false,
        cause: String::new(),
        why: String::new(),
        spent: crate::format::Spent::default(),
        kill_at_ms: None,
        is_forced: false,
        last_output_ms: now,
        mark: PathBuf::new(),
        marked_ms: now,
        proxy: None,
    })
}

/// What the order says must not be written; the order itself forgets it.
fn redactor(order: &mut Order) -> Arc<Redactor> {
    let named: Vec<Named> = std::mem::take(&mut order.secrets).into_iter().map(|hidden| (hidden.name, hidden.value)).collect();
    Arc::new(Redactor::new(&named))
}

fn nonblocking(fd: &impl AsFd) -> Result<(), Broken> {
    let flags = rustix::fs::fcntl_getfl(fd).at("pipe flags")?;
    rustix::fs::fcntl_setfl(fd, flags | OFlags::NONBLOCK).at("pipe flags")
}

/// Takes the run's lock. A daemon that asks whether it is held takes it shared for a moment, so
/// one refusal is not yet an answer.
fn take_lock(dir: &Path, own: Process) -> Result<Option<File>, Broken> {
    let mut file = File::options().create(true).truncate(false).read(true).write(true).open(dir.join("lock")).at("open the lock")?;
    for _ in 0..50 {
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {
                let content = Lock { version: VERSION, boot_id: boot_id(), keeper: own };
                file.set_len(0).at("write the lock")?;
                file.write_all(&serde_json::to_vec(&content).at("write the lock")?).at("write the lock")?;
                return Ok(Some(file));
            }
            Err(rustix::io::Errno::WOULDBLOCK) => std::thread::sleep(Duration::from_millis(4)),
            Err(error) => return Err(error).at("take the lock"),
        }
    }
    Ok(None)
}

/// Whether the lock that we hold is the one that others see: the start may have been taken back, and
/// its directory removed, while we were waiting for it.
fn is_in_place(lock: &File, dir: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let place = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
    let (held, seen) = (lock.metadata().map(place), std::fs::metadata(dir.join("lock")).map(place));
    matches!((held, seen), (Ok(held), Ok(seen)) if held == seen)
}

/// Binds the socket through the directory's descriptor, because its path may exceed 107 bytes.
fn listen(dir: &Path) -> std::io::Result<UnixListener> {
    let fd = rustix::fs::openat(CWD, dir, OFlags::DIRECTORY | OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    match std::fs::remove_file(dir.join("s")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(format!("/proc/self/fd/{}/s", fd.as_raw_fd()))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn spawn_cell(order: &Order, groups: &Groups) -> Result<(Stage, UnixStream), Broken> {
    let (ours, theirs) = UnixStream::pair().at("control socket")?;
    // The keeper has one thread and spawns nothing else, so nobody else can inherit it.
    rustix::io::fcntl_setfd(&theirs, rustix::io::FdFlags::empty()).at("control socket")?;
    let number = theirs.as_raw_fd().to_string();
    let network = if order.cell.host_network { "1" } else { "0" };
    let args: &[&str] = match order.cell.level {
        CellLevel::Full => &["__enter", &number, network],
        CellLevel::Landlock | CellLevel::None => &["__init", &number],
    };
    let env = [format!("TINKERBELL_RUN={}", order.run)];
    let child = Stage::start(&Program { exe: &order.exe, args, env: &env }, groups.unified.as_deref())?;
    Ok((child, ours))
}

/// Sends the cell its plan and waits until it stands; gives the number of its init process, and the
/// socket that it listens on for the proxy.
fn await_ready(order: &Order, child: &Stage, control: &mut UnixStream) -> Result<(i32, Option<OwnedFd>), Broken> {
    control.set_read_timeout(Some(READY)).at("control socket")?;
    control.set_write_timeout(Some(READY)).at("control socket")?;
    let plan = serde_json::to_vec(&order.cell).at("encode the cell")?;
    let len = u32::try_from(plan.len()).at("encode the cell")?;
    let sent = control.write_all(&len.to_le_bytes()).and_then(|()| control.write_all(&plan)).at("send the cell");
    if sent.is_err() {
        // A cell that ended early has said why; our broken pipe is only its echo.
        let said = read_line(control).ok().and_then(|(line, _)| serde_json::from_slice(&line).ok());
        if let Some(FromCell::Failed { step, why }) = said {
            return Err(Broken { step, why });
        }
    }
    sent?;
    // PID 1 may be done before its parent has said who it is. Without its number it, and the command with
    // it, would stand in no control group.
    let mut init = (order.cell.level != CellLevel::Full).then(|| child.pid());
    let (mut listener, mut is_ready) = (None, false);
    loop {
        if let Some(init) = init.filter(|_| is_ready) {
            return Ok((init, listener));
        }
        let (line, beside) = read_line(control)?;
        match serde_json::from_slice(&line).at("hear the cell")? {
            FromCell::Init { pid } => init = Some(pid),
            FromCell::Listening => listener = beside,
            FromCell::Ready => is_ready = true,
            FromCell::Failed { step, why } => return Err(Broken { step, why }),
            FromCell::Exit { .. } => return Err("ended before the gate").at("hear the cell"),
        }
    }
}

/// Byte by byte, so that nothing behind the line is swallowed; lines are short and few.
fn read_line(control: &UnixStream) -> Result<(Vec<u8>, Option<OwnedFd>), Broken> {
    let (mut line, mut byte, mut beside) = (Vec::new(), [0], None);
    loop {
        let (count, fd) = crate::pass::receive(control, &mut byte).at("hear the cell")?;
        beside = beside.or(fd);
        if count == 0 {
            break;
        }
        if byte == [b'\n'] {
            return Ok((line, beside));
        }
        line.extend(byte);
    }
    Err("it ended without a word").at("hear the cell")
}

/// Publishes `started` by link(2), the latch; `false` when it stands already.
fn publish(order: &Order, own: Process, (child, init): (&Stage, i32), groups: &Groups) -> Result<bool, Broken> {
    let find = |pid: i32| identify(pid).ok_or("it is gone").at("find the cell");
    let has_wall = order.cell.level == CellLevel::Full && order.limits.processes.is_some() && crate::process::kernel() >= (6, 14);
    let other = if has_wall { "+pid_max" } else { "" };
    let started = Started {
        version: VERSION,
        run: order.run.clone(),
        boot_id: boot_id(),
        keeper: own,
        cell: find(child.pid())?,
        init: find(init)?,
        cgroup: groups.unified.as_ref().map(|dir| dir.display().to_string()),
        groups: groups.others.iter().map(|dir| dir.display().to_string()).collect(),
        means: groups.means(other),
        level: match order.cell.level {
            CellLevel::Full => "full",
            CellLevel::Landlock => "landlock",
            CellLevel::None => "none",
        }
        .to_owned(),
        epoch: order.epoch,
        generation: order.generation,
        wall_ms: wall_ms(),
        network: order.network.clone(),
        layer: order.layer.clone(),
    };
    let temporary = order.run_dir.join(format!("started.{}", own.pid));
    std::fs::write(&temporary, serde_json::to_vec(&started).at("encode `started`")?).at("write `started`")?;
    let linked = std::fs::hard_link(&temporary, order.run_dir.join("started"));
    // A left-over temporary file harms nobody.
    drop(std::fs::remove_file(&temporary));
    match linked {
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
        other => other.map(|()| true).at("publish `started`"),
    }
}
