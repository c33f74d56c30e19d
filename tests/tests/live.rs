//! What an operator sees while it happens: `sidecar connections`, `edges`, `tap` and `top`.

use std::fmt::Write as _;

use nix::sys::signal::Signal;
use serde::Deserialize;
use serde_json::Value;
use sidecar_tests::{
    App, Behaviour, Pod, Pods, Process, Program, SECRET, app::GREETING, servers, sidecar, wait,
};

/// A command that looks at the sidecar of a pod, from inside.
fn live<'a>(pod: &'a Pod, command: &str) -> Program<'a> {
    pod.program(sidecar::binary()).arg(command)
}

/// The same, of lines as they come.
fn tap(pod: &Pod, flags: &[&str]) -> Process {
    let mut tap = live(pod, "tap").args(flags).start();
    tap.wait_for_stderr("watching");
    tap
}

fn curl(from: &Pod, to: &Pod) -> String {
    let url = format!("http://{}/", to.v4());
    from.program("curl").args(["-sS", &url]).succeed()
}

/// The words of the only line that has this one.
#[track_caller]
fn line<'a>(text: &'a str, word: &str) -> Vec<&'a str> {
    let lines = text
        .lines()
        .map(|line| line.split_whitespace().collect::<Vec<_>>());
    let [line] = lines
        .filter(|words| words.contains(&word))
        .collect::<Vec<_>>()
        .try_into()
        .unwrap_or_else(|_| panic!("one line was to have {word}: {text}"));
    line
}

#[test]
fn edges_name_who_has_proved_it_and_say_why_others_have_not() {
    let pods = Pods::meshed();
    let plain = pods.join("plain");
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    for client in [&pods.client, &plain] {
        assert_eq!(curl(client, &pods.server), SECRET);
    }
    pods.mutual_connection(80);
    let in_plaintext = |entry: &sidecar_tests::Connection| entry.tls == "no_peer_option";
    pods.server.sidecar().connection(in_plaintext);

    let (client, server) = (pods.client.identity(), pods.server.identity());
    let address = format!("{}:80", pods.server.v4());
    let edges = live(&pods.server, "edges").succeed();
    let meshed = line(&edges, &client);
    assert_eq!(
        meshed[..7],
        [
            &*pods.client.v4().to_string(),
            &address,
            &client,
            &server,
            "√",
            "0",
            "1"
        ],
        "{edges}"
    );
    let unmeshed = line(&edges, "no_peer_option");
    assert_eq!(
        unmeshed[..5],
        [
            &*plain.v4().to_string(),
            &address,
            "-",
            "-",
            "no_peer_option"
        ],
        "{edges}"
    );

    // The client's sidecar tells the same, seen from the node.
    let netns = pods.client.sandbox().namespace().path();
    let outside = live(&pods.client, "edges").outside().arg("--netns");
    let edges = outside.arg(netns).succeed();
    let outbound = line(&edges, &server);
    assert_eq!(
        outbound[..5],
        ["self", &address, &client, &server, "√"],
        "{edges}"
    );
}

#[test]
fn connections_are_listed_until_they_end() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let snippet = "sock = dial(sys.argv[1], sys.argv[2]); print(read_line(sock)); drain(sock)";
    let address = pods.server.v4().to_string();
    let mut client = pods
        .client
        .snippet(snippet)
        .args([&*address, "8080"])
        .start();
    client.wait_for_stdout(GREETING);
    for (pod, way, peer) in [
        (&pods.client, "out", pods.server.identity()),
        (&pods.server, "in", pods.client.identity()),
    ] {
        // It is told what it speaks just after the bytes that show it.
        let open = wait::until_some("it is known what it speaks", || {
            let open = live(pod, "connections").succeed();
            open.contains("server_first").then_some(open)
        });
        let connection = line(&open, &peer);
        assert_eq!(connection[0], way, "{open}");
        assert_eq!(
            connection[2..6],
            [&*format!("{address}:8080"), "√", &peer, "server_first"],
            "{open}"
        );
        let open: Value = live(pod, "connections").args(["-o", "json"]).facts();
        assert_eq!(open[0]["peer"], *peer);
        assert_eq!(open[0]["received"], GREETING.len() + 1);
    }
    drop(client);
    pods.mutual_connection(8080);
    for pod in [&pods.client, &pods.server] {
        assert_eq!(
            live(pod, "connections").succeed(),
            "no connection is open\n"
        );
    }
}

