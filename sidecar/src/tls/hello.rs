use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;

use nix::sys::socket::{MsgFlags, recv};
use rustls::server::{Accepted, Acceptor};
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::Protocol;

/// The longest beginning of a connection that is looked at, in bytes: twice what a sidecar's
/// `ClientHello` takes, most of which is its post-quantum key share.
const LONGEST: usize = 4096;

/// Whether the connection begins with a TLS `ClientHello` that offers a [`Protocol`]. Takes nothing from
/// the stream.
///
/// Says no at the first byte that cannot belong to one, when one is longer than ours ever are, and
/// at the end of the stream. Until then it waits for bytes as long as it takes: bound
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

/// What the bytes that have come so far begin with.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// A whole `ClientHello` that offers a [`Protocol`] of ours.
    Ours,
    /// A part of a `ClientHello`.
    Incomplete,
    /// Something else.
    Other,
}

pub(crate) fn judge(mut bytes: &[u8]) -> Verdict {
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
        .is_some_and(|mut protocols| protocols.any(|protocol| Protocol::named(protocol).is_some()))
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::time::Duration;

    use rustls::ClientConnection;
    use rustls::pki_types::ServerName;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::super::tests::{DEADLINE, connected, tls};
    use super::*;

    const ALPN: &[u8] = Protocol::Bytes.alpn();

    /// The first bytes of a client that offers `protocols`.
    fn hello(protocols: &[&[u8]]) -> Vec<u8> {
        let mut config = (**tls().connector.config()).clone();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        let name = ServerName::try_from("example.org").expect("name");
        let mut client = ClientConnection::new(config.into(), name).expect("client");
        let mut bytes = Vec::new();
        client.write_tls(&mut bytes).expect("memory");
        bytes
    }

    /// The answer for a client that sends `bytes` and then waits, or ends.
    async fn answer(bytes: &[u8], ends: bool) -> bool {
        let (mut client, server) = connected().await;
        client.write_all(bytes).await.expect("write");
        if ends {
            client.shutdown().await.expect("shutdown");
        }
        timeout(DEADLINE, begins_with_our_hello(&server))
            .await
            .expect("answered in time")
            .expect("intact connection")
    }

    #[tokio::test]
    async fn our_hello_is_recognised_and_left_alone() {
        let hello = hello(&[ALPN]);
        let (mut client, mut server) = connected().await;
        client.write_all(&hello).await.expect("write");
        assert!(
            begins_with_our_hello(&server)
                .await
                .expect("intact connection")
        );
        let mut read = vec![0; hello.len()];
        server.read_exact(&mut read).await.expect("read");
        assert_eq!(read, hello);
    }

    #[tokio::test]
    async fn our_hello_is_recognised_byte_by_byte() {
        let hello = hello(&[b"h2", ALPN]);
        let (mut client, server) = connected().await;
        client.set_nodelay(true).expect("option");
        let (last, first) = hello.split_last().expect("bytes");
        let mut answer = pin!(begins_with_our_hello(&server));
        for byte in first {
            client.write_all(&[*byte]).await.expect("write");
            tokio::select! {
                biased;
                _ = &mut answer => panic!("answered before the hello was whole"),
                () = yield_now() => {}
            }
        }
        client.write_all(&[*last]).await.expect("write");
        let answer = timeout(DEADLINE, answer).await.expect("answered in time");
        assert!(answer.expect("intact connection"));
    }

    #[tokio::test]
    async fn the_hello_of_an_application_is_not_ours() {
        assert!(!answer(&hello(&[]), false).await);
        assert!(!answer(&hello(&[b"h2", b"http/1.1"]), false).await);
        assert!(!answer(&hello(&[b"sidecar/10"]), false).await);
    }

    #[tokio::test]
    async fn other_protocols_are_told_at_once() {
        for bytes in [
            &b"G"[..],
            b"\x00",
            b"\x16S",
            b"\x16\x02",
            b"\x15\x03\x03\x00\x02\x02\x28",
        ] {
            assert!(!answer(bytes, false).await, "{bytes:x?}");
        }
    }

    #[tokio::test]
    async fn a_hello_that_never_ends_is_not_ours() {
        let mut bytes = vec![
            0x16, 0x03, 0x01, 0x3f, 0xff, 0x01, 0x00, 0x3f, 0xfb, 0x03, 0x03,
        ];
        bytes.resize(LONGEST, 0);
        assert!(!answer(&bytes, false).await);
    }

    #[tokio::test]
    async fn the_end_of_the_stream_is_an_answer() {
        assert!(!answer(&[], true).await);
        assert!(!answer(&hello(&[ALPN])[..100], true).await);
    }

    #[tokio::test]
    async fn waiting_for_the_rest_of_a_hello_takes_no_cpu() {
        let (mut client, server) = connected().await;
        client
            .write_all(&hello(&[ALPN])[..100])
            .await
            .expect("write");
        let mut answer = pin!(begins_with_our_hello(&server));
        let mut polls = 0;
        let counted = poll_fn(|context| {
            polls += 1;
            answer.as_mut().poll(context)
        });
        timeout(Duration::from_millis(100), counted)
            .await
            .expect_err("the hello is not whole");
        // One when it starts, one when the bytes are there, one at the timeout, and one spare.
        assert!(polls <= 4, "{polls} polls");
    }
}
