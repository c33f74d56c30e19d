//! Debian packages of other suites than the machine's, which are never installed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::command::{ask, run};

/// Where kernels are. What they are signed with, Debian 12 has.
const SOURCES: &str = "\
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bullseye-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security bookworm-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian bookworm-backports main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian-security trixie-security main
deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie-backports main
";

/// An apt of its own: the machine's lists, preferences and packages are not touched.
pub struct Packages {
    directory: PathBuf,
    configuration: PathBuf,
}

impl Packages {
    /// Keeps what it knows and downloads in this directory. Asks the archive only if it knows nothing
    /// yet, or when told to.
    pub fn open(directory: &Path, update: bool) -> anyhow::Result<Self> {
        let directory = directory.join("apt");
        for part in ["lists/partial", "cache/archives/partial", "parts", "debs"] {
            let part = directory.join(part);
            fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        }
        let [configuration, sources] =
            ["apt.conf", "sources.list"].map(|name| directory.join(name));
        let own = directory.display();
        let text = format!(
            "Dir::State \"{own}\";\n\
             Dir::State::lists \"{own}/lists\";\n\
             Dir::State::status \"/var/lib/dpkg/status\";\n\
             Dir::Cache \"{own}/cache\";\n\
             Dir::Etc::sourcelist \"{own}/sources.list\";\n\
             Dir::Etc::sourceparts \"{own}/parts\";\n\
             Dir::Etc::preferences \"{own}/parts/none\";\n\
             Dir::Etc::preferencesparts \"{own}/parts\";\n\
             Acquire::Languages \"none\";\n\
             APT::Sandbox::User \"root\";\n"
        );
        fs::write(&configuration, text).context("cannot write apt.conf")?;
        fs::write(&sources, SOURCES).context("cannot write sources.list")?;
        let packages = Self {
            directory,
            configuration,
        };
        if update || !packages.knows_something() {
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

    /// Unpacks one into a directory.
    pub fn unpack(&self, name: &str, into: &Path) -> anyhow::Result<()> {
        let debs = self.directory.join("debs");
        run(self
            .apt("apt-get")
            .current_dir(&debs)
            .args(["download", "--quiet=2", name]))?;
        let file = fs::read_dir(&debs)
            .context("cannot list what was downloaded")?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| {
                let file = path.file_name().unwrap_or_default().to_string_lossy();
                file.split('_').next() == Some(name)
            });
        let file = file.with_context(|| format!("apt-get did not download {name}"))?;
        let status = Command::new("dpkg")
            .arg("-x")
            .args([&file, into])
            .status()
            .context("cannot start dpkg")?;
        ensure!(status.success(), "dpkg cannot unpack {}", file.display());
        fs::remove_file(&file).with_context(|| format!("cannot remove {}", file.display()))
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
