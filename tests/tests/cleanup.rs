//! The end of the sidecar itself, and what it leaves: nothing.
//!
//! That packet filters and routing rules stay untouched, that the exit code is 0 and that no pin
//! stays is checked at the end of every test with a meshed pod (see [`sidecar_tests::Pod`]).

use std::{fs, os::unix::fs::symlink, path::PathBuf};

use nix::sys::signal::Signal;
use serde_json::Value;
use sidecar_tests::{
    App, Behaviour, Pod, Pods, Process, SECRET, app::GREETING, cgroup::Container,
    namespace::Namespace, sidecar, wait,
};

/// Reads a greeting, waits for a line on a pipe, has that echoed, and waits for the end.
const CONVERSE: &str = r"
sock = dial(sys.argv[1], 8080)
print(read_line(sock))
with open(sys.argv[2]) as pipe:
    line = pipe.read()
if line:
    sock.sendall(line.encode())
    print(read_line(sock))
    sock.close()
else:
    print(ending(sock))
";

#[test]
fn after_the_sidecar_has_stopped_pods_talk_as_before_it_came() {
    let mut pods = Pods::meshed();
    let app = App::start(&pods.server, Behaviour::Echo, 8080);
    for pod in [&mut pods.client, &mut pods.server] {
        pod.assert_rules_untouched();
        pod.stop_sidecar();
    }
    let capture = pods.client.capture();
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    let wire = capture.finish();
    wire.assert_plaintext(&[SECRET]);
    assert!(!wire.only_stream().offers[0]);
    assert_eq!(
        app.only_session().peer.ip().to_canonical(),
        pods.client.v4()
    );
}

#[test]
fn connections_that_are_open_may_end_by_themselves() {
    let mut pods = Pods::meshed_with(&["--drain-timeout", "30s"], &["--drain-timeout", "30s"]);
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    let (client, pipe) = converse(&pods);
    for pod in [&pods.client, &pods.server] {
        pod.sidecar().signal(Signal::SIGTERM);
    }
    fs::write(pipe, format!("{SECRET}\n")).expect("writing to the pipe");
    assert!(client.wait().success().stdout.contains(SECRET));
    assert_eq!(app.only_session().end, "eof");
    let (outbound, inbound) = pods.mutual_connection(8080);
    assert_eq!((&*outbound.close, &*inbound.close), ("eof", "eof"));
    for pod in [&mut pods.client, &mut pods.server] {
        pod.wait_for_sidecar();
    }
}

#[test]
fn connections_that_stay_open_are_cut_after_the_drain_timeout() {
    let mut pods = Pods::meshed_with(&["--drain-timeout", "200ms"], &[]);
    let _app = App::start(&pods.server, Behaviour::Greet, 8080);
    let (client, pipe) = converse(&pods);
    pods.client.sidecar().signal(Signal::SIGINT);
    let connection = pods.client.sidecar().only_connection("outbound");
    assert_eq!(connection.close, "drained");
    pods.client.wait_for_sidecar();
    fs::write(pipe, "").expect("writing to the pipe");
    let output = client.wait().success();
    assert!(output.stdout.ends_with("reset\n"), "{output}");
}

#[test]
fn status_lists_what_is_loaded_until_it_is_gone() {
    let mut pods = Pods::server_meshed(&[]);
    let status = |pods: &Pods| pods.server.sidecar_command("status").succeed();
    for name in ["sc_connect4", "sc_sk_lookup", "sc_sock_ops"] {
        assert!(status(&pods).contains(name), "{name}: {}", status(&pods));
    }
    let json = pods.server.sidecar_command("status").args(["-o", "json"]);
    let json: Value = json.facts();
    assert!(json.to_string().contains("sc_sk_lookup"), "{json}");
    pods.server.stop_sidecar();
    assert!(!status(&pods).contains("sc_"), "{}", status(&pods));
}

#[test]
fn a_sidecar_can_come_and_go() {
    let mut pods = Pods::plain();
    let dev_ca = pods.dev_ca();
    let app = App::start(&pods.server, Behaviour::Greet, 8080);
    for turn in 1..=3 {
        pods.server.mesh(&dev_ca, &[]);
        pods.server.wait_until_ready();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
        pods.server.sidecar().only_connection("inbound");
        pods.server.stop_sidecar();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, ""), GREETING);
        app.sessions_when(2 * turn);
    }
}

