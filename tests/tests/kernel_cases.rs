//! Ways to connect and to listen that are easy to get wrong.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Pods, SECRET, app::GREETING};

/// Connects without waiting, and waits for the socket to become writable.
const NON_BLOCKING: &str = r#"
import errno, select
sock = socket.socket()
sock.setblocking(False)
started = errno.errorcode[sock.connect_ex((sys.argv[1], 8080))]
poll = select.poll()
poll.register(sock, select.POLLOUT)
poll.poll(DEADLINE * 1000)
error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
again = sock.connect_ex((sys.argv[1], 8080))
sock.settimeout(DEADLINE)
sock.sendall(b"violet rhinoceros\n")
report(started=started, error=error, again=again, said=read_line(sock), peer=sock.getpeername()[0])
"#;

#[test]
fn a_non_blocking_connect_completes() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let seen: Value = pods.client.snippet(NON_BLOCKING).arg(&address).facts();
    let expected = json!({
        "started": "EINPROGRESS", "error": 0, "again": 0, "said": SECRET, "peer": address,
    });
    assert_eq!(seen, expected);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
}

/// Sends the first bytes with the SYN, a hundred times, in either of the two ways there are.
const FAST_OPEN: &str = r#"
MSG_FASTOPEN, TCP_FASTOPEN_CONNECT = 0x20000000, 30
echoed = 0
for turn in range(100):
    sock = socket.socket()
    if turn % 2:
        sock.sendto(b"violet rhinoceros\n", MSG_FASTOPEN, (sys.argv[1], 8080))
    else:
        sock.setsockopt(socket.IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 1)
        sock.connect((sys.argv[1], 8080))
        sock.sendall(b"violet rhinoceros\n")
    echoed += read_line(sock) == "violet rhinoceros" and sock.getpeername()[0] == sys.argv[1]
    sock.close()
report(echoed=echoed)
"#;

#[test]
fn tcp_fast_open_works_whether_or_not_data_travels_in_the_syn() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    // Client only, the default; and both, for listeners that did not ask for it either.
    for setting in ["1", "1027"] {
        pods.client
            .sandbox()
            .namespace()
            .sysctl("net/ipv4/tcp_fastopen", setting);
        let address = pods.server.v4().to_string();
        let seen: Value = pods.client.snippet(FAST_OPEN).arg(address).facts();
        assert_eq!(seen, json!({ "echoed": 100 }), "tcp_fastopen={setting}");
    }
    assert_eq!(
        app.sessions_when(200)
            .iter()
            .map(|session| session.received)
            .sum::<u64>(),
        200 * 18
    );
    capture.finish().assert_encrypted(&[SECRET]);
}

/// Binds to an address, or a port alone, before it connects.
const BIND: &str = r#"
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
sock = socket.socket(family)
sock.settimeout(DEADLINE)
sock.bind((sys.argv[2], int(sys.argv[3])))
sock.connect((sys.argv[1], 8080))
sock.sendall(b"violet rhinoceros\n")
report(said=read_line(sock), local=list(sock.getsockname()[:2]), peer=sock.getpeername()[0])
"#;

#[test]
fn a_socket_bound_before_connect_keeps_its_address_and_port() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    let [own_v4, own_v6] = [IpAddr::V4(pods.client.v4()), pods.client.v6().into()];
    let [v4, v6] = [IpAddr::V4(pods.server.v4()), pods.server.v6().into()];
    let cases = [
        (v4, own_v4.to_string(), own_v4, 40_001),
        (v4, String::new(), own_v4, 40_002),
        (v6, own_v6.to_string(), own_v6, 40_003),
        (v6, "::".to_owned(), own_v6, 40_004),
    ];
    for (server, bound, own, port) in &cases {
        let snippet = pods.client.snippet(BIND);
        let seen: Value = snippet
            .args([&server.to_string(), bound, &port.to_string()])
            .facts();
        let expected = json!({
            "said": SECRET, "local": [own.to_string(), port], "peer": server.to_string(),
        });
        assert_eq!(seen, expected);
    }
    for session in app.sessions_when(cases.len()) {
        assert!(
            [own_v4, own_v6].contains(&session.peer.ip().to_canonical()),
            "{session:?}"
        );
    }
    capture.finish().assert_encrypted(&[SECRET]);
}

