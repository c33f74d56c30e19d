//! More than a sidecar can serve: new connections are refused, and those that stand go on.

use std::fs;

use serde::Deserialize;
use sidecar_tests::{App, Behaviour, Pod, Pods, Process, SECRET, Sidecar, wait};

/// The header of a TLS record, whose rest never comes.
const HALF_OPEN: &str = "1603010200";

/// How many connections may be in the making.
const LIMIT: usize = 40;

/// How many the flood tries to hold open.
const FLOOD: usize = 400;

/// Over one connection, sends a kilobyte and waits for its echo a hundred times, and tells how long
/// that took; again and again.
const STREAM: &str = r"
import time
sock = dial(sys.argv[1], 8080)
while True:
    started = time.monotonic()
    for _ in range(100):
        sock.sendall(bytes(1024))
        read(sock, 1024)
    report(seconds=time.monotonic() - started)
";

#[test]
fn a_flood_of_handshakes_is_shed_and_streams_that_stand_go_on() {
    let limit = LIMIT.to_string();
    let flags = ["--inbound", "strict", "--max-handshakes", &limit];
    let pods = Pods::meshed_with(&[], &flags);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let stream = pods.client.snippet(STREAM);
    let stream = stream.arg(pods.server.v4().to_string()).start();
    let before = fastest_of_the_next_rounds(&stream);
    let server = pods.server.sidecar();
    let descriptors = descriptors(server);

    let attacker = pods.join("attacker");
    let flood = flood(&attacker, &pods.server);
    let during = fastest_of_the_next_rounds(&stream);
    assert!(
        during < before * 10.0,
        "100 echoes take {during} s instead of {before} s"
    );
    let most = descriptors + LIMIT + 20;
    let open = self::descriptors(server);
    assert!(
        open <= most,
        "{open} descriptors are open, {most} are enough"
    );
    let shed = [("direction", "inbound"), ("reason", "overloaded")];
    let counted = |labels| {
        server
            .metrics()
            .count("sidecar_connections_failed_total", labels)
    };
    assert!(counted(&shed) >= FLOOD as u64);
    let log = server.log();
    let lines = log.matches("max-handshakes").count();
    assert!(
        (1..10).contains(&lines),
        "{lines} lines tell of the flood: {log}"
    );
    // The direction that is not flooded serves.
    let _other = App::start(&pods.client, Behaviour::Echo, 8081);
    let answer = pods.server.converse(pods.client.v4(), 8081, SECRET);
    assert_eq!(answer, SECRET);

    drop(flood);
    wait::until("the flood has run off", || {
        self::descriptors(server) < descriptors + 20
    });
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    fastest_of_the_next_rounds(&stream);
}

#[test]
fn clients_that_never_finish_their_handshakes_are_let_go_in_time() {
    let flags = ["--inbound", "strict", "--handshake-timeout", "500ms"];
    let pods = Pods::server_meshed(&flags);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let flood = flood(&pods.client, &pods.server);
    let server = pods.server.sidecar();
    let refused = [("direction", "inbound"), ("reason", "plaintext_refused")];
    server.metrics_when(|metrics| {
        metrics.count("sidecar_connections_failed_total", &refused) > 2 * FLOOD as u64
    });
    drop(flood);
    assert_eq!(app.sessions(), []);
}

#[test]
fn servers_that_never_finish_their_handshakes_are_let_go_in_time() {
    /// Dials a hundred times, and counts those that are reset.
    const DIAL: &str = r"
socks = [dial(sys.argv[1], 8080) for _ in range(100)]
report(reset=sum(ending(sock) == 'reset' for sock in socks))
";
    let flags = ["--outbound", "strict", "--handshake-timeout", "500ms"];
    let pods = Pods::client_meshed(&flags);
    let _silent = App::start(&pods.server, Behaviour::Wait, 8080);
    let dial = pods.client.snippet(DIAL).arg(pods.server.v4().to_string());
    let Resets { reset } = dial.facts();
    assert_eq!(reset, 100);
    pods.client.sidecar().failures("outbound", 100);
}

#[test]
fn strangers_at_the_admin_endpoint_neither_exhaust_nor_change_a_sidecar() {
    let mut pods = Pods::server_meshed(&["--admin", "0.0.0.0:4195"]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let server = pods.server.sidecar();
    assert!(server.log().contains("can be reached from the network"));
    for path in ["quitquitquit", "shutdown", "config", "readyz"] {
        let url = format!("http://{}:4195/{path}", pods.server.v4());
        let post = ["-sS", "-X", "POST", "-d", "now", "-o", "/dev/null"];
        let curl = pods.client.program("curl").args(post);
        let status = curl.args(["-w", "%{http_code}", &url]).succeed();
        assert!(["404", "405"].contains(&&*status), "{path}: {status}");
    }

    let before = descriptors(server);
    let flood = flood_with("474554", 4195, &pods.client, &pods.server);
    let open = descriptors(server);
    assert!(open < before + 50, "{open} descriptors instead of {before}");
    let answer = pods.client.converse(pods.server.v4(), 8080, SECRET);
    assert_eq!(answer, SECRET);
    drop(flood);
    pods.server.wait_until_ready();
}

/// What the snippet of dials reports.
#[derive(Deserialize)]
struct Resets {
    reset: usize,
}

/// Starts a flood of half-open handshakes from one pod to another, and waits until it stands.
fn flood(from: &Pod, to: &Pod) -> Process {
    flood_with(HALF_OPEN, 8080, from, to)
}

/// Starts a flood of connections that send no more than this.
fn flood_with(beginning: &str, port: u16, from: &Pod, to: &Pod) -> Process {
    let script = from.script("flood.py").arg(to.v4().to_string());
    let arguments = [&*port.to_string(), &*FLOOD.to_string(), beginning];
    let mut flood = script.args(arguments).start();
    flood.wait_for_stdout("tried");
    flood
}

/// The shortest time that a stream reports from now on, in seconds, out of enough for one to be
/// undisturbed by whatever else the machine does.
fn fastest_of_the_next_rounds(stream: &Process) -> f64 {
    const ROUNDS: usize = 20;
    let seen = stream.stdout().lines().count() + 1;
    wait::until("the stream goes on", || {
        stream.stdout().lines().count() > seen + ROUNDS
    });
    let rounds = stream.stdout();
    let seconds = rounds.lines().skip(seen).take(ROUNDS).map(|line| {
        let Round { seconds } = serde_json::from_str(line).expect("a report");
        seconds
    });
    seconds.fold(f64::INFINITY, f64::min)
}

/// What a stream reports.
#[derive(Deserialize)]
struct Round {
    seconds: f64,
}

/// How many descriptors a sidecar has open.
fn descriptors(sidecar: &Sidecar) -> usize {
    fs::read_dir(format!("/proc/{}/fd", sidecar.id()))
        .expect("the sidecar runs")
        .count()
}
