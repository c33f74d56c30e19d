//! `sidecar init` with two capabilities, and `sidecar run` with none.

use std::{fs, path::Path};

use sidecar_tests::{
    App, Behaviour, Pod, Pods, SECRET,
    svid::{Ca, Svid},
};

/// What takes everything away from root but the two capabilities that `sidecar init` needs.
const TWO_CAPABILITIES: [&str; 2] = ["--inh-caps=-all", "--bounding-set=-all,+bpf,+net_admin"];

/// What makes a program that user, with the two capabilities and no other.
const USER_WITH_TWO: [&str; 6] = [
    "--reuid=4195",
    "--regid=4195",
    "--clear-groups",
    "--inh-caps=-all,+bpf,+net_admin",
    "--ambient-caps=-all,+bpf,+net_admin",
    "--bounding-set=-all,+bpf,+net_admin",
];

/// What makes a program that user, with no capability and no way to get one.
const USER_WITH_NONE: [&str; 7] = [
    "--reuid=4195",
    "--regid=4195",
    "--clear-groups",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

#[test]
fn a_sidecar_without_capabilities_serves_what_init_has_pinned() {
    // Whoever runs `init`, and to whom the maps then are handed.
    let ways: [(&[&str], &[&str]); 4] = [
        (&[], &["--uid", "4195"]),
        (&USER_WITH_TWO, &["--uid", "4195"]),
        (
            &[
                TWO_CAPABILITIES[0],
                "--bounding-set=-all,+bpf,+net_admin,+chown",
            ],
            &["--uid", "4195"],
        ),
        (
            &[
                "--regid=4195",
                "--clear-groups",
                TWO_CAPABILITIES[0],
                TWO_CAPABILITIES[1],
            ],
            &["--gid", "4195"],
        ),
    ];
    for (setpriv, access) in ways {
        let mut pods = Pods::plain();
        let app = App::start(&pods.server, Behaviour::Echo, 8080);
        let own = TrustDomain::new(&pods);
        pods.client.mesh_with(&own.client.flags());
        let init = pods.server.sidecar_init(setpriv).args(access);
        init.succeed();
        pods.server
            .mesh_confined(&USER_WITH_NONE, &own.server.flags());
        assert_unprivileged(&pods.server);

        let capture = pods.client.capture();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
        assert_eq!(pods.client.converse(pods.server.v6(), 8080, SECRET), SECRET);
        capture.finish().assert_encrypted(&[SECRET]);
        let connection = pods
            .server
            .sidecar()
            .connection(|entry| entry.direction == "inbound");
        assert_eq!(connection.tls, "mutual");
        let peers: Vec<_> = app
            .sessions_when(2)
            .iter()
            .map(|s| s.peer.ip().to_canonical())
            .collect();
        assert!(peers.contains(&pods.client.v4().into()), "{peers:?}");

        // The other direction, and the end without privileges.
        let _back = App::start(&pods.client, Behaviour::Echo, 8081);
        assert_eq!(pods.server.converse(pods.client.v4(), 8081, SECRET), SECRET);
        assert_eq!(
            pods.server
                .sidecar()
                .connection(|entry| entry.direction == "outbound")
                .tls,
            "mutual"
        );
        // Three connections, of two legs each.
        pods.server.sidecar().metrics_when(|metrics| {
            metrics.count("sidecar_tcp_congestion_window_segments_count", &[]) == 6
        });
        pods.server.stop_sidecar_of_init();
        assert_closed(&pods);
    }
}

#[test]
fn a_sidecar_without_capabilities_takes_over_from_another() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let own = TrustDomain::new(&pods);
    pods.client.mesh_with(&own.client.flags());
    let init = pods.server.sidecar_init(&[]).args(["--uid", "4195"]);
    init.succeed();
    pods.server
        .mesh_confined(&USER_WITH_NONE, &own.server.flags());
    let old = pods
        .server
        .upgrade_confined(&USER_WITH_NONE, &own.server.flags());
    old.wait_for_exit();
    pods.server.wait_until_ready();
    assert_unprivileged(&pods.server);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    let connection = pods.server.sidecar().only_connection("inbound");
    assert_eq!(connection.tls, "mutual");
    pods.server.sidecar().metrics_when(|metrics| {
        metrics.count("sidecar_tcp_congestion_window_segments_count", &[]) == 2
    });
    pods.server.stop_sidecar_of_init();
}