#[test]
fn cleanup_removes_what_is_left_of_a_vanished_cgroup() {
    let pods = Pods::plain();
    let pod = &pods.server;
    let cgroup = pod.sandbox().cgroup().path().join("vanishing");
    fs::create_dir(&cgroup).expect("root may make cgroups");
    let run = pod
        .program("sh")
        .args(["-c", "echo 0 > $0/cgroup.procs; exec \"$@\""])
        .arg(&cgroup)
        .arg(sidecar::binary());
    let mut run = run.args(["run", "--cgroup"]).arg(&cgroup);
    run = run
        .arg("--bpffs")
        .arg(pod.bpffs())
        .arg("--dev-ca")
        .arg(pods.dev_ca());
    let mut run = run.start();
    run.wait_for_stderr("captured cgroup");
    drop(run);
    fs::remove_dir(&cgroup).expect("nothing is in it any more");
    assert_ne!(pod.pins().len(), 0);
    let status = pod.sidecar_command("status").succeed();
    assert!(
        status.contains("sc_connect4") && status.contains("not running"),
        "{status}"
    );
    pod.sidecar_command("cleanup").succeed();
    pod.assert_nothing_left();
}

#[test]
fn a_vanished_network_namespace_keeps_nobody_from_starting_or_cleaning_up() {
    let mut pods = Pods::plain();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let gone = format!("{}-gone", pods.server.sandbox().name());
    for turn in 1..=2 {
        let namespace = Namespace::new(&gone);
        let pod = &pods.server;
        let run = pod
            .program(sidecar::binary())
            .container(Container::Sidecar)
            .outside();
        let run = run
            .arg("run")
            .arg("--cgroup")
            .arg(pod.sandbox().cgroup().path());
        let run = run.arg("--netns").arg(namespace.path());
        let run = run
            .arg("--bpffs")
            .arg(pod.bpffs())
            .arg("--dev-ca")
            .arg(pods.dev_ca());
        let mut run = run.start();
        run.wait_for_stderr("captured cgroup");
        drop(run);
        if turn == 1 {
            drop(namespace);
        }
        // In the pod's own: once after the other is gone, once while it is there.
        let dev_ca = pods.dev_ca();
        pods.server.mesh(&dev_ca, &[]);
        pods.server.wait_until_ready();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
        pods.server.sidecar().only_connection("inbound");
        pods.server.kill_sidecar();
        pods.server.sidecar_command("cleanup").succeed();
        pods.server.assert_nothing_left();
    }
}

#[test]
fn a_half_finished_attachment_is_repaired_by_a_start_and_removed_by_cleanup() {
    // What an attachment that was killed has left: a link, several, no link, not all maps.
    let halves: [&[&str]; 4] = [
        &["sc_connect6"],
        &["sc_connect4", "sc_connect6", "sc_sk_lookup"],
        &["sc_sock_ops"],
        &["SC_ABI", "SC_OWNER", "SC_FLOWS"],
    ];
    for half in halves {
        let mut pods = Pods::server_meshed(&[]);
        let _app = App::start(&pods.server, Behaviour::Echo, 8080);
        pods.server.kill_sidecar();
        let whole = pods.server.pins().len();
        remove_pins(&pods.server, half);
        pods.server.sidecar_command("status").succeed();
        let dev_ca = pods.dev_ca();
        pods.server.mesh(&dev_ca, &[]);
        pods.server.wait_until_ready();
        assert_eq!(
            pods.server.pins().len(),
            whole,
            "{half:?}: {:?}",
            pods.server.pins()
        );
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
        pods.server.sidecar().only_connection("inbound");
        pods.server.kill_sidecar();
        remove_pins(&pods.server, half);
        pods.server.sidecar_command("cleanup").succeed();
        pods.server.assert_nothing_left();
        assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    }
}

