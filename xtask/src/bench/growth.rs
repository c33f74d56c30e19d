//! What a sidecar costs whose rules are many, or which talks to many.

use std::{fmt::Write as _, net::Ipv4Addr};

use anyhow::Context as _;
use sidecar_tests::Pod;

use super::{
    load::{self, Better, Reading},
    report::Report,
    site::{self, ONE_WORKER, Site},
};

/// How many networks are excluded, none of which anybody is in.
const EXCLUSIONS: u32 = 10_000;

/// How many rules there are, of which only the last one lets the client in.
const RULES: u32 = 1_000;

/// How many addresses the server has.
const DESTINATIONS: u32 = 10_000;

/// Where they begin: 198.19.0.0/16 is for benchmarks, as RFC 2544 has it.
const FIRST: Ipv4Addr = Ipv4Addr::new(198, 19, 0, 1);

/// Connects to each of them in turn, and prints how many of the first and of the last tenth could be
/// reached in a second.
const SCRIPT: &str = include_str!("destinations.py");

/// Measures it in turns with a sidecar that has no rules, and adds that to `report` in the column of ours.
pub fn measure(
    rounds: u32,
    seconds: u64,
    column: usize,
    report: &mut Report,
) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a directory")?;
    let file = directory.path().join("sidecar.yaml");
    std::fs::write(&file, many_rules()).context("cannot write settings")?;
    let file = file.to_str().context("a directory of odd characters")?;
    let cores = site::two_cores()?;
    let flags = [&ONE_WORKER[..], &["--config", file]].concat();
    let none = Site::meshed(cores, "no rules", &ONE_WORKER, Some(&ONE_WORKER));
    let many = Site::meshed(cores, "many rules", &flags, Some(&flags));
    let name = format!("{EXCLUSIONS} exclusions and {RULES} rules");
    for _ in 0..rounds {
        for (site, among) in [(&none, "no exclusions and no rules"), (&many, &name)] {
            report.add(column, load::new_and_kept(site, seconds, among)?);
        }
    }
    report.add(column, destinations(&none)?);
    Ok(())
}

/// Settings for either side.
fn many_rules() -> String {
    let mut text = String::from("exclude-outbound-cidrs:\n");
    for number in 0..EXCLUSIONS {
        let network = Ipv4Addr::from_bits(Ipv4Addr::new(10, 0, 0, 0).to_bits() + number * 16);
        let _ = writeln!(text, "- {network}/28");
    }
    text.push_str("authorization:\n  default: deny\n  rules:\n");
    for number in 1..RULES {
        let _ = writeln!(
            text,
            "  - {{ name: rule-{number}, action: allow, identities: [\"spiffe://sidecar.local/ns/{number}/*\"], ports: [8080] }}"
        );
    }
    text.push_str("  - { name: last, action: allow, ports: [8080] }\n");
    text
}

/// Connections to many addresses of one server, one after the other.
fn destinations(site: &Site) -> anyhow::Result<Vec<Reading>> {
    let [client, server] = site.pods();
    let network = format!("{}/16", Ipv4Addr::from_bits(FIRST.to_bits() & 0xffff_0000));
    let namespace = |pod: &Pod, command: &str| pod.sandbox().namespace().ip(command);
    namespace(server, &format!("route add local {network} dev lo"));
    namespace(client, &format!("route add {network} via {}", server.v4()));
    let output = site.work(|client| {
        let program = client.program("/usr/bin/python3").args(["-c", SCRIPT]);
        let port = site.targets.http.port().to_string();
        program
            .args([&FIRST.to_string(), &DESTINATIONS.to_string(), &port])
            .deadline(std::time::Duration::from_mins(5))
            .succeed()
    });
    let rates: [f64; 2] = serde_json::from_str(&output).context("the script printed no rates")?;
    let reading = |(which, value)| Reading {
        what: format!("{DESTINATIONS} destinations, one after the other: {which} tenth"),
        unit: "1/s",
        better: Better::Higher,
        value,
    };
    Ok(["first", "last"]
        .into_iter()
        .zip(rates)
        .map(reading)
        .collect())
}
