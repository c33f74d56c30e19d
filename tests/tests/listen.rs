//! Ways to listen: what is captured, and what is refused as without us.

use serde_json::Value;
use sidecar_tests::{App, Behaviour, Pods, SECRET, app::GREETING};

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
    pods.mesh(Some(&[]), Some(&["--inbound", "strict"]));
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

#[test]
fn syn_cookies_do_not_break_the_steering() {
    let pods = Pods::server_meshed(&[]);
    let namespace = pods.server.sandbox().namespace();
    namespace.sysctl("net/ipv4/tcp_syncookies", ALWAYS);
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    app.only_session();
    pods.server.sidecar().only_connection("inbound");
    assert_ne!(namespace.counter("SyncookiesRecv"), 0);
}

#[test]
fn syn_cookies_cost_no_encryption_under_strict() {
    let strict = ["--inbound", "strict", "--outbound", "strict"];
    let pods = Pods::meshed_with(&strict, &strict);
    let namespace = pods.server.sandbox().namespace();
    namespace.sysctl("net/ipv4/tcp_syncookies", ALWAYS);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    pods.mutual_connection(8080);
    assert_ne!(namespace.counter("SyncookiesRecv"), 0);
    capture.finish().assert_encrypted(&[GREETING]);
}

/// The value of `tcp_syncookies` that sends them even while the listener's queue has room.
const ALWAYS: &str = "2";

/// Listens on a port that the kernel chooses at `listen()`.
const UNBOUND: &str = r#"
listener = socket.socket()
listener.listen()
report(port=listener.getsockname()[1])
while True:
    listener.accept()[0].sendall(b"violet rhinoceros\n")
"#;

#[test]
fn a_listener_that_was_never_bound_is_captured() {
    let pods = Pods::meshed_with(&["--outbound", "strict"], &["--inbound", "strict"]);
    let mut listener = pods.server.snippet(UNBOUND).start();
    listener.wait_for_stdout("\n");
    let port: Value = serde_json::from_str(&listener.stdout()).expect("JSON");
    let port = port["port"].as_u64().expect("a port");
    let port = u16::try_from(port).expect("a port");
    assert_eq!(pods.client.converse(pods.server.v4(), port, ""), SECRET);
    pods.mutual_connection(port);
}
