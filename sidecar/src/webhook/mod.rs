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

mod certificate;
mod metrics;
mod review;

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use self::metrics::Metrics;
pub use self::{
    certificate::{Certificate, CertificateError},
    review::{Answer, Review, ReviewError, Verdict},
};
use crate::inject::{Options, Unasked};

/// Callers that are served at once; one more waits.
const CALLERS: usize = 32;
/// The longest review, in bytes: the API server sends an object of at most 3 MB, and the old one.
const LONGEST: usize = 8 << 20;
/// How long a caller may take to ask.
const ASKING: Duration = Duration::from_secs(5);
/// How long a call may take. The API server waits 10 s unless told otherwise.
const CALL: Duration = Duration::from_secs(10);
/// The longest head of a request, in bytes.
const HEAD: usize = 16 << 10;
/// How long to wait after an error that the next `accept()` would meet too.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What answers.
#[derive(Clone)]
pub struct Webhook {
    certificate: Certificate,
    metrics: Metrics,
    options: Arc<Options>,
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
            unasked,
        })
    }

    /// Serves until `stop`, and then answers those who have asked already.
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
                            // What goes wrong is the caller's affair.
                            let _ = timeout(CALL, webhook.answer(caller)).await;
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
        tokio::select! {
            () = accept => {}
            () = stop => {}
        }
        follow.abort();
        drop(listener);
        while calls.join_next().await.is_some() {}
    }

    /// Answers one request. Whoever asks again connects again, so that nobody keeps others out.
    async fn answer(self, caller: TcpStream) {
        let acceptor = TlsAcceptor::from(self.certificate.server());
        let stream = match acceptor.accept(caller).await {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!("a caller of the webhook spoke no TLS: {error}");
                return;
            }
        };
        let call = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(ASKING)
            .keep_alive(false)
            .max_buf_size(HEAD)
            .serve_connection(
                TokioIo::new(stream),
                TowerToHyperService::new(self.router()),
            );
        let _ = call.await;
    }

    fn router(self) -> Router {
        Router::new()
            .route("/inject", post(inject))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/metrics", get(metrics))
            .route("/readyz", get(readyz))
            .layer(DefaultBodyLimit::max(LONGEST))
            .with_state(self)
    }
}

async fn inject(State(webhook): State<Webhook>, body: Bytes) -> Response {
    let review = match Review::parse(&body) {
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
