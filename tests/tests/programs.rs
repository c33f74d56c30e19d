//! Programs that people run, unmodified, on their usual configuration.

use std::{collections::BTreeSet, fs};

use serde_json::{Value, json};
use sidecar_tests::{Pods, SECRET, servers, wait};

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
        mail.contains(SECRET).then_some(mail)
    });
    assert!(
        mail.contains(&format!("from [{}]", pods.client.v4())),
        "{mail}"
    );
    pods.mutual_connection(25);
    capture
        .finish()
        .assert_encrypted(&[SECRET, "220 mail.example", "a@example"]);
}

#[test]
fn wrk_keeps_its_connections_alive() {
    let pods = Pods::meshed();
    let nginx = servers::nginx(&pods.server, 80, SECRET);
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
    let clients: BTreeSet<_> = served.lines().collect();
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
    wire.assert_encrypted(&[SECRET]);
}