#[test]
fn after_init_every_connection_is_refused_in_both_directions() {
    let pods = Pods::plain();
    let apps = [&pods.client, &pods.server].map(|pod| App::start(pod, Behaviour::Echo, 8080));
    pods.server.sidecar_init(&TWO_CAPABILITIES).succeed();
    let capture = pods.client.capture();
    assert_closed(&pods);
    let wire = capture.finish();
    assert!(!wire.contains(SECRET));
    assert!(wire.streams.iter().all(|stream| !stream.is_established()));
    for app in &apps {
        assert_eq!(app.sessions(), []);
    }
    // The app reaches itself all the same.
    assert_eq!(
        pods.server
            .converse(std::net::Ipv4Addr::LOCALHOST, 8080, SECRET),
        SECRET
    );
}

#[test]
fn each_missing_capability_is_named_and_nothing_is_attached() {
    let pods = Pods::plain();
    let cases: [(&str, &[&str], &[&str]); 3] = [
        (
            "--bounding-set=-all,+bpf",
            &["CAP_NET_ADMIN"],
            &["CAP_BPF,", "CAP_BPF and CAP_NET_ADMIN, which"],
        ),
        (
            "--bounding-set=-all,+net_admin",
            &["CAP_BPF"],
            &["lacks CAP_NET_ADMIN", "CAP_BPF and CAP_NET_ADMIN, which"],
        ),
        (
            "--bounding-set=-all",
            &["lacks CAP_BPF and CAP_NET_ADMIN"],
            &[],
        ),
    ];
    for (bounding, named, not_named) in cases {
        let output = pods
            .server
            .sidecar_init(&["--inh-caps=-all", bounding])
            .run();
        output.assert_one_sentence(named);
        assert!(
            not_named.iter().all(|name| !output.stderr.contains(name)),
            "{output}"
        );
        pods.server.assert_nothing_left();
    }
}

#[test]
fn a_handing_over_that_is_not_possible_is_refused_with_the_ways_out() {
    let pods = Pods::plain();
    // Root, but without the capability to give files away.
    let init = pods.server.sidecar_init(&TWO_CAPABILITIES);
    let output = init.args(["--uid", "4195"]).run();
    output.assert_one_sentence(&["user 4195", "CAP_CHOWN", "--gid"]);
    pods.server.assert_nothing_left();
}

#[test]
fn a_sidecar_without_capabilities_says_what_it_lacks() {
    let pods = Pods::plain();
    let own = TrustDomain::new(&pods);
    let run = || {
        let run = pods.server.sidecar_run_confined(&USER_WITH_NONE);
        run.args(own.server.flags()).run()
    };
    run().assert_one_sentence(&["sidecar init", "CAP_BPF and CAP_NET_ADMIN"]);
    pods.server.assert_nothing_left();

    pods.server.sidecar_init(&[]).succeed();
    run().assert_one_sentence(&["4195", "sidecar init --uid 4195"]);

    // What it needs is there, once it is handed over.
    let check = |pods: &Pods| {
        let setpriv = pods.server.sidecar_check_confined(&USER_WITH_NONE);
        setpriv.args(own.server.flags()).run()
    };
    assert!(check(&pods).stdout.contains("CAP_BPF is missing"));

    // Complete but for one program.
    pods.server
        .sidecar_init(&[])
        .args(["--uid", "4195"])
        .succeed();
    let ready = check(&pods).success();
    assert!(ready.stdout.contains("sidecar init"), "{ready}");
    let link = pods
        .server
        .pins()
        .into_iter()
        .find(|path| path.ends_with("sc_connect6"));
    fs::remove_file(link.expect("it is pinned")).expect("root may remove it");
    run().assert_one_sentence(&["sc_connect6", "sidecar init"]);
}

#[test]
fn a_pin_of_another_network_namespace_is_refused_without_privileges() {
    let pods = Pods::plain();
    let own = TrustDomain::new(&pods);
    pods.server
        .sidecar_init(&[])
        .args(["--uid", "4195"])
        .succeed();
    let run = pods.server.sidecar_run_confined(&USER_WITH_NONE).outside();
    let output = run.args(own.server.flags()).run();
    output.assert_one_sentence(&["network namespace", "sidecar init"]);
}

#[test]
fn an_init_that_was_killed_is_told_from_one_of_another_network_namespace() {
    let pods = Pods::plain();
    let own = TrustDomain::new(&pods);
    let init = pods.server.sidecar_init(&[]).args(["--uid", "4195"]);
    init.succeed();
    // As if it had not come to its last step, in which it notes where it is.
    let pins = pods.server.pins();
    let owner = pins.iter().find(|path| path.ends_with("SC_OWNER"));
    let script = pods.server.script("pinned.py");
    let script = script.arg(owner.expect("it is pinned"));
    script.args(["0", "24"]).succeed();
    let run = pods.server.sidecar_run_confined(&USER_WITH_NONE);
    let output = run.args(own.server.flags()).run();
    output.assert_one_sentence(&["not come to its end", "sidecar init"]);
}

