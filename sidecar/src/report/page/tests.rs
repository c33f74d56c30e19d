//! The page as a whole, from a pair of scrapes that is kept.

use std::time::Duration;

use jiff::Timestamp;

use crate::report::{Pair, Report, Scrape};

const CLIENT: [&str; 2] = [
    include_str!("tests/client-before.prom"),
    include_str!("tests/client-after.prom"),
];
const SERVER: [&str; 2] = [
    include_str!("tests/server-before.prom"),
    include_str!("tests/server-after.prom"),
];
const PAGE: &str = include_str!("tests/page.html");

fn pair(source: &str, [before, after]: [&str; 2]) -> Pair {
    let scrape = |text| Scrape::parse(text).expect("a scrape");
    Pair {
        source: source.to_owned(),
        before: scrape(before),
        after: scrape(after),
        interval: Duration::from_secs(10),
    }
}

fn report(pairs: Vec<Pair>) -> String {
    let report = Report {
        at: Timestamp::from_second(1_800_000_000).expect("a time"),
        pairs,
    };
    report.html()
}

#[test]
fn the_page_of_a_pair_of_pods_is_what_it_was() {
    let html = report(vec![pair("client", CLIENT), pair("server", SERVER)]);
    if std::env::var_os("SIDECAR_UPDATE_GOLDEN").is_some() {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/src/report/page/tests/page.html"
        );
        return std::fs::write(path, &html).expect("writing the page that is kept");
    }
    let differs = html
        .bytes()
        .zip(PAGE.bytes())
        .position(|(new, old)| new != old);
    let at = differs.unwrap_or(html.len().min(PAGE.len()));
    let excerpt = |page: &str| {
        let bytes = &page.as_bytes()[at.saturating_sub(60)..page.len().min(at + 60)];
        String::from_utf8_lossy(bytes).into_owned()
    };
    assert!(
        html == PAGE,
        "{:?} was {:?}; if it should be so, run the test again with SIDECAR_UPDATE_GOLDEN=1",
        excerpt(&html),
        excerpt(PAGE)
    );
}

#[test]
fn the_page_asks_for_nothing_and_runs_nothing() {
    // Namespaces of XML are names, and are not fetched.
    let page = PAGE.replace("http://www.w3.org/", "");
    for forbidden in [
        "<script",
        "http:",
        "https:",
        "src=",
        "url(http",
        "@import",
        "javascript:",
    ] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
}

#[test]
fn what_sidecars_say_is_escaped() {
    let hostile = "<script>alert(1)</script>\\\" onload=\\\"x";
    let text = format!(
        "sidecar_connections_opened_total{{direction=\"outbound\",own=\"{hostile}\",peer=\"{hostile}\",tls=\"{hostile}\"}} 3\n\
         sidecar_connections_failed_total{{direction=\"{hostile}\",reason=\"{hostile}\"}} 3\n\
         sidecar_http_request_duration_seconds_bucket{{direction=\"outbound\",own=\"{hostile}\",peer=\"{hostile}\",tls=\"{hostile}\",le=\"1\"}} 3\n\
         sidecar_http_request_duration_seconds_bucket{{direction=\"outbound\",own=\"{hostile}\",peer=\"{hostile}\",tls=\"{hostile}\",le=\"+Inf\"}} 3\n"
    );
    let html = report(vec![pair("<script>source", ["", &text])]);
    assert!(!html.contains("<script"), "{html}");
    assert!(!html.contains("\" onload=\""), "{html}");
}

#[test]
fn sidecars_that_have_counted_nothing_have_a_page() {
    let html = report(vec![pair("idle", ["", ""])]);
    for words in [
        "No connection has been opened yet",
        "No request has been seen yet",
        "Nothing has.",
    ] {
        assert!(html.contains(words), "{words}: {html}");
    }
}
