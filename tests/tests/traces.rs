//! Spans of requests that pass, as a collector gets them.

use sidecar_tests::{Collector, Pod, Pods, SECRET, collector::Span, servers, wait};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// The server's pod, a client's, and one of a collector, all of them with sidecars, of which the first
/// two send spans.
fn traced() -> (Pods, Pod) {
    traced_with(&[])
}

/// The same, with these additional flags of the client's sidecar.
fn traced_with(flags: &[&str]) -> (Pods, Pod) {
    let mut pods = Pods::plain();
    let mut monitoring = pods.join("monitoring");
    monitoring.mesh(&pods.dev_ca(), &[]);
    monitoring.wait_until_ready();
    let flag = Collector::flag(&monitoring);
    let of_client = [flags, &[&flag]].concat();
    pods.mesh(Some(&of_client), Some(&[&flag]));
    (pods, monitoring)
}

/// Asks the server for a page, with these headers.
#[track_caller]
fn get(pods: &Pods, path: &str, headers: &[&str]) -> String {
    let url = format!("http://{}{path}", pods.server.v4());
    let curl = pods.client.program("curl").args(["-sS", &url]);
    curl.args(headers.iter().flat_map(|header| ["-H", header]))
        .succeed()
}

fn of_kind<'a>(spans: &'a [Span], kind: &str) -> &'a Span {
    let mut spans = spans.iter().filter(|span| span.kind == kind);
    spans.next().unwrap_or_else(|| panic!("no {kind} span"))
}

#[test]
fn a_traced_request_is_a_span_of_either_side() {
    let (pods, monitoring) = traced();
    let collector = Collector::start(&monitoring);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    let state = "tracestate: shop=1";
    get(&pods, "/?token=secret", &[&traceparent, state]);

    let spans = collector.spans_when(2);
    let (client, server) = (of_kind(&spans, "client"), of_kind(&spans, "server"));
    for span in [client, server] {
        assert_eq!((&*span.trace_id, &*span.parent_span_id), (TRACE, PARENT));
        assert_eq!(span.trace_state, "shop=1");
        assert_eq!((&*span.name, span.is_error), ("GET", false));
        assert!(span.start < span.end, "{span:?}");
        let expected = [
            ("http.request.method", "GET".to_owned()),
            ("http.response.status_code", "200".to_owned()),
            ("http.request.body.size", "0".to_owned()),
            ("http.response.body.size", SECRET.len().to_string()),
            ("server.address", pods.server.v4().to_string()),
            ("server.port", "80".to_owned()),
            ("url.path", "/".to_owned()),
            ("sidecar.tls", "mutual".to_owned()),
        ];
        for (key, value) in expected {
            assert_eq!(span.attributes.get(key), Some(&value), "{key}: {span:#?}");
        }
        assert!(span.attributes.keys().all(|key| !key.contains("query")));
    }
    assert_ne!(client.span_id, server.span_id);

    let peers = [&pods.server, &pods.client].map(Pod::identity);
    let ids =
        |span: &Span| ["sidecar.peer.id", "sidecar.own.id"].map(|key| span.attributes[key].clone());
    let [of_server, of_client] = peers;
    assert_eq!(ids(client), [of_server.clone(), of_client.clone()]);
    assert_eq!(ids(server), [of_client, of_server]);
    assert_eq!(
        client.attributes["network.peer.address"],
        pods.server.v4().to_string()
    );
    assert_eq!(
        server.attributes["client.address"],
        pods.client.v4().to_string()
    );
    assert_eq!(client.resource["service.name"], "client");
    assert_eq!(client.resource["service.namespace"], "default");
    assert_eq!(server.resource["service.name"], "server");

    // The way to the collector is encrypted, and makes no spans.
    let export = monitoring
        .sidecar()
        .metrics_when(|metrics| metrics.count("sidecar_connections_opened_total", &[]) == 2);
    let tls = [("tls", "mutual"), ("direction", "inbound")];
    assert_eq!(export.count("sidecar_connections_opened_total", &tls), 2);
    for pod in [&pods.client, &pods.server] {
        // It counts them when the collector has answered.
        let exported = "sidecar_trace_spans_exported_total";
        let metrics = { pod.sidecar() }.metrics_when(|metrics| metrics.count(exported, &[]) == 1);
        assert_eq!(metrics.count("sidecar_trace_spans_dropped_total", &[]), 0);
    }
}

