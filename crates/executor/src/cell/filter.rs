//! seccomp: stacked filters, one for each answer.
//!
//! A filter reads numbers, never what a pointer points to; paths and addresses are decided by the
//! other layers. Invariant: what is refused here is refused for every child, because filters are
//! inherited and `no_new_privs` is set.

use super::{At, Broken};
use crate::wire::Sockets;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule, sock_filter,
};
use std::collections::BTreeMap;

/// System calls that no build, test or shell needs, and that widen the attack surface.
const REFUSED: &[i64] = &[
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_pivot_root,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_vhangup,
    libc::SYS_fanotify_init,
    libc::SYS_lookup_dcookie,
];

/// System V's shared memory, queues and semaphores, and the queues of POSIX: memory that no mapping shows
/// and that stays when the command has ended. Without a namespace they are the host's.
const SEGMENTS: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
];

/// Calls that give a file attributes. Those of `user.overlay.` in a tree decide what is seen through a layer over it: with
/// them a command could hide files from the check that it does not pass. The answer is that of a file system without
/// attributes, which copying programs expect.
const ATTRIBUTES: &[i64] = &[libc::SYS_setxattr, libc::SYS_lsetxattr, libc::SYS_fsetxattr, SETXATTRAT];
/// The same number on every architecture; not every C library's headers name it.
const SETXATTRAT: i64 = 463;

/// System calls of one architecture only.
#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] = &[libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt, libc::SYS_kexec_file_load];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// Flags of `clone` that make namespaces.
const NAMESPACES: &[i32] = &[
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWNS,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWCGROUP,
];

/// The same number on every architecture; not every C library's headers name it.
const FCHMODAT2: i64 = 452;

/// Calls that set a file's mode, with the place of the mode among their arguments.
const MODES: &[(i64, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_chmod, 1),
    (libc::SYS_fchmod, 1),
    (libc::SYS_fchmodat, 2),
    (FCHMODAT2, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_creat, 1),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_mknod, 1),
    (libc::SYS_mknodat, 2),
];

/// Calls that may make a file, with the places of flags and mode.
const OPENS: &[(i64, u8, u8)] = &[
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1, 2),
    (libc::SYS_openat, 2, 3),
];
/// The bit of `O_TMPFILE` that no other flag has.
const UNNAMED: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;

/// Calls by which processes of one user meet that no file leads to. Where commands have an IPC namespace
/// of their own they meet nobody; elsewhere they would read and write what belongs to the user's other programs.
const MEETING: &[i64] = &[
    libc::SYS_shmget,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_semctl,
    libc::SYS_msgget,
    libc::SYS_msgsnd,
    libc::SYS_msgrcv,
    libc::SYS_msgctl,
    libc::SYS_mq_open,
    libc::SYS_mq_unlink,
    // A socket that came from a pair can be led elsewhere.
    libc::SYS_connect,
];

/// Calls that change how another process runs, with the place of its number, which is zero for the caller.
/// The kernel asks for the same user and nothing else, and Landlock is not asked.
const STEERING: &[(i64, u8)] = &[
    (libc::SYS_setpriority, 1),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_ioprio_set, 1),
];
/// Those of them that can mean all processes of a user, with the first argument that does.
const ALL_OF_A_USER: &[(i64, u64)] = &[(libc::SYS_setpriority, 2), (libc::SYS_ioprio_set, 3)];

/// Compiles the filters, in the order in which they are to be installed.
pub fn programs(sockets: Sockets, segments: bool, guarded: &[i32]) -> Result<Vec<BpfProgram>, Broken> {
    let eperm = libc::EPERM.cast_unsigned();
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
    for number in REFUSED.iter().chain(REFUSED_HERE) {
        rules.insert(*number, Vec::new());
    }
    for number in SEGMENTS.iter().filter(|_| !segments) {
        rules.insert(*number, Vec::new());
    }
    add_conditions(&mut rules, sockets, guarded).at("seccomp: rules")?;
    // The flags of `clone3` and the mode of `openat2` stand behind a pointer: with "no such call"
    // programs fall back to `clone` and `openat`, which can be read.
    let hidden = BTreeMap::from([(libc::SYS_clone3, Vec::new()), (libc::SYS_openat2, Vec::new())]);
    let mut programs = vec![compile(rules, eperm)?, compile(hidden, libc::ENOSYS.cast_unsigned())?];
    if sockets == Sockets::Common {
        // Only where commands have namespaces, they may have layers.
        let attributes = ATTRIBUTES.iter().map(|number| (*number, Vec::new())).collect();
        programs.push(compile(attributes, libc::EOPNOTSUPP.cast_unsigned())?);
    }
    if cfg!(target_arch = "x86_64") {
        programs.push(refuse_x32(eperm));
    }
    Ok(programs)
}

fn compile(rules: BTreeMap<i64, Vec<SeccompRule>>, errno: u32) -> Result<BpfProgram, Broken> {
    let arch = std::env::consts::ARCH.try_into().at("seccomp: architecture")?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno), arch).at("seccomp: filter")?;
    filter.try_into().at("seccomp: compile")
}

