//! The command line: what people type first, and what it says when they mistype.

use std::{fs, os::unix::fs::PermissionsExt as _};

use serde_json::Value;
use sidecar_tests::{App, Behaviour, Output, Pod, Pods, Program, servers, sidecar, svid::Ca};

/// An authority in the directory of the pod, where commands start.
const DEV_CA: [&str; 2] = ["--dev-ca", "dev-ca"];

#[test]
fn exec_meshes_one_command() {
    let pods = Pods::server_meshed(&[]);
    let _nginx = servers::nginx(&pods.server, 80, "violet rhinoceros");
    let capture = pods.server.capture();
    let url = format!("http://{}/", pods.server.v4());
    let page = exec(&pods).args(["--", "curl", "-sS", &url]).succeed();
    assert_eq!(page, "violet rhinoceros");
    let connection = pods.server.sidecar().only_connection("inbound");
    assert_eq!(
        (&*connection.tls, connection.peer),
        ("mutual", Some(pods.client.identity()))
    );
    capture
        .finish()
        .assert_encrypted(&["violet rhinoceros", "GET /"]);
    assert_nothing_left(&pods.client);
}

#[test]
fn exec_meshes_a_server_too() {
    let pods = Pods::server_meshed(&[]);
    let command = ["--", "/usr/bin/python3", "-m", "http.server", "8080"];
    let mut server = exec(&pods).args(command).start();
    server.wait_for_listener(8080);
    let url = format!("http://{}:8080/", pods.client.v4());
    let capture = pods.server.capture();
    pods.server.program("curl").args(["-sS", &url]).succeed();
    let connection = pods.server.sidecar().only_connection("outbound");
    assert_eq!(connection.tls, "mutual");
    capture
        .finish()
        .assert_encrypted(&["GET /", "Directory listing"]);
}

#[test]
fn exec_exits_with_the_commands_code() {
    let pods = Pods::plain();
    let output = exec(&pods).args(["--", "sh", "-c", "exit 7"]).run().code(7);
    assert_eq!(output.stdout, "");
    assert_nothing_left(&pods.client);
}

#[test]
fn exec_says_which_command_it_did_not_find() {
    let pods = Pods::plain();
    let output = exec(&pods).args(["--", "no-such-command"]).run();
    assert_one_sentence(&output, &["no-such-command"]);
    assert_nothing_left(&pods.client);
}

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
    assert_nothing_left(&pods.client);
}

#[test]
fn a_user_without_capabilities_is_told_so() {
    let pods = Pods::plain();
    let output = run(&pods.client, "run").args(DEV_CA).user("nobody").run();
    assert_one_sentence(&output, &["CAP_"]);
    assert_nothing_left(&pods.client);
}

#[test]
fn wrong_input_is_named_and_nothing_is_attached() {
    let pods = Pods::plain();
    let pod = &pods.client;
    let file = |name: &str, content: &str| {
        pod.sandbox()
            .file(name, content)
            .to_str()
            .expect("ASCII")
            .to_owned()
    };
    let unknown_key = file("unknown.yaml", "outbond: strict\n");
    let bad_mode = file("mode.yaml", "outbound: stern\n");
    let no_yaml = file("no.yaml", "outbound: [strict\n");
    let garbage = file("garbage.pem", "not a certificate\n");
    let ca = Ca::new(pod, "sidecar.local");
    let one = ca.issue("spiffe://sidecar.local/one", "1h");
    let two = ca.issue("spiffe://sidecar.local/two", "1h");
    let [certificate, key, bundle, other_key] = [&one.certificate, &one.key, &one.bundle, &two.key]
        .map(|path| path.to_str().expect("ASCII"));

    // The arguments, and what the message has to name.
    let cases: &[(&[&str], &[&str])] = &[
        (&["--config", "/nonexistent.yaml"], &["/nonexistent.yaml"]),
        (&["--config", &unknown_key], &["outbond", "unknown.yaml"]),
        (&["--config", &bad_mode], &["stern", "strict"]),
        (&["--config", &no_yaml], &["no.yaml"]),
        (&["--outbound", "stern"], &["stern", "strict"]),
        (&["--outbond", "strict"], &["--outbond", "--outbound"]),
        (
            &["--exclude-outbound-cidrs", "10.0.0.0/33"],
            &["10.0.0.0/33"],
        ),
        (&["--exclude-outbound-ports", "65536"], &["65536"]),
        (
            &["--override", "outbound,port=80"],
            &["outbound,port=80", "mode"],
        ),
        (&["--override", "sideways,mode=off"], &["sideways"]),
        (&["--connect-timeout", "soon"], &["soon"]),
        (&["--identity", "https://example"], &["https://example"]),
        (&["--admin", "localhost"], &["localhost"]),
        (&["--certificate", certificate], &["--key"]),
        (
            &[
                "--certificate",
                "/no.pem",
                "--key",
                key,
                "--trust-bundle",
                bundle,
            ],
            &["/no.pem"],
        ),
        (
            &[
                "--certificate",
                &garbage,
                "--key",
                key,
                "--trust-bundle",
                bundle,
            ],
            &["garbage.pem"],
        ),
        (
            &[
                "--certificate",
                certificate,
                "--key",
                other_key,
                "--trust-bundle",
                bundle,
            ],
            &["svid_key.pem"],
        ),
        (
            &[
                "--certificate",
                certificate,
                "--key",
                &garbage,
                "--trust-bundle",
                bundle,
            ],
            &["garbage.pem"],
        ),
        (
            &[
                "--certificate",
                certificate,
                "--key",
                key,
                "--trust-bundle",
                &garbage,
            ],
            &["garbage.pem"],
        ),
    ];
    for (arguments, named) in cases {
        let output = run(pod, "run").args(*arguments).run();
        assert_one_sentence(&output, named);
        assert_nothing_left(pod);
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
        assert_one_sentence(&output, &[wrong]);
        assert_nothing_left(pod);
    }
}

