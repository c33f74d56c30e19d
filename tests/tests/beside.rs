//! Programs of others on the hooks that the sidecar uses: who comes first, and what becomes of a connection that both
//! have a say in. `docs/operations.md` tells the same in words.

use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
};

use nix::sys::signal::Signal;
use serde::Deserialize;
use sidecar_tests::{
    App, Behaviour, Connection, Foreign, Pod, Pods, SECRET,
    access_log::{self, Line},
    cgroup::{Container, Naming},
    foreign::{How, above},
    sidecar, wait,
};

const STRICT: &[&str] = &["--inbound", "strict", "--outbound", "strict"];

/// Addresses that no pod has, and that lead nowhere.
const SERVICES: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(198, 19, 0, 80)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x5ca, 0x80, 0, 0, 0, 0, 0x80)),
];

/// A workload of an authority in the directory of the pod, that says nothing but what has failed.
const DEV_CA: [&str; 6] = [
    "--dev-ca",
    "dev-ca",
    "--identity",
    "spiffe://sidecar.local/ns/default/sa/app",
    "--log",
    "error",
];

/// Claims of `sidecar check`.
const TRANSLATION: &str = "no other program changes what the pod connects to";
const FOLLOWING: &str = "no other program follows the pod's sockets";
const STEERING: &str = "no other program chooses the pod's listeners";
const FILTERING: &str = "no other program drops what leaves the pod";
const RIVAL: &str = "no other sidecar serves the pod";

/// A port that the app does not listen on.
const UNUSED: u16 = 7777;

/// Talks to an address, and tells what it was told and whom.
const TALK: &str = r#"
sock = dial(sys.argv[1], sys.argv[2])
peer = text(sock.getpeername())
sock.sendall(b"violet rhinoceros\n")
report(said=read_line(sock), peer=peer)
"#;

/// What it reports.
#[derive(Debug, Deserialize, PartialEq)]
struct Talk {
    said: String,
    peer: SocketAddr,
}

#[test]
fn a_service_that_is_translated_above_the_pod_is_dialled_by_its_own_address() {
    let mut pods = Pods::named_by(Naming::Cgroupfs);
    let translators = translators(&pods, How::Link, &above(&pods.client));
    pods.mesh(Some(STRICT), Some(STRICT));
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    for service in SERVICES {
        let (talk, outbound, inbound) = talk_to(&pods, service);
        // Nobody but the programs above has told the app anything else than what it asked for.
        assert_eq!(talk.peer, (service, 80).into());
        assert_eq!(outbound.destination, (service, 80).into());
        assert_eq!(inbound.destination, (server(&pods, service), 8080).into());
    }
    drop(translators);
}

#[test]
fn a_service_that_was_translated_before_is_dialled_by_its_servers_address() {
    let mut pods = Pods::plain();
    // On the same cgroup whoever comes first is asked first.
    let cgroup = pods.client.sandbox().cgroup().path();
    let translators = translators(&pods, How::Multi, cgroup);
    pods.mesh(Some(STRICT), Some(STRICT));
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    for service in SERVICES {
        let server = SocketAddr::new(server(&pods, service), 8080);
        let (talk, outbound, inbound) = talk_to(&pods, service);
        assert_eq!(talk.peer, server);
        assert_eq!(
            (outbound.destination, inbound.destination),
            (server, server)
        );
    }
    for translator in translators {
        translator.detach();
    }
}

#[test]
fn a_port_that_another_program_steers_stays_its_own() {
    for is_first in [true, false] {
        let (pods, foreign) = steered(UNUSED, false, is_first, &[]);
        let _app = App::start(&pods.server, Behaviour::Echo, 8080);
        let address = pods.server.v4();
        assert_eq!(pods.client.converse(address, UNUSED, SECRET), "steered");
        assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
        pods.mutual_connection(8080);
        let sidecar = pods.server.sidecar();
        assert_eq!(sidecar.kernel_events("inbound_not_listening"), 1);
        assert_eq!(sidecar.kernel_events("inbound_steered"), 1);
        assert_eq!(foreign.clients()[0].ip(), pods.client.v4());
    }
}

