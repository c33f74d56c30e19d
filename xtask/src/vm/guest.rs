//! What runs in a machine: the first file system that its kernel gets, as an archive.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{self, BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use cpio::newc::{self, ModeFileType};

use super::{libraries::Needs, read, root::Root};
use crate::workspace;

/// Run first, and does everything.
const INIT: &str = include_str!("init.sh");

/// What the tests run, by path and Debian package.
pub const PROGRAMS: [(&str, &str); 24] = [
    ("/bin/busybox", "busybox-static"),
    ("/bin/sh", "dash"),
    ("/bin/sleep", "coreutils"),
    ("/usr/bin/cat", "coreutils"),
    ("/usr/bin/curl", "curl"),
    ("/usr/bin/env", "coreutils"),
    ("/usr/bin/mkfifo", "coreutils"),
    ("/usr/bin/mount", "mount"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/openssl", "openssl"),
    ("/usr/bin/prlimit", "util-linux"),
    ("/usr/bin/python3", "python3"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/tcpdump", "tcpdump"),
    ("/usr/bin/umount", "mount"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/wrk", "wrk"),
    ("/usr/sbin/ip", "iproute2"),
    ("/usr/sbin/ip6tables", "iptables"),
    ("/usr/sbin/ip6tables-save", "iptables"),
    ("/usr/sbin/iptables", "iptables"),
    ("/usr/sbin/iptables-save", "iptables"),
    ("/usr/sbin/nft", "nftables"),
    ("/usr/sbin/nginx", "nginx-light"),
];

/// What they read, as it is on this machine.
const FILES: [&str; 5] = [
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
    "/etc/services",
];

/// What they are linked to only once they run, where libraries are.
const PLUGINS: [&str; 2] = ["xtables/libxt_TCPOPTSTRIP.so", "xtables/libxt_tcp.so"];

/// What is elsewhere in Debian, which some programs know by one name, and some by the other.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];

/// Where Python has what it comes with, and what of that no test needs.
const PYTHON: &str = "/usr/lib/python3.11";
const NOT_NEEDED: [&str; 7] = [
    "__pycache__",
    "ensurepip",
    "idlelib",
    "lib2to3",
    "pydoc_data",
    "test",
    "tkinter",
];

/// A test program.
pub struct Program {
    pub name: &'static str,
    pub path: PathBuf,
    /// Which of its tests, as arguments for it: without any, all.
    pub which: String,
}

/// Programs and tests, packed for every kernel.
pub struct Guest {
    /// The archive.
    pub archive: PathBuf,
}

impl Guest {
    /// Packs the daemon, the tests and what they run.
    pub fn pack(
        directory: &Path,
        root: &Root,
        strip: &str,
        daemon: &Path,
        tests: &[Program],
    ) -> anyhow::Result<Self> {
        let path = directory.join("guest.cpio");
        let mut archive = Archive::create(&path)?;
        for place in MERGED {
            archive.link(place, &format!("usr/{place}"))?;
        }
        for empty in ["dev", "proc", "root", "run", "sys", "tmp", "var/tmp"] {
            archive.directory(Path::new(empty))?;
        }
        archive.file(Path::new("/init"), 0o755, INIT.as_bytes())?;
        for (program, _) in PROGRAMS {
            archive.copy(root, Path::new(program))?;
        }
        for file in FILES {
            archive.file(Path::new(file), 0o644, &read(Path::new(file))?)?;
        }
        for plugin in PLUGINS {
            archive.library(root, plugin)?;
        }
        archive.tree(root, Path::new(PYTHON))?;
        let scripts = workspace::root().join("tests/scripts");
        for script in files(&scripts)? {
            archive.file(&script, 0o755, &read(&script)?)?;
        }
        let stripped = directory.join("stripped");
        let mut own = |name: &str, path: &Path| {
            let status = Command::new(strip)
                .arg("-o")
                .args([&stripped, path])
                .status()
                .with_context(|| format!("cannot start {strip}"))?;
            ensure!(status.success(), "{strip} cannot read {}", path.display());
            archive.program(
                root,
                &Path::new("/tests").join(name),
                0o755,
                &read(&stripped)?,
            )
        };
        own("sidecar", daemon)?;
        let mut order = Vec::new();
        for Program { name, path, which } in tests {
            own(name, path)?;
            order.push(format!("{name} {which}\n"));
        }
        archive.file(Path::new("/tests/order"), 0o644, order.concat().as_bytes())?;
        archive.end()?;
        Ok(Self { archive: path })
    }
}

/// An archive in the format that kernels unpack (`newc` of cpio(5)).
pub struct Archive {
    file: BufWriter<File>,
    known: BTreeSet<PathBuf>,
}

impl Archive {
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let file = File::create(path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self {
            file: BufWriter::new(file),
            known: BTreeSet::new(),
        })
    }

    /// A link in the root directory.
    fn link(&mut self, name: &str, target: &str) -> anyhow::Result<()> {
        self.entry(
            Path::new(name),
            ModeFileType::Symlink,
            0o777,
            target.as_bytes(),
        )
    }

    /// A directory and those above it.
    pub fn directory(&mut self, path: &Path) -> anyhow::Result<()> {
        let path = merged(path);
        for path in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if path.as_os_str().is_empty() || !self.known.insert(path.to_owned()) {
                continue;
            }
            self.entry(path, ModeFileType::Directory, 0o755, &[])?;
        }
        Ok(())
    }

    pub fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let path = merged(path);
        if !self.known.insert(path.clone()) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        self.entry(&path, ModeFileType::Regular, mode, content)
    }

    /// A file that is there, and what it needs if it is a program.
    fn copy(&mut self, root: &Root, path: &Path) -> anyhow::Result<()> {
        let source = root.resolve(path)?;
        let metadata = fs::metadata(&source)
            .with_context(|| format!("cannot look at {}", source.display()))?;
        self.program(
            root,
            path,
            metadata.permissions().mode() & 0o7777,
            &read(&source)?,
        )
    }

    /// A file with this content, and what it needs if it is a program.
    fn program(
        &mut self,
        root: &Root,
        path: &Path,
        mode: u32,
        content: &[u8],
    ) -> anyhow::Result<()> {
        if self.known.contains(&merged(path)) {
            return Ok(());
        }
        self.file(path, mode, content)?;
        let needs = Needs::of(content, path)?;
        if let Some(loader) = needs.loader {
            self.copy(root, &loader)?;
        }
        for library in needs.libraries {
            self.library(root, &library)
                .with_context(|| format!("{} needs it", path.display()))?;
        }
        Ok(())
    }

    /// A library, by its name below one of the directories for them.
    fn library(&mut self, root: &Root, name: &str) -> anyhow::Result<()> {
        let places = root.libraries().map(|directory| directory.join(name));
        let place = places.iter().find(|place| root.resolve(place).is_ok());
        let place = place.with_context(|| format!("there is no library {name}"))?;
        self.copy(root, place)
    }

    fn tree(&mut self, root: &Root, path: &Path) -> anyhow::Result<()> {
        for source in files(&root.resolve(path)?)? {
            let name = source.file_name().unwrap_or_default();
            if NOT_NEEDED.iter().any(|unwanted| name == *unwanted) {
                continue;
            }
            let path = path.join(name);
            // A link may lead to what is not installed.
            match root.resolve(&path) {
                Ok(place) if place.is_dir() => self.tree(root, &path)?,
                Ok(_) => self.copy(root, &path)?,
                Err(_) => {}
            }
        }
        Ok(())
    }

    fn entry(
        &mut self,
        path: &Path,
        kind: ModeFileType,
        mode: u32,
        content: &[u8],
    ) -> anyhow::Result<()> {
        let name = path.to_str().context("a name of odd characters")?;
        let builder = newc::Builder::new(name).mode(mode).set_mode_file_type(kind);
        let length = u32::try_from(content.len()).with_context(|| format!("{name} is too long"))?;
        let mut writer = builder.write(&mut self.file, length);
        writer
            .write_all(content)
            .context("cannot write an archive")?;
        writer.finish().context("cannot write an archive")?;
        Ok(())
    }

    pub fn end(mut self) -> anyhow::Result<()> {
        newc::trailer(&mut self.file).context("cannot write an archive")?;
        self.file.flush().context("cannot write an archive")
    }
}

/// Where a path is in an archive, behind the links that lead to [`MERGED`] places.
fn merged(path: &Path) -> PathBuf {
    let path = path.strip_prefix("/").unwrap_or(path);
    if MERGED.iter().any(|place| path.starts_with(place)) {
        return Path::new("usr").join(path);
    }
    path.to_owned()
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let list = || {
        fs::read_dir(directory)?
            .map(|entry| Ok(entry?.path()))
            .collect()
    };
    let files: io::Result<Vec<PathBuf>> = list();
    files.with_context(|| format!("cannot list {}", directory.display()))
}
