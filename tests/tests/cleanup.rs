//! The end of the sidecar itself, and what it leaves: nothing.
//!
//! That packet filters and routing rules stay untouched, that the exit code is 0 and that no pin
//! stays is checked at the end of every test with a meshed pod (see [`sidecar_tests::Pod`]).

use std::{fs, path::PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;
use sidecar_tests::{App, Behaviour, Pods, Process, SECRET, app::GREETING, wait};

/// Reads a greeting, waits for a line on a pipe, has that echoed, and waits for the end.
const CONVERSE: &str = r"
sock = dial(sys.argv[1], 8080)
print(read_line(sock))
with open(sys.argv[2]) as pipe:
    line = pipe.read()
if line:
    sock.sendall(line.encode())
    print(read_line(sock))
    sock.close()
else:
    print(ending(sock))
";

#[test]
fn after_the_sidecar_has_stopped_pods_talk_as_before_it_came() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    for pod in [&mut pods.client, &mut pods.server] {
        pod.assert_rules_untouched();
        pod.stop_sidecar();
    }
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    let wire = capture.finish();
    wire.assert_plaintext(&[SECRET]);
    assert!(!wire.only_stream().offers[0]);
    assert_eq!(
        app.only_session().peer.ip().to_canonical(),
        pods.client.v4()
    );
}

#[test]
fn connections_that_are_open_may_end_by_themselves() {
    let mut pods = Pods::meshed_with(&["--drain-timeout", "30s"], &["--drain-timeout", "30s"]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let (client, pipe) = converse(&pods);
    for pod in [&pods.client, &pods.server] {
        pod.sidecar().signal(Signal::SIGTERM);
    }
    fs::write(pipe, format!("{SECRET}\n")).expect("writing to the pipe");
    assert!(client.wait().success().stdout.contains(SECRET));
    assert_eq!(app.only_session().end, "eof");
    let (outbound, inbound) = pods.mutual_connection(8080);
    assert_eq!((&*outbound.close, &*inbound.close), ("eof", "eof"));
    for pod in [&mut pods.client, &mut pods.server] {
        pod.wait_for_sidecar();
    }
}

#[test]
fn connections_that_stay_open_are_cut_after_the_drain_timeout() {
    let mut pods = Pods::meshed_with(&["--drain-timeout", "200ms"], &[]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let (client, pipe) = converse(&pods);
    pods.client.sidecar().signal(Signal::SIGINT);
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(connection.close, "drained");
    pods.client.wait_for_sidecar();
    fs::write(pipe, "").expect("writing to the pipe");
    let output = client.wait().success();
    assert!(output.stdout.ends_with("reset\n"), "{output}");
}

#[test]
fn status_lists_what_is_loaded_until_it_is_gone() {
    let mut pods = Pods::server_meshed(&[]);
    let status = |pods: &Pods| pods.server.sidecar_command("status").succeed();
    for name in ["sc_connect4", "sc_sk_lookup", "sc_sock_ops"] {
        assert!(status(&pods).contains(name), "{name}: {}", status(&pods));
    }
    let json = pods.server.sidecar_command("status").args(["-o", "json"]);
    let json: Value = json.facts();
    assert!(json.to_string().contains("sc_sk_lookup"), "{json}");
    pods.server.stop_sidecar();
    assert!(!status(&pods).contains("sc_"), "{}", status(&pods));
}

#[test]
fn a_sidecar_can_come_and_go() {
    let mut pods = Pods::plain();
    let dev_ca = pods.dev_ca();
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    for turn in 1..=3 {
        pods.server.mesh(&dev_ca, &[]);
        pods.server.wait_until_ready();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
        pods.server.sidecar().only_connection("inbound");
        pods.server.stop_sidecar();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
        app.sessions_when(2 * turn);
    }
}

/// Starts a conversation that waits in its middle, and returns the pipe by which it is continued.
fn converse(pods: &Pods) -> (Process, PathBuf) {
    let pipe = pods.client.sandbox().directory().join("pipe");
    pods.client.program("mkfifo").arg(&pipe).succeed();
    let client = pods
        .client
        .snippet(CONVERSE)
        .arg(pods.server.v4().to_string())
        .arg(&pipe);
    let mut client = client.start();
    client.wait_for_stdout(GREETING);
    wait::until("the connection is listed", || {
        pods.client.sidecar().get("/connections").contains(":8080")
    });
    (client, pipe)
}
