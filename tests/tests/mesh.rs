//! What two meshed pods are promised.

use std::net::{IpAddr, SocketAddr};

use serde::Deserialize;
use sidecar_tests::{App, Behaviour, Pod, Pods, servers};

/// Sends a line to an echo server, and tells which addresses the client saw.
const ECHO: &str = r#"
sock = dial(sys.argv[1], sys.argv[2])
sock.sendall(b"violet rhinoceros\n")
report(echoed=read_line(sock), local=text(sock.getsockname()), peer=text(sock.getpeername()))
"#;

/// What [`ECHO`] reports.
#[derive(Debug, Deserialize)]
struct Echo {
    echoed: String,
    local: SocketAddr,
    peer: SocketAddr,
}

#[test]
fn curl_reaches_nginx_over_mutual_tls_and_neither_knows() {
    let pods = Pods::meshed();
    let nginx = servers::nginx(&pods.server, 80, "violet rhinoceros");
    let capture = pods.client.capture();
    let addresses = "%{stderr}%{local_ip} %{remote_ip}:%{remote_port}";
    let url = format!("http://{}/", pods.server.v4());
    let curl = pods
        .client
        .program("curl")
        .args(["-sS", "-w", addresses, &url])
        .run()
        .success();
    let (outbound, inbound) = pods.mutual_connection(80);
    let wire = capture.finish();

    wire.assert_encrypted(&["violet rhinoceros", "GET /", "nginx", "curl"]);
    let stream = wire.only_stream();
    let (client, server) = (pods.client.v4(), pods.server.v4());
    assert_eq!(
        (stream.client.ip(), stream.server),
        (IpAddr::V4(client), (server, 80).into())
    );

    assert_eq!(curl.stdout, "violet rhinoceros");
    assert_eq!(curl.stderr, format!("{client} {server}:80"));
    assert_eq!(nginx.stdout(), format!("{} {server}:80\n", stream.client));

    assert_eq!(outbound.client.ip(), client);
    assert_eq!(inbound.client, stream.client);
    assert_eq!((&*outbound.close, &*inbound.close), ("eof", "eof"));
    assert!(outbound.sent > 0 && outbound.received > "violet rhinoceros".len() as u64);
}

#[test]
fn ipv6_is_carried_like_ipv4() {
    let pods = Pods::meshed();
    let nginx = servers::nginx(&pods.server, 80, "violet rhinoceros");
    let capture = pods.server.capture();
    let url = format!("http://[{}]/", pods.server.v6());
    assert_eq!(
        pods.client.program("curl").args(["-sS", &url]).succeed(),
        "violet rhinoceros"
    );
    let (_, inbound) = pods.mutual_connection(80);
    let wire = capture.finish();
    wire.assert_encrypted(&["violet rhinoceros", "GET /"]);
    let stream = wire.only_stream();
    assert_eq!(inbound.client, stream.client);
    let [IpAddr::V6(client), IpAddr::V6(server)] = [stream.client.ip(), stream.server.ip()] else {
        panic!("IPv6 was asked for: {stream:?}");
    };
    assert_eq!((client, server), (pods.client.v6(), pods.server.v6()));
    let port = stream.client.port();
    assert_eq!(nginx.stdout(), format!("{client}:{port} {server}:80\n"));
}

#[test]
fn each_app_sees_the_others_true_address() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let (v4, v6) = (pods.server.v4(), pods.server.v6());
    let mapped = v4.to_ipv6_mapped();
    let (own_v4, own_v6) = (pods.client.v4(), pods.client.v6());
    let cases: [(IpAddr, IpAddr); 3] = [
        (v4.into(), own_v4.into()),
        (v6.into(), own_v6.into()),
        // A dual-stack socket that reaches IPv4 sees IPv4-mapped addresses, as without us.
        (mapped.into(), own_v4.to_ipv6_mapped().into()),
    ];
    let capture = pods.client.capture();
    for (server, own) in cases {
        let seen: Echo = echo(&pods.client, server, 8080).facts();
        assert_eq!(seen.echoed, "violet rhinoceros");
        assert_eq!(seen.peer, (server, 8080).into());
        assert_eq!(seen.local.ip(), own);
    }
    let mut sessions = app.sessions_when(cases.len());
    let wire = capture.finish();
    wire.assert_encrypted(&["violet rhinoceros"]);
    sessions.sort_by_key(|session| session.peer.port());
    let mut on_wire: Vec<_> = wire.streams.iter().map(|stream| stream.client).collect();
    on_wire.sort_by_key(SocketAddr::port);
    // The app listens on a dual-stack socket, on which the kernel reports IPv4 as mapped.
    let plain = |address: SocketAddr| SocketAddr::new(address.ip().to_canonical(), address.port());
    let seen: Vec<_> = sessions.iter().map(|session| plain(session.peer)).collect();
    assert_eq!(seen, on_wire);
    assert!(sessions.iter().all(|session| session.local.port() == 8080));
}

#[test]
fn an_app_bound_to_the_pod_ip_alone_is_reached() {
    let pods = Pods::meshed();
    let (v4, v6) = (pods.server.v4(), pods.server.v6());
    let apps = [
        App::start_on(&pods.server, Behaviour::Echo, &v4.to_string(), 8004),
        App::start_on(&pods.server, Behaviour::Echo, &v6.to_string(), 8006),
    ];
    let capture = pods.client.capture();
    for (address, port) in [(IpAddr::V4(v4), 8004), (v6.into(), 8006)] {
        let seen: Echo = echo(&pods.client, address, port).facts();
        assert_eq!(seen.echoed, "violet rhinoceros");
    }
    for app in apps {
        let session = app.only_session();
        assert!(
            [pods.client.v4().into(), IpAddr::V6(pods.client.v6())].contains(&session.peer.ip())
        );
    }
    capture.finish().assert_encrypted(&["violet rhinoceros"]);
}

