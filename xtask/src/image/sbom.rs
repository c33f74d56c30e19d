//! The list of what is in the binary, in `CycloneDX` 1.5.
//!
//! The daemon's crates are those that `cargo auditable` has written into the binary; those of the
//! kernel side, whose object lies in it, are asked of cargo.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::Command,
};

use anyhow::{Context as _, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

use super::revision::Revision;
use crate::command::{ask, cargo};

/// What `cargo auditable` writes.
#[derive(Deserialize)]
struct Embedded {
    packages: Vec<Package>,
}

#[derive(Deserialize)]
struct Package {
    name: String,
    version: String,
    #[serde(default)]
    kind: Kind,
    /// Their places in the list.
    #[serde(default)]
    dependencies: Vec<usize>,
    #[serde(default)]
    root: bool,
}

#[derive(Default, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// It ran when the binary was built, and is not in it.
    Build,
    #[default]
    Runtime,
}

/// The most that the list may be, in bytes.
const LONGEST: usize = 10_000_000;

/// A crate's name and version.
type Crate = (String, String);

pub fn of(binary: &Path, revision: &Revision) -> anyhow::Result<Value> {
    let bytes = fs::read(binary).with_context(|| format!("cannot read {}", binary.display()))?;
    let text = auditable_info::json_from_slice(&bytes, LONGEST)
        .map_err(|error| anyhow::anyhow!("the binary does not list its crates: {error}"))?;
    let embedded: Embedded =
        serde_json::from_str(&text).context("cannot read the binary's list of its crates")?;
    let sum = ask(Command::new("sha256sum").arg(binary)).context("sha256sum fails")?;
    let sum = sum.split(' ').next().unwrap_or_default();
    ensure_same(&embedded, &tree("sidecar")?)?;
    let kernel = tree("sidecar-ebpf")?;
    document(&embedded, &kernel, &licences()?, revision, sum)
}

/// Whether the binary's list is what cargo would have linked.
fn ensure_same(embedded: &Embedded, expected: &BTreeSet<Crate>) -> anyhow::Result<()> {
    let linked = embedded.packages.iter();
    let linked = linked.filter(|package| package.kind == Kind::Runtime);
    let listed: BTreeSet<Crate> = linked
        .map(|package| (package.name.clone(), package.version.clone()))
        .collect();
    let missing: Vec<_> = expected.difference(&listed).collect();
    ensure!(
        missing.is_empty(),
        "the binary does not list {missing:?}, which cargo links into it"
    );
    Ok(())
}

fn document(
    Embedded { packages }: &Embedded,
    kernel: &BTreeSet<Crate>,
    licences: &BTreeMap<Crate, String>,
    revision: &Revision,
    sum: &str,
) -> anyhow::Result<Value> {
    let component = |name: &str, version: &str| {
        let reference = format!("pkg:cargo/{name}@{version}");
        let mut component = json!({
            "type": "library",
            "bom-ref": reference,
            "name": name,
            "version": version,
            "purl": reference,
        });
        if let Some(licence) = licences.get(&(name.to_owned(), version.to_owned())) {
            component["licenses"] = json!([{ "expression": licence }]);
        }
        component
    };
    let root = packages.iter().find(|package| package.root);
    let root = root.context("the binary's list of crates does not say which is its own")?;
    let mut main = component(&root.name, &root.version);
    main["type"] = json!("application");
    main["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
    main["pedigree"] = json!({ "commits": [{ "uid": revision.name }] });

    let mut components = BTreeMap::new();
    let linked = |package: &&Package| package.kind == Kind::Runtime && !package.root;
    for Package { name, version, .. } in packages.iter().filter(linked) {
        components.insert((name, version), component(name, version));
    }
    for (name, version) in kernel {
        components
            .entry((name, version))
            .or_insert_with(|| component(name, version));
    }
    let reference = |package: &Package| format!("pkg:cargo/{}@{}", package.name, package.version);
    let depends = packages
        .iter()
        .filter(|package| package.kind == Kind::Runtime)
        .map(|package| {
            let on = package.dependencies.iter();
            let on = on.filter_map(|index| packages.get(*index));
            let on = on.filter(|package| package.kind == Kind::Runtime);
            json!({ "ref": reference(package), "dependsOn": on.map(reference).collect::<Vec<_>>() })
        });
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": { "timestamp": revision.date, "component": main },
        "components": components.into_values().collect::<Vec<_>>(),
        "dependencies": depends.collect::<Vec<_>>(),
    }))
}

/// The crates that cargo links into a package.
fn tree(package: &str) -> anyhow::Result<BTreeSet<Crate>> {
    let tree = ask(cargo()
        .args(["tree", "--locked", "--package", package])
        .args(["--edges=normal,no-proc-macro", "--prefix=none"])
        .args(["--format={p}", "--target"])
        .arg(if package == "sidecar-ebpf" {
            "all".to_owned()
        } else {
            format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
        }))
    .with_context(|| format!("cargo does not tell what {package} depends on"))?;
    tree.lines()
        .map(|line| {
            let mut words = line.split(' ');
            let name = words.next().context("cargo tree prints an empty line")?;
            let version = words.next().and_then(|word| word.strip_prefix('v'));
            let version = version.with_context(|| format!("cargo tree prints {line:?}"))?;
            Ok((name.to_owned(), version.to_owned()))
        })
        .collect()
}

fn licences() -> anyhow::Result<BTreeMap<Crate, String>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Licensed>,
    }
    #[derive(Deserialize)]
    struct Licensed {
        name: String,
        version: String,
        license: Option<String>,
    }
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let text = ask(cargo()
        .args([
            "metadata",
            "--locked",
            "--format-version=1",
            "--filter-platform",
        ])
        .arg(platform))
    .context("cargo does not tell the licences")?;
    let metadata: Metadata =
        serde_json::from_str(&text).context("cannot read what cargo says of the licences")?;
    let licensed = metadata.packages.into_iter().filter_map(|package| {
        // Before it was an expression, a slash stood for `OR`.
        let licence = package.license?.replace('/', " OR ").replace("  ", " ");
        Some(((package.name, package.version), licence))
    });
    Ok(licensed.collect())
}
