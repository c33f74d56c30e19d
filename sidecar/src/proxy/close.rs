use std::{fmt, io};

use serde::Serialize;

use crate::{
    identity::Flaw,
    tls::{HandshakeError, Refused},
};

/// Why a connection ended. The word stands in the access log and in the metrics.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Close {
    /// The client, or its proxy, reset the connection or vanished.
    ClientReset,
    /// The dial failed for a reason of its own; the log has it.
    ConnectFailed,
    /// The destination refused the dial.
    ConnectRefused,
    /// The dial took longer than the connect timeout.
    ConnectTimeout,
    /// No route leads to the destination.
    ConnectUnreachable,
    /// The policy does not let the client in.
    Denied,
    /// The drain ended before the connection did.
    Drained,
    /// Both sides finished.
    Eof,
    /// The process or the system has no file descriptor left.
    FdLimit,
    /// The connection broke during the TLS handshake.
    HandshakeBroken,
    /// The peer speaks TLS, but not as a sidecar does.
    HandshakeIncompatible,
    /// The peer agreed to TLS, and speaks something else.
    HandshakeNotTls,
    /// The peer gave up the TLS handshake with an alert, most likely because of our certificate.
    HandshakeRefused,
    /// The TLS handshake took longer than the handshake timeout.
    HandshakeTimeout,
    /// The kernel side did not answer what it knows of the socket.
    KernelFailed,
    /// There was no own identity yet, and the wait for it was over.
    NoIdentity,
    /// The policy has changed, and the open connection is no longer allowed.
    NoLongerAllowed,
    /// The peer's certificate was revoked, or its authority is no longer trusted.
    NoLongerTrusted,
    /// The connection did not come through the kernel side: somebody dialled the listener itself.
    NotSteered,
    /// As many connections as allowed were in the making.
    Overloaded,
    /// The peer's certificate, or one that it depends on, has expired.
    PeerCertificateExpired,
    /// The peer's certificate is no valid X.509-SVID.
    PeerCertificateInvalid,
    /// The peer's certificate, or one that it depends on, is not valid yet.
    PeerCertificateNotYetValid,
    /// The peer's certificate, or one that it depends on, is revoked.
    PeerCertificateRevoked,
    /// The peer claims to be of a trust domain that is not trusted.
    PeerForeign,
    /// The peer did not prove that it holds the key of its certificate.
    PeerKeyUnproved,
    /// The peer is none of those that the cluster names for its address.
    PeerMisnamed,
    /// The peer showed no certificate.
    PeerNoCertificate,
    /// The peer is not who is expected.
    PeerUnexpected,
    /// No authority that is trusted issued the peer's certificate.
    PeerUntrusted,
    /// The peer does not speak mutual TLS, and the mode is `strict`.
    PlaintextRefused,
    /// The server, or its proxy, reset the connection or vanished.
    ServerReset,
    /// What a peer sent after the handshake was not the TLS that it had agreed on.
    TlsBroken,
}

impl Close {
    /// Every reason, in the order in which documents list them.
    pub const ALL: [Self; 33] = [
        Self::ClientReset,
        Self::ConnectFailed,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectUnreachable,
        Self::Denied,
        Self::Drained,
        Self::Eof,
        Self::FdLimit,
        Self::HandshakeBroken,
        Self::HandshakeIncompatible,
        Self::HandshakeNotTls,
        Self::HandshakeRefused,
        Self::HandshakeTimeout,
        Self::KernelFailed,
        Self::NoIdentity,
        Self::NoLongerAllowed,
        Self::NoLongerTrusted,
        Self::NotSteered,
        Self::Overloaded,
        Self::PeerCertificateExpired,
        Self::PeerCertificateInvalid,
        Self::PeerCertificateNotYetValid,
        Self::PeerCertificateRevoked,
        Self::PeerForeign,
        Self::PeerKeyUnproved,
        Self::PeerMisnamed,
        Self::PeerNoCertificate,
        Self::PeerUnexpected,
        Self::PeerUntrusted,
        Self::PlaintextRefused,
        Self::ServerReset,
        Self::TlsBroken,
    ];

