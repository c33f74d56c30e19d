//! What something between the pods does to the mesh option, and what becomes of the connection.

use sidecar_tests::{App, Behaviour, Pods, SECRET, app::GREETING};

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

/// What becomes of a connection whose option is lost.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is mutual TLS all the same.
    Mutual,
    /// The server hears the client in plaintext.
    Plain,
    /// It fails, and the server's app hears nothing of what the client said.
    Refused,
}

#[test]
fn a_stripped_option_never_makes_a_strict_pod_speak_plaintext() {
    use Fate::{Mutual, Plain, Refused};
    // By the mode of the client; in each row by that of the server.
    let fates = [
        ("off", [Plain, Plain, Refused]),
        ("permissive", [Plain, Plain, Refused]),
        ("strict", [Refused, Mutual, Mutual]),
    ];
    for (client, row) in fates {
        for (server, fate) in ["off", "permissive", "strict"].into_iter().zip(row) {
            let pods = Pods::meshed_with(&["--outbound", client], &["--inbound", server]);
            pods.network.nft(STRIP);
            assert_fate(&pods, fate, &format!("{client} client, {server} server"));
        }
    }
}

#[test]
fn an_option_stripped_from_the_answer_alone_is_never_a_way_to_plaintext() {
    // The server has seen the option and insists on TLS; only a strict client still speaks it.
    let strip = "
        table bridge middlebox {
            chain forward {
                type filter hook forward priority 0
                tcp sport 8080 reset tcp option 253
            }
        }";
    for (mode, fate) in [("permissive", Fate::Refused), ("strict", Fate::Mutual)] {
        let pods = Pods::meshed_with(&["--outbound", mode], &["--inbound", mode]);
        pods.network.nft(strip);
        assert_fate(&pods, fate, mode);
    }
}

/// Has the client tell the server a secret and checks what becomes of that.
#[track_caller]
fn assert_fate(pods: &Pods, fate: Fate, what: &str) {
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    let outcome = pods.client.converse(pods.server.v4(), 8080, SECRET);
    let wire = capture.finish();
    match fate {
        Fate::Mutual => {
            assert_eq!(outcome, SECRET, "{what}");
            pods.mutual_connection(8080);
            let stream = wire.only_stream();
            assert!(stream.is_tls() && !stream.contains(SECRET), "{what}");
        }
        Fate::Plain => {
            assert_eq!(outcome, SECRET, "{what}");
            wire.assert_plaintext(&[SECRET]);
        }
        // A client that may speak plaintext has done so, but no app has heard it.
        Fate::Refused => {
            assert_ne!(outcome, SECRET, "{what}");
            let dialled = pods.server.sidecar().kernel_events("inbound_dialled_app");
            assert_eq!(dialled, 0, "{what}");
            let stream = wire.only_stream();
            assert!(!stream.received.contains(SECRET.as_bytes()), "{what}");
        }
    }
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