#[test]
fn what_earlier_versions_have_pinned_is_replaced_by_a_start_and_removed_by_cleanup() {
    let mut pods = Pods::server_meshed(&[]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let dev_ca = pods.dev_ca();
    for clean_up in [false, true] {
        if !pods.server.is_meshed() {
            pods.server.mesh(&dev_ca, &[]);
            pods.server.wait_until_ready();
        }
        pods.server.kill_sidecar();
        // Their layout was one directory deeper, named by the process.
        let pins = pods.server.pins();
        let pod = pins[0]
            .ancestors()
            .nth(2)
            .expect("links and maps are in a directory");
        let earlier = pod.join("4711");
        fs::create_dir(&earlier).expect("root may make directories");
        for name in ["links", "maps"] {
            fs::rename(pod.join(name), earlier.join(name)).expect("root may move directories");
        }
        if clean_up {
            pods.server.sidecar_command("cleanup").succeed();
            pods.server.assert_nothing_left();
        } else {
            assert_eq!(
                pods.client.converse(pods.server.v4(), 8080, SECRET),
                "refused"
            );
            let status = pods.server.sidecar_command("status").succeed();
            assert!(status.contains("4711"), "{status}");
            pods.server.mesh(&dev_ca, &[]);
            pods.server.wait_until_ready();
            assert!(!earlier.exists());
            assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
            pods.server.sidecar().only_connection("inbound");
        }
    }
}

#[test]
fn cleanup_goes_on_past_what_it_cannot_remove_and_names_it() {
    let mut pods = Pods::server_meshed(&[]);
    pods.server.kill_sidecar();
    let busy = pods.server.bpffs().join("sidecar/busy");
    fs::create_dir(&busy).expect("root may make directories");
    // Nobody removes a directory on which something is mounted.
    let mount = |arguments: &[&str]| {
        let program = pods.server.program(arguments[0]).args(&arguments[1..]);
        program.arg(&busy).succeed()
    };
    // In the machine's own mount namespace, as the harness is.
    mount(&["mount", "-t", "tmpfs", "tmpfs"]);
    let output = pods.server.sidecar_command("cleanup").run();
    mount(&["umount"]);
    let _ = output.code(1);
    assert_eq!(pods.server.pins(), Vec::<PathBuf>::new());
    pods.server.sidecar_command("cleanup").succeed();
    assert!(!pods.server.bpffs().join("sidecar").exists());
    // There is nothing left to do, which is no failure.
    pods.server.sidecar_command("cleanup").succeed();
}

#[test]
fn cleanup_detaches_nothing_that_a_symbolic_link_leads_to() {
    let pods = Pods::client_meshed(&[]);
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    let pins = pods.client.pins();
    let link = pins.iter().find(|path| path.ends_with("sc_connect4"));
    // Whoever is to lock a directory may make something in it.
    let lock = pods.server.bpffs().join("sidecar/7/lock");
    fs::create_dir_all(&lock).expect("root may make directories");
    symlink(link.expect("it is pinned"), lock.join("sc_connect4")).expect("root may make links");
    pods.server.sidecar_command("cleanup").succeed();
    pods.server.assert_nothing_left();
    assert_eq!(pods.client.pins(), pins);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.client.sidecar().only_connection("outbound");
}

#[test]
fn cleanup_without_privileges_says_so_and_leaves_everything() {
    let mut pods = Pods::server_meshed(&[]);
    let before = pods.server.pins();
    let output = pods.server.sidecar_command("cleanup").user("nobody").run();
    output.assert_one_sentence(&["/sidecar", "root"]);
    assert_eq!(pods.server.pins(), before);
    pods.server.stop_sidecar();
}

#[test]
fn a_sidecar_whose_pins_are_removed_finishes_and_leaves_those_of_the_next() {
    let mut pods = Pods::meshed();
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    pods.server.sidecar_command("cleanup").succeed();
    let removed = "what was pinned has been removed";
    pods.server.sidecar().logs(&[removed]);
    let dev_ca = pods.dev_ca();
    let old = pods.server.upgrade(&dev_ca, &[]);
    // It ends by itself, and what the next one has pinned stays.
    old.wait_for_exit();
    assert_ne!(pods.server.pins().len(), 0);
    assert_eq!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    pods.server.wait_until_ready();
    pods.server.sidecar().only_connection("inbound");
}

/// Removes pins by their names.
fn remove_pins(pod: &Pod, names: &[&str]) {
    for pin in pod.pins() {
        if names.iter().any(|name| pin.ends_with(name)) {
            fs::remove_file(pin).expect("root may remove pins");
        }
    }
}

/// Starts a conversation that waits in its middle, and returns the pipe by which it is continued.
fn converse(pods: &Pods) -> (Process, PathBuf) {
    let pipe = pods.client.sandbox().directory().join("pipe");
    pods.client.program("mkfifo").arg(&pipe).succeed();
    let client = pods
        .client
        .snippet(CONVERSE)
        .arg(pods.server.v4().to_string())
        .arg(&pipe);
    let mut client = client.start();
    client.wait_for_stdout(GREETING);
    wait::until("the connection is listed", || {
        pods.client.sidecar().get("/connections").contains(":8080")
    });
    (client, pipe)
}
