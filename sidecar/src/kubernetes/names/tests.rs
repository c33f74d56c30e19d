use std::net::SocketAddr;

use serde_json::{Value, json};
use sidecar_tests::{
    KubeApi,
    kube_api::{ENDPOINT_SLICES, PODS, SERVICES},
};

use super::{
    super::testing::{client, eventually, pod},
    *,
};

/// What is known by way of a book.
struct Known {
    directory: Directory,
    book: Book,
}

impl Known {
    fn of(pods: &[Value], services: &[Value], slices: &[Value]) -> Self {
        let directory = Directory::default();
        let mut known = Self {
            book: Book::new(directory.clone()),
            directory,
        };
        known
            .book
            .tell(Told::All(services.iter().map(service_of).collect()));
        known
            .book
            .tell(Told::All(slices.iter().map(slice_of).collect()));
        known
            .book
            .tell(Told::All(pods.iter().map(pod_of).collect()));
        known
    }

    /// Whoever may answer, `?` where nobody can tell, and `-` where nothing is known.
    fn at(&self, address: &str) -> String {
        let address: SocketAddr = address.parse().expect("an address and a port");
        accounts(&self.directory, address)
    }
}

fn accounts(directory: &Directory, address: SocketAddr) -> String {
    let Some(known) = directory.of(address) else {
        return "-".to_owned();
    };
    let accounts = known.service_accounts.iter();
    let accounts: Vec<_> = accounts.map(|account| &*account.name).collect();
    if accounts.is_empty() {
        return "?".to_owned();
    }
    accounts.join(" ")
}

fn pod_of(pod: &Value) -> PodEntry {
    let mut pod = pod.clone();
    if pod["metadata"]["uid"].is_null() {
        pod["metadata"]["uid"] = json!(format!("uid-{}", pod["metadata"]["name"]));
    }
    PodEntry::of(serde_json::from_value(pod).expect("a pod"))
}

fn service_of(service: &Value) -> ServiceEntry {
    ServiceEntry::of(serde_json::from_value(service.clone()).expect("a service"))
}

fn slice_of(slice: &Value) -> SliceEntry {
    SliceEntry::of(serde_json::from_value(slice.clone()).expect("a slice"))
}

fn service(name: &str, ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name, "namespace": "shop"},
        "spec": {
            "clusterIP": ip, "clusterIPs": [ip], "selector": {"app": name},
            "ports": [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}],
        },
    })
}

fn slice(service: &str, pods: &[&str]) -> Value {
    let endpoints = pods.iter().map(|name| {
        json!({
            "addresses": ["198.18.9.9"],
            "targetRef": {"kind": "Pod", "name": name, "namespace": "shop", "uid": format!("uid-\"{name}\"")},
        })
    });
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{service}-1"), "namespace": "shop",
            "labels": {"kubernetes.io/service-name": service},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": endpoints.collect::<Vec<_>>(),
    })
}

fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
    object.pointer_mut(parent).expect("it is there")[key] = value;
    object
}

#[test]
fn behind_the_address_of_a_pod_is_its_service_account() {
    let both = json!([{"ip": "198.18.0.1"}, {"ip": "fd00::1"}]);
    let a = with(pod("a", "one", "198.18.0.1"), "/status/podIPs", both);
    let known = Known::of(&[a], &[], &[]);
    assert_eq!(known.at("198.18.0.1:1"), "a-account");
    assert_eq!(known.at("[fd00::1]:80"), "a-account");
    assert_eq!(known.at("198.18.0.2:80"), "-");
    let at = known
        .directory
        .of("198.18.0.1:1".parse().expect("an address"));
    let at = at.expect("known");
    assert_eq!(
        (&*at.namespace, &*at.workload, &*at.service),
        ("shop", "pod/a", "")
    );
}

