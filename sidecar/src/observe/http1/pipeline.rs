use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use super::{
    super::{Exchange, Lost, Method, Observation, Outcome, Protocol},
    request::RequestHead,
};

/// The requests in flight, in the order in which they are answered (RFC 9112 section 9.3.2).
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    requests: VecDeque<Request>,
}

/// A request that is not over. All but the last of a pipeline are sent.
#[derive(Debug)]
struct Request {
    /// What is known so far.
    exchange: Box<Exchange>,
    /// Whether its head, and then the rest of it, has come.
    sent: Sent,
    /// Whether its response is whole.
    is_answered: bool,
}

#[derive(Debug, Eq, PartialEq)]
enum Sent {
    /// A part of its head: it was answered before the rest has come.
    Beginning,
    /// Its head.
    Head,
    /// All of it.
    Whole,
}

impl Pipeline {
    /// How many requests can be in flight.
    pub(super) const LONGEST: usize = 64;

    /// Is nothing in flight?
    pub(super) fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The head of a request has come, which began then. Was it answered before?
    pub(super) fn begin(
        &mut self,
        head: RequestHead,
        started: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<bool, Lost> {
        let is_early = self
            .requests
            .back()
            .is_some_and(|last| last.sent == Sent::Beginning);
        if !is_early {
            self.begin_early(started, seen)?;
        }
        if let Some(last) = self.requests.back_mut() {
            last.sent = Sent::Head;
            let exchange = &mut last.exchange;
            exchange.method = head.method;
            exchange.authority = head.authority;
            exchange.path = head.path;
            exchange.trace = head.trace;
        }
        Ok(is_early)
    }

    /// The first bytes of a request have come, and already there is a response.
    pub(super) fn begin_early(
        &mut self,
        started: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        if self.requests.len() == Self::LONGEST {
            return Err(Lost::TooManyRequests);
        }
        self.requests.push_back(Request {
            exchange: Box::new(Exchange {
                protocol: Protocol::Http1,
                method: Method::Other,
                authority: None,
                path: None,
                status: None,
                grpc_status: None,
                started,
                first_byte: None,
                duration: Duration::ZERO,
                request_bytes: 0,
                response_bytes: 0,
                outcome: Outcome::Cut,
                trace: None,
            }),
            sent: Sent::Beginning,
            is_answered: false,
        });
        seen.push_back(Observation::Began(Protocol::Http1));
        Ok(())
    }

    /// Content of the latest request.
    pub(super) fn add_sent(&mut self, bytes: u64) {
        if let Some(last) = self.requests.back_mut() {
            last.exchange.request_bytes += bytes;
        }
    }

    /// The latest request is whole.
    pub(super) fn sent(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        if let Some(last) = self.requests.back_mut() {
            last.sent = Sent::Whole;
        }
        self.settle(now, seen);
    }

    /// The request that is answered next; `None` if there is none.
    pub(super) fn awaiting(&mut self) -> Option<&mut Exchange> {
        self.requests
            .front_mut()
            .filter(|first| !first.is_answered)
            .map(|first| &mut *first.exchange)
    }

    /// The response to the first request is whole.
    pub(super) fn answered(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        if let Some(first) = self.requests.front_mut() {
            first.is_answered = true;
        }
        self.settle(now, seen);
    }

    /// The rest of a request that is answered already is not needed.
    pub(super) fn end_answered(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        if let Some(request) = self.requests.pop_front_if(|first| first.is_answered) {
            request.end(Outcome::Complete, now, seen);
        }
    }

    /// Whatever is in flight ends so.
    pub(super) fn end(&mut self, outcome: Outcome, now: Instant, seen: &mut VecDeque<Observation>) {
        for request in std::mem::take(&mut self.requests) {
            request.end(outcome, now, seen);
        }
    }

    /// How much memory is taken, in bytes.
    #[cfg(test)]
    pub(super) fn room(&self) -> usize {
        let of_each = self.requests.iter().map(|request| {
            let exchange = &request.exchange;
            let texts = [&exchange.authority, &exchange.path];
            let state = exchange
                .trace
                .as_ref()
                .and_then(|trace| trace.state.as_ref());
            let texts = texts.into_iter().flatten().map(|text| text.as_str().len());
            size_of::<Exchange>() + texts.sum::<usize>() + state.map_or(0, |state| state.len())
        });
        self.requests.capacity() * size_of::<Request>() + of_each.sum::<usize>()
    }

    /// Takes out the first request if it is over.
    fn settle(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        let over = self
            .requests
            .pop_front_if(|first| first.sent == Sent::Whole && first.is_answered);
        if let Some(request) = over {
            request.end(Outcome::Complete, now, seen);
        }
    }
}

impl Request {
    fn end(mut self, outcome: Outcome, now: Instant, seen: &mut VecDeque<Observation>) {
        self.exchange.duration = now.saturating_duration_since(self.exchange.started);
        self.exchange.outcome = outcome;
        seen.push_back(Observation::Ended(self.exchange));
    }
}
