//! `cargo xtask vm`

mod guest;
mod kernel;
mod libraries;
mod machine;
mod matrix;
mod root;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    thread,
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use self::{
    guest::{Guest, Program},
    kernel::Kernel,
    machine::Test,
    matrix::Matrix,
    root::Root,
};
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
#[expect(clippy::struct_excessive_bools, reason = "each is a flag")]
pub struct Options {
    /// Their versions
    #[arg(default_values_t = DEFAULT.map(str::to_owned))]
    kernels: Vec<String>,
    /// Only the tests that find out soonest whether a kernel will do, and those that run nowhere else
    #[arg(long)]
    quick: bool,
    /// Only this test program; may be repeated
    #[arg(long, value_name = "PROGRAM", value_parser = PROGRAMS_OF_TESTS, conflicts_with = "quick")]
    test: Vec<String>,
    /// Only the tests whose names contain this
    #[arg(long, value_name = "PART", conflicts_with = "quick")]
    name: Option<String>,
    /// Only what did not pass in the last run; the table has both
    #[arg(long, conflicts_with_all = ["quick", "test", "name"])]
    again: bool,
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

/// The test programs whose tests depend on the kernel, the soonest first.
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
/// Those that are quick.
const QUICK: [&str; 2] = ["mesh", "half_close"];
/// Those of which some tests run nowhere else.
const LEFT: [&str; 3] = ["between", "layouts", "sealed"];

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
        words.extend(self.name.iter().map(|part| format!("--name {part}")));
        if self.kernels != DEFAULT {
            words.extend(self.kernels.iter().cloned());
        }
        words.join(" ")
    }

    /// Which tests run if nothing ran before: programs, and what each is told of them.
    fn selection(&self) -> Vec<(&'static str, String)> {
        let which = |program: &&'static str| {
            let of_programs = self.test.is_empty() || self.test.iter().any(|test| test == program);
            let which = match &self.name {
                _ if !of_programs => None,
                Some(part) => Some(part.clone()),
                None if !self.quick || QUICK.contains(program) => Some(String::new()),
                None => LEFT.contains(program).then(|| "--ignored".to_owned()),
            };
            Some((*program, which?))
        };
        PROGRAMS_OF_TESTS.iter().filter_map(which).collect()
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
    let directory = workspace::target().join("vm");
    let kept = directory.join(format!("results-{arch}.json"));
    let mut kernels = step("find the kernels", || {
        machine::install(arch, &directory)?;
        let find = |version: &String| Kernel::find(&directory, arch, version, options.update);
        options
            .kernels
            .iter()
            .map(find)
            .collect::<anyhow::Result<Vec<_>>>()
    })?;
    let mut matrix = if options.again {
        let last = Matrix::again(&kept)?;
        kernels.retain(|kernel| !last.missing(&kernel.release).is_empty());
        ensure!(
            !kernels.is_empty(),
            "nothing is left to run again on these kernels"
        );
        last
    } else {
        Matrix::new(options.command())
    };
    let selection = if options.again {
        let missing = kernels
            .iter()
            .flat_map(|kernel| matrix.missing(&kernel.release));
        again(missing.collect())?
    } else {
        options.selection()
    };
    let tests = step("build the tests", || tests(cross.as_ref(), selection))?;
    let guest = step("pack the programs", || {
        let root = Root::find(arch, &directory)?;
        let strip = match &cross {
            Some(_) => format!("/usr/bin/{}-strip", arch.gnu()),
            None => "/usr/bin/strip".to_owned(),
        };
        Guest::pack(&directory, &root, &strip, &daemon, &tests)
    })?;
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
    matrix.keep(&kept)?;
    if options.publish {
        matrix.publish(arch)?;
    }
    println!("{}", matrix.tally());
    ensure!(
        matrix.is_green(),
        "not everything passed: the serial logs are in {}",
        directory.display()
    );
    Ok(())
}

/// These tests: their programs, and what each is told of them.
fn again(names: BTreeSet<String>) -> anyhow::Result<Vec<(&'static str, String)>> {
    let mut selection = Vec::new();
    let mut rest = names;
    for program in PROGRAMS_OF_TESTS {
        let of_program = |name: &String| name.split_once("::").is_some_and(|(of, _)| of == program);
        let (here, others): (BTreeSet<_>, _) = rest.into_iter().partition(of_program);
        rest = others;
        let tests = here.iter().filter_map(|name| name.split_once("::"));
        let tests: Vec<_> = tests.map(|(_, test)| test).collect();
        if !tests.is_empty() {
            selection.push((program, format!("--exact {}", tests.join(" "))));
        }
    }
    ensure!(
        rest.is_empty(),
        "the last run did not come to its end: leave --again away"
    );
    Ok(selection)
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
fn tests(
    cross: Option<&Cross>,
    selection: Vec<(&'static str, String)>,
) -> anyhow::Result<Vec<Program>> {
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
    for (name, _) in &selection {
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
    let found = |(name, which)| {
        let path = path(name).with_context(|| format!("cargo does not say where {name} is"))?;
        Ok(Program { name, path, which })
    };
    selection.into_iter().map(found).collect()
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
        let paths = programs.map(|entry| entry.expect("an entry").path());
        let mut left = Vec::new();
        // Others are directories of modules.
        for path in paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        {
            let text = fs::read_to_string(&path).expect("a test program");
            let is_left =
                |line: &str| line.trim_start().starts_with("#[ignore") && line.contains(RUNS_IT);
            if text.lines().any(is_left) {
                let name = path.file_stem().expect("it has a name");
                left.push(name.to_string_lossy().into_owned());
            }
        }
        left.sort();
        assert_eq!(left, LEFT);
        assert!(LEFT.iter().all(|name| PROGRAMS_OF_TESTS.contains(name)));
        assert!(QUICK.iter().all(|name| PROGRAMS_OF_TESTS.contains(name)));
    }

    #[test]
    fn the_quick_ones_and_those_that_run_nowhere_else_are_told_apart() {
        let selection = |arguments: &[&str]| {
            let arguments = ["vm"].iter().chain(arguments);
            let command = <Options as clap::Args>::augment_args(clap::Command::new("vm"));
            let matches = command.get_matches_from(arguments);
            let options = <Options as clap::FromArgMatches>::from_arg_matches(&matches);
            options.expect("they are valid").selection()
        };
        let of = |name: &'static str, which: &str| (name, which.to_owned());
        let quick = [
            of("mesh", ""),
            of("half_close", ""),
            of("between", "--ignored"),
            of("layouts", "--ignored"),
            of("sealed", "--ignored"),
        ];
        assert_eq!(selection(&["--quick"]), quick);
        assert_eq!(selection(&[]), PROGRAMS_OF_TESTS.map(|name| of(name, "")));
        let missing = ["mesh::one", "mesh::two", "listen::one"].map(str::to_owned);
        let missing = again(missing.into()).expect("they have programs");
        assert_eq!(
            missing,
            [of("mesh", "--exact one two"), of("listen", "--exact one")]
        );
        assert!(again(["the tests after these".to_owned()].into()).is_err());
        let one = selection(&["--test", "layouts", "--name", "mtu"]);
        assert_eq!(one, [of("layouts", "mtu")]);
    }
}
