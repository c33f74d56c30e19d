//! Node mode: one agent captures and serves the pods of its node.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use sidecar_tests::{
    App, Behaviour, Load, Pod, SECRET, cgroup,
    node::{Driver, Node, NodePod},
    wait,
};

/// A port on which apps of these tests send back what they read.
const PORT: u16 = 8080;

/// How many connections are opened at a time, over and over.
const WORKERS: usize = 8;
/// How many connections stay.
const STREAMS: usize = 50;

/// How long a pod of which the API does not tell any more stays captured while it runs.
const LINGER: Duration = Duration::from_secs(10);

/// What the agents of these tests have in common: strict pods fail a test that goes in plaintext.
const STRICT: [&str; 4] = ["--inbound", "strict", "--outbound", "strict"];

/// A node with two pods that ask to be captured.
fn two_pods() -> (Node, NodePod, NodePod) {
    let node = Node::new();
    let client = node.start_pod("client", Driver::Cgroupfs);
    let server = node.start_pod("server", Driver::Systemd);
    node.enrol(&client, &[]);
    node.enrol(&server, &[]);
    (node, client, server)
}

fn echo(pod: &NodePod) -> App {
    App::start(&pod.pod, Behaviour::Echo, PORT)
}

#[test]
fn two_pods_of_a_node_talk_mutual_tls_and_see_each_others_true_address() {
    let (node, client, server) = two_pods();
    let agent = node.agent_with(&[], &[&client, &server]);
    let app = echo(&server);
    let wire = server.pod.capture();
    assert_eq!(client.asks(&server, PORT), SECRET);
    wire.finish().assert_encrypted(&[SECRET]);
    assert_eq!(app.only_session().peer.ip().to_canonical(), client.pod.v4());
    let inbound = agent.connection(|entry| entry.direction == "inbound");
    assert_eq!(inbound.tls, "mutual");
    assert_eq!(
        (inbound.own.as_deref(), inbound.peer.as_deref()),
        (
            Some("spiffe://sidecar.local/ns/default/sa/server"),
            Some("spiffe://sidecar.local/ns/default/sa/client")
        )
    );
}

#[test]
fn an_agent_on_a_machine_without_ipv6_answers_all_the_same() {
    let node = Node::new();
    let run = node.agent_run().args(["--admin", "[::]:4195"]);
    let agent = node.agent_of(run.without_ipv6());
    let answer = wait::within(wait::DEADLINE, || agent.request("/healthz"));
    let log = agent.log();
    assert_eq!(answer.map(|(status, _)| status), Some(200), "{log}");
    assert!(!log.contains("cannot open the admin endpoint"), "{log}");
}

#[test]
fn a_pod_of_an_agent_has_smaller_maps_than_one_with_a_sidecar() {
    /// Opens a pinned map (`BPF_OBJ_GET`), and tells how much it holds.
    const OPEN: &str = r#"
import ctypes, platform, struct
path = ctypes.create_string_buffer(sys.argv[1].encode())
attributes = struct.pack("QII", ctypes.addressof(path), 0, 0)
number = {"x86_64": 321}.get(platform.machine(), 280)
fd = ctypes.CDLL(None, use_errno=True).syscall(number, 7, attributes, len(attributes))
assert fd >= 0, ctypes.get_errno()
lines = open(f"/proc/self/fdinfo/{fd}").read().splitlines()
print(next(line.split()[1] for line in lines if line.startswith("max_entries:")))
"#;
    let node = Node::new();
    let pod = node.start_pod("web", Driver::Cgroupfs);
    node.enrol(&pod, &[]);
    let _agent = node.agent_with(&[], &[&pod]);
    let own = node.start_pod("own", Driver::Cgroupfs);
    let init = own.pod.program(sidecar_tests::sidecar::binary());
    let init = init.arg("init").arg("--bpffs").arg(node.bpffs());
    let init = init.arg("--cgroup").arg(own.pod.sandbox().cgroup().path());
    init.succeed();
    let handshakes = |of: &NodePod| {
        let pins = node.bpffs().join("sidecar").join(&of.uid);
        let open = pod.pod.snippet(OPEN).arg(pins.join("maps/SC_FLOWS"));
        open.succeed().trim().to_owned()
    };
    assert_eq!(
        [handshakes(&pod), handshakes(&own)],
        ["8192".to_owned(), "65536".to_owned()]
    );
}

