//! Programs that people run, unmodified, on their usual configuration.

use std::{fs, time::Duration};

use serde_json::{Value, json};
use sidecar_tests::{Pods, Wire, servers, wait};

#[test]
fn psql_works_with_postgresql() {
    let pods = Pods::meshed();
    let _postgres = servers::postgres(&pods.server);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let script = "
        CREATE TABLE animals (id int, name text);
        INSERT INTO animals SELECT n, 'violet rhinoceros ' || n FROM generate_series(1, 20000) n;
        SELECT count(*), sum(length(name)) FROM animals;
        SELECT host(inet_client_addr()), host(inet_server_addr());
        COPY animals TO STDOUT;
    ";
    let psql = pods.client.program("/usr/bin/psql");
    let psql = psql.args([
        "-h",
        &address,
        "-U",
        "postgres",
        "-v",
        "ON_ERROR_STOP=1",
        "-qAt",
    ]);
    let output = psql.args(["-F", " "]).stdin(script).succeed();
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("20000 448894"));
    assert_eq!(
        lines.next(),
        Some(&*format!("{} {address}", pods.client.v4()))
    );
    assert_eq!(lines.clone().count(), 20_000);
    assert_eq!(lines.next_back(), Some("20000\tviolet rhinoceros 20000"));
    pods.mutual_connection(5432);
    capture
        .finish()
        .assert_encrypted(&["violet rhinoceros", "SELECT", "postgres"]);
}

#[test]
fn redis_cli_works_with_redis_one_by_one_and_pipelined() {
    let pods = Pods::meshed();
    let _redis = servers::redis(&pods.server);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let cli = || {
        pods.client
            .program("/usr/bin/redis-cli")
            .args(["-h", &*address])
    };
    assert_eq!(
        cli().args(["SET", "animal", "violet rhinoceros"]).succeed(),
        "OK\n"
    );
    assert_eq!(
        cli().args(["GET", "animal"]).succeed(),
        "violet rhinoceros\n"
    );
    let info = cli().args(["CLIENT", "INFO"]).succeed();
    assert!(
        info.contains(&format!(" addr={}:", pods.client.v4())),
        "{info}"
    );
    assert!(info.contains(&format!(" laddr={address}:6379 ")), "{info}");
    let commands: Vec<_> = (0..20_000)
        .map(|key| format!("SET key:{key} violet-rhinoceros\r\n"))
        .collect();
    let replies = cli().arg("--pipe").stdin(commands.concat()).succeed();
    assert!(replies.contains("errors: 0, replies: 20000"), "{replies}");
    assert_eq!(cli().arg("DBSIZE").succeed(), "20001\n");
    pods.mutual_connection(6379);
    let secrets = ["violet rhinoceros", "violet-rhinoceros", "CLIENT"];
    capture.finish().assert_encrypted(&secrets);
}

#[test]
fn mariadb_speaks_first_and_works() {
    let pods = Pods::meshed();
    let _mariadb = servers::mariadb(&pods.server);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let script = "
        CREATE DATABASE zoo;
        USE zoo;
        CREATE TABLE animals (id int, name text);
        INSERT INTO animals SELECT seq, CONCAT('violet rhinoceros ', seq) FROM seq_1_to_20000;
        SELECT COUNT(*), SUM(LENGTH(name)) FROM animals;
        SELECT USER();
        SELECT * FROM animals;
    ";
    let mariadb = pods.client.program("/usr/bin/mariadb");
    let output = mariadb.args(["--no-defaults", "-h", &address, "-u", "app", "-N"]);
    let output = output.stdin(script).succeed();
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("20000\t448894"));
    assert_eq!(lines.next(), Some(&*format!("app@{}", pods.client.v4())));
    assert_eq!(lines.count(), 20_000);
    pods.mutual_connection(3306);
    capture
        .finish()
        .assert_encrypted(&["violet rhinoceros", "SELECT", "MariaDB"]);
}

#[test]
fn mariadb_works_between_a_meshed_and_a_plain_pod() {
    for pods in [Pods::client_meshed(&[]), Pods::server_meshed(&[])] {
        let _mariadb = servers::mariadb(&pods.server);
        let capture = pods.client.capture();
        let address = pods.server.v4().to_string();
        let mariadb = pods.client.program("/usr/bin/mariadb");
        let query = "SELECT USER(), 'violet rhinoceros'";
        let output = mariadb
            .args([
                "--no-defaults",
                "-h",
                &address,
                "-u",
                "app",
                "-N",
                "-e",
                query,
            ])
            .succeed();
        assert_eq!(
            output,
            format!("app@{}\tviolet rhinoceros\n", pods.client.v4())
        );
        capture
            .finish()
            .assert_plaintext(&["violet rhinoceros", "MariaDB"]);
    }
}

