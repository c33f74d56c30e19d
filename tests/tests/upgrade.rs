//! One sidecar takes over from another while connections come and go: none is lost.

use std::{
    collections::BTreeMap,
    fs,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde::Deserialize;
use sidecar_tests::{Load, Pod, Pods, SECRET, Sidecar, servers, wait};

/// How many connections are opened at a time, over and over.
const WORKERS: usize = 16;
/// No settings of its own.
const NONE: &[&str] = &[];
/// How many connections stay.
const STREAMS: usize = 200;

#[test]
fn an_upgrade_loses_no_connection_and_breaks_no_stream() {
    // Who is replaced is not told to stop, so this is of no matter to the streams.
    let impatient = ["--drain-timeout", "200ms"];
    let mut pods = Pods::meshed_with(&impatient, &impatient);
    let capture = pods.client.capture_starts();
    let mut load = Load::start(&pods.client, &pods.server, WORKERS, STREAMS);
    load.wait_for(0, 300);
    let dev_ca = pods.dev_ca();
    let old = [&mut pods.client, &mut pods.server].map(|pod| pod.upgrade(&dev_ca, &[]));
    // Whoever is replaced serves on: the streams, and handshakes that were under way.
    for sidecar in &old {
        sidecar.logs(&["serves the pod now"]);
    }
    load.next_phase();
    load.wait_for(1, 300);
    for pod in [&mut pods.client, &mut pods.server] {
        pod.wait_until_ready();
        // The admin endpoint is the new one's: the streams are not among its connections.
        let open = pod.sidecar().get("/connections");
        assert!(open.matches("\"client\"").count() <= 2 * WORKERS, "{open}");
    }
    let seen = load.finish();
    assert_eq!(seen.failed, [BTreeMap::new(), BTreeMap::new()], "{seen:?}");
    assert_eq!(seen.broken, BTreeMap::new(), "{seen:?}");
    assert!(seen.lines > STREAMS as u64, "{seen:?}");
    assert!(!capture.finish().contains(SECRET));
    // The streams have ended, so those that were replaced end as well, and leave all to the new.
    for (sidecar, pod) in old.into_iter().zip([&pods.client, &pods.server]) {
        let streams = |sidecar: &Sidecar| sidecar.connections().len() >= STREAMS;
        wait::until("the streams are logged", || streams(&sidecar));
        sidecar.wait_for_exit();
        assert_ne!(pod.pins().len(), 0);
    }
    // What the new one has taken over goes with it: the end of both pods checks that.
}

/// As fast as the machine opens connections: with a sidecar on one side alone, there is no handshake
/// to spend its time on.
#[test]
fn an_upgrade_under_a_flood_of_new_connections_fails_none() {
    for (client, server) in [
        (Some(NONE), None),
        (None, Some(NONE)),
        (Some(NONE), Some(NONE)),
    ] {
        let mut pods = Pods::plain();
        pods.mesh(client, server);
        let _nginx = servers::nginx(&pods.server, 80, SECRET);
        let url = format!("http://{}/", pods.server.v4());
        let wrk = pods.client.program("/usr/bin/wrk");
        // Until it is told to end, when there was enough of it.
        let flags = ["-t", "1", "-c", "64", "-d", "5m", "-H", "Connection: close"];
        let wrk = wrk.args(flags).arg(url).start();
        let dev_ca = pods.dev_ca();
        let mut old = Vec::new();
        for (pod, meshed) in [(&mut pods.client, client), (&mut pods.server, server)] {
            if meshed.is_some() {
                wait_for_connections(pod, 300);
                let replaced = pod.upgrade(&dev_ca, &[]);
                // Until then the admin endpoint may be its own.
                replaced.logs(&["serves the pod now"]);
                old.push(replaced);
                pod.wait_until_ready();
                wait_for_connections(pod, 300);
            }
        }
        wrk.signal(Signal::SIGINT);
        let report = wrk.wait_within(Duration::from_mins(1)).success();
        let is_flawless = !["Socket errors", "Non-2xx"]
            .iter()
            .any(|trouble| report.stdout.contains(trouble));
        assert!(is_flawless, "{report}");
        for sidecar in old {
            sidecar.wait_for_exit();
        }
    }
}

/// Waits until the sidecar that serves the pod has carried so many connections.
#[track_caller]
fn wait_for_connections(pod: &Pod, count: u64) {
    pod.sidecar()
        .metrics_when(|metrics| metrics.count("sidecar_connections_closed_total", &[]) >= count);
}

/// A client made by hand, that sends the last segment of the handshake when it is told to.
const SLOW: &str = r#"
from raw_peer import *
peer = Peer(*sys.argv[1:4], 40000, 8080)
peer.send(SYN, MSS)
peer.receive()
report(half_open=True)
open(sys.argv[4]).read()
peer.send(ACK)
peer.send(ACK, payload=b"once slow\n")
end, received = peer.end()
peer.send(FIN | ACK)
report(end=end, received=received.decode())
"#;

#[test]
fn a_handshake_that_began_before_an_upgrade_is_completed_after_it() {
    let mut pods = Pods::server_meshed(&[]);
    let _server = Load::server(&pods.server);
    let pipe = pods.client.sandbox().directory().join("pipe");
    pods.client.program("mkfifo").arg(&pipe).succeed();
    let (own, peer) = ("198.18.0.77", pods.server.v4().to_string());
    let hardware = pods.client.hardware_address();
    let neighbour = format!("neigh add {own} lladdr {hardware} dev eth0");
    pods.server.sandbox().namespace().ip(&neighbour);
    let slow = pods.client.snippet(SLOW).args([own, &peer]);
    let mut slow = slow.arg(pods.server.hardware_address()).arg(&pipe).start();
    slow.wait_for_stdout("half_open");
    let dev_ca = pods.dev_ca();
    let old = pods.server.upgrade(&dev_ca, &[]);
    old.logs(&["serves the pod now"]);
    fs::write(&pipe, "").expect("writing to the pipe");
    slow.wait_for_stdout("\"end\": \"eof\", \"received\": \"once slow");
    old.only_connection("inbound");
    old.wait_for_exit();
}

#[test]
fn a_kill_and_a_restart_lose_what_was_open_and_nothing_after() {
    let mut pods = Pods::meshed();
    let capture = pods.client.capture_starts();
    let mut load = Load::start(&pods.client, &pods.server, WORKERS, STREAMS);
    load.wait_for(0, 200);
    let dev_ca = pods.dev_ca();
    for pod in [&mut pods.client, &mut pods.server] {
        pod.kill_sidecar();
    }
    // Nobody serves: everything is refused.
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, SECRET),
        "refused"
    );
    for pod in [&mut pods.client, &mut pods.server] {
        pod.mesh(&dev_ca, &[]);
    }
    for pod in [&mut pods.client, &mut pods.server] {
        pod.wait_until_ready();
    }
    load.next_phase();
    load.wait_for(1, 300);
    let seen = load.finish();
    assert_ne!(seen.failed[0], BTreeMap::new(), "{seen:?}");
    assert_eq!(seen.failed[1], BTreeMap::new(), "{seen:?}");
    assert_eq!(seen.broken.values().sum::<usize>(), STREAMS, "{seen:?}");
    let wire = capture.finish();
    assert!(!wire.contains(SECRET));
    assert_eq!(pods.client.sidecar().kernel_events("flow_table_full"), 0);
}

