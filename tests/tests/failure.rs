//! What happens while no sidecar serves: closed unless somebody has said otherwise, and never open
//! where the mode is strict. That everything is closed by default stands in `faults.rs`.

use sidecar_tests::{App, Behaviour, Pods, SECRET};

const INBOUND_OPEN: &[&str] = &["--inbound-failure", "open"];
const OUTBOUND_OPEN: &[&str] = &["--outbound-failure", "open"];

#[test]
fn a_client_that_fails_open_goes_on_in_plaintext_and_that_is_counted() {
    let mut pods = Pods::client_meshed(OUTBOUND_OPEN);
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.client.kill_sidecar();
    let capture = pods.client.capture();
    for address in [pods.server.v4().into(), pods.server.v6().into()] {
        let address: std::net::IpAddr = address;
        assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
    }
    capture.finish().assert_plaintext(&[SECRET]);
    app.sessions_when(2);
    assert_eq!(pods.client.kernel_events("outbound_failed_open"), 2);
}

#[test]
fn a_server_that_fails_open_goes_on_in_plaintext_and_that_is_counted() {
    let mut pods = Pods::server_meshed(INBOUND_OPEN);
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.server.kill_sidecar();
    let capture = pods.client.capture();
    for address in [pods.server.v4().into(), pods.server.v6().into()] {
        let address: std::net::IpAddr = address;
        assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
    }
    capture.finish().assert_plaintext(&[SECRET]);
    let session = &app.sessions_when(2)[0];
    assert_eq!(session.peer.ip().to_canonical(), pods.client.v4());
    assert_eq!(pods.server.kernel_events("inbound_failed_open"), 2);
}

#[test]
fn one_direction_that_fails_open_leaves_the_other_closed() {
    let mut pods = Pods::meshed_with(INBOUND_OPEN, OUTBOUND_OPEN);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.client.kill_sidecar();
    pods.server.kill_sidecar();
    let outcome = pods.client.converse(pods.server.v4(), 8080, SECRET);
    assert_eq!(outcome, "refused");
    pods.client.sidecar_command("cleanup").succeed();
    let outcome = pods.client.converse(pods.server.v4(), 8080, SECRET);
    assert_eq!(outcome, "refused");
    for pod in [&pods.client, &pods.server] {
        assert_eq!(pod.kernel_events("inbound_failed_open"), 0);
        assert_eq!(pod.kernel_events("outbound_failed_open"), 0);
    }
}

#[test]
fn what_is_strict_stays_closed_in_a_client_that_fails_open() {
    let strict = ["--override", "outbound,port=8080,mode=strict"];
    let mut pods = Pods::client_meshed(&[OUTBOUND_OPEN, &strict].concat());
    let apps = [8080, 8081].map(|port| App::start(&pods.server, Behaviour::Echo, port));
    pods.client.kill_sidecar();
    let outcomes = [8080, 8081].map(|port| pods.client.converse(pods.server.v4(), port, SECRET));
    assert_eq!(outcomes, ["refused", SECRET]);
    assert_eq!(apps[0].sessions(), []);
    assert_eq!(pods.client.kernel_events("outbound_failed_open"), 1);
}

#[test]
fn what_is_strict_stays_closed_in_a_server_that_fails_open() {
    let strict = ["--override", "inbound,port=8080,mode=strict"];
    let mut pods = Pods::server_meshed(&[INBOUND_OPEN, &strict].concat());
    let apps = [8080, 8081].map(|port| App::start(&pods.server, Behaviour::Echo, port));
    pods.server.kill_sidecar();
    let outcomes = [8080, 8081].map(|port| pods.client.converse(pods.server.v4(), port, SECRET));
    assert_eq!(outcomes, ["refused", SECRET]);
    assert_eq!(apps[0].sessions(), []);
    assert_eq!(pods.server.kernel_events("inbound_failed_open"), 1);
}

#[test]
fn while_it_serves_a_sidecar_that_fails_open_uses_tls_like_any_other() {
    let pods = Pods::meshed_with(OUTBOUND_OPEN, INBOUND_OPEN);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
}
