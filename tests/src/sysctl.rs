//! A setting of the whole machine.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// A sysctl that no namespace has of its own; dropped, it is what it was before.
///
/// Tests that use it may not run beside others: they are ignored but in emulated machines, where each
/// runs alone.
#[derive(Debug)]
#[must_use = "it is put back when it is dropped"]
pub struct Sysctl {
    path: PathBuf,
    before: String,
}

impl Sysctl {
    /// Sets one, such as `net/core/bpf_jit_harden`.
    ///
    /// # Panics
    ///
    /// When the kernel does not take the value.
    #[track_caller]
    pub fn set(key: &str, value: &str) -> Self {
        Self::try_set(key, value)
            .unwrap_or_else(|error| panic!("setting {key} to {value:?}: {error}"))
    }

    /// The same; the error is the kernel's.
    pub fn try_set(key: &str, value: &str) -> io::Result<Self> {
        let path = Path::new("/proc/sys").join(key);
        let before = fs::read_to_string(&path)?;
        fs::write(&path, value)?;
        Ok(Self { path, before })
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        if let Err(error) = fs::write(&self.path, &self.before) {
            eprintln!("putting back {}: {error}", self.path.display());
        }
    }
}
