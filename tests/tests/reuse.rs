//! Connections that follow one another between the same two pods.

use sidecar_tests::{Pods, SECRET, servers};

/// How many connections the client's sidecar has opened, and how many of them without a handshake.
fn counted(pods: &Pods) -> (u64, u64) {
    let metrics = pods.client.sidecar().metrics();
    let outbound = [("direction", "outbound")];
    let count = |name| metrics.count(name, &outbound);
    (
        count("sidecar_connections_opened_total"),
        count("sidecar_connections_reused_total"),
    )
}

#[test]
fn connections_that_follow_one_another_go_over_one_and_each_is_told_of() {
    let pods = Pods::meshed();
    let nginx = servers::nginx(&pods.server, 80, SECRET);
    let capture = pods.client.capture();
    let url = format!("http://{}/", pods.server.v4());
    for _ in 0..5 {
        // A process each: nothing is kept on the client's side but what the sidecar keeps.
        let page = pods.client.program("curl").args(["-sS", &url]).succeed();
        assert_eq!(page, SECRET);
        pods.client.sidecar().metrics_when(|metrics| {
            let closed = metrics.count("sidecar_connections_closed_total", &[]);
            closed == metrics.count("sidecar_connections_opened_total", &[])
        });
    }
    assert_eq!(counted(&pods), (5, 4));
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET, "GET /", "nginx", "curl"]);
    let stream = wire.only_stream();
    let line = format!("{} {}:80\n", stream.client, pods.server.v4());
    assert_eq!(nginx.stdout(), line.repeat(5));
}

#[test]
fn with_reuse_off_each_connection_has_its_own() {
    let pods = Pods::meshed_with(&["--reuse", "off"], &[]);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let capture = pods.client.capture();
    let url = format!("http://{}/", pods.server.v4());
    for _ in 0..3 {
        pods.client.program("curl").args(["-sS", &url]).succeed();
    }
    assert_eq!(counted(&pods), (3, 0));
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET]);
    assert_eq!(wire.streams.len(), 3);
}