#[test]
fn a_sidecar_that_is_told_to_stop_after_it_was_replaced_leaves_all_to_the_new_one() {
    let mut pods = Pods::meshed();
    let _server = Load::server(&pods.server);
    let dev_ca = pods.dev_ca();
    let old = pods.server.upgrade(&dev_ca, &[]);
    // At once: it may not have noticed yet.
    old.signal(Signal::SIGTERM);
    old.wait_for_exit();
    assert_ne!(pods.server.pins().len(), 0);
    pods.server.wait_until_ready();
    let capture = pods.client.capture();
    let said = format!("once {SECRET}\n");
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, &said),
        said.trim()
    );
    capture.finish().assert_encrypted(&[SECRET]);
    pods.server.sidecar().only_connection("inbound");
}

#[test]
fn programs_are_replaced_where_they_are_attached() {
    let mut pods = Pods::meshed();
    let links = |pods: &Pods| -> Vec<(String, u32, u32)> {
        let status = pods.server.sidecar_command("status").args(["-o", "json"]);
        let [status] = status.facts::<[Status; 1]>();
        assert_eq!(status.pid, Some(pods.server.sidecar().id()));
        let links = status.links.into_iter();
        links
            .map(|link| (link.program, link.id, link.program_id))
            .collect()
    };
    let before = links(&pods);
    let dev_ca = pods.dev_ca();
    let old = pods.server.upgrade(&dev_ca, &["--log", "debug"]);
    let after = links(&pods);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!((&before.0, before.1), (&after.0, after.1));
        assert_ne!(
            before.2, after.2,
            "the program of {} is the old one",
            before.0
        );
    }
    assert_eq!(before.len(), after.len());
    old.wait_for_exit();
}

#[test]
fn a_state_of_another_layout_is_replaced_and_its_sidecar_told() {
    let mut pods = Pods::meshed();
    let _server = Load::server(&pods.server);
    set_layout(&pods.server, 4711);
    let dev_ca = pods.dev_ca();
    let old = pods.server.upgrade(&dev_ca, &[]);
    old.logs(&["serves the pod now"]);
    old.wait_for_exit();
    pods.server.wait_until_ready();
    let said = format!("once {SECRET}\n");
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, &said),
        said.trim()
    );
    pods.server.sidecar().only_connection("inbound");
}

#[test]
fn a_start_that_fails_over_another_layout_leaves_the_pod_to_the_sidecar_that_serves() {
    /// Far above the time in which a sidecar that is replaced notices.
    const NOTICED: Duration = Duration::from_secs(2);
    let mut pods = Pods::meshed();
    let _server = Load::server(&pods.server);
    set_layout(&pods.server, 4711);
    let pins = pods.server.pins();
    let started = Instant::now();
    while started.elapsed() < NOTICED {
        let run = pods.server.sidecar_run().arg("--dev-ca").arg(pods.dev_ca());
        // Nobody can listen there, which is found out when the programs are loaded.
        let output = run.args(["--admin", "192.0.2.1:4195"]).run().code(1);
        assert!(output.stderr.contains("replacing it"), "{output}");
        assert!(output.stderr.contains("192.0.2.1:4195"), "{output}");
        assert_eq!(pods.server.pins(), pins);
    }
    let said = format!("once {SECRET}\n");
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, &said),
        said.trim()
    );
    pods.server.sidecar().only_connection("inbound");
    // Only who serves the pod removes what is pinned, as is checked.
    pods.server.stop_sidecar();
}

/// What `sidecar status` says.
#[derive(Deserialize)]
struct Status {
    pid: Option<u32>,
    links: Vec<Link>,
}

#[derive(Deserialize)]
struct Link {
    program: String,
    program_id: u32,
    #[serde(rename = "link_id")]
    id: u32,
}

/// Has what is pinned for a pod look as if a version with another layout had made it.
fn set_layout(pod: &Pod, layout: u32) {
    let map = pod.pins().into_iter().find(|path| path.ends_with("SC_ABI"));
    let map = map.expect("it is pinned");
    let script = pod.script("pinned.py").arg(map);
    script.arg(layout.to_string()).succeed();
}
