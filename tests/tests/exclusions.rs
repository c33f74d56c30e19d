//! What the sidecar is told to leave alone, and what it leaves alone by itself.

use nix::unistd::User;
use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Pods, Program, SECRET, app::GREETING};

/// Says nothing, and tells what the server says, and whom the app believes to talk to.
const LISTEN: &str = r"
sock = dial(sys.argv[1], sys.argv[2])
report(said=read_line(sock), peer=text(sock.getpeername()))
";

#[test]
fn the_admin_endpoint_is_open_to_plain_clients_also_under_strict() {
    let flags = ["--inbound", "strict", "--admin", "0.0.0.0:4195"];
    let pods = Pods::server_meshed(&flags);
    let url = format!("http://{}:4195/readyz", pods.server.v4());
    let ready = pods.client.program("curl").args(["-sS", &url]).succeed();
    assert_eq!(ready, "ready\n");
    assert_eq!(pods.server.sidecar().connections(), []);
}

#[test]
fn an_excluded_network_is_reached_directly() {
    let pods = Pods::client_meshed(&[
        "--outbound",
        "strict",
        "--exclude-outbound-cidrs",
        "198.18.0.2/32,fd00:5ca::/64",
    ]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let capture = pods.client.capture();
    for address in [pods.server.v4().to_string(), pods.server.v6().to_string()] {
        assert_greeted(listen(&pods, &address, 8080), &address);
    }
    assert_direct(&pods, "outbound_excluded_cidr", 2);
    let wire = capture.finish();
    wire.assert_plaintext(&[GREETING]);
    assert!(wire.streams.iter().all(|stream| !stream.offers[0]));
}

#[test]
fn an_excluded_network_covers_ipv4_mapped_destinations() {
    let pods = Pods::client_meshed(&[
        "--outbound",
        "strict",
        "--exclude-outbound-cidrs",
        "198.18.0.0/15",
    ]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let address = pods.server.v4().to_ipv6_mapped().to_string();
    assert_greeted(listen(&pods, &address, 8080), &address);
    assert_direct(&pods, "outbound_excluded_cidr", 1);
}

#[test]
fn an_excluded_outbound_port_is_reached_directly() {
    let pods = Pods::client_meshed(&[
        "--outbound",
        "strict",
        "--exclude-outbound-ports",
        "25,8080",
    ]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let address = pods.server.v4().to_string();
    assert_greeted(listen(&pods, &address, 8080), &address);
    assert_direct(&pods, "outbound_excluded_port", 1);
}

#[test]
fn an_excluded_inbound_port_is_served_directly() {
    let pods = Pods::server_meshed(&["--inbound", "strict", "--exclude-inbound-ports", "8080"]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let address = pods.server.v4().to_string();
    assert_greeted(listen(&pods, &address, 8080), &address);
    assert_eq!(
        app.only_session().peer.ip().to_canonical(),
        pods.client.v4()
    );
    assert_eq!(
        pods.server.sidecar().kernel_events("inbound_excluded_port"),
        1
    );
    assert_eq!(pods.server.sidecar().connections(), []);
}

#[test]
fn an_excluded_user_is_left_alone_and_no_other() {
    let nobody = User::from_name("nobody")
        .expect("the user database")
        .expect("a user nobody");
    let uid = nobody.uid.to_string();
    let pods = Pods::client_meshed(&["--exclude-uids", &uid]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let address = pods.server.v4().to_string();
    assert_greeted(listen(&pods, &address, 8080).user("nobody"), &address);
    assert_direct(&pods, "outbound_excluded_uid", 1);
    assert_greeted(listen(&pods, &address, 8080).user("daemon"), &address);
    pods.client.sidecar().only_connection("outbound");
    assert_eq!(
        pods.client.sidecar().kernel_events("outbound_excluded_uid"),
        1
    );
}

#[test]
fn loopback_is_left_alone_in_all_its_forms() {
    let pods = Pods::client_meshed(&["--inbound", "strict", "--outbound", "strict"]);
    let _app = App::start(&pods.client, Behaviour::Greet, 8080);
    // The third lies where redirected connections are spread over.
    let addresses = ["127.0.0.1", "::1", "127.128.0.1", "::ffff:127.0.0.1"];
    for address in addresses {
        assert_greeted(listen(&pods, address, 8080), address);
    }
    assert_direct(&pods, "outbound_loopback", addresses.len() as u64);
}

/// Sends a datagram on a connected UDP socket and tells what came back.
const DATAGRAM: &str = r#"
sock = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
sock.settimeout(DEADLINE)
sock.connect((sys.argv[1], 8080))
sock.send(b"violet rhinoceros")
report(said=sock.recv(100).decode(), peer=text(sock.getpeername()))
"#;

/// Answers two datagrams.
const ANSWER: &str = r#"
sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
sock.bind(("::", 8080))
report(bound=True)
for _ in range(2):
    data, address = sock.recvfrom(100)
    sock.sendto(b"heard " + data, address)
"#;

#[test]
fn udp_is_untouched() {
    let strict = ["--inbound", "strict", "--outbound", "strict"];
    let pods = Pods::meshed_with(&strict, &strict);
    let mut server = pods.server.snippet(ANSWER).start();
    server.wait_for_stdout("bound");
    let capture = pods.client.capture();
    for address in [pods.server.v4().to_string(), pods.server.v6().to_string()] {
        let seen: Value = pods.client.snippet(DATAGRAM).arg(&address).facts();
        assert_eq!(seen, said("heard violet rhinoceros", &address));
    }
    let wire = capture.finish();
    assert!(wire.contains(SECRET) && wire.contains("heard violet rhinoceros"));
    assert_direct(&pods, "outbound_not_tcp", 2);
}

fn listen<'a>(pods: &'a Pods, address: &str, port: u16) -> Program<'a> {
    pods.client
        .snippet(LISTEN)
        .args([address, &port.to_string()])
}

#[track_caller]
fn assert_greeted(client: Program<'_>, address: &str) {
    assert_eq!(client.facts::<Value>(), said(GREETING, address));
}

/// Checks that the client's sidecar has seen nothing, and that the kernel side says why.
#[track_caller]
fn assert_direct(pods: &Pods, event: &str, count: u64) {
    let sidecar = pods.client.sidecar();
    assert_eq!(sidecar.kernel_events(event), count);
    assert_eq!(sidecar.kernel_events("outbound_redirected"), 0);
    assert_eq!(sidecar.connections(), []);
}

/// What a client reports that has talked to `address`.
fn said(what: &str, address: &str) -> Value {
    let peer = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    json!({ "said": what, "peer": format!("{peer}:8080") })
}
