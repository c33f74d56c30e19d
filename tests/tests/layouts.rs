//! Machines and networks that are set up in ways of their own, each with what holds there; `docs/kernels.md` has the same
//! as a table. What is the whole machine's is changed in emulated machines alone.

use std::net::IpAddr;

use serde_json::{Value, json};
use sidecar_tests::{
    App, Behaviour, Check, Pod, Pods, SECRET,
    app::GREETING,
    cgroup::{self, Naming},
    kernel,
    svid::{Ca, Svid},
    sysctl::Sysctl,
    wait,
};

const STRICT: &[&str] = &["--inbound", "strict", "--outbound", "strict"];

/// Both modes in which sidecars find each other.
const MODES: [&[&str]; 2] = [&[], STRICT];

/// What takes everything away from root but the two capabilities that attaching takes.
const TWO_CAPABILITIES: [&str; 2] = ["--inh-caps=-all", "--bounding-set=-all,+bpf,+net_admin"];

#[test]
fn sidecars_find_each_other_though_every_answer_is_a_syn_cookie() {
    for mode in MODES {
        let pods = Pods::meshed_with(mode, mode);
        force_syn_cookies(&pods);
        let capture = pods.client.capture();
        assert_talk(&pods, [pods.server.v4().into(), pods.server.v6().into()]);
        capture.finish().assert_encrypted(&[GREETING, SECRET]);
        pods.mutual_connection(GREETS);
        pods.mutual_connection(ECHOES);
        assert_ne!(
            pods.server.sandbox().namespace().counter("SyncookiesRecv"),
            0
        );
        let check = check(&pods.server);
        check.assert_warns("SYN cookies are not forced", "tcp_syncookies");
    }
}

#[test]
fn after_a_syn_cookie_a_server_that_speaks_first_waits_for_the_clients_handshake() {
    let mut pods = Pods::plain();
    let ca = Ca::new(&pods.client, "sidecar.local");
    let [client, server] = [&pods.client, &pods.server].map(|pod| ca.issue(&pod.identity(), "1h"));
    pods.server.mesh_with(&server.flags());
    // The client's sidecar connects, and can begin no handshake before it has an identity.
    let directory = pods.client.sandbox().directory();
    let late = Svid {
        certificate: directory.join("late.pem"),
        key: directory.join("late_key.pem"),
        bundle: directory.join("late_bundle.pem"),
    };
    pods.client.start_sidecar(&late.flags());
    force_syn_cookies(&pods);
    let _apps = apps(&pods.server);
    let capture = pods.client.capture();
    let dial = pods
        .client
        .snippet("print(read_line(dial(sys.argv[1], 8080)))");
    let mut dial = dial.arg(pods.server.v4().to_string()).start();
    wait::until("the connection is steered", || {
        pods.server.sidecar().kernel_events("inbound_steered") > 0
    });
    client.replace(&late);
    dial.wait_for_stdout(GREETING);
    pods.mutual_connection(GREETS);
    capture.finish().assert_encrypted(&[GREETING]);
}

#[test]
fn pods_in_which_the_network_reaches_loopback_talk_as_others_do() {
    for mode in MODES {
        let pods = Pods::meshed_with(mode, mode);
        for pod in [&pods.client, &pods.server] {
            for device in ["all", "eth0", "lo"] {
                let key = format!("net/ipv4/conf/{device}/route_localnet");
                pod.sandbox().namespace().sysctl(&key, "1");
            }
        }
        let capture = pods.client.capture();
        assert_talk(&pods, [pods.server.v4().into(), pods.server.v6().into()]);
        capture.finish().assert_encrypted(&[GREETING, SECRET]);
        pods.mutual_connection(ECHOES);
        for event in ["dropped_off_loopback", "dropped_unknown_flow"] {
            assert_eq!(pods.client.sidecar().kernel_events(event), 0, "{event}");
        }
        let check = check(&pods.server);
        check.assert_warns("the network cannot reach loopback addresses", "all");
    }
}

