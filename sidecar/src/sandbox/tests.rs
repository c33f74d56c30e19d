//! What a confined thread may still do, and what not. The kernel confines each thread for itself,
//! so every test has a thread of its own that is, and the others stay as they were.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    net::{Ipv4Addr, Ipv6Addr, TcpListener, TcpStream, UdpSocket},
    os::unix::{
        fs::symlink,
        net::{UnixListener, UnixStream},
    },
    process::Command,
    sync::{Arc, Barrier},
};

use memmap2::MmapMut;
use nix::{
    errno::Errno,
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::{
        prctl, ptrace,
        signal::{Signal, kill},
        socket::{AddressFamily, SockFlag, SockType, socket},
    },
    unistd::{Pid, getppid},
};

use super::*;
use crate::{
    bpf::probe::{self, Kind},
    identity::{self, testing::id},
};

/// Does `work` on a confined thread.
fn confined<T: Send + 'static>(sandbox: Sandbox, work: impl FnOnce() -> T + Send + 'static) -> T {
    confined_after(sandbox, || (), work)
}

/// Does `work` on a thread that was confined before `change` was done elsewhere.
fn confined_after<T: Send + 'static>(
    sandbox: Sandbox,
    change: impl FnOnce(),
    work: impl FnOnce() -> T + Send + 'static,
) -> T {
    let confined = Arc::new(Barrier::new(2));
    let changed = Arc::clone(&confined);
    let thread = thread::spawn(move || {
        let confinement = sandbox.confine_thread();
        confined.wait();
        confined.wait();
        let confinement = confinement.expect("a kernel that can confine");
        let landlock = confinement.landlock;
        assert_ne!(landlock, Landlock::Missing, "the tests need Landlock");
        work()
    });
    changed.wait();
    change();
    changed.wait();
    thread.join().expect("no panic")
}

/// Does `work` on a thread that is allowed nothing but what every proxy is.
fn bare<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    confined(Sandbox::default(), work)
}

fn is_denied<T>(result: io::Result<T>) -> bool {
    result.is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[test]
fn no_other_program_is_run() {
    assert!(is_denied(bare(|| Command::new("/bin/true").status())));
    assert!(Command::new("/bin/true").status().is_ok());
}

#[test]
fn no_program_is_loaded_into_the_kernel() {
    assert!(is_denied(bare(|| probe::is_supported(Kind::SkLookup))));
}

#[test]
fn no_process_is_traced_or_signalled() {
    // Without a filter: `ESRCH`, as it is not traced.
    assert_eq!(bare(|| ptrace::cont(Pid::this(), None)), Err(Errno::EPERM));
    assert_eq!(bare(|| kill(getppid(), None)), Err(Errno::EPERM));
    assert_eq!(
        bare(|| kill(Pid::this(), Signal::SIGCONT)),
        Err(Errno::EPERM)
    );
}

#[test]
fn no_namespace_or_mount_is_made() {
    assert_eq!(
        bare(|| unshare(CloneFlags::CLONE_FILES)),
        Err(Errno::EPERM),
        "not even one that takes no privileges"
    );
    let mounted = bare(|| {
        mount(
            None::<&str>,
            "/mnt",
            Some("tmpfs"),
            MsFlags::empty(),
            None::<&str>,
        )
    });
    assert_eq!(mounted, Err(Errno::EPERM));
}

#[test]
fn no_memory_becomes_executable() {
    let make = || MmapMut::map_anon(4096).and_then(MmapMut::make_exec);
    assert!(make().is_ok());
    assert!(is_denied(bare(make)));
}

#[test]
fn sockets_are_streams_and_datagrams_of_the_families_in_use() {
    let open = |family, kind| move || socket(family, kind, SockFlag::empty(), None).map(drop);
    for (family, kind) in [
        (AddressFamily::Packet, SockType::Raw),
        (AddressFamily::Inet, SockType::Raw),
        (AddressFamily::Inet6, SockType::Raw),
        // These take no privileges.
        (AddressFamily::Alg, SockType::SeqPacket),
        (AddressFamily::Unix, SockType::Datagram),
    ] {
        assert_eq!(
            bare(open(family, kind)),
            Err(Errno::EPERM),
            "{family:?} {kind:?}"
        );
    }
    for (family, kind) in [
        (AddressFamily::Inet, SockType::Stream),
        (AddressFamily::Inet6, SockType::Stream),
        (AddressFamily::Inet, SockType::Datagram),
        (AddressFamily::Unix, SockType::Stream),
        (AddressFamily::Netlink, SockType::Raw),
    ] {
        assert_eq!(bare(open(family, kind)), Ok(()), "{family:?} {kind:?}");
    }
}

#[test]
fn only_ports_of_the_kernels_choice_and_the_admin_endpoints_are_bound() {
    let free = || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        listener.local_addr().expect("a bound socket").port()
    };
    let (admin_port, other) = (free(), free());
    let sandbox = Sandbox {
        admin_port,
        ..Sandbox::default()
    };
    confined(sandbox, move || {
        assert!(is_denied(TcpListener::bind((Ipv4Addr::LOCALHOST, other))));
        assert!(is_denied(TcpListener::bind((Ipv6Addr::LOCALHOST, other))));
        TcpListener::bind((Ipv4Addr::LOCALHOST, admin_port)).expect("the own port");
    });
}

