//! What stands in the access log, where it goes, and that it makes nobody wait.

use std::{
    fs::{self, File},
    os::unix::fs::chown,
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use sidecar_tests::{
    App, Behaviour, Connection, Pod, Pods, SECRET,
    access_log::{self, Line},
    servers, wait,
};

/// What makes a program that user, with no capability and no way to get one.
const USER_WITH_NONE: [&str; 7] = [
    "--reuid=4195",
    "--regid=4195",
    "--clear-groups",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

/// Where nobody listens.
const DEAD: u16 = 9;

/// Says something over one connection, and has one that fails.
fn converse_and_fail(pods: &Pods) {
    let server = pods.server.v4();
    assert_eq!(pods.client.converse(server, 8080, "hello"), "hello");
    assert_eq!(pods.client.converse(server, DEAD, "hello"), "reset");
}

/// The events of the lines that a client's sidecar with these flags has written of a connection that
/// was good and one that failed, once there are `count`.
fn events(flags: &[&str], count: usize) -> Vec<Line> {
    let pods = Pods::client_meshed(flags);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    converse_and_fail(&pods);
    let sidecar = pods.client.sidecar();
    wait::until(format!("{count} lines"), || {
        sidecar.access_log().len() >= count
    });
    // Another failure comes after whatever else was to come.
    assert_eq!(
        pods.client.converse(pods.server.v4(), DEAD, "hello"),
        "reset"
    );
    wait::until("one more line", || sidecar.access_log().len() > count);
    let mut lines = sidecar.access_log();
    lines.pop();
    lines
}

#[test]
fn each_connection_has_a_line_when_it_ends() {
    let lines = events(&[], 2);
    let [Line::Connection(closed), Line::Connection(failed)] = &lines[..] else {
        panic!("{lines:#?}");
    };
    assert_eq!(
        (&*closed.event, &*closed.close, &closed.reason),
        ("closed", "eof", &None)
    );
    assert_eq!((closed.sent, closed.received), (5, 5));
    assert_eq!(
        (&*failed.event, &*failed.close),
        ("failed", "connect_refused")
    );
    let reason = failed.reason.as_deref().expect("why it has failed");
    assert!(
        reason.starts_with("cannot connect to 198.18.0.2:9"),
        "{reason}"
    );
}

#[test]
fn there_are_lines_about_what_was_chosen() {
    let lines = events(&["--access-log-events", "opened,failed"], 2);
    let [Line::Opened(opened), Line::Connection(failed)] = &lines[..] else {
        panic!("{lines:#?}");
    };
    assert_eq!(opened.tls, "no_peer_option");
    assert_eq!(opened.destination.port(), 8080);
    assert_eq!(failed.event, "failed");
}

#[test]
fn each_request_has_a_line_if_that_is_chosen() {
    let flags = ["--access-log-events", "request,closed"];
    let pods = Pods::meshed_with(&flags, &flags);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let url = format!("http://{}", pods.server.v4());
    let urls = [format!("{url}/?token=secret"), format!("{url}/missing")];
    pods.client.program("curl").arg("-sS").args(&urls).succeed();
    for pod in [&pods.client, &pods.server] {
        let sidecar = pod.sidecar();
        let closed = sidecar.connection(|entry| entry.destination.port() == 80);
        assert_eq!(closed.protocol.as_deref(), Some("http1"));
        let lines = sidecar.access_log().into_iter();
        let requests: Vec<_> = lines.filter_map(Line::request).collect();
        let [found, missing] = &requests[..] else {
            panic!("{requests:#?}");
        };
        assert_eq!((found.status, missing.status), (Some(200), Some(404)));
        assert_eq!(found.path.as_deref(), Some("/"));
        assert_eq!(missing.path.as_deref(), Some("/missing"));
        assert_eq!(found.received, SECRET.len() as u64);
        for request in &requests {
            let parties = (&request.client, &request.own, &request.peer);
            assert_eq!(parties, (&closed.client, &closed.own, &closed.peer));
            assert_eq!((&*request.method, &*request.outcome), ("GET", "complete"));
            assert!(request.first_byte <= Some(request.duration), "{request:?}");
        }
    }
}

#[test]
fn a_share_of_nothing_still_tells_what_has_failed() {
    let flags = [
        "--access-log-events",
        "opened,closed,failed",
        "--access-log-sampling",
        "0",
    ];
    let lines = events(&flags, 1);
    let [Line::Connection(failed)] = &lines[..] else {
        panic!("{lines:#?}");
    };
    assert_eq!(failed.event, "failed");
}

#[test]
fn a_log_file_is_rotated_in_either_way() {
    let mut pods = Pods::plain();
    let log = log_file(&pods.client);
    pods.mesh(
        Some(&["--access-log-file", log.to_str().expect("text")]),
        None,
    );
    assert_rotated(&pods, &log);
}

#[test]
fn a_log_file_is_rotated_without_privileges() {
    let mut pods = Pods::plain();
    let log = log_file(&pods.client);
    let home = log.parent().expect("a directory");
    chown(home, Some(4195), Some(4195)).expect("root may");
    let init = pods.client.sidecar_init(&[]).args(["--uid", "4195"]);
    init.succeed();
    let (dev_ca, file) = (home.join("dev-ca"), log.to_str().expect("text"));
    let dev_ca = dev_ca.to_str().expect("text");
    let flags = ["--dev-ca", dev_ca, "--access-log-file", file];
    pods.client.mesh_confined(&USER_WITH_NONE, &flags);
    assert_rotated(&pods, &log);
    pods.client.stop_sidecar_of_init();
}

/// A file to be in a directory of its own.
fn log_file(pod: &Pod) -> PathBuf {
    let directory = pod.sandbox().directory().join("log");
    fs::create_dir(&directory).expect("making a directory");
    directory.join("access.log")
}

fn connections(log: &Path) -> Vec<Connection> {
    let lines = access_log::parse(&fs::read_to_string(log).unwrap_or_default());
    lines.into_iter().filter_map(Line::connection).collect()
}

#[track_caller]
fn assert_rotated(pods: &Pods, log: &Path) {
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let converse_until = |lines: usize| {
        let server = pods.server.v4();
        assert_eq!(pods.client.converse(server, 8080, "hello"), "hello");
        wait::until(format!("{lines} lines"), || connections(log).len() == lines);
    };
    converse_until(1);
    let sidecar = pods.client.sidecar();
    let old = log.with_extension("log.1");
    fs::rename(log, &old).expect("renaming the log");
    sidecar.signal(Signal::SIGHUP);
    wait::until("the log is there again", || log.exists());
    converse_until(1);
    converse_until(2);
    assert_eq!(connections(&old).len(), 1);
    // Copied and truncated.
    File::create(log).expect("truncating the log");
    converse_until(1);
    assert_eq!(sidecar.connections(), []);
}

#[test]
fn a_log_file_that_cannot_be_opened_ends_the_start() {
    let pods = Pods::plain();
    let log = pods.client.sandbox().directory().join("none/access.log");
    let run = pods.client.sidecar_run().arg("--access-log-file").arg(&log);
    let output = run.run();
    output.assert_one_sentence(&[
        log.to_str().expect("text"),
        "cannot be opened: No such file or directory",
        "let the sidecar's user write in its directory",
    ]);
    pods.client.assert_nothing_left();
}

#[test]
fn a_log_that_nobody_reads_makes_no_connection_wait() {
    /// More lines than a pipe takes.
    const COUNT: u64 = 1000;
    let mut pods = Pods::plain();
    let dev_ca = pods.dev_ca();
    pods.client
        .mesh_unread(&["--dev-ca", dev_ca.to_str().expect("text")]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let loops = "for _ in range(int(sys.argv[3])):\n    \
                 assert converse(sys.argv[1], sys.argv[2], 'hello') == 'hello'";
    let snippet = pods.client.snippet(loops);
    let server = pods.server.v4().to_string();
    snippet
        .args([&*server, "8080", &COUNT.to_string()])
        .succeed();
    let sidecar = pods.client.sidecar();
    let closed = "sidecar_connections_closed_total";
    sidecar.metrics_when(|metrics| metrics.count(closed, &[]) == COUNT);
    let dropped = sidecar
        .metrics()
        .count("sidecar_access_log_dropped_lines_total", &[]);
    assert_eq!(dropped, 0, "they wait in the queue");
    // And none keeps the sidecar from ending.
    pods.client.stop_sidecar();
}
