//! Bulk: copies, streams, and a relay that never looks at what it passes.

use std::time::Duration;

use serde_json::{Value, json};
use sidecar_tests::{App, Behaviour, Pods, servers};

#[test]
fn scp_copies_a_gibibyte_intact() {
    let pods = Pods::meshed();
    let _sshd = servers::sshd(&pods.server);
    let capture = pods.client.capture_starts();
    let source = pods.client.sandbox().directory().join("source");
    let copy = pods.server.sandbox().directory().join("copy");
    let fill = "head -c 1G /dev/urandom > \"$0\"";
    pods.client
        .program("sh")
        .args(["-c", fill])
        .arg(&source)
        .succeed();
    let target = format!("root@{}:{}", pods.server.v4(), copy.display());
    let scp = servers::ssh_client(&pods.client, &pods.server, "/usr/bin/scp");
    // With a cipher that is fast enough to not be what is measured.
    scp.args(["-c", "aes128-gcm@openssh.com"])
        .arg(&source)
        .arg(target)
        .deadline(Duration::from_mins(2))
        .succeed();
    pods.client.program("cmp").args([&source, &copy]).succeed();
    let (outbound, _) = pods.mutual_connection(22);
    assert!(outbound.sent > 1 << 30, "{outbound:?}");
    capture.finish().assert_starts_encrypted(&["SSH-2.0"]);

    // What the server believes, in its own variables.
    let ssh = servers::ssh_client(&pods.client, &pods.server, "/usr/bin/ssh");
    let target = format!("root@{}", pods.server.v4());
    let connection = ssh.args([&target, "echo $SSH_CONNECTION"]).succeed();
    let fields: Vec<_> = connection.split_whitespace().collect();
    let (client, server) = (pods.client.v4().to_string(), pods.server.v4().to_string());
    assert_eq!([fields[0], fields[2], fields[3]], [&*client, &server, "22"]);
}

#[test]
fn iperf3_runs_up_and_down_in_parallel() {
    let pods = Pods::meshed();
    let _server = pods
        .server
        .program("/usr/bin/iperf3")
        .arg("-s")
        .listen(5201);
    let capture = pods.client.capture_starts();
    let address = pods.server.v4().to_string();
    // Not `--bidir`: of two connections opened one after the other, the server takes the first it
    // sees to be the one it reads, and behind any proxy the second may overtake.
    for flags in [&["-P", "4"][..], &["-P", "4", "-R"]] {
        let iperf3 = pods.client.program("/usr/bin/iperf3");
        let result: Value = iperf3
            .args(["-J", "-n", "128M", "-c", &address])
            .args(flags)
            .facts();
        assert_eq!(result["error"], Value::Null, "{flags:?}");
        let received = result["end"]["sum_received"]["bytes"]
            .as_u64()
            .expect("a sum");
        assert!(received > 0, "{flags:?}");
    }
    let opened = |labels: &[_]| {
        let metrics = pods.server.sidecar().metrics();
        metrics.count("sidecar_connections_opened_total", labels)
    };
    assert_eq!(opened(&[("tls", "mutual")]), opened(&[]));
    // What iperf3 tells its server about itself is JSON.
    capture.finish().assert_starts_encrypted(&["\"tcp\""]);
}

/// Relays port 8080 to another pod without ever touching the bytes, as `io.Copy` does in Go.
const SPLICE_RELAY: &str = r#"
import os, threading
def splice(source, sink):
    read_end, write_end = os.pipe()
    while count := os.splice(source.fileno(), write_end, MIB):
        while count:
            count -= os.splice(read_end, sink.fileno(), count)
    sink.shutdown(socket.SHUT_WR)
listener = socket.create_server(("", 8080))
while True:
    client, _ = listener.accept()
    server = dial(sys.argv[1], 8080)
    server.settimeout(None)
    threading.Thread(target=splice, args=(client, server)).start()
    threading.Thread(target=splice, args=(server, client)).start()
"#;

/// Sends 64 MiB through the relay while it reads as much back.
const THROUGH_RELAY: &str = r"
import random, threading
sock = dial(sys.argv[1], 8080)
data = random.Random(1).randbytes(64 * MIB)
def send():
    sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
sender = threading.Thread(target=send)
sender.start()
count, digest, end = drain(sock)
sender.join()
report(count=count, whole=digest == hashlib.sha256(data).hexdigest(), end=end)
";

#[test]
fn a_relay_that_splices_passes_every_byte() {
    let pods = Pods::meshed();
    let mut origin = pods.join("origin");
    origin.mesh(&pods.dev_ca(), &[]);
    origin.wait_until_ready();
    let _app = App::start(&origin, Behaviour::Echo, 8080);
    let relay = pods
        .server
        .snippet(SPLICE_RELAY)
        .arg(origin.v4().to_string())
        .listen(8080);
    let capture = pods.server.capture_starts();
    let address = pods.server.v4().to_string();
    let seen: Value = pods.client.snippet(THROUGH_RELAY).arg(address).facts();
    assert_eq!(
        seen,
        json!({ "count": 64 << 20, "whole": true, "end": "eof" })
    );
    pods.mutual_connection(8080);
    drop(relay);
    let wire = capture.finish();
    assert_eq!(wire.streams.len(), 2);
    wire.assert_starts_encrypted(&[]);
}
