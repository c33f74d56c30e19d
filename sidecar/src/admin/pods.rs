//! What an agent shows that serves the pods of its node.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process serves |
//! | `/metrics` | the metrics of all pods that are served, in Prometheus' text format |
//! | `/pods` | the pods that ask to be captured, and how far each has got, as JSON |
//! | `/pods/NAMESPACE/NAME/PAGE` | `connections`, `edges` and `tap` of one pod |
//! | `/readyz` | 200 while no pod is about to be captured or has failed to be, else 503; and of what the API does not tell |

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use axum::{
    Json, Router,
    extract::{Path, RawQuery, State},
    http::StatusCode,
    response::Response,
    routing::get,
};
use prometheus::{GaugeVec, IntCounterVec, Opts, core::Collector as _, proto::MetricFamily};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::{caller::Local, healthz, metrics_page, tap};
use crate::{
    kubernetes::{Health, Of},
    node::{Listed, Pods, Served, State as Progress},
    proxy::Drain,
    telemetry::{Graph, Snapshot, Telemetry},
};

/// Taps that may be open at once, of all pods together: they take callers away from others.
const TAPS: usize = 8;

/// A pod that asks to be captured.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PodSnapshot {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it belongs to, such as `deployment/web`.
    pub workload: String,
    /// Its service account.
    pub service_account: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// How far it has got: `beginning`, `captured`, `failed`, `leaving`, `skipped` or `waiting`.
    pub state: String,
    /// Why it is not captured, where that is to be told.
    pub why: Option<String>,
    /// Its identity, once it has one.
    pub identity: Option<String>,
    /// How many connections are open, once it is captured.
    pub open: Option<usize>,
}

impl From<&Listed> for PodSnapshot {
    fn from(pod: &Listed) -> Self {
        let identity = |served: &Served| {
            let identity = served.identity.borrow();
            identity.as_ref().map(|tls| tls.own().to_string())
        };
        Self {
            namespace: pod.facts.namespace().to_owned(),
            name: pod.facts.name.clone(),
            workload: pod.facts.workload.to_string(),
            service_account: pod.facts.service_account.name.clone(),
            addresses: pod.facts.addresses.clone(),
            state: pod.state.as_str().to_owned(),
            why: pod.state.why().map(ToOwned::to_owned),
            identity: pod.served.as_ref().and_then(identity),
            open: pod.served.as_ref().map(|served| served.drain.open()),
        }
    }
}

/// Why there is no answer.
type Refusal = (StatusCode, String);

/// What the endpoint of an agent shows.
#[derive(Clone)]
pub(super) struct Shown {
    pods: Pods,
    /// That of the agent.
    drain: Drain,
    health: Health,
    taps: Arc<Semaphore>,
}

impl Shown {
    pub(super) fn new(pods: Pods, drain: Drain, health: Health) -> Self {
        Self {
            pods,
            drain,
            health,
            taps: Arc::new(Semaphore::new(TAPS)),
        }
    }

    /// What serves the pod of this name, or why nothing is told of it.
    fn served(&self, (namespace, name): &(String, String)) -> Result<Telemetry, Refusal> {
        let pod = self.pods.named(namespace, name);
        let refused = |why: &str| {
            let sentence = format!("{why}; /pods lists what there is\n");
            (StatusCode::NOT_FOUND, sentence)
        };
        let pod = pod.ok_or_else(|| refused("no such pod of this node asks to be captured"))?;
        match &pod.served {
            Some(served) => Ok(served.telemetry.clone()),
            None => Err(refused(&format!(
                "that pod is not captured ({})",
                pod.state
            ))),
        }
    }
}

pub(super) fn router(shown: Shown) -> Router {
    Router::new()
        .route("/connections", get(which))
        .route("/edges", get(which))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .route("/pods", get(pods))
        .route("/pods/{namespace}/{name}/connections", get(connections))
        .route("/pods/{namespace}/{name}/edges", get(edges))
        .route("/pods/{namespace}/{name}/tap", get(lines))
        .route("/readyz", get(readyz))
        .route("/tap", get(which))
        .with_state(shown)
}

async fn pods(_: Local, State(shown): State<Shown>) -> Json<Vec<PodSnapshot>> {
    let mut all: Vec<PodSnapshot> = shown.pods.all().iter().map(Into::into).collect();
    all.sort_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
    Json(all)
}

async fn connections(
    _: Local,
    State(shown): State<Shown>,
    Path(name): Path<(String, String)>,
) -> Result<Json<Vec<Snapshot>>, Refusal> {
    Ok(Json(shown.served(&name)?.open_connections()))
}

async fn edges(
    _: Local,
    State(shown): State<Shown>,
    Path(name): Path<(String, String)>,
) -> Result<Json<Graph>, Refusal> {
    Ok(Json(shown.served(&name)?.graph()))
}

