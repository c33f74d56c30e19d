//! What TCP measures on each leg of a connection, as operators see it.

use std::{fs::File, path::Path, time::Duration};

use sidecar_tests::{App, Behaviour, Metrics, Pod, Pods, SECRET, servers, wait};

/// What a frame takes from one pod to the other.
const DELAY: Duration = Duration::from_millis(10);
/// What it takes there and back, in seconds, by a clock of milliseconds.
const ROUND_TRIP: f64 = 0.019;

const MIB: u64 = 1 << 20;

/// Sends so many bytes, and hears how many have come.
const UPLOAD: &str = r"
sock = dial(sys.argv[1], 8080)
sock.sendall(bytes(int(sys.argv[2])))
sock.shutdown(socket.SHUT_WR)
report(answer=read_line(sock))
";

#[test]
fn the_network_leg_tells_of_the_network_and_the_app_leg_does_not() {
    let pods = Pods::meshed();
    let _wire = pods
        .network
        .lengthen([&pods.client, &pods.server], DELAY, 20);
    let _app = App::start(&pods.server, Behaviour::Digest, 8080);
    let address = pods.server.v4().to_string();
    let upload = pods.client.snippet(UPLOAD);
    upload.args([&*address, &(2 * MIB).to_string()]).succeed();
    let (outbound, inbound) = pods.mutual_connection(8080);
    assert_eq!(outbound.sent, 2 * MIB);

    let client = legs(&pods.client, &pods.server, "outbound");
    let server = legs(&pods.server, &pods.client, "inbound");
    for legs in [&client, &server] {
        let (network, app) = (&legs.network, &legs.app);
        assert_eq!((network.closed, app.closed), (1, 1), "{legs:?}");
        assert!(
            network.min_rtt >= ROUND_TRIP && network.min_rtt <= network.rtt,
            "{legs:?}"
        );
        assert!(app.min_rtt > 0.0 && app.min_rtt <= app.rtt, "{legs:?}");
        assert!(app.min_rtt < ROUND_TRIP / 4.0, "{legs:?}");
    }
    // The one that sends much has lost much, and on the network.
    assert!(
        client.app.retransmitted < client.network.retransmitted,
        "{client:?}"
    );

    // On loopback what the apps say, and on the network TLS around it; with SYN and FIN.
    let around = |bytes: u64| bytes..=bytes + 2;
    assert!(
        around(outbound.sent).contains(&client.app.received),
        "{client:?}"
    );
    assert!(
        around(outbound.received).contains(&client.app.sent),
        "{client:?}"
    );
    assert!(
        around(inbound.sent).contains(&server.app.sent),
        "{server:?}"
    );
    assert!(
        around(inbound.received).contains(&server.app.received),
        "{server:?}"
    );
    let encrypted = |bytes: u64| bytes + 500..=bytes + bytes / 50 + 10_000;
    assert!(
        encrypted(outbound.sent).contains(&client.network.sent),
        "{client:?}"
    );
    assert!(
        encrypted(outbound.received).contains(&client.network.received),
        "{client:?}"
    );
    // What one has sent the other has received.
    let (sent, received) = (client.network.sent, server.network.received);
    assert!(sent.abs_diff(received) <= 2, "{client:?} {server:?}");
    for pod in [&pods.client, &pods.server] {
        assert_eq!(lost(&pod.sidecar().metrics()), 0);
    }
}

#[test]
fn a_connection_that_lasts_shows_before_it_ends() {
    let pods = Pods::meshed();
    let _wire = pods
        .network
        .lengthen([&pods.client, &pods.server], DELAY, 0);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let snippet = "\
import time
sock = dial(sys.argv[1], 8080)
print('open')
while True:
    sock.sendall(b'tick\\n')
    read_line(sock)
    time.sleep(0.1)
";
    let address = pods.server.v4().to_string();
    let mut talker = pods.client.snippet(snippet).arg(address).start();
    talker.wait_for_stdout("open");
    for (pod, leg) in [
        (&pods.client, "network"),
        (&pods.client, "app"),
        (&pods.server, "network"),
        (&pods.server, "app"),
    ] {
        let metrics = pod.sidecar().metrics_when(|metrics| {
            metrics.count("sidecar_tcp_rtt_seconds_count", &[("leg", leg)]) > 0
        });
        assert_ne!(
            metrics.count("sidecar_tcp_sent_bytes_total", &[("leg", leg)]),
            0
        );
        assert_ne!(
            metrics.count("sidecar_tcp_received_bytes_total", &[("leg", leg)]),
            0
        );
        assert_eq!(closed(&metrics), 0, "{leg}");
    }
}

#[test]
fn a_connection_that_fails_shows_by_its_failure() {
    let strict = ["--outbound", "strict"];
    let pods = Pods::client_meshed(&strict);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let address = pods.server.v4();
    assert_eq!(pods.client.converse(address, 8080, SECRET), "reset");
    let sidecar = pods.client.sidecar();
    let metrics = sidecar.metrics_when(|metrics| closed(metrics) == 2);
    let name = "sidecar_tcp_congestion_window_segments_count";
    assert_eq!(metrics.count(name, &[("tls", "failed"), ("peer", "")]), 2);
    // Nobody listens there: there is no leg to the network.
    assert_eq!(pods.client.converse(address, 8081, SECRET), "reset");
    let metrics = sidecar.metrics_when(|metrics| closed(metrics) == 3);
    let pending = [("tls", "pending"), ("leg", "app")];
    assert_eq!(metrics.count(name, &pending), 1);
    assert_eq!(lost(&metrics), 0);
}

