//! `docs/metrics.md` says what the code does, no more and no less.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    time::Duration,
};

use sidecar_common::Event;

use super::*;
use crate::{
    naming::Known,
    observe::{Exchange, GrpcStatus, Lost, Method, Observation, Outcome, Protocol},
    policy::authorization::{Decision, RuleName, Verdict},
    proxy::Meter,
};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// A metric: its type, and the labels of each of its samples.
type Metric = (String, BTreeSet<String>);

/// The rows of the table below a heading.
fn table(after: &str) -> impl Iterator<Item = &'static str> {
    let (_, table) = DOCUMENT
        .split_once(after)
        .unwrap_or_else(|| panic!("the document has no {after:?}"));
    table
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with('|'))
}

/// Words in code type.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// The metrics of the table below a heading. There, *parties* stands for four labels.
fn documented(heading: &str) -> BTreeMap<String, Metric> {
    let metric = |row: &'static str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let [_, name, kind, labels, ..] = cells[..] else {
            panic!("a row of few cells: {row}");
        };
        let labels = words(&labels.replace("*parties*", PARTIES))
            .map(str::to_owned)
            .collect();
        let name = words(name).next().expect("a name in code type");
        (name.to_owned(), (kind.to_owned(), labels))
    };
    table(heading).map(metric).collect()
}

const PARTIES: &str = "`direction`, `own`, `peer`, `tls`";

/// What is found in Prometheus' text.
fn rendered(text: &str) -> BTreeMap<String, Metric> {
    let mut metrics: BTreeMap<String, Metric> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        if let Some(type_of) = line.strip_prefix("# TYPE ") {
            let (name, kind) = type_of.split_once(' ').expect("a name and a type");
            name.clone_into(&mut last);
            let metric = (kind.to_owned(), labels_of_next(text, line));
            assert!(
                metrics.insert(last.clone(), metric).is_none(),
                "{name}, twice"
            );
        } else if !line.starts_with('#') {
            assert!(line.starts_with(&last), "{line} is below {last}");
            assert_eq!(labels(line), metrics[&last].1, "{line}");
        }
    }
    metrics
}

fn labels_of_next(text: &str, type_line: &str) -> BTreeSet<String> {
    let mut lines = text.lines().skip_while(|line| *line != type_line);
    labels(lines.nth(1).expect("a sample below its type"))
}

/// The names of the labels of a sample, but that of the bounds of buckets.
fn labels(sample: &str) -> BTreeSet<String> {
    let labels = sample.split_once('{').map_or("", |(_, labels)| labels);
    let mut names: BTreeSet<_> = labels
        .split("=\"")
        .filter_map(|part| part.rsplit(['"', '{', ',']).next())
        .filter(|name| !name.is_empty() && !name.contains('}'))
        .map(str::to_owned)
        .collect();
    names.remove("le");
    names
}

fn telemetry_of(series: SeriesLimits) -> Telemetry {
    Telemetry::new(Options {
        series,
        ..Options::default()
    })
    .expect("metrics of unique names")
}

fn telemetry() -> Telemetry {
    let telemetry = telemetry_of(SeriesLimits::default());
    telemetry.identity_failed("files");
    let all = || Ok(Event::ALL.iter().map(|event| (*event, 1)).collect());
    let events = KernelEvents::new(all).expect("a metric");
    telemetry.watch_kernel(events).expect("a unique name");
    telemetry
}

fn begin(telemetry: &Telemetry) -> Connection {
    let address: SocketAddr = "198.18.0.1:1".parse().expect("an address");
    telemetry.begin(Direction::Outbound, ClientAddr(address), OrigDst(address))
}

/// A connection with this peer, established on both legs.
fn open(telemetry: &Telemetry, peer: &str) -> Connection {
    let mut connection = begin(telemetry);
    establish(&mut connection, peer);
    connection
}

fn establish(connection: &mut Connection, peer: &str) {
    let peer = format!("spiffe://sidecar.local/{peer}");
    connection.connect_took(Duration::ZERO);
    connection.handshake_took(Duration::ZERO);
    connection.tls(TlsUse::Mutual(SpiffeId::new(&peer).expect("a SPIFFE ID")));
    connection.established();
}

