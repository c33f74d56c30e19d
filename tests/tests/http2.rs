//! HTTP/2 and gRPC as they are observed: what the sidecars count is what client and server did.

use std::time::Duration;

use sidecar_tests::{Metrics, Pods, servers};

const PORT: u16 = 8080;

/// What h2load says it got, by class of status: `2xx`, `3xx`, `4xx` and `5xx`.
fn classes(report: &str) -> Vec<(String, u64)> {
    let line = report
        .lines()
        .find_map(|line| line.strip_prefix("status codes: "))
        .unwrap_or_else(|| panic!("h2load says nothing of statuses: {report}"));
    line.split(", ")
        .map(|part| {
            let (count, class) = part.split_once(' ').expect("a count and a class");
            (class.to_owned(), count.parse().expect("a count"))
        })
        .collect()
}

#[test]
fn every_request_of_h2load_is_counted() {
    const REQUESTS: u64 = 100_000;
    let pods = Pods::meshed();
    let _nginx = servers::nginx_http2(&pods.server, PORT, "hello");
    let urls = ["", "moved", "missing", "broken", "?secret"]
        .map(|path| format!("http://{}:{PORT}/{path}", pods.server.v4()));
    let report = pods
        .client
        .program("/usr/bin/h2load")
        .args([
            "-n",
            &REQUESTS.to_string(),
            "-c",
            "8",
            "-m",
            "40",
            "-t",
            "2",
        ])
        .args(urls)
        .deadline(Duration::from_mins(5))
        .succeed();
    let classes = classes(&report);
    let total: u64 = classes.iter().map(|(_, count)| count).sum();
    assert_eq!(total, REQUESTS, "{report}");
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
