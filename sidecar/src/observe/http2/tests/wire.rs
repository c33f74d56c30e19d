//! Conversations made by hand.

use std::time::Instant;

pub(super) use crate::observe::conversation::frame;
use crate::observe::{
    Exchange, Lost, Observation, Outcome,
    conversation::{PREFACE, Step, watch},
    testing::observations,
};

pub(super) const DATA: u8 = 0x0;
pub(super) const HEADERS: u8 = 0x1;
pub(super) const RST_STREAM: u8 = 0x3;
pub(super) const SETTINGS: u8 = 0x4;
pub(super) const PUSH_PROMISE: u8 = 0x5;
pub(super) const GOAWAY: u8 = 0x7;
pub(super) const CONTINUATION: u8 = 0x9;

pub(super) const END_STREAM: u8 = 0x01;
pub(super) const END_HEADERS: u8 = 0x04;
pub(super) const PADDED: u8 = 0x08;
pub(super) const PRIORITY: u8 = 0x20;

/// Who speaks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum From {
    Client,
    Server,
}

/// What was said, in order.
#[derive(Clone, Debug, Default)]
pub(super) struct Conversation(pub(super) Vec<(From, Vec<u8>)>);

impl Conversation {
    /// With both sides' settings.
    pub(super) fn begun() -> Self {
        Self::default()
            .client(&[PREFACE, &frame(SETTINGS, 0, 0, b"")].concat())
            .server(&frame(SETTINGS, 0, 0, b""))
    }

    pub(super) fn client(mut self, bytes: &[u8]) -> Self {
        self.0.push((From::Client, bytes.to_vec()));
        self
    }

    pub(super) fn server(mut self, bytes: &[u8]) -> Self {
        self.0.push((From::Server, bytes.to_vec()));
        self
    }

    /// A whole request, which has no content.
    pub(super) fn get(self, stream: u32) -> Self {
        self.client(&headers(stream, END_STREAM, REQUEST))
    }

    /// What is seen of it, however it is cut.
    #[track_caller]
    pub(super) fn watch(&self) -> Vec<Observation> {
        observations(&self.steps().collect::<Vec<_>>())
    }

    /// What is seen of it in pieces of this length.
    pub(super) fn watch_in(&self, now: Instant, length: usize) -> Vec<Observation> {
        let pieces = self.steps().flat_map(|step| {
            let pieces = step.bytes().chunks(length);
            pieces.map(move |piece| step.with(piece))
        });
        watch(now, pieces)
    }

    fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        self.0.iter().map(|(from, bytes)| match from {
            From::Client => Step::Client(bytes),
            From::Server => Step::Server(bytes),
        })
    }

    /// The exchanges of [`Self::watch`], which loses nothing.
    #[track_caller]
    pub(super) fn exchanges(&self) -> Vec<Exchange> {
        let seen = self.watch();
        assert!(
            !seen.iter().any(|seen| matches!(seen, Observation::Lost(_))),
            "{seen:?}"
        );
        exchanges(seen)
    }

    /// The only one of [`Self::exchanges`].
    #[track_caller]
    pub(super) fn exchange(&self) -> Exchange {
        let [exchange] = self.exchanges().try_into().expect("one exchange");
        exchange
    }

    #[track_caller]
    pub(super) fn outcomes(&self) -> Vec<Outcome> {
        let exchanges = self.exchanges();
        exchanges.iter().map(|exchange| exchange.outcome).collect()
    }

    /// Why [`Self::watch`] ends.
    #[track_caller]
    pub(super) fn lost(&self) -> Option<Lost> {
        match self.watch().pop() {
            Some(Observation::Lost(lost)) => Some(lost),
            _ => None,
        }
    }
}

pub(super) fn exchanges(seen: Vec<Observation>) -> Vec<Exchange> {
    seen.into_iter()
        .filter_map(|seen| match seen {
            Observation::Ended(exchange) => Some(*exchange),
            Observation::Began(_) | Observation::Lost(_) => None,
        })
        .collect()
}

/// The fields of a request.
pub(super) const REQUEST: &[(&str, &str)] = &[
    (":method", "GET"),
    (":scheme", "http"),
    (":authority", "shop"),
    (":path", "/cart?user=7"),
];
/// Those of a gRPC call.
pub(super) const CALL: &[(&str, &str)] = &[
    (":method", "POST"),
    (":path", "/shop.Cart/Add"),
    ("content-type", "application/grpc"),
];
/// Those of a response.
pub(super) const RESPONSE: &[(&str, &str)] = &[(":status", "200")];

/// A whole header block in one frame.
pub(super) fn headers(stream: u32, flags: u8, fields: &[(&str, &str)]) -> Vec<u8> {
    frame(HEADERS, flags | END_HEADERS, stream, &block(fields))
}

/// Fields as they are, none of them to be remembered.
pub(super) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for string in [name, value] {
            block.push(u8::try_from(string.len()).expect("short"));
            assert!(string.len() < 127, "longer needs more bytes");
            block.extend(string.as_bytes());
        }
    }
    block
}

pub(super) fn reset(stream: u32, code: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &code.to_be_bytes())
}

pub(super) fn go_away(last: u32) -> Vec<u8> {
    frame(
        GOAWAY,
        0,
        0,
        &[last.to_be_bytes(), 0u32.to_be_bytes()].concat(),
    )
}
