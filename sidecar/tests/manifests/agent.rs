//! The agent of each node.

use std::time::Duration;

use serde_json::{Value, json};
use sidecar::node::{AFTERWARDS, HAND_OVER};
use sidecar_tests::manifests::{objects, render};

use super::{array, containers, of_kind, pod, text};

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

#[test]
fn an_agent_has_time_to_hand_its_pods_over_and_to_drain_before_it_is_killed() {
    for overlay in ["node-agent", "node-agent-dev-ca"] {
        let objects = objects(&render(&format!("deploy/kustomize/overlays/{overlay}")));
        let agent = of_kind(&objects, "DaemonSet")[0];
        let pod = pod(agent).expect("it makes pods");
        let grace = pod["terminationGracePeriodSeconds"].as_u64();
        let mut variables = containers(pod).flat_map(|one| array(&one["env"]));
        let drain = variables.find(|variable| variable["name"] == "SIDECAR_DRAIN_TIMEOUT");
        let drain = text(&drain.expect("5 s would be the default")["value"]);
        let drain = Duration::from_secs(
            drain
                .strip_suffix('s')
                .and_then(|seconds| seconds.parse().ok())
                .expect("whole seconds"),
        );
        let grace = Duration::from_secs(grace.expect("30 s would be the default"));
        assert!(
            HAND_OVER + drain + AFTERWARDS < grace,
            "{overlay}: {drain:?} of {grace:?}"
        );
    }
}

#[test]
fn an_update_waits_until_it_is_the_new_agent_that_answers_its_probes() {
    let objects = objects(&render("deploy/kustomize/overlays/node-agent"));
    let agent = of_kind(&objects, "DaemonSet")[0];
    let seconds = agent["spec"]["minReadySeconds"].as_u64();
    let seconds = seconds.expect("it would be ready by the old one's word");
    let [container] = array(&pod(agent).expect("it makes pods")["containers"]) else {
        panic!("one is enough");
    };
    // Once the old one gives the address up, the new one is asked again, and may not be ready yet.
    let probe = &container["readinessProbe"];
    let period = probe["periodSeconds"].as_u64().expect("it has one");
    let failures = probe["failureThreshold"].as_u64().unwrap_or(3);
    assert!(seconds >= period * failures, "{seconds} s");
}
