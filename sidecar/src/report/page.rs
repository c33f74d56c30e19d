use std::collections::BTreeMap;

use maud::{DOCTYPE, Markup, PreEscaped, html};

use super::{
    Report,
    flow::{Flow, Leg, Parties},
    format,
    health::{Failure, Health},
    histogram::{Basis, Histogram},
    network::{Network, Node},
    picture::picture,
    plot::{self, Curve},
};

const STYLE: &str = include_str!("page.css");

/// Where figures stand that are older than the first scrape.
const SINCE_START: &str = "*";

pub(super) fn page(report: &Report) -> Markup {
    let flows = Flow::all(&report.pairs);
    let network = Network::of(&flows);
    let health: Vec<_> = report.pairs.iter().map(Health::of).collect();
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                // A browser asks for an icon of its own accord otherwise.
                link rel="icon" href="data:,";
                title { "sidecar report" }
                style { (PreEscaped(STYLE)) }
            }
            body {
                header {
                    h1 { "Who talks to whom" }
                    p {
                        (format::number(interval(report))) " seconds until "
                        time datetime=(report.at) { (format!("{:.0}", report.at)) }
                        ", as " (count(health.len(), "sidecar")) " counted them."
                    }
                }
                main {
                    (tiles(report, &flows, &health))
                    section {
                        h2 { "Service graph" }
                        @if network.edges.is_empty() {
                            p.empty { "No connection has been opened yet." }
                        } @else {
                            div.wide { (picture(&network)) }
                            ul.legend {
                                li { span.line.mutual {} "mutual TLS: both identities are proved" }
                                li { span.line.plain {} "plaintext: the other side has no sidecar" }
                            }
                        }
                    }
                    (golden_signals(&flows))
                    (latency(&flows))
                    (encryption(&flows))
                    (failures(report))
                    (sidecars(report, &health))
                    (kernel(&flows))
                }
                footer {
                    p { "* Nothing was counted between the scrapes: since the sidecar's start. Percentiles are read off "
                        "the buckets of histograms, as Prometheus does." }
                }
            }
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Sums over all flows; of two sidecars that count the same, the client's.
fn overall(flows: &BTreeMap<Parties, Flow>) -> Flow {
    let network = Network::of(flows);
    let mut all = Flow::default();
    for edge in network.edges {
        all.requests.add(edge.flow.requests);
        all.failed.add(edge.flow.failed);
        all.opened.add(edge.flow.opened);
        all.duration.merge(&edge.flow.duration);
    }
    all
}

fn tiles(report: &Report, flows: &BTreeMap<Parties, Flow>, health: &[Health<'_>]) -> Markup {
    let all = overall(flows);
    let coverage = coverage(flows.iter());
    let now = report.at.as_second();
    #[expect(clippy::cast_precision_loss, reason = "seconds far below 2^52")]
    let left = health
        .iter()
        .filter_map(|health| health.expiry)
        .map(|expiry| expiry - now as f64);
    let left = left.reduce(f64::min);
    let is_bad = |bad: bool| if bad { "tile bad" } else { "tile" };
    let success = all.success();
    html! {
        dl.tiles {
            div.tile { dt { "Requests" } dd { (format::number(all.requests.rate)) small { " /s" } } }
            div class=(is_bad(success.is_some_and(|share| share < 0.99))) {
                dt { "Succeeded" } dd { (format::or_nothing(success, format::percent)) }
            }
            div.tile { dt { "p99 latency" } dd { (quantile(&all.duration, 0.99)) } }
            div class=(if coverage.is_some_and(|share| share < 1.0) { "tile warn" } else { "tile" }) {
                dt { "In mutual TLS" } dd { (format::or_nothing(coverage, format::percent)) small { " of connections" } }
            }
            div class=(is_bad(left.is_none_or(|left| left < 900.0))) {
                dt { "Next certificate" } dd { (format::or_nothing(left, expires_in)) small { " left" } }
            }
        }
    }
}

fn expires_in(left: f64) -> String {
    if left > 0.0 {
        format::span(left)
    } else {
        "0 s".into()
    }
}

/// The time between two scrapes, in seconds: the longest, if they differ.
fn interval(report: &Report) -> f64 {
    let intervals = report.pairs.iter().map(|pair| pair.interval);
    intervals.max().unwrap_or_default().as_secs_f64()
}

/// A percentile, marked if it is older than the first scrape.
fn quantile(histogram: &Histogram, share: f64) -> String {
    quantile_as(histogram, share, format::seconds)
}

fn quantile_as(histogram: &Histogram, share: f64, format: fn(f64) -> String) -> String {
    let value = format::or_nothing(histogram.quantile(share), format);
    match histogram.basis() {
        Some(Basis::Start) => format!("{value}{SINCE_START}"),
        _ => value,
    }
}

/// Share of opened connections in mutual TLS: between the scrapes, or since the start.
fn coverage<'a>(flows: impl Iterator<Item = (&'a Parties, &'a Flow)> + Clone) -> Option<f64> {
    share(flows.clone(), |flow| flow.opened.increase)
        .or_else(|| share(flows, |flow| flow.opened.total))
}

