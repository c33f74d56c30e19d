//! `cargo xtask test`

use std::{
    env,
    ffi::OsString,
    io::{BufRead as _, BufReader},
    path::PathBuf,
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    build,
    command::{announce, cargo, step},
    python, setup, vm, workspace,
};

/// Run the unit tests and the end-to-end tests
///
/// The tests with containers make an image of the debug build, or take the one in the archive that
/// the variable `SIDECAR_IMAGE` names, as `cargo xtask image --output FILE` writes it.
#[derive(clap::Args)]
pub struct Options {
    /// For the test programs: parts of the names of the tests to run, or flags of theirs
    #[arg(last = true)]
    arguments: Vec<String>,
}

pub fn run(Options { arguments }: Options) -> anyhow::Result<()> {
    let root = nix::unistd::geteuid().is_root();
    if !root && env::var("CI").is_ok_and(|ci| ci == "true") {
        bail!("the end-to-end tests need root, and CI must not go without them");
    }
    if root {
        let image = image(env::var_os("SIDECAR_IMAGE"))?;
        eprintln!("  the tests with containers use {image}");
        setup::programs(sidecar_tests::PACKAGES)?;
        build::run(build::Options::default())?;
    }
    python::install()?;
    let mut tally = Tally::default();
    suite(
        "run the unit tests",
        cargo().arg("test"),
        &arguments,
        &mut tally,
    )?;
    if root {
        let name = "run the end-to-end tests";
        suite(name, &mut end_to_end(), &arguments, &mut tally)?;
    } else {
        eprintln!("‼ the end-to-end tests did not run: they need root");
    }
    println!("\n{} passed, {} failed", tally.passed, tally.failed);
    if tally.elsewhere > 0 {
        println!(
            "{} more need a machine of their own: cargo xtask vm",
            tally.elsewhere
        );
    }
    tally.verdict()
}

/// The image that the tests with containers use, for people to read.
fn image(archive: Option<OsString>) -> anyhow::Result<String> {
    let Some(archive) = archive.map(PathBuf::from) else {
        return Ok("an image of the debug build".to_owned());
    };
    // The tests have another working directory.
    ensure!(
        archive.is_absolute() && archive.is_file(),
        "SIDECAR_IMAGE is {}: give the whole path of an archive that `cargo xtask image --output FILE` wrote",
        archive.display()
    );
    Ok(format!("the image in {}", archive.display()))
}

fn end_to_end() -> Command {
    let mut command = cargo();
    command
        .args(["test", "--package", "sidecar-tests"])
        .env("SIDECAR_BIN", workspace::target().join("debug/sidecar"));
    if env::var_os("RUST_TEST_THREADS").is_none() {
        command.env("RUST_TEST_THREADS", threads().to_string());
    }
    command
}

/// Enough to fill the time in which tests wait; few enough that each is done long before the
/// deadlines inside it.
fn threads() -> usize {
    thread::available_parallelism().map_or(2, |cores| cores.get().min(4))
}

/// Runs one `cargo test` to its end, whatever fails in it.
fn suite(
    name: &str,
    command: &mut Command,
    arguments: &[String],
    tally: &mut Tally,
) -> anyhow::Result<()> {
    let before = tally.clone();
    let succeeded = step(name, || {
        command.arg("--no-fail-fast").arg("--").args(arguments);
        announce(command);
        let mut tests = command
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start cargo")?;
        let output = tests.stdout.take().expect("it is a pipe");
        for line in BufReader::new(output).lines() {
            let line = line.context("cannot read what the tests print")?;
            println!("{line}");
            tally.add(&line);
        }
        Ok(tests.wait().context("cannot wait for cargo")?.success())
    })?;
    // A test program that does not compile or does not survive prints no result.
    if !succeeded && tally.failed == before.failed {
        bail!("cargo failed to {name}: see above");
    }
    Ok(())
}

