//! What the other tests rely on, tried without a sidecar.

use std::{fs, panic, path::Path};

use sidecar_tests::{Pods, Process, Program, SECRET, cgroup};

#[test]
fn plain_pods_talk_plaintext_and_the_capture_sees_it() {
    let pods = Pods::plain();
    let _server = serve_words(&pods);
    let capture = pods.client.capture();
    assert_eq!(fetch_words(&pods).succeed(), SECRET);
    let wire = capture.finish();
    wire.assert_plaintext(&[SECRET, "GET /words.txt"]);
    let stream = wire.only_stream();
    assert_eq!(stream.client.ip(), pods.client.v4());
    assert_eq!(stream.server, (pods.server.v4(), 8080).into());
    assert_eq!(
        (stream.offers.as_slice(), stream.answers.as_slice()),
        (&[false][..], &[false][..])
    );
    assert!(panic::catch_unwind(|| wire.assert_encrypted(&[])).is_err());
    assert!(panic::catch_unwind(|| wire.assert_encrypted(&["rhinoceros"])).is_err());
}

#[test]
fn a_capture_takes_ipv6_apart_too() {
    let pods = Pods::plain();
    let _server = serve_words(&pods);
    let capture = pods.server.capture();
    let url = format!("http://[{}]:8080/words.txt", pods.server.v6());
    pods.client.program("curl").args(["-sS", &url]).succeed();
    let wire = capture.finish();
    assert_eq!(wire.only_stream().client.ip(), pods.client.v6());
    assert!(wire.contains(SECRET));
}

#[test]
fn a_panic_leaves_neither_process_nor_cgroup_nor_namespace_nor_file() {
    let mut traces = Vec::new();
    let panicked = panic::catch_unwind(panic::AssertUnwindSafe(|| {
        let pods = Pods::plain();
        let server = serve_words(&pods);
        // Not a child that the guard would reap: a grandchild, in a session of its own.
        let sleeper = Program::new(pods.client.sandbox(), "setsid").args(["-f", "sleep", "1000"]);
        sleeper.succeed();
        for sandbox in [
            pods.client.sandbox(),
            pods.server.sandbox(),
            pods.network.sandbox(),
        ] {
            traces.push(sandbox.namespace().path());
            traces.push(sandbox.cgroup().path().to_owned());
            traces.push(sandbox.directory().to_owned());
        }
        let sleepers = pods
            .client
            .sandbox()
            .cgroup()
            .processes(cgroup::Container::App);
        assert_eq!(sleepers.len(), 1);
        // The link to what it executes goes when a process dies, even if nobody reaps it.
        let executable = |pid: u32| Path::new("/proc").join(pid.to_string()).join("exe");
        traces.extend(sleepers.into_iter().map(executable));
        traces.push(executable(server.id()));
        panic!("on purpose");
    }));
    panicked.expect_err("it panics on purpose");
    assert_eq!(traces.len(), 11);
    for trace in traces {
        assert!(fs::metadata(&trace).is_err(), "{} is left", trace.display());
    }
}

fn serve_words(pods: &Pods) -> Process {
    let directory = pods.server.sandbox().directory();
    fs::write(directory.join("words.txt"), SECRET).expect("writing a page");
    let server = pods.server.program("/usr/bin/python3");
    server
        .args(["-u", "-m", "http.server", "--bind", "::", "8080"])
        .listen(8080)
}

fn fetch_words(pods: &Pods) -> Program<'_> {
    let url = format!("http://{}:8080/words.txt", pods.server.v4());
    pods.client.program("curl").args(["-sS", &url])
}
