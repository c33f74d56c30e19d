//! The dashboard in `deploy/observability`, read as Grafana reads it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// A dashboard of Grafana: what of it names metrics.
#[derive(Debug, Deserialize)]
pub struct Dashboard {
    /// What it shows.
    pub panels: Vec<Panel>,
    /// What users choose.
    templating: Templating,
}

/// One panel.
#[derive(Debug, Deserialize)]
pub struct Panel {
    /// What it is called.
    pub title: String,
    /// What kind it is, such as `timeseries`, or `row` for a heading.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it asks.
    pub datasource: Option<Datasource>,
    /// What it asks.
    #[serde(default)]
    pub targets: Vec<Target>,
}

/// A query of a panel.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Target {
    /// The query, with variables in it.
    pub expr: String,
    /// What a line is called, with labels in it.
    pub legend_format: String,
}

/// Which server is asked.
#[derive(Debug, Deserialize)]
pub struct Datasource {
    /// By name, or by a variable.
    pub uid: String,
}

#[derive(Debug, Deserialize)]
struct Templating {
    list: Vec<Variable>,
}

/// What users choose.
#[derive(Debug, Deserialize)]
struct Variable {
    name: String,
    definition: Option<String>,
}

/// Where dashboard, rules and their tests are.
pub fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/observability")
}

impl Dashboard {
    /// Reads it.
    #[track_caller]
    pub fn read() -> Self {
        let text = fs::read(directory().join("dashboard.json")).expect("there is a dashboard");
        serde_json::from_slice(&text).expect("the dashboard is JSON as Grafana has it")
    }

    /// Each query with the title of its panel, as Grafana sends it when all of everything is chosen:
    /// of variables, only `$__rate_interval` has another value.
    pub fn queries(&self, rate_interval: &str) -> Vec<(&str, String)> {
        let queries = self.panels.iter().flat_map(|panel| {
            let targets = panel.targets.iter();
            targets.map(|target| (&*panel.title, &target.expr))
        });
        queries
            .map(|(title, expr)| (title, self.filled(expr, rate_interval)))
            .collect()
    }

    /// What variables choose from: a selector of series, and the label whose values they are.
    pub fn choices(&self) -> Vec<(String, &str)> {
        let definitions = self.templating.list.iter();
        definitions
            .filter_map(|variable| variable.definition.as_deref())
            .map(|definition| {
                let arguments = definition
                    .strip_prefix("label_values(")
                    .and_then(|rest| rest.strip_suffix(')'))
                    .and_then(|arguments| arguments.rsplit_once(", "));
                let (selector, label) =
                    arguments.unwrap_or_else(|| panic!("not the values of a label: {definition}"));
                (self.filled(selector, ""), label)
            })
            .collect()
    }

    fn filled(&self, query: &str, rate_interval: &str) -> String {
        let mut filled = query.replace("$__rate_interval", rate_interval);
        for variable in &self.templating.list {
            filled = filled.replace(&format!("${}", variable.name), ".*");
        }
        assert!(
            !filled.contains('$'),
            "a variable that nobody defines: {filled}"
        );
        filled
    }
}
