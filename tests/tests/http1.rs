//! What is told of HTTP/1 that only passes by, and that it passes by unchanged.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use sidecar_tests::{
    App, Behaviour, Metrics, Pod, Pods, Process, app::GREETING, h2load, servers, wait,
};

/// Requests that are alike, as nginx has logged them.
#[derive(Debug, Default, PartialEq)]
struct Served {
    requests: u64,
    /// Content that nginx has received and sent, in bytes.
    received: u64,
    sent: u64,
}

/// What [`served`] reads.
const LINE: &str = "$request_method $status $content_length $body_bytes_sent";

/// What nginx has served, by method and class of status.
fn served(nginx: &Process) -> BTreeMap<(String, String), Served> {
    let mut served: BTreeMap<_, Served> = BTreeMap::new();
    for line in nginx.stdout().lines() {
        let [method, status, received, sent] = line.split(' ').collect::<Vec<_>>()[..] else {
            panic!("not a line of the log: {line}");
        };
        let alike = served
            .entry((method.to_owned(), format!("{}xx", &status[..1])))
            .or_default();
        alike.requests += 1;
        // A request without content has a dash here.
        alike.received += received.parse::<u64>().unwrap_or(0);
        alike.sent += sent.parse::<u64>().expect("a number");
    }
    served
}

#[test]
fn every_request_is_counted_once_as_the_server_counts_it() {
    const LABELS: [(&str, &str); 2] = [("tls", "mutual"), ("protocol", "http1")];
    let pods = Pods::meshed();
    let nginx = servers::nginx_logging(&pods.server, 80, &"violet ".repeat(1000), LINE);
    let base = format!("http://{}", pods.server.v4());
    let (page, missing) = (format!("{base}/"), format!("{base}/missing?secret"));

    let form = pods.client.sandbox().file("form", "x".repeat(1500));
    let form = form.to_string_lossy();
    let mut answered: BTreeMap<String, u64> = BTreeMap::new();
    for (requests, arguments) in [
        (90_000, &["-c", "64", &page, &missing][..]),
        // In pipelines.
        (10_000, &["-c", "16", "-m", "8", &page]),
        // With content, which nginx does not take.
        (5000, &["-c", "64", "-d", &form, &page]),
    ] {
        let arguments = [&["--h1"], arguments].concat();
        for (class, count) in h2load::run(&pods.client, requests, &arguments) {
            *answered.entry(class).or_default() += count;
        }
    }

    // It logs a request after it has answered.
    wait::until("nginx has logged every request", || {
        nginx.stdout().lines().count() >= 105_000
    });
    let served = served(&nginx);
    for (class, count) in answered {
        let fitting = served.iter().filter(|((_, status), _)| *status == class);
        assert_eq!(
            fitting.map(|(_, alike)| alike.requests).sum::<u64>(),
            count,
            "{class}"
        );
    }
    let total: u64 = served.values().map(|alike| alike.requests).sum();
    assert_eq!(total, 105_000, "{served:?}");
    for (pod, direction) in [(&pods.client, "outbound"), (&pods.server, "inbound")] {
        let counted = |metrics: &Metrics, labels: &[(&str, &str)]| {
            let labels = [&LABELS[..], &[("direction", direction)], labels].concat();
            metrics.count("sidecar_http_requests_total", &labels)
        };
        let metrics = pod
            .sidecar()
            .metrics_when(|metrics| counted(metrics, &[]) >= total);
        for ((method, status), alike) in &served {
            let labels = [
                ("method", &**method),
                ("status", &**status),
                ("outcome", "complete"),
            ];
            assert_eq!(
                counted(&metrics, &labels),
                alike.requests,
                "{direction} {method} {status}"
            );
        }
        // And nothing else.
        assert_eq!(counted(&metrics, &[]), total, "{direction}");
        let sum = |name: &str| metrics.count(name, &[("direction", direction)]);
        assert_eq!(
            sum("sidecar_http_request_size_bytes_sum"),
            served.values().map(|alike| alike.received).sum::<u64>()
        );
        assert_eq!(
            sum("sidecar_http_response_size_bytes_sum"),
            served.values().map(|alike| alike.sent).sum::<u64>()
        );
        for histogram in ["request_duration_seconds", "time_to_first_byte_seconds"] {
            assert_eq!(sum(&format!("sidecar_http_{histogram}_count")), total);
        }
        assert_eq!(sum("sidecar_http_requests_in_flight"), 0);
        assert_eq!(sum("sidecar_opaque_connections_total"), 0);
    }
}

