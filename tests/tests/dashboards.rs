//! The dashboard and the rules find what they ask for in a real Prometheus that scrapes real sidecars.

use std::{fs, net::SocketAddr, time::Duration};

use promql_parser::parser::{self, Expr, VectorSelector};
use sidecar_tests::{
    Pod, Pods, Process, SECRET,
    dashboard::{self, Dashboard},
    prometheus::Prometheus,
    servers,
    svid::Ca,
    wait,
};

/// How long a graph looks back for a rate: longer than any of it takes.
const RATE_INTERVAL: &str = "5m";

const ADMIN: u16 = 4195;

/// Everybody is let in and told of, but the pod without sidecar to one port.
const RULES: &str = "authorization:
  default: allow
  rules:
    - name: everybody
      action: audit
      cidrs: [0.0.0.0/0]
    - name: database
      action: deny
      cidrs: [198.18.0.3]
      ports: [6379]
";

/// Pods in which everything happens that is counted.
struct Site {
    pods: Pods,
    /// Without sidecar.
    plain: Pod,
    /// With a certificate that nobody trusts.
    stranger: Pod,
    /// With none that can be read.
    nameless: Pod,
    _servers: [Process; 4],
}

impl Site {
    fn new() -> Self {
        let mut pods = Pods::plain();
        let settings = pods.server.sandbox().file("sidecar.yaml", RULES);
        let open = ["--admin", "0.0.0.0:4195", "--exclude-inbound-ports", "4195"];
        let settings = settings.to_str().expect("the names are ASCII");
        let server = [&open[..], &["--config", settings]].concat();
        // Handshakes are to be seen the whole time.
        let client = [&open[..], &["--reuse", "off"]].concat();
        pods.mesh(Some(&client), Some(&server));

        let [plain, mut stranger, mut nameless] =
            ["plain", "stranger", "nameless"].map(|role| pods.join(role));
        let svid = Ca::new(&stranger, "sidecar.local").issue(&stranger.identity(), "1h");
        stranger.mesh_with(&svid.flags());
        let missing = ["--certificate", "--key", "--trust-bundle"];
        let missing = missing.map(|flag| [flag, "/no/such/file.pem"]).concat();
        let impatient = ["--identity-timeout", "200ms"];
        nameless.start_sidecar(&[&open[..], &missing, &impatient].concat());

        let servers = [
            servers::nginx_with_errors(&pods.server, 80, SECRET),
            servers::nginx_grpc(&pods.server, 8081),
            servers::redis(&pods.server),
            servers::nginx_with_errors(&plain, 80, SECRET),
        ];
        Self {
            pods,
            plain,
            stranger,
            nameless,
            _servers: servers,
        }
    }

    /// Has everything happen once more.
    fn live(&self) {
        let server = self.pods.server.v4();
        let client = &self.pods.client;
        for page in ["", "missing", "broken"] {
            get(client, &format!("http://{server}/{page}"));
        }
        get(client, &format!("http://{}/", self.plain.v4()));
        get(&self.plain, &format!("http://{server}/"));
        for call in ["Take", "Fail"] {
            let url = format!("http://{server}:8081/shop.Stock/{call}");
            client
                .program("/usr/bin/curl")
                .args(["-sS", "--http2-prior-knowledge", "-X", "POST"])
                .args(["-H", "content-type: application/grpc", &url])
                .succeed();
        }
        client
            .program("/usr/bin/redis-cli")
            .args(["-h", &server.to_string(), "ping"])
            .succeed();
        assert_eq!(client.converse(server, 9, ""), "reset");
        assert_eq!(self.plain.converse(server, 6379, SECRET), "reset");
        assert_eq!(self.stranger.converse(server, 80, SECRET), "reset");
        assert_eq!(self.nameless.converse(server, 80, SECRET), "reset");
    }

    /// Gives a rule another name, and waits until that is taken over.
    fn change_settings(&self) {
        let directory = self.pods.server.sandbox().directory();
        let new = directory.join("sidecar.yaml.new");
        fs::write(&new, RULES.replace("everybody", "anybody")).expect("writing a file");
        fs::rename(new, directory.join("sidecar.yaml")).expect("replacing a file");
        let sidecar = self.pods.server.sidecar();
        sidecar.metrics_when(|metrics| metrics.count("sidecar_config_reloads_total", &[]) == 1);
    }

    /// Where the sidecars are scraped.
    fn targets(&self) -> [SocketAddr; 3] {
        [&self.pods.client, &self.pods.server, &self.nameless]
            .map(|pod| SocketAddr::from((pod.v4(), ADMIN)))
    }
}

fn get(pod: &Pod, url: &str) {
    pod.program("/usr/bin/curl").args(["-sS", url]).succeed();
}

