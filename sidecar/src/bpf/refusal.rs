//! Why the kernel refuses to load what it takes from others.

use std::{error::Error as StdError, io};

use aya::{EbpfError, programs::ProgramError};
use nix::{
    errno::Errno,
    libc::RLIM_INFINITY,
    sys::resource::{Resource, getrlimit},
};

use super::{Error, sys};
use crate::pod;

/// What to say if the object could not be loaded.
pub(super) fn of_object(source: EbpfError) -> Error {
    match short_limit(&source) {
        Some(limit) => Error::LockedMemory { limit },
        None => Error::Load(source),
    }
}

/// What to say if a program could not be loaded.
pub(super) fn of_program(program: &'static str, source: ProgramError) -> Error {
    if let Some(limit) = short_limit(&source) {
        return Error::LockedMemory { limit };
    }
    // The verifier says so by this number. Up to 6.1 it also refuses what whoever lacks the capability
    // could learn from programs speculatively ("invalid access to memory" in a branch that is never
    // taken), and writes to parts of what it takes for a pointer ("attempt to corrupt spilled pointer on
    // stack").
    if errno(&source) == Some(Errno::EACCES) && !pod::has_perfmon() {
        tracing::debug!("the verifier on {program}: {source}");
        return Error::Perfmon { program };
    }
    Error::Program { program, source }
}

/// The limit of locked memory, in bytes, if that is the reason.
///
/// Linux before 5.11 counts maps and programs against it (commit `bpf: Eliminate rlimit-based memory
/// accounting for bpf maps`), and it is 64 KiB or a few MiB in most places. aya has tried to raise it,
/// which takes `CAP_SYS_RESOURCE` unless the hard limit is infinite.
fn short_limit(error: &(dyn StdError + 'static)) -> Option<u64> {
    if errno(error) != Some(Errno::EPERM) {
        return None;
    }
    let (_, limit) = getrlimit(Resource::RLIMIT_MEMLOCK).ok()?;
    let is_short = limit != RLIM_INFINITY && is_too_large(limit.saturating_add(SMALL));
    is_short.then_some(limit)
}

/// A size for which there is room anywhere, in bytes.
const SMALL: u64 = 4096;

/// Whether the kernel refuses a map for being that large, and takes a small one.
fn is_too_large(bytes: u64) -> bool {
    let refused = |bytes| {
        let created = sys::create_array(bytes);
        created.is_err_and(|error| errno(&error) == Some(Errno::EPERM))
    };
    refused(bytes) && !refused(SMALL)
}

/// What the kernel said, at the bottom of the error.
fn errno(error: &(dyn StdError + 'static)) -> Option<Errno> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<io::Error>() {
            return error.raw_os_error().map(Errno::from_raw);
        }
        next = error.source();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(errno: Errno) -> EbpfError {
        EbpfError::FileError {
            path: "/nowhere".into(),
            error: errno.into(),
        }
    }

    #[test]
    fn what_the_kernel_said_is_found_below_other_errors() {
        assert_eq!(errno(&refused(Errno::EPERM)), Some(Errno::EPERM));
        assert_eq!(errno(&refused(Errno::EACCES)), Some(Errno::EACCES));
        assert_eq!(errno(&EbpfError::NoBTF), None);
    }

    #[test]
    fn other_refusals_stay_what_they_are() {
        // Nobody may make maps here, or they count against no limit, or there is none.
        for error in [
            refused(Errno::EPERM),
            refused(Errno::ENOENT),
            EbpfError::NoBTF,
        ] {
            assert!(matches!(of_object(error), Error::Load(_)));
        }
        let error = ProgramError::NotLoaded;
        assert!(matches!(
            of_program("sc_connect4", error),
            Error::Program { .. }
        ));
    }
}