#[test]
fn pods_of_an_agent_and_pods_with_a_sidecar_talk_mutual_tls_both_ways() {
    let node = Node::new();
    let ours = node.start_pod("ours", Driver::Systemd);
    node.enrol(&ours, &[]);
    let _agent = node.agent_with(&STRICT, &[&ours]);
    let mut other = Pod::new(&node.network, "other", 200);
    other.mesh(&node.dev_ca(), &STRICT);
    other.wait_until_ready();
    let _ours = echo(&ours);
    let _others = App::start(&other, Behaviour::Echo, PORT);
    let wire = ours.pod.capture();
    assert_eq!(other.converse(ours.pod.v4(), PORT, SECRET), SECRET);
    assert_eq!(ours.pod.converse(other.v6(), PORT, SECRET), SECRET);
    wire.finish().assert_encrypted(&[SECRET]);
}

#[test]
fn a_pod_that_shares_the_nodes_network_is_left_alone_and_named() {
    let node = Node::new();
    let host = node.start_host_network_pod("host");
    node.enrol(&host, &[]);
    let mut agent = node.agent(&[]);
    agent.says("pod default/host is not captured: it shares the node's network");
    assert!(node.pins().is_empty() && node.lanes().is_empty());
}

#[test]
fn a_static_pod_is_left_alone_and_named() {
    let node = Node::new();
    let pod = node.start_pod("web", Driver::Cgroupfs);
    node.enrol(&pod, &[("kubernetes.io/config.mirror", "0f7a6b1c3d5e")]);
    let mut agent = node.agent(&[]);
    agent.says("pod default/web is not captured: it is a static pod");
    assert!(node.pins().is_empty() && node.lanes().is_empty());
}

#[test]
fn what_a_pod_opened_before_it_was_captured_says_nothing_more_under_strict() {
    /// Connects and says a word; waits for a file, and says what stands in it.
    const TALK: &str = r#"
import os, time
sock = dial(sys.argv[1], int(sys.argv[2]))
sock.sendall(b"ready\n")
print(read_line(sock), flush=True)
while not os.path.exists(sys.argv[3]):
    time.sleep(0.01)
sock.sendall(open(sys.argv[3]).read().encode())
time.sleep(60)
"#;
    let (node, client, server) = two_pods();
    node.tell(&server, &[], &[]);
    let _app = echo(&server);
    let words = client.pod.sandbox().directory().join("words");
    let talk = client.pod.snippet(TALK).arg(server.pod.v4().to_string());
    let mut talk = talk.arg(PORT.to_string()).arg(&words).start();
    talk.wait_for_stdout("ready");
    let agent = node.agent_with(&STRICT, &[&client]);
    let wire = client.pod.capture();
    client.pod.sandbox().file("said", SECRET);
    std::fs::rename(words.with_file_name("said"), &words).expect("they are whole");
    wait::until("it is dropped", || {
        let (_, page) = agent.request("/metrics").unwrap_or_default();
        page.lines().any(|line| {
            line.starts_with("sidecar_kernel_events_total{")
                && line.contains("dropped_old_connection")
                && !line.ends_with(" 0")
        })
    });
    assert!(!wire.finish().contains(SECRET));
}

#[test]
fn each_pod_is_held_to_its_own_annotations_also_when_they_change() {
    let (node, strict, lax) = two_pods();
    node.enrol(&strict, &[("sidecar.mesh/inbound", "strict")]);
    let mut agent = node.agent_with(&[], &[&strict, &lax]);
    let _apps = [echo(&strict), echo(&lax)];
    let plain = Pod::new(&node.network, "plain", 200);
    let ask = |pod: &NodePod| plain.converse(pod.pod.v4(), PORT, SECRET);
    assert_eq!(ask(&strict), "reset");
    assert_eq!(ask(&lax), SECRET);
    node.enrol(&strict, &[("sidecar.mesh/inbound", "permissive")]);
    node.enrol(&lax, &[("sidecar.mesh/inbound", "strict")]);
    wait::until("both have changed", || {
        ask(&strict) == SECRET && ask(&lax) == "reset"
    });
    // What is wrong changes nothing.
    node.enrol(&lax, &[("sidecar.mesh/inbound", "lax")]);
    agent.says("kept its settings as they were");
    assert_eq!(ask(&lax), "reset");
}

