//! How a table of modes becomes another one while connections are looked up in it.
//!
//! Until the first step is done, no connection is treated less strictly than by the old table; from
//! then on, none less strictly than by the new one. In between, the entries of both stand side by
//! side, and every connection gets the stricter mode of the two.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use ipnet::Ipv6Net;

use crate::policy::{Direction, Mode};

/// What an entry is about.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Place {
    /// Which way connections run.
    pub(super) direction: Direction,
    /// The destination's port, `None` for every port.
    pub(super) port: Option<u16>,
    /// Where the other side is, IPv4 in its mapped form.
    pub(super) net: Ipv6Net,
}

impl Place {
    /// Sorts the places that are looked at first to the front: those with a port, then those with
    /// the longest prefix.
    fn rank(&self) -> (bool, Reverse<u8>) {
        (self.port.is_none(), Reverse(self.net.prefix_len()))
    }
}

/// The modes by place.
pub(super) type Table = BTreeMap<Place, Mode>;

/// The mode that the entries of a table give to all of a place together, as the kernel looks it up.
fn mode(table: &Table, place: &Place) -> Option<Mode> {
    table
        .iter()
        .filter(|(other, _)| {
            other.direction == place.direction
                && (other.port.is_none() || other.port == place.port)
                && other.net.contains(&place.net)
        })
        .min_by_key(|(other, _)| other.rank())
        .map(|(_, mode)| *mode)
}

/// What to write first, in this order: what gives every connection the stricter mode of the two.
///
/// The most specific come first, so that none is exposed by a wider one that is laxer.
pub(super) fn tighten(now: &Table, then: &Table) -> Vec<(Place, Mode)> {
    let mut entries: Vec<_> = stricter(now, then).into_iter().collect();
    entries.retain(|(place, mode)| now.get(place) != Some(mode));
    entries.sort_by_key(|(place, _)| place.rank());
    entries
}

/// A table that gives every connection the stricter mode of the two.
fn stricter(one: &Table, other: &Table) -> Table {
    let named: BTreeSet<_> = one.keys().chain(other.keys()).copied().collect();
    // A port of one table hides what the other says of ranges inside, for every port.
    let hidden = named
        .iter()
        .filter(|place| place.port.is_some())
        .flat_map(|place| {
            let inside = |wide: &&Place| {
                wide.port.is_none()
                    && wide.direction == place.direction
                    && place.net.contains(&wide.net)
            };
            named.iter().filter(inside).map(|wide| Place {
                net: wide.net,
                ..*place
            })
        });
    let mut places: Vec<_> = named.iter().copied().chain(hidden).collect();
    places.sort_by_key(|place| Reverse(place.rank()));
    let mut table = Table::new();
    for place in places {
        let stricter = mode(one, &place).max(mode(other, &place));
        if let Some(stricter) =
            stricter.filter(|_| named.contains(&place) || mode(&table, &place) != stricter)
        {
            table.insert(place, stricter);
        }
    }
    table
}

/// What to write next, in this order: the new entries' own modes.
pub(super) fn loosen(now: &Table, then: &Table) -> Vec<(Place, Mode)> {
    let differs = |(place, mode): &(&Place, &Mode)| now.get(place) != Some(mode);
    then.iter()
        .filter(differs)
        .map(|(place, mode)| (*place, *mode))
        .collect()
}

/// What to remove last, in this order: the entries that only the old table has.
///
/// The least specific go first, so that what a removal exposes is of the new table.
pub(super) fn stale(now: &Table, then: &Table) -> Vec<Place> {
    let mut places: Vec<_> = now
        .keys()
        .filter(|place| !then.contains_key(place))
        .copied()
        .collect();
    places.sort_by_key(|place| Reverse(place.rank()));
    places
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    /// Numbers that look random and are the same every time (Knuth's MMIX generator).
    struct Numbers(u64);

    impl Numbers {
        fn below(&mut self, limit: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).expect("31 bits") % limit
        }
    }

    const PORTS: [Option<u16>; 3] = [None, Some(80), Some(81)];

    fn mapped(address: [u8; 4], prefix: u8) -> Ipv6Net {
        let address = Ipv4Addr::from(address).to_ipv6_mapped();
        Ipv6Net::new(address, 96 + prefix).expect("a prefix")
    }

    /// Nested ranges, of which any may be in a table.
    fn nets() -> Vec<Ipv6Net> {
        vec![
            Ipv6Net::default(),
            mapped([0, 0, 0, 0], 0),
            mapped([10, 0, 0, 0], 8),
            mapped([10, 1, 0, 0], 16),
            mapped([10, 1, 2, 3], 32),
        ]
    }

    /// One connection for each way to be inside some of the ranges.
    fn connections() -> Vec<Place> {
        let addresses: [Ipv6Addr; 5] = [
            "fd00::1".parse().expect("an address"),
            Ipv4Addr::new(192, 0, 2, 1).to_ipv6_mapped(),
            Ipv4Addr::new(10, 2, 0, 1).to_ipv6_mapped(),
            Ipv4Addr::new(10, 1, 0, 1).to_ipv6_mapped(),
            Ipv4Addr::new(10, 1, 2, 3).to_ipv6_mapped(),
        ];
        let ports = [Some(80), Some(81), Some(82)];
        addresses
            .into_iter()
            .flat_map(|address| ports.map(|port| (address, port)))
            .map(|(address, port)| Place {
                direction: Direction::Outbound,
                port,
                net: address.into(),
            })
            .collect()
    }

    /// A table with a default for everything, as there always is.
    fn table(numbers: &mut Numbers) -> Table {
        let modes = [Mode::Off, Mode::Permissive, Mode::Strict];
        let mut table = Table::new();
        for net in nets() {
            for port in PORTS {
                let is_default = port.is_none() && net.prefix_len() == 0;
                if is_default || numbers.below(3) == 0 {
                    let place = Place {
                        direction: Direction::Outbound,
                        port,
                        net,
                    };
                    table.insert(place, modes[numbers.below(modes.len())]);
                }
            }
        }
        table
    }

    #[test]
    fn a_change_is_no_laxer_than_the_old_table_and_then_no_laxer_than_the_new() {
        let mut numbers = Numbers(1);
        for _ in 0..3_000 {
            let (old, new) = (table(&mut numbers), table(&mut numbers));
            let mut current = old.clone();
            let no_laxer = |current: &Table, than: &Table| {
                for connection in connections() {
                    assert!(
                        mode(current, &connection) >= mode(than, &connection),
                        "{connection:?}\nold {old:#?}\nnew {new:#?}\ncurrent {current:#?}"
                    );
                }
            };
            for (place, mode) in tighten(&old, &new) {
                current.insert(place, mode);
                no_laxer(&current, &old);
            }
            no_laxer(&current, &new);
            for (place, mode) in loosen(&current, &new) {
                current.insert(place, mode);
                no_laxer(&current, &new);
            }
            for place in stale(&current, &new) {
                current.remove(&place);
                no_laxer(&current, &new);
            }
            assert_eq!(current, new);
        }
    }

    #[test]
    fn a_table_that_stays_the_same_is_not_touched() {
        let table = table(&mut Numbers(7));
        assert_eq!(tighten(&table, &table), []);
        assert_eq!(loosen(&table, &table), []);
        assert_eq!(stale(&table, &table), []);
    }

    #[test]
    fn an_empty_table_is_filled_as_it_should_be() {
        let new = table(&mut Numbers(7));
        let filled: Table = tighten(&Table::new(), &new).into_iter().collect();
        assert_eq!(filled, new);
    }
}
