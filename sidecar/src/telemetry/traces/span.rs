use std::borrow::Cow;

use opentelemetry::{
    InstrumentationScope, KeyValue, SpanId, TraceFlags, TraceId, Value,
    trace::{SpanContext, SpanKind, Status, TraceState},
};
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanLinks};
use opentelemetry_semantic_conventions::attribute;

use super::Passed;
use crate::{
    observe::{Exchange, GrpcStatus, Method, Outcome, Protocol, Text, TraceParent},
    policy::Direction,
};

/// The own SPIFFE ID. The conventions know attributes of certificates' subjects, and none of these.
const OWN_ID: &str = "sidecar.own.id";
/// The SPIFFE ID that the peer has proved.
const PEER_ID: &str = "sidecar.peer.id";
/// Whether mutual TLS was used, and if not, why.
const TLS: &str = "sidecar.tls";
/// What the cluster calls the two ends: labels of metrics, and attributes that mean the same.
const NAMES: [(&str, &str); 8] = [
    ("namespace", "k8s.namespace.name"),
    ("node", "k8s.node.name"),
    ("pod", "k8s.pod.name"),
    ("service_account", "sidecar.own.service_account"),
    ("workload", "sidecar.own.workload"),
    ("peer_namespace", "sidecar.peer.namespace"),
    ("peer_service", "sidecar.peer.service"),
    ("peer_workload", "sidecar.peer.workload"),
];
/// From the first byte of the request to the first of its response, in seconds.
const FIRST_BYTE: &str = "sidecar.first_byte";

/// What says who made the spans.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("sidecar")
        .with_version(env!("CARGO_PKG_VERSION"))
        .with_schema_url(opentelemetry_semantic_conventions::SCHEMA_URL)
        .build()
}

/// The span of a request by OpenTelemetry's conventions for HTTP and RPC: a child of the span that
/// the request names, of the server where it came in and of the client where it went out.
pub(super) fn span(passed: &Passed, id: SpanId, scope: InstrumentationScope) -> Option<SpanData> {
    let parent = passed.parent()?;
    let exchange = &*passed.exchange;
    let span_kind = match passed.direction {
        Direction::Inbound => SpanKind::Server,
        Direction::Outbound => SpanKind::Client,
    };
    let start_time = passed.started();
    let error = error(exchange, passed.direction);
    Some(SpanData {
        span_context: SpanContext::new(
            TraceId::from(parent.trace_id),
            id,
            TraceFlags::SAMPLED,
            false,
            state(parent),
        ),
        parent_span_id: SpanId::from(parent.span_id),
        parent_span_is_remote: true,
        span_kind,
        name: name(exchange),
        start_time,
        end_time: start_time + exchange.duration,
        attributes: attributes(passed, error.clone()),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: error.map_or(Status::Unset, |_| Status::error("")),
        instrumentation_scope: scope,
    })
}

fn state(parent: &TraceParent) -> TraceState {
    let members = parent.state.iter().flat_map(|state| state.split(','));
    let pairs = members.filter_map(|member| member.trim().split_once('='));
    TraceState::from_key_value(pairs).unwrap_or_default()
}

/// Of few values for one service, whatever its clients ask for: the method of the call, or that of
/// the request, since a route is nothing that can be seen from outside.
fn name(exchange: &Exchange) -> Cow<'static, str> {
    match (exchange.protocol, exchange.method) {
        (Protocol::Grpc, _) => {
            known_call(exchange).map_or("grpc".into(), |call| Cow::Owned(call.to_owned()))
        }
        (_, Method::Other) => "HTTP".into(),
        (_, method) => method.as_str().into(),
    }
}

/// `package.Service/Method` of a call that the server has recognised: to any other it would have
/// answered with `UNIMPLEMENTED`.
fn known_call(exchange: &Exchange) -> Option<&str> {
    const UNIMPLEMENTED: u8 = 12;
    let is_known = exchange
        .grpc_status
        .is_some_and(|status| status.number() != UNIMPLEMENTED);
    call(exchange).filter(|_| is_known)
}

fn call(exchange: &Exchange) -> Option<&str> {
    let path = exchange.path.as_ref()?.as_str();
    path.strip_prefix('/')
}

