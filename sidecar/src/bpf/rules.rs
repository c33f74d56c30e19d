use std::net::IpAddr;

use aya::{
    Ebpf, Pod,
    maps::{Array, HashMap, LpmTrie, MapData, MapError, lpm_trie::Key},
};
use ipnet::IpNet;
use sidecar_common::policy::{self as key, ModeKey};

use super::Error;
use crate::policy::{Direction, Failure, Mode, Policy};

/// What the programs decide by.
pub struct Rules<'a> {
    /// What connections need.
    pub policy: &'a Policy,
    /// The pod's own address towards each network.
    pub own_addrs: &'a [(IpNet, IpAddr)],
}

impl Rules<'_> {
    /// Writes them into the maps.
    pub(super) fn write(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        let mut modes = Trie::<ModeKey, u32>::open(ebpf, "SC_MODES")?;
        for (direction, table) in [
            (Direction::Inbound, &self.policy.inbound),
            (Direction::Outbound, &self.policy.outbound),
        ] {
            for (port, net, mode) in table.entries() {
                let (key, bits) =
                    ModeKey::prefix(direction.into(), port, net.addr(), net.prefix_len());
                modes.insert(key, bits, key::Mode::from(mode).0)?;
            }
        }

        let mut failures = Array::<_, u32>::try_from(map(ebpf, "SC_FAILURES"))
            .map_err(|source| error("SC_FAILURES", source))?;
        for (direction, failure) in [
            (Direction::Inbound, self.policy.inbound_failure),
            (Direction::Outbound, self.policy.outbound_failure),
        ] {
            let index = key::Direction::from(direction) as u32;
            failures
                .set(index, key::Failure::from(failure).0, 0)
                .map_err(|source| error("SC_FAILURES", source))?;
        }

        let exclusions = &self.policy.exclusions;
        let mut nets = Trie::<[u32; 4], u32>::open(ebpf, "SC_EXCLUDED_NETS")?;
        for net in &exclusions.outbound_cidrs {
            let (addr, bits) = key::cidr(net.addr(), net.prefix_len());
            nets.insert(addr, bits, PRESENT)?;
        }

        let inbound = exclusions.inbound_ports.iter();
        let outbound = exclusions.outbound_ports.iter();
        let ports = inbound
            .map(|port| key::port_key(key::Direction::Inbound, *port))
            .chain(outbound.map(|port| key::port_key(key::Direction::Outbound, *port)));
        fill(ebpf, "SC_EXCLUDED_PORTS", ports)?;
        fill(ebpf, "SC_EXCLUDED_UIDS", exclusions.uids.iter().copied())?;

        let mut addrs = Trie::<[u32; 4], [u32; 4]>::open(ebpf, "SC_OWN_ADDRS")?;
        for (net, addr) in self.own_addrs {
            let (prefix, bits) = key::cidr(net.addr(), net.prefix_len());
            let (own, _) = key::cidr(*addr, 0);
            addrs.insert(prefix, bits, own)?;
        }
        Ok(())
    }
}

/// Value in tables of which only the keys matter.
const PRESENT: u32 = 1;

/// A table matched by longest prefix.
struct Trie<'a, K: Pod, V: Pod> {
    map: LpmTrie<&'a mut MapData, K, V>,
    name: &'static str,
}

impl<'a, K: Pod, V: Pod> Trie<'a, K, V> {
    fn open(ebpf: &'a mut Ebpf, name: &'static str) -> Result<Self, Error> {
        let map = LpmTrie::try_from(map(ebpf, name)).map_err(|source| error(name, source))?;
        Ok(Self { map, name })
    }

    fn insert(&mut self, key: K, bits: u32, value: V) -> Result<(), Error> {
        self.map
            .insert(&Key::new(bits, key), value, 0)
            .map_err(|source| error(self.name, source))
    }
}

/// Writes keys into a table of which only the keys matter.
fn fill(ebpf: &mut Ebpf, name: &'static str, keys: impl Iterator<Item = u32>) -> Result<(), Error> {
    let mut map =
        HashMap::<_, u32, u32>::try_from(map(ebpf, name)).map_err(|source| error(name, source))?;
    for key in keys {
        map.insert(key, PRESENT, 0)
            .map_err(|source| error(name, source))?;
    }
    Ok(())
}

fn map<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut aya::maps::Map {
    ebpf.map_mut(name)
        .expect("the object has every map named here")
}

fn error(map: &'static str, source: MapError) -> Error {
    Error::Map { map, source }
}

impl From<Direction> for key::Direction {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Inbound => Self::Inbound,
            Direction::Outbound => Self::Outbound,
        }
    }
}

impl From<Failure> for key::Failure {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Closed => Self::CLOSED,
            Failure::Open => Self::OPEN,
        }
    }
}

impl From<Mode> for key::Mode {
    fn from(mode: Mode) -> Self {
        match mode {
            Mode::Off => Self::OFF,
            Mode::Permissive => Self::PERMISSIVE,
            Mode::Strict => Self::STRICT,
        }
    }
}
