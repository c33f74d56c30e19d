use std::{collections::BTreeMap, net::IpAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use thiserror::Error;

use super::{Direction, Expectations, Mode, ModeOverride, cidr::apart_from_mapped};

/// Every address of a family, for entries that name no range.
const EVERYWHERE: [IpNet; 2] = [
    IpNet::V4(Ipv4Net::new_assert(std::net::Ipv4Addr::UNSPECIFIED, 0)),
    IpNet::V6(Ipv6Net::new_assert(std::net::Ipv6Addr::UNSPECIFIED, 0)),
];

/// The modes of one direction: a default, and exceptions by remote range and destination port.
///
/// An exception that names the port beats one that does not; among those that remain, the longest
/// prefix wins. The kernel holds the same entries, so both sides decide alike.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ModeTable {
    /// Modes by destination port (`None`: every port) and remote range. There is always an entry
    /// for every port and every address of both families: the default.
    entries: BTreeMap<(Option<u16>, IpNet), Mode>,
}

impl ModeTable {
    /// A table for `direction`: `default`, except where one of `overrides` says otherwise.
    ///
    /// Overrides of the other direction are passed over, so one list can serve both tables.
    /// Refused: two overrides that give the same port and range different modes, and one that
    /// names neither port nor range, for that is the default by another name.
    pub fn new<'a>(
        direction: Direction,
        default: Mode,
        overrides: impl IntoIterator<Item = &'a ModeOverride>,
    ) -> Result<Self, OverrideError> {
        let mut entries = BTreeMap::new();
        for given in overrides.into_iter().filter(|o| o.direction == direction) {
            if given.cidr.is_none() && given.port.is_none() {
                return Err(OverrideError::CoversEverything(*given));
            }
            let port = given.port.map(super::Port::number);
            let one = given.cidr.map(super::Cidr::net);
            let ranges = one.as_ref().map_or(&EVERYWHERE[..], std::slice::from_ref);
            for range in ranges {
                let earlier = entries.insert((port, *range), given.mode);
                if let Some(earlier) = earlier.filter(|mode| *mode != given.mode) {
                    return Err(OverrideError::Contradiction {
                        given: *given,
                        earlier,
                    });
                }
            }
        }
        for range in EVERYWHERE {
            entries.entry((None, range)).or_insert(default);
        }
        Ok(Self { entries })
    }

    /// The same table, but strict where somebody is expected: one who is expected can only be
    /// told from others by TLS.
    ///
    /// Refused: an expectation where an override, or the default, leaves connections alone.
    pub fn expecting(mut self, expectations: &Expectations) -> Result<Self, OverrideError> {
        for expected in expectations.iter() {
            let port = expected.port().map(super::Port::number);
            let one = expected.cidr().map(super::Cidr::net);
            for range in one.as_ref().map_or(&EVERYWHERE[..], std::slice::from_ref) {
                if self.entries.insert((port, *range), Mode::Strict) == Some(Mode::Off) {
                    return Err(OverrideError::NobodyLooks(expected.place()));
                }
            }
        }
        Ok(self)
    }

    /// Does the mode depend on where the other side is?
    pub fn asks_for_remote(&self) -> bool {
        self.entries.keys().any(|(_, range)| range.prefix_len() > 0)
    }

    /// The mode of a connection whose destination port is `port` and whose remote side (outbound
    /// the destination, inbound the client) is `remote`. An IPv4-mapped address counts as IPv4.
    pub fn mode(&self, port: u16, remote: IpAddr) -> Mode {
        let remote = remote.to_canonical();
        let longest = |port| {
            self.entries
                .iter()
                .filter(|((named, range), _)| *named == port && range.contains(&remote))
                .max_by_key(|((_, range), _)| range.prefix_len())
                .map(|(_, mode)| *mode)
        };
        longest(Some(port))
            .or_else(|| longest(None))
            .expect("the table holds a default for every address of both families")
    }

    /// Every entry, for the kernel's longest-prefix table: destination port (`None`: every port),
    /// remote range, mode. The kernel may hold IPv4 in its mapped form: no entry covers both.
    pub fn entries(&self) -> impl Iterator<Item = (Option<u16>, IpNet, Mode)> {
        self.entries.iter().flat_map(|((port, range), mode)| {
            // Where all of IPv4 has an entry of its own, that is the longer prefix anyway.
            let ranges = if self.entries.contains_key(&(*port, EVERYWHERE[0])) {
                vec![*range]
            } else {
                apart_from_mapped(*range)
            };
            ranges.into_iter().map(|range| (*port, range, *mode))
        })
    }
}

