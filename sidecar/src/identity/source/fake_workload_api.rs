//! A Workload API that does what the test wants.

use std::collections::{HashMap, VecDeque};
use std::convert::Infallible;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use prost::Message;
use rustls::pki_types::CertificateDer;
use tokio::net::UnixListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{Grpc, NamedService, ServerStreamingService};
use tonic::{Request, Response, Status, body::Body, transport::Server};
use tonic_prost::ProstCodec;

use crate::identity::Svid;

/// As in `workload.proto` of the SPIFFE Workload API.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509SvidResponse {
    #[prost(message, repeated, tag = "1")]
    pub(crate) svids: Vec<X509Svid>,
    #[prost(bytes = "vec", repeated, tag = "2")]
    pub(crate) crl: Vec<Vec<u8>>,
    #[prost(map = "string, bytes", tag = "3")]
    pub(crate) federated_bundles: HashMap<String, Vec<u8>>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509Svid {
    #[prost(string, tag = "1")]
    pub(crate) spiffe_id: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) chain: Vec<u8>,
    #[prost(bytes = "vec", tag = "3")]
    pub(crate) key: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub(crate) bundle: Vec<u8>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct X509SvidRequest {}

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
pub(crate) struct Agent {
    dir: tempfile::TempDir,
    calls: Calls,
    pub(crate) server: Option<JoinHandle<()>>,
}

impl Agent {
    /// One that does not run yet.
    pub(crate) fn new() -> Self {
        Self {
            dir: tempfile::tempdir().expect("temporary directory"),
            calls: Calls::default(),
            server: None,
        }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("agent.sock")
    }

    pub(crate) fn start(&mut self) {
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
    pub(crate) fn call(&self, answers: Vec<X509SvidResponse>) -> mpsc::Sender<X509SvidResponse> {
        let (sender, receiver) = mpsc::channel(answers.len() + 1);
        for answer in answers {
            sender.try_send(answer).expect("room");
        }
        self.calls.lock().expect("no panic").push_back(Ok(receiver));
        sender
    }

    pub(crate) fn refuse(&self, status: Status) {
        self.calls.lock().expect("no panic").push_back(Err(status));
    }
}

/// An answer that has this identity alone.
pub(crate) fn answer(svid: &Svid) -> X509SvidResponse {
    answer_of(&[svid])
}

/// An answer that has these identities.
pub(crate) fn answer_of(svids: &[&Svid]) -> X509SvidResponse {
    let der = |certificates: &[CertificateDer<'_>]| {
        let certificates = certificates.iter();
        certificates
            .flat_map(|certificate| certificate.to_vec())
            .collect()
    };
    let svids = svids.iter().map(|svid| X509Svid {
        spiffe_id: svid.id().to_string(),
        chain: der(svid.chain()),
        key: svid.key().secret_der().to_vec(),
        bundle: der(svid.bundle().authorities()),
    });
    X509SvidResponse {
        svids: svids.collect(),
        ..X509SvidResponse::default()
    }
}
