//! What a sidecar that serves may do: nothing that carrying connections does not take.

use std::{collections::BTreeMap, fs, path::PathBuf};

use sidecar_tests::{App, Behaviour, Pod, Pods, SECRET, Sidecar, wait};

#[test]
fn every_thread_of_a_proxy_at_work_is_without_privileges() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);
    for pod in [&pods.client, &pods.server] {
        let threads = threads(pod.sidecar());
        // At least one worker beside the main thread, and the two that write logs.
        assert!(threads.len() >= 4, "{threads:#?}");
        for status in threads {
            for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
                assert_eq!(status[set], "0000000000000000", "{set}: {status:#?}");
            }
            assert_eq!(status["NoNewPrivs"], "1", "{status:#?}");
            assert_eq!(status["Seccomp"], "2", "a filter: {status:#?}");
        }
    }
}

#[test]
fn a_sidecar_that_cannot_be_confined_takes_over_from_nobody() {
    let pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let dev_ca = pods.dev_ca();
    let start = |pod: &Pod| {
        let run = pod.sidecar_run_unfiltered().arg("--dev-ca").arg(&dev_ca);
        let refused = run.args(["--identity", &pod.identity()]).run().code(1);
        refused.assert_one_sentence(&["cannot filter system calls", "CONFIG_SECCOMP_FILTER"]);
    };
    start(&pods.server);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.mutual_connection(8080);

    let plain = Pods::plain();
    let _app = App::start(&plain.server, Behaviour::Echo, 8080);
    start(&plain.server);
    assert_eq!(plain.server.pins(), [] as [PathBuf; 0]);
    let said = plain.client.converse(plain.server.v4(), 8080, SECRET);
    assert_eq!(said, SECRET);
}

#[test]
fn what_confines_a_proxy_is_logged() {
    let pods = Pods::server_meshed(&[]);
    let log = pods.server.sidecar().log();
    let (_, line) = log.split_once("confined: ").expect("a line in the log");
    for what in [
        "no capabilities",
        "no new privileges",
        "system calls",
        "Landlock",
    ] {
        assert!(line.contains(what), "{what} is missing: {log}");
    }
}

#[test]
fn an_app_of_the_proxys_own_user_cannot_read_its_memory() {
    let pods = Pods::server_meshed(&[]);
    // Root, as the proxy is, without the capability to look into other processes.
    let powerless = || {
        let setpriv = pods.server.program("/usr/bin/setpriv");
        setpriv.args(["--bounding-set", "-all"])
    };
    let read = |id: u32| powerless().args(["cat", &format!("/proc/{id}/maps")]).run();
    let other = powerless().args(["sleep", "60"]).start();
    wait::until("the powerless can look at each other", || {
        read(other.id()).stdout.contains("sleep")
    });
    let output = read(pods.server.sidecar().id()).code(1);
    assert!(output.stderr.contains("Permission denied"), "{output}");
}

/// What `/proc` says of each thread of a sidecar.
fn threads(sidecar: &Sidecar) -> Vec<BTreeMap<String, String>> {
    let tasks = fs::read_dir(format!("/proc/{}/task", sidecar.id())).expect("the sidecar runs");
    tasks
        .map(|task| {
            let path = task.expect("the sidecar runs").path().join("status");
            let status = fs::read_to_string(path).expect("threads last as long as the sidecar");
            status
                .lines()
                .filter_map(|line| line.split_once(":\t"))
                .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
                .collect()
        })
        .collect()
}
