//! `sidecar webhook`, asked by a real kube-apiserver: `cargo xtask kube-apiserver`.
//!
//! It is told of refusals alone. This build of 1.20 ends when a webhook changes a pod: the library that
//! walks maps in it is older than the Go that it is built with.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use sidecar_tests::{kube_apiserver::KubeApiServer, wait};

/// What the API server is told of the webhook.
const CONFIGURATION: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/kustomize/base/webhook/configuration.yaml"
);

/// A webhook that listens; it ends with its guard.
struct Webhook {
    process: Child,
    address: SocketAddr,
    /// Whom the API server trusts.
    authority: String,
}

impl Webhook {
    fn start(directory: &Path) -> Self {
        let (authority, key) = certificate();
        let file = |name: &str, content: &str| {
            let path = directory.join(name);
            fs::write(&path, content).expect("a writable directory");
            path
        };
        let address = free();
        let log = fs::File::create(directory.join("webhook.log")).expect("a log");
        let process = Command::new(env!("CARGO_BIN_EXE_sidecar"))
            .args(["webhook", "--listen", &address.to_string()])
            .arg("--certificate")
            .arg(file("webhook.crt", &authority))
            .arg("--key")
            .arg(file("webhook.key", &key.serialize_pem()))
            .stderr(log)
            .spawn()
            .expect("sidecar starts");
        wait::until("the webhook listens", || {
            fs::read_to_string(directory.join("webhook.log"))
                .is_ok_and(|said| said.contains(&format!("the webhook listens on {address}")))
        });
        Self {
            process,
            address,
            authority,
        }
    }

    /// As it is deployed, but for where the webhook is.
    fn configuration(&self) -> Value {
        let text = fs::read_to_string(CONFIGURATION).expect("the manifest");
        let mut configuration: Value = serde_saphyr::from_str(&text).expect("YAML");
        configuration["webhooks"][0]["clientConfig"] = client(self.address, &self.authority);
        configuration
    }

    fn count(&self, verdict: &str) -> u64 {
        let output = Command::new("curl")
            .args(["--silent", "--fail", "--insecure"])
            .arg(format!("https://{}/metrics", self.address))
            .output()
            .expect("curl starts");
        let metrics = String::from_utf8_lossy(&output.stdout);
        let name = format!("sidecar_webhook_reviews_total{{verdict=\"{verdict}\"}} ");
        let line = metrics.lines().find_map(|line| line.strip_prefix(&name));
        line.expect("a metric").parse().expect("a number")
    }
}

impl Drop for Webhook {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).expect("pids are small");
        let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        let _ = self.process.wait();
    }
}

fn free() -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("loopback");
    listener.local_addr().expect("a listener has an address")
}

/// A certificate for loopback that whoever is told of it trusts, and its key.
fn certificate() -> (String, rcgen::KeyPair) {
    let made = rcgen::generate_simple_self_signed([Ipv4Addr::LOCALHOST.to_string()]);
    let made = made.expect("a certificate");
    (made.cert.pem(), made.signing_key)
}

fn client(address: SocketAddr, authority: &str) -> Value {
    json!({"url": format!("https://{address}/inject"), "caBundle": STANDARD.encode(authority)})
}

fn pod(namespace: &str, name: &str, label: &str, inbound: &str) -> String {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": namespace, "labels": {"sidecar.mesh/inject": label},
            "annotations": {"sidecar.mesh/inbound": inbound},
        },
        "spec": {"containers": [{"name": "web", "image": "web"}]},
    });
    pod.to_string()
}

/// What becomes of a pod: as it would be stored, or why it would not be.
fn tried(server: &KubeApiServer, pod: &str) -> Result<Value, String> {
    let create = [
        "create",
        "--validate=false",
        "--dry-run=server",
        "-o",
        "json",
        "-f",
        "-",
    ];
    let made = server.try_kubectl(&create, pod)?;
    Ok(serde_json::from_str(&made).expect("JSON"))
}

/// Tries until it comes out so: what the API server is told, it heeds a little later.
#[track_caller]
fn eventually(server: &KubeApiServer, pod: &str, is_so: impl Fn(&Result<Value, String>) -> bool) {
    let mut last = None;
    let found = wait::within(wait::DEADLINE, || {
        let outcome = last.insert(tried(server, pod));
        is_so(outcome).then_some(())
    });
    assert!(found.is_some(), "{pod} still comes out as {last:?}");
}

fn names(pod: &Value, list: &str) -> Vec<String> {
    let items = pod["spec"][list].as_array().into_iter().flatten();
    let name = |item: &Value| item["name"].as_str().expect("a name").to_owned();
    items.map(name).collect()
}

#[test]
fn a_real_api_server_refuses_and_lets_in_pods_as_the_configuration_of_the_webhook_says() {
    let directory = tempfile::tempdir().expect("a directory");
    let server = KubeApiServer::start(directory.path());
    for namespace in ["shop", "sidecar-system"] {
        server.kubectl(&["create", "namespace", namespace], "");
        // The API server does so itself since 1.21.
        let label = format!("kubernetes.io/metadata.name={namespace}");
        server.kubectl(&["label", "namespace", namespace, &label], "");
    }
    let webhook = Webhook::start(directory.path());
    let configure = |configuration: &Value| {
        let apply = ["apply", "--validate=false", "-f", "-"];
        server.kubectl(&apply, &configuration.to_string());
    };
    let mut configuration = webhook.configuration();
    configure(&configuration);

    let wrong = pod("shop", "wrong", "enabled", "tight");
    let denied = "admission webhook \"inject.sidecar.mesh\" denied the request: sidecar: ";
    let sentence = "sidecar.mesh/inbound: \"tight\" cannot be used";
    eventually(&server, &wrong, |outcome| {
        let refused = outcome.as_ref();
        refused.is_err_and(|refused| refused.contains(denied) && refused.contains(sentence))
    });

    // Nobody is asked about pods that do not ask, nor in namespaces that are left out.
    let before = webhook.count("denied");
    let is_untouched = |outcome: &Result<Value, String>| {
        let made = outcome.as_ref();
        made.is_ok_and(|made| names(made, "initContainers").is_empty())
    };
    for (namespace, label) in [("shop", "disabled"), ("sidecar-system", "enabled")] {
        let made = tried(&server, &pod(namespace, "web", label, "tight"));
        assert!(is_untouched(&made), "{made:?}");
    }
    let asked = ["injected", "unchanged", "skipped"].map(|verdict| webhook.count(verdict));
    assert_eq!((asked, webhook.count("denied")), ([0; 3], before));

    // Nobody answers.
    drop(webhook);
    let asking = pod("shop", "web", "enabled", "strict");
    let refused = tried(&server, &asking).expect_err("nobody answers, and the policy is Fail");
    let failed = "failed calling webhook \"inject.sidecar.mesh\"";
    assert!(refused.contains(failed), "{refused}");
    assert!(is_untouched(&tried(
        &server,
        &pod("shop", "web", "disabled", "strict")
    )));
    configuration["webhooks"][0]["failurePolicy"] = "Ignore".into();
    configure(&configuration);
    eventually(&server, &asking, is_untouched);
}
