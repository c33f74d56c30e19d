//! The admin endpoint.
//!
//! | path | answer |
//! |---|---|
//! | `/connections` | the open connections, as JSON |
//! | `/healthz` | 200 while the process serves |
//! | `/metrics` | all metrics, in Prometheus' text format |
//! | `/readyz` | 200 while new connections are taken, 503 once the drain has begun |

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use tokio::net::TcpListener;

use crate::{
    proxy::Drain,
    telemetry::{Snapshot, Telemetry},
};

/// What the endpoint shows.
#[derive(Clone)]
struct Shown {
    drain: Drain,
    telemetry: Telemetry,
}

/// Serves the endpoint until the task is aborted.
pub async fn serve(listener: TcpListener, telemetry: Telemetry, drain: Drain) {
    let router = Router::new()
        .route("/connections", get(connections))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/readyz", get(readyz))
        .with_state(Shown { drain, telemetry });
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
    if shown.drain.has_begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        (StatusCode::OK, "ready\n")
    }
}
