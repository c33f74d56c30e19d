//! A real Prometheus in a pod of its own.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use serde::{Deserialize, de::DeserializeOwned};

use crate::{Pod, Process, http, namespace::Namespace, wait};

/// Where it answers, inside its pod.
const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9090);

/// Prometheus, which scrapes sidecars every second as the job `sidecar`; killed when dropped.
#[derive(Debug)]
pub struct Prometheus {
    /// The pod's network namespace.
    namespace: Arc<Namespace>,
    /// The server.
    process: Process,
}

/// One series of an answer.
#[derive(Debug, Deserialize)]
pub struct Series {
    /// Its labels, its name among them.
    pub metric: BTreeMap<String, String>,
    /// When, and how much.
    value: (f64, String),
}

impl Series {
    /// Its value.
    pub fn value(&self) -> f64 {
        self.value.1.parse().expect("values are numbers")
    }
}

/// A rule that it has loaded.
#[derive(Debug, Deserialize)]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// Its expression.
    pub query: String,
    /// `alerting` or `recording`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `ok`, once it has been evaluated.
    pub health: String,
}

/// What the API answers.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer<T> {
    /// What was asked for.
    data: Option<T>,
    /// What is wrong with the question.
    error: Option<String>,
}

#[derive(Deserialize)]
struct Vector {
    result: Vec<Series>,
}

#[derive(Deserialize)]
struct Groups {
    groups: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    rules: Vec<Rule>,
}

impl Prometheus {
    /// Starts it with a file of rules, and waits until it answers.
    #[track_caller]
    pub fn start(pod: &Pod, targets: &[SocketAddr], rules: &Path) -> Self {
        let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
        let rules = rules.display();
        let configuration = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s, evaluation_interval: 1s}}\n\
             rule_files: [{rules}]\n\
             scrape_configs: [{{job_name: sidecar, static_configs: [{{targets: {targets:?}}}]}}]\n"
        );
        let file = pod.sandbox().file("prometheus.yml", &configuration);
        let process = pod
            .program("/usr/bin/prometheus")
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                pod.sandbox().directory().join("tsdb").display()
            ))
            .arg(format!("--web.listen-address={ADDRESS}"))
            .listen(ADDRESS.port());
        let prometheus = Self {
            namespace: Arc::clone(pod.sandbox().namespace()),
            process,
        };
        wait::until("Prometheus is ready", || {
            let ready = http::get(&prometheus.namespace, ADDRESS, "/-/ready");
            matches!(ready, Some((200, _)))
        });
        prometheus
    }

    /// What a query has as its value now, or what is wrong with it.
    #[track_caller]
    pub fn query(&self, query: &str) -> Result<Vec<Series>, String> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        self.ask::<Vector>(&path).map(|vector| vector.result)
    }

    /// Every rule that it has loaded.
    #[track_caller]
    pub fn rules(&self) -> Vec<Rule> {
        let groups: Groups = self.ask("/api/v1/rules").expect("a list of rules");
        groups
            .groups
            .into_iter()
            .flat_map(|group| group.rules)
            .collect()
    }

    #[track_caller]
    fn ask<T: DeserializeOwned>(&self, path: &str) -> Result<T, String> {
        let answer = http::get(&self.namespace, ADDRESS, path);
        let (_, body) =
            answer.unwrap_or_else(|| panic!("Prometheus is gone: {}", self.process.stderr()));
        let answer: Answer<T> =
            serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        answer.data.ok_or_else(|| answer.error.unwrap_or(body))
    }
}

/// A value in the query of a URL (RFC 3986 section 2.1).
fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                escaped.push(char::from(byte));
            }
            // Writing to a string cannot fail.
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    escaped
}
