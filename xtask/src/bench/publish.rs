//! The figures for everybody to read.

use std::{fmt::Write as _, fs, path::PathBuf};

use anyhow::{Context as _, ensure};
use comfy_table::{Table, presets};
use serde_json::Value;

use super::{plot, report::Report, site};
use crate::workspace;

/// Where they go, in the project.
const DIRECTORY: &str = "docs/benchmarks";

/// Every reading.
const RESULTS: &str = "results.json";

/// What each load is.
const LOADS: &str = "\
- *n kept connections*: requests of HTTP/1.1 for an empty page, one after the other on each of n connections (wrk).
- *new connections*: the same by 16 at a time, each on a connection of its own that the server ends.
- *bulk*: iperf3, one or eight streams, from the client to the server unless said otherwise.
- *HTTP/2*: 16 connections with 10 streams each (h2load).
- *one hop, plaintext*: the client has a sidecar and the server has none, so its bytes take one proxy and no TLS.
- *idle*: memory of each proxy before anything was carried: its own, and with what it has touched of its program, which others that
  run it share; and what 8,000 connections add to its own that have carried one request.
- *at half the slowest's rate*: 64 connections at half the rate that the slowest site reached, each answer timed from when its request was due.
- *n open connections*: new and kept connections while n others are open and silent.
- *exclusions and rules*: new and kept connections with and without them, in turns; the last rule decides.
- *destinations*: connections to 10,000 addresses of one server, one after the other, each with a handshake: the first thousand, and the last.
- *CPU* is the processor time of both proxies, the kernel's included, as the kernel accounts it to their control groups. System calls and context switches are
  counted in a run of their own.
";

/// Its path.
pub fn directory() -> PathBuf {
    workspace::root().join(DIRECTORY)
}

/// Writes the tables and the pictures again, out of the readings of the last run.
pub fn again() -> anyhow::Result<()> {
    let (report, facts) = last_run()?;
    write(&report, &facts)
}

/// What was read in the run whose figures are published.
fn last_run() -> anyhow::Result<(Report, Value)> {
    let path = directory().join(RESULTS);
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let facts: Value =
        serde_json::from_str(&text).with_context(|| format!("{} is no JSON", path.display()))?;
    let peers = facts["peers"].as_object().into_iter().flatten();
    let peers: Vec<_> = peers.map(|(name, _)| name.clone()).collect();
    let count = peers.len();
    let sites: Vec<_> = site::names().map(str::to_owned).chain(peers).collect();
    let ours = sites.iter().position(|site| site == site::OURS);
    let ours = ours.expect("it is always measured");
    let report = Report::read(&facts["readings"], sites, ours, count);
    let report = report.with_context(|| format!("{} has other rows", path.display()))?;
    Ok((report, facts))
}