#[test]
fn bytes_are_carried() {
    bare(|| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let mut client = TcpStream::connect(listener.local_addr().expect("bound")).expect("dial");
        let (mut server, _) = listener.accept().expect("a connection");
        client.write_all(b"hello").expect("write");
        server.read_exact(&mut [0; 5]).expect("read");
        server.set_nonblocking(true).expect("an option");
        UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a datagram socket");
    });
}

#[test]
fn threads_are_started_and_confined() {
    let denied = bare(|| {
        let thread = thread::Builder::new().name("worker".to_owned());
        let worker = thread
            .spawn(|| File::open("/etc/shadow"))
            .expect("a thread");
        is_denied(worker.join().expect("no panic"))
    });
    assert!(denied);
}

#[test]
fn the_process_cannot_be_dumped() {
    bare(|| ());
    assert_eq!(prctl::get_dumpable(), Ok(false));
}

#[test]
fn files_are_out_of_reach() {
    for path in [
        "/etc/shadow",
        "/proc/self/environ",
        "/etc/hostname",
        "/proc/sys/kernel/osrelease",
    ] {
        assert!(is_denied(bare(move || File::open(path))), "{path}");
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().to_owned();
    assert!(is_denied(bare(move || fs::write(path.join("new"), ""))));
    let path = directory.path().to_owned();
    assert!(is_denied(bare(move || fs::read_dir(path))));
}

#[test]
fn files_that_are_named_may_be_replaced_or_come_later() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = |name: &str| directory.path().join(name);
    // As Kubernetes mounts a secret.
    fs::create_dir(path("..1")).expect("a directory");
    fs::write(path("..1/tls.crt"), "old").expect("a file");
    symlink("..1", path("..data")).expect("a link");
    symlink("..data/tls.crt", path("tls.crt")).expect("a link");
    let sandbox = Sandbox {
        files: vec![path("tls.crt"), path("crl.pem")],
        ..Sandbox::default()
    };
    let change = || {
        fs::create_dir(path("..2")).expect("a directory");
        fs::write(path("..2/tls.crt"), "new").expect("a file");
        symlink("..2", path("..data_tmp")).expect("a link");
        fs::rename(path("..data_tmp"), path("..data")).expect("a swap");
        fs::write(path("crl.pem"), "revoked").expect("a file");
    };
    let (certificate, revoked) = (path("tls.crt"), path("crl.pem"));
    confined_after(sandbox, change, move || {
        let read = |path| fs::read_to_string(path).expect("it is named");
        assert_eq!(
            (read(&certificate), read(&revoked)),
            ("new".into(), "revoked".into())
        );
        assert!(is_denied(fs::write(&certificate, "mine")));
        assert!(is_denied(fs::remove_file(&certificate)));
    });
}

