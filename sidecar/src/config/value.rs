//! Values that a flag, a variable or a file can hold, each with one text form.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    num::NonZeroUsize,
    path::PathBuf,
    str::FromStr,
    sync::Arc,
    thread,
    time::Duration,
};

use clap::ValueEnum;
use jiff::fmt::friendly::SpanParser;
use serde::Deserialize;
use spiffe::{SpiffeId, TrustDomain, transport::Endpoint};
use thiserror::Error;
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

use crate::{policy::text::deserialize_from_str, telemetry};

/// How the lines of the access log look.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum AccessLog {
    /// One JSON object per line
    Json,
    /// Nothing
    Off,
    /// One line of `name=value` pairs
    #[default]
    Text,
}

/// A share of something, from 0 to 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Share(f64);

impl Share {
    pub(super) const fn number(self) -> f64 {
        self.0
    }
}

impl FromStr for Share {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .ok()
            .filter(|share| (0.0..=1.0).contains(share))
            .map(Self)
            .ok_or_else(|| ParseValueError {
                text: text.to_owned(),
                what: "a share",
                form: "a number from 0 to 1, such as 0.01",
            })
    }
}

/// How the daemon's own messages are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line
    Json,
    /// One line for people
    #[default]
    Text,
}

/// Whether requests are followed as they pass by.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Observe {
    /// Nothing is looked at; only connections and bytes are counted
    Off,
    /// HTTP and gRPC, wherever they are recognised
    #[default]
    On,
}

/// The address and port of the admin endpoint.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct AdminAddress(pub(super) SocketAddr);

impl AdminAddress {
    /// On loopback, on a port of the kernel's choice.
    pub const ANY_LOOPBACK_PORT: Self = Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0));

    /// To connect to, from where it listens. Who listens on all addresses does so on this one, and
    /// `::` leads nowhere without IPv6.
    pub fn address(self) -> SocketAddr {
        if self.0.ip().is_unspecified() {
            SocketAddr::new(Ipv4Addr::LOCALHOST.into(), self.0.port())
        } else {
            self.0
        }
    }
}

impl FromStr for AdminAddress {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|_| ParseValueError {
            text: text.to_owned(),
            what: "an address and port",
            form: "one such as 127.0.0.1:4195 or [::1]:4195",
        })
    }
}

/// A number of connections that are in the making.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Handshakes(NonZeroUsize);

impl Handshakes {
    /// More than any process has file descriptors for.
    const MOST: usize = 1_000_000;

    pub(super) const fn number(self) -> usize {
        self.0.get()
    }
}

impl Default for Handshakes {
    /// As many as may wait in a listener's queue before the proxy sees them.
    fn default() -> Self {
        const { Self(NonZeroUsize::new(4096).expect("it is not zero")) }
    }
}

impl FromStr for Handshakes {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (what, form) = ("a number of handshakes", "one from 1 to 1000000");
        number_to(Self::MOST, text, what, form).map(Self)
    }
}

/// The SPIFFE ID of a workload: a trust domain and a path.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity(pub(super) SpiffeId);

impl FromStr for Identity {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<SpiffeId>()
            .ok()
            // An ID without a path names the trust domain itself (SPIFFE-ID, section 2.2).
            .filter(|id| !id.path().is_empty())
            .map(Self)
            .ok_or_else(|| ParseValueError {
                text: text.to_owned(),
                what: "the SPIFFE ID of a workload",
                form: "one such as spiffe://example.org/ns/default/sa/web",
            })
    }
}

/// The name of a trust domain.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct TrustDomainName(pub TrustDomain);

impl FromStr for TrustDomainName {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // The type would also take the trust domain out of a whole SPIFFE ID.
        let name = Some(text).filter(|text| !text.contains('/'));
        name.and_then(|name| TrustDomain::new(name).ok())
            .map(Self)
            .ok_or_else(|| ParseValueError {
                text: text.to_owned(),
                what: "the name of a trust domain",
                form: "one such as example.org",
            })
    }
}

/// The authorities of another trust domain. On the command line `example.org=FILE`, in a file a
/// mapping.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct FederatedBundle {
    /// Whose authorities they are.
    pub(super) trust_domain: TrustDomainName,
    /// The PEM file that holds them.
    pub(super) file: PathBuf,
}

