//! The endpoint and callers that mean no good.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    identity::testing::{ca, id},
    policy::Direction,
    proxy::{ClientAddr, Close, OrigDst},
    telemetry::{Filter, Format, Options},
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
        shown(),
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
    let (listener, endpoint) = listener().await;
    let address = address.parse().expect("an address and port");
    let router = router(shown());
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

/// A caller who has been answered that lines follow.
async fn open_tap(endpoint: SocketAddr) -> TcpStream {
    let mut caller = TcpStream::connect(endpoint).await.expect("a connection");
    caller
        .write_all(b"GET /tap?kind=failed HTTP/1.1\r\nHost: pod\r\n\r\n")
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
    tokio::spawn(serve_callers(listener, shown, short));
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
    tokio::spawn(serve_callers(listener, shown, PATIENCE));
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
