//! The admin endpoint.
//!
//! | path | answer |
//! |---|---|
//! | `/connections` | the open connections, as JSON |
//! | `/healthz` | 200 while the process serves |
//! | `/metrics` | all metrics, in Prometheus' text format |
//! | `/readyz` | 200 while new connections are taken and the workload has a valid identity, else 503 |

use std::{sync::Arc, time::SystemTime};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::{net::TcpListener, sync::watch};

use crate::{
    proxy::Drain,
    telemetry::{Snapshot, Telemetry},
    tls::Tls,
};

/// What the endpoint shows.
#[derive(Clone)]
struct Shown {
    drain: Drain,
    identity: watch::Receiver<Option<Arc<Tls>>>,
    telemetry: Telemetry,
}

/// Serves the endpoint until the task is aborted.
pub async fn serve(
    listener: TcpListener,
    telemetry: Telemetry,
    identity: watch::Receiver<Option<Arc<Tls>>>,
    drain: Drain,
) {
    let router = Router::new()
        .route("/connections", get(connections))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/readyz", get(readyz))
        .with_state(Shown {
            drain,
            identity,
            telemetry,
        });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!("the admin endpoint has stopped: {error}");
    }
}

async fn connections(State(shown): State<Shown>) -> Json<Vec<Snapshot>> {
    Json(shown.telemetry.open_connections())
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match shown.telemetry.render() {
        Ok(text) => ([(header::CONTENT_TYPE, prometheus::TEXT_FORMAT)], text).into_response(),
        Err(error) => {
            tracing::error!("cannot render the metrics: {error}");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, &'static str) {
    let not_after = shown.identity.borrow().as_ref().map(|tls| tls.not_after());
    match not_after {
        _ if shown.drain.has_begun() => (StatusCode::SERVICE_UNAVAILABLE, "draining\n"),
        None => (StatusCode::SERVICE_UNAVAILABLE, "no identity yet\n"),
        Some(end) if end <= SystemTime::now() => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the identity has expired\n",
        ),
        Some(_) => (StatusCode::OK, "ready\n"),
    }
}
