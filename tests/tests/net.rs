//! The net under the other programs: where the mode is strict, no TCP leaves the pod past the
//! proxy, whoever sends it. Each test looks at the wire and at the counter.

use std::{fs, net::IpAddr, path::PathBuf};

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Capture, Pod, Pods, Process, Program, SECRET, wait};

const STRICT: &[&str] = &["--inbound", "strict", "--outbound", "strict"];

/// Connects and says a word; waits for a line on a pipe, and says that.
const TALK: &str = r#"
sock = dial(sys.argv[1], 8080)
sock.sendall(b"ready\n")
print(read_line(sock))
with open(sys.argv[2]) as pipe:
    sock.sendall(pipe.read().encode())
print(ending(sock))
"#;

/// Like [`TALK`], by a multipath socket.
const TALK_MULTIPATH: &str = r#"
sock = socket.socket(proto=socket.IPPROTO_MPTCP)
sock.settimeout(DEADLINE)
sock.connect((sys.argv[1], 8080))
sock.sendall(b"ready\n")
print(read_line(sock))
with open(sys.argv[2]) as pipe:
    sock.sendall(pipe.read().encode())
print(ending(sock))
"#;

#[test]
fn a_connection_older_than_a_strict_client_says_nothing_more() {
    for family in [IpAddr::is_ipv4, IpAddr::is_ipv6] {
        let mut pods = Pods::plain();
        let _app = App::start(&pods.server, Behaviour::Echo, 8080);
        let talk = Talk::start(&pods, &pods.client, TALK, address(&pods.server, family));
        pods.mesh(Some(&["--outbound", "strict"]), None);
        talk.say(SECRET);
        assert_dropped(&pods.client, "dropped_old_connection");
        assert!(!talk.capture.finish().contains(SECRET));
    }
}

#[test]
fn a_connection_older_than_a_strict_server_is_answered_nothing_more() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let talk = Talk::start(&pods, &pods.server, TALK, pods.server.v4());
    pods.mesh(None, Some(&["--inbound", "strict"]));
    talk.say("what do you know of the rhinoceros?");
    assert_dropped(&pods.server, "dropped_old_connection");
    let wire = talk.capture.finish();
    assert!(!wire.only_stream().received.contains(b"rhinoceros"));
}

#[test]
fn a_multipath_connection_older_than_a_strict_client_says_nothing_more() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let talk = Talk::start(&pods, &pods.client, TALK_MULTIPATH, pods.server.v4());
    pods.mesh(Some(&["--outbound", "strict"]), None);
    talk.say(SECRET);
    assert_dropped(&pods.client, "dropped_old_connection");
    assert!(!talk.capture.finish().contains(SECRET));
}

#[test]
fn a_multipath_connection_is_carried_under_strict() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let talk = Talk::start(&pods, &pods.client, TALK_MULTIPATH, pods.server.v4());
    talk.say(SECRET);
    talk.hear(SECRET);
    pods.mutual_connection(8080);
    talk.capture.finish().assert_encrypted(&[SECRET]);
}

/// Echoes on a multipath socket, as programs in Go do by default.
const ECHO_MULTIPATH: &str = r#"
listener = socket.socket(proto=socket.IPPROTO_MPTCP)
listener.bind(("", 8080))
listener.listen()
while True:
    with listener.accept()[0] as sock:
        sock.sendall(sock.recv(100))
"#;

#[test]
fn a_multipath_server_is_reached_under_strict() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _app = pods.server.snippet(ECHO_MULTIPATH).listen(8080);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
    assert_nothing_dropped(&pods.server);
}

#[test]
fn an_older_connection_goes_on_where_the_rules_leave_it_alone() {
    // In words: not strict at all, and strict with an exclusion on either side.
    let port = ["--exclude-outbound-ports", "8080"];
    let net = ["--exclude-outbound-cidrs", "198.18.0.2"];
    let off = ["--override", "outbound,port=8080,mode=off"];
    let outbound = &STRICT[2..];
    for flags in [
        vec![],
        [STRICT, &port].concat(),
        [STRICT, &net].concat(),
        [outbound, &off].concat(),
    ] {
        let mut pods = Pods::plain();
        let _app = App::start(&pods.server, Behaviour::Echo, 8080);
        let talk = Talk::start(&pods, &pods.client, TALK, pods.server.v4());
        pods.mesh(Some(&flags), None);
        talk.say(SECRET);
        talk.hear(SECRET);
        let old = pods
            .client
            .sidecar()
            .kernel_events("dropped_old_connection");
        assert_eq!(old, 0, "{flags:?}");
    }
}

