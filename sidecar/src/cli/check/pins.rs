//! What sidecars have pinned.

use std::path::Path;

use super::{Context, Outcome, cgroup};
use crate::bpf::pins::{self, Generation};

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
    let generations = match pins::all(&config.bpffs) {
        Ok(generations) => generations,
        Err(error) => return Outcome::error(&error),
    };
    let mut generations = generations.iter();
    match generations.find(|generation| !is_alive(context, generation)) {
        None => Outcome::PASS,
        Some(dead) => Outcome::warn(
            format!(
                "process {} is gone, and what it pinned at {} refuses the connections of its pod",
                dead.pid,
                dead.path.display()
            ),
            "start its sidecar again, which takes over, or remove the pins: sidecar cleanup",
        ),
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
    let generations = pins::all(&config.bpffs).ok()?;
    generations
        .into_iter()
        .find(|generation| generation.cgroup == cgroup.id() && is_alive(context, generation))
        .map(|generation| generation.pid)
}

/// Is a BPF file system mounted at `path`?
pub(super) fn is_mounted(context: &Context, path: &Path) -> bool {
    let mounts = context.read("/proc/self/mounts").unwrap_or_default();
    mounts.lines().any(|line| {
        let mut fields = line.split(' ').skip(1);
        fields.next().map(Path::new) == Some(path) && fields.next() == Some("bpf")
    })
}

/// Does the daemon still run?
fn is_alive(context: &Context, generation: &Generation) -> bool {
    context.path(format!("/proc/{}", generation.pid)).exists()
}

#[cfg(test)]
mod tests {
    use std::{fs, process};

    use super::*;
    use crate::cli::check::fixture::Fixture;

    /// A machine on which these processes have pinned something and `alive` still runs.
    fn pinned_by(pids: &[u32], alive: u32) -> (tempfile::TempDir, Fixture) {
        let bpffs = tempfile::tempdir().expect("a temporary directory");
        for pid in pids {
            let links = bpffs.path().join(format!("sidecar/7/{pid}/links"));
            fs::create_dir_all(links).expect("a writable directory");
        }
        let fixture = Fixture::with(&[(&format!("proc/{alive}/comm"), "sidecar")])
            .set(&format!("bpffs: {}", bpffs.path().display()));
        (bpffs, fixture)
    }

    #[test]
    fn what_a_dead_sidecar_left_is_named() {
        let own = process::id();
        let (_bpffs, fixture) = pinned_by(&[own, own + 1], own);
        let Outcome::Warn { reason, .. } = left_over(&fixture) else {
            panic!("a dead sidecar passes");
        };
        assert!(
            reason.contains(&format!("process {} is gone", own + 1)),
            "{reason}"
        );
    }

    #[test]
    fn what_a_living_sidecar_holds_is_no_left_over() {
        let (_bpffs, fixture) = pinned_by(&[process::id()], process::id());
        assert_eq!(left_over(&fixture), Outcome::PASS);
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
