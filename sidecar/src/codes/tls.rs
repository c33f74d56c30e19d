use super::{Explained, Text, advise, note};
use crate::telemetry::TlsUse;

pub(super) fn texts() -> Vec<Explained> {
    { [TlsUse::Failed, TlsUse::NoPeerOption, TlsUse::Pending].iter() }
        .map(|tls| (tls.as_str(), text(tls)))
        .collect()
}

const fn text(tls: &TlsUse) -> Text {
    match tls {
        TlsUse::Failed => advise(
            "A handshake was tried and failed, or the peer did not try where it had to.",
            "`close` in the access log, or `reason` in the log, says why.",
        ),
        TlsUse::Mutual(_) => note("It is encrypted."),
        TlsUse::NoPeerOption => advise(
            "The peer's TCP handshake did not carry our option: it has no sidecar.",
            "Give the peer a sidecar. If it has one, something on the way removes our TCP option: \
             compare `option_offered` there with `option_answered` here.",
        ),
        TlsUse::Pending => advise(
            "It had not come to TLS when the connection ended.",
            "`close` in the access log, or `reason` in the log, says why it ended.",
        ),
    }
}
