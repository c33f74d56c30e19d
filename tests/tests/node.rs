//! Node mode: one agent captures and serves the pods of its node.

use sidecar_tests::{App, Behaviour, Driver, Node, NodePod, SECRET};

/// A client asks a server of another pod, and both sidecars agree that it was mutual TLS.
#[track_caller]
fn converse(client: &NodePod, server: &NodePod, port: u16) {
    let heard = client.pod.converse(server.pod.v4(), port, SECRET);
    assert_eq!(heard, SECRET);
}

#[test]
fn two_pods_of_a_node_talk_mutual_tls_and_see_each_others_true_address() {
    let node = Node::new();
    let client = node.start_pod("client", Driver::Cgroupfs);
    let server = node.start_pod("server", Driver::Systemd);
    node.enrol(&client, &[]);
    node.enrol(&server, &[]);
    let mut agent = node.agent(&[]);
    agent.wait_for(&client);
    agent.wait_for(&server);
    let app = App::start(&server.pod, Behaviour::Echo, 8080);
    let wire = server.pod.capture();
    converse(&client, &server, 8080);
    assert!(wire.finish().only_stream().is_tls());
    assert_eq!(app.only_session().peer.ip().to_canonical(), client.pod.v4());
    let inbound = agent.connection(|entry| entry.direction == "inbound");
    assert_eq!(inbound.tls, "mutual");
    assert_eq!(
        (inbound.own.as_deref(), inbound.peer.as_deref()),
        (
            Some("spiffe://sidecar.local/ns/default/sa/server"),
            Some("spiffe://sidecar.local/ns/default/sa/client")
        )
    );
}
