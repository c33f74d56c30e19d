//! What happens when the other side has no sidecar, or when one's own is told to stay out of it.

use std::{fs, net::Ipv4Addr};

use sidecar_tests::{App, Behaviour, Pods, SECRET, app::GREETING, servers, wait};

#[test]
fn a_permissive_client_reaches_a_plain_server_that_speaks_first() {
    let pods = Pods::client_meshed(&[]);
    let _exim = servers::exim(&pods.server);
    let capture = pods.client.capture();
    send_mail(&pods);
    let wire = capture.finish();
    wire.assert_plaintext(&["220 mail.example", SECRET]);
    let stream = wire.only_stream();
    assert!(stream.offers[0], "the mesh was not offered");
    assert!(!stream.answers[0], "a plain server has accepted the mesh");
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(
        (&*connection.tls, &*connection.close),
        ("no_peer_option", "eof")
    );
    assert_eq!((connection.own, connection.peer), (None, None));
    let metrics = pods.client.sidecar().metrics();
    let plain = [("direction", "outbound"), ("tls", "no_peer_option")];
    assert_eq!(metrics.count("sidecar_connections_opened_total", &plain), 1);
    // The true client, in the words of the server.
    let mail = fs::read_to_string(servers::mailbox(&pods.server)).expect("reading the mail");
    assert!(
        mail.contains(&format!("from [{}]", pods.client.v4())),
        "{mail}"
    );
}

#[test]
fn a_permissive_server_that_speaks_first_serves_a_plain_client() {
    let pods = Pods::server_meshed(&[]);
    let _exim = servers::exim(&pods.server);
    let capture = pods.client.capture();
    send_mail(&pods);
    let wire = capture.finish();
    wire.assert_plaintext(&["220 mail.example", SECRET]);
    let stream = wire.only_stream();
    assert_eq!((stream.offers[0], stream.answers[0]), (false, false));
    let connection = pods.server.sidecar().only_connection("inbound");
    assert_eq!(
        (&*connection.tls, &*connection.close),
        ("no_peer_option", "eof")
    );
    assert_eq!((connection.own, connection.peer), (None, None));
    assert_eq!(connection.client, stream.client);
    assert_eq!(pods.server.sidecar().kernel_events("inbound_steered"), 1);
    let mail = fs::read_to_string(servers::mailbox(&pods.server)).expect("reading the mail");
    assert!(
        mail.contains(&format!("from [{}]", pods.client.v4())),
        "{mail}"
    );
}

#[test]
fn a_strict_client_tells_a_plain_server_nothing() {
    // One answers what is not TLS, one speaks first, one says nothing.
    for behaviour in [Behaviour::Echo, Behaviour::Greet, Behaviour::Wait] {
        let pods = Pods::client_meshed(&["--outbound", "strict", "--handshake-timeout", "1s"]);
        let _app = App::start(&pods.server, behaviour, 8080);
        let capture = pods.client.capture();
        let outcome = pods.client.converse(pods.server.v4(), 8080, SECRET);
        assert_eq!(outcome, "reset", "{behaviour:?}");
        let failed = pods.client.sidecar().failures("outbound", 1);
        assert_eq!(failed[0].close, "plaintext_refused", "{behaviour:?}");
        assert!(!capture.finish().contains(SECRET));
    }
}

#[test]
fn a_strict_server_neither_hears_nor_tells_a_plain_client_anything() {
    // One client speaks first, one waits for the server to do so.
    for (behaviour, words) in [(Behaviour::Echo, SECRET), (Behaviour::Greet, "")] {
        let pods = Pods::server_meshed(&["--inbound", "strict", "--handshake-timeout", "1s"]);
        let app = App::start(&pods.server, behaviour, 8080);
        let capture = pods.client.capture();
        let outcome = pods.client.converse(pods.server.v4(), 8080, words);
        assert_eq!(outcome, "reset", "{behaviour:?}");
        let failed = pods.server.sidecar().failures("inbound", 1);
        assert_eq!(failed[0].close, "plaintext_refused", "{behaviour:?}");
        assert_eq!(app.sessions(), []);
        assert!(!capture.finish().contains(GREETING));
    }
}

