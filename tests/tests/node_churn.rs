//! Pods of a node that come, change and go in an order that nobody has chosen.
//!
//! The order is that of a seed, which a failure shows; `SIDECAR_CHURN_SEED` sets it.

use std::{
    collections::BTreeSet,
    env, fs, mem,
    path::{Path, PathBuf},
};

use fastrand::Rng;
use sidecar_tests::{
    App, Behaviour, Capture, SECRET,
    node::{Agent, Driver, Node, NodePod, PlannedPod},
    wait,
};

const PORT: u16 = 8080;
/// How many pods there are at most, and one that all ask.
const PODS: usize = 50;
/// How many things happen.
const EVENTS: usize = 200;
/// How often the agent goes meanwhile.
const AGENTS: usize = 3;

/// A name that pods have, one after another.
enum Place {
    /// Nobody has it.
    Free,
    /// The API tells of a pod that is not there yet.
    Announced(PlannedPod),
    /// It is there, and the API does not tell of it yet.
    Untold(NodePod),
    /// It is there, and asks to be captured.
    Labelled(NodePod),
    /// It is there, and asks for nothing.
    Unlabelled(NodePod),
    /// It has gone, and the API still tells of it.
    Gone,
}

/// How one agent follows another.
#[derive(Clone, Copy, Debug)]
enum Change {
    /// It takes over from one that runs.
    Upgrade,
    /// It comes some time after one that was stopped.
    Restart,
    /// It comes some time after one that was killed.
    Crash,
}

struct Churn<'a> {
    node: &'a Node,
    random: Rng,
    /// By the number in the name.
    places: Vec<Place>,
    /// They are there, and the API does not tell of them any more.
    leaving: Vec<NodePod>,
    agent: Option<Agent>,
}

impl<'a> Churn<'a> {
    fn new(node: &'a Node, seed: u64) -> Self {
        Self {
            node,
            random: Rng::with_seed(seed),
            places: (0..PODS).map(|_| Place::Free).collect(),
            leaving: Vec::new(),
            agent: None,
        }
    }

    fn start_agent(&mut self) {
        let strict = ["--inbound", "strict", "--outbound", "strict"];
        let flags = [&strict[..], &["--drain-timeout", "200ms"]].concat();
        self.agent = Some(self.node.agent(&flags));
    }

    /// Something happens to a pod, whichever.
    fn event(&mut self) {
        let number = self.random.usize(..PODS);
        let place = mem::replace(&mut self.places[number], Place::Free);
        self.places[number] = self.next(place, &format!("p{number}-"));
        if !self.leaving.is_empty() && self.random.bool() {
            let leaves = self.random.usize(..self.leaving.len());
            self.leaving.swap_remove(leaves).end();
        }
    }

    fn next(&mut self, place: Place, name: &str) -> Place {
        let node = self.node;
        match place {
            Place::Free => {
                let driver = [Driver::Cgroupfs, Driver::Systemd][self.random.usize(..2)];
                let planned = node.plan(name, driver);
                if self.random.bool() {
                    node.announce(&planned);
                    return Place::Announced(planned);
                }
                Place::Untold(node.start(planned))
            }
            Place::Announced(planned) => Place::Labelled(node.start(planned)),
            Place::Untold(pod) if self.random.u8(..4) == 0 => {
                node.tell(&pod, &[], &[]);
                Place::Unlabelled(pod)
            }
            Place::Untold(pod) | Place::Unlabelled(pod) => {
                node.enrol(&pod, &[]);
                Place::Labelled(pod)
            }
            Place::Labelled(mut pod) => match self.random.u8(..4) {
                0 => {
                    node.tell(&pod, &[], &[]);
                    Place::Unlabelled(pod)
                }
                1 => {
                    pod.restart();
                    Place::Labelled(pod)
                }
                2 => {
                    node.forget(name);
                    self.leaving.push(pod);
                    Place::Free
                }
                _ => {
                    pod.end();
                    Place::Gone
                }
            },
            Place::Gone => {
                node.forget(name);
                Place::Free
            }
        }
    }

    /// Another agent comes.
    fn change(&mut self, change: Change) {
        let old = self.agent.take().expect("there is always one");
        match change {
            Change::Upgrade => {
                self.start_agent();
                old.stop();
            }
            Change::Restart | Change::Crash => {
                match change {
                    Change::Restart => drop(old.stop()),
                    _ => old.kill(),
                }
                for _ in 0..self.random.usize(..5) {
                    self.event();
                }
                self.start_agent();
            }
        }
    }

    fn labelled(&self) -> impl Iterator<Item = &NodePod> {
        self.places.iter().filter_map(|place| match place {
            Place::Labelled(pod) => Some(pod),
            _ => None,
        })
    }

    /// Those that are there and do not ask to be captured.
    fn free(&self) -> impl Iterator<Item = &NodePod> {
        self.places.iter().filter_map(|place| match place {
            Place::Untold(pod) | Place::Unlabelled(pod) => Some(pod),
            _ => None,
        })
    }
}

