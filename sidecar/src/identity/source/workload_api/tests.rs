//! Against a Workload API that does what the test wants.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use prost::Message;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_stream::wrappers::UnixListenerStream;
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status, body::Body, transport::Server};
use tonic_prost::ProstCodec;

use super::*;
use crate::identity::Ca;
use crate::identity::testing::{ca, id};

/// As in `workload.proto` of the SPIFFE Workload API.
#[derive(Clone, PartialEq, Message)]
struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
struct X509Svid {
    #[prost(string, tag = "1")]
    spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    bundle: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
struct X509SvidRequest {}

type Answers = Pin<Box<dyn Stream<Item = Result<X509SvidResponse, Status>> + Send>>;

/// What happens to each call, in order: its answers, which go on until the sender is dropped.
type Calls = Arc<Mutex<VecDeque<Result<mpsc::Receiver<X509SvidResponse>, Status>>>>;

#[derive(Clone)]
struct FakeWorkloadApi(Calls);

impl NamedService for FakeWorkloadApi {
    const NAME: &'static str = "SpiffeWorkloadAPI";
}

impl Service<http::Request<Body>> for FakeWorkloadApi {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        assert_eq!(request.uri().path(), "/SpiffeWorkloadAPI/FetchX509SVID");
        let call = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default());
            Ok(grpc.server_streaming(call, request).await)
        })
    }
}

impl ServerStreamingService<X509SvidRequest> for FakeWorkloadApi {
    type Response = X509SvidResponse;
    type ResponseStream = Answers;
    type Future = BoxFuture<Response<Answers>, Status>;

    fn call(&mut self, request: Request<X509SvidRequest>) -> Self::Future {
        // Whoever leaves it out may have been tricked into asking (SPIFFE Workload Endpoint
        // section 5.3).
        assert!(request.metadata().contains_key("workload.spiffe.io"));
        let call = self.0.lock().expect("no panic").pop_front();
        Box::pin(async move {
            let answers = call.unwrap_or_else(|| Err(Status::unavailable("no more calls")))?;
            let answers = tokio_stream::wrappers::ReceiverStream::new(answers).map(Ok);
            Ok(Response::new(Box::pin(answers) as Answers))
        })
    }
}

/// An agent that can be started and stopped.
struct Agent {
    dir: tempfile::TempDir,
    calls: Calls,
    server: Option<JoinHandle<()>>,
}

impl Agent {
    /// One that does not run yet.
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            calls: Calls::default(),
            server: None,
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    fn start(&mut self) {
        let socket = UnixListener::bind(self.socket()).expect("a free path");
        let service = FakeWorkloadApi(Arc::clone(&self.calls));
        self.server = Some(tokio::spawn(async move {
            let served = Server::builder()
                .add_service(service)
                .serve_with_incoming(UnixListenerStream::new(socket));
            served.await.expect("a server");
        }));
    }

    /// Prepares a further call, which lasts as long as the sender is held.
    fn call(&self, answers: Vec<X509SvidResponse>) -> mpsc::Sender<X509SvidResponse> {
        let (sender, receiver) = mpsc::channel(answers.len() + 1);
        for answer in answers {
            sender.try_send(answer).expect("room");
        }
        self.calls.lock().expect("no panic").push_back(Ok(receiver));
        sender
    }

    fn refuse(&self, status: Status) {
        self.calls.lock().expect("no panic").push_back(Err(status));
    }
}

fn answer(svid: &Svid) -> X509SvidResponse {
    let der = |certificates: &[CertificateDer<'_>]| {
        let certificates = certificates.iter();
        certificates
            .flat_map(|certificate| certificate.to_vec())
            .collect()
    };
    X509SvidResponse {
        svids: vec![X509Svid {
            spiffe_id: svid.id().to_string(),
            chain: der(svid.chain()),
            key: svid.key().secret_der().to_vec(),
            bundle: der(svid.bundle().authorities()),
        }],
        ..X509SvidResponse::default()
    }
}

fn issue(ca: &Ca) -> Svid {
    ca.issue(&id("web"), Duration::from_hours(1))
        .expect("identity")
}

fn source(socket: &Path) -> WorkloadApi {
    WorkloadApi::new(socket.to_owned())
}

async fn refusal(source: &mut WorkloadApi) -> String {
    source.next().await.expect_err("no identity").to_string()
}

#[tokio::test]
async fn each_identity_of_the_stream_is_taken() {
    let (_dir, ca) = ca("example.org");
    let mut agent = Agent::new();
    agent.start();
    let [first, second] = [issue(&ca), issue(&ca)];
    let call = agent.call(vec![answer(&first)]);
    let mut source = source(&agent.socket());
    let taken = source.next().await.expect("identity").svid;
    assert!(taken.is(&first));
    assert_eq!(taken.key(), first.key());
    call.send(answer(&second)).await.expect("a call");
    assert!(source.next().await.expect("identity").svid.is(&second));
}

