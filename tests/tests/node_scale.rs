//! Many pods of one node: what they cost, and that those that have gone leave nothing.

use std::{fs, path::Path, time::Instant};

use sidecar_tests::{
    App, Behaviour, SECRET,
    node::{Agent, Driver, Node, NodePod},
    wait,
};

const PORT: u16 = 8080;

/// What a process holds.
#[derive(Clone, Copy, Debug)]
struct Held {
    descriptors: usize,
    threads: usize,
    /// Resident, in KiB.
    memory: usize,
}

impl Held {
    fn by(agent: &Agent) -> Self {
        let process = Path::new("/proc").join(agent.id().to_string());
        let count = |name| fs::read_dir(process.join(name)).expect("it runs").count();
        let status = fs::read_to_string(process.join("status")).expect("it runs");
        let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let memory = memory.and_then(|memory| memory.split_whitespace().next()?.parse().ok());
        Self {
            descriptors: count("fd"),
            threads: count("task"),
            memory: memory.expect("a number"),
        }
    }
}

fn captured(agent: &Agent) -> usize {
    let (_, page) = agent.request("/metrics").unwrap_or_default();
    let line = page
        .lines()
        .find(|line| line.starts_with("sidecar_node_pods") && line.contains("\"captured\""));
    let count = line.and_then(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of pods"
    )]
    let count = count.unwrap_or_default() as usize;
    count
}

/// Has pods come and go: each wave replaces those of the one before, and talks to the server.
#[test]
fn pods_that_come_and_go_leave_nothing_in_the_agent() {
    const WAVES: usize = 8;
    const PODS: usize = 10;
    let node = Node::new();
    let server = node.start_pod("server", Driver::Systemd);
    node.enrol(&server, &[]);
    // What metrics remember of peers is bounded by settings, and not what is looked for here.
    let mut agent = node.agent(&["--inbound", "strict", "--forget-peers-after", "1s"]);
    agent.wait_for(&server);
    let _app = App::start(&server.pod, Behaviour::Echo, PORT);
    let mut waves = Vec::new();
    for wave in 0..WAVES {
        let pods: Vec<NodePod> = (0..PODS)
            .map(|number| {
                let driver = [Driver::Cgroupfs, Driver::Systemd][number % 2];
                let pod = node.start_pod(&format!("p{wave}-{number}-"), driver);
                node.enrol(&pod, &[]);
                pod
            })
            .collect();
        wait::until("all are captured", || captured(&agent) == PODS + 1);
        for pod in &pods {
            assert_eq!(pod.asks(&server, PORT), SECRET);
        }
        for (number, pod) in pods.into_iter().enumerate() {
            let name = pod.name.clone();
            // The API may tell before the node, or after.
            if number % 2 == 0 {
                node.forget(&name);
                pod.end();
            } else {
                pod.end();
                node.forget(&name);
            }
        }
        wait::until("all have gone", || {
            node.lanes().len() == 1 && captured(&agent) == 1
        });
        wait::until("their pins have gone", || {
            let pins = fs::read_dir(node.bpffs().join("sidecar")).expect("pins");
            pins.count() == 1
        });
        waves.push(Held::by(&agent));
    }
    println!("{waves:#?}");
    // What the first wave has made stays for those after it.
    let (first, last) = (waves[0], waves[WAVES - 1]);
    assert!(last.descriptors <= first.descriptors + 2, "{waves:#?}");
    assert!(last.threads <= first.threads + 4, "{waves:#?}");
    // 2 to 4 MiB in the runs that this was written by, and 49 when each load had its own list of types.
    assert!(last.memory <= first.memory + (10 << 10), "{waves:#?}");
    agent.stop();
}

#[test]
fn two_hundred_pods_are_captured_by_one_agent() {
    const PODS: usize = 200;
    let node = Node::new();
    let pods: Vec<NodePod> = (0..PODS)
        .map(|number| node.start_pod(&format!("p{number}-"), Driver::Systemd))
        .collect();
    let agent = node.agent(&[]);
    wait::until("the agent is ready", || {
        let ready = agent.request("/readyz");
        ready.is_some_and(|(status, _)| status == 200)
    });
    let before = kernel_memory();
    println!("0 pods: {:?}", Held::by(&agent));
    let started = Instant::now();
    for steps in [0..50, 50..100, 100..PODS] {
        let most = steps.end;
        for pod in &pods[steps] {
            node.enrol(pod, &[]);
        }
        let all = wait::within(wait::DEADLINE * 10, || {
            (captured(&agent) == most).then_some(())
        });
        all.unwrap_or_else(|| panic!("only {}:\n{}", captured(&agent), agent.log()));
        println!(
            "{most} pods after {:.1?}: {:?}, {} KiB of kernel memory",
            started.elapsed(),
            Held::by(&agent),
            kernel_memory().saturating_sub(before)
        );
    }
    let held = Held::by(&agent);
    let _app = App::start(&pods[0].pod, Behaviour::Echo, PORT);
    assert_eq!(pods[PODS - 1].asks(&pods[0], PORT), SECRET);
    // 190 MiB in the runs that this was written by, and 310 when each load had its own list of types.
    assert!(held.memory < (64 + PODS) << 10, "{held:?}");
    assert!(held.threads < PODS + 20, "{held:?}");
}

/// What maps and programs take, in KiB, as the kernel accounts for it: memory of the kernel itself.
fn kernel_memory() -> usize {
    let info = fs::read_to_string("/proc/meminfo").expect("readable");
    let of = |name: &str| -> usize {
        let line = info.lines().find_map(|line| line.strip_prefix(name));
        let value = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        value.expect("a number")
    };
    of("Slab:") + of("VmallocUsed:") + of("Percpu:")
}