/// Holds a connection for each local port, and tells what comes of one more to the same port of the
/// server, and of one to another.
const HOLD: &str = r#"
held = []
def talk(port):
    try:
        # A reset may be there before this one knows that it is connected.
        sock = dial(sys.argv[1], port)
        held.append(sock)
        sock.sendall(b"violet rhinoceros\n")
        return ending(sock)
    except (ConnectionResetError, BrokenPipeError):
        return "reset"
report(held=[talk(8082) for _ in range(8)], more=talk(8082), elsewhere=talk(8081))
"#;

/// As many as [`HOLD`] takes.
const EIGHT_PORTS: &str = "40000 40007";

#[test]
fn when_local_ports_are_used_up_the_app_is_reset_and_the_log_says_why() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _apps = [8081, 8082].map(|port| App::start(&pods.server, Behaviour::Echo, port));
    let namespace = pods.client.sandbox().namespace();
    namespace.sysctl("net/ipv4/ip_local_port_range", EIGHT_PORTS);
    let capture = pods.client.capture();
    let seen: Value = hold(&pods, pods.server.v4().into());
    // Towards another port of the server each of them is free.
    assert_eq!(
        seen,
        json!({ "held": vec![SECRET; 8], "more": "reset", "elsewhere": SECRET })
    );
    let failure = &pods.client.sidecar().failures("outbound", 1)[0];
    assert_eq!(failure.close, "connect_failed");
    let reason = failure.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("net.ipv4.ip_local_port_range"), "{reason}");
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET]);
    assert_eq!(wire.streams.len(), 9);
    let check = check(&pods.client);
    let claim = "local ports are enough for 10,000 connections to one destination";
    check.assert_warns(claim, "ip_local_port_range has 8");
}

#[test]
fn the_servers_local_ports_are_no_limit_to_who_comes_in_over_ipv4_and_one_over_ipv6() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _apps = [8081, 8082].map(|port| App::start(&pods.server, Behaviour::Echo, port));
    let namespace = pods.server.sandbox().namespace();
    namespace.sysctl("net/ipv4/ip_local_port_range", EIGHT_PORTS);
    let all = json!({ "held": vec![SECRET; 8], "more": SECRET, "elsewhere": SECRET });
    assert_eq!(hold(&pods, pods.server.v4().into()), all);
    let but_one = json!({ "held": vec![SECRET; 8], "more": "reset", "elsewhere": SECRET });
    assert_eq!(hold(&pods, pods.server.v6().into()), but_one);
    let failure = &pods.server.sidecar().failures("inbound", 1)[0];
    assert_eq!(failure.close, "connect_failed");
    let reason = failure.reason.as_deref().unwrap_or_default();
    assert!(reason.contains("net.ipv4.ip_local_port_range"), "{reason}");
}

#[test]
fn without_local_ports_for_its_listeners_a_sidecar_is_refused_before_anything_is_attached() {
    let pods = Pods::plain();
    let namespace = pods.server.sandbox().namespace();
    namespace.sysctl("net/ipv4/ip_local_port_range", "40000 40000");
    let run = pods.server.sidecar_run().args(DEV_CA).run();
    run.assert_one_sentence(&["net.ipv4.ip_local_port_range", "127.0.0.1"]);
    pods.server.assert_nothing_left();
    let check = check(&pods.server);
    let claim = "local ports are enough for 10,000 connections to one destination";
    check.assert_fails(claim, &["net.ipv4.ip_local_port_range has 1"]);
}

#[test]
fn pods_whose_ipv6_is_turned_off_talk_over_ipv4() {
    for mode in MODES {
        let mut pods = Pods::plain();
        for pod in [&pods.client, &pods.server] {
            let namespace = pod.sandbox().namespace();
            namespace.sysctl("net/ipv6/conf/all/disable_ipv6", "1");
        }
        pods.mesh(Some(mode), Some(mode));
        let capture = pods.client.capture();
        assert_talk(&pods, [pods.server.v4().into()]);
        capture.finish().assert_encrypted(&[GREETING, SECRET]);
        pods.mutual_connection(ECHOES);
        let check = check(&pods.server);
        check.assert_found("loopback carries IPv6 where the pod has it", "no IPv6");
    }
}