#[tokio::test]
async fn federated_bundles_come_with_the_identity() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let mut agent = Agent::new();
    agent.start();
    let mut with_others = answer(&issue(&ours));
    with_others.federated_bundles.insert(
        "spiffe://example.com".to_owned(),
        theirs.trust().authorities()[0].to_vec(),
    );
    let _call = agent.call(vec![with_others]);
    let federated = source(&agent.socket())
        .next()
        .await
        .expect("identity")
        .federated;
    assert_eq!(
        federated,
        BTreeMap::from([(theirs.trust_domain().clone(), theirs.trust())])
    );
}

#[tokio::test]
async fn a_federated_bundle_that_cannot_be_used_takes_nobody_elses_trust_away() {
    let (_dir, ours) = ca("example.org");
    let (_dir, theirs) = ca("example.com");
    let mut agent = Agent::new();
    agent.start();
    let svid = issue(&ours);
    let mut with_others = answer(&svid);
    let root = theirs.trust().authorities()[0].to_vec();
    for (domain, bundle) in [("example.com", root), ("example.net", vec![])] {
        let domain = format!("spiffe://{domain}");
        with_others.federated_bundles.insert(domain, bundle);
    }
    let _call = agent.call(vec![with_others]);
    let taken = source(&agent.socket()).next().await.expect("identity");
    assert!(taken.svid.is(&svid));
    assert_eq!(
        taken.federated,
        BTreeMap::from([(theirs.trust_domain().clone(), theirs.trust())])
    );
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_goes_and_comes_back_is_found_again() {
    let (_dir, ca) = ca("example.org");
    let mut agent = Agent::new();
    let mut source = source(&agent.socket());
    let path = agent.socket();
    assert_eq!(
        refusal(&mut source).await,
        format!(
            "the Workload API at {} does not answer (No such file or directory (os error 2)); \
             check that the agent runs and that its socket is mounted",
            path.display()
        )
    );

    agent.start();
    let call = agent.call(vec![answer(&issue(&ca))]);
    source.next().await.expect("identity");
    drop(call);
    assert!(refusal(&mut source).await.contains("it has ended the call"));

    agent.server.take().expect("a server").abort();
    std::fs::remove_file(&path).expect("a socket");
    let mut waits = Vec::new();
    for _ in 0..8 {
        let started = Instant::now();
        assert!(refusal(&mut source).await.contains("does not answer"));
        waits.push(started.elapsed());
    }
    assert!(waits[0] <= Duration::from_secs(1), "{waits:?}");
    assert!(waits[7] > Duration::from_secs(40), "{waits:?}");
    assert!(waits[7] <= Duration::from_secs(61), "{waits:?}");

    agent.start();
    let renewed = issue(&ca);
    let _call = agent.call(vec![answer(&renewed)]);
    assert!(source.next().await.expect("identity").svid.is(&renewed));
}

#[tokio::test(start_paused = true)]
async fn what_the_agent_refuses_is_said() {
    let mut agent = Agent::new();
    agent.start();
    agent.refuse(Status::permission_denied("no identity issued"));
    agent.refuse(Status::permission_denied("not you"));
    agent.refuse(Status::invalid_argument("security header missing"));
    let mut source = source(&agent.socket());
    assert!(
        refusal(&mut source)
            .await
            .contains("issues no identity to this workload; register it with the agent's server")
    );
    assert!(
        refusal(&mut source)
            .await
            .contains("refuses this workload (not you);")
    );
    assert!(
        refusal(&mut source)
            .await
            .contains("security header missing")
    );
}

#[tokio::test(start_paused = true)]
async fn an_oversized_answer_is_refused_and_the_next_call_is_served() {
    let (_dir, ca) = ca("example.org");
    let mut agent = Agent::new();
    agent.start();
    let svid = issue(&ca);
    let mut oversized = answer(&svid);
    oversized.crl.push(vec![0; 5 << 20]);
    let _first = agent.call(vec![oversized]);
    let _second = agent.call(vec![answer(&svid)]);
    let mut source = source(&agent.socket());
    let refused = refusal(&mut source).await;
    assert!(refused.contains("too large"), "{refused}");
    assert!(source.next().await.expect("identity").svid.is(&svid));
}

#[tokio::test(start_paused = true)]
async fn an_identity_that_peers_would_refuse_is_not_taken() {
    let (_dir, ca) = ca("example.org");
    let (_dir, other) = crate::identity::testing::ca("example.org");
    let mut agent = Agent::new();
    agent.start();
    let svid = issue(&ca);
    let mut unknown_root = answer(&svid);
    unknown_root.svids[0].bundle = other.trust().authorities()[0].to_vec();
    let _first = agent.call(vec![unknown_root]);
    let _second = agent.call(vec![X509SvidResponse::default()]);
    let mut source = source(&agent.socket());
    let refused = refusal(&mut source).await;
    assert!(
        refused.contains("is not issued by any authority"),
        "{refused}"
    );
    let refused = refusal(&mut source).await;
    assert!(refused.contains("X509SVIDResponse.svids"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn an_agent_that_never_answers_is_called_again() {
    let mut agent = Agent::new();
    agent.start();
    let _silent = agent.call(vec![]);
    let mut source = source(&agent.socket());
    let refused = refusal(&mut source).await;
    assert!(refused.contains("nothing came in 10s"), "{refused}");
}
