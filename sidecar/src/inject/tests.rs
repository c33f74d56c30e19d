//! Manifests that people write, and what becomes of them.

mod pods;
mod texts;

use std::fs;

use serde_json::{Value, json};

use super::*;

/// A pod, with a place for what comes before its containers.
const POD: &str = "\
apiVersion: v1
kind: Pod
metadata:
  name: web
spec:
  containers:
  - name: app
    image: app
";

fn inject(text: &str) -> Result<(String, Vec<Outcome>), TextError> {
    let change = Change::Inject {
        options: &Options::default(),
        unasked: Unasked::Inject,
    };
    manifests(text, change)
}

#[track_caller]
fn injected(text: &str) -> String {
    let (text, outcomes) = inject(text).unwrap_or_else(|error| panic!("{error}:\n{text}"));
    assert!(
        outcomes.iter().any(|one| one.result == Fate::Injected),
        "{outcomes:?}"
    );
    text
}

#[track_caller]
fn uninjected(text: &str) -> String {
    let result = manifests(text, Change::Uninject);
    result.unwrap_or_else(|error| panic!("{error}:\n{text}")).0
}

#[track_caller]
fn refused(text: &str) -> String {
    inject(text).expect_err("refused").to_string()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).expect("YAML")
}

/// What is added to a pod that has nothing of this kind.
fn names(spec: &Value, list: &str) -> Vec<String> {
    let items = spec[list].as_array().cloned().unwrap_or_default();
    let name = |item: &Value| item["name"].as_str().unwrap_or_default().to_owned();
    items.iter().map(name).collect()
}

/// Every line of the one is in the other, in order.
fn are_lines_kept(original: &str, edited: &str) -> bool {
    let mut edited = edited.lines();
    original
        .lines()
        .all(|line| edited.any(|other| other == line))
}
