//! What runs in a machine: the first file system that its kernel gets, as an archive.

use std::{
    collections::BTreeSet,
    fs::{self, File},
    io::{BufWriter, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};
use cpio::newc::{self, ModeFileType};

use super::read;
use crate::{command::ask, workspace};

/// Run first, and does everything.
const INIT: &str = include_str!("init.sh");

/// What the tests run, by path.
const PROGRAMS: [&str; 19] = [
    "/bin/busybox",
    "/bin/sh",
    "/bin/sleep",
    "/usr/bin/cat",
    "/usr/bin/curl",
    "/usr/bin/env",
    "/usr/bin/mkfifo",
    "/usr/bin/nsenter",
    "/usr/bin/openssl",
    "/usr/bin/prlimit",
    "/usr/bin/python3",
    "/usr/bin/setpriv",
    "/usr/bin/tcpdump",
    "/usr/bin/wrk",
    "/usr/sbin/ip",
    "/usr/sbin/ip6tables-save",
    "/usr/sbin/iptables-save",
    "/usr/sbin/nft",
    "/usr/sbin/nginx",
];

/// What they read.
const FILES: [&str; 4] = [
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/protocols",
];

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

/// Programs and tests, packed for every kernel.
pub struct Guest {
    /// The archive.
    pub archive: PathBuf,
}

impl Guest {
    /// Packs the daemon, the tests and what they run.
    pub fn pack(
        directory: &Path,
        daemon: &Path,
        tests: &[(String, PathBuf)],
    ) -> anyhow::Result<Self> {
        let path = directory.join("guest.cpio");
        let mut archive = Archive::create(&path)?;
        for empty in ["dev", "proc", "root", "run", "sys", "tmp", "var/tmp"] {
            archive.directory(Path::new(empty))?;
        }
        archive.file(Path::new("/init"), 0o755, INIT.as_bytes())?;
        for program in PROGRAMS {
            archive.program(Path::new(program), Path::new(program))?;
        }
        for file in FILES {
            archive.copy(Path::new(file))?;
        }
        archive.tree(Path::new(PYTHON))?;
        archive.tree(&workspace::root().join("tests/scripts"))?;
        let stripped = directory.join("stripped");
        let mut own = |name: &str, path: &Path| {
            let status = Command::new("/usr/bin/strip")
                .arg("-o")
                .args([&stripped, path])
                .status()
                .context("cannot start strip")?;
            ensure!(status.success(), "strip cannot read {}", path.display());
            archive.program(&stripped, &Path::new("/tests").join(name))
        };
        own("sidecar", daemon)?;
        for (name, path) in tests {
            own(name, path)?;
        }
        let names: Vec<_> = tests.iter().map(|(name, _)| &**name).collect();
        archive.file(
            Path::new("/tests/order"),
            0o644,
            names.join("\n").as_bytes(),
        )?;
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

    /// A directory and those above it.
    pub fn directory(&mut self, path: &Path) -> anyhow::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        for path in path.ancestors().collect::<Vec<_>>().into_iter().rev() {
            if path.as_os_str().is_empty() || !self.known.insert(path.to_owned()) {
                continue;
            }
            self.entry(path, ModeFileType::Directory, 0o755, &[])?;
        }
        Ok(())
    }

    pub fn file(&mut self, path: &Path, mode: u32, content: &[u8]) -> anyhow::Result<()> {
        let path = path.strip_prefix("/").unwrap_or(path);
        if !self.known.insert(path.to_owned()) {
            return Ok(());
        }
        if let Some(above) = path.parent() {
            self.directory(above)?;
        }
        self.entry(path, ModeFileType::Regular, mode, content)
    }

    /// A file of the machine's, where it is there.
    fn copy(&mut self, path: &Path) -> anyhow::Result<()> {
        let metadata =
            fs::metadata(path).with_context(|| format!("there is no {}", path.display()))?;
        self.file(path, metadata.permissions().mode() & 0o7777, &read(path)?)
    }

    /// A program, and the libraries that it is linked to.
    fn program(&mut self, from: &Path, to: &Path) -> anyhow::Result<()> {
        self.file(to, 0o755, &read(from)?)?;
        self.libraries_of(from)
    }

    fn libraries_of(&mut self, program: &Path) -> anyhow::Result<()> {
        // One that is linked to none is refused.
        let libraries = ask(Command::new("ldd").arg(program)).unwrap_or_default();
        let words = libraries.split_whitespace();
        for library in words.filter(|word| word.starts_with('/')) {
            self.copy(Path::new(library))?;
        }
        Ok(())
    }

    fn tree(&mut self, path: &Path) -> anyhow::Result<()> {
        let entries =
            fs::read_dir(path).with_context(|| format!("cannot list {}", path.display()))?;
        for entry in entries {
            let entry = entry.context("cannot list a directory")?;
            let (path, name) = (entry.path(), entry.file_name());
            if NOT_NEEDED.iter().any(|unwanted| name == *unwanted) {
                continue;
            }
            if path.is_dir() {
                self.tree(&path)?;
            } else if path.exists() {
                self.copy(&path)?;
                if path.extension().is_some_and(|extension| extension == "so") {
                    self.libraries_of(&path)?;
                }
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