#[test]
fn a_request_that_is_not_sampled_makes_no_span() {
    let (pods, monitoring) = traced();
    let collector = Collector::start(&monitoring);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let unsampled = format!("traceparent: 00-{TRACE}-{PARENT}-00");
    let invalid = format!("traceparent: 00-{TRACE}-0000000000000000-01");
    for headers in [&[][..], &[&*unsampled], &[&*invalid], &["b3: 0"]] {
        get(&pods, "/", headers);
    }
    // What comes after them is all that there is.
    let b3 = format!("b3: {TRACE}-{PARENT}-1");
    get(&pods, "/", &[&b3]);
    let spans = collector.spans_when(2);
    assert!(spans.iter().all(|span| span.trace_id == TRACE));
}

#[test]
fn b3_in_several_fields_is_traced_and_a_missing_page_fails_the_client_alone() {
    let (pods, monitoring) = traced();
    let collector = Collector::start(&monitoring);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let trace = "X-B3-TraceId: 8448eb211c80319c";
    let span = format!("X-B3-SpanId: {PARENT}");
    get(&pods, "/missing", &[trace, &span, "X-B3-Sampled: 1"]);
    let spans = collector.spans_when(2);
    let (client, server) = (of_kind(&spans, "client"), of_kind(&spans, "server"));
    for span in [client, server] {
        assert_eq!(span.trace_id, "00000000000000008448eb211c80319c");
        assert_eq!(span.parent_span_id, PARENT);
        assert_eq!(span.attributes["http.response.status_code"], "404");
    }
    assert_eq!((client.is_error, server.is_error), (true, false));
    assert_eq!(client.attributes["error.type"], "404");
}

#[test]
fn spans_go_on_when_the_collector_comes_back() {
    let (pods, monitoring) = traced();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    get(&pods, "/", &[&traceparent]);
    let sidecar = pods.client.sidecar();
    let dropped = "sidecar_trace_spans_dropped_total";
    sidecar.metrics_when(|metrics| metrics.count(dropped, &[]) == 1);
    sidecar.logs(&["takes no spans, which are dropped"]);

    for _ in 0..2 {
        let collector = Collector::start(&monitoring);
        // Those that were sent while it was away are lost.
        wait::until("a span of the client comes", || {
            get(&pods, "/", &[&traceparent]);
            collector.spans().iter().any(|span| span.kind == "client")
        });
    }
    sidecar.logs(&["takes spans again"]);
}

#[test]
fn a_sidecar_that_ends_sends_what_waits_and_does_not_wait_for_its_own_connection() {
    // Longer than anything in a test may take.
    let (mut pods, monitoring) = traced_with(&["--drain-timeout", "10m"]);
    let collector = Collector::start(&monitoring);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    get(&pods, "/", &[&traceparent]);
    collector.spans_when(2);
    get(&pods, "/last", &[&traceparent]);
    pods.client.stop_sidecar();
    let spans = collector.spans_when(4);
    let last = |span: &&Span| span.kind == "client" && span.attributes["url.path"] == "/last";
    assert_eq!(spans.iter().filter(last).count(), 1, "{spans:#?}");
}

#[test]
fn a_sidecar_that_ends_dials_the_collector_for_what_waits() {
    let (mut pods, monitoring) = traced();
    let collector = Collector::start(&monitoring);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    get(&pods, "/", &[&traceparent]);
    { pods.client.sidecar() }
        .metrics_when(|metrics| metrics.count("sidecar_http_requests_total", &[]) > 0);
    // At once: it has not talked to the collector yet.
    pods.client.stop_sidecar();
    let spans = collector.spans_when(2);
    of_kind(&spans, "client");
}

#[test]
fn where_plaintext_is_refused_no_span_leaves_in_it() {
    let mut pods = Pods::plain();
    let plain = pods.join("monitoring");
    let collector = Collector::start(&plain);
    let flag = Collector::flag(&plain);
    pods.mesh(Some(&[&flag, "--outbound", "strict"]), Some(&[]));
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let traceparent = format!("traceparent: 00-{TRACE}-{PARENT}-01");
    get(&pods, "/", &[&traceparent]);
    let dropped = "sidecar_trace_spans_dropped_total";
    let sidecar = pods.client.sidecar();
    sidecar.metrics_when(|metrics| metrics.count(dropped, &[]) == 1);
    let refused = sidecar.connection(|entry| entry.destination.port() == Collector::PORT);
    assert_eq!(refused.close, "plaintext_refused");
    assert_eq!(collector.spans(), []);
}