fn exchange(protocol: Protocol) -> Observation {
    Observation::Ended(Box::new(Exchange {
        protocol,
        method: Method::Post,
        authority: None,
        path: None,
        status: Some(200),
        grpc_status: Some(GrpcStatus::OK),
        started: Instant::now(),
        first_byte: Some(Duration::from_micros(500)),
        duration: Duration::from_millis(2),
        request_bytes: 7,
        response_bytes: 9,
        outcome: Outcome::Complete,
        trace: None,
    }))
}

/// The value of the only sample of `metric` that has all of these labels; 0 without any.
fn value(telemetry: &Telemetry, metric: &str, labels: &[&str]) -> u64 {
    let text = telemetry.render().expect("metrics");
    let samples: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with(metric) && labels.iter().all(|label| line.contains(label)))
        .collect();
    match samples[..] {
        [] => 0,
        [sample] => { sample.rsplit(' ').next() }
            .and_then(|value| value.parse().ok())
            .expect("a sample ends with a number"),
        _ => panic!("several samples of {metric} with {labels:?}: {samples:#?}"),
    }
}

#[test]
fn every_metric_is_documented_with_its_type_and_labels() {
    let telemetry = telemetry();
    let mut carried = begin(&telemetry);
    carried.has_leg(Leg::Network, 1);
    establish(&mut carried, "peer");
    telemetry.measured(&SocketStatistics {
        cookie: 1,
        acknowledged: 1,
        smoothed_rtt: 8,
        min_rtt: 1,
        last: 1,
        ..SocketStatistics::default()
    });
    for protocol in Protocol::ALL {
        carried.heard(Observation::Began(protocol));
        carried.heard(exchange(protocol));
    }
    carried.heard(Observation::Lost(Lost::Upgraded));
    carried.closed(Close::Eof, None);
    let mut denied = begin(&telemetry);
    denied.decided(&Decision {
        verdict: Verdict::Deny,
        rule: RuleName::of_default(),
        audits: vec![RuleName::of_default()],
    });
    denied.failed(Close::Denied);
    telemetry.reloaded(true);

    let mut all = documented("## Metrics of connections");
    all.extend(documented("## Metrics of requests"));
    all.extend(documented("### What TCP measures"));
    all.extend(documented("## Metrics of the sidecar"));
    assert_eq!(all, rendered(&telemetry.render().expect("metrics")));
}

/// What connections of a pod of this name are counted by, with a peer that the cluster knows.
fn telemetry_of_pod(pod: &str) -> Telemetry {
    let directory = Directory::default();
    let known = Known {
        namespace: "stock".into(),
        service: "till".into(),
        workload: "deployment/till".into(),
        ..Known::default()
    };
    let peer = "198.18.0.1".parse().expect("an address");
    directory.tell(peer, None, Some(Arc::new(known)));
    Telemetry::new(Options {
        directory,
        labels: PodLabels {
            namespace: "shop".into(),
            node: "node-1".into(),
            pod: pod.into(),
            service_account: "web".into(),
            workload: "deployment/web".into(),
        },
        ..Options::default()
    })
    .expect("metrics of unique names")
}

