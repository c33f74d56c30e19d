//! `cargo xtask kube-apiserver`

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use sidecar_tests::kube_apiserver::VARIABLE;

use crate::{
    command::{cargo, path_with, run as run_command, step},
    python, setup, workspace,
};

/// Try what we ask the Kubernetes API, and what it asks our webhook, on a real kube-apiserver, built from
/// Debian's source package
///
/// The first time it builds for some minutes, on all cores, and takes 2 GB of disk meanwhile.
#[derive(clap::Args)]
pub struct Options {}

/// Debian's version of the source package; the last that builds without Go modules.
const VERSION: &str = "1.20.5+really1.20.2-1.1+deb12u1";

/// Where this machine is told of Debian's packages, in either form that there is.
const SOURCES: [(&str, &str, &str); 2] = [
    (
        "/etc/apt/sources.list.d/debian.sources",
        "Types: deb",
        "Types: deb-src",
    ),
    ("/etc/apt/sources.list", "deb ", "deb-src "),
];

/// What it is built with, by path and Debian package.
const BUILT_WITH: [(&str, &str); 4] = [
    ("/usr/bin/dpkg-source", "dpkg-dev"),
    ("/usr/bin/make", "make"),
    ("/usr/bin/rsync", "rsync"),
    ("/usr/lib/go-1.19/bin/go", "golang-1.19-go"),
];

/// What it is tried with.
const TRIED_WITH: [(&str, &str); 3] = [
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/etcd", "etcd-server"),
    ("/usr/bin/openssl", "openssl"),
];

pub fn run(_: &Options) -> anyhow::Result<()> {
    setup::programs(&TRIED_WITH)?;
    python::install()?;
    let server = built()?;
    let kubectl = workspace::target().join("tools/python/bin");
    let mut tests = cargo();
    tests
        .args(["test", "-p", "sidecar", "--features", "on-demand"])
        .args(["--test", "kube_apiserver"])
        .args(["--test", "kube_apiserver_webhook", "--", "--nocapture"])
        .env("PATH", path_with(&kubectl))
        .env(VARIABLE, server);
    step("ask a real API server", || run_command(&mut tests))
}

/// The program, built unless it is there.
fn built() -> anyhow::Result<PathBuf> {
    let program = workspace::target().join(format!("tools/kube-apiserver-{VERSION}"));
    if program.exists() {
        return Ok(program);
    }
    setup::programs(&BUILT_WITH)?;
    let room = workspace::target().join("kube-apiserver");
    step("build kube-apiserver", || build(&room, &program))?;
    fs::remove_dir_all(&room).with_context(|| format!("cannot remove {}", room.display()))?;
    Ok(program)
}

fn build(room: &Path, program: &Path) -> anyhow::Result<()> {
    let made = room.join("lists/partial");
    fs::create_dir_all(&made).with_context(|| format!("cannot make {}", made.display()))?;
    let sources = sources(room)?;
    let apt_get = || {
        let mut command = Command::new("apt-get");
        command
            .current_dir(room)
            .arg("--quiet=2")
            .args(["-o", "Dir::Etc::SourceList=/dev/null"])
            .args([
                "-o",
                &format!("Dir::Etc::SourceParts={}", sources.display()),
            ])
            .args([
                "-o",
                &format!("Dir::State::Lists={}", room.join("lists").display()),
            ]);
        command
    };
    run_command(apt_get().arg("update"))?;
    run_command(apt_get().args([
        "source",
        "--download-only",
        &format!("kubernetes={VERSION}"),
    ]))?;
    let source = room.join("source");
    // A build that was ended half way.
    if source.exists() {
        fs::remove_dir_all(&source)
            .with_context(|| format!("cannot remove {}", source.display()))?;
    }
    let description = format!("kubernetes_{VERSION}.dsc");
    run_command(
        Command::new("dpkg-source")
            .current_dir(room)
            .args(["--extract", &description])
            .arg(&source),
    )?;
    let home = |name: &str| room.join(name);
    run_command(
        Command::new("nice")
            .current_dir(&source)
            .args(["-n", "15", "make", "WHAT=cmd/kube-apiserver"])
            .env("PATH", path_with(Path::new("/usr/lib/go-1.19/bin")))
            .env("GO111MODULE", "off")
            .env("GOCACHE", home("cache"))
            .env("GOPATH", home("go")),
    )?;
    let result = source.join("_output/bin/kube-apiserver");
    let tools = workspace::target().join("tools");
    fs::create_dir_all(&tools).with_context(|| format!("cannot make {}", tools.display()))?;
    // Under its name it is whole.
    let half = room.join("kube-apiserver");
    fs::copy(&result, &half).with_context(|| format!("cannot copy {}", result.display()))?;
    fs::rename(&half, program).with_context(|| format!("cannot write {}", program.display()))
}

/// Has the source packages come from where this machine has its packages from; gives the directory
/// that says so.
fn sources(room: &Path) -> anyhow::Result<PathBuf> {
    let found = SOURCES.into_iter().find_map(|(path, packages, sources)| {
        Some((path, fs::read_to_string(path).ok()?, packages, sources))
    });
    let (path, text, packages, sources) = found.context(
        "this machine knows no source of Debian packages; add one to /etc/apt/sources.list",
    )?;
    let text: String = text
        .lines()
        .map(|line| {
            line.strip_prefix(packages)
                .map_or_else(|| format!("{line}\n"), |rest| format!("{sources}{rest}\n"))
        })
        .collect();
    let directory = room.join("sources");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    let name = Path::new(path).file_name().unwrap_or_default();
    // The name's ending tells the form.
    let name = if name == "sources.list" {
        "debian.list".as_ref()
    } else {
        name
    };
    fs::write(directory.join(name), text)
        .with_context(|| format!("cannot write to {}", directory.display()))?;
    Ok(directory)
}
