//! Where the time goes: flame graphs of both sidecars, by load.

use std::{
    fs::File,
    io::BufReader,
    path::Path,
    process::{Command, Stdio},
};

use anyhow::{Context as _, anyhow};
use inferno::{
    collapse::{Collapse as _, perf::Folder},
    flamegraph,
};

use super::{load, processes, site::Site};
use crate::command::step;

/// How often a second the stack is looked at: no divisor of anything that happens periodically.
const FREQUENCY: &str = "1999";

/// Draws one for each load into `directory`.
pub fn draw(site: &Site, seconds: u64, directory: &Path) -> anyhow::Result<()> {
    for (name, load) in load::PROFILED {
        step(&format!("profile {name}"), || {
            let pids = site.pods().into_iter().flat_map(processes::pids);
            let pids: Vec<_> = pids.map(|pid| pid.to_string()).collect();
            let recorded = tempfile(directory, name);
            let mut perf = Command::new("/usr/bin/perf")
                .args([
                    "record",
                    "--quiet",
                    "--freq",
                    FREQUENCY,
                    "--call-graph",
                    "fp",
                ])
                .args(["--pid", &pids.join(","), "--output"])
                .arg(&recorded)
                .args(["--", "sleep", &seconds.to_string()])
                .stderr(Stdio::null())
                .spawn()
                .context("cannot start perf")?;
            let loaded = load(site, seconds + 1);
            let status = perf.wait().context("cannot wait for perf")?;
            loaded?;
            anyhow::ensure!(status.success(), "perf record has failed: {status}");
            let graph = directory.join(format!("flame-{name}.svg"));
            let drawn = graph_of(&recorded, name, &graph);
            let _ = std::fs::remove_file(&recorded);
            drawn
        })?;
    }
    Ok(())
}

fn tempfile(directory: &Path, name: &str) -> std::path::PathBuf {
    directory.join(format!("{name}.perf"))
}

fn graph_of(recorded: &Path, name: &str, graph: &Path) -> anyhow::Result<()> {
    let script = Command::new("/usr/bin/perf")
        .args(["script", "--input"])
        .arg(recorded)
        .stderr(Stdio::null())
        .output()
        .context("cannot start perf")?;
    let mut folded = Vec::new();
    Folder::default()
        .collapse(BufReader::new(&*script.stdout), &mut folded)
        .map_err(|error| anyhow!("cannot read what perf has recorded: {error}"))?;
    let mut options = flamegraph::Options::default();
    options.title = format!("both sidecars: {name}");
    // Narrower ones are seen by nobody, and most of the file.
    options.min_width = 0.3;
    options.deterministic = true;
    let lines = String::from_utf8_lossy(&folded);
    let file = File::create(graph).with_context(|| format!("cannot write {}", graph.display()))?;
    flamegraph::from_lines(&mut options, lines.lines(), file)
        .map_err(|error| anyhow!("cannot draw {}: {error}", graph.display()))
}