/// Writes the tables, the pictures and every reading.
pub fn write(report: &Report, facts: &Value) -> anyhow::Result<()> {
    let directory = directory();
    fs::create_dir_all(&directory).with_context(|| format!("cannot make {DIRECTORY}"))?;
    let picture = |name: &str| directory.join(name);
    plot::bars(report, "requests", true, &picture("requests.svg"))?;
    plot::bars(report, "received", true, &picture("bulk.svg"))?;
    plot::bars(
        report,
        "CPU per request",
        false,
        &picture("cpu-per-request.svg"),
    )?;
    plot::bars(report, "CPU per GB", false, &picture("cpu-per-gb.svg"))?;
    plot::over_open(report, "new ones", &picture("open-new.svg"))?;
    plot::over_open(report, "median of another", &picture("open-median.svg"))?;
    let write = |name: &str, text: &str| {
        let path = directory.join(name);
        fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    write(RESULTS, &format!("{facts:#}\n"))?;
    write("README.md", &page(report, facts)?)?;
    quote(report, facts)?;
    println!("wrote {DIRECTORY} and what README.md quotes of it");
    Ok(())
}

/// Puts the figures that most ask for into the README of the project.
fn quote(report: &Report, facts: &Value) -> anyhow::Result<()> {
    const MARKS: [&str; 2] = [
        "<!-- written by cargo xtask bench -->\n",
        "<!-- until here -->\n",
    ];
    let path = workspace::root().join("README.md");
    let text =
        fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let parts = text.split_once(MARKS[0]).and_then(|(before, rest)| {
        let (_, after) = rest.split_once(MARKS[1])?;
        Some((before, after))
    });
    let (before, after) = parts.with_context(|| format!("{} has no marks", path.display()))?;
    let [begin, end] = MARKS;
    let text = format!("{before}{begin}{}{end}{after}", quoted(report, facts)?);
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// How it is with each load, and what it takes.
fn quoted(report: &Report, facts: &Value) -> anyhow::Result<String> {
    const ROWS: [(&str, Option<&str>); 6] = [
        (
            "64 kept connections: requests",
            Some("64 kept connections: CPU per request"),
        ),
        ("1 kept connection: median", None),
        (
            "new connections: requests",
            Some("new connections: CPU per request"),
        ),
        (
            "bulk, one stream: received",
            Some("bulk, one stream: CPU per GB"),
        ),
        (
            "HTTP/2, 16 × 10 streams: requests",
            Some("HTTP/2, 16 × 10 streams: CPU per request"),
        ),
        ("8000 idle connections: memory for each and side", None),
    ];
    let kernel = facts["machine"]["kernel"].as_str().unwrap_or("unknown");
    let date = facts["run"]["date"].as_str().unwrap_or_default();
    let date = date.split(' ').next().unwrap_or_default();
    let spread = report.widest_spread(ROWS.map(|(what, _)| what));
    let mut text = format!(
        "{date}, Linux {kernel}; without and with sidecars readings lay up to {spread:.0} % to either side of their median:\n\n| load | direct | `off` | mutual TLS | of direct | of the best other proxy | CPU of both sidecars |\n|---|---|---|---|---|---|---|\n"
    );
    for (what, of_processor) in ROWS {
        let cells = report.cells(what, of_processor);
        let cells = cells.with_context(|| format!("{what} was not measured"))?;
        ensure!(
            !cells.iter().any(|cell| cell.contains('|')),
            "{cells:?} is no row"
        );
        writeln!(text, "| {what} | {} |", cells.join(" | "))?;
    }
    Ok(text)
}

fn page(report: &Report, facts: &Value) -> anyhow::Result<String> {
    let mut page = String::from("# Benchmarks\n\n");
    let (machine, run) = (&facts["machine"], &facts["run"]);
    let text = |value: &Value| value.as_str().unwrap_or("unknown").to_owned();
    writeln!(
        page,
        "Written by `cargo xtask {}` on {}: Linux {}, {}, {} cores of which clients and their proxies have one and \
         servers and theirs the other. All sites take turns in every round; the tables have medians, and half of what \
         lies between the lowest and the highest. Compare ratios of one run, not figures of two.\n\n{LOADS}",
        text(&run["arguments"]),
        text(&run["date"]),
        text(&machine["kernel"]),
        text(&machine["cpu"]),
        machine["cores"],
    )?;
    for (name, version) in facts["programs"].as_object().into_iter().flatten() {
        writeln!(page, "- {name}: {}", text(version))?;
    }
    for (name, peer) in facts["peers"].as_object().into_iter().flatten() {
        let (version, tls) = (text(&peer["version"]), text(&peer["tls"]));
        writeln!(page, "- {name}: {version}; {tls}")?;
    }
    for name in [
        "requests",
        "cpu-per-request",
        "bulk",
        "cpu-per-gb",
        "open-new",
        "open-median",
    ] {
        writeln!(page, "\n![{}]({name}.svg)", name.replace('-', " "))?;
    }
    writeln!(page, "\n## Medians\n\n{}", markdown(report.medians()))?;
    let ratios = markdown(report.ratios());
    writeln!(page, "\n## In relation to {}\n\n{ratios}", site::DIRECT)?;
    writeln!(
        page,
        "\nEvery reading is in [`results.json`](results.json)."
    )?;
    Ok(page)
}

fn markdown(mut table: Table) -> String {
    table.load_style(presets::ASCII_MARKDOWN);
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_say_what_was_measured() {
        let (report, facts) = last_run().expect("a run that was published");
        let read = |path: &str| fs::read_to_string(workspace::root().join(path)).expect(path);
        let page = page(&report, &facts).expect("a page");
        assert!(
            read("docs/benchmarks/README.md") == page,
            "`cargo xtask bench --redraw` writes it"
        );
        let quoted = quoted(&report, &facts).expect("a table");
        assert!(
            read("README.md").contains(&quoted),
            "`cargo xtask bench --redraw` writes it:\n{quoted}"
        );
    }
}
