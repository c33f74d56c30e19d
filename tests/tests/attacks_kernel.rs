//! Attacks on the way connections are steered: by an app in the pod, and by a neighbour on its
//! network. Each has to fail, and to show in a metric or a log. Those that try to leave the pod past
//! the proxy stand in `net.rs`.

use std::{fs, net::Ipv4Addr};

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Capture, Pod, Pods, SECRET, wait};

const STRICT: &[&str] = &["--inbound", "strict", "--outbound", "strict"];

/// An address of the client's pod that its kernel does not know of, for a peer made by hand.
const RAW: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 99);

/// Connects as another user, from a socket that carries a mark.
const DISGUISED: &str = r#"
import os
SO_MARK = 36
sock = socket.socket()
sock.settimeout(DEADLINE)
sock.setsockopt(socket.SOL_SOCKET, SO_MARK, int(sys.argv[2]))
os.setresuid(*[int(sys.argv[3])] * 3)
sock.connect((sys.argv[1], 8080))
sock.sendall(b"violet rhinoceros\n")
report(said=read_line(sock))
"#;

#[test]
fn an_app_that_sets_a_socket_mark_is_captured() {
    let marks = [1, 0x5ca1, 0x1337, 0x7fff_ffff];
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    for mark in marks {
        assert_eq!(disguised(&pods, mark, 1), json!({ "said": SECRET }));
    }
    assert_captured(&pods, capture, marks.len() as u64);
}

#[test]
fn an_app_that_runs_as_the_proxys_user_is_captured() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    let uid = user_of(pods.client.sidecar().id());
    assert_eq!(disguised(&pods, 0, uid), json!({ "said": SECRET }));
    assert_captured(&pods, capture, 1);
}

/// Leaves the pod's cgroup, makes a socket, and comes back; or makes it only then.
const LATE: &str = r#"
import os
def enter(cgroup):
    with open(cgroup + "/cgroup.procs", "w") as processes:
        processes.write("0")
outside, inside = sys.argv[2:]
enter(outside)
early = socket.socket()
early.settimeout(DEADLINE)
enter(inside)
def talk(sock):
    try:
        sock.connect((sys.argv[1], 8080))
        sock.sendall(b"violet rhinoceros\n")
        return ending(sock)
    except ConnectionError:
        return "reset"
report(early=talk(early), late=talk(socket.socket()))
"#;

#[test]
fn a_process_that_joins_late_is_captured_from_its_next_socket_on() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let pod = pods.client.sandbox().cgroup().path();
    let [outside, inside] = [pod.parent().expect("the root"), &pod.join("app")];
    let snippet = pods.client.snippet(LATE);
    let snippet = snippet.arg(pods.server.v4().to_string());
    let seen: Value = snippet.args([outside, inside]).facts();
    // A socket belongs to the cgroup it was made in: no program of the pod sees the first. The
    // strict peer does.
    assert_eq!(seen, json!({ "early": "reset", "late": SECRET }));
    app.only_session();
    let failed = pods.server.sidecar().failures("inbound", 1);
    assert_eq!(failed[0].close, "plaintext_refused");
    pods.mutual_connection(8080);
}

/// Dials everything that listens on loopback, but for the admin endpoint.
const DIAL_LISTENERS: &str = r#"
outcomes = {}
for table, host in [("tcp", "127.0.0.1"), ("tcp6", "::1")]:
    with open("/proc/net/" + table) as lines:
        for fields in [line.split() for line in lines][1:]:
            port = int(fields[1].split(":")[1], 16)
            if fields[3] == "0A" and port != 4195:
                outcomes[text((host, port))] = converse(host, port, "violet rhinoceros")
report(outcomes=list(outcomes.values()))
"#;

#[test]
fn an_app_that_dials_the_proxys_listeners_is_refused() {
    let pods = Pods::client_meshed(&[]);
    let seen: Value = pods.client.snippet(DIAL_LISTENERS).facts();
    assert_eq!(seen, json!({ "outcomes": vec!["reset"; 4] }));
    let refused = |metrics: &sidecar_tests::Metrics, direction| {
        let labels = [("direction", direction), ("reason", "not_steered")];
        metrics.count("sidecar_connections_failed_total", &labels)
    };
    pods.client.sidecar().metrics_when(|metrics| {
        refused(metrics, "inbound") == 2 && refused(metrics, "outbound") == 2
    });
}

#[test]
fn what_a_packet_socket_says_in_plaintext_is_refused_by_a_strict_peer() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    // A SYN without the option, and one that offers what is then not kept.
    for (count, (role, meshed, close)) in (1..).zip([
        ("plain-client", false, "plaintext_refused"),
        ("client", true, "handshake_not_tls"),
    ]) {
        let seen = say_by_hand(&pods, role);
        assert_eq!(
            (&seen["meshed"], &seen["end"]),
            (&json!(meshed), &json!("reset"))
        );
        let failed = pods.server.sidecar().failures("inbound", count);
        assert_eq!(failed[count - 1].close, close);
        assert_eq!(failed[count - 1].client.ip(), RAW);
    }
    assert_eq!(
        pods.server.sidecar().kernel_events("inbound_dialled_app"),
        0
    );
    assert_eq!(app.sessions(), []);
}

#[test]
fn a_peer_that_offers_the_option_and_speaks_plaintext_never_reaches_the_app() {
    for mode in ["permissive", "strict"] {
        let pods = Pods::server_meshed(&["--inbound", mode]);
        let app = App::start(&pods.server, Behaviour::Greet, 8080);
        let seen = say_by_hand(&pods, "client");
        assert_eq!(
            (&seen["meshed"], &seen["end"]),
            (&json!(true), &json!("reset"))
        );
        let failed = pods.server.sidecar().failures("inbound", 1);
        assert_eq!(failed[0].close, "handshake_not_tls", "{mode}");
        assert_eq!(
            pods.server.sidecar().kernel_events("inbound_dialled_app"),
            0
        );
        assert_eq!(app.sessions(), []);
    }
}

