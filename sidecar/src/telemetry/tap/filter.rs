use std::{fmt, str::FromStr};

use thiserror::Error;

use super::super::record::{Record, What};
use crate::{
    policy::{Direction, IdentityPattern, PortRange},
    telemetry::Kind,
};

/// Which records are of interest: those that fit each kind of condition that is given, by any of its
/// values.
#[derive(clap::Args, Clone, Debug, Default, PartialEq)]
pub struct Filter {
    /// Only events of these kinds: closed, denied, failed, opened, request
    #[arg(long = "kind", value_name = "KIND", value_delimiter = ',', value_parser = kind)]
    kinds: Vec<Kind>,

    /// Only connections that run this way
    #[arg(
        long = "direction",
        value_name = "DIRECTION",
        value_delimiter = ',',
        value_enum
    )]
    directions: Vec<Direction>,

    /// Only connections to these ports of a server, each a number or a range
    #[arg(long = "port", value_name = "PORT", value_delimiter = ',')]
    ports: Vec<PortRange>,

    /// Only peers with these SPIFFE IDs, or with those below one that ends with /*
    #[arg(long = "peer", value_name = "ID", value_delimiter = ',')]
    peers: Vec<IdentityPattern>,

    /// Only requests whose response has these statuses: 404, 5xx, or none without response
    #[arg(long = "status", value_name = "STATUS", value_delimiter = ',')]
    statuses: Vec<StatusPattern>,
}

impl Filter {
    /// Adds the condition of this name.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), ParseFilterError> {
        fn parse<T: FromStr<Err: ToString>>(value: &str) -> Result<T, ParseFilterError> {
            value
                .parse()
                .map_err(|error: T::Err| ParseFilterError::Value(error.to_string()))
        }
        match name {
            "kind" => self.kinds.push(kind(value)?),
            "direction" => self.directions.push(direction(value)?),
            "port" => self.ports.push(parse(value)?),
            "peer" => self.peers.push(parse(value)?),
            "status" => self.statuses.push(parse(value)?),
            _ => return Err(ParseFilterError::Name(name.to_owned())),
        }
        Ok(())
    }

    /// The names and values to [`add`](Self::add) for the same filter.
    pub fn conditions(&self) -> impl Iterator<Item = (&'static str, String)> {
        fn named<T: ToString>(
            name: &'static str,
            values: &[T],
        ) -> impl Iterator<Item = (&'static str, String)> {
            values.iter().map(move |value| (name, value.to_string()))
        }
        let kinds = self.kinds.iter().map(|kind| ("kind", kind.as_str().into()));
        kinds
            .chain(named("direction", &self.directions))
            .chain(named("port", &self.ports))
            .chain(named("peer", &self.peers))
            .chain(named("status", &self.statuses))
    }

    pub(super) fn fits(&self, record: &Record<'_>) -> bool {
        let port = record.destination.0.port();
        any(&self.kinds, |kind| *kind == record.kind())
            && any(&self.directions, |way| *way == record.direction)
            && any(&self.ports, |ports| ports.contains(port))
            && any(&self.peers, |pattern| {
                record.tls.peer().is_some_and(|peer| pattern.fits(peer))
            })
            && any(&self.statuses, |pattern| match &record.what {
                What::Request(exchange) => pattern.fits(exchange.status),
                _ => false,
            })
    }
}

/// Whether any condition fits, or there is none.
fn any<T>(conditions: &[T], fits: impl Fn(&T) -> bool) -> bool {
    conditions.is_empty() || conditions.iter().any(fits)
}

fn kind(text: &str) -> Result<Kind, ParseFilterError> {
    let named = |kind: &Kind| kind.as_str() == text;
    Kind::ALL.into_iter().find(named).ok_or_else(|| {
        let words = Kind::ALL.map(Kind::as_str).join(", ");
        ParseFilterError::Value(format!("`{text}` is no kind of event; write {words}"))
    })
}