/// The words in code type in the first column of a table.
fn first_words(heading: &str) -> BTreeSet<String> {
    table(heading)
        .filter_map(|row| words(row.split('|').nth(1)?).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn what_the_cluster_calls_both_ends_is_in_labels_that_are_documented() {
    let telemetry = telemetry_of_pod("web-0");
    open(&telemetry, "peer").closed(Close::Eof, None);
    let text = telemetry.render().expect("metrics");
    let of = |metric: &str| {
        let mut samples = text.lines().filter(|line| line.starts_with(metric));
        labels(samples.next().expect(metric))
    };
    let pod = first_words("### The pod in labels");
    assert_eq!(
        pod,
        ["namespace", "node", "pod", "service_account", "workload"]
            .map(str::to_owned)
            .into()
    );
    let peer = first_words("### The peer in labels");
    let parties: BTreeSet<_> = words(PARTIES).map(str::to_owned).collect();
    let all: BTreeSet<_> = { pod.iter().chain(&peer).chain(&parties) }
        .cloned()
        .collect();
    assert_eq!(of("sidecar_connections_opened_total"), all);
    assert_eq!(of("sidecar_identity_rotations_total"), pod);
    // There is one access log, however many pods.
    let node = BTreeSet::from(["node".to_owned()]);
    assert_eq!(of("sidecar_access_log_dropped_lines_total"), node);
    assert!(text.contains("peer_service=\"till\",peer_workload=\"deployment/till\",pod=\"web-0\""));
}

/// What stands in front of the values: each of it has to be there once.
fn series(text: &str) -> Vec<&str> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    samples
        .filter_map(|line| line.rsplit_once(' '))
        .map(|(series, _)| series)
        .collect()
}

#[test]
fn metrics_of_many_pods_are_one_exposition() {
    let pods = ["web-0", "web-1"].map(telemetry_of_pod);
    for telemetry in &pods {
        open(telemetry, "peer").closed(Close::Eof, None);
    }
    let text = Telemetry::render_all(&pods, Vec::new()).expect("metrics");
    // Each family once, with its samples below it.
    let _ = rendered(&text);
    let all = series(&text);
    assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), all.len());
    for pod in ["web-0", "web-1"] {
        let opened = all.iter().filter(|series| {
            series.starts_with("sidecar_connections_opened_total{")
                && series.contains(&format!("pod=\"{pod}\""))
        });
        assert_eq!(opened.count(), 1, "{text}");
    }
    let of_process = |series: &&&str| series.starts_with("sidecar_access_log_dropped_lines_total");
    assert_eq!(all.iter().filter(of_process).count(), 1, "{text}");
}

#[test]
fn of_two_pods_of_one_name_the_last_one_tells() {
    let pods = ["web-0"; 2].map(telemetry_of_pod);
    for (telemetry, connections) in pods.iter().zip([3, 1]) {
        for _ in 0..connections {
            open(telemetry, "peer").closed(Close::Eof, None);
        }
    }
    let text = Telemetry::render_all(&pods, Vec::new()).expect("metrics");
    let opened: Vec<_> = text
        .lines()
        .filter(|line| line.starts_with("sidecar_connections_opened_total{"))
        .collect();
    let [opened] = opened[..] else {
        panic!("{opened:#?}");
    };
    assert!(opened.ends_with(" 1"), "{opened}");
}

#[test]
fn a_flood_of_identities_does_not_make_the_metrics_grow() {
    const PEERS: usize = 10_000;
    let limits = SeriesLimits {
        most: 50,
        ..SeriesLimits::default()
    };
    let telemetry = telemetry_of(limits);
    for number in 0..PEERS {
        let mut connection = open(&telemetry, &format!("peer-{number}"));
        connection.heard(Observation::Began(Protocol::Http1));
        connection.heard(exchange(Protocol::Http1));
        connection.closed(Close::Eof, None);
    }
    let text = telemetry.render().expect("metrics");
    let opened = |line: &&str| line.starts_with("sidecar_connections_opened_total{");
    assert_eq!(text.lines().filter(opened).count(), limits.most + 1);
    let rest = (PEERS - limits.most) as u64;
    let overflow = ["own=\"overflow\"", "peer=\"overflow\"", "tls=\"mutual\""];
    for metric in [
        "sidecar_connections_opened_total",
        "sidecar_http_requests_total",
    ] {
        assert_eq!(value(&telemetry, metric, &overflow), rest, "{metric}");
    }
    assert_eq!(
        value(&telemetry, "sidecar_series_overflowed_total ", &[]),
        rest
    );
    // Whoever was there first is still told apart.
    open(&telemetry, "peer-0").closed(Close::Eof, None);
    let first = ["local/peer-0\""];
    assert_eq!(
        value(&telemetry, "sidecar_connections_opened_total", &first),
        2
    );
}

