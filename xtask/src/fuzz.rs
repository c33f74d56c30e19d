//! `cargo xtask fuzz`

use std::{
    ffi::OsStr,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail};

use crate::{
    command::{run as run_command, step},
    setup,
    tool::Tool,
    workspace,
};

/// Feed arbitrary bytes to everything that parses what a peer or a file says
#[derive(clap::Args)]
pub struct Options {
    /// How long to try new inputs, all programs together
    #[arg(default_value_t = 60)]
    seconds: u64,
}

const CARGO_FUZZ: Tool = Tool {
    name: "cargo-fuzz",
    version: "0.13.2",
};

/// Longer than any input takes, in seconds.
const INPUT_TIMEOUT: u64 = 10;

pub fn run(Options { seconds }: &Options) -> anyhow::Result<()> {
    let cargo_fuzz = match CARGO_FUZZ.find() {
        Some(program) => program,
        None => CARGO_FUZZ.install(|_| ())?,
    };
    step("build the programs that fuzz", || {
        setup::cpp_compiler()?;
        run_command(&mut cargo_fuzz_command(&cargo_fuzz, "build"))
    })?;
    let targets = targets()?;
    let each = (seconds / targets.len() as u64).max(1);
    let mut failed = Vec::new();
    for target in targets {
        let fuzzed = step(&format!("fuzz {target}"), || {
            fuzz(&cargo_fuzz, &target, each)
        });
        if fuzzed.is_err() {
            failed.push(target);
        }
    }
    if !failed.is_empty() {
        bail!(
            "{} failed: see above for the input and how to repeat it; keep it in fuzz/corpus when \
             the fault is found",
            failed.join(", ")
        );
    }
    Ok(())
}

/// The programs, by name: those in `fuzz/targets`.
fn targets() -> anyhow::Result<Vec<String>> {
    let directory = directory().join("targets");
    let entries =
        fs::read_dir(&directory).with_context(|| format!("cannot read {}", directory.display()))?;
    let mut targets = Vec::new();
    for entry in entries {
        let path = entry.context("cannot read a directory entry")?.path();
        if path.extension() == Some(OsStr::new("rs")) {
            let name = path.file_stem().unwrap_or_default();
            targets.push(name.to_string_lossy().into_owned());
        }
    }
    targets.sort();
    Ok(targets)
}

/// Feeds one program the inputs that are kept, and then new ones, for so many seconds. An input that
/// it fails for is left in `fuzz/artifacts`.
fn fuzz(cargo_fuzz: &Path, target: &str, seconds: u64) -> anyhow::Result<()> {
    let found = workspace::target().join("fuzz").join(target);
    fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
    run_command(
        cargo_fuzz_command(cargo_fuzz, "run")
            .arg(target)
            // What is new in the first is kept there; the second is only read.
            .args([&found, &directory().join("corpus").join(target)])
            .args(["--", "-verbosity=0"])
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-timeout={INPUT_TIMEOUT}")),
    )
}

/// A command of cargo-fuzz on the workspace as it is, built as for development.
///
/// Without a sanitizer, which would find little: nothing that parses here is unsafe. What is looked
/// for are panics, overflows, hangs and broken promises. So the compiler may be a stable one.
fn cargo_fuzz_command(cargo_fuzz: &Path, subcommand: &str) -> Command {
    let mut command = Command::new(cargo_fuzz);
    command
        .current_dir(workspace::root())
        .args([subcommand, "--dev", "--sanitizer", "none", "--target-dir"])
        .arg(workspace::target())
        // Instrumented code that is optimised further takes far longer to compile.
        .env("RUSTFLAGS", "-Copt-level=1");
    command
}

fn directory() -> PathBuf {
    workspace::root().join("fuzz")
}
