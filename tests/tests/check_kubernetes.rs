//! `sidecar check --kubernetes`, asked of an API server.

use std::{collections::BTreeMap, path::Path, process::Command};

use serde::Deserialize;
use serde_json::{Value, json};
use sidecar_tests::{
    KubeApi, Sandbox,
    kube_api::{Answer, Verb},
    sidecar,
};

/// What it prints as JSON.
#[derive(Deserialize)]
struct Report {
    success: bool,
    checks: Vec<Check>,
}

#[derive(Deserialize)]
struct Check {
    claim: String,
    result: String,
    #[serde(default)]
    found: String,
    #[serde(default)]
    reason: String,
}

fn check(kubeconfig: &Path, flags: &[&str]) -> (Report, Option<i32>) {
    let output = Command::new(sidecar::binary())
        .args(["check", "--kubernetes", "-o", "json"])
        .args(flags)
        .env("KUBECONFIG", kubeconfig)
        .output()
        .expect("running sidecar check");
    let error = String::from_utf8_lossy(&output.stderr);
    let report = serde_json::from_slice(&output.stdout);
    (
        report.unwrap_or_else(|parse| panic!("{parse}: {error}")),
        output.status.code(),
    )
}

/// The claims with this result, and what is said of each.
fn with(report: &Report, result: &str) -> BTreeMap<String, String> {
    let checks = report.checks.iter().filter(|check| check.result == result);
    let said = |check: &Check| format!("{}{}", check.found, check.reason);
    checks
        .map(|check| (check.claim.clone(), said(check)))
        .collect()
}

fn node(name: &str, kernel: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node", "metadata": {"name": name},
        "status": {"nodeInfo": {
            "architecture": "amd64", "bootID": "", "containerRuntimeVersion": "", "kernelVersion": kernel,
            "kubeProxyVersion": "", "kubeletVersion": "v1.33.0", "machineID": "",
            "operatingSystem": "linux", "osImage": "", "systemUUID": "",
        }},
    })
}

fn namespace(name: &str, enforced: &str) -> Value {
    let labels = json!({"pod-security.kubernetes.io/enforce": enforced});
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

fn agent() -> Value {
    let labels =
        json!({"app.kubernetes.io/name": "sidecar", "app.kubernetes.io/component": "node"});
    json!({
        "apiVersion": "apps/v1", "kind": "DaemonSet",
        "metadata": {"name": "sidecar-node", "namespace": "sidecar-node"},
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"serviceAccountName": "agent", "containers": [{"name": "agent"}]},
            },
        },
        "status": {
            "currentNumberScheduled": 2, "desiredNumberScheduled": 2, "numberMisscheduled": 0,
            "numberReady": 2,
        },
    })
}

/// Answers every question for rights.
fn grant(api: &KubeApi, kind: &str, allowed: bool) {
    let collection = format!("apis/authorization.k8s.io/v1/{}s", kind.to_lowercase());
    let answer = json!({
        "apiVersion": "authorization.k8s.io/v1", "kind": kind, "metadata": {}, "spec": {},
        "status": {"allowed": allowed},
    });
    api.fail(
        Verb::List,
        &collection,
        usize::MAX,
        Answer::Body(answer.to_string()),
    );
}

#[test]
fn a_cluster_with_an_agent_is_ready_for_it() {
    let api = KubeApi::start();
    api.put(node("one", "6.1.0-28-amd64"));
    api.put(node("two", "6.12.3"));
    api.put(namespace("sidecar-node", "privileged"));
    api.put(agent());
    grant(&api, "SubjectAccessReview", true);
    let sandbox = Sandbox::new("check");
    let (report, code) = check(&api.kubeconfig(sandbox.directory()), &[]);
    assert_eq!(with(&report, "fail"), BTreeMap::new());
    assert!(report.success);
    assert_eq!(code, Some(0));
    let held = with(&report, "pass");
    for (claim, found) in [
        ("Kubernetes is 1.29 or newer", "v1.33.0"),
        ("every node has a kernel of 5.10 or newer", "2 nodes"),
        ("the agent of nodes is ready on every node", "on 2 of 2"),
        (
            "the agent of nodes may ask what it needs to know",
            "service account sidecar-node/agent",
        ),
        (
            "the agent of nodes is admitted in its namespace",
            "sidecar-node",
        ),
        (
            "no other program translates what pods connect to",
            "Cilium is not there",
        ),
    ] {
        assert_eq!(held.get(claim).map(String::as_str), Some(found), "{held:?}");
    }
    let changes = api.requests().into_iter().filter(|request| {
        !request.starts_with("GET ") && !request.contains("/subjectaccessreviews")
    });
    assert_eq!(changes.collect::<Vec<_>>(), Vec::<String>::new());
}

