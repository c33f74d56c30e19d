//! Bad peers, bad certificates, a full file table, and the death of the proxy: an error that says
//! what happened, a counter, a connection that ends, and never a byte in plaintext.

use std::{
    fs,
    net::Ipv4Addr,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sidecar_tests::{
    App, Behaviour, Connection, Pod, Pods, Program, SECRET, Sidecar,
    app::GREETING,
    svid::{Ca, Svid},
    wait,
};

#[test]
fn without_its_sidecar_a_client_is_refused_and_sends_nothing() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    assert_eq!(ask(&pods), SECRET);
    pods.client.kill_sidecar();
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), "refused");
    assert_eq!(capture.finish().streams.len(), 0);
    app.only_session();
}

#[test]
fn without_its_sidecar_a_server_is_refused_and_hears_nothing() {
    for mut pods in [Pods::meshed(), Pods::server_meshed(&[])] {
        let app = App::start(&pods.server, Behaviour::Echo, 8080);
        assert_eq!(ask(&pods), SECRET);
        pods.server.kill_sidecar();
        let capture = pods.client.capture();
        let end = if pods.client.is_meshed() {
            "reset"
        } else {
            "refused"
        };
        assert_eq!(ask(&pods), end);
        let wire = capture.finish();
        assert!(!wire.only_stream().is_established() && !wire.contains(SECRET));
        app.only_session();
    }
}

/// Waits, after a greeting, for the end.
const WAIT: &str = "
sock = dial(sys.argv[1], 8080)
print(read_line(sock))
print(ending(sock))
";

#[test]
fn a_connection_that_is_cut_short_is_not_taken_for_a_whole_one() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let mut client = pods
        .client
        .snippet(WAIT)
        .arg(pods.server.v4().to_string())
        .start();
    client.wait_for_stdout(GREETING);
    // The kernel ends its connections with a FIN, which anybody on the way could have forged.
    pods.server.kill_sidecar();
    assert!(client.wait().success().stdout.ends_with("reset\n"));
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(connection.close, "server_reset");
    app.only_session();
}

#[test]
fn a_new_sidecar_takes_over_from_a_killed_one() {
    let mut pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let dev_ca = pods.dev_ca();
    for pod in [&mut pods.client, &mut pods.server] {
        pod.kill_sidecar();
        assert_ne!(pod.pins().len(), 0);
        pod.mesh(&dev_ca, &[]);
        pod.wait_until_ready();
    }
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), SECRET);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
}

#[test]
fn cleanup_frees_a_pod_from_a_killed_sidecar() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    for pod in [&mut pods.client, &mut pods.server] {
        pod.kill_sidecar();
        assert_ne!(pod.pins().len(), 0);
        pod.sidecar_command("cleanup").succeed();
        assert_eq!(pod.pins().len(), 0);
        pod.assert_rules_untouched();
    }
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), SECRET);
    capture.finish().assert_plaintext(&[SECRET]);
    assert_eq!(
        app.only_session().peer.ip().to_canonical(),
        pods.client.v4()
    );
}

/// An address of the plain pod that its kernel does not know of, for a peer made by hand.
const RAW: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 99);

/// What a peer may say in the place of a TLS handshake, in hexadecimal, and what that is called.
const GARBAGE: [(&str, &str); 4] = [
    ("no TLS", "474554202f20485454502f312e310d0a0d0a"),
    ("noise", "00ff00ff00ff00ff00ff00ff00ff00ff00ff"),
    ("a record that is too long", "160301ffff0100"),
    ("an alert", "15030300020228"),
];

