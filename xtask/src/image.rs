//! `cargo xtask image`

mod base;
mod contents;
mod engine;
mod revision;
mod sbom;

use std::{fs, path::PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::{command::step, workspace};
use contents::Contents;
use engine::{Build, Engine};
use revision::Revision;

/// Build the container image, check what came out, and list what is in it
#[derive(clap::Args)]
pub struct Options {
    /// The image's name
    #[arg(long, default_value = concat!("localhost/sidecar:", env!("CARGO_PKG_VERSION")))]
    tag: String,

    /// What builds it, and runs it to check it; buildah does not run images [default: the first that
    /// is there; podman is installed where none is]
    #[arg(long, value_enum)]
    engine: Option<engine::Kind>,

    /// The image to build in [default: Debian's, or where no registry can be reached one made by
    /// debootstrap]
    #[arg(long)]
    base: Option<String>,

    /// Write it to this archive, too
    #[arg(long, value_name = "FILE")]
    output: Option<PathBuf>,

    /// Build what is committed twice, in different directories, and compare what came out
    #[arg(long)]
    check: bool,
}

/// Whom the image runs as; for its group, too.
const USER: &str = "4195:4195";

/// The most that it may take, in bytes, without compression.
const MOST: u64 = 30_000_000;

pub fn run(options: Options) -> anyhow::Result<()> {
    let Options {
        tag,
        engine,
        base,
        output,
        check,
    } = options;
    let engine = step("find the container engine", || Engine::find(engine))?;
    let revision = Revision::find()?;
    let base = match base {
        Some(base) => base,
        None => step("find an image to build in", || base::find(&engine))?,
    };
    if check {
        return compare_two_builds(&engine, &base, &revision);
    }
    let labels = labels(&revision);
    step("build the image", || {
        engine.build(&Build {
            context: workspace::root(),
            tag: &tag,
            base: &base,
            directory: None,
            labels: &labels,
            time: revision.time,
        })
    })?;
    let contents = step("check the image", || check_image(&engine, &tag, &labels))?;
    step("list what is in it", || {
        let place = directory()?.join(format!("sidecar-{}.cdx.json", env!("CARGO_PKG_VERSION")));
        let list = sbom::of(&contents.file("sidecar")?, &revision)?;
        fs::write(&place, format!("{list:#}\n"))
            .with_context(|| format!("cannot write {}", place.display()))?;
        eprintln!("  {}", place.display());
        Ok(())
    })?;
    if let Some(output) = &output {
        step("write the archive", || engine.save(&tag, output))?;
    }
    println!("{tag}: {:.1} MB", megabytes(contents.size()));
    Ok(())
}

/// What the image says of itself, beside what stands in the `Dockerfile`.
fn labels(revision: &Revision) -> Vec<(&'static str, String)> {
    let mut labels = vec![
        ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ("revision", revision.name.clone()),
        ("created", revision.date.clone()),
    ];
    labels.extend(revision.source.clone().map(|source| ("source", source)));
    labels
}

fn check_image(
    engine: &Engine,
    tag: &str,
    labels: &[(&'static str, String)],
) -> anyhow::Result<Contents> {
    let version = engine.run(tag, &["--version"])?;
    let expected = format!("sidecar {}", env!("CARGO_PKG_VERSION"));
    ensure!(version == expected, "it says that it is {version:?}");
    ensure!(
        !engine.run(tag, &["explain"])?.is_empty(),
        "`sidecar explain` prints nothing in the image"
    );
    let image = engine.inspect(tag)?;
    let user = &image["Config"]["User"];
    ensure!(user == USER, "the image runs as {user} and not as {USER}");
    for (name, value) in labels {
        let label = &image["Config"]["Labels"][format!("org.opencontainers.image.{name}")];
        ensure!(
            label == value,
            "the label {name} is {label} and not {value}"
        );
    }
    for name in ["title", "description", "licenses"] {
        let label = &image["Config"]["Labels"][format!("org.opencontainers.image.{name}")];
        ensure!(label.is_string(), "the image has no label {name}");
    }
    let contents = Contents::of(engine, tag, &directory()?.join("contents"))?;
    contents.ensure_complete()?;
    let size = contents.size();
    ensure!(
        size < MOST,
        "the image takes {:.1} MB, and may take {:.1} MB",
        megabytes(size),
        megabytes(MOST)
    );
    Ok(contents)
}

fn compare_two_builds(engine: &Engine, base: &str, revision: &Revision) -> anyhow::Result<()> {
    if revision.changed {
        bail!("there are changes that are not committed: what is compared is a commit");
    }
    let labels = labels(revision);
    let mut sums = Vec::new();
    // Where the sources are on this machine, and where they are in the build.
    for (name, inside) in [("one", "/usr/src/sidecar"), ("two", "/home/elsewhere")] {
        let tag = format!("localhost/sidecar-check:{name}");
        let context = directory()?.join(name);
        step(&format!("build {name} of two"), || {
            revision.unpack(&context)?;
            engine.build(&Build {
                context: &context,
                tag: &tag,
                base,
                directory: Some(inside),
                labels: &labels,
                time: revision.time,
            })
        })?;
        let place = directory()?.join(format!("contents-{name}"));
        sums.push(Contents::of(engine, &tag, &place)?.sums()?);
    }
    let (one, two) = (&sums[0], &sums[1]);
    for (path, sum) in one {
        println!("{sum}  {path}");
    }
    if one != two {
        let differing = one
            .iter()
            .filter(|(path, sum)| two.get(*path) != Some(*sum));
        let paths: Vec<_> = differing.map(|(path, _)| path.as_str()).collect();
        bail!(
            "two builds of {} differ in {}: keep {} to see by what",
            revision.name,
            paths.join(" and "),
            directory()?.display()
        );
    }
    println!("two builds of {} are equal", revision.name);
    Ok(())
}

/// Where everything about images is.
fn directory() -> anyhow::Result<PathBuf> {
    let directory = workspace::target().join("image");
    fs::create_dir_all(&directory)
        .with_context(|| format!("cannot make {}", directory.display()))?;
    Ok(directory)
}

#[expect(clippy::cast_precision_loss, reason = "it is for people to read")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{linker, toolchain};

    fn dockerfile() -> String {
        let path = workspace::root().join("Dockerfile");
        fs::read_to_string(path).expect("there is a Dockerfile")
    }

    #[test]
    fn the_dockerfile_installs_what_the_build_asks_for() {
        let text = dockerfile();
        let packages = toolchain::PACKAGES.map(str::to_owned);
        let llvm = format!("llvm-{}-dev", linker::LLVM);
        for package in packages.iter().chain([&llvm]) {
            assert!(text.contains(&**package), "{package}");
        }
        let linker = format!("ARG BPF_LINKER={}\n", linker::LINKER.version);
        assert!(text.contains(&linker), "{linker}");
    }

    #[test]
    fn the_dockerfile_starts_where_the_debootstrapped_base_does() {
        assert!(dockerfile().contains(&format!("ARG BASE={}\n", base::DEBIAN)));
        assert!(base::DEBIAN.contains(base::RELEASE));
    }
}
