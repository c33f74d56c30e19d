//! `cargo xtask vm`

mod guest;
mod kernel;
mod libraries;
mod machine;
mod matrix;
mod root;

use std::{
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use self::{guest::Guest, kernel::Kernel, machine::Test, matrix::Matrix, root::Root};
use crate::{
    arch::Arch,
    build,
    command::{cargo, step},
    cross::Cross,
    setup, workspace,
};

/// Run the end-to-end tests that depend on the kernel on other kernels, in emulated machines
///
/// Kernels are Debian's for clouds, the newest of each version that is named, such as 6.12, or 7 for
/// the newest 7.x. They are downloaded once; what is there is used until --update.
#[derive(clap::Args)]
pub struct Options {
    /// Their versions
    #[arg(default_values_t = DEFAULT.map(str::to_owned))]
    kernels: Vec<String>,
    /// Only the tests that find out soonest whether a kernel will do
    #[arg(long)]
    quick: bool,
    /// Only this test program; may be repeated
    #[arg(long, value_name = "PROGRAM", value_parser = PROGRAMS_OF_TESTS, conflicts_with = "quick")]
    test: Vec<String>,
    /// Of machines with this processor
    #[arg(long, default_value_t, hide_default_value = true)]
    arch: Arch,
    /// Look for newer kernels of these versions
    #[arg(long)]
    update: bool,
    /// Also write the table to docs/kernels.md
    #[arg(long)]
    publish: bool,
}

/// The oldest that is supported, those of the supported Debians, and the newest.
const DEFAULT: [&str; 5] = ["5.10", "6.1", "6.12", "6.18", "7"];

/// What the machines are made with, by path and Debian package.
const PROGRAMS: [(&str, &str); 3] = [
    ("/sbin/depmod", "kmod"),
    ("/usr/bin/strip", "binutils"),
    ("/usr/bin/xz", "xz-utils"),
];

/// The test programs whose tests depend on the kernel, the soonest first, and how many of them are
/// quick.
const PROGRAMS_OF_TESTS: [&str; 15] = [
    "mesh",
    "half_close",
    "listen",
    "connect",
    "addresses",
    "exclusions",
    "beside",
    "failure",
    "init",
    "cleanup",
    "statistics",
    "middlebox",
    "between",
    "layouts",
    // The last: what it changes stays until the next boot.
    "sealed",
];
const QUICK: usize = 2;

/// How the reason ends for which a test is ignored elsewhere.
pub const RUNS_IT: &str = "cargo xtask vm runs it";

/// Names the daemon that runs in the machines, by an absolute path.
const VARIABLE: &str = "SIDECAR_BIN";

impl Options {
    /// What one has to type for the same.
    fn command(&self) -> String {
        let mut words = vec!["cargo xtask vm".to_owned()];
        if self.arch != Arch::OWN {
            words.push(format!("--arch {}", self.arch));
        }
        if self.quick {
            words.push("--quick".to_owned());
        }
        words.extend(self.test.iter().map(|program| format!("--test {program}")));
        if self.kernels != DEFAULT {
            words.extend(self.kernels.iter().cloned());
        }
        words.join(" ")
    }

    fn programs_of_tests(&self) -> Vec<&str> {
        let mut programs = PROGRAMS_OF_TESTS.to_vec();
        if self.quick {
            programs.truncate(QUICK);
        }
        if !self.test.is_empty() {
            programs.retain(|program| self.test.iter().any(|wanted| wanted == program));
        }
        programs
    }
}

pub fn run(options: &Options) -> anyhow::Result<()> {
    let arch = options.arch;
    setup::programs(&PROGRAMS)?;
    let cross = if arch == Arch::OWN {
        None
    } else {
        Some(Cross::find(arch)?)
    };
    let daemon = daemon(cross.as_ref(), arch)?;
    let tests = step("build the tests", || {
        tests(cross.as_ref(), &options.programs_of_tests())
    })?;
    let directory = workspace::target().join("vm");
    let kernels = step("find the kernels", || {
        machine::install(arch, &directory)?;
        let find = |version: &String| Kernel::find(&directory, arch, version, options.update);
        options
            .kernels
            .iter()
            .map(find)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let guest = step("pack the programs", || {
        let root = Root::find(arch, &directory)?;
        let strip = match &cross {
            Some(_) => format!("/usr/bin/{}-strip", arch.gnu()),
            None => "/usr/bin/strip".to_owned(),
        };
        Guest::pack(&directory, &root, &strip, &daemon, &tests)
    })?;
    let mut matrix = Matrix::default();
    // An emulated machine keeps one core busy.
    let at_once = thread::available_parallelism().map_or(1, usize::from);
    for kernels in kernels.chunks(at_once) {
        let names: Vec<_> = kernels.iter().map(|kernel| &*kernel.release).collect();
        let outcomes = step(&format!("test on Linux {}", names.join(" and ")), || {
            Ok(run_at_once(arch, kernels, &guest, &directory))
        })?;
        for (kernel, outcome) in kernels.iter().zip(outcomes) {
            matrix.add(&kernel.release, outcome?);
        }
    }
    println!("{}", matrix.table());
    if options.publish {
        matrix.publish(arch, &options.command())?;
    }
    println!("{}", matrix.tally());
    ensure!(
        matrix.is_green(),
        "not everything passed: the serial logs are in {}",
        directory.display()
    );
    Ok(())
}

/// What became of each test on each of these kernels.
fn run_at_once(
    arch: Arch,
    kernels: &[Kernel],
    guest: &Guest,
    directory: &Path,
) -> Vec<anyhow::Result<Vec<Test>>> {
    thread::scope(|scope| {
        let run = |kernel| scope.spawn(move || machine::run(arch, kernel, guest, directory));
        let machines: Vec<_> = kernels.iter().map(run).collect();
        let outcome = |machine: thread::ScopedJoinHandle<'_, _>| machine.join();
        let outcomes = machines.into_iter().map(outcome);
        outcomes
            .map(|outcome| outcome.expect("it does not panic"))
            .collect()
    })
}

/// As it is shipped, unless another one is named.
fn daemon(cross: Option<&Cross>, arch: Arch) -> anyhow::Result<PathBuf> {
    if let Some(daemon) = env::var_os(VARIABLE) {
        return Ok(daemon.into());
    }
    build::run(build::Options {
        release: true,
        arch,
        ..build::Options::default()
    })?;
    Ok(cross.map_or_else(
        || workspace::target().join("release/sidecar"),
        |cross| cross.daemon(true),
    ))
}

/// Compiles these test programs; where they are.
fn tests(cross: Option<&Cross>, names: &[&str]) -> anyhow::Result<Vec<(String, PathBuf)>> {
    let mut command = cross.map_or_else(
        || {
            let mut command = cargo();
            command.arg("test");
            command
        },
        |cross| cross.cargo("test"),
    );
    command.args(["--package", "sidecar-tests", "--no-run"]);
    command.args(["--message-format", "json-render-diagnostics"]);
    for name in names {
        command.args(["--test", name]);
    }
    let output = command
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo failed: see above");
    let messages = String::from_utf8(output.stdout).context("cargo prints no UTF-8")?;
    let path = |name: &str| {
        messages.lines().find_map(|line| {
            let message: Value = serde_json::from_str(line).ok()?;
            let path = message["executable"].as_str()?;
            (message["target"]["name"] == name).then(|| PathBuf::from(path))
        })
    };
    let found = |name: &&str| {
        let path = path(name).with_context(|| format!("cargo does not say where {name} is"))?;
        Ok(((*name).to_owned(), path))
    };
    names.iter().map(found).collect()
}

/// Reads a file, and says which one it could not.
fn read(path: &Path) -> anyhow::Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("cannot read {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_the_machines_is_among_what_they_run() {
        let directory = workspace::root().join("tests/tests");
        let programs = fs::read_dir(directory).expect("the test programs");
        for program in programs.map(|entry| entry.expect("an entry").path()) {
            // Others are directories of modules.
            if program
                .extension()
                .is_none_or(|extension| extension != "rs")
            {
                continue;
            }
            let name = program.file_stem().and_then(|name| name.to_str());
            let text = fs::read_to_string(&program).expect("a test program");
            let left = text
                .lines()
                .any(|line| line.trim_start().starts_with("#[ignore") && line.contains(RUNS_IT));
            let runs = name.is_some_and(|name| PROGRAMS_OF_TESTS.contains(&name));
            assert!(!left || runs, "{}", program.display());
        }
    }
}