#[test]
fn off_leaves_connections_to_the_kernel() {
    let off = ["--inbound", "off", "--outbound", "off"];
    let pods = Pods::meshed_with(&off, &off);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let capture = pods.client.capture();
    let outcome = pods.client.converse(pods.server.v4(), 8080, "");
    assert_eq!(outcome, GREETING);
    app.only_session();
    // What the kernel decides keeps the kernel's own errors.
    let refused = pods.client.converse(pods.server.v4(), 9, "");
    assert_eq!(refused, "refused");
    let wire = capture.finish();
    wire.assert_plaintext(&[GREETING]);
    assert!(wire.streams.iter().all(|stream| !stream.offers[0]));
    assert_eq!(pods.client.sidecar().connections(), []);
    assert_eq!(pods.server.sidecar().connections(), []);
    assert_eq!(pods.client.sidecar().kernel_events("outbound_off"), 2);
    assert_eq!(pods.server.sidecar().kernel_events("inbound_off"), 1);
}

#[test]
fn an_override_changes_the_mode_for_one_port() {
    let pods = Pods::client_meshed(&[
        "--outbound",
        "strict",
        "--override",
        "outbound,port=8081,mode=permissive",
        "--override",
        "outbound,port=8082,mode=off",
    ]);
    let apps = [8080, 8081, 8082].map(|port| App::start(&pods.server, Behaviour::Greet, port));
    let ends = [8080, 8081, 8082].map(|port| pods.client.converse(pods.server.v4(), port, ""));
    assert_eq!(ends, ["reset", GREETING, GREETING]);
    apps[1].only_session();
    apps[2].only_session();
    let logged = pods.client.sidecar().connections();
    assert!(
        logged.iter().any(|entry| entry.destination.port() == 8081),
        "{logged:?}"
    );
    assert!(
        logged.iter().all(|entry| entry.destination.port() != 8082),
        "{logged:?}"
    );
    assert_eq!(pods.client.sidecar().kernel_events("outbound_off"), 1);
}

#[test]
fn an_override_changes_the_mode_for_one_network() {
    // Of the two addresses of the server, one is in the network.
    let pods = Pods::client_meshed(&[
        "--override",
        "outbound,cidr=198.18.0.0/28,mode=strict",
        "--override",
        "outbound,cidr=198.18.0.0/28,port=8081,mode=permissive",
    ]);
    pods.server
        .sandbox()
        .namespace()
        .ip("addr add 198.18.0.32/24 dev eth0");
    let _apps = [8080, 8081].map(|port| App::start(&pods.server, Behaviour::Greet, port));
    let inside = pods.server.v4();
    let outside = Ipv4Addr::new(198, 18, 0, 32);
    let ends = [(inside, 8080), (inside, 8081), (outside, 8080)]
        .map(|(address, port)| pods.client.converse(address, port, ""));
    assert_eq!(ends, ["reset", GREETING, GREETING]);
}

#[test]
fn an_override_of_an_inbound_mode_is_by_the_clients_network() {
    let pods = Pods::server_meshed(&[
        "--override",
        "inbound,cidr=198.18.0.1/32,mode=strict",
        "--override",
        "inbound,port=8081,mode=off",
    ]);
    let other = pods.join("other");
    let _apps = [8080, 8081].map(|port| App::start(&pods.server, Behaviour::Echo, port));
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, SECRET),
        "reset"
    );
    assert_eq!(other.converse(pods.server.v4(), 8080, SECRET), SECRET);
    assert_eq!(pods.client.converse(pods.server.v4(), 8081, SECRET), SECRET);
    assert_eq!(pods.server.sidecar().kernel_events("inbound_off"), 1);
}

/// Sends a mail from the client pod to the server pod, and waits until it is delivered.
fn send_mail(pods: &Pods) {
    let url = format!("smtp://{}", pods.server.v4());
    let addresses = ["--mail-from", "a@example", "--mail-rcpt", "b@example"];
    let curl = pods
        .client
        .program("curl")
        .args(["-sS", &url, "--upload-file", "-"]);
    curl.args(addresses)
        .stdin("Subject: zoo\r\n\r\nviolet rhinoceros\r\n")
        .succeed();
    wait::until("the mail is delivered", || {
        fs::read_to_string(servers::mailbox(&pods.server)).is_ok_and(|mail| mail.contains(SECRET))
    });
}
