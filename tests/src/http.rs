//! Just enough HTTP to ask what runs in a pod.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
};

use crate::{namespace::Namespace, wait};

/// Status and body of a page inside a namespace, if anybody answers there.
pub fn get(namespace: &Namespace, address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut response = String::new();
    namespace.enter(|| {
        let mut stream = TcpStream::connect(address).ok()?;
        stream
            .set_read_timeout(Some(wait::DEADLINE))
            .expect("the deadline is not zero");
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n").ok()?;
        stream.read_to_string(&mut response).ok()
    })?;
    let (head, body) = response.split_once("\r\n\r\n")?;
    Some((head.split(' ').nth(1)?.parse().ok()?, body.to_owned()))
}
