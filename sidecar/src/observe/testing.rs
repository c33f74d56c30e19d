//! Conversations to watch, for tests.

use std::{iter, time::Instant};

use self::Step::{Client, ClientEnds, Server, ServerEnds};
use super::{Exchange, Observation, Observer, Text};

/// A part of a conversation.
#[derive(Clone, Copy, Debug)]
pub(super) enum Step<'a> {
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
    pub(super) fn bytes(self) -> &'a [u8] {
        match self {
            Client(bytes) | Server(bytes) => bytes,
            ClientEnds | ServerEnds => &[],
        }
    }

    /// The same of these bytes.
    pub(super) fn with(self, bytes: &'a [u8]) -> Self {
        match self {
            Client(_) => Client(bytes),
            Server(_) => Server(bytes),
            end => end,
        }
    }

    /// The same, a byte at a time.
    fn bytewise(self) -> impl Iterator<Item = Self> {
        let is_end = matches!(self, ClientEnds | ServerEnds);
        let bytes = self.bytes().chunks(1).map(move |byte| self.with(byte));
        bytes.chain(is_end.then_some(self))
    }
}

/// What is seen of a conversation and then of its end, however its bytes are cut: whole, one by one,
/// and once at each position.
pub(super) fn observations(conversation: &[Step<'_>]) -> Vec<Observation> {
    let now = Instant::now();
    let whole = watch(now, conversation.iter().copied());
    let bytewise = conversation.iter().flat_map(|step| step.bytewise());
    assert_eq!(watch(now, bytewise), whole, "byte by byte");
    for (index, step) in conversation.iter().enumerate() {
        for at in 1..step.bytes().len() {
            let (first, second) = step.bytes().split_at(at);
            let steps = conversation[..index]
                .iter()
                .copied()
                .chain([step.with(first), step.with(second)])
                .chain(conversation[index + 1..].iter().copied());
            assert_eq!(watch(now, steps), whole, "step {index} cut at {at}");
        }
    }
    whole
}

/// The same, each in a line.
pub(super) fn lines(conversation: &[Step<'_>]) -> Vec<String> {
    observations(conversation).iter().map(line).collect()
}

fn watch<'a>(now: Instant, steps: impl Iterator<Item = Step<'a>>) -> Vec<Observation> {
    let mut observer = Observer::default();
    for step in steps {
        take(&mut observer, step, now);
    }
    observer.ended(now);
    iter::from_fn(|| observer.pop()).collect()
}

/// Shows one step, all of which happens at this time.
pub(super) fn take(observer: &mut Observer, step: Step<'_>, now: Instant) {
    match step {
        Client(bytes) => observer.sent(bytes, now),
        ClientEnds => observer.client_ended(),
        Server(bytes) => observer.received(bytes, now),
        ServerEnds => observer.server_ended(now),
    }
}

fn line(observation: &Observation) -> String {
    match observation {
        Observation::Began(_) => "began".to_owned(),
        Observation::Ended(exchange) => exchange_line(exchange),
        Observation::Lost(lost) => format!("lost {lost}"),
    }
}

/// Method, authority, path, status, content sent and received, outcome.
fn exchange_line(exchange: &Exchange) -> String {
    let text = |text: &Option<Text>| text.as_ref().map_or("-".to_owned(), ToString::to_string);
    format!(
        "{} {} {} {} {}/{} {}",
        exchange.method.as_str(),
        text(&exchange.authority),
        text(&exchange.path),
        exchange
            .status
            .map_or("-".to_owned(), |status| status.to_string()),
        exchange.request_bytes,
        exchange.response_bytes,
        exchange.outcome.as_str()
    )
}
