//! Callers that mean no good, on a clock that does not wait.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use rcgen::{CertificateParams, KeyPair, date_time_ymd};

use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName},
};
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _},
    sync::oneshot,
    task::JoinHandle,
    time::Instant,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    body::{LONG_AT_ONCE, LONGEST},
    *,
};

/// How long the API server waits (`timeoutSeconds` in `deploy/kustomize/base/webhook`).
const API_SERVER: Duration = Duration::from_secs(5);

/// A webhook that serves while this is there.
struct Serving {
    address: SocketAddr,
    root: CertificateDer<'static>,
    webhook: Webhook,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Serving {
    async fn start() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (certificate, root) = certificate(dir.path(), 2100);
        let webhook = Webhook::new(certificate, Options::default(), Unasked::Skip);
        let webhook = webhook.expect("metrics of unique names");
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("a bound socket");
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn({
            let webhook = webhook.clone();
            async move {
                let stopped = async {
                    let _ = stopped.await;
                };
                webhook.serve(listener, stopped).await;
                drop(dir);
            }
        });
        Self {
            address,
            root,
            webhook,
            stop,
            task,
        }
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address)
            .await
            .expect("a connection")
    }

    async fn handshake(&self) -> TlsStream<TcpStream> {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).expect("a certificate");
        let client = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions that there are")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let name = ServerName::try_from("webhook").expect("a name");
        let connector = TlsConnector::from(Arc::new(client));
        let stream = connector.connect(name, self.connect().await).await;
        stream.expect("a handshake")
    }

    /// A caller that has said the head of a request with so long a body, and nothing more.
    async fn announce(&self, length: usize) -> TlsStream<TcpStream> {
        let mut caller = self.handshake().await;
        let head =
            format!("POST /inject HTTP/1.1\r\nHost: webhook\r\nContent-Length: {length}\r\n\r\n");
        let said = caller.write_all(head.as_bytes()).await;
        said.expect("an open connection");
        caller
    }

    /// What is answered to a body.
    async fn post(&self, body: &[u8]) -> String {
        let mut caller = self.announce(body.len()).await;
        caller.write_all(body).await.expect("an open connection");
        rest(caller).await
    }

    fn refusals(&self, reason: &str) -> Option<u64> {
        let metrics = self.webhook.metrics.render(&self.webhook.certificate);
        let metrics = metrics.expect("metrics");
        let name = format!("sidecar_webhook_refusals_total{{reason=\"{reason}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name))?;
        count.parse().ok()
    }
}

/// One that lasts until a year begins, in files of a directory.
fn certificate(directory: &Path, year: i32) -> (Certificate, CertificateDer<'static>) {
    let mut params = CertificateParams::new(["webhook".to_owned()]).expect("a name");
    params.not_after = date_time_ymd(year, 1, 1);
    let key = KeyPair::generate().expect("a key");
    let made = params.self_signed(&key).expect("a certificate");
    let files = ["tls.crt", "tls.key"].map(|name| directory.join(name));
    for (file, content) in files.iter().zip([made.pem(), key.serialize_pem()]) {
        std::fs::write(file, content).expect("a writable directory");
    }
    let [chain, key] = files;
    let certificate = Certificate::open(chain, key).expect("a certificate");
    (certificate, made.der().clone())
}

/// What the other side says until it hangs up.
async fn rest(mut caller: impl AsyncRead + Unpin) -> String {
    let mut said = Vec::new();
    let _ = caller.read_to_end(&mut said).await;
    String::from_utf8_lossy(&said).into_owned()
}

fn review() -> Vec<u8> {
    let review = json!({
        "kind": "AdmissionReview", "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "1", "operation": "CREATE", "namespace": "shop",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "object": {"metadata": {"labels": {"sidecar.mesh/inject": "enabled"}}, "spec": {
                "containers": [{"name": "app", "image": "app"}],
            }},
        },
    });
    review.to_string().into_bytes()
}

/// As long as this, and still a review.
fn padded(mut review: Vec<u8>, length: usize) -> Vec<u8> {
    review.resize(length, b' ');
    review
}

