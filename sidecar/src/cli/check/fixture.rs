use std::{fs, ops::Deref};

use tempfile::TempDir;

use super::Context;
use crate::config::{Config, Settings};

/// A machine made of a few files, with default settings, for tests.
pub(super) struct Fixture {
    /// What stands for `/`.
    _root: TempDir,
    /// The checks' view of it.
    context: Context,
}

impl Fixture {
    /// A machine that has these files, named relative to `/`, and no others.
    pub(super) fn with(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().expect("a temporary directory");
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().expect("a path below the root"))
                .and_then(|()| fs::write(path, text))
                .expect("a temporary directory can be written to");
        }
        let context = Context::at(
            root.path().to_owned(),
            Config::try_from(Settings::default()),
        );
        Self {
            _root: root,
            context,
        }
    }

    /// The same machine under the settings of this YAML text.
    pub(super) fn set(self, yaml: &str) -> Self {
        let settings: Settings = serde_saphyr::from_str(yaml).expect("valid settings");
        let root = self.context.path("/");
        Self {
            context: Context::at(root, settings.try_into()),
            ..self
        }
    }
}

impl Deref for Fixture {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.context
    }
}
