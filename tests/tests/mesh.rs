//! What two meshed pods are promised.

use std::net::IpAddr;

use sidecar_tests::{App, Behaviour, Pods, SECRET, app::GREETING, servers};

#[test]
fn curl_reaches_nginx_over_mutual_tls_and_neither_knows() {
    let pods = Pods::meshed();
    let nginx = servers::nginx(&pods.server, 80, SECRET);
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

    wire.assert_encrypted(&[SECRET, "GET /", "nginx", "curl"]);
    let stream = wire.only_stream();
    let (client, server) = (pods.client.v4(), pods.server.v4());
    assert_eq!(
        (stream.client.ip(), stream.server),
        (IpAddr::V4(client), (server, 80).into())
    );

    assert_eq!(curl.stdout, SECRET);
    assert_eq!(curl.stderr, format!("{client} {server}:80"));
    assert_eq!(nginx.stdout(), format!("{} {server}:80\n", stream.client));

    assert_eq!(outbound.client.ip(), client);
    assert_eq!(inbound.client, stream.client);
    assert_eq!((&*outbound.close, &*inbound.close), ("eof", "eof"));
    assert!(outbound.sent > 0 && outbound.received > SECRET.len() as u64);
}

#[test]
fn ipv6_is_carried_like_ipv4() {
    let pods = Pods::meshed();
    let nginx = servers::nginx(&pods.server, 80, SECRET);
    let capture = pods.server.capture();
    let url = format!("http://[{}]/", pods.server.v6());
    assert_eq!(
        pods.client.program("curl").args(["-sS", &url]).succeed(),
        SECRET
    );
    let (_, inbound) = pods.mutual_connection(80);
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET, "GET /"]);
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
    assert!(greeting.contains(GREETING), "{greeting}");
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[GREETING]);
}

#[test]
fn what_happened_is_counted_on_both_sides() {
    let pods = Pods::meshed();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
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
    client.wait_for_stdout(GREETING);
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
