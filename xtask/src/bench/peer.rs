//! A peer that is installed, and its processes in the pods.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use sidecar_tests::{Pod, Process, cgroup::Container};

use super::{
    adapter::{Adapter, Side, fill},
    credentials::{Files, NAME},
};
use crate::{
    command::{run, step},
    python, setup, workspace,
};

/// A proxy to compare the sidecar with, ready to run.
pub struct Peer {
    pub adapter: Adapter,
    /// Where its program is.
    pub program: PathBuf,
}

impl Peer {
    /// Installs what is missing of it.
    pub fn install(adapter: Adapter) -> anyhow::Result<Self> {
        let packages: Vec<_> = adapter
            .debian
            .iter()
            .map(|(path, package)| (path.as_str(), package.as_str()))
            .collect();
        setup::programs(&packages)?;
        let program = match &adapter.pypi {
            Some(package) => from_pypi(package)?.join(&adapter.program),
            None => adapter.program.clone(),
        };
        ensure!(program.exists(), "there is no {}", program.display());
        Ok(Self { adapter, program })
    }

    /// Starts the side that takes plaintext in the client's pod.
    pub fn client(
        &self,
        pod: &Pod,
        files: &Files,
        [listen, upstream]: [SocketAddr; 2],
    ) -> anyhow::Result<Process> {
        self.start(&self.adapter.client, pod, files, [listen, upstream])
    }

    /// Starts the side that ends TLS in the server's pod.
    pub fn server(
        &self,
        pod: &Pod,
        files: &Files,
        [listen, upstream]: [SocketAddr; 2],
    ) -> anyhow::Result<Process> {
        self.start(&self.adapter.server, pod, files, [listen, upstream])
    }

    /// Starts a process where a sidecar would be, so that its processor time counts as a sidecar's.
    fn start(
        &self,
        side: &Side,
        pod: &Pod,
        files: &Files,
        [listen, upstream]: [SocketAddr; 2],
    ) -> anyhow::Result<Process> {
        let port = listen.port();
        let directory = pod.sandbox().directory().join(format!("peer-{port}"));
        let configuration = directory.join(&self.adapter.file);
        let path = |path: &Path| path.display().to_string();
        let values = BTreeMap::from([
            ("listen", listen.to_string()),
            ("listen_host", listen.ip().to_string()),
            ("listen_port", port.to_string()),
            ("upstream", upstream.to_string()),
            ("upstream_host", upstream.ip().to_string()),
            ("upstream_port", upstream.port().to_string()),
            ("certificate", path(&files.certificate)),
            ("key", path(&files.key)),
            ("bundle", path(&files.bundle)),
            ("ca", path(&files.ca)),
            ("name", NAME.to_owned()),
            ("directory", path(&directory)),
            ("configuration", path(&configuration)),
        ]);
        fs::create_dir_all(&directory)
            .and_then(|()| fs::write(&configuration, fill(&side.configuration, &values)))
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        Ok(pod
            .program(&self.program)
            .container(Container::Sidecar)
            .args(side.run.iter().map(|argument| fill(argument, &values)))
            .listen(port))
    }
}

/// Installs a package into the target directory, unless it is there; returns its directory.
fn from_pypi(package: &str) -> anyhow::Result<PathBuf> {
    let directory = workspace::target().join("tools/peers").join(package);
    // Written last, so that half a package is installed anew.
    let done = directory.join("done");
    if !done.exists() {
        python::install()?;
        step(&format!("install {package}"), || {
            let mut pip = Command::new(workspace::target().join("tools/python/bin/pip"));
            pip.args(["--disable-pip-version-check", "--quiet", "install"])
                .args(["--only-binary=:all:", "--no-deps", "--upgrade", "--target"])
                .arg(&directory)
                .arg(package);
            run(&mut pip)?;
            fs::write(&done, "").with_context(|| format!("cannot write {}", done.display()))
        })?;
    }
    Ok(directory)
}
