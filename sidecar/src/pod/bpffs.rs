use std::{
    fs, io,
    path::{Path, PathBuf},
};

use nix::{
    mount::{MsFlags, mount},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};
use thiserror::Error;

/// Why there is no BPF file system to pin to.
#[derive(Debug, Error)]
#[error("no BPF file system at {} and none can be mounted there: {source}; mount one with `mount -t bpf bpf {}` or name another place with --bpffs", path.display(), path.display())]
pub struct BpfFsError {
    path: PathBuf,
    source: io::Error,
}

/// Mounts a BPF file system at `path` unless there is one. The mount stays: others share it.
pub fn ensure_bpffs(path: &Path) -> Result<(), BpfFsError> {
    if is_bpffs(path) {
        return Ok(());
    }
    let mounted = fs::create_dir_all(path).and_then(|()| {
        mount(
            Some("bpf"),
            path,
            Some("bpf"),
            MsFlags::empty(),
            Some("mode=0700"),
        )
        .map_err(io::Error::from)
    });
    mounted.map_err(|source| BpfFsError {
        path: path.to_owned(),
        source,
    })
}

fn is_bpffs(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.filesystem_type() == BPF_FS_MAGIC)
}