fn add_conditions(rules: &mut BTreeMap<i64, Vec<SeccompRule>>, sockets: Sockets, guarded: &[i32]) -> Result<(), seccompiler::BackendError> {
    let is = |arg: u8, op: Op, value: u64| SeccompCondition::new(arg, Len::Dword, op, value);
    // `ioctl(TIOCSTI)` types into a terminal, `TIOCLINUX` pastes into a console.
    for request in [0x5412, 0x541c] {
        rules.entry(libc::SYS_ioctl).or_default().push(SeccompRule::new(vec![is(1, Op::Eq, request)?])?);
    }
    for flag in NAMESPACES {
        let flag = u64::from(flag.cast_unsigned());
        rules.entry(libc::SYS_clone).or_default().push(SeccompRule::new(vec![is(0, Op::MaskedEq(flag), flag)?])?);
    }
    // A setuid program that a command of user 0 leaves behind would raise whoever finds it, and
    // Landlock up to ABI 7 does not stop a `chmod` outside the workspace.
    for bit in [libc::S_ISUID, libc::S_ISGID].map(u64::from) {
        for (call, argument) in MODES {
            rules.entry(*call).or_default().push(SeccompRule::new(vec![is(*argument, Op::MaskedEq(bit), bit)?])?);
        }
        // Without one of these flags the mode means nothing, and holds whatever stood there.
        for flag in [libc::O_CREAT, UNNAMED].map(|flag| u64::from(flag.cast_unsigned())) {
            for (call, flags, mode) in OPENS {
                let both = vec![is(*flags, Op::MaskedEq(flag), flag)?, is(*mode, Op::MaskedEq(bit), bit)?];
                rules.entry(*call).or_default().push(SeccompRule::new(both)?);
            }
        }
    }
    match sockets {
        Sockets::Refused => {
            rules.insert(libc::SYS_socket, Vec::new());
            keep_apart(rules)?;
        }
        Sockets::Common => {
            let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
            let others = families.iter().map(|family| is(0, Op::Ne, u64::from(family.cast_unsigned())));
            let others = others.collect::<Result<Vec<_>, _>>()?;
            rules.insert(libc::SYS_socket, vec![SeccompRule::new(others)?]);
        }
    }
    let signals = [libc::SYS_kill, libc::SYS_tkill, libc::SYS_tgkill, libc::SYS_rt_sigqueueinfo, libc::SYS_rt_tgsigqueueinfo];
    for pid in guarded {
        for call in signals {
            let pid = u64::from(pid.cast_unsigned());
            rules.entry(call).or_default().push(SeccompRule::new(vec![is(0, Op::Eq, pid)?])?);
        }
    }
    if !guarded.is_empty() {
        rules.insert(libc::SYS_pidfd_send_signal, Vec::new());
    }
    Ok(())
}

/// Keeps a command from the user's other processes where no namespace hides them.
fn keep_apart(rules: &mut BTreeMap<i64, Vec<SeccompRule>>) -> Result<(), seccompiler::BackendError> {
    let is = |arg: u8, op: Op, value: u64| SeccompCondition::new(arg, Len::Dword, op, value);
    for call in MEETING {
        rules.insert(*call, Vec::new());
    }
    // One that carries datagrams is bound to nobody: each names whom it goes to.
    let kind = Op::MaskedEq(0xf);
    let datagrams = SeccompRule::new(vec![is(1, kind, u64::from(libc::SOCK_DGRAM.cast_unsigned()))?])?;
    rules.entry(libc::SYS_socketpair).or_default().push(datagrams);
    // A limit on processor time ends a process as a signal does. Asking for one is harmless.
    let sets = SeccompCondition::new(2, Len::Qword, Op::Ne, 0)?;
    rules.entry(libc::SYS_prlimit64).or_default().push(SeccompRule::new(vec![is(0, Op::Ne, 0)?, sets])?);
    for (call, place) in STEERING {
        rules.entry(*call).or_default().push(SeccompRule::new(vec![is(*place, Op::Ne, 0)?])?);
    }
    for (call, which) in ALL_OF_A_USER {
        rules.entry(*call).or_default().push(SeccompRule::new(vec![is(0, Op::Eq, *which)?])?);
    }
    Ok(())
}

/// Refuses numbers of the x32 ABI, which name the same calls a second time.
fn refuse_x32(errno: u32) -> BpfProgram {
    const LOAD: u16 = 0x20;
    const JUMP_GE: u16 = 0x35;
    const RETURN: u16 = 0x06;
    const RET_ERRNO: u32 = 0x0005_0000;
    const RET_ALLOW: u32 = 0x7fff_0000;
    vec![
        sock_filter { code: LOAD, jt: 0, jf: 0, k: 0 },
        sock_filter { code: JUMP_GE, jt: 0, jf: 1, k: 0x4000_0000 },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: RET_ERRNO | errno },
        sock_filter { code: RETURN, jt: 0, jf: 0, k: RET_ALLOW },
    ]
}