async fn lines(
    caller: Local,
    State(shown): State<Shown>,
    Path(name): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Refusal> {
    let telemetry = shown.served(&name)?;
    Ok(match Arc::clone(&shown.taps).try_acquire_owned() {
        Ok(room) => tap::lines(&caller, &telemetry, query.as_deref(), Some(room)),
        Err(_) => tap::no_room(),
    })
}

/// What a page says that is about one pod where there are many.
async fn which(_: Local) -> (StatusCode, &'static str) {
    (
        StatusCode::BAD_REQUEST,
        "it serves many pods: name one of them, with --pod NAMESPACE/NAME; /pods lists them\n",
    )
}

async fn metrics(State(shown): State<Shown>) -> Response {
    let mut all = shown.pods.all();
    // Of two pods of one name the last one tells.
    all.sort_by_key(|pod| pod.state == Progress::Captured);
    let served = all.iter().filter_map(|pod| pod.served.as_ref());
    let rendered = states(&all).and_then(|mut own| {
        own.extend(failures(&shown.health.all())?);
        Telemetry::render_all(served.map(|served| &served.telemetry), own)
    });
    metrics_page(rendered)
}

/// How many pods have got how far.
fn states(all: &[Listed]) -> Result<Vec<MetricFamily>, prometheus::Error> {
    let gauge = GaugeVec::new(
        Opts::new(
            "sidecar_node_pods",
            "Pods of the node that ask to be captured, by how far they have got.",
        ),
        &["state"],
    )?;
    let mut counts = BTreeMap::from(Progress::WORDS.map(|word| (word, 0_u32)));
    for pod in all {
        *counts.entry(pod.state.as_str()).or_default() += 1;
    }
    for (word, count) in counts {
        gauge.with_label_values(&[word]).set(count.into());
    }
    Ok(gauge.collect())
}

/// How often asking the Kubernetes API has failed; nothing where nobody has asked.
fn failures(all: &[Of]) -> Result<Vec<MetricFamily>, prometheus::Error> {
    if all.is_empty() {
        return Ok(Vec::new());
    }
    let counter = IntCounterVec::new(
        Opts::new(
            "sidecar_kubernetes_api_failures_total",
            "Times that the Kubernetes API did not tell what it was asked.",
        ),
        &["objects", "reason"],
    )?;
    for of in all {
        for reason in Of::REASONS {
            let count = of.failures.get(reason).copied().unwrap_or_default();
            counter.with_label_values(&[of.what, reason]).inc_by(count);
        }
    }
    Ok(counter.collect())
}

/// Of what the Kubernetes API does not tell. The network may read it, so what the API answered is
/// left to the log.
fn untold(health: &Health) -> String {
    let all = health.all();
    let failing = all.iter().filter(|of| of.failing.is_some());
    failing.fold(String::new(), |told, of| {
        format!(
            "{told}the Kubernetes API does not tell of {}; the log says why\n",
            of.what
        )
    })
}

async fn readyz(State(shown): State<Shown>) -> (StatusCode, String) {
    let not_ready = |why: String| (StatusCode::SERVICE_UNAVAILABLE, why);
    if shown.drain.has_begun() {
        return not_ready("draining\n".to_owned());
    }
    if !shown.pods.is_known() {
        return not_ready(format!(
            "the API has not told yet which pods there are\n{}",
            untold(&shown.health)
        ));
    }
    if !shown.pods.is_settled() {
        let all = shown.pods.all();
        let failed = all
            .iter()
            .filter(|pod| matches!(pod.state, Progress::Failed(_)))
            .count();
        return not_ready(match failed {
            0 => "some pods are about to be captured\n".to_owned(),
            failed => format!(
                "{failed} of {} pods could not be captured, and are tried again; /pods says why\n",
                all.len()
            ),
        });
    }
    (StatusCode::OK, format!("ready\n{}", untold(&shown.health)))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_reason_of_the_api_is_counted_from_the_start_and_documented() {
        const METRICS: &str = include_str!("../../../docs/metrics.md");
        let health = Health::default();
        assert_eq!(failures(&health.all()).expect("a metric"), []);
        health.hears("services");
        let families = failures(&health.all()).expect("a metric");
        let [family] = &families[..] else {
            panic!("one family is expected");
        };
        let row = format!("| `{}` | counter | `objects`, `reason` |", family.name());
        let documented = METRICS.lines().find(|line| line.starts_with(&row));
        let documented = documented.expect("a row");
        assert_eq!(family.get_metric().len(), Of::REASONS.len());
        for reason in Of::REASONS {
            assert!(documented.contains(&format!("`{reason}`")), "{reason}");
        }
    }

    #[test]
    fn every_state_of_a_pod_is_counted_and_documented() {
        const METRICS: &str = include_str!("../../../docs/metrics.md");
        const LIVE: &str = include_str!("../../../docs/live.md");
        let families = states(&[]).expect("a metric");
        let [family] = &families[..] else {
            panic!("one family is expected");
        };
        let (_, section) = METRICS
            .split_once("## Metrics of the agent of a node")
            .expect("a section");
        assert!(section.contains(&format!("| `{}` | gauge | `state` |", family.name())));
        let samples = family.get_metric().iter();
        let words: BTreeSet<_> = samples
            .map(|sample| sample.get_label()[0].value())
            .collect();
        assert_eq!(words, Progress::WORDS.into());
        let why = String::new;
        let (_, live) = LIVE.split_once("`sidecar pods`\n").expect("a section");
        for state in [
            Progress::Beginning,
            Progress::Captured,
            Progress::Failed(why()),
            Progress::Leaving,
            Progress::Skipped(why()),
            Progress::Waiting(why()),
        ] {
            let word = state.as_str();
            assert!(Progress::WORDS.contains(&word), "{word}");
            assert!(live.contains(&format!("`{word}`")), "{word}");
        }
    }
}
