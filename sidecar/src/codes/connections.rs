use super::{Explained, Text, advise, note};
use crate::proxy::Close;

pub(super) fn texts() -> Vec<Explained> {
    { Close::ALL.into_iter() }
        .map(|close| (close.as_str(), text(close)))
        .collect()
}

#[expect(clippy::too_many_lines, reason = "an arm for each way to end")]
const fn text(close: Close) -> Text {
    match close {
        Close::ClientReset => advise(
            "The client, or its proxy, reset the connection or vanished.",
            "Look at the client: its own log, and whether it was stopped. If it has a sidecar, the \
             access log there names the same two addresses.",
        ),
        Close::ConnectFailed => advise(
            "The dial failed for a reason of its own.",
            "Read the line of the log with `reason=connect_failed`: it has what the system said.",
        ),
        Close::ConnectRefused => advise(
            "The destination refused the dial.",
            "See that the server runs and listens on that port (`ss -ltn` in its pod). If it has a \
             sidecar, `sidecar status` there shows whether it runs, and `dropped_no_listener`.",
        ),
        Close::ConnectTimeout => advise(
            "The dial took longer than `connect-timeout`.",
            "See that the destination is up, and that no firewall or network policy drops what goes \
             there.",
        ),
        Close::ConnectUnreachable => advise(
            "No route leads to the destination.",
            "Look at the routes of the pod: `ip route get ADDRESS` in its network namespace.",
        ),
        Close::Denied => advise(
            "The authorization does not let the client in.",
            "The access log names the rule. `sidecar policy explain` says the same for any client \
             and port, and why.",
        ),
        Close::Drained => advise(
            "The drain ended before the connection did, or before both of its legs stood.",
            "Nothing, where the sidecar was stopped. If connections need longer to end, raise \
             `drain-timeout`.",
        ),
        Close::Eof => note("Both sides finished."),
        Close::FdLimit => advise(
            "No file descriptor is left.",
            "Raise the limit of open files of the sidecar: each connection takes two. \
             `/connections` of the admin endpoint lists those that are open.",
        ),
        Close::HandshakeBroken => advise(
            "The connection broke during the TLS handshake.",
            "Look at the log of the peer's sidecar at the same time: it was stopped, or gave up. \
             Else something on the way cuts connections.",
        ),
        Close::HandshakeIncompatible => advise(
            "The peer speaks TLS, but not as a sidecar does.",
            "The log says in what it differs. See that a sidecar answers there, of a version that \
             goes with this one (`sidecar --version`), and nothing in its place.",
        ),
        Close::HandshakeNotTls => advise(
            "The peer has agreed to TLS, and says something else.",
            "Find out what sends from that address: something on the way changes what passes, or a \
             process there only pretends to be a sidecar.",
        ),
        Close::HandshakeRefused => advise(
            "The peer gave up the TLS handshake with an alert, most likely over our certificate.",
            "Read the log of the peer's sidecar: it says what is wrong. `sidecar check` here looks \
             at our certificate.",
        ),
        Close::HandshakeTimeout => advise(
            "The TLS handshake took longer than `handshake-timeout`.",
            "See that the peer is not starved of CPU, and that full-sized packets reach it: a \
             handshake is the first that needs them.",
        ),
        Close::KernelFailed => advise(
            "The kernel side did not answer what it knows of the socket.",
            "The log has the error. `sidecar status` shows whether everything is still attached, \
             `sidecar check` what the machine lacks.",
        ),
        Close::NoIdentity => advise(
            "No identity had come for the workload when `identity-timeout` was over.",
            "`sidecar check` tries the source of the identity and says what is wrong with it; \
             `sidecar_identity_failures_total` counts how often.",
        ),
        Close::NoLongerAllowed => advise(
            "What the connection was admitted by has changed: the mode is `strict` now and it is in \
             plaintext, the authorization denies it, or somebody else is expected.",
            "Look at what was changed in the settings last: `sidecar policy explain` says what they \
             mean for the client now.",
        ),
        Close::NoLongerTrusted => advise(
            "The peer's certificate was revoked, or its authority is no longer trusted.",
            "Nothing, if that was meant. Else compare the trust bundle and the revocation lists with \
             those of before: the log says what is wrong with the certificate.",
        ),
        Close::NotSteered => advise(
            "Somebody dialled the proxy's own port: the connection did not come through the kernel \
             side.",
            "Nothing was passed on. Find out which process of the pod tries ports of loopback: the \
             log has its address.",
        ),
        Close::Overloaded => advise(
            "As many connections as `max-handshakes` allows were in the making.",
            "See who dials so much: `sidecar connections` lists those in the making too, while what is \
             refused has no line in the access log. If they are welcome, raise `max-handshakes`.",
        ),
        Close::PeerCertificateExpired => advise(
            "The peer's certificate, or one that it depends on, has expired.",
            "See why the peer got no new one: `sidecar check` in its pod. If it has one, compare the \
             clocks of both machines.",
        ),
        Close::PeerCertificateInvalid => advise(
            "The peer's certificate is no X.509-SVID that can be relied on.",
            "The log says what is wrong with it. Have another issued, as an X.509-SVID for a \
             workload.",
        ),
        Close::PeerCertificateNotYetValid => advise(
            "The peer's certificate, or one that it depends on, is not valid yet.",
            "Compare the clocks of both machines and of the authority that issued it.",
        ),
        Close::PeerCertificateRevoked => advise(
            "The peer's certificate, or one that it depends on, was revoked by its authority.",
            "Nothing, if that was meant. Else have a new one issued to the peer: what the lists in \
             `crl` revoke stays revoked.",
        ),
        Close::PeerForeign => advise(
            "The peer claims to be of a trust domain that is not trusted.",
            "If its workloads are to be trusted, give the roots of the domain in \
             `federated-bundles`. The log names the domain.",
        ),
        Close::PeerKeyUnproved => advise(
            "The peer did not prove that it holds the key of the certificate it showed.",
            "Find out what runs at that address: a copied certificate looks like this. At the peer \
             itself, `sidecar check` says whether key and certificate belong together.",
        ),
        Close::PeerMisnamed => advise(
            "The peer's identity is none of those that the cluster names for its address.",
            "The log names who answers, who should, and at which address. If the address has just \
             passed from one pod to another, connecting again helps. Else find out who has taken \
             it, or name in `expect` who may answer there; `naming` says what happens.",
        ),
        Close::PeerNoCertificate => advise(
            "The peer showed no certificate.",
            "Give the client a sidecar: one always shows its certificate. What dials there speaks \
             TLS by itself.",
        ),
        Close::PeerUnexpected => advise(
            "The peer is not who is expected.",
            "The log names who answers and who is expected. Correct `expect` in the settings, or \
             find out who has taken the server's address.",
        ),
        Close::PeerUntrusted => advise(
            "No authority that is trusted issued the peer's certificate.",
            "Compare the trust bundles of both sides: each needs the root of the other. `sidecar \
             check` shows which identity and trust this side has.",
        ),
        Close::PlaintextRefused => advise(
            "The peer does not speak mutual TLS, and the mode is `strict` or somebody is expected.",
            "Give the peer a sidecar, or allow it plaintext by an override of the mode. If it has \
             one, something on the way removes our TCP option: compare `option_offered` there with \
             `option_answered` here.",
        ),
        Close::ServerReset => advise(
            "The server, or its proxy, reset the connection or vanished.",
            "Look at the server: its own log, and whether it was stopped. If it has a sidecar, the \
             access log there names the same two addresses.",
        ),
        Close::TlsBroken => advise(
            "What a peer sent after the handshake was not the TLS it had agreed on.",
            "Nothing false reached the app. Look for what changes packets on the way, and at the log \
             of the peer's sidecar.",
        ),
    }
}
