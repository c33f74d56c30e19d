//! What sidecars have pinned.

use std::path::{Path, PathBuf};

use super::{Context, Outcome, beside, cgroup};
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
        Ok(pinned) => of_the_dead(&pinned),
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
    if let Some(program) = beside::sidecar(context) {
        return Outcome::fail(
            format!(
                "another sidecar has attached {program}, and its pins are not where ours would be"
            ),
            "stop that one first, or name the cgroup and the BPF file system that it was given",
        );
    }
    match serving(context) {
        None => Outcome::PASS,
        Some(pid) => Outcome::warn(
            format!("process {pid} serves the pod already; a second one takes over"),
            format!("stop process {pid} first, unless you mean to replace it"),
        ),
    }
}

/// The process that serves the pod already, as it sees itself.
pub(super) fn serving(context: &Context) -> Option<u32> {
    let config = context.config()?;
    let cgroup = cgroup::of_pod(config).ok()?;
    let pins = Pins::of(&config.bpffs, &cgroup);
    let is_served = pins.are_served().unwrap_or(false);
    last_served(&pins).filter(|_| is_served)
}

/// What is pinned for one pod.
struct Pinned {
    /// Where it is.
    path: PathBuf,
    /// Process id of the sidecar that served last, as it saw itself, if one has and we may know.
    last: Option<u32>,
    /// Does a sidecar serve the pod?
    is_served: bool,
}

fn pinned(config: &Config) -> Result<Vec<Pinned>, Error> {
    let pods = Pins::all(&config.bpffs)?;
    Ok(pods.iter().map(Pinned::of).collect())
}

impl Pinned {
    fn of(pins: &Pins) -> Self {
        Self {
            path: pins.directory().to_owned(),
            last: last_served(pins),
            // Whoever may not know does not say that it is dead.
            is_served: pins.are_served().unwrap_or(true),
        }
    }
}

fn of_the_dead(pinned: &[Pinned]) -> Outcome {
    let mut dead = pinned.iter().filter(|pod| !pod.is_served);
    match dead.find_map(|pod| Some((pod.last?, &pod.path))) {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::fixture::Fixture;

    /// What process 7 has served by.
    fn pinned(is_served: bool) -> Pinned {
        Pinned {
            path: "/sys/fs/bpf/sidecar/7".into(),
            last: Some(7),
            is_served,
        }
    }

    #[test]
    fn what_a_dead_sidecar_left_is_named() {
        let Outcome::Warn { reason, .. } = of_the_dead(&[pinned(true), pinned(false)]) else {
            panic!("a dead sidecar passes");
        };
        assert!(reason.contains("process 7 is gone"), "{reason}");
    }

    #[test]
    fn what_a_living_sidecar_holds_is_no_left_over() {
        assert_eq!(of_the_dead(&[pinned(true)]), Outcome::PASS);
    }

    #[test]
    fn what_nobody_has_served_yet_is_no_left_over() {
        let pinned = Pinned {
            last: None,
            ..pinned(false)
        };
        assert_eq!(of_the_dead(&[pinned]), Outcome::PASS);
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
