//! The loads, and what is read off them.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{h2load, site::Site};
use crate::{
    nginx,
    wrk::{self, Load},
};

/// One number of one load.
#[derive(Debug, PartialEq)]
pub struct Reading {
    /// What was measured, unlike anything else. CPU is the processor time of the sidecars, or of the
    /// peer, on both sides.
    pub what: String,
    /// In what unit.
    pub unit: &'static str,
    /// Which of two readings is the better one.
    pub better: Better,
    pub value: f64,
}

/// Which of two readings is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// The higher one.
    Higher,
    /// The lower one.
    Lower,
}

/// Runs a load at a site for some seconds.
type Run = fn(&Site, u64) -> anyhow::Result<Vec<Reading>>;

/// Every load: requests on connections that are kept, on one, and on new ones; bulk; and requests
/// that share connections.
pub const ALL: [Run; 9] = [
    one_connection,
    |site, seconds| kept_connections(site, seconds, 16),
    |site, seconds| kept_connections(site, seconds, 64),
    |site, seconds| kept_connections(site, seconds, 512),
    new_connections,
    |site, seconds| bulk(site, seconds, "bulk, one stream", &[]),
    |site, seconds| bulk(site, seconds, "bulk, 8 streams", &["--parallel", "8"]),
    |site, seconds| bulk(site, seconds, "bulk to the client", &["--reverse"]),
    multiplexed,
];

fn kept_connections(site: &Site, seconds: u64, count: u32) -> anyhow::Result<Vec<Reading>> {
    let (load, cpu) = requests(site, seconds, count, &[])?;
    let what = |what| format!("{count} kept connections: {what}");
    Ok(vec![
        higher(what("requests"), "1/s", load.rate),
        lower(what("99th percentile"), "ms", milliseconds(load.p99)),
        lower(what("CPU per request"), "µs", per(cpu, load.requests)),
    ])
}

fn one_connection(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let (load, _) = requests(site, seconds, 1, &[])?;
    let median = milliseconds(load.median) * 1e3;
    Ok(vec![lower("1 kept connection: median", "µs", median)])
}

fn new_connections(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let (load, cpu) = requests(site, seconds, 16, &["--header", "Connection: close"])?;
    Ok(vec![
        higher("new connections: requests", "1/s", load.rate),
        lower(
            "new connections: CPU per request",
            "µs",
            per(cpu, load.requests),
        ),
    ])
}

/// HTTP/2 as gRPC uses it: few connections, on each of which several requests are under way.
fn multiplexed(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let (load, cpu) = site.meter(|client| {
        h2load::run(
            client,
            seconds,
            &[
                "-c",
                "16",
                "-m",
                "10",
                &nginx::empty_page(site.targets.http2),
            ],
        )
    });
    ensure!(
        load.failed == 0,
        "{} of {} requests failed",
        load.failed,
        load.requests
    );
    Ok(vec![
        higher("HTTP/2, 16 × 10 streams: requests", "1/s", load.rate),
        lower(
            "HTTP/2, 16 × 10 streams: CPU per request",
            "µs",
            per(cpu, load.requests),
        ),
    ])
}

fn bulk(site: &Site, seconds: u64, name: &str, arguments: &[&str]) -> anyhow::Result<Vec<Reading>> {
    let iperf3 = site.targets.iperf3;
    let (output, cpu) = site.meter(|client| {
        client
            .program("/usr/bin/iperf3")
            .args(["--json", "--client", &iperf3.ip().to_string()])
            .args(["--port", &iperf3.port().to_string()])
            .args(arguments)
            .args(["--time", &seconds.to_string()])
            .deadline(Duration::from_secs(seconds + 30))
            .succeed()
    });
    let report: serde_json::Value =
        serde_json::from_str(&output).context("iperf3 did not print JSON")?;
    let received = &report["end"]["sum_received"];
    let [rate, bytes] = ["bits_per_second", "bytes"].map(|field| received[field].as_f64());
    let (rate, bytes) = rate.zip(bytes).context("iperf3 received nothing")?;
    let seconds = cpu.as_secs_f64() / (bytes / 1e9);
    Ok(vec![
        higher(format!("{name}: received"), "Gbit/s", rate / 1e9),
        lower(format!("{name}: CPU per GB"), "s", seconds),
    ])
}

fn requests(
    site: &Site,
    seconds: u64,
    connections: u32,
    arguments: &[&str],
) -> anyhow::Result<(Load, Duration)> {
    let page = nginx::empty_page(site.targets.http);
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

fn higher(what: impl Into<String>, unit: &'static str, value: f64) -> Reading {
    Reading {
        what: what.into(),
        unit,
        better: Better::Higher,
        value,
    }
}

fn lower(what: impl Into<String>, unit: &'static str, value: f64) -> Reading {
    Reading {
        better: Better::Lower,
        ..higher(what, unit, value)
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// Microseconds for each of `count`.
fn per(cpu: Duration, count: u32) -> f64 {
    cpu.as_secs_f64() * 1e6 / f64::from(count.max(1))
}
