//! The words by which logs and metrics tell why: what each means, and what to do first.
//!
//! A word is the same wherever it stands. Those of an enum are explained by a `match` over it, so
//! that one without explanation does not compile.

mod connections;
mod events;
mod identity;
mod opaque;
mod readiness;
mod settings;
mod statistics;
mod tls;

use serde::Serialize;

/// How alike two words have to be for one to be meant by the other, from 0 to 1.
const ALIKE: f64 = 0.8;

/// A word with its explanation.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub struct Code {
    /// The word.
    pub code: &'static str,
    /// What it is about.
    pub group: Group,
    /// What happened, in one sentence.
    pub meaning: &'static str,
    /// What to do first, and what shows more; nothing where all is as it should be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hint: Option<&'static str>,
}

/// What codes are about.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Group {
    /// Ways in which connections end.
    Connections,
    /// What the kernel side decides.
    Events,
    /// Where identities, and what to trust, do not come from.
    Identity,
    /// Why requests are not followed.
    Opaque,
    /// Why the sidecar is not ready.
    Readiness,
    /// What becomes of settings.
    Settings,
    /// Why what TCP measures is not counted.
    Statistics,
    /// Why TLS is not used.
    Tls,
}

impl Group {
    /// Every group, in the order in which they are listed.
    pub const ALL: [Self; 8] = [
        Self::Connections,
        Self::Tls,
        Self::Opaque,
        Self::Identity,
        Self::Readiness,
        Self::Settings,
        Self::Events,
        Self::Statistics,
    ];

    /// The heading above its codes.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Connections => "How connections end",
            Self::Events => "What the kernel side decides",
            Self::Identity => "Where identities and trust fail to come from",
            Self::Opaque => "Why requests are not followed",
            Self::Readiness => "Why the sidecar is not ready",
            Self::Settings => "What becomes of changed settings",
            Self::Statistics => "Why what TCP measures is not counted",
            Self::Tls => "Why a connection is not encrypted",
        }
    }

    /// Where its codes stand.
    pub const fn shown_in(self) -> &'static str {
        match self {
            Self::Connections => {
                "`close` in the access log and in `sidecar_connections_closed_total`, \
                 `reason` in the log and in `sidecar_connections_failed_total`"
            }
            Self::Events => "`event` in `sidecar_kernel_events_total`, and in `sidecar status`",
            Self::Identity => "`source` in the log and in `sidecar_identity_failures_total`",
            Self::Opaque => {
                "`opaque` in the access log, `reason` in `sidecar_opaque_connections_total`"
            }
            Self::Readiness => "what `/readyz` of the admin endpoint answers",
            Self::Settings => "`outcome` in the log and in `sidecar_config_reloads_total`",
            Self::Statistics => "`reason` in `sidecar_kernel_statistics_lost_total`",
            Self::Tls => "`tls` in the access log and in metrics",
        }
    }

    /// Its codes.
    pub fn codes(self) -> Vec<Code> {
        let texts = match self {
            Self::Connections => connections::texts(),
            Self::Events => events::texts(),
            Self::Identity => identity::texts(),
            Self::Opaque => opaque::texts(),
            Self::Readiness => readiness::texts(),
            Self::Settings => settings::texts(),
            Self::Statistics => statistics::texts(),
            Self::Tls => tls::texts(),
        };
        { texts.into_iter() }
            .map(|(code, Text { meaning, hint })| Code {
                code,
                group: self,
                meaning,
                hint,
            })
            .collect()
    }
}

/// Every code, group by group.
pub fn all() -> impl Iterator<Item = Code> {
    Group::ALL.into_iter().flat_map(Group::codes)
}

/// The codes that were probably meant by a word that is none, the likeliest first.
pub fn nearest(word: &str) -> Vec<&'static str> {
    let mut alike: Vec<_> = all()
        .map(|code| (strsim::jaro_winkler(word, code.code), code.code))
        .filter(|(alike, _)| *alike > ALIKE)
        .collect();
    alike.sort_by(|(one, _), (other, _)| other.total_cmp(one));
    { alike.into_iter() }
        .map(|(_, code)| code)
        .take(3)
        .collect()
}

/// The explanation of a code.
struct Text {
    meaning: &'static str,
    hint: Option<&'static str>,
}

/// A code and its explanation.
type Explained = (&'static str, Text);

/// What there is something to do about.
const fn advise(meaning: &'static str, hint: &'static str) -> Text {
    let hint = Some(hint);
    Text { meaning, hint }
}

/// What is as it should be.
const fn note(meaning: &'static str) -> Text {
    let hint = None;
    Text { meaning, hint }
}

#[cfg(test)]
mod tests;
