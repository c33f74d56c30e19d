use std::{
    fmt::{Display, Write as _},
    time::{Duration, SystemTime},
};

use clap::ValueEnum;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};

use super::{
    TlsUse,
    labels::{PeerNames, PodLabels},
};
use crate::{
    observe::{Exchange, Lost},
    policy::{Direction, authorization::RuleName},
    proxy::{ClientAddr, Close, OrigDst},
};

/// Something that happened on a connection, for a line of the access log or of a live view.
#[derive(Clone, Debug)]
pub(super) struct Record<'a> {
    pub(super) time: SystemTime,
    pub(super) direction: Direction,
    pub(super) client: ClientAddr,
    pub(super) destination: OrigDst,
    pub(super) tls: &'a TlsUse,
    pub(super) own: &'a str,
    pub(super) rule: Option<&'a RuleName>,
    pub(super) named: Named<'a>,
    /// Whether its connection is among the share of which the access log tells everything.
    pub(super) is_sampled: bool,
    pub(super) what: What<'a>,
}

/// What the cluster says of the two ends.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Named<'a> {
    pub(super) pod: Option<&'a PodLabels>,
    pub(super) peer: Option<&'a PeerNames>,
    /// It names others for the address of the server than who has answered.
    pub(super) is_misnamed: bool,
}

impl<'a> Named<'a> {
    fn pairs(self) -> impl Iterator<Item = (&'static str, &'a str)> {
        let misnamed = self.is_misnamed.then_some(Close::PeerMisnamed.as_str());
        { self.pod.into_iter().flat_map(PodLabels::pairs) }
            .chain(self.peer.into_iter().flat_map(PeerNames::pairs))
            .chain(misnamed.map(|code| ("naming", code)))
    }
}

/// What happened.
#[derive(Clone, Debug)]
pub(super) enum What<'a> {
    /// Both legs stand.
    Opened,
    /// A request and its response have ended.
    Request(&'a Exchange),
    /// The connection has ended.
    Ended(End<'a>),
}

/// How a connection ended.
#[derive(Clone, Debug)]
pub(super) struct End<'a> {
    /// Whether both legs had stood.
    pub(super) was_open: bool,
    pub(super) sent: u64,
    pub(super) received: u64,
    pub(super) duration: Duration,
    /// What it spoke, if that is known, be its requests followed to the end or not.
    pub(super) protocol: Option<&'static str>,
    /// Why they were not.
    pub(super) lost: Option<&'a Lost>,
    pub(super) close: Close,
    /// A sentence about why, where there is one.
    pub(super) reason: Option<&'a str>,
}

/// The kind of a [`Record`], by which users choose.
#[derive(Clone, Copy, Debug, Deserialize, Eq, Hash, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A connection that was open has ended.
    Closed,
    /// A connection was refused for what it is: by policy, or for what its peer showed.
    Denied,
    /// A connection failed before it was open.
    Failed,
    /// A connection was established on both legs.
    Opened,
    /// A request and its response have ended.
    Request,
}

impl Kind {
    /// Every kind, in the order in which documents list them.
    pub const ALL: [Self; 5] = [
        Self::Closed,
        Self::Denied,
        Self::Failed,
        Self::Opened,
        Self::Request,
    ];

    /// The word in logs and filters.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Denied => "denied",
            Self::Failed => "failed",
            Self::Opened => "opened",
            Self::Request => "request",
        }
    }
}

impl Record<'_> {
    pub(super) fn kind(&self) -> Kind {
        match &self.what {
            What::Opened => Kind::Opened,
            What::Request(_) => Kind::Request,
            What::Ended(end) if end.close.is_denial() => Kind::Denied,
            What::Ended(end) if end.was_open => Kind::Closed,
            What::Ended(_) => Kind::Failed,
        }
    }

    /// Own and peer, where TLS was really used: a line cannot claim an identity nobody proved.
    fn identities(&self) -> Option<(&str, String)> {
        self.tls.peer().map(|peer| (self.own, peer.to_string()))
    }

    /// Words and `key=value` pairs, without the end of the line.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{:.6} {} {} client={} destination={} tls={}",
            timestamp(self.time),
            self.kind().as_str(),
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
        for (key, value) in self.named.pairs() {
            let _ = write!(text, " {key}={value}");
        }
        match &self.what {
            What::Opened => {}
            What::Request(exchange) => exchange_text(&mut text, exchange),
            What::Ended(end) => end_text(&mut text, end),
        }
        text
    }

    /// One JSON object, with the same keys as in the text.
    pub(super) fn json(&self) -> String {
        let mut object = Object::new();
        object.set("time", &Shown(format_args!("{:.6}", timestamp(self.time))));
        object.set("event", self.kind().as_str());
        object.set("direction", self.direction.as_str());
        object.set("client", &Shown(self.client));
        object.set("destination", &Shown(self.destination));
        object.set("tls", self.tls.as_str());
        if let Some((own, peer)) = self.identities() {
            object.set("own", own);
            object.set("peer", &peer);
        }
        if let Some(rule) = self.rule {
            object.set("rule", rule.as_str());
        }
        for (key, value) in self.named.pairs() {
            object.set(key, value);
        }
        match &self.what {
            What::Opened => {}
            What::Request(exchange) => exchange_json(&mut object, exchange),
            What::Ended(end) => end_json(&mut object, end),
        }
        object.end()
    }
}

