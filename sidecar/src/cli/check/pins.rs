//! What sidecars have pinned.

use std::path::{Path, PathBuf};

use super::{Context, Outcome, cgroup};
use crate::{
    bpf::{Error, Pins, status::last_served},
    config::Config,
};

/// Why something is not needed.
pub(super) const AFTER_INIT: &str = "it is not needed after `sidecar init`";

pub(super) fn file_system(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    let path = &config.bpffs;
    if is_mounted(context, path) {
        return Outcome::found(path.to_string_lossy());
    }
    let known = context.read("/proc/filesystems").unwrap_or_default();
    if known.split_whitespace().any(|name| name == "bpf") {
        return Outcome::found(format!(
            "not yet; `sidecar run` mounts it at {}",
            path.display()
        ));
    }
    Outcome::fail(
        "the kernel has no BPF file system to pin programs to",
        "use a kernel built with CONFIG_BPF_SYSCALL",
    )
}

pub(super) fn left_over(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    match pinned(config) {
        Ok(pinned) => of_the_dead(context, &pinned),
        // Whoever was handed one pod's maps may not look at others.
        Err(_) if may_be_used(context) => Outcome::PASS,
        Err(error) => Outcome::error(&error),
    }
}

pub(super) fn rival(context: &Context) -> Outcome {
    if context
        .config()
        .map(cgroup::of_pod)
        .is_none_or(|cgroup| cgroup.is_err())
    {
        return Outcome::Skip {
            reason: "the pod's cgroup cannot be opened",
        };
    }
    match serving(context) {
        None => Outcome::PASS,
        Some(pid) => Outcome::warn(
            format!("process {pid} serves the pod already; a second one takes over"),
            format!("stop process {pid} first, unless you mean to replace it"),
        ),
    }
}

/// The process that serves the pod already.
pub(super) fn serving(context: &Context) -> Option<u32> {
    let config = context.config()?;
    let cgroup = cgroup::of_pod(config).ok()?;
    let pinned = pinned(config).ok()?;
    serving_of(context, &pinned, cgroup.id())
}

/// What is pinned for one pod.
struct Pinned {
    /// Id of the pod's cgroup.
    cgroup: u64,
    /// Where it is.
    path: PathBuf,
    /// Process id of the sidecar that served last, if one has and we may know.
    served_by: Option<u32>,
}

fn pinned(config: &Config) -> Result<Vec<Pinned>, Error> {
    let pods = Pins::all(&config.bpffs)?;
    Ok(pods
        .into_iter()
        .map(|pins| Pinned {
            cgroup: pins.cgroup(),
            path: pins.directory().to_owned(),
            served_by: last_served(&pins),
        })
        .collect())
}

fn of_the_dead(context: &Context, pinned: &[Pinned]) -> Outcome {
    let dead = pinned.iter().find_map(|pod| {
        let pid = pod.served_by.filter(|pid| !is_alive(context, *pid))?;
        Some((pid, &pod.path))
    });
    match dead {
        None => Outcome::PASS,
        Some((pid, path)) => Outcome::warn(
            format!(
                "process {pid} is gone, and what it served by, at {}, refuses the connections of its pod",
                path.display()
            ),
            "start its sidecar again, which takes over, or remove the pins: sidecar cleanup",
        ),
    }
}

fn serving_of(context: &Context, pinned: &[Pinned], cgroup: u64) -> Option<u32> {
    pinned
        .iter()
        .filter(|pod| pod.cgroup == cgroup)
        .find_map(|pod| pod.served_by.filter(|pid| is_alive(context, *pid)))
}

/// May we serve the pod by what `sidecar init` has pinned?
pub(super) fn may_be_used(context: &Context) -> bool {
    context.config().is_some_and(|config| {
        cgroup::of_pod(config).is_ok_and(|cgroup| Pins::of(&config.bpffs, &cgroup).may_be_used())
    })
}

/// Is a BPF file system mounted at `path`?
pub(super) fn is_mounted(context: &Context, path: &Path) -> bool {
    let mounts = context.read("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().map(Path::new) == Some(path) && fields.next() == Some("bpf")
    })
}

/// Does the process still run?
fn is_alive(context: &Context, pid: u32) -> bool {
    context.path(format!("/proc/{pid}")).exists()
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;
    use crate::cli::check::fixture::Fixture;

    /// What these processes have served by, and a machine on which only this one still runs.
    fn pinned_by(pids: &[u32]) -> (Vec<Pinned>, Fixture) {
        let pinned = pids
            .iter()
            .map(|pid| Pinned {
                cgroup: 7,
                path: "/sys/fs/bpf/sidecar/7".into(),
                served_by: Some(*pid),
            })
            .collect();
        let fixture = Fixture::with(&[(&format!("proc/{}/comm", process::id()), "sidecar")]);
        (pinned, fixture)
    }

    #[test]
    fn what_a_dead_sidecar_left_is_named() {
        let own = process::id();
        let (pinned, fixture) = pinned_by(&[own, own + 1]);
        let Outcome::Warn { reason, .. } = of_the_dead(&fixture, &pinned) else {
            panic!("a dead sidecar passes");
        };
        assert!(
            reason.contains(&format!("process {} is gone", own + 1)),
            "{reason}"
        );
    }

    #[test]
    fn what_a_living_sidecar_holds_is_no_left_over() {
        let (pinned, fixture) = pinned_by(&[process::id()]);
        assert_eq!(of_the_dead(&fixture, &pinned), Outcome::PASS);
    }

    #[test]
    fn a_living_sidecar_serves_its_own_pod_alone() {
        let (pinned, fixture) = pinned_by(&[process::id()]);
        assert_eq!(serving_of(&fixture, &pinned, 7), Some(process::id()));
        assert_eq!(serving_of(&fixture, &pinned, 8), None);
    }

    #[test]
    fn a_file_system_that_the_kernel_knows_can_be_mounted() {
        let mounted = Fixture::with(&[("proc/self/mounts", "bpf /sys/fs/bpf bpf rw 0 0\n")]);
        assert_eq!(file_system(&mounted), Outcome::found("/sys/fs/bpf"));
        let known = Fixture::with(&[("proc/filesystems", "nodev\tsysfs\nnodev\tbpf\n")]);
        assert!(matches!(file_system(&known), Outcome::Pass { .. }));
        let unknown = Fixture::with(&[("proc/filesystems", "nodev\tsysfs\n")]);
        assert!(matches!(file_system(&unknown), Outcome::Fail { .. }));
    }
}