#[test]
fn a_pod_with_annotations_that_cannot_be_used_is_closed_until_they_are_mended() {
    let (node, wrong, client) = two_pods();
    node.enrol(&wrong, &[("sidecar.mesh/admin", "0.0.0.0:80")]);
    let mut agent = node.agent_with(&[], &[&client]);
    agent.says("sidecar.mesh/admin is a setting of the node's agent");
    let _app = echo(&wrong);
    let plain = Pod::new(&node.network, "plain", 200);
    wait::until("it is closed", || {
        plain.converse(wrong.pod.v4(), PORT, SECRET) == "refused"
    });
    assert_eq!(client.asks(&wrong, PORT), "reset");
    node.enrol(&wrong, &[]);
    agent.wait_for(&wrong);
    assert_eq!(client.asks(&wrong, PORT), SECRET);
}

#[test]
fn a_pod_that_loses_its_label_is_set_free_and_the_others_are_not() {
    let (node, client, server) = two_pods();
    let mut agent = node.agent_with(&STRICT, &[&client, &server]);
    let _app = echo(&server);
    assert_eq!(client.asks(&server, PORT), SECRET);
    for pod in [&client, &server] {
        let told = Instant::now();
        node.tell(pod, &[], &[]);
        agent.says(&format!(
            "pod default/{} is not captured any more",
            pod.name
        ));
        // One that is removed by force is not set free while it still runs.
        assert!(told.elapsed() >= LINGER);
    }
    assert_eq!(node.pins(), Vec::<std::path::PathBuf>::new());
    wait::until("no lane is left", || node.lanes().is_empty());
    let wire = server.pod.capture();
    assert_eq!(client.asks(&server, PORT), SECRET);
    assert!(wire.finish().contains(SECRET));
    // And back again.
    node.enrol(&client, &[]);
    node.enrol(&server, &[]);
    // Asked before, a server would be asked in plaintext, and then be cut off.
    wait::until("they are captured again", || {
        let log = agent.log();
        let times = |pod| {
            log.matches(&format!("captured pod default/{pod}\n"))
                .count()
        };
        times("client") == 2 && times("server") == 2
    });
    let wire = server.pod.capture();
    assert_eq!(client.asks(&server, PORT), SECRET);
    wire.finish().assert_encrypted(&[SECRET]);
}

#[test]
fn a_pod_that_comes_later_is_captured_and_one_that_goes_leaves_nothing() {
    let node = Node::new();
    let client = node.start_pod("client", Driver::Cgroupfs);
    node.enrol(&client, &[]);
    let _agent = node.agent_with(&STRICT, &[&client]);
    let pins = node.pins().len();
    for _ in 0..2 {
        // The same name each time, and another uid.
        let server = node.start_pod("server", Driver::Systemd);
        node.enrol(&server, &[]);
        wait::until("both are captured", || node.pins().len() == 2 * pins);
        let app = echo(&server);
        wait::until("the server is served", || {
            client.asks(&server, PORT) == SECRET
        });
        drop(app);
        let name = server.name.clone();
        server.end();
        wait::until("its pins have gone", || node.pins().len() == pins);
        wait::until("its lane has gone", || node.lanes().len() == 1);
        node.forget(&name);
    }
}

#[test]
fn containers_that_restart_stay_covered() {
    let (node, client, server) = two_pods();
    // Each round is to be seen whole on the wire.
    let flags = [&STRICT[..], &["--reuse", "off"]].concat();
    let _agent = node.agent_with(&flags, &[&client, &server]);
    let path = server.pod.sandbox().cgroup().path();
    for container in ["first", "second"] {
        let cgroup = path.join(container);
        std::fs::create_dir(&cgroup).expect("making a cgroup");
        let join = format!("echo 0 > {}/cgroup.procs; exec \"$@\"", cgroup.display());
        let shell = server.pod.program("/bin/sh").args(["-c", &join, "sh"]);
        let socat = [
            "/usr/bin/socat",
            "TCP-LISTEN:8080,reuseaddr,fork",
            "EXEC:cat",
        ];
        let app = shell.args(socat).listen(PORT);
        let wire = server.pod.capture();
        assert_eq!(client.asks(&server, PORT), SECRET);
        wire.finish().assert_encrypted(&[SECRET]);
        drop(app);
        cgroup::kill(&cgroup).expect("a container");
        wait::until("the container has gone", || {
            std::fs::remove_dir(&cgroup).is_ok()
        });
    }
}