#[test]
fn a_client_that_offers_the_mesh_and_speaks_garbage_is_refused() {
    let pods = Pods::server_meshed(&[]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    for (count, (what, garbage)) in (1..).zip(GARBAGE) {
        let seen = raw_client(&pods, garbage);
        assert_eq!(seen["meshed"], true, "{what}: the mesh was not accepted");
        assert!(!received(&seen).contains(GREETING), "{what}: {seen}");
        let failed = failures(pods.server.sidecar(), "inbound", count);
        assert_eq!(failed[count - 1].close, "handshake_failed", "{what}");
        assert_eq!(failed[count - 1].client.ip(), RAW);
    }
    assert_eq!(app.sessions(), []);
    // Neither has it hurt anybody else.
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
}

#[test]
fn a_client_that_offers_the_mesh_and_falls_silent_is_let_go() {
    let pods = Pods::server_meshed(&["--handshake-timeout", "500ms"]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let seen = raw_client(&pods, "");
    assert_eq!((&seen["meshed"], &*received(&seen)), (&json!(true), ""));
    let failed = failures(pods.server.sidecar(), "inbound", 1);
    assert_eq!(failed[0].close, "handshake_timeout");
    assert_eq!(app.sessions(), []);
}

#[test]
fn a_server_that_accepts_the_mesh_and_speaks_garbage_is_told_nothing() {
    let pods = Pods::client_meshed(&[]);
    make_neighbour(&pods.client, &pods.server);
    let capture = pods.client.capture();
    for (count, (what, garbage)) in (1..).zip(GARBAGE) {
        let mut server = raw_peer("server", &pods.server, &pods.client, garbage).start();
        server.wait_for_stdout("listening");
        assert_eq!(pods.client.converse(RAW, 8080, SECRET), "reset", "{what}");
        server.wait_for_stdout(r#""meshed": true"#);
        let failed = failures(pods.client.sidecar(), "outbound", count);
        assert_eq!(failed[count - 1].close, "handshake_failed", "{what}");
    }
    assert!(!capture.finish().contains(SECRET));
}

#[test]
fn a_peer_of_another_authority_is_refused_by_both() {
    let mut pods = Pods::plain();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let [client, server] = [&pods.client, &pods.server]
        .map(|pod| Ca::new(pod, "sidecar.local").issue(&pod.identity(), "1h"));
    assert_refused(&mut pods, &app, [&client, &server]);
}

#[test]
fn a_peer_of_another_trust_domain_is_refused_even_if_its_authority_is_known() {
    let mut pods = Pods::plain();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let client = Ca::new(&pods.client, "one.example").issue("spiffe://one.example/client", "1h");
    let server = Ca::new(&pods.server, "two.example").issue("spiffe://two.example/server", "1h");
    client.trust(&server);
    server.trust(&client);
    assert_refused(&mut pods, &app, [&client, &server]);
}

#[test]
fn an_expired_certificate_is_refused_by_the_peer() {
    const LIFETIME: Duration = Duration::from_secs(8);
    let mut pods = Pods::plain();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let ca = Ca::new(&pods.server, "sidecar.local");
    let client = ca.issue(&pods.client.identity(), "1h");
    let server = ca.issue(&pods.server.identity(), &format!("{}s", LIFETIME.as_secs()));
    let issued = Instant::now();
    pods.client.mesh_with(&client.flags());
    pods.server.mesh_with(&server.flags());
    assert_eq!(ask(&pods), SECRET);
    app.only_session();
    // The one thing here that only time brings about. Its clock has whole seconds.
    thread::sleep((LIFETIME + Duration::from_secs(1)).saturating_sub(issued.elapsed()));
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), "reset");
    let failed = failures(pods.client.sidecar(), "outbound", 1);
    assert_eq!(failed[0].close, "peer_identity");
    let log = pods.client.sidecar().log();
    assert!(log.contains("expired"), "{log}");
    assert!(!capture.finish().contains(SECRET));
    app.only_session();
}

/// Opens forty connections, keeps those that are answered, and tells how many these are.
const CROWD: &str = r#"
def join(crowd):
    try:
        sock = dial(sys.argv[1], 8080)
        sock.sendall(b"violet rhinoceros\n")
        read_line(sock)
        crowd.append(sock)
    except (OSError, EOFError):
        pass
crowd = []
for _ in range(40):
    join(crowd)
report(answered=len(crowd))
"#;

#[test]
fn a_full_file_table_of_the_client_refuses_connections_until_there_is_room() {
    let pods = Pods::meshed();
    assert_crowd_is_thinned(&pods, &pods.client, "outbound");
}

#[test]
fn a_full_file_table_of_the_server_refuses_connections_until_there_is_room() {
    let pods = Pods::meshed();
    assert_crowd_is_thinned(&pods, &pods.server, "inbound");
}

/// Checks that a pod with a nearly full file table serves as many clients as it can, refuses the
/// others, and serves again when they are gone.
#[track_caller]
fn assert_crowd_is_thinned(pods: &Pods, tight: &Pod, direction: &str) {
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    leave_descriptors(tight, 20);
    let seen: Value = pods
        .client
        .snippet(CROWD)
        .arg(pods.server.v4().to_string())
        .facts();
    let answered = seen["answered"].as_u64().expect("a count");
    assert!(
        (1..40).contains(&answered),
        "{answered} of 40 were answered"
    );
    let full = [("direction", direction), ("reason", "fd_limit")];
    tight
        .sidecar()
        .metrics_when(|metrics| metrics.count("sidecar_connections_failed_total", &full) > 0);
    assert_eq!(ask(pods), SECRET);
}

/// Limits the sidecar's file table to what it has open, and a few more.
fn leave_descriptors(pod: &Pod, more: usize) {
    let id = pod.sidecar().id();
    let open = fs::read_dir(format!("/proc/{id}/fd"))
        .expect("the sidecar runs")
        .count();
    let limit = format!("--nofile={0}:{0}", open + more);
    pod.program("/usr/bin/prlimit")
        .args(["--pid", &id.to_string(), &limit])
        .succeed();
}

/// Has both pods use these certificates, and checks that they do not talk.
#[track_caller]
fn assert_refused(pods: &mut Pods, app: &App, svids: [&Svid; 2]) {
    for (pod, svid) in [&mut pods.client, &mut pods.server].into_iter().zip(svids) {
        pod.mesh_with(&svid.flags());
    }
    let capture = pods.client.capture();
    assert_eq!(ask(pods), "reset");
    let failed = failures(pods.client.sidecar(), "outbound", 1);
    assert_eq!(failed[0].close, "peer_identity");
    failures(pods.server.sidecar(), "inbound", 1);
    let wire = capture.finish();
    assert!(wire.only_stream().is_meshed(), "the pods have not tried");
    assert!(!wire.contains(SECRET));
    assert_eq!(app.sessions(), []);
}

/// Waits until `count` connections have failed, and checks that they are logged and counted so.
#[track_caller]
fn failures(sidecar: &Sidecar, direction: &str, count: usize) -> Vec<Connection> {
    const ENDS: [&str; 4] = ["eof", "client_reset", "server_reset", "drained"];
    let logged = || {
        let entries = sidecar.connections().into_iter();
        entries
            .filter(|entry| !ENDS.contains(&&*entry.close))
            .collect::<Vec<_>>()
    };
    wait::until(format!("{count} failures are logged"), || {
        logged().len() >= count
    });
    let (logged, metrics) = (logged(), sidecar.metrics());
    assert_eq!(logged.len(), count, "{logged:#?}");
    for entry in &logged {
        assert_eq!((entry.direction.as_str(), entry.sent), (direction, 0));
        let labels = [("direction", direction), ("reason", &*entry.close)];
        assert_ne!(
            metrics.count("sidecar_connections_failed_total", &labels),
            0,
            "{entry:?}"
        );
    }
    assert_eq!(
        metrics.count("sidecar_connections_failed_total", &[]),
        count as u64
    );
    logged
}

/// Has the client pod tell the server pod a secret, and returns what comes of it.
#[track_caller]
fn ask(pods: &Pods) -> String {
    pods.client.converse(pods.server.v4(), 8080, SECRET)
}

/// Sends garbage from a peer made by hand in the client pod to the server pod.
fn raw_client(pods: &Pods, garbage: &str) -> Value {
    make_neighbour(&pods.server, &pods.client);
    raw_peer("client", &pods.client, &pods.server, garbage).facts()
}

/// A peer made by hand in one pod, that is about to talk to another.
fn raw_peer<'a>(role: &str, pod: &'a Pod, peer: &Pod, garbage: &str) -> Program<'a> {
    let addresses = [
        RAW.to_string(),
        peer.v4().to_string(),
        peer.hardware_address(),
    ];
    pod.script("raw_peer.py")
        .arg(role)
        .args(addresses)
        .args(["8080", garbage])
}

/// Tells a pod that the peer made by hand is in another pod.
fn make_neighbour(pod: &Pod, of: &Pod) {
    let hardware = of.hardware_address();
    pod.sandbox()
        .namespace()
        .ip(&format!("neigh replace {RAW} lladdr {hardware} dev eth0"));
}

/// The bytes that a peer made by hand has received, as text.
fn received(seen: &Value) -> String {
    let hex = seen["received"].as_str().expect("hexadecimal");
    let bytes = (0..hex.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&hex[at..at + 2], 16));
    bytes
        .map(|byte| char::from(byte.expect("hexadecimal")))
        .collect()
}
