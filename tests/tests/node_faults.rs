//! Node mode when something is in its way: what an agent cannot tell is no reason to set a pod free, and what is another
//! one's is left to it.

use std::{
    fs::{self, File},
    mem,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::symlink,
    path::PathBuf,
    time::{Duration, Instant},
};

use sidecar_tests::{
    App, Behaviour, KubeApi, Network, Pod, Program, SECRET,
    node::{Agent, Driver, Node, NodePod},
    wait,
};

/// A port on which apps of these tests send back what they read.
const PORT: u16 = 8080;
/// Where a second API server is, which tells of other pods than the first.
const OTHER_API: u16 = 6445;
/// How often an agent sweeps, and more.
const SWEEP: Duration = Duration::from_millis(5500);

/// Labels of a pod that asks to be captured, and not by the agent.
const OTHERWISE: [(&str, &str); 1] = [("sidecar.mesh/inject", "enabled")];

fn echo(pod: &NodePod) -> App {
    App::start(&pod.pod, Behaviour::Echo, PORT)
}

/// A node of which a second API server tells that it has no pods yet.
fn node_of_two_minds() -> (Node, KubeApi) {
    let node = Node::new();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, OTHER_API));
    let api = KubeApi::start_on(Some(node.sandbox().namespace()), address);
    (node, api)
}

/// Starts an agent, and waits until others know of it.
fn begin(node: &Node, number: u32) -> Agent {
    let agent = node.agent(&[]);
    let term = node.bpffs().join(format!("sidecar-agents/{number}"));
    wait::until("it has begun", || term.exists());
    agent
}

/// Waits until an agent has looked at everything that it knew when this was called.
fn look(node: &Node, agent: &mut Agent, names: [&str; 2]) {
    for name in names {
        let host = node.start_host_network_pod(name);
        node.enrol(&host, &[]);
        // Of the second look it is said when the first is over.
        agent.says(&format!("pod default/{name} is not captured"));
    }
}

/// How many files an agent may open.
fn limit_of(agent: &Agent) -> String {
    let limits = fs::read_to_string(format!("/proc/{}/limits", agent.id())).expect("it runs");
    let mut lines = limits.lines();
    let files = lines.find_map(|line| line.strip_prefix("Max open files"));
    let soft = files.and_then(|files| files.split_whitespace().next());
    soft.expect("a number").to_owned()
}

/// What is pinned for a pod.
fn pinned(node: &Node, pod: &NodePod) -> PathBuf {
    node.bpffs().join("sidecar").join(&pod.uid)
}

#[test]
fn an_agent_that_cannot_look_at_the_pods_takes_none_for_gone() {
    let node = Node::new();
    let client = node.start_pod("client", Driver::Cgroupfs);
    let server = node.start_pod("server", Driver::Systemd);
    node.enrol(&client, &[]);
    node.enrol(&server, &[]);
    let mut agent = node.agent_with(&["--inbound", "strict"], &[&client, &server]);
    let pins = node.pins();
    let pid = agent.id().to_string();
    let limit = |soft: &str| {
        let prlimit = Program::new(node.sandbox(), "/usr/bin/prlimit");
        prlimit
            .args(["--pid", &pid, &format!("--nofile={soft}:")])
            .succeed();
    };
    let before = limit_of(&agent);
    limit("8");
    agent.says("cannot read the cgroup tree");
    limit(&before);
    look(&node, &mut agent, ["first", "second"]);
    assert!(
        !agent.log().contains("is not captured any more"),
        "{}",
        agent.log()
    );
    assert_eq!(node.pins(), pins);
    let _app = echo(&server);
    assert_eq!(client.asks(&server, PORT), SECRET);
}