#[test]
fn ipv6_that_loopback_does_not_carry_is_refused_in_both_directions_and_never_plaintext() {
    for mode in MODES {
        let mut pods = Pods::plain();
        let namespace = pods.server.sandbox().namespace();
        namespace.sysctl("net/ipv6/conf/lo/disable_ipv6", "1");
        pods.mesh(None, Some(mode));
        let said = ["::1", &*pods.server.v6().to_string(), "disable_ipv6=0"];
        pods.server.sidecar().logs(&said);
        let _apps = [&pods.client, &pods.server].map(apps);
        let capture = pods.server.capture();
        let inbound = pods.client.converse(pods.server.v6(), ECHOES, SECRET);
        assert_eq!(inbound, "refused");
        let outbound = pods
            .server
            .snippet("report(error=attempt(lambda: converse(*sys.argv[1:])))");
        let arguments = [&*pods.client.v6().to_string(), "8081", SECRET];
        assert_eq!(
            outbound.args(arguments).facts::<Value>(),
            json!({ "error": "OSError" })
        );
        assert!(!capture.finish().contains(SECRET));
        let counted = pods.server.sidecar().kernel_events("dropped_no_listener");
        assert_eq!(counted, 1);
        let check = check(&pods.server);
        let claim = "loopback carries IPv6 where the pod has it";
        check.assert_fails(claim, &["eth0", "disable_ipv6=0"]);
    }
}

/// Sends 8 MiB to a server that echoes while it reads as much back.
const BULK: &str = r"
import random, threading
sock = dial(sys.argv[1], sys.argv[2])
# Where memory is missing, lost packets are sent again ever later.
sock.settimeout(4 * DEADLINE)
data = random.Random(1).randbytes(4 * MIB)
def send():
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
count, digest, end = drain(sock)
sender.join()
report(count=count, whole=digest == hashlib.sha256(data).hexdigest(), end=end)
";

#[test]
fn devices_may_carry_little_or_much_on_either_side() {
    for (client, server) in [(1280, 1280), (9000, 9000), (1280, 9000), (9000, 1280)] {
        let pods = Pods::plain();
        set_mtu(&pods, &pods.client, client);
        set_mtu(&pods, &pods.server, server);
        assert_bulk(pods, STRICT);
    }
}

/// A network that drops what is longer than most carry, and tells nobody.
const BLACK_HOLE: &str = "
    table bridge middlebox {
        chain forward {
            type filter hook forward priority 0
            meta length > 1500 counter drop
        }
    }";

#[test]
fn with_mtu_probing_connections_get_through_where_large_packets_vanish() {
    let pods = Pods::plain();
    for pod in [&pods.client, &pods.server] {
        set_mtu(&pods, pod, 9000);
        let namespace = pod.sandbox().namespace();
        namespace.sysctl("net/ipv4/tcp_mtu_probing", "2");
        // What is cut into segments only by the device would not be seen to be large.
        namespace.ip("link set eth0 gso_max_segs 1");
    }
    pods.network.nft(BLACK_HOLE);
    assert_bulk(pods, &[]);
}

#[test]
fn check_finds_cgroup_v2_wherever_it_is_mounted() {
    let pods = Pods::plain();
    let mount = cgroup::root();
    let check = check(&pods.server);
    check.assert_found("cgroup v2 is mounted", &mount.to_string_lossy());
}

#[test]
fn a_sidecar_whose_cgroup_namespace_shows_its_own_cgroup_as_the_root_finds_its_pod() {
    for naming in [Naming::Cgroupfs, Naming::Systemd, Naming::Own] {
        let mut pods = Pods::named_by(naming);
        let dev_ca = pods.dev_ca();
        let cgroup = pods.server.sandbox().cgroup().path().to_owned();
        let cgroup = cgroup.to_str().expect("the name is ASCII");
        // A cgroup that nobody has named as a pod's has to be told.
        let told = ["--cgroup", cgroup];
        let flags = if naming == Naming::Own {
            &told[..]
        } else {
            &[]
        };
        let seen = pods.server.in_cgroup_namespace("check");
        let seen = Check::of(seen.args(DEV_CA).args(flags));
        seen.assert_found("the pod's cgroup can be opened", cgroup);
        pods.server.mesh_in_cgroup_namespace(&dev_ca, flags);
        pods.mesh(Some(STRICT), None);
        let capture = pods.client.capture();
        assert_talk(&pods, [pods.server.v4().into(), pods.server.v6().into()]);
        capture.finish().assert_encrypted(&[GREETING, SECRET]);
        pods.mutual_connection(ECHOES);
    }
}

