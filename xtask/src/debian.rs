//! Debian packages.

use std::{path::Path, process::Command};

use anyhow::{Context as _, bail};

use crate::command::run;

/// Whether [`install`] has a chance here.
pub fn can_install() -> bool {
    Path::new("/etc/debian_version").exists() && nix::unistd::geteuid().is_root()
}

/// Installs `packages`.
///
/// # Errors
/// Where it cannot (no Debian, no root, no network), the error says what to install.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    let wanted = packages.join(" ");
    if !can_install() {
        bail!(
            "something is missing that only root can install, on Debian with `apt-get install {wanted}`"
        );
    }
    run(apt_get().arg("update").arg("--quiet=2"))
        .and_then(|()| {
            run(apt_get()
                .args(["install", "--yes", "--no-install-recommends", "--quiet=2"])
                .args(packages))
        })
        .with_context(|| format!("cannot install the Debian packages {wanted}"))
}

fn apt_get() -> Command {
    let mut command = Command::new("apt-get");
    command
        .env("DEBIAN_FRONTEND", "noninteractive")
        // Packages of servers start them at once, except in single-user mode.
        .env("RUNLEVEL", "1");
    command
}
