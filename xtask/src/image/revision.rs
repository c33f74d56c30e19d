//! Which sources an image is made of.

use std::{fs, path::Path, process::Command};

use anyhow::{Context as _, ensure};

use crate::{
    command::{ask, run},
    workspace,
};

/// The commit that is checked out.
pub struct Revision {
    /// Its hash; with `-changed`, if what is built is not exactly that.
    pub name: String,
    /// Whether it is not.
    pub changed: bool,
    /// When it was committed, in seconds since 1970.
    pub time: u64,
    /// The same, as people and images write it (RFC 3339).
    pub date: String,
    /// Where it can be had, if git knows an address on the web.
    pub source: Option<String>,
}

impl Revision {
    pub fn find() -> anyhow::Result<Self> {
        let log = |format: &str| {
            let format = format!("--format={format}");
            ask(git().args(["log", "--max-count=1", &format, "HEAD"]))
                .context("this is no checkout of git: the image names the commit it is made of")
        };
        let changed = ask(git().args(["status", "--porcelain"])).context("git status fails")?;
        let changed = !changed.is_empty();
        let hash = log("%H")?;
        let source = ask(git().args(["remote", "get-url", "origin"]));
        Ok(Self {
            name: if changed {
                format!("{hash}-changed")
            } else {
                hash
            },
            changed,
            time: log("%ct")?.parse().context("git prints no time")?,
            date: log("%cI")?,
            source: source.filter(|address| address.starts_with("https://")),
        })
    }

    /// Writes the commit's files to a directory, and nothing else.
    pub fn unpack(&self, directory: &Path) -> anyhow::Result<()> {
        ensure!(!self.changed, "only a commit can be unpacked");
        let place = directory.display();
        if directory.exists() {
            fs::remove_dir_all(directory).with_context(|| format!("cannot remove {place}"))?;
        }
        fs::create_dir_all(directory).with_context(|| format!("cannot make {place}"))?;
        let archive = directory.with_extension("tar");
        run(git()
            .args(["archive", "--format=tar", "--output"])
            .arg(&archive)
            .arg(&self.name))?;
        run(Command::new("tar")
            .arg("--directory")
            .arg(directory)
            .arg("--file")
            .arg(&archive)
            .arg("--extract"))?;
        fs::remove_file(&archive).with_context(|| format!("cannot remove {}", archive.display()))
    }
}

fn git() -> Command {
    let mut command = Command::new("git");
    command.current_dir(workspace::root());
    command
}