    /// The word in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientReset => "client_reset",
            Self::ConnectFailed => "connect_failed",
            Self::ConnectRefused => "connect_refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::ConnectUnreachable => "connect_unreachable",
            Self::Denied => "denied",
            Self::Drained => "drained",
            Self::Eof => "eof",
            Self::FdLimit => "fd_limit",
            Self::HandshakeBroken => "handshake_broken",
            Self::HandshakeIncompatible => "handshake_incompatible",
            Self::HandshakeNotTls => "handshake_not_tls",
            Self::HandshakeRefused => "handshake_refused",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::KernelFailed => "kernel_failed",
            Self::NoIdentity => "no_identity",
            Self::NoLongerAllowed => "no_longer_allowed",
            Self::NoLongerTrusted => "no_longer_trusted",
            Self::NotSteered => "not_steered",
            Self::Overloaded => "overloaded",
            Self::PeerCertificateExpired => "peer_certificate_expired",
            Self::PeerCertificateInvalid => "peer_certificate_invalid",
            Self::PeerCertificateNotYetValid => "peer_certificate_not_yet_valid",
            Self::PeerCertificateRevoked => "peer_certificate_revoked",
            Self::PeerForeign => "peer_foreign",
            Self::PeerKeyUnproved => "peer_key_unproved",
            Self::PeerMisnamed => "peer_misnamed",
            Self::PeerNoCertificate => "peer_no_certificate",
            Self::PeerUnexpected => "peer_unexpected",
            Self::PeerUntrusted => "peer_untrusted",
            Self::PlaintextRefused => "plaintext_refused",
            Self::ServerReset => "server_reset",
            Self::TlsBroken => "tls_broken",
        }
    }

    /// Can it end only connections that both legs stood of?
    pub const fn ends_only_open(self) -> bool {
        matches!(
            self,
            Self::ClientReset | Self::Eof | Self::ServerReset | Self::TlsBroken
        )
    }

    /// Was the connection refused, or ended, for who the peer is or what it showed?
    pub const fn is_denial(self) -> bool {
        matches!(
            self,
            Self::Denied
                | Self::NoLongerAllowed
                | Self::NoLongerTrusted
                | Self::PeerCertificateExpired
                | Self::PeerCertificateInvalid
                | Self::PeerCertificateNotYetValid
                | Self::PeerCertificateRevoked
                | Self::PeerForeign
                | Self::PeerKeyUnproved
                | Self::PeerMisnamed
                | Self::PeerNoCertificate
                | Self::PeerUnexpected
                | Self::PeerUntrusted
                | Self::PlaintextRefused
        )
    }

    /// The reason for which a TLS handshake failed.
    pub(super) const fn of_handshake(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::PeerIdentity(refused) => Self::of_refusal(refused),
            HandshakeError::NotTls => Self::HandshakeNotTls,
            HandshakeError::Incompatible(_) => Self::HandshakeIncompatible,
            HandshakeError::RefusedByPeer(_) => Self::HandshakeRefused,
            HandshakeError::Broken(_) => Self::HandshakeBroken,
        }
    }

    const fn of_refusal(refused: &Refused) -> Self {
        match refused {
            Refused::NoCertificate => Self::PeerNoCertificate,
            Refused::NoProof(_) => Self::PeerKeyUnproved,
            Refused::ForeignTrustDomain { .. } => Self::PeerForeign,
            Refused::Certificate { flaw, .. } => match flaw {
                Flaw::Expired(_) => Self::PeerCertificateExpired,
                Flaw::NotYetValid(_) => Self::PeerCertificateNotYetValid,
                Flaw::Revoked => Self::PeerCertificateRevoked,
                Flaw::Untrusted => Self::PeerUntrusted,
                _ => Self::PeerCertificateInvalid,
            },
        }
    }

    /// The reason for which a dial failed.
    pub(super) fn of_dial(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::ConnectRefused,
            io::ErrorKind::TimedOut => Self::ConnectTimeout,
            io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => {
                Self::ConnectUnreachable
            }
            _ if is_descriptor_limit(error) => Self::FdLimit,
            _ => Self::ConnectFailed,
        }
    }
}

impl fmt::Display for Close {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Has the process (`EMFILE`) or the system (`ENFILE`) no descriptor left?
pub(super) fn is_descriptor_limit(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_listed_under_its_own_word() {
        let mut words: Vec<_> = Close::ALL.iter().map(|close| close.as_str()).collect();
        words.dedup();
        assert_eq!(words.len(), Close::ALL.len());
        for close in Close::ALL {
            let json = serde_json::to_value(close).expect("a plain word");
            assert_eq!(json, close.as_str());
        }
    }

    #[test]
    fn a_dial_without_descriptor_is_told_from_one_that_was_refused() {
        assert_eq!(
            Close::of_dial(&io::Error::from_raw_os_error(libc::EMFILE)),
            Close::FdLimit
        );
        assert_eq!(
            Close::of_dial(&io::Error::from_raw_os_error(libc::ECONNREFUSED)),
            Close::ConnectRefused
        );
        assert_eq!(
            Close::of_dial(&io::Error::from_raw_os_error(libc::EHOSTUNREACH)),
            Close::ConnectUnreachable
        );
    }
}
