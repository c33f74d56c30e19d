//! What is in `deploy/kustomize` fits the daemon: its commands, settings, labels and privileges.

mod agent;
mod containers;
mod files;
mod network;
mod objects;
mod observability;
mod webhook;

use std::{
    io::Write as _,
    process::{Command, Stdio},
    sync::LazyLock,
    thread,
};

use serde_json::Value;
use sidecar_tests::manifests::{name, objects, overlays, render};

/// Where ours answer about themselves.
const ADMIN_PORT: u64 = 4195;

/// Every object of every overlay, with what the webhook adds to pods; each with the overlay's path.
static ALL: LazyLock<Vec<(String, Value)>> = LazyLock::new(|| {
    let all = overlays().into_iter().flat_map(|overlay| {
        let objects = objects(&injected(&render(&overlay)));
        objects
            .into_iter()
            .map(move |object| (overlay.clone(), object))
    });
    all.collect()
});

/// What `sidecar inject` makes of manifests, of pods that ask for it.
#[track_caller]
fn injected(manifests: &str) -> String {
    let mut inject = Command::new(env!("CARGO_BIN_EXE_sidecar"))
        .args(["inject", "--only-enabled", "--validate", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("sidecar starts");
    let mut input = inject.stdin.take().expect("it is a pipe");
    let text = manifests.to_owned();
    let writer = thread::spawn(move || input.write_all(text.as_bytes()));
    let output = inject.wait_with_output().expect("it ends");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    writer.join().expect("no panic").expect("it reads all");
    String::from_utf8(output.stdout).expect("manifests are text")
}

/// The pod that an object is or makes.
fn pod(object: &Value) -> Option<&Value> {
    let spec = match object["kind"].as_str()? {
        "Pod" => object.pointer("/spec"),
        "CronJob" => object.pointer("/spec/jobTemplate/spec/template/spec"),
        _ => object.pointer("/spec/template/spec"),
    };
    spec.filter(|spec| spec["containers"].is_array())
}

/// The containers of a pod, those that come first among them.
fn containers(pod: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["initContainers", "containers"].map(|list| pod[list].as_array());
    lists.into_iter().flatten().flatten()
}

fn is_ours(container: &Value) -> bool {
    text(&container["image"]).starts_with("sidecar")
}

/// Ours in every overlay, each with a name for messages, its pod's object and itself.
fn ours() -> Vec<(String, Value, Value)> {
    let mut ours = Vec::new();
    for (overlay, object) in &*ALL {
        for container in pod(object).into_iter().flat_map(containers) {
            if is_ours(container) {
                let what = format!("{overlay}: {} {}", name(object), text(&container["name"]));
                ours.push((what, object.clone(), container.clone()));
            }
        }
    }
    assert!(ours.len() > 1, "no manifest has a container of ours");
    ours
}

#[track_caller]
fn text(value: &Value) -> &str {
    value
        .as_str()
        .unwrap_or_else(|| panic!("not a text: {value}"))
}

fn array(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

/// The objects of an overlay of this kind.
#[track_caller]
fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    let found: Vec<_> = objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect();
    assert!(!found.is_empty(), "there is no {kind}");
    found
}

/// Whether a selector's labels are all among these.
fn selects(selector: &Value, labels: &Value) -> bool {
    let selector = selector.as_object().filter(|selector| !selector.is_empty());
    selector.is_some_and(|all| all.iter().all(|(key, value)| labels[key] == *value))
}
