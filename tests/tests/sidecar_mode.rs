//! A sidecar among the containers of a pod, as Kubernetes runs it: it finds its pod by itself.

use std::{
    fs,
    os::unix::fs::chown,
    path::Path,
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use serde::Deserialize;
use sidecar_tests::{
    App, Behaviour, Output, Pod, Pods, Process, SECRET,
    cgroup::{self, Naming},
    svid::{Ca, Svid},
    wait,
};

/// The user and group of the sidecar.
const USER: u32 = 4195;

/// `sidecar init`, in a container of root's with two capabilities, in the group of the sidecar.
const INIT: [&str; 4] = [
    "--regid=4195",
    "--clear-groups",
    "--inh-caps=-all",
    "--bounding-set=-all,+bpf,+net_admin",
];

/// `sidecar run`, in a container of another user's, with no capability and no way to get one.
const RUN: [&str; 7] = [
    "--reuid=4195",
    "--regid=4195",
    "--clear-groups",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

/// What a container sees of cgroups on a machine that has nothing but version 2.
const TREES: &[&str] = &["host-tree", "own-tree"];

/// The same beside version 1, of which alone runtimes then mount something.
const TREES_OF_HYBRID: &[&str] = &["host-tree"];

#[test]
fn a_sidecar_finds_its_pod_with_either_driver_of_the_kubelet() {
    for naming in [Naming::Cgroupfs, Naming::Systemd] {
        for trees in [TREES, TREES_OF_HYBRID] {
            let mut pods = Pods::named_by(naming);
            let identities = Identities::new(&pods);
            let _app = App::start(&pods.server, Behaviour::Echo, 8080);
            for pod in [&pods.client, &pods.server] {
                let said = init(pod, trees);
                let cgroup = pod.sandbox().cgroup().path().file_name().expect("a name");
                for words in [pod.sandbox().uid(), &*cgroup.to_string_lossy()] {
                    assert!(said.contains(words), "{words}: {said}");
                }
            }
            run(
                &mut pods.client,
                "sidecar",
                trees,
                &identities.client.flags(),
            );
            run(
                &mut pods.server,
                "sidecar",
                trees,
                &identities.server.flags(),
            );

            let capture = pods.client.capture();
            assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
            capture.finish().assert_encrypted(&[SECRET]);
            pods.mutual_connection(8080);
            pods.client.stop_sidecar_of_init();
            pods.server.stop_sidecar_of_init();
        }
    }
}

#[test]
fn without_the_hosts_tree_a_container_is_told_what_to_mount() {
    let pods = Pods::named_by(Naming::Cgroupfs);
    for trees in [&["own-tree"][..], &[]] {
        let output = init_on(&pods.server, trees, &pods.server.bpffs());
        output.assert_one_sentence(&["/run/sidecar/cgroup"]);
        pods.server.assert_nothing_left();
    }
}

#[test]
fn what_is_above_pods_is_never_captured() {
    for naming in [Naming::Cgroupfs, Naming::Systemd] {
        let pods = Pods::named_by(naming);
        let pod = pods.server.sandbox().cgroup().path();
        for above in pod.ancestors().skip(1).take(3) {
            let output = pods
                .server
                .sidecar_command("init")
                .arg("--cgroup")
                .arg(above)
                .run();
            output.assert_one_sentence(&[&above.to_string_lossy(), "more than one pod"]);
            pods.server.assert_nothing_left();
        }
    }
}

#[test]
fn a_sidecar_sees_what_is_pinned_for_its_own_pod_alone() {
    let pods = Pods::named_by(Naming::Cgroupfs);
    // One machine, one BPF file system.
    let bpffs = pods.server.bpffs();
    for pod in [&pods.client, &pods.server] {
        let _ = init_on(pod, TREES, &bpffs).success();
    }
    let find = |bpffs: &str| {
        let given = [&*format!("bpffs={bpffs}")];
        let find = pods.client.container("sidecar", &given, "find");
        find.args(["/sys/fs/bpf", "-name", "SC_OWNER"]).succeed()
    };
    assert_eq!(find(&bpffs.to_string_lossy()).lines().count(), 2);
    let own = find(&own_pins(&pods.client, &bpffs));
    assert_eq!(own, "/sys/fs/bpf/maps/SC_OWNER\n");
}

#[test]
fn only_the_user_and_group_of_the_sidecar_can_use_what_is_pinned() {
    let pods = Pods::named_by(Naming::Cgroupfs);
    init(&pods.server, TREES);
    let given = [
        TREES,
        &[&*format!(
            "bpffs={}",
            own_pins(&pods.server, &pods.server.bpffs())
        )],
    ];
    let mut other = RUN;
    (other[0], other[1]) = ("--reuid=4196", "--regid=4196");
    let run = pods
        .server
        .sidecar_container("app-2", &given.concat(), &other, "run");
    let run = run.args(["--workload-api", "unix:///nonexistent"]);
    let output = run.run().code(1);
    assert!(output.stderr.contains("user 4196"), "{output}");
}

#[test]
fn status_tells_a_living_sidecar_from_a_dead_one_across_pid_namespaces() {
    let mut pods = Pods::named_by(Naming::Cgroupfs);
    let identities = Identities::new(&pods);
    let status = |pod: &Pod| pod.sidecar_command("status").succeed();
    let pod = format!("pod {}, cgroup", pods.server.sandbox().uid());
    init(&pods.server, TREES);
    assert!(status(&pods.server).contains("no sidecar has run yet"));
    run(
        &mut pods.server,
        "sidecar",
        TREES,
        &identities.server.flags(),
    );
    wait::until("the sidecar is said to run", || {
        let said = status(&pods.server);
        // Its own id for itself; on the machine, that is always somebody.
        said.contains(&pod) && said.contains("sidecar 1 is running")
    });
    kill(&mut pods.server, "sidecar");
    let said = status(&pods.server);
    assert!(said.contains("sidecar 1 is not running"), "{said}");
}

#[test]
fn what_pods_leave_that_are_gone_is_removed_by_the_next() {
    let Pods {
        client,
        server,
        network: _network,
        ..
    } = Pods::named_by(Naming::Systemd);
    let bpffs = server.bpffs();
    let _ = init_on(&client, TREES, &bpffs).success();
    let left = own_pins(&client, &bpffs);
    drop(client);
    wait::until("the cgroup is gone", || {
        let said = server.sidecar_command("status").succeed();
        said.contains("whose cgroup has gone")
    });
    let output = init_on(&server, TREES, &bpffs).success();
    assert!(output.stderr.contains(&left[left.len() - 36..]), "{output}");
    assert!(!Path::new(&left).exists());
    assert!(Path::new(&own_pins(&server, &bpffs)).exists());
    // Not those of the living.
    let _ = init_on(&server, TREES, &bpffs).success();
    assert!(Path::new(&own_pins(&server, &bpffs)).exists());
}

#[test]
fn the_kubelet_is_answered_from_the_start_also_under_strict() {
    let mut pods = Pods::named_by(Naming::Cgroupfs);
    let identities = Identities::new(&pods);
    let directory = pods.server.sandbox().directory().to_owned();
    let there = Svid {
        certificate: directory.join("tls.crt"),
        key: directory.join("tls.key"),
        bundle: directory.join("ca.crt"),
    };
    init(&pods.server, TREES);
    let flags = [
        &there.flags()[..],
        &[
            "--admin",
            "[::]:4195",
            "--inbound",
            "strict",
            "--outbound",
            "strict",
        ],
    ];
    start(&mut pods.server, "sidecar", TREES, &flags.concat());

    // The kubelet has an address of the node's, and no sidecar.
    let node = pods.join("node");
    let ask = |address: &str, path: &str| {
        let url = format!("http://{address}:4195{path}");
        node.program("curl")
            .args(["-sS", "-w", "%{http_code}", &url])
            .succeed()
    };
    let addresses = [
        pods.server.v4().to_string(),
        format!("[{}]", pods.server.v6()),
    ];
    for address in &addresses {
        assert_eq!(ask(address, "/readyz"), "awaiting_identity\n503");
        assert_eq!(ask(address, "/healthz"), "ok\n200");
    }
    let svid = &identities.server;
    for (from, to) in [
        (&svid.certificate, &there.certificate),
        (&svid.bundle, &there.bundle),
        (&svid.key, &there.key),
    ] {
        let coming = to.with_extension("coming");
        fs::copy(from, &coming).expect("copying");
        chown(&coming, Some(USER), Some(USER)).expect("root may give files away");
        fs::rename(&coming, to).expect("renaming");
    }
    wait::until("the identity is taken", || {
        ask(&addresses[0], "/readyz") == "ready\n200"
    });

    // Draining, it is alive and not ready.
    let _app = App::start(&pods.server, Behaviour::Wait, 8080);
    init(&pods.client, TREES);
    run(
        &mut pods.client,
        "sidecar",
        TREES,
        &identities.client.flags(),
    );
    let mut held = hold(&pods.client, &pods.server, 8080);
    let open = || {
        pods.server
            .sidecar()
            .get("/connections")
            .contains("inbound")
    };
    wait::until("the connection is open", open);
    pods.server.sidecar().signal(Signal::SIGTERM);
    for address in &addresses {
        wait::until("the drain is told", || {
            ask(address, "/readyz") == "draining\n503"
        });
        assert_eq!(ask(address, "/healthz"), "ok\n200");
    }
    assert_eq!(held.status(), None);
    pods.server.stop_sidecar_of_init();
}

#[test]
fn a_sidecar_container_that_is_restarted_takes_its_pod_over_again() {
    let (mut pods, identities) = meshed(&[], &[]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    for restart in ["sidecar-2", "sidecar-3"] {
        kill(&mut pods.server, "sidecar");
        // The client's sidecar had taken it.
        assert_eq!(
            pods.client.converse(pods.server.v4(), 8080, SECRET),
            "reset"
        );
        run(&mut pods.server, restart, TREES, &identities.server.flags());
        let capture = pods.client.capture();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
        capture.finish().assert_encrypted(&[SECRET]);
        kill(&mut pods.server, restart);
        run(
            &mut pods.server,
            "sidecar",
            TREES,
            &identities.server.flags(),
        );
    }
}

#[test]
fn containers_of_the_app_that_are_restarted_stay_covered() {
    // Each round is to be seen whole on the wire.
    let client = ["--outbound", "strict", "--reuse", "off"];
    let (pods, _) = meshed(&client, &["--inbound", "strict"]);
    for restart in ["app-2", "app-3"] {
        let server = pods.server.container(restart, &[], "/usr/bin/python3");
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/server.py");
        let mut server = server.args([script, "echo", "8080", "::"]).start();
        server.wait_for_stderr("listening");
        let capture = pods.client.capture();
        let client = pods.client.container(restart, &[], "/usr/bin/python3");
        let code = "from peer import *\nimport sys\nreport(outcome=converse(*sys.argv[1:]))";
        let client = client.args(["-c", code, &pods.server.v4().to_string(), "8080", SECRET]);
        let Said { outcome } = client.facts();
        assert_eq!(outcome, SECRET);
        capture.finish().assert_encrypted(&[SECRET]);
        kill_container(&pods.server, restart);
    }
}

#[test]
fn a_job_completes_with_its_app() {
    const SENT: usize = 300_000;
    // Far longer than the test.
    let (mut pods, _) = meshed(&["--drain-timeout", "10m"], &[]);
    // A peer that keeps the connection open, whatever the app does.
    let peer = pods.server.snippet(
        "import signal\nserver = socket.create_server(('::', 8080), family=socket.AF_INET6, dualstack_ipv6=True)\n\
         print('listening', file=sys.stderr, flush=True)\nsock, _ = server.accept()\n\
         count, _, end = drain(sock)\nreport(count=count, end=end)\nsignal.pause()",
    );
    let mut peer = peer.start();
    peer.wait_for_stderr("listening");
    let job = pods
        .client
        .snippet("sock = dial(sys.argv[1], 8080)\nsock.sendall(b'x' * int(sys.argv[2]))");
    job.args([pods.server.v4().to_string(), SENT.to_string()])
        .succeed();

    // As the kubelet does when the last container of the app has ended.
    let told = Instant::now();
    pods.client.stop_sidecar_of_init();
    assert!(
        told.elapsed() < Duration::from_secs(10),
        "{:?}",
        told.elapsed()
    );
    peer.wait_for_stdout(&format!("\"count\": {SENT}"));
    assert_eq!(peer.status(), None);
}

#[test]
fn what_an_app_has_said_arrives_though_it_and_its_sidecar_have_ended() {
    let (mut pods, _) = meshed(&["--drain-timeout", "10m"], &[]);
    let peer = App::start(&pods.server, Behaviour::Stall, 8080);
    say_and_end(&pods);
    // Its peer's machine has all of it, and the peer has read nothing.
    pods.client.stop_sidecar_of_init();
    peer.release();
    assert_heard(&peer);
}

#[test]
fn a_sidecar_ends_only_when_what_its_app_has_said_is_acknowledged() {
    let (mut pods, _) = meshed(&["--drain-timeout", "10m"], &[]);
    // So little is taken on that side that most of it stays on this.
    for buffer in ["tcp_rmem", "tcp_wmem"] {
        let limit = format!("echo 4096 16384 65536 > /proc/sys/net/ipv4/{buffer}");
        pods.server
            .program("/bin/sh")
            .args(["-c", &limit])
            .succeed();
    }
    let peer = App::start(&pods.server, Behaviour::Stall, 8080);
    say_and_end(&pods);
    pods.client.sidecar().signal(Signal::SIGTERM);
    pods.client.sidecar().logs(&["draining"]);
    assert!(!has_ended_soon(&mut pods.client));
    peer.release();
    assert_heard(&peer);
    pods.client.stop_sidecar_of_init();
}

#[test]
fn a_sidecar_that_is_told_to_stop_serves_what_is_open_as_long_as_the_app_runs() {
    let (mut pods, _) = meshed(&["--drain-timeout", "10m"], &[]);
    let _peer = App::start(&pods.server, Behaviour::Echo, 8080);
    let mut app = hold(&pods.client, &pods.server, 8080);
    pods.client.sidecar().signal(Signal::SIGTERM);
    pods.client.sidecar().logs(&["draining"]);
    assert!(!has_ended_soon(&mut pods.client));
    app.signal(Signal::SIGUSR1);
    app.wait_for_stdout("still heard");
    drop(app);
    pods.client.stop_sidecar_of_init();
}

/// What an app says that ends before anybody has heard it, in bytes.
const SAID: usize = 1_000_000;

/// An app of the client's connects, says it, and ends, as soon as the kernel has taken it.
#[track_caller]
fn say_and_end(pods: &Pods) {
    let job = pods.client.snippet(
        "sock = dial(sys.argv[1], 8080)\n\
         sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)\n\
         sock.sendall(b'x' * int(sys.argv[2]))",
    );
    job.args([pods.server.v4().to_string(), SAID.to_string()])
        .succeed();
}

#[track_caller]
fn assert_heard(peer: &App) {
    let session = peer.only_session();
    assert_eq!((session.received, &*session.end), (SAID as u64, "eof"));
}

/// Does the pod's sidecar end, within a time in which it looks several times whether it may?
fn has_ended_soon(pod: &mut Pod) -> bool {
    wait::within(Duration::from_secs(1), || {
        pod.sidecar_has_ended().then_some(())
    })
    .is_some()
}

/// What a snippet reports.
#[derive(Deserialize)]
struct Said {
    outcome: String,
}

/// An app that connects, holds the connection, says something on SIGUSR1, and tells what is echoed.
#[track_caller]
fn hold(client: &Pod, server: &Pod, port: u16) -> Process {
    let app = client.snippet(
        "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n\
         sock = dial(*sys.argv[1:])\nsock.sendall(b'hello')\nprint('connected', flush=True)\n\
         signal.sigwait([signal.SIGUSR1])\nsock.sendall(b'still heard')\n\
         print(read(sock, 16), flush=True)\nsignal.pause()",
    );
    let mut app = app
        .args([server.v4().to_string(), port.to_string()])
        .start();
    app.wait_for_stdout("connected");
    app
}

/// Two pods whose sidecars run in containers, with these additional flags.
#[track_caller]
fn meshed(client: &[&str], server: &[&str]) -> (Pods, Identities) {
    let mut pods = Pods::named_by(Naming::Systemd);
    let identities = Identities::new(&pods);
    for (pod, svid, flags) in [
        (&mut pods.client, &identities.client, client),
        (&mut pods.server, &identities.server, server),
    ] {
        init(pod, TREES);
        run(pod, "sidecar", TREES, &[&svid.flags()[..], flags].concat());
    }
    (pods, identities)
}

/// Certificates for both pods.
struct Identities {
    client: Svid,
    server: Svid,
}

impl Identities {
    fn new(pods: &Pods) -> Self {
        let ca = Ca::new(&pods.client, "sidecar.local");
        let [client, server] = [&pods.client, &pods.server].map(|pod| {
            let svid = ca.issue(&pod.identity(), "1h");
            svid.give_to(USER);
            svid
        });
        Self { client, server }
    }
}

/// The first container of a pod, which has to succeed: what it says.
#[track_caller]
fn init(pod: &Pod, trees: &[&str]) -> String {
    init_on(pod, trees, &pod.bpffs()).success().stderr
}

/// The same, of any outcome. It sees all of the BPF file system.
fn init_on(pod: &Pod, trees: &[&str], bpffs: &Path) -> Output {
    let bpffs = format!("bpffs={}", bpffs.display());
    let given = [trees, &[&*bpffs]].concat();
    let init = pod.sidecar_container("init", &given, &INIT, "init");
    init.args(["--gid", "4195"]).run()
}

/// The second: it sees what is pinned for its own pod, and nothing else.
#[track_caller]
fn run(pod: &mut Pod, name: &str, trees: &[&str], flags: &[&str]) {
    start(pod, name, trees, flags);
    pod.wait_until_ready();
}

/// The same, which may not be ready yet.
#[track_caller]
fn start(pod: &mut Pod, name: &str, trees: &[&str], flags: &[&str]) {
    let bpffs = format!("bpffs={}", own_pins(pod, &pod.bpffs()));
    let given = [trees, &[&*bpffs]].concat();
    pod.start_container(name, &given, &RUN, flags);
}

/// Kills a sidecar and its container.
#[track_caller]
fn kill(pod: &mut Pod, name: &str) {
    kill_container(pod, name);
    pod.kill_sidecar();
}

/// Kills a container as runtimes do, all processes at once, and waits until they are gone.
#[track_caller]
fn kill_container(pod: &Pod, name: &str) {
    let cgroup = pod.sandbox().cgroup().path().join(name);
    cgroup::kill(&cgroup).expect("a container");
    wait::until("the container is gone", || {
        let events = fs::read_to_string(cgroup.join("cgroup.events")).expect("a cgroup");
        events.contains("populated 0")
    });
}

/// What is pinned for a pod.
fn own_pins(pod: &Pod, bpffs: &Path) -> String {
    let pins = bpffs.join("sidecar").join(pod.sandbox().uid());
    pins.to_string_lossy().into_owned()
}
