//! The API server of the tests, and how to ask it.

use std::time::Duration;

use serde_json::{Value, json};
use sidecar_tests::KubeApi;
use tokio::{sync::watch, time::timeout};

use super::{Client, PodFacts, wire};

/// Far above what anything takes.
const DEADLINE: Duration = Duration::from_secs(30);

pub(super) async fn client(api: &KubeApi) -> Client {
    let directory = tempfile::tempdir().expect("a directory");
    let kubeconfig = api.kubeconfig(directory.path());
    let client = Client::connect(Some(&kubeconfig)).await;
    client.expect("the kubeconfig is right")
}

/// A running pod of `shop` that asks to be captured by its node.
pub(crate) fn pod(name: &str, node: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"sidecar.mesh/inject": "node"},
        },
        "spec": {"nodeName": node, "serviceAccountName": format!("{name}-account"), "containers": []},
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "198.19.0.1"},
    })
}

/// What is read of a pod.
pub(crate) fn facts(pod: Value) -> PodFacts {
    let read = serde_json::from_value::<wire::Pod>(pod);
    read.expect("a pod").into()
}

/// Waits until what is known is as `fits` wants it.
pub(super) async fn until<T: Clone>(
    known: &mut watch::Receiver<T>,
    fits: impl FnMut(&T) -> bool,
) -> T {
    let found = timeout(DEADLINE, known.wait_for(fits)).await;
    found.expect("it comes").expect("somebody tells").clone()
}

/// Waits until something that nobody tells of is so.
pub(super) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(DEADLINE, polled).await.expect(what);
}
