//! What the network namespace of the pod lets through.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    time::Duration,
};

use super::{Context, Outcome};

/// An address in the block over which redirected connections are spread.
const SPREAD: Ipv4Addr = Ipv4Addr::from_bits(sidecar_common::SPREAD4_BASE | 1);
/// The proxy's listeners of one family, for each direction one, on ports of the kernel's choice.
const LISTENERS: u32 = 2;
/// How many connections to one destination should fit.
const CONNECTIONS: u32 = 10_000;
/// Loopback answers at once or never.
const PATIENCE: Duration = Duration::from_secs(1);

pub(super) fn namespace(context: &Context) -> Outcome {
    let Some(config) = context.config() else {
        return Outcome::NO_SETTINGS;
    };
    match (&context.namespace, &config.netns) {
        (Ok(()), Some(path)) => Outcome::found(path.to_string_lossy()),
        (Ok(()), None) => Outcome::found("our own"),
        (Err(error), _) => Outcome::error(error),
    }
}

pub(super) fn loopback(context: &Context) -> Outcome {
    inside(context, || {
        // A running sidecar refuses strangers in the block, so that address is only bound.
        let bound = TcpListener::bind((SPREAD, 0));
        match bound.and_then(|_| dial(Ipv4Addr::LOCALHOST.into())) {
            Ok(()) => Outcome::PASS,
            Err(error) => Outcome::fail(
                format!("a connection over 127.0.0.0/8 fails: {error}"),
                "bring loopback up: ip link set lo up",
            ),
        }
    })
}

pub(super) fn local_ports(context: &Context) -> Outcome {
    const RANGE: &str = "/proc/sys/net/ipv4/ip_local_port_range";
    inside(context, || {
        let Some(range) = context.read(RANGE) else {
            return Outcome::PASS;
        };
        let mut ends = range.split_whitespace().map(str::parse::<u32>);
        let (Some(Ok(first)), Some(Ok(last))) = (ends.next(), ends.next()) else {
            return Outcome::PASS;
        };
        let ports = (last + 1).saturating_sub(first);
        let hint = "sysctl -w net.ipv4.ip_local_port_range=\"32768 60999\"";
        if ports <= LISTENERS {
            Outcome::fail(
                format!(
                    "net.ipv4.ip_local_port_range has {ports}, and the proxy's listeners take {LISTENERS}"
                ),
                hint,
            )
        } else if ports < CONNECTIONS {
            Outcome::warn(
                format!(
                    "net.ipv4.ip_local_port_range has {ports}: no more connections can be open to one \
                     address and port, nor come in over IPv6 to one port"
                ),
                hint,
            )
        } else {
            Outcome::found(ports.to_string())
        }
    })
}

pub(super) fn loopback6(context: &Context) -> Outcome {
    inside(context, || {
        let Some(interface) = ipv6_interface(context) else {
            return Outcome::found("the pod has no IPv6");
        };
        match dial(Ipv6Addr::LOCALHOST.into()) {
            Ok(()) => Outcome::PASS,
            Err(error) => Outcome::fail(
                format!("{interface} has IPv6, but a connection to ::1 fails: {error}"),
                "sysctl -w net.ipv6.conf.lo.disable_ipv6=0",
            ),
        }
    })
}

pub(super) fn route_localnet(context: &Context) -> Outcome {
    inside(context, || {
        let open = interfaces(context, "ipv4")
            .into_iter()
            .find(|interface| is_on(context, "ipv4", interface, "route_localnet"));
        match open {
            None => Outcome::PASS,
            Some(interface) => Outcome::warn(
                format!(
                    "route_localnet is 1 on {interface}: neighbours can send from and to \
                     127.0.0.0/8, and so reach what listens there past the sidecar"
                ),
                format!("sysctl -w net.ipv4.conf.{interface}.route_localnet=0"),
            ),
        }
    })
}

