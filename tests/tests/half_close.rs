//! The end of a connection means the same on both sides as it did without us.

use serde::Deserialize;
use sidecar_tests::{
    App, Behaviour, Pods, SECRET,
    app::{FAREWELL, GREETING},
};

/// Sends 4 MiB, closes its direction, and reads the server's answer after that.
const CLOSE_FIRST: &str = r#"
sock = dial(sys.argv[1], sys.argv[2])
data = b"violet rhinoceros\n" * (4 * MIB // 18)
sock.sendall(data)
sock.shutdown(socket.SHUT_WR)
count, digest = read_line(sock).split()
report(
    sent=len(data),
    counted=int(count),
    whole=digest == hashlib.sha256(data).hexdigest(),
    end=ending(sock),
)
"#;

#[derive(Debug, Deserialize, PartialEq, Eq)]
struct ClosedFirst {
    sent: u64,
    counted: u64,
    whole: bool,
    end: String,
}

#[test]
fn a_client_that_closes_first_still_gets_its_answer() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Digest, 8080);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let closed: ClosedFirst = pods
        .client
        .snippet(CLOSE_FIRST)
        .args([&*address, "8080"])
        .facts();
    assert!(closed.whole, "{closed:?}");
    assert_eq!((closed.counted, &*closed.end), (closed.sent, "eof"));
    assert_eq!(app.only_session().end, "eof");
    let (outbound, _) = pods.mutual_connection(8080);
    assert_eq!((outbound.sent, &*outbound.close), (closed.sent, "eof"));
    capture.finish().assert_encrypted(&[SECRET]);
}

/// Reads to the server's end, and only then sends something, and closes.
const CLOSE_SECOND: &str = r#"
sock = dial(sys.argv[1], sys.argv[2])
said = read_line(sock)
end = ending(sock)
sock.sendall(b"violet rhinoceros\n" * 1000)
sock.close()
report(said=said, end=end)
"#;

#[test]
fn a_server_that_closes_first_still_hears_the_client() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Farewell, 8080);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let seen: serde_json::Value = pods
        .client
        .snippet(CLOSE_SECOND)
        .args([&*address, "8080"])
        .facts();
    assert_eq!(seen, serde_json::json!({ "said": FAREWELL, "end": "eof" }));
    let session = app.only_session();
    assert_eq!((session.received, &*session.end), (18_000, "eof"));
    let (outbound, _) = pods.mutual_connection(8080);
    assert_eq!(outbound.close, "eof");
    capture.finish().assert_encrypted(&[SECRET, FAREWELL]);
}

/// Exchanges a line, so that the connection stands on every leg, and resets it.
const RESET: &str = r#"
sock = dial(sys.argv[1], sys.argv[2])
sock.sendall(b"violet rhinoceros\n")
report(echoed=read_line(sock))
abort(sock)
"#;

#[test]
fn a_reset_by_the_client_is_a_reset_for_the_server() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    pods.client
        .snippet(RESET)
        .args([&*address, "8080"])
        .succeed();
    let session = app.only_session();
    assert_eq!((session.received, &*session.end), (18, "reset"));
    let (outbound, inbound) = pods.mutual_connection(8080);
    assert_eq!(
        (&*outbound.close, &*inbound.close),
        ("client_reset", "client_reset")
    );
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET]);
    assert!(wire.only_stream().sent.rst);
}

/// Sends a line to a server that resets upon it.
const IS_RESET: &str = r#"
sock = dial(sys.argv[1], sys.argv[2])
sock.sendall(b"violet rhinoceros\n")
report(end=ending(sock))
"#;

#[test]
fn a_reset_by_the_server_is_a_reset_for_the_client() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Reset, 8080);
    let capture = pods.client.capture();
    let address = pods.server.v4().to_string();
    let seen: serde_json::Value = pods
        .client
        .snippet(IS_RESET)
        .args([&*address, "8080"])
        .facts();
    assert_eq!(seen, serde_json::json!({ "end": "reset" }));
    let (outbound, inbound) = pods.mutual_connection(8080);
    assert_eq!(
        (&*outbound.close, &*inbound.close),
        ("server_reset", "server_reset")
    );
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET]);
    assert!(wire.only_stream().received.rst);
}

#[test]
fn a_server_that_is_killed_ends_the_clients_connection() {
    let pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let address = pods.server.v4().to_string();
    let snippet =
        "sock = dial(sys.argv[1], sys.argv[2]); print(read_line(sock)); print(ending(sock))";
    let mut client = pods
        .client
        .snippet(snippet)
        .args([&*address, "8080"])
        .start();
    client.wait_for_stdout(GREETING);
    drop(app);
    // The kernel closes a killed process's idle connections with a FIN.
    assert!(client.wait().success().stdout.ends_with("eof\n"));
    pods.mutual_connection(8080);
}
