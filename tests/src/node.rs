//! A node: pods whose cgroups are shaped as the kubelet makes them, and the agent that captures them.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use nix::{
    mount::{MsFlags, mount},
    sys::signal::Signal,
};
use serde_json::json;

use crate::{
    Connection, KubeApi, Network, Output, Pod, Process, Program, Sandbox, access_log,
    access_log::Line,
    cgroup::Container,
    http, kube_api,
    namespace::Namespace,
    network::{address_v4, address_v6},
    sidecar, wait,
};

/// The name of every node: each has an API server of its own.
const NODE: &str = "node-1";
/// The port of the API server, in the node's namespace.
const API: u16 = 6443;

/// Who makes cgroups for the kubelet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Driver {
    /// `kubepods/burstable/pod<uid>`.
    Cgroupfs,
    /// `kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod<uid>.slice`.
    Systemd,
}

impl Driver {
    fn place(self, uid: &str) -> String {
        match self {
            Self::Cgroupfs => format!("kubepods/burstable/pod{uid}"),
            Self::Systemd => format!(
                "kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{}.slice",
                uid.replace('-', "_")
            ),
        }
    }
}

/// A node without pods at first, and what the API says of it.
pub struct Node {
    /// Where the agent runs, and below which the pods' cgroups are.
    sandbox: Sandbox,
    /// What joins the pods.
    pub network: Arc<Network>,
    /// What the agent is told by.
    pub api: KubeApi,
    next: AtomicU32,
    /// What addresses of pods that there are end in.
    numbers: Numbers,
}

/// Which numbers pods of a node have on the network. They are used again, since there are few.
#[derive(Clone, Debug, Default)]
struct Numbers {
    first: u8,
    taken: Arc<Mutex<BTreeSet<u8>>>,
}

/// The number of one pod, for as long as there is one.
#[derive(Debug)]
struct Number {
    number: u8,
    numbers: Numbers,
}

/// A pod on a node; gone with its cgroup when dropped.
#[derive(Debug)]
pub struct NodePod {
    /// What holds its namespace, as the runtime has it.
    pub pause: Process,
    /// The pod itself.
    pub pod: Pod,
    /// What tells it from all others.
    pub uid: String,
    /// Its name.
    pub name: String,
    /// Given back after the pod has gone.
    number: Number,
}

/// A pod of which the API can be told, and nothing else.
#[derive(Debug)]
pub struct PlannedPod {
    /// What tells it from all others.
    pub uid: String,
    /// Its name.
    pub name: String,
    role: String,
    driver: Driver,
    number: Number,
}

impl Node {
    /// A node on a network of its own.
    pub fn new() -> Self {
        Self::numbered_from(&Arc::new(Network::new()), 1)
    }

