//! Conversations to watch, for tests and the fuzzer.

use std::{iter, time::Instant};

use self::Step::{Client, ClientEnds, Server, ServerEnds};
use super::{Observation, Observer, http2};

/// A part of a conversation.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// The client sends this.
    Client(&'a [u8]),
    /// The client ends its side.
    ClientEnds,
    /// The server sends this.
    Server(&'a [u8]),
    /// The server ends its side.
    ServerEnds,
}

impl<'a> Step<'a> {
    /// What is said.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Client(bytes) | Server(bytes) => bytes,
            ClientEnds | ServerEnds => &[],
        }
    }

    /// The same of these bytes.
    pub(crate) fn with(self, bytes: &'a [u8]) -> Self {
        match self {
            Client(_) => Client(bytes),
            Server(_) => Server(bytes),
            end => end,
        }
    }

    /// The same, a byte at a time.
    pub(crate) fn bytewise(self) -> impl Iterator<Item = Self> {
        let is_end = matches!(self, ClientEnds | ServerEnds);
        let bytes = self.bytes().chunks(1).map(move |byte| self.with(byte));
        bytes.chain(is_end.then_some(self))
    }
}

/// What is seen of a conversation and then of its end, all of which happens at this time. Each request
/// ends once, and after the connection is lost nothing is seen.
pub(crate) fn watch<'a>(now: Instant, steps: impl Iterator<Item = Step<'a>>) -> Vec<Observation> {
    let mut observer = Observer::default();
    for step in steps {
        take(&mut observer, step, now);
    }
    observer.ended(now);
    let seen: Vec<_> = iter::from_fn(|| observer.pop()).collect();
    assert_told_once(&seen);
    seen
}

fn assert_told_once(seen: &[Observation]) {
    let mut in_flight = 0_u32;
    for (index, observation) in seen.iter().enumerate() {
        match observation {
            Observation::Began(_) => in_flight += 1,
            Observation::Ended(_) => in_flight = in_flight.checked_sub(1).expect("it has begun"),
            Observation::Lost(_) => assert_eq!(index + 1, seen.len(), "{seen:?}"),
        }
    }
    assert_eq!(in_flight, 0, "{seen:?}");
}

/// Shows one step, all of which happens at this time.
pub(crate) fn take(observer: &mut Observer, step: Step<'_>, now: Instant) {
    match step {
        Client(bytes) => observer.sent(bytes, now),
        ClientEnds => observer.client_ended(),
        Server(bytes) => observer.received(bytes, now),
        ServerEnds => observer.server_ended(now),
    }
}

/// The first bytes of a client of HTTP/2.
pub(crate) const PREFACE: &[u8] = http2::PREFACE;

/// A frame of HTTP/2 (RFC 9113 section 4.1).
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a payload is shorter than 16 MiB");
    let mut frame = length.to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}