fn direction(text: &str) -> Result<Direction, ParseFilterError> {
    match text {
        "inbound" => Ok(Direction::Inbound),
        "outbound" => Ok(Direction::Outbound),
        _ => Err(ParseFilterError::Value(format!(
            "`{text}` is no direction; write inbound or outbound"
        ))),
    }
}

/// Statuses of responses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum StatusPattern {
    /// Those whose first digit is this one.
    Class(u16),
    /// This one.
    Exact(u16),
    /// That there is none.
    Missing,
}

impl StatusPattern {
    fn fits(self, status: Option<u16>) -> bool {
        match self {
            Self::Class(class) => status.is_some_and(|status| status / 100 == class),
            Self::Exact(exact) => status == Some(exact),
            Self::Missing => status.is_none(),
        }
    }
}

impl fmt::Display for StatusPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Class(class) => write!(f, "{class}xx"),
            Self::Exact(status) => status.fmt(f),
            Self::Missing => f.write_str("none"),
        }
    }
}

impl FromStr for StatusPattern {
    type Err = ParseFilterError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let class = text
            .strip_suffix("xx")
            .map(|class| class.parse().ok().filter(|class| (1..=5).contains(class)));
        let exact = || {
            text.parse()
                .ok()
                .filter(|status| (100..600).contains(status))
        };
        match class {
            _ if text == "none" => Some(Self::Missing),
            Some(class) => class.map(Self::Class),
            None => exact().map(Self::Exact),
        }
        .ok_or_else(|| {
            ParseFilterError::Value(format!(
                "`{text}` is no status; write one such as 404, a class such as 5xx, or none"
            ))
        })
    }
}

/// What is asked for is no [`Filter`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ParseFilterError {
    /// There is no such condition.
    #[error("there is no condition `{0}`; there are kind, direction, port, peer and status")]
    Name(String),
    /// The condition cannot have this value, as a sentence.
    #[error("{0}")]
    Value(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(conditions: &[(&str, &str)]) -> Filter {
        let mut filter = Filter::default();
        for (name, value) in conditions {
            filter.add(name, value).expect(value);
        }
        filter
    }

    #[test]
    fn a_filter_is_read_as_it_is_written() {
        let conditions = [
            ("kind", "denied"),
            ("kind", "request"),
            ("direction", "inbound"),
            ("port", "80"),
            ("port", "8000-8099"),
            ("peer", "spiffe://example.org/ns/shop/*"),
            ("status", "404"),
            ("status", "5xx"),
            ("status", "none"),
        ];
        let written: Vec<_> = filter(&conditions).conditions().collect();
        assert_eq!(
            written,
            conditions.map(|(name, value)| (name, value.to_owned()))
        );
    }

    #[test]
    fn every_kind_is_named_in_the_help() {
        let command = <Filter as clap::Args>::augment_args(clap::Command::new("tap"));
        let kinds = command.get_arguments().find(|arg| arg.get_id() == "kinds");
        let help = kinds.and_then(clap::Arg::get_help).expect("a sentence");
        let words = Kind::ALL.map(Kind::as_str).join(", ");
        assert!(help.to_string().ends_with(&words), "{help}");
    }

    #[test]
    fn what_is_no_condition_is_named() {
        for (name, value, named) in [
            ("verdict", "denied", "`verdict`"),
            ("kind", "close", "`close`"),
            ("direction", "up", "`up`"),
            ("port", "http", "`http`"),
            ("peer", "shop", "`shop`"),
            ("status", "6xx", "`6xx`"),
            ("status", "99", "`99`"),
            ("status", "xx", "`xx`"),
        ] {
            let error = Filter::default().add(name, value).expect_err(value);
            assert!(error.to_string().contains(named), "{error}");
        }
    }

    #[test]
    fn a_status_fits_by_its_class_or_itself() {
        let fits = |pattern: &str, status| {
            let pattern: StatusPattern = pattern.parse().expect(pattern);
            pattern.fits(status)
        };
        assert!(fits("5xx", Some(503)) && !fits("5xx", Some(404)) && !fits("5xx", None));
        assert!(fits("404", Some(404)) && !fits("404", Some(405)));
        assert!(fits("none", None) && !fits("none", Some(200)));
    }
}