fn share<'a>(
    flows: impl Iterator<Item = (&'a Parties, &'a Flow)> + Clone,
    of: impl Fn(&Flow) -> f64,
) -> Option<f64> {
    let all: f64 = flows.clone().map(|(_, flow)| of(flow)).sum();
    let mutual = flows.filter(|(parties, _)| parties.is_mutual());
    let mutual: f64 = mutual.map(|(_, flow)| of(flow)).sum();
    (all > 0.0).then(|| mutual / all)
}

/// Who it is, with the whole identity for those who ask.
fn identity(id: &str) -> Markup {
    if id.is_empty() {
        return html! { span.muted { "not proved" } };
    }
    let node = Node::Workload(id.to_owned());
    html! { span title=(id) { (node.name()) } }
}

/// The first columns of tables of flows.
fn who(parties: &Parties) -> Markup {
    html! {
        th scope="row" { (identity(&parties.own)) }
        td { (parties.direction) }
        td { (identity(&parties.peer)) }
        td { @if parties.is_mutual() { span.badge.good { "mutual TLS" } } @else { span.badge.warn { (parties.tls) } } }
    }
}

fn who_head() -> Markup {
    html! {
        th scope="col" { "Workload" }
        th scope="col" { "Direction" }
        th scope="col" { "Peer" }
        th scope="col" { "Encryption" }
    }
}

fn golden_signals(flows: &BTreeMap<Parties, Flow>) -> Markup {
    html! {
        section {
            h2 { "Golden signals" }
            div.wide { table {
                caption { "Rate, errors, latency and saturation, as the sidecar of each workload counts them" }
                thead { tr {
                    (who_head())
                    @for head in ["req/s", "ok", "p50", "p95", "p99", "first byte p99", "in flight", "conn/s", "open", "traffic"] {
                        th.number scope="col" { (head) }
                    }
                } }
                tbody {
                    @for (parties, flow) in flows { tr {
                        (who(parties))
                        td.number { (format::number(flow.requests.rate)) }
                        td.number { (format::or_nothing(flow.success(), format::percent)) }
                        @for share in [0.5, 0.95, 0.99] { td.number { (quantile(&flow.duration, share)) } }
                        td.number { (quantile(&flow.first_byte, 0.99)) }
                        td.number { (format::number(flow.in_flight)) }
                        td.number { (format::number(flow.opened.rate)) }
                        td.number { (format::number(flow.open())) }
                        td.number { (format::bytes(flow.bytes.rate)) "/s" }
                    } }
                }
            } }
        }
    }
}

fn title(parties: &Parties) -> String {
    let peer = if parties.peer.is_empty() {
        "no identity".to_owned()
    } else {
        Node::Workload(parties.peer.clone()).name().to_owned()
    };
    let own = Node::Workload(parties.own.clone());
    let arrow = if parties.direction == "inbound" {
        "←"
    } else {
        "→"
    };
    format!("{} {arrow} {peer}", own.name())
}

