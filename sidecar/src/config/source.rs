use std::{fs, path::Path};

use super::{Args, Config, Error, Settings, hostname::Hostname};

/// Where settings come from, to be read as often as they change.
#[derive(Clone, Debug)]
pub struct Source {
    /// What flags and the environment say, and which file there is.
    args: Args,
    /// What holds where nobody says anything.
    defaults: Settings,
    /// What the default identity is made of.
    hostname: Hostname,
}

impl Source {
    pub(super) fn new(args: Args, defaults: Settings) -> Self {
        Self {
            args,
            defaults,
            hostname: Hostname::read(),
        }
    }

    /// The file, if one is named.
    pub fn path(&self) -> Option<&Path> {
        self.args.config.as_deref()
    }

    /// Reads everything and makes it into a [`Config`].
    ///
    /// Everything wrong is refused here, before anything is attached.
    pub fn load(&self) -> Result<Config, Error> {
        self.config(self.settings()?)
    }

    /// Makes settings that were [read once more](Self::reread) into a [`Config`], also in a process
    /// that is confined by now.
    pub fn config(&self, settings: Settings) -> Result<Config, Error> {
        Config::new(settings, &self.hostname)
    }

    /// Reads everything once more. A file that has become empty is refused: it is more likely to be
    /// written just now, or lost, than to mean that every default is wanted.
    pub fn reread(&self) -> Result<Settings, Error> {
        if let Some(path) = self.path()
            && fs::metadata(path).is_ok_and(|file| file.len() == 0)
        {
            return Err(Error::Emptied(path.to_owned()));
        }
        self.settings()
    }

    fn settings(&self) -> Result<Settings, Error> {
        let file = self.path().map(Settings::from_file).transpose()?;
        let Args { settings, .. } = self.args.clone();
        Ok(settings
            .or(file.unwrap_or_default())
            .or(self.defaults.clone()))
    }
}