/// What the tests' own summaries add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tally {
    passed: usize,
    failed: usize,
    ignored: usize,
    /// Of those that were ignored, how many the virtual machines run.
    elsewhere: usize,
}

impl Tally {
    /// Adds a line like `test result: ok. 3 passed; 0 failed; 0 ignored; …` or
    /// `test name ... ignored, reason`; others are no result.
    fn add(&mut self, line: &str) {
        if line.starts_with("test ") && line.contains(" ... ignored, ") {
            self.elsewhere += usize::from(line.ends_with(vm::RUNS_IT));
        }
        let Some((_, counts)) = line
            .strip_prefix("test result: ")
            .and_then(|result| result.split_once(". "))
        else {
            return;
        };
        for count in counts.split("; ") {
            let Some((number, what)) = count.split_once(' ') else {
                continue;
            };
            let sum = match what {
                "passed" => &mut self.passed,
                "failed" => &mut self.failed,
                "ignored" => &mut self.ignored,
                _ => continue,
            };
            *sum += number.parse().unwrap_or(0);
        }
    }

    /// Passing takes at least one test that passed, and none that failed or that nothing runs.
    fn verdict(&self) -> anyhow::Result<()> {
        match self {
            Self { failed: 1.., .. } => bail!("{} tests failed", self.failed),
            Self {
                ignored, elsewhere, ..
            } if ignored > elsewhere => {
                bail!(
                    "{} tests were ignored that nothing runs",
                    ignored - elsewhere
                )
            }
            Self { passed: 0, .. } => bail!("no test ran: does any have such a name?"),
            Self { .. } => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(lines: &[&str]) -> Tally {
        let mut tally = Tally::default();
        for line in lines {
            tally.add(line);
        }
        tally
    }

    #[test]
    fn the_image_of_the_container_tests_is_an_archive_that_exists() {
        let archive = tempfile::NamedTempFile::new().expect("a temporary file");
        let named = |path: &str| image(Some(path.into())).map_err(|error| error.to_string());

        let path = archive.path().to_str().expect("the path is UTF-8");
        assert_eq!(named(path), Ok(format!("the image in {path}")));
        for path in ["", "Cargo.toml", "/nowhere/image.tar"] {
            let error = named(path).expect_err(path);
            assert!(
                error.contains(&format!("SIDECAR_IMAGE is {path}:")),
                "{error}"
            );
        }
        assert!(image(None).is_ok_and(|image| image.contains("debug build")));
    }

    #[test]
    fn results_of_test_programs_add_up() {
        let lines = [
            "running 2 tests",
            "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 40 passed; 1 failed; 3 ignored; 0 measured; 7 filtered out",
        ];

        let sum = Tally {
            passed: 42,
            failed: 1,
            ignored: 3,
            elsewhere: 0,
        };
        assert_eq!(tally(&lines), sum);
    }

    #[test]
    fn tests_that_fail_are_ignored_or_do_not_exist_are_no_success() {
        assert!(
            tally(&["test result: ok. 2 passed; 0 failed; 0 ignored"])
                .verdict()
                .is_ok()
        );
        assert!(
            tally(&["test result: FAILED. 2 passed; 1 failed; 0 ignored"])
                .verdict()
                .is_err()
        );
        assert!(
            tally(&["test result: ok. 2 passed; 0 failed; 1 ignored"])
                .verdict()
                .is_err()
        );
        assert!(
            tally(&["test result: ok. 0 passed; 0 failed; 0 ignored"])
                .verdict()
                .is_err()
        );
    }

    #[test]
    fn tests_that_a_virtual_machine_runs_may_be_left_to_it() {
        let elsewhere = "test sealed ... ignored, changes the machine: cargo xtask vm runs it";
        let result = "test result: ok. 2 passed; 0 failed; 1 ignored";

        assert!(tally(&[elsewhere, result]).verdict().is_ok());
        for reason in ["test slow ... ignored, takes long", "test slow ... ignored"] {
            assert!(tally(&[reason, result]).verdict().is_err(), "{reason}");
        }
    }
}
