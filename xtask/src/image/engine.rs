//! What builds and runs images: podman or docker, which understand one command line.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};
use nix::sys::resource::{Resource, getrlimit};
use serde_json::Value;

use super::directory;
use crate::{
    command::{ask, run},
    debian,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    Podman,
    Docker,
}

/// A container engine that answers.
pub struct Engine {
    kind: Kind,
    /// Settings for this run alone.
    configuration: PathBuf,
}

/// What is to be built.
pub struct Build<'a> {
    /// The directory of the sources.
    pub context: &'a Path,
    pub tag: &'a str,
    pub base: &'a str,
    /// Where the sources are in the build, if not where the `Dockerfile` says.
    pub directory: Option<&'a str>,
    pub labels: &'a [(&'static str, String)],
    /// The time of all files, in seconds since 1970.
    pub time: u64,
}

impl Engine {
    /// The engine of this kind, else the first that is there, else podman, which is installed.
    pub fn find(kind: Option<Kind>) -> anyhow::Result<Self> {
        let configuration = directory()?.join("containers.conf");
        fs::write(&configuration, settings()?)
            .with_context(|| format!("cannot write {}", configuration.display()))?;
        let engine = |kind| Self {
            kind,
            configuration: configuration.clone(),
        };
        let kinds = kind.map_or(vec![Kind::Podman, Kind::Docker], |kind| vec![kind]);
        if let Some(found) = kinds.into_iter().map(engine).find(Self::answers) {
            eprintln!("  {}", found.program());
            return Ok(found);
        }
        if kind == Some(Kind::Docker) {
            bail!("docker does not answer `docker info`: start its daemon, or leave --engine out");
        }
        debian::install(&["netavark", "podman", "runc"])?;
        let installed = engine(Kind::Podman);
        if !installed.answers() {
            bail!("podman is installed and does not answer `podman info`");
        }
        Ok(installed)
    }

    fn program(&self) -> &'static str {
        match self.kind {
            Kind::Podman => "podman",
            Kind::Docker => "docker",
        }
    }

    /// A client without its server answers some questions as well, so it is asked about the server.
    fn answers(&self) -> bool {
        ask(self.command().arg("info")).is_some()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.program());
        match self.kind {
            Kind::Podman => command.env("CONTAINERS_CONF", &self.configuration),
            Kind::Docker => command.env("DOCKER_BUILDKIT", "1"),
        };
        command
    }

    /// Whether there is an image of this name here.
    pub fn has(&self, image: &str) -> bool {
        ask(self.command().args(["image", "inspect", image])).is_some()
    }

    /// Whether a registry has given an image of this name.
    pub fn pull(&self, image: &str) -> bool {
        ask(self.command().args(["pull", "--quiet", image])).is_some()
    }

    /// Makes an image of the files in an archive.
    pub fn import(&self, archive: &Path, image: &str) -> anyhow::Result<()> {
        run(self.command().arg("import").arg(archive).arg(image))
    }

    pub fn build(&self, build: &Build<'_>) -> anyhow::Result<()> {
        let mut command = self.command();
        command.args(["build", "--network=host", "--tag", build.tag]);
        command.arg(format!("--build-arg=BASE={}", build.base));
        if let Some(directory) = build.directory {
            command.arg(format!("--build-arg=DIRECTORY={directory}"));
        }
        for (name, value) in build.labels {
            command.arg(format!("--label=org.opencontainers.image.{name}={value}"));
        }
        match self.kind {
            Kind::Podman => command.arg(format!("--timestamp={}", build.time)),
            Kind::Docker => command.arg(format!("--build-arg=SOURCE_DATE_EPOCH={}", build.time)),
        };
        if let Some(roots) = roots() {
            command.arg(format!("--secret=id=roots,src={roots}"));
        }
        run(command.arg(build.context))
    }

    /// What the image prints when it is started with these arguments, with nothing but itself.
    pub fn run(&self, image: &str, arguments: &[&str]) -> anyhow::Result<String> {
        let mut command = self.command();
        command.args([
            "run",
            "--rm",
            "--network=none",
            "--read-only",
            "--cap-drop=ALL",
        ]);
        command.args(["--security-opt=no-new-privileges", image]);
        ask(command.args(arguments))
            .with_context(|| format!("the image does not run `sidecar {}`", arguments.join(" ")))
    }

    pub fn inspect(&self, image: &str) -> anyhow::Result<Value> {
        let text = ask(self.command().args(["image", "inspect", image]))
            .with_context(|| format!("there is no image {image}"))?;
        let mut images: Vec<Value> =
            serde_json::from_str(&text).context("cannot read what the engine says of an image")?;
        images
            .pop()
            .with_context(|| format!("the engine says nothing of {image}"))
    }

    /// Writes the files of an image to an archive.
    pub fn export(&self, image: &str, archive: &Path) -> anyhow::Result<()> {
        let container = ask(self.command().args(["create", "--network=none", image]))
            .with_context(|| format!("cannot make a container of {image}"))?;
        let mut export = self.command();
        let exported = run(export
            .args(["export", "--output"])
            .arg(archive)
            .arg(&container));
        let removed = ask(self.command().args(["rm", &container]));
        exported?;
        removed.with_context(|| format!("cannot remove the container {container}"))?;
        Ok(())
    }

    /// Writes an image to an archive that every engine loads.
    pub fn save(&self, image: &str, archive: &Path) -> anyhow::Result<()> {
        let mut command = self.command();
        command.arg("save");
        if self.kind == Kind::Podman {
            command.arg("--format=docker-archive");
        }
        // Podman adds to an archive that is there.
        match fs::remove_file(archive) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                bail!("cannot replace {}: {error}", archive.display())
            }
            _ => run(command.arg("--output").arg(archive).arg(image)),
        }
    }
}

/// The roots that this machine has been told to trust, which the build then trusts as well.
fn roots() -> Option<String> {
    ["CARGO_HTTP_CAINFO", "SSL_CERT_FILE"]
        .iter()
        .find_map(|name| env::var(name).ok())
        .filter(|path| Path::new(path).exists())
}

/// What podman cannot be told by options. `crun`, the other runtime, refuses cgroups of both versions
/// side by side; and the limits of files and processes are those that this machine has already, since
/// not every root may raise them.
fn settings() -> anyhow::Result<String> {
    let limit = |resource, enough| {
        let (_, hard) = getrlimit(resource).context("the kernel does not tell its limits")?;
        anyhow::Ok(hard.min(enough))
    };
    let files = limit(Resource::RLIMIT_NOFILE, 1 << 20)?;
    let processes = limit(Resource::RLIMIT_NPROC, 1 << 15)?;
    Ok(format!(
        "[engine]\ncgroup_manager = \"cgroupfs\"\nruntime = \"runc\"\n[containers]\n\
         default_ulimits = [\"nofile={files}:{files}\", \"nproc={processes}:{processes}\"]\n"
    ))
}