#[test]
fn a_pod_whose_sandbox_is_made_anew_is_captured_in_its_new_namespace() {
    let (node, client, mut server) = two_pods();
    let mut agent = node.agent_with(&STRICT, &[&client, &server]);
    // The same pod, with another namespace: that of the bridge, where nobody else asks.
    let network = node.network.sandbox().namespace().path();
    let netns = format!("--net={}", network.display());
    let program = server.pod.program("/usr/bin/nsenter").args([&netns, "--"]);
    server.pause = program.args(["/bin/sleep", "infinity"]).start();
    agent.says("pod default/server has a new network namespace");
    let socat = [
        "/usr/bin/socat",
        "TCP-LISTEN:8080,reuseaddr,fork",
        "EXEC:cat",
    ];
    let program = server.pod.program("/usr/bin/nsenter").args([&netns, "--"]);
    let _app = program.args(socat).listen(PORT);
    wait::until("it is served there", || {
        client
            .pod
            .converse(sidecar_tests::Network::V4, PORT, SECRET)
            == SECRET
    });
    let found = agent.connection(|entry| entry.direction == "inbound");
    assert_eq!(found.tls, "mutual");
}

#[test]
fn an_agent_that_is_stopped_leaves_its_pods_closed_for_the_next() {
    let (node, client, server) = two_pods();
    let agent = node.agent_with(&[], &[&client, &server]);
    let _app = echo(&server);
    let plain = Pod::new(&node.network, "plain", 200);
    assert_eq!(plain.converse(server.pod.v4(), PORT, SECRET), SECRET);
    let pins = node.pins();
    let output = agent.stop();
    assert!(
        output
            .stderr
            .contains("2 pods stay closed until the next agent"),
        "{output}"
    );
    assert_eq!((node.pins(), node.lanes()), (pins, Vec::new()));
    assert_eq!(plain.converse(server.pod.v4(), PORT, SECRET), "refused");
    assert_eq!(client.asks(&server, PORT), "refused");
    let next = node.agent_with(&[], &[&client, &server]);
    assert_eq!(client.asks(&server, PORT), SECRET);
    next.stop();
    // Not so much as a pin is left when somebody asks for that.
    let cleanup = plain
        .program(sidecar_tests::sidecar::binary())
        .arg("cleanup");
    cleanup.arg("--bpffs").arg(node.bpffs()).succeed();
    assert!(node.pins().is_empty());
    assert_eq!(plain.converse(server.pod.v4(), PORT, SECRET), SECRET);
}

#[test]
fn what_is_open_when_an_agent_stops_has_the_drain_timeout_and_is_then_cut() {
    const GRACE: Duration = Duration::from_secs(2);
    let (node, client, server) = two_pods();
    let agent = node.agent_with(&["--drain-timeout", "2s"], &[&client, &server]);
    let mut load = Load::start(&client.pod, &server.pod, WORKERS, STREAMS);
    load.wait_for(0, 200);
    let stopped = Instant::now();
    agent.stop();
    assert!(stopped.elapsed() >= GRACE);
    let _next = node.agent_with(&[], &[&client, &server]);
    load.next_phase();
    load.wait_for(1, 200);
    let seen = load.finish();
    assert_eq!(seen.failed[1], BTreeMap::new(), "{seen:?}");
    assert_eq!(seen.broken.values().sum::<usize>(), STREAMS, "{seen:?}");
}

