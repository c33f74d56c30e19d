//! What we ask the Kubernetes API, asked of a real kube-apiserver: `cargo xtask kube-apiserver`.
//!
//! It is 1.20, which knows endpoint slices only as `v1beta1`: what follows from those is tried with
//! the API server of `sidecar_tests`.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use sidecar::{
    kubernetes::{Client, KnownPods, names, pods},
    naming::Directory,
};
use sidecar_tests::kube_apiserver::{KubeApiServer, Way};
use tokio::{sync::watch, time::timeout};

/// What the agent is granted.
const ROLE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../deploy/kustomize/base/node/rbac.yaml"
);

fn pod(name: &str, node: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": "shop", "labels": {"sidecar.mesh/inject": "node", "app": "web"},
            "annotations": {"sidecar.mesh/inbound": "strict"},
        },
        "spec": {
            "nodeName": node, "serviceAccountName": format!("{name}-account"),
            "containers": [{
                "name": "web", "image": "web", "ports": [{"name": "http", "containerPort": 8080}],
                "livenessProbe": {"httpGet": {"path": "/", "port": "http"}},
            }],
        },
        "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "hostIP": "198.19.0.1"},
    })
}

fn service() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "clusterIP": "198.18.64.10", "selector": {"app": "web"},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080}],
        },
    })
}

fn named(known: &KnownPods) -> Vec<&str> {
    let pods = known.iter().flat_map(|known| known.values());
    let mut names: Vec<_> = pods.map(|pod| pod.name.as_str()).collect();
    names.sort_unstable();
    names
}

async fn knows(known: &mut watch::Receiver<KnownPods>, expected: &[&str]) {
    let told = known.wait_for(|known| named(known) == expected);
    let told = timeout(Duration::from_mins(2), told).await;
    told.expect("it comes").expect("somebody tells");
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let polled = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_mins(2), polled).await.expect(what);
}

#[tokio::test(flavor = "multi_thread")]
#[expect(
    clippy::too_many_lines,
    reason = "one life of one server, which takes long to start"
)]
async fn a_real_api_server_is_followed_through_cuts_compaction_and_restarts() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = KubeApiServer::start(directory.path());
    for namespace in ["shop", "sidecar-node"] {
        server.kubectl(&["create", "namespace", namespace], "");
    }
    server.create(&pod("a", "one", "198.18.0.1"));
    server.create(&pod("elsewhere", "two", "198.18.0.2"));
    server.create(&service());

    // Without a role, it says what is missing.
    let way = Way::to(server.address());
    let kubeconfig = server.kubeconfig(way.address());
    let client = Client::connect(Some(&kubeconfig)).await.expect("a client");
    let mut known = pods(&client, "one");
    eventually("a refusal", || !client.health.failing().is_empty()).await;
    let failing = client.health.failing().concat();
    assert!(
        failing.contains("it refuses with status 403 ("),
        "{failing}"
    );
    assert!(
        failing.contains("; grant it with a ClusterRole; nothing is known of them yet"),
        "{failing}"
    );

    let role = fs::read_to_string(ROLE).expect("the manifest");
    server.kubectl(&["apply", "--validate=false", "-f", "-"], &role);
    knows(&mut known, &["a"]).await;
    assert_eq!(client.health.failing(), [""; 0]);
    let facts = known
        .borrow()
        .iter()
        .flat_map(|all| all.values())
        .next()
        .cloned();
    let facts = facts.expect("a pod");
    assert_eq!(facts.service_account.to_string(), "shop/a-account");
    assert_eq!((facts.probe_ports, facts.grace_seconds), (vec![8080], 30));
    assert_eq!(facts.annotations["sidecar.mesh/inbound"], "strict");

    // It goes on where it was.
    way.cut();
    server.create(&pod("b", "one", "198.18.0.3"));
    way.mend();
    knows(&mut known, &["a", "b"]).await;
    let forgotten = || {
        let all = client.health.all();
        all[0]
            .failures
            .get("forgotten")
            .copied()
            .unwrap_or_default()
    };
    assert_eq!(forgotten(), 0);

    // Where it was is forgotten.
    let mut all = known.clone();
    let least = tokio::spawn(async move {
        let mut least = usize::MAX;
        while all.changed().await.is_ok() {
            let known = all.borrow_and_update();
            least = least.min(named(&known).len());
            if named(&known).contains(&"c") {
                break;
            }
        }
        least
    });
    way.cut();
    server.kubectl(
        &["label", "-n", "shop", "pod", "elsewhere", "touched=yes"],
        "",
    );
    server.create(&pod("c", "one", "198.18.0.4"));
    server.stop();
    server.compact();
    server.resume();
    way.mend();
    knows(&mut known, &["a", "b", "c"]).await;
    assert!(least.await.expect("no panic") >= 2, "pods have disappeared");
    assert!(forgotten() >= 1, "{:?}", client.health.all());

    // The whole cluster, as far as this server knows of it.
    let book = Directory::default();
    let naming = tokio::spawn({
        let (client, book) = (client.clone(), book.clone());
        async move { names(&client, book).await }
    });
    let account = |address: &str| {
        let known = book.of(address.parse().expect("an address"))?;
        known.service_accounts.first().map(ToString::to_string)
    };
    eventually("a name", || account("198.18.0.2:1").is_some()).await;
    assert_eq!(
        account("198.18.0.2:1").as_deref(),
        Some("shop/elsewhere-account")
    );
    eventually("the service", || {
        book.of("198.18.64.10:80".parse().expect("an address"))
            .is_some()
    })
    .await;
    eventually("no endpoint slices", || {
        client
            .health
            .failing()
            .concat()
            .contains("Kubernetes has to be 1.21 or newer")
    })
    .await;
    naming.abort();

    server.kubectl(
        &[
            "delete",
            "-n",
            "shop",
            "pod",
            "a",
            "--force",
            "--grace-period=0",
        ],
        "",
    );
    knows(&mut known, &["b", "c"]).await;
}