#[test]
fn a_packet_from_the_network_that_claims_to_be_the_proxys_dial_is_dropped() {
    let pods = Pods::server_meshed(&[]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    open_to_loopback(&pods.server);
    let capture = pods.server.capture();
    let address = pods.server.v4().to_string();
    put_syn_on_the_wire(&pods, "127.64.0.9", &address);
    assert_counted(&pods.server, "dropped_unknown_flow");
    assert_eq!(
        pods.server.sidecar().kernel_events("inbound_dialled_app"),
        0
    );
    assert!(!capture.finish().only_stream().is_established());
}

#[test]
fn a_packet_from_the_network_that_claims_to_be_of_loopback_reaches_no_app() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    open_to_loopback(&pods.server);
    let capture = pods.server.capture();
    let address = pods.server.v4().to_string();
    put_syn_on_the_wire(&pods, "127.1.2.3", &address);
    // Steered like any other; the answer goes to loopback, where nobody waits for it.
    assert_counted(&pods.server, "inbound_steered");
    let sidecar = pods.server.sidecar();
    assert_eq!(sidecar.kernel_events("inbound_dialled_app"), 0);
    assert!(!capture.finish().only_stream().is_established());
    assert_eq!(app.sessions(), []);
}

#[test]
fn a_packet_from_the_network_that_claims_to_be_of_ipv6_loopback_is_dropped_by_the_kernel() {
    let pods = Pods::server_meshed(&[]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let refused = || snmp6(&pods.server, "Ip6InHdrErrors");
    let before = refused();
    put_syn_on_the_wire(&pods, "::1", &pods.server.v6().to_string());
    wait::until("the kernel has refused it", || refused() > before);
    for event in ["inbound_steered", "inbound_dialled_app"] {
        assert_eq!(pods.server.sidecar().kernel_events(event), 0, "{event}");
    }
}

#[test]
fn a_neighbour_that_dials_loopback_is_not_answered_under_strict() {
    let pods = Pods::server_meshed(STRICT);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    open_to_loopback(&pods.server);
    let capture = pods.server.capture();
    let address = pods.client.v4().to_string();
    put_syn_on_the_wire(&pods, &address, "127.0.0.1");
    assert_counted(&pods.server, "dropped_past_proxy");
    assert!(!capture.finish().only_stream().is_established());
}

/// Has an app talk to the server pod under a socket mark and as a user.
fn disguised(pods: &Pods, mark: u32, uid: u32) -> Value {
    let arguments = [
        pods.server.v4().to_string(),
        mark.to_string(),
        uid.to_string(),
    ];
    pods.client.snippet(DISGUISED).args(arguments).facts()
}

/// Checks that as many connections were redirected, and that all were mutual TLS.
#[track_caller]
fn assert_captured(pods: &Pods, capture: Capture, count: u64) {
    let redirected = pods.client.sidecar().kernel_events("outbound_redirected");
    assert_eq!(redirected, count);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
}

/// The user a process runs as.
fn user_of(process: u32) -> u32 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|line| line.split_whitespace().nth(1));
    uid.and_then(|uid| uid.parse().ok())
        .expect("an effective user")
}

/// Has a peer made by hand, in the client pod, say [`SECRET`] to the server pod in plaintext. It
/// writes to the device, past all of its kernel that a program could be attached to.
fn say_by_hand(pods: &Pods, role: &str) -> Value {
    let hardware = pods.client.hardware_address();
    let neighbour = format!("neigh replace {RAW} lladdr {hardware} dev eth0");
    pods.server.sandbox().namespace().ip(&neighbour);
    let hex: Vec<_> = SECRET.bytes().map(|byte| format!("{byte:02x}")).collect();
    let peer = [pods.server.v4().to_string(), pods.server.hardware_address()];
    let script = pods.client.script("raw_peer.py");
    let script = script.args([role, &RAW.to_string()]).args(peer);
    script.args(["8080", &hex.concat()]).facts()
}

/// Has a pod's kernel take packets from the network that claim to be of loopback, or are for it.
fn open_to_loopback(pod: &Pod) {
    let namespace = pod.sandbox().namespace();
    for (key, value) in [
        ("all/route_localnet", "1"),
        ("eth0/route_localnet", "1"),
        ("all/rp_filter", "0"),
        ("eth0/rp_filter", "0"),
    ] {
        namespace.sysctl(&format!("net/ipv4/conf/{key}"), value);
    }
}

/// Puts a SYN for port 8080 on the wire to the server pod.
#[track_caller]
fn put_syn_on_the_wire(pods: &Pods, source: &str, destination: &str) {
    let hardware = pods.server.hardware_address();
    let script = pods.client.script("wire_syn.py");
    script
        .args([source, destination, &hardware, "8080"])
        .succeed();
}

#[track_caller]
fn assert_counted(pod: &Pod, event: &str) {
    wait::until(format!("{event} is counted"), || {
        pod.sidecar().kernel_events(event) > 0
    });
}

/// One of a pod's IPv6 counters.
fn snmp6(pod: &Pod, name: &str) -> u64 {
    let namespace = pod.sandbox().namespace();
    let table = namespace.enter(|| fs::read_to_string("/proc/thread-self/net/snmp6"));
    let table = table.expect("reading the counters");
    let counter = table.lines().find_map(|line| line.strip_prefix(name));
    counter
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or_else(|| panic!("there is no counter {name}"))
}
