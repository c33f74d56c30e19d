//! What is in `deploy/kustomize` is what clusters understand, whatever their version.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    process::{Command, Stdio},
};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use sidecar_tests::{manifests, sidecar};

/// The oldest version that has native sidecars without a feature gate, one in between, and the
/// newest whose schemas there are.
const VERSIONS: [&str; 3] = ["1.29", "1.33", "1.37"];

/// Kinds that the API server learns from others, which have a schema of their own below.
const CUSTOM: [&str; 4] = ["Certificate", "Issuer", "PodMonitor", "PrometheusRule"];

/// What the API's schemas say of a text, unknown fields being refused.
#[derive(Debug, Default, PartialEq)]
struct Judgement {
    /// The objects that pass, as `kind/name`.
    passed: BTreeSet<String>,
    /// The kinds that no schema knows.
    unknown: BTreeSet<String>,
}

/// Has those of a version judge it.
fn judge(manifests: &str, version: &str) -> Result<Judgement, String> {
    let mut judge = Command::new(manifests::tool("kubernetes-validate"))
        .args(["--kubernetes-version", version, "--strict", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("kubernetes-validate starts");
    let mut input = judge.stdin.take().expect("it is a pipe");
    // It reads everything before it says a word.
    input.write_all(manifests.as_bytes()).expect("it reads");
    drop(input);
    let output = judge.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        return Err(said.into_owned());
    }
    let passed = format!(" against version {version}");
    let mut judgement = Judgement::default();
    for line in said.lines() {
        let name = line
            .strip_prefix("INFO - passed for resource ")
            .and_then(|rest| rest.strip_suffix(&passed));
        let kind = line
            .strip_prefix("WARN - Couldn't find schema for kind ")
            .and_then(|rest| rest.split_once(' '));
        match (name, kind) {
            (Some(name), _) => judgement.passed.insert(name.to_owned()),
            (_, Some((kind, _))) => judgement.unknown.insert(kind.to_owned()),
            _ => panic!("not what kubernetes-validate says: {line}"),
        };
    }
    Ok(judgement)
}

#[test]
fn every_object_is_one_that_every_version_understands() {
    for overlay in manifests::overlays() {
        let text = manifests::render(&overlay);
        let objects = manifests::objects(&text);
        let (custom, native): (Vec<_>, Vec<_>) =
            objects.iter().partition(|object| is_custom(object));
        assert!(!native.is_empty(), "{overlay} has no object of the API");
        let expected = Judgement {
            passed: native
                .iter()
                .map(|object| manifests::name(object))
                .collect(),
            unknown: custom
                .iter()
                .map(|object| kind(object).to_owned())
                .collect(),
        };
        assert_eq!(
            expected.passed.len(),
            native.len(),
            "{overlay} names two objects alike"
        );
        for version in VERSIONS {
            let judgement = judge(&text, version);
            let judgement = judgement.unwrap_or_else(|said| panic!("{overlay}: {said}"));
            assert_eq!(judgement, expected, "{overlay}, {version}");
        }
        for object in custom {
            check_custom(object).unwrap_or_else(|error| panic!("{overlay}: {error}"));
        }
    }
}

#[test]
fn pods_with_a_sidecar_are_ones_that_every_version_understands() {
    let example = fs::read_to_string(manifests::root().join("deploy/examples/web-injected.yaml"));
    let example = example.expect("there is an example");
    let objects = manifests::objects(&example);
    let names: BTreeSet<_> = objects.iter().map(manifests::name).collect();
    assert!(names.contains("deployment/web"));
    for version in VERSIONS {
        let judgement = judge(&example, version).unwrap_or_else(|said| panic!("{said}"));
        assert_eq!(judgement.passed, names, "{version}");
    }
}

/// What `sidecar inject` makes of manifests, of pods that ask for it.
#[track_caller]
fn injected(manifests: &str) -> String {
    let mut inject = Command::new(sidecar::binary())
        .args(["inject", "--only-enabled", "--validate", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("sidecar starts");
    let mut input = inject.stdin.take().expect("it is a pipe");
    // It reads everything before it says a word.
    input.write_all(manifests.as_bytes()).expect("it reads");
    drop(input);
    let output = inject.wait_with_output().expect("it ends");
    assert!(output.status.success(), "sidecar inject: {manifests}");
    String::from_utf8(output.stdout).expect("manifests are text")
}

#[test]
fn the_pods_of_every_overlay_are_understood_with_their_sidecars_too() {
    let mut changed = 0;
    for overlay in manifests::overlays() {
        let text = manifests::render(&overlay);
        let with = injected(&text);
        if with == text {
            continue;
        }
        changed += 1;
        let names: BTreeSet<_> = manifests::objects(&with)
            .iter()
            .map(manifests::name)
            .collect();
        for version in VERSIONS {
            let judgement =
                judge(&with, version).unwrap_or_else(|said| panic!("{overlay}: {said}"));
            assert_eq!(judgement.passed, names, "{overlay}, {version}");
        }
    }
    // With Secrets, by cert-manager and by SPIRE.
    assert_eq!(changed, 3);
}

#[test]
fn a_field_that_nobody_knows_is_refused() {
    let text = manifests::render("deploy/kustomize/overlays/node-agent");
    let wrong = text.replace("maxSurge:", "maxSurges:");
    assert_ne!(text, wrong);
    for version in VERSIONS {
        let said = judge(&wrong, version).expect_err("there is no maxSurges");
        assert!(said.contains("daemonset/sidecar-node"), "{said}");
    }
}

#[test]
fn a_custom_field_that_nobody_knows_is_refused() {
    let text = manifests::render("deploy/kustomize/overlays/observability");
    for (right, wrong) in [("podMetricsEndpoints", "endpoints"), ("alert:", "alarm:")] {
        let wrong = manifests::objects(&text.replace(right, wrong));
        let errors = wrong.iter().filter(|object| is_custom(object));
        assert!(
            errors.map(check_custom).any(|outcome| outcome.is_err()),
            "{right}"
        );
    }
}

fn kind(object: &Value) -> &str {
    object["kind"].as_str().expect("an object has a kind")
}

fn is_custom(object: &Value) -> bool {
    CUSTOM.contains(&kind(object))
}

/// Holds an object of a custom kind to the fields that its definition has, as far as we use them.
fn check_custom(object: &Value) -> Result<(), String> {
    match (kind(object), object["apiVersion"].as_str()) {
        ("Certificate", Some("cert-manager.io/v1")) => check::<CertificateSpec>(object),
        ("Issuer", Some("cert-manager.io/v1")) => check::<IssuerSpec>(object),
        ("PodMonitor", Some("monitoring.coreos.com/v1")) => check::<PodMonitorSpec>(object),
        ("PrometheusRule", Some("monitoring.coreos.com/v1")) => check::<PrometheusRuleSpec>(object),
        (kind, version) => Err(format!("{kind} of {version:?}: there is no schema")),
    }
}

fn check<T: DeserializeOwned>(object: &Value) -> Result<(), String> {
    let object = Object::<T>::deserialize(object).map(drop);
    object.map_err(|error| format!("{error}"))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct Object<T> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: T,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct Metadata {
    name: String,
    namespace: String,
    labels: Option<BTreeMap<String, String>>,
    annotations: Option<BTreeMap<String, String>>,
}

/// Of cert-manager 1.x.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct CertificateSpec {
    #[serde(rename = "isCA")]
    is_ca: Option<bool>,
    common_name: Option<String>,
    secret_name: String,
    dns_names: Option<Vec<String>>,
    uris: Option<Vec<String>>,
    duration: String,
    renew_before: String,
    private_key: PrivateKey,
    usages: Vec<String>,
    issuer_ref: IssuerRef,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct PrivateKey {
    algorithm: String,
    size: u32,
    rotation_policy: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct IssuerRef {
    group: String,
    kind: String,
    name: String,
}

/// Of cert-manager 1.x; one of several ways to issue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
enum IssuerSpec {
    SelfSigned(Nothing),
    Ca(CaIssuer),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct CaIssuer {
    secret_name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// Of the Prometheus operator.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct PodMonitorSpec {
    namespace_selector: NamespaceSelector,
    selector: LabelSelector,
    pod_metrics_endpoints: Vec<PodMetricsEndpoint>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct NamespaceSelector {
    any: Option<bool>,
    match_names: Option<Vec<String>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct LabelSelector {
    match_labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct TlsConfig {
    insecure_skip_verify: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct PodMetricsEndpoint {
    port: Option<String>,
    path: String,
    scheme: String,
    honor_labels: Option<bool>,
    tls_config: Option<TlsConfig>,
    relabelings: Vec<Relabeling>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct Relabeling {
    source_labels: Option<Vec<String>>,
    regex: Option<String>,
    target_label: Option<String>,
    replacement: Option<String>,
    action: String,
}

/// Of the Prometheus operator; what a rule says is checked with the rules it is a copy of.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct PrometheusRuleSpec {
    groups: Vec<RuleGroup>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct RuleGroup {
    name: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(
    dead_code,
    reason = "only which fields there are counts, and their types"
)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    r#for: Option<String>,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}
