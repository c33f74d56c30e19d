//! `cargo xtask bench`

mod adapter;
mod credentials;
mod flame;
mod growth;
mod h2load;
mod idle;
mod load;
mod machine;
pub mod paced;
mod peer;
mod plot;
mod processes;
mod publish;
mod quiet;
mod report;
mod site;

use std::{
    collections::HashSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use self::{adapter::Adapter, peer::Peer, report::Report, site::Site};
use crate::{
    build,
    command::{run as run_command, step},
    nginx, setup, workspace,
};

/// Measure what the sidecar costs: mutual TLS, and the sidecar switched off, against no sidecar
///
/// The sites take turns in every round, so that whatever else the machine does hits all of them
/// alike. Compare the ratios within one run, not the numbers of two.
#[derive(clap::Args)]
pub struct Options {
    /// How often each load runs at each site
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long each load runs
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Also write every reading to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Also write tables, plots and every reading to docs/benchmarks
    #[arg(long)]
    publish: bool,
    /// Measure nothing: write tables and plots again, out of the readings in docs/benchmarks
    #[arg(long, exclusive = true)]
    redraw: bool,
    /// Compare with other proxies, too, as two-sided chains of mutual TLS
    #[arg(long)]
    peers: bool,
    /// Compare with the proxy that this file describes, as those in xtask/peers do
    #[arg(long = "peer", value_name = "FILE")]
    others: Vec<PathBuf>,
}

/// What the loads are made with, by path and Debian package.
const PROGRAMS: [(&str, &str); 9] = [
    ("/usr/bin/h2load", "nghttp2-client"),
    ("/usr/bin/iperf3", "iperf3"),
    ("/usr/bin/perf", "linux-perf"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/wrk", "wrk"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/iptables-save", "iptables"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/nginx", "nginx-light"),
];

/// More than this share of the machine in other hands bends the ratios: what runs more programs of
/// its own then gets more of it.
const QUIET: f64 = 0.05;

/// Names the daemon that runs in the pods, by an absolute path.
const VARIABLE: &str = "SIDECAR_BIN";

pub fn run(options: &Options) -> anyhow::Result<()> {
    if options.redraw {
        return publish::again();
    }
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark makes network namespaces and loads kernel programs: run it as root");
    }
    setup::programs(&PROGRAMS)?;
    if env::var_os(VARIABLE).is_none() {
        return with_release_build();
    }
    let peers = peers(options)?;
    let busy = step("see whether the machine is quiet", quiet::busy)?;
    let sites = step("make the pods of every site", || Site::all(&peers))?;
    let mut report = empty_report(&sites, peers.len());
    step("hold idle connections", || {
        each_site(&sites, &mut report, load::idle);
        Ok(())
    })?;
    step("warm up", || round(&sites, 1, &mut empty_report(&sites, 0)))?;
    for number in 1..=options.rounds {
        step(&format!("round {number} of {}", options.rounds), || {
            round(&sites, options.seconds, &mut report)
        })?;
    }
    step("keep to a rate", || {
        let slowest = report.lowest("64 kept connections: requests");
        let rate = slowest.context("nothing was measured")? / 2.0;
        each_site(&sites, &mut report, |site| {
            load::at_rate(site, rate, options.seconds)
        });
        Ok(())
    })?;
    step("measure among more and more connections", || {
        let ramp = |site: &Site| match &*site.name {
            site::DIRECT | site::OURS => load::ramp(site, options.seconds.min(2)),
            _ => Ok(Vec::new()),
        };
        each_site(&sites, &mut report, ramp);
        Ok(())
    })?;
    step("measure with many rules and many destinations", || {
        let ours = sites.iter().position(|site| site.name == site::OURS);
        let ours = ours.expect("it is always measured");
        growth::measure(options.rounds, options.seconds, ours, &mut report)
    })?;
    step("count system calls", || {
        each_site(&sites, &mut report, load::counts);
        Ok(())
    })?;
    let (medians, ratios) = (report.medians(), report.ratios());
    println!("{medians}\nIn relation to {}:\n{ratios}", site::DIRECT);
    for Peer { adapter, .. } in &peers {
        println!("{}: {}", adapter.name, adapter.tls);
    }
    if busy > QUIET {
        println!(
            "‼ other work took {:.0} % of the machine: do not trust it",
            busy * 100.0
        );
    }
    let arguments: Vec<_> = env::args().skip(1).collect();
    let facts = json!({
        "run": {
            "arguments": arguments.join(" "),
            "date": jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
        },
        "machine": machine::describe(),
        "programs": versions(),
        "peers": peer_versions(&peers),
        "readings": report.json(),
    });
    if let Some(path) = &options.json {
        fs::write(path, facts.to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    if options.publish {
        publish::write(&report, &facts)?;
        let ours = sites.iter().find(|site| site.name == site::OURS);
        flame::draw(
            ours.expect("it is always measured"),
            3,
            &publish::directory(),
        )?;
    }
    Ok(())
}

/// One load at every site, once. What a site cannot bear is said, and missing from the report.
fn each_site(
    sites: &[Site],
    report: &mut Report,
    mut load: impl FnMut(&Site) -> anyhow::Result<Vec<load::Reading>>,
) {
    for (column, site) in sites.iter().enumerate() {
        match load(site) {
            Ok(readings) => report.add(column, readings),
            Err(error) => println!("‼ with {}: {error:#}", site.name),
        }
    }
}

/// Builds the daemon as it is shipped, and starts this command again with that.
fn with_release_build() -> anyhow::Result<()> {
    build::run(build::Options {
        release: true,
        ..build::Options::default()
    })?;
    run_command(
        Command::new(env::current_exe().context("cannot find this program")?)
            .args(env::args_os().skip(1))
            .env(VARIABLE, workspace::target().join("release/sidecar")),
    )
}

/// The proxies to compare with. Of the project's own, those that cannot be had are left out.
fn peers(options: &Options) -> anyhow::Result<Vec<Peer>> {
    let mut peers = Vec::new();
    if options.peers {
        for adapter in Adapter::all()? {
            let name = adapter.name.clone();
            match Peer::install(adapter) {
                Ok(peer) => peers.push(peer),
                Err(error) => println!("‼ without {name}: {error:#}"),
            }
        }
    }
    for file in &options.others {
        let adapter = Adapter::read(file)?;
        let peer = Peer::install(adapter);
        peers.push(peer.with_context(|| format!("cannot use the adapter {}", file.display()))?);
    }
    let mut names = site::names().collect::<HashSet<_>>();
    for Peer { adapter, .. } in &peers {
        ensure!(
            names.insert(&adapter.name),
            "`name` says {:?}, as something else that is measured is called",
            adapter.name
        );
    }
    Ok(peers)
}

fn empty_report(sites: &[Site], peers: usize) -> Report {
    let ours = sites.iter().position(|site| site.name == site::OURS);
    let names = sites.iter().map(|site| site.name.clone()).collect();
    Report::new(names, ours.expect("it is always measured"), peers)
}

/// What each program says of itself, but for the peers.
fn versions() -> Value {
    let own = env::var_os(VARIABLE).unwrap_or_default();
    [
        ("sidecar", Path::new(&own), "--version"),
        ("nginx", Path::new(nginx::PROGRAM), "-v"),
        ("wrk", Path::new("/usr/bin/wrk"), "-v"),
        ("h2load", Path::new("/usr/bin/h2load"), "--version"),
        ("iperf3", Path::new("/usr/bin/iperf3"), "--version"),
    ]
    .into_iter()
    .map(|(name, path, argument)| (name.to_owned(), json!(machine::version(path, &[argument]))))
    .collect()
}

/// What each peer says of itself, and what its adapter says of its TLS.
fn peer_versions(peers: &[Peer]) -> Value {
    peers
        .iter()
        .map(|Peer { adapter, program }| {
            let version = machine::version(program, &adapter.version);
            let facts = json!({ "version": version, "tls": adapter.tls });
            (adapter.name.clone(), facts)
        })
        .collect()
}

/// Every load at every site.
fn round(sites: &[Site], seconds: u64, report: &mut Report) -> anyhow::Result<()> {
    for load in load::ALL {
        for (column, site) in sites.iter().enumerate() {
            let readings = load(site, seconds).with_context(|| format!("with {}", site.name))?;
            report.add(column, readings);
        }
    }
    Ok(())
}