/// An object of JSON, key by key.
struct Object(Vec<u8>);

impl Object {
    fn new() -> Self {
        /// Longer than most lines are.
        const LINE: usize = 1024;
        Self(Vec::with_capacity(LINE))
    }

    fn set<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) {
        self.0.push(if self.0.is_empty() { b'{' } else { b',' });
        self.write(key);
        self.0.push(b':');
        self.write(value);
    }

    fn write<T: Serialize + ?Sized>(&mut self, value: &T) {
        let written = serde_json::to_writer(&mut self.0, value);
        written.expect("memory takes everything, and numbers and words are JSON");
    }

    fn end(mut self) -> String {
        self.0.push(b'}');
        String::from_utf8(self.0).expect("JSON is UTF-8")
    }
}

/// A word as it is shown.
struct Shown<T>(T);

impl<T: Display> Serialize for Shown<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

fn exchange_text(text: &mut String, exchange: &Exchange) {
    let _ = write!(
        text,
        " protocol={} method={}",
        exchange.protocol.as_str(),
        exchange.method.as_str()
    );
    if let Some(authority) = &exchange.authority {
        let _ = write!(text, " authority={authority}");
    }
    if let Some(path) = &exchange.path {
        let _ = write!(text, " path={path}");
    }
    if let Some(status) = exchange.status {
        let _ = write!(text, " status={status}");
    }
    if let Some(status) = exchange.grpc_status {
        let _ = write!(text, " grpc_status={}", status.as_str());
    }
    let _ = write!(
        text,
        " sent={} received={}",
        exchange.request_bytes, exchange.response_bytes
    );
    if let Some(first_byte) = exchange.first_byte {
        let _ = write!(text, " first_byte={}", milliseconds(first_byte));
    }
    let _ = write!(
        text,
        " duration={} outcome={}",
        milliseconds(exchange.duration),
        exchange.outcome.as_str()
    );
}

fn exchange_json(object: &mut Object, exchange: &Exchange) {
    object.set("protocol", exchange.protocol.as_str());
    object.set("method", exchange.method.as_str());
    if let Some(authority) = &exchange.authority {
        object.set("authority", authority.as_str());
    }
    if let Some(path) = &exchange.path {
        object.set("path", path.as_str());
    }
    if let Some(status) = exchange.status {
        object.set("status", &status);
    }
    if let Some(status) = exchange.grpc_status {
        object.set("grpc_status", status.as_str());
    }
    object.set("sent", &exchange.request_bytes);
    object.set("received", &exchange.response_bytes);
    if let Some(first_byte) = exchange.first_byte {
        object.set("first_byte", &first_byte.as_secs_f64());
    }
    object.set("duration", &exchange.duration.as_secs_f64());
    object.set("outcome", exchange.outcome.as_str());
}

fn end_text(text: &mut String, end: &End<'_>) {
    let _ = write!(
        text,
        " sent={} received={} duration={} close={}",
        end.sent,
        end.received,
        milliseconds(end.duration),
        end.close
    );
    if let Some(protocol) = end.protocol {
        let _ = write!(text, " protocol={protocol}");
    }
    if let Some(lost) = end.lost {
        let _ = write!(text, " opaque={lost}");
        for (key, value) in hello(lost) {
            let _ = write!(text, " {key}={value}");
        }
    }
    if let Some(reason) = end.reason {
        let _ = write!(text, " reason=\"{}\"", escaped(reason));
    }
}