/// Answers each request without a length, and ends the connection as its path says.
const ENDING_SERVER: &str = r#"
listener = socket.create_server(("", 8080))
while True:
    sock, _ = listener.accept()
    path = read_line(sock).split()[1]
    while read_line(sock):
        pass
    if path == "/wait":
        assert ending(sock) == "eof"
    else:
        sock.sendall(b"HTTP/1.1 200 OK\r\n\r\nwhatever")
        if path == "/reset":
            assert ending(sock) == "got it"
            abort(sock)
    sock.close()
"#;

const ENDING_CLIENT: &str = r#"
for path in ["close", "reset", "wait"]:
    sock = dial(sys.argv[1], 8080)
    sock.sendall(f"GET /{path} HTTP/1.1\r\n\r\n".encode())
    if path != "wait":
        read(sock, len(b"HTTP/1.1 200 OK\r\n\r\nwhatever"))
    if path == "close":
        assert ending(sock) == "eof"
    if path == "reset":
        sock.sendall(b"got it")
        assert ending(sock) == "reset"
    sock.close()
"#;

#[test]
fn a_request_is_told_to_have_ended_as_its_connection_did() {
    let pods = Pods::meshed();
    let _server = pods.server.snippet(ENDING_SERVER).listen(8080);
    let client = pods.client.snippet(ENDING_CLIENT);
    client.arg(pods.server.v4().to_string()).succeed();
    for pod in [&pods.client, &pods.server] {
        let metrics = pod
            .sidecar()
            .metrics_when(|metrics| metrics.count("sidecar_connections_closed_total", &[]) == 3);
        for labels in [
            [("status", "2xx"), ("outcome", "complete")],
            [("status", "2xx"), ("outcome", "cut")],
            [("status", "none"), ("outcome", "reset_by_client")],
        ] {
            let count = metrics.count("sidecar_http_requests_total", &labels);
            assert_eq!(count, 1, "{labels:?}");
        }
        assert_eq!(metrics.count("sidecar_http_requests_in_flight", &[]), 0);
    }
}

/// Both ends of a conversation that is made of what looks like HTTP, in chunks or not, and of what
/// does not: a stream of its own each way, in random pieces. Each end tells whether it has heard what
/// the other has said.
const CONVERSATION: &str = r#"
import random, threading
def stream(seed, is_client):
    rng = random.Random(f"{seed} {is_client}")
    said = b""
    broken = rng.randrange(40)
    for turn in range(40):
        if turn == broken and seed % 4 != 0:
            said += rng.randbytes(rng.randrange(300))
        start = b"POST /%d HTTP/1.1" % turn if is_client else b"HTTP/1.1 200 OK"
        size = rng.choice([0, 1, 100, 70000])
        if rng.randrange(2):
            said += start + b"\r\nContent-Length: %d\r\n\r\n" % size + rng.randbytes(size)
            continue
        said += start + b"\r\nTransfer-Encoding: chunked\r\n\r\n"
        while size:
            chunk = rng.randrange(1, size + 1)
            said += b"%x;a=b\r\n" % chunk + rng.randbytes(chunk) + b"\r\n"
            size -= chunk
        said += b"0\r\nDigest: none\r\n\r\n"
    return said
def say(sock, seed, words):
    rng = random.Random(seed)
    while words:
        piece = rng.choice([1, 7, 300, 20000])
        sock.sendall(words[:piece])
        words = words[piece:]
    sock.shutdown(socket.SHUT_WR)
def talk(sock, seed, is_client):
    words, heard = stream(seed, is_client), stream(seed, not is_client)
    speaker = threading.Thread(target=say, args=(sock, seed, words))
    speaker.start()
    count, digest, end = drain(sock)
    speaker.join()
    is_same = count == len(heard) and digest == hashlib.sha256(heard).hexdigest()
    return is_same and end == "eof"
