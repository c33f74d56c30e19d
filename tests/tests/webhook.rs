//! `sidecar webhook`, asked as an API server asks.

use std::path::PathBuf;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use sidecar_tests::{Process, Program, Sandbox, sidecar};

/// The name of the service that the API server connects to.
const NAME: &str = "sidecar-webhook.sidecar.svc";
const PORT: u16 = 8443;

/// A webhook that serves, in a namespace of its own.
struct Webhook {
    // First to go.
    process: Process,
    certificate: PathBuf,
    sandbox: Sandbox,
}

impl Webhook {
    fn start(flags: &[&str]) -> Self {
        Self::start_as(|program| program.args(flags))
    }

    fn start_as(how: impl FnOnce(Program<'_>) -> Program<'_>) -> Self {
        let sandbox = Sandbox::new("webhook");
        let certificate = issue(&sandbox);
        let program = Program::new(&sandbox, sidecar::binary())
            .args(["webhook", "--certificate", "tls.crt", "--key", "tls.key"])
            .user("nobody");
        let mut process = how(program).start();
        process.wait_for_listener(PORT);
        Self {
            process,
            certificate,
            sandbox,
        }
    }

    fn curl(&self, path: &str) -> Program<'_> {
        Program::new(&self.sandbox, "curl")
            .args(["--silent", "--show-error", "--write-out", "\n%{http_code}"])
            .args(["--resolve", &format!("{NAME}:{PORT}:127.0.0.1")])
            .arg("--cacert")
            .arg(&self.certificate)
            .arg(format!("https://{NAME}:{PORT}{path}"))
    }

    /// The status and the body of an answer.
    #[track_caller]
    fn get(&self, path: &str) -> (u16, String) {
        answer(&self.curl(path).succeed())
    }

    #[track_caller]
    fn post(&self, body: &str) -> (u16, String) {
        let curl = self.curl("/inject?timeout=10s");
        let posted = curl
            .args(["--header", "Content-Type: application/json"])
            .args(["--data-binary", "@-"])
            .stdin(body);
        answer(&posted.succeed())
    }

    /// What the API server is told about a pod.
    #[track_caller]
    fn review(&self, pod: &Value) -> Value {
        let (status, body) = self.post(&review(pod).to_string());
        assert_eq!(status, 200, "{body}");
        let body: Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!(body["apiVersion"], "admission.k8s.io/v1");
        assert_eq!(body["kind"], "AdmissionReview");
        assert_eq!(
            body["response"]["uid"],
            "705ab4f5-6393-11e8-b7cc-42010a800002"
        );
        body["response"].clone()
    }

    #[track_caller]
    fn count(&self, verdict: &str) -> u64 {
        let (_, metrics) = self.get("/metrics");
        let name = format!("sidecar_webhook_reviews_total{{verdict=\"{verdict}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("a metric").parse().expect("a number")
    }
}

/// A certificate for the service, that whoever is told of it trusts.
fn issue(sandbox: &Sandbox) -> PathBuf {
    Program::new(sandbox, "openssl")
        .args(["req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"])
        .args([
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-subj",
            "/CN=webhook",
        ])
        .args(["-addext", &format!("subjectAltName=DNS:{NAME}")])
        .args(["-keyout", "new.key", "-out", "new.crt"])
        .succeed();
    let at = |name: &str| sandbox.directory().join(name);
    // The key first: the pair is read again when both have come.
    Program::new(sandbox, "chmod")
        .args(["644", "new.key"])
        .succeed();
    std::fs::rename(at("new.key"), at("tls.key")).expect("a writable directory");
    std::fs::rename(at("new.crt"), at("tls.crt")).expect("a writable directory");
    at("tls.crt")
}

fn answer(output: &str) -> (u16, String) {
    let (body, status) = output.rsplit_once('\n').expect("a status");
    (status.parse().expect("a number"), body.to_owned())
}

/// What an API server of 1.33 sends when a controller makes a pod.
fn review(pod: &Value) -> Value {
    json!({
        "kind": "AdmissionReview",
        "apiVersion": "admission.k8s.io/v1",
        "request": {
            "uid": "705ab4f5-6393-11e8-b7cc-42010a800002",
            "kind": {"group": "", "version": "v1", "kind": "Pod"},
            "resource": {"group": "", "version": "v1", "resource": "pods"},
            "requestKind": {"group": "", "version": "v1", "kind": "Pod"},
            "requestResource": {"group": "", "version": "v1", "resource": "pods"},
            "namespace": "shop",
            "operation": "CREATE",
            "userInfo": {
                "username": "system:serviceaccount:kube-system:replicaset-controller",
                "groups": ["system:serviceaccounts", "system:authenticated"],
            },
            "object": pod,
            "oldObject": null,
            "dryRun": false,
            "options": {"kind": "CreateOptions", "apiVersion": "meta.k8s.io/v1"},
        },
    })
}

/// A pod as it comes from a controller.
fn pod(labels: &Value, annotations: &Value) -> Value {
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "generateName": "web-6b7f-",
            "creationTimestamp": null,
            "labels": labels,
            "annotations": annotations,
        },
        "spec": {
            "volumes": [{"name": "kube-api-access-x", "projected": {"sources": []}}],
            "containers": [{
                "name": "app",
                "image": "app",
                "livenessProbe": {"httpGet": {"path": "/", "port": 8080, "scheme": "HTTP"}},
            }],
            "serviceAccountName": "web",
            "serviceAccount": "web",
        },
        "status": {},
    })
}

