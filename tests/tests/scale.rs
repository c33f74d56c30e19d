//! Many connections, large ones, and ones that stand still.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Pods, Sidecar, app::Session};

#[test]
fn two_hundred_parallel_connections_carry_every_byte_both_ways() {
    let pods = Pods::meshed();
    let _server = pods
        .server
        .script("load.py")
        .args(["server", "8080"])
        .listen(8080);
    let capture = pods.client.capture_starts();
    let client = pods
        .client
        .script("load.py")
        .args(["exchange", "200", "8080"]);
    let client = client
        .arg(pods.server.v4().to_string())
        .deadline(Duration::from_mins(1));
    assert_eq!(client.facts::<Value>(), json!({ "intact": 200 }));
    pods.mutual_connection(8080);
    let wire = capture.finish();
    assert_eq!(wire.streams.len(), 200);
    assert!(
        wire.streams
            .iter()
            .all(|stream| stream.is_meshed() && stream.starts_as_tls())
    );
    let closed = |pod: &sidecar_tests::Pod| {
        let eof = [("tls", "mutual"), ("close", "eof")];
        pod.sidecar()
            .metrics_when(|metrics| metrics.count("sidecar_connections_closed_total", &eof) == 200)
    };
    let (client, server) = (closed(&pods.client), closed(&pods.server));
    for total in ["sidecar_sent_bytes_total", "sidecar_received_bytes_total"] {
        assert_eq!(
            client.count(total, &[]),
            server.count(total, &[]),
            "{total}"
        );
    }
}

#[test]
fn the_loopback_leg_is_no_limit_to_the_number_of_connections() {
    const ADDRESSES: [&str; 4] = ["198.18.0.2", "198.18.0.32", "198.18.0.33", "198.18.0.34"];
    let pods = Pods::meshed();
    for address in &ADDRESSES[1..] {
        pods.server
            .sandbox()
            .namespace()
            .ip(&format!("addr add {address}/24 dev eth0"));
    }
    // Without us, 2,500 ports reach 2,500 connections to each of four destinations.
    let client = pods.client.sandbox().namespace();
    client.sysctl("net/ipv4/ip_local_port_range", "30000 32499");
    let _server = pods
        .server
        .script("load.py")
        .args(["server", "8080"])
        .listen(8080);
    let client = pods
        .client
        .script("load.py")
        .args(["hold", "8000", "8080"])
        .args(ADDRESSES);
    let seen: Value = client.deadline(Duration::from_mins(2)).facts();
    assert_eq!(seen, json!({ "open_at_once": 8000, "answered": 8000 }));
    for pod in [&pods.client, &pods.server] {
        let metrics = pod.sidecar().metrics_when(|metrics| {
            metrics.count("sidecar_connections_closed_total", &[("tls", "mutual")]) == 8000
        });
        assert_eq!(metrics.count("sidecar_connections_failed_total", &[]), 0);
        assert_eq!(pod.sidecar().kernel_events("flow_table_full"), 0);
    }
}

/// Sends until nothing has been taken for two seconds, says how much that was, and sends the rest
/// of 64 MiB once it is taken again.
const PRESS: &str = r"
import select
sock = dial(sys.argv[1], sys.argv[2])
sock.setblocking(False)
block = bytes(64 * KIB)
sent = 0
poll = select.poll()
poll.register(sock, select.POLLOUT)
while sent < 64 * MIB and poll.poll(2000):
    sent += sock.send(block)
report(taken=sent)
sock.settimeout(DEADLINE)
sock.sendall(bytes(64 * MIB - sent))
sock.shutdown(socket.SHUT_WR)
print(read_line(sock))
";

#[test]
fn a_server_that_does_not_read_stops_the_client_and_fills_no_memory() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Stall, 8080);
    let before = [&pods.client, &pods.server].map(|pod| memory(pod.sidecar()));
    let address = pods.server.v4().to_string();
    let mut client = pods.client.snippet(PRESS).args([&*address, "8080"]).start();
    client.wait_for_stdout("taken");
    let facts: Value = serde_json::from_str(&client.stdout()).expect("JSON");
    let taken = facts["taken"].as_u64().expect("a count");
    // The socket buffers of three legs.
    assert!(
        taken < 48 << 20,
        "{taken} bytes were taken for a server that does not read"
    );
    for (pod, before) in [&pods.client, &pods.server].into_iter().zip(before) {
        let grown = memory(pod.sidecar()).saturating_sub(before);
        assert!(
            grown < 4 << 20,
            "the sidecar of {} has grown by {grown} bytes",
            pod.role()
        );
    }
    app.release();
    assert!(
        client
            .wait()
            .success()
            .stdout
            .contains(&format!("{} ", 64 << 20))
    );
    let Session { received, end, .. } = app.only_session();
    assert_eq!((received, &*end), (64 << 20, "eof"));
    pods.mutual_connection(8080);
}

/// The resident memory of a sidecar, in bytes.
fn memory(sidecar: &Sidecar) -> u64 {
    let path = format!("/proc/{}/status", sidecar.id());
    let status = fs::read_to_string(path).expect("the sidecar runs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .expect("it is resident");
    let kibibytes: u64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kibibytes << 10
}