fn latency(flows: &BTreeMap<Parties, Flow>) -> Markup {
    let plots: Vec<_> = flows
        .iter()
        .enumerate()
        .filter_map(|(number, (parties, flow))| {
            let title = title(parties);
            let description = format!(
                "Share of the {} requests that took at most so long. Whole: {}. First byte: {}.",
                parties.direction,
                plot::quantiles(&flow.duration),
                plot::quantiles(&flow.first_byte)
            );
            let curves = [("whole", &flow.duration), ("first byte", &flow.first_byte)]
                .map(|(name, histogram)| Curve { name, histogram });
            let plot = plot::curves(number, &title, &description, &curves)?;
            Some((title, &*parties.direction, plot))
        })
        .collect();
    figures("Latency", "No request has been seen yet.", &plots)
}

fn figures(heading: &str, empty: &str, plots: &[(String, &str, Markup)]) -> Markup {
    html! {
        section {
            h2 { (heading) }
            @if plots.is_empty() { p.empty { (empty) } }
            div.figures { @for (title, what, plot) in plots {
                figure {
                    figcaption { (title) " " small { (what) } }
                    (plot)
                }
            } }
        }
    }
}

fn encryption(flows: &BTreeMap<Parties, Flow>) -> Markup {
    let mut rows: BTreeMap<(&str, &str), Flow> = BTreeMap::new();
    for (parties, flow) in flows {
        let row = rows.entry((&parties.direction, &parties.tls)).or_default();
        row.opened.add(flow.opened);
        row.bytes.add(flow.bytes);
    }
    let share_of = |direction: &str, value: f64, of: fn(&Flow) -> f64| {
        let all: f64 = rows
            .iter()
            .filter(|((other, _), _)| *other == direction)
            .map(|(_, flow)| of(flow))
            .sum();
        if all > 0.0 { value / all } else { 0.0 }
    };
    html! {
        section {
            h2 { "Encryption" }
            div.wide { table {
                caption { "Connections since each sidecar's start, by whether they are encrypted or why not" }
                thead { tr {
                    th scope="col" { "Direction" } th scope="col" { "Encryption" }
                    th.number scope="col" { "connections" } th scope="col" { "share" }
                    th.number scope="col" { "conn/s now" } th.number scope="col" { "bytes" }
                } }
                tbody { @for ((direction, tls), row) in &rows {
                    @let part = share_of(direction, row.opened.total, |flow| flow.opened.total);
                    tr {
                        th scope="row" { (direction) }
                        td { span class=(if *tls == "mutual" { "badge good" } else { "badge warn" }) {
                            (if *tls == "mutual" { "mutual TLS" } else { tls }) } }
                        td.number { (format::number(row.opened.total)) }
                        td { div.bar { div class=(if *tls == "mutual" { "good" } else { "warn" }) style={ "width:" (format!("{:.1}", part * 100.0)) "%" } {} }
                            " " (format::percent(part)) }
                        td.number { (format::number(row.opened.rate)) }
                        td.number { (format::bytes(row.bytes.total)) }
                    }
                } }
            } }
        }
    }
}

fn failures(report: &Report) -> Markup {
    let failures = Failure::all(&report.pairs);
    html! {
        section {
            h2 { "What went wrong" }
            @if failures.is_empty() { p.empty { "Nothing has." } } @else {
                div.wide { table {
                    caption { "By code, of all sidecars together; " code { "sidecar explain" } " says what a code means and what to do" }
                    thead { tr {
                        th scope="col" { "What" } th scope="col" { "Direction" } th scope="col" { "Code" }
                        th.number scope="col" { "just now" } th.number scope="col" { "since the start" }
                    } }
                    tbody { @for (failure, count) in &failures { tr {
                        th scope="row" { (failure.what) }
                        td { (failure.direction) }
                        td { code { (failure.code) } @if !failure.is_code() { small { " (sidecar policy explain)" } } }
                        td.number { (format::number(count.increase)) }
                        td.number { (format::number(count.total)) }
                    } } }
                } }
            }
        }
    }
}