#[test]
fn a_listener_that_another_program_has_chosen_is_the_app() {
    for is_first in [true, false] {
        let (pods, foreign) = steered(8080, false, is_first, STRICT);
        let app = App::start(&pods.server, Behaviour::Echo, 8080);
        let capture = pods.client.capture();
        let address = pods.server.v4();
        assert_eq!(pods.client.converse(address, 8080, SECRET), "steered");
        let (_, inbound) = pods.mutual_connection(8080);
        capture.finish().assert_encrypted(&[SECRET, "steered"]);
        // By `accept()`, as any other app.
        assert_eq!(foreign.clients(), [inbound.client]);
        assert_eq!(app.sessions(), []);
        let sidecar = pods.server.sidecar();
        assert_eq!(sidecar.kernel_events("dropped_assign_failed"), 0);
    }
}

#[test]
fn a_listener_that_another_program_insists_on_is_cut_off_under_strict() {
    let (pods, foreign) = steered(8080, true, false, STRICT);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let plain = pods.join("plain");
    let mut dial = plain
        .snippet("dial(sys.argv[1], 8080).sendall(b'violet rhinoceros')")
        .arg(pods.server.v4().to_string())
        .start();
    wait::until("its answers are dropped", || {
        pods.server.sidecar().kernel_events("dropped_past_proxy") > 0
    });
    assert_eq!(dial.status(), None);
    assert_eq!(foreign.clients(), []);
}

#[test]
fn a_pod_whose_sidecar_is_dead_stays_closed_under_strict_whoever_chooses_its_listeners() {
    let (mut pods, foreign) = steered(8080, false, true, STRICT);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.server.kill_sidecar();
    let plain = pods.join("plain");
    let mut dial = plain
        .snippet("dial(sys.argv[1], 8080).sendall(b'violet rhinoceros')")
        .arg(pods.server.v4().to_string())
        .start();
    wait::until("its answers are dropped", || {
        pods.server.kernel_events("dropped_past_proxy") > 0
    });
    assert_eq!(dial.status(), None);
    assert_eq!(foreign.clients(), []);
}

#[test]
fn the_options_of_another_program_travel_beside_ours() {
    // Before ours on the same cgroup, and after ours on one above.
    for is_above in [false, true] {
        let mut pods = Pods::named_by(Naming::Cgroupfs);
        let watch = |pod: &Pod| {
            let words = ["add", "connect,connected,listen", "write", "option"];
            watch(pod, is_above, &words)
        };
        let foreign = [watch(&pods.client), watch(&pods.server)];
        pods.mesh(Some(&[]), Some(&[]));
        let _app = App::start(&pods.server, Behaviour::Echo, 8080);
        let capture = pods.client.capture();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
        pods.mutual_connection(8080);
        capture.finish().assert_encrypted(&[SECRET]);
        for foreign in foreign {
            let counts = foreign.counts();
            assert_ne!(counts.written, 0, "{counts:?}");
        }
    }
}

#[test]
fn the_option_is_offered_though_another_program_takes_the_callbacks_of_who_connects() {
    let mut pods = Pods::named_by(Naming::Cgroupfs);
    let foreign = watch(&pods.client, true, &["set", "connect", "state"]);
    pods.mesh(Some(&[]), Some(&[]));
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
    foreign.detach();
}

#[test]
fn strict_pods_talk_mutual_tls_though_another_program_takes_the_callbacks_of_listeners() {
    let mut pods = Pods::named_by(Naming::Cgroupfs);
    let foreign = watch(&pods.server, true, &["set", "listen", "state"]);
    pods.mesh(Some(STRICT), Some(STRICT));
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);
    let wire = capture.finish();
    let stream = wire.only_stream();
    assert!(stream.is_tls() && !stream.is_meshed(), "{stream:?}");
    // By this it is noticed.
    for (pod, event, count) in [
        (&pods.client, "option_offered", 1),
        (&pods.server, "option_answered", 0),
    ] {
        assert_eq!(pod.sidecar().kernel_events(event), count, "{event}");
    }
    foreign.detach();
}