/// Where what it says is written down, for tests without it to say it again.
const RECORDINGS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/kube_apiserver");

/// The pods that are watched.
const PODS: &str = "/api/v1/pods?labelSelector=sidecar.mesh/inject";

/// What lines of a watch tell of what.
fn told(watch: &str) -> Vec<(String, String)> {
    let told = watch.lines().map(|line| {
        let event: Value = serde_json::from_str(line).expect("JSON");
        let text = |pointer: &str| {
            event
                .pointer(pointer)
                .and_then(Value::as_str)
                .map(str::to_owned)
        };
        let what = text("/type").expect("a type");
        (what, text("/object/metadata/name").unwrap_or_default())
    });
    told.collect()
}

#[test]
fn what_it_says_is_as_it_is_written_down() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut server = KubeApiServer::start(directory.path());
    server.kubectl(&["create", "namespace", "shop"], "");
    server.create(&pod("b", "one", "198.18.0.3"));
    server.create(&pod("c", "one", "198.18.0.4"));
    server.create(&pod("elsewhere", "two", "198.18.0.2"));
    server.create(&service());
    let said = |path: &str| server.kubectl(&["get", "--raw", path], "");
    let pods = said(PODS);
    let services = said("/api/v1/services");
    let list: Value = serde_json::from_str(&pods).expect("JSON");
    let version = &list["metadata"]["resourceVersion"];
    let version = version.as_str().expect("a version");

    // Bookmarks come two seconds before the end.
    let watching = format!(
        "{PODS}&watch=true&allowWatchBookmarks=true&timeoutSeconds=12&resourceVersion={version}"
    );
    let watch = std::thread::scope(|scope| {
        let watched = scope.spawn(|| said(&watching));
        let touch = ["label", "-n", "shop", "pod", "b", "touched=yes"];
        server.kubectl(&touch, "");
        let at_once = ["--force", "--grace-period=0"];
        server.kubectl(
            &[&["delete", "-n", "shop", "pod", "c"][..], &at_once].concat(),
            "",
        );
        server.create(&pod("d", "one", "198.18.0.5"));
        watched.join().expect("a watch")
    });
    let touch = ["label", "-n", "shop", "pod", "elsewhere", "touched=yes"];
    server.kubectl(&touch, "");
    server.stop();
    server.compact();
    server.resume();
    let watching = format!("{PODS}&watch=true&timeoutSeconds=5&resourceVersion={version}");
    let gone = server.kubectl(&["get", "--raw", &watching], "");

    let expected = [
        ("MODIFIED", "b"),
        // It is about to end.
        ("MODIFIED", "c"),
        ("DELETED", "c"),
        ("ADDED", "d"),
        ("MODIFIED", "d"),
        ("BOOKMARK", ""),
    ];
    let expected = expected.map(|(what, name)| (what.to_owned(), name.to_owned()));
    assert_eq!(told(&watch), expected);
    assert_eq!(told(&gone), [("ERROR".to_owned(), String::new())]);
    assert!(gone.contains("\"code\":410"), "{gone}");
    if std::env::var_os("SIDECAR_WRITE_GOLDEN").is_some() {
        fs::create_dir_all(RECORDINGS).expect("a directory");
        for (name, said) in [
            ("pods.list.json", pods),
            ("pods.watch.jsonl", watch),
            ("pods.gone.jsonl", gone),
            ("services.list.json", services),
        ] {
            fs::write(std::path::Path::new(RECORDINGS).join(name), said).expect("writable");
        }
    }
}
