//! Programs from crates.io that the project is built or checked with.

use std::{path::PathBuf, process::Command};

use anyhow::Context as _;

use crate::{
    command::{ask, cargo, run},
    workspace,
};

/// A program that a crate of the same name brings.
pub struct Tool {
    pub name: &'static str,
    /// Only this version counts: another could find other faults, or make another object.
    pub version: &'static str,
}

impl Tool {
    /// The project's own, else the one on `PATH`.
    pub fn find(&self) -> Option<PathBuf> {
        let own = directory().join("bin").join(self.name);
        let wanted = format!("{} {}", self.name, self.version);
        [own, PathBuf::from(self.name)]
            .into_iter()
            .find(|program| ask(Command::new(program).arg("--version")).as_ref() == Some(&wanted))
    }

    /// Builds it into the target directory, by a `cargo install` with what `prepare` adds.
    pub fn install(&self, prepare: impl FnOnce(&mut Command)) -> anyhow::Result<PathBuf> {
        let mut command = cargo();
        command
            .args(["install", self.name, "--version", self.version, "--locked"])
            .arg("--root")
            .arg(directory());
        prepare(&mut command);
        run(&mut command)?;
        self.find()
            .with_context(|| format!("{} was built but does not start", self.name))
    }
}

fn directory() -> PathBuf {
    workspace::target().join("tools")
}
