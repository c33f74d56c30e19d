use std::{
    fmt, io,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _},
    str::FromStr,
};

use thiserror::Error;

/// Where spans go: a collector that speaks OTLP over gRPC, as `http://HOST:PORT`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Collector {
    /// A name, or an address without brackets.
    host: String,
    port: u16,
}

/// A collector that cannot be found.
#[derive(Debug, Error)]
pub enum Error {
    /// Its name has no address.
    #[error("traces: no address is known for {collector}; correct the name, or set an address")]
    NoAddress {
        /// Its URL.
        collector: Collector,
    },
    /// Its name cannot be resolved.
    #[error(
        "traces: {collector} cannot be resolved: {source}; correct the name, or set an address"
    )]
    Resolve {
        /// Its URL.
        collector: Collector,
        /// Why.
        source: io::Error,
    },
}

impl Collector {
    /// Its address as of now, the first of those that its name has.
    pub fn resolve(&self) -> Result<SocketAddr, Error> {
        let mut addresses = (&*self.host, self.port)
            .to_socket_addrs()
            .map_err(|source| Error::Resolve {
                collector: self.clone(),
                source,
            })?;
        addresses.next().ok_or_else(|| Error::NoAddress {
            collector: self.clone(),
        })
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') {
            write!(f, "http://[{host}]:{port}")
        } else {
            write!(f, "http://{host}:{port}")
        }
    }
}

impl FromStr for Collector {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let rest = text.strip_prefix("http://").ok_or(())?;
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (host, port) = rest.rsplit_once(':').ok_or(())?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or(())?;
        let bracketed = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'));
        let is_valid = match bracketed {
            Some(address) => matches!(address.parse(), Ok(IpAddr::V6(_))),
            None => is_name(host),
        };
        is_valid
            .then(|| Self {
                host: bracketed.unwrap_or(host).to_owned(),
                port,
            })
            .ok_or(())
    }
}

/// A name of DNS or an IPv4 address, as far as its characters tell.
fn is_name(host: &str) -> bool {
    let is_known = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
    !host.is_empty() && host.len() <= 253 && host.chars().all(is_known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_a_url_of_host_and_port() {
        for (text, shown) in [
            ("http://127.0.0.1:4317", "http://127.0.0.1:4317"),
            ("http://[::1]:4317/", "http://[::1]:4317"),
            ("http://otel.monitoring:4317", "http://otel.monitoring:4317"),
        ] {
            let collector: Collector = text.parse().expect(text);
            assert_eq!(collector.to_string(), shown);
        }
        for text in [
            "",
            "127.0.0.1:4317",
            "https://127.0.0.1:4317",
            "http://127.0.0.1",
            "http://:4317",
            "http://a:0",
            "http://::1:4317",
            "http://[a]:4317",
            "http://a/b:4317",
            "http://a:4317/v1/traces",
            "http://user@a:4317",
        ] {
            assert_eq!(text.parse::<Collector>(), Err(()), "{text}");
        }
    }

    #[test]
    fn an_address_needs_no_resolver_and_a_wrong_name_is_told() {
        let resolve = |text: &str| text.parse::<Collector>().expect(text).resolve();
        let address = resolve("http://[::1]:4317").expect("an address");
        assert_eq!(address.to_string(), "[::1]:4317");
        let error = resolve("http://collector.invalid:4317").expect_err("no such name");
        assert!(
            error
                .to_string()
                .starts_with("traces: http://collector.invalid:4317 cannot be resolved: "),
            "{error}"
        );
    }
}
