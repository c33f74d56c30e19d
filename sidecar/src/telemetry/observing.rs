use std::collections::BTreeSet;

use crate::{observe::Observer, proxy::OrigDst};

/// Which connections are watched for what they say.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Observing {
    /// None at all.
    pub is_off: bool,
    /// Not those to these ports of a server, inbound or outbound.
    pub opaque_ports: BTreeSet<u16>,
}

impl Observing {
    /// Watches a connection to this destination, unless it is to be left alone.
    pub(super) fn observer(&self, destination: OrigDst) -> Option<Observer> {
        let is_watched = !self.is_off && !self.opaque_ports.contains(&destination.0.port());
        is_watched.then(Observer::default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_to_be_left_alone_has_no_observer() {
        let to = |port| OrigDst(([198, 18, 0, 2], port).into());
        let some = Observing {
            is_off: false,
            opaque_ports: [5432].into(),
        };
        assert!(some.observer(to(80)).is_some());
        assert!(some.observer(to(5432)).is_none());
        let none = Observing {
            is_off: true,
            ..Observing::default()
        };
        assert!(none.observer(to(80)).is_none());
    }
}
