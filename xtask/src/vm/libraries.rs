//! What a program is linked to, whichever processor it is for.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use object::{
    Endianness,
    elf::{DT_NEEDED, FileHeader64},
    read::elf::{Dyn as _, FileHeader as _, ProgramHeader as _},
};

/// What an ELF file asks for before it runs.
#[derive(Debug, Default, PartialEq)]
pub struct Needs {
    /// What loads it, by path.
    pub loader: Option<PathBuf>,
    /// Libraries, by name.
    pub libraries: Vec<String>,
}

impl Needs {
    /// Of a file; nothing if it is no program.
    pub fn of(file: &[u8], path: &Path) -> anyhow::Result<Self> {
        const MAGIC: &[u8] = b"\x7fELF";
        if !file.starts_with(MAGIC) {
            return Ok(Self::default());
        }
        Self::parse(file).with_context(|| format!("cannot read what {} needs", path.display()))
    }

    fn parse(file: &[u8]) -> object::Result<Self> {
        let header = FileHeader64::<Endianness>::parse(file)?;
        let endian = header.endian()?;
        let mut needs = Self::default();
        for segment in header.program_headers(endian, file)? {
            if let Some(loader) = segment.interpreter(endian, file)? {
                needs.loader = Some(String::from_utf8_lossy(loader).into_owned().into());
            }
        }
        let sections = header.sections(endian, file)?;
        if let Some((entries, strings)) = sections.dynamic(endian, file)? {
            let strings = sections.strings(endian, file, strings)?;
            for entry in entries {
                if entry.tag(endian) == DT_NEEDED {
                    let name = entry.string(endian, strings)?;
                    needs
                        .libraries
                        .push(String::from_utf8_lossy(name).into_owned());
                }
            }
        }
        Ok(needs)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn this_program_needs_a_loader_and_the_c_library() {
        let path = std::env::current_exe().expect("/proc is mounted");
        let file = fs::read(&path).expect("readable");
        let needs = Needs::of(&file, &path).expect("a program");
        assert!(needs.loader.is_some_and(|loader| loader.exists()));
        assert!(needs.libraries.iter().any(|name| name == "libc.so.6"));
    }

    #[test]
    fn a_script_needs_nothing() {
        let needs = Needs::of(b"#!/bin/sh", Path::new("script"));
        assert_eq!(needs.expect("no program"), Needs::default());
    }
}
