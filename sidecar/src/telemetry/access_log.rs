use std::{
    fmt::Write as _,
    io::Write,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use super::TlsUse;
use crate::{
    policy::{Direction, authorization::RuleName},
    proxy::{ClientAddr, Close, OrigDst},
};
use jiff::Timestamp;
use serde_json::json;

/// How a line looks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// One JSON object.
    Json,
    /// Words and `key=value` pairs.
    Text,
}

/// Writes one line for each connection when it has ended.
pub struct AccessLog {
    /// How lines look, and where they go; `None` writes nothing.
    output: Option<(Format, Mutex<Box<dyn Write + Send>>)>,
}

/// What a line says.
pub(super) struct Line<'a> {
    pub(super) time: SystemTime,
    pub(super) direction: Direction,
    pub(super) client: ClientAddr,
    pub(super) destination: OrigDst,
    pub(super) tls: &'a TlsUse,
    pub(super) own: &'a str,
    pub(super) rule: Option<&'a RuleName>,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duration: Duration,
    pub(super) close: Close,
}

impl AccessLog {
    /// Writes lines to `output`, which must not block.
    pub fn new(format: Format, output: impl Write + Send + 'static) -> Self {
        Self {
            output: Some((format, Mutex::new(Box::new(output)))),
        }
    }

    /// Writes nothing.
    pub const fn off() -> Self {
        Self { output: None }
    }

    pub(super) fn write(&self, line: &Line<'_>) {
        let Some((format, output)) = &self.output else {
            return;
        };
        let mut text = match format {
            Format::Json => line.json(),
            Format::Text => line.text(),
        };
        text.push('\n');
        // One call for each line, so lines never mix. A reader that is gone is no reason to stop.
        let mut output = output.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = output.write_all(text.as_bytes());
    }
}

impl Line<'_> {
    /// Own and peer, where TLS was really used: a line cannot claim an identity nobody proved.
    fn identities(&self) -> Option<(&str, String)> {
        self.tls.peer().map(|peer| (self.own, peer.to_string()))
    }

    fn text(&self) -> String {
        let mut text = format!(
            "{:.6} {} client={} destination={} tls={}",
            timestamp(self.time),
            self.direction,
            self.client,
            self.destination,
            self.tls.as_str()
        );
        // Writing to a string cannot fail.
        if let Some((own, peer)) = self.identities() {
            let _ = write!(text, " own={own} peer={peer}");
        }
        if let Some(rule) = self.rule {
            let _ = write!(text, " rule={rule}");
        }
        let _ = write!(
            text,
            " sent={} received={} duration={:.3}ms close={}",
            self.sent,
            self.received,
            self.duration.as_secs_f64() * 1e3,
            self.close
        );
        text
    }

    fn json(&self) -> String {
        let mut line = json!({
            "time": format!("{:.6}", timestamp(self.time)),
            "direction": self.direction.as_str(),
            "client": self.client.to_string(),
            "destination": self.destination.to_string(),
            "tls": self.tls.as_str(),
            "sent": self.sent,
            "received": self.received,
            "duration": self.duration.as_secs_f64(),
            "close": self.close.as_str(),
        });
        if let Some((own, peer)) = self.identities() {
            line["own"] = own.into();
            line["peer"] = peer.into();
        }
        if let Some(rule) = self.rule {
            line["rule"] = rule.as_str().into();
        }
        line.to_string()
    }
}

/// A clock outside jiff's range of years is shown as the epoch rather than not at all.
fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use spiffe::SpiffeId;

    use super::*;

    fn line<'a>(tls: &'a TlsUse, own: &'a str) -> Line<'a> {
        Line {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            direction: Direction::Outbound,
            client: ClientAddr("198.18.0.1:40000".parse().expect("an address")),
            destination: OrigDst("[fd00::2]:8080".parse().expect("an address")),
            tls,
            own,
            rule: None,
            sent: 120,
            received: 4096,
            duration: Duration::from_micros(1234),
            close: Close::Eof,
        }
    }

    fn id(path: &str) -> SpiffeId {
        SpiffeId::new(format!("spiffe://sidecar.local/{path}")).expect("a SPIFFE ID")
    }

    #[test]
    fn text_names_both_identities_where_tls_was_used() {
        let (own, tls) = ("spiffe://sidecar.local/own", TlsUse::Mutual(id("peer")));
        assert_eq!(
            line(&tls, own).text(),
            "1970-01-01T00:00:01.500000Z outbound client=198.18.0.1:40000 destination=[fd00::2]:8080 \
             tls=mutual own=spiffe://sidecar.local/own peer=spiffe://sidecar.local/peer \
             sent=120 received=4096 duration=1.234ms close=eof"
        );
    }

    #[test]
    fn no_identity_is_named_where_tls_was_not_used() {
        let own = "spiffe://sidecar.local/own";
        for tls in [TlsUse::Failed, TlsUse::NoPeerOption, TlsUse::Pending] {
            assert!(!line(&tls, own).text().contains("spiffe://"));
            let json: serde_json::Value =
                serde_json::from_str(&line(&tls, own).json()).expect("JSON");
            assert!(json.get("own").is_none() && json.get("peer").is_none());
            assert_eq!(json["tls"], tls.as_str());
        }
    }

    #[test]
    fn the_rule_that_decided_is_named() {
        let rule = "shop".parse().expect("a name");
        let line = Line {
            rule: Some(&rule),
            ..line(&TlsUse::NoPeerOption, "")
        };
        assert!(
            line.text()
                .contains(" tls=no_peer_option rule=shop sent=120")
        );
        let json: serde_json::Value = serde_json::from_str(&line.json()).expect("JSON");
        assert_eq!(json["rule"], "shop");
    }

    #[test]
    fn json_gives_seconds_and_bytes_as_numbers() {
        let (own, tls) = ("spiffe://sidecar.local/own", TlsUse::Mutual(id("peer")));
        let json: serde_json::Value = serde_json::from_str(&line(&tls, own).json()).expect("JSON");
        assert_eq!(json["duration"], 0.001_234);
        assert_eq!(json["received"], 4096);
        assert_eq!(json["peer"], "spiffe://sidecar.local/peer");
    }
}
