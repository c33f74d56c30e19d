//! What something between the pods does to the mesh option, and what becomes of the connection.

use std::net::IpAddr;

use sidecar_tests::{
    App, Behaviour, EveryMode, Pods, Program, SECRET, app::GREETING, fates::WITHOUT_OPTION,
};

/// Puts zeros in place of all but kind and length, of the experiment, and of version and flags.
const SPOIL: [&str; 3] = [
    "tcp option @253,16,32 set 0",
    "tcp option @253,16,16 set 0",
    "tcp option @253,32,16 set 0",
];

/// Drops every segment that carries it.
const DROP: &str = "tcp option 253 exists drop";

/// Two pods with sidecars that have these flags, with a router between them.
fn meshed(client: &[&str], server: &[&str]) -> Pods {
    let mut pods = Pods::routed();
    pods.mesh(Some(client), Some(server));
    pods
}

/// Has the router do this to what it passes on, and nothing else that it was told before.
fn meddle(pods: &Pods, rule: &str) {
    pods.network.nft(&format!(
        "flush ruleset
        table inet middlebox {{
            chain forward {{
                type filter hook forward priority 0
                {rule}
            }}
        }}"
    ));
}

/// Has the router take the option out of what it passes on, so far as it matches.
fn strip(pods: &Pods, matches: &[&str]) {
    for program in ["/usr/sbin/iptables", "/usr/sbin/ip6tables"] {
        Program::new(pods.network.sandbox(), program)
            .args(["-t", "mangle", "-A", "FORWARD", "-p", "tcp"])
            .args(matches)
            .args(["-j", "TCPOPTSTRIP", "--strip-options", "253"])
            .succeed();
    }
}

#[test]
fn a_stripped_option_means_plaintext_for_permissive_pods() {
    let pods = meshed(&[], &[]);
    strip(&pods, &[]);
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
    let pods = meshed(&strict, &strict);
    strip(&pods, &[]);
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
fn a_stripped_option_never_makes_a_strict_pod_speak_plaintext() {
    let every = EveryMode::mesh(Pods::routed());
    strip(&every.pods, &[]);
    for address in [
        every.pods.server.v4().into(),
        IpAddr::from(every.pods.server.v6()),
    ] {
        every.assert_fates(address, &WITHOUT_OPTION);
    }
}

#[test]
fn a_spoilt_option_is_none() {
    let every = EveryMode::mesh(Pods::routed());
    for rule in SPOIL {
        meddle(&every.pods, rule);
        every.assert_fates(every.pods.server.v4(), &WITHOUT_OPTION);
    }
}

#[test]
fn a_dropped_option_never_makes_a_strict_pod_speak_plaintext() {
    let every = EveryMode::mesh(Pods::routed());
    meddle(&every.pods, DROP);
    every.assert_fates(every.pods.server.v4(), &WITHOUT_OPTION);
}

/// What becomes of a connection whose answer alone has lost the option.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It is mutual TLS all the same.
    Mutual,
    /// It fails, and the server's app hears nothing of what the client said.
    Refused,
}

#[test]
fn an_option_stripped_from_the_answer_alone_is_never_a_way_to_plaintext() {
    // The server has seen the option and insists on TLS; only a strict client still speaks it.
    for (mode, fate) in [("permissive", Fate::Refused), ("strict", Fate::Mutual)] {
        let pods = meshed(&["--outbound", mode], &["--inbound", mode]);
        strip(&pods, &["--sport", "8080"]);
        assert_fate(&pods, fate, mode);
    }
}

#[test]
fn a_server_whose_answer_is_dropped_is_a_connect_timeout() {
    let pods = meshed(&[], &[]);
    meddle(&pods, &format!("tcp sport 8080 {DROP}"));
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.server.capture();
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, SECRET),
        "reset"
    );
    let failures = pods.client.sidecar().failures("outbound", 1);
    assert_eq!(failures[0].close, "connect_timeout");
    // The server has heard the first SYN, and answers that, whatever comes later.
    let wire = capture.finish();
    let stream = wire.only_stream();
    assert_eq!(stream.offers[..4], [true, true, true, false]);
    assert!(stream.answers.iter().all(|answer| *answer), "{stream:?}");
}

#[test]
fn a_client_that_shows_the_option_once_is_known_by_its_first_bytes_after_a_syn_cookie() {
    // As sidecars did that knew no flags of the option: it is in the SYN alone.
    for mode in ["permissive", "strict"] {
        let pods = meshed(&["--outbound", mode], &["--inbound", mode]);
        let namespace = pods.server.sandbox().namespace();
        namespace.sysctl("net/ipv4/tcp_syncookies", "2");
        strip(&pods, &["--dport", "8080", "!", "--syn"]);
        assert_fate(&pods, Fate::Mutual, mode);
        assert_ne!(namespace.counter("SyncookiesRecv"), 0);
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
        // A client that may speak plaintext has done so, but no app has heard it.
        Fate::Refused => {
            assert_ne!(outcome, SECRET, "{what}");
            let dialled = pods.server.sidecar().kernel_events("inbound_dialled_app");
            assert_eq!(dialled, 0, "{what}");
            let stream = wire.only_stream();
            assert!(!stream.received.contains(SECRET.as_bytes()), "{what}");
            let outbound = pods.client.sidecar().only_connection("outbound");
            assert_eq!(
                (&*outbound.tls, &*outbound.close),
                ("no_peer_option", "server_reset"),
                "{what}"
            );
            let failures = pods.server.sidecar().failures("inbound", 1);
            assert_eq!(failures[0].close, "handshake_not_tls", "{what}");
        }
    }
}

#[test]
fn a_middlebox_that_drops_the_option_does_not_cut_the_pods_off() {
    let pods = meshed(&[], &[]);
    meddle(&pods, DROP);
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
