//! Volumes: directories of the machine that containers see.

use std::{
    collections::BTreeMap,
    fs::{self, Permissions},
    os::unix::fs::{FileTypeExt as _, PermissionsExt as _, symlink},
    path::{Path, PathBuf},
};

use nix::mount::{MsFlags, mount};

use super::{
    manifest::{EmptyDir, HostPath, HostPathKind, Secret, Volume},
    options::Source,
};
use crate::Sandbox;

/// Files by name, as a secret holds them.
pub type Files = BTreeMap<String, Vec<u8>>;

/// What a node has to offer to volumes.
#[derive(Clone, Copy, Debug)]
pub struct Offer<'a> {
    /// What stands for the host's `/sys/fs/bpf`.
    pub bpffs: &'a Path,
    /// By name.
    pub secrets: &'a BTreeMap<String, Files>,
}

/// Makes a volume in the pod's directory, or finds it on the machine.
#[track_caller]
pub fn provide(volume: &Volume, sandbox: &Sandbox, offer: Offer<'_>) -> Source {
    let own = sandbox.directory().join(format!("volume-{}", volume.name));
    let Volume {
        host_path,
        empty_dir,
        secret,
        ..
    } = volume;
    let (path, read_only) = match (host_path, empty_dir, secret) {
        (Some(host), None, None) => (host_path_on_machine(host, offer.bpffs), false),
        (None, Some(empty), None) => {
            make_empty(empty, &own);
            (own, false)
        }
        (None, None, Some(secret)) => {
            write_secret(secret, &own, offer.secrets);
            (own, true)
        }
        _ => panic!("this volume is nothing, or two things: {volume:?}"),
    };
    Source {
        path: path
            .into_os_string()
            .into_string()
            .expect("paths here are UTF-8"),
        read_only,
    }
}

#[track_caller]
fn host_path_on_machine(HostPath { path, kind }: &HostPath, bpffs: &Path) -> PathBuf {
    let path = match Path::new(path).strip_prefix("/sys/fs/bpf") {
        Ok(below) if below.as_os_str().is_empty() => bpffs.to_owned(),
        Ok(below) => bpffs.join(below),
        Err(_) => PathBuf::from(path),
    };
    if *kind == HostPathKind::DirectoryOrCreate {
        fs::create_dir_all(&path).expect("making a directory that a manifest wants");
    }
    let metadata = fs::metadata(&path)
        .unwrap_or_else(|error| panic!("the host's {}: {error}", path.display()));
    let fits = match kind {
        HostPathKind::Any => true,
        HostPathKind::Directory | HostPathKind::DirectoryOrCreate => metadata.is_dir(),
        HostPathKind::Socket => metadata.file_type().is_socket(),
    };
    assert!(fits, "{} is no {kind:?}", path.display());
    path
}

#[track_caller]
fn make_empty(EmptyDir { medium }: &EmptyDir, path: &Path) {
    fs::create_dir(path).expect("making a volume");
    if medium.is_some() {
        let none: Option<&str> = None;
        mount(none, path, Some("tmpfs"), MsFlags::empty(), none).expect("mounting a tmpfs");
    }
    fs::set_permissions(path, Permissions::from_mode(0o777)).expect("opening a volume");
}

/// Writes files as a node does: behind a link that is replaced when the secret changes.
#[track_caller]
fn write_secret(secret: &Secret, path: &Path, secrets: &BTreeMap<String, Files>) {
    let Secret {
        name: secret_name,
        default_mode,
        optional,
    } = secret;
    let data = path.join("..2026");
    fs::create_dir_all(&data).expect("making a volume");
    symlink("..2026", path.join("..data")).expect("making a link");
    let none = Files::new();
    let files = match secrets.get(secret_name) {
        Some(files) => files,
        None if *optional => &none,
        None => panic!("there is no secret {secret_name}"),
    };
    for (name, content) in files {
        let file = data.join(name);
        fs::write(&file, content).expect("writing a secret");
        let mode = default_mode.unwrap_or(0o644);
        fs::set_permissions(&file, Permissions::from_mode(mode)).expect("its mode");
        symlink(Path::new("..data").join(name), path.join(name)).expect("making a link");
    }
}