#[test]
fn an_older_connection_to_an_excluded_port_goes_on() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let talk = Talk::start(&pods, &pods.client, TALK, pods.server.v4());
    let excluded = ["--exclude-inbound-ports", "8080"];
    pods.mesh(None, Some(&[STRICT, &excluded].concat()));
    talk.say(SECRET);
    talk.hear(SECRET);
    let old = pods
        .server
        .sidecar()
        .kernel_events("dropped_old_connection");
    assert_eq!(old, 0);
}

#[test]
fn a_new_connection_of_an_excluded_user_goes_out_under_strict() {
    let pods = Pods::client_meshed(&[STRICT, &["--exclude-uids", "65534"]].concat());
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    // A socket keeps the user who made it, and is judged by the one who connects it.
    let code = r#"
import os
made_by_root = socket.socket()
made_by_root.settimeout(DEADLINE)
os.setresuid(65534, 65534, 65534)
made_by_root.connect((sys.argv[1], 8080))
made_by_root.sendall(b"violet rhinoceros\n")
report(said=read_line(made_by_root))
"#;
    let address = pods.server.v4().to_string();
    let seen: Value = pods.client.snippet(code).arg(address).facts();
    assert_eq!(seen, json!({ "said": SECRET }));
    assert_nothing_dropped(&pods.client);
}

/// Connects, and only then binds the socket to the device that leads out.
const BIND_LATER: &str = r#"
sock = dial(sys.argv[1], 8080)
sock.sendall(b"ready\n")
read_line(sock)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
sock.sendall(b"violet rhinoceros\n")
print("said", flush=True)
print(ending(sock))
"#;

#[test]
fn a_socket_bound_to_a_device_after_it_was_redirected_does_not_leave() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    // Otherwise its packets have nowhere to go, and the test would prove nothing.
    let namespace = pods.client.sandbox().namespace();
    namespace.sysctl("net/ipv4/conf/eth0/route_localnet", "1");
    namespace.ip("route add default via 198.18.0.2 dev eth0");
    let capture = pods.client.capture();
    let snippet = pods.client.snippet(BIND_LATER);
    let mut client = snippet.arg(pods.server.v4().to_string()).start();
    client.wait_for_stdout("said");
    assert_dropped(&pods.client, "dropped_off_loopback");
    assert!(!capture.finish().contains(SECRET));
}

#[test]
fn a_route_that_leads_loopback_to_the_network_leads_nothing_there() {
    let pods = Pods::client_meshed(&[]);
    let namespace = pods.client.sandbox().namespace();
    namespace.sysctl("net/ipv4/conf/eth0/route_localnet", "1");
    // Longer than that of loopback itself, and so preferred.
    namespace.ip("route add 127.128.0.0/10 via 198.18.0.2 dev eth0");
    let capture = pods.client.capture();
    let snippet = pods.client.snippet("dial(sys.argv[1], 8080)");
    let _client = snippet.arg(pods.server.v4().to_string()).start();
    assert_dropped(&pods.client, "dropped_off_loopback");
    assert_eq!(capture.finish().streams.len(), 0);
}

/// What `raw_segment.py` reports for segments that pass, and for those that must not.
const PASSES: &[&str] = &["udp4", "udp_fragment4", "bare_reset4"];

#[test]
fn segments_written_by_hand_do_not_leave_under_strict() {
    let pods = Pods::client_meshed(&["--outbound", "strict"]);
    let capture = pods.client.capture();
    let seen = raw_segments(&pods, 8080).facts::<Value>();
    let seen = seen.as_object().expect("an object");
    for (way, error) in seen {
        let expected = if PASSES.contains(&&**way) {
            json!(null)
        } else {
            json!("PermissionError")
        };
        assert_eq!(*error, expected, "{way}");
    }
    let dropped = seen.len() - PASSES.len();
    let counted = pods.client.sidecar().kernel_events("dropped_raw_segment");
    assert_eq!(counted, dropped as u64);
    assert!(!capture.finish().contains(SECRET));
}

#[test]
fn the_net_outlives_a_sidecar_that_is_killed() {
    let mut pods = Pods::client_meshed(&["--outbound", "strict"]);
    pods.client.kill_sidecar();
    let capture = pods.client.capture();
    let seen = raw_segments(&pods, 8080).facts::<Value>();
    assert_eq!(seen["with_header4"], "PermissionError");
    assert_ne!(pods.client.kernel_events("dropped_raw_segment"), 0);
    assert!(!capture.finish().contains(SECRET));
    pods.client.sidecar_command("cleanup").succeed();
    let seen = raw_segments(&pods, 8080).facts::<Value>();
    assert_eq!(seen["with_header4"], Value::Null);
}