#[test]
fn another_program_keeps_the_callbacks_it_has_asked_for() {
    let mut pods = Pods::plain();
    let foreign = watch(&pods.server, false, &["add", "accepted", "all"]);
    pods.mesh(Some(&[]), Some(&[]));
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);
    app.only_session();
    // Every socket has closed once the sidecar has gone: those that were accepted by the app and the proxy.
    pods.server.stop_sidecar();
    wait::until(
        "all that were accepted have closed with their callbacks",
        || {
            let counts = foreign.counts();
            counts.accepted > 0 && counts.kept == counts.accepted
        },
    );
}

#[test]
fn a_program_that_leaves_no_room_is_named_and_nothing_is_attached() {
    let pods = Pods::named_by(Naming::Cgroupfs);
    let service = (SERVICES[0], 80).into();
    let server = (pods.server.v4(), 8080).into();
    let above = above(&pods.client);
    let foreign = Foreign::translate(&pods.client, How::Exclusive, &above, service, server);
    let output = pods.client.sidecar_run().args(DEV_CA).run();
    let named = [
        "lb_connect",
        "cgroup_inet4_connect",
        &*above.to_string_lossy(),
    ];
    output.assert_one_sentence(&named);
    pods.client.assert_nothing_left();
    let claim = check(&pods.client, TRANSLATION);
    assert_eq!(claim.result, "fail");
    claim.assert_reason(&named);
    foreign.detach();
}

#[test]
fn a_program_that_may_be_replaced_does_not_run_for_the_pod_any_more() {
    let mut pods = Pods::named_by(Naming::Cgroupfs);
    let service = SERVICES[0];
    let server = (pods.server.v4(), 8080).into();
    let above = above(&pods.client);
    let foreign = Foreign::translate(
        &pods.client,
        How::Override,
        &above,
        (service, 80).into(),
        server,
    );
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    assert_eq!(pods.client.converse(service, 80, SECRET), SECRET);
    let claim = check(&pods.client, TRANSLATION);
    assert_eq!(claim.result, "warn");
    claim.assert_reason(&["lb_connect", "ours takes its place"]);
    pods.mesh(Some(&[]), None);
    assert_eq!(pods.client.converse(service, 80, SECRET), "reset");
    let failed = pods.client.sidecar().failures("outbound", 1);
    assert_eq!(failed[0].close, "connect_unreachable");
    pods.client.stop_sidecar();
    // As it was before.
    assert_eq!(pods.client.converse(service, 80, SECRET), SECRET);
    foreign.detach();
}

#[test]
fn check_names_the_programs_of_others_and_says_when_they_run() {
    let pods = Pods::named_by(Naming::Cgroupfs);
    let pod = &pods.client;
    let (above, own) = (above(pod), pod.sandbox().cgroup().path());
    for claim in [TRANSLATION, FOLLOWING, STEERING] {
        assert_eq!(check(pod, claim).result, "pass", "{claim}");
    }
    let _lb = Foreign::translate(
        pod,
        How::Link,
        &above,
        (SERVICES[1], 80).into(),
        (pods.server.v6(), 8080).into(),
    );
    let _watch = Foreign::follow(pod, own, &["add", "connect", "state"]);
    let _dispatcher = Foreign::steer(pod, UNUSED, false);
    for (claim, named) in [
        (
            TRANSLATION,
            ["lb_connect", "cgroup_inet6_connect", "runs after ours"],
        ),
        (
            FOLLOWING,
            [
                "tcp_watch",
                "cgroup_sock_ops",
                "before ours if it was attached before",
            ],
        ),
        (
            STEERING,
            [
                "dispatcher",
                "sk_lookup",
                "before ours if it was attached before",
            ],
        ),
    ] {
        let found = check(pod, claim);
        assert_eq!(found.result, "warn", "{claim}");
        found.assert_reason(&named);
    }
}

