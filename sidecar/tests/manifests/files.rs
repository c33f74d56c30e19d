//! The files below `deploy`: each is part of what is applied, or says why not.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use sidecar_tests::manifests::{self, objects, overlays};

use super::{array, text};

/// Files below `deploy` that are no manifests, each with what holds it.
const NO_MANIFESTS: [(&str, &str); 5] = [
    ("README.md", "its words are held by `kubernetes`"),
    ("observability/README.md", "it has no object"),
    ("observability/dashboard.json", "held by `observability`"),
    ("observability/tests.yaml", "run by promtool"),
    (
        "examples/web-injected.yaml",
        "judged by itself, as it is no part of an overlay",
    ),
];

#[test]
fn every_manifest_is_part_of_an_overlay_and_so_is_judged() {
    let deploy = manifests::root().join("deploy");
    let mut used = BTreeSet::new();
    for overlay in overlays() {
        add(&manifests::root().join(overlay), &mut used);
    }
    let mut there = BTreeSet::new();
    files(&deploy, &mut there);
    for (file, _) in NO_MANIFESTS {
        used.insert(deploy.join(file).canonicalize().expect(file));
    }
    let unused: Vec<_> = there.difference(&used).collect();
    assert!(unused.is_empty(), "{unused:?}");
    assert!(there.len() > 30, "only {}", there.len());
}

/// All files below a directory.
fn files(directory: &Path, found: &mut BTreeSet<PathBuf>) {
    for entry in fs::read_dir(directory).expect("it is a directory") {
        let path = entry.expect("it can be read").path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.insert(path.canonicalize().expect("it is there"));
        }
    }
}

/// What a kustomization is made of, and what these are.
fn add(directory: &Path, used: &mut BTreeSet<PathBuf>) {
    let path = directory.join("kustomization.yaml");
    let yaml = fs::read_to_string(&path).unwrap_or_else(|_| panic!("{}", path.display()));
    used.insert(path.canonicalize().expect("it is there"));
    let [kustomization] = &objects(&yaml)[..] else {
        panic!("{}: one object", path.display());
    };
    let lists = ["resources", "components"].map(|list| array(&kustomization[list]));
    let generated = array(&kustomization["configMapGenerator"]).iter();
    let generated = generated.flat_map(|one| array(&one["files"]));
    let patches = array(&kustomization["patches"]).iter();
    let patches = patches
        .map(|patch| &patch["path"])
        .filter(|path| path.is_string());
    for part in lists.into_iter().flatten().chain(generated).chain(patches) {
        let part = directory.join(text(part));
        if part.is_dir() {
            add(&part, used);
        } else {
            used.insert(part.canonicalize().expect("it is there"));
        }
    }
}