fn asking() -> Value {
    json!({"sidecar.mesh/inject": "enabled"})
}

/// The pod with the patch of an answer, decoded by another program.
#[track_caller]
fn patched(webhook: &Webhook, mut pod: Value, response: &Value) -> Value {
    assert_eq!(response["patchType"], "JSONPatch");
    let decoded = Program::new(&webhook.sandbox, "base64")
        .args(["--decode"])
        .stdin(response["patch"].as_str().expect("a patch"))
        .succeed();
    let operations: Vec<Value> = serde_json::from_str(&decoded).expect("a JSON patch");
    for operation in operations {
        assert_eq!(operation["op"], "add");
        let path = operation["path"].as_str().expect("a path");
        let value = operation["value"].clone();
        let spec = pod["spec"].as_object_mut().expect("an object");
        match path.trim_start_matches("/spec/").split_once('/') {
            Some((list, "0")) => {
                let list = spec[list].as_array_mut().expect("a list that is there");
                list.insert(0, value);
            }
            _ => {
                spec.insert(path.trim_start_matches("/spec/").to_owned(), value);
            }
        }
    }
    pod
}

fn names(list: &Value) -> Vec<&str> {
    let items = list.as_array().expect("a list").iter();
    items
        .map(|item| item["name"].as_str().expect("a name"))
        .collect()
}

#[test]
fn a_pod_that_asks_gets_what_inject_adds() {
    let webhook = Webhook::start(&["--set", "inbound=strict"]);
    let plain = pod(&asking(), &json!({"sidecar.mesh/outbound": "off"}));
    let response = webhook.review(&plain);
    assert_eq!(response["allowed"], true);
    let pod = patched(&webhook, plain.clone(), &response);
    assert_eq!(
        names(&pod["spec"]["initContainers"]),
        ["sidecar-init", "sidecar"]
    );
    assert_eq!(
        names(&pod["spec"]["volumes"]),
        [
            "sidecar-cgroup",
            "sidecar-bpf",
            "sidecar-identity",
            "kube-api-access-x"
        ]
    );
    // The same as from a file.
    let file = Program::new(&webhook.sandbox, sidecar::binary())
        .args(["inject", "--set", "inbound=strict", "-"])
        .stdin(plain.to_string());
    let injected: Value = file.facts();
    assert_eq!(pod["spec"], injected["spec"]);
    // Asked again, as with `reinvocationPolicy: IfNeeded`.
    let again = webhook.review(&pod);
    assert_eq!(again["allowed"], true);
    assert!(again["patch"].is_null(), "{again}");
    assert_eq!(
        (webhook.count("injected"), webhook.count("unchanged")),
        (1, 1)
    );
}

