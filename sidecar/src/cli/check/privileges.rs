//! What we may do.

use super::{Context, Outcome, pins};

/// A capability: its bit and its name (capabilities(7)).
#[derive(Clone, Copy)]
struct Capability(u32, &'static str);

const NET_ADMIN: Capability = Capability(12, "CAP_NET_ADMIN");
const SYS_ADMIN: Capability = Capability(21, "CAP_SYS_ADMIN");
const BPF: Capability = Capability(39, "CAP_BPF");

/// How many connections should fit.
const CONNECTIONS: u64 = 10_000;
/// Descriptors that a proxied connection takes: towards the app, and towards the network.
const PER_CONNECTION: u64 = 2;

pub(super) fn user_namespace(context: &Context) -> Outcome {
    let map = context.read("/proc/self/uid_map").unwrap_or_default();
    // The first namespace maps every user to itself; no other may.
    if map.split_whitespace().eq(["0", "0", "4294967295"]) {
        return Outcome::PASS;
    }
    Outcome::fail(
        "we are in a user namespace, and bpf() asks for capabilities outside of it",
        "run the sidecar outside; in Kubernetes, without `hostUsers: false`",
    )
}

pub(super) fn bpf(context: &Context) -> Outcome {
    held_or_done(context, BPF, "to load programs and maps")
}

pub(super) fn net_admin(context: &Context) -> Outcome {
    held_or_done(
        context,
        NET_ADMIN,
        "to load and attach programs that steer connections",
    )
}

pub(super) fn sys_admin(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    if config.netns.is_some() {
        return held(context, SYS_ADMIN, "to enter the pod's network namespace");
    }
    if !pins::is_mounted(context, &config.bpffs) {
        return held(context, SYS_ADMIN, "to mount a BPF file system");
    }
    Outcome::found("it is not needed")
}

pub(super) fn open_files(context: &Context) -> Outcome {
    let needed = CONNECTIONS * PER_CONNECTION;
    match hard_limit(context) {
        Some(limit) if limit >= needed => Outcome::found(limit.to_string()),
        Some(limit) => Outcome::warn(
            format!(
                "{limit} files may be open, enough for {} connections at a time",
                limit / PER_CONNECTION
            ),
            "raise the hard limit: LimitNOFILE= in a systemd unit, `ulimit -Hn` in a shell",
        ),
        None => Outcome::PASS,
    }
}

/// Do we hold what the use of maps takes on kernels that ask for it?
pub(super) fn may_use_maps(context: &Context) -> bool {
    effective(context) & (1 << BPF.0 | 1 << SYS_ADMIN.0) != 0
}

/// Is the capability effective, or what it is needed for done by `sidecar init`?
fn held_or_done(context: &Context, capability: Capability, purpose: &str) -> Outcome {
    match held(context, capability, purpose) {
        Outcome::Fail { .. } if pins::may_be_used(context) => Outcome::found(pins::AFTER_INIT),
        outcome => outcome,
    }
}

/// Is the capability effective, by itself or as a part of `CAP_SYS_ADMIN`?
fn held(context: &Context, Capability(bit, name): Capability, purpose: &str) -> Outcome {
    let effective = effective(context);
    if effective & (1 << bit) != 0 {
        return Outcome::PASS;
    }
    // The kernel takes it for either of the others where bpf() is concerned.
    if effective & (1 << SYS_ADMIN.0) != 0 {
        return Outcome::found("as a part of CAP_SYS_ADMIN");
    }
    Outcome::fail(
        format!("{name} is missing; it is needed {purpose}"),
        format!("run the sidecar as root, or give it {name} (AmbientCapabilities= in systemd)"),
    )
}

/// Effective capabilities, a bit each.
fn effective(context: &Context) -> u64 {
    let status = context.read("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or_default()
}

/// The hard limit of open files, to which `sidecar run` raises the soft one.
fn hard_limit(context: &Context) -> Option<u64> {
    let limits = context.read("/proc/self/limits")?;
    let line = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))?;
    match line.split_whitespace().nth(1)? {
        "unlimited" => Some(u64::MAX),
        limit => limit.parse().ok(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::fixture::Fixture;

    fn with_capabilities(mask: &str) -> Fixture {
        let status = format!("Name:\tsidecar\nCapPrm:\t0000000000000000\nCapEff:\t{mask}\n");
        Fixture::with(&[
            ("proc/self/status", &status),
            ("proc/self/mounts", "bpf /sys/fs/bpf bpf rw 0 0\n"),
        ])
    }

    #[test]
    fn two_capabilities_are_enough() {
        // CAP_BPF is bit 39, CAP_NET_ADMIN is bit 12.
        let context = with_capabilities("0000008000001000");
        assert_eq!(bpf(&context), Outcome::PASS);
        assert_eq!(net_admin(&context), Outcome::PASS);
        assert_eq!(sys_admin(&context), Outcome::found("it is not needed"));
    }

    #[test]
    fn the_missing_one_is_named() {
        let context = with_capabilities("0000000000001000");
        assert_eq!(
            bpf(&context),
            Outcome::fail(
                "CAP_BPF is missing; it is needed to load programs and maps",
                "run the sidecar as root, or give it CAP_BPF (AmbientCapabilities= in systemd)"
            )
        );
        assert_eq!(net_admin(&context), Outcome::PASS);
    }

    #[test]
    fn sys_admin_stands_for_both() {
        let context = with_capabilities("0000000000200000");
        for check in [bpf, net_admin] {
            assert_eq!(
                check(&context),
                Outcome::found("as a part of CAP_SYS_ADMIN")
            );
        }
    }

    #[test]
    fn sys_admin_is_needed_where_something_is_mounted_or_entered() {
        let two = "0000008000001000";
        for settings in ["bpffs: /nowhere", "netns: /run/netns/shop"] {
            let fixture = with_capabilities(two).set(settings);
            assert!(
                matches!(sys_admin(&fixture), Outcome::Fail { .. }),
                "{settings}"
            );
        }
    }

    #[test]
    fn capabilities_of_a_user_namespace_do_not_count() {
        let mapped = |map| Fixture::with(&[("proc/self/uid_map", map)]);
        assert_eq!(
            user_namespace(&mapped("         0          0 4294967295\n")),
            Outcome::PASS
        );
        for map in ["         0     100000      65536\n", ""] {
            assert!(matches!(user_namespace(&mapped(map)), Outcome::Fail { .. }));
        }
    }

    #[test]
    fn the_hard_limit_of_open_files_counts() {
        let limited = |limits: &str| {
            Fixture::with(&[(
                "proc/self/limits",
                &format!("Limit  Soft Limit  Hard Limit  Units\nMax open files  {limits}  files\n"),
            )])
        };
        assert_eq!(
            open_files(&limited("1024  524288")),
            Outcome::found("524288")
        );
        assert!(matches!(
            open_files(&limited("1024  unlimited")),
            Outcome::Pass { .. }
        ));
        let Outcome::Warn { reason, .. } = open_files(&limited("1024  4096")) else {
            panic!("4096 passes");
        };
        assert_eq!(
            reason,
            "4096 files may be open, enough for 2048 connections at a time"
        );
    }
}
