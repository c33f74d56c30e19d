//! Identities and trust that change while connections are open.

use std::fs;

use sidecar_tests::{
    App, Behaviour, Pods, Process, SECRET,
    svid::{Ca, Svid},
    wait,
};

/// A connection of the client's app on which words go back and forth until [`Self::end`].
struct Conversation {
    /// The script.
    process: Process,
    /// The file whose presence ends it.
    stop: std::path::PathBuf,
}

impl Conversation {
    /// Connects to an app that echoes, and waits until the first words have come back.
    #[track_caller]
    fn begin(pods: &Pods, name: &str) -> Self {
        let snippet = "import os, time\n\
                       sock = dial(sys.argv[1], 8080)\n\
                       while not os.path.exists(sys.argv[2]):\n\
                       \x20   try:\n\
                       \x20       sock.sendall(b'ping\\n')\n\
                       \x20       outcome = ending(sock)\n\
                       \x20   except (BrokenPipeError, ConnectionResetError):\n\
                       \x20       outcome = 'reset'\n\
                       \x20   print(outcome, flush=True)\n\
                       \x20   if outcome != 'ping': break\n\
                       \x20   time.sleep(0.01)\n";
        Self::start(pods, name, snippet)
    }

    /// The same, with a new connection for each word.
    #[track_caller]
    fn begin_anew_each_time(pods: &Pods, name: &str) -> Self {
        let snippet = "import os\n\
                       while not os.path.exists(sys.argv[2]):\n\
                       \x20   outcome = converse(sys.argv[1], 8080, 'ping\\n')\n\
                       \x20   print(outcome, flush=True)\n\
                       \x20   if outcome != 'ping': break\n";
        Self::start(pods, name, snippet)
    }

    /// Runs a script that prints what comes back, until a file of this name is there.
    #[track_caller]
    fn start(pods: &Pods, name: &str, snippet: &str) -> Self {
        let stop = pods.client.sandbox().directory().join(name);
        let mut process = pods
            .client
            .snippet(snippet)
            .arg(pods.server.v4().to_string())
            .arg(&stop)
            .start();
        process.wait_for_stdout("ping");
        Self { process, stop }
    }

    /// Waits until more words have come back.
    #[track_caller]
    fn goes_on(&self) {
        let said = || self.process.stdout().lines().count();
        let before = said();
        wait::until("more words come back", || said() > before + 1);
    }

    /// Ends it, after nothing but echoes.
    #[track_caller]
    fn end(self) {
        fs::write(self.stop, "").expect("writing a file");
        let output = self.process.wait().success();
        assert!(output.stdout.lines().all(|line| line == "ping"), "{output}");
    }

    /// Waits until the other side has ended it by a reset.
    #[track_caller]
    fn ends_by_a_reset(mut self) {
        self.process.wait_for_stdout("reset");
    }
}

/// Has both pods use these certificates.
#[track_caller]
fn mesh(pods: &mut Pods, client: &[&str], server: &[&str]) {
    pods.client.mesh_with(client);
    pods.server.mesh_with(server);
}

/// Has the client pod tell the server pod a secret, and returns what comes of it.
#[track_caller]
fn ask(pods: &Pods) -> String {
    pods.client.converse(pods.server.v4(), 8080, SECRET)
}

#[test]
fn a_renewed_certificate_serves_new_connections_and_open_ones_live_on() {
    let mut pods = Pods::plain();
    let authority = pods.join("authority");
    let ca = Ca::new(&authority, "sidecar.local");
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let client = ca.issue(&pods.client.identity(), "1h");
    let server = ca.issue("spiffe://sidecar.local/old/server", "10m");
    mesh(&mut pods, &client.flags(), &server.flags());

    let soon = pods.server.sidecar().metrics();
    let soon = soon.sum("sidecar_certificate_expiry_timestamp_seconds", &[]) + 60.0;
    let open = Conversation::begin(&pods, "stop");
    let renewed = ca.issue("spiffe://sidecar.local/new/server", "1h");
    assert_eq!(renewed.certificate, server.certificate);
    let metrics = pods
        .server
        .sidecar()
        .metrics_when(|metrics| metrics.count("sidecar_identity_rotations_total", &[]) == 1);
    assert!(metrics.sum("sidecar_certificate_expiry_timestamp_seconds", &[]) > soon);
    open.goes_on();
    assert_eq!(ask(&pods), SECRET);
    open.end();

    let peer = |name: &str| Some(format!("spiffe://sidecar.local/{name}/server"));
    let sidecar = pods.client.sidecar();
    let short = sidecar.connection(|entry| entry.sent == SECRET.len() as u64);
    assert_eq!((short.peer, &*short.close), (peer("new"), "eof"));
    let long = sidecar.connection(|entry| entry.sent != SECRET.len() as u64);
    assert_eq!((long.peer, &*long.close), (peer("old"), "eof"));
    let inbound = pods.server.sidecar();
    let short = inbound.connection(|entry| entry.sent == SECRET.len() as u64);
    assert_eq!(short.own, peer("new"));
    let long = inbound.connection(|entry| entry.sent != SECRET.len() as u64);
    assert_eq!(long.own, peer("old"));
}