#[test]
fn a_peer_without_connections_is_forgotten_in_time_and_makes_room() {
    let limits = SeriesLimits {
        most: 1,
        forget_after: Duration::from_mins(10),
    };
    let telemetry = telemetry_of(limits);
    let series = &telemetry.shared.metrics.series;
    let opened = |peer| value(&telemetry, "sidecar_connections_opened_total", &[peer]);
    let noon = Instant::now();
    open(&telemetry, "one").closed(Close::Eof, None);

    series.sweep(noon);
    series.sweep(noon + limits.forget_after / 2);
    assert_eq!(opened("local/one"), 1, "it was forgotten too early");
    // A connection in between, of which no sweep sees anything, is a sign of life as well.
    open(&telemetry, "one").closed(Close::Eof, None);
    series.sweep(noon + limits.forget_after);
    assert_eq!(opened("local/one"), 2, "it was forgotten too early");
    series.sweep(noon + limits.forget_after * 2);
    assert_eq!(opened("local/one"), 0);

    open(&telemetry, "two").closed(Close::Eof, None);
    assert_eq!(opened("local/two"), 1, "there was no room");
    series.sweep(noon);
    series.sweep(noon + limits.forget_after);
    open(&telemetry, "one").closed(Close::Eof, None);
    assert_eq!(opened("local/one"), 1, "it did not come back from zero");
}

#[test]
fn a_peer_with_an_open_connection_is_never_forgotten() {
    let telemetry = telemetry();
    let limits = SeriesLimits::default();
    let series = &telemetry.shared.metrics.series;
    let mut connection = open(&telemetry, "peer");
    connection.heard(Observation::Began(Protocol::Http2));
    let noon = Instant::now();
    for hours in 0..3 {
        series.sweep(noon + Duration::from_hours(hours));
    }
    let in_flight = || value(&telemetry, "sidecar_http_requests_in_flight", &[]);
    assert_eq!(in_flight(), 1);
    connection.heard(exchange(Protocol::Http2));
    connection.closed(Close::Eof, None);
    drop(connection);
    // The time begins when it has ended.
    series.sweep(noon + Duration::from_hours(3));
    assert_eq!(
        value(&telemetry, "sidecar_connections_closed_total", &[]),
        1
    );
    assert_eq!(in_flight(), 0);
    series.sweep(noon + Duration::from_hours(3) + limits.forget_after);
    assert!(!telemetry.render().expect("metrics").contains("local/peer"));
}

#[test]
fn nothing_is_in_flight_once_every_connection_has_ended() {
    let telemetry = telemetry();
    let in_flight = || value(&telemetry, "sidecar_http_requests_in_flight", &["http2"]);
    let mut other = open(&telemetry, "peer");
    other.heard(Observation::Began(Protocol::Http2));
    let mut connection = open(&telemetry, "peer");
    for _ in 0..3 {
        connection.heard(Observation::Began(Protocol::Http2));
    }
    connection.heard(exchange(Protocol::Grpc));
    assert_eq!(in_flight(), 3);
    drop(connection);
    assert_eq!(in_flight(), 1, "only that of the other one is left");
    // An end without beginning takes nothing from others.
    let mut connection = open(&telemetry, "peer");
    connection.heard(exchange(Protocol::Http2));
    drop(connection);
    assert_eq!(in_flight(), 1);
    drop(other);
    assert_eq!(in_flight(), 0);
}

#[test]
fn a_connection_looks_up_its_parties_once() {
    let telemetry = telemetry_of(SeriesLimits {
        most: 1,
        ..SeriesLimits::default()
    });
    open(&telemetry, "first").closed(Close::Eof, None);
    // Each look-up of these parties is counted, since there is no room for them.
    let mut connection = open(&telemetry, "second");
    for _ in 0..10 {
        connection.heard(Observation::Began(Protocol::Http1));
        connection.heard(exchange(Protocol::Http1));
    }
    connection.sent(b"bytes");
    connection.heard(Observation::Lost(Lost::Upgraded));
    connection.closed(Close::Eof, None);
    assert_eq!(
        value(&telemetry, "sidecar_series_overflowed_total ", &[]),
        1
    );
}