#[test]
fn an_address_belongs_to_the_newest_pod_that_runs() {
    let old = pod("old", "one", "198.18.0.1");
    let new = with(
        pod("new", "one", "198.18.0.1"),
        "/metadata/creationTimestamp",
        json!("2026-01-01T00:00:01Z"),
    );
    let ended = |pod: &Value, phase: &str| with(pod.clone(), "/status/phase", json!(phase));
    let known = Known::of(&[old.clone(), new.clone()], &[], &[]);
    assert_eq!(known.at("198.18.0.1:1"), "new-account");
    let known = Known::of(&[old.clone(), ended(&new, "Failed")], &[], &[]);
    assert_eq!(known.at("198.18.0.1:1"), "old-account");
    let known = Known::of(&[ended(&old, "Succeeded")], &[], &[]);
    assert_eq!(known.at("198.18.0.1:1"), "-");
    // Two of the same second: either may be it.
    let twin = pod("twin", "one", "198.18.0.1");
    let known = Known::of(&[old, twin], &[], &[]);
    assert_eq!(known.at("198.18.0.1:1"), "old-account twin-account");
}

#[test]
fn a_pod_that_is_gone_leaves_its_address() {
    let a = pod("a", "one", "198.18.0.1");
    let mut known = Known::of(&[a.clone(), pod("b", "one", "198.18.0.2")], &[], &[]);
    known.book.tell(Told::Gone(pod_of(&a)));
    assert_eq!(known.at("198.18.0.1:1"), "-");
    // It is told of the end of one that has a successor of the same name.
    let next = with(a.clone(), "/metadata/uid", json!("another"));
    known.book.tell(Told::Is(pod_of(&next)));
    known.book.tell(Told::Gone(pod_of(&a)));
    assert_eq!(known.at("198.18.0.1:1"), "a-account");
    known.book.tell(Told::<PodEntry>::All(Vec::new()));
    assert_eq!(known.at("198.18.0.1:1"), "-");
    assert_eq!(known.at("198.18.0.2:1"), "-");
}

#[test]
fn behind_a_service_are_the_accounts_of_its_pods() {
    let pods = [
        pod("a", "one", "198.18.0.1"),
        pod("b", "two", "198.18.0.2"),
        pod("c", "two", "198.18.0.3"),
    ];
    let web = with(
        service("web", "198.19.1.1"),
        "/spec/clusterIPs",
        json!(["198.19.1.1", "fd00::80"]),
    );
    let web = with(web, "/spec/externalIPs", json!(["198.19.2.2"]));
    let web = with(
        with(web, "/status", json!({})),
        "/status/loadBalancer",
        json!({"ingress": [
            {"ip": "198.19.3.3"}, {"hostname": "lb.example"}, {"ip": "198.19.3.4", "ipMode": "Proxy"},
        ]}),
    );
    let mut known = Known::of(&pods, &[web], &[slice("web", &["a", "b"])]);
    for ip in ["198.19.1.1", "[fd00::80]", "198.19.2.2", "198.19.3.3"] {
        assert_eq!(known.at(&format!("{ip}:80")), "a-account b-account", "{ip}");
        assert_eq!(known.at(&format!("{ip}:8080")), "-", "{ip}");
    }
    assert_eq!(known.at("198.19.3.4:80"), "-");
    // One leaves the slice, another has ended for good but is still named.
    known
        .book
        .tell(Told::Is(slice_of(&slice("web", &["b", "c"]))));
    assert_eq!(known.at("198.19.1.1:80"), "b-account c-account");
    known.book.tell(Told::Gone(pod_of(&pods[1])));
    assert_eq!(known.at("198.19.1.1:80"), "c-account");
    known.book.tell(Told::Is(pod_of(&pods[1])));
    assert_eq!(known.at("198.19.1.1:80"), "b-account c-account");
    known.book.tell(Told::Gone(slice_of(&slice("web", &[]))));
    assert_eq!(known.at("198.19.1.1:80"), "?");
    known.book.tell(Told::<ServiceEntry>::All(Vec::new()));
    assert_eq!(known.at("198.19.1.1:80"), "-");
}

