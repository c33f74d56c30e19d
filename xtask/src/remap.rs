//! Keeping out of a binary where it was built, so that two builds of the same sources are equal.

use std::{env, ffi::OsString, path::PathBuf};

use crate::workspace;

/// The compiler's flags that replace the directories of this machine by names of their own.
///
/// The last one that fits a path counts, so the workspace stands before what may be in it.
pub fn rustflags() -> String {
    let places = [
        (workspace::root().to_owned(), "/sidecar"),
        (workspace::target(), "/target"),
        (cargo_home(), "/cargo"),
    ];
    places
        .iter()
        .map(|(path, name)| format!("--remap-path-prefix={}={name}", path.display()))
        .collect::<Vec<_>>()
        .join(" ")
}

/// The same, after the flags that the environment asks for.
pub fn after_environment() -> OsString {
    let mut flags = env::var_os("RUSTFLAGS").unwrap_or_default();
    if !flags.is_empty() {
        flags.push(" ");
    }
    flags.push(rustflags());
    flags
}

/// Where cargo keeps the sources of the dependencies.
fn cargo_home() -> PathBuf {
    env::var_os("CARGO_HOME").map_or_else(
        || {
            let home = env::home_dir().unwrap_or_default();
            home.join(".cargo")
        },
        PathBuf::from,
    )
}
