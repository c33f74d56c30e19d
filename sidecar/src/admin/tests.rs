//! The endpoint and callers that mean no good.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    identity::testing::{ca, id},
    kubernetes::{Health, PodFacts, PodUid, WorkloadName},
    naming::ServiceAccount,
    node::{Served, State},
    policy::Direction,
    proxy::{ClientAddr, Close, OrigDst},
    telemetry::{Filter, Format, Options, PodLabels},
};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// The endpoint of a sidecar that serves.
async fn endpoint() -> SocketAddr {
    patient_endpoint(PATIENCE.asking).await
}

/// The same, with so much patience for callers.
async fn patient_endpoint(asking: Duration) -> SocketAddr {
    let (listener, address) = listener().await;
    tokio::spawn(serve_callers(
        listener,
        router(shown()),
        Patience { asking, ..PATIENCE },
    ));
    address
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    (listener, address)
}

/// What a sidecar shows that has an identity.
fn shown() -> Shown {
    let (_dir, ca) = ca("example.org");
    let svid = ca
        .issue(&id("own"), Duration::from_hours(1))
        .expect("an SVID");
    Shown {
        drain: Drain::default(),
        identity: watch::channel(Some(Arc::new(Tls::new(&svid)))).1,
        telemetry: Telemetry::new(Options::default()).expect("metrics of unique names"),
    }
}

/// Sends `request` and returns all that is answered until the end, which may be a reset.
async fn ask(endpoint: SocketAddr, request: &[u8]) -> String {
    let mut caller = TcpStream::connect(endpoint).await.expect("a connection");
    // The endpoint may have heard enough before the end.
    let _ = caller.write_all(request).await;
    rest(caller).await
}

/// What is answered until the end, which may be a reset.
async fn rest(mut caller: TcpStream) -> String {
    let mut answer = Vec::new();
    let _ = timeout(DEADLINE, caller.read_to_end(&mut answer))
        .await
        .expect("the endpoint ends each call");
    String::from_utf8(answer).expect("text")
}

async fn status(endpoint: SocketAddr, method: &str, path: &str) -> u16 {
    let answer = ask(
        endpoint,
        format!("{method} {path} HTTP/1.1\r\nHost: pod\r\nContent-Length: 0\r\n\r\n").as_bytes(),
    )
    .await;
    let status = answer.split(' ').nth(1).map(str::parse);
    status.expect("a status").expect("a number")
}

#[tokio::test]
async fn nothing_but_reading_is_answered() {
    let endpoint = endpoint().await;
    for path in [
        "/connections",
        "/edges",
        "/healthz",
        "/metrics",
        "/readyz",
        "/tap",
    ] {
        for method in ["GET", "HEAD"] {
            // A tap has no end, but a head.
            if (method, path) != ("GET", "/tap") {
                assert_eq!(status(endpoint, method, path).await, 200, "{method} {path}");
            }
        }
        for method in ["POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "QUIT"] {
            assert_eq!(status(endpoint, method, path).await, 405, "{method} {path}");
        }
    }
    for path in [
        "/",
        "/metrics/",
        "//metrics",
        "/../metrics",
        "/quitquitquit",
        "/config",
    ] {
        for method in ["GET", "POST"] {
            assert_eq!(status(endpoint, method, path).await, 404, "{method} {path}");
        }
    }
}