    /// A node on a network that others are on as well; its pods are numbered from here on.
    pub fn numbered_from(network: &Arc<Network>, first: u32) -> Self {
        let sandbox = Sandbox::new("node");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, API));
        let api = KubeApi::start_on(Some(sandbox.namespace()), address);
        let node = Self {
            sandbox,
            network: Arc::clone(network),
            api,
            next: AtomicU32::new(first),
            numbers: Numbers {
                first: u8::try_from(first).expect("a few pods"),
                ..Numbers::default()
            },
        };
        let bpffs = node.bpffs();
        fs::create_dir(&bpffs).expect("making a mount point");
        mount(
            None::<&str>,
            &bpffs,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("mounting a BPF file system");
        node
    }

    /// Where agents pin.
    pub fn bpffs(&self) -> PathBuf {
        self.sandbox.directory().join("bpf")
    }

    /// Where the agent runs.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The directory of the development CA.
    pub fn dev_ca(&self) -> PathBuf {
        self.network.sandbox().directory().join("dev-ca")
    }

    /// A pod that nobody has told the API of yet, with the process that holds its namespace.
    pub fn start_pod(&self, name: &str, driver: Driver) -> NodePod {
        self.start(self.plan(name, driver))
    }

    /// A pod that is not there yet.
    pub fn plan(&self, name: &str, driver: Driver) -> PlannedPod {
        let serial = self.next.fetch_add(1, Ordering::Relaxed);
        PlannedPod {
            uid: format!("{:08x}-0000-4000-8000-{serial:012x}", std::process::id()),
            name: name.to_owned(),
            role: format!("{name}{serial}"),
            driver,
            number: self.numbers.take(),
        }
    }

    /// Makes a planned pod, with the process that holds its namespace.
    pub fn start(&self, planned: PlannedPod) -> NodePod {
        let PlannedPod {
            uid,
            name,
            role,
            driver,
            number,
        } = planned;
        let place = self.sandbox.cgroup().path().join(driver.place(&uid));
        let sandbox = Sandbox::in_cgroup(&role, |_| place);
        let pod = Pod::on(&self.network, sandbox, &role, number.number);
        NodePod {
            pause: pause(&pod),
            pod,
            uid,
            name,
            number,
        }
    }

    /// A pod that shares the network of the node, with a process in it.
    pub fn start_host_network_pod(&self, name: &str) -> NodePod {
        let mut pod = self.start_pod(name, Driver::Cgroupfs);
        let netns = self.sandbox.namespace().path();
        let program = pod.pod.program("/usr/bin/nsenter").outside();
        let program = program.arg(format!("--net={}", netns.display())).arg("--");
        pod.pause = program.args(["/bin/sleep", "infinity"]).start();
        // Until then it is in the machine's own, where an agent would take it for a pod's.
        let inode = |path: &Path| fs::metadata(path).map(|namespace| namespace.ino()).ok();
        let of_the_pod = PathBuf::from(format!("/proc/{}/ns/net", pod.pause.id()));
        wait::until("it has the node's network", || {
            inode(&of_the_pod) == inode(&netns)
        });
        pod
    }

    /// Tells the API of a pod that asks to be captured, with these annotations.
    pub fn enrol(&self, pod: &NodePod, annotations: &[(&str, &str)]) {
        self.tell(pod, &[("sidecar.mesh/inject", "node")], annotations);
    }

    /// Tells the API of a pod.
    pub fn tell(&self, pod: &NodePod, labels: &[(&str, &str)], annotations: &[(&str, &str)]) {
        self.put((&pod.name, &pod.uid), &pod.number, labels, annotations);
    }

    /// Tells the API of a pod that is not there yet, and asks to be captured.
    pub fn announce(&self, pod: &PlannedPod) {
        let labels = [("sidecar.mesh/inject", "node")];
        self.put((&pod.name, &pod.uid), &pod.number, &labels, &[]);
    }

    fn put(
        &self,
        (name, uid): (&str, &str),
        number: &Number,
        labels: &[(&str, &str)],
        annotations: &[(&str, &str)],
    ) {
        let map = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
            let pairs = pairs.iter();
            pairs
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect()
        };
        let (v4, v6) = (address_v4(number.number), address_v6(number.number));
        self.api.put(json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": name,
                "namespace": "default",
                "uid": uid,
                "labels": map(labels),
                "annotations": map(annotations),
            },
            "spec": {
                "nodeName": NODE,
                "serviceAccountName": name,
                "containers": [],
            },
            "status": {
                "phase": "Running",
                "podIP": v4,
                "podIPs": [{ "ip": v4 }, { "ip": v6 }],
            },
        }));
    }

    /// Tells the API that a pod is no more.
    pub fn forget(&self, name: &str) {
        self.api.delete(kube_api::PODS, "default", name);
    }

    /// The command line of an agent, to which flags can be added.
    pub fn agent_run(&self) -> Program<'_> {
        self.agent_by(Program::new(&self.sandbox, sidecar::binary()))
    }

    /// The same, of an agent that another program runs: `program … sidecar node …`.
    pub fn agent_by<'a>(&'a self, program: Program<'a>) -> Program<'a> {
        self.agent_without_kubeconfig(program)
            .arg("--kubeconfig")
            .arg(self.api.kubeconfig(self.sandbox.directory()))
    }

    /// The same, of an agent that asks the API as a pod does.
    pub fn agent_without_kubeconfig<'a>(&'a self, program: Program<'a>) -> Program<'a> {
        program
            .container(Container::Sidecar)
            .args(["node", "--node", NODE, "--access-log", "json"])
            .args([
                OsStr::new("--cgroup-root"),
                self.sandbox.cgroup().path().as_os_str(),
            ])
            .args([OsStr::new("--bpffs"), self.bpffs().as_os_str()])
            .args([OsStr::new("--dev-ca"), self.dev_ca().as_os_str()])
    }

    /// Starts an agent with these flags.
    pub fn agent(&self, flags: &[&str]) -> Agent {
        self.agent_of(self.agent_run().args(flags))
    }

    /// Starts an agent with these flags, and waits until it has captured these pods.
    #[track_caller]
    pub fn agent_with(&self, flags: &[&str], pods: &[&NodePod]) -> Agent {
        let mut agent = self.agent(flags);
        for pod in pods {
            agent.wait_for(pod);
        }
        agent
    }

    /// Starts an agent by a command line of [`Self::agent_run`] or [`Self::agent_by`].
    pub fn agent_of(&self, run: Program<'_>) -> Agent {
        Agent {
            process: run.start(),
            namespace: Arc::clone(self.sandbox.namespace()),
        }
    }

    /// The cgroups of lanes that there are.
    pub fn lanes(&self) -> Vec<PathBuf> {
        self.sandbox.cgroup().below(Container::Sidecar)
    }

    /// Everything that is pinned for pods of the node.
    pub fn pins(&self) -> Vec<PathBuf> {
        sidecar::pins(&self.bpffs())
    }
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Numbers {
    /// The lowest that is free.
    fn take(&self) -> Number {
        let mut taken = self.lock();
        let free = (self.first..u8::MAX).find(|number| !taken.contains(number));
        let number = free.expect("a network has room for a few hundred pods");
        taken.insert(number);
        Number {
            number,
            numbers: self.clone(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<u8>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Number {
    fn drop(&mut self) {
        self.numbers.lock().remove(&self.number);
    }
}

impl NodePod {
    /// What somebody in the pod hears from an echo server at another one.
    #[track_caller]
    pub fn asks(&self, server: &Self, port: u16) -> String {
        self.pod.converse(server.pod.v4(), port, crate::SECRET)
    }

    /// Has the pod's sandbox made anew, with a namespace of the same addresses and without apps.
    pub fn restart(&mut self) {
        self.pod.renew_namespace();
        self.pause = pause(&self.pod);
    }

    /// Has everything in the pod end, as when the kubelet removes it, and its cgroup go.
    pub fn end(self) {
        drop(self);
    }
}

/// What holds the namespace of a pod, as the runtime has it.
fn pause(pod: &Pod) -> Process {
    pod.program("/bin/sleep").arg("infinity").start()
}

/// A `sidecar node`; killed when dropped.
#[derive(Debug)]
pub struct Agent {
    process: Process,
    /// The node's, where the admin endpoint is.
    namespace: Arc<Namespace>,
}

impl Agent {
    /// Waits until it says that it has captured a pod.
    #[track_caller]
    pub fn wait_for(&mut self, pod: &NodePod) {
        self.process
            .wait_for_stderr(&format!("captured pod default/{}\n", pod.name));
    }

    /// Waits until it has said something.
    #[track_caller]
    pub fn says(&mut self, words: &str) {
        self.process.wait_for_stderr(words);
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// Status and body of a page of the admin endpoint of whichever agent has the address.
    pub fn request(&self, path: &str) -> Option<(u16, String)> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 4195));
        http::get(&self.namespace, address, path)
    }

    /// The connections that have ended, of all its pods.
    pub fn connections(&self) -> Vec<Connection> {
        let lines = access_log::parse(&self.process.stdout()).into_iter();
        lines.filter_map(Line::connection).collect()
    }

    /// Waits for a connection that has ended.
    #[track_caller]
    pub fn connection(&self, fits: impl Fn(&Connection) -> bool) -> Connection {
        let found = wait::within(wait::DEADLINE, || {
            self.connections().into_iter().find(|entry| fits(entry))
        });
        found.unwrap_or_else(|| {
            panic!(
                "no such connection: {:#?}\nlog:\n{}",
                self.connections(),
                self.log()
            )
        })
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Stops it with SIGTERM, and waits for its end.
    #[track_caller]
    pub fn stop(self) -> Output {
        // One that has just been started has not come to it.
        wait::until("it heeds signals", || self.heeds(Signal::SIGTERM));
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Has it a handler for this signal (proc(5), `SigCgt`)?
    fn heeds(&self, signal: Signal) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id()));
        let status = status.expect("it has not been waited for");
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        caught.is_some_and(|mask| mask & (1 << (signal as u64 - 1)) != 0)
    }

    /// Waits for its end.
    #[track_caller]
    pub fn wait(self) -> Output {
        let output = self.process.wait().success();
        assert!(!output.stderr.contains("panicked"), "{output}");
        output
    }

    /// Kills it.
    pub fn kill(self) {
        drop(self);
    }
}
