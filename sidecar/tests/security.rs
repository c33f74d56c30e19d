//! `docs/security.md` names tests that there are.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Suites of attacks, each of which has a place in the document.
const ATTACKS: &str = "attacks_";

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The names in the second column of the document's tables.
fn named() -> BTreeSet<String> {
    let document = fs::read_to_string(workspace().join("docs/security.md")).expect("a document");
    let mut named = BTreeSet::new();
    for row in document.lines().filter(|line| line.starts_with("| ")) {
        let [_, guarantee, tests, _] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("a row has two cells: {row}");
        };
        if guarantee.trim() == "guarantee" {
            continue;
        }
        let tests = tests.split('`').skip(1).step_by(2);
        let mut tests = tests.filter(|name| name.contains("::")).peekable();
        assert!(tests.peek().is_some(), "nothing holds this: {guarantee}");
        named.extend(tests.map(str::to_owned));
    }
    named
}

/// Every test of the workspace: those of a crate's library behind its name and by its modules, those
/// of other programs behind the name of their file.
fn existing() -> BTreeSet<String> {
    let mut existing = BTreeSet::new();
    for crate_name in ["sidecar", "sidecar-common", "xtask"] {
        let source = workspace().join(crate_name).join("src");
        collect(&source, &crate_name.replace('-', "_"), &mut existing);
    }
    collect(&workspace().join("tests/tests"), "", &mut existing);
    existing
}

/// Adds the tests in the files below a directory, which is the module `parent`.
fn collect(directory: &Path, parent: &str, existing: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).expect("a directory of sources") {
        let path = entry.expect("it can be read").path();
        let stem = path.file_stem().expect("a name").to_string_lossy();
        let module = match (&*stem, parent) {
            ("lib" | "main" | "mod", parent) => parent.to_owned(),
            (stem, "") => stem.to_owned(),
            (stem, parent) => format!("{parent}::{stem}"),
        };
        if path.is_dir() {
            collect(&path, &module, existing);
            continue;
        }
        // Tests stand in files of their own, or in a module of this name at the end of others.
        let own_file = parent.is_empty() || module.contains("::tests");
        let text = fs::read_to_string(&path).expect("a source");
        for name in tests(&text) {
            let tests = if own_file { "" } else { "::tests" };
            existing.insert(format!("{module}{tests}::{name}"));
        }
    }
}

/// The names of the functions that are marked as tests.
fn tests(source: &str) -> impl Iterator<Item = &str> {
    let mut is_test = false;
    source.lines().map(str::trim).filter_map(move |line| {
        is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        let (_, name) = line.split_once("fn ").filter(|_| is_test)?;
        is_test = false;
        name.split('(').next()
    })
}

#[test]
fn every_test_that_is_named_exists() {
    let existing = existing();
    assert!(existing.contains("attacks_tls::no_impostor_gets_to_the_app"));
    let missing: Vec<_> = named().difference(&existing).cloned().collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");
}

#[test]
fn every_attack_is_named() {
    let attacks = existing()
        .into_iter()
        .filter(|name| name.starts_with(ATTACKS));
    let attacks: BTreeSet<_> = attacks.collect();
    let unnamed: Vec<_> = attacks.difference(&named()).cloned().collect();
    assert!(
        unnamed.is_empty(),
        "tell in docs/security.md what these hold: {unnamed:#?}"
    );
}