#[test]
fn where_no_bpf_file_system_is_mounted_run_mounts_one_and_who_may_not_is_told() {
    let mut pods = Pods::plain();
    pods.server.unmount_bpffs();
    let claim = "a BPF file system is mounted";
    check(&pods.server).assert_found(claim, "not yet; `sidecar run` mounts it");

    // Who may attach, but not mount.
    let confined = pods.server.sidecar_check_confined(&TWO_CAPABILITIES);
    let confined = Check::of(confined.args(DEV_CA));
    let claim = "CAP_SYS_ADMIN is held where it is needed";
    confined.assert_fails(claim, &["to mount a BPF file system"]);
    for command in [
        pods.server.sidecar_init(&TWO_CAPABILITIES),
        pods.server
            .sidecar_run_confined(&TWO_CAPABILITIES)
            .args(DEV_CA),
    ] {
        command
            .run()
            .assert_one_sentence(&["mount -t bpf", &pods.server.bpffs().to_string_lossy()]);
    }
    pods.server.assert_nothing_left();
    let status = pods.server.sidecar_command("status").succeed();
    assert_eq!(status, "nothing of ours is attached\n");

    pods.mesh(Some(STRICT), Some(STRICT));
    assert!(!pods.server.pins().is_empty());
    let capture = pods.client.capture();
    assert_talk(&pods, [pods.server.v4().into()]);
    capture.finish().assert_encrypted(&[GREETING, SECRET]);
}

/// The claim of `sidecar check` that tries all of it.
const LOADS: &str = "the kernel takes the whole kernel side";

#[test]
fn with_little_locked_memory_a_pod_is_served_or_refused_by_kernel_and_check_says_the_same() {
    const LITTLE: [&str; 3] = ["--", "/usr/bin/prlimit", "--memlock=65536:65536"];
    let few = [
        "--inh-caps=-all",
        "--bounding-set=-all,+bpf,+net_admin,+perfmon",
    ];
    let few: Vec<_> = few.into_iter().chain(LITTLE).collect();
    let reason = ["limit of locked memory", "65536 bytes", "CAP_SYS_RESOURCE"];
    assert_loads(&few, kernel::release() >= (5, 11), &reason);
    // Root raises the limit.
    assert_loads(&LITTLE, true, &[]);
}

#[test]
fn with_two_capabilities_a_pod_is_served_or_refused_by_kernel_and_check_says_the_same() {
    let reason = ["sc_", "CAP_PERFMON"];
    let is_enough = !kernel::verifier_takes_perfmon();
    assert_loads(&TWO_CAPABILITIES, is_enough, &reason);
}

/// Whoever is confined like this can load the kernel side, or `check`, `init` and `run` name these.
#[track_caller]
fn assert_loads(setpriv: &[&str], is_possible: bool, reason: &[&str]) {
    let pods = Pods::plain();
    let command = |command| pods.server.confined_exactly(setpriv, command);
    let check = Check::of(command("check").args(DEV_CA));
    let init = command("init").run();
    if is_possible {
        check.assert_found(LOADS, "");
        assert!(init.status.success(), "{init}");
        assert!(!pods.server.pins().is_empty());
        pods.server.sidecar_command("cleanup").succeed();
        return;
    }
    check.assert_fails(LOADS, reason);
    init.assert_one_sentence(reason);
    pods.server.assert_nothing_left();
    let run = command("run").args(DEV_CA).run();
    run.assert_one_sentence(reason);
    pods.server.assert_nothing_left();
}

#[test]
#[ignore = "changes what is the whole machine's: cargo xtask vm runs it"]
fn without_the_compiler_of_programs_everything_holds() {
    // A kernel that was built without the interpreter has no such layout, and does not take the value.
    let off = Sysctl::try_set("net/core/bpf_jit_enable", "0");
    if let Err(error) = &off {
        assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput, "{error}");
    }
    assert_bulk(Pods::plain(), STRICT);
}

