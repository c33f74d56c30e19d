//! Where the programs of a machine are taken from.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Component, Path, PathBuf},
};

use anyhow::{Context as _, bail};

use super::guest;
use crate::{
    arch::Arch,
    packages::{self, Packages},
    setup,
};

/// A file system with Debian's packages: that of this machine, or one of another processor's.
pub struct Root {
    path: PathBuf,
    arch: Arch,
}

impl Root {
    /// The one for a processor. Has the packages that are missing installed, or unpacked.
    pub fn find(arch: Arch, directory: &Path) -> anyhow::Result<Self> {
        if arch == Arch::OWN {
            setup::programs(&guest::PROGRAMS)?;
            return Ok(Self {
                path: "/".into(),
                arch,
            });
        }
        let root = Self {
            path: directory.join(format!("root-{arch}")),
            arch,
        };
        if !root.is_complete() {
            root.fill(directory)?;
        }
        Ok(root)
    }

    /// What is at a path there, behind all links.
    pub fn resolve(&self, path: &Path) -> anyhow::Result<PathBuf> {
        /// As many as the kernel follows.
        const LINKS: u32 = 40;
        let mut path = self.path.join(relative(path));
        for _ in 0..LINKS {
            match self.follow(&path) {
                Some(target) => path = target,
                None if path.exists() => return Ok(path),
                None => bail!("there is no {}", path.display()),
            }
        }
        bail!("too many links lead to {}", path.display())
    }

    /// Where libraries are, as they are seen from within.
    pub fn libraries(&self) -> [PathBuf; 4] {
        let gnu = self.arch.gnu();
        [
            format!("/lib/{gnu}"),
            format!("/usr/lib/{gnu}"),
            "/lib".to_owned(),
            "/usr/lib".to_owned(),
        ]
        .map(PathBuf::from)
    }

    /// Where the first link on the way leads, if there is one.
    fn follow(&self, path: &Path) -> Option<PathBuf> {
        let inside = path.strip_prefix(&self.path).ok()?;
        let parts: Vec<_> = inside.components().collect();
        for length in 1..=parts.len() {
            let (head, rest) = parts.split_at(length);
            let place = self.path.join(head.iter().collect::<PathBuf>());
            let Ok(target) = fs::read_link(&place) else {
                continue;
            };
            let target = if target.is_absolute() {
                self.path.join(relative(&target))
            } else {
                normal(&place.parent()?.join(target))
            };
            return Some(rest.iter().fold(target, |path, part| path.join(part)));
        }
        None
    }

    fn is_complete(&self) -> bool {
        guest::PROGRAMS
            .iter()
            .all(|(path, _)| self.resolve(Path::new(path)).is_ok())
    }

    /// Unpacks the programs' packages, and all that these need.
    fn fill(&self, directory: &Path) -> anyhow::Result<()> {
        let _ = fs::remove_dir_all(&self.path);
        // Debian's packages were made before these were one, and are unpacked through the links.
        for place in ["bin", "lib", "sbin"] {
            let usr = self.path.join("usr").join(place);
            fs::create_dir_all(&usr).with_context(|| format!("cannot make {}", usr.display()))?;
            let link = self.path.join(place);
            symlink(Path::new("usr").join(place), &link)
                .with_context(|| format!("cannot make {}", link.display()))?;
        }
        let apt = directory.join(format!("apt-root-{}", self.arch));
        let packages = Packages::open(&apt, self.arch, packages::BOOKWORM, false)?;
        let names: Vec<_> = guest::PROGRAMS
            .iter()
            .map(|(_, package)| *package)
            .collect();
        packages.unpack_with_needs(&names, &self.path)?;
        // What the package does when it is installed, which nothing here is.
        for (link, target) in LINKS {
            let link = self.path.join(relative(Path::new(link)));
            if fs::symlink_metadata(&link).is_err() {
                symlink(target, &link)
                    .with_context(|| format!("cannot make {}", link.display()))?;
            }
        }
        Ok(())
    }
}

/// Alternatives, and what they are where nobody has chosen.
const LINKS: [(&str, &str); 4] = [
    ("/usr/sbin/ip6tables", "xtables-nft-multi"),
    ("/usr/sbin/ip6tables-save", "xtables-nft-multi"),
    ("/usr/sbin/iptables", "xtables-nft-multi"),
    ("/usr/sbin/iptables-save", "xtables-nft-multi"),
];

fn relative(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

/// Without `..`, which may lead through no link here: each was followed before.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for part in path.components() {
        if part == Component::ParentDir {
            normal.pop();
        } else {
            normal.push(part);
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_lead_nowhere_out_of_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = Root {
            path: directory.path().to_owned(),
            arch: Arch::Arm64,
        };
        let at = |path: &str| root.path.join(path);
        fs::create_dir_all(at("usr/bin")).expect("made");
        fs::write(at("usr/bin/true"), "").expect("written");
        symlink("usr/bin", at("bin")).expect("linked");
        symlink("/bin/true", at("usr/bin/yes")).expect("linked");
        symlink("../bin/yes", at("usr/bin/ja")).expect("linked");
        let found = root.resolve(Path::new("/bin/ja")).expect("found");
        assert_eq!(found, at("usr/bin/true"));
        assert!(root.resolve(Path::new("/bin/false")).is_err());
    }
}
