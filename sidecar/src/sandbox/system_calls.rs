use std::{collections::BTreeMap, env::consts::ARCH, process};

use libc::{c_int, c_long};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen,
    SeccompCmpOp::{self, Eq, MaskedEq},
    SeccompCondition, SeccompFilter, SeccompRule, TargetArch, apply_filter,
};

use super::Error;

// The lists were made by watching the daemon through all end-to-end tests (`strace -f -c`).

/// What connections take: the network's and the app's, and the identity source's.
const CONNECTIONS: &[c_long] = &[
    libc::SYS_accept4,
    libc::SYS_bind,
    libc::SYS_connect,
    libc::SYS_getpeername,
    libc::SYS_getsockname,
    libc::SYS_getsockopt,
    libc::SYS_listen,
    libc::SYS_recvfrom,
    libc::SYS_recvmsg,
    libc::SYS_sendmsg,
    libc::SYS_sendto,
    libc::SYS_setsockopt,
    libc::SYS_shutdown,
    libc::SYS_socketpair,
];

/// Reading and writing what is open: sockets, pipes, logs.
const DESCRIPTORS: &[c_long] = &[
    libc::SYS_close,
    libc::SYS_fcntl,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_pread64,
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
];

/// Waiting for sockets, signals, and changes of files.
const EVENTS: &[c_long] = &[
    libc::SYS_epoll_create1,
    libc::SYS_epoll_ctl,
    libc::SYS_epoll_pwait,
    libc::SYS_epoll_pwait2,
    libc::SYS_eventfd2,
    libc::SYS_inotify_add_watch,
    libc::SYS_inotify_init1,
    libc::SYS_inotify_rm_watch,
    libc::SYS_pipe2,
    libc::SYS_ppoll,
];

/// Renewed certificates, a changed configuration, the development CA, the pins at the end. Landlock
/// says which files.
const FILES: &[c_long] = &[
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_fchmod,
    libc::SYS_flock,
    libc::SYS_fsync,
    libc::SYS_ftruncate,
    libc::SYS_getcwd,
    libc::SYS_getdents64,
    libc::SYS_mkdirat,
    libc::SYS_newfstatat,
    libc::SYS_openat,
    libc::SYS_readlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_statx,
    libc::SYS_unlinkat,
];

/// Memory. More of it is [`restricted`]: none may become executable.
const MEMORY: &[c_long] = &[
    libc::SYS_brk,
    libc::SYS_madvise,
    libc::SYS_mremap,
    libc::SYS_munmap,
];

/// Threads, the signals that are for them, and the clocks they go by.
const THREADS: &[c_long] = &[
    libc::SYS_clock_getres,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_futex,
    libc::SYS_getpid,
    libc::SYS_getrandom,
    libc::SYS_gettid,
    libc::SYS_gettimeofday,
    libc::SYS_membarrier,
    libc::SYS_nanosleep,
    libc::SYS_restart_syscall,
    libc::SYS_rseq,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_set_robust_list,
    libc::SYS_sigaltstack,
];

/// Older forms of the above, which newer architectures do not have.
#[cfg(target_arch = "x86_64")]
const OLDER_FORMS: &[c_long] = &[
    libc::SYS_access,
    libc::SYS_epoll_wait,
    libc::SYS_mkdir,
    libc::SYS_open,
    libc::SYS_poll,
    libc::SYS_readlink,
    libc::SYS_rename,
    libc::SYS_rmdir,
    libc::SYS_stat,
    libc::SYS_unlink,
];
#[cfg(not(target_arch = "x86_64"))]
const OLDER_FORMS: &[c_long] = &[];

/// Commands of `bpf()` (`enum bpf_cmd` in include/uapi/linux/bpf.h): reading and writing the maps
/// that are open, and detaching the links that are, at the end. None loads, attaches, or opens
/// anything.
const BPF_COMMANDS: [u64; 6] = [
    1,  // BPF_MAP_LOOKUP_ELEM
    2,  // BPF_MAP_UPDATE_ELEM
    3,  // BPF_MAP_DELETE_ELEM
    4,  // BPF_MAP_GET_NEXT_KEY
    15, // BPF_OBJ_GET_INFO_BY_FD
    34, // BPF_LINK_DETACH
];

/// Allows the calling thread, and those it will start, nothing but what stands above.
///
/// What is refused fails with `EPERM`, and nobody is killed: the C library may make other calls
/// from one release to the next, and a proxy that dies of it would cut every connection of the
/// pod, where one that is refused logs what it could not do.
pub(super) fn filter() -> Result<(), Error> {
    // The flags of `clone3()` are behind a pointer, where no filter can look. The C library goes
    // on to `clone()`, but only from this error. Of two filters the stricter wins.
    let unknown = SeccompAction::Errno(ENOSYS);
    let clone3 = || Calls::from([(libc::SYS_clone3, Vec::new())]);
    apply_filter(&compile(clone3(), unknown, SeccompAction::Allow)?)?;
    let mut calls = allowed()?;
    calls.extend(clone3());
    let refuse = SeccompAction::Errno(EPERM);
    apply_filter(&compile(calls, SeccompAction::Allow, refuse)?)?;
    Ok(())
}

const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;

/// System calls, each with the ways to make it; any way if none is named.
type Calls = BTreeMap<c_long, Vec<SeccompRule>>;

