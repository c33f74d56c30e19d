//! What sidecars say of themselves.

use std::collections::BTreeMap;

use super::pair::{Count, Pair};

/// One sidecar.
#[derive(Debug)]
pub struct Health<'a> {
    /// Where its metrics come from.
    pub source: &'a str,
    /// Whose sidecar it is, if any connection tells.
    pub own: Option<&'a str>,
    /// When its certificate expires, in seconds since the epoch; `None` without one.
    pub expiry: Option<f64>,
    /// Certificates that took the place of another.
    pub rotations: f64,
    /// Whether the settings are in force as they were last read.
    pub has_settings: bool,
}

/// Something that was counted because it went wrong or differs, by a code.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Failure {
    /// What it happened to.
    pub what: &'static str,
    /// Of connections: from which side.
    pub direction: String,
    /// The code, or the rule that denied.
    pub code: String,
}

impl<'a> Health<'a> {
    /// Of one sidecar.
    pub fn of(pair: &'a Pair) -> Self {
        let opened = pair.after.samples("sidecar_connections_opened_total");
        let mut own = opened.filter_map(|(labels, _)| labels.get("own"));
        Self {
            source: &pair.source,
            own: own.find(|own| !own.is_empty()).map(String::as_str),
            expiry: pair
                .gauge("sidecar_certificate_expiry_timestamp_seconds")
                .filter(|expiry| *expiry > 0.0),
            rotations: pair
                .gauge("sidecar_identity_rotations_total")
                .unwrap_or(0.0),
            has_settings: pair.gauge("sidecar_config_last_reload_successful") != Some(0.0),
        }
    }
}

impl Failure {
    /// Of all sidecars together; what never happened is left out.
    pub fn all(pairs: &[Pair]) -> BTreeMap<Self, Count> {
        const KINDS: [(&str, &str, &str); 5] = [
            (
                "connection failed",
                "sidecar_connections_failed_total",
                "reason",
            ),
            (
                "connection cut",
                "sidecar_connections_closed_total",
                "close",
            ),
            (
                "denied by rule",
                "sidecar_authorization_decisions_total",
                "rule",
            ),
            (
                "requests not followed",
                "sidecar_opaque_connections_total",
                "reason",
            ),
            ("kernel", "sidecar_kernel_events_total", "event"),
        ];
        let mut failures: BTreeMap<Self, Count> = BTreeMap::new();
        for pair in pairs {
            for (what, name, label) in KINDS {
                for (labels, count) in pair.counts(name) {
                    let code = labels.get(label).map_or("", String::as_str);
                    let is_allowed = labels.get("decision").is_some_and(|word| word == "allow");
                    if count.total == 0.0 || is_allowed || is_ordinary(what, code) {
                        continue;
                    }
                    let failure = Self {
                        what,
                        direction: labels.get("direction").cloned().unwrap_or_default(),
                        code: code.to_owned(),
                    };
                    failures.entry(failure).or_default().add(count);
                }
            }
        }
        failures
    }

    /// Whether `sidecar explain` knows it: names of rules are the user's own.
    pub fn is_code(&self) -> bool {
        self.what != "denied by rule"
    }
}

/// What happens while nothing is wrong.
fn is_ordinary(what: &str, code: &str) -> bool {
    match what {
        "connection cut" => code == "eof",
        "kernel" => {
            let is_loss = code.ends_with("_table_full") || code == "statistics_lost";
            !code.starts_with("dropped_") && !is_loss
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::report::scrape::Scrape;

    fn pair(after: &str) -> Pair {
        Pair {
            source: "here".into(),
            before: Scrape::default(),
            after: Scrape::parse(after).expect("a scrape"),
            interval: Duration::from_secs(1),
        }
    }

    #[test]
    fn what_is_ordinary_is_no_failure() {
        let pairs = [pair(
            "sidecar_connections_closed_total{direction=\"inbound\",close=\"eof\"} 7\n\
             sidecar_connections_closed_total{direction=\"inbound\",close=\"client_reset\"} 2\n\
             sidecar_authorization_decisions_total{decision=\"allow\",rule=\"a\"} 1\n\
             sidecar_authorization_decisions_total{decision=\"deny\",rule=\"b\"} 1\n\
             sidecar_kernel_events_total{event=\"option_offered\"} 9\n\
             sidecar_kernel_events_total{event=\"dropped_no_listener\"} 0\n",
        )];
        let failures = Failure::all(&pairs);
        let codes: Vec<_> = failures.keys().map(|failure| &*failure.code).collect();
        assert_eq!(codes, ["client_reset", "b"]);
    }

    #[test]
    fn a_sidecar_without_certificate_has_none_that_expires() {
        let pairs = pair("sidecar_certificate_expiry_timestamp_seconds 0\n");
        assert_eq!(Health::of(&pairs).expiry, None);
        let pairs = pair(
            "sidecar_certificate_expiry_timestamp_seconds 5\nsidecar_config_last_reload_successful 0\n",
        );
        let health = Health::of(&pairs);
        assert_eq!((health.expiry, health.has_settings), (Some(5.0), false));
    }
}
