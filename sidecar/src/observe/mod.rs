//! Watches the plaintext bytes of a connection as they pass, and tells what was asked and answered.
//!
//! It is shown each byte once, after it has been handed on, and can neither hold nor change it. What
//! it cannot follow it gives up ([`Lost`]), and the bytes flow on. It keeps a bounded amount of
//! memory for each connection, and does nothing but look at bytes: who counts, logs and exports what
//! it tells is [`telemetry`](crate::telemetry).

mod beginning;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod conversation;
mod exchange;
mod hello;
mod http1;
mod http2;
mod opaque;
#[cfg(test)]
pub(crate) mod testing;
mod trace_parent;

use std::{collections::VecDeque, time::Instant};

use self::{
    beginning::{Beginning, Verdict},
    http1::Http1,
    http2::Http2,
};
pub use self::{
    exchange::{Exchange, GrpcStatus, Method, Outcome, Protocol, Text},
    opaque::{Lost, TlsHello},
    trace_parent::{TraceHeaders, TraceParent},
};

/// Something seen on a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Observation {
    /// A request has begun; it is in flight until it has [`Ended`](Self::Ended).
    ///
    /// The protocol is the connection's: that a request is of gRPC is told when it ends.
    Began(Protocol),
    /// A request and its response have ended, each in its own way.
    Ended(Box<Exchange>),
    /// What the connection speaks cannot be followed, from here on or from its start.
    Lost(Lost),
}

/// Watches one connection.
#[derive(Debug)]
pub struct Observer {
    /// How far it is understood.
    state: State,
    /// What the server said before its client showed what they speak.
    greeting: http2::Greeting,
    /// How requests of HTTP/2 end that are in flight when the connection is over.
    cut: Outcome,
    /// The server's side has ended.
    has_server_ended: bool,
    /// What was seen and not yet asked for.
    seen: VecDeque<Observation>,
}

#[derive(Debug)]
enum State {
    /// Nothing has shown yet what it speaks.
    Beginning(Beginning),
    /// HTTP/1.0 or HTTP/1.1.
    Http1(Box<Http1>),
    /// HTTP/2, with or without gRPC.
    Http2(Box<Http2>),
    /// Not to be followed any more.
    Lost,
}

impl Default for Observer {
    fn default() -> Self {
        Self {
            state: State::Beginning(Beginning::default()),
            greeting: http2::Greeting::default(),
            cut: Outcome::Cut,
            has_server_ended: false,
            seen: VecDeque::new(),
        }
    }
}

impl Observer {
    /// These bytes went from client to server, at this time.
    pub fn sent(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        let followed = match &mut self.state {
            State::Beginning(beginning) => match beginning.judge(bytes) {
                Verdict::Http1 | Verdict::Other(_) if !self.greeting.is_empty() => {
                    Err(Lost::ServerFirst)
                }
                Verdict::Http1 => return self.begin(State::Http1(Box::default()), bytes, now),
                Verdict::Http2 => return self.begin(State::Http2(Box::default()), bytes, now),
                Verdict::Other(lost) => Err(lost),
                Verdict::Short => Ok(()),
            },
            State::Http1(http1) => http1.sent(bytes, now, &mut self.seen),
            State::Http2(http2) => http2.sent(bytes, now, &mut self.seen),
            State::Lost => Ok(()),
        };
        self.go_on(followed, now);
    }

