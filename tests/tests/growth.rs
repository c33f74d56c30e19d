//! Many rules, many destinations, and many connections that say nothing.

use std::{fmt::Write as _, fs, net::Ipv4Addr, path::PathBuf, time::Duration};

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Pod, Pods, SECRET, Sidecar, servers, sidecar};

/// The settings of a client that leaves so many networks alone, of which the last one is an address of the
/// server's.
fn exclusions(pod: &Pod, count: u32, last: Ipv4Addr) -> PathBuf {
    let mut text = String::from("outbound: strict\nexclude-outbound-cidrs:\n");
    for number in 1..count {
        let network = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number * 16);
        let _ = writeln!(text, "- {network}/28");
    }
    let _ = writeln!(text, "- {last}");
    pod.sandbox().file("many-exclusions.yaml", text)
}

/// The settings of a server with so many rules that fit nobody, and one for its client behind them.
fn rules(pod: &Pod, count: u32) -> PathBuf {
    let mut text = String::from("authorization:\n  rules:\n");
    for number in 1..count {
        let _ = writeln!(
            text,
            "  - {{ name: no-{number}, action: allow, service-accounts: [no-{number}], ports: [8080] }}"
        );
    }
    text.push_str("  - { name: last, action: allow, service-accounts: [client], ports: [8080] }\n");
    pod.sandbox().file("many-rules.yaml", text)
}

#[test]
fn ten_thousand_exclusions_and_a_thousand_rules_are_kept() {
    const EXCLUDED: Ipv4Addr = Ipv4Addr::new(198, 18, 0, 32);
    let mut pods = Pods::plain();
    let namespace = pods.server.sandbox().namespace();
    namespace.ip(&format!("addr add {EXCLUDED}/24 dev eth0"));
    let _apps = [8080, 8081].map(|port| App::start(&pods.server, Behaviour::Echo, port));
    let client = exclusions(&pods.client, 10_000, EXCLUDED);
    let server = rules(&pods.server, 1_000);
    let config = |path: &PathBuf| ["--config", path.to_str().expect("ASCII")].map(str::to_owned);
    let (client, server) = (config(&client), config(&server));
    pods.mesh(
        Some(&client.each_ref().map(String::as_str)),
        Some(&server.each_ref().map(String::as_str)),
    );
    let Pods { client, server, .. } = &pods;
    assert_eq!(client.converse(server.v4(), 8080, SECRET), SECRET);
    let entry = server
        .sidecar()
        .connection(|entry| entry.destination.port() == 8080);
    assert_eq!(entry.rule.as_deref(), Some("last"));
    // Nobody may reach that port.
    assert_eq!(client.converse(server.v4(), 8081, SECRET), "reset");
    assert_eq!(client.sidecar().kernel_events("outbound_excluded_cidr"), 0);
    // In plaintext, past the client's sidecar, where the server's lets nobody in whom it does not know.
    assert_eq!(client.converse(EXCLUDED, 8080, SECRET), "reset");
    assert_eq!(client.sidecar().kernel_events("outbound_excluded_cidr"), 1);
}

#[test]
fn more_exclusions_than_the_kernel_side_has_room_for_are_refused_whole() {
    let pods = Pods::plain();
    let last = Ipv4Addr::new(198, 18, 0, 32);
    let file = exclusions(&pods.client, 20_000, last);
    let check = pods.client.program(sidecar::binary());
    let check = check.args(["policy", "check", "--config"]).arg(&file);
    check
        .run()
        .code(1)
        .assert_one_sentence(&["exclude-outbound-cidrs", "20000", "16384"]);
    let run = pods.client.sidecar_run().arg("--config").arg(&file);
    let output = run.run().code(1);
    output.assert_one_sentence(&["exclude-outbound-cidrs", "20000", "16384"]);
    pods.client.assert_nothing_left();
}

/// Connects to so many addresses, one after the other, and says how many have answered.
const TOUR: &str = r"
import ipaddress
first, answered = ipaddress.IPv4Address(sys.argv[1]), 0
for number in range(int(sys.argv[2])):
    with dial(str(first + number), sys.argv[3]) as sock:
        sock.sendall(b'question\n')
        sock.shutdown(socket.SHUT_WR)
        answered += read_line(sock) == 'question'
report(answered=answered)
";

#[test]
fn thousands_of_destinations_are_all_reached_and_do_not_stay_in_memory() {
    // More than wires are kept, peers are told apart, and than both together.
    const DESTINATIONS: u64 = 3_000;
    const FIRST: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);
    let pods = Pods::meshed();
    let namespace = |pod: &Pod, command: &str| pod.sandbox().namespace().ip(command);
    namespace(&pods.server, "route add local 198.19.0.0/16 dev lo");
    let way = format!("route add 198.19.0.0/16 via {}", pods.server.v4());
    namespace(&pods.client, &way);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let tour = pods.client.snippet(TOUR).arg(FIRST.to_string());
    let tour = tour.args([&DESTINATIONS.to_string(), "8080"]);
    let seen: Value = tour.deadline(Duration::from_mins(2)).facts();
    assert_eq!(seen, json!({ "answered": DESTINATIONS }));
    for pod in [&pods.client, &pods.server] {
        let sidecar = pod.sidecar();
        let metrics = sidecar.metrics_when(|metrics| {
            metrics.count("sidecar_connections_closed_total", &[("tls", "mutual")]) == DESTINATIONS
        });
        assert_eq!(metrics.count("sidecar_connections_failed_total", &[]), 0);
        assert_eq!(sidecar.kernel_events("flow_table_full"), 0);
        let memory = own_memory(sidecar);
        assert!(memory < 40 << 20, "{} holds {memory} bytes", pod.role());
    }
}

/// Opens so many connections on each of which a page is asked for, and holds them.
const HOLD: &str = r"
held = []
for _ in range(int(sys.argv[3])):
    sock = dial(sys.argv[1], sys.argv[2])
    sock.sendall(b'GET / HTTP/1.1\r\nHost: idle\r\n\r\n')
    answer = b''
    while not answer.endswith(sys.argv[4].encode()):
        answer += read(sock, 1)
    held.append(sock)
report(held=len(held))
sys.stdin.read()
";

/// What each connection takes of either sidecar, in bytes: most of it is rustls' buffer and keys, and the
/// task. In this build, that is; a release build takes no more.
const OF_EACH: u64 = 16_000;

#[test]
fn a_connection_that_says_nothing_takes_little_memory() {
    const COUNT: u64 = 2_000;
    let pods = Pods::meshed();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let sidecars = [&pods.client, &pods.server].map(Pod::sidecar);
    let before = sidecars.map(own_memory);
    let address = pods.server.v4().to_string();
    let hold = pods.client.snippet(HOLD);
    let count = COUNT.to_string();
    let mut hold = hold.args([&*address, "80", &count, SECRET]).start();
    hold.wait_for_stdout("held");
    for (sidecar, before) in sidecars.into_iter().zip(before) {
        let each = own_memory(sidecar).saturating_sub(before) / COUNT;
        assert!(each <= OF_EACH, "{each} bytes for each connection");
        // Else nothing was measured.
        assert!(each >= OF_EACH / 4, "{each} bytes for each connection");
    }
}

/// What a sidecar shares with nobody, in bytes.
fn own_memory(sidecar: &Sidecar) -> u64 {
    let path = format!("/proc/{}/status", sidecar.id());
    let status = fs::read_to_string(path).expect("the sidecar runs");
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: u64 = kibibytes
        .and_then(|number| number.parse().ok())
        .expect("a number of kB");
    kibibytes << 10
}
