use std::fmt;

use rustls::server::{Accepted, Acceptor};

use super::{Lost, Text, TlsHello};

/// Reads the `ClientHello` of an app's own TLS as it comes, to the end of it or to its
/// [`LONGEST`](Self::LONGEST).
#[derive(Default)]
pub(super) struct Hello {
    acceptor: Acceptor,
    /// How many bytes have been read.
    read: usize,
}

impl Hello {
    /// How many bytes are read, and kept meanwhile.
    const LONGEST: usize = 16 * 1024;

    /// How it begins: a record of type handshake, version 3.x (RFC 8446 section 5.1), of some length,
    /// and in it a `ClientHello` (section 4).
    const BEGINNING: [Option<u8>; 6] = [Some(0x16), Some(0x03), None, None, None, Some(0x01)];

    /// May these first bytes of a connection belong to one? `None` if there are too few of them.
    pub(super) fn is_begun_by(first: &[u8]) -> Option<bool> {
        let mut compared = first.iter().zip(Self::BEGINNING);
        if compared.any(|(byte, wanted)| wanted.is_some_and(|wanted| *byte != wanted)) {
            return Some(false);
        }
        (first.len() >= Self::BEGINNING.len()).then_some(true)
    }

    /// Goes on with these bytes; gives what it says once it is whole, and nothing of what cannot be
    /// read.
    pub(super) fn read(&mut self, bytes: &[u8]) -> Option<Lost> {
        let mut rest = &bytes[..bytes.len().min(Self::LONGEST - self.read)];
        self.read += rest.len();
        while !rest.is_empty() {
            if self.acceptor.read_tls(&mut rest).is_err() {
                return Some(Self::unread());
            }
            match self.acceptor.accept() {
                Ok(None) => {}
                Ok(Some(accepted)) => return Some(Lost::Tls(Box::new(said(&accepted)))),
                Err(_) => return Some(Self::unread()),
            }
        }
        (self.read == Self::LONGEST).then(Self::unread)
    }

    /// TLS of which nothing more is known.
    pub(super) fn unread() -> Lost {
        Lost::Tls(Box::default())
    }
}

impl fmt::Debug for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hello").finish_non_exhaustive()
    }
}

fn said(accepted: &Accepted) -> TlsHello {
    let hello = accepted.client_hello();
    let alpn = hello.alpn().map(Iterator::collect::<Vec<_>>);
    TlsHello {
        sni: hello.server_name().map(|name| Text::new(name.as_bytes())),
        alpn: alpn.map(|protocols| Text::new(&protocols.join(&b","[..]))),
    }
}