#[test]
fn after_an_upgrade_the_new_sidecar_reads_and_the_old_one_does_not() {
    let mut pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let address = pods.server.v4();
    let snippet = "sock = dial(sys.argv[1], 8080); print('open'); sys.stdin.read()";
    let pipe = pods.client.sandbox().directory().join("pipe");
    pods.client.program("mkfifo").arg(&pipe).succeed();
    let snippet = format!("{snippet}\nopen(sys.argv[2]).read()");
    let stays = pods.client.snippet(&snippet).arg(address.to_string());
    let mut stays = stays.arg(&pipe).start();
    stays.wait_for_stdout("open");
    let dev_ca = pods.dev_ca();
    let old = pods.server.upgrade(&dev_ca, &[]);
    // At once: the old one may not have noticed yet, and still has its turn.
    assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
    old.logs(&["serves the pod now"]);
    pods.server.wait_until_ready();
    let metrics = pods
        .server
        .sidecar()
        .metrics_when(|metrics| closed(metrics) == 2);
    assert_eq!(lost(&metrics), 0);
    // What the old one finishes is told to the new one, who does not know it.
    std::fs::write(&pipe, "").expect("writing to the pipe");
    let _ = stays.wait().success();
    old.wait_for_exit();
    let metrics = pods
        .server
        .sidecar()
        .metrics_when(|metrics| lost(metrics) >= 2);
    let unknown = [("reason", "unknown_socket")];
    // Of a connection that has lasted for more than ten seconds it is told more than once.
    assert_eq!(metrics.count(LOST, &unknown), lost(&metrics));
    assert_eq!(closed(&metrics), 2);
}

#[test]
fn while_nobody_reads_the_ring_keeps_what_it_holds_and_counts_the_rest() {
    let mut pods = Pods::plain();
    pods.server.sidecar_init(&[]).succeed();
    let reading = pods.server.pins().into_iter().find_map(|pin| {
        let state = pin.parent()?.parent()?;
        Some(state.join("reader"))
    });
    // As another sidecar would, that has not noticed yet that it is replaced.
    let reader = open(&reading.expect("something is pinned"));
    reader.lock().expect("nobody reads");
    let dev_ca = pods.dev_ca();
    pods.server.mesh(&dev_ca, &[]);
    pods.server.wait_until_ready();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let url = format!("http://{}/", pods.server.v4());
    let flood = || {
        let wrk = pods.client.program("/usr/bin/wrk");
        let flags = ["-t", "1", "-c", "64", "-d", "2s", "-H", "Connection: close"];
        wrk.args(flags).arg(&url).succeed();
    };
    let sidecar = pods.server.sidecar();
    // Thousands of connections, which an emulated machine takes a while for.
    let full = wait::within(4 * wait::DEADLINE, || {
        flood();
        (sidecar.kernel_events("statistics_lost") > 0).then_some(())
    });
    full.expect("the ring is full");
    assert_eq!(closed(&sidecar.metrics()), 0);
    reader.unlock().expect("it is ours");
    let metrics = sidecar.metrics_when(|metrics| closed(metrics) > 9_000);
    let full = metrics.count(LOST, &[("reason", "ring_full")]);
    assert_eq!(full, sidecar.kernel_events("statistics_lost"));
    assert_eq!(lost(&metrics), full, "somebody else's were read");
    pods.server.stop_sidecar_of_init();
}

const LOST: &str = "sidecar_kernel_statistics_lost_total";

fn lost(metrics: &Metrics) -> u64 {
    metrics.count(LOST, &[])
}

/// How many legs were told to have closed.
fn closed(metrics: &Metrics) -> u64 {
    metrics.count("sidecar_tcp_congestion_window_segments_count", &[])
}

#[track_caller]
fn open(directory: &Path) -> File {
    File::open(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
}

/// What was measured on the only connection there was.
#[derive(Debug)]
struct Legs {
    network: Leg,
    app: Leg,
}

/// What was measured on one leg, in seconds, segments, bytes.
#[derive(Debug)]
struct Leg {
    closed: u64,
    rtt: f64,
    min_rtt: f64,
    retransmitted: u64,
    sent: u64,
    received: u64,
}

/// Waits until both legs of a connection are counted, of mutual TLS between the two pods.
#[track_caller]
fn legs(pod: &Pod, peer: &Pod, direction: &str) -> Legs {
    let metrics = pod.sidecar().metrics_when(|metrics| closed(metrics) == 2);
    let (own, peer) = (pod.identity(), peer.identity());
    let leg = |leg: &str| {
        let labels = [
            ("direction", direction),
            ("own", &own),
            ("peer", &peer),
            ("tls", "mutual"),
            ("leg", leg),
        ];
        let mean = |name: &str| {
            let of = |what: &str| metrics.sum(&format!("sidecar_tcp_{name}_{what}"), &labels);
            of("sum") / of("count")
        };
        let count = |name: &str| metrics.count(&format!("sidecar_tcp_{name}"), &labels);
        Leg {
            closed: count("congestion_window_segments_count"),
            rtt: mean("rtt_seconds"),
            min_rtt: mean("min_rtt_seconds"),
            retransmitted: count("retransmitted_segments_total"),
            sent: count("sent_bytes_total"),
            received: count("received_bytes_total"),
        }
    };
    Legs {
        network: leg("network"),
        app: leg("app"),
    }
}
