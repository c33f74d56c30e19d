use std::{fmt, io};

use serde::Serialize;

use crate::tls::HandshakeError;

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
    /// The TLS handshake failed.
    HandshakeFailed,
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
    /// The peer's certificate was refused, or somebody else was expected.
    PeerIdentity,
    /// The peer does not speak mutual TLS, and the mode is `strict`.
    PlaintextRefused,
    /// The server, or its proxy, reset the connection or vanished.
    ServerReset,
    /// What a peer sent after the handshake was not the TLS that it had agreed on.
    TlsBroken,
}

impl Close {
    /// Every reason, in the order in which documents list them.
    pub const ALL: [Self; 21] = [
        Self::ClientReset,
        Self::ConnectFailed,
        Self::ConnectRefused,
        Self::ConnectTimeout,
        Self::ConnectUnreachable,
        Self::Denied,
        Self::Drained,
        Self::Eof,
        Self::FdLimit,
        Self::HandshakeFailed,
        Self::HandshakeTimeout,
        Self::KernelFailed,
        Self::NoIdentity,
        Self::NoLongerAllowed,
        Self::NoLongerTrusted,
        Self::NotSteered,
        Self::Overloaded,
        Self::PeerIdentity,
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
            Self::HandshakeFailed => "handshake_failed",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::KernelFailed => "kernel_failed",
            Self::NoIdentity => "no_identity",
            Self::NoLongerAllowed => "no_longer_allowed",
            Self::NoLongerTrusted => "no_longer_trusted",
            Self::NotSteered => "not_steered",
            Self::Overloaded => "overloaded",
            Self::PeerIdentity => "peer_identity",
            Self::PlaintextRefused => "plaintext_refused",
            Self::ServerReset => "server_reset",
            Self::TlsBroken => "tls_broken",
        }
    }

    /// Was the connection refused, or ended, for who the peer is or what it showed?
    pub const fn is_denial(self) -> bool {
        matches!(
            self,
            Self::Denied
                | Self::NoLongerAllowed
                | Self::NoLongerTrusted
                | Self::PeerIdentity
                | Self::PlaintextRefused
        )
    }

    /// The reason for which a TLS handshake failed.
    pub(super) const fn of_handshake(error: &HandshakeError) -> Self {
        match error {
            HandshakeError::PeerIdentity(_) => Self::PeerIdentity,
            _ => Self::HandshakeFailed,
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
