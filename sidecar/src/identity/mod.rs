//! Where the workload's identity comes from: an X.509-SVID, its private key and the trust bundle
//! that peers are judged by.

mod bundle;
mod ca;
mod certificate;
mod error;
mod expiry;
mod files;
mod svid;
#[cfg(test)]
pub(crate) mod testing;

use std::path::PathBuf;
use std::time::Duration;

use spiffe::SpiffeId;

pub use self::bundle::TrustBundle;
pub use self::ca::Ca;
pub(crate) use self::certificate::{Leaf, shown_id};
pub use self::error::{Error, Flaw, SvidError};
pub use self::expiry::{Expiry, watch_expiry};
pub use self::files::Files;
pub use self::svid::Svid;

/// How long a root made by [`Source::DevCa`] lasts.
pub const ROOT_LIFETIME: Duration = Duration::from_hours(365 * 24);

/// How long an SVID that [`Source::DevCa`] issues lasts.
pub const SVID_LIFETIME: Duration = Duration::from_hours(24);

/// What to take an identity from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// PEM files that something else issued and renews.
    Files(Files),
    /// A certificate authority in a directory, made on first use. Workloads that share the
    /// directory trust each other, so whoever can read it can be any of them.
    DevCa {
        /// Where the authority lives.
        dir: PathBuf,
        /// The identity to have issued. Its trust domain becomes that of a new authority.
        id: SpiffeId,
    },
}

/// Takes a fresh identity from `source`. Blocks on file access.
pub fn load(source: &Source) -> Result<Svid, Error> {
    match source {
        Source::Files(files) => files.load(),
        Source::DevCa { dir, id } => {
            Ca::open_or_create(dir, id.trust_domain(), ROOT_LIFETIME)?.issue(id, SVID_LIFETIME)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_development_ca_needs_nothing_prepared() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let source = Source::DevCa {
            dir: dir.path().join("not/yet/there"),
            id: SpiffeId::new("spiffe://example.org/web").expect("valid id"),
        };
        let first = load(&source).expect("first identity");
        let second = load(&source).expect("second identity");
        assert_eq!(first.id().to_string(), "spiffe://example.org/web");
        assert_ne!(first.chain(), second.chain());
        assert_eq!(first.bundle().authorities(), second.bundle().authorities());
    }
}
