//! Kernels as Debian builds them.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, anyhow, ensure};

use super::read;
use crate::{
    arch::Arch,
    packages::{self, Packages},
};

/// What the tests need that is not built in; `depmod` finds what these need.
const MODULES: [&str; 19] = [
    "tcp_diag",
    "bridge",
    "veth",
    "nf_tables",
    "nft_chain_nat",
    "nft_counter",
    "nft_ct",
    "nft_compat",
    "nft_masq",
    "nft_meta_bridge",
    "nft_nat",
    "nft_numgen",
    "nft_reject_inet",
    "nfnetlink",
    "xt_TCPOPTSTRIP",
    "sch_netem",
    "dummy",
    "geneve",
    "vxlan",
];

/// A kernel to boot.
pub struct Kernel {
    /// What `uname -r` says there.
    pub release: String,
    /// The image that a boot loader loads.
    pub image: PathBuf,
    /// Its modules, in the order in which they are loaded: name and content.
    pub modules: Vec<(String, Vec<u8>)>,
}

impl Kernel {
    /// The newest of a version, out of the cache or the archive.
    pub fn find(directory: &Path, arch: Arch, version: &str, update: bool) -> anyhow::Result<Self> {
        let cached = if update {
            None
        } else {
            cached(directory, arch, version)?
        };
        let root = match cached {
            Some(root) => root,
            None => download(directory, arch, version, update)?,
        };
        Self::open(&root)
    }

    fn open(root: &Path) -> anyhow::Result<Self> {
        let release = root.file_name().unwrap_or_default();
        let release = release.to_string_lossy().into_owned();
        let lib = modules_directory(root, &release)
            .with_context(|| format!("{} has no modules", root.display()))?;
        let images = [
            root.join(format!("boot/vmlinuz-{release}")),
            lib.join("vmlinuz"),
        ];
        let image = images.into_iter().find(|path| path.exists());
        Ok(Self {
            image: image.with_context(|| format!("{} has no kernel", root.display()))?,
            modules: modules(root, &lib, &release)?,
            release,
        })
    }
}

/// Where the modules are: in newer packages below `usr`.
fn modules_directory(root: &Path, release: &str) -> Option<PathBuf> {
    let places = ["lib", "usr/lib"].map(|lib| root.join(lib).join("modules").join(release));
    places.into_iter().find(|path| path.join("kernel").exists())
}

/// The newest of a version that is there.
fn cached(directory: &Path, arch: Arch, version: &str) -> anyhow::Result<Option<PathBuf>> {
    let kernels = directory.join("kernels");
    fs::create_dir_all(&kernels).with_context(|| format!("cannot make {}", kernels.display()))?;
    let entries = fs::read_dir(&kernels).context("cannot list the kernels")?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let newest =
        newest(names.filter(|name| is_of(name, version) && name.ends_with(&flavour(arch))));
    Ok(newest.map(|release| kernels.join(release)))
}

fn download(directory: &Path, arch: Arch, version: &str, update: bool) -> anyhow::Result<PathBuf> {
    const IMAGE: &str = "linux-image-";
    let apt = directory.join(format!("apt-kernels-{arch}"));
    let packages = Packages::open(&apt, arch, packages::KERNELS, update)?;
    let names = packages.named(&format!("{IMAGE}{version}."), &flavour(arch));
    let releases = names.iter().filter_map(|name| name.strip_prefix(IMAGE));
    let mut releases: Vec<_> = releases.map(str::to_owned).collect();
    releases.sort_by(|a, b| by_age(b, a));
    ensure!(
        !releases.is_empty(),
        "Debian has no kernel {version} for clouds: name another version, such as 6.12"
    );
    first(&releases, |release| {
        // Made last: half a kernel is none.
        let part = directory.join("kernels.part");
        let _ = fs::remove_dir_all(&part);
        fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        packages.unpack(&format!("{IMAGE}{release}"), None, &part)?;
        if modules_directory(&part, release).is_none() {
            // From 7.x on the package of that name only asks for two others.
            for kind in ["linux-binary-", "linux-modules-"] {
                packages.unpack(&format!("{kind}{release}"), None, &part)?;
            }
        }
        let root = directory.join("kernels").join(release);
        let _ = fs::remove_dir_all(&root);
        fs::rename(&part, &root).with_context(|| format!("cannot make {}", root.display()))?;
        Ok(root)
    })
}

/// What became of the first that could be had: an archive goes on listing what it has removed. If none can, the first
/// error tells.
fn first(
    releases: &[String],
    fetch: impl Fn(&str) -> anyhow::Result<PathBuf>,
) -> anyhow::Result<PathBuf> {
    let mut refusal = None;
    for release in releases {
        match fetch(release) {
            Ok(root) => return Ok(root),
            Err(error) => {
                eprintln!("  {release} is listed and cannot be had");
                refusal.get_or_insert(error);
            }
        }
    }
    Err(refusal.unwrap_or_else(|| anyhow!("no kernel is listed")))
}

