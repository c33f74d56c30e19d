//! What an attempt has proven, or what is wrong.

use std::{
    fmt, io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use sidecar_common::{BLOCK4_MASK, DIAL4_BASE, SPREAD4_BASE};

use super::{canonical, wanted::Directions};

/// How one end of the connection got where it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Way {
    /// Past every sidecar.
    Direct,
    /// By way of something that is no sidecar of ours.
    Foreign(SocketAddr),
    /// Through the sidecar.
    Steered,
}

impl Way {
    /// Of the end that has connected: where it asked to go, where it says it is connected to, and
    /// where it truly is.
    pub(super) fn out(asked: SocketAddr, shown: SocketAddr, truly: SocketAddr) -> Self {
        let (shown, truly) = (canonical(shown), canonical(truly));
        // What the program in `connect()` does, and the one in `getpeername()` hides.
        let is_ours = is_in(truly.ip(), SPREAD4_BASE, asked.ip().is_ipv4());
        match (truly == asked, is_ours && shown == asked) {
            (true, _) => Self::Direct,
            (false, true) => Self::Steered,
            (false, false) => Self::Foreign(truly),
        }
    }

    /// Of the end that was accepted, at an address of this family: who it says has connected, and
    /// who truly has.
    pub(super) fn into(own: IpAddr, shown: SocketAddr, truly: SocketAddr) -> Self {
        let (shown, truly) = (canonical(shown), canonical(truly));
        let is_ours = is_in(truly.ip(), DIAL4_BASE, own.is_ipv4());
        match (is_ours && shown != truly, truly.ip() == own) {
            (true, _) => Self::Steered,
            (false, true) => Self::Direct,
            (false, false) => Self::Foreign(truly),
        }
    }
}

/// Whether the sidecar uses this address for connections of a family.
fn is_in(address: IpAddr, block: u32, is_v4: bool) -> bool {
    match address {
        IpAddr::V4(address) => is_v4 && address.to_bits() & BLOCK4_MASK == block,
        IpAddr::V6(address) => !is_v4 && address.is_loopback(),
    }
}

/// What has been proven.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Proof(pub(super) Directions);

impl fmt::Display for Proof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.0.outbound, self.0.inbound) {
            (true, true) => "connections in both directions go through the sidecar",
            (true, false) => {
                "connections to elsewhere go through the sidecar; by the settings, those from elsewhere do not"
            }
            (false, true) => {
                "connections from elsewhere go through the sidecar; by the settings, those to elsewhere do not"
            }
            (false, false) => "by the settings, no connection goes through the sidecar",
        })
    }
}

/// Why nothing has been proven.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Trouble {
    /// The time was over in the middle of an attempt.
    Late,
    /// The pod has no address that others could reach.
    NoAddress,
    /// A system call has failed for another reason than interception.
    System(&'static str, io::ErrorKind),
    /// `connect()` was refused.
    Refused,
    /// `connect()` was forbidden.
    Forbidden,
    /// Nothing has answered `connect()`.
    Silent,
    /// What was wanted and has not been steered.
    Past(Directions),
    /// Somebody else has taken the connection to this address, or from there.
    Foreign(SocketAddr),
    /// The connection was taken, and nothing has come of it.
    Held(Duration),
    /// The connection was taken, and ended.
    Ended,
    /// What has come back is not what was sent.
    Garbled,
}

