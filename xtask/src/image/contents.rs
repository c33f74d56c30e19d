//! The files in an image.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use super::engine::Engine;
use crate::command::{ask, run};

/// An image's files, unpacked.
pub struct Contents {
    root: PathBuf,
    /// Below the root, by their size in bytes.
    files: BTreeMap<String, u64>,
}

impl Contents {
    pub fn of(engine: &Engine, image: &str, root: &Path) -> anyhow::Result<Self> {
        let place = root.display();
        if root.exists() {
            fs::remove_dir_all(root).with_context(|| format!("cannot remove {place}"))?;
        }
        fs::create_dir_all(root).with_context(|| format!("cannot make {place}"))?;
        let archive = root.with_extension("tar");
        engine.export(image, &archive)?;
        run(Command::new("tar")
            .arg("--directory")
            .arg(root)
            .arg("--file")
            .arg(&archive)
            .arg("--extract"))?;
        fs::remove_file(&archive)
            .with_context(|| format!("cannot remove {}", archive.display()))?;
        let mut files = BTreeMap::new();
        collect(root, root, &mut files).with_context(|| format!("cannot list {place}"))?;
        Ok(Self {
            root: root.to_owned(),
            files,
        })
    }

    /// In bytes, without compression.
    pub fn size(&self) -> u64 {
        self.files.values().sum()
    }

    pub fn file(&self, path: &str) -> anyhow::Result<PathBuf> {
        ensure!(self.files.contains_key(path), "the image has no /{path}");
        Ok(self.root.join(path))
    }

    /// Whether the daemon finds its libraries, and the image holds no shell.
    pub fn ensure_complete(&self) -> anyhow::Result<()> {
        self.file("sidecar")?;
        for path in self.files.keys() {
            ensure!(
                !path.contains("bin/"),
                "the image holds /{path}, which nothing in it needs"
            );
        }
        Ok(())
    }

    /// The SHA-256 of each file.
    pub fn sums(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let sum = |path: &String| {
            let text = ask(Command::new("sha256sum").arg(self.root.join(path)))
                .with_context(|| format!("cannot read /{path} of the image"))?;
            let (sum, _) = text.split_once(' ').context("sha256sum prints no sum")?;
            Ok((path.clone(), sum.to_owned()))
        };
        self.files.keys().map(sum).collect()
    }
}

fn collect(
    root: &Path,
    directory: &Path,
    files: &mut BTreeMap<String, u64>,
) -> std::io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        if metadata.is_dir() {
            collect(root, &entry.path(), files)?;
        } else if metadata.len() > 0 {
            // Engines leave empty files where they would mount others.
            let path = entry.path();
            let below = path.strip_prefix(root).unwrap_or(&path);
            files.insert(below.display().to_string(), metadata.len());
        }
    }
    Ok(())
}
