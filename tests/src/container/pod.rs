//! A pod of containers.

use std::{
    collections::BTreeMap,
    fs,
    net::{Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    process,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    time::Duration,
};

use nix::{
    sys::signal::{self, Signal},
    unistd::Pid,
};
use serde_json::{Value, json};

use super::{
    engine::Engine,
    environment::{self, Facts},
    image,
    manifest::{Container, Manifest, Probe, RestartPolicy},
    node::Node,
    options::{self, Source},
    probe,
    volume::{self, Offer},
};
use crate::{
    Capture, Network, Output, Sandbox, cgroup,
    network::{address_v4, address_v6},
    wait,
};

/// A pod whose containers a runtime has made, below a cgroup as a cluster's node has it.
#[derive(Debug)]
pub struct ContainerPod {
    engine: Arc<Engine>,
    /// Goes after the containers in it.
    sandbox: Sandbox,
    network: Arc<Network>,
    manifest: Manifest,
    number: u8,
    /// No other pod of this process has it: an agent sees those of tests beside its own.
    serial: u16,
    /// What the manifest's volumes are here.
    volumes: Arc<BTreeMap<String, Source>>,
    /// In the order they were started; some have ended since.
    started: Vec<Started>,
}

/// A container that has been started.
#[derive(Debug)]
struct Started {
    /// As the manifest names it.
    name: String,
    /// The id of its first process.
    pid: u32,
}

impl ContainerPod {
    pub(super) fn new(
        engine: &Arc<Engine>,
        network: &Arc<Network>,
        number: u8,
        manifest: Manifest,
    ) -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(1);
        let role = format!("pod{number}");
        let sandbox = Sandbox::new(&role);
        network.plug(&sandbox, &role, number);
        let pod = Self {
            engine: Arc::clone(engine),
            sandbox,
            network: Arc::clone(network),
            manifest,
            number,
            serial: NEXT.fetch_add(1, Ordering::Relaxed),
            volumes: Arc::default(),
            started: Vec::new(),
        };
        fs::create_dir_all(pod.cgroup()).expect("making the pod's cgroup");
        pod
    }

    /// The pod's IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        if self.manifest.spec.host_network {
            Network::V4
        } else {
            address_v4(self.number)
        }
    }

    /// The pod's IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        address_v6(self.number)
    }

    /// The pod's namespace and directory.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// The pod's unique name, which its cgroup carries.
    pub fn uid(&self) -> String {
        let (process, serial) = (process::id(), self.serial);
        format!("5ca10000-0000-4000-8000-{process:08x}{serial:04x}")
    }

    /// The pod's cgroup, which has one child per container.
    pub fn cgroup(&self) -> PathBuf {
        cgroup::root().join(self.cgroup_below_root())
    }

    /// What the API says of it, from before its first container on.
    pub(super) fn object(&self) -> Value {
        let Manifest { metadata, spec, .. } = &self.manifest;
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {
                "name": metadata.name,
                "namespace": metadata.namespace,
                "uid": self.uid(),
                "labels": metadata.labels,
                "annotations": metadata.annotations,
            },
            "spec": {
                "nodeName": NODE,
                "serviceAccountName": spec.service_account_name,
                "hostNetwork": spec.host_network,
                "containers": [],
            },
            "status": {
                "phase": "Running",
                "podIP": self.v4(),
                "podIPs": [{ "ip": self.v4() }, { "ip": self.v6() }],
            },
        })
    }

    fn cgroup_below_root(&self) -> PathBuf {
        let pod = format!("pod{}", self.uid());
        Path::new(self.network.sandbox().name())
            .join(KUBEPODS)
            .join(pod)
    }

    /// Starts to record what passes between the pod and the network.
    pub fn capture(&self) -> Capture {
        Capture::start(
            Arc::clone(&self.network),
            &format!("pod{}", self.number),
            self.v4(),
            Capture::WHOLE,
        )
    }

    /// Runs a program in a container to its end.
    #[track_caller]
    pub fn exec<A: AsRef<str>>(
        &self,
        container: &str,
        command: impl IntoIterator<Item = A>,
    ) -> Output {
        let command = command.into_iter();
        let command = command.map(|word| word.as_ref().to_owned());
        let exec = ["exec".to_owned(), self.full_name(container)];
        self.engine.try_podman(exec.into_iter().chain(command))
    }

    /// What a container has printed.
    #[track_caller]
    pub fn log(&self, container: &str) -> String {
        let Output { stdout, stderr, .. } =
            self.engine.podman(["logs", &*self.full_name(container)]);
        stdout + &stderr
    }

    /// The id of a running container's first process.
    #[track_caller]
    pub fn pid(&self, container: &str) -> u32 {
        let found = self
            .started
            .iter()
            .find(|started| started.name == container);
        found
            .unwrap_or_else(|| panic!("no container {container} runs"))
            .pid
    }

    /// Ends the pod as a node does: the apps are told to stop, and when they have stopped the sidecars,
    /// the last first. Returns the exit codes in that order.
    #[track_caller]
    pub fn terminate(&self) -> Vec<(String, i32)> {
        let spec = &self.manifest.spec;
        let grace = spec.termination_grace_period_seconds.to_string();
        let sidecars = spec.init_containers.iter().rev();
        let sidecars = sidecars.filter(|container| container.restart_policy.is_some());
        let ends = spec.containers.iter().chain(sidecars).map(|container| {
            let name = &container.name;
            let full = self.full_name(name);
            self.engine.podman(["stop", "--time", &*grace, &*full]);
            (name.clone(), self.exit_code(name))
        });
        ends.collect()
    }

    /// Sends a signal to a container's first process.
    #[track_caller]
    pub fn signal(&self, container: &str, signal: Signal) {
        let pid = i32::try_from(self.pid(container)).expect("a pid fits an i32");
        signal::kill(Pid::from_raw(pid), signal)
            .unwrap_or_else(|error| panic!("sending {signal} to {container}: {error}"));
    }

    /// Whether a container's first process is there.
    #[track_caller]
    pub fn runs(&self, container: &str) -> bool {
        let process = Path::new("/proc").join(self.pid(container).to_string());
        process.exists()
    }

    /// Waits for a container's end, and returns its exit code.
    #[track_caller]
    pub fn wait_for_exit(&self, container: &str, deadline: Duration) -> i32 {
        let gone = wait::within(deadline, || (!self.runs(container)).then_some(()));
        assert!(
            gone.is_some(),
            "{container} still runs after {deadline:?}:\n{}",
            self.log(container)
        );
        self.engine.podman(["wait", &*self.full_name(container)]);
        self.exit_code(container)
    }

    /// Kills a container that cannot help it.
    #[track_caller]
    pub fn kill(&self, container: &str) {
        self.signal(container, Signal::SIGKILL);
        let code = self.wait_for_exit(container, wait::DEADLINE);
        assert_eq!(code, 128 + 9, "{container}");
    }

    /// Starts a container that has ended, as a node does: anew, with nothing of what it left but what is
    /// in volumes. Returns when its probes pass.
    #[track_caller]
    pub fn restart(&mut self, container: &str) {
        assert!(!self.runs(container), "{container} has not ended");
        let full = self.full_name(container);
        self.engine.podman(["rm", &*full]);
        self.started.retain(|started| started.name != container);
        let spec = &self.manifest.spec;
        let mut containers = spec.init_containers.iter().chain(&spec.containers);
        let container = containers.find(|known| known.name == container);
        let container = container.expect("it was started").clone();
        self.create(&container);
        for probe in container.probes() {
            if let Err(error) = self.wait_for(&container, Some(probe)) {
                panic!("{error}");
            }
        }
    }

    /// Brings the pod up, or says which container failed and what it has printed.
    #[track_caller]
    pub(super) fn start(&mut self, offer: Offer<'_>) -> Result<(), String> {
        self.volumes = Arc::new(self.provide_volumes(offer));
        self.start_pause();
        for container in self.manifest.spec.init_containers.clone() {
            self.create(&container);
            match container.restart_policy {
                Some(RestartPolicy::Always) => {
                    self.wait_for(&container, container.startup_probe.as_ref())?;
                }
                None => self.wait_for_end(&container)?,
            }
        }
        let containers = self.manifest.spec.containers.clone();
        for container in &containers {
            assert_eq!(container.restart_policy, None, "{}", container.name);
            self.create(container);
        }
        let sidecars = self.manifest.spec.init_containers.clone();
        for container in sidecars.iter().chain(&containers) {
            for probe in container.probes() {
                self.wait_for(container, Some(probe))?;
            }
        }
        Ok(())
    }

    #[track_caller]
    fn provide_volumes(&self, offer: Offer<'_>) -> BTreeMap<String, Source> {
        let volumes = self.manifest.spec.volumes.iter();
        volumes
            .map(|volume| {
                let source = volume::provide(volume, &self.sandbox, offer);
                (volume.name.clone(), source)
            })
            .collect()
    }

    /// Starts the container that every pod has and no manifest names, which does nothing.
    #[track_caller]
    fn start_pause(&mut self) {
        let mut arguments = self.common_options(PAUSE);
        arguments.extend(["--rootfs", "/:O", "sleep", "infinity"].map(str::to_owned));
        self.launch(PAUSE, arguments);
    }

    /// Starts a container as its manifest says.
    #[track_caller]
    fn create(&mut self, container: &Container) {
        let volumes = Arc::clone(&self.volumes);
        let name = &container.name;
        let spec = &self.manifest.spec;
        let is_app = container.image == Node::APP_IMAGE;
        assert!(
            is_app || container.image == image::NAME,
            "there is no image {} here, only {} and {}",
            container.image,
            Node::APP_IMAGE,
            image::NAME
        );
        let image_user = if is_app { 0 } else { self.image_user() };
        let variables = environment::variables(container, &self.facts());
        let expand = |word: &String| environment::expand(word, &variables);
        let mut command = container.command.iter().flatten().map(expand);
        let mut arguments = self.common_options(name);
        let pause = format!("container:{}", self.full_name(PAUSE));
        arguments.extend([format!("--ipc={pause}"), format!("--uts={pause}")]);
        arguments.extend(options::security(
            container,
            &spec.security_context,
            image_user,
        ));
        arguments.extend(options::limits(&container.resources));
        let mounts = options::mounts(container, |volume| {
            let Some(Source { path, read_only }) = volumes.get(volume) else {
                panic!("{name} mounts {volume}, and there is no such volume");
            };
            Source {
                path: path.clone(),
                read_only: *read_only,
            }
        });
        arguments.extend(mounts);
        for (name, value) in &variables {
            arguments.push(format!("--env={name}={value}"));
        }
        if is_app {
            arguments.extend(["--rootfs".to_owned(), "/:O".to_owned()]);
            arguments.extend(command);
        } else {
            if let Some(program) = command.next() {
                arguments.push(format!("--entrypoint={program}"));
            }
            arguments.push(container.image.clone());
            arguments.extend(command);
        }
        arguments.extend(container.args.iter().map(expand));
        self.launch(name, arguments);
    }

    fn common_options(&self, name: &str) -> Vec<String> {
        let spec = &self.manifest.spec;
        let namespace = if spec.host_network {
            self.network.sandbox().namespace()
        } else {
            self.sandbox.namespace()
        };
        let mut options = vec![
            "run".to_owned(),
            "--detach".to_owned(),
            format!("--name={}", self.full_name(name)),
            format!("--network=ns:{}", namespace.path().display()),
            "--cgroupns=private".to_owned(),
            format!("--cgroup-parent=/{}", self.cgroup_below_root().display()),
            "--http-proxy=false".to_owned(),
            "--log-driver=k8s-file".to_owned(),
            "--pull=never".to_owned(),
        ];
        if spec.host_pid {
            options.push("--pid=host".to_owned());
        }
        options
    }

    #[track_caller]
    fn launch(&mut self, name: &str, mut arguments: Vec<String>) {
        // Entered first: what fails half-way has to be removed as well.
        self.started.push(Started {
            name: name.to_owned(),
            pid: 0,
        });
        // Asking for it afterwards fails when the container ends at that very moment.
        let file = self.sandbox.directory().join(format!("{name}.pid"));
        arguments.insert(1, format!("--pidfile={}", file.display()));
        self.engine.podman(arguments);
        let pid = fs::read_to_string(file).expect("podman writes it");
        if let Some(started) = self.started.last_mut() {
            started.pid = pid.trim().parse().expect("a process id");
        }
    }

    /// Waits until a container that runs passes a probe, if it has one.
    #[track_caller]
    fn wait_for(&self, container: &Container, probe: Option<&Probe>) -> Result<(), String> {
        let Some(probe) = probe else {
            return Ok(());
        };
        let name = &container.name;
        let process = Path::new("/proc").join(self.pid(name).to_string());
        let node = self.network.sandbox().namespace();
        let passed = wait::within(wait::DEADLINE, || {
            let passes = probe::passes(probe, node, self.v4());
            (passes || !process.exists()).then_some(passes)
        });
        match passed {
            Some(true) => Ok(()),
            Some(false) => Err(format!("{name} has ended:\n{}", self.log(name))),
            None => Err(format!("{name} fails {probe:?}:\n{}", self.log(name))),
        }
    }

    #[track_caller]
    fn wait_for_end(&mut self, container: &Container) -> Result<(), String> {
        let name = &container.name;
        let ended = wait::within(2 * wait::DEADLINE, || (!self.runs(name)).then_some(()));
        if ended.is_none() {
            return Err(format!("{name} does not end:\n{}", self.log(name)));
        }
        self.engine.podman(["wait", &*self.full_name(name)]);
        match self.exit_code(name) {
            0 => Ok(()),
            code => Err(format!("{name} has ended with {code}:\n{}", self.log(name))),
        }
    }

    #[track_caller]
    fn exit_code(&self, name: &str) -> i32 {
        let code = self.inspect(name, "{{.State.ExitCode}}");
        code.parse().expect("an exit code")
    }

    #[track_caller]
    fn inspect(&self, name: &str, format: &str) -> String {
        let full = self.full_name(name);
        let output = self.engine.podman(["inspect", "--format", format, &*full]);
        output.stdout.trim().to_owned()
    }

    /// Whom the daemon's image runs as.
    #[track_caller]
    fn image_user(&self) -> u32 {
        let inspect = ["image", "inspect", "--format", "{{.User}}", image::NAME];
        let user = self.engine.podman(inspect).stdout;
        let number = user.trim().split(':').next().expect("split is never empty");
        number.parse().expect("the image names its user by number")
    }

    fn full_name(&self, container: &str) -> String {
        format!("{}-{container}", self.sandbox.name())
    }

    fn facts(&self) -> Facts {
        let Manifest { metadata, spec, .. } = &self.manifest;
        let mut facts = Facts::from(
            [
                ("metadata.name", metadata.name.clone()),
                ("metadata.namespace", metadata.namespace.clone()),
                ("metadata.uid", self.uid()),
                ("spec.nodeName", NODE.to_owned()),
                ("spec.serviceAccountName", spec.service_account_name.clone()),
                ("status.hostIP", Network::V4.to_string()),
                ("status.hostIPs", Network::V4.to_string()),
                ("status.podIP", self.v4().to_string()),
            ]
            .map(|(path, value)| (path.to_owned(), value)),
        );
        for (kind, values) in [
            ("labels", &metadata.labels),
            ("annotations", &metadata.annotations),
        ] {
            for (key, value) in values {
                facts.insert(format!("metadata.{kind}['{key}']"), value.clone());
            }
        }
        facts
    }
}

impl Drop for ContainerPod {
    fn drop(&mut self) {
        let names = self.started.iter();
        let names = names.map(|started| self.full_name(&started.name));
        let options = ["rm", "--force", "--depend", "--ignore", "--time=0"].map(str::to_owned);
        let remove: Vec<_> = options.into_iter().chain(names).collect();
        // One that ends while podman looks at it makes podman give up on all of them.
        let removed = wait::within(wait::DEADLINE, || {
            let removed = self.engine.try_podman(&remove);
            let failed = (!removed.status.success()).then(|| removed.to_string());
            failed.map_or(Some(()), |failure| {
                eprintln!("the containers could not be removed yet: {failure}");
                None
            })
        });
        if removed.is_none() {
            eprintln!("the containers of {} stay", self.sandbox.name());
        }
        cgroup::remove(&self.cgroup());
    }
}

/// What every node is called, in an API of its own.
const NODE: &str = "node";

/// What the container that holds the pod's namespaces is called.
const PAUSE: &str = "pause";

/// Where the pods' cgroups are below the node's.
const KUBEPODS: &str = "kubepods/burstable";
