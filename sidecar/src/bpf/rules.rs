mod table;
mod transition;

use std::{collections::BTreeSet, net::IpAddr};

use aya::maps::{Array, Map, MapData};
use ipnet::{IpNet, Ipv6Net};
use sidecar_common::policy::{self as key, ModeKey};

use self::{
    table::{PRESENT, Set, Trie},
    transition::{Place, Table},
};
use super::Error;
use crate::policy::{Direction, Failure, Mode, Policy};

/// What the programs decide by.
pub struct Rules<'a> {
    /// What connections need.
    pub policy: &'a Policy,
    /// The pod's own address towards each network.
    pub own_addrs: &'a [(IpNet, IpAddr)],
}

/// The tables that the programs decide by, which can be changed while they do.
///
/// A change is made in two steps: [`tighten`](Self::tighten) first, then whoever else decides
/// changes to the new policy, then [`loosen`](Self::loosen). So at no moment does the kernel leave a
/// connection alone that neither policy would.
pub struct RuleMaps {
    modes: Trie<ModeKey, u32>,
    probes: Trie<ModeKey, u32>,
    failures: Array<MapData, u32>,
    excluded_nets: Trie<[u32; 4], u32>,
    excluded_ports: Set,
    excluded_uids: Set,
    own_addrs: Trie<[u32; 4], [u32; 4]>,
}