/// What failed, for `error.type`. A server does not fail by refusing what was wrongly asked, nor a
/// call by ending with a status that the client is to blame for.
fn error(exchange: &Exchange, direction: Direction) -> Option<Cow<'static, str>> {
    let is_server = direction == Direction::Inbound;
    let status = match (exchange.protocol, exchange.grpc_status, exchange.status) {
        (Protocol::Grpc, Some(status), _) => {
            let has_failed = status != GrpcStatus::OK && (!is_server || exchange.has_failed());
            has_failed.then(|| status.as_str().into())
        }
        (_, _, Some(status)) => {
            let least = if is_server { 500 } else { 400 };
            (status >= least).then(|| status.to_string().into())
        }
        (_, _, None) => None,
    };
    let outcome = match exchange.outcome {
        Outcome::Complete | Outcome::Unfollowed => None,
        // It was the client's to give up.
        Outcome::ResetByClient if is_server => None,
        outcome => Some(outcome.as_str().into()),
    };
    status.or(outcome)
}

fn attributes(passed: &Passed, error: Option<Cow<'static, str>>) -> Vec<KeyValue> {
    let exchange = &*passed.exchange;
    let mut attributes = Vec::with_capacity(24);
    let mut set = |key, value: Value| attributes.push(KeyValue::new(key, value));
    if exchange.protocol == Protocol::Grpc {
        call_attributes(exchange, &mut set);
    } else {
        request_attributes(passed, &mut set);
    }
    let (host, port) = server(passed);
    set(attribute::SERVER_ADDRESS, host.into());
    set(attribute::SERVER_PORT, i64::from(port).into());
    let peer = match passed.direction {
        Direction::Inbound => {
            set(attribute::CLIENT_ADDRESS, address(passed.client).into());
            set(
                attribute::CLIENT_PORT,
                i64::from(passed.client.port()).into(),
            );
            passed.client
        }
        Direction::Outbound => passed.destination,
    };
    set(attribute::NETWORK_PEER_ADDRESS, address(peer).into());
    set(attribute::NETWORK_PEER_PORT, i64::from(peer.port()).into());
    set(attribute::NETWORK_PROTOCOL_NAME, "http".into());
    // Of HTTP/1 the minor version is not kept.
    if exchange.protocol != Protocol::Http1 {
        set(attribute::NETWORK_PROTOCOL_VERSION, "2".into());
    }
    for (key, bytes) in [
        (attribute::HTTP_REQUEST_BODY_SIZE, exchange.request_bytes),
        (attribute::HTTP_RESPONSE_BODY_SIZE, exchange.response_bytes),
    ] {
        set(key, i64::try_from(bytes).unwrap_or(i64::MAX).into());
    }
    if let Some(error) = error {
        set(attribute::ERROR_TYPE, error.into());
    }
    if let Some(first_byte) = exchange.first_byte {
        set(FIRST_BYTE, first_byte.as_secs_f64().into());
    }
    set(TLS, passed.tls.as_str().into());
    if let Some(peer) = passed.tls.peer() {
        set(OWN_ID, passed.own.to_string().into());
        set(PEER_ID, peer.to_string().into());
    }
    for (name, value) in passed.pod.pairs().chain(passed.names.pairs()) {
        if let Some((_, key)) = NAMES.iter().find(|(label, _)| *label == name) {
            set(key, value.to_owned().into());
        }
    }
    attributes
}