    /// These bytes went from server to client, at this time.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        if bytes.is_empty() {
            return;
        }
        let followed = match &mut self.state {
            // Whoever has begun something that has no answer yet is taken at its word.
            State::Beginning(beginning) => self
                .greeting
                .hear(bytes)
                .map_err(|lost| beginning.cut().unwrap_or(lost)),
            State::Http1(http1) => http1.received(bytes, now, &mut self.seen),
            State::Http2(http2) => http2.received(bytes, now, &mut self.seen),
            State::Lost => Ok(()),
        };
        self.go_on(followed, now);
    }

    /// The client's side of the connection has ended, in order or not.
    pub fn client_ended(&mut self) {
        if let State::Http1(http1) = &mut self.state {
            http1.client_ended();
        }
        if !self.has_server_ended {
            self.cut = Outcome::ResetByClient;
        }
    }

    /// The server's side of the connection has ended in order, at this time.
    pub fn server_ended(&mut self, now: Instant) {
        self.has_server_ended = true;
        if let State::Http1(http1) = &mut self.state {
            http1.server_ended(now, &mut self.seen);
        }
    }

    /// The connection is over: what is still in flight has ended with it.
    pub fn ended(&mut self, now: Instant) {
        match std::mem::replace(&mut self.state, State::Lost) {
            State::Beginning(beginning) => {
                self.seen.extend(beginning.cut().map(Observation::Lost));
            }
            State::Http1(mut http1) => {
                http1.ended(now, &mut self.seen);
                let lost = (!http1.has_begun()).then_some(Observation::Lost(Lost::NotHttp));
                self.seen.extend(lost);
            }
            State::Http2(mut http2) => http2.end(self.cut, now, &mut self.seen),
            State::Lost => {}
        }
    }

    /// What was seen, in order, until there is nothing more.
    pub fn pop(&mut self) -> Option<Observation> {
        self.seen.pop_front()
    }

    /// What the connection speaks, once its client's first bytes tell.
    pub fn protocol(&self) -> Option<Protocol> {
        match self.state {
            State::Http1(_) => Some(Protocol::Http1),
            State::Http2(_) => Some(Protocol::Http2),
            State::Beginning(_) | State::Lost => None,
        }
    }

    /// Goes on with a protocol, from the client's first bytes; these are the latest of them.
    fn begin(&mut self, state: State, bytes: &[u8], now: Instant) {
        if let State::Beginning(beginning) = std::mem::replace(&mut self.state, state) {
            self.sent(&beginning.first(), now);
        }
        self.sent(bytes, now);
        let greeting = self.greeting.take();
        if !greeting.is_empty() {
            self.received(&greeting, now);
        }
    }

    /// Gives up what can no longer be followed, and all that was kept for it.
    fn go_on(&mut self, followed: Result<(), Lost>, now: Instant) {
        if let Err(lost) = followed {
            match std::mem::replace(&mut self.state, State::Lost) {
                State::Http1(mut http1) => http1.lost(now, &mut self.seen),
                State::Http2(mut http2) => http2.end(Outcome::Unfollowed, now, &mut self.seen),
                State::Beginning(_) | State::Lost => {}
            }
            self.greeting.take();
            self.seen.push_back(Observation::Lost(lost));
        }
    }
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConfig, ClientConnection, RootCertStore, pki_types::ServerName};

    use super::{
        conversation::Step::{Client, Server},
        *,
    };

    /// What is seen of a client that begins like this.
    fn seen(first: &[u8]) -> Vec<Observation> {
        testing::observations(&[Client(first)])
    }

    /// The first bytes of a TLS client.
    fn hello(server: &str, protocols: &[&[u8]]) -> Vec<u8> {
        let mut config = ClientConfig::builder()
            .with_root_certificates(RootCertStore::empty())
            .with_no_client_auth();
        config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
        let name = ServerName::try_from(server.to_owned()).expect("a name");
        let mut client = ClientConnection::new(config.into(), name).expect("a client");
        let mut hello = Vec::new();
        client.write_tls(&mut hello).expect("memory");
        hello
    }

    fn tls(sni: Option<&str>, alpn: Option<&str>) -> Observation {
        let text = |text: &str| Text::new(text.as_bytes());
        Observation::Lost(Lost::Tls(Box::new(TlsHello {
            sni: sni.map(text),
            alpn: alpn.map(text),
        })))
    }

    #[test]
    fn what_begins_like_http_is_taken_for_it() {
        let mut observer = Observer::default();
        observer.sent(b"PR", Instant::now());
        assert_eq!(observer.protocol(), None);
        observer.sent(b"OPFIND /", Instant::now());
        assert_eq!(observer.protocol(), Some(Protocol::Http1));

        let mut observer = Observer::default();
        for byte in http2::PREFACE {
            assert_eq!(observer.protocol(), None);
            observer.sent(&[*byte], Instant::now());
        }
        // What it says is another test's.
        assert!(!matches!(observer.state, State::Beginning(_)));
    }

    #[test]
    fn what_is_no_http_is_not_followed() {
        for first in [
            &b"\0"[..],
            b"\r\nGET / HTTP/1.1\r\n\r\n",
            b" / HTTP/1.1\r\n\r\n",
            b"PING\r\n",
            b"SET key value\r\n",
            b"SET key value\r\nmore, and then still more of it",
            b"*1\r\n$4\r\nPING\r\n",
            b"GET / HTTP/2.0\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nXX",
            b"SSH-2.0-OpenSSH_9.2p1\r\n",
            b"A-METHOD-LONGER-THAN-ANYBODY-HAS-ONE / HTTP/1.1\r\n\r\n",
            b"\x16\x02\x01\0\x01\x01",
            b"\x16\x03\x01\0\x01\x02",
            // The beginning of something, and then nothing more.
            b"GE",
            b"GET / HTTP/1.1\r\nHost: shop",
        ] {
            let what = String::from_utf8_lossy(first);
            assert_eq!(seen(first), [Observation::Lost(Lost::NotHttp)], "{what:?}");
        }
        assert_eq!(seen(b""), []);
    }

    #[test]
    fn a_server_that_speaks_first_is_not_followed() {
        let get = b"GET / HTTP/1.1\r\n\r\n";
        assert_eq!(
            testing::observations(&[Server(b"220 mail\r\n"), Client(get)]),
            [Observation::Lost(Lost::ServerFirst)]
        );
        // Here the client was first.
        assert_eq!(
            testing::observations(&[Client(b"HELO"), Server(b"220 mail\r\n"), Client(get)]),
            [Observation::Lost(Lost::NotHttp)]
        );
    }

    #[test]
    fn an_app_s_own_tls_says_whom_it_is_for() {
        assert_eq!(
            seen(&hello("shop.example", &[b"h2", b"http/1.1"])),
            [tls(Some("shop.example"), Some("h2,http/1.1"))]
        );
        assert_eq!(seen(&hello("192.0.2.1", &[])), [tls(None, None)]);
        // The protocols are the client's to choose, but not the line of the log.
        assert_eq!(
            seen(&hello("shop.example", &[b"a b\n"])),
            [tls(Some("shop.example"), Some("a%20b%0A"))]
        );
    }

    #[test]
    fn a_hello_that_cannot_be_read_is_still_tls() {
        let whole = hello("shop.example", &[]);
        let half = &whole[..whole.len() / 2];
        assert_eq!(seen(half), [tls(None, None)]);
        assert_eq!(
            testing::observations(&[Client(half), Server(b"\x15\x03\x03\0\x02\x02\x28")]),
            [tls(None, None)]
        );
        let mut endless = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03".to_vec();
        endless.resize(64 * 1024, 0);
        let mut observer = Observer::default();
        for bytes in endless.chunks(1000) {
            observer.sent(bytes, Instant::now());
        }
        assert_eq!(observer.pop(), Some(tls(None, None)));
    }
}
