//! The image of the daemon under test.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use super::engine::Engine;
use crate::sidecar;

/// The image's name, which manifests give.
pub const NAME: &str = concat!("sidecar:", env!("CARGO_PKG_VERSION"));

/// Whom it runs as unless a manifest says otherwise; for its group, too.
const USER: &str = "4195:4195";

/// Gives `engine` the image in the archive `$SIDECAR_IMAGE`, or without one an image of the same form
/// around the binary that all other tests use.
#[track_caller]
pub fn provide(engine: &Engine) {
    match env::var_os("SIDECAR_IMAGE") {
        Some(archive) => load(engine, Path::new(&archive)),
        None => around(engine, &sidecar::binary()),
    }
}

#[track_caller]
fn load(engine: &Engine, archive: &Path) {
    let path = archive.to_str().expect("the path is UTF-8");
    let loaded = engine.podman(["load", "--quiet", "--input", path]).stdout;
    let name = loaded
        .trim()
        .rsplit(' ')
        .next()
        .expect("rsplit is never empty");
    engine.podman(["tag", name, NAME]);
}

/// Makes an image of a binary, the libraries it is linked with, and nothing else.
#[track_caller]
fn around(engine: &Engine, binary: &Path) {
    let root = engine.directory().join("image");
    let archive = engine.directory().join("image.tar");
    fs::create_dir(&root).expect("making the image's root");
    copy(binary, &root.join("sidecar"));
    for library in libraries(binary) {
        let inside = library.strip_prefix("/").expect("ldd names whole paths");
        copy(&library, &root.join(inside));
    }
    let mut tar = Command::new("tar");
    tar.arg("--create").arg("--file").arg(&archive);
    tar.arg("--directory").arg(&root).arg(".");
    assert!(
        tar.status().expect("tar starts").success(),
        "{tar:?} failed"
    );
    let path = archive.to_str().expect("the path is UTF-8");
    let user = format!("USER {USER}");
    let changes = ["--change", &*user, "--change", r#"ENTRYPOINT ["/sidecar"]"#];
    let import = ["import", "--quiet"].into_iter().chain(changes);
    engine.podman(import.chain([path, NAME]));
    fs::remove_dir_all(root).expect("removing the image's root");
    fs::remove_file(archive).expect("removing the archive");
}

#[track_caller]
fn copy(from: &Path, to: &Path) {
    let directory = to.parent().expect("it is below the root");
    fs::create_dir_all(directory).expect("making a directory of the image");
    fs::copy(from, to).unwrap_or_else(|error| panic!("copying {}: {error}", from.display()));
}

/// The files that the dynamic linker would map.
#[track_caller]
fn libraries(binary: &Path) -> Vec<PathBuf> {
    let output = Command::new("ldd").arg(binary).output();
    let output = output.expect("running ldd, of the Debian package libc-bin");
    assert!(output.status.success(), "ldd {}", binary.display());
    let text = String::from_utf8(output.stdout).expect("paths of libraries are ASCII");
    let paths = text.split_whitespace().filter(|word| word.starts_with('/'));
    paths.map(PathBuf::from).collect()
}