#[track_caller]
fn assert_answered(answer: &str) {
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("\"patchType\":\"JSONPatch\""), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn callers_that_never_speak_tls_are_hung_up_on_and_counted() {
    let serving = Serving::start().await;
    let started = Instant::now();
    rest(serving.connect().await).await;
    let waited = started.elapsed();
    assert!((HANDSHAKE..HANDSHAKE * 2).contains(&waited), "{waited:?}");
    assert_eq!(serving.refusals("handshake"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn callers_that_never_ask_are_hung_up_on_and_counted() {
    let serving = Serving::start().await;
    let silent = serving.handshake().await;
    // Said one byte at a time, a request takes as long.
    let half = serving.announce(100).await;
    let started = Instant::now();
    assert_eq!(rest(silent).await, "");
    assert_eq!(rest(half).await, "");
    let waited = started.elapsed();
    assert!(waited < REQUEST * 2, "{waited:?}");
    assert_eq!(serving.refusals("late"), Some(2));
    assert_eq!(serving.refusals("handshake"), Some(0));
}

#[tokio::test(start_paused = true)]
async fn a_review_behind_silent_callers_is_answered_before_the_api_server_gives_up() {
    let serving = Serving::start().await;
    let mut silent = Vec::new();
    for _ in 0..CALLERS {
        silent.push(serving.connect().await);
    }
    let started = Instant::now();
    let answer = serving.post(&review()).await;
    let waited = started.elapsed();
    assert_answered(&answer);
    // Every place was taken until then.
    assert!((HANDSHAKE..API_SERVER).contains(&waited), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn a_review_behind_callers_that_speak_tls_is_answered_before_the_api_server_gives_up() {
    let serving = Serving::start().await;
    let mut silent = Vec::new();
    for _ in 0..CALLERS {
        silent.push(serving.handshake().await);
    }
    let started = Instant::now();
    let answer = serving.post(&review()).await;
    let waited = started.elapsed();
    assert_answered(&answer);
    assert!(waited < API_SERVER, "{waited:?}");
    assert!(HANDSHAKE + REQUEST < API_SERVER);
}

#[tokio::test(start_paused = true)]
async fn long_bodies_that_never_come_keep_no_short_review_waiting() {
    let serving = Serving::start().await;
    let mut stuck = Vec::new();
    for _ in 0..LONG_AT_ONCE * 4 {
        stuck.push(serving.announce(LONGEST).await);
    }
    let started = Instant::now();
    assert_answered(&serving.post(&review()).await);
    assert!(started.elapsed() < REQUEST, "{:?}", started.elapsed());
}

#[tokio::test]
async fn the_longest_review_is_answered_and_a_longer_one_refused_with_a_sentence() {
    let serving = Serving::start().await;
    assert_answered(&serving.post(&padded(review(), LONGEST)).await);
    let answer = rest(serving.announce(LONGEST + 1).await).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    let sentence =
        "a review has at most 6356992 bytes, and this body is longer; post nothing but a review";
    assert!(answer.contains(sentence), "{answer}");
    assert_eq!(serving.refusals("long"), Some(1));
}

#[tokio::test]
async fn with_an_expired_certificate_it_is_not_ready_and_says_so() {
    for (year, status, said, expiry) in [
        (2100, 200, "ready\n", " 4102444800\n"),
        (2020, 503, "the certificate has expired\n", " 1577836800\n"),
    ] {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let (certificate, _) = certificate(dir.path(), year);
        let webhook = Webhook::new(certificate, Options::default(), Unasked::Skip);
        let webhook = webhook.expect("metrics of unique names");
        let (told, why) = readyz(State(webhook.clone())).await;
        assert_eq!((told.as_u16(), why), (status, said));
        let metrics = webhook.metrics.render(&webhook.certificate);
        let metrics = metrics.expect("metrics");
        let name = "sidecar_webhook_certificate_expiry_timestamp_seconds";
        assert!(metrics.contains(&format!("{name}{expiry}")), "{metrics}");
    }
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_hung_up_on() {
    let serving = Serving::start().await;
    let mut caller = serving.connect().await;
    caller
        .write_all(b"GET /healthz HTTP/1.0\r\n\r\n")
        .await
        .expect("an open connection");
    timeout(HANDSHAKE / 2, rest(caller))
        .await
        .expect("an end at once");
    assert_eq!(serving.refusals("handshake"), Some(1));
}

#[tokio::test(start_paused = true)]
async fn who_asks_in_the_first_seconds_after_the_stop_is_answered() {
    let mut serving = Serving::start().await;
    let (told, _) = oneshot::channel();
    let stopped = Instant::now();
    std::mem::replace(&mut serving.stop, told)
        .send(())
        .expect("it serves");
    sleep(LINGER.mul_f32(0.8)).await;
    assert_answered(&serving.post(&review()).await);
    serving.task.await.expect("it ends");
    let waited = stopped.elapsed();
    assert!((LINGER..2 * LINGER).contains(&waited), "{waited:?}");
}
