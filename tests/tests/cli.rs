//! The command line: what it says about a pod, and what when people mistype.

use serde_json::Value;
use sidecar_tests::{App, Behaviour, Pod, Pods, Program, app::GREETING, sidecar};

/// An authority in the directory of the pod, where commands start.
const DEV_CA: [&str; 2] = ["--dev-ca", "dev-ca"];

#[test]
fn check_says_that_a_pod_is_fit() {
    let pods = Pods::plain();
    let text = run(&pods.client, "check").args(DEV_CA).succeed();
    assert!(text.contains('√') && !text.contains('×'), "{text}");
    let json: Value = run(&pods.client, "check")
        .args(DEV_CA)
        .args(["-o", "json"])
        .facts();
    assert!(!json.to_string().is_empty());
}

#[test]
fn check_says_what_a_user_without_capabilities_lacks() {
    let pods = Pods::plain();
    let output = run(&pods.client, "check")
        .args(DEV_CA)
        .user("nobody")
        .run()
        .code(1);
    assert!(output.stdout.contains('×'), "{output}");
    assert!(output.stdout.contains("CAP_"), "{output}");
    pods.client.assert_nothing_left();
}

#[test]
fn the_code_of_a_failure_can_be_looked_up() {
    let pods = Pods::client_meshed(&["--outbound", "strict"]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.client.converse(pods.server.v4(), 8080, "hello");
    let failed = pods.client.sidecar().failures("outbound", 1);
    let explain = |code: &str| {
        let program = pods.client.program(sidecar::binary());
        program.args(["explain", code])
    };
    let text = explain(&failed[0].close).succeed();
    assert!(text.starts_with(&failed[0].close), "{text}");
    assert!(text.contains("hint: "), "{text}");
    let code: Value = explain("denied").args(["-o", "json"]).facts();
    assert_eq!(code[0]["code"], "denied");
    let output = explain("plaintext_refusal").run();
    output.assert_one_sentence(&["plaintext_refusal", "plaintext_refused"]);
}

#[test]
fn a_user_without_capabilities_is_told_so() {
    let pods = Pods::plain();
    let output = run(&pods.client, "run").args(DEV_CA).user("nobody").run();
    output.assert_one_sentence(&["CAP_"]);
    pods.client.assert_nothing_left();
}

#[test]
fn wrong_settings_are_named_and_nothing_is_attached() {
    let pods = Pods::plain();
    let file = |name: &str, content: &str| {
        pods.client.sandbox().file(name, content);
    };
    file("unknown.yaml", "outbond: strict\n");
    file("mode.yaml", "outbound: stern\n");
    file("no.yaml", "outbound: [strict\n");
    // A setting, its value, and what the message has to name.
    let cases = [
        ("--config", "nonexistent.yaml", ["nonexistent.yaml", ""]),
        ("--config", "unknown.yaml", ["unknown.yaml", "outbond"]),
        ("--config", "mode.yaml", ["stern", "strict"]),
        ("--config", "no.yaml", ["no.yaml", ""]),
        ("--outbound", "stern", ["stern", "strict"]),
        ("--outbond", "strict", ["--outbond", "--outbound"]),
        (
            "--exclude-outbound-cidrs",
            "10.0.0.0/33",
            ["10.0.0.0/33", ""],
        ),
        ("--exclude-outbound-ports", "65536", ["65536", ""]),
        (
            "--override",
            "outbound,port=80",
            ["outbound,port=80", "mode"],
        ),
        ("--override", "sideways,mode=off", ["sideways", "outbound"]),
        ("--connect-timeout", "soon", ["soon", ""]),
        (
            "--identity",
            "https://example",
            ["https://example", "spiffe://"],
        ),
        ("--admin", "localhost", ["localhost", ""]),
    ];
    for (setting, value, named) in cases {
        let output = run(&pods.client, "run").args([setting, value]).run();
        output.assert_one_sentence(&named);
        pods.client.assert_nothing_left();
    }
}

#[test]
fn places_that_do_not_exist_are_named() {
    let pods = Pods::plain();
    let pod = &pods.client;
    let netns = pod.sandbox().namespace().path();
    let cgroup = pod.sandbox().cgroup().path();
    let cases = [
        ["/sys/fs/cgroup/nonexistent", netns.to_str().expect("ASCII")],
        // A directory, but of no cgroup.
        ["/tmp", netns.to_str().expect("ASCII")],
        [cgroup.to_str().expect("ASCII"), "/run/netns/nonexistent"],
        // A file, but of no namespace.
        [cgroup.to_str().expect("ASCII"), "/etc/hostname"],
    ];
    let wrong = [
        "/sys/fs/cgroup/nonexistent",
        "/tmp",
        "/run/netns/nonexistent",
        "/etc/hostname",
    ];
    for ([cgroup, netns], wrong) in cases.into_iter().zip(wrong) {
        let command = pod
            .program(sidecar::binary())
            .args(["run", "--bpffs"])
            .arg(pod.bpffs());
        let output = command.args(["--cgroup", cgroup, "--netns", netns]).run();
        output.assert_one_sentence(&[wrong]);
        pod.assert_nothing_left();
    }
}

#[test]
fn a_setting_can_come_from_a_file() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let settings = "
        outbound: strict
        overrides:
        - direction: outbound
          port: 8080
          mode: off
    ";
    let file = pods.client.sandbox().file("sidecar.yaml", settings);
    let dev_ca = pods.dev_ca();
    pods.client.mesh(
        &dev_ca,
        &["--config", file.to_str().expect("the name is ASCII")],
    );
    pods.client.wait_until_ready();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
    assert_eq!(pods.client.sidecar().kernel_events("outbound_off"), 1);
    // What the file leaves out keeps its default, what a flag says wins.
    pods.client.stop_sidecar();
    let flags = [
        "--config",
        file.to_str().expect("the name is ASCII"),
        "--outbound",
        "off",
    ];
    pods.client.mesh(&dev_ca, &flags);
    pods.client.wait_until_ready();
    assert_eq!(pods.client.converse(pods.server.v4(), 9, ""), "refused");
    assert_eq!(pods.client.sidecar().kernel_events("outbound_off"), 1);
}

#[test]
fn a_setting_can_come_from_the_environment() {
    let pods = Pods::plain();
    let output = run(&pods.client, "run")
        .env("SIDECAR_OUTBOUND", "stern")
        .run();
    output.assert_one_sentence(&["stern"]);
    let output = run(&pods.client, "run")
        .env("SIDECAR_EXCLUDE_INBOUND_PORTS", "80,x")
        .run();
    output.assert_one_sentence(&["x"]);
    pods.client.assert_nothing_left();
}

/// `sidecar run` or `check` of a pod.
fn run<'a>(pod: &'a Pod, command: &str) -> Program<'a> {
    let sandbox = pod.sandbox();
    let run = pod.sidecar_command(command);
    let run = run.arg("--cgroup").arg(sandbox.cgroup().path());
    run.arg("--netns").arg(sandbox.namespace().path())
}
