//! The agent of each node.

use serde_json::{Value, json};
use sidecar_tests::manifests::{objects, render};

use super::{containers, of_kind, pod};

#[test]
fn an_update_of_the_agent_starts_the_new_one_first() {
    let objects = objects(&render("deploy/kustomize/overlays/node-agent"));
    let agent = of_kind(&objects, "DaemonSet")[0];
    assert_eq!(
        agent["spec"]["updateStrategy"],
        json!({
            "type": "RollingUpdate",
            "rollingUpdate": { "maxSurge": 1, "maxUnavailable": 0 },
        })
    );
    // A port of the node would keep the second one out.
    for container in pod(agent).into_iter().flat_map(containers) {
        assert_eq!(container["ports"], Value::Null);
    }
}