#[test]
fn a_tap_tells_each_event_as_it_happens_and_leaves_out_what_does_not_fit() {
    let pods = Pods::meshed();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let client = pods.client.identity();
    let mut all = tap(&pods.server, &["--peer", &client]);
    let mut requests = tap(&pods.server, &["--status", "2xx", "-o", "json"]);
    let other = tap(&pods.server, &["--port", "8080", "--max", "2"]);
    curl(&pods.client, &pods.server);

    for kind in ["opened", "request", "closed"] {
        all.wait_for_stdout(&format!(" {kind} inbound client="));
    }
    all.wait_for_stdout(&format!(
        " tls=mutual own={} peer={client} ",
        pods.server.identity()
    ));
    all.wait_for_stdout(" method=GET ");
    requests.wait_for_stdout("\n");
    let request: Value = serde_json::from_str(&requests.stdout()).expect("one line of JSON");
    assert_eq!(request["event"], "request");
    assert_eq!(
        (&request["path"], &request["status"]),
        (&"/".into(), &200.into())
    );

    pods.client.converse(pods.server.v4(), 8080, "");
    let told = other.wait().success().stdout;
    assert_eq!(told.lines().count(), 2, "{told}");
    assert!(told.lines().all(|line| line.contains(":8080 ")), "{told}");
    assert!(!requests.stdout().contains(":8080"));
    // Whoever ends it has not failed.
    all.signal(Signal::SIGINT);
    let told = all.wait().success().stdout;
    assert!(told.ends_with('\n'), "{told}");
}

#[test]
fn a_tap_tells_why_something_was_refused() {
    let pods = Pods::server_meshed(&["--inbound", "strict"]);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let mut refused = tap(&pods.server, &["--kind", "denied,failed", "--for", "1h"]);
    let url = format!("http://{}/", pods.server.v4());
    let curl = pods.client.program("curl").args(["-sS", &url]).run();
    assert!(!curl.status.success(), "{curl}");
    refused.wait_for_stdout(" close=plaintext_refused");
    let told = refused.stdout();
    assert!(
        told.contains(&format!(" inbound client={}:", pods.client.v4())),
        "{told}"
    );
}

#[test]
fn a_tap_whose_reader_has_stopped_slows_nobody_down() {
    /// Far more than what a socket, its reader and the queue hold.
    const REQUESTS: u64 = 20_000;
    #[derive(Deserialize)]
    struct Told {
        lines: u64,
        dropped: u64,
    }
    let pods = Pods::meshed();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    // It reads nothing but the head of the answer before it is signalled, then all there is.
    let snippet = "
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
sock = socket.socket()
sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
sock.settimeout(DEADLINE)
sock.connect(('127.0.0.1', 4195))
sock.sendall(b'GET /tap?format=json&kind=request HTTP/1.0\\r\\n\\r\\n')
while read_line(sock).strip(): pass
print('watching', file=sys.stderr, flush=True)
signal.sigwait({signal.SIGUSR1})
lines = dropped = 0
for line in sock.makefile('rb'):
    record = json.loads(line)
    if record['event'] == 'dropped': dropped += record['lines']
    else: lines += 1
    if lines + dropped == int(sys.argv[1]): break
report(lines=lines, dropped=dropped)
";
    let reader = pods.server.snippet(&format!("import json{snippet}"));
    let mut reader = reader.arg(REQUESTS.to_string()).start();
    reader.wait_for_stderr("watching");
    let url = format!(
        "http://{}/{}?[1-{REQUESTS}]",
        pods.server.v4(),
        "a".repeat(200)
    );
    pods.client
        .program("curl")
        .args(["-sS", "-o", "/dev/null", &url])
        .deadline(std::time::Duration::from_mins(5))
        .succeed();
    reader.signal(Signal::SIGUSR1);
    let told = reader.wait().success().stdout;
    let told: Told = serde_json::from_str(&told).expect("a line of JSON");
    assert_eq!(told.lines + told.dropped, REQUESTS);
    assert_ne!(told.dropped, 0);
}

#[test]
fn a_tap_does_not_hold_up_a_sidecar_that_stops() {
    let mut pods = Pods::meshed();
    let tap = tap(&pods.server, &[]);
    pods.server.stop_sidecar();
    let output = tap.wait().code(1);
    assert!(output.stderr.contains("has ended"), "{output}");
}

#[test]
fn top_tells_how_fast_it_goes() {
    let pods = Pods::meshed();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let url = format!("http://{}/", pods.server.v4());
    let load = ["-t1", "-c2", "-d1h", &url];
    let _load = pods.client.program("/usr/bin/wrk").args(load).start();
    // Until the first request has ended there is nothing to count.
    let mut first = tap(&pods.server, &["--kind", "request", "--max", "1"]);
    first.wait_for_stdout("request");
    let once = ["--once", "--interval", "3s"];
    let text = live(&pods.server, "top").args(once).succeed();
    let client = line(&text, &pods.client.identity());
    let [way, _, tick, _, _, requests, share, p50, p99, ..] = client[..] else {
        panic!("a row has more cells: {text}");
    };
    assert_eq!((way, tick, share), ("in", "√", "100%"), "{text}");
    assert!(!["0.0", "-"].contains(&requests), "{text}");
    assert!(p50.ends_with('s') && p99.ends_with('s'), "{text}");
}