#[test]
#[ignore = "changes what is the whole machine's: cargo xtask vm runs it"]
fn with_the_compiler_hardened_everything_holds() {
    let _hard = Sysctl::set("net/core/bpf_jit_harden", "2");
    assert_bulk(Pods::plain(), STRICT);
}

#[test]
#[ignore = "changes what is the whole machine's: cargo xtask vm runs it"]
fn when_tcp_may_use_little_memory_every_byte_arrives_all_the_same() {
    // In pages, for both pods and all that is between them.
    let _little = Sysctl::set("net/ipv4/tcp_mem", "512 768 1024");
    let pods = assert_bulk(Pods::plain(), STRICT);
    let dropped = [&pods.client, &pods.server].map(|pod| {
        let namespace = pod.sandbox().namespace();
        namespace.counter("TCPRcvQDrop")
    });
    assert!(dropped.iter().sum::<u64>() > 0, "it was enough");
}

/// Where the app of [`apps`] speaks first.
const GREETS: u16 = 8080;
/// Where it echoes.
const ECHOES: u16 = 8081;

/// Apps that speak first, and last.
fn apps(pod: &Pod) -> [App; 2] {
    [
        App::start(pod, Behaviour::Greet, GREETS),
        App::start(pod, Behaviour::Echo, ECHOES),
    ]
}

/// Has the client's app talk to those of the server, at each of these addresses.
#[track_caller]
fn assert_talk<const N: usize>(pods: &Pods, addresses: [IpAddr; N]) {
    let _apps = apps(&pods.server);
    for address in addresses {
        let heard = pods.client.converse(address, GREETS, "");
        assert_eq!(heard, GREETING, "{address}");
        let heard = pods.client.converse(address, ECHOES, SECRET);
        assert_eq!(heard, SECRET, "{address}");
    }
}

/// Gives the pods sidecars, and has them exchange much both ways at once, over either family.
#[track_caller]
fn assert_bulk(mut pods: Pods, mode: &[&str]) -> Pods {
    pods.mesh(Some(mode), Some(mode));
    let _apps = apps(&pods.server);
    let capture = pods.client.capture_starts();
    for address in [pods.server.v4().into(), IpAddr::V6(pods.server.v6())] {
        let bulk = pods.client.snippet(BULK);
        let bulk = bulk.args([address.to_string(), ECHOES.to_string()]);
        let seen: Value = bulk.deadline(4 * wait::DEADLINE).facts();
        let whole = json!({ "count": 4 << 20, "whole": true, "end": "eof" });
        assert_eq!(seen, whole, "{address}");
    }
    pods.mutual_connection(ECHOES);
    let wire = capture.finish();
    assert_eq!(wire.streams.len(), 2);
    wire.assert_starts_encrypted(&[]);
    pods
}

#[track_caller]
fn hold(pods: &Pods, address: IpAddr) -> Value {
    let snippet = pods.client.snippet(HOLD);
    snippet.arg(address.to_string()).facts()
}

/// Has both pods answer every SYN by a cookie, and keep nothing of it.
fn force_syn_cookies(pods: &Pods) {
    for pod in [&pods.client, &pods.server] {
        let namespace = pod.sandbox().namespace();
        namespace.sysctl("net/ipv4/tcp_syncookies", "2");
    }
}

/// Sets how long the packets may be that a pod's wire carries.
fn set_mtu(pods: &Pods, pod: &Pod, mtu: u32) {
    let port = format!("link set {} mtu {mtu}", pod.role());
    pods.network.sandbox().namespace().ip(&port);
    let device = format!("link set eth0 mtu {mtu}");
    pod.sandbox().namespace().ip(&device);
}

/// An authority in the directory of the pod, where commands start.
const DEV_CA: [&str; 2] = ["--dev-ca", "dev-ca"];

/// What `sidecar check` says of a pod.
#[track_caller]
fn check(pod: &Pod) -> Check {
    let check = pod.sidecar_command("check").args(DEV_CA).arg("--cgroup");
    Check::of(check.arg(pod.sandbox().cgroup().path()))
}
