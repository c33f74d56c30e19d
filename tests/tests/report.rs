//! The report of a running pair, as a browser shows it.

use std::{fs, path::PathBuf, time::Duration};

use sidecar_tests::{Pod, Pods, Process, SECRET, servers, sidecar};

/// Longer than Chromium takes to start beside other tests.
const BROWSER: Duration = Duration::from_secs(90);

/// Two pods whose admin endpoints each other's programs can reach, and a server in one.
fn pair() -> (Pods, Process) {
    let open = ["--admin", "0.0.0.0:4195", "--exclude-inbound-ports", "4195"];
    let outside = ["--exclude-outbound-ports", "4195"];
    let flags = [&open[..], &outside].concat();
    let pods = Pods::meshed_with(&flags, &flags);
    let nginx = servers::nginx_with_errors(&pods.server, 80, SECRET);
    (pods, nginx)
}

/// Has the client pod ask for pages.
fn talk(pods: &Pods) {
    for page in ["", "", "broken"] {
        let url = format!("http://{}/{page}", pods.server.v4());
        pods.client
            .program("/usr/bin/curl")
            .args(["-sS", &url])
            .succeed();
    }
}

/// Draws a report of both pods while they talk.
fn draw(pods: &Pods) -> PathBuf {
    let output = pods.client.sandbox().directory().join("report.html");
    let admins = [&pods.client, &pods.server].map(|pod| format!("{}:4195", pod.v4()));
    let report = pods
        .client
        .program(sidecar::binary())
        .args([
            "report",
            "--interval",
            "1s",
            "--admin",
            &admins[0],
            "--admin",
            &admins[1],
            "-o",
        ])
        .arg(&output);
    let mut report = report.start();
    while report.status().is_none() {
        talk(pods);
    }
    let _drawn = report.wait().success();
    output
}

/// What Chromium prints, with arguments of its own; and what it says of the page's mistakes.
fn browse(pod: &Pod, page: &str, arguments: &[&str]) -> (String, String) {
    let profile = pod.sandbox().directory().join("chromium");
    let output = pod
        .program("/usr/bin/chromium")
        .env("HOME", pod.sandbox().directory())
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--hide-scrollbars",
            "--window-size=1366,2400",
            "--enable-logging=stderr",
        ])
        .arg(format!("--user-data-dir={}", profile.display()))
        .args(arguments)
        .arg(page)
        .deadline(BROWSER)
        .run()
        .success();
    let says = output
        .stderr
        .lines()
        .filter(|line| line.contains(":CONSOLE"));
    let says = says.collect::<Vec<_>>().join("\n");
    (output.stdout, says)
}

/// The part of a document from one mark to the next.
fn between<'a>(document: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = document
        .split_once(from)
        .unwrap_or_else(|| panic!("no {from}: {document}"));
    rest.split_once(to)
        .unwrap_or_else(|| panic!("no {to}: {rest}"))
        .0
}

#[test]
fn a_browser_shows_who_talks_to_whom() {
    let (pods, _nginx) = pair();
    talk(&pods);
    let page = format!("file://{}", draw(&pods).display());
    let (dom, says) = browse(&pods.client, &page, &["--dump-dom"]);
    assert_eq!(says, "", "the browser complains");

    let graph = between(&dom, "<svg class=\"graph\"", "</svg>");
    for pod in [&pods.client, &pods.server] {
        assert!(
            graph.contains(&format!(">{}</text>", pod.identity())),
            "{graph}"
        );
    }
    assert!(
        graph.contains("mutual TLS</text>") && graph.contains(" ok</text>"),
        "{graph}"
    );
    assert_eq!(
        graph.matches("<path class=\"edge mutual\"").count(),
        1,
        "{graph}"
    );

    // Each side has seen the requests.
    let plots: Vec<_> = dom.split("<svg class=\"plot\"").skip(1).collect();
    assert!(plots.len() >= 2, "{dom}");
    for plot in plots {
        let points = between(plot, ">", "</svg>").matches("<circle").count();
        assert!(points >= 2, "a curve of {points} points: {plot}");
    }

    let picture = pods.client.sandbox().directory().join("report.png");
    browse(
        &pods.client,
        &page,
        &[&format!("--screenshot={}", picture.display())],
    );
    let picture = fs::read(picture).expect("a picture");
    assert!(
        picture.starts_with(b"\x89PNG") && picture.len() > 20_000,
        "{} bytes",
        picture.len()
    );
}

#[test]
fn scrapes_that_were_kept_are_drawn_without_a_sidecar() {
    let (pods, _nginx) = pair();
    talk(&pods);
    let sandbox = pods.client.sandbox();
    let before = sandbox.file("before.prom", pods.client.sidecar().get("/metrics"));
    talk(&pods);
    let after = sandbox.file("after.prom", pods.client.sidecar().get("/metrics"));
    let report = |before: &PathBuf, after: &PathBuf| {
        let files = format!("{},{}", before.display(), after.display());
        let report = pods.client.program(sidecar::binary());
        let flags = ["report", "--from", &files, "--interval", "1s", "-o", "-"];
        report.args(flags).run()
    };
    let html = report(&before, &after).success().stdout;
    assert!(html.contains(&pods.server.identity()), "{html}");

    let page = sandbox.file("page.prom", "<html>\n");
    report(&before, &page).assert_one_sentence(&["page.prom", "line 1", "<html>"]);
    // How long it was between them nobody else knows.
    let files = format!("{},{}", before.display(), after.display());
    let untold = pods.client.program(sidecar::binary());
    let untold = untold.args(["report", "--from", &files]).run();
    assert!(untold.stderr.contains("--interval"), "{untold}");
    assert!(!untold.status.success(), "{untold}");
    let missing = sandbox.directory().join("missing.prom");
    report(&missing, &after).assert_one_sentence(&["missing.prom", "No such file"]);
}

#[test]
fn a_report_is_drawn_from_outside_the_pod_too() {
    let pods = Pods::server_meshed(&[]);
    let _nginx = servers::nginx(&pods.server, 80, SECRET);
    let url = format!("http://{}/", pods.server.v4());
    pods.client.program("curl").args(["-sS", &url]).succeed();
    let netns = pods.server.sandbox().namespace().path();
    let report = pods.server.program(sidecar::binary()).outside();
    let flags = ["report", "--interval", "100ms", "-o", "-", "--netns"];
    let html = report.args(flags).arg(netns).succeed();
    assert!(html.contains("no_peer_option"), "{html}");
}

#[test]
fn a_sidecar_that_does_not_answer_is_named() {
    let pods = Pods::plain();
    let report = pods
        .client
        .program(sidecar::binary())
        .args(["report"])
        .env("SIDECAR_ADMIN", "127.0.0.1:1");
    report
        .run()
        .assert_one_sentence(&["127.0.0.1:1", "is a sidecar running there?", "refused"]);
}
