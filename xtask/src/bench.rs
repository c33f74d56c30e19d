//! `cargo xtask bench`

mod load;
mod quiet;
mod report;
mod site;

use std::{env, fs, path::PathBuf, process::Command};

use anyhow::{Context as _, bail};

use self::{report::Report, site::Site};
use crate::{
    build,
    command::{run as run_command, step},
    setup, workspace,
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
}

/// What the loads are made with, by path and Debian package.
const PROGRAMS: [(&str, &str); 6] = [
    ("/usr/bin/iperf3", "iperf3"),
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
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark makes network namespaces and loads kernel programs: run it as root");
    }
    setup::programs(&PROGRAMS)?;
    if env::var_os(VARIABLE).is_none() {
        return with_release_build();
    }
    let busy = step("see whether the machine is quiet", quiet::busy)?;
    let sites = step("make the pods of every site", Site::all)?;
    let mut report = Report::default();
    step("warm up", || round(&sites, 1, &mut Report::default()))?;
    for number in 1..=options.rounds {
        step(&format!("round {number} of {}", options.rounds), || {
            round(&sites, options.seconds, &mut report)
        })?;
    }
    println!("{}", report.table());
    if busy > QUIET {
        println!(
            "‼ other work took {:.0} % of the machine: do not trust it",
            busy * 100.0
        );
    }
    if let Some(path) = &options.json {
        fs::write(path, report.json().to_string())
            .with_context(|| format!("cannot write {}", path.display()))?;
    }
    Ok(())
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

/// Every load at every site.
fn round(sites: &[Site], seconds: u64, report: &mut Report) -> anyhow::Result<()> {
    for load in load::ALL {
        for (column, site) in sites.iter().enumerate() {
            let readings =
                load(site, seconds).with_context(|| format!("with {}", site::NAMES[column]))?;
            report.add(column, readings);
        }
    }
    Ok(())
}
