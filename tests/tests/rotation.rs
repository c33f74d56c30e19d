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
        let stop = pods.client.sandbox().directory().join(name);
        let snippet = "import os, time\n\
                       sock = dial(sys.argv[1], 8080)\n\
                       while not os.path.exists(sys.argv[2]):\n\
                       \x20   sock.sendall(b'ping\\n')\n\
                       \x20   outcome = ending(sock)\n\
                       \x20   print(outcome, flush=True)\n\
                       \x20   if outcome != 'ping': break\n\
                       \x20   time.sleep(0.01)\n";
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
    fn is_reset(mut self) {
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

    let open = Conversation::begin(&pods, "stop");
    let renewed = ca.issue("spiffe://sidecar.local/new/server", "1h");
    assert_eq!(renewed.certificate, server.certificate);
    let metrics = pods
        .server
        .sidecar()
        .metrics_when(|metrics| metrics.count("sidecar_identity_rotations_total", &[]) == 1);
    assert_eq!(metrics.count("sidecar_identity_failures_total", &[]), 0);
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
    let unready = (503, "no identity yet\n".to_owned());
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
