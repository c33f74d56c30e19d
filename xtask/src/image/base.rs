//! The image that the build takes place in.

use std::{fs, path::Path, process::Command};

use anyhow::Context as _;

use super::{directory, engine::Engine};
use crate::{command::run, debian};

/// The one that the `Dockerfile` names.
pub const DEBIAN: &str = "docker.io/library/debian:bookworm-slim";

/// The release of Debian.
pub const RELEASE: &str = "bookworm";

/// The one that is made here.
const OWN: &str = "localhost/sidecar-base:bookworm";

/// Where debootstrap and apt get packages, signed by Debian.
const MIRROR: &str = "http://deb.debian.org";

/// Debian's own image, or one with the same in it, made of Debian's packages.
pub fn find(engine: &Engine) -> anyhow::Result<String> {
    if engine.has(DEBIAN) || engine.pull(DEBIAN) {
        return Ok(DEBIAN.to_owned());
    }
    if engine.has(OWN) {
        return Ok(OWN.to_owned());
    }
    make(engine).with_context(|| format!("cannot pull {DEBIAN}, nor make one like it"))?;
    Ok(OWN.to_owned())
}

fn make(engine: &Engine) -> anyhow::Result<()> {
    if !Path::new("/usr/sbin/debootstrap").exists() {
        debian::install(&["debootstrap"])?;
    }
    let root = directory()?.join("base");
    let archive = directory()?.join("base.tar");
    if root.exists() {
        fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    }
    let debian = format!("{MIRROR}/debian");
    run(Command::new("/usr/sbin/debootstrap")
        .args(["--variant=minbase", RELEASE])
        .arg(&root)
        .arg(&debian))?;
    // The compiler of both sides comes by Debian's security updates.
    let sources = format!(
        "deb {debian} {RELEASE} main\ndeb {debian} {RELEASE}-updates main\n\
         deb {MIRROR}/debian-security {RELEASE}-security main\n"
    );
    fs::write(root.join("etc/apt/sources.list"), sources).context("cannot write sources.list")?;
    run(Command::new("tar")
        .arg("--directory")
        .arg(&root)
        .arg("--file")
        .arg(&archive)
        .args(["--create", "."]))?;
    engine.import(&archive, OWN)?;
    fs::remove_dir_all(&root).with_context(|| format!("cannot remove {}", root.display()))?;
    fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
}
