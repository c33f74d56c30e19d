//! A pod: the unit that gets a sidecar.

use std::{
    ffi::OsStr,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sys::signal::Signal,
};
use serde::Deserialize;

use crate::{
    Capture, Network, Program, Sandbox, Sidecar,
    cgroup::{Container, Naming},
    kernel,
    network::{address_v4, address_v6, hardware_address},
    rules::Rules,
    sidecar,
};

/// A sandbox plugged into a [`Network`], with or without a sidecar.
///
/// Dropped while its sidecar still runs, a pod also holds the promises every test relies on: the
/// sidecar has added no firewall or routing rule, exits cleanly on SIGTERM, and leaves no pin.
#[derive(Debug)]
pub struct Pod {
    /// Told to stop before the sandbox kills the rest.
    sidecar: Option<Sidecar>,
    /// What runs in the pod runs here.
    sandbox: Sandbox,
    /// Kept alive for its pods.
    network: Arc<Network>,
    /// The pod's own name, which is also that of its port on the bridge.
    role: String,
    /// What the pod's addresses end in.
    number: u8,
    /// The firewall and routing rules before any sidecar came.
    rules: Rules,
    /// Whether `sidecar init` has made what is pinned, which then stays.
    keeps_pins: bool,
}

impl Pod {
    /// Makes a pod without a sidecar. Its addresses end in `number`, unique on the network.
    pub fn new(network: &Arc<Network>, role: &str, number: u8) -> Self {
        Self::named_by(Naming::Own, network, role, number)
    }

    /// The same, with a cgroup that somebody else would have named.
    pub fn named_by(naming: Naming, network: &Arc<Network>, role: &str, number: u8) -> Self {
        Self::on(network, Sandbox::named_by(naming, role), role, number)
    }

    /// Makes a pod of a sandbox that nothing is plugged into yet.
    pub fn on(network: &Arc<Network>, sandbox: Sandbox, role: &str, number: u8) -> Self {
        network.plug(&sandbox, role, number);
        let pod = Self {
            rules: Rules::of(&sandbox),
            keeps_pins: false,
            sidecar: None,
            sandbox,
            network: Arc::clone(network),
            role: role.to_owned(),
            number,
        };
        pod.mount_bpffs();
        pod
    }

    /// Gives the pod another network namespace, in which it has the same addresses.
    pub(crate) fn renew_namespace(&mut self) {
        self.network.unplug(&self.role);
        self.sandbox.renew_namespace();
        self.network.plug(&self.sandbox, &self.role, self.number);
        self.rules = Rules::of(&self.sandbox);
    }

    /// The name the pod was made with.
    pub fn role(&self) -> &str {
        &self.role
    }

    /// The pod's IPv4 address.
    pub fn v4(&self) -> Ipv4Addr {
        address_v4(self.number)
    }

    /// The pod's IPv6 address.
    pub fn v6(&self) -> Ipv6Addr {
        address_v6(self.number)
    }

    /// The Ethernet address of the pod's device `eth0`.
    pub fn hardware_address(&self) -> String {
        hardware_address(self.number)
    }

    /// The identity the pod's sidecar is given.
    pub fn identity(&self) -> String {
        format!("spiffe://sidecar.local/ns/default/sa/{}", self.role)
    }

    /// The pod's namespace, cgroup and directory.
    pub fn sandbox(&self) -> &Sandbox {
        &self.sandbox
    }

    /// A BPF file system of the pod's own: pods that tests run side by side share no pins, and
    /// those of a killed sidecar go with the pod.
    pub fn bpffs(&self) -> PathBuf {
        self.sandbox.directory().join("bpf")
    }