/// An override that cannot stand in a [`ModeTable`].
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum OverrideError {
    /// Two overrides give the same connections different modes.
    #[error(
        "the override `{given}` contradicts an earlier one that says {earlier} for the same \
         connections; keep one of them"
    )]
    Contradiction {
        /// The later override.
        given: ModeOverride,
        /// What the earlier one said.
        earlier: Mode,
    },
    /// The override names neither a port nor a range.
    #[error(
        "the override `{0}` covers every connection; \
         set {dir} to {mode} instead, or add port= or cidr=",
        dir = .0.direction, mode = .0.mode
    )]
    CoversEverything(ModeOverride),
    /// Somebody is expected where the kernel leaves connections alone.
    #[error(
        "somebody is expected at {0}, where the mode off leaves connections alone; \
         set the mode to permissive or strict, or expect nobody there"
    )]
    NobodyLooks(String),
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(default: Mode, overrides: &[&str]) -> Result<ModeTable, OverrideError> {
        let overrides: Vec<ModeOverride> = overrides
            .iter()
            .map(|text| text.parse().expect(text))
            .collect();
        ModeTable::new(Direction::Outbound, default, &overrides)
    }

    fn mode(table: &ModeTable, port: u16, remote: &str) -> Mode {
        table.mode(port, remote.parse().expect(remote))
    }

    #[test]
    fn without_overrides_the_default_holds_everywhere() {
        let table = table(Mode::Strict, &[]).expect("no conflict");
        assert_eq!(mode(&table, 80, "198.18.0.1"), Mode::Strict);
        assert_eq!(mode(&table, 80, "fd00::1"), Mode::Strict);
        let entries: Vec<_> = table.entries().collect();
        assert_eq!(
            entries,
            EVERYWHERE.map(|range| (None, range, Mode::Strict)).to_vec()
        );
    }

    #[test]
    fn the_longest_prefix_wins() {
        let table = table(
            Mode::Permissive,
            &[
                "outbound,cidr=10.1.0.0/16,mode=off",
                "outbound,cidr=10.0.0.0/8,mode=strict",
                "outbound,cidr=10.1.2.3,mode=permissive",
            ],
        )
        .expect("no conflict");
        assert_eq!(mode(&table, 80, "10.9.9.9"), Mode::Strict);
        assert_eq!(mode(&table, 80, "10.1.9.9"), Mode::Off);
        assert_eq!(mode(&table, 80, "10.1.2.3"), Mode::Permissive);
        assert_eq!(mode(&table, 80, "11.0.0.0"), Mode::Permissive);
    }

    #[test]
    fn a_port_beats_any_prefix() {
        let table = table(
            Mode::Permissive,
            &[
                "outbound,cidr=10.1.2.3,mode=strict",
                "outbound,port=5432,mode=off",
                "outbound,cidr=10.0.0.0/8,port=5432,mode=permissive",
            ],
        )
        .expect("no conflict");
        assert_eq!(mode(&table, 80, "10.1.2.3"), Mode::Strict);
        assert_eq!(mode(&table, 5432, "10.1.2.3"), Mode::Permissive);
        assert_eq!(mode(&table, 5432, "11.1.2.3"), Mode::Off);
        assert_eq!(mode(&table, 5432, "fd00::1"), Mode::Off);
    }

    #[test]
    fn a_range_of_one_family_says_nothing_about_the_other() {
        let table = table(
            Mode::Permissive,
            &[
                "outbound,cidr=::/0,port=80,mode=strict",
                "outbound,cidr=0.0.0.0/0,mode=off",
            ],
        )
        .expect("no conflict");
        assert_eq!(mode(&table, 80, "198.18.0.1"), Mode::Off);
        assert_eq!(mode(&table, 80, "fd00::1"), Mode::Strict);
        assert_eq!(mode(&table, 81, "fd00::1"), Mode::Permissive);
        let mapped = "::ffff:198.18.0.1".parse().expect("a literal address");
        assert!(
            table
                .entries()
                .all(|(port, range, _)| port.is_none() || !range.contains::<&IpAddr>(&mapped)),
            "the kernel would apply the entry to IPv4 in its mapped form"
        );
    }

    #[test]
    fn a_mapped_address_counts_as_ipv4() {
        let table =
            table(Mode::Permissive, &["outbound,cidr=10.0.0.0/8,mode=off"]).expect("no conflict");
        assert_eq!(mode(&table, 80, "::ffff:10.0.0.1"), Mode::Off);
    }

    #[test]
    fn the_other_direction_is_passed_over() {
        let table = table(Mode::Permissive, &["inbound,port=80,mode=off"]).expect("no conflict");
        assert_eq!(mode(&table, 80, "198.18.0.1"), Mode::Permissive);
    }

    #[test]
    fn contradicting_overrides_are_refused() {
        let error = table(
            Mode::Permissive,
            &[
                "outbound,port=80,mode=strict",
                "outbound,cidr=0.0.0.0/0,port=80,mode=off",
            ],
        )
        .expect_err("a contradiction");
        assert_eq!(
            error.to_string(),
            "the override `outbound,cidr=0.0.0.0/0,port=80,mode=off` contradicts an earlier one \
             that says strict for the same connections; keep one of them"
        );
    }

    #[test]
    fn an_override_of_everything_is_refused() {
        let error = table(Mode::Permissive, &["outbound,mode=off"]).expect_err("covers everything");
        assert_eq!(
            error.to_string(),
            "the override `outbound,mode=off` covers every connection; \
             set outbound to off instead, or add port= or cidr="
        );
    }

    #[test]
    fn repeating_an_override_is_harmless() {
        let text = "outbound,port=80,mode=strict";
        assert!(table(Mode::Permissive, &[text, text]).is_ok());
    }
}
