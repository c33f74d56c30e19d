//! Debian packages of other suites or processors than the machine's, which are never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, ensure};

use crate::{
    arch::Arch,
    command::{ask, run},
};

/// An archive and one of its suites.
pub type Suite = (&'static str, &'static str);

const DEBIAN: &str = "http://deb.debian.org/debian";
const SECURITY: &str = "http://deb.debian.org/debian-security";

/// The Debian that everything is installed from.
pub const BOOKWORM: &[Suite] = &[
    (DEBIAN, "bookworm"),
    (DEBIAN, "bookworm-updates"),
    (SECURITY, "bookworm-security"),
];

/// Where kernels are, the oldest first. Those of a suite's security go some months after its support has ended; the
/// ones that it was last released with stay longer.
pub const KERNELS: &[Suite] = &[
    (DEBIAN, "bullseye"),
    (SECURITY, "bullseye-security"),
    (SECURITY, "bookworm-security"),
    (DEBIAN, "bookworm-backports"),
    (SECURITY, "trixie-security"),
    (DEBIAN, "trixie-backports"),
];

/// What all of them are signed with; Debian 12 has it.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An apt of its own: the machine's lists, preferences and packages are not touched.
pub struct Packages {
    directory: PathBuf,
    configuration: PathBuf,
}

impl Packages {
    /// Keeps what it knows of these suites, and downloads, in this directory. Asks the archive only if it
    /// knows nothing of them yet, or when told to.
    pub fn open(
        directory: &Path,
        arch: Arch,
        suites: &[Suite],
        update: bool,
    ) -> anyhow::Result<Self> {
        for part in ["lists/partial", "cache/archives/partial", "parts", "debs"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let own = directory.display();
        let configuration = format!(
            "Dir::State \"{own}\";\n\
             Dir::State::lists \"{own}/lists\";\n\
             Dir::State::status \"{own}/status\";\n\
             Dir::Cache \"{own}/cache\";\n\
             Dir::Etc::sourcelist \"{own}/sources.list\";\n\
             Dir::Etc::sourceparts \"{own}/parts\";\n\
             Dir::Etc::preferences \"{own}/parts/none\";\n\
             Dir::Etc::preferencesparts \"{own}/parts\";\n\
             Acquire::Languages \"none\";\n\
             APT::Architecture \"{arch}\";\n\
             APT::Architectures {{ \"{arch}\"; }};\n\
             APT::Sandbox::User \"root\";\n"
        );
        let source = |(archive, suite): &Suite| {
            format!("deb [signed-by={KEYRING}] {archive} {suite} main\n")
        };
        let sources = suites.iter().map(source).collect::<String>();
        let known = fs::read_to_string(directory.join("sources.list"));
        let are_known = known.is_ok_and(|known| known == sources);
        // Nothing is installed, whatever the machine has.
        for (name, text) in [
            ("apt.conf", &*configuration),
            ("sources.list", &sources),
            ("status", ""),
        ] {
            let path = directory.join(name);
            fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
        }
        let packages = Self {
            configuration: directory.join("apt.conf"),
            directory: directory.to_owned(),
        };
        if update || !are_known || !packages.knows_something() {
            run(packages.apt("apt-get").args(["update", "--quiet=2"]))?;
        }
        Ok(packages)
    }

    /// The names that begin so and end so.
    pub fn named(&self, beginning: &str, ending: &str) -> Vec<String> {
        let names = ask(self.apt("apt-cache").args(["pkgnames", beginning]));
        let names = names.unwrap_or_default();
        let fitting = names.lines().filter(|name| name.ends_with(ending));
        fitting.map(str::to_owned).collect()
    }

    /// Unpacks one into a directory, alone: the newest version, or this one.
    pub fn unpack(&self, name: &str, version: Option<&str>, into: &Path) -> anyhow::Result<()> {
        let debs = self.directory.join("debs");
        let wanted = version.map_or_else(|| name.to_owned(), |version| format!("{name}={version}"));
        run(self
            .apt("apt-get")
            .current_dir(&debs)
            .args(["download", "--quiet=2", &wanted]))?;
        let is_it = |path: &PathBuf| {
            let file = path.file_name().unwrap_or_default().to_string_lossy();
            file.split('_').next() == Some(name)
        };
        let file = files(&debs)?.into_iter().find(is_it);
        let file = file.with_context(|| format!("apt-get did not download {name}"))?;
        extract(&file, into)
    }

    /// Unpacks these and all that they need into a directory, over what is there.
    pub fn unpack_with_needs(&self, names: &[&str], into: &Path) -> anyhow::Result<()> {
        run(self
            .apt("apt-get")
            .args([
                "install",
                "--download-only",
                "--yes",
                "--no-install-recommends",
                "--quiet=2",
            ])
            .args(names))?;
        for file in files(&self.directory.join("cache/archives"))? {
            if file.extension().is_some_and(|extension| extension == "deb") {
                extract(&file, into)?;
            }
        }
        Ok(())
    }

    fn knows_something(&self) -> bool {
        let lists = fs::read_dir(self.directory.join("lists"));
        lists.is_ok_and(|lists| {
            lists
                .flatten()
                .any(|list| list.file_name().to_string_lossy().contains("_Packages"))
        })
    }

    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.env("APT_CONFIG", &self.configuration);
        command
    }
}

fn files(directory: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("cannot list {}", directory.display()))?;
    Ok(entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect())
}

/// Unpacks a package and removes its file. What is a link to a directory stays one.
fn extract(file: &Path, into: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let mut package = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(file)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let content = package.stdout.take().expect("it is a pipe");
    let unpacked = Command::new("tar")
        .args(["--extract", "--keep-directory-symlink", "--directory"])
        .arg(into)
        .stdin(content)
        .status()
        .context("cannot start tar")?;
    let read = package.wait().context("cannot wait for dpkg-deb")?;
    ensure!(
        unpacked.success() && read.success(),
        "cannot unpack {}",
        file.display()
    );
    fs::remove_file(file).with_context(|| format!("cannot remove {}", file.display()))
}
