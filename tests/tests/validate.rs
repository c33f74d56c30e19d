//! `sidecar validate`: what it takes for proof, and what it does not.

use sidecar_tests::{Output, Pod, Pods, Process, Program, sidecar};

/// What makes a program a user of its own, with no capability and no way to get one.
const UNPRIVILEGED: [&str; 7] = [
    "--reuid=4196",
    "--regid=4196",
    "--clear-groups",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

/// Several attempts.
const SHORT: &str = "1s";

/// Long enough for an attempt that is held to be given up.
const LONG: &str = "7s";

fn validate(pod: &Pod) -> Program<'_> {
    let setpriv = pod.program("/usr/bin/setpriv").args(UNPRIVILEGED);
    setpriv.arg("--").arg(sidecar::binary()).arg("validate")
}

/// What it says when it has given up.
#[track_caller]
fn refusal(pod: &Pod, timeout: &str) -> String {
    let Output { status, stderr, .. } = validate(pod).args(["--timeout", timeout]).run();
    assert_eq!(status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default().to_owned();
    let start = format!("sidecar: gave up after {timeout}: ");
    assert!(last.starts_with(&start), "{stderr}");
    last
}

/// Waits until it has said what it waits for.
#[track_caller]
fn waiting(pod: &Pod, why: &str) -> Process {
    let mut process = validate(pod).start();
    process.wait_for_stderr(why);
    process
}

fn meshed(flags: &[&str]) -> Pods {
    let mut pods = Pods::plain();
    let ca = pods.dev_ca();
    pods.server.mesh(&ca, flags);
    pods.server.wait_until_ready();
    pods
}

#[test]
fn both_directions_are_proven_over_both_families_without_privileges() {
    for flags in [&[][..], &["--inbound", "strict", "--outbound", "strict"]] {
        let pods = meshed(flags);
        let said = validate(&pods.server).succeed();
        for address in [pods.server.v4().to_string(), pods.server.v6().to_string()] {
            let line = format!("{address}: connections in both directions go through the sidecar");
            assert!(said.lines().any(|said| said == line), "{said}");
        }
    }
}

#[test]
fn it_waits_until_the_sidecar_has_come() {
    let mut pods = Pods::plain();
    let process = waiting(
        &pods.server,
        "waiting, because connections in both directions go past the sidecar",
    );
    let ca = pods.dev_ca();
    pods.server.mesh(&ca, &[]);
    let proof = process.wait().success().stdout;
    assert_eq!(
        proof.matches("in both directions go through").count(),
        2,
        "{proof}"
    );
}

#[test]
fn a_pod_without_a_sidecar_is_told_from_one() {
    let pods = Pods::plain();
    let said = refusal(&pods.server, SHORT);
    assert!(
        said.contains("connections in both directions go past the sidecar"),
        "{said}"
    );
}

#[test]
fn the_direction_that_is_missing_is_named_unless_the_settings_leave_it_out() {
    let elsewhere = "connections to elsewhere go past the sidecar";
    let from = "connections from elsewhere go past the sidecar";
    let cases: [(&[&str], &str); 4] = [
        (&["--outbound", "off"], elsewhere),
        (
            &["--exclude-outbound-cidrs", "198.18.0.0/15,fd00::/8"],
            elsewhere,
        ),
        (&["--inbound", "off"], from),
        (
            &[
                "--override",
                "inbound,cidr=198.18.0.0/15,mode=off;inbound,cidr=fd00::/8,mode=off",
            ],
            from,
        ),
    ];
    for (flags, missing) in cases {
        let pods = meshed(flags);
        let said = refusal(&pods.server, SHORT);
        assert!(said.contains(missing), "{flags:?}: {said}");
        let said = validate(&pods.server).args(flags).succeed();
        assert_eq!(said.matches("by the settings, those").count(), 2, "{said}");
    }
}

#[test]
fn a_user_who_is_left_alone_proves_nothing() {
    let pods = meshed(&["--exclude-uids", "4196"]);
    let said = refusal(&pods.server, SHORT);
    assert!(
        said.contains("connections to elsewhere go past the sidecar"),
        "{said}"
    );
    let output = validate(&pods.server)
        .args(["--exclude-uids", "4196"])
        .run();
    assert!(
        output.stderr.contains("run it as another user than 4196"),
        "{}",
        output.stderr
    );
    assert!(!output.status.success());
}

#[test]
fn a_pod_whose_sidecar_is_dead_is_closed() {
    let mut pods = meshed(&[]);
    pods.server.kill_sidecar();
    let said = refusal(&pods.server, SHORT);
    assert!(
        said.contains("it is captured, and no sidecar serves it"),
        "{said}"
    );
    pods.server.sidecar_command("cleanup").succeed();
}

#[test]
fn a_sidecar_that_holds_connections_until_it_has_an_identity_proves_nothing_yet() {
    let mut pods = Pods::plain();
    let socket = pods.server.sandbox().directory().join("agent.sock");
    let api = format!("unix:{}", socket.display());
    pods.server.start_sidecar(&["--workload-api", &api]);
    let said = refusal(&pods.server, LONG);
    assert!(said.contains("in 5s nothing came of it"), "{said}");
    assert!(said.contains("awaiting_identity"), "{said}");
}

#[test]
fn a_workload_that_may_not_reach_itself_is_told_where_to_look() {
    let mut pods = Pods::plain();
    let ca = pods.dev_ca();
    let rules = pods
        .server
        .sandbox()
        .file("rules.yaml", "authorization: {default: deny}\n");
    pods.server
        .mesh(&ca, &["--config", &rules.to_string_lossy()]);
    pods.server.wait_until_ready();
    let said = refusal(&pods.server, SHORT);
    assert!(
        said.contains("the sidecar has taken the connection, and ended it"),
        "{said}"
    );
}

#[test]
fn a_packet_filter_that_redirects_is_no_sidecar() {
    const RELAY: u16 = 15001;
    let pods = Pods::plain();
    let pod = &pods.server;
    // It carries on what it is given to where that was going, as proxies behind iptables do.
    let relay = pod.script("relay.py").arg(RELAY.to_string()).listen(RELAY);
    let rules = format!(
        "table inet nat {{\n chain output {{\n type nat hook output priority -100;\n \
         meta skuid 4196 tcp dport != {RELAY} redirect to :{RELAY}\n }}\n}}\n"
    );
    pod.program("/usr/sbin/nft")
        .args(["-f", "-"])
        .stdin(&rules)
        .succeed();
    let said = refusal(pod, SHORT);
    assert!(
        said.contains("connections in both directions go past the sidecar"),
        "{said}"
    );
    // It was there, and is what has been seen through.
    assert!(relay.stdout().lines().count() > 1, "{}", relay.stderr());
}