#[test]
fn a_connection_that_comes_before_the_certificate_waits_for_it() {
    let mut pods = Pods::plain();
    let authority = pods.join("authority");
    let ca = Ca::new(&authority, "sidecar.local");
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let client = ca.issue(&pods.client.identity(), "1h");
    let later = ca.issue(&pods.server.identity(), "1h");
    let place = pods.server.sandbox().directory();
    let there = Svid {
        certificate: place.join("tls.crt"),
        key: place.join("tls.key"),
        bundle: place.join("ca.crt"),
    };
    pods.client.mesh_with(&client.flags());
    pods.server.start_sidecar(&there.flags());
    let unready = (503, "awaiting_identity\n".to_owned());
    assert_eq!(pods.server.sidecar().readiness(), unready);

    let mut asking = pods
        .client
        .snippet("print(converse(sys.argv[1], 8080, sys.argv[2]), flush=True)")
        .args([&*pods.server.v4().to_string(), SECRET])
        .start();
    wait::until("the connection is held", || {
        pods.server
            .sidecar()
            .get("/connections")
            .contains("pending")
    });
    assert_eq!(asking.status(), None);

    // The certificate comes first, without its key: nothing to serve with yet.
    fs::copy(&later.certificate, &there.certificate).expect("copying");
    fs::copy(&later.bundle, &there.bundle).expect("copying");
    fs::copy(&later.key, &there.key).expect("copying");
    asking.wait_for_stdout(SECRET);
    pods.server.wait_until_ready();
    pods.mutual_connection(8080);
}

#[test]
fn a_root_is_replaced_without_a_failed_connection() {
    let mut pods = Pods::plain();
    let (first, second) = (pods.join("first"), pods.join("second"));
    let [old, new] = [&first, &second].map(|pod| Ca::new(pod, "sidecar.local"));
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let ids = [pods.client.identity(), pods.server.identity()];
    let olds = ids.each_ref().map(|id| old.issue(id, "1h"));
    let news = ids.each_ref().map(|id| new.issue(id, "2h"));
    mesh(&mut pods, &olds[0].flags(), &olds[1].flags());
    let open = Conversation::begin(&pods, "stop");
    let rounds = Conversation::begin_anew_each_time(&pods, "end");

    // Trust in both comes first, everywhere; then the certificates; then the old root goes.
    for svid in &olds {
        svid.trust(&news[0]);
    }
    for pod in [&pods.client, &pods.server] {
        pod.sidecar().logs(&["whom to trust has changed"]);
    }
    for (renewed, svid) in news.iter().zip(&olds) {
        let alone = fs::read(&renewed.bundle).expect("a bundle");
        renewed.trust(svid);
        renewed.replace(svid);
        fs::write(&renewed.bundle, alone).expect("writing a bundle");
        rounds.goes_on();
    }
    for pod in [&pods.client, &pods.server] {
        pod.sidecar()
            .metrics_when(|metrics| metrics.count("sidecar_identity_rotations_total", &[]) == 1);
    }
    rounds.goes_on();
    open.goes_on();
    open.end();
    for (renewed, svid) in news.iter().zip(&olds) {
        renewed.replace(svid);
    }
    for pod in [&pods.client, &pods.server] {
        wait::until("the old root is gone", || {
            let log = pod.sidecar().log();
            log.matches("whom to trust has changed").count() >= 2
        });
    }
    rounds.goes_on();
    rounds.end();
    for pod in [&pods.client, &pods.server] {
        let metrics = pod.sidecar().metrics();
        assert_eq!(metrics.count("sidecar_connections_failed_total", &[]), 0);
        let lost = [("close", "no_longer_trusted")];
        assert_eq!(metrics.count("sidecar_connections_closed_total", &lost), 0);
    }
}