fn sidecars(report: &Report, health: &[Health<'_>]) -> Markup {
    #[expect(clippy::cast_precision_loss, reason = "seconds far below 2^52")]
    let now = report.at.as_second() as f64;
    html! {
        section {
            h2 { "Sidecars" }
            div.wide { table {
                caption { "Certificates and settings" }
                thead { tr {
                    th scope="col" { "Scraped from" } th scope="col" { "Identity" } th scope="col" { "Certificate" }
                    th.number scope="col" { "rotations" } th scope="col" { "Settings" }
                } }
                tbody { @for health in health { tr {
                    th scope="row" { (health.source) }
                    td { (health.own.unwrap_or(format::NOTHING)) }
                    td { @match health.expiry {
                        None => span.badge.bad { "none yet" },
                        Some(expiry) if expiry <= now => span.badge.bad { "expired" },
                        Some(expiry) if expiry - now < 900.0 => span.badge.warn { "expires in " (format::span(expiry - now)) },
                        Some(expiry) => span.badge.good { "expires in " (format::span(expiry - now)) },
                    } }
                    td.number { (format::number(health.rotations)) }
                    td { @if health.has_settings { span.badge.good { "as last read" } } @else { span.badge.bad { "refused" } } }
                } } }
            } }
        }
    }
}

fn kernel(flows: &BTreeMap<Parties, Flow>) -> Markup {
    let measured =
        |flow: &&Flow| flow.network.rtt.basis().is_some() || flow.app.rtt.basis().is_some();
    if !flows.values().any(|flow| measured(&flow)) {
        return html! { section { h2 { "Kernel" } p.empty { "The kernel has measured no connection yet." } } };
    }
    let rows = flows.iter().filter(|(_, flow)| measured(flow));
    let plots: Vec<_> = rows
        .clone()
        .enumerate()
        .filter_map(|(number, (parties, flow))| {
            let title = title(parties);
            let description = format!(
                "Smoothed round trips. Network: {}. App: {}.",
                plot::quantiles(&flow.network.rtt),
                plot::quantiles(&flow.app.rtt)
            );
            let curves = [("network", &flow.network.rtt), ("app", &flow.app.rtt)]
                .map(|(name, histogram)| Curve { name, histogram });
            let plot = plot::curves(flows.len() + number, &title, &description, &curves)?;
            Some((title, "round trips", plot))
        })
        .collect();
    html! {
        (figures("Kernel", "", &plots))
        section {
            div.wide { table {
                caption { "What TCP measured: on the network, and between the sidecar and its app" }
                thead { tr {
                    (who_head())
                    th scope="col" { "Leg" }
                    @for head in ["RTT p50", "RTT p99", "shortest p50", "window p50", "sent again", "per MB"] {
                        th.number scope="col" { (head) }
                    }
                } }
                tbody { @for (parties, flow) in rows {
                    @for (name, leg) in [("network", &flow.network), ("app", &flow.app)] {
                        tr { (who(parties)) td { (name) } (measured_leg(leg)) }
                    }
                } }
            } }
        }
    }
}

fn measured_leg(leg: &Leg) -> Markup {
    let per_megabyte = leg.retransmitted.total / leg.sent.total * 1e6;
    let per_megabyte = per_megabyte.is_finite().then_some(per_megabyte);
    html! {
        td.number { (quantile(&leg.rtt, 0.5)) }
        td.number { (quantile(&leg.rtt, 0.99)) }
        td.number { (quantile(&leg.min_rtt, 0.5)) }
        td.number { (quantile_as(&leg.window, 0.5, format::number)) }
        td.number { (format::number(leg.retransmitted.total)) }
        td.number { (format::or_nothing(per_megabyte, format::number)) }
    }
}

#[cfg(test)]
mod tests;