#[test]
fn an_agent_takes_no_pod_from_its_successor() {
    let (mut node, other) = node_of_two_minds();
    let pod = node.start_pod("web", Driver::Cgroupfs);
    let mut old = begin(&node, 1);
    let first = mem::replace(&mut node.api, other);
    node.enrol(&pod, &[]);
    let new = node.agent_with(&[], &[&pod]);
    node.api = first;
    node.enrol(&pod, &[]);
    old.says("pod default/web is not captured: another agent serves it");
    look(&node, &mut old, ["first", "second"]);
    assert!(!new.log().contains("another agent serves"), "{}", new.log());
}

#[test]
fn an_agent_removes_nothing_of_a_pod_that_another_one_serves() {
    let (mut node, other) = node_of_two_minds();
    let pod = node.start_pod("web", Driver::Cgroupfs);
    node.enrol(&pod, &[]);
    let old = node.agent_with(&[], &[&pod]);
    let pins = node.pins();
    node.api = other;
    node.tell(&pod, &OTHERWISE, &[]);
    let mut new = begin(&node, 2);
    look(&node, &mut new, ["first", "second"]);
    assert_eq!(node.pins(), pins);
    assert!(!old.log().contains("has been removed"), "{}", old.log());
    old.kill();
    wait::until("what nobody serves has gone", || node.pins().is_empty());
}

#[test]
fn an_agent_removes_nothing_while_it_has_a_successor() {
    let (mut node, other) = node_of_two_minds();
    let pod = node.start_pod("web", Driver::Cgroupfs);
    node.tell(&pod, &OTHERWISE, &[]);
    let mut old = begin(&node, 1);
    let first = mem::replace(&mut node.api, other);
    node.enrol(&pod, &[]);
    let new = node.agent_with(&[], &[&pod]);
    let pins = node.pins();
    node.api = first;
    // One that has begun and does nothing yet.
    let term = node.bpffs().join("sidecar-agents/9");
    fs::create_dir(&term).expect("making a directory");
    let term = File::open(term).expect("it was made");
    term.try_lock().expect("nobody else knows of it");
    new.kill();
    let killed = Instant::now();
    wait::until("a sweep is due", || killed.elapsed() > SWEEP);
    look(&node, &mut old, ["first", "second"]);
    assert_eq!(node.pins(), pins, "{}", old.log());
    drop(term);
    wait::until("what nobody serves has gone", || node.pins().is_empty());
}

#[test]
fn a_refused_pod_is_closed_also_after_a_failure_and_in_a_new_sandbox() {
    let node = Node::new();
    let mut wrong = node.start_pod("wrong", Driver::Cgroupfs);
    node.enrol(&wrong, &[("sidecar.mesh/admin", "0.0.0.0:80")]);
    // In its way: no directory can be made here.
    let pins = pinned(&node, &wrong);
    fs::create_dir(node.bpffs().join("sidecar")).expect("making a directory");
    symlink("/etc/hostname", &pins).expect("making a link");
    let app = echo(&wrong);
    let mut agent = node.agent(&[]);
    agent.says("pod default/wrong cannot be captured");
    let plain = Pod::new(&node.network, "plain", 200);
    assert_eq!(plain.converse(wrong.pod.v4(), PORT, SECRET), SECRET);
    fs::remove_file(&pins).expect("it is there");
    let closed = "pod default/wrong is not captured: annotation sidecar.mesh/admin";
    agent.says(closed);
    assert_eq!(plain.converse(wrong.pod.v4(), PORT, SECRET), "refused");
    drop(app);

    // The same pod, with another namespace: that of the bridge, where nobody else listens.
    let network = node.network.sandbox().namespace().path();
    let netns = format!("--net={}", network.display());
    let program = wrong.pod.program("/usr/bin/nsenter").args([&netns, "--"]);
    wrong.pause = program.args(["/bin/sleep", "infinity"]).start();
    let program = wrong.pod.program("/usr/bin/nsenter").args([&netns, "--"]);
    let socat = [
        "/usr/bin/socat",
        "TCP-LISTEN:8080,reuseaddr,fork",
        "EXEC:cat",
    ];
    let _app = program.args(socat).listen(PORT);
    wait::until("it is closed there", || {
        agent.log().matches(closed).count() == 2
    });
    assert_eq!(plain.converse(Network::V4, PORT, SECRET), "refused");
}

