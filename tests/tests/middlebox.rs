//! What something between the pods does to the mesh option, and what becomes of the connection.

use sidecar_tests::{App, Behaviour, Pods, app::GREETING};

/// A middlebox that takes the option out of SYNs.
const STRIP: &str = "
    table bridge middlebox {
        chain forward {
            type filter hook forward priority 0
            reset tcp option 253
        }
    }";

#[test]
fn a_stripped_option_means_plaintext_for_permissive_pods() {
    let pods = Pods::meshed();
    pods.network.nft(STRIP);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    let outbound = pods.client.sidecar().only_connection("outbound");
    let inbound = pods.server.sidecar().only_connection("inbound");
    assert_eq!(
        (&*outbound.tls, &*inbound.tls),
        ("no_peer_option", "no_peer_option")
    );
}

#[test]
fn a_stripped_option_does_not_downgrade_strict_pods() {
    let strict = ["--inbound", "strict", "--outbound", "strict"];
    let pods = Pods::meshed_with(&strict, &strict);
    pods.network.nft(STRIP);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let capture = pods.server.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    pods.mutual_connection(8080);
    let wire = capture.finish();
    let stream = wire.only_stream();
    assert_eq!((stream.is_meshed(), stream.is_tls()), (false, true));
    assert!(!wire.contains(GREETING));
}

#[test]
fn a_middlebox_that_drops_the_option_does_not_cut_the_pods_off() {
    let pods = Pods::meshed();
    pods.network.nft(
        "table bridge middlebox {
            chain forward {
                type filter hook forward priority 0
                tcp option 253 exists drop
            }
        }",
    );
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    let wire = capture.finish();
    let stream = wire.only_stream();
    assert_eq!(stream.offers, [true, true, true, false]);
    assert_eq!(pods.client.sidecar().kernel_events("option_left_out"), 1);
    assert_eq!(
        pods.client.sidecar().only_connection("outbound").tls,
        "no_peer_option"
    );
}
