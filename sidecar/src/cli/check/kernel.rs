//! What the kernel can do.

use super::{Context, Outcome, pins, privileges};
use crate::{
    bpf::{
        self,
        probe::{self, Kind, Release},
    },
    sandbox::{Landlock, Sandbox},
};

/// The first with everything the kernel side uses.
const FLOOR: Release = Release(5, 10);

const UNPRIVILEGED_BPF: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

const BPF_HINT: &str = "use a kernel built with CONFIG_BPF_SYSCALL, CONFIG_CGROUP_BPF and \
                        CONFIG_INET";

const REFUSED_HINT: &str =
    "put the privileges above right first; then look for a policy that forbids bpf()";

pub(super) fn floor(context: &Context) -> Outcome {
    const HINT: &str = "boot a newer kernel; 5.15 or newer is a good choice";
    match release(context) {
        Some((text, release)) if release >= FLOOR => Outcome::found(text),
        Some((text, _)) => Outcome::fail(
            format!("this is {text}, which lacks what the kernel side uses"),
            HINT,
        ),
        None => Outcome::fail("/proc/sys/kernel/osrelease does not tell a release", HINT),
    }
}

pub(super) fn unprivileged_proxy(context: &Context) -> Outcome {
    let release = release(context).map(|(_, release)| release);
    match context.read(UNPRIVILEGED_BPF).as_deref() {
        _ if release.is_some_and(|release| release >= Release::UNPRIVILEGED) => Outcome::PASS,
        Some("0") => Outcome::found("kernel.unprivileged_bpf_disabled is 0"),
        _ if !privileges::may_use_maps(context) => Outcome::fail(
            "before Linux 5.19 whoever uses a map needs CAP_BPF, and we do not have it",
            "boot Linux 5.19 or newer, or set sysctl kernel.unprivileged_bpf_disabled=0, or run \
             the sidecar with CAP_BPF and CAP_NET_ADMIN",
        ),
        _ => Outcome::warn(
            "before Linux 5.19 whoever uses a map needs CAP_BPF, so the proxy has to keep it",
            "nothing now; plan for a newer kernel",
        ),
    }
}

pub(super) fn side(_: &Context) -> Outcome {
    match probe::is_embedded() {
        Ok(()) => Outcome::PASS,
        Err(error) => Outcome::error(&error),
    }
}

pub(super) fn sock_addr(context: &Context) -> Outcome {
    loadable(context, Kind::CgroupSockAddr)
}

pub(super) fn sock_ops(context: &Context) -> Outcome {
    loadable(context, Kind::SockOps)
}

pub(super) fn sk_lookup(context: &Context) -> Outcome {
    loadable(context, Kind::SkLookup)
}

pub(super) fn cgroup_skb(context: &Context) -> Outcome {
    loadable(context, Kind::CgroupSkb)
}

pub(super) fn unprivileged_bpf(context: &Context) -> Outcome {
    match context.read(UNPRIVILEGED_BPF).as_deref() {
        Some("0") => Outcome::warn(
            "kernel.unprivileged_bpf_disabled is 0, so any user may load programs; \
             the sidecar does not need that",
            "sysctl -w kernel.unprivileged_bpf_disabled=2",
        ),
        Some(value) => Outcome::found(format!("kernel.unprivileged_bpf_disabled is {value}")),
        None => Outcome::PASS,
    }
}

pub(super) fn sandbox(_: &Context) -> Outcome {
    let confinement = Sandbox::default().try_on_a_thread();
    match confinement.map(|confinement| confinement.landlock) {
        Ok(Landlock::Missing) => Outcome::warn(
            "it has no Landlock, so file permissions alone tell which files the proxy may open",
            "boot Linux 5.13 or newer with `landlock` among its security modules (lsm=)",
        ),
        Ok(landlock) => Outcome::found(landlock.to_string()),
        Err(error) => Outcome::error(&error),
    }
}