"#;

const CONVERSATIONS: u64 = 24;

/// Which conversation it is, the client says first.
const SPEAKING_SERVER: &str = r#"
listener = socket.create_server(("", 8080))
print("listening", file=sys.stderr, flush=True)
same = 0
while True:
    sock, _ = listener.accept()
    sock.settimeout(DEADLINE)
    seed = int(read(sock, len(b"GET /000 HTTP/1.1\r\n\r\n"))[5:8])
    sock.sendall(b"HTTP/1.1 204 None\r\n\r\n")
    if seed % 3:
        # Else it is up to chance who speaks first, and a server that does is not followed.
        sock.recv(1, socket.MSG_PEEK)
    same += talk(sock, seed, False)
    sock.close()
    print(f"same: {same}", flush=True)
"#;

const SPEAKING_CLIENT: &str = r#"
same = 0
for seed in range(int(sys.argv[2])):
    sock = dial(sys.argv[1], 8080)
    sock.sendall(b"GET /%03d HTTP/1.1\r\n\r\n" % seed)
    assert read(sock, 21) == b"HTTP/1.1 204 None\r\n\r\n"
    same += talk(sock, seed, True)
    sock.close()
report(same=same)
"#;

/// Has them talk; returns the requests that the sidecars have counted, and the connections that they
/// could not follow.
fn counted_of_conversations(flags: &[&str]) -> [(u64, u64); 2] {
    let pods = Pods::meshed_with(flags, flags);
    let mut server = pods
        .server
        .snippet(&format!("{CONVERSATION}{SPEAKING_SERVER}"))
        .start();
    server.wait_for_stderr("listening");
    let client = pods
        .client
        .snippet(&format!("{CONVERSATION}{SPEAKING_CLIENT}"));
    let heard: Value = client
        .args([&*pods.server.v4().to_string(), &*CONVERSATIONS.to_string()])
        .facts();
    assert_eq!(heard, json!({ "same": CONVERSATIONS }));
    server.wait_for_stdout(&format!("same: {CONVERSATIONS}\n"));
    [&pods.client, &pods.server].map(|pod| {
        let metrics = pod.sidecar().metrics_when(|metrics| {
            metrics.count("sidecar_connections_closed_total", &[]) == CONVERSATIONS
        });
        (
            metrics.count("sidecar_http_requests_total", &[]),
            metrics.count("sidecar_opaque_connections_total", &[]),
        )
    })
}

#[test]
fn being_observed_changes_no_byte() {
    let (requests, lost) = counted_of_conversations(&[])[0];
    assert!(
        requests > CONVERSATIONS && lost > 0,
        "{requests} requests, {lost} lost"
    );
    for flags in [["--observe", "off"], ["--opaque-ports", "8080"]] {
        assert_eq!(counted_of_conversations(&flags), [(0, 0); 2]);
    }
}

/// Checks that both sidecars have counted and logged the only connection there was as one that is not
/// followed, and that it spoke `protocol` before.
#[track_caller]
fn assert_opaque(pods: &Pods, port: u16, reason: &str, protocol: Option<&str>) {
    let (outbound, inbound) = pods.mutual_connection(port);
    for entry in [outbound, inbound] {
        assert_eq!(entry.opaque.as_deref(), Some(reason), "{entry:?}");
        assert_eq!(entry.protocol.as_deref(), protocol, "{entry:?}");
    }
    for pod in [&pods.client, &pods.server] {
        let metrics = pod.sidecar().metrics();
        let count = |labels: &[_]| metrics.count("sidecar_opaque_connections_total", labels);
        assert_eq!((count(&[]), count(&[("reason", reason)])), (1, 1));
    }
}

/// Answers a request by a head, and then echoes.
fn switching(pod: &Pod, head: &str) -> Process {
    let code = r#"
listener = socket.create_server(("", 8080))
sock, _ = listener.accept()
while read_line(sock):
    pass
sock.sendall(sys.argv[1].encode())
while data := sock.recv(KIB):
    sock.sendall(data)
sock.close()
"#;
    pod.snippet(code).arg(head).listen(8080)
}