impl FromStr for FederatedBundle {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('=') {
            Some((trust_domain, file)) if !file.is_empty() => Ok(Self {
                trust_domain: trust_domain.parse()?,
                file: file.into(),
            }),
            _ => Err(ParseValueError {
                text: text.to_owned(),
                what: "a trust domain and the file of its roots",
                form: "them as in example.org=/etc/sidecar/example.org.pem",
            }),
        }
    }
}

/// The Unix socket of a SPIFFE Workload API.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct WorkloadApi(pub(super) PathBuf);

impl FromStr for WorkloadApi {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match Endpoint::parse(text) {
            Ok(Endpoint::Unix(socket)) => Ok(Self(socket)),
            // The other kind is TCP, over which the private key would come in plaintext.
            _ => Err(ParseValueError {
                text: text.to_owned(),
                what: "a Unix socket of the Workload API",
                form: "one such as unix:/run/spire/agent.sock",
            }),
        }
    }
}

/// A name of a Kubernetes object, or its kind and name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct KubernetesName(pub(super) Arc<str>);

impl FromStr for KubernetesName {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        /// Of a name (RFC 1123), with a kind in front of it.
        const LONGEST: usize = 253 + 64;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./:".contains(c);
        if text.is_empty() || text.len() > LONGEST || !text.chars().all(is_plain) {
            return Err(ParseValueError {
                text: text.to_owned(),
                what: "a name of Kubernetes",
                form: "one such as web-0 or deployment/web",
            });
        }
        Ok(Self(text.into()))
    }
}

/// Which of the daemon's own messages are logged: a level, or `TARGET=LEVEL` pairs with commas.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LogFilter(String);

impl Default for LogFilter {
    fn default() -> Self {
        Self("info".to_owned())
    }
}

impl fmt::Display for LogFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for LogFilter {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // `EnvFilter` takes an unknown word for the name of a target, so that a misspelt level
        // would silence everything.
        let mut words = text
            .split(',')
            .map(str::trim)
            .filter(|word| !word.contains('='));
        let known = words.all(|word| !word.is_empty() && word.parse::<LevelFilter>().is_ok());
        if known && EnvFilter::builder().parse(text).is_ok() {
            return Ok(Self(text.to_owned()));
        }
        Err(ParseValueError {
            text: text.to_owned(),
            what: "a log filter",
            form: "off, error, warn, info, debug, trace, or pairs such as sidecar=debug",
        })
    }
}

/// A number of peers that metrics tell apart.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peers(NonZeroUsize);

impl Peers {
    /// More than anybody's metrics are kept for.
    const MOST: usize = 100_000;

    pub(super) const fn number(self) -> usize {
        self.0.get()
    }
}

impl Default for Peers {
    /// More than most workloads know.
    fn default() -> Self {
        const { Self(NonZeroUsize::new(1000).expect("it is not zero")) }
    }
}

impl FromStr for Peers {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (what, form) = ("a number of peers", "one from 1 to 100000");
        number_to(Self::MOST, text, what, form).map(Self)
    }
}

/// A time limit: more than nothing, at most a day.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timeout(Duration);

impl Timeout {
    /// For connecting, when nothing else is said.
    pub(super) const CONNECT: Self = Self(Duration::from_secs(10));
    /// For draining, when nothing else is said: what most orchestrators leave time for.
    pub(super) const DRAIN: Self = Self(Duration::from_secs(5));
    /// For peers that have gone, when nothing else is said: many times what lies between scrapes.
    pub(super) const FORGET_PEERS: Self = Self(Duration::from_mins(10));
    /// For a TLS handshake, when nothing else is said.
    pub(super) const HANDSHAKE: Self = Self(Duration::from_secs(10));
    /// For the first identity, when nothing else is said: most clients give up by then.
    pub(super) const IDENTITY: Self = Self(Duration::from_secs(30));

    /// A longer limit is a mistake, and a far longer one cannot be added to the clock.
    const LONGEST: Duration = Duration::from_hours(24);

    /// How long it is.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Timeout {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        SpanParser::new()
            .parse_unsigned_duration(text)
            .ok()
            .filter(|limit| !limit.is_zero() && *limit <= Self::LONGEST)
            .map(Self)
            .ok_or_else(|| ParseValueError {
                text: text.to_owned(),
                what: "a time limit",
                form: "more than 0 and at most 24h, with its unit, such as 10s, 500ms or 1m30s",
            })
    }
}

/// How long something is kept that may be of use again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reuse(Duration);

impl Reuse {
    /// How long it is; nothing if it is not kept.
    pub const fn duration(self) -> Duration {
        self.0
    }
}

