use serde_json::{Value, json};

use super::*;
use crate::kubernetes::testing::facts;

fn workload(metadata: &Value) -> String {
    facts(json!({"metadata": metadata})).workload.to_string()
}

fn owned_by(kind: &str, name: &str) -> Value {
    json!({
        "name": "the-pod",
        "labels": {"pod-template-hash": "7d9f8c"},
        "ownerReferences": [
            {"kind": "Other", "name": "bystander"},
            {"kind": kind, "name": name, "controller": true},
        ],
    })
}

#[test]
fn a_pod_belongs_to_what_users_have_made() {
    for (kind, name, expected) in [
        ("ReplicaSet", "web-7d9f8c", "deployment/web"),
        ("ReplicaSet", "web", "replicaset/web"),
        ("ReplicaSet", "7d9f8c", "replicaset/7d9f8c"),
        ("StatefulSet", "db", "statefulset/db"),
        ("DaemonSet", "logs", "daemonset/logs"),
        ("Job", "backup-29034720", "cronjob/backup"),
        ("Job", "backup-2", "job/backup-2"),
        ("Node", "one", "pod/the-pod"),
    ] {
        assert_eq!(workload(&owned_by(kind, name)), expected);
    }
    assert_eq!(workload(&json!({"name": "alone"})), "pod/alone");
}

#[test]
fn what_is_not_said_has_its_default() {
    let facts = facts(json!({
        "metadata": {"name": "a", "namespace": "shop", "uid": "u", "labels": null},
        "spec": {"containers": null}, "status": {},
    }));
    assert_eq!(facts.service_account.to_string(), "shop/default");
    assert_eq!(facts.grace_seconds, 30);
    assert!(!facts.ended && !facts.host_network);
    assert_eq!(facts.addresses, Vec::<IpAddr>::new());
}

#[test]
fn a_static_pod_is_known_by_its_mirror() {
    let annotated = |key: &str| {
        let mut metadata = owned_by("Node", "one");
        metadata["annotations"] = json!({key: "0f7a6b1c3d5e4a8b"});
        facts(json!({"metadata": metadata})).is_mirror
    };
    assert!(annotated("kubernetes.io/config.mirror"));
    assert!(!annotated("kubernetes.io/config.source"));
}

#[test]
fn the_time_that_is_left_comes_before_the_time_that_was_given() {
    let facts = facts(json!({
        "metadata": {"name": "a", "deletionGracePeriodSeconds": 5},
        "spec": {"terminationGracePeriodSeconds": 90},
    }));
    assert_eq!(facts.grace_seconds, 5);
}

#[test]
fn the_ports_that_the_kubelet_asks_are_found_by_number_and_name() {
    let facts = facts(json!({
        "metadata": {"name": "a"},
        "spec": {
            "initContainers": [{"startupProbe": {"tcpSocket": {"port": 1}}}],
            "containers": [
                {
                    "ports": [{"name": "health", "containerPort": 2}],
                    "livenessProbe": {"httpGet": {"port": "health"}},
                    "readinessProbe": {"grpc": {"port": 3}},
                    "lifecycle": {
                        "postStart": {"exec": {"command": ["true"]}},
                        "preStop": {"httpGet": {"port": 4}},
                    },
                },
                {
                    "livenessProbe": {"httpGet": {"port": "health"}},
                    "readinessProbe": {"httpGet": {"port": 5, "host": "198.18.0.9"}},
                },
            ],
        },
    }));
    assert_eq!(facts.probe_ports, [1, 2, 3, 4]);
}

#[test]
fn a_pod_has_all_of_its_addresses() {
    let facts = facts(json!({
        "metadata": {"name": "a"},
        "status": {
            "phase": "Succeeded", "podIP": "198.18.0.1",
            "podIPs": [{"ip": "198.18.0.1"}, {"ip": "fd00::1"}],
        },
    }));
    let expected: [IpAddr; 2] = ["198.18.0.1", "fd00::1"].map(|ip| ip.parse().expect("an address"));
    assert_eq!(facts.addresses, expected);
    assert!(facts.ended);
}