#[test]
fn an_agent_captures_its_pods_again_after_a_cleanup() {
    let node = Node::new();
    let pod = node.start_pod("web", Driver::Cgroupfs);
    node.enrol(&pod, &[]);
    let mut agent = node.agent_with(&[], &[&pod]);
    let pins = node.pins().len();
    let plain = Pod::new(&node.network, "plain", 200);
    let cleanup = plain
        .program(sidecar_tests::sidecar::binary())
        .arg("cleanup");
    cleanup.arg("--bpffs").arg(node.bpffs()).succeed();
    agent.says("what was pinned for it has been removed by somebody else");
    wait::until("it is captured again", || {
        agent.log().matches("captured pod default/web\n").count() == 2
    });
    assert_eq!(node.pins().len(), pins);
}

#[test]
fn an_agent_that_takes_over_under_load_loses_no_connection() {
    let (node, client, server) = two_pods();
    let impatient = [&STRICT[..], &["--drain-timeout", "200ms"]].concat();
    let mut old = node.agent_with(&impatient, &[&client, &server]);
    let wire = client.pod.capture_starts();
    let mut load = Load::start(&client.pod, &server.pod, WORKERS, STREAMS);
    load.wait_for(0, 200);
    let _new = node.agent_with(&impatient, &[&client, &server]);
    for pod in ["client", "server"] {
        old.says(&format!("another agent serves pod default/{pod} now"));
    }
    // By the first nothing is captured any more.
    wait::until("the second has the admin endpoint", || {
        let page = old.request("/metrics");
        page.is_some_and(|(_, page)| page.contains("sidecar_node_pods{state=\"captured\"} 2"))
    });
    load.next_phase();
    load.wait_for(1, 200);
    let seen = load.finish();
    assert_eq!(seen.failed, [BTreeMap::new(), BTreeMap::new()], "{seen:?}");
    assert_eq!(seen.broken, BTreeMap::new(), "{seen:?}");
    assert!(!wire.finish().contains(SECRET));
    let pins = node.pins();
    old.stop();
    assert_eq!(node.pins(), pins);
    let _app = Load::server(&server.pod);
    let said = format!("once {SECRET}\n");
    let heard = client.pod.converse(server.pod.v4(), Load::PORT, &said);
    assert_eq!(heard, said.trim());
}

#[test]
fn an_agent_that_is_told_to_stop_too_early_waits_for_the_one_that_has_begun() {
    let (node, client, server) = two_pods();
    let old = node.agent_with(&[], &[&client, &server]);
    let mut load = Load::start(&client.pod, &server.pod, WORKERS, STREAMS);
    load.wait_for(0, 100);
    let new = node.agent(&[]);
    let term = node.bpffs().join("sidecar-agents/2");
    wait::until("the other one has begun", || term.exists());
    // Long before it has captured anything.
    old.signal(Signal::SIGTERM);
    let ready = || new.request("/readyz").map(|(status, _)| status);
    wait::until("the new one has the address", || ready() == Some(200));
    load.next_phase();
    load.wait_for(1, 100);
    let seen = load.finish();
    assert_eq!(seen.failed, [BTreeMap::new(), BTreeMap::new()], "{seen:?}");
    old.wait();
    assert!(!term.with_file_name("1").exists());
    new.stop();
}

#[test]
fn an_agent_whose_successor_dies_takes_its_pods_back() {
    let (node, client, server) = two_pods();
    let mut old = node.agent_with(&STRICT, &[&client, &server]);
    let _app = echo(&server);
    let new = node.agent_with(&STRICT, &[&client, &server]);
    for pod in ["client", "server"] {
        old.says(&format!("another agent serves pod default/{pod} now"));
    }
    new.kill();
    wait::until("the old one serves again", || {
        client.asks(&server, PORT) == SECRET
    });
    wait::until("it has the address again", || {
        let ready = old.request("/readyz");
        ready.is_some_and(|(status, _)| status == 200)
    });
}

#[test]
fn a_killed_agent_leaves_pods_closed_and_the_next_takes_them_over_under_load() {
    let (node, client, server) = two_pods();
    let agent = node.agent_with(&[], &[&client, &server]);
    let wire = client.pod.capture_starts();
    let mut load = Load::start(&client.pod, &server.pod, WORKERS, STREAMS);
    load.wait_for(0, 200);
    agent.kill();
    let said = format!("once {SECRET}\n");
    let ask = || client.pod.converse(server.pod.v4(), Load::PORT, &said);
    assert_eq!(ask(), "refused");
    let _next = node.agent_with(&[], &[&client, &server]);
    // The cgroups of the dead one's lanes have gone as well.
    assert_eq!(node.lanes().len(), 2);
    load.next_phase();
    load.wait_for(1, 200);
    let seen = load.finish();
    assert_eq!(seen.failed[1], BTreeMap::new(), "{seen:?}");
    assert_eq!(seen.broken.values().sum::<usize>(), STREAMS, "{seen:?}");
    assert!(!wire.finish().contains(SECRET));
}

