//! `sidecar exec`: the quickest way to try it on one command.

use nix::sys::signal::Signal;
use sidecar_tests::{Pods, Program, SECRET, servers};

#[test]
fn exec_meshes_one_command() {
    let pods = Pods::server_meshed(&[]);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let capture = pods.server.capture();
    let url = format!("http://{}/", pods.server.v4());
    let page = exec(&pods).args(["--", "curl", "-sS", &url]).succeed();
    assert_eq!(page, SECRET);
    let connection = pods.server.sidecar().only_connection("inbound");
    assert_eq!(
        (&*connection.tls, connection.peer),
        ("mutual", Some(pods.client.identity()))
    );
    capture.finish().assert_encrypted(&[SECRET, "GET /"]);
    pods.client.assert_nothing_left();
}

#[test]
fn exec_meshes_a_server_too() {
    let pods = Pods::server_meshed(&[]);
    let command = ["--", "/usr/bin/python3", "-m", "http.server", "8080"];
    let mut server = exec(&pods).args(command).start();
    server.wait_for_listener(8080);
    let url = format!("http://{}:8080/", pods.client.v4());
    let capture = pods.server.capture();
    pods.server.program("curl").args(["-sS", &url]).succeed();
    let connection = pods.server.sidecar().only_connection("outbound");
    assert_eq!(connection.tls, "mutual");
    capture
        .finish()
        .assert_encrypted(&["GET /", "Directory listing"]);
    // A shell reports the signal that ended a command on top of 128.
    server.signal(Signal::SIGTERM);
    let _ = server.wait().code(128 + 15);
    pods.client.assert_nothing_left();
}

#[test]
fn exec_exits_with_the_commands_code() {
    let pods = Pods::plain();
    let output = exec(&pods).args(["--", "sh", "-c", "exit 7"]).run().code(7);
    assert_eq!(output.stdout, "");
    pods.client.assert_nothing_left();
}

#[test]
fn exec_says_which_command_it_did_not_find() {
    let pods = Pods::plain();
    let output = exec(&pods).args(["--", "no-such-command"]).run();
    output.assert_one_sentence(&["no-such-command"]);
    pods.client.assert_nothing_left();
}

#[test]
fn exec_does_not_confine_the_command() {
    let pods = Pods::plain();
    let command = [
        "grep",
        "-E",
        "^(CapEff|NoNewPrivs|Seccomp):",
        "/proc/self/status",
    ];
    let own = pods
        .client
        .program(command[0])
        .args(&command[1..])
        .succeed();
    let under_exec = exec(&pods).arg("--").args(command).succeed();
    assert_eq!(under_exec, own);
}

/// `sidecar exec` in the client pod, with the identity and the authority of the other pods.
fn exec(pods: &Pods) -> Program<'_> {
    let exec = pods
        .client
        .sidecar_command("exec")
        .arg("--dev-ca")
        .arg(pods.dev_ca());
    exec.args([
        "--identity",
        &pods.client.identity(),
        "--access-log",
        "off",
        "--log",
        "warn",
    ])
}
