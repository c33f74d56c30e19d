//! The admin endpoint.
//!
//! | path | answer |
//! |---|---|
//! | `/connections` | the open connections, as JSON |
//! | `/edges` | who has talked to whom since the start, as JSON |
//! | `/healthz` | 200 while the process serves |
//! | `/metrics` | all metrics, in Prometheus' text format |
//! | `/readyz` | 200 while new connections are taken and the workload has a valid identity, else 503 and a [code](crate::codes) |
//! | `/tap` | a line about each event that fits the query, as it happens |
//!
//! The agent of a node, which serves many pods, has pages for each of them: [`pods`].
//!
//! Whoever can connect may ask, so nothing here changes anything, nothing secret is shown, and
//! callers can take no more than a bounded share of the daemon: connections, memory and, but for
//! taps, which are few, time. What names addresses and paths is for callers on loopback alone: the
//! endpoint may be open to a Prometheus elsewhere.

mod caller;
mod pods;
mod readiness;
mod tap;

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};

use self::caller::{Caller, Local};
pub use self::{pods::PodSnapshot, readiness::Unready};
use crate::{
    kubernetes::Health,
    node::Pods,
    proxy::Drain,
    telemetry::{Graph, Snapshot, Telemetry},
    tls::Tls,
};

/// Callers that are served at once; one more is hung up on.
const CALLERS: usize = 32;

/// How long callers may take.
const PATIENCE: Patience = Patience {
    asking: Duration::from_secs(5),
    call: Duration::from_secs(30),
};

/// The longest head of a request, in bytes.
const HEAD: usize = 16 << 10;

/// How long to wait after an error that the next `accept()` would meet too.
const BACK_OFF: Duration = Duration::from_millis(100);

/// What the endpoint shows.
#[derive(Clone)]
struct Shown {
    drain: Drain,
    identity: watch::Receiver<Option<Arc<Tls>>>,
    telemetry: Telemetry,
}

/// How long callers may take.
#[derive(Clone, Copy, Debug)]
struct Patience {
    /// To ask.
    asking: Duration,
    /// In all, but for a tap.
    call: Duration,
}

/// Serves the endpoint until the task ends; callers end with it.
pub async fn serve(
    listener: std::net::TcpListener,
    telemetry: Telemetry,
    identity: watch::Receiver<Option<Arc<Tls>>>,
    drain: Drain,
) {
    let shown = Shown {
        drain,
        identity,
        telemetry,
    };
    serve_by(listener, router(shown)).await;
}

/// Serves the endpoint of an agent until the task ends; callers end with it. `drain` is that of the
/// agent as a whole, and `health` how it goes with the Kubernetes API.
pub async fn serve_pods(listener: std::net::TcpListener, pods: Pods, drain: Drain, health: Health) {
    serve_by(
        listener,
        pods::router(pods::Shown::new(pods, drain, health)),
    )
    .await;
}

async fn serve_by(listener: std::net::TcpListener, router: Router) {
    match TcpListener::from_std(listener) {
        Ok(listener) => serve_callers(listener, router, PATIENCE).await,
        Err(error) => tracing::error!("the admin endpoint cannot be served: {error}"),
    }
}

async fn serve_callers(listener: TcpListener, router: Router, patience: Patience) {
    let room = Arc::new(Semaphore::new(CALLERS));
    // Those that are served end with this task.
    let mut calls = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((caller, address)) => {
                if let Ok(permit) = Arc::clone(&room).try_acquire_owned() {
                    let answered = answer(caller, address, router.clone(), patience);
                    calls.spawn(async move {
                        answered.await;
                        drop(permit);
                    });
                }
            }
            Err(error) => {
                tracing::debug!("the admin endpoint cannot accept a caller: {error}");
                sleep(BACK_OFF).await;
            }
        }
        while calls.try_join_next().is_some() {}
    }
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/connections", get(connections))
        .route("/edges", get(edges))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/readyz", get(readyz))
        .route("/tap", get(tap::tap))
        .with_state(shown)
}

/// Answers one request. Whoever asks again connects again, so that nobody keeps others out.
async fn answer(stream: TcpStream, address: SocketAddr, router: Router, patience: Patience) {
    let caller = Caller::new(address);
    let router = router.layer(Extension(caller.clone()));
    let call = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.asking)
        .keep_alive(false)
        .max_buf_size(HEAD)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut call = pin!(call);
    // What goes wrong is the caller's affair.
    if timeout(patience.call, &mut call).await.is_err() && caller.is_lasting() {
        let _ = call.await;
    }
}

async fn connections(_: Local, State(shown): State<Shown>) -> Json<Vec<Snapshot>> {
    Json(shown.telemetry.open_connections())
}

async fn edges(_: Local, State(shown): State<Shown>) -> Json<Graph> {
    Json(shown.telemetry.graph())
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn metrics(State(shown): State<Shown>) -> Response {
    metrics_page(shown.telemetry.render())
}

fn metrics_page(rendered: Result<String, prometheus::Error>) -> Response {
    match rendered {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!("cannot render the metrics: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    match shown.unready() {
        None => (StatusCode::OK, "ready\n".into()),
        Some(why) => (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("{}\n", why.as_str()),
        ),
    }
}

#[cfg(test)]
mod tests;
