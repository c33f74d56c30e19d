use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Outcome;
use crate::{
    config::{self, Config},
    pod::{NetnsError, enter_netns},
};

/// What the checks look at.
pub(super) struct Context {
    /// Where `/proc` and `/sys` are: `/`, but for tests.
    root: PathBuf,
    /// The settings, if they make sense.
    config: Result<Config, config::Error>,
    /// Whether we are in the pod's network namespace, or why not.
    pub(super) namespace: Result<(), NetnsError>,
}

impl Context {
    /// Reads the settings and enters the network namespace that they name.
    pub(super) fn new(args: config::Args) -> Self {
        let config = args.load();
        let netns = config
            .as_ref()
            .ok()
            .and_then(|config| config.netns.as_ref());
        let namespace = netns.map_or(Ok(()), |path| enter_netns(path));
        Self {
            root: "/".into(),
            config,
            namespace,
        }
    }

    /// A machine whose `/` is `root`, with these settings.
    #[cfg(test)]
    pub(super) const fn at(root: PathBuf, config: Result<Config, config::Error>) -> Self {
        Self {
            root,
            config,
            namespace: Ok(()),
        }
    }

    /// Are the settings valid?
    pub(super) fn settings(&self) -> Outcome {
        match &self.config {
            Ok(_) => Outcome::PASS,
            Err(error) => Outcome::error(error),
        }
    }

    /// The settings, if they are valid.
    pub(super) fn config(&self) -> Option<&Config> {
        self.config.as_ref().ok()
    }

    /// The text of a file below `/`, without white space around it.
    pub(super) fn read(&self, path: &str) -> Option<String> {
        let text = fs::read_to_string(self.path(path)).ok()?;
        Some(text.trim().to_owned())
    }

    /// Where a path below `/` is.
    pub(super) fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        self.root.join(path.strip_prefix("/").unwrap_or(path))
    }
}