#[tokio::test]
async fn a_request_without_end_is_refused() {
    let endpoint = endpoint().await;
    let long_line = [b"GET /".as_slice(), &vec![b'a'; 2 * HEAD]].concat();
    let many_lines = format!("GET / HTTP/1.1\r\n{}", "a: b\r\n".repeat(200));
    for request in [&*long_line, many_lines.as_bytes(), &vec![0; 1 << 20]] {
        let answer = ask(endpoint, request).await;
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_eq!(status(endpoint, "GET", "/healthz").await, 200);
}

#[tokio::test]
async fn callers_that_never_ask_are_hung_up_on() {
    let endpoint = patient_endpoint(Duration::from_millis(200)).await;
    let mut silent = Vec::new();
    for _ in 0..CALLERS {
        let mut caller = TcpStream::connect(endpoint).await.expect("a connection");
        caller
            .write_all(b"GET /metrics HT")
            .await
            .expect("an open connection");
        silent.push(caller);
    }
    for caller in silent {
        rest(caller).await;
    }
    assert_eq!(status(endpoint, "GET", "/healthz").await, 200);
}

#[tokio::test]
async fn callers_above_the_bound_are_hung_up_on_at_once() {
    let endpoint = patient_endpoint(DEADLINE * 10).await;
    let mut waiting = Vec::new();
    for _ in 0..CALLERS {
        waiting.push(TcpStream::connect(endpoint).await.expect("a connection"));
    }
    assert_eq!(ask(endpoint, b"").await, "");
    let mut first = waiting.swap_remove(0);
    first
        .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        .await
        .expect("an open connection");
    assert!(rest(first).await.ends_with("ok\n"));
}

/// The answer to one caller who connects from here.
async fn answer_to(address: &str, path: &str) -> String {
    answer_by(router(shown()), address, path).await
}

async fn answer_by(router: Router, address: &str, path: &str) -> String {
    let (listener, endpoint) = listener().await;
    let address = address.parse().expect("an address and port");
    tokio::spawn(async move {
        let (caller, _) = listener.accept().await.expect("a caller");
        answer(caller, address, router, PATIENCE).await;
    });
    ask(endpoint, format!("HEAD {path} HTTP/1.0\r\n\r\n").as_bytes()).await
}

#[tokio::test]
async fn addresses_and_paths_are_told_on_loopback_alone() {
    for path in ["/connections", "/edges", "/tap"] {
        for address in ["127.0.0.1:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
            let answer = answer_to(address, path).await;
            assert!(answer.starts_with("HTTP/1.0 200"), "{address}: {answer}");
        }
        for address in ["198.18.0.9:1", "[fd00::9]:1", "[::ffff:198.18.0.9]:1"] {
            let answer = answer_to(address, path).await;
            assert!(answer.starts_with("HTTP/1.0 403"), "{address}: {answer}");
        }
    }
    for path in ["/healthz", "/metrics", "/readyz"] {
        let answer = answer_to("198.18.0.9:1", path).await;
        assert!(answer.starts_with("HTTP/1.0 200"), "{path}: {answer}");
    }
}

#[tokio::test]
async fn a_tap_that_asks_for_nonsense_is_told_so() {
    let endpoint = endpoint().await;
    for (query, named) in [
        ("format=xml", "`xml`"),
        ("verdict=denied", "`verdict`"),
        ("status=6xx", "`6xx`"),
        (
            "peer=spiffe%3A%2F%2Fexample.org",
            "`spiffe://example.org/*`",
        ),
    ] {
        let request = format!("GET /tap?{query} HTTP/1.0\r\n\r\n");
        let answer = ask(endpoint, request.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.0 400"), "{answer}");
        assert!(answer.contains(named), "{answer}");
    }
}

/// What the agent of a node knows of a pod.
fn facts(name: &str) -> Arc<PodFacts> {
    Arc::new(PodFacts {
        uid: PodUid(format!("uid-of-{name}")),
        name: name.to_owned(),
        service_account: ServiceAccount {
            namespace: "shop".to_owned(),
            name: "web".to_owned(),
        },
        workload: WorkloadName {
            kind: "deployment".to_owned(),
            name: "web".to_owned(),
        },
        labels: BTreeMap::new(),
        annotations: BTreeMap::new(),
        host_network: false,
        is_mirror: false,
        ended: false,
        grace_seconds: 30,
        addresses: vec![Ipv4Addr::new(198, 18, 0, 1).into()],
        probe_ports: Vec::new(),
    })
}

/// What serves a pod of this name.
fn served(pod: &str) -> Served {
    let one = shown();
    let telemetry = Telemetry::new(Options {
        labels: PodLabels {
            pod: pod.into(),
            ..PodLabels::default()
        },
        ..Options::default()
    });
    Served {
        telemetry: telemetry.expect("metrics of unique names"),
        identity: one.identity,
        drain: one.drain,
    }
}

/// The endpoint of an agent that serves these.
async fn endpoint_of(pods: &Pods) -> SocketAddr {
    endpoint_that_asks(pods, Health::default()).await
}

/// The same, of one to which it goes so with the Kubernetes API.
async fn endpoint_that_asks(pods: &Pods, health: Health) -> SocketAddr {
    let (listener, address) = listener().await;
    let router = pods::router(pods::Shown::new(pods.clone(), Drain::default(), health));
    tokio::spawn(serve_callers(listener, router, PATIENCE));
    address
}

/// The status of an answer, and its body.
async fn page(endpoint: SocketAddr, path: &str) -> String {
    let question = format!("GET {path} HTTP/1.0\r\n\r\n");
    let answer = ask(endpoint, question.as_bytes()).await;
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    format!("{} {body}", head.split(' ').nth(1).expect("a status"))
}

#[tokio::test]
async fn an_agent_is_ready_when_nothing_is_left_to_capture() {
    let pods = Pods::default();
    let endpoint = endpoint_of(&pods).await;
    assert_eq!(
        page(endpoint, "/readyz").await,
        "503 the API has not told yet which pods there are\n"
    );
    pods.known();
    assert_eq!(page(endpoint, "/readyz").await, "200 ready\n");
    let odd = || State::Skipped("it is odd".to_owned());
    pods.put(&facts("web-0"), State::Failed("no room".to_owned()), None);
    pods.put(&facts("web-1"), odd(), None);
    assert_eq!(
        page(endpoint, "/readyz").await,
        "503 1 of 2 pods could not be captured, and are tried again; /pods says why\n"
    );
    pods.put(&facts("web-0"), State::Captured, Some(served("web-0")));
    assert_eq!(page(endpoint, "/readyz").await, "200 ready\n");
    assert_eq!(page(endpoint, "/healthz").await, "200 ok\n");
}

#[tokio::test]
async fn an_agent_says_of_what_the_api_does_not_tell_and_counts_it() {
    const UNTOLD: &str = "the Kubernetes API does not tell of pods of the node; the log says why\n";
    let (pods, health) = (Pods::default(), Health::default());
    let endpoint = endpoint_that_asks(&pods, health.clone()).await;
    health.hears_nothing("pods of the node");
    assert_eq!(
        page(endpoint, "/readyz").await,
        format!("503 the API has not told yet which pods there are\n{UNTOLD}")
    );
    pods.known();
    health.hears("pods of the node");
    assert_eq!(page(endpoint, "/readyz").await, "200 ready\n");
    health.hears_nothing("pods of the node");
    assert_eq!(
        page(endpoint, "/readyz").await,
        format!("200 ready\n{UNTOLD}")
    );
    let metrics = page(endpoint, "/metrics").await;
    let counted = |reason: &str, count: u32| {
        let sample = format!(
            r#"sidecar_kubernetes_api_failures_total{{objects="pods of the node",reason="{reason}"}} {count}"#
        );
        assert!(metrics.lines().any(|line| line == sample), "{metrics}");
    };
    counted("silent", 2);
    counted("refused", 0);
}

#[tokio::test]
async fn an_agent_tells_of_each_pod_by_its_name() {
    let pods = Pods::default();
    pods.known();
    let [one, other] = ["web-0", "web-1"].map(|name| {
        let served = served(name);
        pods.put(&facts(name), State::Captured, Some(served.clone()));
        served.telemetry
    });
    let odd = State::Skipped("it is odd".to_owned());
    pods.put(&facts("web-2"), odd, None);
    let endpoint = endpoint_of(&pods).await;
    let client = ClientAddr("198.18.0.9:40000".parse().expect("an address"));
    let server = OrigDst("198.18.0.1:80".parse().expect("an address"));
    let open = one.begin(Direction::Inbound, client, server);

    let connections = page(endpoint, "/pods/shop/web-0/connections").await;
    assert!(connections.contains("198.18.0.9:40000"), "{connections}");
    let none = page(endpoint, "/pods/shop/web-1/connections").await;
    assert_eq!(none, "200 []");
    let edges = page(endpoint, "/pods/shop/web-0/edges").await;
    assert!(edges.starts_with("200 {\"uptime\""), "{edges}");
    for path in [
        "/pods/shop/web-2/edges",
        "/pods/shop/web-9/tap",
        "/pods/web/web-0/edges",
    ] {
        let answer = page(endpoint, path).await;
        assert!(answer.starts_with("404 "), "{path}: {answer}");
        assert!(
            answer.ends_with("; /pods lists what there is\n"),
            "{answer}"
        );
    }
    for path in ["/connections", "/edges", "/tap"] {
        let answer = page(endpoint, path).await;
        assert!(answer.starts_with("400 it serves many pods"), "{answer}");
    }
    let listed = page(endpoint, "/pods").await;
    let listed = listed.strip_prefix("200 ").expect("a list");
    let listed: Vec<PodSnapshot> = serde_json::from_str(listed).expect("JSON");
    let told = |pod: &PodSnapshot| {
        let PodSnapshot {
            name, state, why, ..
        } = pod.clone();
        (name, state, why, pod.identity.is_some())
    };
    let captured = |name: &str| (name.to_owned(), "captured".to_owned(), None, true);
    let why = Some("it is odd".to_owned());
    assert_eq!(
        listed.iter().map(told).collect::<Vec<_>>(),
        [
            captured("web-0"),
            captured("web-1"),
            ("web-2".to_owned(), "skipped".to_owned(), why, false),
        ]
    );

    other
        .begin(Direction::Inbound, client, server)
        .failed(Close::ConnectRefused);
    let metrics = page(endpoint, "/metrics").await;
    for sample in [
        r#"sidecar_node_pods{state="captured"} 2"#,
        r#"sidecar_node_pods{state="skipped"} 1"#,
        r#"sidecar_node_pods{state="failed"} 0"#,
        r#"sidecar_connections_failed_total{direction="inbound",pod="web-1",reason="connect_refused"} 1"#,
        r#"sidecar_connections_failed_total{direction="inbound",pod="web-0",reason="connect_refused"} 0"#,
    ] {
        assert!(metrics.lines().any(|line| line == sample), "{sample}");
    }
    let families = metrics.matches("# TYPE sidecar_connections_failed_total ");
    assert_eq!(families.count(), 1);
    drop(open);
}

#[tokio::test]
async fn what_an_agent_tells_of_pods_is_for_callers_on_loopback() {
    let pods = Pods::default();
    pods.put(&facts("web-0"), State::Captured, Some(served("web-0")));
    for (path, expected) in [
        ("/pods", "403"),
        ("/pods/shop/web-0/connections", "403"),
        ("/pods/shop/web-0/edges", "403"),
        ("/pods/shop/web-0/tap", "403"),
        ("/metrics", "200"),
        ("/healthz", "200"),
    ] {
        let router = pods::router(pods::Shown::new(
            pods.clone(),
            Drain::default(),
            Health::default(),
        ));
        let answer = answer_by(router, "198.18.0.9:1", path).await;
        let status = answer.split(' ').nth(1);
        assert_eq!(status, Some(expected), "{path}: {answer}");
    }
}

#[tokio::test]
async fn taps_of_many_pods_leave_room_for_other_callers() {
    let pods = Pods::default();
    let names: Vec<_> = (0..10).map(|number| format!("web-{number}")).collect();
    for name in &names {
        pods.put(&facts(name), State::Captured, Some(served(name)));
    }
    let endpoint = endpoint_of(&pods).await;
    let mut taps = Vec::new();
    for name in names.iter().take(8) {
        taps.push(open_tap_at(endpoint, &format!("/pods/shop/{name}/tap")).await);
    }
    let another = "/pods/shop/web-9/tap";
    assert_eq!(status(endpoint, "GET", another).await, 503);
    assert_eq!(status(endpoint, "GET", "/healthz").await, 200);
    drop(taps.pop());
    let freed = async {
        while status(endpoint, "HEAD", another).await != 200 {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, freed).await.expect("room in time");
}

/// A caller who has been answered that lines follow.
async fn open_tap(endpoint: SocketAddr) -> TcpStream {
    open_tap_at(endpoint, "/tap").await
}

async fn open_tap_at(endpoint: SocketAddr, path: &str) -> TcpStream {
    let mut caller = TcpStream::connect(endpoint).await.expect("a connection");
    caller
        .write_all(format!("GET {path}?kind=failed HTTP/1.1\r\nHost: pod\r\n\r\n").as_bytes())
        .await
        .expect("an open connection");
    let head = read_until(&mut caller, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    caller
}

/// What is answered up to and with `end`.
async fn read_until(caller: &mut TcpStream, end: &str) -> String {
    let mut text = String::new();
    while !text.contains(end) {
        let byte = timeout(DEADLINE, caller.read_u8()).await;
        text.push(
            byte.expect("an answer in time")
                .expect("an open tap")
                .into(),
        );
    }
    text
}

#[tokio::test]
async fn a_tap_outlasts_other_calls() {
    let (listener, endpoint) = listener().await;
    let shown = shown();
    let telemetry = shown.telemetry.clone();
    let short = Patience {
        asking: DEADLINE,
        call: Duration::from_secs(1),
    };
    tokio::spawn(serve_callers(listener, router(shown), short));
    let mut tap = open_tap(endpoint).await;
    // This one comes later, and its time is over.
    rest(TcpStream::connect(endpoint).await.expect("a connection")).await;
    let client = ClientAddr("198.18.0.1:40000".parse().expect("an address"));
    let server = OrigDst("198.18.0.2:80".parse().expect("an address"));
    telemetry
        .begin(Direction::Outbound, client, server)
        .failed(Close::ConnectRefused);
    let line = read_until(&mut tap, "close=connect_refused").await;
    assert!(
        line.contains("failed outbound client=198.18.0.1:40000"),
        "{line}"
    );
}

#[tokio::test]
async fn a_tap_ends_with_its_caller() {
    let (listener, endpoint) = listener().await;
    let shown = shown();
    let telemetry = shown.telemetry.clone();
    tokio::spawn(serve_callers(listener, router(shown), PATIENCE));
    let room = || telemetry.tap(Format::Text, Filter::default()).is_some();
    let mut taps = Vec::new();
    while room() {
        taps.push(open_tap(endpoint).await);
    }
    drop(taps.pop());
    let freed = async {
        while !room() {
            sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, freed)
        .await
        .expect("the endpoint notices that a caller is gone");
}

#[tokio::test]
async fn taps_leave_room_for_other_callers() {
    let endpoint = endpoint().await;
    let mut taps = Vec::new();
    for _ in 0..4 {
        taps.push(open_tap(endpoint).await);
    }
    assert_eq!(status(endpoint, "GET", "/tap").await, 503);
    assert_eq!(status(endpoint, "GET", "/healthz").await, 200);
}