#[test]
fn others_are_let_in_as_they_are() {
    let webhook = Webhook::start(&[]);
    for labels in [
        json!({}),
        json!({"sidecar.mesh/inject": "disabled"}),
        json!({"sidecar.mesh/inject": "node"}),
    ] {
        let response = webhook.review(&pod(&labels, &json!({})));
        assert_eq!(response["allowed"], true);
        assert!(
            response["patch"].is_null() && response["warnings"].is_null(),
            "{response}"
        );
    }
    let mut host = pod(&asking(), &json!({}));
    host["spec"]["hostNetwork"] = true.into();
    let response = webhook.review(&host);
    assert_eq!(response["allowed"], true);
    let warning = response["warnings"][0].as_str().expect("a warning");
    assert!(warning.contains("hostNetwork"), "{warning}");
    assert_eq!(webhook.count("skipped"), 4);
    let mut other = review(&pod(&asking(), &json!({})));
    other["request"]["operation"] = "UPDATE".into();
    let (status, body) = webhook.post(&other.to_string());
    assert_eq!(status, 200);
    let body: Value = serde_json::from_str(&body).expect("JSON");
    assert_eq!(body["response"]["allowed"], true);
    assert!(body["response"]["warnings"][0].is_string() && body["response"]["patch"].is_null());
    assert_eq!(webhook.count("ignored"), 1);
}

#[test]
fn with_all_those_get_one_that_do_not_refuse() {
    let webhook = Webhook::start(&["--all"]);
    let response = webhook.review(&pod(&json!({}), &json!({})));
    assert!(response["patch"].is_string(), "{response}");
    let refusing = pod(&json!({}), &json!({"sidecar.mesh/inject": "disabled"}));
    assert!(webhook.review(&refusing)["patch"].is_null());
}

#[test]
fn a_wrong_annotation_is_denied_with_the_sentence() {
    let webhook = Webhook::start(&[]);
    let wrong = pod(&asking(), &json!({"sidecar.mesh/inbound": "tight"}));
    let response = webhook.review(&wrong);
    assert_eq!(response["allowed"], false);
    assert_eq!(response["status"]["code"], 422);
    let message = response["status"]["message"].as_str().expect("a message");
    assert!(
        message.contains("sidecar.mesh/inbound: \"tight\" cannot be used"),
        "{message}"
    );
    assert!(response["patch"].is_null());
    assert_eq!(webhook.count("denied"), 1);
}

