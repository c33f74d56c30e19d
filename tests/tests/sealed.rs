//! What cannot be taken back before the next boot. It runs in emulated machines, after all others.

use std::fs;

use sidecar_tests::{
    App, Behaviour, Check, Pod, Pods, SECRET, kernel,
    svid::{Ca, Svid},
};

/// Whether `bpf()` is kept from whoever has no capability: 0 is no, 2 is yes, and 1 is yes for good.
const SYSCTL: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

/// The user that the sidecar runs as.
const USER: u32 = 4195;

const ROOT: u32 = 0;

/// What makes a program that user, with no capability and no way to get one.
const NO_CAPABILITIES: [&str; 7] = [
    "--reuid=4195",
    "--regid=4195",
    "--clear-groups",
    "--inh-caps=-all",
    "--ambient-caps=-all",
    "--bounding-set=-all",
    "--no-new-privs",
];

/// The claim of `sidecar check` that is about all this.
const CLAIM: &str = "the kernel lets a proxy without capabilities use its maps";

#[test]
#[ignore = "changes what is the whole machine's: cargo xtask vm runs it"]
fn a_sidecar_without_capabilities_serves_or_is_refused_by_kernel_and_sysctl_and_check_says_the_same()
 {
    let is_new = kernel::release() >= (5, 19);
    let mut pods = Pods::plain();
    let ca = Ca::new(&pods.client, "example.org");
    let client = ca.issue("spiffe://example.org/client", "1h");
    let server = ca.issue("spiffe://example.org/server", "1h");
    pods.client.mesh_with(&client.flags());
    let _app = App::start(&pods.server, Behaviour::Echo, 8080);
    // In this order: the last can be reached from the others, and left for none.
    for disabled in ["2", "0", "1"] {
        fs::write(SYSCTL, disabled).expect("setting the sysctl");
        initialize(&pods, &server, USER);
        if is_new || disabled == "0" {
            assert_serves_without_capabilities(&mut pods, &server);
        } else {
            assert_refused_without_capabilities(&pods, &server);
        }
        clean_up(&pods);
        // With privileges it serves under each, and keeps the one that it cannot do without.
        initialize(&pods, &server, ROOT);
        let kept = if is_new { 0 } else { 1 << CAP_BPF };
        assert_serves_with_privileges(&mut pods, &server, kept);
        clean_up(&pods);
    }
}

/// Bit of the capability.
const CAP_BPF: u32 = 39;

/// Has the server wait for a sidecar of this user.
#[track_caller]
fn initialize(pods: &Pods, svid: &Svid, user: u32) {
    svid.give_to(user);
    let init = pods.server.sidecar_init(&[]);
    init.args(["--uid", &user.to_string()]).succeed();
}

#[track_caller]
fn clean_up(pods: &Pods) {
    pods.server.sidecar_command("cleanup").succeed();
    assert!(pods.server.pins().is_empty());
}

#[track_caller]
fn assert_serves_without_capabilities(pods: &mut Pods, svid: &Svid) {
    let check = pods.server.sidecar_check_confined(&NO_CAPABILITIES);
    let check = Check::of(check.args(svid.flags()));
    check.assert_found(CLAIM, "");
    assert!(check.success, "{check:#?}");
    pods.server.mesh_confined(&NO_CAPABILITIES, &svid.flags());
    assert_eq!(capabilities(&pods.server), 0);
    assert_talk_encrypted(pods);
    pods.server.stop_sidecar_of_init();
}

#[track_caller]
fn assert_refused_without_capabilities(pods: &Pods, svid: &Svid) {
    const WAYS_OUT: [&str; 3] = [
        "5.19",
        "kernel.unprivileged_bpf_disabled=0",
        "CAP_BPF and CAP_NET_ADMIN",
    ];
    let pins = pods.server.pins();
    let run = pods.server.sidecar_run_confined(&NO_CAPABILITIES);
    let run = run.args(svid.flags()).run();
    run.assert_one_sentence(&WAYS_OUT);
    let check = pods.server.sidecar_check_confined(&NO_CAPABILITIES);
    let check = Check::of(check.args(svid.flags()));
    check.assert_fails(CLAIM, &WAYS_OUT);
    // As `init` has left it: closed.
    assert_eq!(pods.server.pins(), pins);
    let capture = pods.client.capture();
    assert_ne!(pods.client.converse(pods.server.v4(), 8080, SECRET), SECRET);
    assert!(!capture.finish().contains(SECRET));
}

#[track_caller]
fn assert_serves_with_privileges(pods: &mut Pods, svid: &Svid, kept: u64) {
    pods.server.mesh_with(&svid.flags());
    assert_eq!(capabilities(&pods.server), kept);
    assert_talk_encrypted(pods);
    pods.server.stop_sidecar_of_init();
}

#[track_caller]
fn assert_talk_encrypted(pods: &Pods) {
    let capture = pods.client.capture();
    for address in [
        pods.server.v4().into(),
        std::net::IpAddr::V6(pods.server.v6()),
    ] {
        assert_eq!(pods.client.converse(address, 8080, SECRET), SECRET);
    }
    capture.finish().assert_encrypted(&[SECRET]);
}

/// Effective capabilities of a pod's sidecar, a bit each.
fn capabilities(pod: &Pod) -> u64 {
    let status = format!("/proc/{}/status", pod.sidecar().id());
    let status = fs::read_to_string(status).expect("the sidecar runs");
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.expect("the kernel tells").trim();
    u64::from_str_radix(mask, 16).expect("a mask")
}
