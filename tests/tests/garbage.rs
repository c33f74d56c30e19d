//! Peers that agree on the mesh in the TCP handshake, and then do not keep to it.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Pod, Pods, Program, SECRET, app::GREETING};

/// An address of the plain pod that its kernel does not know of, for a peer made by hand.
const RAW: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 99);

/// What a peer may say in the place of a TLS handshake, in hexadecimal, and what that is called.
/// And as what it is refused.
const GARBAGE: [(&str, &str, &str); 4] = [
    ("no TLS", "474554202f20485454502f312e310d0a0d0a", NOT_TLS),
    ("noise", "00ff00ff00ff00ff00ff00ff00ff00ff00ff", NOT_TLS),
    ("a record that is too long", "160301ffff0100", NOT_TLS),
    ("an alert", "15030300020228", "handshake_refused"),
];

const NOT_TLS: &str = "handshake_not_tls";

#[test]
fn a_client_that_offers_the_mesh_and_speaks_garbage_is_refused() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    for (count, (what, garbage, close)) in (1..).zip(GARBAGE) {
        let seen = raw_client(&pods, garbage);
        assert_eq!(seen["meshed"], true, "{what}: the mesh was not accepted");
        assert!(!received(&seen).contains(GREETING), "{what}: {seen}");
        let failed = pods.server.sidecar().failures("inbound", count);
        assert_eq!(failed[count - 1].close, close, "{what}");
        assert_eq!(failed[count - 1].client.ip(), RAW);
    }
    assert_eq!(app.sessions(), []);
    // Neither has it hurt anybody else.
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
}

#[test]
fn a_client_that_offers_the_mesh_and_falls_silent_is_let_go() {
    let pods = Pods::server_meshed(&["--handshake-timeout", "500ms"]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let seen = raw_client(&pods, "");
    assert_eq!((&seen["meshed"], &*received(&seen)), (&json!(true), ""));
    let failed = pods.server.sidecar().failures("inbound", 1);
    assert_eq!(failed[0].close, "handshake_timeout");
    assert_eq!(app.sessions(), []);
}

#[test]
fn a_server_that_accepts_the_mesh_and_speaks_garbage_is_told_nothing() {
    let pods = Pods::client_meshed(&[]);
    make_neighbour(&pods.client, &pods.server);
    let capture = pods.client.capture();
    for (count, (what, garbage, close)) in (1..).zip(GARBAGE) {
        let mut server = raw_peer("server", &pods.server, &pods.client, garbage).start();
        server.wait_for_stdout("listening");
        assert_eq!(pods.client.converse(RAW, 8080, SECRET), "reset", "{what}");
        server.wait_for_stdout(r#""meshed": true"#);
        let failed = pods.client.sidecar().failures("outbound", count);
        assert_eq!(failed[count - 1].close, close, "{what}");
    }
    assert!(!capture.finish().contains(SECRET));
}

/// Sends garbage from a peer made by hand in the client pod to the server pod.
fn raw_client(pods: &Pods, garbage: &str) -> Value {
    make_neighbour(&pods.server, &pods.client);
    raw_peer("client", &pods.client, &pods.server, garbage).facts()
}

/// A peer made by hand in one pod, that is about to talk to another.
fn raw_peer<'a>(role: &str, pod: &'a Pod, peer: &Pod, garbage: &str) -> Program<'a> {
    let addresses = [
        RAW.to_string(),
        peer.v4().to_string(),
        peer.hardware_address(),
    ];
    pod.script("raw_peer.py")
        .arg(role)
        .args(addresses)
        .args(["8080", garbage])
}

/// Tells a pod that the peer made by hand is in another pod.
fn make_neighbour(pod: &Pod, of: &Pod) {
    let hardware = of.hardware_address();
    pod.sandbox()
        .namespace()
        .ip(&format!("neigh replace {RAW} lladdr {hardware} dev eth0"));
}

/// The bytes that a peer made by hand has received, as text.
fn received(seen: &Value) -> String {
    let hex = seen["received"].as_str().expect("hexadecimal");
    let bytes = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    bytes
        .map(|byte| char::from(byte.expect("hexadecimal")))
        .collect()
}