#[test]
fn top_fills_a_terminal_and_leaves_it_as_it_was() {
    /// Green, as the terminal is told.
    const GREEN: &str = "\x1b[38;5;2;";
    #[derive(Deserialize)]
    struct Seen {
        screen: String,
        status: i32,
    }
    let pods = Pods::meshed();
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    curl(&pods.client, &pods.server);
    pods.mutual_connection(80);
    // As soon as the screen is drawn to its last line it types, or sends a signal.
    let snippet = "
import fcntl, os, pty, signal, struct, termios
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], [sys.argv[1], 'top'])
fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
screen = b''
typed = False
while True:
    try:
        screen += os.read(terminal, 65536)
    except OSError:
        break
    if not typed and b'q quit' in screen:
        if sys.argv[2] == 'q': os.write(terminal, b'q')
        else: os.kill(child, signal.Signals[sys.argv[2]])
        typed = True
_, status = os.waitpid(child, 0)
report(screen=screen.decode(), status=os.waitstatus_to_exitcode(status))
";
    let seen = |no_color: &str, end: &str| -> Seen {
        let snippet = pods.server.snippet(snippet).arg(sidecar::binary());
        let snippet = snippet
            .env("TERM", "xterm-256color")
            .env("NO_COLOR", no_color);
        snippet.arg(end).facts()
    };
    let Seen { screen, status } = seen("", "q");
    assert_eq!(status, 0, "{screen}");
    for told in ["\x1b[?1049h", "\x1b[?1049l", "√", "encrypted", GREEN] {
        assert!(screen.contains(told), "{told:?} is missing: {screen}");
    }
    // The end of the identity, however it was shortened.
    let identity = pods.client.identity();
    let end = &identity[identity.len() - 10..];
    assert!(screen.contains(end), "{end} is missing: {screen}");
    for signal in ["SIGTERM", "SIGHUP", "SIGINT", "SIGQUIT"] {
        let Seen { screen, status } = seen("1", signal);
        assert_eq!(status, 0, "{signal}: {screen}");
        assert!(screen.ends_with("\x1b[?1049l"), "{signal}: {screen}");
        assert!(screen.contains("√") && !screen.contains(GREEN), "{screen}");
    }
}

#[test]
fn a_dumb_terminal_gets_tables() {
    let pods = Pods::server_meshed(&[]);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    curl(&pods.client, &pods.server);
    // It reads until there are two tables, and ends what prints them.
    let snippet = "
import os, pty, signal
child, terminal = pty.fork()
if child == 0:
    os.execv(sys.argv[1], [sys.argv[1], 'top', '--interval', '100ms'])
told = b''
while told.count(b'no_peer_option') < 2 and b'\\x1b' not in told:
    try:
        told += os.read(terminal, 65536)
    except OSError:
        break
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
print(told.decode(), end='')
";
    let top = pods.server.snippet(snippet).arg(sidecar::binary());
    let told = top.env("TERM", "dumb").succeed();
    assert!(!told.contains('\x1b'), "{told:?}");
    assert!(told.matches("no_peer_option").count() >= 2, "{told}");
}

#[test]
fn a_neighbour_sees_metrics_and_neither_addresses_nor_paths() {
    let pods = Pods::server_meshed(&["--admin", "0.0.0.0:4195"]);
    let status = |from: &Pod, host: &str, path: &str| {
        let url = format!("http://{host}:4195{path}");
        let head = ["-sS", "-o", "/dev/null", "-I", "-w", "%{http_code}", &url];
        from.program("curl").args(head).succeed()
    };
    let mut seen = String::new();
    for path in ["/connections", "/edges", "/tap", "/metrics", "/readyz"] {
        let neighbour = status(&pods.client, &pods.server.v4().to_string(), path);
        let own = status(&pods.server, "127.0.0.1", path);
        writeln!(seen, "{path} {neighbour} {own}").expect("a string has room");
    }
    assert_eq!(
        seen,
        "/connections 403 200\n/edges 403 200\n/tap 403 200\n/metrics 200 200\n/readyz 200 200\n"
    );
}

#[test]
fn where_no_sidecar_runs_that_is_said() {
    let pods = Pods::plain();
    for command in ["connections", "edges", "tap", "top"] {
        let output = live(&pods.client, command).run();
        output.assert_one_sentence(&["127.0.0.1:4195", "is a sidecar running there", "--netns"]);
        let nowhere = live(&pods.client, command).args(["--netns", "/run/netns/nonexistent"]);
        nowhere
            .run()
            .assert_one_sentence(&["/run/netns/nonexistent"]);
        let misspelt = live(&pods.client, command).args(["--admin", "4195"]);
        misspelt.run().assert_one_sentence(&["`4195`"]);
    }
}
