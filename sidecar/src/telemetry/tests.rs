//! `docs/metrics.md` says what the code does, no more and no less.

use std::collections::BTreeSet;

use sidecar_common::Event;

use super::*;
use crate::policy::authorization::{Decision, RuleName, Verdict};

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");

/// Words in code type that begin the rows of the table below a heading or a head row.
fn rows(after: &str) -> BTreeSet<&'static str> {
    let (_, table) = DOCUMENT
        .split_once(after)
        .unwrap_or_else(|| panic!("the document has no {after:?}"));
    table
        .lines()
        .skip_while(|line| !line.starts_with("| `"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('`').nth(1).expect("a word in code type"))
        .collect()
}

fn telemetry() -> Telemetry {
    let telemetry = Telemetry::new(Options::default()).expect("metrics of unique names");
    telemetry.identity_failed("files");
    let all = || Ok(Event::ALL.iter().map(|event| (*event, 1)).collect());
    let events = KernelEvents::new(all).expect("a metric");
    telemetry.watch_kernel(events).expect("a unique name");
    telemetry
}

#[test]
fn every_metric_is_documented() {
    let telemetry = telemetry();
    let address = "198.18.0.1:1".parse().expect("an address");
    let begin = || telemetry.begin(Direction::Outbound, ClientAddr(address), OrigDst(address));
    let mut carried = begin();
    carried.connect_took(std::time::Duration::ZERO);
    carried.handshake_took(std::time::Duration::ZERO);
    carried.tls(TlsUse::NoPeerOption);
    carried.established();
    carried.closed(Close::Eof, None);
    let mut denied = begin();
    denied.decided(&Decision {
        verdict: Verdict::Deny,
        rule: RuleName::of_default(),
        audits: vec![RuleName::of_default()],
    });
    denied.failed(Close::Denied);

    telemetry.reloaded(true);

    let text = telemetry.render().expect("metrics");
    let rendered: BTreeSet<_> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "))
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(rows("## Metrics of connections"), rendered);
}

#[test]
fn every_way_to_end_is_documented() {
    let mut documented = rows("| `close` | meaning |");
    documented.extend(rows("| `reason` | meaning |"));
    let known: BTreeSet<_> = Close::ALL.iter().map(|close| close.as_str()).collect();
    assert_eq!(documented, known);
}

#[test]
fn every_event_is_documented() {
    let known: BTreeSet<_> = Event::ALL.iter().map(|event| event.name()).collect();
    assert_eq!(rows("| `event` | meaning |"), known);
}
