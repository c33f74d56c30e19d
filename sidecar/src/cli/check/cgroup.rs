//! The cgroup whose sockets are steered.

use super::{Context, Outcome, kernel};
use crate::{
    bpf::probe::Release,
    config::Config,
    pod::{Cgroup, CgroupError, cgroup2_mount},
};

/// The first kernel on which a version 1 controller leaves the version 2 cgroup of a socket alone.
const UNHIDDEN: Release = Release(5, 15);

pub(super) fn mounted(_: &Context) -> Outcome {
    match cgroup2_mount() {
        Ok(mount) => Outcome::found(mount.to_string_lossy()),
        Err(error) => Outcome::error(&error),
    }
}

pub(super) fn hybrid(context: &Context) -> Outcome {
    // One field of a socket held its cgroup of either version, whichever was written last.
    let old = kernel::release(context).is_some_and(|(_, release)| release < UNHIDDEN);
    match socket_controller(context) {
        Some(controller) if old => Outcome::warn(
            format!(
                "the version 1 controller {controller} is mounted, and before Linux 5.15 a \
                 process in one of its groups has sockets that version 2 does not see"
            ),
            "boot with cgroup_no_v1=net_cls,net_prio, or a newer kernel",
        ),
        _ => Outcome::PASS,
    }
}

pub(super) fn usable(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    match (of_pod(config), &config.cgroup) {
        (Ok(cgroup), _) => Outcome::found(cgroup.to_string()),
        (Err(CgroupError::Root(_)), None) => Outcome::warn(
            "no cgroup is named, and `sidecar run` cannot take the one it is in",
            "name the pod's cgroup with --cgroup; `sidecar exec` makes one of its own",
        ),
        (Err(error), _) => Outcome::error(&error),
    }
}

pub(super) fn holds_us(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    let (Some(pod), Ok(own)) = (&config.cgroup, Cgroup::of_this_process()) else {
        return Outcome::PASS;
    };
    // Not by their paths: the tree may be mounted more than once.
    let ids = Cgroup::open(pod)
        .ok()
        .and_then(|pod| pod.subtree_ids().ok());
    if own.path().starts_with(pod) || ids.is_some_and(|ids| ids.contains(&own.id())) {
        return Outcome::PASS;
    }
    Outcome::warn(
        format!(
            "this process is in {own}, and the kernel side sees only sockets of the pod's cgroup"
        ),
        format!(
            "start `sidecar run` in a child of it: \
             mkdir -p {pod}/sidecar && echo $$ > {pod}/sidecar/cgroup.procs",
            pod = pod.display()
        ),
    )
}

/// The cgroup that is named, or else found.
pub(super) fn of_pod(config: &Config) -> Result<Cgroup, CgroupError> {
    Cgroup::open_or_find(config.cgroup.as_deref())
}

/// A mounted version 1 controller that marks sockets.
fn socket_controller(context: &Context) -> Option<&'static str> {
    let mounts = context.read("/proc/self/mounts")?;
    let mut options = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ').skip(2);
        (fields.next()? == "cgroup").then_some(fields.next()?)
    });
    options.find_map(|options| {
        let mut options = options.split(',');
        options.find_map(|option| {
            ["net_cls", "net_prio"]
                .into_iter()
                .find(|controller| *controller == option)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{cli::check::fixture::Fixture, pod::own_cgroup};

    const HYBRID: &str = "cgroup /sys/fs/cgroup/net cgroup rw,nosuid,net_cls,net_prio 0 0\n\
                          cgroup2 /sys/fs/cgroup/unified cgroup2 rw,nosuid 0 0\n";
    const PURE: &str = "cgroup2 /sys/fs/cgroup cgroup2 rw,nosuid 0 0\n";

    fn machine(release: &str, mounts: &str) -> Fixture {
        Fixture::with(&[
            ("proc/sys/kernel/osrelease", release),
            ("proc/self/mounts", mounts),
        ])
    }

    #[test]
    fn version_1_hides_sockets_on_old_kernels_only() {
        let Outcome::Warn { reason, .. } = hybrid(&machine("5.10.262", HYBRID)) else {
            panic!("a hybrid hierarchy passes on 5.10");
        };
        assert!(reason.contains("net_cls"), "{reason}");
        assert_eq!(hybrid(&machine("5.15.0", HYBRID)), Outcome::PASS);
        assert_eq!(hybrid(&machine("5.10.262", PURE)), Outcome::PASS);
    }

    #[test]
    fn a_process_outside_the_pods_cgroup_is_told_how_to_get_in() {
        let own = own_cgroup().expect("cgroup v2");
        let inside = Fixture::with(&[]).set(&format!("cgroup: {}", own.display()));
        assert_eq!(holds_us(&inside), Outcome::PASS);
        let outside = Fixture::with(&[]).set("cgroup: /nonexistent");
        let Outcome::Warn { hint, .. } = holds_us(&outside) else {
            panic!("a process outside passes");
        };
        assert!(hint.contains("/nonexistent/sidecar/cgroup.procs"), "{hint}");
    }

    #[test]
    fn a_cgroup_that_is_not_there_is_an_obstacle() {
        let fixture = Fixture::with(&[]).set("cgroup: /nonexistent");
        assert!(matches!(usable(&fixture), Outcome::Fail { .. }));
    }
}
