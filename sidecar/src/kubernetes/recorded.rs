//! What a real kube-apiserver (1.20.2) has said, as `SIDECAR_WRITE_GOLDEN=1 cargo xtask
//! kube-apiserver` wrote it down, said again.

use std::{fs, path::Path};

use sidecar_tests::{
    KubeApi,
    kube_api::{Answer, Happening, PODS, SERVICES, Verb},
};

use super::{
    names, pods,
    testing::{client, eventually, until},
};
use crate::naming::Directory;

/// What is written down under a name.
fn said(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/kube_apiserver")
        .join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The version that the last line of a watch tells, which is a bookmark.
fn bookmarked(watch: &str) -> String {
    let last = watch.lines().last().expect("a line");
    let event: serde_json::Value = serde_json::from_str(last).expect("JSON");
    assert_eq!(event["type"], "BOOKMARK", "{last}");
    let version = &event["object"]["metadata"]["resourceVersion"];
    version.as_str().expect("a version").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_api_server_has_said_of_pods_is_understood() {
    let watch = said("pods.watch.jsonl");
    let api = KubeApi::start();
    let list = Answer::Body(said("pods.list.json"));
    api.fail(Verb::List, PODS, usize::MAX, list);
    let client = client(&api).await;
    let mut known = pods(&client, "one");
    let mut comes_to = async |expected: &[&str]| {
        until(&mut known, |known| {
            let mut names: Vec<_> = known
                .iter()
                .flat_map(|known| known.values())
                .map(|pod| pod.name.as_str())
                .collect();
            names.sort_unstable();
            names == expected
        })
        .await
    };
    let watches = async || eventually("a watch", || api.watches(PODS) == 1).await;
    let first = comes_to(&["b", "c", "elsewhere"]).await.expect("known");
    let b = first
        .values()
        .find(|pod| pod.name == "b")
        .expect("it is there");
    assert_eq!(b.service_account.to_string(), "shop/b-account");
    assert_eq!(b.probe_ports, [8080]);
    assert_eq!(b.addresses.len(), 1);
    watches().await;

    // Twice, and in between the connection is lost.
    for _ in 0..2 {
        for line in watch.lines() {
            api.happens(PODS, Happening::Line(line.to_owned()));
        }
        let then = comes_to(&["b", "d", "elsewhere"]).await.expect("known");
        let b = then
            .values()
            .find(|pod| pod.name == "b")
            .expect("it is there");
        assert_eq!(b.labels.get("touched").map(String::as_str), Some("yes"));
        let before = api.requests().len();
        api.happens(PODS, Happening::Disconnect);
        eventually("a new watch", || api.requests().len() > before).await;
        let resumed = api.requests().pop().expect("a request");
        let from = format!("resourceVersion={}", bookmarked(&watch));
        assert!(resumed.ends_with(&from), "{resumed}");
        watches().await;
    }

    for line in said("pods.gone.jsonl").lines() {
        api.happens(PODS, Happening::Line(line.to_owned()));
    }
    comes_to(&["b", "c", "elsewhere"]).await;
    let all = client.health.all();
    assert_eq!(all[0].failures.get("forgotten"), Some(&1), "{all:?}");
    assert_eq!(client.health.failing(), [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_real_api_server_has_said_of_services_is_understood() {
    let api = KubeApi::start();
    let answer = |name| Answer::Body(said(name));
    api.fail(Verb::List, PODS, usize::MAX, answer("pods.list.json"));
    api.fail(
        Verb::List,
        SERVICES,
        usize::MAX,
        answer("services.list.json"),
    );
    let client = client(&api).await;
    let directory = Directory::default();
    let following = tokio::spawn({
        let (client, directory) = (client.clone(), directory.clone());
        async move { names(&client, directory).await }
    });
    let at = |address: &str| directory.of(address.parse().expect("an address"));
    eventually("everything", || client.health.is_known()).await;
    let service = at("198.18.64.10:80").expect("known");
    assert_eq!((&*service.namespace, &*service.service), ("shop", "web"));
    assert!(service.service_accounts.is_empty(), "{service:?}");
    let pod = at("198.18.0.3:8080").expect("known");
    assert_eq!(&*pod.workload, "pod/b");
    following.abort();
}
