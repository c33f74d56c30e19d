//! Certificates from files, and those that a peer must refuse.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use sidecar_tests::{
    App, Behaviour, Pods, SECRET,
    svid::{Ca, Svid},
};

#[test]
fn certificates_from_files_work_and_keys_are_private() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let (client, server) = {
        let ca = Ca::new(&pods.server, "sidecar.local");
        (
            ca.issue(&pods.client.identity(), "24h"),
            ca.issue(&pods.server.identity(), "24h"),
        )
    };
    for svid in [&client, &server] {
        let mode = fs::metadata(&svid.key)
            .expect("the key is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    pods.client.mesh_with(&client.flags());
    pods.server.mesh_with(&server.flags());
    let snippet = "print(read_line(dial(sys.argv[1], 8080)))";
    pods.client
        .snippet(snippet)
        .arg(pods.server.v4().to_string())
        .succeed();
    pods.mutual_connection(8080);
}

#[test]
fn a_wrong_file_is_named_and_waited_for() {
    let mut pods = Pods::plain();
    let ca = Ca::new(&pods.server, "sidecar.local");
    let pod = &mut pods.client;
    let good = ca.issue("spiffe://sidecar.local/good", "1h");
    let other = ca.issue("spiffe://sidecar.local/other", "1h");
    let garbage = pod.sandbox().file("garbage.pem", "not a certificate\n");
    let missing = PathBuf::from("/no/such/file.pem");
    let cases = [
        (
            Svid {
                certificate: missing.clone(),
                ..good.clone()
            },
            &missing,
        ),
        (
            Svid {
                certificate: garbage.clone(),
                ..good.clone()
            },
            &garbage,
        ),
        (
            Svid {
                key: missing.clone(),
                ..good.clone()
            },
            &missing,
        ),
        (
            Svid {
                key: garbage.clone(),
                ..good.clone()
            },
            &garbage,
        ),
        (
            Svid {
                key: other.key.clone(),
                ..good.clone()
            },
            &other.key,
        ),
        (
            Svid {
                bundle: missing.clone(),
                ..good.clone()
            },
            &missing,
        ),
        (
            Svid {
                bundle: garbage.clone(),
                ..good.clone()
            },
            &garbage,
        ),
    ];
    for (svid, wrong) in &cases {
        pod.start_sidecar(&svid.flags());
        let wrong = wrong.to_str().expect("the names are ASCII");
        pod.sidecar().logs(&[wrong, "the workload has no identity"]);
        let unready = (503, "awaiting_identity\n".to_owned());
        assert_eq!(pod.sidecar().readiness(), unready);
        pod.stop_sidecar();
    }
}

#[test]
fn what_can_never_be_an_identity_is_refused_and_nothing_is_attached() {
    let pods = Pods::plain();
    let pod = &pods.client;
    let good = Ca::new(pod, "sidecar.local").issue("spiffe://sidecar.local/good", "1h");
    let [flag, certificate, ..] = good.flags();
    let output = pod.sidecar_run().args([flag, certificate]).run();
    output.assert_one_sentence(&["--key", "--trust-bundle"]);
    pod.assert_nothing_left();

    let directory = Svid {
        key: pod.sandbox().directory().to_owned(),
        ..good
    };
    let output = pod.sidecar_run().args(directory.flags()).run();
    output.assert_one_sentence(&[directory.flags()[3], "is a directory"]);
    pod.assert_nothing_left();
}

#[test]
fn an_expired_certificate_is_not_used() {
    let mut pods = Pods::plain();
    let svid = Ca::new(&pods.client, "sidecar.local").issue(&pods.client.identity(), "1s");
    // Its clock has whole seconds.
    thread::sleep(Duration::from_secs(2));
    pods.client.start_sidecar(&svid.flags());
    let sidecar = pods.client.sidecar();
    sidecar.logs(&["expired", svid.flags()[1], "the workload has no identity"]);
    assert_eq!(sidecar.readiness().0, 503);
}

#[test]
fn keys_are_never_logged() {
    let pods = Pods::meshed_with(&["--log", "trace"], &["--log", "trace"]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let snippet = "print(read_line(dial(sys.argv[1], 8080)))";
    pods.client
        .snippet(snippet)
        .arg(pods.server.v4().to_string())
        .succeed();
    pods.mutual_connection(8080);
    for pod in [&pods.client, &pods.server] {
        let log = pod.sidecar().log();
        assert!(
            !log.contains("PRIVATE KEY") && !log.contains("Secret("),
            "{log}"
        );
    }
}

#[test]
fn a_peer_of_another_authority_is_refused_by_both() {
    let mut pods = Pods::plain();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let [client, server] = [&pods.client, &pods.server]
        .map(|pod| Ca::new(pod, "sidecar.local").issue(&pod.identity(), "1h"));
    assert_refused(&mut pods, &app, "peer_untrusted", [&client, &server]);
}

#[test]
fn a_peer_of_another_trust_domain_is_refused_even_if_its_authority_is_known() {
    let mut pods = Pods::plain();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let client = Ca::new(&pods.client, "one.example").issue("spiffe://one.example/client", "1h");
    let server = Ca::new(&pods.server, "two.example").issue("spiffe://two.example/server", "1h");
    client.trust(&server);
    server.trust(&client);
    assert_refused(&mut pods, &app, "peer_foreign", [&client, &server]);
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
    let unready = (503, "identity_expired\n".to_owned());
    assert_eq!(pods.server.sidecar().readiness(), unready);
    pods.server
        .sidecar()
        .logs(&["the own certificate expired at", "peers refuse it"]);
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), "reset");
    let failed = pods.client.sidecar().failures("outbound", 1);
    assert_eq!(failed[0].close, "peer_certificate_expired");
    let log = pods.client.sidecar().log();
    assert!(log.contains("expired"), "{log}");
    assert!(!capture.finish().contains(SECRET));
    app.only_session();
}

/// Has both pods use these certificates, and checks that they do not talk.
#[track_caller]
fn assert_refused(pods: &mut Pods, app: &App, close: &str, svids: [&Svid; 2]) {
    for (pod, svid) in [&mut pods.client, &mut pods.server].into_iter().zip(svids) {
        pod.mesh_with(&svid.flags());
    }
    let capture = pods.client.capture();
    assert_eq!(ask(pods), "reset");
    let failed = pods.client.sidecar().failures("outbound", 1);
    assert_eq!(failed[0].close, close);
    pods.server.sidecar().failures("inbound", 1);
    let wire = capture.finish();
    assert!(wire.only_stream().is_meshed(), "the pods have not tried");
    assert!(!wire.contains(SECRET));
    assert_eq!(app.sessions(), []);
}

/// Has the client pod tell the server pod a secret, and returns what comes of it.
#[track_caller]
fn ask(pods: &Pods) -> String {
    pods.client.converse(pods.server.v4(), 8080, SECRET)
}