#[test]
fn a_file_that_is_appended_to_is_made_again_and_never_read() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("access.log");
    fs::write(&path, "before").expect("a file");
    let sandbox = Sandbox {
        appended: Some(path.clone()),
        ..Sandbox::default()
    };
    let renamed = || fs::rename(&path, path.with_extension("log.1")).expect("a file");
    let again = path.clone();
    confined_after(sandbox, renamed, move || {
        let open = || File::options().append(true).create(true).open(&again);
        writeln!(open().expect("it is named"), "after").expect("it can be written");
        assert!(is_denied(fs::read(&again)));
        assert!(is_denied(fs::remove_file(&again)));
    });
    assert_eq!(fs::read_to_string(&path).expect("a file"), "after\n");
}

#[test]
fn files_behind_links_are_read_where_they_are() {
    let [links, files] = [(), ()].map(|()| tempfile::tempdir().expect("a temporary directory"));
    fs::write(files.path().join("key"), "key").expect("a file");
    let link = links.path().join("key");
    symlink(files.path().join("key"), &link).expect("a link");
    let sandbox = Sandbox {
        files: vec![link.clone()],
        ..Sandbox::default()
    };
    assert_eq!(
        confined(sandbox, || fs::read_to_string(link)).ok(),
        Some("key".into())
    );
}

#[test]
fn a_development_ca_makes_its_root_and_issues() {
    let parent = tempfile::tempdir().expect("a temporary directory");
    let source = identity::Origin::DevCa {
        dir: parent.path().to_owned(),
        id: id("web"),
    };
    let sandbox = Sandbox {
        directories: vec![parent.path().to_owned()],
        ..Sandbox::default()
    };
    confined(sandbox, move || {
        source.check().expect("a new authority");
        source.check().expect("the same again");
    });
}

#[test]
fn pins_are_removed() {
    let bpffs = tempfile::tempdir().expect("a temporary directory");
    let pins = bpffs.path().join("sidecar/17");
    fs::create_dir_all(pins.join("links")).expect("a directory");
    fs::write(pins.join("links/hook"), "").expect("a file");
    fs::write(bpffs.path().join("other"), "").expect("a file");
    let sandbox = Sandbox {
        pins: Some(pins.clone()),
        ..Sandbox::default()
    };
    let root = bpffs.path().to_owned();
    confined(sandbox, move || {
        assert!(is_denied(fs::remove_file(root.join("other"))));
        fs::remove_dir_all(&pins).expect("the own pins");
        fs::remove_dir(root.join("sidecar")).expect("that of all pods");
    });
}

#[test]
fn the_workload_api_is_reached() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("agent.sock");
    let _listener = UnixListener::bind(&path).expect("a socket");
    bare(move || UnixStream::connect(path)).expect("a connection");
}

#[test]
fn what_else_the_proxy_reads_is_in_reach() {
    let cgroup = tempfile::tempdir().expect("a temporary directory");
    fs::create_dir(cgroup.path().join("app")).expect("a directory");
    let sandbox = Sandbox {
        cgroup: cgroup.path().to_owned(),
        ..Sandbox::default()
    };
    let cgroup = cgroup.path().to_owned();
    confined(sandbox, move || {
        File::open("/dev/null").expect("a spare descriptor");
        fs::read("/sys/devices/system/cpu/possible").expect("the number of processors");
        assert_eq!(fs::read_dir(cgroup).expect("a directory").count(), 1);
    });
}

#[test]
fn other_threads_are_an_obstacle() {
    let _other = thread::spawn(thread::park);
    let error = Sandbox::default()
        .enter()
        .expect_err("this is one of several threads");
    assert!(matches!(error, Error::OtherThreads(_)), "{error}");
}
