//! `cargo xtask build-ebpf`

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::{
    command::{run as run_command, step},
    debug_information, remap,
    setup::{self, KernelSide},
    toolchain::TARGET,
    workspace,
};

/// Build the kernel side alone
#[derive(clap::Args)]
pub struct Options {}

pub fn run(Options {}: Options) -> anyhow::Result<()> {
    let tools = setup::kernel_side()?;
    step("build the kernel side", || build(&tools))
}

fn build(tools: &KernelSide) -> anyhow::Result<()> {
    run_command(&mut kernel_cargo(tools, "build"))?;
    let built = directory().join(TARGET).join("release/sidecar-ebpf");
    let object = workspace::ebpf_object();
    let bytes = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    publish(&debug_information::without(&bytes)?, &object)
        .with_context(|| format!("cannot write {}", object.display()))
}

/// A cargo that does `action` with the kernel side.
pub fn kernel_cargo(tools: &KernelSide, action: &str) -> Command {
    let mut command = tools.toolchain.cargo();
    command
        .args([action, "--release", "--package", "sidecar-ebpf"])
        .args(["--target", TARGET, "-Z", "build-std=core", "--target-dir"])
        .arg(directory())
        .env(linker_variable(), &tools.linker)
        .env("RUSTFLAGS", rustflags())
        .env_remove("CARGO_ENCODED_RUSTFLAGS");
    command
}

/// A target directory of its own, so that the kernel side's builds and the host's neither wait for
/// nor undo each other.
fn directory() -> PathBuf {
    workspace::target().join("ebpf-build")
}

/// Debug information is what `--btf` is made from, and without BTF the kernel refuses the maps; the
/// `cfg` chooses the layout of the host's registers in `aya-ebpf`.
///
/// The linker's way to expand `memcpy` in order has LLVM call a function for every `memset`. Its loop
/// the verifier refuses where the loader has no more than `CAP_BPF` and `CAP_NET_ADMIN` ("tried to
/// add from different maps, paths or scalars, pointer arithmetic with it prohibited for !root").
fn rustflags() -> String {
    let host = std::env::consts::ARCH;
    let linker = "-C link-arg=--btf -C link-arg=--disable-expand-memcpy-in-order";
    let remap = remap::rustflags();
    format!(r#"-C debuginfo=2 {linker} --cfg=bpf_target_arch="{host}" {remap}"#)
}

fn linker_variable() -> String {
    let target = TARGET.to_uppercase().replace('-', "_");
    format!("CARGO_TARGET_{target}_LINKER")
}

/// Writes `bytes` to `object`, but leaves an equal one alone: its time decides whether the daemon
/// is built again.
fn publish(bytes: &[u8], object: &Path) -> io::Result<()> {
    if fs::read(object).is_ok_and(|old| old == bytes) {
        return Ok(());
    }
    if let Some(directory) = object.parent() {
        fs::create_dir_all(directory)?;
    }
    fs::write(object, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn publishing_equal_bytes_again_keeps_the_time() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let object = directory.path().join("ebpf/object");
        let changed = || {
            fs::metadata(&object)
                .and_then(|m| m.modified())
                .expect("published")
        };

        publish(b"first", &object).expect("published");
        let first = changed();
        publish(b"first", &object).expect("published again");
        assert_eq!(changed(), first);

        publish(b"second", &object).expect("published a change");
        assert_eq!(fs::read(&object).expect("readable"), b"second");
    }
}
