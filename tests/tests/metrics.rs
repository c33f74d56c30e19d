//! What a scraper of the metrics is promised.

use sidecar_tests::{App, Behaviour, Pod, Pods, SECRET, servers};

const OPENED: &str = "sidecar_connections_opened_total";
const CLOSED: &str = "sidecar_connections_closed_total";

/// Asks nginx on port 80 for its page, and waits until the server's sidecar has seen it out.
#[track_caller]
fn fetch(client: &Pod, server: &Pod, tls: &str, times: u64) {
    let url = format!("http://{}/", server.v4());
    let page = client.program("curl").args(["-sS", &url]).succeed();
    assert_eq!(page, SECRET);
    let labels = [("direction", "inbound"), ("tls", tls)];
    let sidecar = server.sidecar();
    sidecar.metrics_when(|metrics| metrics.count(CLOSED, &labels) == times);
}

#[test]
fn promtool_finds_nothing_to_improve() {
    let pods = Pods::meshed_with(&[], &["--override", "inbound,port=8080,mode=strict"]);
    let plain = pods.join("plain");
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    fetch(&pods.client, &pods.server, "mutual", 1);
    fetch(&plain, &pods.server, "no_peer_option", 1);
    assert_eq!(plain.converse(pods.server.v4(), 8080, SECRET), "reset");
    pods.server.sidecar().failures("inbound", 1);
    pods.client.converse(pods.server.v4(), 8081, SECRET);
    pods.client.sidecar().failures("outbound", 1);

    for pod in [&pods.client, &pods.server] {
        let metrics = pod.sidecar().get("/metrics");
        let http = "sidecar_http_requests_total";
        for name in [OPENED, http, "sidecar_connections_failed_total"] {
            assert!(metrics.contains(name), "nothing happened: {metrics}");
        }
        let promtool = pod.program("promtool").args(["check", "metrics"]);
        let output = promtool.stdin(&metrics).run().success();
        let said = format!("{}{}", output.stdout, output.stderr);
        assert_eq!(said, "", "about these metrics: {metrics}");
    }
}

#[test]
fn a_peer_that_has_gone_is_forgotten_and_one_that_is_connected_is_not() {
    // Long enough for a busy machine to see the peer before it is forgotten.
    let pods = Pods::meshed_with(&[], &["--forget-peers-after", "5s"]);
    let plain = pods.join("plain");
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let app = App::start(&pods.server, Behaviour::Wait, 8080);
    let talk = "sock = dial(*sys.argv[1:]); sock.settimeout(None); sock.recv(1)";
    let address = pods.server.v4().to_string();
    let _open = pods.client.snippet(talk).args([&*address, "8080"]).start();
    let (mutual, gone) = (("tls", "mutual"), ("tls", "no_peer_option"));
    let sidecar = pods.server.sidecar();
    sidecar.metrics_when(|metrics| metrics.count(OPENED, &[mutual]) == 1);
    fetch(&plain, &pods.server, gone.1, 1);

    sidecar.metrics_when(|metrics| metrics.count(OPENED, &[gone]) == 0);
    // It comes back, is counted from zero, and goes again: longer than the other one was idle.
    fetch(&plain, &pods.server, gone.1, 1);
    let metrics = sidecar.metrics_when(|metrics| metrics.count(OPENED, &[gone]) == 0);
    assert_eq!(metrics.count(OPENED, &[mutual]), 1);
    assert!(
        app.sessions().is_empty(),
        "the connection was not held open"
    );
}

#[test]
fn peers_that_are_too_many_are_counted_together() {
    let pods = Pods::meshed_with(&[], &["--max-peers", "1"]);
    let plain = pods.join("plain");
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    fetch(&pods.client, &pods.server, "mutual", 1);
    fetch(&plain, &pods.server, "no_peer_option", 1);
    fetch(&pods.client, &pods.server, "mutual", 2);
    fetch(&plain, &pods.server, "no_peer_option", 2);

    let metrics = pods.server.sidecar().metrics();
    let client = pods.client.identity();
    assert_eq!(metrics.count(OPENED, &[("peer", &client)]), 2);
    let together = [
        ("own", "overflow"),
        ("peer", "overflow"),
        ("tls", "no_peer_option"),
    ];
    assert_eq!(metrics.count(OPENED, &together), 2);
    assert_eq!(metrics.count("sidecar_series_overflowed_total", &[]), 2);
}