#[test]
fn an_agent_with_nothing_to_do_rests() {
    const MEASURED: Duration = Duration::from_secs(3);
    /// Of a hundred a second.
    const TICKS: u64 = 60;
    let node = Node::new();
    let pod = node.start_pod("web", Driver::Cgroupfs);
    node.enrol(&pod, &[]);
    let agent = node.agent_with(&[], &[&pod]);
    let used = || -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", agent.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name");
        let times = fields.split_whitespace().skip(11).take(2);
        times
            .map(|ticks| ticks.parse::<u64>().expect("a number"))
            .sum()
    };
    let before = used();
    std::thread::sleep(MEASURED);
    let ticks = used() - before;
    assert!(ticks <= TICKS, "{ticks} in {MEASURED:?}");
}

#[test]
fn settings_wait_while_somebody_else_changes_what_is_pinned() {
    let node = Node::new();
    let held = node.start_pod("held", Driver::Cgroupfs);
    let other = node.start_pod("other", Driver::Systemd);
    node.enrol(&held, &[]);
    node.enrol(&other, &[]);
    let _agent = node.agent_with(&[], &[&held, &other]);
    let _apps = [echo(&held), echo(&other)];
    let plain = Pod::new(&node.network, "plain", 200);
    let ask = |pod: &NodePod| plain.converse(pod.pod.v4(), PORT, SECRET);
    // As a successor does, from before it writes until it serves.
    let lock = File::open(pinned(&node, &held).join("lock")).expect("it is pinned");
    lock.lock().expect("nobody has it for long");
    for pod in [&held, &other] {
        node.enrol(pod, &[("sidecar.mesh/inbound", "strict")]);
    }
    wait::until("the other one is strict", || ask(&other) == "reset");
    assert_eq!(ask(&held), SECRET);
    drop(lock);
    wait::until("it is strict as well", || ask(&held) == "reset");
}

#[test]
fn the_threads_that_serve_pods_are_confined_and_those_that_capture_them_are_not() {
    let node = Node::new();
    let client = node.start_pod("client", Driver::Cgroupfs);
    let server = node.start_pod("server", Driver::Systemd);
    node.enrol(&client, &[]);
    node.enrol(&server, &[]);
    let mut agent = node.agent_with(&["--inbound", "strict"], &[&client, &server]);
    agent.says("lanes are confined: no capabilities");
    let _app = echo(&server);
    assert_eq!(client.asks(&server, PORT), SECRET);
    let tasks = fs::read_dir(format!("/proc/{}/task", agent.id())).expect("it runs");
    let threads = tasks.map(|task| {
        let path = task.expect("it runs").path();
        fs::read_to_string(path.join("status")).expect("no thread ends")
    });
    let (lanes, others): (Vec<_>, Vec<_>) =
        threads.partition(|status| status.contains("Name:\tlane\n"));
    assert_eq!(lanes.len(), 2, "{lanes:#?}");
    let powerless = "0000000000000000";
    for status in &lanes {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert!(
                status.contains(&format!("{set}:\t{powerless}\n")),
                "{status}"
            );
        }
        assert!(status.contains("NoNewPrivs:\t1\n"), "{status}");
        assert!(status.contains("Seccomp:\t2\n"), "{status}");
    }
    assert!(!others.is_empty());
    for status in others {
        assert!(
            !status.contains(&format!("CapEff:\t{powerless}\n")),
            "{status}"
        );
    }
    // What is left for the end is within their reach.
    for pod in [&client, &server] {
        node.tell(pod, &[], &[]);
        agent.says(&format!(
            "pod default/{} is not captured any more",
            pod.name
        ));
    }
    assert_eq!(node.pins(), Vec::<PathBuf>::new());
}
