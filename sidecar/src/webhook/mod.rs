//! A mutating admission webhook: pods that ask for a sidecar get one when they are made.
//!
//! | path | answer |
//! |---|---|
//! | `/inject` | the answer to an `AdmissionReview`, which is posted |
//! | `/healthz` | 200 while the process serves |
//! | `/readyz` | 200 while its certificate is valid, else 503 |
//! | `/metrics` | what has been decided, in Prometheus' text format |
//!
//! All by HTTPS, which the API server asks for. Whoever can connect may ask: an answer changes
//! nothing but what the asker does with it. Callers can take no more than a bounded share of
//! connections, memory and time.

mod body;
mod certificate;
mod metrics;
mod review;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Body,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use self::{
    body::{BodyError, Turns},
    metrics::{Metrics, Refusal},
};
pub use self::{
    certificate::{Certificate, CertificateError},
    review::{Answer, Review, ReviewError, Verdict},
};
use crate::inject::{Options, Unasked};

/// Callers that are served at once; one more waits.
const CALLERS: usize = 256;
/// How long a caller may take to speak TLS.
const HANDSHAKE: Duration = Duration::from_secs(2);
/// How long a caller may take from there on to ask and to be answered. With both, callers who only take
/// up room are gone before an API server that waits behind them gives up (`timeoutSeconds`).
const REQUEST: Duration = Duration::from_secs(2);
/// The longest head of a request, in bytes.
const HEAD: usize = 16 << 10;
/// How long callers are served after the stop: API servers hear only then that there is nobody here
/// any more, and with `failurePolicy: Fail` pods would be refused meanwhile.
const LINGER: Duration = Duration::from_secs(5);
/// How long to wait after an error that the next `accept()` would meet too.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What answers.
#[derive(Clone)]
pub struct Webhook {
    certificate: Certificate,
    metrics: Metrics,
    options: Arc<Options>,
    turns: Turns,
    unasked: Unasked,
}

impl Webhook {
    /// One that adds this to pods.
    pub fn new(
        certificate: Certificate,
        options: Options,
        unasked: Unasked,
    ) -> Result<Self, prometheus::Error> {
        Ok(Self {
            certificate,
            metrics: Metrics::new()?,
            options: Arc::new(options),
            turns: Turns::new(),
            unasked,
        })
    }

    /// Serves until `stop` and five seconds more, and then answers those who have asked already.
    pub async fn serve(self, listener: TcpListener, stop: impl Future<Output = ()>) {
        let room = Arc::new(Semaphore::new(CALLERS));
        let mut calls = JoinSet::new();
        let follow = {
            let webhook = self.clone();
            tokio::spawn(async move {
                let news = |is_taken| webhook.metrics.reloaded(is_taken);
                webhook.certificate.follow(news).await;
            })
        };
        let accept = async {
            loop {
                let Ok(permit) = Arc::clone(&room).acquire_owned().await else {
                    return;
                };
                match listener.accept().await {
                    Ok((caller, _)) => {
                        let webhook = self.clone();
                        calls.spawn(async move {
                            webhook.answer(caller).await;
                            drop(permit);
                        });
                    }
                    Err(error) => {
                        tracing::debug!("the webhook cannot accept a caller: {error}");
                        sleep(BACK_OFF).await;
                    }
                }
                while calls.try_join_next().is_some() {}
            }
        };
        let lingered = async {
            stop.await;
            sleep(LINGER).await;
        };
        tokio::select! {
            () = accept => {}
            () = lingered => {}
        }
        follow.abort();
        drop(listener);
        while calls.join_next().await.is_some() {}
    }

    /// Answers one request. Whoever asks again connects again, so that nobody keeps others out.
    async fn answer(self, caller: TcpStream) {
        let acceptor = TlsAcceptor::from(self.certificate.server());
        let metrics = self.metrics.clone();
        let stream = match timeout(HANDSHAKE, acceptor.accept(caller)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                tracing::debug!("a caller of the webhook spoke no TLS: {error}");
                return metrics.refused(Refusal::Handshake);
            }
            Err(_) => {
                tracing::debug!("a caller of the webhook did not come to speak TLS");
                return metrics.refused(Refusal::Handshake);
            }
        };
        let call = http1::Builder::new()
            .keep_alive(false)
            .max_buf_size(HEAD)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(self.router()),
            );
        // What else goes wrong is the caller's affair.
        if timeout(REQUEST, call).await.is_err() {
            tracing::debug!("a caller of the webhook took too long to ask");
            metrics.refused(Refusal::Late);
        }
    }

    fn router(self) -> Router {
        Router::new()
            .route("/inject", post(inject))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/metrics", get(metrics))
            .route("/readyz", get(readyz))
            .with_state(self)
    }
}

async fn inject(State(webhook): State<Webhook>, body: Body) -> Response {
    let body = match webhook.turns.read(body).await {
        Ok(body) => body,
        Err(error) => {
            if matches!(error, BodyError::Long) {
                webhook.metrics.refused(Refusal::Long);
            }
            tracing::warn!("a caller of the webhook was refused: {error}");
            return (error.status(), format!("{error}\n")).into_response();
        }
    };
    let review = match Review::parse(&body.bytes) {
        Ok(review) => review,
        Err(error) => {
            webhook.metrics.misunderstood();
            tracing::warn!("a caller of the webhook was not understood: {error}");
            return (StatusCode::BAD_REQUEST, format!("{error}\n")).into_response();
        }
    };
    let answer = review.answer(&webhook.options, webhook.unasked);
    webhook.metrics.decided(answer.verdict);
    match answer.verdict {
        Verdict::Denied => tracing::warn!("{}: {}", review.name(), answer.message),
        verdict => tracing::debug!("{}: {verdict}", review.name()),
    }
    axum::Json(answer.value(&review)).into_response()
}

async fn metrics(State(webhook): State<Webhook>) -> Response {
    match webhook.metrics.render(&webhook.certificate) {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!("cannot render the metrics: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(webhook): State<Webhook>) -> (StatusCode, &'static str) {
    if webhook.certificate.is_expired() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "the certificate has expired\n",
        );
    }
    (StatusCode::OK, "ready\n")
}

#[cfg(test)]
mod tests;
