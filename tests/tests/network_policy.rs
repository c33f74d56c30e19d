//! What decides about packets by address and port decides about meshed connections as it would
//! without the mesh: they have the app's own port on the wire, and no other.

use std::net::IpAddr;

use sidecar_tests::{App, Behaviour, Pods, SECRET};

/// Lets through what a network policy allows: connections to one port, and what belongs to them.
/// Everything else is dropped, as such policies do.
fn allow_only(port: u16) -> String {
    format!(
        "table bridge network_policy
        delete table bridge network_policy
        table bridge network_policy {{
            chain forward {{
                type filter hook forward priority 0; policy drop;
                ether type arp accept
                icmpv6 type {{ nd-neighbor-solicit, nd-neighbor-advert }} accept
                tcp dport {port} accept
                tcp sport {port} accept
            }}
        }}"
    )
}

/// So that nothing passes in plaintext, and what is dropped is given up soon.
const STRICT: [&str; 6] = [
    "--inbound",
    "strict",
    "--outbound",
    "strict",
    "--connect-timeout",
    "2s",
];

#[test]
fn a_policy_that_allows_the_apps_port_alone_lets_meshed_connections_pass() {
    let pods = Pods::meshed_with(&STRICT, &STRICT);
    pods.network.nft(&allow_only(8080));
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let addresses: [IpAddr; 2] = [pods.server.v4().into(), pods.server.v6().into()];
    for address in addresses {
        let capture = pods.server.capture();
        assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
        let wire = capture.finish();
        let stream = wire.only_stream();
        assert!(stream.is_tls() && !wire.contains(SECRET));
        assert_eq!(stream.server, (address, 8080).into());
    }
}

#[test]
fn a_policy_that_does_not_allow_the_apps_port_keeps_meshed_connections_out() {
    let pods = Pods::meshed_with(&STRICT, &STRICT);
    pods.network.nft(&allow_only(8081));
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, SECRET),
        "reset"
    );
    let closed = pods.client.sidecar().only_connection("outbound");
    assert_eq!(closed.destination.port(), 8080);
    // It was the policy, and nothing else.
    pods.network.nft(&allow_only(8080));
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    assert_eq!(app.sessions_when(1).len(), 1);
}