impl Default for Reuse {
    fn default() -> Self {
        Self(Duration::from_secs(10))
    }
}

impl FromStr for Reuse {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text == "off" {
            return Ok(Self(Duration::ZERO));
        }
        text.parse::<Timeout>()
            .map(|time| Self(time.duration()))
            .map_err(|error| ParseValueError {
                form: "`off`, or a time of at most 24h with its unit, such as 10s or 1m30s",
                what: "a time for which connections are kept",
                ..error
            })
    }
}

/// The collector of traces.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Collector(pub(super) telemetry::Collector);

impl FromStr for Collector {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self).map_err(|()| ParseValueError {
            text: text.to_owned(),
            what: "a collector of traces",
            form: "one such as http://127.0.0.1:4317 or http://collector.monitoring:4317; the \
                   mesh encrypts the way there",
        })
    }
}

/// A user, by number.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Uid(pub(super) u32);

impl FromStr for Uid {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse()
            .ok()
            // The highest number stands for "no user" in the kernel.
            .filter(|uid| *uid != u32::MAX)
            .map(Self)
            .ok_or_else(|| ParseValueError {
                text: text.to_owned(),
                what: "a user id",
                form: "a number from 0 to 4294967294",
            })
    }
}

/// A number of threads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Workers(NonZeroUsize);

impl Workers {
    /// More threads than any machine has cores.
    const MOST: usize = 1024;

    pub(super) const fn number(self) -> usize {
        self.0.get()
    }
}

impl Default for Workers {
    /// One for each core we may run on, or one where that cannot be told.
    fn default() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self(NonZeroUsize::MIN.saturating_add(cores.min(Self::MOST) - 1))
    }
}

impl FromStr for Workers {
    type Err = ParseValueError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (what, form) = ("a number of workers", "one from 1 to 1024");
        number_to(Self::MOST, text, what, form).map(Self)
    }
}

/// A number from 1 to `most`.
fn number_to(
    most: usize,
    text: &str,
    what: &'static str,
    form: &'static str,
) -> Result<NonZeroUsize, ParseValueError> {
    text.parse()
        .ok()
        .filter(|number: &NonZeroUsize| number.get() <= most)
        .ok_or_else(|| ParseValueError {
            text: text.to_owned(),
            what,
            form,
        })
}

deserialize_from_str!(
    KubernetesName,
    AdminAddress,
    Collector,
    Handshakes,
    Identity,
    LogFilter,
    Peers,
    Share,
    Reuse,
    Timeout,
    TrustDomainName,
    Uid,
    Workers,
    WorkloadApi
);

/// A text that a setting cannot take.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("`{text}` is not {what}; write {form}")]
pub struct ParseValueError {
    /// What was given.
    text: String,
    /// What it should have been.
    what: &'static str,
    /// How that is written.
    form: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal<T: FromStr<Err = ParseValueError> + fmt::Debug>(text: &str) -> String {
        text.parse::<T>().expect_err(text).to_string()
    }

    #[test]
    fn a_time_limit_has_a_unit_and_a_range() {
        for (text, limit) in [
            ("10s", Duration::from_secs(10)),
            ("500ms", Duration::from_millis(500)),
            ("1m30s", Duration::from_secs(90)),
            ("24h", Timeout::LONGEST),
        ] {
            assert_eq!(text.parse().map(Timeout::duration), Ok(limit), "{text}");
        }
        for text in ["", "10", "0s", "-1s", "24h1s", "ten seconds"] {
            assert_eq!(
                refusal::<Timeout>(text),
                format!(
                    "`{text}` is not a time limit; write more than 0 and at most 24h, \
                     with its unit, such as 10s, 500ms or 1m30s"
                )
            );
        }
    }

    #[test]
    fn a_collector_is_reached_in_plaintext_which_the_mesh_encrypts() {
        assert!("http://[::1]:4317".parse::<Collector>().is_ok());
        assert_eq!(
            refusal::<Collector>("https://collector:4317"),
            "`https://collector:4317` is not a collector of traces; write one such as \
             http://127.0.0.1:4317 or http://collector.monitoring:4317; the mesh encrypts the \
             way there"
        );
    }