#[test]
fn each_port_of_a_service_has_the_pods_of_its_name() {
    let pods = [pod("a", "one", "198.18.0.1"), pod("b", "two", "198.18.0.2")];
    let ports = json!([
        {"name": "http", "port": 80}, {"name": "admin", "port": 81},
        {"name": "dns", "port": 53, "protocol": "UDP"},
    ]);
    let web = with(service("web", "198.19.1.1"), "/spec/ports", ports);
    let admin = slice("web", &["b"]);
    let admin = with(admin, "/metadata/name", json!("web-2"));
    let admin = with(admin, "/ports", json!([{"name": "admin", "port": 9000}]));
    let known = Known::of(&pods, &[web], &[slice("web", &["a"]), admin]);
    assert_eq!(known.at("198.19.1.1:80"), "a-account");
    assert_eq!(known.at("198.19.1.1:81"), "b-account");
    assert_eq!(known.at("198.19.1.1:53"), "-");
}

#[test]
fn nobody_can_tell_who_is_behind_what_is_no_pod() {
    let pods = [pod("a", "one", "198.18.0.1")];
    let free = with(service("free", "198.19.1.1"), "/spec/selector", Value::Null);
    let mixed = slice("mixed", &["a"]);
    let endpoints = json!([
        mixed["endpoints"][0], {"addresses": ["198.18.7.7"]},
    ]);
    let known = Known::of(
        &pods,
        &[
            free,
            service("mixed", "198.19.1.2"),
            service("empty", "198.19.1.3"),
        ],
        &[slice("free", &["a"]), with(mixed, "/endpoints", endpoints)],
    );
    for ip in ["198.19.1.1", "198.19.1.2", "198.19.1.3"] {
        assert_eq!(known.at(&format!("{ip}:80")), "?", "{ip}");
    }
    let at = known
        .directory
        .of("198.19.1.1:80".parse().expect("an address"));
    assert_eq!(&*at.expect("known").service, "free");
}

#[test]
fn a_headless_service_has_no_address_and_its_pods_have_theirs() {
    let known = Known::of(
        &[pod("a", "one", "198.18.0.1")],
        &[service("web", "None")],
        &[slice("web", &["a"])],
    );
    assert_eq!(known.at("198.18.0.1:80"), "a-account");
}

#[test]
fn pods_on_the_network_of_the_node_are_told_by_the_ports_they_declare() {
    let on_node = |name, ports: Value| {
        let pod = with(
            pod(name, "one", "198.19.0.1"),
            "/spec/hostNetwork",
            json!(true),
        );
        with(pod, "/spec/containers", json!([{"ports": ports}]))
    };
    let pods = [
        on_node(
            "a",
            json!([{"containerPort": 9100}, {"containerPort": 53, "protocol": "UDP"}]),
        ),
        on_node(
            "b",
            json!([{"containerPort": 9100, "hostPort": 9100}, {"containerPort": 80}]),
        ),
        with(
            pod("c", "one", "198.18.0.1"),
            "/spec/containers",
            json!([{"ports": [
                {"containerPort": 8080, "hostPort": 81},
                {"containerPort": 8081, "hostPort": 82, "hostIP": "198.19.0.7"},
            ]}]),
        ),
    ];
    let known = Known::of(&pods, &[], &[]);
    assert_eq!(known.at("198.19.0.1:9100"), "a-account b-account");
    assert_eq!(known.at("198.19.0.1:80"), "b-account");
    assert_eq!(known.at("198.19.0.1:81"), "c-account");
    assert_eq!(known.at("198.19.0.1:82"), "-");
    assert_eq!(known.at("198.19.0.7:82"), "c-account");
    assert_eq!(known.at("198.19.0.1:53"), "-");
    assert_eq!(known.at("198.19.0.1:22"), "-");
    assert_eq!(known.at("198.18.0.1:8080"), "c-account");
}

