//! HTTP/2 and gRPC as they are observed: what the sidecars count is what client and server did.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use sidecar_tests::{Metrics, Pods, h2load, servers};

const PORT: u16 = 8080;

#[test]
fn every_request_of_h2load_is_counted() {
    const REQUESTS: u64 = 100_000;
    let pods = Pods::meshed();
    let _nginx = servers::nginx_http2(&pods.server, PORT, "hello");
    let urls = ["", "moved", "missing", "broken", "?secret"]
        .map(|path| format!("http://{}:{PORT}/{path}", pods.server.v4()));
    let mut arguments = vec!["-c", "8", "-m", "40", "-t", "2"];
    arguments.extend(urls.iter().map(String::as_str));
    let classes = h2load::run(&pods.client, REQUESTS, &arguments);
    for (sidecar, direction) in [
        (pods.client.sidecar(), "outbound"),
        (pods.server.sidecar(), "inbound"),
    ] {
        let labels = [("direction", direction), ("protocol", "http2")];
        let requests = |metrics: &Metrics, more: &[_]| {
            metrics.count("sidecar_http_requests_total", &[&labels, more].concat())
        };
        let metrics = sidecar.metrics_when(|metrics| requests(metrics, &[]) >= REQUESTS);
        for (class, count) in &classes {
            let labels = [
                ("status", &**class),
                ("outcome", "complete"),
                ("method", "GET"),
                ("tls", "mutual"),
            ];
            assert_eq!(requests(&metrics, &labels), *count, "{direction} {class}");
        }
        assert_eq!(requests(&metrics, &[]), REQUESTS, "{direction}");
        for histogram in ["request_duration_seconds", "time_to_first_byte_seconds"] {
            let name = format!("sidecar_http_{histogram}_count");
            assert_eq!(metrics.count(&name, &labels), REQUESTS, "{direction}");
        }
        let in_flight = metrics.count("sidecar_http_requests_in_flight", &labels);
        assert_eq!(in_flight, 0, "{direction}");
        let lost = metrics.count("sidecar_opaque_connections_total", &[]);
        assert_eq!(lost, 0, "{direction}");
    }
}

/// How calls ended: by status, `given_up` by the client, or `late`.
#[derive(Deserialize)]
struct Calls {
    ends: BTreeMap<String, u64>,
}

#[test]
fn every_grpc_call_is_counted() {
    const CALLS: u64 = 10_200;
    let pods = Pods::meshed();
    let port = PORT.to_string();
    let server = pods.server.script("grpc_peer.py");
    let _server = server.args(["server", &port]).listen(PORT);
    let address = format!("{}:{PORT}", pods.server.v4());
    let client = pods.client.script("grpc_peer.py");
    let Calls { mut ends } = client
        .args(["client", &address, &CALLS.to_string()])
        .deadline(Duration::from_mins(5))
        .facts();
    let total: u64 = ends.values().sum();
    let mut take = |end| {
        ends.remove(end)
            .unwrap_or_else(|| panic!("there is no {end}"))
    };
    let (given_up, late) = (take("given_up"), take("late"));
    assert_eq!(ends.len(), 17, "each status has had its turn: {ends:?}");
    assert!(total > CALLS);
    for (sidecar, direction) in [
        (pods.client.sidecar(), "outbound"),
        (pods.server.sidecar(), "inbound"),
    ] {
        let count = |metrics: &Metrics, name: &str, more: &[_]| {
            metrics.count(name, &[&[("direction", direction)], more].concat())
        };
        let calls = |metrics: &Metrics, status| {
            let labels = [("grpc_status", status), ("tls", "mutual")];
            count(metrics, "sidecar_grpc_calls_total", &labels)
        };
        let metrics = sidecar
            .metrics_when(|metrics| count(metrics, "sidecar_grpc_calls_total", &[]) >= total);
        assert_eq!(count(&metrics, "sidecar_grpc_calls_total", &[]), total);
        // At a deadline both sides act: the server may still say so, or the client has gone.
        let in_time = calls(&metrics, "DEADLINE_EXCEEDED") - ends["DEADLINE_EXCEEDED"];
        assert_eq!(calls(&metrics, "none") + in_time, given_up + late);
        for (status, ended) in ends
            .iter()
            .filter(|(status, _)| *status != "DEADLINE_EXCEEDED")
        {
            assert_eq!(calls(&metrics, status), *ended, "{direction} {status}");
        }

        let requests = |outcome| {
            let labels = [
                ("protocol", "grpc"),
                ("method", "POST"),
                ("outcome", outcome),
            ];
            count(&metrics, "sidecar_http_requests_total", &labels)
        };
        assert_eq!(requests("reset_by_client"), calls(&metrics, "none"));
        assert_eq!(requests("complete") + requests("reset_by_client"), total);
        let in_flight = count(&metrics, "sidecar_http_requests_in_flight", &[]);
        assert_eq!(in_flight, 0, "{direction}");
    }
}
