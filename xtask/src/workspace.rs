//! Where things are in the workspace.

use std::path::{Path, PathBuf};

/// The directory that holds the workspace's `Cargo.toml`.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("xtask is a directory in the workspace")
}

/// Cargo's target directory, also where `CARGO_TARGET_DIR` or a cargo configuration moved it: the
/// one that holds this very program.
pub fn target() -> PathBuf {
    let program = std::env::current_exe().expect("/proc is mounted");
    program
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").exists())
        .map_or_else(|| root().join("target"), Path::to_owned)
}

/// The kernel side's object, from where the daemon's build script takes it.
pub fn ebpf_object() -> PathBuf {
    target().join("ebpf/sidecar.o")
}