fn request_attributes(passed: &Passed, set: &mut impl FnMut(&'static str, Value)) {
    let exchange = &*passed.exchange;
    set(
        attribute::HTTP_REQUEST_METHOD,
        exchange.method.as_str().into(),
    );
    if let Some(status) = exchange.status {
        set(
            attribute::HTTP_RESPONSE_STATUS_CODE,
            i64::from(status).into(),
        );
    }
    let path = exchange.path.as_ref().map(Text::as_str);
    match passed.direction {
        Direction::Inbound => {
            set(attribute::URL_SCHEME, "http".into());
            if let Some(path) = path {
                set(attribute::URL_PATH, path.to_owned().into());
            }
        }
        Direction::Outbound => {
            let authority = exchange.authority.as_ref().map_or_else(
                || passed.destination.to_string(),
                |authority| authority.as_str().to_owned(),
            );
            // The target of `CONNECT` and `OPTIONS *` is no path.
            let path = path
                .filter(|path| path.starts_with('/'))
                .unwrap_or_default();
            set(
                attribute::URL_FULL,
                format!("http://{authority}{path}").into(),
            );
            if !path.is_empty() {
                set(attribute::URL_PATH, path.to_owned().into());
            }
        }
    }
}

fn call_attributes(exchange: &Exchange, set: &mut impl FnMut(&'static str, Value)) {
    set(attribute::RPC_SYSTEM_NAME, "grpc".into());
    match (known_call(exchange), call(exchange)) {
        (Some(call), _) => set(attribute::RPC_METHOD, call.to_owned().into()),
        (None, call) => {
            set(attribute::RPC_METHOD, "_OTHER".into());
            if let Some(call) = call {
                set(attribute::RPC_METHOD_ORIGINAL, call.to_owned().into());
            }
        }
    }
    if let Some(status) = exchange.grpc_status {
        set(attribute::RPC_RESPONSE_STATUS_CODE, status.as_str().into());
    }
}

/// Host and port that the client asks for, or else those that it went to.
fn server(passed: &Passed) -> (String, u16) {
    let default = passed.destination;
    let Some(authority) = &passed.exchange.authority else {
        return (address(default), default.port());
    };
    let authority = authority.as_str();
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an address in brackets are no ports'.
        Some((host, port)) if !port.ends_with(']') => (host, port.parse().ok()),
        _ => (authority, None),
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    (host.to_owned(), port.unwrap_or(default.port()))
}

/// IPv4 in its own form.
fn address(of: std::net::SocketAddr) -> String {
    of.ip().to_canonical().to_string()
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeMap,
        time::{Duration, SystemTime},
    };

    use super::{super::testing::passed, *};
    use crate::telemetry::TlsUse;

    fn made(passed: &Passed) -> SpanData {
        span(passed, SpanId::from(7), scope()).expect("it has a parent")
    }

    fn shown(span: &SpanData) -> BTreeMap<&str, String> {
        let attributes = span.attributes.iter();
        attributes
            .map(|attribute| (attribute.key.as_str(), attribute.value.to_string()))
            .collect()
    }

    fn call(status: Option<&[u8]>) -> Passed {
        let mut passed = passed();
        passed.exchange.protocol = Protocol::Grpc;
        passed.exchange.method = Method::Post;
        passed.exchange.path = Some(Text::of_path(b"/shop.Stock/Take"));
        passed.exchange.grpc_status = status.map(GrpcStatus::parse);
        passed
    }

    #[test]
    fn a_request_that_came_in_is_a_span_of_its_server() {
        let span = made(&passed());
        assert_eq!(span.span_kind, SpanKind::Server);
        assert_eq!(span.name, "GET");
        let context = &span.span_context;
        assert_eq!(
            context.trace_id().to_string(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        assert_eq!(span.parent_span_id.to_string(), "b7ad6b7169203331");
        assert_eq!(context.span_id(), SpanId::from(7));
        assert!(context.is_sampled() && span.parent_span_is_remote);
        assert_eq!(context.trace_state().header(), "foo=1,bar=2");
        assert_eq!(span.status, Status::Unset);
        let start = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        assert_eq!(span.start_time, start);
        assert_eq!(span.end_time, start + Duration::from_millis(5));
        let expected = BTreeMap::from(
            [
                ("client.address", "198.18.0.1"),
                ("client.port", "40000"),
                ("http.request.body.size", "7"),
                ("http.request.method", "GET"),
                ("http.response.body.size", "9"),
                ("http.response.status_code", "200"),
                ("network.peer.address", "198.18.0.1"),
                ("network.peer.port", "40000"),
                ("network.protocol.name", "http"),
                ("server.address", "shop.example"),
                ("server.port", "8080"),
                ("sidecar.first_byte", "0.001"),
                (
                    "sidecar.own.id",
                    "spiffe://sidecar.local/ns/default/sa/stock",
                ),
                (
                    "sidecar.peer.id",
                    "spiffe://sidecar.local/ns/default/sa/shop",
                ),
                ("sidecar.tls", "mutual"),
                ("url.path", "/cart"),
                ("url.scheme", "http"),
            ]
            .map(|(key, value)| (key, value.to_owned())),
        );
        assert_eq!(shown(&span), expected);
    }

    #[test]
    fn a_request_that_went_out_is_a_span_of_its_client() {
        let mut passed = passed();
        passed.direction = Direction::Outbound;
        passed.tls = TlsUse::NoPeerOption;
        let span = made(&passed);
        assert_eq!(span.span_kind, SpanKind::Client);
        let shown = shown(&span);
        assert_eq!(shown["url.full"], "http://shop.example:8080/cart");
        assert_eq!(shown["network.peer.address"], "fd00::2");
        assert_eq!(shown["network.peer.port"], "8080");
        assert_eq!(shown["sidecar.tls"], "no_peer_option");
        for absent in [
            "client.address",
            "sidecar.own.id",
            "sidecar.peer.id",
            "error.type",
        ] {
            assert!(!shown.contains_key(absent), "{absent}");
        }
    }

    #[test]
    fn who_has_failed_is_told_by_the_status() {
        use Direction::{Inbound, Outbound};
        use Outcome::{Complete, Cut, ResetByClient};

        let failed = |direction, status, outcome| {
            let mut passed = passed();
            passed.direction = direction;
            passed.exchange.status = status;
            passed.exchange.outcome = outcome;
            let span = made(&passed);
            let error = shown(&span).get("error.type").cloned();
            assert_eq!(span.status != Status::Unset, error.is_some());
            error
        };
        for (direction, status, outcome, error) in [
            (Inbound, Some(404), Complete, None),
            (Outbound, Some(404), Complete, Some("404")),
            (Inbound, Some(503), Complete, Some("503")),
            (Inbound, Some(101), Complete, None),
            (Inbound, None, Cut, Some("cut")),
            (Outbound, Some(200), Cut, Some("cut")),
            (Inbound, Some(200), ResetByClient, None),
            (Outbound, Some(200), ResetByClient, Some("reset_by_client")),
        ] {
            assert_eq!(failed(direction, status, outcome).as_deref(), error);
        }
    }

    #[test]
    fn a_call_is_named_by_its_method_once_the_server_has_recognised_it() {
        let span = made(&call(Some(b"5")));
        assert_eq!(span.name, "shop.Stock/Take");
        let of_known = shown(&span);
        assert_eq!(of_known["rpc.system.name"], "grpc");
        assert_eq!(of_known["rpc.method"], "shop.Stock/Take");
        assert_eq!(of_known["rpc.response.status_code"], "NOT_FOUND");
        assert_eq!(of_known["network.protocol.version"], "2");
        assert!(!of_known.contains_key("http.request.method"));
        // Who asks for what is not there is not failed by the server.
        assert_eq!(span.status, Status::Unset);

        for unknown in [call(Some(b"12")), call(None)] {
            let span = made(&unknown);
            assert_eq!(span.name, "grpc");
            let shown = shown(&span);
            assert_eq!(shown["rpc.method"], "_OTHER");
            assert_eq!(shown["rpc.method_original"], "shop.Stock/Take");
        }
    }

    #[test]
    fn a_call_fails_for_its_client_with_every_status_but_ok() {
        let mut not_found = call(Some(b"5"));
        not_found.direction = Direction::Outbound;
        assert_eq!(shown(&made(&not_found))["error.type"], "NOT_FOUND");
        let unavailable = made(&call(Some(b"14")));
        assert_eq!(shown(&unavailable)["error.type"], "UNAVAILABLE");
        assert_eq!(unavailable.status, Status::error(""));
        assert_eq!(made(&call(Some(b"0"))).status, Status::Unset);
    }

    #[test]
    fn the_server_is_the_one_that_was_asked_for() {
        let of = |authority: Option<&str>| {
            let mut passed = passed();
            passed.exchange.authority = authority.map(|text| Text::new(text.as_bytes()));
            server(&passed)
        };
        let named = |host: &str, port| (host.to_owned(), port);
        assert_eq!(of(None), named("fd00::2", 8080));
        assert_eq!(of(Some("shop")), named("shop", 8080));
        assert_eq!(of(Some("shop:81")), named("shop", 81));
        assert_eq!(of(Some("[::1]")), named("::1", 8080));
        assert_eq!(of(Some("[::1]:81")), named("::1", 81));
        assert_eq!(of(Some("shop:http")), named("shop", 8080));
    }
}
