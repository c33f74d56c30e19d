//! Ways to connect that are easy to get wrong, and what comes of those that fail.

use std::net::{IpAddr, Ipv4Addr};

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Pods, SECRET};

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
    // The default; and for every listener, without the cookies that are fetched by a first
    // connection (0x607): each redirected connection has another address, and is the first to it.
    for (setting, opens) in [("1", false), ("1543", true)] {
        let mut pods = Pods::plain();
        pods.client
            .sandbox()
            .namespace()
            .sysctl("net/ipv4/tcp_fastopen", setting);
        pods.mesh(Some(&[]), Some(&[]));
        let app = App::start(&pods.server, Behaviour::Echo, 8080);
        let capture = pods.client.capture();
        let address = pods.server.v4().to_string();
        let seen: Value = pods.client.snippet(FAST_OPEN).arg(address).facts();
        assert_eq!(seen, json!({ "echoed": 100 }), "tcp_fastopen={setting}");
        let heard: u64 = app
            .sessions_when(100)
            .iter()
            .map(|session| session.received)
            .sum();
        assert_eq!(heard, 100 * (SECRET.len() as u64 + 1));
        // No listener of the client's pod but the proxy's was there to be opened fast.
        let opened = pods
            .client
            .sandbox()
            .namespace()
            .counter("TCPFastOpenPassive");
        assert_eq!(opened > 0, opens, "{opened} connections were opened fast");
        capture.finish().assert_encrypted(&[SECRET]);
    }
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
fn a_refused_upstream_is_a_reset_for_the_client_and_the_log_says_refused() {
    let pods = Pods::meshed();
    assert_eq!(pods.client.converse(pods.server.v4(), 9, ""), "reset");
    let failed = pods.client.sidecar().failures("outbound", 1);
    assert_eq!(failed[0].close, "connect_refused");
}

#[test]
fn an_unreachable_upstream_is_a_reset_for_the_client_and_the_log_says_unreachable() {
    let pods = Pods::client_meshed(&[]);
    // There is no route out of the pod's network.
    let nowhere = Ipv4Addr::new(203, 0, 113, 1);
    assert_eq!(pods.client.converse(nowhere, 80, ""), "reset");
    let failed = pods.client.sidecar().failures("outbound", 1);
    assert_eq!(failed[0].close, "connect_unreachable");
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
    let failed = pods.client.sidecar().failures("outbound", 1);
    assert_eq!(failed[0].close, "connect_timeout");
}
