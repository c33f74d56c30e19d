//! What is in `deploy/observability` names metrics and labels that there are, and documents name what
//! is there.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use promql_parser::parser::{self, Expr, VectorSelector};
use serde::Deserialize;
use sidecar::{codes, observe::GrpcStatus};
use sidecar_tests::dashboard::{self, Dashboard};

/// Labels that Prometheus itself gives to what it scrapes.
const OF_PROMETHEUS: [&str; 2] = ["instance", "job"];

/// A metric of Prometheus itself: whether the last scrape went well.
const UP: &str = "up";

/// Metrics, each with its labels.
type Metrics = BTreeMap<String, BTreeSet<String>>;

#[derive(Deserialize)]
struct Rules {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
struct Rule {
    record: Option<String>,
    alert: Option<String>,
    expr: String,
    #[serde(default)]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

fn document(path: &str) -> String {
    let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn rules() -> Vec<Rule> {
    let text = fs::read_to_string(dashboard::directory().join("rules.yaml"));
    let rules: Rules = serde_saphyr::from_str(&text.expect("there are rules")).expect("rules");
    rules
        .groups
        .into_iter()
        .flat_map(|group| group.rules)
        .collect()
}

/// Words in code type.
fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// What `docs/metrics.md` promises: the rows of its tables of metrics.
fn documented() -> Metrics {
    const PARTIES: [&str; 4] = ["direction", "own", "peer", "tls"];
    let document = document("docs/metrics.md");
    assert!(document.contains("*Parties* are four labels: `direction`, `own`, `peer` and `tls`"));
    let mut metrics = Metrics::new();
    for row in document
        .lines()
        .filter(|line| line.starts_with("| `sidecar_"))
    {
        let [_, name, kind, labels, ..] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("a row of metrics has four cells: {row}");
        };
        let mut all: BTreeSet<String> = words(labels).map(str::to_owned).collect();
        if labels.contains("*parties*") {
            all.extend(PARTIES.map(str::to_owned));
        }
        all.extend(OF_PROMETHEUS.map(str::to_owned));
        let name = words(name).next().expect("a row begins with a name");
        if kind.trim() == "histogram" {
            for suffix in ["_sum", "_count"] {
                metrics.insert(format!("{name}{suffix}"), all.clone());
            }
            all.insert("le".to_owned());
            metrics.insert(format!("{name}_bucket"), all);
        } else {
            metrics.insert(name.to_owned(), all);
        }
    }
    metrics.insert(UP.to_owned(), OF_PROMETHEUS.map(str::to_owned).into());
    metrics
}

/// Checks that an expression names nothing but these metrics and their labels, and returns the
/// labels that its result may have.
#[track_caller]
fn check(expr: &Expr, metrics: &Metrics) -> BTreeSet<String> {
    match expr {
        Expr::Aggregate(aggregate) => {
            let inside = check(&aggregate.expr, metrics);
            let Some(modifier) = &aggregate.modifier else {
                return BTreeSet::new();
            };
            assert!(
                modifier.is_include(),
                "labels that are not named are not checked: {expr}"
            );
            let kept: BTreeSet<_> = modifier.labels().labels.iter().cloned().collect();
            assert!(kept.is_subset(&inside), "{kept:?} of {inside:?}: {expr}");
            kept
        }
        Expr::Binary(binary) => {
            let [mut left, right] = [&binary.lhs, &binary.rhs].map(|side| check(side, metrics));
            if let Some(matching) = binary.modifier.as_ref().and_then(|m| m.matching.as_ref()) {
                let named: BTreeSet<_> = matching.labels().labels.iter().cloned().collect();
                assert!(named.is_subset(&left) && named.is_subset(&right), "{expr}");
            }
            left.extend(right);
            left
        }
        Expr::Unary(unary) => check(&unary.expr, metrics),
        Expr::Paren(paren) => check(&paren.expr, metrics),
        Expr::Subquery(subquery) => check(&subquery.expr, metrics),
        Expr::VectorSelector(selector) => check_selector(selector, metrics),
        Expr::MatrixSelector(selector) => check_selector(&selector.vs, metrics),
        Expr::Call(call) => {
            let arguments = call.args.args.iter();
            arguments.flat_map(|expr| check(expr, metrics)).collect()
        }
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) | Expr::Extension(_) => BTreeSet::new(),
    }
}

#[track_caller]
fn check_selector(selector: &VectorSelector, metrics: &Metrics) -> BTreeSet<String> {
    let name = selector.name.as_deref().expect("a metric is named");
    let labels = metrics
        .get(name)
        .unwrap_or_else(|| panic!("{name} is not in docs/metrics.md"));
    for matcher in &selector.matchers.matchers {
        let label = &matcher.name;
        assert!(labels.contains(label), "{name} has no label {label}");
        check_value(label, &matcher.value);
    }
    labels.clone()
}

/// Checks that each alternative of a matcher fits a word that there is.
#[track_caller]
fn check_value(label: &str, value: &str) {
    let document = document("docs/metrics.md");
    let mut known: Vec<&str> = document.lines().flat_map(words).collect();
    known.extend(codes::all().map(|known| known.code));
    if label == "grpc_status" {
        known = GrpcStatus::all().map(GrpcStatus::as_str).collect();
    }
    for alternative in value.split('|').filter(|_| !value.starts_with('$')) {
        let fits = |word: &&str| match alternative.split_once(".*") {
            Some((begin, end)) => word.starts_with(begin) && word.ends_with(end),
            None => *word == alternative,
        };
        let is_named = label == "job" || known.iter().any(fits);
        assert!(is_named, "no {label} is {alternative}");
    }
}

#[track_caller]
fn parsed(expr: &str) -> Expr {
    parser::parse(expr).unwrap_or_else(|error| panic!("{error}: {expr}"))
}

/// Every metric there is: those of documents, and those that rules record.
fn known(rules: &[Rule]) -> Metrics {
    let mut metrics = documented();
    for rule in rules {
        if let Some(record) = &rule.record {
            let labels = check(&parsed(&rule.expr), &metrics);
            metrics.insert(record.clone(), labels);
        }
    }
    metrics
}

/// Names behind a mark, up to what cannot be part of a name.
fn named<'a>(text: &'a str, mark: &str) -> BTreeSet<&'a str> {
    let is_end = |c: char| !c.is_ascii_alphanumeric() && c != '_';
    text.split(mark)
        .skip(1)
        .map(|rest| rest.split(is_end).next().unwrap_or(rest))
        .collect()
}

