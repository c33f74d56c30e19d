//! Secure naming: a node's agent holds servers to what the cluster says of their addresses.

use serde_json::{Value, json};
use sidecar_tests::{
    App, Behaviour, Pod, SECRET,
    node::{Agent, Driver, Node, NodePod},
    wait,
};

/// The port of the app.
const PORT: u16 = 8080;
/// The port of the service.
const SERVICE_PORT: u16 = 80;
/// The address of the service, which no pod has.
const CLUSTER_IP: &str = "198.19.0.10";

/// A node with a client that its agent has captured, and a server that has a sidecar of its own, with
/// the identity of the service account `till`.
///
/// Dropped in this order, so that the node outlives what is on it.
struct Shop {
    _app: App,
    agent: Agent,
    till: Pod,
    client: NodePod,
    node: Node,
}

impl Shop {
    /// The client has these annotations.
    fn open(annotations: &[(&str, &str)]) -> Self {
        let node = Node::new();
        let client = node.start_pod("client", Driver::Systemd);
        node.enrol(&client, annotations);
        let mut till = Pod::new(&node.network, "till", 200);
        till.mesh(&node.dev_ca(), &[]);
        till.wait_until_ready();
        let app = App::start(&till, Behaviour::Echo, PORT);
        let mut agent = node.agent(&[]);
        agent.wait_for(&client);
        Self {
            node,
            client,
            till,
            agent,
            _app: app,
        }
    }

    /// Tells the API which service account the pod at the server's address has.
    fn says_that_the_till_is(&self, name: &str, account: &str) {
        self.node.api.put(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "namespace": "default", "uid": format!("uid-of-{name}")},
            "spec": {"nodeName": "node-2", "serviceAccountName": account, "containers": []},
            "status": {
                "phase": "Running",
                "podIP": self.till.v4(),
                "podIPs": [{"ip": self.till.v4()}, {"ip": self.till.v6()}],
            },
        }));
    }

    /// Gives the pod of this name a service, whose address leads to it as by kube-proxy.
    fn has_a_service(&self, pod: &str) {
        self.node.api.put(json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": "payments", "namespace": "default"},
            "spec": {
                "clusterIP": CLUSTER_IP,
                "clusterIPs": [CLUSTER_IP],
                "selector": {"app": pod},
                "ports": [{"name": "http", "port": SERVICE_PORT, "targetPort": PORT, "protocol": "TCP"}],
            },
        }));
        self.node.api.put(json!({
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": "payments-1",
                "namespace": "default",
                "labels": {"kubernetes.io/service-name": "payments"},
            },
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": PORT, "protocol": "TCP"}],
            "endpoints": [{
                "addresses": [self.till.v4()],
                "conditions": {"ready": true},
                "targetRef": {
                    "kind": "Pod", "name": pod, "namespace": "default", "uid": format!("uid-of-{pod}"),
                },
            }],
        }));
        let client = &self.client.pod;
        client
            .program("/usr/sbin/ip")
            .args(["route", "add", "198.19.0.0/24", "dev", "eth0"])
            .succeed();
        let rules = format!(
            "table ip proxy {{\n chain output {{\n type nat hook output priority -100;\n \
             ip daddr {CLUSTER_IP} tcp dport {SERVICE_PORT} dnat to {}:{PORT}\n }}\n}}\n",
            self.till.v4()
        );
        client
            .program("/usr/sbin/nft")
            .args(["-f", "-"])
            .stdin(&rules)
            .succeed();
    }

    /// What the client hears from the server at its own address.
    fn hears(&self) -> String {
        self.client.pod.converse(self.till.v4(), PORT, SECRET)
    }

    /// What it hears at that of the service.
    fn hears_of_the_service(&self) -> String {
        let address: std::net::IpAddr = CLUSTER_IP.parse().expect("an address");
        self.client.pod.converse(address, SERVICE_PORT, SECRET)
    }

    /// How often servers were found to be others than they should, by what came of it.
    fn misnamed(&self, outcome: &str) -> Value {
        let (_, page) = self.agent.request("/metrics").expect("an agent");
        let line = page.lines().find(|line| {
            line.starts_with("sidecar_peers_misnamed_total")
                && line.contains(&format!("outcome=\"{outcome}\""))
        });
        let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        json!(count.unwrap_or_default())
    }
}

#[test]
fn under_strict_a_server_that_is_not_who_the_cluster_says_is_refused() {
    let shop = Shop::open(&[("sidecar.mesh/outbound", "strict")]);
    // Of an address that nobody knows, nothing is expected.
    assert_eq!(shop.hears(), SECRET);
    shop.says_that_the_till_is("bank", "bank");
    wait::until("it is refused", || shop.hears() == "reset");
    let failed = shop
        .agent
        .connection(|entry| entry.close == "peer_misnamed");
    assert_eq!(failed.naming.as_deref(), Some("peer_misnamed"));
    let reason = failed.reason.as_deref().unwrap_or_default();
    assert!(
        reason.contains("/sa/till") && reason.contains("/sa/bank"),
        "{reason}"
    );
    assert_ne!(shop.misnamed("refused"), 0);

    // The address goes to a pod of another service account.
    shop.node
        .api
        .delete(sidecar_tests::kube_api::PODS, "default", "bank");
    shop.says_that_the_till_is("till", "till");
    wait::until("it is let through", || shop.hears() == SECRET);
    let told = shop.agent.connection(|entry| {
        entry.direction == "outbound" && entry.peer_workload.as_deref() == Some("pod/till")
    });
    assert_eq!(told.tls, "mutual");
    assert_eq!(told.peer_namespace.as_deref(), Some("default"));
}

#[test]
fn otherwise_such_a_server_is_reported() {
    let shop = Shop::open(&[]);
    shop.says_that_the_till_is("bank", "bank");
    wait::until("it is known", || {
        assert_eq!(shop.hears(), SECRET);
        shop.misnamed("reported") != 0
    });
    assert_eq!(shop.misnamed("refused"), 0);
}

#[test]
fn behind_a_services_address_is_whoever_its_endpoints_are() {
    let shop = Shop::open(&[("sidecar.mesh/outbound", "strict")]);
    shop.says_that_the_till_is("till", "till");
    shop.has_a_service("till");
    wait::until("it is let through, by its name", || {
        assert_eq!(shop.hears_of_the_service(), SECRET);
        let connections = shop.agent.connections();
        connections
            .iter()
            .any(|entry| entry.peer_service.as_deref() == Some("payments"))
    });
    // What answers there is the same; the cluster says it should be another.
    shop.says_that_the_till_is("till", "bank");
    wait::until("it is refused", || shop.hears_of_the_service() == "reset");
    assert_ne!(shop.misnamed("refused"), 0);
}