#[test]
fn what_is_no_review_is_refused() {
    let webhook = Webhook::start(&[]);
    let old =
        r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1beta1","request":null}"#;
    let empty = r#"{"kind":"AdmissionReview","apiVersion":"admission.k8s.io/v1"}"#;
    for (body, named) in [
        ("", "no AdmissionReview"),
        ("{", "no AdmissionReview"),
        ("[]", "no AdmissionReview"),
        (old, "v1beta1"),
        (empty, "without a request"),
    ] {
        let (status, answer) = webhook.post(body);
        assert_eq!(status, 400, "{body}: {answer}");
        assert!(answer.contains(named), "{body}: {answer}");
    }
    assert_eq!(webhook.count("misunderstood"), 5);
    // More than any review.
    let (status, answer) = webhook.post(&" ".repeat(9 << 20));
    assert_eq!(status, 413);
    assert!(answer.contains("post nothing but a review"), "{answer}");
    let (_, metrics) = webhook.get("/metrics");
    assert!(
        metrics.contains("sidecar_webhook_refusals_total{reason=\"long\"} 1\n"),
        "{metrics}"
    );
    assert_eq!(webhook.get("/inject").0, 405);
    assert_eq!(webhook.get("/elsewhere").0, 404);
    assert_eq!(webhook.get("/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(webhook.get("/readyz"), (200, "ready\n".to_owned()));
}

/// The memory that its container has, in kilobytes.
fn limit() -> u64 {
    const DEPLOYMENT: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../deploy/kustomize/base/webhook/deployment.yaml"
    );
    let manifest = std::fs::read_to_string(DEPLOYMENT).expect("the manifest");
    let (_, limits) = manifest.split_once("limits:").expect("limits");
    let (_, memory) = limits.split_once("memory: ").expect("a limit");
    let (mebibytes, _) = memory.split_once("Mi\n").expect("a number of mebibytes");
    mebibytes.parse::<u64>().expect("a number") << 10
}

#[test]
fn the_worst_callers_leave_it_within_the_memory_of_its_container_and_answering() {
    const MOST: usize = 6 << 20;
    let webhook = Webhook::start(&[]);
    // As many bytes in memory for each byte of text as there can be: more of them than are taken apart,
    // and as many as are. And what is long without being much.
    let crowded = |count| {
        let objects = vec!["{\"\":0}"; count].join(",");
        let mut pod = pod(&asking(), &json!({}));
        pod["spec"]["x"] = 0.into();
        let review = review(&pod).to_string();
        let review = review.replace("\"x\":0", &format!("\"x\":[{objects}]"));
        let padding = MOST - review.len();
        review + &" ".repeat(padding)
    };
    let bodies = [crowded(780_000), crowded(49_000), " ".repeat(MOST)];
    for (body, status) in bodies.iter().zip([400, 200, 400]) {
        assert_eq!(webhook.post(body).0, status);
    }
    std::thread::scope(|scope| {
        for body in bodies.iter().cycle().take(24) {
            let curl = webhook.curl("/inject").args(["--data-binary", "@-"]);
            // Some come too late; what counts is what is left.
            scope.spawn(move || curl.stdin(body).run());
        }
    });
    let response = webhook.review(&pod(&asking(), &json!({})));
    assert_eq!(response["allowed"], true);
    assert!(response["patch"].is_string(), "{response}");
    let status = format!("/proc/{}/status", webhook.process.id());
    let status = std::fs::read_to_string(status).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let peak = peak.and_then(|peak| peak.trim().strip_suffix(" kB"));
    let peak: u64 = peak.and_then(|peak| peak.parse().ok()).expect("a peak");
    println!("at most {peak} kB of {} kB", limit());
    assert!(peak < limit(), "{peak} kB of {} kB", limit());
}

#[test]
fn a_renewed_certificate_is_taken_and_a_broken_one_is_not() {
    let mut webhook = Webhook::start(&[]);
    issue(&webhook.sandbox);
    webhook
        .process
        .wait_for_stderr("certificate is valid until");
    // The new one is what is verified by now.
    assert_eq!(webhook.get("/readyz").0, 200);
    let reloads = |outcome: &str| {
        let (_, metrics) = webhook.get("/metrics");
        let name = format!("sidecar_webhook_certificate_reloads_total{{outcome=\"{outcome}\"}} ");
        let count = metrics.lines().find_map(|line| line.strip_prefix(&name));
        count.expect("a metric").parse::<u64>().expect("a number")
    };
    assert_eq!(reloads("taken"), 1);
    let kept = std::fs::read(&webhook.certificate).expect("a certificate");
    webhook.certificate = webhook.sandbox.file("kept.crt", kept);
    webhook.sandbox.file("tls.crt", "no certificate");
    webhook
        .process
        .wait_for_stderr("stays what it was: tls.crt has no certificate that");
    assert_eq!(webhook.get("/readyz").0, 200);
    let (_, metrics) = webhook.get("/metrics");
    let refused = "sidecar_webhook_certificate_reloads_total{outcome=\"refused\"} ";
    let refused = metrics.lines().find_map(|line| line.strip_prefix(refused));
    assert_ne!(refused, Some("0"), "{metrics}");
}

#[test]
fn what_it_cannot_serve_with_is_refused_at_once() {
    let sandbox = Sandbox::new("webhook");
    let start = |flags: &[&str]| {
        let program = Program::new(&sandbox, sidecar::binary()).arg("webhook");
        program.args(flags).run().code(1)
    };
    let files = ["--certificate", "tls.crt", "--key", "tls.key"];
    start(&files).assert_one_sentence(&["tls.crt"]);
    sandbox.file("tls.crt", "");
    start(&files).assert_one_sentence(&["tls.crt"]);
    issue(&sandbox);
    let other = std::fs::read(sandbox.directory().join("tls.crt")).expect("a certificate");
    issue(&sandbox);
    sandbox.file("tls.crt", other);
    start(&files).assert_one_sentence(&["tls.crt", "tls.key"]);
    start(&["--set", "inbound=tight"]).assert_one_sentence(&["tight"]);
}

#[test]
#[expect(
    clippy::redundant_closure_for_method_calls,
    reason = "the method itself is one of programs with a certain lifetime"
)]
fn on_a_machine_without_ipv6_it_answers_all_the_same() {
    let webhook = Webhook::start_as(|program| program.without_ipv6());
    assert_eq!(webhook.get("/readyz").0, 200);
}

#[test]
fn it_ends_when_it_is_told_to() {
    let webhook = Webhook::start(&[]);
    webhook.process.signal(Signal::SIGTERM);
    let output = webhook.process.wait().success();
    assert!(output.stderr.contains("listens on"), "{output}");
}
