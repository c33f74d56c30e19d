use super::{Explained, Text, advise, note};
use crate::admin::Unready;

pub(super) fn texts() -> Vec<Explained> {
    { Unready::ALL.into_iter() }
        .map(|why| (why.as_str(), text(why)))
        .collect()
}

const fn text(why: Unready) -> Text {
    match why {
        Unready::AwaitingIdentity => advise(
            "No identity has come for the workload yet; connections that need one wait for it.",
            "`sidecar check` tries the source of the identity and says what is wrong with it; the \
             log says the same.",
        ),
        Unready::Draining => note(
            "The sidecar was told to stop: new connections are refused, open ones have \
             `drain-timeout`.",
        ),
        Unready::IdentityExpired => advise(
            "The workload's certificate has expired and no other has come; peers refuse it.",
            "See why the source gives no new one: `sidecar check` tries it, \
             `sidecar_identity_failures_total` counts how often it failed.",
        ),
    }
}