#[test]
fn fifty_pods_in_any_order_are_captured_exactly_as_they_ask_to_be() {
    let seed = env::var("SIDECAR_CHURN_SEED").ok();
    let seed = seed.map_or_else(
        || fastrand::u64(..),
        |seed| seed.parse().expect("SIDECAR_CHURN_SEED is a number"),
    );
    println!("SIDECAR_CHURN_SEED={seed}");
    let node = Node::new();
    let [server, plain] = ["server", "plain"].map(|name| node.start_pod(name, Driver::Systemd));
    let _apps = [&server, &plain].map(|pod| App::start(&pod.pod, Behaviour::Echo, PORT));
    node.enrol(&server, &[]);
    let mut churn = Churn::new(&node, seed);
    churn.start_agent();
    let mut left: BTreeSet<usize> = BTreeSet::new();
    while left.len() < AGENTS {
        left.insert(churn.random.usize(EVENTS / 4..EVENTS));
    }
    let mut changes = vec![Change::Upgrade, Change::Restart, Change::Crash];
    churn.random.shuffle(&mut changes);
    for number in 0..EVENTS {
        if left.contains(&number)
            && let Some(change) = changes.pop()
        {
            println!("at {number}: {change:?}");
            churn.change(change);
        }
        churn.event();
    }
    churn.leaving.clear();

    let agent = churn.agent.as_ref().expect("there is always one");
    let asking = || churn.labelled().chain([&server]);
    let uids: BTreeSet<String> = asking().map(|pod| pod.uid.clone()).collect();
    println!("{} pods ask to be captured", uids.len());
    wait::until("nothing is pinned but for pods that ask for it", || {
        pinned(&node) == uids
    });
    wait::until("each of them has a lane, and nobody else", || {
        node.lanes().len() == uids.len() && lanes_of(agent) == uids.len()
    });
    let wires = [&server, &plain].map(|pod| pod.pod.capture());
    for pod in churn.labelled() {
        // In a new namespace a pod is refused everything until it is captured there.
        wait::until(format!("{} is served", pod.name), || {
            asks(pod, &server) == SECRET
        });
        assert_eq!(asks(pod, &plain), "", "{} is strict", pod.name);
    }
    let [to_server, to_plain] = wires.map(Capture::finish);
    to_server.assert_encrypted(&[SECRET]);
    assert!(!to_plain.contains(SECRET));
    for pod in churn.free() {
        assert_eq!(asks(pod, &plain), SECRET, "{} is left alone", pod.name);
        assert_eq!(asks(pod, &server), "", "{} asks in plaintext", pod.name);
    }
    assert_eq!(pinned(&node), uids);
    // One that has served a sandbox that is no more drains first.
    wait::until("each has one lane again", || {
        node.lanes().len() == uids.len() && lanes_of(agent) == uids.len()
    });
    churn.agent.take().expect("there is always one").stop();
    assert_eq!(node.lanes().len(), 0);
}

#[test]
fn a_pod_whose_sandbox_is_made_anew_has_one_lane_and_the_agent_ends() {
    let node = Node::new();
    let mut pod = node.start_pod("pod", Driver::Systemd);
    node.enrol(&pod, &[]);
    let mut agent = node.agent(&[]);
    agent.wait_for(&pod);
    pod.restart();
    agent.says("pod default/pod has a new network namespace");
    let is_second = |lane: &PathBuf| lane.to_string_lossy().ends_with("-2");
    wait::until("only the second lane is left", || {
        let lanes = node.lanes();
        lanes.len() == 1 && lanes.iter().all(is_second) && lanes_of(&agent) == 1
    });
    let log = agent.stop().stderr;
    assert_eq!(
        log.matches("captured pod default/pod\n").count(),
        2,
        "{log}"
    );
    assert!(!log.contains("another agent"), "{log}");
}

/// What somebody in a pod hears from an echo server at another one; nothing if that refuses it.
fn asks(pod: &NodePod, server: &NodePod) -> String {
    let address = format!("TCP:{}:{PORT}", server.pod.v4());
    let socat = pod.pod.program("/usr/bin/socat").args(["-t", "10", "-"]);
    socat.arg(address).stdin(SECRET).run().stdout
}

/// The uids of the pods for which something is pinned.
fn pinned(node: &Node) -> BTreeSet<String> {
    let pods = fs::read_dir(node.bpffs().join("sidecar"));
    let names = pods.into_iter().flatten().flatten();
    names
        .map(|pod| pod.file_name().to_string_lossy().into_owned())
        .collect()
}

/// How many threads of an agent serve a pod.
fn lanes_of(agent: &Agent) -> usize {
    let tasks = Path::new("/proc").join(agent.id().to_string()).join("task");
    let tasks = fs::read_dir(tasks).expect("it runs").flatten();
    tasks
        .filter_map(|task| fs::read_to_string(task.path().join("comm")).ok())
        .filter(|name| name.trim() == "lane")
        .count()
}