impl Trouble {
    /// What somebody should do who reads it.
    pub(super) const fn remedy(&self) -> &'static str {
        match self {
            Self::Late | Self::NoAddress | Self::System(..) => {
                "see that the pod has its network, and try again"
            }
            Self::Refused => {
                "see the log of `sidecar run`, or of the node's agent, for why it does not serve this pod"
            }
            Self::Forbidden | Self::Silent | Self::Garbled => {
                "see what `sidecar status` counts for this pod, and the log of its sidecar"
            }
            Self::Past(Directions {
                outbound: true,
                inbound: true,
            }) => {
                "see that the pod has a sidecar, or that the agent of its node runs and has taken it"
            }
            Self::Past(Directions { outbound: true, .. }) => {
                "see that no exclusion or mode `off` is about the pod's own address or this user; if one is meant to be, give `sidecar validate` the same settings"
            }
            Self::Past(_) => {
                "see that no exclusion or mode `off` is about connections from the pod itself; if one is meant to be, give `sidecar validate` the same settings"
            }
            Self::Foreign(_) => "see what else redirects connections of this pod, and take it away",
            Self::Held(_) => "see what /readyz of the sidecar says, such as `awaiting_identity`",
            Self::Ended => {
                "see the log of the sidecar, such as for a rule that keeps the workload from reaching itself"
            }
        }
    }
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Late => f.write_str("nothing was proven in this time"),
            Self::NoAddress => f.write_str("the pod has no address yet but those of loopback"),
            Self::System(what, kind) => write!(f, "{what} failed: {kind}"),
            Self::Refused => f.write_str(
                "the pod's connections are refused: it is captured, and no sidecar serves it",
            ),
            Self::Forbidden => f.write_str("the kernel side forbids the pod's connections"),
            Self::Silent => f.write_str("a connection of the pod to itself is not answered"),
            Self::Past(Directions {
                outbound: true,
                inbound: true,
            }) => f.write_str("connections in both directions go past the sidecar"),
            Self::Past(Directions { outbound: true, .. }) => {
                f.write_str("connections to elsewhere go past the sidecar")
            }
            Self::Past(_) => f.write_str("connections from elsewhere go past the sidecar"),
            Self::Foreign(address) => write!(
                f,
                "something else than the sidecar has taken the connection, at {address}"
            ),
            Self::Held(limit) => write!(
                f,
                "the sidecar has taken the connection, and in {limit:?} nothing came of it"
            ),
            Self::Ended => f.write_str("the sidecar has taken the connection, and ended it"),
            Self::Garbled => f.write_str("other bytes came out of the sidecar than went into it"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().expect("an address and a port")
    }

    #[test]
    fn only_what_the_kernel_side_does_is_taken_for_the_sidecar_outbound() {
        let v4 = |shown, truly| Way::out(at("198.18.0.1:80"), at(shown), at(truly));
        assert_eq!(v4("198.18.0.1:80", "198.18.0.1:80"), Way::Direct);
        assert_eq!(v4("198.18.0.1:80", "127.128.3.4:80"), Way::Steered);
        for truly in [
            "127.0.0.1:15001",
            "127.64.0.1:80",
            "127.192.0.1:80",
            "198.18.0.1:81",
            "198.18.0.2:80",
            "[::1]:80",
        ] {
            assert_eq!(v4("198.18.0.1:80", truly), Way::Foreign(at(truly)));
        }
        // Nothing hides where it went.
        let foreign = Way::Foreign(at("127.128.3.4:80"));
        assert_eq!(v4("127.128.3.4:80", "127.128.3.4:80"), foreign);
        let v6 = |shown, truly| Way::out(at("[fd00::1]:80"), at(shown), at(truly));
        assert_eq!(v6("[fd00::1]:80", "[fd00::1]:80"), Way::Direct);
        assert_eq!(v6("[fd00::1]:80", "[::1]:4711"), Way::Steered);
        let foreign = Way::Foreign(at("[::1]:4711"));
        assert_eq!(v6("[::1]:4711", "[::1]:4711"), foreign);
        for truly in ["[fd00::2]:80", "[fe80::1]:80", "127.128.3.4:80"] {
            assert_eq!(v6("[fd00::1]:80", truly), Way::Foreign(at(truly)));
        }
    }

    #[test]
    fn an_address_is_itself_in_either_form() {
        let own = at("198.18.0.1:80");
        let mapped = |address: &str| at(&format!("[::ffff:{address}]:80"));
        let steered = mapped("127.128.3.4");
        assert_eq!(Way::out(own, mapped("198.18.0.1"), steered), Way::Steered);
        assert_eq!(Way::out(own, own, mapped("198.18.0.1")), Way::Direct);
        let dialled = mapped("127.64.3.4");
        assert_eq!(Way::into(own.ip(), own, dialled), Way::Steered);
        assert_eq!(Way::into(own.ip(), own, mapped("198.18.0.1")), Way::Direct);
        let plain = Way::Foreign(at("127.64.3.4:80"));
        assert_eq!(Way::into(own.ip(), dialled, at("127.64.3.4:80")), plain);
    }

    #[test]
    fn only_what_the_kernel_side_does_is_taken_for_the_sidecar_inbound() {
        let v4 = |shown, truly| Way::into(at("198.18.0.1:80").ip(), at(shown), at(truly));
        assert_eq!(v4("198.18.0.1:9", "198.18.0.1:9"), Way::Direct);
        assert_eq!(v4("198.18.0.1:9", "127.64.3.4:5"), Way::Steered);
        for truly in ["127.0.0.6:5", "127.0.0.1:5", "127.128.0.1:5"] {
            assert_eq!(v4(truly, truly), Way::Foreign(at(truly)));
        }
        let foreign = Way::Foreign(at("127.64.3.4:5"));
        assert_eq!(v4("127.64.3.4:5", "127.64.3.4:5"), foreign);
        // Somebody else who shows the pod its own address is still somebody else.
        for truly in ["127.0.0.6:5", "198.18.0.2:9", "[::1]:9"] {
            assert_eq!(v4("198.18.0.1:9", truly), Way::Foreign(at(truly)));
        }
        let v6 = |shown, truly| Way::into(at("[fd00::1]:80").ip(), at(shown), at(truly));
        assert_eq!(v6("[fd00::1]:9", "[::1]:5"), Way::Steered);
        assert_eq!(v6("[fd00::1]:9", "[fd00::1]:9"), Way::Direct);
        assert_eq!(v6("[::1]:5", "[::1]:5"), Way::Foreign(at("[::1]:5")));
        for truly in ["[fd00::2]:9", "127.64.3.4:5"] {
            assert_eq!(v6("[fd00::1]:9", truly), Way::Foreign(at(truly)));
        }
    }
}