fn end_json(object: &mut Object, end: &End<'_>) {
    if let Some(protocol) = end.protocol {
        object.set("protocol", protocol);
    }
    if let Some(lost) = end.lost {
        object.set("opaque", lost.as_str());
        for (key, value) in hello(lost) {
            object.set(key, value);
        }
    }
    object.set("sent", &end.sent);
    object.set("received", &end.received);
    object.set("duration", &end.duration.as_secs_f64());
    object.set("close", end.close.as_str());
    if let Some(reason) = end.reason {
        object.set("reason", &cut(reason));
    }
}

/// A sentence between quotes: it stays on its line and between its quotes, whoever has a say in it.
fn escaped(sentence: &str) -> String {
    let mut escaped = String::with_capacity(sentence.len());
    for character in cut(sentence).chars() {
        match character {
            '\'' => escaped.push(character),
            _ => escaped.extend(character.escape_debug()),
        }
    }
    escaped
}

/// The beginning of a sentence: peers must not be able to make a line as long as they like.
fn cut(sentence: &str) -> String {
    const LONGEST: usize = 1024;
    match sentence.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &sentence[..end]),
        None => sentence.to_owned(),
    }
}

/// What an app's own TLS says of itself in the clear.
fn hello(lost: &Lost) -> impl Iterator<Item = (&'static str, &str)> {
    let hello = match lost {
        Lost::Tls(hello) => Some(hello),
        _ => None,
    };
    hello.into_iter().flat_map(|hello| {
        [("sni", &hello.sni), ("alpn", &hello.alpn)]
            .into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| (key, value.as_str())))
    })
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.3}ms", duration.as_secs_f64() * 1e3)
}