#[test]
fn a_service_of_one_workload_has_its_name() {
    let owned = |name, owner: &str| {
        let owner = json!([{"kind": "StatefulSet", "name": owner, "controller": true}]);
        with(
            pod(name, "one", "198.18.0.1"),
            "/metadata/ownerReferences",
            owner,
        )
    };
    let workload = |pods: &[Value]| {
        let known = Known::of(
            pods,
            &[service("web", "198.19.1.1")],
            &[slice("web", &["a", "b"])],
        );
        let at = known
            .directory
            .of("198.19.1.1:80".parse().expect("an address"));
        at.expect("known").workload.to_string()
    };
    assert_eq!(
        workload(&[owned("a", "db"), owned("b", "db")]),
        "statefulset/db"
    );
    assert_eq!(workload(&[owned("a", "db"), owned("b", "other")]), "");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_directory_follows_the_api() {
    let api = KubeApi::start();
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let a = api.put(pod("a", "one", "198.18.0.1"));
    api.put(service("web", "198.19.1.1"));
    let endpoint = with(slice("web", &["a"]), "/endpoints/0/targetRef/uid", uid(&a));
    api.put(endpoint.clone());
    let directory = Directory::default();
    let client = client(&api).await;
    let following = tokio::spawn({
        let (client, directory) = (client.clone(), directory.clone());
        async move { names(&client, directory).await }
    });
    let at = |address: &str| accounts(&directory, address.parse().expect("an address"));
    eventually("the service", || at("198.19.1.1:80") == "a-account").await;
    assert_eq!(at("198.18.0.1:1"), "a-account");
    eventually("watches", || {
        [PODS, SERVICES, ENDPOINT_SLICES]
            .iter()
            .all(|what| api.watches(what) == 1)
    })
    .await;
    assert!(client.health.is_known());
    let b = api.put(pod("b", "one", "198.18.0.2"));
    api.put(with(
        with(endpoint, "/endpoints/0/targetRef/uid", uid(&b)),
        "/endpoints/0/targetRef/name",
        json!("b"),
    ));
    eventually("the change", || at("198.19.1.1:80") == "b-account").await;
    api.delete(SERVICES, "shop", "web");
    eventually("the end", || at("198.19.1.1:80") == "-").await;
    following.abort();
}

/// The memory of this process that is its own, in bytes.
#[cfg(feature = "on-demand")]
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("there is a /proc");
    let mut fields = statm
        .split(' ')
        .map(|field| field.parse::<usize>().expect("a number"));
    let (resident, shared) = (
        fields.nth(1).expect("resident"),
        fields.next().expect("shared"),
    );
    (resident - shared) * 4096
}

/// Alone in its process, else it measures the others: with `--features on-demand`, and by its name.
#[cfg(feature = "on-demand")]
#[test]
fn a_large_cluster_takes_few_bytes() {
    let before = resident();
    let directory = Directory::default();
    let mut book = Book::new(directory);
    for page in 0..20 {
        let pods = (page * 250..(page + 1) * 250).map(|number| {
            let ip = format!("198.18.{}.{}", number / 250, number % 250);
            let pod = pod(&format!("web-7d9f8c-{number:05}"), "one", &ip);
            pod_of(&with(
                pod,
                "/metadata/managedFields",
                json!(vec!["fields"; 100]),
            ))
        });
        for pod in pods {
            book.tell(Told::Is(pod));
        }
    }
    for number in 0..1000 {
        let ip = format!("198.19.{}.{}", number / 250, number % 250);
        let name = format!("service-{number}");
        book.tell(Told::Is(service_of(&service(&name, &ip))));
        let behind: Vec<_> = (0..5)
            .map(|pod| format!("web-7d9f8c-{:05}", number * 5 + pod))
            .collect();
        let behind: Vec<_> = behind.iter().map(String::as_str).collect();
        book.tell(Told::Is(slice_of(&slice(&name, &behind))));
    }
    let taken = resident() - before;
    eprintln!("5,000 pods and 1,000 services take {} KiB", taken / 1024);
    assert!(taken < 16 << 20, "{taken} bytes");
}
