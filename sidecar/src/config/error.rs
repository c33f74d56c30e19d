use std::{io, path::PathBuf, sync::Arc};

use spiffe::TrustDomain;
use thiserror::Error;

use super::value::ParseValueError;
use crate::policy::{Direction, NoRoom, OverrideError};

/// Settings that cannot be carried out.
#[derive(Debug, Error)]
pub enum Error {
    /// Plaintext is forbidden and allowed at once.
    #[error(
        "{direction}-failure is open, which lets plaintext pass while no sidecar serves, but \
         {direction} is strict; set {direction}-failure to closed, or {direction} to permissive"
    )]
    FailureOpen {
        /// The direction of both settings.
        direction: Direction,
    },
    /// Two bundles are named for one trust domain.
    #[error(
        "federated-bundles names {} and {} for trust domain {trust_domain}; put all of its \
         authorities into one file",
        .files[0].display(), .files[1].display()
    )]
    FederatedTwice {
        /// The trust domain.
        trust_domain: TrustDomain,
        /// The two files.
        files: [PathBuf; 2],
    },
    /// The file was emptied while the daemon ran.
    #[error(
        "the settings file {} is empty; if every default is meant, write a comment into it",
        .0.display()
    )]
    Emptied(PathBuf),
    /// The machine's name does not make a SPIFFE ID.
    #[error("the host name `{0}` cannot be part of a SPIFFE ID; set --identity")]
    Hostname(String),
    /// The machine does not tell its name.
    #[error(
        "the host name, of which the default identity is made, cannot be read from {file}: \
         {source}; set --identity"
    )]
    HostnameUnread {
        /// Where it should be.
        file: &'static str,
        /// Why.
        source: Arc<io::Error>,
    },
    /// `SPIFFE_ENDPOINT_SOCKET` names no Workload API that we can use.
    #[error("SPIFFE_ENDPOINT_SOCKET: {0}")]
    EndpointSocket(ParseValueError),
    /// Two sources of identity are named.
    #[error(
        "identity comes from files, from the Workload API or from the development CA, but --{one} \
         and --{other} are both set; remove one of them"
    )]
    IdentityAmbiguous {
        /// A setting of one source.
        one: &'static str,
        /// A setting of another.
        other: &'static str,
    },
    /// Some of the files of an identity are named, and others are not.
    #[error(
        "identity files belong together, but --{missing} is not set; set --certificate, --key and \
         --trust-bundle, or none of them to use the development CA"
    )]
    IdentityIncomplete {
        /// The first setting that is missing.
        missing: &'static str,
    },
    /// The override contradicts another setting.
    #[error(transparent)]
    Override(#[from] OverrideError),
    /// There is more of something than the kernel side has room for.
    #[error(transparent)]
    Room(#[from] NoRoom),
    /// The file is no YAML, or says something we do not understand.
    #[error("{}:{line}: {problem}", .path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: u64,
        /// What is wrong there, and what to do.
        problem: String,
    },
    /// The file cannot be read.
    #[error("the settings file {} cannot be read: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The identity is in another trust domain than the one that is named.
    #[error(
        "trust-domain is {named}, but identity is in {other}; leave trust-domain out, or set it to {other}"
    )]
    TrustDomains {
        /// The one that is named.
        named: TrustDomain,
        /// That of the identity.
        other: TrustDomain,
    },
    /// The file is larger than one of settings can be.
    #[error("{} is larger than 1 MiB, which no settings file is; give another to --config", .0.display())]
    TooLarge(PathBuf),
}
