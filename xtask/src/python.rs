//! Programs written in or packed for Python that the manifests are checked with: kubectl, which renders them, and
//! kubernetes-validate, which has the API's schemas.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    command::{run, step},
    debian, workspace,
};

/// Debian's, whatever else the machine has.
const PYTHON: &str = "/usr/bin/python3";

/// What makes environments, and the Debian package that brings it.
const VENV: (&str, &str) = ("/usr/lib/python3.11/ensurepip", "python3-venv");

/// Each package with its version, those that others need too: another version could find other
/// faults.
const REQUIREMENTS: &str = "xtask/requirements.txt";

/// Installs them into the target directory, unless they are there.
///
/// # Errors
/// Where it cannot, the error says what to install.
pub fn install() -> anyhow::Result<()> {
    let wanted = workspace::root().join(REQUIREMENTS);
    let wanted =
        fs::read_to_string(&wanted).with_context(|| format!("cannot read {REQUIREMENTS}"))?;
    let environment = directory();
    // Written last, so that half an environment is made anew.
    let done = environment.join("requirements.txt");
    if fs::read_to_string(&done).is_ok_and(|installed| installed == wanted) {
        return Ok(());
    }
    step("install the programs that check the manifests", || {
        if !Path::new(VENV.0).exists() {
            debian::install(&[VENV.1])?;
        }
        let mut make = Command::new(PYTHON);
        run(make.args(["-m", "venv", "--clear"]).arg(&environment))?;
        let mut pip = Command::new(environment.join("bin/pip"));
        pip.current_dir(workspace::root())
            .args(["--disable-pip-version-check", "--quiet", "install"])
            .args(["--only-binary=:all:", "--no-deps", "--requirement"])
            .arg(REQUIREMENTS);
        run(&mut pip)?;
        fs::write(&done, wanted).with_context(|| format!("cannot write {}", done.display()))
    })
}

/// Where `sidecar_tests::manifests` looks for them.
fn directory() -> PathBuf {
    workspace::target().join("tools/python")
}