#[test]
fn the_dashboard_names_metrics_and_labels_that_there_are() {
    let metrics = documented();
    let dashboard = Dashboard::read();
    let mut queries = 0;
    for panel in &dashboard.panels {
        for target in &panel.targets {
            queries += 1;
            let expr = target.expr.replace("$__rate_interval", "5m");
            let labels = check(&parsed(&expr), &metrics);
            for label in named(&target.legend_format, "{{") {
                assert!(
                    labels.contains(label),
                    "{}: no label {label}: {expr}",
                    panel.title
                );
            }
        }
        assert_eq!(
            panel.kind == "row",
            panel.targets.is_empty(),
            "{}",
            panel.title
        );
        if panel.kind != "row" {
            let datasource = panel.datasource.as_ref().map(|datasource| &*datasource.uid);
            assert_eq!(datasource, Some("${datasource}"), "{}", panel.title);
        }
    }
    assert!(queries > 0, "the dashboard asks nothing");
    for (selector, label) in dashboard.choices() {
        assert!(
            check(&parsed(&selector), &metrics).contains(label),
            "{label} of {selector}"
        );
    }
}

#[test]
fn every_metric_is_on_the_dashboard() {
    let dashboard = Dashboard::read();
    let queries: String = dashboard
        .queries("5m")
        .into_iter()
        .map(|(_, query)| query)
        .collect();
    let asked: BTreeSet<_> = queries
        .split(|character: char| !character.is_ascii_alphanumeric() && character != '_')
        .collect();
    for name in documented().keys().filter(|name| *name != UP) {
        // When settings were taken over is for whoever asks; whether they are in force is shown.
        let is_elsewhere = name == "sidecar_config_last_reload_success_timestamp_seconds";
        let is_part = name.ends_with("_sum") || name.ends_with("_count");
        let is_shown = asked.contains(&**name);
        assert!(is_shown || is_elsewhere || is_part, "{name} is on no panel");
    }
}

#[test]
fn rules_name_metrics_and_labels_that_there_are() {
    let rules = rules();
    let metrics = known(&rules);
    for rule in &rules {
        let labels = check(&parsed(&rule.expr), &metrics);
        for text in rule.annotations.values() {
            for label in named(text, "$labels.") {
                assert!(labels.contains(label), "no label {label}: {text}");
            }
        }
    }
}

#[test]
fn every_alert_says_what_it_saw_and_what_to_do() {
    for rule in rules() {
        let Some(alert) = &rule.alert else { continue };
        let annotation = |name: &str| {
            let text = rule.annotations.get(name);
            text.unwrap_or_else(|| panic!("{alert} has no {name}"))
        };
        assert!(annotation("summary").contains("{{"), "{alert}: whose?");
        assert!(
            annotation("description").contains("$value"),
            "{alert}: how much?"
        );
        assert!(
            words(annotation("runbook")).any(|word| word.starts_with("sidecar ")),
            "{alert}: which command?"
        );
        let severity = rule.labels.get("severity").map(String::as_str);
        assert!(
            matches!(severity, Some("critical" | "warning" | "info")),
            "{alert}"
        );
    }
}

#[test]
fn runbooks_have_codes_explained_that_there_are() {
    let rules = rules();
    let texts = rules.iter().flat_map(|rule| rule.annotations.values());
    let explained: Vec<_> = texts
        .flat_map(|text| words(text))
        .filter_map(|words| words.strip_prefix("sidecar explain "))
        .filter(|code| !code.contains("{{"))
        .collect();
    assert!(!explained.is_empty(), "nothing is explained");
    for word in explained {
        assert!(
            codes::all().any(|known| known.code == word),
            "{word} is no code"
        );
    }
}

#[test]
fn every_alert_is_documented_and_tested() {
    let rules = rules();
    let alerts = rules
        .iter()
        .filter_map(|rule| Some((rule.alert.as_deref()?, rule)));
    let alerts: BTreeMap<_, _> = alerts
        .map(|(alert, rule)| (alert.to_owned(), rule.labels["severity"].clone()))
        .collect();

    let document = document("docs/observability.md");
    let rows = document
        .lines()
        .filter(|line| line.starts_with("| `Sidecar"));
    let listed: BTreeMap<_, _> = rows
        .map(|row| {
            let mut words = words(row).map(str::to_owned);
            let mut word = || words.next().expect("an alert and its severity");
            (word(), word())
        })
        .collect();
    assert_eq!(listed, alerts);

    let tests = fs::read_to_string(dashboard::directory().join("tests.yaml")).expect("tests");
    for alert in alerts.keys() {
        for outcome in ["fires", "stays silent"] {
            assert!(
                tests.contains(&format!("{alert} {outcome}: ")),
                "{alert} {outcome}"
            );
        }
    }
}