/// A filter that does one thing with these calls, and another with all that are not among them.
fn compile(
    calls: Calls,
    among: SeccompAction,
    otherwise: SeccompAction,
) -> Result<BpfProgram, Error> {
    let filter = SeccompFilter::new(calls, otherwise, among, TargetArch::try_from(ARCH)?)?;
    Ok(filter.try_into()?)
}

fn allowed() -> Result<Calls, Error> {
    let lists = [
        CONNECTIONS,
        DESCRIPTORS,
        EVENTS,
        FILES,
        MEMORY,
        THREADS,
        OLDER_FORMS,
    ];
    let mut calls: Calls = lists
        .concat()
        .into_iter()
        .map(|call| (call, Vec::new()))
        .collect();
    for (call, ways) in restricted() {
        let rules = ways
            .into_iter()
            .map(|conditions| {
                SeccompRule::new(
                    conditions
                        .into_iter()
                        .map(condition)
                        .collect::<Result<_, _>>()?,
                )
            })
            .collect::<Result<_, _>>()?;
        calls.insert(call, rules);
    }
    Ok(calls)
}

/// What an argument, counted from 0, has to be.
type Condition = (u8, SeccompCmpOp, u64);

fn condition((argument, compare, value): Condition) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, compare, value)
}

/// What is allowed with some arguments only: each call with its ways, each way with its conditions.
fn restricted() -> Vec<(c_long, Vec<Vec<Condition>>)> {
    /// The bits of a socket's type that are no flags (include/linux/net.h).
    const SOCK_TYPE_MASK: u64 = 0xf;
    let family = |family: c_int| (0, Eq, number(family));
    let kind = |kind: c_int| (1, MaskedEq(SOCK_TYPE_MASK), number(kind));
    let stream_of = |address| vec![family(address), kind(libc::SOCK_STREAM)];
    let datagram_of = |address| vec![family(address), kind(libc::SOCK_DGRAM)];
    let not_executable = || vec![vec![(2, MaskedEq(number(libc::PROT_EXEC)), 0)]];
    let thread = number(libc::CLONE_THREAD);
    vec![
        (
            libc::SYS_bpf,
            BPF_COMMANDS.map(|command| vec![(0, Eq, command)]).into(),
        ),
        // A thread, and no process.
        (libc::SYS_clone, vec![vec![(0, MaskedEq(thread), thread)]]),
        #[expect(clippy::unnecessary_cast, reason = "it has another type in musl")]
        (libc::SYS_ioctl, vec![vec![(1, Eq, libc::FIONBIO as u64)]]),
        (libc::SYS_mmap, not_executable()),
        (libc::SYS_mprotect, not_executable()),
        // The names of threads.
        (
            libc::SYS_prctl,
            vec![vec![(0, Eq, number(libc::PR_SET_NAME))]],
        ),
        (
            libc::SYS_socket,
            vec![
                stream_of(libc::AF_INET),
                datagram_of(libc::AF_INET),
                stream_of(libc::AF_INET6),
                datagram_of(libc::AF_INET6),
                stream_of(libc::AF_UNIX),
                // Whose sockets listen, and what addresses there are.
                vec![family(libc::AF_NETLINK)],
            ],
        ),
        // How a process aborts itself.
        (libc::SYS_tgkill, vec![vec![(0, Eq, process::id().into())]]),
    ]
}

#[expect(clippy::cast_sign_loss, reason = "the constants are positive")]
const fn number(constant: c_int) -> u64 {
    constant as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_reach_beyond_the_proxy_stand_in_no_list() {
        let allowed = allowed().expect("rules");
        for (name, call) in [
            ("add_key", libc::SYS_add_key),
            ("delete_module", libc::SYS_delete_module),
            ("execve", libc::SYS_execve),
            ("execveat", libc::SYS_execveat),
            ("finit_module", libc::SYS_finit_module),
            ("init_module", libc::SYS_init_module),
            ("io_uring_enter", libc::SYS_io_uring_enter),
            ("io_uring_setup", libc::SYS_io_uring_setup),
            ("kexec_load", libc::SYS_kexec_load),
            ("keyctl", libc::SYS_keyctl),
            ("kill", libc::SYS_kill),
            ("memfd_create", libc::SYS_memfd_create),
            ("mount", libc::SYS_mount),
            ("open_by_handle_at", libc::SYS_open_by_handle_at),
            ("perf_event_open", libc::SYS_perf_event_open),
            ("pidfd_getfd", libc::SYS_pidfd_getfd),
            ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
            ("process_vm_readv", libc::SYS_process_vm_readv),
            ("process_vm_writev", libc::SYS_process_vm_writev),
            ("ptrace", libc::SYS_ptrace),
            ("setns", libc::SYS_setns),
            ("tkill", libc::SYS_tkill),
            ("unshare", libc::SYS_unshare),
            ("userfaultfd", libc::SYS_userfaultfd),
        ] {
            assert!(!allowed.contains_key(&call), "{name}");
        }
        // In these it is the arguments that matter.
        for call in [libc::SYS_bpf, libc::SYS_clone, libc::SYS_socket] {
            assert_ne!(allowed[&call].len(), 0, "{call} is allowed in any way");
        }
    }
}