    #[test]
    fn a_share_is_a_number_from_0_to_1() {
        for (text, share) in [("0", 0.0), ("1", 1.0), ("0.25", 0.25), ("1e-3", 0.001)] {
            assert_eq!(text.parse(), Ok(Share(share)), "{text}");
        }
        for text in ["", "-0.1", "1.01", "10%", "NaN", "inf"] {
            assert_eq!(
                refusal::<Share>(text),
                format!("`{text}` is not a share; write a number from 0 to 1, such as 0.01")
            );
        }
    }

    #[test]
    fn workers_are_counted_from_1_to_1024() {
        assert_eq!("1".parse().map(Workers::number), Ok(1));
        assert_eq!("1024".parse().map(Workers::number), Ok(1024));
        for text in ["0", "1025", "-1", "two"] {
            assert_eq!(
                refusal::<Workers>(text),
                format!("`{text}` is not a number of workers; write one from 1 to 1024")
            );
        }
        assert!((1..=Workers::MOST).contains(&Workers::default().number()));
    }

    #[test]
    fn a_misspelt_level_is_not_taken_for_a_target() {
        for text in ["info", "debug,hyper=off", "sidecar::proxy=trace", "OFF"] {
            assert_eq!(text.parse(), Ok(LogFilter(text.to_owned())));
        }
        for text in ["verbos", "info,sidecar", "sidecar=loud", ""] {
            assert_eq!(
                refusal::<LogFilter>(text),
                format!(
                    "`{text}` is not a log filter; write off, error, warn, info, debug, trace, \
                     or pairs such as sidecar=debug"
                )
            );
        }
    }

    #[test]
    fn a_workload_has_a_path_in_its_trust_domain() {
        assert!("spiffe://example.org/web".parse::<Identity>().is_ok());
        for text in ["", "web", "https://example.org/web", "spiffe://example.org"] {
            assert_eq!(
                refusal::<Identity>(text),
                format!(
                    "`{text}` is not the SPIFFE ID of a workload; \
                     write one such as spiffe://example.org/ns/default/sa/web"
                )
            );
        }
    }

    #[test]
    fn a_federated_bundle_is_a_trust_domain_and_a_file() {
        let bundle: FederatedBundle = "example.com=/a=b.pem".parse().expect("valid");
        assert_eq!(bundle.trust_domain.0.as_str(), "example.com");
        assert_eq!(bundle.file, PathBuf::from("/a=b.pem"));
        assert_eq!(
            refusal::<FederatedBundle>("example.com"),
            "`example.com` is not a trust domain and the file of its roots; \
             write them as in example.org=/etc/sidecar/example.org.pem"
        );
        assert_eq!(
            refusal::<FederatedBundle>("spiffe://example.com/web=/a.pem"),
            "`spiffe://example.com/web` is not the name of a trust domain; \
             write one such as example.org"
        );
    }

    #[test]
    fn a_workload_api_is_a_unix_socket() {
        for text in ["unix:/run/agent.sock", "unix:///run/agent.sock"] {
            let socket = text.parse::<WorkloadApi>().expect(text).0;
            assert_eq!(socket, PathBuf::from("/run/agent.sock"));
        }
        for text in [
            "/run/agent.sock",
            "unix:agent.sock",
            "tcp://127.0.0.1:8081",
            "",
        ] {
            assert_eq!(
                refusal::<WorkloadApi>(text),
                format!(
                    "`{text}` is not a Unix socket of the Workload API; \
                     write one such as unix:/run/spire/agent.sock"
                )
            );
        }
    }

    #[test]
    fn a_name_of_kubernetes_breaks_no_line() {
        for text in ["web-0", "deployment/web", "system:node"] {
            assert!(text.parse::<KubernetesName>().is_ok(), "{text}");
        }
        for text in ["", "a b", "a=\"b", "a\nb", "é"] {
            assert_eq!(
                refusal::<KubernetesName>(text),
                format!(
                    "`{text}` is not a name of Kubernetes; \
                     write one such as web-0 or deployment/web"
                )
            );
        }
    }

    #[test]
    fn an_admin_address_has_a_port() {
        assert!("[::]:4195".parse::<AdminAddress>().is_ok());
        assert_eq!(
            refusal::<AdminAddress>("4195"),
            "`4195` is not an address and port; write one such as 127.0.0.1:4195 or [::1]:4195"
        );
    }

    #[test]
    fn a_user_is_a_number() {
        assert_eq!("0".parse(), Ok(Uid(0)));
        for text in ["root", "4294967295"] {
            assert_eq!(
                refusal::<Uid>(text),
                format!("`{text}` is not a user id; write a number from 0 to 4294967294")
            );
        }
    }
}
