use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use super::text::deserialize_from_str;

/// A range of addresses as a user writes it: `10.0.0.0/8`, `fd00::/8`, or one bare address.
///
/// An IPv4-mapped range (`::ffff:10.0.0.0/104`) is kept as the IPv4 range it means.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Cidr(IpNet);

impl Cidr {
    /// The range, with no bits set beyond its prefix.
    pub const fn net(self) -> IpNet {
        self.0
    }

    /// The range as entries of a table that holds IPv4 in its mapped form: `::/0`, which means
    /// IPv6 alone, becomes what is left of it without `::ffff:0:0/96`.
    pub fn nets(self) -> Vec<IpNet> {
        apart_from_mapped(self.0)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let net = text
            .parse::<IpNet>()
            .or_else(|_| text.parse::<IpAddr>().map(IpNet::from))
            .map_err(|_| ParseCidrError::Syntax(text.to_owned()))?;
        if net.addr() != net.network() {
            return Err(ParseCidrError::HostBits {
                written: net,
                range: net.trunc(),
            });
        }
        Ok(Self(unmap(net)))
    }
}

deserialize_from_str!(Cidr);

/// The text is no [`Cidr`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum ParseCidrError {
    /// The address has bits set that its prefix does not cover, so two readings are possible.
    #[error(
        "`{written}` names an address inside a range; write `{range}` for the range \
         or `{}` for the one address", .written.addr()
    )]
    HostBits {
        /// What was given.
        written: IpNet,
        /// The range it lies in.
        range: IpNet,
    },
    /// Neither a range nor an address.
    #[error("`{0}` is not a CIDR; write a range such as 10.0.0.0/8 or fd00::/8, or one address")]
    Syntax(String),
}

/// Bits in front of an IPv4 address in its mapped form (RFC 4291, section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// What to write for `range` into a table that holds IPv4 in its mapped form, where the entry
/// `::/0` would cover IPv4 as well: the range itself, or the parts of it around `::ffff:0:0/96`.
pub(super) fn apart_from_mapped(range: IpNet) -> Vec<IpNet> {
    let mapped = Ipv6Net::new_assert(Ipv4Addr::UNSPECIFIED.to_ipv6_mapped(), MAPPED_PREFIX);
    let mut parts = Vec::new();
    let mut rest = match range {
        IpNet::V6(v6) if v6.contains(&mapped) => v6,
        other => return vec![other],
    };
    while rest != mapped {
        let halves = rest
            .subnets(rest.prefix_len() + 1)
            .expect("a range that holds another is no single address");
        for half in halves {
            if half.contains(&mapped) {
                rest = half;
            } else {
                parts.push(half.into());
            }
        }
    }
    parts
}

/// Turns an IPv4-mapped range into the IPv4 range it means; anything else stays as it is.
fn unmap(net: IpNet) -> IpNet {
    let IpNet::V6(v6) = net else { return net };
    let Some(v4) = v6.addr().to_ipv4_mapped() else {
        return net;
    };
    let Some(prefix) = v6.prefix_len().checked_sub(MAPPED_PREFIX) else {
        return net;
    };
    Ipv4Net::new(v4, prefix).map_or(net, IpNet::V4)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_single_addresses_are_read() {
        for (text, range) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.0.0.1", "10.0.0.1/32"),
            ("fd00::/8", "fd00::/8"),
            ("fd00::1", "fd00::1/128"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
        ] {
            let cidr: Cidr = text.parse().expect(text);
            assert_eq!(cidr.to_string(), range, "{text}");
        }
    }

    #[test]
    fn an_ambiguous_range_is_refused_with_both_readings() {
        let error = "10.1.2.3/8".parse::<Cidr>().expect_err("host bits");
        assert_eq!(
            error.to_string(),
            "`10.1.2.3/8` names an address inside a range; write `10.0.0.0/8` for the range \
             or `10.1.2.3` for the one address"
        );
    }

    #[test]
    fn text_that_is_no_range_is_refused() {
        for text in ["", "10.0.0.0/33", "10.0.0/8", "example.org", "fd00::/129"] {
            let error = text.parse::<Cidr>().expect_err(text);
            assert_eq!(
                error.to_string(),
                format!(
                    "`{text}` is not a CIDR; \
                     write a range such as 10.0.0.0/8 or fd00::/8, or one address"
                )
            );
        }
    }

    #[test]
    fn a_range_of_ipv6_does_not_cover_ipv4_in_its_mapped_form() {
        let everything: Cidr = "::/0".parse().expect("a literal range");
        let nets = everything.nets();
        assert_eq!(nets.len(), 96);
        let covers = |text: &str| {
            let address: IpAddr = text.parse().expect(text);
            nets.iter().filter(|net| net.contains(&address)).count()
        };
        assert_eq!(covers("::ffff:198.18.0.1"), 0);
        for address in [
            "::",
            "::1",
            "::fffe:ffff:ffff",
            "::1:0:0:0",
            "fd00::1",
            "ffff::",
        ] {
            assert_eq!(covers(address), 1, "{address}");
        }
        let plain: Cidr = "fd00::/8".parse().expect("a literal range");
        assert_eq!(plain.nets(), [plain.net()]);
    }
}
