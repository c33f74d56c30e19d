//! A kubelet, which asks from the node and in plaintext whether apps live, and pods that are strict.

use sidecar_tests::{App, Behaviour, Network, Pods, Program, SECRET, app::GREETING, servers};

/// What curl exits with where the connection is refused.
const REFUSED: i32 = 7;
/// The same where it is reset before there is an answer.
const RESET: i32 = 56;

/// Flags of a pod that is strict both ways, and lets the node probe these ports.
fn strict<'a>(ports: &'a str, source: &'a str) -> [&'a str; 10] {
    [
        "--inbound",
        "strict",
        "--outbound",
        "strict",
        "--handshake-timeout",
        "1s",
        "--probe-ports",
        ports,
        "--probe-sources",
        source,
    ]
}

/// A program on the node, whose address is that of the bridge.
fn on_node<'a>(pods: &'a Pods, program: &str) -> Program<'a> {
    Program::new(pods.network.sandbox(), program)
}

fn url(pods: &Pods, port: u16) -> String {
    format!("http://{}:{port}/", pods.server.v4())
}

/// A client of HTTP that says what it gets or why it gets nothing.
fn ask(curl: Program<'_>, url: &str) -> Result<String, i32> {
    let output = curl
        .args(["-sS", "--max-time", "10", "--noproxy", "*", url])
        .run();
    match output.status.code() {
        Some(0) => Ok(output.stdout),
        code => Err(code.expect("curl exits")),
    }
}

/// What a server that speaks first says to the node.
fn hear(pods: &Pods, port: u16) -> String {
    let script = format!(
        "exec 3<>/dev/tcp/{}/{port} && head -c {} <&3",
        pods.server.v4(),
        GREETING.len()
    );
    on_node(pods, "bash").args(["-c", &script]).succeed()
}

#[test]
fn the_node_probes_a_strict_pod_and_nobody_else_reaches_it_in_plaintext() {
    let node = Network::V4.to_string();
    let pods = Pods::server_meshed(&strict("8080", &node));
    let nginx = servers::nginx(&pods.server, 8080, SECRET);
    let other = App::start(&pods.server, Behaviour::Echo, 8082);
    let counted = || pods.server.sidecar().kernel_events("inbound_probe");
    let curl = || on_node(&pods, "curl");

    assert_eq!(ask(curl(), &url(&pods, 8080)), Ok(SECRET.to_owned()));
    assert_eq!(counted(), 1);
    assert_eq!(pods.server.sidecar().connections(), []);
    // What answers is the app itself, which sees whom it always saw.
    let seen = nginx.stdout();
    assert!(seen.contains(&format!("{node}:")), "{seen}");

    // Another host, on the same port.
    let elsewhere = pods.client.program("curl");
    assert_eq!(ask(elsewhere, &url(&pods, 8080)), Err(RESET));
    // The same host, on another port.
    assert_eq!(ask(curl(), &url(&pods, 8082)), Err(RESET));
    let refused = pods.server.sidecar().failures("inbound", 2);
    assert!(
        refused
            .iter()
            .all(|failed| failed.close == "plaintext_refused")
    );
    assert_eq!(other.sessions(), []);
    assert_eq!(counted(), 1);
}

#[test]
fn a_probe_of_a_dead_app_fails() {
    let node = Network::V4.to_string();
    let pods = Pods::server_meshed(&strict("8080", &node));
    let curl = || on_node(&pods, "curl");
    assert_eq!(ask(curl(), &url(&pods, 8080)), Err(REFUSED));
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    assert_eq!(hear(&pods, 8080), GREETING);
    drop(app);
    assert_eq!(ask(curl(), &url(&pods, 8080)), Err(REFUSED));
    assert_eq!(pods.server.sidecar().kernel_events("inbound_probe"), 1);
    assert_eq!(
        pods.server.sidecar().kernel_events("inbound_not_listening"),
        2
    );
}

#[test]
fn an_app_that_speaks_first_is_probed_by_tcp() {
    let node = Network::V4.to_string();
    let pods = Pods::server_meshed(&strict("3306", &node));
    let _app = App::start(&pods.server, Behaviour::Greet, 3306);
    let heard = hear(&pods, 3306);
    assert_eq!(heard, GREETING);
    assert_eq!(pods.server.sidecar().kernel_events("inbound_probe"), 1);
    assert_eq!(pods.server.sidecar().kernel_events("dropped_past_proxy"), 0);
}

#[test]
fn probes_over_ipv6_pass_too() {
    let pods = Pods::server_meshed(&strict("8080", "fd00:5ca::1"));
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let heard = pods.client.converse(pods.server.v6(), 8080, "");
    assert_eq!(heard, GREETING);
    // The same host by its other address is somebody else.
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), "reset");
    assert_eq!(pods.server.sidecar().kernel_events("inbound_probe"), 1);
}

#[test]
fn nobody_probes_without_a_source() {
    let pods = Pods::server_meshed(&[
        "--inbound",
        "strict",
        "--handshake-timeout",
        "1s",
        "--probe-ports",
        "8080",
    ]);
    let _nginx = servers::nginx(&pods.server, 8080, SECRET);
    let curl = on_node(&pods, "curl");
    assert_eq!(ask(curl, &url(&pods, 8080)), Err(RESET));
    assert_eq!(pods.server.sidecar().kernel_events("inbound_probe"), 0);
}

#[test]
fn probes_pass_while_no_sidecar_serves_and_nothing_else_does() {
    let node = Network::V4.to_string();
    let mut pods = Pods::server_meshed(&strict("8080", &node));
    let _nginx = servers::nginx(&pods.server, 8080, SECRET);
    pods.server.kill_sidecar();
    let curl = on_node(&pods, "curl");
    assert_eq!(ask(curl, &url(&pods, 8080)), Ok(SECRET.to_owned()));
    let elsewhere = pods.client.program("curl");
    assert_eq!(ask(elsewhere, &url(&pods, 8080)), Err(REFUSED));
    assert_eq!(pods.server.kernel_events("inbound_probe"), 1);
}