#[test]
fn a_revoked_peer_loses_its_open_connections_and_gets_no_new_ones() {
    let mut pods = Pods::plain();
    let authority = pods.join("authority");
    let ca = Ca::new(&authority, "sidecar.local");
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let client = ca.issue(&pods.client.identity(), "1h");
    let server = ca.issue(&pods.server.identity(), "1h");
    let list = pods.server.sandbox().directory().join("crl.pem");
    ca.revoke(&[], &list);
    let crl = ["--crl", list.to_str().expect("the name is ASCII")];
    mesh(
        &mut pods,
        &client.flags(),
        &[&server.flags()[..], &crl].concat(),
    );
    let open = Conversation::begin(&pods, "stop");

    // One that is damaged takes nothing away, and gives nothing back.
    fs::write(&list, "-----BEGIN X509 CRL-----\nAAAA\n").expect("writing a file");
    let sidecar = pods.server.sidecar();
    sidecar.logs(&["crl.pem", "until then what it said before holds"]);
    let failures = [("source", "crl")];
    let metrics = sidecar.metrics();
    assert!(metrics.count("sidecar_identity_failures_total", &failures) > 0);
    open.goes_on();

    ca.revoke(&[&client.certificate], &list);
    open.ends_by_a_reset();
    let closed = sidecar.connection(|entry| entry.direction == "inbound");
    assert_eq!(closed.close, "no_longer_trusted");
    assert_eq!(closed.peer, Some(pods.client.identity()));
    sidecar.logs(&["no_longer_trusted", "is revoked by its authority"]);
    let labels = [("close", "no_longer_trusted"), ("direction", "inbound")];
    let metrics = sidecar.metrics();
    assert_eq!(
        metrics.count("sidecar_connections_closed_total", &labels),
        1
    );

    let wire = pods.client.capture();
    assert_eq!(ask(&pods), "reset");
    let refused = sidecar.connection(|entry| entry.close == "peer_certificate_revoked");
    assert_eq!((refused.sent, refused.received), (0, 0));
    assert!(!wire.finish().contains(SECRET));
}

#[test]
fn a_workload_of_a_federated_trust_domain_is_served() {
    let mut pods = Pods::plain();
    let authority = pods.join("authority");
    let ours = Ca::new(&authority, "one.example");
    let theirs = Ca::new(&authority, "two.example");
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let client = ours.issue("spiffe://one.example/client", "1h");
    let server = theirs.issue("spiffe://two.example/server", "1h");
    let federated = |domain: &str, svid: &Svid| format!("{domain}={}", svid.bundle.display());
    let (to_two, to_one) = (
        federated("two.example", &server),
        federated("one.example", &client),
    );
    mesh(
        &mut pods,
        &[&client.flags()[..], &["--federated-bundles", &to_two]].concat(),
        &[&server.flags()[..], &["--federated-bundles", &to_one]].concat(),
    );
    assert_eq!(ask(&pods), SECRET);
    let entry = pods.server.sidecar().only_connection("inbound");
    assert_eq!(entry.peer.as_deref(), Some("spiffe://one.example/client"));
    assert_eq!(entry.own.as_deref(), Some("spiffe://two.example/server"));
}

#[test]
fn an_agent_is_called_and_waited_for() {
    let mut pods = Pods::plain();
    let socket = pods.server.sandbox().directory().join("agent.sock");
    let endpoint = format!("unix:{}", socket.display());
    pods.client
        .start_sidecar(&["--workload-api", &endpoint, "--inbound", "strict"]);
    let sidecar = pods.client.sidecar();
    sidecar.logs(&["agent.sock", "check that the agent runs", "no identity"]);
    assert_eq!(sidecar.readiness(), (503, "awaiting_identity\n".to_owned()));

    // No agent, but enough of one to see that the confined sidecar gets there.
    let listen = "server = socket.socket(socket.AF_UNIX)\n\
                  server.bind(sys.argv[1])\n\
                  server.listen()\n\
                  print(read_line(server.accept()[0]), flush=True)\n";
    let mut agent = pods.server.snippet(listen).arg(&socket).start();
    agent.wait_for_stdout("PRI * HTTP/2.0");
}