#[test]
fn an_app_bound_to_loopback_alone_stays_unreachable() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start_on(&pods.server, Behaviour::Echo, "127.0.0.1", 8080);
    let output = echo(&pods.client, pods.server.v4().into(), 8080).run();
    assert!(output.stderr.contains("ConnectionRefusedError"), "{output}");
    // From inside, it is as reachable as ever.
    let seen: Echo = echo(&pods.server, [127, 0, 0, 1].into(), 8080).facts();
    assert_eq!(seen.peer, ([127, 0, 0, 1], 8080).into());
    assert_eq!(app.only_session().peer, seen.local);
}

#[test]
fn a_pod_that_dials_itself_reaches_itself() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    for own in [IpAddr::V4(pods.server.v4()), pods.server.v6().into()] {
        let seen: Echo = echo(&pods.server, own, 8080).facts();
        assert_eq!(seen.echoed, "violet rhinoceros");
        assert_eq!(seen.peer, (own, 8080).into());
        assert_eq!(seen.local.ip(), own);
    }
    for session in app.sessions_when(2) {
        let peer = session.peer.ip().to_canonical();
        assert!(
            [pods.server.v4().into(), IpAddr::V6(pods.server.v6())].contains(&peer),
            "{peer}"
        );
    }
}

#[test]
fn strict_pods_talk_mutual_tls() {
    let strict = ["--inbound", "strict", "--outbound", "strict"];
    let pods = Pods::meshed_with(&strict, &strict);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let capture = pods.client.capture();
    let snippet = "report(greeting=read_line(dial(sys.argv[1], sys.argv[2])))";
    let address = pods.server.v4().to_string();
    let greeting = pods
        .client
        .snippet(snippet)
        .args([&*address, "8080"])
        .succeed();
    assert!(greeting.contains("the server speaks first"), "{greeting}");
    pods.mutual_connection(8080);
    capture
        .finish()
        .assert_encrypted(&["the server speaks first"]);
}

#[test]
fn what_happened_is_counted_on_both_sides() {
    let pods = Pods::meshed();
    let _nginx = servers::nginx(&pods.server, 80, "violet rhinoceros");
    let url = format!("http://{}/", pods.server.v4());
    pods.client.program("curl").args(["-sS", &url]).succeed();
    let (outbound, _) = pods.mutual_connection(80);
    for (pod, direction, peer) in [
        (&pods.client, "outbound", &pods.server),
        (&pods.server, "inbound", &pods.client),
    ] {
        let (own, peer) = (pod.identity(), peer.identity());
        let labels = [
            ("direction", direction),
            ("own", &own),
            ("peer", &peer),
            ("tls", "mutual"),
        ];
        let metrics = pod.sidecar().metrics();
        let count = |name: &str| metrics.count(name, &labels);
        assert_eq!(count("sidecar_connections_opened_total"), 1, "{direction}");
        assert_eq!(count("sidecar_connections_closed_total"), 1, "{direction}");
        assert_eq!(
            metrics.count("sidecar_connections_closed_total", &[("close", "eof")]),
            1
        );
        assert_eq!(
            count("sidecar_sent_bytes_total"),
            outbound.sent,
            "{direction}"
        );
        assert_eq!(
            count("sidecar_received_bytes_total"),
            outbound.received,
            "{direction}"
        );
        assert_eq!(
            metrics.count("sidecar_connections_failed_total", &[]),
            0,
            "{direction}"
        );
        for histogram in ["connect", "tls_handshake", "connection"] {
            let name = format!("sidecar_{histogram}_duration_seconds_count");
            assert_eq!(
                metrics.count(&name, &[("direction", direction)]),
                1,
                "{name}"
            );
        }
    }
    let (client, server) = (pods.client.sidecar(), pods.server.sidecar());
    for event in [
        "outbound_redirected",
        "outbound_steered",
        "option_offered",
        "option_agreed",
    ] {
        assert_eq!(client.kernel_events(event), 1, "{event}");
    }
    for event in [
        "inbound_steered",
        "inbound_dialled_app",
        "option_answered",
        "option_agreed",
    ] {
        assert_eq!(server.kernel_events(event), 1, "{event}");
    }
}

#[test]
fn open_connections_are_listed_while_they_are_open() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let snippet = "sock = dial(sys.argv[1], sys.argv[2]); print(read_line(sock)); drain(sock)";
    let address = pods.server.v4().to_string();
    let mut client = pods
        .client
        .snippet(snippet)
        .args([&*address, "8080"])
        .start();
    client.wait_for_stdout("the server speaks first");
    let destination = format!("{address}:8080");
    for pod in [&pods.client, &pods.server] {
        let page = pod.sidecar().get("/connections");
        assert!(page.contains(&destination), "{page}");
    }
    drop(client);
    pods.mutual_connection(8080);
    for pod in [&pods.client, &pods.server] {
        let page = pod.sidecar().get("/connections");
        assert!(!page.contains(&destination), "{page}");
    }
}

#[test]
fn health_and_readiness_are_told() {
    let pods = Pods::server_meshed(&[]);
    let sidecar = pods.server.sidecar();
    sidecar.get("/healthz");
    sidecar.get("/readyz");
    assert!(sidecar.metrics().has("sidecar_kernel_events_total"));
}

fn echo(pod: &Pod, address: IpAddr, port: u16) -> sidecar_tests::Program<'_> {
    pod.snippet(ECHO)
        .args([address.to_string(), port.to_string()])
}
