use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};
use rustls::server::{Accepted, Acceptor};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::ALPN;

/// The longest beginning of a connection that is looked at, in bytes: twice what a sidecar's
/// `ClientHello` takes, most of which is its post-quantum key share.
const LONGEST: usize = 4096;

/// Whether the connection begins with a TLS `ClientHello` that offers [`ALPN`]. Takes nothing from
/// the stream.
///
/// Says no at the first byte that cannot belong to one, when there are more than [`LONGEST`] bytes
/// of one, and at the end of the stream. Until then it waits for bytes as long as it takes: bound
/// it with a timeout. A client that waits for its server to speak first never sends any.
///
/// When dropped after a part of a hello has come, the stream is not known to be readable again
/// before more comes, though that part is there to be read.
pub async fn begins_with_our_hello(stream: &TcpStream) -> io::Result<bool> {
    let mut buffer = vec![0; LONGEST];
    let mut judged = 0;
    loop {
        let ready = stream.ready(Interest::READABLE).await?;
        // Bytes that are peeked at stay, and so does the stream's readiness: it is taken back,
        // by way of `WouldBlock`, unless there are more bytes than at the last look.
        let peeked = stream.try_io(Interest::READABLE, || {
            let length = recv(stream.as_raw_fd(), &mut buffer, MsgFlags::MSG_PEEK)?;
            if length > judged {
                Ok(length)
            } else {
                Err(ErrorKind::WouldBlock.into())
            }
        });
        match peeked {
            Ok(length) => match judge(&buffer[..length]) {
                Verdict::Ours => return Ok(true),
                Verdict::Incomplete if length < LONGEST => judged = length,
                Verdict::Incomplete | Verdict::Other => return Ok(false),
            },
            Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
            Err(_) if ready.is_read_closed() => return Ok(false),
            Err(_) => {}
        }
    }
}

enum Verdict {
    Ours,
    Incomplete,
    Other,
}

fn judge(mut bytes: &[u8]) -> Verdict {
    // A record of type handshake, version 3.x (RFC 8446 section 5.1). rustls looks at these only
    // once the header is whole.
    let header = [0x16, 0x03];
    if bytes
        .iter()
        .zip(header)
        .any(|(byte, wanted)| *byte != wanted)
    {
        return Verdict::Other;
    }
    let mut acceptor = Acceptor::default();
    while !bytes.is_empty() {
        if acceptor.read_tls(&mut bytes).is_err() {
            return Verdict::Other;
        }
    }
    match acceptor.accept() {
        Ok(None) => Verdict::Incomplete,
        Ok(Some(hello)) if offers_alpn(&hello) => Verdict::Ours,
        Ok(Some(_)) | Err(_) => Verdict::Other,
    }
}

fn offers_alpn(hello: &Accepted) -> bool {
    hello
        .client_hello()
        .alpn()
        .is_some_and(|mut protocols| protocols.any(|protocol| protocol == ALPN))
}
