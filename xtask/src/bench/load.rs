//! The loads, and what is read off them.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::{h2load, idle::Idle, paced, processes, site::Site};
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
pub const ALL: [Run; 10] = [
    one_connection,
    |site, seconds| kept_connections(site, seconds, 16),
    |site, seconds| kept_connections(site, seconds, 64),
    |site, seconds| kept_connections(site, seconds, 512),
    new_connections,
    |site, seconds| bulk(site, seconds, "bulk, one stream", &[]),
    |site, seconds| bulk(site, seconds, "bulk, 8 streams", &["--parallel", "8"]),
    |site, seconds| bulk(site, seconds, "bulk to the client", &["--reverse"]),
    |site, seconds| {
        let eight = ["--reverse", "--parallel", "8"];
        bulk(site, seconds, "bulk to the client, 8 streams", &eight)
    },
    multiplexed,
];

/// Those whose time is told apart by function.
pub const PROFILED: [(&str, Run); 4] = [
    ("kept-connections", |site, seconds| {
        kept_connections(site, seconds, 64)
    }),
    ("new-connections", new_connections),
    ("bulk", |site, seconds| bulk(site, seconds, "bulk", &[])),
    ("http2", multiplexed),
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
    let (load, cpu) = requests(site, seconds, 16, &CLOSING)?;
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

/// What it takes to hold connections. Run it before everything else: whoever has carried much holds on
/// to memory.
pub fn idle(site: &Site) -> anyhow::Result<Vec<Reading>> {
    if !site.has_proxies() {
        return Ok(Vec::new());
    }
    let memory = || site.pods().map(processes::memory);
    let before = memory();
    let held = site.work(|client| Idle::open(client, site.targets.http, IDLE))?;
    let with = memory();
    drop(held);
    // Of the two sides the larger one, and of as many proxies as a pod has each.
    let one = |of: fn(&processes::Memory) -> u64| {
        let larger = before.iter().map(of).max().unwrap_or_default();
        each(larger, site.proxies) / 1e6
    };
    let all = |of: [processes::Memory; 2]| of.map(|memory| memory.own).into_iter().sum::<u64>();
    let more = all(with).saturating_sub(all(before));
    Ok(vec![
        lower(
            "idle: memory of a proxy, its own",
            "MB",
            one(|memory| memory.own),
        ),
        lower(
            "idle: memory of a proxy, with its program's",
            "MB",
            one(|memory| memory.resident),
        ),
        lower(
            format!("{IDLE} idle connections: memory for each and side"),
            "KB",
            each(more, 2 * IDLE) / 1e3,
        ),
    ])
}

/// New connections, and one that is kept.
pub fn new_and_kept(site: &Site, seconds: u64, among: &str) -> anyhow::Result<Vec<Reading>> {
    let (new, _) = requests(site, seconds, 16, &CLOSING)?;
    let (kept, _) = requests(site, seconds, 1, &[])?;
    let median = milliseconds(kept.median) * 1e3;
    Ok(vec![
        higher(format!("{among}: new ones"), "1/s", new.rate),
        lower(format!("{among}: median of another"), "µs", median),
    ])
}

/// How it goes on while more and more connections are open.
pub fn ramp(site: &Site, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let mut readings = Vec::new();
    for open in OPEN {
        let held = site.work(|client| Idle::open(client, site.targets.http, open))?;
        let among = format!("{open} open connections");
        readings.extend(new_and_kept(site, seconds, &among)?);
        drop(held);
    }
    Ok(readings)
}

/// Latencies at a rate, in requests a second on 64 connections, that every site can bear.
pub fn at_rate(site: &Site, rate: f64, seconds: u64) -> anyhow::Result<Vec<Reading>> {
    let latencies = site.work(|client| paced::run_in(client, site.targets.http, rate, seconds))?;
    let paced::Latencies { p50, p99, p999 } = latencies;
    let quantiles = [("median", p50), ("99th percentile", p99), ("99.9th", p999)];
    let reading = |(name, micros): (_, u64)| {
        #[expect(clippy::cast_precision_loss, reason = "nothing takes that long")]
        lower(
            format!("at half the slowest's rate: {name}"),
            "µs",
            micros as f64,
        )
    };
    Ok(quantiles.map(reading).into())
}

/// System calls and the like, which are counted apart because counting slows down.
pub fn counts(site: &Site) -> anyhow::Result<Vec<Reading>> {
    if !site.has_proxies() {
        return Ok(Vec::new());
    }
    let mut readings = Vec::new();
    for (what, connections, arguments) in [
        ("64 kept connections", 64, &[][..]),
        ("new connections", 16, &CLOSING),
    ] {
        let load = || requests(site, 1, connections, arguments);
        let (load, counts) = processes::count(site.pods(), load)?;
        let requests = load?.0.requests;
        for (event, count) in [
            ("system calls", counts.calls),
            ("context switches", counts.switches),
        ] {
            let name = format!("{what}: {event} per request");
            readings.push(lower(name, "", each(count, requests)));
        }
    }
    Ok(readings)
}

/// How many connections are idle at once.
const IDLE: u32 = 8000;

/// How many are open when others are measured.
const OPEN: [u32; 5] = [10, 1000, 3000, 6000, 9000];

/// Has a server end the connection after each request.
const CLOSING: [&str; 2] = ["--header", "Connection: close"];

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

/// How many for each of `count`.
fn each(total: u64, count: u32) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "nothing is counted that far")]
    let total = total as f64;
    total / f64::from(count.max(1))
}

/// Microseconds for each of `count`.
fn per(cpu: Duration, count: u32) -> f64 {
    cpu.as_secs_f64() * 1e6 / f64::from(count.max(1))
}
