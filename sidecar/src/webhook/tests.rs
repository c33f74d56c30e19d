//! Callers that mean no good, on a clock that does not wait.

use std::net::{Ipv4Addr, SocketAddr};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    time::Instant,
};

use super::*;

/// A webhook that serves until the sender goes.
async fn serving() -> (SocketAddr, oneshot::Sender<()>) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let made = rcgen::generate_simple_self_signed(["webhook".to_owned()]).expect("a certificate");
    let (certificate, key) = (dir.path().join("tls.crt"), dir.path().join("tls.key"));
    std::fs::write(&certificate, made.cert.pem()).expect("a writable directory");
    std::fs::write(&key, made.signing_key.serialize_pem()).expect("a writable directory");
    let certificate = Certificate::open(certificate, key).expect("a certificate");
    let webhook = Webhook::new(certificate, Options::default(), Unasked::Skip);
    let webhook = webhook.expect("metrics of unique names");
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
    let listener = listener.expect("a free port");
    let address = listener.local_addr().expect("a bound socket");
    let (stop, stopped) = oneshot::channel();
    tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        webhook.serve(listener, stopped).await;
        drop(dir);
    });
    (address, stop)
}

async fn connect(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.expect("a connection")
}

/// Until the other side hangs up.
async fn rest(mut caller: TcpStream) {
    let _ = caller.read_to_end(&mut Vec::new()).await;
}

#[tokio::test(start_paused = true)]
async fn callers_that_never_ask_are_hung_up_on() {
    let (address, _stop) = serving().await;
    let started = Instant::now();
    rest(connect(address).await).await;
    assert!(started.elapsed() <= CALL * 2, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn callers_above_the_bound_wait_their_turn() {
    let (address, _stop) = serving().await;
    let mut silent = Vec::new();
    for _ in 0..CALLERS {
        silent.push(connect(address).await);
    }
    // It speaks no TLS, and is told so once somebody looks.
    let mut late = connect(address).await;
    late.write_all(b"GET / HTTP/1.0\r\n\r\n")
        .await
        .expect("an open connection");
    let started = Instant::now();
    rest(late).await;
    let waited = started.elapsed();
    assert!((CALL / 2..=CALL * 2).contains(&waited), "{waited:?}");
    for caller in silent {
        rest(caller).await;
    }
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_hung_up_on() {
    let (address, _stop) = serving().await;
    let mut caller = connect(address).await;
    caller
        .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        .await
        .expect("an open connection");
    timeout(CALL / 2, rest(caller))
        .await
        .expect("an end at once");
}