#[test]
fn every_setting_can_come_from_a_file_or_the_environment() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let file = pods.client.sandbox().file(
        "sidecar.yaml",
        "outbound: strict\n\
         exclude-outbound-ports: [8080]\n\
         overrides:\n\
         - direction: inbound\n  \
           port: 22\n  \
           mode: off\n",
    );
    let dev_ca = pods.dev_ca();
    let flags = ["--config", file.to_str().expect("ASCII")];
    pods.client.mesh(&dev_ca, &flags);
    pods.client.wait_until_ready();
    let snippet = "print(read_line(dial(sys.argv[1], 8080)))";
    let address = pods.server.v4().to_string();
    pods.client.snippet(snippet).arg(&address).succeed();
    assert_eq!(
        pods.client
            .sidecar()
            .kernel_events("outbound_excluded_port"),
        1
    );
    pods.client.stop_sidecar();

    let exec = exec(&pods)
        .env("SIDECAR_OUTBOUND", "stern")
        .args(["--", "true"])
        .run();
    assert_one_sentence(&exec, &["stern"]);
}

#[test]
fn certificates_from_files_work_and_keys_are_private() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let (client, server) = {
        let ca = Ca::new(&pods.server, "sidecar.local");
        (
            ca.issue(&pods.client.identity(), "24h"),
            ca.issue(&pods.server.identity(), "24h"),
        )
    };
    for svid in [&client, &server] {
        let mode = fs::metadata(&svid.key)
            .expect("the key is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    pods.client.mesh_with(&client.flags());
    pods.server.mesh_with(&server.flags());
    let snippet = "print(read_line(dial(sys.argv[1], 8080)))";
    pods.client
        .snippet(snippet)
        .arg(pods.server.v4().to_string())
        .succeed();
    pods.mutual_connection(8080);
}

#[test]
fn keys_are_never_logged() {
    let pods = Pods::meshed_with(&["--log", "trace"], &["--log", "trace"]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let snippet = "print(read_line(dial(sys.argv[1], 8080)))";
    pods.client
        .snippet(snippet)
        .arg(pods.server.v4().to_string())
        .succeed();
    pods.mutual_connection(8080);
    for pod in [&pods.client, &pods.server] {
        let log = pod.sidecar().log();
        assert!(
            !log.contains("PRIVATE KEY") && !log.contains("Secret("),
            "{log}"
        );
    }
}

/// `sidecar exec` in the client pod, with the identity and the authority of the other pods.
fn exec(pods: &Pods) -> Program<'_> {
    let exec = pods
        .client
        .sidecar_command("exec")
        .arg("--dev-ca")
        .arg(pods.dev_ca());
    exec.args([
        "--identity",
        &pods.client.identity(),
        "--access-log",
        "off",
        "--log",
        "warn",
    ])
}

/// `sidecar run` or `check` of a pod.
fn run<'a>(pod: &'a Pod, command: &str) -> Program<'a> {
    let sandbox = pod.sandbox();
    let run = pod.sidecar_command(command);
    let run = run.arg("--cgroup").arg(sandbox.cgroup().path());
    run.arg("--netns").arg(sandbox.namespace().path())
}

/// Checks that a command has failed with one sentence on standard error that names all of `named`.
#[track_caller]
fn assert_one_sentence(output: &Output, named: &[&str]) {
    /// Of the parser of the command line, which adds a tip and the usage.
    const USAGE: i32 = 2;
    let code = output.status.code().expect("an exit code");
    assert_ne!(code, 0, "{output}");
    assert!(!output.stderr.contains("panicked"), "{output}");
    assert!(
        code == USAGE || output.stderr.lines().count() == 1,
        "{output}"
    );
    for name in named {
        assert!(
            output.stderr.contains(name),
            "{name:?} is not named: {output}"
        );
    }
}

/// Checks that nothing is pinned for a pod, that its rules are as before, and that no cgroup has
/// been left below it.
#[track_caller]
fn assert_nothing_left(pod: &Pod) {
    assert_eq!(pod.pins(), Vec::<std::path::PathBuf>::new());
    pod.assert_rules_untouched();
    let app = pod.sandbox().cgroup().path().join("app");
    let below = fs::read_dir(app).expect("listing a cgroup").flatten();
    assert_eq!(below.filter(|entry| entry.path().is_dir()).count(), 0);
}
