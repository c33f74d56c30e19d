//! `cargo xtask instructions`

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use crate::{
    command::{cargo, step},
    setup, workspace,
};

/// Count the instructions that the hot paths take, and compare with what they took before
///
/// Counts are the same on a busy machine and on every processor, unlike times: valgrind runs the
/// program on one of its own. They depend on the compiler, whose version is fixed.
#[derive(clap::Args)]
pub struct Options {
    /// Write down what they take now: it is meant to be so
    #[arg(long)]
    accept: bool,
}

/// What they took before, by name, for one time each.
const BASELINE: &str = "sidecar/benches/instructions.toml";

/// How far a count may be off: what the compiler inlines depends on code elsewhere, too.
const TOLERANCE: f64 = 0.05;

/// How often each thing is done. What it takes to begin is in both counts, and not in the difference.
const TIMES: [u64; 2] = [200, 700];

pub fn run(options: &Options) -> anyhow::Result<()> {
    setup::programs(&[("/usr/bin/valgrind", "valgrind")])?;
    let program = step("build the hot paths", build)?;
    let now = step("count instructions", || counts(&program))?;
    let path = workspace::root().join(BASELINE);
    if options.accept {
        return write(&path, &now);
    }
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let before: BTreeMap<String, f64> =
        toml::from_str(&text).with_context(|| format!("cannot read {}", path.display()))?;
    let complaints = compare(&before, &now);
    for (name, count) in &now {
        println!("{count:>10.0}  {name}");
    }
    if !complaints.is_empty() {
        bail!(
            "{}; if that is meant to be so, `cargo xtask instructions --accept` writes it down",
            complaints.join("; ")
        );
    }
    Ok(())
}

/// What has changed, in words.
fn compare(before: &BTreeMap<String, f64>, now: &BTreeMap<String, f64>) -> Vec<String> {
    let mut complaints = Vec::new();
    for (name, count) in now {
        match before.get(name) {
            None => complaints.push(format!("`{name}` is new")),
            Some(before) if (count / before - 1.0).abs() > TOLERANCE => complaints.push(format!(
                "`{name}` takes {count:.0} instructions, {:+.1} % of the {before:.0} before",
                (count / before - 1.0) * 100.0
            )),
            Some(_) => {}
        }
    }
    let gone = before.keys().filter(|name| !now.contains_key(*name));
    complaints.extend(gone.map(|name| format!("`{name}` is gone")));
    complaints
}

/// Compiles the program that does each thing as often as it is told, and finds it.
fn build() -> anyhow::Result<PathBuf> {
    let output = cargo()
        .args(["bench", "--locked", "--package", "sidecar"])
        .args(["--features", "benchmarks", "--bench", "instructions"])
        .args(["--no-run", "--message-format", "json-render-diagnostics"])
        .stderr(std::process::Stdio::inherit())
        .output()
        .context("cannot start cargo")?;
    ensure!(output.status.success(), "cargo failed: see above");
    let output = String::from_utf8(output.stdout).context("cargo prints no UTF-8")?;
    let program = output.lines().find_map(|line| {
        let message: Value = serde_json::from_str(line).ok()?;
        let is_it = message["target"]["name"] == "instructions";
        let path = message["executable"].as_str().filter(|_| is_it)?;
        Some(PathBuf::from(path))
    });
    program.context("cargo does not say where it put the program")
}

/// What each thing takes once.
fn counts(program: &Path) -> anyhow::Result<BTreeMap<String, f64>> {
    let names = Command::new(program)
        .output()
        .with_context(|| format!("cannot start {}", program.display()))?;
    let names = String::from_utf8(names.stdout).context("it prints no UTF-8")?;
    let count = |name: &str| -> anyhow::Result<(String, f64)> {
        let [few, many] = TIMES.map(|times| collected(program, name, times));
        #[expect(clippy::cast_precision_loss, reason = "nothing takes that many")]
        let each = (many?.saturating_sub(few?)) as f64 / (TIMES[1] - TIMES[0]) as f64;
        Ok((name.to_owned(), each.round()))
    };
    names.lines().map(count).collect()
}

/// How many instructions the program takes that does something so many times.
fn collected(program: &Path, name: &str, times: u64) -> anyhow::Result<u64> {
    let output = Command::new("/usr/bin/valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([name, &times.to_string()])
        .output()
        .context("cannot start valgrind")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "valgrind failed: {said}");
    let count = said.lines().find_map(|line| {
        let (_, count) = line.split_once("Collected : ")?;
        count.trim().parse().ok()
    });
    count.with_context(|| format!("valgrind does not say what it has counted: {said}"))
}

fn write(path: &Path, counts: &BTreeMap<String, f64>) -> anyhow::Result<()> {
    let mut text = String::from(
        "# Instructions that each hot path takes once: `cargo xtask instructions --accept` writes this.\n",
    );
    for (name, count) in counts {
        let _ = writeln!(text, "{name:?} = {count:.1}");
    }
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_and_fewer_instructions_are_told_and_what_is_new_or_gone() {
        let counts = |counts: &[(&str, f64)]| {
            let counts = counts
                .iter()
                .map(|(name, count)| ((*name).to_owned(), *count));
            counts.collect::<BTreeMap<_, _>>()
        };
        let before = counts(&[
            ("as before", 100.0),
            ("more", 100.0),
            ("fewer", 100.0),
            ("old", 1.0),
        ]);
        let now = counts(&[
            ("as before", 101.0),
            ("more", 106.0),
            ("fewer", 90.0),
            ("young", 1.0),
        ]);
        assert_eq!(
            compare(&before, &now),
            [
                "`fewer` takes 90 instructions, -10.0 % of the 100 before",
                "`more` takes 106 instructions, +6.0 % of the 100 before",
                "`young` is new",
                "`old` is gone",
            ]
        );
    }
}
