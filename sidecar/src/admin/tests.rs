//! The endpoint and callers that mean no good.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    identity::testing::{ca, id},
    telemetry::Options,
};

/// Far longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(10);

/// The endpoint of a sidecar that serves.
async fn endpoint() -> SocketAddr {
    patient_endpoint(ASKING).await
}

/// The same, with so much patience for callers.
async fn patient_endpoint(asking: Duration) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let (_dir, ca) = ca("example.org");
    let svid = ca
        .issue(&id("own"), Duration::from_hours(1))
        .expect("an SVID");
    let shown = Shown {
        drain: Drain::default(),
        identity: watch::channel(Some(Arc::new(Tls::new(&svid)))).1,
        telemetry: Telemetry::new(Options::default()).expect("metrics of unique names"),
    };
    tokio::spawn(serve_callers(listener, shown, asking));
    address
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
    for path in ["/connections", "/healthz", "/metrics", "/readyz"] {
        for method in ["GET", "HEAD"] {
            assert_eq!(status(endpoint, method, path).await, 200, "{method} {path}");
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