/// Every selector of series in an expression.
fn selectors(query: &str) -> Vec<VectorSelector> {
    fn collect(expr: &Expr, found: &mut Vec<VectorSelector>) {
        match expr {
            Expr::Aggregate(aggregate) => collect(&aggregate.expr, found),
            Expr::Unary(unary) => collect(&unary.expr, found),
            Expr::Binary(binary) => {
                collect(&binary.lhs, found);
                collect(&binary.rhs, found);
            }
            Expr::Paren(paren) => collect(&paren.expr, found),
            Expr::Subquery(subquery) => collect(&subquery.expr, found),
            Expr::VectorSelector(selector) => found.push(selector.clone()),
            Expr::MatrixSelector(selector) => found.push(selector.vs.clone()),
            Expr::Call(call) => call.args.args.iter().for_each(|expr| collect(expr, found)),
            Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => {}
        }
    }
    let mut found = Vec::new();
    collect(&parser::parse(query).expect("PromQL"), &mut found);
    found
}

/// What has to have a value, with a name for messages: queries of the dashboard as they are, and what
/// rules are about. That an alert has none is as it should be, so each of its series has to.
fn questions(dashboard: &Dashboard, prometheus: &Prometheus) -> Vec<(String, String)> {
    let mut questions: Vec<_> = dashboard
        .queries(RATE_INTERVAL)
        .into_iter()
        // No agent of a node is among the sidecars, and no webhook.
        .filter(|(_, query)| {
            let of_others = ["sidecar_node_", "sidecar_kubernetes_", "sidecar_webhook_"];
            !of_others.iter().any(|prefix| query.contains(prefix))
        })
        .map(|(panel, query)| (format!("panel {panel:?}"), query))
        .collect();
    for rule in prometheus.rules() {
        if rule.kind == "recording" {
            questions.push((rule.name.clone(), rule.name));
        } else {
            let selectors = selectors(&rule.query);
            // Nothing here is as old as what they look back to.
            let now = |selector| VectorSelector {
                offset: None,
                ..selector
            };
            let selectors = selectors
                .into_iter()
                .map(|selector| now(selector).to_string());
            questions.extend(selectors.map(|selector| (rule.name.clone(), selector)));
        }
    }
    questions
}

/// Why a question is not answered, if it is not: an error, no series, or none with a number.
fn complaint(prometheus: &Prometheus, (asker, query): &(String, String)) -> Option<String> {
    let complaint = match prometheus.query(query) {
        Err(error) => error,
        Ok(series) if series.is_empty() => "no series".to_owned(),
        Ok(series) if series.iter().all(|series| series.value().is_nan()) => "no number".to_owned(),
        Ok(_) => return None,
    };
    Some(format!("{asker}: {complaint}: {query}"))
}

/// What of the dashboard and the rules does not work yet.
fn complaints(dashboard: &Dashboard, prometheus: &Prometheus) -> Vec<String> {
    let questions = questions(dashboard, prometheus);
    let mut complaints: Vec<_> = questions
        .iter()
        .filter_map(|question| complaint(prometheus, question))
        .collect();
    let rules = prometheus.rules();
    if !rules.iter().any(|rule| rule.kind == "alerting") {
        complaints.push(format!("no alerts: {rules:?}"));
    }
    let ill = rules.iter().filter(|rule| rule.health != "ok");
    complaints.extend(ill.map(|rule| format!("a rule that does not work: {rule:?}")));
    for (selector, label) in dashboard.choices() {
        let series = prometheus.query(&selector).unwrap_or_default();
        if !series
            .iter()
            .any(|series| series.metric.contains_key(label))
        {
            complaints.push(format!("nothing to choose: {label} of {selector}"));
        }
    }
    // What is broken on purpose shows as broken, and not for want of a metric as sound.
    let failing = dashboard.queries(RATE_INTERVAL);
    for (panel, query) in failing.iter().filter(|(panel, _)| *panel == "Error rate") {
        let series = prometheus.query(query).unwrap_or_default();
        if !series.iter().any(|series| series.value() > 0.0) {
            complaints.push(format!("{panel} shows nothing: {series:?}"));
        }
    }
    let firing = "ALERTS{alertname=\"SidecarNoIdentity\"}";
    if prometheus.query(firing).unwrap_or_default().is_empty() {
        complaints.push("an alert is not even pending".to_owned());
    }
    complaints
}

#[test]
fn every_query_finds_something() {
    /// Each look asks more than a hundred questions, and a rate takes two scrapes.
    const PATIENCE: Duration = Duration::from_mins(3);
    let site = Site::new();
    let monitoring = site.pods.join("monitoring");
    let rules = dashboard::directory().join("rules.yaml");
    let prometheus = Prometheus::start(&monitoring, &site.targets(), &rules);
    let dashboard = Dashboard::read();

    site.change_settings();
    let mut last = Vec::new();
    wait::within(PATIENCE, || {
        site.live();
        last = complaints(&dashboard, &prometheus);
        last.is_empty().then_some(())
    });
    assert_eq!(last, Vec::<String>::new());
}

#[test]
fn rules_are_valid_and_each_alert_fires_when_it_has_to() {
    let pods = Pods::plain();
    for (arguments, file) in [
        (["check", "rules"], "rules.yaml"),
        (["test", "rules"], "tests.yaml"),
    ] {
        let promtool = pods.client.program("/usr/bin/promtool").args(arguments);
        promtool.arg(dashboard::directory().join(file)).succeed();
    }
}