    /// A program to run as the pod's app.
    pub fn program(&self, program: impl AsRef<OsStr>) -> Program<'_> {
        Program::new(&self.sandbox, program)
    }

    /// A script of `tests/scripts` to run as the pod's app.
    pub fn script(&self, name: &str) -> Program<'_> {
        self.python().arg(scripts().join(name))
    }

    /// A few lines of Python to run as the pod's app. They can import what is in
    /// `tests/scripts/peer.py`, and print their findings with its `report`.
    pub fn snippet(&self, code: &str) -> Program<'_> {
        self.python()
            .args(["-c", &format!("from peer import *\nimport sys\n{code}")])
    }

    /// Connects to a port as the pod's app, says something, and returns what comes of it:
    /// `refused`, `reset`, `eof`, or what the other side says.
    #[track_caller]
    pub fn converse(&self, address: impl Into<IpAddr>, port: u16, words: &str) -> String {
        let snippet = self.snippet("report(outcome=converse(*sys.argv[1:]))");
        let arguments = [&*address.into().to_string(), &*port.to_string(), words];
        let Outcome { outcome } = snippet.args(arguments).facts();
        outcome
    }

    fn python(&self) -> Program<'_> {
        python(&self.sandbox)
    }

    /// Starts to record what passes between the pod and the network.
    pub fn capture(&self) -> Capture {
        Capture::start(
            Arc::clone(&self.network),
            &self.role,
            self.v4(),
            Capture::WHOLE,
        )
    }

    /// Starts to record the first bytes of every packet: enough to tell TLS, and little enough
    /// for a gigabyte to pass.
    pub fn capture_starts(&self) -> Capture {
        Capture::start(
            Arc::clone(&self.network),
            &self.role,
            self.v4(),
            Capture::START,
        )
    }

    /// The command line of the pod's sidecar, to which flags can be added.
    ///
    /// Like the container it would be, the daemon joins the pod's `sidecar` cgroup; the pod's
    /// network it has to enter on its own.
    pub fn sidecar_run(&self) -> Program<'_> {
        let sandbox = &self.sandbox;
        self.program(sidecar::binary())
            .container(Container::Sidecar)
            .outside()
            .arg("run")
            .args([OsStr::new("--cgroup"), sandbox.cgroup().path().as_os_str()])
            .args([
                OsStr::new("--netns"),
                sandbox.namespace().path().as_os_str(),
            ])
            .args([OsStr::new("--bpffs"), self.bpffs().as_os_str()])
            .args(["--access-log", "json"])
    }

    /// The command line that closes the pod before its sidecar comes. It runs in the pod already, as
    /// an init container does: entering it would take more privileges than `sidecar init` asks for.
    ///
    /// What `setpriv` is told to take away goes first.
    pub fn sidecar_init(&self, setpriv: &[&str]) -> Program<'_> {
        self.confined(setpriv, "init")
    }

    /// The command line of a sidecar that runs in the pod already, with fewer privileges, as
    /// `setpriv` is told.
    pub fn sidecar_run_confined(&self, setpriv: &[&str]) -> Program<'_> {
        self.confined(setpriv, "run").args(["--access-log", "json"])
    }

    /// The command line that checks what such a sidecar needs.
    pub fn sidecar_check_confined(&self, setpriv: &[&str]) -> Program<'_> {
        self.confined(setpriv, "check")
    }

    /// The command line of a sidecar that may not filter its system calls.
    pub fn sidecar_run_unfiltered(&self) -> Program<'_> {
        self.run_by(self.script("forbid_filters.py"), "run")
            .args(["--access-log", "json"])
    }

    /// Starts a sidecar with nothing but these flags, whose standard output is a pipe that nobody
    /// reads, and waits until it is ready.
    #[track_caller]
    pub fn mesh_unread(&mut self, flags: &[&str]) {
        // Opened for reading too, a pipe waits for no reader, neither now nor when it is full.
        const UNREAD: &str = "mkfifo \"$0\"; exec 1<>\"$0\"; exec \"$@\"";
        let shell = self.program("/bin/sh").args(["-c", UNREAD]);
        let shell = shell.arg(self.sandbox.directory().join("unread"));
        let run = self.run_by(shell, "run").args(["--access-log", "json"]);
        let sidecar = Sidecar::start(run.args(flags), &self.sandbox, self.bpffs());
        self.sidecar = Some(sidecar);
        self.wait_until_ready();
    }

    /// Whoever loads programs gets what the verifier of this kernel asks for beside `CAP_BPF`.
    fn confined(&self, setpriv: &[&str], command: &str) -> Program<'_> {
        let adapt = |flag: &&str| {
            if kernel::verifier_takes_perfmon() {
                flag.replace("+bpf", "+bpf,+perfmon")
            } else {
                (*flag).to_owned()
            }
        };
        let flags: Vec<_> = setpriv.iter().map(adapt).collect();
        let flags: Vec<_> = flags.iter().map(String::as_str).collect();
        self.confined_exactly(&flags, command)
    }

    /// The command line of a sidecar with just these privileges.
    pub fn confined_exactly(&self, setpriv: &[&str], command: &str) -> Program<'_> {
        let setpriv = self.program("/usr/bin/setpriv").args(setpriv).arg("--");
        self.run_by(setpriv, command)
    }

    /// The command line of a sidecar that another program runs, in the pod already.
    fn run_by<'a>(&'a self, program: Program<'a>, command: &str) -> Program<'a> {
        program
            .container(Container::Sidecar)
            .arg(sidecar::binary())
            .arg(command)
            .args([
                OsStr::new("--cgroup"),
                self.sandbox.cgroup().path().as_os_str(),
            ])
            .args([OsStr::new("--bpffs"), self.bpffs().as_os_str()])
    }

    /// Starts a sidecar in a cgroup namespace of its own, in which its cgroup is `/`, and waits until it
    /// is ready. Nobody tells it which cgroup is the pod's, unless a flag does.
    #[track_caller]
    pub fn mesh_in_cgroup_namespace(&mut self, dev_ca: &Path, flags: &[&str]) {
        let run = self
            .in_cgroup_namespace("run")
            .args(["--access-log", "json", "--identity", &self.identity()])
            .arg("--dev-ca")
            .arg(dev_ca);
        let sidecar = Sidecar::start(run.args(flags), &self.sandbox, self.bpffs());
        self.sidecar = Some(sidecar);
        self.wait_until_ready();
    }

    /// A command of the sidecar's in such a namespace.
    pub fn in_cgroup_namespace(&self, command: &str) -> Program<'_> {
        self.program("/usr/bin/unshare")
            .container(Container::Sidecar)
            .args(["--cgroup", "--"])
            .arg(sidecar::binary())
            .args([OsStr::new(command), OsStr::new("--bpffs")])
            .arg(self.bpffs())
    }

    /// Starts a sidecar by a command line of [`Self::sidecar_run_confined`], and waits until it
    /// serves.
    #[track_caller]
    pub fn mesh_confined(&mut self, setpriv: &[&str], flags: &[&str]) {
        self.start_confined(setpriv, flags);
        self.wait_until_ready();
    }

    /// Like [`Self::upgrade`], with a sidecar as [`Self::mesh_confined`] starts it.
    #[track_caller]
    pub fn upgrade_confined(&mut self, setpriv: &[&str], flags: &[&str]) -> Sidecar {
        let old = self.sidecar.take().expect("this pod has no sidecar");
        self.start_confined(setpriv, flags);
        self.wait_until_serving();
        old
    }

    /// A program as the first process of a container of this name, which sees nothing of the machine's cgroups but what it is
    /// given: `own-tree`, `host-tree`; and of BPF file systems `bpffs=PATH`.
    pub fn container(&self, name: &str, given: &[&str], program: impl AsRef<OsStr>) -> Program<'_> {
        let cgroup = self.sandbox.cgroup().path().join(name);
        let container = self.script("container.py").arg(cgroup).args(given);
        container.arg("--").arg(program)
    }

    /// A command of the sidecar's in such a container, with the privileges that `setpriv` leaves. It has no settings.
    pub fn sidecar_container(
        &self,
        name: &str,
        given: &[&str],
        setpriv: &[&str],
        command: &str,
    ) -> Program<'_> {
        let program = self
            .container(name, given, "/usr/bin/setpriv")
            .args(setpriv);
        program.arg("--").arg(sidecar::binary()).arg(command)
    }

    /// Starts a sidecar in such a container, after `sidecar init` in another, with nothing but these flags, and waits until it
    /// answers.
    #[track_caller]
    pub fn start_container(
        &mut self,
        name: &str,
        given: &[&str],
        setpriv: &[&str],
        flags: &[&str],
    ) {
        let run = self.sidecar_container(name, given, setpriv, "run");
        let run = run.args(["--access-log", "json"]).args(flags);
        let sidecar = Sidecar::start(run, &self.sandbox, self.bpffs());
        self.keeps_pins = true;
        self.sidecar.insert(sidecar).readiness();
    }

    fn start_confined(&mut self, setpriv: &[&str], flags: &[&str]) {
        let run = self.sidecar_run_confined(setpriv).args(flags);
        let sidecar = Sidecar::start(run, &self.sandbox, self.bpffs());
        self.sidecar = Some(sidecar);
    }

    #[track_caller]
    fn wait_until_serving(&mut self) {
        let sidecar = self.sidecar.as_mut().expect("just started");
        sidecar.wait_until_serving();
    }

    /// Starts another sidecar beside the one that serves the pod, like [`Self::mesh`], waits until
    /// it has taken over, and returns the one that has been replaced.
    #[track_caller]
    pub fn upgrade(&mut self, dev_ca: &Path, flags: &[&str]) -> Sidecar {
        let old = self.sidecar.take().expect("this pod has no sidecar");
        self.mesh(dev_ca, flags);
        self.wait_until_serving();
        old
    }

    /// Starts a sidecar that finds the others by the development CA in `dev_ca`, with additional
    /// flags.
    ///
    /// It is ready after [`Self::wait_until_ready`].
    pub fn mesh(&mut self, dev_ca: &Path, flags: &[&str]) {
        let run = self.sidecar_run().arg("--dev-ca").arg(dev_ca);
        let run = run.args(["--identity", &self.identity()]).args(flags);
        let sidecar = Sidecar::start(run, &self.sandbox, self.bpffs());
        self.sidecar = Some(sidecar);
    }

    /// Starts a sidecar with nothing but these flags, and waits until it is ready.
    #[track_caller]
    pub fn mesh_with(&mut self, flags: &[&str]) {
        self.start_sidecar(flags);
        self.wait_until_ready();
    }

    /// Starts a sidecar with nothing but these flags, which may never become ready, and waits until
    /// it answers.
    #[track_caller]
    pub fn start_sidecar(&mut self, flags: &[&str]) {
        let sidecar = Sidecar::start(self.sidecar_run().args(flags), &self.sandbox, self.bpffs());
        self.sidecar.insert(sidecar).readiness();
    }

    /// Waits until the pod's sidecar, if it has one, steers its traffic.
    #[track_caller]
    pub fn wait_until_ready(&mut self) {
        if let Some(sidecar) = &mut self.sidecar {
            sidecar.wait_until_ready();
        }
    }

    /// The pod's sidecar.
    ///
    /// # Panics
    ///
    /// When the pod has none.
    #[track_caller]
    pub fn sidecar(&self) -> &Sidecar {
        self.sidecar.as_ref().expect("this pod has no sidecar")
    }

    /// Whether a sidecar runs in the pod.
    pub fn is_meshed(&self) -> bool {
        self.sidecar.is_some()
    }

    /// Whether the pod's sidecar has ended, without being asked for here.
    pub fn sidecar_has_ended(&mut self) -> bool {
        let sidecar = self.sidecar.as_mut().expect("this pod has no sidecar");
        sidecar.has_ended()
    }

    /// Stops the pod's sidecar with SIGTERM, and checks that it leaves nothing.
    #[track_caller]
    pub fn stop_sidecar(&mut self) {
        self.sidecar.take().expect("this pod has no sidecar").stop();
    }

    /// Stops the pod's sidecar with SIGTERM, and checks that what `sidecar init` has made stays.
    #[track_caller]
    pub fn stop_sidecar_of_init(&mut self) {
        let before = self.pins();
        let sidecar = self.sidecar.take().expect("this pod has no sidecar");
        sidecar.signal(Signal::SIGTERM);
        sidecar.wait_for_exit();
        assert_eq!(self.pins(), before);
    }

    /// Waits until the pod's sidecar, which has been told to stop, is gone, and checks that it
    /// leaves nothing.
    #[track_caller]
    pub fn wait_for_sidecar(&mut self) {
        self.sidecar.take().expect("this pod has no sidecar").wait();
    }

    /// Kills the pod's sidecar with SIGKILL; its pins stay.
    pub fn kill_sidecar(&mut self) {
        drop(self.sidecar.take().expect("this pod has no sidecar"));
    }

    /// A `sidecar` command that is about the pod's own pins.
    pub fn sidecar_command(&self, command: &str) -> Program<'_> {
        self.program(sidecar::binary())
            .arg(command)
            .arg("--bpffs")
            .arg(self.bpffs())
    }

    /// How often the kernel side has counted `event`, also while the sidecar is dead.
    #[track_caller]
    pub fn kernel_events(&self, event: &str) -> u64 {
        let pods: Vec<Status> = self.sidecar_command("status").args(["-o", "json"]).facts();
        let counts = pods.into_iter().flat_map(|pod| pod.events);
        counts
            .filter(|count| count.event == event)
            .map(|count| count.count)
            .sum()
    }

    /// Everything that sidecars have pinned for this pod.
    pub fn pins(&self) -> Vec<PathBuf> {
        sidecar::pins(&self.bpffs())
    }

    /// Checks that packet filters and routing rules are what they were before the sidecar came.
    #[track_caller]
    pub fn assert_rules_untouched(&self) {
        assert_eq!(
            Rules::of(&self.sandbox),
            self.rules,
            "the rules of {} have changed",
            self.role
        );
    }

    /// Checks that no sidecar has left anything: a pin, a rule, or a cgroup below the app's.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.pins(), Vec::<PathBuf>::new());
        assert_eq!(
            self.sandbox.cgroup().below(Container::App),
            Vec::<PathBuf>::new()
        );
        self.assert_rules_untouched();
    }

    /// Takes away the pod's own BPF file system, on which nothing is pinned yet: an empty directory is left.
    pub fn unmount_bpffs(&self) {
        umount2(&self.bpffs(), MntFlags::empty()).expect("unmounting the BPF file system");
    }

    fn mount_bpffs(&self) {
        let path = self.bpffs();
        fs::create_dir(&path).expect("making a mount point");
        mount(
            None::<&str>,
            &path,
            Some("bpf"),
            MsFlags::empty(),
            None::<&str>,
        )
        .expect("mounting a BPF file system");
    }
}

