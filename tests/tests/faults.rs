//! The death of the proxy, and a full file table: connections end, and nothing travels in plaintext.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde_json::Value;
use sidecar_tests::{App, Behaviour, Pod, Pods, SECRET, app::GREETING};

#[test]
fn without_its_sidecar_a_client_is_refused_and_sends_nothing() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    assert_eq!(ask(&pods), SECRET);
    pods.client.kill_sidecar();
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), "refused");
    assert_eq!(capture.finish().streams.len(), 0);
    app.only_session();
}

#[test]
fn without_its_sidecar_a_server_is_refused_and_hears_nothing() {
    for mut pods in [Pods::meshed(), Pods::server_meshed(&[])] {
        let app = App::start(&pods.server, Behaviour::Echo, 8080);
        assert_eq!(ask(&pods), SECRET);
        pods.server.kill_sidecar();
        let capture = pods.client.capture();
        let end = if pods.client.is_meshed() {
            "reset"
        } else {
            "refused"
        };
        assert_eq!(ask(&pods), end);
        let wire = capture.finish();
        assert!(!wire.only_stream().is_established() && !wire.contains(SECRET));
        app.only_session();
    }
}

/// Waits, after a greeting, for the end.
const WAIT: &str = "
sock = dial(sys.argv[1], 8080)
print(read_line(sock))
print(ending(sock))
";

#[test]
fn a_connection_that_is_cut_short_is_not_taken_for_a_whole_one() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let mut client = pods
        .client
        .snippet(WAIT)
        .arg(pods.server.v4().to_string())
        .start();
    client.wait_for_stdout(GREETING);
    // The kernel ends its connections with a FIN, which anybody on the way could have forged.
    pods.server.kill_sidecar();
    assert!(client.wait().success().stdout.ends_with("reset\n"));
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(connection.close, "server_reset");
    app.only_session();
}

#[test]
fn a_new_sidecar_takes_over_from_a_killed_one() {
    let mut pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let dev_ca = pods.dev_ca();
    for pod in [&mut pods.client, &mut pods.server] {
        pod.kill_sidecar();
        assert_ne!(pod.pins().len(), 0);
        pod.mesh(&dev_ca, &[]);
        pod.wait_until_ready();
    }
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), SECRET);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
}

#[test]
fn cleanup_frees_a_pod_from_a_killed_sidecar() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    for pod in [&mut pods.client, &mut pods.server] {
        pod.kill_sidecar();
        assert_ne!(pod.pins().len(), 0);
        pod.sidecar_command("cleanup").succeed();
        assert_eq!(pod.pins().len(), 0);
        pod.assert_rules_untouched();
    }
    let capture = pods.client.capture();
    assert_eq!(ask(&pods), SECRET);
    capture.finish().assert_plaintext(&[SECRET]);
    assert_eq!(
        app.only_session().peer.ip().to_canonical(),
        pods.client.v4()
    );
}

/// Opens forty connections at once, keeps those that are answered, and tells how many these are.
const CROWD: &str = r#"
import threading
def join(crowd):
    try:
        sock = dial(sys.argv[1], 8080)
        sock.sendall(b"violet rhinoceros\n")
        read_line(sock)
        crowd.append(sock)
    except (OSError, EOFError):
        pass
crowd = []
comers = [threading.Thread(target=join, args=[crowd]) for _ in range(40)]
for comer in comers:
    comer.start()
for comer in comers:
    comer.join()
report(answered=len(crowd))
"#;

#[test]
fn a_full_file_table_of_the_client_refuses_connections_until_there_is_room() {
    let pods = Pods::meshed();
    assert_crowd_is_thinned(&pods, &pods.client, "outbound");
}

#[test]
fn a_full_file_table_of_the_server_refuses_connections_until_there_is_room() {
    let pods = Pods::meshed();
    assert_crowd_is_thinned(&pods, &pods.server, "inbound");
}

/// Checks that a pod with a nearly full file table serves as many clients as it can, refuses the
/// others, and serves again when they are gone.
#[track_caller]
fn assert_crowd_is_thinned(pods: &Pods, tight: &Pod, direction: &str) {
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    leave_descriptors(tight, 20);
    let seen: Value = pods
        .client
        .snippet(CROWD)
        .arg(pods.server.v4().to_string())
        .facts();
    let answered = seen["answered"].as_u64().expect("a count");
    assert!(
        (1..40).contains(&answered),
        "{answered} of 40 were answered"
    );
    let full = [("direction", direction), ("reason", "fd_limit")];
    tight
        .sidecar()
        .metrics_when(|metrics| metrics.count("sidecar_connections_failed_total", &full) > 0);
    assert_eq!(ask(pods), SECRET);
}

/// Limits the sidecar's file table so that so many descriptors are left, or a few more.
///
/// The limit is one of numbers. It stays above those of the spare descriptors, which are of no use
/// beyond it, and what lies between them and the others was let go by the sidecar as it started.
fn leave_descriptors(pod: &Pod, least: usize) {
    let id = pod.sidecar().id();
    let table = PathBuf::from(format!("/proc/{id}/fd"));
    let taken: BTreeMap<usize, PathBuf> = fs::read_dir(&table)
        .expect("the sidecar runs")
        .map(|entry| entry.expect("an entry").file_name())
        .filter_map(|name| {
            let target = fs::read_link(table.join(&name)).ok()?;
            Some((name.to_str()?.parse().ok()?, target))
        })
        .collect();
    let spare = taken
        .iter()
        .filter(|(_, target)| **target == Path::new("/dev/null"))
        .map(|(number, _)| *number)
        .max()
        .expect("the sidecar has spare descriptors");
    let free = (0..).filter(|number| !taken.contains_key(number));
    let last_free = free.take(least).last().expect("numbers do not end");
    let limit = spare.max(last_free) + 1;
    let limit = format!("--nofile={limit}:{limit}");
    pod.program("/usr/bin/prlimit")
        .args(["--pid", &id.to_string(), &limit])
        .succeed();
}

/// Has the client pod tell the server pod a secret, and returns what comes of it.
#[track_caller]
fn ask(pods: &Pods) -> String {
    pods.client.converse(pods.server.v4(), 8080, SECRET)
}
