//! What is in `deploy/`, as `kubectl` makes it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::Value;

/// What a cluster is given: each of these is a directory for `kubectl apply -k`.
const OVERLAYS: &str = "deploy/kustomize/overlays";

/// The repository.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every overlay there is, by its path in the repository.
#[track_caller]
pub fn overlays() -> Vec<String> {
    let entries = fs::read_dir(root().join(OVERLAYS)).expect("there are overlays");
    let names = entries.map(|entry| entry.expect("it can be read").file_name());
    let mut overlays: Vec<_> = names
        .map(|name| format!("{OVERLAYS}/{}", name.display()))
        .collect();
    overlays.sort();
    assert!(!overlays.is_empty(), "{OVERLAYS} is empty");
    overlays
}

/// What `kubectl apply -k` would send, from a directory of the repository, as one text.
#[track_caller]
pub fn render(directory: &str) -> String {
    let output = Command::new(tool("kubectl"))
        .current_dir(root())
        .args(["kustomize", directory])
        .stdin(Stdio::null())
        .output()
        .expect("kubectl starts");
    let complaints = String::from_utf8_lossy(&output.stderr);
    // It also warns of what it will refuse one day.
    assert!(
        output.status.success() && complaints.is_empty(),
        "kubectl kustomize {directory}: {complaints}"
    );
    String::from_utf8(output.stdout).expect("manifests are text")
}

/// The objects of a text, in its order.
#[track_caller]
pub fn objects(manifests: &str) -> Vec<Value> {
    serde_saphyr::from_multiple(manifests).unwrap_or_else(|error| panic!("no manifests: {error}"))
}

/// An object as people call it: `daemonset/sidecar-node`.
#[track_caller]
pub fn name(object: &Value) -> String {
    let text = |pointer| object.pointer(pointer).and_then(Value::as_str);
    let kind = text("/kind").expect("an object has a kind");
    let name = text("/metadata/name").expect("an object has a name");
    format!("{}/{name}", kind.to_lowercase())
}

/// A program of those that `cargo xtask` installs.
#[track_caller]
pub fn tool(name: &str) -> PathBuf {
    let program = env::current_exe().expect("/proc is mounted");
    let target = program
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").exists())
        .expect("tests are built in cargo's target directory");
    let tool = target.join("tools/python/bin").join(name);
    assert!(
        tool.exists(),
        "there is no {}: `cargo xtask test` installs it",
        tool.display()
    );
    tool
}
