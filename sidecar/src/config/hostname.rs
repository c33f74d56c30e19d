use std::{fs, io, sync::Arc};

use spiffe::{SpiffeId, TrustDomain};

use super::{Error, value};

/// Where the kernel tells the machine's name.
const FILE: &str = "/proc/sys/kernel/hostname";

/// The machine's name, of which the default identity is made.
///
/// It is read once, since a confined process can no longer do so: settings that are read again
/// mean the same identity as before. That it cannot be read matters to those alone who need it.
#[derive(Clone, Debug)]
pub(super) struct Hostname(Result<String, Arc<io::Error>>);

impl Hostname {
    /// Reads it.
    pub(super) fn read() -> Self {
        let read = fs::read_to_string(FILE);
        Self(read.map(|name| name.trim().to_owned()).map_err(Arc::new))
    }

    /// The identity the development CA issues when none is named: the machine's name makes it
    /// one's own, at least among pods, whose names differ.
    pub(super) fn identity(&self, trust_domain: &TrustDomain) -> Result<SpiffeId, Error> {
        let hostname = self.0.as_ref().map_err(|source| Error::HostnameUnread {
            file: FILE,
            source: Arc::clone(source),
        })?;
        let id = format!("spiffe://{trust_domain}/ns/default/sa/{hostname}");
        id.parse::<value::Identity>()
            .map(|id| id.0)
            .map_err(|_| Error::Hostname(hostname.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_cannot_be_read_is_told_with_the_reason() {
        let denied = io::ErrorKind::PermissionDenied.into();
        let error = Hostname(Err(Arc::new(denied)))
            .identity(&TrustDomain::new("example.org").expect("a name"));
        assert_eq!(
            error.expect_err("no name").to_string(),
            "the host name, of which the default identity is made, cannot be read from \
             /proc/sys/kernel/hostname: permission denied; set --identity"
        );
    }

    #[test]
    fn a_name_that_makes_no_identity_is_told() {
        let error = Hostname(Ok("a/../b".into()))
            .identity(&TrustDomain::new("example.org").expect("a name"));
        assert_eq!(
            error.expect_err("no segment").to_string(),
            "the host name `a/../b` cannot be part of a SPIFFE ID; set --identity"
        );
    }
}