#[test]
fn what_was_pinned_for_pods_that_went_while_no_agent_ran_is_removed() {
    let (node, gone, disenrolled) = two_pods();
    let agent = node.agent_with(&[], &[&gone, &disenrolled]);
    agent.kill();
    // A pod of the same node that has a sidecar of its own.
    let own = node.start_pod("own", Driver::Cgroupfs);
    let init = own.pod.program(sidecar_tests::sidecar::binary());
    let init = init.arg("init").arg("--bpffs").arg(node.bpffs());
    let init = init.arg("--cgroup").arg(own.pod.sandbox().cgroup().path());
    init.succeed();
    let with_all = node.pins().len();
    let name = gone.name.clone();
    gone.end();
    node.forget(&name);
    node.tell(&disenrolled, &[], &[]);
    let _next = node.agent(&[]);
    wait::until("only the sidecar's pins are left", || {
        node.pins().len() == with_all / 3
    });
    let _app = echo(&disenrolled);
    let plain = Pod::new(&node.network, "plain", 200);
    assert_eq!(plain.converse(disenrolled.pod.v4(), PORT, SECRET), SECRET);
}

#[test]
fn a_pod_that_has_a_sidecar_of_its_own_is_left_to_it() {
    let node = Node::new();
    let own = node.start_pod("own", Driver::Cgroupfs);
    let init = own.pod.program(sidecar_tests::sidecar::binary());
    let init = init.arg("init").arg("--bpffs").arg(node.bpffs());
    let init = init.arg("--cgroup").arg(own.pod.sandbox().cgroup().path());
    init.succeed();
    let pins = node.pins();
    node.enrol(&own, &[]);
    let mut agent = node.agent(&[]);
    agent.says("pod default/own is not captured: it has a sidecar of its own");
    assert_eq!(node.pins(), pins);
    assert!(agent.stop().stderr.contains("0 pods stay closed"));
    assert_eq!(node.pins(), pins);
}

#[test]
fn the_capabilities_that_are_documented_suffice() {
    let (node, client, server) = two_pods();
    let set = "-all,+bpf,+net_admin,+sys_admin,+sys_ptrace";
    let setpriv = sidecar_tests::Program::new(node.sandbox(), "/usr/bin/setpriv")
        .args([
            "--inh-caps",
            set,
            "--bounding-set",
            set,
            "--no-new-privs",
            "--",
        ])
        .arg(sidecar_tests::sidecar::binary());
    let mut agent = node.agent_of(node.agent_by(setpriv).args(STRICT));
    agent.wait_for(&client);
    agent.wait_for(&server);
    let _app = echo(&server);
    assert_eq!(client.asks(&server, PORT), SECRET);
    for pod in [&client, &server] {
        node.tell(pod, &[], &[]);
    }
    wait::until("both are set free", || {
        node.pins().is_empty() && node.lanes().is_empty()
    });
    agent.signal(Signal::SIGTERM);
    agent.wait();
}

#[test]
fn pods_of_two_nodes_talk_mutual_tls() {
    let here = Node::new();
    let there = Node::numbered_from(&Arc::clone(&here.network), 100);
    let client = here.start_pod("client", Driver::Cgroupfs);
    let server = there.start_pod("server", Driver::Cgroupfs);
    here.enrol(&client, &[]);
    there.enrol(&server, &[]);
    let (mut one, mut other) = (here.agent(&STRICT), there.agent(&STRICT));
    one.wait_for(&client);
    other.wait_for(&server);
    let _app = echo(&server);
    let wire = server.pod.capture();
    assert_eq!(client.asks(&server, PORT), SECRET);
    wire.finish().assert_encrypted(&[SECRET]);
}