#[test]
fn what_stands_in_the_way_is_found_in_the_cluster() {
    let api = KubeApi::start();
    api.put(node("one", "5.4.0-200-generic"));
    api.put(namespace("shop", "baseline"));
    api.put(namespace("cart", "restricted"));
    api.put(json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "web", "namespace": "shop", "labels": {"sidecar.mesh/inject": "enabled"},
        },
        "spec": {"containers": [{"name": "web"}]},
    }));
    api.put(json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "cilium-config", "namespace": "kube-system"},
        "data": {"bpf-lb-sock": "true"},
    }));
    api.put(json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": "sidecar-webhook"},
        "webhooks": [{
            "name": "inject.sidecar.mesh", "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": {"name": "sidecar-webhook", "namespace": "sidecar-system"}},
        }],
    }));
    grant(&api, "SelfSubjectAccessReview", false);
    let sandbox = Sandbox::new("check");
    let (report, code) = check(
        &api.kubeconfig(sandbox.directory()),
        &["--namespace", "cart"],
    );
    assert_eq!(code, Some(1));
    let failed = with(&report, "fail");
    for (claim, reason) in [
        (
            "every node has a kernel of 5.10 or newer",
            "5.4.0-200-generic of one lacks",
        ),
        // Those that were named are looked at as well; the first is told.
        (
            "`sidecar init` is admitted where pods have sidecars of their own",
            "namespace cart enforces the Pod Security Standard restricted",
        ),
        (
            "the agent of nodes may ask what it needs to know",
            "may not list pods, nor 5 more of what it needs",
        ),
        (
            "the API server trusts the webhook",
            "the caBundle of sidecar-webhook has no authority",
        ),
    ] {
        let said = failed.get(claim).map_or("", String::as_str);
        assert!(said.contains(reason), "{claim}: {failed:?}");
    }
    assert_eq!(failed.len(), 4, "{failed:?}");
    let warned = with(&report, "warn");
    assert!(
        warned.contains_key("no other program translates what pods connect to"),
        "{warned:?}"
    );
}

#[test]
fn what_may_not_be_read_is_said_of_its_claims_alone() {
    let api = KubeApi::start();
    api.put(node("one", "6.12.3"));
    grant(&api, "SelfSubjectAccessReview", true);
    api.fail(Verb::List, "api/v1/nodes", usize::MAX, Answer::Status(403));
    let sandbox = Sandbox::new("check");
    let (report, code) = check(&api.kubeconfig(sandbox.directory()), &[]);
    assert_eq!(code, Some(0));
    let warned = with(&report, "warn");
    let unknown = warned
        .values()
        .filter(|reason| reason.starts_with("nobody knows: "));
    assert!(unknown.count() >= 3, "{warned:?}");
    assert!(!with(&report, "pass").contains_key("every kubelet runs native sidecars"));
}

#[test]
fn a_cluster_that_cannot_be_reached_is_one_failure() {
    let mut api = KubeApi::start();
    let sandbox = Sandbox::new("check");
    let kubeconfig = api.kubeconfig(sandbox.directory());
    api.stop();
    let (report, code) = check(&kubeconfig, &[]);
    assert_eq!(code, Some(1));
    let failed = with(&report, "fail");
    let said = &failed["the Kubernetes API can be reached"];
    assert!(said.contains("onnection refused"), "{said}");
    assert_eq!(failed.len(), 1);
    assert_eq!(with(&report, "skip").len(), report.checks.len() - 1);
}