/// Connects from a socket that is bound to the pod's device.
const DEVICE: &str = r#"
sock = socket.socket()
sock.settimeout(DEADLINE)
sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
error = attempt(lambda: sock.connect((sys.argv[1], 8080)))
said = None
if not error:
    sock.sendall(b"violet rhinoceros\n")
    said = read_line(sock)
report(error=error, said=said)
"#;

#[test]
fn a_socket_bound_to_a_device_goes_out_directly_and_is_counted() {
    let pods = Pods::client_meshed(&[]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let seen: Value = pods.client.snippet(DEVICE).arg(address).facts();
    assert_eq!(seen, json!({ "error": null, "said": SECRET }));
    assert_eq!(
        pods.client.sidecar().kernel_events("outbound_bound_device"),
        1
    );
    capture.finish().assert_plaintext(&[SECRET]);
}

#[test]
fn a_socket_bound_to_a_device_is_refused_under_strict() {
    let pods = Pods::client_meshed(&["--outbound", "strict"]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let seen: Value = pods.client.snippet(DEVICE).arg(address).facts();
    assert_eq!(seen, json!({ "error": "PermissionError", "said": null }));
    assert_eq!(
        pods.client
            .sidecar()
            .kernel_events("dropped_cannot_redirect"),
        1
    );
    assert_eq!(capture.finish().streams.len(), 0);
}

/// Connects from an IPv6 socket that takes no IPv4.
const IPV6_ONLY: &str = r#"
sock = socket.socket(socket.AF_INET6)
sock.settimeout(DEADLINE)
sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
sock.connect((sys.argv[1], 8080))
sock.sendall(b"violet rhinoceros\n")
report(said=read_line(sock))
"#;

#[test]
fn an_ipv6_only_socket_is_meshed() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let address = pods.server.v6().to_string();
    let seen: Value = pods.client.snippet(IPV6_ONLY).arg(address).facts();
    assert_eq!(seen, json!({ "said": SECRET }));
    pods.mutual_connection(8080);
}

#[test]
fn a_port_nobody_listens_on_is_refused_as_without_us() {
    let pods = Pods::server_meshed(&["--inbound", "strict"]);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 9, ""), "refused");
    assert_eq!(
        pods.server.sidecar().kernel_events("inbound_not_listening"),
        1
    );
    assert_eq!(pods.server.sidecar().connections(), []);
    assert!(!capture.finish().only_stream().is_established());
}

#[test]
fn a_refused_upstream_is_a_reset_for_the_client_and_the_log_says_refused() {
    let pods = Pods::meshed();
    assert_eq!(pods.client.converse(pods.server.v4(), 9, ""), "reset");
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(
        (&*connection.close, connection.sent),
        ("connect_refused", 0)
    );
    let failed = [("direction", "outbound"), ("reason", "connect_refused")];
    let metrics = pods.client.sidecar().metrics();
    assert_eq!(
        metrics.count("sidecar_connections_failed_total", &failed),
        1
    );
    assert_eq!(metrics.count("sidecar_connections_opened_total", &[]), 0);
}

#[test]
fn an_unreachable_upstream_is_a_reset_for_the_client_and_the_log_says_unreachable() {
    let pods = Pods::client_meshed(&[]);
    // There is no route out of the pod's network.
    let nowhere = Ipv4Addr::new(203, 0, 113, 1);
    assert_eq!(pods.client.converse(nowhere, 80, ""), "reset");
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(connection.close, "connect_unreachable");
}

#[test]
fn an_upstream_that_does_not_answer_times_out() {
    let pods = Pods::client_meshed(&["--connect-timeout", "500ms"]);
    pods.network.nft(
        "table bridge middlebox {
            chain forward {
                type filter hook forward priority 0
                tcp dport 9 drop
            }
        }",
    );
    assert_eq!(pods.client.converse(pods.server.v4(), 9, ""), "reset");
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(connection.close, "connect_timeout");
}

