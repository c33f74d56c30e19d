//! `cargo xtask test`

use std::{
    env,
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    thread,
};

use anyhow::{Context as _, bail};

use crate::{
    build,
    command::{announce, cargo, step},
    python, setup, workspace,
};

/// Run the unit tests and the end-to-end tests
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
    tally.verdict()
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
}

impl Tally {
    /// Adds a line like `test result: ok. 3 passed; 0 failed; 0 ignored; …`; others are no result.
    fn add(&mut self, line: &str) {
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

    /// Passing takes at least one test that passed, and none that failed or was left out.
    fn verdict(&self) -> anyhow::Result<()> {
        match self {
            Self { failed: 1.., .. } => bail!("{} tests failed", self.failed),
            Self { ignored: 1.., .. } => bail!("{} tests were ignored: none may be", self.ignored),
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
}