pub(super) fn whole_side(context: &Context) -> Outcome {
    match probe::try_to_load() {
        Ok(()) => Outcome::PASS,
        Err(_) if pins::may_be_used(context) => Outcome::found(pins::AFTER_INIT),
        Err(bpf::Error::Load(source)) => {
            Outcome::fail(format!("it was refused: {source}"), REFUSED_HINT)
        }
        Err(bpf::Error::Program { program, source }) => Outcome::fail(
            format!("program {program} was refused: {source}"),
            REFUSED_HINT,
        ),
        Err(error) => Outcome::error(&error),
    }
}

/// Loads a program of this kind that does nothing.
fn loadable(context: &Context, kind: Kind) -> Outcome {
    match probe::is_supported(kind) {
        Ok(true) => Outcome::PASS,
        Err(_) if pins::may_be_used(context) => Outcome::found(pins::AFTER_INIT),
        Ok(false) => Outcome::fail(
            format!("the kernel does not know {kind} programs"),
            BPF_HINT,
        ),
        Err(error) => Outcome::fail(
            format!("a trial program of type {kind} was refused: {error}"),
            REFUSED_HINT,
        ),
    }
}

/// The release as the kernel writes it, and as numbers.
pub(super) fn release(context: &Context) -> Option<(String, Release)> {
    let text = context.read("/proc/sys/kernel/osrelease")?;
    let release = Release::parse(&text)?;
    Some((text, release))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::fixture::Fixture;

    fn on(release: &str) -> Fixture {
        Fixture::with(&[("proc/sys/kernel/osrelease", release)])
    }

    #[test]
    fn the_floor_is_5_10() {
        assert_eq!(
            floor(&on("5.10.262-cloud-amd64\n")),
            Outcome::found("5.10.262-cloud-amd64")
        );
        assert_eq!(floor(&on("6.18.44\n")), Outcome::found("6.18.44"));
        assert_eq!(floor(&on("10.0-rc1\n")), Outcome::found("10.0-rc1"));
        for old in ["5.9.16", "4.19.0-27-amd64"] {
            let Outcome::Fail { reason, .. } = floor(&on(old)) else {
                panic!("{old} passes");
            };
            assert!(reason.contains(old), "{reason}");
        }
    }

    #[test]
    fn an_unknown_release_is_an_obstacle() {
        for text in ["", "unknown", "6"] {
            assert!(matches!(floor(&on(text)), Outcome::Fail { .. }), "{text}");
        }
    }

    #[test]
    fn a_proxy_without_capabilities_takes_5_19() {
        const NONE: &str = "0000000000000000";
        assert_eq!(unprivileged_proxy(&on("5.19.0")), Outcome::PASS);
        let old = |capabilities: &str, bpf| {
            Fixture::with(&[
                ("proc/sys/kernel/osrelease", "5.18.19"),
                ("proc/sys/kernel/unprivileged_bpf_disabled", bpf),
                ("proc/self/status", &format!("CapEff:\t{capabilities}\n")),
            ])
        };
        // CAP_BPF; CAP_SYS_ADMIN, which includes it.
        for held in ["0000008000000000", "0000000000200000"] {
            assert!(matches!(
                unprivileged_proxy(&old(held, "2")),
                Outcome::Warn { .. }
            ));
        }
        for disabled in ["1", "2"] {
            assert!(matches!(
                unprivileged_proxy(&old(NONE, disabled)),
                Outcome::Fail { .. }
            ));
        }
        assert_eq!(
            unprivileged_proxy(&old(NONE, "0")),
            Outcome::found("kernel.unprivileged_bpf_disabled is 0")
        );
    }

    #[test]
    fn bpf_for_everybody_is_worth_a_word() {
        let set_to = |value| Fixture::with(&[("proc/sys/kernel/unprivileged_bpf_disabled", value)]);
        assert!(matches!(
            unprivileged_bpf(&set_to("0")),
            Outcome::Warn { .. }
        ));
        assert_eq!(
            unprivileged_bpf(&set_to("2")),
            Outcome::found("kernel.unprivileged_bpf_disabled is 2")
        );
    }
}
