//! HTTP/1.0 and HTTP/1.1 (RFC 9112).

mod body;
mod chunked;
mod framing;
mod head;
mod pipeline;
mod request;
mod response;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Instant};

use self::{
    body::Body, head::Head, pipeline::Pipeline, request::RequestHead, response::ResponseHead,
};
use super::{Lost, Method, Observation, Outcome};

/// The most fields of a head that are read.
const FIELDS: usize = 128;

/// Follows one connection of HTTP/1.
///
/// Bodies are skipped by count. What is kept is, of each side, one head that has not come whole, at
/// most 64 KiB, and of each of at most 64 requests in flight what is told of it, about 2 KiB: in all
/// no more than 512 KiB, and between requests nothing.
#[derive(Debug, Default)]
pub(super) struct Http1 {
    /// What the client is sending.
    client: Part,
    /// What the server is sending.
    server: Part,
    /// What has been asked and not yet answered.
    pipeline: Pipeline,
    /// A `CONNECT` that has not been answered.
    tunnel: Tunnel,
    /// A request has been understood.
    has_begun: bool,
    /// Which side has ended, the first of them.
    left: Option<Side>,
}

/// What one side is sending.
#[derive(Debug)]
enum Part {
    /// A head, or nothing before the next one.
    Head(Head),
    /// A body.
    Body(Body),
}

impl Default for Part {
    fn default() -> Self {
        Self::Head(Head::default())
    }
}

/// Whether what the client sends may belong to a tunnel.
#[derive(Debug, Default, Eq, PartialEq)]
enum Tunnel {
    /// No.
    #[default]
    None,
    /// The latest request asks for one.
    Asked,
    /// The client did not wait for the answer. What it has sent cannot be judged before.
    Entered,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Client,
    Server,
}

impl Http1 {
    /// Has a request been understood?
    pub(super) fn has_begun(&self) -> bool {
        self.has_begun
    }

