//! Requests and their responses, each in a stream of its own (RFC 9113 section 5).

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    time::{Duration, Instant},
};

use super::head::{RequestHead, ResponseHead, Status};
use crate::observe::{
    Exchange, GrpcStatus, Lost, Method, Observation, Outcome, Protocol, Text, TraceParent,
};

/// The most requests that may be in flight on a connection.
pub(super) const MOST: usize = 1024;

/// Nothing is wrong (RFC 9113 section 7).
const NO_ERROR: u32 = 0x0;
/// The stream is not needed any more.
const CANCEL: u32 = 0x8;

/// The streams of one connection that are in flight.
#[derive(Debug)]
pub(super) struct Streams {
    /// By number.
    open: BTreeMap<u32, Stream>,
    /// The highest number of those that have been opened.
    highest: u32,
    /// The server looks at no stream above this one.
    last: u32,
}

/// A request and what there is of its response.
#[derive(Debug)]
struct Stream {
    method: Method,
    authority: Option<Text>,
    path: Option<Text>,
    trace: Option<TraceParent>,
    is_grpc: bool,
    started: Instant,
    status: Option<u16>,
    grpc_status: Option<GrpcStatus>,
    first_byte: Option<Duration>,
    request: Half,
    response: Half,
}

/// A request or a response.
#[derive(Debug, Default)]
struct Half {
    /// Its content so far.
    bytes: u64,
    /// It is whole.
    has_ended: bool,
}

/// Who says something.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Speaker {
    Client,
    Server,
}

/// Tells what happens now.
pub(super) struct Teller<'a> {
    pub(super) now: Instant,
    pub(super) seen: &'a mut VecDeque<Observation>,
}

impl Default for Streams {
    fn default() -> Self {
        Self {
            open: BTreeMap::new(),
            highest: 0,
            last: u32::MAX,
        }
    }
}

impl Streams {
    /// The head of a request, or its trailers.
    pub(super) fn request(
        &mut self,
        number: u32,
        head: RequestHead,
        began: Instant,
        tell: &mut Teller<'_>,
    ) -> Result<(), Lost> {
        // Trailers, perhaps of a request that has been given up; nothing in them is wanted.
        if number <= self.highest {
            return Ok(());
        }
        // Clients open streams of odd numbers (RFC 9113 section 5.1.1).
        if number.is_multiple_of(2) {
            return Err(Lost::Malformed);
        }
        if self.open.len() == MOST {
            return Err(Lost::TooManyRequests);
        }
        self.highest = number;
        self.open.insert(number, Stream::new(head, began));
        tell.began();
        // The client does not know yet.
        if number > self.last {
            self.finish(number, Outcome::ResetByServer, tell);
        }
        Ok(())
    }

    /// The head of a response, or its trailers.
    pub(super) fn response(
        &mut self,
        number: u32,
        head: &ResponseHead,
        began: Instant,
        tell: &mut Teller<'_>,
    ) {
        let Some(stream) = self.open.get_mut(&number) else {
            return;
        };
        if head.status == Some(Status::Interim) {
            return;
        }
        if stream.first_byte.is_none() {
            stream.first_byte = Some(began.saturating_duration_since(stream.started));
            if let Some(Status::Final(status)) = head.status {
                stream.status = Some(status);
            }
        }
        if stream.is_grpc {
            stream.grpc_status = head.grpc_status.or(stream.grpc_status);
        }
        if stream.is_tunnel() {
            self.finish(number, Outcome::Complete, tell);
        }
    }

    /// Some content.
    pub(super) fn content(&mut self, from: Speaker, number: u32, bytes: u64) {
        if let Some(stream) = self.open.get_mut(&number) {
            stream.half(from).bytes += bytes;
        }
    }

    /// A request or a response is whole.
    pub(super) fn end(&mut self, of: Speaker, number: u32, tell: &mut Teller<'_>) {
        let Some(stream) = self.open.get_mut(&number) else {
            return;
        };
        stream.half(of).has_ended = true;
        if stream.request.has_ended && stream.response.has_ended {
            self.finish(number, Outcome::Complete, tell);
        }
    }

    /// A stream was given up.
    pub(super) fn reset(&mut self, by: Speaker, number: u32, code: u32, tell: &mut Teller<'_>) {
        let Some(stream) = self.open.get(&number) else {
            return;
        };
        let outcome = match by {
            // The response is whole, and did not take the rest of the request (RFC 9113
            // section 8.1).
            Speaker::Client if stream.response.has_ended && [NO_ERROR, CANCEL].contains(&code) => {
                Outcome::Complete
            }
            Speaker::Server if stream.response.has_ended && code == NO_ERROR => Outcome::Complete,
            Speaker::Client => Outcome::ResetByClient,
            Speaker::Server => Outcome::ResetByServer,
        };
        self.finish(number, outcome, tell);
    }

    /// The server looks at no stream above `last`, whether it is open already or not.
    pub(super) fn refuse_above(&mut self, last: u32, tell: &mut Teller<'_>) {
        self.last = self.last.min(last);
        for stream in self.open.split_off(&(self.last + 1)).into_values() {
            tell.ended(stream, Outcome::ResetByServer);
        }
    }

    /// Whatever is in flight ends so.
    pub(super) fn end_all(&mut self, outcome: Outcome, tell: &mut Teller<'_>) {
        for stream in mem::take(&mut self.open).into_values() {
            tell.ended(stream, outcome);
        }
    }

    fn finish(&mut self, number: u32, outcome: Outcome, tell: &mut Teller<'_>) {
        if let Some(stream) = self.open.remove(&number) {
            tell.ended(stream, outcome);
        }
    }
}

impl Stream {
    fn new(head: RequestHead, started: Instant) -> Self {
        Self {
            method: head.method.unwrap_or(Method::Other),
            authority: head.authority.or(head.host),
            path: head.path,
            trace: head.trace.parent(),
            is_grpc: head.is_grpc,
            started,
            status: None,
            grpc_status: None,
            first_byte: None,
            request: Half::default(),
            response: Half::default(),
        }
    }

    fn half(&mut self, of: Speaker) -> &mut Half {
        match of {
            Speaker::Client => &mut self.request,
            Speaker::Server => &mut self.response,
        }
    }

    /// Whether the server has made it a tunnel, for whatever is inside (RFC 9113 section 8.5), such
    /// as a WebSocket (RFC 8441).
    fn is_tunnel(&self) -> bool {
        self.method == Method::Connect && matches!(self.status, Some(200..300))
    }
}

impl Teller<'_> {
    fn began(&mut self) {
        self.seen.push_back(Observation::Began(Protocol::Http2));
    }

    fn ended(&mut self, stream: Stream, outcome: Outcome) {
        let protocol = if stream.is_grpc {
            Protocol::Grpc
        } else {
            Protocol::Http2
        };
        self.seen.push_back(Observation::Ended(Box::new(Exchange {
            protocol,
            method: stream.method,
            authority: stream.authority,
            path: stream.path,
            status: stream.status,
            grpc_status: stream.grpc_status,
            started: stream.started,
            first_byte: stream.first_byte,
            duration: self.now.saturating_duration_since(stream.started),
            request_bytes: stream.request.bytes,
            response_bytes: stream.response.bytes,
            outcome,
            trace: stream.trace,
        })));
    }
}