#[test]
fn mail_is_delivered_over_mutual_tls() {
    let pods = Pods::meshed();
    let _exim = servers::exim(&pods.server);
    let capture = pods.client.capture();
    let url = format!("smtp://{}", pods.server.v4());
    let curl = pods
        .client
        .program("curl")
        .args(["-sS", &url, "--upload-file", "-"]);
    let curl = curl.args(["--mail-from", "a@example", "--mail-rcpt", "b@example"]);
    curl.stdin("Subject: zoo\r\n\r\nviolet rhinoceros\r\n")
        .succeed();
    let mail = wait::until_some("the mail is delivered", || {
        let mail = fs::read_to_string(servers::mailbox(&pods.server)).ok()?;
        mail.contains("violet rhinoceros").then_some(mail)
    });
    assert!(
        mail.contains(&format!("from [{}]", pods.client.v4())),
        "{mail}"
    );
    pods.mutual_connection(25);
    capture
        .finish()
        .assert_encrypted(&["violet rhinoceros", "220 mail.example", "a@example"]);
}

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
    assert_starts_as_tls(&capture.finish(), &["SSH-2.0"]);

    // What the server believes, in its own variables.
    let ssh = servers::ssh_client(&pods.client, &pods.server, "/usr/bin/ssh");
    let target = format!("root@{}", pods.server.v4());
    let connection = ssh.args([&target, "echo $SSH_CONNECTION"]).succeed();
    let fields: Vec<_> = connection.split_whitespace().collect();
    let (client, server) = (pods.client.v4().to_string(), pods.server.v4().to_string());
    assert_eq!([fields[0], fields[2], fields[3]], [&*client, &server, "22"]);
}

#[test]
fn iperf3_runs_up_down_and_in_parallel() {
    let pods = Pods::meshed();
    let _server = pods
        .server
        .program("/usr/bin/iperf3")
        .arg("-s")
        .listen(5201);
    let capture = pods.client.capture_starts();
    let address = pods.server.v4().to_string();
    for flags in [&["-P", "4"][..], &["-R"], &["--bidir"]] {
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
    assert_starts_as_tls(&capture.finish(), &["\"tcp\""]);
}

#[test]
fn wrk_keeps_its_connections_alive() {
    let pods = Pods::meshed();
    let nginx = servers::nginx(&pods.server, 80, "violet rhinoceros");
    let url = format!("http://{}/", pods.server.v4());
    let wrk = pods.client.program("/usr/bin/wrk");
    let report = wrk
        .args(["-t", "1", "-c", "32", "-d", "1s", &url])
        .succeed();
    assert!(
        report.contains("requests in") && !report.contains("Socket errors"),
        "{report}"
    );
    assert!(!report.contains("Non-2xx"), "{report}");
    let served = nginx.stdout();
    let clients: std::collections::BTreeSet<_> = served.lines().collect();
    assert_eq!(clients.len(), 32, "{clients:?}");
    pods.mutual_connection(80);
}

/// Fifty asyncio clients at once, each a conversation of twenty lines.
const ASYNCIO_CLIENT: &str = r#"
import asyncio
async def talk(number):
    reader, writer = await asyncio.open_connection(sys.argv[1], 8080)
    for turn in range(20):
        line = f"violet rhinoceros {number} {turn}\n".encode()
        writer.write(line)
        await writer.drain()
        assert await reader.readline() == line
    assert writer.get_extra_info("peername")[0] == sys.argv[1]
    writer.write_eof()
    assert await reader.read() == b""
    writer.close()
    await writer.wait_closed()
async def main():
    await asyncio.gather(*(talk(number) for number in range(50)))
asyncio.run(main())
report(done=True)
"#;

/// An asyncio server that echoes lines.
const ASYNCIO_SERVER: &str = r#"
import asyncio
async def serve(reader, writer):
    while line := await reader.readline():
        writer.write(line)
    writer.close()
async def main():
    server = await asyncio.start_server(serve, "::", 8080)
    await server.serve_forever()
asyncio.run(main())
"#;

#[test]
fn asyncio_works_on_both_sides() {
    let pods = Pods::meshed();
    let _server = pods.server.snippet(ASYNCIO_SERVER).listen(8080);
    let capture = pods.client.capture();
    let address = pods.server.v6().to_string();
    let seen: Value = pods.client.snippet(ASYNCIO_CLIENT).arg(address).facts();
    assert_eq!(seen, json!({ "done": true }));
    pods.mutual_connection(8080);
    let wire = capture.finish();
    assert_eq!(wire.streams.len(), 50);
    wire.assert_encrypted(&["violet rhinoceros"]);
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
    let _app = sidecar_tests::App::start(&origin, sidecar_tests::Behaviour::Echo, 8080);
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
    assert_starts_as_tls(&wire, &[]);
}

/// Checks that every connection began as TLS, as far as it was recorded.
#[track_caller]
fn assert_starts_as_tls(wire: &Wire, secrets: &[&str]) {
    assert!(!wire.streams.is_empty(), "nothing crossed the wire");
    for stream in &wire.streams {
        assert!(stream.is_meshed() && stream.starts_as_tls(), "{stream:?}");
    }
    for secret in secrets {
        assert!(
            !wire.contains(secret),
            "{secret:?} crossed the wire in plaintext"
        );
    }
}
