use std::time::SystemTime;

use super::Shown;

/// Why `/readyz` says no.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Unready {
    /// No identity has come yet.
    AwaitingIdentity,
    /// The sidecar was told to stop.
    Draining,
    /// The certificate has run out, and no other has come.
    IdentityExpired,
}

impl Unready {
    /// Every reason.
    pub const ALL: [Self; 3] = [
        Self::AwaitingIdentity,
        Self::Draining,
        Self::IdentityExpired,
    ];

    /// The word for it, as `sidecar explain` knows it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AwaitingIdentity => "awaiting_identity",
            Self::Draining => "draining",
            Self::IdentityExpired => "identity_expired",
        }
    }
}

impl Shown {
    /// Why new connections are not served, if they are not.
    pub(super) fn unready(&self) -> Option<Unready> {
        if self.drain.has_begun() {
            return Some(Unready::Draining);
        }
        let not_after = self.identity.borrow().as_ref().map(|tls| tls.not_after());
        match not_after {
            None => Some(Unready::AwaitingIdentity),
            Some(end) if end <= SystemTime::now() => Some(Unready::IdentityExpired),
            Some(_) => None,
        }
    }
}