pub(super) fn syn_cookies(context: &Context) -> Outcome {
    inside(context, || {
        match context.read("/proc/sys/net/ipv4/tcp_syncookies").as_deref() {
            Some("2") => Outcome::warn(
                "net.ipv4.tcp_syncookies is 2: the kernel keeps nothing of a SYN, and a sidecar of \
                 an earlier version is known by its first bytes alone",
                "sysctl -w net.ipv4.tcp_syncookies=1, which sends cookies under attack only",
            ),
            _ => Outcome::PASS,
        }
    })
}

/// What `check` says, provided that we are in the pod's namespace.
pub(super) fn inside(context: &Context, check: impl FnOnce() -> Outcome) -> Outcome {
    if context.config().is_none() {
        return Outcome::NO_SETTINGS;
    }
    match context.namespace {
        Ok(()) => check(),
        Err(_) => Outcome::Skip {
            reason: "the network namespace could not be entered",
        },
    }
}

/// Connects to a listener of our own on `address`.
fn dial(address: IpAddr) -> io::Result<()> {
    let listener = TcpListener::bind((address, 0))?;
    TcpStream::connect_timeout(&listener.local_addr()?, PATIENCE).map(drop)
}

/// An interface other than loopback on which IPv6 is on.
fn ipv6_interface(context: &Context) -> Option<String> {
    interfaces(context, "ipv6").into_iter().find(|interface| {
        !["all", "default", "lo"].contains(&interface.as_str())
            && !is_on(context, "ipv6", interface, "disable_ipv6")
    })
}

/// The interfaces that have settings of this family.
fn interfaces(context: &Context, family: &str) -> Vec<String> {
    let directory = context.path(format!("/proc/sys/net/{family}/conf"));
    let mut names: Vec<_> = fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Is the switch of the interface at 1?
fn is_on(context: &Context, family: &str, interface: &str, switch: &str) -> bool {
    let path = format!("/proc/sys/net/{family}/conf/{interface}/{switch}");
    context.read(&path).as_deref() == Some("1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::check::fixture::Fixture;

    #[test]
    fn loopback_that_answers_passes() {
        assert_eq!(loopback(&Fixture::with(&[])), Outcome::PASS);
    }

    #[test]
    fn a_pod_without_ipv6_needs_none_on_loopback() {
        let off = Fixture::with(&[
            ("proc/sys/net/ipv6/conf/all/disable_ipv6", "0"),
            ("proc/sys/net/ipv6/conf/eth0/disable_ipv6", "1"),
            ("proc/sys/net/ipv6/conf/lo/disable_ipv6", "0"),
        ]);
        for fixture in [off, Fixture::with(&[])] {
            assert_eq!(loopback6(&fixture), Outcome::found("the pod has no IPv6"));
        }
    }

    #[test]
    fn the_interface_that_routes_loopback_is_named() {
        let conf = "proc/sys/net/ipv4/conf";
        let all_zero = Fixture::with(&[
            (&format!("{conf}/all/route_localnet"), "0"),
            (&format!("{conf}/eth0/route_localnet"), "0"),
        ]);
        assert_eq!(route_localnet(&all_zero), Outcome::PASS);
        let open = Fixture::with(&[
            (&format!("{conf}/all/route_localnet"), "0"),
            (&format!("{conf}/eth0/route_localnet"), "1"),
        ]);
        let Outcome::Warn { reason, hint } = route_localnet(&open) else {
            panic!("an interface that routes loopback passes");
        };
        assert!(reason.contains("eth0"), "{reason}");
        assert_eq!(hint, "sysctl -w net.ipv4.conf.eth0.route_localnet=0");
    }

    #[test]
    fn forced_syn_cookies_are_worth_a_word() {
        let set_to = |value| Fixture::with(&[("proc/sys/net/ipv4/tcp_syncookies", value)]);
        for value in ["0", "1"] {
            assert_eq!(syn_cookies(&set_to(value)), Outcome::PASS);
        }
        assert!(matches!(syn_cookies(&set_to("2")), Outcome::Warn { .. }));
    }
}
