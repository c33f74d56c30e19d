//! HTTP/2 (RFC 9113) and gRPC over it.
//!
//! # What counts as what
//!
//! - A request begins with its head, and its exchange ends when request and response both have
//!   (`END_STREAM`), or when either side gives the stream up (`RST_STREAM`). A reset that follows a
//!   whole response only says that the rest of the request was not needed: by a server with
//!   `NO_ERROR`, by a client with that or `CANCEL`. Such an exchange is complete.
//! - A server that goes away (`GOAWAY`) has reset every stream above the last that it names, also
//!   those that the client opens before it hears of it.
//! - Interim responses (1xx) are no response.
//! - A `CONNECT` that is granted, also an extended one (RFC 8441), ends with the head of its
//!   response, as an upgrade of HTTP/1 does: what follows is somebody else's conversation, and not
//!   counted. The other streams go on.
//! - What a server pushes is no request: no client has made it. Its header blocks are read all the
//!   same, since later ones may refer to them.
//!
//! A server may say its settings before its client has said anything; they are kept until the client
//! shows what it speaks ([`Greeting`]).
//!
//! # What it costs
//!
//! For each connection at most 1,024 streams in flight ([`Lost::TooManyRequests`]), of some 3 KiB
//! each in the worst case. For each direction at most one header block of 64 KiB while it is not
//! whole, which may unfold to 256 KiB ([`Lost::HeadTooLong`]), field by field and never all at once;
//! and a table of 64 KiB ([`Lost::Compression`]), of which encoders use 4 KiB unless both sides agree
//! on more. Streams that have ended leave nothing behind, however many are opened and reset. Content
//! is counted and never held. The work is linear in the bytes that pass, but for fields that refer
//! to the table, of which a block has 8,192 at most.

mod frame;
mod greeting;
mod grpc;
mod head;
mod hpack;
mod side;
mod streams;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, time::Instant};

pub(super) use self::greeting::Greeting;
use self::{
    head::{RequestHead, ResponseHead},
    side::{Event, Side},
    streams::{Speaker, Streams, Teller},
};
use super::{Lost, Observation, Outcome};

/// The first bytes of a client that knows its server to speak HTTP/2 (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Follows one connection of HTTP/2.
#[derive(Debug, Default)]
pub(super) struct Http2 {
    /// How much of the preface has come.
    preface: usize,
    client: Side<RequestHead>,
    server: Side<ResponseHead>,
    streams: Streams,
}

impl Http2 {
    /// Bytes from the client, the preface first.
    pub(super) fn sent(
        &mut self,
        bytes: &[u8],
        now: Instant,
        seen: &mut VecDeque<Observation>,
    ) -> Result<(), Lost> {
        let tell = &mut Teller { now, seen };
        let streams = &mut self.streams;
        let preface = &PREFACE[self.preface..];
        let (start, mut bytes) = bytes.split_at(bytes.len().min(preface.len()));
        if !preface.starts_with(start) {
            return Err(Lost::Malformed);
        }
        self.preface += start.len();
        while let Some(event) = self.client.next(&mut bytes, now)? {
            match event {
                Event::Content { stream, bytes } => {
                    streams.content(Speaker::Client, stream, bytes);
                }
                Event::End { stream } => streams.end(Speaker::Client, stream, tell),
                Event::Head {
                    stream,
                    head,
                    began,
                    is_end,
                } => {
                    streams.request(stream, head, began, tell)?;
                    if is_end {
                        streams.end(Speaker::Client, stream, tell);
                    }
                }
                Event::Reset { stream, code } => {
                    streams.reset(Speaker::Client, stream, code, tell);
                }
                // Of what servers push.
                Event::GoAway { .. } => {}
            }
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
        let tell = &mut Teller { now, seen };
        let streams = &mut self.streams;
        while let Some(event) = self.server.next(&mut bytes, now)? {
            match event {
                Event::Content { stream, bytes } => {
                    streams.content(Speaker::Server, stream, bytes);
                }
                Event::End { stream } => streams.end(Speaker::Server, stream, tell),
                Event::Head {
                    stream,
                    head,
                    began,
                    is_end,
                } => {
                    streams.response(stream, &head, began, tell);
                    if is_end {
                        streams.end(Speaker::Server, stream, tell);
                    }
                }
                Event::Reset { stream, code } => {
                    streams.reset(Speaker::Server, stream, code, tell);
                }
                Event::GoAway { last } => streams.refuse_above(last, tell),
            }
        }
        Ok(())
    }

    /// Whatever is in flight ends so.
    pub(super) fn end(&mut self, outcome: Outcome, now: Instant, seen: &mut VecDeque<Observation>) {
        self.streams.end_all(outcome, &mut Teller { now, seen });
    }
}