/// How the builds for clouds are named: few drivers, and everything of the network.
fn flavour(arch: Arch) -> String {
    format!("-cloud-{arch}")
}

/// Whether a release is one of a version: 6.12.90 of 6.12 and of 6, but not of 6.1.
fn is_of(release: &str, version: &str) -> bool {
    release
        .strip_prefix(version)
        .is_some_and(|rest| rest.starts_with('.'))
}

fn newest(releases: impl Iterator<Item = String>) -> Option<String> {
    releases.max_by(|a, b| by_age(a, b))
}

/// Compares the numbers in them, one after the other.
fn by_age(a: &str, b: &str) -> Ordering {
    let numbers = |release: &str| {
        let words = release.split(|character: char| !character.is_ascii_digit());
        words
            .filter_map(|word| word.parse().ok())
            .collect::<Vec<u64>>()
    };
    numbers(a).cmp(&numbers(b)).then_with(|| a.cmp(b))
}

/// The modules that are needed and those that they need, in order.
fn modules(root: &Path, lib: &Path, release: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let base = lib.ancestors().nth(3).unwrap_or(root);
    let status = Command::new("/sbin/depmod")
        .arg("-b")
        .args([base, Path::new(release)])
        .status()
        .context("cannot start depmod")?;
    ensure!(status.success(), "depmod failed on {}", base.display());
    let needs = String::from_utf8(read(&lib.join("modules.dep"))?).context("odd names")?;
    let mut order = Vec::new();
    let mut seen = BTreeSet::new();
    for name in MODULES {
        let line = needs.lines().find(|line| {
            let path = line.split(':').next().unwrap_or_default();
            module_name(path) == name
        });
        // What is built in, or does not exist there, has no line.
        let Some((path, others)) = line.and_then(|line| line.split_once(':')) else {
            continue;
        };
        // Those that are needed first stand last.
        for path in others.split_whitespace().rev().chain([path]) {
            if seen.insert(path.to_owned()) {
                order.push(path.to_owned());
            }
        }
    }
    let module = |path: String| {
        let content = uncompressed(&lib.join(&path))?;
        Ok((format!("{}.ko", module_name(&path)), content))
    };
    order.into_iter().map(module).collect()
}

/// `veth` of `kernel/drivers/net/veth.ko.xz`.
fn module_name(path: &str) -> &str {
    let file = path.rsplit('/').next().unwrap_or(path);
    file.split('.').next().unwrap_or(file)
}

fn uncompressed(path: &Path) -> anyhow::Result<Vec<u8>> {
    if path.extension().is_none_or(|extension| extension != "xz") {
        return read(path);
    }
    let output = Command::new("/usr/bin/xz")
        .args(["--decompress", "--stdout"])
        .arg(path)
        .output()
        .context("cannot start xz")?;
    ensure!(output.status.success(), "xz cannot read {}", path.display());
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_whole_numbers() {
        assert!(is_of("6.12.90+deb12-cloud-amd64", "6.12"));
        assert!(is_of("7.3.4+deb13-cloud-amd64", "7"));
        assert!(!is_of("6.12.90+deb12-cloud-amd64", "6.1"));
    }

    #[test]
    fn the_newest_has_the_highest_numbers() {
        let releases = [
            "6.12.9-cloud-amd64",
            "6.12.117+deb13-cloud-amd64",
            "6.12.94+deb13.1-cloud-amd64",
        ];
        let newest = newest(releases.map(str::to_owned).into_iter());
        assert_eq!(newest.as_deref(), Some(releases[1]));
    }

    #[test]
    fn what_an_archive_lists_and_has_removed_gives_way_to_the_one_before() {
        let releases = ["5.10.0-46", "5.10.0-45", "5.10.0-32", "5.10.0-30"].map(str::to_owned);
        let fetch = |release: &str| {
            ensure!(
                release == "5.10.0-32" || release == "5.10.0-30",
                "404 of {release}"
            );
            Ok(PathBuf::from(release))
        };
        let found = first(&releases, fetch).expect("one can be had");
        assert_eq!(found, Path::new("5.10.0-32"));
        let error = first(&releases[..2], fetch).expect_err("none can be had");
        assert_eq!(error.to_string(), "404 of 5.10.0-46");
    }

    #[test]
    fn a_module_is_called_as_its_file() {
        assert_eq!(module_name("kernel/drivers/net/veth.ko.xz"), "veth");
        assert_eq!(
            module_name("kernel/net/netfilter/nf_tables.ko"),
            "nf_tables"
        );
    }
}