#[test]
fn init_again_keeps_the_sidecar_that_serves() {
    let mut pods = Pods::server_meshed(&[]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let maps = |pods: &Pods| {
        let status = pods.server.sidecar_command("status").args(["-o", "json"]);
        status.facts::<serde_json::Value>()[0]["maps"].clone()
    };
    let before = maps(&pods);
    // Its rules are written anew: this port is left alone from now on.
    let init = pods.server.sidecar_init(&[]);
    init.args(["--exclude-inbound-ports", "9999"]).succeed();
    assert_eq!(maps(&pods), before);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.server.sidecar().only_connection("inbound");
    // What init has been asked for stays.
    pods.server.stop_sidecar_of_init();
    assert_eq!(
        pods.client.converse(pods.server.v4(), 8080, SECRET),
        "refused"
    );
    pods.server.sidecar_command("cleanup").succeed();
}

#[test]
fn init_again_that_may_not_open_what_it_has_handed_over_is_refused_and_the_sidecar_serves_on() {
    // The second may not even lock; or it may, and lists everything, but opens no map.
    for more in ["", ",+dac_read_search"] {
        let mut pods = Pods::plain();
        let app = App::start(&pods.server, Behaviour::Echo, 8080);
        let own = TrustDomain::new(&pods);
        pods.client.mesh_with(&own.client.flags());
        let bounding = format!("--bounding-set=-all,+bpf,+net_admin,+chown{more}");
        let init = pods.server.sidecar_init(&[]);
        init.args(["--uid", "4195"]).succeed();
        pods.server
            .mesh_confined(&USER_WITH_NONE, &own.server.flags());
        let pins = pods.server.pins();

        let init = pods.server.sidecar_init(&["--inh-caps=-all", &*bounding]);
        let output = init.args(["--uid", "4195"]).run();
        output.assert_one_sentence(&["CAP_DAC_OVERRIDE", "run as user 4195"]);
        assert_eq!(pods.server.pins(), pins);
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
        pods.server.sidecar().only_connection("inbound");
        assert_eq!(app.only_session().end, "eof");
        pods.server.stop_sidecar_of_init();
    }
}

#[test]
fn rules_of_init_give_way_to_those_of_the_sidecar() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let init = pods.server.sidecar_init(&[]);
    init.args([
        "--exclude-inbound-ports",
        "8080",
        "--override",
        "inbound,port=8080,mode=off",
    ])
    .succeed();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    let dev_ca = pods.dev_ca();
    pods.server.mesh(&dev_ca, &[]);
    pods.server.wait_until_ready();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.server.sidecar().only_connection("inbound");
    pods.server.stop_sidecar_of_init();
    pods.server.sidecar_command("cleanup").succeed();
}

/// An identity for each of the two pods, which any user may read.
struct TrustDomain {
    client: Svid,
    server: Svid,
}

impl TrustDomain {
    fn new(pods: &Pods) -> Self {
        let ca = Ca::new(&pods.client, "example.org");
        let [client, server] = [("client"), ("server")]
            .map(|name| ca.issue(&format!("spiffe://example.org/{name}"), "1h"));
        server.give_to(4195);
        Self { client, server }
    }
}

/// Checks that nobody reaches anybody.
#[track_caller]
fn assert_closed(pods: &Pods) {
    let addresses: [[std::net::IpAddr; 2]; 2] = [
        [pods.server.v4().into(), pods.server.v6().into()],
        [pods.client.v4().into(), pods.client.v6().into()],
    ];
    for (pod, addresses) in [&pods.client, &pods.server].into_iter().zip(addresses) {
        for address in addresses {
            let seen = pod.converse(address, 8080, SECRET);
            // One whose own sidecar had taken the connection is reset.
            assert!(
                ["refused", "reset"].contains(&&*seen),
                "{} saw {seen}",
                pod.role()
            );
        }
    }
}

/// Checks that a pod's sidecar runs as user 4195 and holds no capability in any set.
#[track_caller]
fn assert_unprivileged(pod: &Pod) {
    let path = Path::new("/proc").join(pod.sidecar().id().to_string());
    let status = fs::read_to_string(path.join("status")).expect("the sidecar runs");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.expect("the kernel tells").trim().to_owned()
    };
    assert_eq!(
        field("Uid:").split_whitespace().collect::<Vec<_>>(),
        ["4195"; 4]
    );
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(set), "0000000000000000", "{set}");
    }
    assert_eq!(field("NoNewPrivs:"), "1");
}
