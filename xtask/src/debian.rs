//! Debian packages.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::{self, Command},
};

use anyhow::{Context as _, bail};

use crate::command::run;

/// Whether [`install`] has a chance here.
pub fn can_install() -> bool {
    Path::new("/etc/debian_version").exists() && nix::unistd::geteuid().is_root()
}

/// Installs `packages`, and starts none of the servers among them.
///
/// # Errors
/// Where it cannot (no Debian, no root, no network), the error says what to install.
pub fn install(packages: &[&str]) -> anyhow::Result<()> {
    let wanted = packages.join(" ");
    if !can_install() {
        bail!(
            "something is missing that only root can install, on Debian with \
             `apt-get install {wanted}`"
        );
    }
    apt_get(packages).with_context(|| format!("cannot install the Debian packages {wanted}"))
}

fn apt_get(packages: &[&str]) -> anyhow::Result<()> {
    let _policy = StartNothing::by(Path::new("/usr/sbin/policy-rc.d"))?;
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    run(apt_get().args(["update", "--quiet=2"]))?;
    run(apt_get()
        .args(["install", "--yes", "--no-install-recommends", "--quiet=2"])
        .args(packages))
}

/// Has the packages' own scripts start no service as long as it lives.
struct StartNothing(Option<PathBuf>);

impl StartNothing {
    /// Writes the program that those scripts ask for permission, if the machine has none. Should we
    /// be killed, what stays behind permits everything.
    fn by(path: &Path) -> io::Result<Self> {
        const FORBIDDEN: u8 = 101;
        let pid = process::id();
        let script = format!("#!/bin/sh\nkill -0 {pid} 2>/dev/null && exit {FORBIDDEN}\nexit 0\n");
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o755)
            .open(path);
        match file {
            Ok(mut file) => {
                file.write_all(script.as_bytes())?;
                Ok(Self(Some(path.to_owned())))
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(Self(None)),
            Err(error) => Err(error),
        }
    }
}

impl Drop for StartNothing {
    fn drop(&mut self) {
        if let Some(path) = &self.0
            && let Err(error) = fs::remove_file(path)
        {
            eprintln!("‼ cannot remove {}: {error}", path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(path: &Path) -> Option<i32> {
        let asked = Command::new("sh")
            .arg(path)
            .args(["nginx", "start"])
            .status();
        asked.expect("sh starts").code()
    }

    #[test]
    fn services_are_forbidden_to_start_until_the_installation_is_over() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("policy-rc.d");

        let policy = StartNothing::by(&path).expect("the directory is writable");
        assert_eq!(answer(&path), Some(101));
        drop(policy);
        assert!(!path.exists());
    }

    #[test]
    fn the_machines_own_policy_stays() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("policy-rc.d");
        fs::write(&path, "exit 104").expect("writable");

        drop(StartNothing::by(&path).expect("there is a policy already"));
        assert_eq!(answer(&path), Some(104));
    }
}