#[test]
fn segments_written_by_hand_leave_where_the_rules_leave_them_alone() {
    for flags in [
        &[][..],
        &[
            "--outbound",
            "strict",
            "--exclude-outbound-cidrs",
            "198.18.0.0/24,fd00:5ca::/64",
        ],
    ] {
        let pods = Pods::client_meshed(flags);
        let capture = pods.client.capture();
        let seen = raw_segments(&pods, 8080).facts::<Value>();
        let mut errors = seen.as_object().expect("an object").values();
        assert!(errors.all(Value::is_null), "{seen}");
        // The proof that the capture of the test above would have shown them.
        let wire = capture.finish();
        let carriers = wire.streams.iter().filter(|stream| stream.contains(SECRET));
        assert!(carriers.count() >= 5, "{:#?}", wire.streams);
    }
}

#[test]
fn an_excluded_port_lets_segments_pass_but_not_fragments_without_ports() {
    let flags = ["--outbound", "strict", "--exclude-outbound-ports", "8080"];
    let pods = Pods::client_meshed(&flags);
    let seen = raw_segments(&pods, 8080).facts::<Value>();
    for (way, error) in seen.as_object().expect("an object") {
        let without_ports = ["tiny_fragment4", "later_fragment4", "later_fragment6"];
        let dropped = without_ports.contains(&&**way);
        assert_eq!(error.is_null(), !dropped, "{way}: {error}");
    }
}

#[test]
fn a_strict_pod_drops_nothing_of_its_own() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _apps = [&pods.client, &pods.server].map(|pod| App::start(pod, Behaviour::Echo, 8080));
    for address in [pods.server.v4().into(), IpAddr::from(pods.server.v6())] {
        assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
    }
    // Its own address, loopback, and a port that nobody listens on.
    for address in [pods.client.v4().to_string(), "127.0.0.1".to_owned()] {
        let address: IpAddr = address.parse().expect("a literal address");
        assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
    }
    assert_eq!(pods.client.converse(pods.server.v4(), 9, ""), "reset");
    for pod in [&pods.client, &pods.server] {
        assert_nothing_dropped(pod);
    }
}

/// A client of the server pod that has begun to talk, and will say more.
struct Talk {
    client: Process,
    pipe: PathBuf,
    /// Runs since before it began, so that its bytes belong to a known connection.
    capture: Capture,
}

impl Talk {
    #[track_caller]
    fn start(pods: &Pods, captured: &Pod, code: &str, address: impl Into<IpAddr>) -> Self {
        let capture = captured.capture();
        let pipe = pods.client.sandbox().directory().join("pipe");
        pods.client.program("mkfifo").arg(&pipe).succeed();
        let snippet = pods.client.snippet(code);
        let address = address.into().to_string();
        let mut client = snippet.arg(address).arg(&pipe).start();
        client.wait_for_stdout("ready");
        Self {
            client,
            pipe,
            capture,
        }
    }

    fn say(&self, words: &str) {
        fs::write(&self.pipe, format!("{words}\n")).expect("writing to the pipe");
    }

    #[track_caller]
    fn hear(&self, words: &str) {
        wait::until(format!("{words:?} is heard"), || {
            self.client.stdout().contains(words)
        });
    }
}

fn address(pod: &Pod, family: impl Fn(&IpAddr) -> bool) -> IpAddr {
    let addresses = [pod.v4().into(), pod.v6().into()];
    addresses.into_iter().find(family).expect("either family")
}

fn raw_segments(pods: &Pods, port: u16) -> Program<'_> {
    let (client, server) = (&pods.client, &pods.server);
    pods.client
        .script("raw_segment.py")
        .args([client.v4().to_string(), server.v4().to_string()])
        .args([client.v6().to_string(), server.v6().to_string()])
        .arg(port.to_string())
}

/// Waits until the net of a pod has counted this.
#[track_caller]
fn assert_dropped(pod: &Pod, event: &str) {
    wait::until(format!("{event} is counted"), || {
        pod.sidecar().kernel_events(event) > 0
    });
}

#[track_caller]
fn assert_nothing_dropped(pod: &Pod) {
    for event in [
        "dropped_off_loopback",
        "dropped_past_proxy",
        "dropped_raw_segment",
        "dropped_old_connection",
    ] {
        assert_eq!(pod.sidecar().kernel_events(event), 0, "{event}");
    }
}