    /// Bytes from the client.
    pub(super) fn sent(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        while !bytes.is_empty() {
            let has_begun = self.has_begun;
            let taken = match &mut self.client {
                _ if self.tunnel != Tunnel::None => {
                    self.tunnel = Tunnel::Entered;
                    bytes.len()
                }
                // RFC 9112 section 2.2: empty lines before a request are none of it.
                Part::Head(head) if head.begun().is_none() && matches!(bytes[0], b'\r' | b'\n') => {
                    1
                }
                Part::Head(head) => {
                    let read = head.read(bytes, now, RequestHead::can_begin_with);
                    let Some(whole) = read.map_err(|lost| judged(lost, has_begun))? else {
                        return Ok(());
                    };
                    let request = RequestHead::parse(whole.bytes);
                    let request = request.map_err(|lost| judged(lost, has_begun))?;
                    let (begun, taken) = (whole.begun, whole.taken);
                    self.client = Part::default();
                    self.asked(request, begun, now, seen)?;
                    taken
                }
                Part::Body(body) => {
                    let skipped = body.skip(bytes);
                    self.pipeline.add_sent(skipped.content);
                    if skipped.is_whole? {
                        self.client = Part::default();
                        self.pipeline.sent(now, seen);
                    }
                    skipped.taken
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// Bytes from the server.
    pub(super) fn received(
        &mut self,
        mut bytes: &[u8],
        now: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        while !bytes.is_empty() {
            let has_begun = self.has_begun;
            let is_asked = self.pipeline.awaiting().is_some() || self.early().is_some();
            let taken = match &mut self.server {
                Part::Head(_) if !is_asked => return Err(Lost::Malformed),
                Part::Head(head) => {
                    let read = head.read(bytes, now, ResponseHead::can_begin_with);
                    let Some(whole) = read.map_err(|lost| judged(lost, has_begun))? else {
                        return Ok(());
                    };
                    let response = ResponseHead::parse(whole.bytes);
                    let response = response.map_err(|lost| judged(lost, has_begun))?;
                    let (begun, taken) = (whole.begun, whole.taken);
                    self.server = Part::default();
                    self.answered(response, begun, now, seen)?;
                    taken
                }
                Part::Body(body) => {
                    let skipped = body.skip(bytes);
                    if let Some(exchange) = self.pipeline.awaiting() {
                        exchange.response_bytes += skipped.content;
                    }
                    if skipped.is_whole? {
                        self.server = Part::default();
                        self.pipeline.answered(now, seen);
                    }
                    skipped.taken
                }
            };
            bytes = &bytes[taken..];
        }
        Ok(())
    }

    /// The client's side has ended, in order or not.
    pub(super) fn client_ended(&mut self) {
        self.left.get_or_insert(Side::Client);
    }

    /// The server's side has ended in order.
    pub(super) fn server_ended(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        self.left.get_or_insert(Side::Server);
        if matches!(self.server, Part::Body(Body::UntilClose)) {
            self.server = Part::default();
            self.pipeline.answered(now, seen);
        }
    }

    /// The connection is over.
    pub(super) fn ended(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        match self.left {
            Some(Side::Client) => self.pipeline.end(Outcome::ResetByClient, now, seen),
            // RFC 9112 section 9.6: it may answer before it has the whole request, and close.
            Some(Side::Server) => {
                self.pipeline.end_answered(now, seen);
                self.pipeline.end(Outcome::Cut, now, seen);
            }
            None => self.pipeline.end(Outcome::Cut, now, seen),
        }
    }

    /// The connection is not followed any more.
    pub(super) fn lost(&mut self, now: Instant, seen: &mut VecDeque<Observation>) {
        self.pipeline.end(Outcome::Unfollowed, now, seen);
    }

    /// The head of a request has come.
    fn asked(
        &mut self,
        mut request: RequestHead,
        begun: Instant,
        now: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        self.has_begun = true;
        let method = request.method;
        let body = request.body.take();
        let is_early = self.pipeline.begin(request, begun, seen)?;
        match body {
            Some(body) => self.client = Part::Body(body),
            None => self.pipeline.sent(now, seen),
        }
        // One that was answered before it was understood has its answer.
        if method == Method::Connect && !is_early {
            self.tunnel = Tunnel::Asked;
        }
        Ok(())
    }

    /// The head of a response has come.
    fn answered(
        &mut self,
        response: ResponseHead,
        begun: Instant,
        now: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        if response.is_interim() {
            return Ok(());
        }
        if let Some(started) = self.early() {
            self.has_begun = true;
            self.pipeline.begin_early(started, seen)?;
        }
        let Some(exchange) = self.pipeline.awaiting() else {
            return Err(Lost::Malformed);
        };
        let method = exchange.method;
        exchange.status = Some(response.status);
        exchange.first_byte = Some(begun.saturating_duration_since(exchange.started));

        let end = match (method, response.status) {
            (_, 101) => Some(Lost::Upgraded),
            (Method::Connect, 200..300) => Some(Lost::Tunnel),
            _ => None,
        };
        if let Some(end) = end {
            self.pipeline.answered(now, seen);
            return Err(end);
        }
        if method == Method::Connect && self.tunnel == Tunnel::Asked {
            self.tunnel = Tunnel::None;
        }
        match response.body(method)? {
            Some(body) => self.server = Part::Body(body),
            None => self.pipeline.answered(now, seen),
        }
        Ok(())
    }

    /// When the request began of which only a part of the head has come, if none before it is in
    /// flight: a server may refuse it at once.
    fn early(&self) -> Option<Instant> {
        match &self.client {
            Part::Head(head) if self.pipeline.is_empty() => head.begun(),
            _ => None,
        }
    }
}

/// After a request has been understood, what is no HTTP was some.
fn judged(lost: Lost, has_begun: bool) -> Lost {
    match lost {
        Lost::NotHttp if has_begun => Lost::Malformed,
        lost => lost,
    }
}

/// What a head is that cannot be read.
fn unfit(head: &[u8], is_fit: impl Fn(&[u8]) -> bool) -> Lost {
    let first_line = head.split_inclusive(|byte| *byte == b'\n').next();
    if first_line.is_some_and(is_fit) {
        Lost::Malformed
    } else {
        Lost::NotHttp
    }
}
