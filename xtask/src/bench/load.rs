//! The loads, and what is read off them.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::site::Site;
use crate::{
    nginx,
    wrk::{self, Load},
};

/// One number of one load.
#[derive(Debug, PartialEq)]
pub struct Reading {
    /// What was measured, unlike anything else. CPU is the processor time of both sidecars.
    pub what: &'static str,
    /// In what unit.
    pub unit: &'static str,
    pub value: f64,
}

/// Runs a load at a site for some seconds.
type Run = fn(&Site, u64) -> anyhow::Result<Vec<Reading>>;

/// Every load: requests on connections that are kept, on one, and on new ones; and bulk.
pub const ALL: [Run; 4] = [kept_connections, one_connection, new_connections, bulk];

fn kept_connections(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let (load, cpu) = requests(site, seconds, 64, &[])?;
    Ok(vec![
        reading("64 kept connections: requests", "1/s", load.rate),
        reading(
            "64 kept connections: 99th percentile",
            "ms",
            milliseconds(load.p99),
        ),
        reading(
            "64 kept connections: CPU per request",
            "µs",
            per(cpu, load.requests),
        ),
    ])
}

fn one_connection(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let (load, _) = requests(site, seconds, 1, &[])?;
    let median = milliseconds(load.median) * 1e3;
    Ok(vec![reading("1 kept connection: median", "µs", median)])
}

fn new_connections(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let (load, cpu) = requests(site, seconds, 16, &["--header", "Connection: close"])?;
    Ok(vec![
        reading("new connections: requests", "1/s", load.rate),
        reading(
            "new connections: CPU per request",
            "µs",
            per(cpu, load.requests),
        ),
    ])
}

fn bulk(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let (output, cpu) = site.meter(|client| {
        client
            .program("/usr/bin/iperf3")
            .args(["--json", "--client", &site.server().v4().to_string()])
            .args(["--time", &seconds.to_string()])
            .deadline(Duration::from_secs(seconds + 30))
            .succeed()
    });
    let report: serde_json::Value =
        serde_json::from_str(&output).context("iperf3 did not print JSON")?;
    let received = &report["end"]["sum_received"];
    let [rate, bytes] = ["bits_per_second", "bytes"].map(|field| received[field].as_f64());
    let (rate, bytes) = rate.zip(bytes).context("iperf3 received nothing")?;
    Ok(vec![
        reading("bulk, one stream: received", "Gbit/s", rate / 1e9),
        reading(
            "bulk, one stream: CPU per GB",
            "s",
            cpu.as_secs_f64() / (bytes / 1e9),
        ),
    ])
}

fn requests(
    site: &Site,
    seconds: u64,
    connections: u32,
    arguments: &[&str],
) -> anyhow::Result<(Load, Duration)> {
    let page = nginx::empty_page(site.server());
    let arguments = [arguments, &[&page]].concat();
    let (load, cpu) = site.meter(|client| wrk::run(client, seconds, connections, &arguments));
    ensure!(
        load.errors == 0,
        "{} of {} requests failed",
        load.errors,
        load.requests
    );
    Ok((load, cpu))
}

fn reading(what: &'static str, unit: &'static str, value: f64) -> Reading {
    Reading { what, unit, value }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Microseconds for each of `count`.
fn per(cpu: Duration, count: u32) -> f64 {
    cpu.as_secs_f64() * 1e6 / f64::from(count.max(1))
}