#[test]
fn check_does_not_take_the_sidecars_own_programs_for_those_of_others() {
    let mut pods = Pods::plain();
    pods.mesh(Some(&[]), None);
    for claim in [TRANSLATION, FOLLOWING, STEERING, FILTERING] {
        assert_eq!(check(&pods.client, claim).result, "pass", "{claim}");
    }
    // It would be replaced, and that is all.
    let rival = check(&pods.client, RIVAL);
    assert_eq!(rival.result, "warn", "{rival:?}");
}

#[test]
fn a_second_sidecar_that_does_not_find_the_first_is_refused_and_the_first_serves_on() {
    let pods = Pods::meshed_with(STRICT, STRICT);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let cgroup = pods.server.sandbox().cgroup().path();
    // With the same cgroup but another BPF file system, that of the other pod; and with a cgroup below.
    for cgroup in [cgroup.to_owned(), cgroup.join("app")] {
        for command in ["run", "init"] {
            let second = pods.server.program(sidecar::binary()).arg(command);
            let second = second
                .container(Container::Sidecar)
                .arg("--cgroup")
                .arg(&cgroup);
            let second = second.arg("--bpffs").arg(pods.client.bpffs());
            let output = second.args(DEV_CA).run();
            output.assert_one_sentence(&["another sidecar", "sc_sock_ops"]);
        }
    }
    let links = pods.client.pins().into_iter();
    assert_eq!(links.filter(|pin| pin.ends_with("sc_sock_ops")).count(), 1);
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);
    capture.finish().assert_encrypted(&[SECRET]);
}

#[test]
fn a_command_of_a_captured_pod_gets_no_sidecar_of_its_own() {
    let pods = Pods::client_meshed(&[]);
    let exec = pods.client.sidecar_command("exec").args(DEV_CA);
    let output = exec.args(["--", "true"]).run();
    output.assert_one_sentence(&["another sidecar", "sc_sock_ops"]);
    assert_eq!(
        pods.client.sandbox().cgroup().below(Container::App),
        [] as [PathBuf; 0]
    );
}

#[test]
fn a_pod_is_not_captured_while_a_command_in_it_has_a_sidecar_of_its_own() {
    let pods = Pods::plain();
    let exec = pods.client.sidecar_command("exec").args(DEV_CA);
    let mut exec = exec
        .args(["--", "sh", "-c", "echo captured; exec sleep 1h"])
        .start();
    exec.wait_for_stdout("captured");
    let run = pods.client.sidecar_run().args(DEV_CA).run();
    run.assert_one_sentence(&["another sidecar", "sc_sock_ops", "sidecar-exec-"]);
    assert_eq!(check(&pods.client, RIVAL).result, "fail");
    exec.signal(Signal::SIGTERM);
    let _ = exec.wait().code(128 + 15);
    pods.client.assert_nothing_left();
}

#[test]
fn commands_with_sidecars_of_their_own_reach_each_other_in_one_network_namespace() {
    let pods = Pods::plain();
    let exec = |log: &str| {
        let exec = pods.client.sidecar_command("exec").args(DEV_CA);
        exec.args(["--access-log", log])
    };
    let python = ["--", "/usr/bin/python3", "-m", "http.server", "8080"];
    let mut server = exec("json").args(python).start();
    server.wait_for_listener(8080);
    let url = format!("http://{}:8080/", pods.client.v4());
    let page = exec("off").args(["--", "curl", "-sS", &url]).succeed();
    assert!(page.contains("Directory listing"), "{page}");
    let inbound = || {
        // The command has a word to say there, too.
        let stdout = server.stdout();
        let lines = stdout.split_inclusive('\n');
        let log: String = lines.filter(|line| line.starts_with('{')).collect();
        let mut lines = access_log::parse(&log).into_iter();
        lines.find_map(Line::connection)
    };
    let inbound = wait::until_some("the connection is logged", inbound);
    assert_eq!((&*inbound.direction, &*inbound.tls), ("inbound", "mutual"));
    server.signal(Signal::SIGTERM);
    let _ = server.wait().code(128 + 15);
    pods.client.assert_nothing_left();
}