/// Sends a request, and after the response something that is no HTTP, which must come back.
#[track_caller]
fn switch(pods: &Pods, request: &str, response: &str) {
    let _server = switching(&pods.server, response);
    let code = r"
sock = dial(sys.argv[1], 8080)
sock.sendall(sys.argv[2].encode())
head = read(sock, int(sys.argv[3]))
sock.sendall(bytes(range(256)) * 100)
sock.shutdown(socket.SHUT_WR)
count, digest, end = drain(sock)
assert digest == hashlib.sha256(bytes(range(256)) * 100).hexdigest()
report(head=head.decode(), end=end)
";
    let address = pods.server.v4().to_string();
    let seen: Value = pods
        .client
        .snippet(code)
        .args([&*address, request, &response.len().to_string()])
        .facts();
    assert_eq!(seen, json!({ "head": response, "end": "eof" }));
}

/// Checks that the only request was this one, whole.
#[track_caller]
fn assert_requested(pods: &Pods, method: &str, status: &str) {
    for pod in [&pods.client, &pods.server] {
        let metrics = pod.sidecar().metrics();
        let count = |labels: &[_]| metrics.count("sidecar_http_requests_total", labels);
        let labels = [
            ("method", method),
            ("status", status),
            ("outcome", "complete"),
        ];
        assert_eq!((count(&[]), count(&labels)), (1, 1));
    }
}

#[test]
fn a_web_socket_goes_on_unfollowed() {
    let pods = Pods::meshed();
    switch(
        &pods,
        "GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
    );
    assert_opaque(&pods, 8080, "upgraded", Some("http1"));
    assert_requested(&pods, "GET", "1xx");
}

#[test]
fn a_tunnel_goes_on_unfollowed() {
    let pods = Pods::meshed();
    switch(
        &pods,
        "CONNECT db:5432 HTTP/1.1\r\nHost: db:5432\r\n\r\n",
        "HTTP/1.1 200 Connection established\r\n\r\n",
    );
    assert_opaque(&pods, 8080, "tunnel", Some("http1"));
    assert_requested(&pods, "CONNECT", "2xx");
}

#[test]
fn a_server_that_speaks_first_is_not_followed() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    assert_opaque(&pods, 8080, "server_first", None);
}

#[test]
fn a_protocol_that_is_no_http_is_not_followed() {
    let pods = Pods::meshed();
    let _redis = servers::redis(&pods.server);
    let address = pods.server.v4().to_string();
    let redis = pods.client.program("/usr/bin/redis-cli");
    assert_eq!(redis.args(["-h", &address, "PING"]).succeed(), "PONG\n");
    assert_opaque(&pods, 6379, "not_http", None);
}

#[test]
fn tls_of_an_app_s_own_is_named_by_what_it_says_in_the_clear() {
    let pods = Pods::meshed();
    let certificate = pods.server.program("/usr/bin/openssl").args([
        "req",
        "-x509",
        "-nodes",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-subj",
        "/CN=shop.example",
        "-keyout",
        "key.pem",
        "-out",
        "certificate.pem",
    ]);
    certificate.succeed();
    let server = pods.server.program("/usr/bin/openssl");
    let _server = server
        .args(["s_server", "-www", "-accept", "8443"])
        .args(["-cert", "certificate.pem", "-key", "key.pem"])
        .listen(8443);
    let resolve = format!("shop.example:8443:{}", pods.server.v4());
    let curl = pods.client.program("curl").args(["-sSk", "--http1.1"]);
    let page = curl
        .args(["--resolve", &resolve, "https://shop.example:8443/"])
        .succeed();
    assert!(page.contains("Ciphers supported"), "{page}");
    assert_opaque(&pods, 8443, "tls", None);
    let (outbound, inbound) = pods.mutual_connection(8443);
    for entry in [outbound, inbound] {
        assert_eq!(entry.sni.as_deref(), Some("shop.example"));
        assert_eq!(entry.alpn.as_deref(), Some("http/1.1"));
    }
}
