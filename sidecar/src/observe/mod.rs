//! Watches the plaintext bytes of a connection as they pass, and tells what was asked and answered.
//!
//! It is shown each byte once, after it has been handed on, and can neither hold nor change it. What
//! it cannot follow it gives up ([`Lost`]), and the bytes flow on. It keeps a bounded amount of
//! memory for each connection, and does nothing but look at bytes: who counts, logs and exports what
//! it tells is [`telemetry`](crate::telemetry).

mod exchange;
mod http1;
mod http2;
mod opaque;
mod trace_parent;

use std::{collections::VecDeque, time::Instant};

pub use self::{
    exchange::{Exchange, GrpcStatus, Method, Outcome, Protocol, Text},
    opaque::{Lost, TlsHello},
    trace_parent::{TraceHeaders, TraceParent},
};
use self::{http1::Http1, http2::Http2};

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
    /// What was seen and not yet asked for.
    seen: VecDeque<Observation>,
}

#[derive(Debug)]
enum State {
    /// Nothing has shown yet what it speaks; these are the client's first bytes.
    Beginning(Vec<u8>),
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
            state: State::Beginning(Vec::new()),
            seen: VecDeque::new(),
        }
    }
}

impl Observer {
    /// These bytes went from client to server, at this time.
    pub fn sent(&mut self, bytes: &[u8], now: Instant) {
        match &mut self.state {
            State::Beginning(first) => {
                first.extend_from_slice(bytes);
                let first = std::mem::take(first);
                self.begin(first, now);
            }
            State::Http1(http1) => {
                let followed = http1.sent(bytes, now, &mut self.seen);
                self.go_on(followed, now);
            }
            State::Http2(http2) => {
                let followed = http2.sent(bytes, now, &mut self.seen);
                self.go_on(followed, now);
            }
            State::Lost => {}
        }
    }

    /// These bytes went from server to client, at this time.
    pub fn received(&mut self, bytes: &[u8], now: Instant) {
        let followed = match &mut self.state {
            State::Beginning(_) => Err(Lost::ServerFirst),
            State::Http1(http1) => http1.received(bytes, now, &mut self.seen),
            State::Http2(http2) => http2.received(bytes, now, &mut self.seen),
            State::Lost => return,
        };
        self.go_on(followed, now);
    }

    /// The connection is over: what is still in flight has ended with it.
    pub fn ended(&mut self, now: Instant) {
        match &mut self.state {
            State::Http1(http1) => http1.ended(now, &mut self.seen),
            State::Http2(http2) => http2.ended(now, &mut self.seen),
            State::Beginning(_) | State::Lost => {}
        }
        self.state = State::Lost;
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

    /// Judges the client's first bytes: all that have come so far.
    fn begin(&mut self, first: Vec<u8>, now: Instant) {
        self.state = match Beginning::of(&first) {
            Beginning::Short => State::Beginning(first),
            Beginning::Http1 => {
                self.state = State::Http1(Box::default());
                return self.sent(&first, now);
            }
            Beginning::Http2 => {
                self.state = State::Http2(Box::default());
                return self.sent(&first, now);
            }
            Beginning::Other(lost) => return self.go_on(Err(lost), now),
        };
    }

    /// Gives up what can no longer be followed.
    fn go_on(&mut self, followed: Result<(), Lost>, now: Instant) {
        if let Err(lost) = followed {
            self.ended(now);
            self.seen.push_back(Observation::Lost(lost));
        }
    }
}

/// What the first bytes of a client show.
enum Beginning {
    /// HTTP/1.
    Http1,
    /// HTTP/2.
    Http2,
    /// Something that is not followed.
    Other(Lost),
    /// Nothing yet.
    Short,
}

impl Beginning {
    fn of(first: &[u8]) -> Self {
        if first.starts_with(http2::PREFACE) {
            Self::Http2
        } else if http2::PREFACE.starts_with(first) {
            Self::Short
        } else if first.first().is_some_and(u8::is_ascii_uppercase) {
            Self::Http1
        } else {
            Self::Other(Lost::NotHttp)
        }
    }
}
