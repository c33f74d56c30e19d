//! Hands the kernel side's object, which `cargo xtask build-ebpf` made, to `include_bytes!` as
//! `$OUT_DIR/sidecar.o`.
//!
//! Without one the file is empty: the crate builds and its unit tests run where no kernel-side
//! compiler is, and the daemon says what is missing when it is asked to attach.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

/// Names an object that was built elsewhere.
const VARIABLE: &str = "SIDECAR_EBPF_OBJECT";

fn main() {
    println!("cargo::rerun-if-env-changed={VARIABLE}");
    let out =
        PathBuf::from(env::var_os("OUT_DIR").expect("cargo names a directory for the output"));
    let object = match env::var_os(VARIABLE) {
        Some(path) => {
            let path = PathBuf::from(path);
            println!("cargo::rerun-if-changed={}", path.display());
            fs::read(&path).unwrap_or_else(|error| {
                panic!("cannot read {VARIABLE}={}: {error}", path.display())
            })
        }
        None => in_target_directory(&out),
    };
    fs::write(out.join("sidecar.o"), object).expect("cargo's directory for the output is writable");
}

fn in_target_directory(out: &Path) -> Vec<u8> {
    let target = out
        .ancestors()
        .find(|directory| directory.join("CACHEDIR.TAG").exists())
        .expect("cargo tags its target directory");
    // Cargo takes a missing file for one that always changes. It sees one appear in a directory.
    let directory = target.join("ebpf");
    fs::create_dir_all(&directory).expect("the target directory is writable");
    println!("cargo::rerun-if-changed={}", directory.display());
    match fs::read(directory.join("sidecar.o")) {
        Ok(object) => object,
        Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
        Err(error) => panic!("cannot read {}/sidecar.o: {error}", directory.display()),
    }
}