impl Drop for Pod {
    fn drop(&mut self) {
        // A test that has failed already says why; a second panic would only abort it.
        if thread::panicking() {
            if let Some(sidecar) = &self.sidecar {
                eprintln!("the sidecar of {} logged:\n{}", self.role, sidecar.log());
            }
            return;
        }
        if self.is_meshed() {
            self.assert_rules_untouched();
            if self.keeps_pins {
                self.stop_sidecar_of_init();
            } else {
                self.stop_sidecar();
            }
        }
    }
}

/// What the snippet of [`Pod::converse`] reports.
#[derive(Deserialize)]
struct Outcome {
    outcome: String,
}

/// What `sidecar status` says of one pod.
#[derive(Deserialize)]
struct Status {
    events: Vec<Count>,
}

/// One counter in it.
#[derive(Deserialize)]
struct Count {
    event: String,
    count: u64,
}

/// Where the scripts are that run in pods.
/// Python, to which the modules of `tests/scripts` are known.
pub(crate) fn python(sandbox: &Sandbox) -> Program<'_> {
    // Not the `python3` in `PATH`: version managers put launchers there that need a home.
    Program::new(sandbox, "/usr/bin/python3")
        .args(["-u", "-B"])
        .env("PYTHONPATH", scripts())
}

/// Where the scripts are that tests run.
pub(crate) fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts")
}