impl RuleMaps {
    /// Opens the tables, whose maps are found by name.
    pub(super) fn open(
        mut map: impl FnMut(&'static str) -> Result<Map, Error>,
    ) -> Result<Self, Error> {
        Ok(Self {
            modes: Trie::open(map("SC_MODES")?, "SC_MODES")?,
            probes: Trie::open(map("SC_PROBES")?, "SC_PROBES")?,
            failures: Array::try_from(map(FAILURES)?).map_err(failures_error)?,
            excluded_nets: Trie::open(map("SC_EXCLUDED_NETS")?, "SC_EXCLUDED_NETS")?,
            excluded_ports: Set::open(map("SC_EXCLUDED_PORTS")?, "SC_EXCLUDED_PORTS")?,
            excluded_uids: Set::open(map("SC_EXCLUDED_UIDS")?, "SC_EXCLUDED_UIDS")?,
            own_addrs: Trie::open(map("SC_OWN_ADDRS")?, "SC_OWN_ADDRS")?,
        })
    }

    /// Makes them say what the rules say. Whoever else decides by them meanwhile finds them no laxer
    /// than before or after.
    pub fn apply(&mut self, rules: &Rules<'_>) -> Result<(), Error> {
        self.tighten(rules)?;
        self.loosen(rules)
    }

    /// Takes over whatever is stricter in the rules than it is now.
    ///
    /// When it fails, some of that is in force, and nothing is laxer than before.
    pub fn tighten(&mut self, rules: &Rules<'_>) -> Result<(), Error> {
        let then = modes(rules.policy);
        for (place, mode) in transition::tighten(&self.modes()?, &then) {
            self.set_mode(&place, mode)?;
        }
        for (direction, failure) in failures(rules.policy) {
            if failure == Failure::Closed {
                self.set_failure(direction, failure)?;
            }
        }
        for place in self.probes()?.difference(&probes(rules.policy)) {
            let (key, bits) = mode_key(place);
            self.probes.remove(key, bits)?;
        }
        let exclusions = Exclusions::of(rules.policy);
        for (net, bits) in self.excluded_nets()?.difference(&exclusions.nets) {
            self.excluded_nets.remove(*net, *bits)?;
        }
        for port in self.excluded_ports.keys()?.difference(&exclusions.ports) {
            self.excluded_ports.remove(*port)?;
        }
        for uid in self.excluded_uids.keys()?.difference(&exclusions.uids) {
            self.excluded_uids.remove(*uid)?;
        }
        Ok(())
    }

    /// Takes over the rest, after [`tighten`](Self::tighten).
    ///
    /// When it fails, some of the old rules are still in force, and nothing is laxer than the new.
    pub fn loosen(&mut self, rules: &Rules<'_>) -> Result<(), Error> {
        let now = self.modes()?;
        let then = modes(rules.policy);
        for (place, mode) in transition::loosen(&now, &then) {
            self.set_mode(&place, mode)?;
        }
        for place in transition::stale(&now, &then) {
            let (key, bits) = mode_key(&place);
            self.modes.remove(key, bits)?;
        }
        for (direction, failure) in failures(rules.policy) {
            self.set_failure(direction, failure)?;
        }
        for place in probes(rules.policy).difference(&self.probes()?) {
            let (key, bits) = mode_key(place);
            self.probes.insert(key, bits, PRESENT)?;
        }
        let exclusions = Exclusions::of(rules.policy);
        for (net, bits) in exclusions.nets.difference(&self.excluded_nets()?) {
            self.excluded_nets.insert(*net, *bits, PRESENT)?;
        }
        for port in exclusions.ports.difference(&self.excluded_ports.keys()?) {
            self.excluded_ports.insert(*port)?;
        }
        for uid in exclusions.uids.difference(&self.excluded_uids.keys()?) {
            self.excluded_uids.insert(*uid)?;
        }
        self.set_own_addrs(rules.own_addrs)
    }

    /// Has the programs show these addresses. No secret depends on them.
    fn set_own_addrs(&mut self, own_addrs: &[(IpNet, IpAddr)]) -> Result<(), Error> {
        let mut kept = BTreeSet::new();
        for (net, addr) in own_addrs {
            let (prefix, bits) = key::cidr(net.addr(), net.prefix_len());
            let (own, _) = key::cidr(*addr, 0);
            self.own_addrs.insert(prefix, bits, own)?;
            kept.insert((prefix, bits));
        }
        for (prefix, bits, _) in self.own_addrs.entries()? {
            if !kept.contains(&(prefix, bits)) {
                self.own_addrs.remove(prefix, bits)?;
            }
        }
        Ok(())
    }

    /// The table of modes as it is now.
    fn modes(&self) -> Result<Table, Error> {
        let entries = self.modes.entries()?.into_iter();
        Ok(entries
            .map(|(key, bits, mode)| (place(&key, bits), key::Mode(mode).into()))
            .collect())
    }

    /// Who may probe as it is now.
    fn probes(&self) -> Result<BTreeSet<Place>, Error> {
        let entries = self.probes.entries()?.into_iter();
        Ok(entries.map(|(key, bits, _)| place(&key, bits)).collect())
    }

    fn excluded_nets(&self) -> Result<BTreeSet<([u32; 4], u32)>, Error> {
        let entries = self.excluded_nets.entries()?;
        Ok(entries
            .into_iter()
            .map(|(net, bits, _)| (net, bits))
            .collect())
    }

    fn set_failure(&mut self, direction: Direction, failure: Failure) -> Result<(), Error> {
        let index = key::Direction::from(direction) as u32;
        let set = self.failures.set(index, key::Failure::from(failure).0, 0);
        set.map_err(failures_error)
    }

    fn set_mode(&mut self, place: &Place, mode: Mode) -> Result<(), Error> {
        let (key, bits) = mode_key(place);
        self.modes.insert(key, bits, key::Mode::from(mode).0)
    }
}

/// What happens to connections while no proxy serves, by direction.
const FAILURES: &str = "SC_FAILURES";

fn failures_error(source: aya::maps::MapError) -> Error {
    Error::Map {
        map: FAILURES,
        source,
    }
}

fn failures(policy: &Policy) -> [(Direction, Failure); 2] {
    [
        (Direction::Inbound, policy.inbound_failure),
        (Direction::Outbound, policy.outbound_failure),
    ]
}

/// The table of modes that a policy asks for.
fn modes(policy: &Policy) -> Table {
    let directions = [
        (Direction::Inbound, &policy.inbound),
        (Direction::Outbound, &policy.outbound),
    ];
    let mut table = Table::new();
    for (direction, modes) in directions {
        for (port, net, mode) in modes.entries() {
            let net = mapped(net);
            table.insert(
                Place {
                    direction,
                    port,
                    net,
                },
                mode,
            );
        }
    }
    table
}

/// Who may probe by a policy.
fn probes(policy: &Policy) -> BTreeSet<Place> {
    let place = |(port, source)| Place {
        direction: Direction::Inbound,
        port: Some(port),
        net: mapped(source),
    };
    policy.probes.pairs().map(place).collect()
}

fn place(key: &ModeKey, bits: u32) -> Place {
    let (addr, prefix) = key.range(bits);
    Place {
        direction: key.direction().into(),
        port: key.port(),
        net: Ipv6Net::new_assert(addr, prefix),
    }
}

fn mode_key(place: &Place) -> (ModeKey, u32) {
    let addr = IpAddr::V6(place.net.addr());
    ModeKey::prefix(
        place.direction.into(),
        place.port,
        addr,
        place.net.prefix_len(),
    )
}

/// The range with IPv4 in its mapped form.
fn mapped(net: IpNet) -> Ipv6Net {
    match net {
        IpNet::V4(v4) => Ipv6Net::new_assert(v4.addr().to_ipv6_mapped(), 96 + v4.prefix_len()),
        IpNet::V6(v6) => v6,
    }
}

/// What is left alone, as keys.
struct Exclusions {
    nets: BTreeSet<([u32; 4], u32)>,
    ports: BTreeSet<u32>,
    uids: BTreeSet<u32>,
}

impl Exclusions {
    fn of(policy: &Policy) -> Self {
        let exclusions = &policy.exclusions;
        let nets = exclusions.outbound_cidrs.iter();
        let inbound = exclusions.inbound_ports.iter();
        let outbound = exclusions.outbound_ports.iter();
        Self {
            nets: nets
                .map(|net| key::cidr(net.addr(), net.prefix_len()))
                .collect(),
            ports: inbound
                .map(|port| key::port_key(key::Direction::Inbound, *port))
                .chain(outbound.map(|port| key::port_key(key::Direction::Outbound, *port)))
                .collect(),
            uids: exclusions.uids.clone(),
        }
    }
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

impl From<key::Direction> for Direction {
    fn from(direction: key::Direction) -> Self {
        match direction {
            key::Direction::Inbound => Self::Inbound,
            key::Direction::Outbound => Self::Outbound,
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

impl From<key::Mode> for Mode {
    /// What nobody has written counts as the strictest.
    fn from(mode: key::Mode) -> Self {
        match mode {
            key::Mode::OFF => Self::Off,
            key::Mode::PERMISSIVE => Self::Permissive,
            _ => Self::Strict,
        }
    }
}
