//! Probes, as the node sends them.

use std::net::{Ipv4Addr, TcpStream};

use super::manifest::Probe;
use crate::{http, namespace::Namespace};

/// Whether a container of the pod at `address` passes, asked from the node.
#[track_caller]
pub fn passes(probe: &Probe, node: &Namespace, address: Ipv4Addr) -> bool {
    match (&probe.http_get, &probe.tcp_socket) {
        (Some(get), None) => http::get(node, (address, get.port).into(), &get.path)
            .is_some_and(|(status, _)| (200..400).contains(&status)),
        (None, Some(socket)) => node.enter(|| TcpStream::connect((address, socket.port)).is_ok()),
        _ => panic!("this probe asks nothing, or two things: {probe:?}"),
    }
}