/// A clock outside jiff's range of years is shown as the epoch rather than not at all.
pub(super) fn timestamp(time: SystemTime) -> Timestamp {
    Timestamp::try_from(time).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use spiffe::SpiffeId;

    use super::*;
    use crate::{
        naming::Known,
        observe::{Text, TlsHello, testing::call},
    };

    const OWN: &str = "spiffe://sidecar.local/own";

    fn record<'a>(tls: &'a TlsUse, what: What<'a>) -> Record<'a> {
        Record {
            time: SystemTime::UNIX_EPOCH + Duration::from_millis(1500),
            direction: Direction::Outbound,
            client: ClientAddr("198.18.0.1:40000".parse().expect("an address")),
            destination: OrigDst("[fd00::2]:8080".parse().expect("an address")),
            tls,
            own: OWN,
            rule: None,
            named: Named::default(),
            is_sampled: true,
            what,
        }
    }

    fn end(lost: Option<&Lost>) -> What<'_> {
        What::Ended(End {
            was_open: true,
            sent: 120,
            received: 4096,
            duration: Duration::from_micros(1234),
            protocol: None,
            lost,
            close: Close::Eof,
            reason: None,
        })
    }

    fn failure(reason: &str) -> What<'_> {
        What::Ended(End {
            was_open: false,
            sent: 0,
            received: 0,
            duration: Duration::from_micros(1234),
            protocol: None,
            lost: None,
            close: Close::HandshakeBroken,
            reason: Some(reason),
        })
    }

    fn mutual() -> TlsUse {
        TlsUse::Mutual(SpiffeId::new("spiffe://sidecar.local/peer").expect("a SPIFFE ID"))
    }

    fn parse(json: &str) -> serde_json::Value {
        serde_json::from_str(json).expect("JSON")
    }

    #[test]
    fn text_names_both_identities_where_tls_was_used() {
        assert_eq!(
            record(&mutual(), end(None)).text(),
            "1970-01-01T00:00:01.500000Z closed outbound client=198.18.0.1:40000 \
             destination=[fd00::2]:8080 tls=mutual own=spiffe://sidecar.local/own \
             peer=spiffe://sidecar.local/peer sent=120 received=4096 duration=1.234ms close=eof"
        );
    }

    #[test]
    fn no_identity_is_named_where_tls_was_not_used() {
        for tls in [TlsUse::Failed, TlsUse::NoPeerOption, TlsUse::Pending] {
            let record = record(&tls, end(None));
            assert!(!record.text().contains("spiffe://"));
            let json = parse(&record.json());
            assert!(json.get("own").is_none() && json.get("peer").is_none());
            assert_eq!(json["tls"], tls.as_str());
        }
    }

    #[test]
    fn the_rule_that_decided_is_named() {
        let rule = "shop".parse().expect("a name");
        let record = Record {
            rule: Some(&rule),
            ..record(&TlsUse::NoPeerOption, end(None))
        };
        assert!(
            record
                .text()
                .contains(" tls=no_peer_option rule=shop sent=120")
        );
        assert_eq!(parse(&record.json())["rule"], "shop");
    }

    #[test]
    fn what_the_cluster_says_of_both_ends_is_named() {
        let pod = PodLabels {
            namespace: "shop".into(),
            pod: "web-0".into(),
            ..PodLabels::default()
        };
        let known = Known {
            namespace: "stock".into(),
            workload: "deployment/till".into(),
            ..Known::default()
        };
        let record = Record {
            named: Named {
                pod: Some(&pod),
                peer: Some(&(&known).into()),
                is_misnamed: true,
            },
            ..record(&TlsUse::NoPeerOption, end(None))
        };
        assert!(
            record.text().contains(
                " tls=no_peer_option namespace=shop pod=web-0 peer_namespace=stock \
                 peer_workload=deployment/till naming=peer_misnamed sent=120"
            ),
            "{}",
            record.text()
        );
        let json = parse(&record.json());
        assert_eq!(json["pod"], "web-0");
        assert_eq!(json["naming"], "peer_misnamed");
        assert!(json.get("peer_service").is_none());
    }

    #[test]
    fn json_gives_seconds_and_bytes_as_numbers() {
        let json = parse(&record(&mutual(), end(None)).json());
        assert_eq!(json["duration"], 0.001_234);
        assert_eq!(json["received"], 4096);
        assert_eq!(json["peer"], "spiffe://sidecar.local/peer");
        assert_eq!(json["event"], "closed");
    }

    #[test]
    fn a_failure_says_why() {
        let reason = "the peer's name is \"shop\"";
        let record = record(&TlsUse::Failed, failure(reason));
        assert!(record.text().ends_with(
            " tls=failed sent=0 received=0 duration=1.234ms close=handshake_broken \
             reason=\"the peer's name is \\\"shop\\\"\""
        ));
        assert_eq!(parse(&record.json())["reason"], reason);
    }

    #[test]
    fn no_peer_forges_a_line_or_a_key() {
        let reason = "a\nb\r\u{2028}\u{85}\x1b[2J\u{202e}\\\" close=eof";
        let record = record(&TlsUse::Failed, failure(reason));
        let text = record.text();
        assert!(
            text.ends_with(r#" reason="a\nb\r\u{2028}\u{85}\u{1b}[2J\u{202e}\\\" close=eof""#),
            "{text}"
        );
        let json = record.json();
        assert!(!json.contains(|c: char| c.is_ascii_control()), "{json}");
        assert_eq!(parse(&json)["reason"], reason);
    }

    #[test]
    fn a_long_reason_is_cut() {
        let reason = "é".repeat(5000);
        let record = record(&TlsUse::Failed, failure(&reason));
        assert!(record.text().chars().count() < 1300);
        let json = parse(&record.json());
        let shown = json["reason"].as_str().expect("a sentence");
        assert!(shown.ends_with("é…"));
        assert_eq!(shown.chars().count(), 1025);
    }

    #[test]
    fn a_request_is_one_line() {
        let (tls, exchange) = (mutual(), call());
        let record = record(&tls, What::Request(&exchange));
        assert!(record.text().ends_with(
            " protocol=grpc method=POST authority=shop path=/shop.Stock/Take status=200 \
             grpc_status=NOT_FOUND sent=7 received=9 first_byte=0.500ms duration=2.000ms \
             outcome=complete"
        ));
        let json = parse(&record.json());
        assert_eq!(json["grpc_status"], "NOT_FOUND");
        assert_eq!(json["first_byte"], 0.0005);
    }

    #[test]
    fn an_app_s_own_tls_is_named_by_what_it_says_in_the_clear() {
        let lost = Lost::Tls(Box::new(TlsHello {
            sni: Some(Text::new(b"shop.example")),
            alpn: None,
        }));
        let record = record(&TlsUse::NoPeerOption, end(Some(&lost)));
        assert!(
            record
                .text()
                .ends_with(" close=eof opaque=tls sni=shop.example")
        );
        let json = parse(&record.json());
        assert_eq!(json["sni"], "shop.example");
        assert!(json.get("alpn").is_none());
    }
}