/// What `sidecar check` says of one claim.
#[derive(Debug, Deserialize)]
struct Finding {
    claim: String,
    result: String,
    #[serde(default)]
    reason: String,
}

impl Finding {
    #[track_caller]
    fn assert_reason(&self, words: &[&str]) {
        let is_said = words.iter().all(|word| self.reason.contains(word));
        assert!(is_said, "{words:?}: {self:?}");
    }
}

/// What it says.
#[derive(Deserialize)]
struct Report {
    checks: Vec<Finding>,
}

/// Asks `sidecar check` about one claim.
#[track_caller]
fn check(pod: &Pod, claim: &str) -> Finding {
    let check = pod.sidecar_check_confined(&[]).args(DEV_CA);
    let output = check.args(["-o", "json"]).run();
    let report: Report = serde_json::from_str(&output.stdout).expect("a report in JSON");
    let mut claims = report.checks.into_iter();
    let found = claims.find(|found| found.claim == claim);
    found.unwrap_or_else(|| panic!("{claim:?} is no claim"))
}

/// Programs that replace the addresses of services by those of the server pod.
fn translators(pods: &Pods, how: How, cgroup: &Path) -> [Foreign; 2] {
    SERVICES.map(|service| {
        let server = SocketAddr::new(server(pods, service), 8080);
        Foreign::translate(&pods.client, how, cgroup, (service, 80).into(), server)
    })
}

/// The address of the server pod that stands behind a service.
fn server(pods: &Pods, service: IpAddr) -> IpAddr {
    match service {
        IpAddr::V4(_) => pods.server.v4().into(),
        IpAddr::V6(_) => pods.server.v6().into(),
    }
}

/// Talks to the server pod by the address of a service, over mutual TLS; what the app and both sidecars say.
#[track_caller]
fn talk_to(pods: &Pods, service: IpAddr) -> (Talk, Connection, Connection) {
    let server = SocketAddr::new(server(pods, service), 8080);
    let capture = pods.client.capture();
    let snippet = pods
        .client
        .snippet(TALK)
        .args([service.to_string(), "80".to_owned()]);
    let talk: Talk = snippet.facts();
    assert_eq!(talk.said, SECRET);
    let is_it = |entry: &Connection| entry.destination.is_ipv4() == service.is_ipv4();
    let outbound = pods.client.sidecar().connection(is_it);
    let inbound = pods.server.sidecar().connection(is_it);
    assert_eq!((&*outbound.tls, &*inbound.tls), ("mutual", "mutual"));
    assert_eq!(outbound.client.ip(), inbound.client.ip());
    let wire = capture.finish();
    wire.assert_encrypted(&[SECRET]);
    assert_eq!(wire.only_stream().server, server);
    (talk, outbound, inbound)
}

/// Two meshed pods, in one of which another program steers a port, attached before our own or after.
fn steered(port: u16, insists: bool, is_first: bool, flags: &[&str]) -> (Pods, Foreign) {
    let mut pods = Pods::plain();
    let first = is_first.then(|| Foreign::steer(&pods.server, port, insists));
    pods.mesh(Some(flags), Some(flags));
    let foreign = first.unwrap_or_else(|| Foreign::steer(&pods.server, port, insists));
    (pods, foreign)
}

/// A program that follows sockets: on the cgroup above the pod's, or on the pod's own.
fn watch(pod: &Pod, is_above: bool, words: &[&str]) -> Foreign {
    let cgroup = if is_above {
        above(pod)
    } else {
        pod.sandbox().cgroup().path().to_owned()
    };
    Foreign::follow(pod, &cgroup, words)
}
