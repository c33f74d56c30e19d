use std::collections::BTreeSet;

use ipnet::IpNet;

/// Who may ask whether the app lives, past the proxy and in plaintext: these sources, on these
/// ports. Without either, nobody.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Probes {
    /// The app's ports that are asked.
    pub ports: BTreeSet<u16>,
    /// Where questions come from, as the pod sees it. No range covers both IPv4 and IPv6.
    pub sources: BTreeSet<IpNet>,
}

impl Probes {
    /// Every port with every source.
    pub fn pairs(&self) -> impl Iterator<Item = (u16, IpNet)> {
        let with = |port| self.sources.iter().map(move |source| (port, *source));
        self.ports.iter().copied().flat_map(with)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_probes_without_a_source() {
        let ports = BTreeSet::from([80, 81]);
        let probes = Probes {
            ports,
            ..Probes::default()
        };
        assert_eq!(probes.pairs().count(), 0);
        let source: IpNet = "198.18.0.1/32".parse().expect("a range");
        let probes = Probes {
            sources: [source].into(),
            ..probes
        };
        assert_eq!(
            probes.pairs().collect::<Vec<_>>(),
            [(80, source), (81, source)]
        );
    }
}