#[test]
fn a_listener_that_closes_is_refused_again() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    assert_ne!(pods.client.converse(pods.server.v4(), 8080, ""), "refused");
    drop(app);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), "refused");
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    assert_ne!(pods.client.converse(pods.server.v4(), 8080, ""), "refused");
    assert_eq!(pods.server.sidecar().kernel_events("inbound_steered"), 2);
}

#[test]
fn a_port_that_two_processes_share_is_captured_until_both_are_gone() {
    let pods = Pods::meshed();
    let first = App::start(&pods.server, Behaviour::Greet, 8080);
    let second = App::start(&pods.server, Behaviour::Greet, 8080);
    drop(first);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[GREETING]);
    drop(second);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), "reset");
}

#[test]
fn an_app_that_listened_before_the_sidecar_came_is_captured() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let dev_ca = pods.dev_ca();
    pods.server.mesh(&dev_ca, &["--inbound", "strict"]);
    pods.server.wait_until_ready();
    pods.client.mesh(&dev_ca, &[]);
    pods.client.wait_until_ready();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    pods.mutual_connection(8080);
}

/// Answers on three ports that it came to listen on in different ways.
const LISTENERS: &str = r#"
import threading
plain = socket.create_server(("", 8081))
twice = socket.socket()
twice.bind(("", 8082))
twice.listen(1)
twice.listen(100)
chosen = socket.create_server(("", 0))
report(chosen=chosen.getsockname()[1])
def serve(listener):
    while True:
        listener.accept()[0].sendall(b"violet rhinoceros\n")
for listener in [plain, twice, chosen]:
    threading.Thread(target=serve, args=(listener,)).start()
"#;

#[test]
fn every_way_to_listen_is_captured() {
    let pods = Pods::meshed_with(&["--outbound", "strict"], &["--inbound", "strict"]);
    let mut listeners = pods.server.snippet(LISTENERS).start();
    listeners.wait_for_stdout("\n");
    let chosen: Value = serde_json::from_str(&listeners.stdout()).expect("JSON");
    let chosen = chosen["chosen"].as_u64().expect("a port");
    for port in [8081, 8082, u16::try_from(chosen).expect("a port")] {
        assert_eq!(pods.client.converse(pods.server.v4(), port, ""), SECRET);
        pods.mutual_connection(port);
    }
}

/// Connects a socket again that has failed once.
const RECONNECT: &str = r#"
sock = socket.socket()
first = attempt(lambda: sock.connect(("127.0.0.1", 9)))
sock.connect((sys.argv[1], 8080))
sock.sendall(b"violet rhinoceros\n")
report(first=first, said=read_line(sock), peer=sock.getpeername()[0])
"#;

#[test]
fn a_socket_that_failed_to_connect_can_be_connected_again() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let address = pods.server.v4().to_string();
    let seen: Value = pods.client.snippet(RECONNECT).arg(&address).facts();
    let expected = json!({ "first": "ConnectionRefusedError", "said": SECRET, "peer": address });
    assert_eq!(seen, expected);
    pods.mutual_connection(8080);
}

#[test]
fn syn_cookies_do_not_break_the_steering() {
    let pods = Pods::server_meshed(&[]);
    // Always, not only when the queue of the listener is full.
    pods.server
        .sandbox()
        .namespace()
        .sysctl("net/ipv4/tcp_syncookies", "2");
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let address = pods.server.v6().to_string();
    let seen: Value = pods.client.snippet(IPV6_ONLY).arg(address).facts();
    assert_eq!(seen, json!({ "said": SECRET }));
    app.only_session();
    let connection = pods.server.sidecar().only_connection("inbound");
    assert_eq!(connection.tls, "no_peer_option");
}

#[test]
fn syn_cookies_cost_a_peek_but_no_encryption_under_strict() {
    let strict = ["--inbound", "strict", "--outbound", "strict"];
    let pods = Pods::meshed_with(&strict, &strict);
    pods.server
        .sandbox()
        .namespace()
        .sysctl("net/ipv4/tcp_syncookies", "2");
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    pods.mutual_connection(8080);
    let wire = capture.finish();
    assert!(wire.only_stream().is_tls());
    assert!(!wire.contains(GREETING));
}
